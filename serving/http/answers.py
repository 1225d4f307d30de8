"""Answers as JSON, written by hand: a model of a hundred items costs more to build than to compute."""

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as quoted
from typing import NamedTuple

from serving.retrieval import Answer


class Detail(NamedTuple):
    """What people see of an item."""

    title: str | None
    category: Sequence[str]
    because: str | None


def as_json(
    answer: Answer,
    answer_id: str,
    details: Sequence[Detail] | None = None,
    page: Mapping[str, str | None] | None = None,
) -> bytes:
    """An answer in the form of :class:`serving.http.schemas.RetrieveOut`.

    Args:
        page: Its ``next``, if pages are asked for.
    """
    pairs = zip(answer.items, answer.scores, strict=True)
    if details is None:
        items = [f'{{"item_id":{quoted(item)},"score":{score!r}}}' for item, score in pairs]
    else:
        items = [
            f'{{"item_id":{quoted(item)},"score":{score!r},{json.dumps(detail._asdict(), ensure_ascii=False)[1:]}'
            for (item, score), detail in zip(pairs, details, strict=True)
        ]
    rest = {
        "source": answer.source,
        "fallback": answer.fallback,
        "clicks": answer.clicks,
        "update_count": answer.update_count,
        "at": answer.at,
        "vector_age_ms": answer.vector_age_ms,
        "arm": answer.arm,
        "reached": answer.reached,
        "waited_ms": answer.waited_ms,
        "took_ms": answer.took_ms,
        **(page or {}),
    }
    head = f'{{"answer_id":"{answer_id}","query_id":{quoted(answer.query_id)},"bundle":"{answer.snapshot.version}"'
    text = f'{head},"items":[{",".join(items)}],{json.dumps(rest, separators=(",", ":"))[1:]}'
    return text.encode(errors="backslashreplace")
