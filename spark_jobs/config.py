"""What the night can be told."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.config import DATConfig


class NegativeMix(BaseModel):
    """What share of the negatives is drawn how; the shares are relative to their sum."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    uniform: float = Field(default=1.0, ge=0)
    """Every item that exists, equally (the paper)."""
    popular: float = Field(default=0.0, ge=0)
    """By clicks in the window, to the power below."""
    category: float = Field(default=0.0, ge=0)
    """Hard ones: items of the positive's own category, equally."""
    popularity_power: float = Field(default=0.75, gt=0, le=1)

    @property
    def total(self) -> float:
        return self.uniform + self.popular + self.category

    @model_validator(mode="after")
    def _some(self) -> "NegativeMix":
        if not self.total:
            raise ValueError("give at least one kind of negatives a share above 0")
        return self


class Rules(BaseModel):
    """Thresholds of the checks that stop a night before it trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_invalid: float = Field(default=0.01, ge=0, le=1)
    """Share of a log's clicks that may lack an id or a time; these are left out."""
    min_day: float = Field(default=0.05, ge=0, le=1)
    """Clicks that each day of the window must have, as a share of its mean day; 0: days may be missing."""
    max_item_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a day's clicks that one item may have."""
    min_known_items: float = Field(default=0.5, ge=0, le=1)
    """Share of the window's clicks whose item the catalogue must have, where the card names one."""
    max_drift: float = Field(default=2.0, gt=0)
    """How far the shares of the categories may move from the last set's, as a population stability index."""


class NightConfig(BaseModel):
    """Settings of the nightly job; each has the value that the paper or the dataset card gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_days: int | None = Field(default=None, ge=1)
    """Days to train on; None: what the dataset card says (ten, as in the paper)."""
    cut: Literal["day", "last-out"] | None = None
    """What a model is tried on: the day after the window, or each query's last click of it, which is then left out of
    all that is trained on. None: the day, where the log has times; else, of positions, the last clicks."""
    lake_batch: int = Field(default=2_000_000, ge=1)
    """Kafka records landed at a time, which bounds the memory that a backlog takes."""
    negatives: int = Field(default=4, ge=1)
    """S: negatives for each positive (paper, section 2.3)."""
    negative_mix: NegativeMix = NegativeMix()
    seed: int = 0
    """Seed of the negative sampling; the model's own is in ``model``."""
    join: Literal["one_pass", "duckdb", "spark"] = "one_pass"
    """How features are joined as of each click: one pass over time on this machine, or Feast's own historical
    retrieval by its DuckDB store (small markets) or its Spark store (more than one machine). All give the same rows."""
    join_rows: int = Field(default=2_000_000, ge=1_000)
    """``duckdb``: entity rows in one join; more is faster and takes more memory."""
    cores: str = "*"
    """Local Spark's threads, or ``*`` for all."""
    driver_memory: str = "3g"
    processes: int = Field(default=1, ge=1)
    """Processes that train together under Spark's TorchDistributor; 1: the nightly process itself."""
    keep_bundles: int = Field(default=5, ge=1)
    keep_sets: int = Field(default=3, ge=1)
    """Training sets that are kept whole; of older dates' the data card stays."""
    test_clicks: int = Field(default=100_000, ge=1)
    """Clicks of the newest day, from its first on, that a model is tried on for its report and the gate: so many tell a
    hit rate to 0.3 %, and more take longer."""
    rules: Rules = Rules()
    gate_tolerance: float = Field(default=0.05, ge=0, lt=1)
    """A new bundle may be worse than the one in service on the newest day by this share of HR@100."""
    gate_coverage: float = Field(default=0.5, ge=0, le=1)
    """Share of the newest day's clicks whose item the bundle must know."""
    model: DATConfig = DATConfig()
