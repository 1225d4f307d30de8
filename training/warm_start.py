"""Start a new model from the last bundle's weights: by id, by feature value, and layer by layer."""

from collections.abc import Sequence

import numpy as np
import torch

from model.bundle import Bundle
from model.features import InputSpec
from model.ids import Ids
from model.settings.model import DATConfig
from training.dat import DAT
from training.training_set import TrainingSet

Array = np.ndarray


@torch.no_grad()
def warm_start(model: DAT, data: TrainingSet, config: DATConfig, initial: Bundle) -> None:
    """Copy what still fits: embeddings of known ids and values, and layers of the same shape.

    New ids keep their fresh embeddings. A tower whose inputs changed keeps what reads them, its first layer and the
    linear path beside the layers, fresh.
    """
    old, manifest = initial.towers.weights, initial.manifest
    for side, ids, old_ids, spec, old_spec in (
        ("query_tower", data.queries.ids, initial.queries.ids, data.query_spec, manifest.query),
        ("item_tower", data.items.ids, initial.items.ids, data.item_spec, manifest.item),
    ):
        new = dict(getattr(model, side).state_dict(keep_vars=True))
        same_inputs = _layout(spec, config, side) == _layout(old_spec, manifest.config, side)
        values, old_values = _value_rows(spec), _value_rows(old_spec)
        shared_values = [(row, old_values[key]) for key, row in values.items() if key in old_values]
        for name, weight in new.items():
            before = old.get(f"{side}.{name}")
            if before is None or before.shape[1:] != weight.shape[1:]:
                continue
            if name == "ids.weight":
                _copy_rows(weight, before, _shared(ids, old_ids, len(before) - 1))
            elif name == "recent.items.weight":
                _copy_rows(weight, before, _shared(data.items.ids, initial.items.ids, len(before) - 1))
            elif name == "features.weight":
                _copy_rows(weight, before, shared_values)
            elif before.shape == weight.shape and (same_inputs or not _reads_inputs(name)):
                weight.copy_(torch.from_numpy(np.array(before)))


def _reads_inputs(name: str) -> bool:
    """Whether a weight belongs to the meaning and the scales of a tower's inputs."""
    return name.split(".")[0] in ("shortcut", "dense_mean", "dense_std") or name.startswith("layers.0.")


def _shared(ids: Sequence[str], old_ids: Ids, trained: int) -> list[tuple[int, int]]:
    """(new, old) rows of the embeddings of the ids that both have; the unknown id's first.

    Args:
        trained: How many of the old ids have embeddings: those that came after the bundle's window are its last.
    """
    old = enumerate(old_ids.rows(ids).tolist(), start=1)
    return [(0, 0), *((row, before + 1) for row, before in old if 0 <= before < trained)]


def _value_rows(spec: InputSpec) -> dict[tuple[str, str | None], int]:
    """(field, value) → its row of the feature embedding; None is the field's "never seen"."""
    rows: dict[tuple[str, str | None], int] = {}
    for field in spec.categories:
        rows[field.name, None] = field.offset
        rows.update({(field.name, value): field.offset + 1 + index for index, value in enumerate(field.values)})
    return rows


def _layout(spec: InputSpec, config: DATConfig, side: str) -> tuple:
    """What stands where in the input of a tower's first layer: of one width, it may still mean other things."""
    fields, numbers = [(field.name, field.slots) for field in spec.categories], [number.name for number in spec.numbers]
    recent = (config.recent_items, config.recent_alphas) if side == "query_tower" else None
    return fields, numbers, spec.times, spec.half_lives_ms, recent, config.ema_alphas, config.tower


def _copy_rows(new: torch.Tensor, old: Array, pairs: Sequence[tuple[int, int]]) -> None:
    to, source = np.array(pairs, np.int64).reshape(-1, 2).T
    new[torch.from_numpy(to)] = torch.from_numpy(old[source])
