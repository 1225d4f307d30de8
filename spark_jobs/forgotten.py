"""The lake's own list of forgotten queries, ``lake/clicks/forgotten.json``, to which every landing is held.

It takes over what the topic ``forgotten`` says each time that ``clicks`` is landed, after the end of the landing is
fixed: a moment that lies below that end is thus in the list. Its ``offset`` is a position as the lake counts them.
Each night it takes over the notes of :mod:`model.forget_notes`, too.
"""

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from pydantic import BaseModel
from pyspark.sql import DataFrame

from feature_repo.place import Place, UrlPath, parquet_metadata, read_parquet, write_parquet
from feature_repo.table import write_text
from model.forget_notes import taken_notes
from model.forgetting import Forgotten, Listed, remembered, take
from model.settings.updater import KafkaConnection

_FILE = "forgotten.json"


class _Entry(Forgotten):
    """rewritten: whether what is at rest has been rewritten without what is forgotten."""

    rewritten: bool = False


class _List(BaseModel):
    queries: dict[str, _Entry] = {}


def known(lake: Place, unwritten: bool = False) -> Listed:
    """The list.

    Args:
        unwritten: Only those of which old clicks may still be in files.
    """
    return {id_: one for id_, one in _read(lake).queries.items() if not (unwritten and one.rewritten)}


def learn(lake: Place, said: Mapping[str, Forgotten], first: Mapping[int, int] | None = None) -> None:
    """Put into the list what is said.

    Args:
        first: The lake's positions of the offsets 0 of ``clicks``.
    """
    placed = {
        id_: _Entry(before=one.before, partition=p, offset=None if at is None else at + (first or {}).get(p or 0, 0))
        for id_, one in said.items()
        for p, at in [(one.partition, one.offset)]
    }
    with _changing(lake) as listed:
        entries: Listed = dict(listed.queries)
        if new := take(entries, {id_: one for id_, one in placed.items() if not _the_same(entries.get(id_), one)}):
            _write(lake, _List(queries={**listed.queries, **{id_: placed[id_] for id_ in new}}))


def take_notes(home: Path, lake: Place) -> None:
    """Take over the notes that services have left in a home. The caller holds ``nightly.lock``."""
    listed, files = taken_notes(home)
    if listed:
        learn(lake, listed)
    for file in files:
        file.unlink()


def _the_same(before: Forgotten | None, one: Forgotten) -> bool:
    """Whether nothing is new: a topic that was made anew gives one moment another position."""
    return before is not None and before.before == one.before and (before.offset is not None or one.offset is None)


def rewritten(lake: Place, done: Listed) -> None:
    """Note that files were rewritten without some queries, as they were listed then."""
    with _changing(lake) as listed:
        changed = {
            id_: one.model_copy(update={"rewritten": True})
            for id_, one in listed.queries.items()
            if (before := done.get(id_)) is not None and (before.before, before.offset) == (one.before, one.offset)
        }
        _write(lake, _List(queries={**listed.queries, **changed}))


def lock_in(folder: Place, name: str) -> FileLock:
    """A lock of a folder, which no two processes hold at a time; of a URL, no two of this machine."""
    if isinstance(folder, UrlPath):
        digest = hashlib.sha256(f"{folder} {name}".encode()).hexdigest()[:16]
        return FileLock(Path(tempfile.gettempdir()) / f"dat-{digest}.lock", timeout=-1)
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(Path(str(folder)) / name)


class _changing:
    """The list, which nobody else changes meanwhile."""

    def __init__(self, lake: Place):
        lake.mkdir(parents=True, exist_ok=True)
        self._lake, self._lock = lake, lock_in(lake, f".{_FILE}.lock")

    def __enter__(self) -> _List:
        self._lock.acquire()
        return _read(self._lake)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _read(lake: Place) -> _List:
    file = lake / _FILE
    return _List.model_validate_json(file.read_text()) if file.is_file() else _List()


def _write(lake: Place, listed: _List) -> None:
    write_text(lake / _FILE, json.dumps(listed.model_dump(), indent=1))


