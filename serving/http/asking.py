"""From what a request says to a question, and from its answer to JSON: the same for every placement."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.types import Receive

from model.tracing import past
from serving.ab.answer_ids import AnswerId
from serving.filters import Condition, UnknownName
from serving.http import schemas
from serving.http.answers import Detail, as_json
from serving.http.errors import GoneAway
from serving.http.fast_path import lists_of, parameters
from serving.http.pages import shown_by, token_of
from serving.metrics import ANSWERS
from serving.retrieval import Answer, Ask, because
from serving.rules import Boost, Rules
from serving.service import Service

_T = TypeVar("_T")
_M = TypeVar("_M", bound=BaseModel)


def to_ask(service: Service, query_id: str, options: schemas.PlainIn | schemas.BodyIn, **more: Any) -> Ask:
    """The question that some options say.

    Raises:
        UnknownName: a filter names what there is not. NotValid: ``next`` is no token.
    """
    corpus, where = service.snapshot.corpus, options.where
    if options.category:
        if corpus.category_field is None:
            raise UnknownName("category: the items of this bundle have no categories")
        where = {**(where or {}), corpus.category_field: Condition(any=options.category)}
    for one in ([where] if where else []) + [boost.where for boost in options.boost or ()]:
        corpus.subset(one)  # made here, once, so that what it names wrongly is refused here
    pinned, exclude = tuple(options.pinned or ()), tuple(options.exclude or ())
    if options.next:
        exclude += tuple(shown := shown_by(options.next))
        pinned = tuple(id_ for id_ in pinned if id_ not in set(shown))
    rules = None
    if pinned or options.boost or options.max_per_category:
        boosts = tuple(Boost(boost.where, boost.by) for boost in options.boost or ())
        rules = Rules(pinned, boosts, options.max_per_category)
    allow = getattr(options, "allow", None)
    return Ask(
        query_id=query_id, n=options.n, at_ms=options.at, exclude_seen=options.exclude_seen, where=where or None,
        allow=None if allow is None else tuple(allow), exclude=exclude, rules=rules, details=options.details,
        shown=options.shown, static=options.static, **more,
    )  # fmt: skip


async def finish(service: Service, answer: Answer, ask: Ask, options: schemas.RetrieveOptions) -> bytes:
    """Name an answer, log it if it is shown, and write it as JSON."""
    ANSWERS.labels(answer.source, answer.fallback or "none").inc()
    answer_id = service.answer_id(answer)
    past(
        {"wait": answer.waited_ms / 1000, "answer": answer.took_ms / 1000},  # its turn and the store; tower and search
        {"dat.answer_id": answer_id, "dat.source": answer.source, "dat.bundle": answer.snapshot.version},
    )
    if ask.shown:
        service.impressions.note(AnswerId.parse(answer_id).impression(answer.query_id, answer.items))
    page = {}
    if options.paged or options.next:
        shown = [*(shown_by(options.next) if options.next else ()), *answer.items]
        page["next"] = token_of(shown) if len(answer.items) == ask.n else None
    return as_json(answer, answer_id, await _details(service, answer) if ask.details else None, page)


async def _details(service: Service, answer: Answer) -> list[Detail]:
    corpus = answer.snapshot.corpus
    near = because(corpus, answer.items, answer.recent)
    titles = await service.catalogue.titles(corpus, [*answer.items, *(item for item in near if item)])
    rows = [corpus.row(item) for item in answer.items]
    categories = [() if row is None else corpus.category_of(row) for row in rows]
    reasons = [why and (titles.get(why) or why) for why in near]
    return list(map(Detail, map(titles.get, answer.items), categories, reasons))


def read_parameters(model: type[_M], request: Request, **more: Any) -> _M:
    """What a request's query string says.

    Raises:
        RequestValidationError, NotValid: it is not of the model's form.
    """
    try:
        return model.model_validate(parameters(request.scope["query_string"], lists_of(model)) | more)
    except ValidationError as problem:
        raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in problem.errors()]) from None


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The parameters of a model as OpenAPI has them, for a route that reads them itself."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    as_text = {"where": {"type": "string"}, "boost": {"type": "array", "items": {"type": "string"}}}
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": field.get("description", ""),
                "schema": as_text.get(name, field),
            }
            for name, field in schema["properties"].items()
        ]
    }


async def unless_gone(answer: Coroutine[Any, Any, _T], receive: Receive) -> _T:
    """Wait for an answer for as long as its caller does.

    Raises:
        GoneAway: the caller closed the connection; what was to be done for it is given up.
    """
    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise GoneAway
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        with contextlib.suppress(BaseException):
            await gone


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
