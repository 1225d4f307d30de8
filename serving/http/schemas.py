"""What goes over HTTP, and what of it is refused."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from model.click import EARLIEST_MS, LATEST_MS
from serving.filters import Value, Where
from serving.http.pages import LONGEST
from serving.outside_json import read_json


def _whole(value: Any) -> Any:
    """A number as it stands in a URL or a JSON body: no fraction, no string in a body."""
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        raise ValueError("must be a whole number")
    if isinstance(value, bool | float):
        raise ValueError("must be a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Id = Annotated[str, Field(min_length=1, max_length=256)]
Time = Annotated[Whole, Field(ge=EARLIEST_MS, lt=LATEST_MS, description="ms since the epoch, UTC")]
AnswerId = Annotated[str, Field(max_length=4096)]
Token = Annotated[str, Field(pattern=r"^[0-9]{1,6}:[0-9]{1,18}(:[0-9]{1,6}:[0-9]{1,18})?$", max_length=64)]


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half a character, which no record can") from None
    return value


Text = Annotated[str, AfterValidator(_text)]  # in a union pydantic does not look


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Boost(_Strict):
    """Rank items that meet a condition as if their score were higher."""

    where: Where
    by: float = Field(
        gt=0, le=2, description="Scores are inner products, mostly between −1 and 2; those of popularity lie in 0 to 1."
    )


class RetrieveOptions(_Strict):
    """How to answer; the same for one query, for a batch and for a session."""

    n: Whole = Field(100, ge=1, le=1000, description="How many items.")
    at: Time | None = Field(None, description="The moment of the answer, ms since the epoch, UTC. Default: now.")
    exclude_seen: bool | None = Field(
        None, description="Leave out what the query has clicked. Default: as the model was trained and evaluated."
    )
    category: Annotated[list[Value] | None, BeforeValidator(_several)] = Field(
        None, max_length=100, description="Only items of one of these categories."
    )
    exclude: list[Id] | None = Field(None, max_length=1_000, description="Never these items.")
    static: bool = Field(
        False, description="As of the last night, without what the query has done since: to compare with."
    )
    max_per_category: Whole | None = Field(None, ge=1, description="At most so many items of one category.")
    pinned: list[Id] | None = Field(
        None,
        max_length=100,
        description="These first, in this order, whatever filters say; not those hidden, excluded or dismissed.",
    )
    paged: bool = Field(False, description="Give the answer's `next`, to ask for what comes after it.")
    next: Annotated[str, Field(max_length=LONGEST)] | None = Field(
        None, description="The `next` of the answer before: what it and those before it held is left out."
    )
    details: bool = Field(False, description="Add titles, categories, and the clicked item nearest to each.")
    shown: bool = Field(False, description="Somebody will see the whole answer: log it as an impression.")


def _json(value: Any) -> Any:
    try:
        return read_json(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("is not JSON") from None


class PlainIn(RetrieveOptions):
    """Options as they stand in a URL."""

    where: Annotated[Where | None, BeforeValidator(_json)] = Field(
        None, description='Conditions on items, as JSON: {"genre": {"any": ["War"]}, "price": {"lt": 50}}.'
    )
    boost: list[Annotated[Boost, BeforeValidator(_json)]] | None = Field(
        None, max_length=10, description='Each as JSON: {"where": {"genre": "War"}, "by": 0.1}.'
    )


class RetrieveIn(PlainIn):
    query_id: Id = Field(description="Whose top N. A new id is welcome.")
    wait_for: Token | None = Field(
        None,
        description="Hold the answer until this click counts: the token of POST /v1/clicks. 422 if there is none.",
    )


class BodyIn(RetrieveOptions):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    where: Where | None = Field(None, description="Conditions on items: field → condition.")
    boost: list[Boost] | None = Field(None, max_length=10)
    allow: list[Id] | None = Field(None, max_length=10_000, description="Only these items.")


class SessionIn(BodyIn):
    items: list[Id] = Field(min_length=1, max_length=200, description="What the visitor has clicked, oldest first.")


class BatchIn(BodyIn):
    query_ids: list[Id] = Field(min_length=1, max_length=100, description="The queries, at most 100.")


class Item(BaseModel):
    item_id: str
    score: float = Field(description="⟨p_u, p_v⟩; for source popularity, relative popularity; 0: never clicked.")
    title: str | None = Field(None, description="With details only.")
    category: list[str] | None = Field(None, description="With details only.")
    because: str | None = Field(None, description="With details only: the query's recent item nearest to this one.")


class RetrieveOut(BaseModel):
    """A query's top N."""

    answer_id: str = Field(description="Send it back with clicks and impressions: it says how the answer came about.")
    query_id: str = Field(description="Empty for a session and for similar items.")
    bundle: str = Field(description="The model bundle whose vectors gave this answer.")
    items: list[Item] = Field(description="Best first.")
    source: str = Field(
        description="Where the query's vector comes from: stream (its clicks, live), bundle (as of the nightly cut), "
        "profile (a new query that the catalogue knows), session, item (it is nearness to one), popularity (nothing is "
        "known of it)."
    )
    fallback: str | None = Field(description="Why the answer is poorer than it could be: unknown-query, store-down.")
    clicks: int = Field(description="How many clicks the query's activity counts.")
    update_count: int = Field(description="How many clicks are folded into its augmented vector.")
    at: int
    vector_age_ms: int | None = Field(
        description="Time since the last click in the query's vector, at the moment `at`."
    )
    arm: str | None = Field(description="control, treatment or interleaved, while an experiment runs.")
    reached: bool | None = Field(description="Whether the click of wait_for counts; null if none was waited for.")
    next: str | None = Field(None, description="With `paged` only: ask with it for what comes after; null: no more.")
    waited_ms: float = Field(description="How long the answer waited for its turn or its click.")
    took_ms: float = Field(description="How long computing the answer took.")


