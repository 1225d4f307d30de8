"""``dat play``: a page that recommends and learns from each click, in less than a minute."""

import json
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import Json
from model.settings.settings import Settings, load_settings


class PlayError(RuntimeError):
    """The playground did not show what it should. The message says why."""


def play(
    once: Annotated[bool, typer.Option("--once", help="Click once, measure, and stop.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the page; 0: a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    broker: Annotated[
        bool | None,
        typer.Option("--broker/--no-broker", help="A real Kafka broker; by default where Java 17 is."),
    ] = None,
    make: Annotated[bool, typer.Option("--make", help="Make the kept bundle anew (a night: Spark, torch).")] = False,
    json_file: Json = None,
) -> None:
    """Open a page of made-up goods that recommends, and changes with each click.

    It serves a small bundle that is kept with the source, so nothing is trained. With Java the clicks go through a real
    Kafka broker and the updater; without, through a list in this process. Nothing is kept when it ends.
    """
    if make:
        _make()
        return
    began = time.perf_counter()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dat-play-")))
        real = _has_java() if broker is None else broker
        _say("A made-up market: no real shop, no real person.")
        url = _with_broker(home, stack, host, port) if real else _in_process(home, stack, host, port)
        ready_s = time.perf_counter() - began
        change_ms = _first_change(url)
        loop = "a Kafka broker and the updater" if real else "a list in this process: install Java 17 for a real broker"
        _say(f"Ready after {ready_s:.0f} s. A click changed a list after {change_ms:.0f} ms, through {loop}.")
        if json_file:
            from cli.evidence import write_evidence

            figures: dict[str, Any] = {
                "install_s": _install_seconds(), "ready_s": round(ready_s, 1), "first_change_ms": round(change_ms),
                "broker": real,
            }  # fmt: skip
            write_evidence(json_file, figures)
        if not once:
            _say(f"Open {url}, choose a shopper, click something. Ctrl-C ends it.")
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                _say("")


def _say(text: str) -> None:
    print(text, flush=True)


def _has_java() -> bool:
    """Whether a broker can be started: by the whole installation, with a Java that is new enough."""
    if find_spec("jgo") is None:
        return False
    from devstack.broker import BrokerError, java

    try:
        java()
    except BrokerError:
        return False
    return True


def _in_process(home: Path, stack: ExitStack, host: str, port: int) -> str:
    from devstack.play.kept import make_home
    from devstack.play.small_log import PlayService
    from feature_repo.store import open_store
    from model.bundle_store import BundleStore
    from model.settings.serving import ServingConfig
    from serving.http.server import Server

    make_home(home)
    # The made-up clicks end some time ago; and this machine may be slow.
    config = ServingConfig(clock="data", category_field="category", store_timeout_ms=2_000, clicks_per_minute=10_000)
    service = PlayService(BundleStore(home / "bundles").load(), open_store(home), home, config)
    server = Server(service, (), host=host, port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    def end() -> None:
        server.should_exit = True
        thread.join(15)

    stack.callback(end)
    while not server.started:
        if not thread.is_alive():
            raise PlayError(f"cannot listen on {host}:{port}: choose another with --port")
        time.sleep(0.01)
    return "http://{}:{}".format(*server.servers[0].sockets[0].getsockname()[:2])


def _with_broker(home: Path, stack: ExitStack, host: str, port: int) -> str:
    """The broker starts while the home is made; updater and service while each other's libraries load."""
    from devstack.broker import LocalBroker
    from devstack.play.kept import make_home
    from devstack.processes import Verb
    from streaming.kafka.topics import create_topics

    local = LocalBroker(home / "kafka")
    stack.callback(local.stop)
    with ThreadPoolExecutor(1) as other:
        starting = other.submit(local.start)
        make_home(home)
        starting.result()
    create_topics(local.bootstrap)
    options = ["--home", str(home), "--bootstrap", local.bootstrap]
    logs = home / "logs"
    updater = stack.enter_context(Verb(["updater", *options], logs / "updater.log", "updating"))
    command = ["serve", *options, "--data", str(home / "card.toml"), "--host", host, "--port", str(port)]
    more = {
        "DAT_SERVING__CLOCK": "data",
        "DAT_SERVING__STORE_TIMEOUT_MS": "2000",
        "DAT_SERVING__CLICKS_PER_MINUTE": "10000",
    }
    serve = stack.enter_context(Verb(command, logs / "serve.log", "serving", **more))
    updater.wait_ready()
    return next(word for word in serve.wait_ready().split() if word.startswith("http://"))


def _first_change(url: str) -> float:
    """Click the first item of somebody's list; milliseconds until the list is another one."""
    import urllib.request

    def ask(path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    who = ask("/v1/queries?limit=1")["query_ids"][0]
    before = ask(f"/v1/retrieve?query_id={who}&n=10")["items"]
    began = time.perf_counter()
    clicked = ask("/v1/clicks", {"query_id": who, "item_id": before[3]["item_id"]})
    after = ask(f"/v1/retrieve?query_id={who}&n=10&wait_for={clicked['token']}&timeout_ms=20000")["items"]
    if [item["item_id"] for item in after] == [item["item_id"] for item in before]:
        raise PlayError(f"a click of {who} changed nothing")
    return 1000 * (time.perf_counter() - began)


def _install_seconds() -> float | None:
    """What ``./dat`` took to install, which it leaves beside the environment; None: it did not install it."""
    stamp = Path(sys.prefix) / ".install_s"
    return float(stamp.read_text()) if stamp.is_file() else None


def _make() -> None:
    """A night on the made-up log, whose bundle is kept."""
    from cli.nightly import run_night
    from devstack.play import kept, market

    with tempfile.TemporaryDirectory(prefix="dat-play-") as scratch:
        log, home = Path(scratch) / "log", Path(scratch) / "home"
        card = market.write(log)
        settings = load_settings(home=home, dataset=str(card))
        settings = _first_night(settings)
        summary = run_night(settings)
        if summary.gate.verdict != "published":
            raise PlayError(f"the gate refused the bundle: {summary.gate.reason}")
        kept.keep(home, log)
        size = sum(file.stat().st_size for file in kept.KEPT.rglob("*") if file.is_file())
        _say(f"{kept.KEPT} has {summary.bundle}, {size / 1e6:.2f} MB: {summary.gate.reason}")
        shutil.rmtree(home)


def _first_night(settings: Settings) -> Settings:
    """Small clicks in small Java."""
    from model.settings.night import SMALL_LOG_JAVA

    night = settings.night.model_copy(update={"driver_java_options": SMALL_LOG_JAVA, "driver_memory": "1g"})
    return settings.model_copy(update={"night": night})
