"""Land the log files that a dataset card describes in the click lake, each row exactly once, night after night.

A landing of new or grown files is ``lake/clicks/landing=log-000001/``: ``date=…/*.parquet`` and ``report.json``, which
says what was read and from which files. Files are remembered by path, size, time and content; what is as it was is not
read again. Rows that the lake has already, by their event id, are counted and left out.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict
from pyspark.sql import SparkSession

from feature_repo.card import DatasetCard
from feature_repo.place import Place
from feature_repo.reader import profile
from feature_repo.reader.clicks import ROWS_A_FILE, Staged, stage
from feature_repo.reader.files import TABLE, find
from feature_repo.reader.report import ReadReport
from feature_repo.reader.text import literal
from feature_repo.table import dataset, delete_table, files_of_tables, upload_files, write_table
from model.click import EARLIEST_MS
from model.forgetting import Listed
from model.settings.night import Rules
from spark_jobs import land_log_on_spark
from spark_jobs.day_column import date_sql
from spark_jobs.forgotten import known as known_forgotten
from spark_jobs.forgotten import leave_out
from spark_jobs.lake import Landing, check_files, landings
from spark_jobs.validate import check_log

REPORT = "report.json"
Counts = dict[int, int]


class LandedFile(BaseModel):
    """A file as it was when it was landed."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Relative to the card's folder, if it is in it."""
    number: int
    """Its place in the log: rows of one time are in order of it."""
    size: int
    modified_ns: int
    sha256: str


class LandingReport(ReadReport):
    """A landing: what was read, what of it was new, and from which files."""

    landing: str
    recipe: str
    """What the card says of reading; if that changes, everything is read again."""
    landed: int
    """Rows that are new in the lake; the other rows it had already."""
    read: list[LandedFile]

    def lines(self) -> list[str]:
        """What a person should know of it."""
        had = self.rows - self.landed
        there = f"; the lake had {had:,} of them already" if had else ""
        return [f"{self.tell()} of {self.files:,} new or grown files{there}", *self.problems]


class LogSummary(BaseModel):
    """What became of the rows of the log files, as often as they were read: a file that has grown is read again."""

    rows_read: int
    rows: int
    """Rows in the lake."""
    queries: int | None
    items: int | None
    """Distinct ones; None after several landings, whose clicks of all days would have to be read to tell."""
    already_landed: int
    """Rows that a later file, or a grown one, had again."""
    dropped: dict[str, int]
    duplicates: int
    corrected: dict[str, int]
    problems: list[str]


def summary(lake: Place) -> LogSummary | None:
    """The sum of the landings of log files; None if there are none."""
    landed = reports(lake)
    if not landed:
        return None
    dropped: Counter[str] = Counter()
    corrected: Counter[str] = Counter()
    for report in landed:
        dropped.update(report.dropped)
        corrected.update(report.corrected)
    only = landed[0] if len(landed) == 1 else None
    return LogSummary(
        rows_read=sum(report.rows_read for report in landed),
        rows=sum(report.landed for report in landed),
        queries=only and only.queries,
        items=only and only.items,
        already_landed=sum(report.rows - report.landed for report in landed),
        dropped=dropped,
        duplicates=sum(report.duplicates for report in landed),
        corrected=corrected,
        problems=[problem for report in landed for problem in report.problems],
    )


def reports(lake: Place) -> list[LandingReport]:
    """The reports of the landings of log files that the lake holds, in order."""
    files = files_of_tables(lake, f"landing=log-*/{REPORT}")
    return [LandingReport.model_validate_json(file.read_text()) for file in files]


