"""What became of the answers: clicks joined to the impressions before them, hit rates, and an experiment's verdict."""

import math
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.hit_rates import hit_rates

Array = np.ndarray
WINDOW_MS = 30 * 60_000  # a click longer after an answer than this is not its doing
_Z = 1.959964


def attribute(impressions: pa.Table, clicks: pa.Table, window_ms: int = WINDOW_MS) -> pa.Table:
    """Each click with the answer whose id it sends back; one without an id with the latest answer that its query was
    shown before it, at most ``window_ms`` earlier.

    Args:
        impressions, clicks: ``IMPRESSION_TABLE`` and ``CLICK_TABLE`` of :mod:`serving.ab.impressions`.

    Returns:
        query_id, item_id, event_time, bundle, experiment, arm, rank (1 is best; 0: the answer did not have the item),
        team (``c``, ``t``; null where nothing was interleaved).
    """
    return _query(
        """
        SELECT query_id, item_id, event_time, bundle, experiment, arm,
               coalesce(list_position(items, item_id), 0) AS rank,
               CASE WHEN list_position(items, item_id) > 0
                    THEN nullif(substr(teams, list_position(items, item_id), 1), '') END AS team
        FROM (
            SELECT c.query_id, c.item_id, c.event_time, i.bundle, i.experiment, i.arm, i.items, i.teams
            FROM clicks c JOIN (SELECT DISTINCT ON (query_id, answer_id) * FROM impressions WHERE shown) i
              ON c.query_id = i.query_id AND c.answer_id = i.answer_id
            UNION ALL
            SELECT c.query_id, c.item_id, c.event_time, i.bundle, i.experiment, i.arm, i.items, i.teams
            FROM (SELECT * FROM clicks WHERE answer_id IS NULL) c
            ASOF JOIN (SELECT * FROM impressions WHERE shown) i ON c.query_id = i.query_id AND c.arrived >= i.served
            WHERE c.arrived - i.served <= $window
        )
        """,
        {"window": window_ms},
        impressions=impressions,
        clicks=clicks,
    )


def served_hit_rates(attributed: pa.Table, start_ms: int, end_ms: int) -> dict[str, float]:
    """How often what was shown held the next click, over the clicks of a span of event time [start, end)."""
    times = attributed["event_time"].to_numpy()
    ranks = attributed["rank"].to_numpy()[(times >= start_ms) & (times < end_ms)]
    return {"clicks": len(ranks), **hit_rates(ranks)}


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % confidence interval; NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, variance: float) -> "Estimate":
        error = _Z * math.sqrt(variance)
        return cls(value, value - error, value + error)


def ratio(above: Array, below: Array) -> tuple[float, float]:
    """Σ above / Σ below over independent units [N], and its variance by the delta method.

    Units are queries: clicks of one query hang together, and counting them one by one would flatter the interval.
    """
    n, total = len(below), float(below.sum())
    if n < 2 or total == 0:
        return math.nan, math.nan
    value = float(above.sum()) / total
    return value, float(np.sum((above - value * below) ** 2)) * n / (n - 1) / total**2


@dataclass(frozen=True)
class Verdict:
    """An experiment's figures: clicks on shown items by answer, for each arm, and what sets the arms apart.

    lift: treatment's CTR over control's, less one · preference: the share of clicks on interleaved lists that went to
    the treatment's items; 0.5: no difference.
    """

    experiment: str
    queries: dict[str, int]
    impressions: dict[str, int]
    clicks: dict[str, int]
    ctr: dict[str, Estimate]
    lift: Estimate
    preference: Estimate


def judge(experiment: str, impressions: pa.Table, clicks: pa.Table, window_ms: int = WINDOW_MS) -> Verdict:
    """The figures of one experiment from all impressions and clicks."""
    attributed = attribute(impressions, clicks, window_ms)
    rows = _query(
        """
        SELECT arm, query_id, answers, coalesce(clicks, 0) AS clicks, coalesce(treatment, 0) AS treatment,
               coalesce(drafted, 0) AS drafted
        FROM (SELECT arm, query_id, count(*) AS answers
              FROM impressions WHERE shown AND experiment = $name GROUP BY ALL)
        LEFT JOIN (SELECT arm, query_id, count(*) AS clicks, count(*) FILTER (team = 't') AS treatment,
                          count(*) FILTER (team IS NOT NULL) AS drafted
                   FROM attributed WHERE rank > 0 AND experiment = $name GROUP BY ALL) USING (arm, query_id)
        ORDER BY ALL
        """,
        {"name": experiment},
        impressions=impressions,
        attributed=attributed,
    )
    arms = {name: rows.filter(pc.equal(rows["arm"], name)) for name in ("control", "treatment", "interleaved")}
    arms = {name: table for name, table in arms.items() if len(table)}
    rates = {name: ratio(_floats(table, "clicks"), _floats(table, "answers")) for name, table in arms.items()}
    mixed = arms.get("interleaved", rows.slice(0, 0))
    return Verdict(
        experiment,
        {name: len(table) for name, table in arms.items()},
        {name: int(_floats(table, "answers").sum()) for name, table in arms.items()},
        {name: int(_floats(table, "clicks").sum()) for name, table in arms.items()},
        {name: Estimate.of(*rate) for name, rate in rates.items()},
        _lift(rates.get("control", (math.nan, math.nan)), rates.get("treatment", (math.nan, math.nan))),
        Estimate.of(*ratio(_floats(mixed, "treatment"), _floats(mixed, "drafted"))),
    )


def _query(sql: str, params: dict, **tables: pa.Table) -> pa.Table:
    """Run SQL over tables, each by its name."""
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(sql, params).to_arrow_table()


def _lift(control: tuple[float, float], treatment: tuple[float, float]) -> Estimate:
    if not (control[0] > 0 and treatment[0] >= 0):
        return Estimate(math.nan, math.nan, math.nan)
    share = treatment[0] / control[0]
    return Estimate.of(share - 1, (treatment[1] + share**2 * control[1]) / control[0] ** 2)


def _floats(table: pa.Table, name: str) -> Array:
    return table[name].to_numpy().astype(np.float64)
