"""``dat forget``: forget queries everywhere, at once."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import Bootstrap, Home, Redis
from cli.progress import console
from model.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    from model.forgetting import Listed


class NotForgotten(RuntimeError):
    """A query could not be forgotten everywhere. The message says where not, and what to do."""


def forget(
    query_ids: Annotated[list[str], typer.Argument(help="The ids to forget.", metavar="QUERY_ID…")],
    home: Home = None,
    bootstrap: Bootstrap = None,
    redis: Redis = None,
    kafka: Annotated[bool, typer.Option(help="Tell the stream and the services. Without: this home alone.")] = True,
) -> None:
    """Forget queries: from now on each is a new visitor, and what is of before never counts again.

    Services, online store and updater are told through Kafka. The home's lake, features and bundles are rewritten
    without the queries; if a night runs, the next one does that. docs/runbook.md says what remains, and for how long.
    """
    settings = load_settings(home=home, bootstrap=bootstrap, redis=redis)
    too_long = [id_ for id_ in query_ids if not 0 < len(id_) <= 256]
    if too_long:
        raise typer.BadParameter(f"an id has 1 to 256 characters: {too_long[0][:40]!r}", param_hint="QUERY_ID")
    from filelock import FileLock, Timeout

    from model.forgetting import Forgotten
    from model.shared_bundles import open_bundles
    from spark_jobs.forget import rewrite
    from spark_jobs.forgotten import learn
    from spark_jobs.land_kafka import Ledger

    root, before = settings.home.absolute(), _now(settings)
    lake = settings.shared / "lake" / "clicks"
    listed = dict.fromkeys(query_ids, Forgotten(before=before))
    if kafka:
        listed = _tell(settings, query_ids, before)
        console.print(f"told the services and the updater: {len(listed)} queries are new visitors from now on")
    ledger = Ledger.load(lake)
    learn(lake, listed, ledger.first if ledger else None)
    try:
        with FileLock(root / "nightly.lock", timeout=0):
            done = rewrite(root, open_bundles(root, settings.bundles), settings.shared)
    except Timeout:
        console.print("a night is running: the next one, or dat forget again, rewrites lake, features and bundles")
        return
    for line in done.lines():
        console.print(line)


def _now(settings: Settings) -> int:
    """The moment, ms: by the wall, or for a replay of old clicks by the data's own time, as the service has it."""
    from model.bundle import BundleError
    from model.shared_bundles import open_bundles
    from serving.clock import Clock

    try:
        bundle = open_bundles(settings.home, settings.bundles).load()
    except BundleError:
        return time.time_ns() // 1_000_000
    newest = max(bundle.manifest.cut_ms, int(bundle.items.last_click.max(initial=0)))
    serving = settings.serving
    return Clock.choose(serving.clock, lambda: newest, bundle.manifest.cut_ms, serving.replay_after_days).now_ms()


def _tell(settings: Settings, query_ids: list[str], before: int) -> "Listed":
    """Raises:
    NotForgotten: Kafka or the online store did not take it. KafkaAway: no broker answers.
    """
    from kafka.errors import KafkaError

    from cli.nightly import reach_kafka
    from feature_repo.store import open_store
    from streaming.forgetting import ForgetWriter
    from streaming.sink.online_writer import OnlineWriter

    reach_kafka(settings)
    writer = ForgetWriter(settings.updater)
    try:
        writer.hide(query_ids, before)
        try:
            OnlineWriter(open_store(settings.home, settings.redis), "forget").erase(list(query_ids))
        except Exception as error:  # each store raises its own kinds
            raise NotForgotten(
                f"the online store does not answer ({type(error).__name__}: {error}); services hide the queries "
                "already. Run dat forget again when it is back"
            ) from error
        return writer.forget(query_ids, before)[0]
    except (KafkaError, TimeoutError) as error:
        raise NotForgotten(
            f"Kafka at {settings.updater.bootstrap} did not take it ({type(error).__name__}); run dat forget again"
        ) from error
    finally:
        writer.close()
