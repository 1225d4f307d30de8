"""Land a side's catalogue beside the click lake, as Parquet that Spark reads, with what was found in it."""

from pathlib import Path

import pyarrow as pa

from feature_repo.card import DatasetCard
from feature_repo.place import Place, read_parquet, write_parquet
from feature_repo.reader.catalogue import load_catalogue
from feature_repo.reader.report import CatalogueReport
from feature_repo.table import whole, write_table

ROWS, REPORT = "rows.parquet", "report.json"


def land_catalogue(card: DatasetCard, folder: Path, side_name: str, target: Place) -> CatalogueReport:
    """Read a side's catalogue into ``target``, in place of the one there, and count what differs between the two.

    Raises:
        CardError: a file or a column is missing or of no use.
    """
    catalogue = load_catalogue(card, folder, side_name)
    report = catalogue.report
    before = whole(target) / ROWS
    if before.is_file():
        report = report.model_copy(update=_changes(read_parquet(before), catalogue.rows))

    with write_table(target) as staging:
        staging.mkdir(parents=True)
        write_parquet(catalogue.rows, staging / ROWS)
        (staging / REPORT).write_bytes(report.model_dump_json(indent=1).encode())
    return report


def _changes(before: pa.Table, now: pa.Table) -> dict[str, int]:
    old, new = ({row["id"]: row for row in table.to_pylist()} for table in (before, now))
    both = old.keys() & new.keys()
    return {
        "added": len(new) - len(both),
        "removed": len(old) - len(both),
        "changed": sum(old[key] != new[key] for key in both),
    }
