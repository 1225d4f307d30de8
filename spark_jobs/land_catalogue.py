"""Land a side's catalogue beside the click lake, as Parquet that Spark reads, with what was found in it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.atomic import atomic_write
from feature_repo.card import DatasetCard
from feature_repo.reader.catalogue import load_catalogue
from feature_repo.reader.report import CatalogueReport

ROWS, REPORT = "rows.parquet", "report.json"


def land_catalogue(card: DatasetCard, folder: Path, side_name: str, target: Path) -> CatalogueReport:
    """Read a side's catalogue into ``target``, in place of the one there, and count what differs between the two.

    Raises:
        CardError: a file or a column is missing or of no use.
    """
    catalogue = load_catalogue(card, folder, side_name)
    report = catalogue.report
    if (target / ROWS).is_file():
        report = report.model_copy(update=_changes(pq.read_table(target / ROWS), catalogue.rows))

    with atomic_write(target) as staging:
        staging.mkdir(parents=True)
        pq.write_table(catalogue.rows, staging / ROWS)
        (staging / REPORT).write_text(report.model_dump_json(indent=1))
    return report


def _changes(before: pa.Table, now: pa.Table) -> dict[str, int]:
    old, new = ({row["id"]: row for row in table.to_pylist()} for table in (before, now))
    both = old.keys() & new.keys()
    return {
        "added": len(new) - len(both),
        "removed": len(old) - len(both),
        "changed": sum(old[key] != new[key] for key in both),
    }
