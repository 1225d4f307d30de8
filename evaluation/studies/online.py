"""Seven days of an A/B test in the simulated market: each arm retrieves 100 candidates for its half of the people.

Every night each arm's model is trained anew on the ten days before, all clicks of everyone. By day the hours follow
each other; before each, both models fold in all clicks up to it. The arms differ in retrieval alone: people, ranker,
slots and the clicks to learn from are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from evaluation.models import build
from evaluation.ranks import BLOCK
from evaluation.retriever import Retriever
from evaluation.studies import market as world
from evaluation.studies.market import CARD, DAY_MS, START_MS, Market
from evaluation.studies.runs import Stage
from evaluation.test_clicks import make_test
from feature_repo.atomic import atomic_write
from training.build import build_tables, in_fold_order
from training.training_set import TrainingSet

Array = np.ndarray
RESAMPLES = 2_000


class OnlineConfig(BaseModel):
    """The test's sizes."""

    users: int = 2_000
    items: int = 1_500
    days: int = 7
    window: int = 10
    rounds: int = 12
    """Moments of a day at which the arms are asked: every two hours."""
    visits: float = 0.15
    """The share of people who come in a round."""
    searches: float = 0.06
    """The share who click something in a round without recommendation."""
    candidates: int = 100
    slots: int = 10
    arms: tuple[str, str] = ("two-tower", "dat")
    """The control and the treatment: names of models."""
    settings: dict[str, dict[str, Any]] = {}
    """By arm, settings other than the model's own."""
    seed: int = 0


@dataclass
class Day:
    """One day: its clicks in order of time, and for each person what their arm got out of them."""

    users: Array
    items: Array
    times: Array
    impressions: Array
    clicks: Array
    spent: Array

    def save(self, file: Path) -> None:
        with atomic_write(file) as staging, staging.open("wb") as whole:
            np.savez(whole, **vars(self))

    @classmethod
    def load(cls, file: Path) -> "Day":
        with np.load(file) as held:
            return cls(**held)


def run(config: OnlineConfig, folder: Path, stage: Stage) -> dict[str, Any]:
    """The whole test; days that ``folder`` holds are not simulated again."""
    folder.mkdir(parents=True, exist_ok=True)
    total = config.window + config.days
    market = world.make_market(config.users, config.items, total, config.seed)
    arm = np.random.default_rng([config.seed, 1]).permutation(config.users) % 2
    days: list[Day] = []
    moods = np.random.default_rng([config.seed, 2]).integers(0, world.TOPICS, config.users)
    for number in range(total):
        name = "before" if number < config.window else "day"
        file = folder / f"{name}-{number + 1 - (config.window if name == 'day' else 0):02d}.npz"
        if not file.is_file():
            with stage(f"{file.stem}: {'two nights and a day' if name == 'day' else 'a day without recommendations'}"):
                _simulate(config, market, arm, days, number, moods).save(file)
        days.append(Day.load(file))
        moods = _moods_at_the_end(config, market, number, moods)
    return summarise(config, arm, days[config.window :])


def _rounds(
    config: OnlineConfig, market: Market, number: int, moods: Array
) -> Iterator[tuple[int, Array, Array, np.random.Generator]]:
    """(time, visitors, moods, generator) of each round: from the seed and the day alone, whatever the arms do."""
    for hour in range(config.rounds):
        rng = np.random.default_rng([config.seed, 3, number, hour])
        visitors = np.flatnonzero(rng.random(config.users) < config.visits)
        moods = world.moods_after(market, moods, visitors, rng)
        yield START_MS + number * DAY_MS + hour * DAY_MS // config.rounds, visitors, moods, rng


def _moods_at_the_end(config: OnlineConfig, market: Market, number: int, moods: Array) -> Array:
    for _, _, after, _ in _rounds(config, market, number, moods):
        moods = after
    return moods


