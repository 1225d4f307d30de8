"""``dat demo``: the whole loop on real clicks. A night, a day, and the difference that the day makes."""

import asyncio
import json
import shutil
import time
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.evidence import write_evidence
from cli.options import Data, Home, Json
from cli.progress import TerminalProgress, console
from feature_repo.atomic import atomic_write
from model.settings.night import SMALL_LOG_JAVA
from model.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    import numpy as np

    from devstack.processes import Verb
    from devstack.replay_day import Outcome

MARK = "demo"


class DemoError(RuntimeError):
    """The demo cannot run, or did not show what it should. The message says why."""


def demo(
    data: Data = None,
    home: Home = None,
    once: Annotated[bool, typer.Option("--once", help="Stop everything at the end, in place of serving on.")] = False,
    redis: Annotated[
        bool, typer.Option("--redis", help="Answer online from a Redis server that the demo starts.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the page and the API; 0: a free one.")
    ] = 8000,
    clicks: Annotated[int | None, typer.Option(min=1, help="Replay only the first so many clicks of the day.")] = None,
    ahead: Annotated[int, typer.Option(min=1, help="Clicks under way at once; queries replay side by side.")] = 2_000,
    json_file: Json = None,
) -> None:
    """See the whole loop alive: Spark builds a night's training set and trains DAT, then the next day's clicks stream
    through Kafka, and each is predicted before it is folded in.

    It starts all it needs on this machine: a Kafka broker, a Feast repository, the updater, the retrieval service.
    """
    settings = load_settings(home=home, dataset=data)
    if settings.home_url:
        raise DemoError(f"a demo has all its processes here; give a folder with --home, not {settings.home_url}")
    _fresh_home(settings.home)
    with ExitStack() as stack:
        summary, url = _run(settings, stack, redis, port, clicks, ahead)
        if json_file:
            write_evidence(json_file, summary)
        if not once:
            _serve_on(url, settings.home)
    console.print("[dim]stopped: no process is left running[/]")


def _fresh_home(home: Path) -> None:
    """Empty a home that an earlier demo made. Any other is left alone: a demo must not cost anybody a system.

    Raises:
        DemoError: the folder holds something else.
    """
    home.mkdir(parents=True, exist_ok=True)
    found = [path for path in home.iterdir() if path.name not in (MARK, "downloads")]
    if found and not (home / MARK).is_file():
        raise DemoError(f"{home} is not an earlier demo's home; give another folder with --home")
    (home / MARK).touch()
    for path in found:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _run(
    settings: Settings, stack: ExitStack, redis: bool, port: int, limit: int | None, ahead: int
) -> tuple[dict[str, Any], str]:
    started = time.perf_counter()
    progress = TerminalProgress()
    card = settings.card
    console.print(f"[bold]DAT on {card.title}[/] [dim]· everything under {settings.home}/[/]\n\n[bold]setup[/]")

    from cli.nightly import run_night
    from cli.preflight import check_disk, check_port
    from devstack.broker import LocalBroker
    from model.hit_rates import hit_rates

    check_disk(settings.home)
    check_port(port)
    with progress.stage("load the libraries"):
        import torch  # noqa: F401
        from feast import FeatureStore  # noqa: F401

        from streaming.kafka.topics import create_topics
    with progress.stage("start a Kafka broker"):
        broker = stack.enter_context(LocalBroker(settings.home.absolute() / "kafka"))
        updater = settings.updater.model_copy(update={"bootstrap": broker.bootstrap})
        settings = settings.model_copy(update={"updater": updater})
        create_topics(settings.updater)
    if redis:
        from devstack.redis import LocalRedis

        with progress.stage("start a Redis server"):
            local = stack.enter_context(LocalRedis(settings.home.absolute() / "redis"))
            settings = settings.model_copy(update={"redis": local.address})
    night_began = time.perf_counter()
    console.print("\n[bold]night[/]")
    # The test day is replayed through Kafka: its clicks must not be in the bundle's state already.
    options = settings.night.driver_java_options or SMALL_LOG_JAVA
    replayed = settings.night.model_copy(update={"log_state": "cut", "driver_java_options": options})
    settings = settings.model_copy(update={"night": replayed})
    night = run_night(settings, progress=progress)
    if night.gate.verdict != "published":
        raise DemoError(f"the gate refused the bundle: {night.gate.reason}")
    console.print(f"  bundle [bold]{night.bundle}[/], {night.rows:,} training clicks: {night.gate.reason}")

    day_began = time.perf_counter()
    console.print("\n[bold]day[/]")
    url, children = _start_services(settings, stack, progress, port)
    day = _Day(settings, night.date)
    try:
        outcome = day.replay(url, limit, ahead, progress)
    except Exception:
        for child in children:
            child.check()  # a process that died says more than the replay that missed it
        raise
    applied = day.wait_applied(outcome.sent, progress)
    seconds = {
        "setup": night_began - started,
        "night": day_began - night_began,
        "day": time.perf_counter() - day_began,
    }
    summary = {
        "dataset": card.name,
        "window": f"{settings.night.window_days or card.window_days} × {card.day}",
        "train_clicks": night.rows,
        "clicks_sent": outcome.sent,
        "clicks_applied_query": applied[0],
        "clicks_applied_item": applied[1],
        "night": {
            name: {key: night.metrics[f"{name}_{key}"] for key in ("hr50", "hr100", "mrr10")}
            for name in ("static", "live")
            if f"{name}_hr50" in night.metrics
        },
        "static": hit_rates(day.static_ranks[: outcome.sent]),
        "live": hit_rates(outcome.ranks),
        "freshness_ms": percentiles(outcome.freshness_ms),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "versions": _versions(),
    }
    _table(summary)
    return summary, url


