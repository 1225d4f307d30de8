"""Settings of the updater: one typed object, each field with its meaning."""

import importlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from model.partitioner import Partitioner
from model.settings.part import SettingsPart
from model.topics import Topics

_BROKER = r"(\[[^\s/\]]+\]|[^\s/:\[\]]+)(:[0-9]{1,5})?"


def _token_provider(hook: str) -> Any:
    """kafka-python's token provider that calls a function of the user's.

    Raises:
        ImportError, AttributeError: there is no such function.
    """
    from kafka.net.sasl.oauth import AbstractTokenProvider

    module, _, name = hook.partition(":")
    function = getattr(importlib.import_module(module), name)

    class Provider(AbstractTokenProvider):
        def token(self) -> str:
            return function()

    return Provider()


def _java_key(file: Path, password: str | None) -> str:
    """A private key as Java's client takes it: PKCS#8, and decrypted, since Java 17 cannot read today's encryption."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(file.read_bytes(), password.encode() if password else None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


class KafkaConnection(SettingsPart):
    """How to reach a Kafka cluster. The defaults suit the local broker; the rest is for TLS and SASL."""

    bootstrap: str = "127.0.0.1:9092"
    """``host:port`` of some of the brokers, separated by commas."""
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=100)
    """Goes before the name of every topic, consumer group and transactional id, as in ``shop.``: systems that share a
    cluster need different ones. Another prefix begins with empty topics."""
    connect_timeout_ms: int = Field(default=10_000, ge=1)
    """How long a client tries to reach the first broker before it says that there is none."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None
    """PEM file of the authorities that sign the brokers' certificates."""
    ssl_certfile: str | None = None
    """PEM file of the client's own certificate, where the cluster asks for one (mTLS)."""
    ssl_keyfile: str | None = None
    """PEM file of its private key."""
    ssl_password: str | None = Field(default=None, repr=False)
    """Password of the private key."""
    ssl_check_hostname: bool = True
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_plain_username: str | None = None
    """User of PLAIN and SCRAM."""
    sasl_plain_password: str | None = Field(default=None, repr=False)
    sasl_oauth_token: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """``module:function`` of yours that returns a token, of OAUTHBEARER; it is called for every connection."""
    partitioner: Partitioner = "murmur2"
    """What assigns clicks to partitions in your producers. A click in another partition than its key's is a dead
    letter, since its query's other clicks may be another worker's."""

    @field_validator("bootstrap")
    @classmethod
    def _brokers(cls, given: str) -> str:
        brokers = [broker.strip() for broker in given.split(",") if broker.strip()]
        if not brokers or not all(re.fullmatch(_BROKER, broker) for broker in brokers):
            told = "is a list of brokers, host:port[,host:port], without a scheme; an IPv6 address stands in brackets"
            raise PydanticCustomError("brokers", told)
        return ",".join(brokers)

    @property
    def client(self) -> dict[str, Any]:
        """The arguments that every client of kafka-python takes."""
        ours = {"bootstrap", "prefix", "partitioner", "connect_timeout_ms", "sasl_oauth_token"}
        named = self.model_dump(include=set(KafkaConnection.model_fields) - ours, exclude_none=True)
        servers, timeout = self.bootstrap.split(","), self.connect_timeout_ms
        if self.sasl_oauth_token:
            named["sasl_oauth_token_provider"] = _token_provider(self.sasl_oauth_token)
        return {"bootstrap_servers": servers, "bootstrap_timeout_ms": timeout, **named}

    @property
    def topics(self) -> Topics:
        return Topics(self.prefix)

    @property
    def spark_options(self) -> dict[str, str]:
        """The same as options of Spark's Kafka source.

        Raises:
            ValueError: the mechanism is OAUTHBEARER, whose Python hook Spark cannot call.
        """
        if self.sasl_mechanism == "OAUTHBEARER":
            raise ValueError(
                "Spark cannot call sasl_oauth_token: give the night a listener with SCRAM or mTLS, or land clicks with "
                "your own Spark settings"
            )
        options = {"bootstrap.servers": self.bootstrap, "security.protocol": self.security_protocol}
        if self.ssl_cafile:
            options |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": self.ssl_cafile}
        if not self.ssl_check_hostname:
            options["ssl.endpoint.identification.algorithm"] = ""
        if self.ssl_certfile and self.ssl_keyfile:
            options |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.certificate.chain": Path(self.ssl_certfile).read_text(),
                "ssl.keystore.key": _java_key(Path(self.ssl_keyfile), self.ssl_password),
            }
        if self.sasl_mechanism:
            module = "plain.PlainLoginModule" if self.sasl_mechanism == "PLAIN" else "scram.ScramLoginModule"
            name, password = (json.dumps(text or "") for text in (self.sasl_plain_username, self.sasl_plain_password))
            options |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.jaas.config": f"org.apache.kafka.common.security.{module} required "
                f"username={name} password={password};",
            }
        return {f"kafka.{name}": value for name, value in options.items()}


class UpdaterConfig(KafkaConnection):
    """Settings of the two stages and of the Feast sink."""

    renamed = {"group_prefix": "prefix"}

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
    warm: bool = False
    """Whether a worker follows the changelog of partitions that are not its own: when it takes one over, only the tail
    is left to read. It then reads every query's or item's rows, and has their state in memory."""
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
    """Where Prometheus, ``/healthz`` and ``/readyz`` are answered; 0 takes a free port."""
    metrics_host: str = "127.0.0.1"
    """The address that they are answered on: 0.0.0.0 for a scrape or a probe from another machine."""
    monitor_s: float = Field(default=2.0, gt=0)
    """How often Kafka is asked for the lag, and for topics that were made anew or have other partitions."""
    trim_s: float = Field(default=3_600.0, gt=0)
    """How often records of the internal topics are deleted that no published bundle needs any more."""
    stalled_s: float = Field(default=30.0, gt=0)
    """After so long without progress, where there are records to work on, or without an answer of Kafka,
    ``/readyz`` says no."""
    retry_max_s: float = Field(default=5.0, gt=0)
    """Longest pause between two attempts when the broker or the online store is away."""
