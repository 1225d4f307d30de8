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
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from cli.evidence import write_evidence
from cli.options import Json

if TYPE_CHECKING:
    from feature_repo.card import DatasetCard
    from model.bundle import Bundle
    from training.trained_model import TrainedModel

SEED = 0
WAYS = ("warm", "scratch", "thrice")


def warmstart(
    data: Annotated[str, typer.Option(help="Dataset card.")] = "movielens-100k",
    nights: Annotated[int, typer.Option(min=1)] = 5,
    window: Annotated[int, typer.Option(min=1, help="Days of a window, as the card counts them.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="A night's budget.")] = 1,
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Of the queries, to make it smaller.")] = 1.0,
    negatives: Annotated[int, typer.Option(min=1)] = 4,
    json_file: Json = None,
) -> None:
    """HR@100 of the three ways, night by night."""
    import torch

    from feature_repo.reader.catalogue import read_catalogue
    from feature_repo.reader.clicks import read_clicks
    from feature_repo.source import dataset_folder
    from model.settings.settings import load_settings

    settings = load_settings(dataset=data)
    card = settings.card
    files = dataset_folder(card, settings.data, settings.home / "downloads")
    clicks = some_queries(read_clicks(card, files), share)
    catalogues = {side: read_catalogue(card, files, side) for side in ("query", "item")}
    result: dict = {
        "data": card.name, "clicks": len(clicks), "nights": [], "window_days": window, "epochs": epochs, "share": share,
        "threads": torch.get_num_threads(), "cores": os.cpu_count(), "load_before": os.getloadavg()[0],
    }  # fmt: skip
    end = int(np.max(clicks["event_time"].to_numpy())) + 1
    ends = [end - (nights - 1 - n) * card.day_ms for n in range(-1, nights)]
    first, *rest = (Night(clicks, catalogues, card, at, window, negatives) for at in ends)
    last, _ = first.fit(3 * epochs, None)
    for number, night in enumerate(rest):
        row: dict = {"rows": len(night.split.data.clicks), "test_clicks": len(night.split.test)}
        order = ["warm", "scratch"] if number % 2 else ["scratch", "warm"]  # neither always goes first
        for name in [*order, "thrice"]:
            start = night.bundle_of(last) if name == "warm" else None
            model, seconds = night.fit(3 * epochs if name == "thrice" else epochs, start)
            row[name] = night.measure(model) | {"seconds": round(seconds, 2)}
            if name == "warm":
                warm = model
        last = warm
        result["nights"].append(row)
        print(f"night {number + 1}: " + ", ".join(f"{name} {row[name]['hr100']:.4f}" for name in WAYS), flush=True)
        result |= {name: mean_of(result["nights"], name) for name in WAYS}
        ahead = [night["warm"]["hr100"] >= night["scratch"]["hr100"] for night in result["nights"]]
        result["nights_warm_at_least_as_good"] = sum(ahead)
        if json_file:
            write_evidence(json_file, result)
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
    """The training set of a window, and the clicks of the day after it, which ends the log at ``end_ms``."""

    def __init__(
        self,
        clicks: pa.Table,
        catalogues: dict[str, pa.Table],
        card: "DatasetCard",
        end_ms: int,
        days: int,
        negatives: int,
    ):
        from evaluation.splits import make_split

        until_then = clicks.filter(pc.less(clicks["event_time"], end_ms))
        self.card = card
        self.split = make_split(until_then, catalogues, card, "night", negatives, SEED, window_days=days, min_day=0)

    def fit(self, epochs: int, start: "Bundle | None") -> "tuple[TrainedModel, float]":
        """A model, and the seconds that its training took."""
        from model.settings.model import NO_CLOSED_FORM, DATConfig
        from training.fit import fit

        began = time.perf_counter()
        model = fit(
            self.split.data,
            DATConfig(epochs=epochs, closed_form=NO_CLOSED_FORM),
            cut_ms=self.split.cut_ms,
            initial=start,
        )
        return model, time.perf_counter() - began

    def bundle_of(self, model: "TrainedModel") -> "Bundle":
        """A model of the night before, in the form that training starts from."""
        from spark_jobs.train import make_bundle

        card = {"start": 0, "cut": self.split.cut_ms, "sha256": "", "seed": SEED, "cut_by": "day"}
        return make_bundle(model, "last", self.card, card, {}, {}, {}, None)

    def measure(self, model: "TrainedModel") -> dict[str, float]:
        from spark_jobs.train import evaluate

        found = evaluate(model, self.split.test, live=True).all
        return {"hr50": round(found.hr50, 4), "hr100": round(found.hr100, 4), "mrr10": round(found.mrr10, 4)}


if __name__ == "__main__":
    typer.run(warmstart)
