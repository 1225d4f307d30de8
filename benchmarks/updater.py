"""How fast the updater is: clicks a second through both stages on a real broker, against its floors.

    python -m benchmarks.updater --clicks 200000 --json updater.json

Globo.com's clicks where the data folder has them, else made-up ones of a skewed distribution; ``data`` says which.

``clicks_per_s``: from the topic to committed item vectors, both stages, two processes, exactly once.
``query_stage_per_s``: the query stage alone: the moving averages, the query tower and the signals.
``quixstreams_per_s``: the moving averages alone, in Quix Streams, exactly once, state in RocksDB, on the same topic.
``floor_read_per_s``: kafka-python reading the same topic and doing nothing.
``floor_towers_per_s``: the folds and both towers on arrays, without Kafka.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

PARTITIONS = 2


def updater(
    clicks: Annotated[int, typer.Option(min=1_000)] = 200_000,
    queries: Annotated[int, typer.Option(min=1)] = 50_000,
    items: Annotated[int, typer.Option(min=1)] = 20_000,
    batch: Annotated[int, typer.Option(help="Clicks a transaction of the query stage.")] = 4_000,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Measure the updater at full speed, beside Quix Streams and its floors."""
    from benchmarks._peers import quixstreams_per_s
    from cli.broker import LocalBroker
    from cli.made_up import made_up_bundle, made_up_home
    from cli.preflight import quiet
    from streaming.clients import create_topics

    quiet()
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
    print(json.dumps(result, indent=2))
    if json_file:
        json_file.write_text(json.dumps(result, indent=2))


def some_clicks(count: int, queries: int, items: int) -> tuple[str, list, list[str], list[str]]:
    """Which data; clicks in order of time; all ids of queries and items. The arguments are those of made-up ones."""
    from cli.made_up import made_up_clicks
    from cli.settings import load_settings
    from feature_repo.card import CardError, load_card
    from feature_repo.click_event import Click
    from feature_repo.source import dataset_folder, read_clicks

    try:
        card = load_card("globo-news")
        table = read_clicks(card, dataset_folder(card, load_settings().data, Path()))
    except CardError:
        names = [f"q{k}" for k in range(queries)], [f"i{k}" for k in range(items)]
        return "made up", made_up_clicks(count, queries, items), *names
    rows = table.slice(0, count).to_pylist()
    events = [Click(event_id=str(number), **row) for number, row in enumerate(rows)]
    return card.name, events, *(table[f"{side}_id"].unique().to_pylist() for side in ("query", "item"))


def write(bootstrap: str, events: list) -> None:
    """All clicks into the topic."""
    from streaming.clicks import ClickWriter

    writer = ClickWriter(bootstrap, linger_ms=20)
    for start in range(0, len(events), 5_000):
        for future in [writer.send(event) for event in events[start : start + 5_000]]:
            future.get(60)
    writer.close()


def seconds_to_read(bootstrap: str) -> float:
    """kafka-python alone: every record of the topic, no decoding."""
    from streaming.clients import close_quietly, free_consumer, partitions_of
    from streaming.config import KafkaConnection
    from streaming.topics import CLICKS

    consumer = free_consumer(KafkaConnection(bootstrap=bootstrap), max_poll_records=4_000)
    partitions = partitions_of(consumer, CLICKS)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    left = sum(consumer.end_offsets(partitions).values())
    started = time.perf_counter()
    while left:
        left -= sum(len(records) for records in consumer.poll(timeout_ms=1_000).values())
    elapsed = time.perf_counter() - started
    close_quietly(consumer)
    return elapsed


def towers_alone(bundle, events: list, batch: int) -> dict[str, int]:
    """Both stages' arithmetic on arrays, on one thread, and the memory a row."""
    import torch

    from streaming import item_stage, query_stage
    from streaming.clicks import Clicks
    from streaming.item_vectors import ItemVectors
    from streaming.profiles import Profiles
    from streaming.state import SideState

    class NoStore:
        config = None  # the made-up towers read no profile

    torch.set_num_threads(1)
    spec = bundle.manifest
    queries = SideState(bundle.queries, spec.query, Profiles(NoStore, "query", spec.query), "history")
    items = SideState(bundle.items, spec.item, Profiles(NoStore, "item", spec.item), "vectors")
    vectors = ItemVectors(bundle, Profiles(NoStore, "item", spec.item))
    started = time.perf_counter()
    for start in range(0, len(events), batch):
        some = events[start : start + batch]
        n, times = len(some), np.array([event.event_time for event in some])
        arrays = Clicks(
            [e.event_id for e in some], [e.query_id for e in some], [e.item_id for e in some], times,
            np.zeros(n, np.int64), np.arange(n),
        )  # fmt: skip
        step = query_stage.step(arrays, queries, vectors, bundle)
        queries.apply(step.new)
        signals = item_stage.Signals(arrays.item_ids, step.vectors, times, np.zeros(n, np.int64))
        items.apply(item_stage.step(signals, items, bundle).new)
    return {
        "floor_towers_per_s": round(len(events) / (time.perf_counter() - started)),
        "bytes_per_query": round(queries.bytes / queries.size),
        "bytes_per_item": round(items.bytes / items.size),
    }


def measure(home: Path, bootstrap: str, bundle: str, clicks: int, stages: tuple[str, ...], batch: int) -> int:
    """Clicks a second of some stages, a process each: from the first commit of the query stage to the last commit."""
    from streaming.topics import ITEM_VECTORS, QUERY_VECTORS

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
        first, last = commits(bootstrap, QUERY_VECTORS, bundle, clicks)
        if "item" in stages:
            _, last = commits(bootstrap, ITEM_VECTORS, bundle, clicks)
        return round((clicks - batch) / max(1, last - first) * 1000)  # the clock starts as the first batch is done
    finally:
        for process in processes:
            process.kill()
            process.wait()


def commits(bootstrap: str, topic: str, bundle: str, clicks: int) -> tuple[int, int]:
    """When (ms) a changelog's first and last record were written, once all clicks are in it."""
    from streaming.changelog import changes
    from streaming.clients import close_quietly, free_consumer, partitions_of
    from streaming.config import KafkaConnection

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
