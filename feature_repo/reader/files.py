"""The files that a card names: which they are, and what each of them is."""

import bz2
import codecs
import csv
import glob
import gzip
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote

import pyarrow as pa

from feature_repo.card import CardError, Files
from feature_repo.reader.text import Dialect, dialect_of

Kind = Literal["text", "json", "jsonl", "parquet", "arrow", "stream", "orc", "delta", "iceberg"]
CHUNK = 1 << 20
FIRST = 50  # lines
TABLE = "table:"
_MAGIC: dict[bytes, Kind] = {
    b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "stream", b"ORC": "orc",
}  # fmt: skip
_SHEET = ("an Excel sheet", "save it as CSV")
_TAR = ("a tar archive", "unpack it")
_REFUSED = {
    b"PK\x03\x04": ("a zip archive inside another", "unpack it"), b"\xd0\xcf\x11\xe0": _SHEET,
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"), b"Rar!": ("a RAR archive", "unpack it"),
    b"FEA1": ("a Feather file of the first version", "write it again as Feather, or as Parquet"),
    b"Obj\x01": ("an Avro file", "export it as CSV or Parquet"),
    b"SQLite format 3": ("an SQLite file", "export a table as CSV: sqlite3 -csv -header FILE 'SELECT * FROM …'"),
    b"\x89HDF": ("an HDF5 file", "export it as CSV or Parquet"), b"%PDF": ("a PDF file", "export it as CSV or Parquet"),
}  # fmt: skip
"""What cannot be read, and what to do with it."""


def _only_member(path: Path) -> IO[bytes]:
    """The one file in a zip archive.

    Raises:
        CardError: it has none or several, or it is an Excel sheet.
    """
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if "[Content_Types].xml" in names:
        raise CardError(f"{path} is {_SHEET[0]}, which cannot be read; {_SHEET[1]}")
    if len(names) != 1:
        raise CardError(
            f"{path} is a zip archive of {len(names)} files; one with a single file can be read. Unpack it, and name "
            f"those that hold rows: {', '.join(names[:8])}"
        )
    return archive.open(names[0])


_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"PK\x03\x04": _only_member,
    b"\x28\xb5\x2f\xfd": lambda path: pa.input_stream(str(path), compression="zstd"),
    b"\x04\x22\x4d\x18": lambda path: pa.input_stream(str(path), compression="lz4"),
}
MOSTLY_UTF8 = "mostly-utf-8"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_IN_LATIN_1 = bytes([*range(0x80), *range(0xA0, 0x100)])
_DUCKDB_UNPACKS = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}  # by the name's end


@dataclass(frozen=True)
class File:
    """A file of rows.

    path: as the card names it · readable: what DuckDB reads, the file itself or a copy in plain UTF-8 · header: the
    columns of text · partition: what its folders say, ``{"day": "2024-01-01"}`` · first: the first lines of text ·
    keys: of JSON lines those of the first object.
    """

    path: Path
    kind: Kind
    readable: Path
    header: tuple[str, ...] = ()
    dialect: Dialect = Dialect()
    partition: dict[str, str | None] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()


def find(folder: Path, spec: Files) -> list[Path]:
    """The files and tables that a card names, in order of its names and then of theirs, each once.

    Raises:
        CardError: a name that nothing matches.
    """
    paths: dict[Path, None] = {}
    for name in spec.paths:
        if name.startswith(TABLE):
            raise CardError(f"{name} is a table that Spark knows: only a night on a cluster can read it")
        literal = folder / name
        matches = [literal] if literal.exists() else [Path(match) for match in sorted(_glob(folder, name))]
        hidden = Path(name).name.startswith(("_", "."))
        inside = [path for match in matches for path in _inside(match)]
        # By the custom of Hadoop, names that begin with _ or . are not data: _SUCCESS, _temporary.
        data = [path for path in inside if hidden or not _is_hidden(path, folder)]
        if not data:
            raise CardError(f"no file {name} in {folder}; the dataset card names it")
        paths |= dict.fromkeys(data)
    return list(paths)


def _glob(folder: Path, name: str) -> list[str]:
    pattern = name if Path(name).is_absolute() else f"{glob.escape(str(folder))}/{name}"
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 (pathlib has no absolute patterns)


