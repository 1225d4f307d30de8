"""Whether a log that reads well is one to learn from, and what to change in its card if not."""

import json
import re
from datetime import date, timedelta

from feature_repo.card import DatasetCard
from feature_repo.reader.clicks import KEPT, Staged
from feature_repo.reader.report import ReadReport
from feature_repo.reader.tables import one, quoted
from feature_repo.reader.text import literal

ENOUGH = 1_000  # clicks to learn from, below which a longer window is worth more than fresh clicks
LENGTHS = (2, 3, 7, 14, 28, 60, 90, 180, 365)  # days
ANSWER = 100  # items of the longest answer that is measured
ONE = 0.1  # of all clicks, more than which a single query should not have
TIMES_MEAN = 20


def unfit(staged: Staged, report: ReadReport) -> list[str]:
    """What is wrong with the clicks as a whole, each with what to do."""
    if not report.rows:
        return []
    return [
        *_few_items(report),
        *_one_day(staged.card, report),
        *_sparse(staged.card, report),
        *_robots(staged, report),
    ]


def _few_items(report: ReadReport) -> list[str]:
    if report.items > ANSWER:
        return []
    return [
        f"there are {report.items} items, so an answer of {ANSWER} holds them all and HR@{ANSWER} is 1 whatever the "
        "model: compare by MRR"
    ]


def _one_day(card: DatasetCard, report: ReadReport) -> list[str]:
    if len(report.days) != 1 or card.protocol == "last-out":
        return []
    (day,) = report.days
    moment = report.first == report.last
    order = ' If the order of the rows is that of the clicks, say time_unit = "order".' if moment else ""
    return [
        f"all clicks are of {f'one moment, {report.first}' if moment else day}: no day is left to be tested on after "
        f"those to learn from.{order} Else bring more days, or test on each query's last click: "
        "dat evaluate --protocol last-out, and DAT_NIGHT__CUT=last-out for the night"
    ]


def _sparse(card: DatasetCard, report: ReadReport) -> list[str]:
    if len(report.days) < 2 or card.protocol == "last-out":
        return []
    days = {date.fromisoformat(day): count for day, count in report.days.items()}
    newest, length = max(days), card.day_ms // 86_400_000

    def learnt(length: int) -> tuple[int, int]:
        """Clicks to learn from and to test on, with so long a day."""
        test = newest - timedelta(days=length)
        start = test - card.window_days * timedelta(days=length)
        return (
            sum(count for day, count in days.items() if start < day <= test),
            sum(count for day, count in days.items() if day > test),
        )

    few, tested = learnt(length)
    if few >= ENOUGH or few + tested > report.rows / 2:
        return []
    better = [other for other in LENGTHS if other > length and learnt(other)[0] > few]
    if not better:
        return []
    best = next((other for other in better if learnt(other)[0] >= ENOUGH), max(better, key=lambda n: learnt(n)[0]))
    more, more_tested = learnt(best)
    return [
        f"the log is sparse: {card.window_days} days of {card.day} have {few:,} of {report.rows:,} clicks to learn "
        f'from, and {tested:,} to be tested on. Say day = "{best}d" at the top of the card: then these are {more:,} '
        f"and {more_tested:,}"
    ]


def _robots(staged: Staged, report: ReadReport) -> list[str]:
    query, count = one(
        staged.sql, f"SELECT query_id, count(*) AS n FROM staged WHERE {KEPT} GROUP BY 1 ORDER BY n DESC, 1 LIMIT 1"
    )
    if count <= max(ONE, TIMES_MEAN / report.queries) * report.rows:
        return []
    spec = staged.card.clicks
    name = spec.query if re.fullmatch(r"[A-Za-z_]\w*", spec.query) else quoted(spec.query)
    how = "in the SELECT" if spec.sql else f"where = {json.dumps(f'{name} <> {literal(query)}', ensure_ascii=False)}"
    return [
        f"{query} has {count:,} of {report.rows:,} clicks ({count / report.rows:.0%}): a robot, or a word for nobody? "
        f"Leave it out ({how}), or name the word in `nulls`"
    ]
