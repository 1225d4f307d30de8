"""A take-over on a real broker: what a warm worker has read beforehand, and that it then folds what any other would."""

import re
import time
from collections import Counter

import pytest

from tests.streaming.loop import committed, eventually, produce, running, some_clicks, truth, updater_config
from tests.streaming.test_forgetting import forget
from tests.tiny import tiny_bundle, tiny_store

GONE = ("q0", "q1", "q2", "q3")


@pytest.mark.long
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_worker_takes_over_repeats_and_forgotten_queries_and_a_warm_one_has_read_them_before(
    kafka, tmp_path, caplog, warm
):
    store = tiny_store(tmp_path, queries=9, items=12)
    bundle, clicks, later = tiny_bundle("taken-over"), some_clicks(120), some_clicks(60, seed=2, start=4_000)
    first = updater_config(kafka, instance="a", session_timeout_ms=6_000, warm=warm)
    second = first.model_copy(update={"instance": "b"})
    caplog.set_level("INFO", "streaming.worker")

    def counted() -> Counter:
        return Counter({id_: row["folded"] for id_, row in committed(kafka, "query", bundle).items()})

    known = Counter(dict(zip(bundle.queries.ids, bundle.queries.update_count.tolist(), strict=True)))
    of_first, of_later = truth(clicks)[0], truth(later)[0]
    with running(bundle, store, first, feast_sink=False):
        with running(bundle, store, second, feast_sink=False):
            produce(kafka, clicks)
            expected = Counter({id_: known[id_] + count for id_, count in of_first.items()})
            eventually(lambda: counted() == expected, "two workers fold their shares")
            forget(kafka, *GONE)
            for id_ in GONE:
                expected[id_] = 0
            eventually(lambda: counted() == expected, "some are forgotten")
            time.sleep(4)  # for a to read what b has written
            caplog.clear()
        # b is gone: after the session timeout its partitions come to a.
        produce(kafka, [*clicks[100:], *later])  # the first ones come again
        for id_, count in of_later.items():
            expected[id_] = count + (expected[id_] if id_ in expected else known[id_])
        eventually(lambda: counted() == expected, "the first takes over", 90)
    restored = [re.search(r"restored worker=\S+-a .* rows=(\d+)", message) for message in caplog.messages]
    rows = [int(found[1]) for found in restored if found]
    assert len(rows) >= 2 and (sum(rows) == 0) == warm, caplog.messages
