"""One query through inverted lists: which to visit, and how many more where a filter leaves few rows."""

import numpy as np

from serving.index.calibration import Probes
from serving.index.lists import InvertedLists, best
from serving.index.subset import Subset

Array = np.ndarray
Hits = tuple[Array, Array]  # rows and their scores, best first
_EVERYWHERE = 0.9  # of the lists
_SETTLED = 0.02  # a search that was not calibrated ends when half as many lists again change no more of its answer


def search_lists(
    lists: InvertedLists, probes: Probes, rank: Array, vector: Array, n: int, exclude: Array, only: Subset | None,
    rows: int, visible: int,
) -> Hits:  # fmt: skip
    """The best n rows, by rounded scores, of the lists whose centroids score best.

    Args:
        rank: [lists] scores of the centroids. exclude: Rows that must not come back. only: The rows that may.
        rows: How many rows there are. visible: How many of them are in lists.
    """
    available, scarce, even = len(lists), 1.0, True
    if only is not None:
        counts = only.by_list(lists)
        rank, available = np.where(counts > 0, rank, -np.inf), int(np.count_nonzero(counts))
        if not available:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scarce = visible / max(only.size, 1)  # the best n of few lie as far apart as the best of many more
    visit, near = best(rank, min(probes(n * scarce), available)), 0
    if len(exclude):
        # Rows that would have been found, and may not be, leave room for others that lie deeper.
        listed = lists.list_of[exclude[exclude < len(lists.list_of)]]
        visited = np.zeros(len(lists) + 1, bool)  # the last one: in no list
        visited[visit] = True
        while (nearer := int(np.count_nonzero(visited[listed]))) > near:
            near = nearer
            visit = best(rank, min(probes((n + near) * scarce), available))
            visited[visit] = True
    allowed = _allowed(rows, exclude, only)
    hits = lists.search(vector, n, visit, allowed)
    if only is not None:  # its rows lie nearly everywhere, and not more thinly where the query is
        expected = only.size * len(visit) / len(lists)
        even = available > _EVERYWHERE * len(lists) and int(counts[visit].sum()) > expected / 2
    calibrated = even and near < n / 5  # the number of lists was measured for such a search
    if len(visit) == available or (calibrated and len(hits[0]) == n):
        return hits
    order, begin, step = np.argsort(-rank)[:available], len(visit), max(1, len(visit) // 2)
    while begin < available:
        more = lists.search(vector, n, np.ascontiguousarray(order[begin : begin + step]), allowed)
        hits, news = _merged(hits, more, n)
        if len(hits[0]) == n and news <= _SETTLED * n:
            break
        begin, step = begin + step, begin + step
    return hits


def best_rows(rows: Array, scores: Array, n: int) -> Hits:
    """The n rows of highest finite score, best first; equal scores in order of rows."""
    top = best(scores, n)
    rows, scores = rows[top], scores[top]
    order = np.lexsort((rows, -scores))
    order = order[np.isfinite(scores[order])]
    return rows[order], scores[order]


def _allowed(rows: int, exclude: Array, only: Subset | None) -> Array | None:
    """One bit a row: who may be found; None: all."""
    if only is None and not len(exclude):
        return None
    bits = np.full((rows + 7) // 8, 255, np.uint8) if only is None else only.bits.copy()
    exclude = exclude[exclude < 8 * len(bits)]
    np.bitwise_and.at(bits, exclude >> 3, ~(np.uint8(1) << (exclude & 7).astype(np.uint8)))
    return bits


def _merged(hits: Hits, more: Hits, n: int) -> tuple[Hits, int]:
    """The best of two answers, and how many of them come from the second."""
    both = best_rows(np.concatenate([hits[0], more[0]]), np.concatenate([hits[1], more[1]]), n)
    worst = both[1][-1] if len(both[1]) else 0
    return both, int(np.count_nonzero(more[1] >= worst))
