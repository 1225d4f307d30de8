"""Objects under a URL, by Arrow's file systems: S3 and what speaks its protocol, Google's, Azure's, HDFS, a folder."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from pyarrow import ArrowException
from pyarrow.fs import (
    AwsStandardS3RetryStrategy,
    FileInfo,
    FileSelector,
    FileSystem,
    FileType,
    S3FileSystem,
    SubTreeFileSystem,
    resolve_s3_region,
)

_Said = TypeVar("_Said")
_PIECE = 4 << 20
_FLAGS = {"true": True, "false": False}


_STORES = re.compile(  # as Arrow, Hadoop and the clouds' own libraries speak of a store
    r"[^\n]*(?:AWS Error |software\.amazon\.awssdk|fs\.s3a\.|google::cloud::Status|Azure error)[^\n]*"
)
_CAUSES = (
    (r"NO_SUCH_BUCKET|NoSuchBucket|UnknownStoreException", "has no such bucket"),
    (
        r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|InvalidAccessKey|SIGNATURE|Signature|NoAwsCredentials|"
        r"Unable to load credentials|Status Code: 403|ExpiredToken|PERMISSION_DENIED|UNAUTHENTICATED",
        "refuses us: look at the credentials and their rights",
    ),
)


class StoreAway(RuntimeError):
    """The object store does not answer, or does not let us in. The message says which and what it said."""

    @classmethod
    def of(cls, name: str, said: str) -> "StoreAway":
        cause = next((ours for theirs, ours in _CAUSES if re.search(theirs, said)), "does not answer")
        return cls(f"{name} {cause}: {said}")

    @classmethod
    def behind(cls, said: str) -> "StoreAway | None":
        """What was wrong, of an error that a library has made of it: Spark and DuckDB read the store by themselves.

        Args:
            said: The error's text; None comes back if it is not of an object store.
        """
        found = _STORES.search(said)
        return cls.of("the object store", found[0].strip(" :\t")) if found else None


class ObjectStore:
    """Reads and writes whole objects; who reads an object sees all of it or none, but for HDFS.

    Credentials are where each store's own tools look for them (``AWS_*``, a role, ``GOOGLE_APPLICATION_CREDENTIALS``);
    another endpoint is ``AWS_ENDPOINT_URL``, or ``endpoint_override`` in the query of the URL, as Arrow has it.

    Args:
        url: Such as ``s3://bucket/prefix``. Nothing is asked of the store until an object is.
        attempts: How often S3 is asked one thing, some seconds each, before it counts as away.
    """

    def __init__(self, url: str, attempts: int):
        self.url, self._attempts = url, attempts

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None if there is none of the name."""
        with self._asking():
            try:
                with self._at.open_input_stream(name) as given:
                    return given.read()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a small object. Who interrupts this thread does not leave half of it: another one writes."""
        with self._asking(), ThreadPoolExecutor(1) as other:
            other.submit(self._write, name, iter([data])).result()

    def upload(self, file: Path, name: str) -> None:
        with self._asking(), file.open("rb") as given:
            self._write(name, iter(lambda: given.read(_PIECE), b""))

    def download(self, name: str, file: Path) -> tuple[int, str]:
        """Write an object to a file; returns its size and its SHA-256.

        Raises:
            FileNotFoundError: there is none of the name.
        """
        with self._asking(), self._at.open_input_stream(name) as given, file.open("wb") as taken:
            size, digest = 0, hashlib.sha256()
            while piece := given.read(_PIECE):
                size += taken.write(piece)
                digest.update(piece)
        return size, digest.hexdigest()

    def names(self, folder: str) -> list[str]:
        """Names of the objects that are directly in a folder."""
        with self._asking():
            found = self._at.get_file_info(FileSelector(folder, allow_not_found=True))
            return sorted(one.base_name for one in found if one.type == FileType.File)

    def under(self, folder: str, recursive: bool) -> list[FileInfo]:
        """Objects and folders in a folder, or also in the folders below it; none, if there is no such folder."""
        return self.ask(lambda at: at.get_file_info(FileSelector(folder, allow_not_found=True, recursive=recursive)))

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self._asking():
            try:
                self._at.delete_file(name)
            except FileNotFoundError:
                return

    def delete_folder(self, folder: str) -> None:
        """Delete all objects under a folder, in no order, if there are any."""
        with self._asking():
            try:
                self._at.delete_dir(folder)
            except FileNotFoundError:
                return

    def ask(self, question: Callable[[FileSystem], _Said]) -> _Said:
        """What Arrow's file system of the URL says; names are relative to it."""
        with self._asking():
            return question(self._at)

    def _write(self, name: str, pieces: Iterator[bytes]) -> None:
        # A bucket has no folders, and its objects show when they are whole.
        folders, local = self._kind in ("local", "hdfs"), self._kind == "local"
        if folders:
            self._at.create_dir(str(Path(name).parent), recursive=True)
        writing = f"{name}.writing" if local else name
        with self._at.open_output_stream(writing) as taken:
            for piece in pieces:
                taken.write(piece)
        if local:
            self._at.move(writing, name)

    @cached_property
    def _kind(self) -> str:
        return self._at.base_fs.type_name

    @cached_property
    def _at(self) -> SubTreeFileSystem:
        url = urlsplit(self.url)
        if url.scheme == "s3":
            return SubTreeFileSystem(f"{url.netloc}{url.path}", self._s3(url.netloc, dict(parse_qsl(url.query))))
        system, path = FileSystem.from_uri(self.url)
        return SubTreeFileSystem(path, system)

    def _s3(self, bucket: str, given: dict[str, str]) -> S3FileSystem:
        """As Arrow makes it of a URL, but a store that takes connections and says nothing holds nobody for minutes."""
        options = {
            "endpoint_override": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
            "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            **{name: _FLAGS.get(value, value) for name, value in given.items()},
        }
        if not options["region"] and not options["endpoint_override"]:
            options["region"] = resolve_s3_region(bucket)
        retry = AwsStandardS3RetryStrategy(max_attempts=self._attempts)
        system = S3FileSystem(**options, connect_timeout=3, request_timeout=4, retry_strategy=retry)
        if not _may_exist(system, bucket):
            raise StoreAway.of(self.url, f"NoSuchBucket {bucket}")
        return system

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Raises:
        StoreAway: whatever Arrow says of a store that does not do what it was asked.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ArrowException) as error:
            if isinstance(error, OSError) and error.filename:  # of a file here
                raise
            raise StoreAway.of(self.url, str(error).splitlines()[0]) from error


def _may_exist(system: S3FileSystem, bucket: str) -> bool:
    """Whether there is a bucket, or nobody tells: in one that is not there everything would look as if it were new."""
    try:
        return system.get_file_info(bucket).type != FileType.NotFound
    except OSError as error:
        if "ACCESS_DENIED" in str(error):  # who may read objects need not have the right to ask for their bucket
            return True
        raise
