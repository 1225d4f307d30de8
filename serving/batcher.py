"""Many callers ask at once; one loop answers them, in batches of what came in during the last read of the store.

Answering together costs little more than answering one, so the batch grows with the load by itself. Held answers
(``wait_for``) share one small look at what has been folded every few milliseconds, however many there are.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from model.settings.serving import ServingConfig
from serving.features import Columns
from serving.metrics import HELD, PENDING
from serving.online_store import StoreDown
from serving.retrieval import Answer, Answerer, Ask
from serving.token import Token

_HELD_EACH = 4  # answers that wait for clicks of one query at once
_CHUNK_ITEMS = 1_000  # items of one request that are computed before others have their turn
_TURN_ITEMS = 8_000  # that are looked at in one turn, unless one question alone needs more


class Overloaded(RuntimeError):
    """More requests wait than the service takes on; try again later."""


class NoSuchClick(ValueError):
    """Nobody has written the click that an answer is to wait for."""


class Closed(RuntimeError):
    """The service is stopping."""


@dataclass(slots=True)
class Pending:
    """A question on its way."""

    ask: Ask
    future: "asyncio.Future[Answer]"
    arrived: float
    token: Token | None = None
    deadline: float = 0.0
    reached: bool | None = None


class RequestBatcher:
    """Takes questions on the event loop and answers through futures.

    Args:
        read: What the online store knows of some queries.
        folded: The tokens, among some, whose clicks count in what ``read`` returns.
        written: Whether a token's click is in the log; None: that cannot be found out now.
    """

    def __init__(
        self,
        answerer: Answerer,
        read: Callable[[Sequence[str]], Awaitable[Columns]],
        folded: Callable[[set[Token]], Awaitable[set[Token]]],
        written: Callable[[Token], Awaitable[bool | None]],
        config: ServingConfig,
    ):
        self._answerer, self._read, self._folded, self._written = answerer, read, folded, written
        self._config = config
        self._waiting: deque[Pending] = deque()
        self._held: list[Pending] = []
        self._turn: asyncio.Task | None = None
        self._watch: asyncio.Task | None = None
        self._closed = False

    @property
    def pending(self) -> int:
        """Answers that wait for their turn."""
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Answers that wait for a click."""
        return len(self._held)

    async def retrieve(self, ask: Ask, wait_for: Token | None = None, timeout_s: float = 0.0) -> Answer:
        """Ask and wait for the answer; with ``wait_for``, until that click counts or the time is up.

        Raises:
            Overloaded: too many wait already. Closed: the service is stopping. NoSuchClick: the log has none there.
        """
        if wait_for is not None:
            written = await self._written(wait_for)
            if written is False:
                raise NoSuchClick(f"wait_for: {wait_for} is no click that was written.")
            if written is None:  # then it is looked at once whether it counts
                timeout_s = 0.0
        self._check(1)
        now = time.perf_counter()
        pending = Pending(ask, asyncio.get_running_loop().create_future(), now, wait_for, now + timeout_s)
        if wait_for is None:
            self._enqueue([pending])
        else:
            self._hold(pending)
        return await pending.future

    async def retrieve_many(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer some questions of one caller, a few at a time, so that others have their turns in between.

        Raises:
            Overloaded: too many wait already. Closed: the service is stopping.
        """
        self._check(len(asks))
        answers: list[Answer] = []
        each = max(1, _CHUNK_ITEMS // max((ask.weight for ask in asks), default=1))
        for at in range(0, len(asks), min(each, self._config.answer_batch)):
            now, loop = time.perf_counter(), asyncio.get_running_loop()
            part = asks[at : at + min(each, self._config.answer_batch)]
            some = [Pending(ask, loop.create_future(), now) for ask in part]
            self._enqueue(some)
            answers += await asyncio.gather(*(pending.future for pending in some))
        return answers

    async def close(self) -> None:
        """Answer what is there, held or not, then stop."""
        self._closed = True
        if self._watch is not None:
            await self._watch
        while self._turn is not None:
            await self._turn

    def _check(self, more: int) -> None:
        if self._closed:
            raise Closed("the service is stopping")
        if len(self._waiting) + more > self._config.max_pending:
            raise Overloaded(f"{len(self._waiting)} requests are waiting")

    def _hold(self, pending: Pending) -> None:
        self._held = [one for one in self._held if not one.future.done()]  # their callers went away
        same = Counter(one.ask.query_id for one in self._held)[pending.ask.query_id]
        if len(self._held) >= self._config.max_held or same >= _HELD_EACH:
            raise Overloaded(f"{len(self._held)} answers wait for clicks, {same} of them for this query's")
        self._held.append(pending)
        HELD.set(len(self._held))
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_held())

    def _enqueue(self, some: Sequence[Pending]) -> None:
        self._waiting.extend(some)
        PENDING.set(len(self._waiting))
        if self._turn is None:
            self._turn = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting or self._answerer.idle():
                batch = self._next()
                try:
                    columns = await self._read([pending.ask.query_id for pending in batch]) if batch else None
                except StoreDown:
                    columns = None
                self._answer(batch, columns)
                await asyncio.sleep(0)  # what has come in meanwhile is read, what is answered is sent
        finally:
            self._turn = None

    def _next(self) -> list[Pending]:
        batch: list[Pending] = []
        weight = 0
        while self._waiting and len(batch) < self._config.answer_batch:
            if batch and weight + self._waiting[0].ask.weight > _TURN_ITEMS:
                break
            pending = self._waiting.popleft()
            if not pending.future.done():  # else its caller went away
                batch.append(pending)
                weight += pending.ask.weight
        PENDING.set(len(self._waiting))
        return batch

    def _answer(self, batch: list[Pending], columns: Columns | None) -> None:
        if not batch:
            return
        began = time.perf_counter()
        try:
            answers: list[Answer | Exception] = list(self._answerer.answer([p.ask for p in batch], columns))
        except Exception:  # of one of them: the others must not pay for it
            answers = [self._alone(pending, columns, k) for k, pending in enumerate(batch)]
        for pending, answer in zip(batch, answers, strict=True):
            if pending.future.done():
                continue
            if isinstance(answer, Exception):
                pending.future.set_exception(answer)
                continue
            answer.reached = pending.reached
            answer.waited_ms = round((began - pending.arrived) * 1000, 3)
            pending.future.set_result(answer)

    def _alone(self, pending: Pending, columns: Columns | None, place: int) -> Answer | Exception:
        own = None if columns is None else {name: values[place : place + 1] for name, values in columns.items()}
        try:
            return self._answerer.answer([pending.ask], own)[0]
        except Exception as error:
            return error

    async def _watch_held(self) -> None:
        """Let held answers go once their clicks count, their time is up, or the service stops."""
        pause = self._config.poll_ms / 1000
        try:
            while self._held:
                began = time.perf_counter()
                try:
                    reached = await self._folded({p.token for p in self._held if p.token is not None})
                except StoreDown:
                    reached = set()
                now = time.perf_counter()
                held: list[Pending] = []
                ready: list[Pending] = []
                for pending in self._held:
                    pending.reached = pending.token in reached
                    if pending.future.done():
                        continue
                    (ready if pending.reached or now >= pending.deadline or self._closed else held).append(pending)
                self._held = held
                HELD.set(len(held))
                if ready:
                    self._enqueue(ready)
                if held:
                    # Look for at most a quarter of the time: a slow store must not be kept busy by looking.
                    await asyncio.sleep(max(pause, 3 * (now - began)))
        finally:
            self._watch = None
