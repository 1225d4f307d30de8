"""What training leaves: the towers with the state of every id at the cut."""

from dataclasses import dataclass, replace

import numpy as np

from model.bundle import Bundle
from model.features import InputSpec
from model.folds import item_vectors, query_inputs
from model.settings.model import DATConfig
from model.state import EntityState
from model.towers import Towers
from training.diagnostics import EpochReport


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with the state of every id at the cut, all vectors in one space.

    cut_ms: the moment of the vectors · excludes_seen: whether answers leave out what a query has clicked.
    """

    towers: Towers
    queries: EntityState
    items: EntityState
    query_spec: InputSpec
    item_spec: InputSpec
    config: DATConfig
    cut_ms: int
    excludes_seen: bool
    epochs: list[EpochReport]

    def with_vectors(self, queries: EntityState, items: EntityState, now_ms: int) -> "TrainedModel":
        """The same model with these states, and the vectors of all their ids as of a moment."""
        rows, moment = np.arange(len(items)), np.full(len(items), now_ms, np.int64)
        items.columns["vectors"] = item_vectors(self.towers.item, items, self.item_spec, rows, moment)
        items.columns["as_of"] = moment
        rows, moment = np.arange(len(queries)), np.full(len(queries), now_ms, np.int64)
        inputs = query_inputs(queries, self.query_spec, self.config, rows, moment, items.trained)
        queries.columns["vectors"], queries.columns["as_of"] = self.towers.query(inputs, queries.a[rows]), moment
        return replace(self, queries=queries, items=items)

    @classmethod
    def of(cls, bundle: Bundle) -> "TrainedModel":
        """A published bundle in the form that the evaluation takes."""
        manifest = bundle.manifest
        return cls(
            bundle.towers, bundle.queries, bundle.items, manifest.query, manifest.item, manifest.config,
            manifest.cut_ms, manifest.excludes_seen, [],
        )  # fmt: skip
