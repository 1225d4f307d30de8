"""What bundles an object store has, in one small object: it is what makes a publication one step."""

import hashlib
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from model.bundle import BundleError, Manifest

FORMAT = 1
"""Of what is written. A release reads its own format and the one before."""
_PIECE = 4 << 20


class StoredFile(BaseModel):
    """A file of a bundle, which is the object of its hash."""

    size: int
    sha256: str

    @classmethod
    def of(cls, file: Path) -> "StoredFile":
        digest = hashlib.sha256()
        with file.open("rb") as given:
            while piece := given.read(_PIECE):
                digest.update(piece)
        return cls(size=file.stat().st_size, sha256=digest.hexdigest())


class StoredBundle(BaseModel):
    """A published bundle: what its order among the others follows from, its format, and its files by name."""

    cut_ms: int
    created: datetime
    format: int
    files: dict[str, StoredFile]

    @classmethod
    def of(cls, manifest: Manifest, files: dict[str, StoredFile]) -> "StoredBundle":
        return cls(cut_ms=manifest.cut_ms, created=manifest.created, format=manifest.format, files=files)


class BundleIndex(BaseModel):
    """The published bundles, which one is in service, and Feast's registry as of its publication."""

    format: int = FORMAT
    current: str | None = None
    bundles: dict[str, StoredBundle] = {}
    registry: StoredFile | None = None

    @property
    def objects(self) -> set[str]:
        """Names of all objects that are needed."""
        files = [file for bundle in self.bundles.values() for file in bundle.files.values()]
        return {file.sha256 for file in [*files, *([self.registry] if self.registry else [])]}

    @classmethod
    def parse(cls, text: bytes, where: str) -> "BundleIndex":
        """Raises:
        BundleError: it is damaged, or of a format that this release does not read.
        """
        try:
            index = cls.model_validate_json(text)
        except ValidationError as error:
            raise BundleError(
                f"{where} is not a list of bundles ({error.errors()[0]['msg']}): delete it, and the next night writes "
                "it anew, from the bundles of its home"
            ) from None
        if not FORMAT - 1 <= index.format <= FORMAT:
            raise BundleError(
                f"{where} has format {index.format}, and this release reads {max(1, FORMAT - 1)} to {FORMAT}: "
                "use the release that wrote it"
            )
        return index
