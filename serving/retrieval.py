"""From queries to their top N: online store → query tower → live index."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from serving.clock import Clock
from serving.corpus import Corpus
from serving.features import Counts, OnlineFeatures, StoreDown
from serving.query_state import QueryStates
from serving.query_vectors import QueryVectors
from serving.served import Served


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    at_ms: the moment of the answer (None: now) · category, allow: only its items, only these · wait_for_clicks: hold
    the answer until the query's activity counts that many clicks, at most timeout_s · details: titles, categories and
    reasons as well · shown: somebody will see the answer · popular: rank by trailing popularity whatever is known.
    """

    query_id: str
    n: int = 100
    at_ms: int | None = None
    exclude_seen: bool = True
    category: str | None = None
    allow: tuple[str, ...] | None = None
    wait_for_clicks: int | None = None
    timeout_s: float = 2.0
    details: bool = False
    shown: bool = True
    popular: bool = False


@dataclass(slots=True)  # not frozen: an answer has a hundred, and freezing makes them seven times as slow to make
class Found:
    """One item of an answer. ``because``: the item, among the query's latest, that lies nearest to it."""

    item_id: str
    score: float
    title: str | None = None
    category: tuple[str, ...] = ()
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's top N.

    source: where the query's vector comes from: ``stream`` (its clicks, live), ``bundle`` (as of the bundle's cut),
    ``profile`` (a new query that the catalogue knows), ``popularity`` (nothing is known: what is clicked most lately).
    fallback: why the answer is poorer than it could be (``unknown-query``, ``store-down``), or None.
    clicks: how many clicks the query's activity counts · folded: how many are folded into its vector ·
    vector_age_ms: time since the last click in it, at ``at`` · arm: which arm of an experiment answered · reached:
    whether ``wait_for_clicks`` was (None: not asked).
    """

    query_id: str
    bundle: str
    items: list[Found]
    source: str
    fallback: str | None
    clicks: int
    folded: int
    at: int
    vector_age_ms: int | None
    arm: str | None = None
    reached: bool | None = None
    waited_ms: float = 0.0
    took_ms: float = 0.0


class Answerer(Protocol):
    """What a desk asks: a retriever, or whoever chooses between some."""

    def answer(self, asks: Sequence[Ask]) -> list[Answer]: ...

    def reached(self, query_ids: Sequence[str], clicks: Sequence[int]) -> list[bool]: ...


class Retriever:
    """Answers questions in batches: one store read, one tower pass, one search for all of them.

    ``served`` may be replaced at any time by one assignment.

    Args:
        vectors: The a_u of the bundle's queries, where they are not those in the online store.
    """

    def __init__(self, served: Served, features: OnlineFeatures, clock: Clock, vectors: QueryVectors | None = None):
        self.served = served
        self._vectors = vectors
        self.features = features
        self.clock = clock
        self.answered = 0
        self.seconds = {"store": 0.0, "tower": 0.0, "search": 0.0, "answer": 0.0}  # spent so far, by step
        self._titles: dict[str, str | None] = {}

    def clicks(self, query_id: str) -> int:
        """How many clicks a query counts: in the store, else at the bundle's cut.

        Raises:
            StoreDown: the store did not answer.
        """
        counted = self.features.counts([query_id])[0].clicks
        return self.served.queries.clicks(query_id) if counted is None else counted

    def reached(self, query_ids: Sequence[str], clicks: Sequence[int]) -> list[bool]:
        """Whether each query counts so many clicks: in its activity, in its vector, and in its history.

        The stream writes one view after the other; who reads in between would answer without a click that he counts.

        Raises:
            StoreDown: the store did not answer.
        """
        table = self.served.queries
        unique = list(dict.fromkeys(query_ids))
        counts = dict(zip(unique, self._counts(unique), strict=True))
        there = [table.includes(id_, counts[id_], k) for id_, k in zip(query_ids, clicks, strict=True)]
        # Only of those: a history is long to read.
        arrived = list(dict.fromkeys(id_ for id_, yes in zip(query_ids, there, strict=True) if yes))
        lengths = dict(zip(arrived, self.features.history_lengths(arrived), strict=True)) if arrived else {}
        return [
            yes and (counts[id_].clicks is None or lengths[id_] >= min(k, table.history_length))
            for id_, yes, k in zip(query_ids, there, clicks, strict=True)
        ]

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer N questions. Whatever happens to the store, there is an answer; it says how good it is."""
        served, times = self.served, [time.perf_counter()]
        states, store_down = self._states(served, [ask.query_id for ask in asks])
        times.append(time.perf_counter())
        as_of = np.array([self.clock.now_ms() if ask.at_ms is None else ask.at_ms for ask in asks], np.int64)
        vectors = served.queries.represent(states, as_of)
        times.append(time.perf_counter())
        found = _search(served.corpus, asks, states, vectors)
        times.append(time.perf_counter())
        answers = []
        for k, (ask, (rows, scores)) in enumerate(zip(asks, found, strict=True)):
            unknown, last = states.source[k] == "none", int(states.last_click[k])
            popular = unknown or ask.popular
            ids = served.corpus.ids
            items = [
                Found(ids[row], round(score, 6)) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
            if ask.details:
                items = self._explain(served, items, rows, states.seen[k])
            answers.append(
                Answer(
                    query_id=ask.query_id,
                    bundle=served.version,
                    items=items,
                    source="popularity" if popular else states.source[k],
                    fallback="store-down" if store_down else "unknown-query" if unknown else None,
                    clicks=int(states.clicks[k]),
                    folded=int(states.folded[k]),
                    at=int(as_of[k]),
                    vector_age_ms=max(0, int(as_of[k]) - last) if last else None,
                )
            )
        times.append(time.perf_counter())
        for step, began, ended in zip(self.seconds, times[:-1], times[1:], strict=True):
            self.seconds[step] += ended - began
        self.answered += len(answers)
        took = round((times[-1] - times[0]) * 1000, 3)
        return [replace(answer, took_ms=took) for answer in answers]

    def locate(self, query_id: str) -> tuple[QueryStates, np.ndarray]:
        """A query's state and its p_u [1, d] now."""
        served = self.served
        states = self._states(served, [query_id])[0]
        return states, served.queries.represent(states, np.array([self.clock.now_ms()]))

    def history(self, query_id: str, n: int) -> list[Found]:
        """The query's latest clicked items, newest first."""
        served = self.served
        seen = self._states(served, [query_id])[0].seen[0][::-1][:n]
        items = [Found(served.corpus.ids[row], 1.0) for row in seen.tolist()]
        return self._explain(served, items, seen, seen[:0])

    def titles(self, ids: Sequence[str]) -> list[str | None]:
        """What people call some items: the catalogue's first text, kept once read; None if it has none."""
        unread = [id_ for id_ in dict.fromkeys(ids) if id_ not in self._titles]
        if unread and self.features.texts:
            try:
                read = self.features.items(unread)
            except StoreDown:
                return [self._titles.get(id_) for id_ in ids]
            if len(self._titles) > 200_000:
                self._titles.clear()
            self._titles.update((id_, row[self.features.texts[0]]) for id_, row in zip(unread, read, strict=True))
        return [self._titles.get(id_) for id_ in ids]

    def _counts(self, ids: list[str]) -> list[Counts]:
        counts = self.features.counts(ids)
        if self._vectors is None:
            return counts
        return [
            count._replace(folded=self._vectors.folded(id_), bundle=self.served.version)
            for id_, count in zip(ids, counts, strict=True)
        ]

    def _states(self, served: Served, ids: list[str]) -> tuple[QueryStates, bool]:
        """What is known of some queries, and whether the store was down."""
        try:
            columns = self.features.queries(ids)
        except StoreDown:
            columns = None
        down = columns is None
        if self._vectors is not None:
            columns = self._vectors.put_into(columns or {}, ids)
        return served.queries.states(ids, columns, served.corpus), down

    def _explain(self, served: Served, items: list[Found], rows: np.ndarray, seen: np.ndarray) -> list[Found]:
        because: list[str | None] = [None] * len(items)
        latest = seen[-20:]
        if len(latest) and len(rows):
            index = served.corpus.index
            nearest = np.argmax(index.vectors(rows) @ index.vectors(latest).T, axis=1)
            because = [served.corpus.ids[row] for row in latest[nearest].tolist()]
        titles = self.titles([item.item_id for item in items])
        names = dict(zip([b for b in because if b], self.titles([b for b in because if b]), strict=True))
        return [
            replace(item, title=title, category=tuple(served.corpus.category_of(row)), because=names.get(why) or why)
            for item, title, row, why in zip(items, titles, rows.tolist(), because, strict=True)
        ]


def _search(
    corpus: Corpus, asks: Sequence[Ask], states: QueryStates, vectors: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each question the rows of its top N and their scores: by its vector, or by popularity if nothing is known."""
    exclude = [seen if ask.exclude_seen else None for ask, seen in zip(asks, states.seen, strict=True)]
    allow = [_allowed(corpus, ask) for ask in asks]
    found: list[tuple[np.ndarray, np.ndarray]] = []
    personal = np.flatnonzero(~states.nothing_known & ~np.array([ask.popular for ask in asks])).tolist()
    at = {k: q for q, k in enumerate(personal)}
    if personal:
        most = max(asks[k].n for k in personal)
        rows, scores = corpus.index.search(
            vectors[personal], most, [exclude[k] for k in personal], [allow[k] for k in personal]
        )
    for k, ask in enumerate(asks):
        if k in at:
            filled = rows[at[k], : ask.n] >= 0
            found.append((rows[at[k], : ask.n][filled], scores[at[k], : ask.n][filled]))
        else:
            nothing = np.empty(0, np.int64)
            found.append(corpus.popular(ask.n, nothing if exclude[k] is None else exclude[k], allow[k]))
    return found


def _allowed(corpus: Corpus, ask: Ask) -> np.ndarray | None:
    """The rows that a question's filters leave; None: all."""
    if ask.allow is None:
        return None if ask.category is None else corpus.in_category(ask.category)
    rows = np.unique(corpus.rows(ask.allow))
    return rows if ask.category is None else np.intersect1d(rows, corpus.in_category(ask.category))
