"""The published bundles of a home folder, and which of them is in service."""

import logging
import shutil
from pathlib import Path

from feature_repo.atomic import atomic_write
from model.bundle import Bundle, BundleError, Manifest

log = logging.getLogger(__name__)


class BundleStore:
    """The published bundles of a home folder, newest last, and which one is in service."""

    def __init__(self, folder: Path):
        self.folder = folder

    def versions(self) -> list[str]:
        """Published versions in order of the clicks that they have seen, then of their creation. One that this release
        cannot read is named in the log and passed over."""
        found = [path.parent.name for path in self.folder.glob("*/manifest.json")]
        manifests: dict[str, Manifest] = {}
        for name in found:
            if not name.startswith(".") and not (self.folder / name).is_symlink():
                try:
                    manifests[name] = self.manifest(name)
                except BundleError as error:
                    log.warning("bundle_passed_over bundle=%s error=%s", name, error)
        return sorted(manifests, key=lambda name: (manifests[name].cut_ms, manifests[name].created, name))

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
        """Write the bundle, then :meth:`put_into_service`; each step is atomic.

        Raises:
            BundleError: what was written cannot be read back.
        """
        final = self.folder / bundle.version
        if not final.exists():
            with atomic_write(final) as staging:
                bundle.save(staging)
                Bundle.load(staging)  # what cannot be read back must not stand in the way of later nights
        self.put_into_service(bundle.version)
        return final

    def put_into_service(self, version: str) -> None:
        """Promote a version, unless the one in service has seen later clicks: a night that is made up for long after
        must not take the service back to its date."""
        current = self.current()
        try:
            newest = None if current is None else self.manifest(current).cut_ms
        except BundleError as error:  # nobody of this release can serve it
            log.warning("bundle_passed_over bundle=%s error=%s", current, error)
            newest = None
        if newest is None or newest <= self.manifest(version).cut_ms:
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
        with atomic_write(self.folder / "current") as link:
            link.symlink_to(version)

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
