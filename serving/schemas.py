"""What goes over HTTP, and what of it is refused."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from feature_repo.click_event import EARLIEST_MS, LATEST_MS

Id = Annotated[str, Field(min_length=1, max_length=256)]
Time = Annotated[int, Field(ge=EARLIEST_MS, lt=LATEST_MS, description="ms since the epoch, UTC")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RetrieveOptions(_Strict):
    """How to answer; the same for one query and for a batch."""

    n: int = Field(100, ge=1, le=1000, description="How many items.")
    at: Time | None = Field(None, description="The moment of the answer, ms since the epoch, UTC. Default: now.")
    exclude_seen: bool = Field(True, description="Leave out what the query clicked lately.")
    category: str | None = Field(None, min_length=1, max_length=256, description="Only items of this category.")
    details: bool = Field(False, description="Add titles, categories, and the clicked item nearest to each.")
    shown: bool = Field(True, description="Somebody will see it; false keeps the answer out of the log of impressions.")


class RetrieveIn(RetrieveOptions):
    query_id: Id = Field(description="Whose top N. A new id is welcome.")
    wait_for_clicks: int | None = Field(
        None, ge=0, le=2**53, description="Hold the answer until the query counts this many clicks."
    )


class BatchIn(RetrieveOptions):
    query_ids: list[Id] = Field(min_length=1, max_length=100, description="The queries, at most 100.")
    allow: list[Id] | None = Field(None, max_length=10_000, description="Only these items, such as what is in stock.")


class Item(BaseModel):
    item_id: str
    score: float = Field(description="⟨p_u, p_v⟩ in [−1, 1]; for source popularity, relative popularity in (0, 1].")
    title: str | None = None
    category: list[str] = []
    because: str | None = Field(None, description="The query's recent item that lies nearest to this one.")


class RetrieveOut(BaseModel):
    """A query's top N."""

    query_id: str
    bundle: str = Field(description="The model bundle whose vectors gave this answer.")
    items: list[Item] = Field(description="Best first.")
    source: str = Field(
        description="Where the query's vector comes from: stream (its clicks, live), bundle (as of the nightly cut), "
        "profile (a new query that the catalogue knows), popularity (nothing is known of it)."
    )
    fallback: str | None = Field(description="Why the answer is poorer than it could be: unknown-query, store-down.")
    clicks: int = Field(description="How many clicks the query's activity counts.")
    folded: int = Field(description="How many clicks are folded into its augmented vector.")
    at: int
    vector_age_ms: int | None = Field(
        description="Time since the last click in the query's vector, at the moment `at`."
    )
    arm: str | None = Field(None, description="control, treatment or interleaved, while an experiment runs.")
    reached: bool | None = Field(description="Whether wait_for_clicks was reached in time; null if not asked for.")
    waited_ms: float = Field(description="How long the answer waited for its turn or its clicks.")
    took_ms: float = Field(description="How long computing the answer took.")


class BatchOut(BaseModel):
    answers: list[RetrieveOut]


class ClickIn(_Strict):
    """A click to write. Ids are strings; what is not given is filled in."""

    model_config = ConfigDict(extra="forbid", strict=True)
    query_id: Id
    item_id: Id
    event_id: Id | None = Field(None, description="Default: a new UUID.")
    event_time: Time | None = Field(None, description="ms since the epoch, UTC. Default: now.")
    context: dict[Annotated[str, Field(max_length=64)], str | int | float | None] | None = Field(None, max_length=32)


class ClickOut(BaseModel):
    event_id: str
    event_time: int
    clicks: int = Field(description="How many clicks the query's activity counted before this one.")
    wait_for_clicks: int = Field(description="Pass it to /v1/retrieve to get an answer that counts this click.")


class ItemOut(BaseModel):
    item_id: str
    title: str | None
    category: list[str]
    features: dict[str, Any] = Field(description="What the catalogue says of it.")
    clicks: int
    last_click: int | None
    in_index: bool


class Queries(BaseModel):
    query_ids: list[str]


class Health(BaseModel):
    status: str
    reason: str | None = None


class ErrorOut(BaseModel):
    """Every error has this form."""

    code: str = Field(description="A name for programs, such as not-found.")
    message: str = Field(description="One sentence for people.")
