"""Runs in the peers' own environment: ``_training_peers.py FOLDER THREADS SECONDS BATCH``.

Reads FOLDER/log.npz, writes FOLDER/peers.json with examples a second. Towers of 256-128-32 over embeddings of 32, Adam.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

Array = np.ndarray
WARM_UP = 5  # batches


def main() -> None:
    folder, threads, seconds, batch = Path(sys.argv[1]), *map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    log = np.load(folder / "log.npz")
    width = log["item"].shape[1]
    pairs = {
        "query": np.repeat(log["query"], width),
        "item": log["item"].ravel(),
        "label": np.tile(np.r_[1.0, np.zeros(width - 1)], len(log["query"])),
    }
    pairs |= {f"{side}_kind": log[f"{side}_kind"][pairs[side]] for side in ("query", "item")}
    sizes = {side: len(log[f"{side}_kind"]) for side in ("query", "item")} | {"query_kind": 200, "item_kind": 200}
    rows = batch * width  # one batch: all candidates of so many positives
    with (
        (folder / "peers.log").open("w") as noise,
        contextlib.redirect_stdout(noise),
        contextlib.redirect_stderr(noise),
    ):
        result = rechub(pairs, sizes, rows, seconds) | recbole(folder, pairs, sizes, rows, seconds)
    (folder / "peers.json").write_text(json.dumps(result))


def speed(steps: Iterator[None], rows: int, seconds: int) -> int:
    """Examples a second of an iterator that does one batch of ``rows`` at each ``next``."""
    for _ in range(WARM_UP):
        next(steps)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(steps)
        done += rows
    return round(done / (time.perf_counter() - started))


def forever(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from batches


class Timed:
    """A loader that ends after so many seconds, and counts what it gave: for trainers whose loop is their own."""

    def __init__(self, loader: Any, rows: int, seconds: int):
        self.loader, self.rows, self.seconds = loader, rows, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(forever(self.loader)):
            if number == WARM_UP:
                self.started = time.perf_counter()
            self.given = max(0, number - WARM_UP) * self.rows
            if number > WARM_UP and time.perf_counter() - self.started > self.seconds:
                self.speed = round(self.given / (time.perf_counter() - self.started))
                return
            yield batch


def rechub(pairs: dict[str, Array], sizes: dict[str, int], rows: int, seconds: int) -> dict[str, int]:
    """torch-rechub's DSSM by its MatchTrainer and its MatchDataGenerator."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.matching import DSSM
    from torch_rechub.trainers import MatchTrainer
    from torch_rechub.utils.data import MatchDataGenerator

    features = {name: SparseFeature(name, vocab_size=size, embed_dim=32) for name, size in sizes.items()}
    tower = {"dims": [256, 128, 32], "activation": "relu"}
    model = DSSM(
        [features["query"], features["query_kind"]], [features["item"], features["item_kind"]], tower, dict(tower)
    )
    inputs, labels = {name: pairs[name] for name in sizes}, pairs["label"]
    loader, _, _ = MatchDataGenerator(inputs, labels).generate_dataloader(inputs, inputs, batch_size=rows)
    trainer = MatchTrainer(model, mode=0, optimizer_params={"lr": 1e-3, "weight_decay": 0})
    timed = Timed(loader, rows, seconds)
    trainer.train_one_epoch(timed)
    whole = len(labels) // rows
    batches = [
        ({k: torch.from_numpy(v[b * rows : (b + 1) * rows]) for k, v in inputs.items()},
         torch.from_numpy(labels[b * rows : (b + 1) * rows]).float())
        for b in range(min(whole, 40))
    ]  # fmt: skip

    def bare() -> Iterator[None]:
        for x, y in forever(batches):
            loss = trainer.criterion(model(x), y)
            model.zero_grad()
            loss.backward()
            trainer.optimizer.step()
            yield

    return {"torch_rechub": timed.speed, "torch_rechub_bare": speed(bare(), rows, seconds)}


def recbole(folder: Path, pairs: dict[str, Array], sizes: dict[str, int], rows: int, seconds: int) -> dict[str, int]:
    """RecBole's DSSM by its Trainer and its loader, on the same labelled pairs (its own sampler is off)."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.context_aware_recommender import DSSM
    from recbole.trainer import Trainer

    data = folder / "made-up"
    data.mkdir()
    columns = [pairs["query"] + 1, pairs["item"] + 1, pairs["label"]]
    np.savetxt(data / "made-up.inter", np.stack(columns, 1), "%d", "\t", comments="",
               header="query:token\titem:token\tlabel:float")  # fmt: skip
    for side, file in (("query", "user"), ("item", "item")):
        kinds = np.load(folder / "log.npz")[f"{side}_kind"]
        table = np.stack([np.arange(1, len(kinds) + 1), kinds], 1)
        np.savetxt(data / f"made-up.{file}", table, "%d", "\t", comments="", header=f"{side}:token\t{side}_kind:token")
    settings = {
        "data_path": str(folder), "USER_ID_FIELD": "query", "ITEM_ID_FIELD": "item", "LABEL_FIELD": "label",
        "load_col": {"inter": ["query", "item", "label"], "user": ["query", "query_kind"],
                     "item": ["item", "item_kind"]},
        "embedding_size": 32, "mlp_hidden_size": [256, 128, 32], "dropout_prob": 0.0, "learning_rate": 1e-3,
        "train_batch_size": rows, "train_neg_sample_args": None, "eval_args": {"split": {"RS": [1, 0, 0]},
        "order": "RO", "group_by": None, "mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC",
        "use_gpu": False, "show_progress": False, "checkpoint_dir": str(folder / "saved"), "worker": 0,
        "weight_decay": 0.0, "state": "ERROR",
    }  # fmt: skip
    os.chdir(folder)
    sys.argv = sys.argv[:1]  # RecBole reads the command line
    config = Config(model="DSSM", dataset="made-up", config_dict=settings)
    dataset = create_dataset(config)
    loader, _, _ = data_preparation(config, dataset)
    model = DSSM(config, loader.dataset)
    trainer = Trainer(config, model)
    timed = Timed(loader, rows, seconds)
    trainer._train_epoch(timed, 0)
    batches = [batch for batch, _ in zip(loader, range(40), strict=False) if len(batch) == rows]

    def bare() -> Iterator[None]:
        for batch in forever(batches):
            trainer.optimizer.zero_grad()
            model.calculate_loss(batch).backward()
            trainer.optimizer.step()
            yield

    return {"recbole": timed.speed, "recbole_bare": speed(bare(), rows, seconds)}


if __name__ == "__main__":
    main()