def land_log(
    card: DatasetCard, folder: Path, lake: Place, rules: Rules, again: bool = False, spark: SparkSession | None = None
) -> LandingReport | None:
    """Land what is new in a card's log files; None if nothing is.

    A log without times, or one that the card describes otherwise than when it was landed, is landed anew as a whole.

    Args:
        lake: The folder of the landings.
        again: Land everything anew.
        spark: Whose workers read the files (:mod:`spark_jobs.land_log_on_spark`); None, and where what one file has
            says nothing (a SELECT over several, no times): this process.

    Raises:
        CardError: a file or a column is missing or of no use. BadNight: too many rows are invalid. LakeError: a file
            of the lake is damaged.
    """
    earlier, recipe = reports(lake), _recipe(card)
    stale = again or any(report.recipe != recipe for report in earlier)
    known = {} if stale else {file.path: file for report in earlier for file in report.read}
    if card.clicks.sql or card.clicks.timeless:
        spark = None
    tables = [path for path in card.clicks.paths if path.startswith(TABLE)] if spark else []
    files = _look(card, folder, known, tables)
    changed = [file for file in files if known.get(file.path) != file]
    if not changed and not tables:
        return None
    if card.clicks.timeless:
        changed, stale = files, True
    paths = None if card.clicks.sql else {folder / file.path: file.number for file in changed}
    number = max((int(report.landing.removeprefix("log-")) for report in earlier), default=0) + 1
    landing = f"log-{number:06d}"
    kept, gone = [one for one in landings(lake) if not (stale and one.of_log)], known_forgotten(lake)
    with ExitStack() as stack:
        if spark:
            scratch = lake.parent / ".reading"  # where executors write what this process reads; a killed night's goes
            delete_table(scratch)
            stack.callback(delete_table, scratch)
            rows, facts = land_log_on_spark.read_log(spark, card, folder, paths or {}, scratch)
            report, write = profile.report(card, facts), partial(land_log_on_spark.write, rows, card, kept, gone)
            missing = partial(land_log_on_spark.missing, rows, kept)
        else:
            staged = stack.enter_context(stage(card, folder, paths))
            report, write = profile.profile(staged), partial(_write, staged, card, kept, gone)
            missing = partial(_missing, staged, kept)
        check_log(report, rules)
        report = report.model_copy(update={"problems": [*report.problems, *_lost(card, changed, known, missing)]})
        with write_table(lake / f"landing={landing}") as target:
            landed = write(target)
            shown = [row for row in report.examples if row["query_id"] not in gone]
            counted = LandingReport(
                **dict(report) | {"examples": shown},
                landing=landing,
                recipe=recipe,
                landed=landed,
                read=files if stale else changed,
            )
            (target / REPORT).write_bytes(counted.model_dump_json(indent=1).encode())
            if stale:
                for path in list(lake.glob("landing=log-*")):
                    if path.name != f"landing={landing}":
                        delete_table(path)
    return counted


def _recipe(card: DatasetCard) -> str:
    clicks = card.clicks
    said = repr((clicks.model_dump(exclude={"ties", "events", "at_least"}), sorted(clicks.events)))
    if clicks.at_least is not None:
        said += f" {clicks.at_least} {sorted(clicks.rule.against)}"
    return hashlib.sha256(f"{said} {card.timezone} {card.nulls} {card.day}".encode()).hexdigest()[:16]


def _look(
    card: DatasetCard, folder: Path, known: dict[str, LandedFile], tables: Collection[str] = ()
) -> list[LandedFile]:
    """The log's files as they are; content is looked at only where size or time differ from what is known.

    Args:
        tables: Paths of the card that are no files.
    """
    paths = [path for path in card.clicks.paths if path not in tables]
    specs = list(card.clicks.tables.values()) if card.clicks.sql else [card.clicks.model_copy(update={"path": paths})]
    files, following = [], max((file.number for file in known.values()), default=-1) + 1
    for path in dict.fromkeys(path for spec in specs for path in find(folder, spec)):
        name = str(path.relative_to(folder) if path.is_relative_to(folder) else path)
        before = known.get(name)
        size, modified = _size(path)
        if before and (before.size, before.modified_ns) == (size, modified):
            files.append(before)
            continue
        sha256 = _sha256(path)
        if before and before.sha256 == sha256:
            files.append(before)
            continue
        number = before.number if before else following
        following += 0 if before else 1
        files.append(LandedFile(path=name, number=number, size=size, modified_ns=modified, sha256=sha256))
    return files