class BatchOut(BaseModel):
    answers: list[RetrieveOut]


class ClickIn(_Strict):
    """A click to write. Ids are strings; what is not given is filled in."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    query_id: Id
    item_id: Id
    event_id: Id | None = Field(None, description="Default: a new UUID. A repeated one counts once.")
    event_time: Time | None = Field(None, description="ms since the epoch, UTC. Default: now.")
    event_type: Id | None = Field(
        None,
        description="What happened, by the names of the dataset card. One that the card does not count as a click is "
        "kept in the log and moves no vector; one against the item leaves it out of the query's answers.",
    )
    value: float | None = Field(None, description="How much: a rating, a price, seconds watched.")
    answer_id: AnswerId | None = Field(None, description="Of the answer that showed the item.")
    context: dict[Annotated[str, Field(max_length=64)], Text | int | float | None] | None = Field(None, max_length=32)


class ClickOut(BaseModel):
    event_id: str
    event_time: int
    token: str = Field(description="Pass it to /v1/retrieve as wait_for to get an answer that counts this click.")


class ImpressionIn(_Strict):
    """What somebody saw of an answer."""

    answer_id: AnswerId
    query_id: Id
    items: list[Id] = Field(
        min_length=1, max_length=1_000, description="What was seen, in the answer's order, from the top."
    )


class QueriesIn(_Strict):
    limit: Whole = Field(50, ge=1, le=1000)
    prefix: str = Field("", max_length=256, description="Only ids that begin so.")


class HistoryIn(_Strict):
    n: Whole = Field(20, ge=1, le=1000)


class Accepted(BaseModel):
    status: str = "accepted"


Features = Annotated[
    dict[Annotated[str, Field(max_length=256)], Any],
    Field(max_length=200, description="By the catalogue's names. null: not known."),
]


class ItemPut(_Strict):
    """All that is said of an item."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    features: Features | None = Field(None, description="All of its features. Default: what the catalogue has.")
    available: bool = Field(True, description="False while it cannot be had: it is not shown.")
    hidden: bool = Field(False, description="True: it is not shown.")
    expires_at: Time | None = Field(None, description="From this moment on (ms since the epoch, UTC) it is not shown.")


class ItemPatch(_Strict):
    """What is said otherwise than before."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    features: Features | None = None
    available: bool | None = None
    hidden: bool | None = None
    expires_at: Time | None = Field(None, description="null: never.")


class ItemIn(ItemPut):
    item_id: Id


class ItemsIn(_Strict):
    items: list[ItemIn] = Field(min_length=1, max_length=1_000)


class ItemOut(BaseModel):
    item_id: str
    title: str | None
    category: list[str]
    features: dict[str, Any] = Field(description="What the catalogue says of it.")
    clicks: int
    last_click: int | None
    in_index: bool = Field(description="Whether answers may hold it.")
    held: list[str] = Field(description="Why not: unknown, hidden, unavailable, expired, deleted.")
    available: bool
    hidden: bool
    expires_at: int | None


class HistoryItem(BaseModel):
    item_id: str
    title: str | None
    category: list[str]


class Queries(BaseModel):
    query_ids: list[str]


class Health(BaseModel):
    status: str
    reason: str | None = None


class ErrorOut(BaseModel):
    """Every error has this form."""

    code: str = Field(description="A name for programs, such as not-found.")
    message: str = Field(description="One sentence for people.")


class BundleStatus(BaseModel):
    version: str
    dataset: str
    created: str
    cut: int = Field(description="Up to when it has seen clicks, ms since the epoch.")
    queries: int
    excludes_seen: bool = Field(description="Whether answers leave out what was clicked, unless exclude_seen says.")
    metrics: dict[str, float]
    preparing: str | None = Field(description="The bundle that is being brought up to take its place.")
    refused: dict[str, str] = Field(description="Bundles that were put into service and cannot be, and why.")
    not_taken: str | None = Field(description="Why bundles cannot be taken from the object store at present.")


class IndexStatus(BaseModel):
    kind: str
    items: int
    dimension: int
    probes: int | None
    updates: int
    rebuilding: bool
    held: int = Field(description="Items that are not shown: unknown, hidden, unavailable or expired.")


class StreamStatus(BaseModel):
    staleness_ms: int = Field(description="How long the oldest click has waited that does not show yet; 0: none waits.")
    waiting_ms: dict[str, int] = Field(description="The same by topic.")
    members: dict[str, int] = Field(description="Stage of the updater → processes that work on it.")
    caught_up: bool
    lag: int | None
    delay_ms: float | None = Field(description="From commit to findable, of the last vector.")
    applied: int
    foreign: int
    set_aside: int = Field(description="Records that could not be applied.")
    set_aside_last: list[dict[str, str | int]]
    error: str | None
    newest_event: int


class StoreStatus(BaseModel):
    down: str | None = Field(description="Why answers do without the online store; null: they do not.")


class ClockStatus(BaseModel):
    now: int
    replay: bool


class LoadStatus(BaseModel):
    pending: int
    held: int
    answered: int
    clicks_posted: int


class Status(BaseModel):
    bundle: BundleStatus
    index: IndexStatus
    stream: StreamStatus
    store: StoreStatus
    clock: ClockStatus
    load: LoadStatus
    experiment: dict[str, Any] | None
    impressions: dict[str, int]
    threads: dict[str, int] = Field(description="Background thread → how often it began again after an error.")
    seconds: dict[str, float] = Field(description="Spent in answers, by step.")
    uptime_s: float
