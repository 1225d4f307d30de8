"""The bundles of homes that share no disk: published to an object store, and taken from there."""

import fcntl
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_repo.atomic import atomic_write
from feature_repo.object_store import ObjectStore
from model.bundle import FORMAT, Bundle, BundleError, Manifest
from model.bundle_index import BundleIndex, StoredBundle, StoredFile
from model.bundle_store import BundleStore

log = logging.getLogger(__name__)
INDEX = "bundles.json"
_OBJECTS = "objects"
_ENTRY = ".stored.json"
"""In a bundle's folder: what the store has of it, so that files need not be hashed to know that they are the same."""


class SharedBundles(BundleStore):
    """Bundles in an object store; a home's folder has copies of some, and a link to the one that it has taken.

    ``bundles.json`` says what is published and in service; each file is an object named after its hash. A publication
    uploads the objects, then replaces that one: readers see all of it or nothing. One home at a time publishes.

    Args:
        home: Its ``bundles`` folder has the copies; its ``registry.db``, Feast's registry, is published with a bundle.
        url: Where the objects are: :class:`ObjectStore`, also for ``attempts``.

    Raises:
        StoreAway: from each method, where the store does not answer.
    """

    def __init__(self, home: Path, url: str, attempts: int = 8):
        super().__init__(home / "bundles")
        self.taken = BundleStore(self.folder)
        """What this home has of them, which is what a process of it works with."""
        self._store, self._registry, self._lock = (
            ObjectStore(url, attempts),
            home / "registry.db",
            home / "bundles.lock",
        )
        self._index: BundleIndex | None = None

    @property
    def where(self) -> str:
        return self._store.url

    def look(self) -> BundleIndex:
        """What the store has now: nothing, where nothing was published.

        Raises:
            BundleError: what says so cannot be read.
        """
        text = self._store.read(INDEX)
        self._index = BundleIndex() if text is None else BundleIndex.parse(text, f"{self.where}/{INDEX}")
        return self._index

    @property
    def index(self) -> BundleIndex:
        """What the store had when it was last looked at."""
        return self._index or self.look()

    def versions(self) -> list[str]:
        found = self.index.bundles
        readable = [name for name, one in found.items() if FORMAT - 1 <= one.format <= FORMAT]
        for name in found.keys() - set(readable):
            log.warning("bundle_passed_over bundle=%s error=it has format %d", name, found[name].format)
        return sorted(readable, key=lambda name: (found[name].cut_ms, found[name].created, name))

    def has(self, version: str) -> bool:
        return version in self.index.bundles

    def current(self) -> str | None:
        return self.index.current

    def manifest(self, version: str) -> Manifest:
        if self.taken.has(version):
            return self.taken.manifest(version)
        if not self.has(version):
            raise BundleError(f"no bundle {version} in {self.where}")
        name = self.index.bundles[version].files["manifest.json"].sha256
        text = self._store.read(f"{_OBJECTS}/{name}")
        return Manifest.parse(text or "", f"{self.where}: {version}")

    def load(self, version: str | None = None) -> Bundle:
        if version or self.current():
            chosen = version or str(self.current())
            self.described(chosen)
            with self._alone():
                self._fetch(chosen)
        return super().load(version)

    def take(self) -> None:
        """Bring this home to what is in service: download it, then change the home's link. Copies that the store has no
        more go, and those of which it has other files follow.

        Raises:
            BundleError: nothing is published, an object is not what was, or this release cannot read it; what was taken
                before stays.
        """
        index = self.look()
        if index.current is None:
            raise self._nothing()
        with self._alone():
            self._fetch(index.current)
            self.taken.manifest(index.current)  # what cannot be read is not taken
            if index.registry and not (self._registry.is_file() and StoredFile.of(self._registry) == index.registry):
                with atomic_write(self._registry) as staging:
                    self._download(index.registry, staging, "Feast's registry")
            if self.taken.current() != index.current:
                self.taken.promote(index.current)
            for version in self.taken.folders():
                if version in index.bundles:
                    self._fetch(version)
                else:
                    shutil.rmtree(self.folder / version)

    def refresh(self) -> None:
        """Before a night: :meth:`take`. Where nothing is published yet, what the home has is."""
        if not self.look().bundles:
            current = self.taken.current()
            for version in self.taken.versions():
                self._put(version)
            if current is not None:
                self.put_into_service(current)
        if self.index.current is not None:
            self.take()

    def publish(self, bundle: Bundle) -> Path:
        with self._alone():
            final = self._write(bundle)
            self._put(bundle.version)
        self.put_into_service(bundle.version)
        return final

    def put_into_service(self, version: str) -> None:
        """As :meth:`BundleStore.put_into_service`, and publish Feast's registry with it."""
        index = self.look()
        changed = index.model_copy(update={"current": version} if self.due(version) else {})
        if self._registry.is_file():
            changed.registry = StoredFile.of(self._registry)
            if changed.registry != index.registry:
                self._upload(self._registry, changed.registry)
        self._publish(changed)
        if changed.current == version:
            self._link(version)

    def promote(self, version: str) -> None:
        self.look()
        self.described(version)
        self._publish(self.index.model_copy(update={"current": version}))
        self._link(version)

    def prune(self, keep: int) -> list[str]:
        index = self.look()
        old = self._old(keep)
        self._publish(index.model_copy(update={"bundles": {n: b for n, b in index.bundles.items() if n not in old}}))
        self._sweep()
        with self._alone():
            for version in set(self.taken.folders()) - set(self.index.bundles):
                shutil.rmtree(self.folder / version)
            self.taken.tidy()
        return old

    def rewrite(self, change: Callable[[Path], bool]) -> list[str]:
        """As :meth:`BundleStore.rewrite`, of all bundles that the store has; what they were is deleted there."""
        changed = []
        for version in self.look().bundles:
            with self._alone():
                self._fetch(version)
                if change(self.folder / version):
                    changed.append(version)
                self._put(version)  # also what an interrupted run changed
        self._sweep()
        return changed

    def _put(self, version: str) -> None:
        """Have the store hold a bundle as it is in the folder."""
        index, folder = self.look(), self.folder / version
        paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        files = {path.name: StoredFile.of(path) for path in paths}
        for path in paths:
            if files[path.name].sha256 not in index.objects:
                self._upload(path, files[path.name])
        entry = StoredBundle.of(Manifest.read(folder / "manifest.json"), files)
        if index.bundles.get(version) != entry:
            self._publish(index.model_copy(update={"bundles": index.bundles | {version: entry}}))
        self._note(version, folder)

    def _fetch(self, version: str) -> None:
        """Have the folder hold a bundle as the store has it.

        Raises:
            BundleError: an object is not what was published.
        """
        entry, folder = self.index.bundles[version], self.folder / version
        if not self.taken.has(version):
            with atomic_write(folder) as staging:
                staging.mkdir()
                for name, file in entry.files.items():
                    self._download(file, staging / name, f"{name} of bundle {version}")
                self._note(version, staging)
        elif not self._is_as_stored(version):
            for name, file in entry.files.items():
                if not (folder / name).is_file() or StoredFile.of(folder / name) != file:
                    with atomic_write(folder / name) as staging:
                        self._download(file, staging, f"{name} of bundle {version}")
            self._note(version, folder)

    def _is_as_stored(self, version: str) -> bool:
        try:
            return (self.folder / version / _ENTRY).read_text() == self.index.bundles[version].model_dump_json()
        except FileNotFoundError:
            return False

    def _note(self, version: str, folder: Path) -> None:
        with atomic_write(folder / _ENTRY) as staging:
            staging.write_text(self.index.bundles[version].model_dump_json())

    def _download(self, file: StoredFile, to: Path, what: str) -> None:
        name = f"{_OBJECTS}/{file.sha256}"
        try:
            found = self._store.download(name, to)
        except FileNotFoundError:
            raise BundleError(f"{what} is not in {self.where}: {name} is missing") from None
        if found != (file.size, file.sha256):
            raise BundleError(
                f"{what} in {self.where} is not what was published: {name} has {found[0]:,} bytes with the SHA-256 "
                f"{found[1]}, not {file.size:,}. Put another bundle into service (dat bundles), or run a night"
            )

    def _upload(self, path: Path, file: StoredFile) -> None:
        self._store.upload(path, f"{_OBJECTS}/{file.sha256}")

    def _publish(self, index: BundleIndex) -> None:
        self._store.write(INDEX, index.model_dump_json(indent=1).encode())
        self._index = index

    def _link(self, version: str) -> None:
        if self.taken.has(version):
            self.taken.promote(version)

    def _sweep(self) -> None:
        """Delete objects that nothing needs: of bundles that went, and of runs that were killed."""
        for name in set(self._store.names(_OBJECTS)) - self.index.objects:
            self._store.delete(f"{_OBJECTS}/{name}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this home at a time changes the copies."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def open_bundles(home: Path, url: str | None) -> BundleStore:
    """A home's bundles: shared through an object store where a URL is given, else those of its folder."""
    return SharedBundles(home, url) if url else BundleStore(home / "bundles")
