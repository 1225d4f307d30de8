"""How fast the updater is: clicks a second through both stages on a real broker, against its floors.

    python -m benchmarks.updater --clicks 200000 --json updater.json

Globo.com's clicks where the data folder has them, else made-up ones of a skewed distribution; ``data`` says which.

``clicks_per_s``: from the topic to committed item vectors, both stages, two processes, exactly once.
``query_stage_per_s``: the query stage alone: the moving averages, the query tower and the signals.
``sink_per_s``: both stages with the Feast sink on Redis: from the topic to rows in the store.
``quixstreams_per_s``: the moving averages alone, in Quix Streams, exactly once, state in RocksDB, on the same topic.
``floor_read_per_s``: kafka-python reading the same topic and doing nothing.
``floor_towers_per_s``: the folds and both towers on arrays, without Kafka.
``shared_private_bytes_per_query``: memory of a query worker that no other process shares, where it has one of 16
partitions, all its queries have clicked, and as many as a twentieth are new; by query of the bundle.
``…_of_ids``: before the first click. ``shared_restored_per_s``: rows of a changelog that it takes over.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cli.evidence import write_evidence
from cli.options import Json

if TYPE_CHECKING:
    from model.bundle import Bundle
    from model.settings.updater import KafkaConnection

PARTITIONS = 2


def updater(
    clicks: Annotated[int, typer.Option(min=1_000)] = 200_000,
    queries: Annotated[int, typer.Option(min=1)] = 50_000,
    items: Annotated[int, typer.Option(min=1)] = 20_000,
    batch: Annotated[int, typer.Option(help="Clicks a transaction of the query stage.")] = 4_000,
    shared_queries: Annotated[
        int, typer.Option(min=0, help="Queries of the bundle that 16 workers share; 0: do not measure it.")
    ] = 1_000_000,
    json_file: Json = None,
) -> None:
    """Measure the updater at full speed, beside Quix Streams and its floors."""
    from benchmarks._peers import quixstreams_per_s
    from benchmarks._worker_memory import worker_memory
    from devstack.broker import LocalBroker
    from devstack.redis import LocalRedis
    from devstack.synthetic_bundle import made_up_bundle, made_up_home
    from streaming.kafka.topics import create_topics

    with tempfile.TemporaryDirectory(prefix="dat-bench-") as scratch:
        # A bundle a run: the second would otherwise find the first one's state, and nothing left to do.
        data, events, query_ids, item_ids = some_clicks(clicks, queries, items)
        alone, both = (made_up_bundle(query_ids, item_ids, seed, frozen=False) for seed in (0, 1))
        result = {"data": data, "clicks": len(events), "queries": len(query_ids), "items": len(item_ids)}
        result |= {"cores": os.cpu_count(), "batch": batch}
        clicks = len(events)
        result |= towers_alone(alone, events, batch) | {"load_before": os.getloadavg()[0]}
        with LocalBroker(Path(scratch) / "kafka") as broker:
            create_topics(broker.bootstrap, PARTITIONS)
            write(broker.bootstrap, events)
            result["floor_read_per_s"] = round(clicks / seconds_to_read(broker.bootstrap))
            result["quixstreams_per_s"] = quixstreams_per_s(broker.bootstrap, clicks, alone)
            for name, bundle, stages in (
                ("query_stage_per_s", alone, ("query",)),
                ("clicks_per_s", both, ("item", "query")),
            ):
                home = Path(scratch) / bundle.version
                made_up_home(home, bundle)
                result[name] = measure(home, broker.bootstrap, bundle.version, clicks, stages, batch)
            if shutil.which("redis-server"):
                bundle = made_up_bundle(query_ids, item_ids, 2, frozen=False)
                made_up_home(home := Path(scratch) / bundle.version, bundle)
                with LocalRedis(Path(scratch) / "redis") as redis:
                    place = home, broker.bootstrap, redis.address, bundle.version
                    result["sink_per_s"] = measure_sink(*place, events, batch)
        if shared_queries:
            result |= worker_memory(Path(scratch), shared_queries, items)
    print(json.dumps(result, indent=2))
    if json_file:
        write_evidence(json_file, result)


def some_clicks(count: int, queries: int, items: int) -> tuple[str, list, list[str], list[str]]:
    """Which data; clicks in order of time; all ids of queries and items. The arguments are those of made-up ones."""
    from devstack.synthetic_bundle import made_up_clicks
    from feature_repo.card import CardError, load_card
    from feature_repo.reader.clicks import read_clicks
    from feature_repo.source import dataset_folder
    from model.click import Click
    from model.settings.settings import load_settings

    try:
        card = load_card("globo-news")
        table = read_clicks(card, dataset_folder(card, load_settings().data, Path()))
    except CardError:
        names = [f"q{k}" for k in range(queries)], [f"i{k}" for k in range(items)]
        return "made up", made_up_clicks(count, queries, items), *names
    rows = table.select(["query_id", "item_id", "event_time"]).slice(0, count).to_pylist()
    events = [Click(event_id=str(number), **row) for number, row in enumerate(rows)]
    return card.name, events, *(table[f"{side}_id"].unique().to_pylist() for side in ("query", "item"))


def write(connection: "KafkaConnection | str", events: list) -> None:
    """All clicks into the topic."""
    from streaming.clicks import ClickWriter

    writer = ClickWriter(connection, linger_ms=20)
    for start in range(0, len(events), 5_000):
        for future in [writer.send(event) for event in events[start : start + 5_000]]:
            future.get(60)
    writer.close()


def seconds_to_read(bootstrap: str) -> float:
    """kafka-python alone: every record of the topic, no decoding."""
    from model.settings.updater import KafkaConnection
    from streaming.kafka.clients import close_quietly, free_consumer, partitions_of

    kafka = KafkaConnection(bootstrap=bootstrap)
    consumer = free_consumer(kafka, max_poll_records=4_000)
    partitions = partitions_of(consumer, kafka.topics.clicks)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    left = sum(consumer.end_offsets(partitions).values())
    started = time.perf_counter()
    while left:
        left -= sum(len(records) for records in consumer.poll(timeout_ms=1_000).values())
    elapsed = time.perf_counter() - started
    close_quietly(consumer)
    return elapsed


def towers_alone(bundle: "Bundle", events: list, batch: int) -> dict[str, int]:
    """Both stages' arithmetic on arrays, on one thread, and the memory a row."""
    from streaming.clicks import Clicks
    from streaming.stages import item_stage, query_stage
    from streaming.stages.item_readings import ItemReadings
    from streaming.stages.profiles import NewProfiles, Profiles

    no_store: Any = SimpleNamespace(config=None)  # the made-up towers read no profile
    spec = bundle.manifest
    queries, items = bundle.queries.copy(), bundle.items.copy()
    profiles = [NewProfiles(Profiles(no_store, side, of)) for side, of in (("query", spec.query), ("item", spec.item))]
    vectors = ItemReadings(bundle, Profiles(no_store, "item", spec.item))
    started = time.perf_counter()
    for start in range(0, len(events), batch):
        some = events[start : start + batch]
        n, times = len(some), np.array([event.event_time for event in some])
        arrays = Clicks(
            [e.event_id for e in some], [e.query_id for e in some], [e.item_id for e in some], times,
            np.zeros(n, np.int64), np.arange(n), np.ones(n, np.float32),
        )  # fmt: skip
        step = query_stage.step(arrays, queries, profiles[0], vectors, bundle)
        step.update.apply(queries)
        signals = item_stage.Signals(arrays.item_ids, step.vectors, times, np.zeros(n, np.int64), step.weights)
        item_stage.step(signals, items, profiles[1], bundle).apply(items)
    return {
        "floor_towers_per_s": round(len(events) / (time.perf_counter() - started)),
        "bytes_per_query": round(queries.nbytes / len(queries)),
        "bytes_per_item": round(items.nbytes / len(items)),
    }


