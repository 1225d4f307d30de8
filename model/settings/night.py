"""What the night can be told."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from model.settings.model import DATConfig
from model.settings.part import SettingsPart

SMALL_LOG_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


class Rules(SettingsPart):
    """Thresholds of the checks that stop a night before it trains."""

    max_invalid: float = Field(default=0.05, ge=0, le=1)
    """Share of a log's rows that may be damaged (cut off, no item, no possible time); they are left out and counted."""
    min_day: float = Field(default=0.05, ge=0, le=1)
    """Clicks that each day of the window must have, as a share of its mean day; 0: days may be missing."""
    max_item_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a day's clicks that one item may have."""
    min_known_items: float = Field(default=0.5, ge=0, le=1)
    """Share of the window's clicks whose item the catalogue must have, where the card names one."""
    max_drift: float = Field(default=2.0, gt=0)
    """How far the shares of the categories may move from the last set's, as a population stability index."""


class NightConfig(SettingsPart):
    """Settings of the nightly job; each has the value that the paper or the dataset card gives."""

    window_days: int | None = Field(default=None, ge=1)
    """Days to train on; None: what the dataset card says (ten, as in the paper)."""
    cut: Literal["day", "last-out"] | None = None
    """What a model is evaluated on: the day after the window, or each query's last click of it, which is then left out
    of training. None: the day, where the log has times; the last clicks, where it has positions."""
    lake_batch: int = Field(default=2_000_000, ge=1)
    """Kafka records landed at a time, which bounds the memory that a backlog takes."""
    negatives: int | None = Field(default=None, ge=1)
    """S: negatives for each positive (paper, section 2.3); None: what the dataset card says, or 4."""
    seed: int = 0
    """Seed of the negative sampling; the model's own is in ``model``."""
    cores: str = "*"
    """Local Spark's threads, or ``*`` for all."""
    driver_memory: str = "3g"
    driver_java_options: str = ""
    """Options of local Spark's JVM. :data:`SMALL_LOG_JAVA` halves the CPU time of a night on a small log; on millions
    of clicks the optimising compiler that it leaves out pays."""
    keep_days: int | None = Field(default=None, ge=1)
    """Days before the window whose clicks the lake keeps, for late clicks and made-up nights; older ones are deleted
    once their counts are kept. None: all days are kept."""
    keep_bundles: int = Field(default=5, ge=1)
    keep_sets: int = Field(default=3, ge=1)
    """Training sets that are kept whole; of older dates' the data card stays."""
    test_clicks: int = Field(default=100_000, ge=1)
    """Clicks of the newest day, from its first on, that a model is evaluated on: so many tell a hit rate to 0.3 %, and
    more take longer."""
    log_state: Literal["landed", "cut"] = "landed"
    """Which rows of log files a bundle's state holds: all that have landed, since no stream will deliver them; or those
    before the cut, where the day after it is replayed through Kafka."""
    kafka_jars: Path | None = None
    """A folder with the jars that Spark lacks: its Kafka connector, and S3's file system for a home there. None: they
    come from Maven Central, once."""
    metrics_file: Path | None = None
    """Where the night's figures for Prometheus go when it ends: a ``.prom`` file in the folder that node_exporter's
    textfile collector reads."""
    pushgateway: str | None = None
    """``host:port`` of a Prometheus Pushgateway that takes them."""
    rules: Rules = Rules()
    gate_tolerance: float = Field(default=0.05, ge=0, lt=1)
    """A new bundle may be worse than the one in service on the newest day by this share of HR@100."""
    gate_coverage: float = Field(default=0.5, ge=0, le=1)
    """Share of the newest day's clicks whose item the bundle must know."""
    gate_popularity: bool = True
    """Refuse a bundle whose HR@100 is below that of trailing popularity (of an hour or a day, the better one), by more
    than chance: two standard errors of the test clicks."""
    gate_live: bool = True
    """Refuse a bundle whose live HR@100 is below its static one, by more than chance."""
    model: DATConfig = DATConfig()
    """Settings of the model; those that are not given are the dataset card's, then the defaults."""
