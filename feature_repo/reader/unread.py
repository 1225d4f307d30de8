"""What a card's author can do where columns say something that no line of a card does: in a sentence, with its SQL."""

import re
from datetime import datetime

from feature_repo.reader.card_text import called
from feature_repo.reader.columns import ZONES
from feature_repo.reader.roles import Looked, named
from feature_repo.reader.tables import quoted

_NTH = r"(?<![^\W_])(number|nr|no|seq\w*|index|rank|nth)$"
_ENGLISH = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_IN_ENGLISH = {name for month in _ENGLISH for name in (month.lower(), month[:3].lower())}
_MONTHS = (
    "januar jan|februar feb|märz mär mrz|april apr|mai|juni jun|juli jul|august aug|september sep sept|oktober okt|"
    "november nov|dezember dez",
    "jänner jän|feber|||||||||",
    "janvier janv|février févr|mars|avril avr|mai|juin|juillet juil|août|septembre sept|octobre oct|novembre nov|"
    "décembre déc",
    "enero ene|febrero feb|marzo mar|abril abr|mayo may|junio jun|julio jul|agosto ago|septiembre setiembre sept|"
    "octubre oct|noviembre nov|diciembre dic",
)  # fmt: skip
MONTHS = {
    word: _ENGLISH[number]
    for language in _MONTHS
    for number, words in enumerate(language.split("|"))
    for word in words.split()
}
"""German, French and Spanish names of months and their short forms, none of which means two."""


def of_times(name: str, values: list[str]) -> str:
    """What can be done about a column of times that no unit reads."""
    first = values[0]
    said = f"the times of {name}, such as {first}, are in no unit that is known: "
    if all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values):
        return (
            f'{said}if a larger one is later, say time = "{name}" and time_unit = "position"; if they count from a '
            "moment, let `sql` add it"
        )
    zone = re.search(r"\d:\d\d.*?(?<![A-Za-z/])([A-Z]{2,5})\b", first)
    if zone and zone[1] not in ("AM", "PM"):
        word = zone[1]
        why = f"{word} stands elsewhere than at the end" if word in ZONES else f"{word} is the name of several zones"
        return (
            f"{said}{why}. Let `sql` say the offset, as in replace({quoted(name)}, '{word}', '+01:00') AS time, and "
            "time_unit the format, with %z where it stands"
        )
    if worded := _worded(name, values):
        return said + worded
    return said + "say it as a format, or compute the time with `sql`"


def _worded(name: str, values: list[str]) -> str:
    """How ``sql`` makes English of the months that are German, French or Spanish; nothing if they are none."""
    words = {word for value in values for word in re.findall(r"[^\W\d_]{3,}\.?", value)}
    months = {word: MONTHS[plain] for word in words if (plain := word.lower().rstrip(".")) in MONTHS}
    if not months or all(word.lower() in _IN_ENGLISH for word in words):
        return ""
    longest = sorted(months, key=lambda word: (-len(word), word))
    english = [_replaced(value, longest, months) for value in values]
    form = _form(english[0])
    if sum(_is_of(value, form) for value in english) < 0.9 * len(values):
        return "its months are words that are not English. Let `sql` make numbers of them"
    written = quoted(name)
    for word in longest:
        written = f"replace({written}, '{word}', '{months[word]}')"
    return (
        "its months are words that are not English. Let `sql` replace them, each word that the log has, as in "
        f'{written} AS time, and say time_unit = "{form}"'
    )


def _replaced(value: str, longest: list[str], months: dict[str, str]) -> str:
    for word in longest:
        if word in value:
            return value.replace(word, months[word])
    return value


def _form(value: str) -> str:
    """The format of a date that has an English month."""
    for pattern, part in (
        (r"\d{1,2}:\d{2}:\d{2}", "%H:%M:%S"), (r"\d{1,2}:\d{2}", "%H:%M"), (r"\d{4}", "%Y"),
        (r"(?<!%)\b\d{1,2}\b", "%d"), ("|".join(_ENGLISH), "%B"),
    ):  # fmt: skip
        value = re.sub(pattern, part, value, count=1)
    return value


def _is_of(value: str, form: str) -> bool:
    try:
        datetime.strptime(value, form)
    except ValueError:
        return False
    return True


def of_parts(log: Looked, chosen: dict[str, str], heads: Looked, key: str, times: list[str]) -> str:
    """What can be done where each query is a part of somebody's log, such as an order, and another file has whose.

    Args:
        heads: The file that has a row a query, by its ``key``. times: its columns of times. Nothing where it names
            nobody.
    """
    people = [
        name for name in heads.different
        if name != key and named(name, "query") and 1 < heads.different[name] < heads.different[key]
    ]  # fmt: skip
    if not people:
        return ""
    lines, parts = called(log.path), called(heads.path)
    nth = next((name for name in heads.different if name in heads.numbers and re.search(_NTH, name.lower())), None)
    unit = ""
    if "time" in chosen:
        time = f"a.{quoted(chosen['time'])}"
    elif times or not nth:
        time = f"b.{quoted(times[0])}" if times else f"a column of {parts} that orders them"
    else:
        time, unit = f"b.{quoted(nth)}", ', with time_unit = "position"'
    return (
        f"each {key} is a visitor of its own, though {heads.path.name} has whose it is ({people[0]}). To follow "
        f"{people[0]}, let `sql` join them: SELECT b.{quoted(people[0])} AS query, a.{quoted(chosen['item'])} AS item, "
        f"{time} AS time FROM {lines} AS a JOIN {parts} AS b ON a.{quoted(chosen['query'])} = b.{quoted(key)}{unit}"
    )
