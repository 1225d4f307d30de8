"""Settings of the retrieval service, each with what it costs to change it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IndexConfig(_Frozen):
    """How the live index searches."""

    kind: Literal["auto", "exact", "ivf"] = "auto"
    """``auto``: exact up to ``exact_up_to`` items, inverted lists above."""
    exact_up_to: int = Field(default=50_000, ge=0)
    lists: int | None = Field(default=None, ge=1)
    """Inverted lists; by default the power of two nearest to 4·√n."""
    recall: float = Field(default=0.985, gt=0, le=1)
    """What inverted lists promise: the share of the exact top 100 that they find. As few lists are visited as reach it
    on the bundle's own queries, measured after every (re)build and every ``calibrate_after``."""
    probes: int | None = Field(default=None, ge=1)
    """Lists that a search visits, instead of what ``recall`` asks for."""
    write_batch: int = Field(default=256, ge=1)
    """Rows written at a time. A search waits for at most one such batch, about a millisecond."""
    rebuild_after: float = Field(default=0.5, gt=0)
    """Centroids age: once this share of the corpus has been rewritten or added, lists are rebuilt in the background."""
    calibrate_after: float = Field(default=0.1, gt=0)
    """Once this share of the corpus has been rewritten or added, recall is measured anew in the background."""
    train_per_list: int = Field(default=40, ge=1)
    """Vectors per list that k-means learns from."""


class ExperimentConfig(_Frozen):
    """Another way of answering, the *treatment*, beside the one in service, the *control*."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=64)
    """Which queries are in which arm follows from it: a new name draws them anew."""
    mode: Literal["split", "interleave", "shadow"] = "split"
    """``split``: some queries are answered by the treatment · ``interleave``: some get a list that both draw up by
    turns (team draft), which tells the better with fewer clicks · ``shadow``: the treatment is computed for some and
    logged, and nobody sees it."""
    share: float = Field(default=0.5, gt=0, le=1)
    """The share of the queries that the treatment has to do with."""
    bundle: str | None = None
    """The treatment answers from this bundle. An updater must run for it: ``dat updater --bundle V --no-feast``."""
    ranking: Literal["model", "popularity"] = "model"
    """``popularity``: the treatment ranks by trailing popularity, whatever is known of the query."""


class ServingConfig(_Frozen):
    """Everything that shapes the service."""

    index: IndexConfig = IndexConfig()
    clock: Literal["auto", "wall", "data"] = "auto"
    """What "now" is: the wall clock, or the newest event (``data``), for a replay of old clicks. ``auto`` takes
    ``data`` if the bundle's cut is older than ``replay_after_days``."""
    replay_after_days: int = Field(default=180, ge=1)
    default_timeout_ms: int = Field(default=2_000, ge=0)
    """How long an answer is held for ``wait_for_clicks`` unless the request says."""
    max_timeout_ms: int = Field(default=30_000, ge=0)
    poll_ms: float = Field(default=5.0, gt=0)
    """How often the online store is asked whether a held query's clicks have arrived (one read for all of them)."""
    max_pending: int = Field(default=1_000, ge=1)
    """Requests waiting for an answer, held ones included; beyond it the service says 503 instead of collapsing."""
    answer_batch: int = Field(default=32, ge=1)
    """Requests answered in one pass through the store, the tower and the index."""
    category_field: str | None = None
    """The item feature that the category filter reads; by default the card's category, else the item tower's first."""
    api_key: str | None = Field(default=None, min_length=8, repr=False)
    """If set, callers of /v1 must send it in the header X-API-Key."""
    impressions: float = Field(default=1.0, ge=0, le=1)
    """The share of the queries whose answers are logged to the topic ``impressions``."""
    experiment: ExperimentConfig | None = None
    watch_s: float = Field(default=1.0, gt=0)
    """How often the shelf is looked at for another bundle in service."""
    swap_patience_s: float = Field(default=120.0, ge=0)
    """How long a new bundle may take to know all that the old one knows before it is served regardless."""
    max_body_bytes: int = Field(default=256 * 1024, ge=1)
    produce_timeout_s: float = Field(default=10.0, gt=0)
    """How long a posted click may take to be acknowledged by the broker."""
