"""What each night did, ``nights/<date>.json``: where a re-run finds that it has nothing to do."""

from datetime import date

from pydantic import BaseModel, ValidationError

from feature_repo.place import Place
from feature_repo.table import write_text
from spark_jobs.gate import Verdict
from spark_jobs.land_log import LogSummary


class NightSummary(BaseModel):
    """What a nightly run did."""

    date: date
    training_set_sha256: str
    rows: int
    days: int
    """Days of the window from its first click on."""
    stages: dict[str, float]
    """Seconds of each stage of this run; a stage that was done before is not in it."""
    bundle: str
    gate: Verdict
    metrics: dict[str, float]
    parent: str | None
    """The bundle that training started from and that the gate compared with."""
    log: LogSummary | None = None
    """What became of the rows of the log files; None where only Kafka has landed."""
    spark_master: str = ""
    """Where Spark ran: ``local[*]``, ``spark://…``, ``yarn``."""
    inputs: str
    """All that the verdict depends on."""


def _file(home: Place, day: date) -> Place:
    return home / "nights" / f"{day.isoformat()}.json"


def read(home: Place, day: date) -> NightSummary | None:
    """A night's record; None if there is none, or none that this release can read."""
    file = _file(home, day)
    try:
        return NightSummary.model_validate_json(file.read_text()) if file.is_file() else None
    except ValidationError:
        return None


def write(home: Place, summary: NightSummary) -> None:
    """Put a record in the place of the date's last one, in one step."""
    write_text(_file(home, summary.date), summary.model_dump_json(indent=2))
