"""``dat status``: the running system on one screen: bundle, stream, online store, index."""

import json
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from cli.options import Bootstrap, Home
from model.settings.settings import Settings, load_settings

Samples = dict[tuple[str, str], float]
"""Prometheus samples by name and by the first label's value, if any."""


@dataclass(frozen=True)
class Look:
    """What was seen at one moment. What did not answer is named in ``away``, and what it would have told is empty.

    written: topic → records so far · done: consumer → records committed · lag: consumer → records to go ·
    updater: its metrics · service: its ``/v1/status``.
    """

    at: float
    bundle: str | None
    bundles: int
    written: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    lag: dict[str, int] = field(default_factory=dict)
    updater: Samples = field(default_factory=dict)
    service: dict = field(default_factory=dict)
    away: tuple[str, ...] = ()


def status(
    home: Home = None,
    bootstrap: Bootstrap = None,
    service: Annotated[str, typer.Option(help="Where the service answers.")] = "http://127.0.0.1:8000",
    metrics: Annotated[
        str, typer.Option(help="Where an updater answers: its --metrics-port.")
    ] = "http://127.0.0.1:9100",
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
) -> None:
    """Watch the system: clicks a second, lag, freshness, dead letters, the bundle in service, the index.

    It reads Kafka, the home folder and, where they answer, an updater's metrics and the service. Ctrl-C ends it.
    """
    settings, console = load_settings(home=home, bootstrap=bootstrap), Console(highlight=False)
    before = look(settings, service, metrics)
    time.sleep(1)
    now = look(settings, service, metrics)
    if once:
        console.print(frame(before, now))
        return
    with Live(frame(before, now), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            time.sleep(1)
            before, now = now, look(settings, service, metrics)
            live.update(frame(before, now), refresh=True)


def look(settings: Settings, service: str, metrics: str) -> Look:
    """See all parts once; none of them has to be there."""
    from kafka.errors import KafkaError

    from feature_repo.object_store import StoreAway
    from model.bundle import BundleError
    from model.shared_bundles import open_bundles

    shelf = open_bundles(settings.home, settings.bundles)
    seen: dict = {"at": time.time(), "bundle": None, "bundles": 0}
    away = []
    try:
        seen |= {"bundle": shelf.current(), "bundles": len(shelf.versions())}
    except (StoreAway, BundleError) as error:
        away.append(f"the bundles in {shelf.where} ({error})")
    try:
        seen |= _kafka(settings, seen["bundle"])
    except (KafkaError, TimeoutError) as error:
        away.append(f"Kafka at {settings.updater.bootstrap} ({type(error).__name__})")
    try:
        seen["updater"] = samples(_get(f"{metrics}/metrics"))
    except OSError:
        away.append(f"an updater at {metrics} (say where with --metrics)")
    try:
        seen["service"] = json.loads(_get(f"{service}/v1/status"))
    except (OSError, ValueError):
        away.append(f"the service at {service} (say where with --service)")
    return Look(**seen, away=tuple(away))


def _kafka(settings: Settings, bundle: str | None) -> dict[str, dict[str, int]]:
    from streaming.kafka.offsets import committed, ends, group_name, sink_group, unread
    from streaming.kafka.topics import internal

    config, topics = settings.updater, settings.updater.topics
    groups = {
        "query stage": group_name(config, "query", bundle or ""),
        "item stage": group_name(config, "item", bundle or ""),
    }
    groups["online store"] = sink_group(config)
    reads = {
        "query stage": (topics.clicks,),
        "item stage": (topics.item_signals,),
        "online store": (topics.query_vectors, topics.item_vectors),
    }
    end = ends(config, [topics.clicks, *internal(topics), topics.dead_letters])
    offsets = committed(config, list(groups.values()))
    mine = {name: [partition for partition in end if partition.topic in reads[name]] for name in groups}
    at = {p: offsets[group].get(p, 0) for name, group in groups.items() for p in mine[name]}
    left = unread(config, at, {p: end[p] for p in at})
    done = {name: sum(at[p] for p in partitions) for name, partitions in mine.items()}
    lag = {name: sum(left[p] for p in partitions) for name, partitions in mine.items()}
    written = {
        what: sum(e for partition, e in end.items() if partition.topic == topic)
        for what, topic in (("clicks", topics.clicks), ("clicks-dead", topics.dead_letters))
    }
    return {"written": written, "done": done, "lag": lag}


def samples(text: str) -> Samples:
    """Prometheus' text, parsed; of histograms the buckets too, by their upper bounds."""
    from prometheus_client.parser import text_string_to_metric_families

    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            bound = labels.pop("le", "")
            key = (sample.name, "/".join([*labels.values(), *([bound] if bound else [])]))
            found[key] = sample.value
    return found


def quantile(now: Samples, before: Samples, name: str, label: str, q: float) -> float | None:
    """A histogram's quantile of what came between two looks: the upper bound of its bucket; None if nothing came."""
    prefix = f"{label}/" if label else ""
    counts = [
        (float(key.removeprefix(prefix)), value - before.get((bucket, key), 0))
        for (bucket, key), value in now.items()
        if bucket == f"{name}_bucket" and key.startswith(prefix)
    ]
    counts.sort()
    if not counts or counts[-1][1] <= 0:
        return None
    return next(bound for bound, count in counts if count >= q * counts[-1][1])


def frame(before: Look, now: Look) -> Group:
    """One screen of two looks, the rates between them."""
    elapsed = max(1e-3, now.at - before.at)
    rate = lambda name, part: (getattr(now, part).get(name, 0) - getattr(before, part).get(name, 0)) / elapsed  # noqa: E731
    head = Table.grid(padding=(0, 2))
    head.add_row("bundle", f"[bold]{now.bundle or 'none yet: dat nightly'}[/], {now.bundles} on the shelf")
    head.add_row("clicks", f"{rate('clicks', 'written'):,.0f}/s arrive; {now.written.get('clicks', 0):,} so far")
    dead = now.written.get("clicks-dead", 0)
    most = f"at most {dead:,}: dat dead-letters counts them" if dead else "0"  # marks of transactions are among them
    head.add_row("dead letters", f"[{'red' if rate('clicks-dead', 'written') else 'default'}]{most}[/]")
    stages = Table("", "records/s", "lag", "clicks/s", "fresh p50", "fresh p99", "commit p50", box=None, padding=(0, 2))
    for name in now.done:
        stage = name.split()[0]
        clicks = ("dat_clicks_total", stage)
        folded = (now.updater[clicks] - before.updater.get(clicks, 0)) / elapsed if clicks in now.updater else None
        times = [
            quantile(now.updater, before.updater, metric, stage, q)
            for metric, q in (
                ("dat_freshness_seconds", 0.5),
                ("dat_freshness_seconds", 0.99),
                ("dat_commit_seconds", 0.5),
            )
        ]
        stages.add_row(
            name, f"{rate(name, 'done'):,.0f}", f"{now.lag[name]:,}", "" if folded is None else f"{folded:,.0f}",
            *("" if seconds is None else f"≤ {seconds * 1000:,.0f} ms" for seconds in times),
        )  # fmt: skip
    parts: list[Table | str] = [head, stages]
    if now.service:
        parts.append(_service(now.service))
    parts += [f"[yellow]does not answer: {name}[/]" for name in now.away]
    return Group(*parts)


def _service(told: dict) -> Table:
    bundle, index, stream = told["bundle"], told["index"], told["stream"]
    table = Table.grid(padding=(0, 2))
    table.add_row("serves", f"[bold]{bundle['version']}[/], up {told['uptime_s']:,.0f} s")
    counts = f"{index['items']:,} items, {index['held']:,} held back, {index['updates']:,} updates"
    table.add_row("index", f"{index['kind']}, {counts}")
    delay = "" if stream["delay_ms"] is None else f", the last one {stream['delay_ms']:,.0f} ms after its commit"
    table.add_row("follows", f"{stream['lag'] or 0:,} records behind{delay}")
    stale, down = stream["staleness_ms"], told["store"]["down"]
    table.add_row("freshness", f"[red]clicks have waited for {stale / 1000:,.1f} s[/]" if stale else "no click waits")
    for trouble in (stream["error"], down and f"the online store is left out: {down}"):
        if trouble:
            table.add_row("[red]trouble[/]", trouble)
    if bundle["preparing"]:
        table.add_row("preparing", bundle["preparing"])
    for version, why in bundle["refused"].items():
        table.add_row("[red]refused[/]", f"{version}: {why.splitlines()[0]}")
    return table


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return answer.read().decode()
