"""The model bundle: one immutable directory per trained model, and the shelf of bundles with its ``current`` link.

A bundle is all that the day needs: the weights, what each tower reads, and the state of every query and item at the
cut: the click up to which the night saw. Vectors of different bundles are not comparable, so every vector that leaves
a process carries its bundle's version.
"""

import json
import math
import os
import shutil
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from mmap import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_model, save_model

from training.dat import DAT, DATConfig
from training.features import InputSpec, Profile

Array = np.ndarray
_KINDS = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64}


class BundleError(RuntimeError):
    """A bundle is missing, damaged, or not of the kind asked for. The message says which and what to do."""


class Manifest(BaseModel):
    """What a bundle says of itself."""

    version: str
    dataset: str
    created: datetime
    window: tuple[datetime, datetime]
    """Event times of the training clicks: from, up to (exclusive). The second is the cut."""
    offsets: dict[int, int]
    """The cut in Kafka: for each partition of ``clicks``, the first offset that the night has not seen."""
    config: DATConfig
    query: InputSpec
    item: InputSpec
    services: dict[str, dict[str, str]]
    """Feature service → {feature: type}: exactly what each tower was trained to read."""
    metrics: dict[str, float]
    parts: dict[str, dict[str, float]] = {}
    """The same metrics by part of the test clicks, such as new queries; each with how many ``clicks`` it has."""
    lineage: dict[str, str]

    @property
    def cut_ms(self) -> int:
        return int(self.window[1].timestamp() * 1000)


@dataclass(frozen=True)
class SideTable:
    """The state of one side's n ids at the cut. Row r has row r+1 of the tower's id embedding.

    ids: n strings · codes, numbers, times: the :class:`Profile` · a: [n, M, d] augmented vectors · folded: [n] clicks
    folded into them · clicks: [n] clicks ever · counters: [n, H] as of last_click · last_click: [n] ms (0 = never) ·
    history: [n, L] rows of the item table, a ring in which the k-th click ever is at k mod L (queries; −1 = empty) ·
    vectors: [n, d] the tower's output at the cut.
    """

    ids: list[str]
    codes: Array
    numbers: Array
    times: Array
    a: Array
    folded: Array
    clicks: Array
    counters: Array
    last_click: Array
    history: Array
    vectors: Array

    @property
    def profile(self) -> Profile:
        return Profile(self.codes, self.numbers, self.times)

    def save(self, folder: Path, side: str) -> None:
        arrays = {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self) if f.name != "ids"}
        save_file(arrays, folder / f"{side}.safetensors")
        pq.write_table(pa.table({"id": pa.array(self.ids, pa.string())}), folder / f"{side}_ids.parquet")

    @classmethod
    def load(cls, folder: Path, side: str) -> "SideTable":
        ids = pq.read_table(folder / f"{side}_ids.parquet")["id"].to_pylist()
        return cls(ids=ids, **map_arrays(folder / f"{side}.safetensors"))