def _inside(path: Path) -> list[Path]:
    if not path.is_dir() or is_table(path):
        return [path]
    return [
        entry for child in sorted(path.iterdir()) if not child.name.startswith(("_", ".")) for entry in _inside(child)
    ]


def _is_hidden(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts if path.is_relative_to(folder) else path.parts[-1:]
    return any(part.startswith(("_", ".")) for part in parts)


def is_table(path: Path) -> Kind | None:
    """Whether a folder is a Delta or an Iceberg table."""
    if (path / "_delta_log").is_dir():
        return "delta"
    return "iceberg" if any(path.glob("metadata/*.metadata.json")) else None


def look_at(path: Path, spec: Files, folder: Path, scratch: Path, notes: list[str]) -> File:
    """Say what a file is, by its content; text that DuckDB does not read as it is gets copied into ``scratch``.

    Args:
        notes: What was decided without the card's word is said here.

    Raises:
        CardError: it is of no kind that can be read, or its text is not of the encoding that the card names.
    """
    partition = _partition(path, folder)
    if table := is_table(path):
        return File(path, table, path, partition=partition)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:  # such as a link to nothing
        raise CardError(f"{path} cannot be opened: {error.strerror}") from None
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return File(path, kind, _plain_name(path, scratch), partition=partition)
    packed = next((magic for magic in _OPENERS if head.startswith(magic)), None)
    try:
        with _unpacked(path, packed) as stream:
            head = stream.read(CHUNK)
    except (OSError, EOFError, RuntimeError, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise CardError(f"{path} is damaged: {error}") from None  # RuntimeError: a zip archive with a password
    inside = {magic: (f"{kind} inside another file", "unpack it") for magic, kind in _MAGIC.items()}
    tar = {head[:1]: _TAR} if head[257:262] == b"ustar" else {}
    for magic, (what, todo) in (_REFUSED | inside | tar).items():
        if head.startswith(magic):
            raise CardError(f"{path} is {what}, which cannot be read; {todo}")
    encoding, quotes, mixed_ends = _encoding(path, packed, head, spec, notes)
    readable = _plain_name(path, scratch, _DUCKDB_UNPACKS.get(packed or b"", ""))
    if encoding != "utf-8" or (packed and packed not in _DUCKDB_UNPACKS):
        readable = scratch / f"{len(list(scratch.iterdir()))}-utf8"
        _transcode(path, packed, encoding, readable)
    text = _decoder(encoding).decode(head) if encoding == MOSTLY_UTF8 else head.decode(encoding, errors="ignore")
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "[") and not spec.header:
        keys = _keys(text.lstrip().split("\n", 1)[0])
        return File(path, "json" if keys is None else "jsonl", readable, partition=partition, keys=keys or frozenset())
    names = tuple(spec.header) if spec.header else _header(text, spec)
    if not names:
        return File(path, "text", readable)
    dialect = dialect_of(path, readable, len(names), spec, quotes, mixed_ends, notes)
    first = tuple(line.removesuffix("\r") for line in text.split("\n", FIRST)[:FIRST])
    return File(path, "text", readable, names, dialect, partition, first)


def _keys(line: str) -> frozenset[str] | None:
    """The keys of a line that is an object, so that each of the file's lines is one."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return frozenset(found) if isinstance(found, dict) else None


def _plain_name(path: Path, scratch: Path, suffix: str = "") -> Path:
    """The path itself, or a link to it if DuckDB would take its name for a pattern, or for what it is not."""
    named = path.name.endswith(suffix or tuple(_DUCKDB_UNPACKS.values())) == bool(suffix)
    if named and not any(character in str(path) for character in "*?[{"):
        return path
    link = scratch / f"{len(list(scratch.iterdir()))}-link{suffix}"
    link.symlink_to(path.absolute())
    return link


def _partition(path: Path, folder: Path) -> dict[str, str | None]:
    parts = path.relative_to(folder).parts[:-1] if path.is_relative_to(folder) else path.parts[:-1]
    pairs = [part.split("=", 1) for part in parts if "=" in part]
    return {key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, value in pairs}


def _unpacked(path: Path, packed: bytes | None) -> IO[bytes]:
    return _OPENERS[packed](path) if packed else path.open("rb")


def _chunks(path: Path, packed: bytes | None) -> Iterator[bytes]:
    with _unpacked(path, packed) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _encoding(path: Path, packed: bytes | None, head: bytes, spec: Files, notes: list[str]) -> tuple[str, bool, bool]:
    """The encoding of a text, whether it has quotes, and whether its lines end in several ways."""
    if spec.encoding and codecs.lookup(spec.encoding).name not in ("utf-8", "utf-8-sig"):
        return spec.encoding, True, True
    if wide := _wide(head):
        return wide, True, True
    decoder, quotes, line, carriage = codecs.getincrementaldecoder("utf-8")(), False, 1, 0
    try:
        for chunk in _chunks(path, packed):
            quotes = quotes or b'"' in chunk
            decoder.decode(chunk)
            line += chunk.count(b"\n")
            carriage += chunk.count(b"\r") if b"\r" in chunk else 0
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line += error.object[: error.start].count(b"\n")
        what = f"{path} is not UTF-8: line {line} has the byte 0x{error.object[error.start]:02x}"
        if spec.encoding:
            raise CardError(f'{what}; the card says encoding = "{spec.encoding}"') from None
        if b"\0" in head:
            raise CardError(
                f"{path} is no text, and of no kind that can be read; export it as CSV or Parquet"
            ) from None
        if _is_mostly_utf8(path, packed):
            notes.append(f"{what}; it is read as UTF-8, and each byte that is none as Latin-1")
            return MOSTLY_UTF8, True, True
        encoding, called = _without_utf8(path, packed)
        notes.append(f'{what}; it is read as {called}. Say encoding = "{encoding}", or what it is, to be sure')
        return encoding, True, True
    return "utf-8", quotes, 0 < carriage != line - 1


def _wide(head: bytes) -> str | None:
    """UTF-32 or UTF-16, by its byte order mark or by the half of the bytes that is 0 in text of European letters."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    first = head[:FIRST]
    for encoding, zeros, others in (("utf-16-le", first[1::2], first[::2]), ("utf-16-be", first[::2], first[1::2])):
        if zeros and not any(zeros) and all(others):
            return encoding
    return None


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error(MOSTLY_UTF8, _as_latin_1)


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    if encoding == MOSTLY_UTF8:
        return codecs.getincrementaldecoder("utf-8")(MOSTLY_UTF8)
    return codecs.getincrementaldecoder(encoding)()


def _is_mostly_utf8(path: Path, packed: bytes | None) -> bool:
    """Whether a text that is not UTF-8 is so in a few places only, such as where a character was cut in two."""
    good = bad = 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in _chunks(path, packed):
        text = decoder.decode(chunk)
        lost = text.count("\ufffd")
        bad += lost
        good += sum(map(len, _NOT_ASCII.findall(text))) - lost
    return good >= bad


def _without_utf8(path: Path, packed: bytes | None) -> tuple[str, str]:
    """The encoding of a text that is not UTF-8: Latin-1, unless it has bytes that only Windows has a character for."""
    others: set[int] = set()
    for chunk in _chunks(path, packed):
        others.update(chunk.translate(None, delete=_IN_LATIN_1))
    only_windows = others and not others & {0x81, 0x8D, 0x8F, 0x90, 0x9D}
    return ("cp1252", "Windows-1252") if only_windows else ("latin-1", "Latin-1")


def _transcode(path: Path, packed: bytes | None, encoding: str, target: Path) -> None:
    decoder = _decoder(encoding)
    try:
        with target.open("w", encoding="utf-8", newline="") as copy:
            for chunk in _chunks(path, packed):
                copy.write(decoder.decode(chunk))
            copy.write(decoder.decode(b"", final=True))
    except UnicodeDecodeError as error:
        raise CardError(
            f"{path} is not {encoding}: {error.reason} at a byte 0x{error.object[error.start]:02x}"
        ) from None


def _header(text: str, spec: Files) -> tuple[str, ...]:
    lines = text.splitlines(keepends=True)[spec.skip :]
    if len(spec.separator) > 1 or spec.quoting == "none":
        first = lines[0].rstrip("\r\n").split(spec.separator) if lines else []
        return tuple(name.removeprefix('"').removesuffix('"') for name in first)
    return tuple(next(csv.reader(lines, delimiter=spec.separator), []))
