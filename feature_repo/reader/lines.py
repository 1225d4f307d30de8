"""What divides a text's lines into columns, and how many lines come before them: seen from the first lines."""

import csv
import re
from collections import Counter
from collections.abc import Sequence

SEPARATORS = (", ", ",", "\t", ";", "|", "::", "~", "^", "\x01", "\x1f")  # of equals the first
SPACE = " "  # in titles and times, too: only where nothing else divides
SURE = 0.8  # of the rows have as many columns as most


def divided(lines: Sequence[str]) -> tuple[str, int]:
    """The separator that divides most rows alike, and how many lines come before the columns.

    Of several the one that leaves fewest lines out, and then the one that makes most columns.

    Lines before them are titles, comments, blank lines, or Excel's ``sep=;``: of few columns, where most have many.
    """
    for marks in (SEPARATORS, (SPACE,)):
        found = [(_divided_by(mark, lines), mark) for mark in marks]
        (width, _, skip), mark = max(
            found, key=lambda one: (one[0][0] > 1, -one[0][1], one[0][0])
        )  # of equals the first
        if width > 1:
            return mark, skip
    return ",", 0


def _divided_by(mark: str, lines: Sequence[str]) -> tuple[int, int, int]:
    """How many columns most rows have, 0 if they differ; how many rows come before the first of many columns that are
    no comments; and how many lines come before it.

    Of several lines that begin with ``#`` the last may have the columns' names.
    """
    comments = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    widths = Counter(width for n, width in _rows(mark, lines) if width and n >= comments)
    if not widths:
        return 0, 0, 0
    width, _ = widths.most_common(1)[0]
    rows = [
        (n, own)
        for n, own in _rows(mark, lines)
        if not re.fullmatch(r"# .*|sep=.?", lines[n]) and (n >= comments or (n == comments - 1 and own == width))
    ]
    many = [(n, own) for n, own in rows if own > max(1, width // 2)]
    if not many or sum(own == width for _, own in many) < SURE * sum(own > 0 for n, own in rows if n >= many[0][0]):
        return 0, 0, 0
    return width, sum(own > 0 and n < many[0][0] for n, own in rows), many[0][0]


def _rows(mark: str, lines: Sequence[str]) -> list[tuple[int, int]]:
    """Of each row its first line and its columns; a quoted field may go over several lines."""
    if len(mark) == 1:
        reader, rows, start = csv.reader([f"{line}\n" for line in lines], delimiter=mark), [], 0
        try:
            for row in reader:
                rows.append((start, len(row)))
                start = reader.line_num
        except csv.Error:
            rows = []
        if len(rows) > len(lines) / 2:  # else a quote that is just a character ran lines together
            return rows
    return [(n, line.count(mark) + 1 if line else 0) for n, line in enumerate(lines)]