@dataclass(frozen=True)
class Bundle:
    """A trained model with its state at the cut."""

    manifest: Manifest
    model: DAT
    queries: SideTable
    items: SideTable

    @property
    def version(self) -> str:
        return self.manifest.version

    def save(self, folder: Path) -> None:
        """Write every file; the manifest comes last, so a directory with a manifest is whole."""
        folder.mkdir(parents=True)
        save_model(self.model, str(folder / "weights.safetensors"))
        self.queries.save(folder, "query")
        self.items.save(folder, "item")
        (folder / "manifest.json").write_text(self.manifest.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle.

        Raises:
            BundleError: a file is missing or does not fit the others.
        """
        try:
            manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
            queries, items = SideTable.load(folder, "query"), SideTable.load(folder, "item")
            model = DAT(len(queries.ids), len(items.ids), manifest.query, manifest.item, manifest.config)
            load_model(model, str(folder / "weights.safetensors"))
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise BundleError(f"{folder} is not a usable bundle: {first}") from error
        model.eval()
        return cls(manifest, model, queries, items)


class Shelf:
    """The published bundles of a home folder, newest last, and which one is in service."""

    def __init__(self, folder: Path):
        self.folder = folder

    def versions(self) -> list[str]:
        """Published versions in order of the clicks that they have seen, then of their creation."""
        found = [path.parent.name for path in self.folder.glob("*/manifest.json")]
        names = [name for name in found if not name.startswith(".") and not (self.folder / name).is_symlink()]
        manifests = {name: self.manifest(name) for name in names}
        return sorted(names, key=lambda name: (manifests[name].cut_ms, manifests[name].created, name))

    def current(self) -> str | None:
        link = self.folder / "current"
        return link.readlink().name if link.is_symlink() else None

    def manifest(self, version: str) -> Manifest:
        return Manifest.model_validate_json((self.folder / version / "manifest.json").read_text())

    def described(self, version: str) -> Manifest:
        """A published version's manifest.

        Raises:
            BundleError: there is no such version.
        """
        if not (self.folder / version / "manifest.json").is_file():
            raise BundleError(
                f"no bundle {version} in {self.folder}; there are: {', '.join(self.versions()) or 'none'}"
            )
        return self.manifest(version)

    def load(self, version: str | None = None) -> Bundle:
        """The given bundle, or the one in service.

        Raises:
            BundleError: there is none.
        """
        version = version or self.current()
        if version is None:
            raise BundleError(f"no bundle is published in {self.folder}; run the nightly job first: dat nightly")
        return Bundle.load(self.folder / version)

    def publish(self, bundle: Bundle) -> Path:
        """Write beside, rename into place, then :meth:`put_into_service`; each step is atomic."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / bundle.version
        if not final.exists():
            staging = self.folder / f".{bundle.version}.{os.getpid()}"
            shutil.rmtree(staging, ignore_errors=True)
            try:
                bundle.save(staging)
                staging.rename(final)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        self.put_into_service(bundle.version)
        return final

    def put_into_service(self, version: str) -> None:
        """Promote a version, unless the one in service has seen later clicks: a night that is made up for long after
        must not take the service back to its date."""
        current = self.current()
        if current is None or self.manifest(current).cut_ms <= self.manifest(version).cut_ms:
            self.promote(version)

    def ancestor(self, cut_ms: int) -> str | None:
        """The bundle that a night with this cut starts from and is compared with, whenever it is run: the one in
        service, or the nearest of those that it came from, whose cut is earlier."""
        versions, version = self.versions(), self.current()
        while version in versions:
            manifest = self.manifest(version)
            if manifest.cut_ms < cut_ms:
                return version
            version = manifest.lineage.get("parent")
        return None

    def promote(self, version: str) -> None:
        """Put a published version into service: also how one rolls back."""
        self.described(version)
        link = self.folder / f".current.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(version)
        link.rename(self.folder / "current")

    def prune(self, keep: int) -> list[str]:
        """Delete all but the last ``keep`` versions and the one in service, and what killed runs left half written;
        returns the versions that went. One night at a time publishes, so nobody is writing."""
        current = self.current()
        old = [version for version in self.versions()[:-keep] if version != current]
        for version in old:
            shutil.rmtree(self.folder / version)
        for left in self.folder.glob(".*"):
            if left.is_symlink():
                left.unlink()
            else:
                shutil.rmtree(left)
        return old


def map_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file, mapped into memory: read as they are touched, copied where written to.

    Raises:
        OSError, ValueError, KeyError: it cannot be read, or is not such a file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path.name} is not a safetensors file, or not whole")
        header = json.loads(file.read(length))
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            offset, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
            kind = _KINDS[entry["dtype"]]
            # A file cannot be mapped at no length.
            arrays[name] = np.memmap(path, kind, "c", offset, shape) if math.prod(shape) else np.empty(shape, kind)
    return arrays


def writable(array: Array) -> Array:
    """A copy to write to. A mapped file is mapped once more, copied where it is written to: what nobody touches takes
    no memory, and processes of one machine share it.
    """
    if isinstance(getattr(array, "base", None), mmap):  # not for a part of one
        return np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)
    return np.array(array, order="C")


def now() -> datetime:
    return datetime.now(UTC)