def measure(home: Path, bootstrap: str, bundle: str, clicks: int, stages: tuple[str, ...], batch: int) -> int:
    """Clicks a second of some stages, a process each: from the first commit of the query stage to the last commit."""
    from model.topics import Topics

    environment = os.environ | {"DAT_UPDATER__BATCH_CLICKS": str(batch)}
    command = [sys.executable, "-m", "cli", "updater", "--home", str(home), "--bootstrap", bootstrap, "--no-feast"]
    processes = []
    try:
        for name in stages:  # the query stage comes last, when whoever waits for it is ready
            path = home / f"{name}.log"
            with path.open("wb") as log:
                process = subprocess.Popen(
                    [*command, "--stage", name], stdout=log, stderr=subprocess.STDOUT, env=environment
                )
            processes.append(process)
            while b"updating" not in path.read_bytes():
                if process.poll() is not None:
                    raise RuntimeError(path.read_text())
                time.sleep(0.05)
        first, last = commits(bootstrap, Topics().query_vectors, bundle, clicks)
        if "item" in stages:
            _, last = commits(bootstrap, Topics().item_vectors, bundle, clicks)
        return round((clicks - batch) / max(1, last - first) * 1000)  # the clock starts as the first batch is done
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure_sink(home: Path, bootstrap: str, redis: str, version: str, events: list, batch: int) -> int:
    """Clicks a second with the Feast sink on Redis: from the first click to the last row in the store. The sink has
    written the bundle's rows before."""
    from devstack.processes import Verb
    from model.settings.updater import UpdaterConfig
    from streaming.kafka.offsets import committed, ends, group_name, sink_group
    from streaming.kafka.topics import create_topics

    kafka = UpdaterConfig(bootstrap=bootstrap, prefix="sink.")
    create_topics(kafka, PARTITIONS)
    os.environ |= {"DAT_UPDATER__BATCH_CLICKS": str(batch), "DAT_UPDATER__PREFIX": kafka.prefix}
    topics = kafka.topics
    steps = {
        group_name(kafka, "query", version): [topics.clicks],
        group_name(kafka, "item", version): [topics.item_signals],
        sink_group(kafka): [topics.query_vectors, topics.item_vectors],
    }
    command = ["updater", "--home", str(home), "--bootstrap", bootstrap, "--redis", redis, "--stage"]
    with contextlib.ExitStack() as stack:
        for stage in ("item", "query"):
            stack.enter_context(Verb([*command, stage], home / f"{stage}.log", "updating")).wait_ready(600)
        began = time.perf_counter()
        write(kafka, events)
        for group, names in steps.items():  # each step's end is final once the one before is done
            while True:
                at, end = committed(kafka, [group])[group], ends(kafka, names)
                if all(offset - at.get(p, 0) <= 1 for p, offset in end.items()):  # behind it is a transaction's mark
                    break
                time.sleep(0.2)
        return round(len(events) / (time.perf_counter() - began))


def commits(bootstrap: str, topic: str, bundle: str, clicks: int) -> tuple[int, int]:
    """When (ms) a changelog's first and last record were written, once all clicks are in it."""
    from model.settings.updater import KafkaConnection
    from streaming.kafka.changelog import changes
    from streaming.kafka.clients import close_quietly, free_consumer, partitions_of

    consumer = free_consumer(KafkaConnection(bootstrap=bootstrap))
    partitions = partitions_of(consumer, topic)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    folded: dict[str, int] = {}
    times: list[int] = []
    applied = 0
    while applied < clicks:
        for records in consumer.poll(timeout_ms=1_000).values():
            for record in records:
                for change in changes([record], bundle):
                    times.append(record.timestamp)
                    ids, counts = change.rows["id"].to_pylist(), change.rows["folded"].to_pylist()
                    for key, count in zip(ids, counts, strict=True):
                        applied += count - folded.get(key, 0)
                        folded[key] = count
        time.sleep(0.2)  # leave the cores to what is measured
    close_quietly(consumer)
    return min(times), max(times)


if __name__ == "__main__":
    typer.run(updater)
