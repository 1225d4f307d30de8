"""Settings of the updater: one typed object, each field with its meaning."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class KafkaConnection(BaseModel):
    """How to reach a Kafka cluster. The defaults suit the local broker; the rest is for TLS and SASL."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bootstrap: str = "127.0.0.1:9092"
    """``host:port`` of some of the brokers, separated by commas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    sasl_mechanism: str | None = None
    sasl_plain_username: str | None = None
    sasl_plain_password: str | None = Field(default=None, repr=False)

    @property
    def client(self) -> dict[str, Any]:
        """The arguments that every client of kafka-python takes."""
        named = self.model_dump(include=set(KafkaConnection.model_fields) - {"bootstrap"}, exclude_none=True)
        return {"bootstrap_servers": self.bootstrap.split(","), **named}


class UpdaterConfig(KafkaConnection):
    """Settings of the two stages and of the Feast sink."""

    group_prefix: str = "dat"
    """Consumer groups are called ``<prefix>-<stage>-<bundle version>``."""
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9._-]+$")
    """This process's name within its groups: unique, and the same after a restart, so that a restart takes its
    partitions back at once and ends the transaction that it had open."""
    batch_clicks: int = Field(default=2_000, ge=1)
    """At most this many clicks go into a transaction of the query stage. Larger: more throughput, more latency."""
    linger_ms: int = Field(default=40, ge=0)
    """How long the broker collects clicks before it hands them to the query stage, unless they come to 64 KiB sooner.
    A transaction costs the same for one click as for a hundred: 0 makes a click show sooner, at a transaction a click
    where they come one by one."""
    batch_records: int = Field(default=64, ge=1)
    """At most this many records of signals go into a transaction of the item stage; each holds up to a batch."""
    poll_ms: int = Field(default=20, ge=1)
    """How long an idle worker waits for clicks before it looks for new item vectors and for the stop sign."""
    fetch_max_wait_ms: int = Field(default=100, ge=1)
    """How long the broker holds back an empty answer. New records are answered at once whatever this is."""
    tick_ms: int = Field(default=500, ge=1)
    """How often the item stage looks for items whose vectors time alone has changed."""
    tick_rows: int = Field(default=50_000, ge=1)
    """How many items it looks at in one go; a larger corpus is gone through in turns."""
    tick_drift: float = Field(default=0.02, gt=0)
    """An item is recomputed when one of its tower's inputs (logarithms, mostly) has moved by more than this."""
    duplicate_window: int = Field(default=10_000, ge=0)
    """A click whose event id occurred within this many records of its partition before it is dropped; 0 keeps all."""
    clock_skew_ms: int = Field(default=60_000, ge=0)
    """How far ahead of the broker's clock a click's time may be; a later one is a mistake, hence a dead letter."""
    session_timeout_ms: int = Field(default=10_000, ge=1_000)
    """After this long without a sign of life a worker's partitions go to the others."""
    transaction_timeout_ms: int = Field(default=10_000, ge=1_000)
    """After this long the broker aborts a transaction whose worker went away for good."""
    record_bytes: int = Field(default=800_000, ge=1_000)
    """Packed records are split at this size; brokers refuse more than a megabyte."""
    sink_rows: int = Field(default=1_024, ge=1)
    """At most this many rows go to the online store in one write."""
    watch_s: float = Field(default=1.0, gt=0)
    """How often the updater looks whether another bundle has been put into service."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where Prometheus, ``/healthz`` and ``/readyz`` are answered on 127.0.0.1; 0 takes a free port."""
    retry_max_s: float = Field(default=5.0, gt=0)
    """Longest pause between two attempts when the broker or the online store is away."""
