"""Logs in every format that people bring, each with the rows that it has: what the reader must give, or refuse."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.orc
import pyarrow.parquet as pq

Row = tuple[str, str, int]
ROWS: list[Row] = [(f"u{n % 7}", f"i{n * 5 % 11}", 1_700_006_596_000 + n * 7_919_000) for n in range(40)]
"""Query, item, time in ms; four days."""
NUMBERED: list[Row] = [(query[1:], item[1:], time) for query, item, time in ROWS]
LONG: list[Row] = [(f"1{'0' * 19}{q}", f"-{'9' * 20}{i}", at) for q, i, at in NUMBERED]
CAPITALS: list[Row] = [
    (str(uuid.UUID(int=int(q))).upper(), str(uuid.UUID(int=7919 * int(i))).upper(), at) for q, i, at in NUMBERED
]
COLUMNS = 'query = "user"\nitem = "item"\ntime = "ts"\n'
DAY = 86_400_000


@dataclass(frozen=True)
class Format:
    """A log as someone has it.

    write: writes the files, and returns the lines of ``[clicks]`` · card: lines above it · expected: the rows that must
    come out · dropped: the counts of those that must not · refused: what a refusal must say · note: what must be said.
    """

    name: str
    write: Callable[[Path], str]
    card: str = ""
    expected: list[Row] = field(default_factory=lambda: ROWS)
    dropped: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    note: str = ""

    def bring(self, folder: Path) -> Path:
        """Write the log and its card; returns the card's path."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = self.write(folder)
        card = folder / "card.toml"
        card.write_text(f'name = "log"\ntitle = {json.dumps(self.name)}\nfolder = "."\n{self.card}\n[clicks]\n{lines}')
        return card


def seconds(ms: int) -> str:
    return str(ms // 1000)


def said(form: str, zone: timezone = UTC) -> Callable[[int], str]:
    return lambda ms: datetime.fromtimestamp(ms / 1000, zone).strftime(form)


def csv(
    separator: str = ",", time: Callable[[int], str] = seconds, unit: str = "s", end: str = "\n", more: str = "",
    encoding: str = "utf-8", pack: Callable[[bytes], bytes] = bytes, name: str = "log.csv",
    header: bool = True, extra: Callable[[int], str] | None = None, rows: list[Row] | None = None,
    after: dict[int, str] | None = None,
) -> Callable[[Path], str]:  # fmt: skip
    """Delimited text.

    extra: a column between the query and the item, by the row's number, quoted as it is · after: lines behind rows.
    """

    def write(folder: Path) -> str:
        names = ["user", *(["title"] if extra else []), "item", "ts"]
        lines = [separator.join(names)] if header else []
        for n, (query, item, at) in enumerate(ROWS if rows is None else rows):
            lines.append(separator.join([query, *([extra(n)] if extra else []), item, time(at)]))
            lines += [(after or {})[n]] if n in (after or {}) else []
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pack((end.join(lines) + end).encode(encoding)))
        mark = "" if separator == "," else f"separator = {json.dumps(separator)}\n"
        return f"path = {json.dumps(name)}\n{mark}{COLUMNS}time_unit = {json.dumps(unit)}\n{more}"

    return write