def _size(path: Path) -> tuple[int, int]:
    """Size and time of a file, or of all that a table's folder holds."""
    stats = [file.stat() for file in ([path] if path.is_file() else path.rglob("*"))]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def _sha256(path: Path) -> str:
    if path.is_dir():
        names = sorted((str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*"))
        return hashlib.sha256(repr(names).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(staged: Staged, card: DatasetCard, kept: list[Landing], gone: Listed, target: Place) -> int:
    """Write the rows that the lake does not have and that are not forgotten; returns how many. An object store gets
    them from a disk."""
    if isinstance(target, Path):
        target.mkdir(parents=True)
        return _write_new(staged, card, kept, target) - leave_out(target, gone)
    with TemporaryDirectory(prefix="dat-landing-") as scratch:
        rows = _write_new(staged, card, kept, Path(scratch)) - leave_out(Path(scratch), gone)
        upload_files(Path(scratch), target)
    return rows


def _write_new(staged: Staged, card: DatasetCard, kept: list[Landing], target: Path) -> int:
    sql = staged.sql
    rows = f"({_in_order(staged.kept)})" if card.clicks.timeless else f"({staged.kept})"
    sql.execute(f"CREATE VIEW dated AS SELECT *, {date_sql(card, 'event_time')} AS date FROM {rows}")
    dates = [date for (date,) in sql.execute("SELECT DISTINCT date FROM dated").fetchall()]
    there = [file for one in kept if one.date in dates for file in one.files]
    new = "dated"
    check_files(there)
    if there:
        sql.register("lake_has", dataset(there))
        new = "dated WHERE event_id NOT IN (SELECT event_id FROM lake_has)"
    # A file's name is its own: who remembers a date by its files' names must not take one landing for another.
    row = sql.execute(
        f'COPY (SELECT event_id, query_id, item_id, event_time, NULL::INTEGER AS partition, NULL::BIGINT AS "offset", '
        f"event_type, value, position, date FROM {new} ORDER BY event_time, position) TO {literal(target)} "
        "(FORMAT parquet, PARTITION_BY (date), FILENAME_PATTERN '{uuid}', COMPRESSION snappy)"
    ).fetchone()
    return int(row[0]) if row else 0


def _lost(
    card: DatasetCard, changed: list[LandedFile], known: dict[str, LandedFile], missing: Callable[[list[int]], Counts]
) -> list[str]:
    """A line for each file that no longer has rows that were landed from it: logs are written on, and never over."""
    again = {file.number: file for file in changed if file.path in known}
    if not again or card.clicks.timeless:  # a log without times is landed anew, whatever it had
        return []
    if card.clicks.sql:  # its rows are of no file in particular
        again = {0: next(iter(again.values()))}
    return [
        f"{again[number].path} has changed and lacks {count:,} rows that were landed from it. They stay in the lake; "
        "--again lands everything anew, as the files are now"
        for number, count in sorted(missing(list(again)).items())
        if number in again
    ]


def _missing(staged: Staged, kept: list[Landing], numbers: list[int]) -> Counts:
    """By a file's number how many rows the lake has of it that it no longer has."""
    there = [file for one in kept if one.of_log for file in one.files]
    if not there:
        return {}
    staged.sql.register("log_had", dataset(there))
    lost = f"file IN ({', '.join(map(str, numbers))}) AND event_id NOT IN (SELECT event_id FROM ({staged.kept}))"
    rows = staged.sql.execute(
        f"SELECT position // {ROWS_A_FILE} AS file, count(*) FROM log_had WHERE {lost} GROUP BY 1"
    ).fetchall()
    return {int(file): count for file, count in rows}


def _in_order(rows: str) -> str:
    """Clicks that have only an order, with its numbers as milliseconds of the first day that there can be: the training
    set spreads them over one span, once the test clicks are left out (:func:`training.build.lay_out`).
    """
    number = "row_number() OVER (PARTITION BY query_id ORDER BY event_time, position) - 1"
    return f"SELECT * REPLACE ({number} + {EARLIEST_MS} AS event_time) FROM ({rows})"
