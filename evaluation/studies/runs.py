"""One run of one model with one seed, and the journal that remembers finished runs, so that nothing is done twice."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from evaluation.metrics import Report, report
from evaluation.models import DATS, DETERMINISTIC, applicable, build, dat_config
from evaluation.ranks import rank_clicks
from evaluation.splits import Protocol, Split, make_split
from feature_repo.card import DatasetCard
from model.settings.settings import merged

Array = np.ndarray
Stage = Callable[[str], AbstractContextManager[Any]]
"""Shows that something is under way, by name, until it is left."""


class Variant(BaseModel):
    """A model with settings other than its own. ``negatives``: S, which belongs to the training set, if not its own."""

    label: str
    model: str
    settings: dict[str, Any] = {}
    negatives: int | None = None

    @property
    def seeds_differ(self) -> bool:
        return self.model not in DETERMINISTIC


class Run(BaseModel):
    """What one run found. collapsed: the model's own watch over its item vectors said so after the last epoch."""

    report: Report
    seed: int
    seconds: float
    collapsed: bool = False


@dataclass
class Setup:
    """A log and how it is asked.

    limit: only the first so many test clicks · negatives: S of a training set · training: settings that every model
    starts from, as far as they are its.
    """

    clicks: pa.Table
    catalogues: dict[str, pa.Table]
    card: DatasetCard
    protocol: Protocol
    limit: int | None = None
    negatives: int = 4
    training: dict[str, Any] = field(default_factory=dict)
    _splits: dict[tuple, Split] = field(default_factory=dict)

    def split(self, seed: int, negatives: int | None = None, tuning: bool = False) -> Split:
        """Training set and test clicks; ``tuning`` cuts one step earlier and never sees the test clicks."""
        negatives = negatives or self.negatives
        key = (seed, negatives, tuning)
        if key not in self._splits:
            self._splits.clear()  # one at a time: a split is the largest thing in memory
            self._splits[key] = make_split(
                self.clicks, self.catalogues, self.card, self.protocol, negatives, seed, self.limit, tuning
            )
        return self._splits[key]

    def settings(self, variant: "Variant") -> dict[str, Any]:
        """All settings of a variant that are not its model's own."""
        return merged(applicable(variant.model, self.training), variant.settings)

    @property
    def identity(self) -> list:
        """What makes results of two setups comparable."""
        return [self.card.name, self.protocol, self.limit, len(self.clicks), self.negatives]


class Journal:
    """Finished runs in ``runs.jsonl``, one a line, and the rank of every test click of each in ``ranks/``."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / "runs.jsonl"
        (folder / "ranks").mkdir(parents=True, exist_ok=True)
        self.runs: dict[str, Run] = {}
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        for line in lines:
            try:
                held = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the process ended: that run is done again
            self.runs[held["key"]] = Run.model_validate(held["run"])

    def ranks(self, key: str) -> Array:
        """[N] the rank of each test click."""
        return np.load(self.folder / "ranks" / f"{key}.npy")

    def put(self, key: str, about: dict, run: Run, ranks: Array) -> None:
        np.save(self.folder / "ranks" / f"{key}.npy", ranks)
        whole = not self.file.is_file() or self.file.read_bytes().endswith(b"\n")
        with self.file.open("a") as file:
            line = json.dumps({"key": key, **about, "run": run.model_dump()})
            file.write(("" if whole else "\n") + line + "\n")
        self.runs[key] = run


def key_of(setup: Setup, variant: Variant, seed: int) -> str:
    """A name for the run that changes with all that it depends on but the code."""
    settings = setup.settings(variant)
    if variant.model in DATS:
        settings = dat_config(variant.model, seed, **settings).model_dump()
    negatives = variant.negatives or setup.negatives
    made_from = [setup.identity, variant.model, settings, negatives, seed if variant.seeds_differ else 0]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def run(setup: Setup, variant: Variant, seed: int, tuning: bool = False) -> tuple[Run, Array]:
    """Fit and measure once: the run, and the rank of each test click [N]."""
    split = setup.split(seed, variant.negatives, tuning)
    started = time.perf_counter()
    model = build(variant.model, seed, **setup.settings(variant))
    model.fit(split.data, split.cut_ms)
    ranks = rank_clicks(model.scorer(split.test, split.live), split.test)
    epochs = getattr(getattr(model, "trained", None), "epochs", [])
    collapsed = bool(epochs) and epochs[-1].collapsed
    seconds = time.perf_counter() - started
    return Run(report=report(ranks, split.test), seed=seed, seconds=seconds, collapsed=collapsed), ranks


def run_all(
    setup: Setup, journal: Journal, variants: list[Variant], seeds: int, stage: Stage
) -> dict[str, list[tuple[Run, Array]]]:
    """Every variant with every seed, those that the journal holds from there: by label, in order of seed."""
    results: dict[str, list[tuple[Run, Array]]] = {variant.label: [] for variant in variants}
    for seed in range(seeds):
        for variant in sorted(variants, key=lambda variant: variant.negatives or setup.negatives):
            if seed and not variant.seeds_differ:
                continue
            key = key_of(setup, variant, seed)
            if key not in journal.runs:
                with stage(f"{variant.label}, seed {seed}"):
                    found, ranks = run(setup, variant, seed)
                journal.put(key, {"label": variant.label, "variant": variant.model_dump()}, found, ranks)
            results[variant.label].append((journal.runs[key], journal.ranks(key)))
    return results
