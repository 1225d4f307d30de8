"""From queries to their top N: what the online store knows of them → query tower → live index."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from serving.ab.query_vectors import QueryVectors
from serving.clock import Clock
from serving.corpus import Corpus
from serving.dismissed_items import DismissedItems
from serving.features import Columns
from serving.filters import Where
from serving.index.subset import Subset
from serving.query_state import QueryStates
from serving.rules import DEEPEST, Rules, arranged
from serving.sessions import put_into, session_state
from serving.snapshot import Snapshot

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Ask:
    """One question.

    at_ms: the moment of the answer (None: now) · exclude_seen: leave out what the query has clicked (None: as in the
    bundle's training and evaluation) · where, allow: only items that meet it, only these · exclude: none of these ·
    rules: pinned, boosted, not too many of one category · session: answer as to a new query that has just clicked
    these items, oldest first · static: answer as of the bundle's cut, without what the query has done since · like:
    rank by nearness to this item's vector · details: titles, categories and reasons as well · shown: somebody will see
    the answer: log it · popular: rank by trailing popularity whatever is known.
    """

    query_id: str
    n: int = 100
    at_ms: int | None = None
    exclude_seen: bool | None = None
    where: Where | None = None
    allow: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    rules: Rules | None = None
    session: tuple[str, ...] = ()
    static: bool = False
    like: str | None = None
    details: bool = False
    shown: bool = False
    popular: bool = False

    @property
    def weight(self) -> int:
        """How many items are looked at for it, at most."""
        return self.n if self.rules is None else DEEPEST * (1 + len(self.rules.boosts))


@dataclass(slots=True)
class Answer:
    """A query's top N.

    items, scores: best first.
    source: where the vector comes from: ``stream`` (its clicks, live), ``bundle`` (as of the bundle's cut),
    ``profile`` (a new query that the catalogue knows), ``session``, ``item`` (it is nearness to one), ``popularity``
    (nothing is known: what is clicked most lately).
    fallback: why the answer is poorer than it could be (``unknown-query``, ``store-down``), or None.
    clicks: how many clicks the query's activity counts · update_count: how many are folded into its vector ·
    vector_age_ms: time since the last click in it, at ``at`` · recent: rows that it clicked, newest last · arm: which
    arm of an experiment answered, teams: of an interleaved list, whose each item is · reached: whether the click that
    was waited for counts (None: none was).
    """

    query_id: str
    snapshot: Snapshot
    items: list[str]
    scores: list[float]
    source: str
    fallback: str | None
    clicks: int
    update_count: int
    at: int
    vector_age_ms: int | None
    recent: Array = field(default_factory=lambda: np.empty(0, np.int64))
    arm: str | None = None
    teams: str | None = None
    reached: bool | None = None
    waited_ms: float = 0.0
    took_ms: float = 0.0


class Answerer(Protocol):
    """What the batcher asks: a retriever, or whoever chooses between some."""

    def answer(self, asks: Sequence[Ask], columns: Columns | None) -> list[Answer]: ...

    def idle(self) -> bool:
        """Do what was put off, for a moment, since nobody waits; whether there is more of it."""


class Retriever:
    """Answers questions in batches: one tower pass and one search for all of them.

    ``snapshot`` may be replaced at any time by one assignment.

    Args:
        vectors: The a_u of the bundle's queries, where they are not those in the online store.
        dismissed: What queries have dismissed.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        clock: Clock,
        vectors: QueryVectors | None = None,
        dismissed: DismissedItems | None = None,
    ):
        self.snapshot = snapshot
        self.clock = clock
        self._vectors = vectors
        self._dismissed = dismissed
        self.answered = 0
        self.seconds = {"tower": 0.0, "search": 0.0, "answer": 0.0}  # spent so far, by step

    def idle(self) -> bool:
        return False

    def answer(self, asks: Sequence[Ask], columns: Columns | None) -> list[Answer]:
        """Answer N questions.

        Args:
            columns: What the online store knows of their queries; None: it is down, which the answers say.

        Raises:
            UnknownName: a filter names what there is not.
        """
        if not asks:
            return []
        snapshot, times = self.snapshot, [time.perf_counter()]
        now, cut = self.clock.now_ms(), snapshot.bundle.manifest.cut_ms
        as_of = np.array([(cut if ask.static else now) if ask.at_ms is None else ask.at_ms for ask in asks], np.int64)
        states = self.states(snapshot, [ask.query_id for ask in asks], self._with_sessions(asks, columns, as_of))
        vectors = snapshot.queries.represent(states, as_of)
        for k, ask in enumerate(asks):
            if ask.like is not None:
                vectors[k] = snapshot.corpus.index.vectors(snapshot.corpus.rows([ask.like]))[0]
        times.append(time.perf_counter())
        away = [self._away(ask, states, k) for k, ask in enumerate(asks)]
        hits = search(snapshot.corpus, asks, states, vectors, snapshot.bundle.manifest.excludes_seen, away)
        times.append(time.perf_counter())
        ids, answers = snapshot.corpus.ids, []
        for k, (ask, (found, scores)) in enumerate(zip(asks, hits, strict=True)):
            source, last = source_of(ask, states.source[k]), int(states.last_click[k])
            answers.append(
                Answer(
                    query_id=ask.query_id,
                    snapshot=snapshot,
                    items=[ids[row] for row in found.tolist()],
                    scores=np.round(scores.astype(np.float64), 6).tolist(),
                    source=source,
                    fallback=fallback_of(ask, states.source[k], columns is None),
                    clicks=int(states.clicks[k]),
                    update_count=int(states.folded[k]),
                    at=int(as_of[k]),
                    vector_age_ms=max(0, int(as_of[k]) - last) if last else None,
                    recent=states.seen[k],
                )
            )
        times.append(time.perf_counter())
        for step, began, ended in zip(self.seconds, times[:-1], times[1:], strict=True):
            self.seconds[step] += ended - began
        self.answered += len(answers)
        took = round((times[-1] - times[0]) * 1000, 3)
        for answer in answers:
            answer.took_ms = took
        return answers

    def _away(self, ask: Ask, states: QueryStates, k: int) -> Array | None:
        """What the query has dismissed; an answer as of the cut knows nothing of it."""
        if self._dismissed is None or ask.static:
            return None
        return self._dismissed.rows(ask.query_id, self.snapshot.corpus, int(states.clicks[k]), states.seen[k])

    def _with_sessions(self, asks: Sequence[Ask], columns: Columns | None, as_of: Array) -> Columns | None:
        snapshot = self.snapshot
        sessions = {
            k: session_state(ask.session, snapshot.bundle, snapshot.corpus, int(as_of[k])) if ask.session else {}
            for k, ask in enumerate(asks)
            if ask.session or ask.static
        }
        return put_into(columns, sessions, len(asks)) if sessions else columns

    def states(self, snapshot: Snapshot, ids: list[str], columns: Columns | None) -> QueryStates:
        """What is known of some queries."""
        if self._vectors is not None:
            columns = self._vectors.put_into(columns or {}, ids)
        return snapshot.queries.states(ids, columns, snapshot.corpus)


def search(
    corpus: Corpus,
    asks: Sequence[Ask],
    states: QueryStates,
    vectors: Array,
    excludes_seen: bool,
    away: Sequence[Array | None],
) -> list[tuple[Array, Array]]:
    """For each question the rows of its top N and their scores: by its vector, or by popularity if nothing is known.

    Args:
        away: For each question, rows that its query never wants to see.

    Raises:
        UnknownName: a filter names what there is not.
    """
    leave_out = [excludes_seen if ask.exclude_seen is None else ask.exclude_seen for ask in asks]
    never = [_never(corpus, ask, rows) for ask, rows in zip(asks, away, strict=True)]
    exclude = [_joined(seen if yes else None, no) for seen, yes, no in zip(states.seen, leave_out, never, strict=True)]
    only = [_allowed(corpus, ask) for ask in asks]
    popular = states.nothing_known & np.array([ask.like is None for ask in asks])
    popular |= np.array([ask.popular for ask in asks])
    hits: list[tuple[Array, Array]] = [
        corpus.popularity.top(asks[k].n, exclude[k], only[k]) if by_heat else (np.empty(0, np.int64), np.empty(0))
        for k, by_heat in enumerate(popular.tolist())
    ]
    personal = np.flatnonzero(~popular).tolist()
    if personal:
        rows, scores = corpus.index.search(
            vectors[personal],
            [asks[k].n for k in personal],
            [exclude[k] for k in personal],
            [only[k] for k in personal],
        )
        for q, k in enumerate(personal):
            filled = rows[q] >= 0
            hits[k] = rows[q][filled], scores[q][filled]
    for k, ask in enumerate(asks):
        if ask.rules is not None:
            find = partial(_find, corpus, None if popular[k] else vectors[k], exclude[k], only[k])
            hits[k] = arranged(ask.rules, ask.n, corpus, find, only[k], never[k])
    return hits


def _find(
    corpus: Corpus, vector: Array | None, exclude: Array | None, within: Subset | None, n: int, part: Subset | None
) -> tuple[Array, Array]:
    """The best n rows for a vector (None: by popularity) of those that may be shown, or of a part of them."""
    only = within if part is None else part
    if vector is None:
        rows, scores = corpus.popularity.top(n, exclude, only)
        best, _ = corpus.popularity.top(1, exclude, within)
        return rows, corpus.popularity.ratio(rows, best) if part is not None and len(best) else scores
    rows, scores = corpus.index.search(vector[None], n, [exclude], [only])
    filled = rows[0] >= 0
    return rows[0][filled], scores[0][filled]


def source_of(ask: Ask, known: str) -> str:
    """Where the vector of an answer comes from; ``known``: where what is known of the query does."""
    if ask.popular or (known == "none" and ask.like is None):
        return "popularity"
    return "item" if ask.like is not None else "session" if ask.session else known


def fallback_of(ask: Ask, known: str, store_down: bool) -> str | None:
    if ask.like is not None:
        return None
    if store_down and not ask.session:
        return "store-down"
    return "unknown-query" if known == "none" else None


def because(corpus: Corpus, items: Sequence[str], recent: Array) -> list[str | None]:
    """For each item the one, among the query's latest 20 clicked ones, that lies nearest to it."""
    latest, rows = recent[-20:], corpus.rows(items)
    if not len(latest) or len(rows) < len(items):
        return [None] * len(items)
    near = corpus.index.vectors(rows) @ corpus.index.vectors(latest).T
    return [corpus.ids[row] for row in latest[np.argmax(near, axis=1)].tolist()]


def _never(corpus: Corpus, ask: Ask, away: Array | None) -> Array | None:
    """Rows that an answer must not hold, pinned or not."""
    exclude = ask.exclude if ask.like is None else (*ask.exclude, ask.like)
    return _joined(away, corpus.rows(exclude) if exclude else None)


def _joined(one: Array | None, other: Array | None) -> Array | None:
    return other if one is None else one if other is None else np.concatenate([one, other])


def _allowed(corpus: Corpus, ask: Ask) -> Subset | None:
    """The rows that a question's filters leave; None: all."""
    left = corpus.subset(ask.where) if ask.where else None
    if ask.allow is None:
        return left
    rows = np.unique(corpus.rows(ask.allow))
    return Subset(rows if left is None else rows[left.holds(rows)])
