"""Many callers, one loop: turns, waiting for clicks, and what happens when it is too much."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from model.settings.serving import ServingConfig
from serving.batcher import Closed, NoSuchClick, Overloaded, RequestBatcher
from serving.online_store import StoreDown
from serving.retrieval import Answer, Ask
from serving.rules import Boost, Rules
from serving.token import Token


class Slow:
    """Answers in a time that grows with what is asked for; fails where it is told to."""

    def __init__(self, s_per_item: float = 0.0):
        self.s_per_item = s_per_item
        self.batches: list[int] = []

    def answer(self, asks: Sequence[Ask], columns) -> list[Answer]:
        if any(ask.query_id == "bad" for ask in asks):
            raise ValueError("bad")
        self.batches.append(len(asks))
        time.sleep(self.s_per_item * sum(ask.n for ask in asks))
        fallback = "store-down" if columns is None else None
        return [Answer(ask.query_id, None, ["a"], [1.0], "stream", fallback, 1, 1, 0, 0) for ask in asks]

    def idle(self) -> bool:
        return False


def made(
    answerer: Slow | None = None, folded=lambda tokens: set(), read=None, written: bool | None = True, **settings
) -> RequestBatcher:
    async def reads(ids: Sequence[str]):
        await asyncio.sleep(0.001)
        return {"ids": list(ids)}

    async def look(tokens: set[Token]) -> set[Token]:
        return folded(tokens)

    async def there(token: Token) -> bool | None:
        return written

    return RequestBatcher(answerer or Slow(), read or reads, look, there, ServingConfig(**settings))


def test_what_comes_in_during_a_read_is_answered_together():
    answerer = Slow()

    async def run() -> None:
        batcher = made(answerer, answer_batch=8)
        answers = await asyncio.gather(*(batcher.retrieve(Ask(f"q{k}")) for k in range(20)))
        assert [answer.query_id for answer in answers] == [f"q{k}" for k in range(20)]

    asyncio.run(run())
    assert answerer.batches == [8, 8, 4]


def test_a_turn_is_shorter_where_each_question_looks_at_more_items():
    """Rules may look at thousands of items each: 32 of them in one turn held everybody up for seconds."""
    answerer = Slow()

    async def run() -> None:
        batcher = made(answerer)
        few_of_each = Rules(max_per_category=1)
        boosted = Rules(boosts=(Boost({}, 0.1),) * 9)
        asks = [Ask(f"q{k}", n=10, rules=few_of_each) for k in range(5)] + [Ask("q5", n=10, rules=boosted)]
        asks += [Ask(f"q{k}", n=10) for k in range(6, 12)]
        answers = await asyncio.gather(*map(batcher.retrieve, asks))
        assert [answer.query_id for answer in answers] == [f"q{k}" for k in range(12)]
        await batcher.retrieve_many([Ask(f"q{k}", n=1, rules=few_of_each) for k in range(3)])

    asyncio.run(run())
    assert answerer.batches == [2, 2, 1, 1, 6, 1, 1, 1]


def test_one_question_that_fails_costs_the_others_of_its_batch_nothing():
    async def run() -> None:
        batcher = made()
        asks = [batcher.retrieve(Ask(id_)) for id_ in ("q0", "bad", "q1")]
        first, bad, last = await asyncio.gather(*asks, return_exceptions=True)
        assert (first.query_id, last.query_id) == ("q0", "q1") and isinstance(bad, ValueError)

    asyncio.run(run())


@pytest.mark.flaky(reruns=2)
def test_a_hundred_questions_of_one_caller_do_not_hold_up_another():
    """Each takes 4 ms, together 400: whoever asks meanwhile waits for some of them at most."""

    async def run() -> None:
        batcher = made(Slow(s_per_item=4e-5), max_pending=1_000)
        many = asyncio.create_task(batcher.retrieve_many([Ask(f"q{k}", n=100) for k in range(100)]))
        await asyncio.sleep(0.02)
        waits = []
        while not many.done():
            began = time.perf_counter()
            await batcher.retrieve(Ask("other", n=1))
            waits.append(time.perf_counter() - began)
        assert len(await many) == 100
        assert len(waits) > 5 and sorted(waits)[-2] < 0.15, waits

    asyncio.run(run())


def test_sixty_held_answers_come_when_their_clicks_do_and_others_meanwhile():
    arrived: set[Token] = set()

    async def run() -> None:
        batcher = made(folded=lambda tokens: tokens & arrived)
        held = [asyncio.create_task(batcher.retrieve(Ask(f"q{k}"), Token(k % 2, k), timeout_s=20)) for k in range(60)]
        await asyncio.sleep(0.05)
        assert batcher.held == 60
        assert (await batcher.retrieve(Ask("other"))).reached is None
        assert not any(task.done() for task in held)
        arrived.update(Token(k % 2, k) for k in range(60))
        answers = await asyncio.wait_for(asyncio.gather(*held), 60)
        assert all(answer.reached for answer in answers)
        assert batcher.held == batcher.pending == 0

    asyncio.run(run())


@pytest.mark.parametrize("store_down", [False, True])
@pytest.mark.flaky(reruns=2)
def test_a_wait_that_is_not_reached_ends_with_its_time(store_down):
    def look(tokens: set[Token]) -> set[Token]:
        if store_down:
            raise StoreDown("away")
        return set()

    async def run() -> None:
        began = time.perf_counter()
        answer = await made(folded=look).retrieve(Ask("q0"), Token(0, 5), timeout_s=0.3)
        assert answer.reached is False and 0.25 < time.perf_counter() - began < 2

    asyncio.run(run())


def test_nobody_waits_for_a_click_that_is_not_there_nor_for_one_of_which_that_cannot_be_found_out():
    async def run() -> None:
        forged = made(written=False)
        with pytest.raises(NoSuchClick, match="0:5"):
            await forged.retrieve(Ask("q0"), Token(0, 5), timeout_s=600)
        assert forged.held == 0
        for counts in (True, False):
            unknown = made(written=None, folded=lambda tokens, counts=counts: tokens if counts else set())
            assert (await unknown.retrieve(Ask("q0"), Token(0, 5), timeout_s=600)).reached is counts

    asyncio.run(run())


def test_held_answers_have_a_small_budget_of_their_own_and_a_smaller_one_for_each_query():
    async def run() -> None:
        batcher = made(max_held=6)
        hold = lambda query: asyncio.create_task(batcher.retrieve(Ask(query), Token(0, 9), timeout_s=30))  # noqa: E731
        held = [hold("same") for _ in range(5)]
        await asyncio.sleep(0.01)
        assert sum(task.done() for task in held) == 1  # the fifth of one query is refused
        held += [hold(f"q{k}") for k in range(3)]
        await asyncio.sleep(0.01)
        refused = [task.exception() for task in held if task.done()]
        assert len(refused) == 2 and all(isinstance(error, Overloaded) for error in refused)
        assert (await batcher.retrieve(Ask("other"))).items == ["a"], "held answers must not keep others out"
        for task in held:
            task.cancel()  # their callers went away
        await asyncio.sleep(0.05)
        assert batcher.held == 0

    asyncio.run(run())


def test_too_many_are_refused_and_later_ones_answered():
    async def run() -> None:
        batcher = made(Slow(s_per_item=1e-4), max_pending=3)
        results = await asyncio.gather(*(batcher.retrieve(Ask(f"q{k}")) for k in range(9)), return_exceptions=True)
        assert sum(isinstance(result, Overloaded) for result in results) == 6
        assert (await batcher.retrieve(Ask("later"))).items

    asyncio.run(run())


def test_without_the_store_answers_say_so():
    async def down(_: Sequence[str]):
        raise StoreDown("away")

    assert asyncio.run(made(read=down).retrieve(Ask("q0"))).fallback == "store-down"


def test_closing_answers_what_is_there_and_takes_nothing_new():
    async def run() -> None:
        batcher = made()
        held = asyncio.create_task(batcher.retrieve(Ask("q0"), Token(0, 9), timeout_s=600))
        asked = asyncio.create_task(batcher.retrieve(Ask("q1")))
        await asyncio.sleep(0)
        await asyncio.wait_for(batcher.close(), 60)
        assert (await held).reached is False and (await asked).items
        with pytest.raises(Closed):
            await batcher.retrieve(Ask("q2"))

    asyncio.run(run())