def read_topic(connection: KafkaConnection) -> Listed:
    """What the topic ``forgotten`` says; nothing where it does not exist.

    Raises:
        kafka.errors.KafkaError: the cluster did not answer. ValueError: a record of it is none of ours.
    """
    topic = connection.topics.forgotten
    admin = KafkaAdminClient(**connection.client)
    try:
        described = admin.describe_topics([topic])[0]["partitions"]
    finally:
        admin.close()
    listed: Listed = {}
    consumer = KafkaConsumer(**connection.client, enable_auto_commit=False, isolation_level="read_committed")
    try:
        partitions = [TopicPartition(topic, one["partition_index"]) for one in described]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions) if partitions else {}
        while any((consumer.position(p) or 0) < end for p, end in ends.items()):
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    if record.value:
                        take(listed, {record.key.decode(): Forgotten.model_validate_json(record.value)})
    finally:
        consumer.close()
    return listed


def remember(clicks: DataFrame, listed: Listed) -> DataFrame:
    """Clicks without those that are forgotten, as Spark's workers find them."""
    if not listed:
        return clicks

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch.filter(pa.array(_stays(batch, listed)))

    return clicks.mapInArrow(run, clicks.schema)


def leave_out(folder: Place, listed: Listed) -> int:
    """Rewrite the Parquet files of clicks under a folder without what is forgotten; returns how many clicks went."""
    gone = 0
    ids = pa.array(list(listed), pa.string())
    for file in sorted(folder.rglob("*.parquet")) if listed else ():
        if not pc.any(pc.is_in(read_parquet(file, ["query_id"])["query_id"], ids)).as_py():
            continue
        rows = read_parquet(file)
        stays = _stays(rows, listed)
        if not stays.all():
            replace(file, rows.filter(pa.array(stays)))
            gone += int((~stays).sum())
    return gone


def _stays(clicks: pa.Table | pa.RecordBatch, listed: Listed) -> np.ndarray:
    """[N] which of some clicks are not forgotten."""
    stays = np.ones(len(clicks), bool)
    at = pc.indices_nonzero(pc.is_in(clicks["query_id"], pa.array(list(listed), pa.string())))
    names = [name for name in ("partition", "offset") if name in clicks.schema.names]
    some = clicks.select(["query_id", "event_time", *names]).take(at).to_pydict()
    none = [None] * len(at)
    stays[at.to_numpy()] = remembered(
        listed, some["query_id"], some["event_time"], some.get("partition", none), some.get("offset", none)
    )
    return stays


def drop(folder: Place, ids: Listed, column: str = "query_id") -> int:
    """Rewrite the Parquet files under a folder without the rows of some queries; returns how many rows went. Files that
    lack the column stay."""
    gone = 0
    for file in sorted(folder.rglob("*.parquet")):
        if column not in parquet_metadata(file).schema.to_arrow_schema().names:
            continue
        found = read_parquet(file, [column])[column]
        theirs = pc.is_in(found, pa.array(list(ids), found.type))
        if pc.any(theirs).as_py():
            rows = read_parquet(file)
            replace(file, rows.filter(pc.invert(theirs)))
            gone += pc.sum(theirs).as_py()
    return gone


def replace(file: Place, rows: pa.Table) -> None:
    """Put rows in the place of a file's, in one step. On a disk the file then gets a name of its own: who remembers
    files by their names must see that it is another. An object keeps its name, and has a time of its own."""
    found = parquet_metadata(file)
    group = found.row_group(0).num_rows if found.num_row_groups else None
    if not isinstance(file, Path):
        write_parquet(rows, file, group or None)
        return
    staging = file.with_name(f".{file.name}.writing")
    write_parquet(rows, staging, group or None)
    with staging.open("rb") as written:
        os.fsync(written.fileno())
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)  # Hadoop's checksum, of what was there
    staging.chmod(file.stat().st_mode)
    staging.replace(file)
    file.rename(file.with_name(f"{uuid.uuid4()}.parquet"))
