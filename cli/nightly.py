"""``dat nightly``: from the day's clicks to a published bundle."""

import json
import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.evidence import write_evidence
from cli.logs import kafka_cause
from cli.options import Bootstrap, Data, Home, Json, Redis
from cli.preflight import claim_home
from cli.progress import TerminalProgress, console
from model.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from spark_jobs.nightly import NightSummary
    from spark_jobs.progress import Progress

_SERVED_DAYS = 2  # how far back, by the wall clock, answers to a test day's clicks are looked for


def nightly(
    data: Data = None,
    date: Annotated[
        str,
        typer.Option(
            help="The test day: the window ends where it begins. YYYY-MM-DD · latest: that of the newest click · "
            "yesterday: the day (UTC) that has just ended, for a schedule."
        ),
    ] = "latest",
    first: Annotated[str | None, typer.Option("--from", help="Catch up: the first of several dates, in order.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="The last of them.")] = None,
    home: Home = None,
    bootstrap: Bootstrap = None,
    redis: Redis = None,
    kafka: Annotated[bool, typer.Option(help="Land new clicks from Kafka first.")] = True,
    log: Annotated[bool, typer.Option(help="Land the dataset's log files first, if they have not been.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Do finished stages again.")] = False,
    json_file: Json = None,
) -> None:
    """Build the training set of a night, retrain DAT on it, and publish the bundle if it passes the gate.

    The steps: land new clicks in the lake, compute features as of their time, sample negatives, join features as of
    each click through Feast, train, evaluate on the test day, judge, publish, load the catalogues online. Running a
    date twice does nothing new; a run that was killed goes on where it was. With --from and --to every date of the
    range gets its night, and --json holds a list under "nights". Exit status: 0 published, 3 refused by the gate (at
    least once), 1 anything else.
    """
    settings = load_settings(home=home, dataset=data, bootstrap=bootstrap, redis=redis)
    ranged = first is not None or last is not None
    days = _days(first, last, settings.card.day_ms) if ranged else [None if date == "latest" else _day(date, "--date")]
    summaries: list[dict] = []
    nights: list[NightSummary] = []
    try:
        for day in days:
            summary = run_night(settings, day, kafka, log, again)
            nights.append(summary)
            gate = summary.gate
            colour = "green" if gate.verdict == "published" else "red"
            console.print(f"[bold]{summary.bundle}[/] [{colour}]{gate.verdict}[/]: {gate.reason}")
            served = served_report(settings, summary.date) if kafka else None
            if served:
                rates = ", ".join(f"{name} {served[name]:.3f}" for name in ("hr50", "hr100", "mrr10"))
                console.print(f"What was served on that day: {served['clicks']:,} clicks after an answer, {rates}")
            summaries.append(summary.model_dump(mode="json") | {"served": served})
            if json_file:
                write_evidence(json_file, {"nights": summaries} if ranged else summaries[0])
    except BaseException:
        tell_prometheus(settings, nights, failed=True)
        raise
    tell_prometheus(settings, nights)
    raise typer.Exit(0 if all(summary["gate"]["verdict"] == "published" for summary in summaries) else 3)


def tell_prometheus(settings: Settings, nights: "list[NightSummary]", failed: bool = False) -> None:
    """Hand the nights' figures to Prometheus, where the settings say how; a night does not fail for want of that."""
    night = settings.night
    if not (night.metrics_file or night.pushgateway):
        return
    from spark_jobs.night_metrics import NightMetrics

    try:
        NightMetrics(settings.home, nights, failed).tell(night)
    except OSError as error:
        console.print(
            f"[yellow]the night's figures did not reach {night.pushgateway or night.metrics_file}: {error}[/]"
        )


def run_night(
    settings: Settings, day: date | None = None, kafka: bool = False, log: bool = True, again: bool = False,
    progress: "Progress | None" = None,
) -> "NightSummary":  # fmt: skip
    """Run the nightly job with these settings: what ``dat nightly`` and the demo share."""
    from cli.preflight import check_disk

    claim_home(settings)
    check_disk(settings.home)
    from devstack.broker import java

    java()
    if kafka:
        reach_kafka(settings)  # before what takes seconds to import
    from cli.spark_jars import spark_jars
    from feature_repo.source import dataset_folder
    from feature_repo.store import open_store, register
    from spark_jobs.nightly import Night

    card = settings.card
    # A registry of the night's own: a service that restarts meanwhile finds the one that its bundle was published with.
    store = open_store(settings.home, settings.redis, "night/registry.db")
    register(store, card, settings.shared)
    return Night(
        home=settings.home.absolute(),
        card=card,
        store=store,
        config=settings.night_of(card),
        progress=progress or TerminalProgress(),
        log=dataset_folder(card, settings.data, settings.home / "downloads").absolute() if log else None,
        kafka=settings.updater if kafka else None,
        jars=spark_jars(settings.night.kafka_jars, kafka, settings.home_url),
        before_publish=lambda: register(open_store(settings.home, settings.redis), card, settings.shared),
        bundles_url=settings.bundles,
        shared=settings.shared,
    ).run(day, again)


class KafkaAway(RuntimeError):
    """Kafka does not answer. The message says where, and what to do."""


def reach_kafka(settings: Settings) -> None:
    """Make sure that the topics exist, before Spark waits for them for minutes.

    Raises:
        KafkaAway: no broker answers.
    """
    from kafka.errors import KafkaError

    from streaming.kafka.topics import create_topics

    try:
        create_topics(settings.updater)
    except KafkaError as error:
        where = settings.updater.bootstrap
        raise KafkaAway(
            f"Kafka at {where} does not answer ({kafka_cause(error)}): start it, give --bootstrap, "
            "or leave new clicks out with --no-kafka"
        ) from error


def served_report(settings: Settings, day: date) -> dict | None:
    """The live hit rates of what was served on a test day, kept in ``served/<date>.json``; None if nothing was."""
    from model.windows import window
    from serving.ab.ab_report import attribute, served_hit_rates

    span = window(settings.card, day, 0)
    rates = served_hit_rates(attribute(*read_outcomes(settings, _SERVED_DAYS)), span.cut, span.end)
    if not rates["clicks"]:
        return None
    file = settings.home / "served" / f"{day}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(rates, indent=2))
    return rates


def read_outcomes(settings: Settings, days: float) -> "tuple[pa.Table, pa.Table]":
    """The impressions of the last days, by the wall clock, and the clicks since the first of them.

    Raises:
        KafkaAway: no broker answers.
    """
    from kafka.errors import KafkaError

    from serving.ab.impressions import CLICK_TABLE, read_clicks, read_impressions

    try:
        impressions = read_impressions(settings.updater, round(1000 * (time.time() - days * 86_400)))
        first = min(impressions["served"].to_pylist(), default=None)
        clicks = CLICK_TABLE.empty_table()
        if first is not None:
            clicks = read_clicks(settings.updater, first, settings.card.clicks.rule)
    except KafkaError as error:
        where = settings.updater.bootstrap
        raise KafkaAway(f"Kafka at {where} does not answer ({kafka_cause(error)}): give --bootstrap") from error
    return impressions, clicks


def _day(text: str, option: str) -> date:
    if text == "yesterday":
        return datetime.now(UTC).date() - timedelta(days=1)
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise typer.BadParameter(
            f"'{text}' is not a date; write YYYY-MM-DD, latest or yesterday", param_hint=option
        ) from None


def _days(first: str | None, last: str | None, day_ms: int) -> list:
    """The dates from the first to the last, a day of the dataset apart."""
    if first is None or last is None:
        raise typer.BadParameter("a range of dates needs both --from and --to", param_hint="--from")
    start, end = _day(first, "--from"), _day(last, "--to")
    if end < start:
        raise typer.BadParameter(f"{last} is before {first}", param_hint="--to")
    step = max(1, day_ms // 86_400_000)
    return [start + timedelta(days=n) for n in range(0, (end - start).days + 1, step)]
