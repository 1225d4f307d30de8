"""The query stage's moving averages in Quix Streams; run in an environment of its own, so it imports nothing of ours.

    python _quixstreams_ema.py BOOTSTRAP CLICKS VECTORS.npz STATE_FOLDER

One process, exactly once, state in RocksDB with its changelog topic. It prints the seconds from the first click to the
last commit. State is raw bytes, which is quicker than the JSON that Quix Streams writes by default.
"""

import sys
import time

import numpy as np
from quixstreams import Application, State


def main(bootstrap: str, clicks: int, vectors: str, folder: str) -> None:
    known = np.load(vectors, allow_pickle=False)
    rows = {key: row for row, key in enumerate(known["ids"].tolist())}
    table, alphas = known["vectors"], known["memories"].astype(np.float32)[:, None]
    zero = np.zeros((len(alphas), table.shape[1]), np.float32)
    began: list[float] = []

    def fold(click: dict, state: State) -> None:
        if not began:
            began.append(time.perf_counter())
        stored = state.get_bytes("a")
        if stored is None:
            count, a = 0, zero
        else:
            count, a = (
                int.from_bytes(stored[:4], "little"),
                np.frombuffer(stored, np.float32, offset=4).reshape(zero.shape),
            )
        a = a + np.maximum(alphas, np.float32(1 / (count + 1))) * (table[rows[click["item_id"]]] - a)
        state.set_bytes("a", (count + 1).to_bytes(4, "little") + a.astype(np.float32).tobytes())

    app = Application(
        broker_address=bootstrap,
        consumer_group="quix-ema",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=folder,
        commit_interval=1.0,
        loglevel="ERROR",
    )
    frame = app.dataframe(app.topic("clicks", value_deserializer="json"))
    frame.update(fold, stateful=True)
    app.run(count=clicks)
    print(time.perf_counter() - began[0])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
