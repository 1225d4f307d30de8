"""Delimited text as DuckDB reads it, by the quoting that fits most of a file's lines."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from feature_repo.card import CardError, Files

Quoting = Literal["doubled", "backslash", "none"]
_MARKS: dict[Quoting, tuple[str, str]] = {"doubled": ('"', '"'), "backslash": ('"', "\\"), "none": ("", "")}
_HOW = {"backslash": "with backslashes before quotes", "none": "without quoting"}
_LINE = 16 << 20  # bytes


@dataclass(frozen=True)
class Dialect:
    """How a text quotes, and whether DuckDB can be strict about it, which it cannot where line ends are mixed."""

    quoting: Quoting = "doubled"
    strict: bool = True


def literal(text: str | Path) -> str:
    """An SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def literals(values: Iterable[str | Path | None]) -> str:
    """An SQL list of strings."""
    return "[" + ", ".join("NULL" if value is None else literal(value) for value in values) + "]"


def scan(files: list[Path], columns: int, spec: Files, dialect: Dialect) -> str:
    """A FROM clause of text files; columns are ``c0``, ``c1``, …, and lines that do not fit go to ``reject_errors``."""
    quote, escape = _MARKS[dialect.quoting]
    fields = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(columns))
    return (
        f"read_csv({literals(files)}, columns={{{fields}}}, auto_detect=false, header={str(not spec.header).lower()}, "
        f"skip={spec.skip}, delim={literal(spec.separator)}, quote={literal(quote)}, escape={literal(escape)}, "
        f"store_rejects=true, strict_mode={str(dialect.strict).lower()}, maximum_line_size={_LINE})"
    )


def lines(files: list[Path]) -> str:
    """A FROM clause of text files with a column ``json``: each line that is JSON, null for another."""
    # No JSON has this character as it is. read_json would not always keep the order of the lines.
    read = (
        f"read_csv({literals(files)}, columns={{'line': 'VARCHAR'}}, auto_detect=false, header=false, delim='\x01', "
        f"quote='', escape='', strict_mode=false, maximum_line_size={_LINE})"
    )
    return (
        "(SELECT *, file_index, CASE WHEN json_valid(line) THEN line::JSON END AS json "
        f"FROM {read} WHERE line IS NOT NULL)"
    )


def dialect_of(
    path: Path, readable: Path, columns: int, spec: Files, quotes: bool, mixed_ends: bool, notes: list[str]
) -> Dialect:
    """How a text quotes: as the card says, else by RFC 4180, unless another way reads more of its lines.

    Args:
        quotes, mixed_ends: Whether it has quotes, or line ends of several kinds.
        notes: A way that the card did not say is said here.
    """
    if not quotes:
        return Dialect(spec.quoting or "doubled", not mixed_ends)
    with duckdb.connect() as sql:

        def trial(quoting: Quoting) -> tuple[int, int, Dialect]:
            """How many lines can be read so, and how many cannot."""
            for dialect in (Dialect(quoting), Dialect(quoting, strict=False)):
                sql.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
                try:
                    query = f"SELECT count(*) FROM {scan([readable], columns, spec, dialect)}"
                    ((rows,),) = sql.execute(query).fetchall()
                    ((bad,),) = sql.execute("SELECT count(DISTINCT line) FROM reject_errors").fetchall()
                    return rows, bad, dialect
                except duckdb.InvalidInputException as error:
                    if not dialect.strict or "strict" not in str(error):
                        raise CardError(f"{path} cannot be read as text: {str(error).splitlines()[0]}") from None
            raise AssertionError

        if spec.quoting:
            return trial(spec.quoting)[2]
        most, bad, best = trial("doubled")
        if bad or spec.separator == "\t":
            for quoting in ("backslash", "none"):
                rows, worse, dialect = trial(quoting)
                # In tab-separated text a quote is often just a character. Where no line fails without quoting, and
                # there are more lines so, quotes have run lines together.
                if rows > most and (bad or not worse):
                    most, best = rows, dialect
    if best.quoting != "doubled":
        notes.append(f'{path} is read {_HOW[best.quoting]}, which fits more of its lines: quoting = "{best.quoting}"')
    return best
