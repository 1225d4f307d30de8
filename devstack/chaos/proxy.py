"""A proxy before a broker that knows Kafka's requests: it holds them, loses answers, and sends them again late."""

import asyncio
import random
import struct
import threading

TAMPERED = {0: "Produce", 24: "AddPartitionsToTxn", 25: "AddOffsetsToTxn", 26: "EndTxn", 28: "TxnOffsetCommit"}


class Proxy:
    """Forwards ``port`` to a broker's port on this machine, on a thread of its own, until :meth:`stop`.

    Args:
        chance: Of a request of a transaction to be tampered with.
    """

    def __init__(self, port: int, broker: int, chance: float, seed: int = 0):
        self.port, self.broker, self.chance = port, broker, chance
        self.tampered = 0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._late: set[asyncio.Task] = set()
        self._held: dict[bytes, bytes] = {}
        """Of a client, the end of a transaction that arrives again in the midst of its next one."""

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self.broker)
        except OSError:
            writer.close()
            return
        answers = asyncio.ensure_future(_pipe(from_broker, writer))
        try:
            while True:
                request = await _frame(reader)
                api = TAMPERED.get(struct.unpack(">h", request[4:6])[0])
                if api and self._random.random() < self.chance:
                    self.tampered += 1
                    kind = self._random.choice(("hold", "lose the answer", "late", "late and done"))
                    if api == "EndTxn" and self._random.random() < 0.5:
                        self._held[_client(request)] = request
                        kind = "lose the answer"
                    if kind == "hold":
                        await asyncio.sleep(self._random.uniform(0.05, 0.5))
                    else:
                        # No network sends a request again whose answer has arrived.
                        answers.cancel()
                        if kind != "late":
                            to_broker.write(request)
                            await to_broker.drain()
                            await asyncio.sleep(0.02)
                        if kind != "lose the answer":
                            self._send_late(request)
                        return  # the connection ends without an answer
                to_broker.write(request)
                await to_broker.drain()
                if api == "Produce" and (held := self._held.pop(_client(request), None)):
                    await asyncio.sleep(0.02)
                    self._send_late(held, 0)
                    await asyncio.sleep(0.05)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            answers.cancel()
            for side in (writer, to_broker):
                side.close()

    def _send_late(self, request: bytes, after_s: float | None = None) -> None:
        """On another connection, when the client has long sent it again."""
        pause = self._random.uniform(0.01, 1.0) if after_s is None else after_s

        async def late() -> None:
            await asyncio.sleep(pause)
            _, writer = await asyncio.open_connection("127.0.0.1", self.broker)
            writer.write(request)
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.close()

        task = self._loop.create_task(late())
        self._late.add(task)
        task.add_done_callback(self._late.discard)


def _client(request: bytes) -> bytes:
    """The client id in the header of a request: a producer has one of its own."""
    (size,) = struct.unpack(">h", request[12:14])
    return request[14 : 14 + max(0, size)]


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(struct.unpack(">i", size)[0])


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