def files(content: dict[str, bytes], lines: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        for name, text in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
        return lines

    return write


def arrow(
    user: Callable[[list[str]], pa.Array] = pa.array, item: Callable[[list[str]], pa.Array] = pa.array,
    time: Callable[[list[int]], pa.Array] = lambda ms: pa.array([at // 1000 for at in ms]), unit: str = "s",
    rows: list[Row] = ROWS, save: Callable[[pa.Table, Path], object] | None = None, name: str = "log.parquet",
) -> Callable[[Path], str]:  # fmt: skip
    """A table of typed columns, as Parquet unless ``save`` writes something else."""

    def write(folder: Path) -> str:
        columns = [list(column) for column in zip(*rows, strict=True)]
        table = pa.table({"user": user(columns[0]), "item": item(columns[1]), "ts": time(columns[2])})
        (save or (lambda table, path: pq.write_table(table, path)))(table, folder / name)
        return f"path = {json.dumps(name)}\n{COLUMNS}time_unit = {json.dumps(unit)}\n"

    return write


def stamps(unit: str, zone: str | None = None) -> Callable[[list[int]], pa.Array]:
    return lambda ms: pa.array(ms, pa.timestamp("ms")).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))


def numbers(kind: pa.DataType) -> Callable[[list[str]], pa.Array]:
    return lambda texts: pa.array([int(text) for text in texts]).cast(kind)


def uuids(texts: list[str]) -> pa.Array:
    return pa.array([uuid.UUID(int=int(text[1:])).bytes[::-1] for text in texts], pa.binary(16))


def as_uuid(text: str) -> str:
    return str(uuid.UUID(bytes=uuid.UUID(int=int(text[1:])).bytes[::-1]))


def stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as out:
        out.write_table(table)


def tar(content: bytes) -> bytes:
    with tarfile.open(fileobj=(written := io.BytesIO()), mode="w") as archive:
        (member := tarfile.TarInfo("log.csv")).size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def objects(rows: list[Row]) -> list[dict]:
    return [{"user": query, "item": item, "ts": at // 1000} for query, item, at in rows]


def jsonl(rows: list[Row] = ROWS) -> bytes:
    return "\n".join(json.dumps(row) for row in objects(rows)).encode()


def two_parquets(folder: Path) -> str:
    half = len(NUMBERED) // 2
    arrow(numbers(pa.int64()), numbers(pa.int64()), rows=NUMBERED[:half], name="a.parquet")(folder)
    arrow(numbers(pa.float64()), pa.array, rows=NUMBERED[half:], name="b.parquet")(folder)
    return f'path = "*.parquet"\n{COLUMNS}'


def hive(folder: Path) -> str:
    for n, (query, item, at) in enumerate(ROWS):
        part = folder / "events" / f"day={said('%Y-%m-%d')(at)}" / f"kind={n % 2}"
        part.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"user": [query], "item": [item]}), part / f"{n:02}.parquet")
    (folder / "events" / "_SUCCESS").touch()
    return f'path = "events"\n{COLUMNS.replace("ts", "day")}time_unit = "date"\n'


def delta(table: pa.Table, path: Path) -> None:
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(str(path), pa.concat_tables([table, table.slice(0, 3)]))
    write_deltalake(str(path), table, mode="overwrite")  # the files of the first version stay in the folder
    assert len(DeltaTable(str(path)).history()) == 2


def iceberg(table: pa.Table, path: Path) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    catalogue = SqlCatalog("log", uri=f"sqlite:///{path.parent / 'catalogue.db'}", warehouse=f"file://{path.parent}")
    catalogue.create_namespace("db")
    created = catalogue.create_table("db.log", schema=table.schema, location=f"file://{path}")
    created.append(table.slice(0, 10))
    created.append(table.slice(10))


