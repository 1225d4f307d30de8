"""A market whose people click by a law that is written down here, and that no model of this project has the form of.

A person has tastes over topics and, within a visit, a mood: one topic that matters more, which lasts for a few visits.
An item has a mix of topics, a quality, a price and a birth; what is new appeals more. Categories are uneven, as in the
paper. Nothing here is an inner product of two vectors: moods come and go, and newness, quality and price add to taste.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from feature_repo.card import Clicks, DatasetCard, Field_, Side, Table

Array = np.ndarray
DAY_MS = 86_400_000
START_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
TOPICS = 12
POSITION_BIAS = 0.9  # of the items shown, each is looked at so much less often than the one before

CARD = DatasetCard(
    name="market",
    title="A simulated market",
    history=200,
    window_days=10,
    clicks=Clicks(path="none", query="query_id", item="item_id", time="event_time", time_unit="ms"),
    query=Side(features={"segment": Field_(column="segment", kind="category")}, half_lives=["1h", "24h"]),
    item=Side(
        table=Table(path="none", id="id"),
        features={
            "category": Field_(column="category", kind="category"),
            "price": Field_(column="price", kind="number"),
            "born": Field_(column="born", kind="time"),
        },
        half_lives=["1h", "6h", "24h"],
        category="category",
    ),
)


@dataclass(frozen=True)
class Market:
    """People and items. taste [U, K], topics [V, K], category [V] (the main topic), quality, price [V] (logarithms),
    budget [U], born [V] ms, noise [U, V]: what the common ranker gets wrong of each pair."""

    taste: Array
    topics: Array
    category: Array
    quality: Array
    price: Array
    budget: Array
    born: Array
    noise: Array

    def catalogues(self) -> dict[str, pa.Table]:
        """What the towers may know: a person's segment (a noisy main taste), an item's category, price and birth."""
        users, items = len(self.taste), len(self.topics)
        segment = np.where(np.arange(users) % 4 == 0, np.arange(users) % TOPICS, self.taste.argmax(1))
        return {
            "query": pa.table(
                {"id": names("u", np.arange(users)), "segment": pa.array([f"segment {k}" for k in segment])}
            ),
            "item": pa.table(
                {
                    "id": names("v", np.arange(items)),
                    "category": pa.array([f"topic {k}" for k in self.category]),
                    "price": self.price.astype(np.float32),
                    "born": self.born,
                }
            ),
        }

    def appeal(self, users: Array, moods: Array, now: int) -> Array:
        """[N, V] the log-odds that a person in a mood clicks an item that they look at; −∞ for what is not born yet."""
        match = self.taste[users] @ self.topics.T
        mood = self.category[None, :] == moods[:, None]
        age_days = (now - self.born) / DAY_MS
        fresh = np.exp2(-np.maximum(age_days, 0) / 2)
        odds = -5.0 + 4.0 * np.sqrt(match) + 2.0 * mood * match + 0.7 * self.quality + 1.2 * fresh
        return np.where(age_days >= 0, odds, -np.inf)

    def buys(self, users: Array, items: Array) -> Array:
        """[N] the chance that a click becomes a purchase: quality helps, a price away from one's budget does not."""
        away = np.abs(self.price[items] - self.budget[users])
        return 1 / (1 + np.exp(1.5 - 0.7 * self.quality[items] + away))


def names(letter: str, rows: Array) -> list[str]:
    return [f"{letter}{row}" for row in rows]


def make_market(users: int, items: int, days: int, seed: int) -> Market:
    """A market of so many people, where half of the items are born over the ``days`` that are simulated."""
    rng = np.random.default_rng([seed, 0])
    share = 1 / np.arange(1, TOPICS + 1)  # uneven categories
    category = rng.choice(TOPICS, items, p=share / share.sum())
    topics = rng.dirichlet(np.full(TOPICS, 0.3), items)
    topics = 0.4 * topics
    topics[np.arange(items), category] += 0.6
    born = START_MS + np.where(rng.random(items) < 0.5, 0, rng.integers(0, days * DAY_MS, items))
    return Market(
        taste=rng.dirichlet(np.full(TOPICS, 0.25), users),
        topics=topics,
        category=category,
        quality=rng.normal(0, 1, items),
        price=rng.normal(3, 0.7, items),
        budget=rng.normal(3, 0.5, users),
        born=born,
        noise=rng.normal(0, 0.7, (users, items)).astype(np.float32),
    )


def moods_after(market: Market, moods: Array, visitors: Array, rng: np.random.Generator) -> Array:
    """[U] moods once the visitors have come: three in ten come in a new one, drawn from their tastes."""
    fresh = visitors[rng.random(len(visitors)) < 0.3]
    drawn = (market.taste[fresh].cumsum(1) > rng.random((len(fresh), 1))).argmax(1)
    moods = moods.copy()
    moods[fresh] = drawn
    return moods


def organic(market: Market, users: Array, moods: Array, now: int, rng: np.random.Generator) -> Array:
    """[N] what people click who come by search and not by recommendation: one item each, by its appeal."""
    odds = market.appeal(users, moods, now)
    return (odds + rng.gumbel(size=odds.shape)).argmax(1)


def shown(market: Market, users: Array, candidates: Array, moods: Array, now: int, slots: int) -> Array:
    """[N, slots] what the common ranker shows of [N, C] candidates (−1 = none): the law, with an error of its own."""
    odds = market.appeal(users, moods, now) + market.noise[users]
    row = np.arange(len(users))[:, None]
    value = np.where(candidates >= 0, odds[row, np.maximum(candidates, 0)], -np.inf)
    best = np.argsort(-value, axis=1, kind="stable")[:, :slots]
    return np.where(np.isfinite(value[row, best]), candidates[row, best], -1)


def react(
    market: Market, users: Array, lists: Array, moods: Array, now: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """What people do with their lists [N, slots]: clicked [N, slots] booleans, and spent [N, slots]."""
    row = np.arange(len(users))[:, None]
    odds = market.appeal(users, moods, now)[row, np.maximum(lists, 0)]
    chance = POSITION_BIAS ** np.arange(lists.shape[1]) / (1 + np.exp(-odds)) * (lists >= 0)
    clicked = rng.random(lists.shape) < chance
    buys = market.buys(np.repeat(users, lists.shape[1]), np.maximum(lists, 0).ravel()).reshape(lists.shape)
    bought = clicked & (rng.random(lists.shape) < buys)
    return clicked, bought * np.exp(market.price[np.maximum(lists, 0)])
