"""Settings of the retrieval service, each with what it costs to change it."""

from typing import Literal

from pydantic import Field, IPvAnyNetwork, SecretStr

from model.settings.part import SettingsPart


class IndexConfig(SettingsPart):
    """How the live index searches."""

    kind: Literal["auto", "exact", "ivf"] = "auto"
    """``auto``: exact up to ``exact_up_to`` items, inverted lists above."""
    exact_up_to: int = Field(default=10_000, ge=0)
    """Every search of an exact index reads all vectors: 10,000 of 272 numbers cost about a millisecond."""
    lists: int | None = Field(default=None, ge=1)
    """Inverted lists; by default the power of two nearest to 4·√n."""
    recall: float = Field(default=0.985, gt=0, le=1)
    """What inverted lists promise: the share of the exact top 100, and of the top 1,000, that they find. As few lists
    are visited as reach it on the bundle's own queries, measured after every (re)build and ``calibrate_after``."""
    probes: int | None = Field(default=None, ge=1)
    """Lists that a search visits, instead of what ``recall`` asks for."""
    write_batch: int = Field(default=64, ge=1)
    """Rows written at a time. A search waits for at most one such batch, less than a millisecond."""
    rebuild_after: float = Field(default=0.5, gt=0)
    """Centroids age: once this share of the rows has been rewritten or added, lists are rebuilt in the background. A
    row that is written often counts once."""
    calibrate_after: float = Field(default=0.1, gt=0)
    """Once this share of the rows has been rewritten or added, recall is measured anew in the background."""
    train_per_list: int = Field(default=40, ge=1)
    """Vectors per list that k-means learns from."""


class ExperimentConfig(SettingsPart):
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


Scope = Literal["read", "click", "history", "operate"]
SCOPES: tuple[Scope, ...] = ("read", "click", "history", "operate")


class ApiKey(SettingsPart):
    """A key that callers of /v1 send in the header X-API-Key, and what it may do."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=64)
    """What logs and metrics call its holder."""
    key: SecretStr = Field(min_length=8)
    scopes: frozenset[Scope] = frozenset({"read", "click"})
    """``read``: answers and the catalogue · ``click``: post clicks and impressions · ``history``: whose ids there are
    and what they clicked · ``operate``: items, metrics, forgetting. A key in a web page needs the first two."""
    per_second: float | None = Field(default=None, gt=0)
    """Requests a second, over which it is refused for a moment; by default ``requests_per_second``."""


class ServingConfig(SettingsPart):
    """Everything that shapes the service."""

    index: IndexConfig = IndexConfig()
    clock: Literal["auto", "wall", "data"] = "auto"
    """What "now" is: the wall clock, or the newest event (``data``), for a replay of old clicks. ``auto`` takes
    ``data`` if the bundle's cut is older than ``replay_after_days``."""
    replay_after_days: int = Field(default=180, ge=1)

    default_timeout_ms: int = Field(default=2_000, ge=0)
    """How long an answer is held for ``wait_for`` unless the request says."""
    max_timeout_ms: int = Field(default=30_000, ge=0)
    poll_ms: float = Field(default=5.0, gt=0)
    """How often the online store is asked whether the clicks that held answers wait for have been folded."""
    max_pending: int = Field(default=1_000, ge=1)
    """Answers that wait for their turn; beyond it the service says 503 instead of collapsing."""
    max_held: int = Field(default=100, ge=1)
    """Answers that wait for a click at once, over all callers."""
    answer_batch: int = Field(default=32, ge=1)
    """Requests answered in one pass through the store, the tower and the index."""
    max_items: int = Field(default=10_000, ge=1)
    """Items that one request may ask for: its queries times their ``n``."""
    store_timeout_ms: int = Field(default=150, ge=1)
    """How long the online store may take for a batch. Then the answer does without it, and says so."""

    category_field: str | None = None
    """The item feature that ``category`` filters by; by default the card's category, else the item tower's first."""
    unknown_items: Literal["hold", "serve"] = "hold"
    """What becomes of a clicked item that no catalogue knows: it is held back until enough different queries have
    clicked it, or it is served at once, which lets whoever posts clicks put any string into the answers."""
    vouching_queries: int = Field(default=5, ge=1, le=8)
    """How many different queries must have clicked an unknown item before it is served."""
    dismissed_days: float = Field(default=90, ge=0)
    """For how many days an item that a query dismissed is left out of its answers, unless it clicks it. The topic
    ``dismissed`` keeps 90 days: give it a longer ``retention.ms`` for more. 0: dismissals change no answer."""
    clicks_per_minute: int = Field(default=120, ge=1)
    """Clicks that one query may post through the API in a minute, in each process."""

    api_key: SecretStr | None = Field(default=None, min_length=8)
    """One key that may do everything. Without it and ``keys`` everybody may."""
    keys: tuple[ApiKey, ...] = ()
    """Keys that may do some things each."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """Requests a second that a caller may make: each key, or each address where no key is asked for."""
    wrong_keys_per_minute: int = Field(default=10, ge=1)
    """Wrong keys that may come from one address (of IPv6: from one /64 network) in a minute, in each process. Beyond it
    only keys that the address has used before are read."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses or networks of the proxies whose ``X-Forwarded-For`` is believed. Without it the address of a caller is
    the one that the connection comes from: behind a proxy all callers are one."""
    hosts: tuple[str, ...] = ()
    """Host names that the service answers to. By default: those of this machine if it listens on a loopback address
    (so that a web page elsewhere cannot reach it under a name of its own), else all."""
    cors_origins: tuple[str, ...] = ()
    """Origins, as in ``https://shop.example``, whose pages may call the API from a browser."""

    impressions: float = Field(default=1.0, ge=0, le=1)
    """Of the impressions that callers report, the share of the queries whose are kept."""
    experiment: ExperimentConfig | None = None
    watch_s: float = Field(default=1.0, gt=0)
    """How often the bundle store is looked at for another bundle in service."""
    swap_patience_s: float = Field(default=120.0, ge=0)
    """How long a new bundle may take to know all that the old one knows before it is served regardless; and how long a
    process that starts catches up with the stream before it answers regardless."""
    ready_staleness_s: float | None = Field(default=None, gt=0)
    """If set, ``/readyz`` fails while clicks have waited for longer than this to show. By default a stale answer is
    better than none."""

    max_body_bytes: int = Field(default=256 * 1024, ge=1)
    """Of a request's body; its head may not be larger either."""
    max_connections: int = Field(default=2_000, ge=1)
    """Connections at once; further ones are closed."""
    receive_timeout_s: float = Field(default=10.0, gt=0)
    """How long a request's head, and then its body, may take to arrive."""
    drain_s: float = Field(default=3.0, ge=0, le=5)
    """After SIGTERM ``/readyz`` says "stopping" for so long, while requests are answered, before the door is closed."""
    produce_timeout_s: float = Field(default=10.0, gt=0)
    """How long a posted click may take to be acknowledged by the broker."""

    @property
    def all_keys(self) -> tuple[ApiKey, ...]:
        if self.api_key is None:
            return self.keys
        return (ApiKey(name="api_key", key=self.api_key, scopes=frozenset(SCOPES)), *self.keys)
