"""Rewriting what a home has at rest without the queries that were forgotten: the night does, and ``dat forget``.

Each file is replaced in one step, and each order of replacements leaves what readers can use: a crash in between leaves
some files as they were, and the next run rewrites them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import save_file

from feature_repo.atomic import atomic_write
from feature_repo.place import Place, read_parquet
from feature_repo.table import delete_table, files_of_tables, whole, write_text
from model.arrays import map_arrays
from model.bundle_store import BundleStore
from model.forgetting import Listed
from model.state import EntityState
from spark_jobs import lake as click_lake
from spark_jobs import training_set
from spark_jobs.activity_snapshot import MADE, Mark
from spark_jobs.forgotten import drop, known, leave_out, rewritten
from spark_jobs.land_log import REPORT

_CATALOGUE = "query_profile"
_IDS = "query_tower.ids.weight"


@dataclass
class Rewritten:
    """What was rewritten: of how many queries, clicks of the lake, rows of features, training sets that were dropped,
    and bundles by version."""

    queries: int = 0
    clicks: int = 0
    rows: int = 0
    sets: int = 0
    bundles: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What to tell a person; nothing if there was nothing to do."""
        if not self.queries:
            return []
        bundles = f"{len(self.bundles)} bundles ({', '.join(self.bundles)})" if self.bundles else "no bundle"
        return [
            f"forgotten: {self.queries} queries; rewritten without them: {self.clicks:,} clicks of the lake, "
            f"{self.rows:,} rows of features, {bundles}; training sets whose rows were deleted: {self.sets}"
        ]


def rewrite(home: Path, bundles: BundleStore | None = None, shared: Place | None = None) -> Rewritten:
    """Rewrite the lake, the features, the training sets and the bundles of a home without what the list names and was
    not rewritten yet. The caller holds ``nightly.lock``.

    Args:
        bundles: Those that the home shares; by default, those of its folder.
        shared: Where the lake and all that comes of it is; by default, in the home.
    """
    root: Place = shared or home
    lake = root / "lake" / "clicks"
    listed = known(lake, unwritten=True)
    if not listed:
        return Rewritten()
    before = click_lake.fingerprints(lake)
    clicks = sum(leave_out(path, listed) for path in sorted(lake.glob("landing=*")))
    after = click_lake.fingerprints(lake)
    for report in files_of_tables(lake, f"landing=log-*/{REPORT}"):
        _rewrite_report(report, listed)
    rows = _rewrite_activity(root / "activity", listed, before, after)
    rows += sum(drop(view, listed) for view in (root / "offline").glob("*") if view.name != _CATALOGUE)
    sets = _drop_sets(root, listed, home / "training")
    changed = (bundles or BundleStore(home / "bundles")).rewrite(lambda folder: _rewrite_bundle(folder, listed))
    rewritten(lake, listed)
    return Rewritten(len(listed), clicks, rows, sets, tuple(changed))


def _rewrite_report(file: Place, listed: Listed) -> None:
    """A landing's report shows some of its rows."""
    said = json.loads(file.read_text())
    shown = [row for row in said["examples"] if row["query_id"] not in listed]
    if shown != said["examples"]:
        write_text(file, json.dumps(said | {"examples": shown}, indent=1))


def _rewrite_activity(folder: Place, listed: Listed, before: dict[str, str], after: dict[str, str]) -> int:
    """Snapshots stay usable: what they count of other queries, and of items, is what the lake had when they were made,
    and its older days may be gone."""
    rows = 0
    for path in folder.glob("at=*"):
        rows += drop(path, listed)
        mark = whole(path) / MADE
        if mark.is_file():
            made = Mark.model_validate_json(mark.read_text())
            dates = {day: after.get(day, of) if before.get(day) == of else of for day, of in made.dates.items()}
            if dates != made.dates:
                write_text(mark, made.model_copy(update={"dates": dates}).model_dump_json())
    return rows


def _drop_sets(home: Place, listed: Listed, checkpoints: Path) -> int:
    """A set's rows name its queries by number: sets that hold one lose their rows, and a night makes them again."""
    dropped = 0
    for folder in (home / "training_sets").glob("*"):
        if any(_holds(folder / part, column, listed) for part, column in _WHERE):
            for part in training_set.PARTS:
                delete_table(folder / part)
            dropped += 1
    if dropped:
        delete_table(checkpoints)  # of a night that did not end
    return dropped


_WHERE = (("queries", "id"), ("later", "query_id"), ("test", "query_id"))


def _holds(folder: Place, column: str, listed: Listed) -> bool:
    return any(
        pc.any(pc.is_in(read_parquet(file, [column])[column], pa.array(list(listed)))).as_py()
        for file in whole(folder).glob("*.parquet")
    )


def _rewrite_bundle(folder: Path, listed: Listed) -> bool:
    """Blank the rows of a bundle's query table and of its id embedding; whether there were any.

    Rows stay where they are, so that each file fits the others whichever is replaced first.
    """
    state = EntityState.load(folder, "query")
    rows = state.forget(listed)
    if not len(rows):
        return False
    weights = map_arrays(folder / "weights.safetensors")
    if _IDS in weights:
        known_rows = rows[rows + 1 < len(weights[_IDS])]
        weights[_IDS][known_rows + 1] = weights[_IDS][0]
        with atomic_write(folder / "weights.safetensors") as staging:
            save_file({name: np.ascontiguousarray(weight) for name, weight in weights.items()}, staging)
    with atomic_write(folder / ".rewritten") as staging:
        staging.mkdir()
        state.save(staging, "query")
    for name in ("query.safetensors", "query_ids.parquet"):
        (folder / ".rewritten" / name).replace(folder / name)
    (folder / ".rewritten").rmdir()
    return True
