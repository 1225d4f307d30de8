"""What the night can be told."""

from pydantic import BaseModel, ConfigDict, Field

from training.config import DATConfig


class NightConfig(BaseModel):
    """Settings of the nightly job; each has the value that the paper or the dataset card gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_days: int | None = Field(default=None, ge=1)
    """Days to train on; None: what the dataset card says (ten, as in the paper)."""
    negatives: int = Field(default=4, ge=1)
    """S: negatives for each positive (paper, section 2.3)."""
    seed: int = 0
    """Seed of the negative sampling; the model's own is in ``model``."""
    join_rows: int = Field(default=2_000_000, ge=1_000)
    """Entity rows in one point-in-time join; more is faster and takes more memory (about 1 KB a row)."""
    cores: str = "*"
    """Local Spark's threads, or ``*`` for all."""
    driver_memory: str = "3g"
    keep_bundles: int = Field(default=5, ge=1)
    gate_tolerance: float = Field(default=0.05, ge=0, lt=1)
    """A new bundle may be worse than the one in service on the newest day by this share of HR@100."""
    gate_coverage: float = Field(default=0.5, ge=0, le=1)
    """Share of the newest day's clicks whose item the bundle must know."""
    model: DATConfig = DATConfig()