def _start_services(
    settings: Settings, stack: ExitStack, progress: TerminalProgress, port: int
) -> "tuple[str, tuple[Verb, Verb]]":
    """Start the updater and the service as a user would, and wait until both follow; the service's address first."""
    from devstack.processes import Verb

    options = ["--home", str(settings.home), "--bootstrap", settings.updater.bootstrap]
    options += ["--redis", settings.redis] if settings.redis else []
    logs = settings.home / "logs"
    with progress.stage("start the updater and the retrieval service"):
        updater = stack.enter_context(Verb(["updater", *options], logs / "updater.log", "updating"))
        command = ["serve", *options, "--data", settings.dataset, "--port", str(port)]
        # Weeks are replayed within minutes.
        fast = {"DAT_SERVING__CLICKS_PER_MINUTE": "1000000"}
        serve = stack.enter_context(Verb(command, logs / "serve.log", "serving", **fast))
        updater.wait_ready()
        said = serve.wait_ready()
        url = next(word for word in said.split() if word.startswith("http://"))
        _wait_until_ready(url, serve)
    return url, (updater, serve)


def _wait_until_ready(url: str, serve: "Verb") -> None:
    import httpx

    for _ in range(600):
        serve.check()
        if httpx.get(f"{url}/readyz").is_success:
            return
        time.sleep(0.1)
    raise DemoError(f"the retrieval service at {url} did not become ready; see {serve.log}")


