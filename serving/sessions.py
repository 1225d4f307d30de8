"""A visit without an id: the state that its clicks would have left behind, in the form in which the store has it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.bundle import Bundle
from model.counters import count
from model.features import Inputs
from model.folds import gap_of
from model.scan import Groups
from serving.corpus import Corpus
from serving.features import Columns

Array = np.ndarray


def session_state(items: Sequence[str], bundle: Bundle, corpus: Corpus, as_of: int) -> dict[str, Any]:
    """``view__feature`` → value of a query that has clicked some items just now, and nothing before.

    Args:
        items: Oldest first; those that the corpus does not know are left out.
    """
    rows, config, spec = corpus.rows(items), bundle.manifest.config, bundle.manifest.query
    if not len(rows):
        return {}
    groups = Groups.of(np.zeros(len(rows), np.int64), 1)
    none = np.zeros(1, np.int64)
    times = np.full(len(rows), as_of, np.int64)
    counted = count(groups, np.zeros((1, len(spec.half_lives_ms))), none, times, spec.half_lives_ms)
    gap = gap_of(config, counted.last_click.before(), times)
    empty = np.zeros((1, config.query_state_dim), np.float32)
    a = bundle.towers.memory.fold(groups, empty, none, _readings(rows, bundle, corpus), gap).after()
    counters, _ = counted.after()
    return {
        "query_augmented__a": a[0],
        "query_augmented__folded": len(rows),
        "query_augmented__bundle": bundle.version,
        "query_activity__clicks": len(rows),
        "query_activity__counters": counters[0],
        "query_activity__last_click": as_of,
        "query_history__history": [corpus.ids[row] for row in rows.tolist()],
    }


def _readings(rows: Array, bundle: Bundle, corpus: Corpus) -> Array:
    """What the memory reads of some rows of the corpus: [N, X]. Of one that came after the bundle it reads nothing."""
    if bundle.towers.reads_vectors:
        return corpus.index.vectors(rows)
    known, codes = rows < len(bundle.items), np.zeros((len(rows), bundle.manifest.item.slots), np.int32)
    codes[known] = bundle.items.codes[rows[known]]
    inputs = Inputs(bundle.items.embedding_rows(rows), codes, np.zeros((len(rows), 0), np.float32))
    return bundle.towers.read(inputs, np.zeros((len(rows), 0), np.float32))


def put_into(columns: Columns | None, states: dict[int, dict[str, Any]], size: int) -> Columns:
    """What is known of ``size`` queries, where those at some places are sessions."""
    made = {name: list(values) for name, values in (columns or {}).items()}
    for place, state in states.items():
        for name in {*made, *state}:
            made.setdefault(name, [None] * size)[place] = state.get(name)
    return made