def _simulate(config: OnlineConfig, market: Market, arm: Array, past: list[Day], number: int, moods: Array) -> Day:
    """One day; from the window's end on, with both arms' models trained the night before."""
    catalogues = market.catalogues()
    models = []
    if number >= config.window:
        log = _log(past[number - config.window :])
        cut_ms = START_MS + number * DAY_MS
        tables = build_tables(log.slice(0, 0), log, catalogues, CARD, cut_ms, 4, config.seed)
        data = TrainingSet.of(tables, CARD)
        for name in config.arms:
            models.append(build(name, config.seed, **config.settings.get(name, {})))
            models[-1].fit(data, cut_ms)
    clicks: list[tuple[Array, Array, Array]] = []
    totals = np.zeros((3, config.users))
    for now, visitors, in_mood, rng in _rounds(config, market, number, moods):
        searching = np.flatnonzero(rng.random(config.users) < config.searches)
        found = world.organic(market, searching, in_mood[searching], now, rng)
        happened = [(searching, found)]
        for side, model in enumerate(models):
            mine = visitors[arm[visitors] == side]
            candidates = retrieve(model, data, catalogues, clicks, mine, now, config.candidates)
            lists = world.shown(market, mine, candidates, in_mood[mine], now, config.slots)
            # Its own generator: what one arm's people do does not hang on how many lists the other's got.
            clicked, spent = world.react(
                market, mine, lists, in_mood[mine], now, np.random.default_rng([config.seed, 4, number, now, side])
            )
            totals[:, mine] += (lists >= 0).sum(1), clicked.sum(1), spent.sum(1)
            row, slot = np.nonzero(clicked)
            happened.append((mine[row], lists[row, slot]))
        who, what = (np.concatenate(parts) for parts in zip(*happened, strict=True))
        order = rng.permutation(len(who))  # within the round they come in any order
        times = now + 1 + np.arange(len(who)) * (DAY_MS // config.rounds - 2) // max(len(who), 1)
        clicks.append((who[order], what[order], times))
    users, items, times = (np.concatenate(parts) for parts in zip(*clicks, strict=True))
    return Day(users, items, times, *totals)


def _log(days: list[Day]) -> pa.Table:
    columns = zip(*((day.users, day.items, day.times) for day in days), strict=True)
    return in_fold_order(_table(*(np.concatenate(parts) for parts in columns)), CARD)


def _table(users: Array, items: Array, times: Array) -> pa.Table:
    return pa.table(
        {
            "query_id": pa.array(world.names("u", users), pa.string()),
            "item_id": pa.array(world.names("v", items), pa.string()),
            "event_time": pa.array(times, pa.int64()),
            "event_id": [f"{user}-{item}-{time}" for user, item, time in zip(users, items, times, strict=True)],
        }
    )


def retrieve(
    model: Retriever, data: TrainingSet, catalogues: dict[str, pa.Table], clicks: list, visitors: Array, now: int,
    count: int,
) -> Array:  # fmt: skip
    """[N, count] the best unseen items for each visitor (−1 = no more), with today's ``clicks`` folded in before.

    The visits stand behind the clicks as rows of their own, all of one moment, so that none of them is folded before
    another is answered.
    """
    item = int(data.items.ids[0][1:])  # what a visit "clicks" is never read
    visits = (visitors, np.full(len(visitors), item), np.full(len(visitors), now))
    table = _table(*(np.concatenate(parts) for parts in zip(*clicks, visits, strict=True)))
    queries, items = data.at_cut
    test = make_test(
        table, catalogues, CARD, queries, items, data.query_spec, data.item_spec, data.excludes_seen, now - now % DAY_MS
    )
    scorer, before = model.scorer(test, live=True), len(test) - len(visitors)
    for block in test.clicks[slice(0, before)].blocks(BLOCK):
        scorer.begin(block)
        scorer.end(block)
    rows = slice(before, len(test))
    scorer.begin(rows)
    scores = np.where(test.exists(rows, live=True), scorer.score(rows), -np.inf)
    scores[test.seen(rows)] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    ids = np.array([int(name[1:]) for name in test.items.ids])
    return np.where(np.isfinite(np.take_along_axis(scores, best, 1)), ids[best], -1)


def summarise(config: OnlineConfig, arm: Array, days: list[Day]) -> dict[str, Any]:
    """CTR (clicks an impression) and GMV (spent a person) of both arms by day and overall, and the gains.

    Intervals are the middle 95 % of bootstrap samples of each arm's people: a person's days belong together.
    """
    rng = np.random.default_rng([config.seed, 5])
    data = np.stack([[day.impressions, day.clicks, day.spent] for day in days])  # [days, 3, users]
    people = [np.flatnonzero(arm == side) for side in (0, 1)]
    drawn = [rng.choice(mine, (RESAMPLES, len(mine))) for mine in people]
    per_day = [_measures(data, mine[None])[0] for mine in people]  # [days+1, 2]
    resampled = [_measures(data, sample) for sample in drawn]  # [R, days+1, 2]
    gains = _gain(resampled[1], resampled[0])
    result: dict[str, Any] = {"experiment": "online", "config": config.model_dump(mode="json"), "arms": {}, "gain": {}}
    for side, name in enumerate(config.arms):
        low, high = np.percentile(resampled[side], [2.5, 97.5], axis=0)
        result["arms"][name] = {
            metric: {"value": per_day[side][:, k].tolist(), "low": low[:, k].tolist(), "high": high[:, k].tolist()}
            for k, metric in enumerate(("ctr", "gmv"))
        }
    low, high = np.percentile(gains, [2.5, 97.5], axis=0)
    value = _gain(per_day[1], per_day[0])
    for k, metric in enumerate(("ctr", "gmv")):
        against = 2 * min((gains[:, -1, k] <= 0).mean(), (gains[:, -1, k] >= 0).mean())
        result["gain"][metric] = {
            "value": value[:, k].tolist(), "low": low[:, k].tolist(), "high": high[:, k].tolist(),
            "p": float(max(against, 1 / RESAMPLES)),
        }  # fmt: skip
    result["impressions"] = [int(data[:, 0, mine].sum()) for mine in people]
    return result


def _gain(treatment: Array, control: Array) -> Array:
    """Relative gain; 0 where the control got nothing, which happens in tests of a few people only."""
    return np.divide(treatment, control, out=np.ones_like(treatment), where=control > 0) - 1


def _measures(data: Array, samples: Array) -> Array:
    """[R, days + 1, 2] CTR and GMV of samples [R, n] of people, by day and, last, of all days."""
    weight = np.zeros((len(samples), data.shape[2]), np.float32)
    for row, sample in enumerate(samples):
        weight[row] = np.bincount(sample, minlength=data.shape[2])
    sums = np.einsum("ru,dku->rdk", weight, data.astype(np.float32))
    sums = np.concatenate([sums, sums.sum(1, keepdims=True)], axis=1)
    ctr = sums[:, :, 1] / np.maximum(sums[:, :, 0], 1)
    return np.stack([ctr, sums[:, :, 2] / samples.shape[1]], axis=2)
