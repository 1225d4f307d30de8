"""A card's whole data, looked at before anything runs: the log, the catalogues, and whether they fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from feature_repo.card import DatasetCard
from feature_repo.reader.catalogue import Catalogue, load_catalogue
from feature_repo.reader.clicks import KEPT, Staged, clicks_of, stage
from feature_repo.reader.fitness import unfit
from feature_repo.reader.profile import profile
from feature_repo.reader.report import CatalogueReport, ReadReport
from feature_repo.reader.tables import one


class DatasetReport(ReadReport):
    """A log with its catalogues."""

    catalogues: dict[str, CatalogueReport]


@dataclass(frozen=True)
class Dataset:
    """A log's clicks (:func:`feature_repo.reader.clicks.read_clicks`), its catalogues by side, and what was found."""

    clicks: pa.Table
    catalogues: dict[str, pa.Table]
    report: DatasetReport


def read_dataset(card: DatasetCard, folder: Path, max_invalid: float) -> Dataset:
    """Read all that a card describes.

    Args:
        max_invalid: The share of damaged rows at which a night stops.

    Raises:
        CardError: a file or a column is missing or of no use.
    """
    with _read(card, folder, max_invalid) as (staged, catalogues, report):
        tables = {side: catalogue.rows for side, catalogue in catalogues.items()}
        return Dataset(clicks_of(staged), tables, report)


def check_dataset(card: DatasetCard, folder: Path, max_invalid: float) -> DatasetReport:
    """The report of :func:`read_dataset` alone, which needs little memory for a log of any size."""
    with _read(card, folder, max_invalid) as (_, _, report):
        return report


@contextmanager
def _read(
    card: DatasetCard, folder: Path, max_invalid: float
) -> Iterator[tuple[Staged, dict[str, Catalogue], DatasetReport]]:
    catalogues = {side: load_catalogue(card, folder, side) for side in ("query", "item")}
    named = {side: catalogue for side, catalogue in catalogues.items() if getattr(card, side).table is not None}
    with stage(card, folder) as staged:
        report = profile(staged)
        unknown = {side: _unknown(staged, side, catalogue) for side, catalogue in named.items()}
        problems = [*report.problems, *unfit(staged, report)]
        if report.invalid > max_invalid * report.rows_read:
            problems.append(
                f"{report.invalid:,} rows are damaged, and a night stops at {max_invalid:.1%} (night.rules.max_invalid)"
            )
        for side, catalogue in named.items():
            problems += catalogue.report.problems
            if unknown[side] > report.rows / 2:
                problems.append(
                    f"most clicks are of {side} ids that the {side} catalogue lacks: are they the same ids?"
                )
        whole = DatasetReport(
            **dict(report) | {"problems": problems, "unknown_items": unknown.get("item")},
            catalogues={side: catalogue.report for side, catalogue in named.items()},
        )
        yield staged, catalogues, whole


def _unknown(staged: Staged, side: str, catalogue: Catalogue) -> int:
    """Rows kept whose id the catalogue lacks."""
    ids = staged.reading.register(catalogue.rows.select(["id"]))
    (count,) = one(staged.sql, f"SELECT count(*) FROM staged WHERE {KEPT} AND {side}_id NOT IN (SELECT id FROM {ids})")
    return count
