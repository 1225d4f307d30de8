"""Warm start over consecutive nights: beside a start from scratch on the same budget, and one on three times it.

    python -m benchmarks.warmstart --data movielens-100k --json warmstart.json

Every night trains on the window before its test day and is measured on that day, each click predicted before it is
folded in, over the full corpus. ``warm`` starts from the night before; ``scratch`` has the same epochs, so the same
clicks, steps and wall-clock (seconds are reported); ``thrice`` starts from scratch too, with three times as many. The
first warm model is trained like ``thrice``, a day before the first night.
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

SEED = 0
WAYS = ("warm", "scratch", "thrice")


def warmstart(
    data: Annotated[str, typer.Option(help="Dataset card.")] = "movielens-100k",
    nights: Annotated[int, typer.Option(min=1)] = 5,
    window: Annotated[int, typer.Option(min=1, help="Days of a window, as the card counts them.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="A night's budget.")] = 1,
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Of the queries, to make it smaller.")] = 1.0,
    negatives: Annotated[int, typer.Option(min=1)] = 4,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """HR@100 of the three ways, night by night."""
    import torch

    from cli.settings import load_settings
    from feature_repo.source import dataset_folder, read_clicks, read_profiles

    settings = load_settings(dataset=data)
    card = settings.card
    files = dataset_folder(card, settings.data, settings.home / "downloads")
    clicks = some_queries(read_clicks(card, files), share)
    catalogues = {side: read_profiles(card, files, side) for side in ("query", "item")}
    result: dict = {
        "data": card.name, "clicks": len(clicks), "nights": [], "window_days": window, "epochs": epochs, "share": share,
        "threads": torch.get_num_threads(), "cores": os.cpu_count(), "load_before": os.getloadavg()[0],
    }  # fmt: skip
    end = clicks["event_time"][-1].as_py() + 1
    cuts = [end - (nights - n) * card.day_ms for n in range(nights)]
    before = Night(clicks, catalogues, card, cuts[0] - card.day_ms, window, negatives)
    last, _ = before.fit(3 * epochs, None)
    for number, cut in enumerate(cuts):
        night = Night(clicks, catalogues, card, cut, window, negatives)
        row: dict = {"rows": len(night.made.examples), "test_clicks": len(night.test)}
        order = ["warm", "scratch"] if number % 2 else ["scratch", "warm"]  # neither always goes first
        for name in [*order, "thrice"]:
            start = night.bundle_of(last) if name == "warm" else None
            fitted, seconds = night.fit(3 * epochs if name == "thrice" else epochs, start)
            row[name] = night.measure(fitted) | {"seconds": round(seconds, 2)}
            if name == "warm":
                warm = fitted
        last = warm
        result["nights"].append(row)
        print(f"night {number + 1}: " + ", ".join(f"{name} {row[name]['hr100']:.4f}" for name in WAYS), flush=True)
        result |= {name: mean_of(result["nights"], name) for name in WAYS}
        ahead = [night["warm"]["hr100"] >= night["scratch"]["hr100"] for night in result["nights"]]
        result["nights_warm_at_least_as_good"] = sum(ahead)
        if json_file:
            json_file.write_text(json.dumps(result, indent=2))
    print(json.dumps({name: result[name] for name in WAYS}, indent=2))


def mean_of(rows: list[dict], name: str) -> dict[str, float]:
    return {key: round(float(np.mean([row[name][key] for row in rows])), 4) for key in rows[0][name]}


def some_queries(clicks: pa.Table, share: float) -> pa.Table:
    """The clicks of a share of the queries, the same ones whenever asked."""
    if share == 1:
        return clicks
    ids = clicks["query_id"].combine_chunks().dictionary_encode()
    chosen = np.random.default_rng(SEED).random(len(ids.dictionary)) < share
    return clicks.filter(pa.array(chosen[ids.indices.to_numpy()]))


class Night:
    """A window's training set and the clicks of the day after it."""

    def __init__(self, clicks: pa.Table, catalogues: dict[str, pa.Table], card, cut: int, window: int, negatives: int):
        from training.window import make_examples, split_at

        self.card, self.catalogues, self.cut, self.start = card, catalogues, cut, cut - window * card.day_ms
        before, after = split_at(clicks, cut)
        self.test, _ = split_at(after, cut + card.day_ms)
        _, inside = split_at(before, self.start)
        self.made = make_examples(inside, catalogues, card, negatives, SEED)

    def fit(self, epochs: int, start):
        """A model, and the seconds that its training took."""
        from training.config import DATConfig
        from training.trainer import fit

        made, began = self.made, time.perf_counter()
        config = DATConfig(epochs=epochs)
        fitted = fit(made.examples, made.query, made.item, made.query_spec, made.item_spec, config, start,
                     cut_ms=self.cut)  # fmt: skip
        return fitted, time.perf_counter() - began

    def bundle_of(self, fitted):
        """A model of the night before, in the form that training starts from."""
        from spark_jobs.retrain import make_bundle

        card = {"start": self.start, "cut": self.cut, "sha256": "", "seed": SEED}
        return make_bundle(fitted, "last", self.card, card, {}, {}, {}, None)

    def measure(self, fitted) -> dict[str, float]:
        from spark_jobs.retrain import test_report

        found = test_report(fitted, self.test, self.catalogues, self.card, self.cut, live=True).all
        return {"hr50": round(found.hr50, 4), "hr100": round(found.hr100, 4), "mrr10": round(found.mrr10, 4)}


if __name__ == "__main__":
    typer.run(warmstart)
