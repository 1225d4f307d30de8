"""The desk: many callers ask at once, one thread answers them in batches, held answers included.

Answering together costs little more than answering one, so the batch grows with the load by itself. Held answers
(``wait_for_clicks``) share one small read of the store every few milliseconds, however many there are.
"""

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace

from serving.config import ServingConfig
from serving.features import StoreDown
from serving.retrieval import Answer, Answerer, Ask


class Busy(RuntimeError):
    """More requests wait than the service takes on; try again later."""


class Closed(RuntimeError):
    """The desk is closed."""


@dataclass(slots=True)
class _Slip:
    ask: Ask
    future: Future
    arrived: float
    deadline: float
    reached: bool | None = None


class Desk:
    """Takes questions from any thread, answers through futures."""

    def __init__(self, answerer: Answerer, config: ServingConfig):
        self._answerer = answerer
        self._config = config
        self._inbox: queue.SimpleQueue[_Slip | None] = queue.SimpleQueue()
        self._held: list[_Slip] = []
        self._pending = 0
        self._pending_lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        return self._pending

    def submit(self, ask: Ask) -> "Future[Answer]":
        """Raises:
        Busy: too many requests wait already.
        Closed: the desk is closed.
        """
        with self._pending_lock:
            if self._closed:
                raise Closed("the service is stopping")
            if self._pending >= self._config.max_pending:
                raise Busy(f"{self._pending} requests are waiting")
            self._pending += 1
        arrived = time.perf_counter()
        future: Future[Answer] = Future()
        future.add_done_callback(self._settled)
        self._inbox.put(_Slip(ask, future, arrived, arrived + ask.timeout_s))
        return future

    def retrieve(self, ask: Ask) -> Answer:
        """Ask and wait for the answer."""
        return self.submit(ask).result()

    def close(self) -> None:
        """Answer what is there, then stop."""
        with self._pending_lock:
            self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _settled(self, _: Future) -> None:
        with self._pending_lock:
            self._pending -= 1

    def _run(self) -> None:
        pause = self._config.poll_ms / 1000
        closing = False
        while not closing or self._held:
            ready, closing = self._receive(pause, closing)
            if self._held:
                began = time.perf_counter()
                ready += self._release(closing)
                # Ask the store for at most a quarter of the time, so that slow reads of many starve nobody.
                pause = max(self._config.poll_ms / 1000, 3 * (time.perf_counter() - began))
            for at in range(0, len(ready), self._config.answer_batch):
                self._answer(ready[at : at + self._config.answer_batch])

    def _receive(self, pause: float, closing: bool) -> tuple[list[_Slip], bool]:
        """What has come in: waits for it if nothing is held, else at most ``pause`` seconds."""
        ready: list[_Slip] = []
        block, timeout = not closing, pause if self._held else None
        while True:
            try:
                slip = self._inbox.get(block, timeout)
            except queue.Empty:
                return ready, closing
            block = False
            if slip is None:
                closing = True
            elif slip.ask.wait_for_clicks is None:
                ready.append(slip)
            else:
                self._held.append(slip)

    def _release(self, closing: bool) -> list[_Slip]:
        """Held slips whose clicks have arrived, or whose time is up."""
        held, self._held = [slip for slip in self._held if not slip.future.cancelled()], []
        if not held:
            return []
        try:
            there = self._answerer.reached(
                [slip.ask.query_id for slip in held], [slip.ask.wait_for_clicks or 0 for slip in held]
            )
        except StoreDown:
            there = [False] * len(held)
        now, ready = time.perf_counter(), []
        for slip, slip.reached in zip(held, there, strict=True):
            if slip.reached or now >= slip.deadline or closing:
                ready.append(slip)
            else:
                self._held.append(slip)
        return ready

    def _answer(self, slips: list[_Slip]) -> None:
        slips = [slip for slip in slips if slip.future.set_running_or_notify_cancel()]
        if not slips:
            return
        began = time.perf_counter()
        try:
            answers = self._answerer.answer([slip.ask for slip in slips])
        except Exception as error:  # the callers get it; the desk goes on
            for slip in slips:
                slip.future.set_exception(error)
            return
        for slip, answer in zip(slips, answers, strict=True):
            waited = round((began - slip.arrived) * 1000, 3)
            slip.future.set_result(replace(answer, reached=slip.reached, waited_ms=waited))
