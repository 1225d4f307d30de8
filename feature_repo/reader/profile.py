"""What there is to know of a log that was staged: the counts that nothing may be missing from, and what looks wrong."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from feature_repo.card import DatasetCard
from feature_repo.limits import QUIET_MS, WEEK
from feature_repo.reader.clicks import KEPT, Staged
from feature_repo.reader.faults import REASONS, Faults, wrong_times
from feature_repo.reader.report import NewestDay, ReadReport
from feature_repo.reader.tables import one

EXAMPLES = 5
_EDGES = r"""'^\s|\s$|^''.*''$|^".*"$'"""
_ROUNDED = r"'[0-9][.,][0-9]+[Ee]\+[0-9]+'"
EXACT = 16  # digits; a float of more is not the number that it once was


class Facts(Faults):
    """What is counted of the rows that were read.

    merged: rows that repeat another · days: by date the rows kept and the time of the last · odd: for the columns of
    queries and items, whether most values end in .0, some have spaces at an end or are quoted, or some are floats of
    many digits, or numbers that a spreadsheet has rounded.
    """

    files: int
    merged: int
    queries: int
    items: int
    first: int | None
    last: int | None
    days: dict[str, tuple[int, int]]
    types: dict[str, int]
    values_unreadable: int
    odd: dict[str, tuple[bool, bool, bool, bool]]
    examples: list[dict]
    notes: list[str]


def profile(staged: Staged) -> ReadReport:
    """The report of a reading."""
    return report(staged.card, facts_of(staged))


def report(card: DatasetCard, facts: Facts) -> ReadReport:
    """What the facts mean."""
    spec, zone = card.clicks, ZoneInfo(card.timezone)

    def iso(ms: int | None) -> str | None:
        return None if ms is None or spec.timeless else datetime.fromtimestamp(ms / 1000, zone).isoformat()

    newest = _newest(facts.days, zone)
    rows = facts.by_reason.get(0, 0) - facts.merged
    return ReadReport(
        rows_read=sum(facts.by_reason.values()),
        rows=rows,
        dropped={REASONS[reason]: count for reason, count in sorted(facts.by_reason.items()) if reason and count},
        duplicates=facts.merged,
        problems=[*facts.notes, *_looks_wrong(card, facts, newest)],
        files=facts.files,
        queries=facts.queries,
        items=facts.items,
        first=iso(facts.first),
        last=iso(facts.last),
        days={day: count for day, (count, _) in facts.days.items()},
        newest_day=newest,
        types=facts.types,
        clicks=sum(count for name, count in facts.types.items() if spec.rule.weight(name) > 0) if spec.events else rows,
        corrected={spec.value or "value": facts.values_unreadable} if facts.values_unreadable else {},
        examples=[example | {"moment": iso(example["event_time"])} for example in facts.examples],
    )


def facts_of(staged: Staged) -> Facts:
    """Count what is staged."""
    sql, spec = staged.sql, staged.card.clicks
    queries, items, first, last, unreadable = one(
        sql,
        "SELECT count(DISTINCT query_id), count(DISTINCT item_id), min(event_time), max(event_time), "
        f"count(*) FILTER (value_unreadable) FROM staged WHERE {KEPT}",
    )
    # Zones differ by quarters of an hour at least, so each quarter lies within one date.
    days = sql.execute(
        "SELECT strftime(quarter, '%Y-%m-%d') AS day, sum(n)::BIGINT, max(last) FROM ("
        "SELECT make_timestamptz((event_time // 900000) * 900000000) AS quarter, count(*) AS n, "
        f"max(event_time) AS last FROM staged WHERE {KEPT} "
        "GROUP BY event_time // 900000) GROUP BY day ORDER BY day"
    ).fetchall()
    types = (
        f"SELECT event_type, count(*) FROM staged WHERE {KEPT} AND event_type IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    odd = {}
    for name, column in ((spec.query, "query_id"), (spec.item, "item_id")):
        floats = any(part.columns[name].type in ("FLOAT", "DOUBLE") for part in staged.parts if name in part.columns)
        odd[name] = one(
            sql,
            f"SELECT count(*) FILTER (id LIKE '%.0') * 2 > count(*), "
            f"count(*) FILTER (regexp_matches(id, {_EDGES})) > 0, "
            f"count(*) FILTER ({floats} AND length(id) >= {EXACT}) > 0, "
            f"count(*) FILTER (regexp_full_match(id, {_ROUNDED})) > 0 "
            f"FROM (SELECT {column} AS id FROM staged WHERE reason = 0 USING SAMPLE 100000 ROWS)",
        )
    shown = ("query_id", "item_id", "event_time", *(key for key in ("event_type", "value") if getattr(spec, key)))
    first_rows = f"SELECT {', '.join(shown)} FROM staged WHERE reason = 0 ORDER BY n LIMIT {EXAMPLES}"
    examples = [dict(zip(shown, row, strict=True)) for row in sql.execute(first_rows).fetchall()]
    return Facts(
        files=sum(len(part.paths) for part in staged.parts),
        **dict(staged.faults),
        merged=one(sql, "SELECT count(*) FROM merged")[0],
        queries=queries,
        items=items,
        first=first,
        last=last,
        days={} if spec.timeless else {day: (count, at) for day, count, at in days},
        types=dict(sql.execute(types).fetchall()),
        values_unreadable=unreadable,
        odd=odd,
        examples=examples,
        notes=staged.reading.notes,
    )


def _newest(days: dict[str, tuple[int, int]], zone: ZoneInfo) -> NewestDay | None:
    if not days:
        return None
    quiet = {day: _end(day, zone) - last for day, (_, last) in list(days.items())[-1 - WEEK :]}
    day, left = quiet.popitem()
    count, last = days[day]
    partial = bool(quiet) and left > max(quiet.values()) + QUIET_MS
    return NewestDay(
        date=day, clicks=count, last=datetime.fromtimestamp(last / 1000, zone).isoformat(), partial=partial
    )


def _end(day: str, zone: ZoneInfo) -> int:
    after = datetime.fromisoformat(day) + timedelta(days=1)
    return round(after.replace(tzinfo=zone).timestamp() * 1000)


def _looks_wrong(card: DatasetCard, facts: Facts, newest: NewestDay | None) -> list[str]:
    problems = []
    for name, (pointed, spaced, long, rounded) in facts.odd.items():
        if pointed:
            problems.append(
                f"values of {name} end in .0, as if numbers had been written as floats; they are kept so. Clicks on "
                "the topic and requests have to say them so, too; else export integers"
            )
        if spaced:
            problems.append(
                f"values of {name} begin or end with spaces or quotes; they are kept so: trim() in `sql` takes them off"
            )
        if long:
            problems.append(
                f"{name} is a column of floats, which cannot hold ids of {EXACT} digits and more: some may have become "
                "one. Export it as text or integers"
            )
        if rounded:
            problems.append(
                f"values of {name} are such as 4.00012E+12, as spreadsheets round long numbers: several ids may have "
                "become one. Export them anew, and do not save them with one"
            )
    if told := wrong_times(card, facts):
        problems.append(told)
    if newest and newest.partial:
        problems.append(
            f"the newest day, {newest.date}, seems to be partial: its last click is of {newest.last}, and earlier days "
            "go on for longer. A night of --date latest takes the day before"
        )
    return problems
