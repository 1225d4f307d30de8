"""The published bundles of a home folder, and which of them is in service."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from feature_repo.atomic import atomic_write
from model.bundle import Bundle, BundleError, Manifest

log = logging.getLogger(__name__)


class BundleStore:
    """The published bundles of a home folder, newest last, and which one is in service."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def where(self) -> str:
        """What to call this in a message."""
        return str(self.folder)

    def refresh(self) -> None:
        """Learn what others have published and put into service, before a night begins. A folder shows it anyway."""

    def versions(self) -> list[str]:
        """Published versions in order of the clicks that they have seen, then of their creation. One that this release
        cannot read is named in the log and passed over."""
        manifests: dict[str, Manifest] = {}
        for name in self.folders():
            try:
                manifests[name] = self.manifest(name)
            except BundleError as error:
                log.warning("bundle_passed_over bundle=%s error=%s", name, error)
        return sorted(manifests, key=lambda name: (manifests[name].cut_ms, manifests[name].created, name))

    def folders(self) -> list[str]:
        """Versions in the folder, whether they can be read or not."""
        found = (path.parent for path in self.folder.glob("*/manifest.json"))
        return sorted(path.name for path in found if not path.name.startswith(".") and not path.is_symlink())

    def has(self, version: str) -> bool:
        return (self.folder / version / "manifest.json").is_file()

    def current(self) -> str | None:
        link = self.folder / "current"
        return link.readlink().name if link.is_symlink() else None

    def manifest(self, version: str) -> Manifest:
        """Raises:
        BundleError: this release cannot read it.
        """
        return Manifest.read(self.folder / version / "manifest.json")

    def described(self, version: str) -> Manifest:
        """A published version's manifest.

        Raises:
            BundleError: there is no such version.
        """
        if not self.has(version):
            raise BundleError(f"no bundle {version} in {self.where}; there are: {', '.join(self.versions()) or 'none'}")
        return self.manifest(version)

    def load(self, version: str | None = None) -> Bundle:
        """The given bundle, or the one in service.

        Raises:
            BundleError: there is none.
        """
        version = version or self.current()
        if version is None:
            raise self._nothing()
        return Bundle.load(self.folder / version)

    def publish(self, bundle: Bundle) -> Path:
        """Write the bundle, then :meth:`put_into_service`; each step is atomic.

        Raises:
            BundleError: what was written cannot be read back.
        """
        final = self._write(bundle)
        self.put_into_service(bundle.version)
        return final

    def _nothing(self) -> BundleError:
        if there := self.versions():
            told = f"of the {len(there)} bundles in {self.where} none is in service; choose one: dat bundles --promote"
            return BundleError(f"{told} {there[-1]}")
        return BundleError(f"no bundle is published in {self.where}; run the nightly job first: dat nightly")

    def _write(self, bundle: Bundle) -> Path:
        final = self.folder / bundle.version
        if not final.exists():
            with atomic_write(final) as staging:
                bundle.save(staging)
                Bundle.load(staging)  # what cannot be read back must not stand in the way of later nights
        return final

    def put_into_service(self, version: str) -> None:
        """Promote a version, if it is :meth:`due`."""
        if self.due(version):
            self.promote(version)

    def due(self, version: str) -> bool:
        """Whether a version goes into service: not if the one that is there has seen later clicks. A night that is made
        up for long after must not take the service back to its date."""
        current = self.current()
        try:
            newest = None if current is None else self.manifest(current).cut_ms
        except BundleError as error:  # nobody of this release can serve it
            log.warning("bundle_passed_over bundle=%s error=%s", current, error)
            newest = None
        return newest is None or newest <= self.manifest(version).cut_ms

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
        with atomic_write(self.folder / "current") as link:
            link.symlink_to(version)

    def prune(self, keep: int) -> list[str]:
        """Delete all but the last ``keep`` versions and the one in service, and what killed runs left half written;
        returns the versions that went. One night at a time publishes, so nobody is writing."""
        old = self._old(keep)
        for version in old:
            shutil.rmtree(self.folder / version)
        self.tidy()
        return old

    def tidy(self) -> None:
        """Delete what killed runs left half written."""
        for left in self.folder.glob(".*"):
            if left.is_symlink():
                left.unlink()
            else:
                shutil.rmtree(left)

    def _old(self, keep: int) -> list[str]:
        current = self.current()
        return [version for version in self.versions()[:-keep] if version != current]

    def rewrite(self, change: Callable[[Path], bool]) -> list[str]:
        """Have the files of every published bundle changed in place; returns the versions of which any were.

        Args:
            change: Given a bundle's folder, says whether it has changed files there, each in one step.
        """
        return [version for version in self.folders() if change(self.folder / version)]