def zipped(members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(written := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return written.getvalue()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


def lz4(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def nested(rows: list[Row]) -> bytes:
    """Sessions with their events inside."""
    by_query: dict[str, list[dict]] = {}
    for query, item, at in rows:
        by_query.setdefault(query, []).append({"aid": item, "at": at, "what": {"kind": "view"}})
    return "\n".join(json.dumps({"session": query, "events": events}) for query, events in by_query.items()).encode()


SESSIONS = """time_unit = "ms"
tables.log = { path = "log.jsonl" }
sql = "SELECT session AS query, e.aid AS item, e.at AS time, e.what.kind AS event_type \
FROM (SELECT session, unnest(events) AS e FROM log)"
"""
BASKETS = """tables.orders = { path = "orders.csv" }
tables.lines = { path = "lines.csv" }
sql = "SELECT o.user AS query, unnest(string_split(l.items, ' ')) AS item, o.ts AS time \
FROM orders o JOIN lines l USING (id)"
"""
days = [(query, item, at // DAY * DAY) for query, item, at in ROWS]
local = [(query, item, at - 3_600_000) for query, item, at in ROWS]  # the same clock in Oslo, in winter
accents = [("café" if n % 2 else "cafè", item, at) for n, (_, item, at) in enumerate(ROWS)]
quotes = 'He said ""so"", and\nwent, home'
at_0 = ROWS[0][2]
OSLO = 'timezone = "Europe/Oslo"'

TEXT = [
    Format("comma-separated (RFC 4180)", csv()),
    Format("semicolons", csv(";")),
    Format("tabs", csv("\t")),
    Format("vertical bars", csv("|")),
    Format("a separator of two characters, `::`", csv("::")),
    Format("line ends of Windows", csv(end="\r\n")),
    Format("line ends of the old Macintosh", csv(end="\r")),
    Format("line ends of several kinds", csv(pack=lambda text: text.replace(b"\n", b"\r\n", 9))),
    Format("no line end at the end, empty lines", csv(pack=lambda text: text.replace(b"\n", b"\n\n", 3)[:-1])),
    Format("byte order mark", csv(encoding="utf-8-sig")),
    Format("UTF-16 (Excel's Unicode text)", csv("\t", encoding="utf-16")),
    Format("UTF-16 without a byte order mark", csv(encoding="utf-16-le")),
    Format("UTF-32", csv(encoding="utf-32")),
    Format("Latin-1, said by the card", csv(encoding="latin-1", rows=accents, more='encoding = "latin-1"\n'),
           expected=accents),
    Format("Latin-1, not said", csv(encoding="latin-1", rows=accents), expected=accents, note="is read as Latin-1"),
    Format("UTF-8 in which characters were cut in two", files(
        {"a.csv": b"user,item,ts\nu1,\xc3\xa9t\xc3,1700006596\n\xc3\xa9,i,1700006597\n"}, f'path = "a.csv"\n{COLUMNS}'),
           expected=[("u1", "étÃ", 1_700_006_596_000), ("é", "i", 1_700_006_597_000)],
           note="line 2 has the byte 0xc3; it is read as UTF-8, and each byte that is none as Latin-1"),
    Format("Windows-1252, not said", csv(encoding="cp1252", rows=[("€", "œ", at_0)]), expected=[("€", "œ", at_0)],
           note="is read as Windows-1252"),
    Format("Shift JIS, said", csv(encoding="shift_jis", rows=[("客", "品", at_0)], more='encoding = "shift_jis"\n'),
           expected=[("客", "品", at_0)]),
    Format("emoji, combining marks, leading zeros", csv(rows=[("é🎬", "007", at_0), ("e\u0301", "7", at_0)]),
           expected=[("é🎬", "007", at_0), ("e\u0301", "7", at_0)]),
    Format("gzip", csv(pack=gzip.compress, name="log.csv.gz")),
    Format("zstd", csv(pack=zstd, name="log.csv.zst")),
    Format("bzip2", csv(pack=bz2.compress, name="log.csv.bz2")),
    Format("xz", csv(pack=lzma.compress, name="log.csv.xz")),
    Format("lz4", csv(pack=lz4, name="log.csv.lz4")),
    Format("a zip archive of one file", csv(pack=lambda text: zipped({"x/": b"", "x/a.csv": text}), name="log.zip")),
    Format("gzip without a suffix", csv(pack=gzip.compress, name="log")),
    Format("no header line", csv(header=False, more='header = ["user", "item", "ts"]\n')),
    Format("lines before the header", csv(
        pack=lambda text: b"# of our tracker\n# zone: UTC\n" + text, more="skip = 2\n")),  # fmt: skip
    Format("decimal commas", csv(";", time=lambda ms: f"{ms // 1000},000", more='decimal = ","\n')),
    Format("quoted text with separators, line ends and quotes", csv(extra=lambda n: f'"{quotes}"')),
    Format("quotes inside unquoted text", csv(extra=lambda n: '5" disk')),
    Format("quotes behind a backslash (MySQL, Spark)", csv(extra=lambda n: '"a \\"b\\", c"'), note="backslash"),
    Format("tabs, and a quote as a character", csv("\t", extra=lambda n: '"Heroes' if n % 5 == 0 else "x"),
           note='quoting = "none"'),
    Format("tabs, and quotes that seem to close", csv("\t", extra=lambda n: {3: '"Open', 9: 'Close"'}.get(n, "x")),
           note='quoting = "none"'),
    Format("a line with a column too many", csv(after={5: "u1,i1,1700006596,x"}), dropped={"malformed line": 1}),
    Format("a line with a column too many, line ends of Windows", csv(after={5: "u1,i1,1700006596,x"}, end="\r\n"),
           dropped={"malformed line": 1}),
    Format("a line that is cut off", csv(after={5: "u1,i1"}), dropped={"malformed line": 1}),
    Format("files with their columns in another order", files(
        {"a.csv": b"user,item,ts\nu1,i1,1700006596\n", "b.csv": b"ts,item,x,user\n1700006597,i2,,u2\n"},
        f'path = ["a.csv", "b.csv"]\n{COLUMNS}'),
        expected=[("u1", "i1", 1_700_006_596_000), ("u2", "i2", 1_700_006_597_000)]),
    Format("columns that differ in capitals only", files(
        {"a.csv": b"user,Item,item,ts\nu1,wrong,i1,1700006596\n"}, f'path = "a.csv"\n{COLUMNS}'),
        expected=[("u1", "i1", 1_700_006_596_000)]),
    Format("columns that differ in capitals only, with `where`", files(
        {"a.csv": b"user,Item,item,ts,item_1\nu1,wrong,i1,1700006596,x\nu2,wrong,i2,1700006597,x\n"},
        f'path = "a.csv"\nwhere = "item_2 = \'i1\'"\n{COLUMNS}'), dropped={"left out by `where`": 1},
        expected=[("u1", "i1", 1_700_006_596_000)], note="columns that differ in capitals only: in SQL item is item_2"),
    Format("names of columns with spaces, dots and quotes", files(
        {"a.csv": b'"the ""user""",item.id,group\nu1,i1,1700006596\n'},
        'path = "a.csv"\nquery = "the \\"user\\""\nitem = "item.id"\ntime = "group"\n'),
        expected=[("u1", "i1", 1_700_006_596_000)]),
]  # fmt: skip
TYPED = [
    Format("JSON lines", files({"log.jsonl": jsonl()}, f'path = "log.jsonl"\n{COLUMNS}')),
    Format("JSON lines, gzip", files({"log.jsonl.gz": gzip.compress(jsonl())}, f'path = "log.jsonl.gz"\n{COLUMNS}')),
    Format("one JSON array", files({"log.json": json.dumps(objects(ROWS), indent=1).encode()},
                                   f'path = "log.json"\n{COLUMNS}')),
    Format("JSON lines, one of them cut off", files({"log.jsonl": jsonl() + b'\n{"user": "u1", "it'},
                                                    f'path = "log.jsonl"\n{COLUMNS}'), dropped={"malformed line": 1}),
    Format("JSON with sessions of events, by SQL", files({"log.jsonl": nested(ROWS)}, SESSIONS)),
    Format("JSON with sessions of events, a line cut off, by SQL", files(
        {"log.jsonl": nested(ROWS) + b'\n{"session": "u1", "ev'}, SESSIONS), dropped={"malformed line": 1}),
    Format("JSON with UUIDs in capitals, by SQL", files({"log.jsonl": nested(CAPITALS)}, SESSIONS), expected=CAPITALS),
    Format("JSON with a quote in a key", files(
        {"log.jsonl": b'{"user": "u1", "it\\"em": "i1", "ts": 1700006596}\n'},
        'path = "log.jsonl"\nquery = "user"\nitem = "it\\"em"\ntime = "ts"\n'),
        expected=[("u1", "i1", 1_700_006_596_000)]),
    Format("JSON lines, empty lines between", files({"log.jsonl": jsonl().replace(b"\n", b"\n\n")},
                                                    f'path = "log.jsonl"\n{COLUMNS}')),
    Format("JSON, whole numbers of 21 digits", files(
        {"log.jsonl": "\n".join(f'{{"user": {q}, "item": {i}, "ts": {at // 1000}}}' for q, i, at in LONG).encode()},
        f'path = "log.jsonl"\n{COLUMNS}'), expected=LONG),
    Format("orders joined with their lines, exploded by SQL", files(
        {"orders.csv": b"id,user,ts\n1,u1,1700006596\n2,u2,1700006597\n", "lines.csv": b"id,items\n1,a b\n2,c\n"},
        BASKETS),
        expected=[("u1", "a", 1_700_006_596_000), ("u1", "b", 1_700_006_596_000), ("u2", "c", 1_700_006_597_000)]),
    Format("Parquet, text", arrow()),
    Format("Parquet, integers", arrow(numbers(pa.int32()), numbers(pa.uint64()), rows=NUMBERED), expected=NUMBERED),
    Format("Parquet, whole numbers as floats", arrow(numbers(pa.float64()), numbers(pa.float32()), rows=NUMBERED),
           expected=NUMBERED),
    Format("Parquet, decimals", arrow(lambda v: pa.array([Decimal(x) for x in v]).cast(pa.decimal128(10, 2)),
                                      numbers(pa.decimal128(20, 0)), rows=NUMBERED), expected=NUMBERED),
    Format("Parquet, dictionaries", arrow(lambda v: pa.array(v).dictionary_encode())),
    Format("Parquet, large strings and binary", arrow(lambda v: pa.array(v, pa.large_string()),
                                                      lambda v: pa.array([x.encode() for x in v], pa.binary()))),
    Format("Parquet, UUIDs as 16 bytes", arrow(uuids), expected=[(as_uuid(q), i, at) for q, i, at in ROWS]),
    Format("Parquet, string views", arrow(lambda v: pa.array(v).cast(pa.string_view()))),
    Format("Parquet, integers in one file, floats and text in another", two_parquets, expected=NUMBERED),
    Format("Parquet in Hive folders, the day from their names, `_SUCCESS` beside", hive, expected=days),
    Format("Parquet of pandas (nanoseconds)", arrow(time=stamps("ns"), unit="date")),
    Format("Parquet, microseconds with a zone", arrow(time=stamps("us", "Europe/Oslo"), unit="date")),
    Format("Parquet, INT96", arrow(time=stamps("ns"), unit="date", save=lambda table, path: pq.write_table(
        table, path, use_deprecated_int96_timestamps=True))),
    Format("Parquet, dates", arrow(time=lambda ms: pa.array([at // DAY for at in ms], pa.int32()).cast(pa.date32()),
                                   unit="date"), expected=days),
    Format("Parquet, zstd", arrow(save=lambda table, path: pq.write_table(table, path, compression="zstd"))),
    Format("Arrow (Feather)", arrow(save=pyarrow.feather.write_feather, name="log.arrow")),
    Format("a stream of Arrow (Hugging Face's datasets)", arrow(save=stream, name="data-0.arrow")),
    Format("ORC", arrow(save=pyarrow.orc.write_table, name="log.orc")),
    Format("Delta table", arrow(save=delta, name="delta")),
    Format("Iceberg table", arrow(save=iceberg, name="iceberg")),
]  # fmt: skip
TIMES = [
    Format("seconds with decimals", csv(time=lambda at: f"{at / 1000:.3f}")),
    Format("milliseconds", csv(time=str, unit="ms")),
    Format("microseconds", csv(time=lambda at: f"{at}000", unit="us")),
    Format("nanoseconds", csv(time=lambda at: f"{at}000000", unit="ns")),
    Format("day numbers", csv(time=lambda at: str(at // DAY), unit="d"), expected=days),
    Format("2023-11-15", csv(time=said("%Y-%m-%d"), unit="date"), expected=days),
    Format("20231115", csv(time=said("%Y%m%d"), unit="date"), expected=days),
    Format("2023-11-15 00:03:16", csv(time=said("%Y-%m-%d %H:%M:%S"), unit="date")),
    Format("2023-11-15T00:03:16Z", csv(time=said("%Y-%m-%dT%H:%M:%SZ"), unit="date")),
    Format("2023-11-15 00:03:16.000000+00 (Postgres)", csv(time=said("%Y-%m-%d %H:%M:%S.%f+00"), unit="date")),
    Format("2023-11-15T02:03:16+02:00", csv(time=said("%Y-%m-%dT%H:%M:%S+02:00", timezone(timedelta(hours=2))),
                                            unit="date")),
    Format("2023-11-15 02:03:16 +0200", csv(time=said("%Y-%m-%d %H:%M:%S %z", timezone(timedelta(hours=2))),
                                            unit="date")),
    Format("2023-11-15 00:03:16.000 Z (Snowflake)", csv(time=said("%Y-%m-%d %H:%M:%S.000 Z"), unit="date")),
    Format("2023-11-14 17:03:16.000 -0700 (Snowflake)",
           csv(time=said("%Y-%m-%d %H:%M:%S.000 -0700", timezone(timedelta(hours=-7))), unit="date")),
    Format("2023-11-15T01:03:16+01:00[Europe/Oslo] (Java)",
           csv(time=said("%Y-%m-%dT%H:%M:%S+01:00[Europe/Oslo]", timezone(timedelta(hours=1))), unit="date")),
    Format("2023-11-15 01:03:16 +0100 CET (Go)",
           csv(time=said("%Y-%m-%d %H:%M:%S +0100 CET", timezone(timedelta(hours=1))), unit="date")),
    Format("Wed Nov 15 2023 01:03:16 GMT+0100 (Central European Standard Time) (JavaScript)", csv(
        time=said("%a %b %d %Y %H:%M:%S GMT+0100 (Central European Standard Time)", timezone(timedelta(hours=1))),
        unit="date")),
    Format("20231115T000316Z", csv(time=said("%Y%m%dT%H%M%SZ"), unit="date")),
    Format("2023-11-15T00:03:16,000Z", csv(";", time=said("%Y-%m-%dT%H:%M:%S,000Z"), unit="date")),
    Format("2023-11-15 00:03:16 UTC", csv(time=said("%Y-%m-%d %H:%M:%S UTC"), unit="date")),
    Format("Wed Nov 15 00:03:16 +0000 2023", csv(time=said("%a %b %d %H:%M:%S %z %Y"), unit="date")),
    Format("Wed, 15 Nov 2023 00:03:16 +0000", csv(";", time=said("%a, %d %b %Y %H:%M:%S %z"), unit="date")),
    Format("15/Nov/2023:00:03:16 +0000 (web servers)", csv(time=said("%d/%b/%Y:%H:%M:%S %z"), unit="date")),
    Format("15/11/2023 00:03:16, by a format", csv(time=said("%d/%m/%Y %H:%M:%S"), unit="%d/%m/%Y %H:%M:%S")),
    Format("Nov 15, 2023, 12:03:16 AM, by a format",
           csv("\t", time=said("%b %d, %Y, %I:%M:%S %p"), unit="%b %d, %Y, %I:%M:%S %p")),
    Format("11/15/2023 12:03:16 AM, by a format", csv(time=said("%m/%d/%Y %I:%M:%S %p"), unit="%m/%d/%Y %I:%M:%S %p")),
    Format("clocks of Oslo, without a zone", csv(time=said("%Y-%m-%d %H:%M:%S"), unit="date"), OSLO,
           expected=local),
    Format("Parquet's clocks of Oslo", arrow(time=stamps("us"), unit="date"), OSLO, expected=local),
    Format("no times, the order of the rows", csv(unit="order"),
           expected=[(query, item, 1000 * n) for n, (query, item, _) in enumerate(ROWS)]),
    Format("a few times that are none", csv(after={3: "u1,i1,0000-00-00", 9: "u1,i1,"}),
           dropped={"time missing": 1, "time unreadable": 1}),
    Format("a few times that cannot be", csv(after={3: "u1,i1,-1", 9: "u1,i1,3900000000"}),
           dropped={"time out of range": 2}),
]  # fmt: skip
NULLS = [
    Format("words for nobody", csv(after={n: f"{word},i1,{1700006600 + n}" for n, word in enumerate(
        ("", "NA", "NULL", "null", "None", "\\N", "nan", "N/A", "-", "(not set)"))}), dropped={"query id missing": 10}),
    Format("words for nobody, of the card's own", csv(after={3: "anonymous,i1,1700006600"}),
           'nulls = ["", "anonymous"]', dropped={"query id missing": 1}),
    Format("-1, 0 and null as ids, by the card", csv(rows=[("-1", "0", at_0), ("0", "null", at_0)]), "nulls = []",
           expected=[("-1", "0", at_0), ("0", "null", at_0)]),
    Format("some rows only, by `where`", csv(after={3: "u9,i1,1700006600"}, more="where = \"user <> 'u9'\"\n"),
           dropped={"left out by `where`": 1}),
    Format("some types of event only", files(
        {"a.csv": b"user,item,ts,what\nu1,i1,1700006596,buy\nu1,i2,1700006597,scroll\nu1,i3,1700006598,view\n"},
        f'path = "a.csv"\n{COLUMNS}event_type = "what"\nevents = {{ buy = 1.0, view = 0.2 }}\n'),
        expected=[("u1", "i1", 1_700_006_596_000), ("u1", "i3", 1_700_006_598_000)],
        dropped={"event type not in `events`": 1}),
]  # fmt: skip
NAMES = [
    Format(f"a file named {name}", csv(name=name))
    for name in (
        "log [2023-11].csv", "log-10:00.csv", "{log}.csv", "log*?.csv", "_log.csv", "l'og \"é\".csv", "log.2023",
        "not packed.csv.gz",
    )
] + [
    Format("a glob over folders", files(
        {f"2023/{n}/x.csv": f"user,item,ts\n{q},{i},{at // 1000}\n".encode() for n, (q, i, at) in enumerate(ROWS)},
        f'path = "2023/**/*.csv"\n{COLUMNS}')),
    Format("a folder, with `_SUCCESS` and hidden files", files(
        {"log/part-0.csv": b"user,item,ts\nu1,i1,1700006596\n", "log/_SUCCESS": b"", "log/.x.crc": b"\0\1",
         "log/_temporary/0.csv": b"broken"}, f'path = "log"\n{COLUMNS}'), expected=[("u1", "i1", 1_700_006_596_000)]),
]  # fmt: skip
REFUSED = [
    Format("a zip archive of several files", csv(pack=lambda text: zipped({"a.csv": text, "b.csv": text})),
           refused="zip archive of 2 files; .* Unpack it, and name .*a.csv, b.csv"),
    Format("an Excel sheet", csv(pack=lambda text: zipped({"[Content_Types].xml": b"<Types/>", "xl/a.xml": text})),
           refused="an Excel sheet, which cannot be read; save it as CSV"),
    Format("a zip archive that is cut off", csv(pack=lambda text: zipped({"a.csv": text})[:-9]), refused="is damaged"),
    Format("a tar archive", csv(pack=tar), refused="a tar archive, which cannot be read; unpack it"),
    Format("a tar archive, gzip", csv(pack=lambda text: gzip.compress(tar(text))), refused="a tar archive"),
    Format("lines of as many items as a basket has", csv(pack=lambda text: text[:13] + b"a,b\nc\na,b,c,d\n" * 9),
           refused="27 of 27 lines do not have the 3 columns of the first"),
    Format("a path in a bucket", lambda folder: f'path = "s3://shop/log-*.csv"\n{COLUMNS}',
           refused="s3://shop/log-.* is no folder or file here: mount"),
    Format("an SQLite file", csv(pack=lambda text: b"SQLite format 3\0" + text), refused="an SQLite file"),
    Format("an Avro file", csv(pack=lambda text: b"Obj\1" + text), refused="an Avro file"),
    Format("a picture", csv(pack=lambda text: b"\x89PNG\r\n\x1a\n\0\0\0\r" + text), refused="is no text"),
    Format("gzip that is cut off", csv(pack=lambda text: gzip.compress(text)[:-20]), refused="is damaged"),
    Format("Parquet that is cut off", arrow(save=lambda table, path: (pq.write_table(table, path), path.write_bytes(
        path.read_bytes()[:-9]))), refused="no whole Parquet file"),
    Format("text that is not of the encoding said", csv(encoding="latin-1", rows=accents, more='encoding = "utf-8"\n'),
           refused=r"is not UTF-8: line 2 has the byte 0xe8"),
    Format("a list of items", arrow(item=lambda v: pa.array([[x] for x in v])), refused="holds VARCHAR.. .*unnest"),
    Format("a JSON list of items", files({"a.jsonl": b'{"user": 1, "item": [1, 2], "ts": 1700006596}'},
                                         f'path = "a.jsonl"\n{COLUMNS}'), refused="lists or objects where one value"),
    Format("a JSON object as an id", files({"a.jsonl": b'{"user": {"id": 1}, "item": 2, "ts": 1700006596}'},
                                           f'path = "a.jsonl"\n{COLUMNS}'), refused="the key user holds lists"),
    Format("JSON rows without keys", files({"a.json": b'[[1, 2, 1700006596]]'},
                                           f'path = "a.json"\n{COLUMNS}'), refused="no objects with keys, but"),
    Format("a JSON key that is not there", files({"a.jsonl": b'{"usr": 1, "item": 2, "ts": 1700006596}'},
                                                 f'path = "a.jsonl"\n{COLUMNS}'), refused="lacks the key user; .* usr"),
    Format("milliseconds said to be seconds", csv(time=str), refused='the year 55,8.*time_unit = "ms" .* 2023-11-15'),
    Format("seconds said to be milliseconds", csv(unit="ms"), refused='1970-01-20.*time_unit = "s"'),
    Format("20231115 said to be seconds", csv(time=said("%Y%m%d")), refused='1970-08-23.*time_unit = "date"'),
    Format("dates said to be seconds", csv(time=said("%Y-%m-%d")), refused='has 2023-11-15, .*time_unit = "date"'),
    Format("15/11/2023 said to be a date", csv(time=said("%d/%m/%Y"), unit="date"), refused='time_unit = "%d/%m/%Y"'),
    Format("a Parquet timestamp said to be seconds", arrow(time=stamps("us")), refused='is of type TIMESTAMP.*"date"'),
    Format("seconds since the first click", csv(time=lambda at: str((at - at_0) // 1000)), refused="No unit fits"),
    Format("a column that is not there", csv(more="", pack=lambda text: text.replace(b"user", b"usr")),
           refused="lacks the column user .* it has: usr, item, ts"),
    Format("no header line, and the card does not say so", csv(header=False), refused="header = "),
    Format("no file", lambda folder: f'path = "log-*.csv"\n{COLUMNS}', refused=r"no file log-\*.csv in"),
    Format("an empty file", csv(pack=lambda text: b""), refused="there is nothing in it"),
    Format("SQL that is no SELECT", files(
        {"a.csv": b"x\n1\n"}, 'sql = "DROP TABLE log"\ntables.log = { path = "a.csv" }\n'), refused="one SELECT"),
    Format("SQL with a column that is not there", files(
        {"a.csv": b"x\n1\n"}, 'sql = "SELECT y AS query FROM log"\ntables.log = { path = "a.csv" }\n'),
        refused='column "y"'),
    Format("`where` with a column that is not there", csv(more='where = "buyer = 1"\n'), refused='column "buyer"'),
]  # fmt: skip
GROUPS = {
    "Text": TEXT, "JSON, Parquet and tables": TYPED, "Times": TIMES, "What is left out": NULLS, "File names": NAMES,
    "Refused": REFUSED,
}  # fmt: skip
FORMATS = [form for group in GROUPS.values() for form in group]