class _Day:
    """The clicks after the cut, and what the night's vectors, left as they are, would have answered to them."""

    def __init__(self, settings: Settings, date: date):
        from evaluation.dat_scorer import StaticDAT
        from evaluation.ranks import rank_clicks
        from model.bundle_store import BundleStore
        from spark_jobs import train
        from training.trained_model import TrainedModel

        self.settings = settings
        self.bundle = BundleStore(settings.home / "bundles").load()
        card = settings.card
        self.clicks = train.read_clicks(settings.home / "training_sets" / f"{date}" / "test", card)
        model = TrainedModel.of(self.bundle)
        test = train.clicks_for(model, self.clicks, train.read_catalogues(settings.home / "offline"), card)
        self.static_ranks = _top(rank_clicks(StaticDAT(model, test), test))

    def replay(self, url: str, limit: int | None, ahead: int, progress: TerminalProgress) -> "Outcome":
        """Replay the clicks, the first ``limit`` of them, and keep the page's progress file."""
        from devstack.replay_day import replay

        clicks = self.clicks.slice(0, limit)
        written = 0.0
        series: list[list[float]] = []
        with progress.stage("replay the day's clicks, each predicted before it is sent", len(clicks)) as advance:

            def on_click(outcome: "Outcome") -> None:
                nonlocal written
                advance(1)
                if time.perf_counter() - written > 1 or outcome.sent == len(clicks):
                    written = time.perf_counter()
                    self._write_progress(outcome, len(clicks), series)

            return asyncio.run(replay(url, clicks, ahead, on_click))

    def _write_progress(self, outcome: "Outcome", total: int, series: list[list[float]]) -> None:
        from model.hit_rates import hit_rates

        static = hit_rates(self.static_ranks[: len(outcome.done)][outcome.done])
        live = hit_rates(outcome.ranks[outcome.done])
        series.append([outcome.sent, static["hr100"], live["hr100"]])
        file = self.settings.home / "progress.json"
        progress = {
            "sent": outcome.sent,
            "total": total,
            "static": static,
            "live": live,
            "series": series,
            "freshness_ms": percentiles(outcome.freshness_ms),
        }
        with atomic_write(file) as staging:
            staging.write_text(json.dumps(progress))

    def wait_applied(self, sent: int, progress: TerminalProgress) -> tuple[int, int]:
        """How many clicks each stage has folded, once both have all of them (or 30 s have passed)."""
        from streaming.audit import applied

        with progress.stage("count what was folded"):
            deadline = time.monotonic() + 30
            while True:
                counts = applied(self.settings.updater, self.bundle)
                totals = sum(counts[0].values()), sum(counts[1].values())
                if min(totals) >= sent or time.monotonic() > deadline:
                    return totals
                time.sleep(0.5)


def _top(ranks: "np.ndarray") -> "np.ndarray":
    """Ranks as the replay notes them: 0 for what is not in the top 100."""
    import numpy as np

    from devstack.replay_day import TOP

    return np.where(ranks <= TOP, ranks, 0)


def percentiles(values: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    import numpy as np

    if not values:
        return {"p50": 0.0, "p99": 0.0}
    return {name: round(float(np.percentile(values, at)), 1) for name, at in (("p50", 50), ("p99", 99))}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from devstack.broker import KAFKA_VERSION

    named = {"spark": "pyspark", "feast": "feast", "torch": "torch", "faiss": "faiss-cpu"}
    return {"kafka": KAFKA_VERSION} | {name: version(package) for name, package in named.items()}


def _table(summary: dict[str, Any]) -> None:
    from rich.table import Table

    static, live, fresh = summary["static"], summary["live"], summary["freshness_ms"]
    table = Table(
        title=f"\n{summary['clicks_sent']:,} clicks, each predicted before it was folded in", title_justify="left"
    )
    for column in ("", "HR@50", "HR@100", "MRR×10"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in (("static: vectors as of the night", static), ("live: vectors as of the click before", live)):
        table.add_row(name, *(f"{row[key]:.3f}" for key in ("hr50", "hr100", "mrr10")))
    ratios = (f"{live[key] / static[key]:.2f} ×" if static[key] else "–" for key in ("hr50", "hr100", "mrr10"))
    table.add_row("[bold]live against static[/]", *(f"[bold]{ratio}[/]" for ratio in ratios))
    console.print(table)
    console.print(
        f"A click showed in the answers after {fresh['p50']:.0f} ms (p50), {fresh['p99']:.0f} ms (p99). "
        f"Folded: {summary['clicks_applied_query']:,} by queries, {summary['clicks_applied_item']:,} by items, "
        f"of {summary['clicks_sent']:,} sent."
    )
    took = ", ".join(f"{name} {value:.0f} s" for name, value in summary["seconds"].items())
    console.print(f"[dim]{took}[/]\n")


def _serve_on(url: str, home: Path) -> None:
    import httpx

    queries = httpx.get(f"{url}/v1/queries", params={"limit": 1}).json()["query_ids"]
    console.print(f"The page is at [bold]{url}[/]. Or try:\n")
    console.print(f"  curl '{url}/v1/retrieve?query_id={queries[0]}&n=5&details=true'", soft_wrap=True)
    click = json.dumps({"query_id": queries[0], "item_id": "50"})
    console.print(f"  curl -X POST {url}/v1/clicks -H 'Content-Type: application/json' -d '{click}'\n", soft_wrap=True)
    console.print(f"[dim]Logs are in {home}/logs. Ctrl-C stops everything.[/]")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print()
