"""Start a new model from the last bundle's weights: by id, by feature value, and layer by layer."""

from collections.abc import Sequence

import torch

from training.bundle import Bundle
from training.dat import DAT
from training.features import InputSpec
from training.towers import Tower


def _value_rows(spec: InputSpec) -> dict[tuple[str, str | None], int]:
    """(field, value) → its row of the feature embedding; None is the field's "never seen"."""
    rows: dict[tuple[str, str | None], int] = {}
    for field in spec.categories:
        rows[field.name, None] = field.offset
        rows.update({(field.name, value): field.offset + 1 + index for index, value in enumerate(field.values)})
    return rows


def _layout(tower: Tower, spec: InputSpec) -> tuple:
    """What stands where in the input of a tower's first layer: of one width, it may still mean other things."""
    fields, times = [field.name for field in spec.categories], [*spec.times, *spec.decays_ms]
    numbers = [number.name for number in spec.numbers]
    latest = None if tower.latest is None else tower.latest.weight.tolist()
    return fields, numbers, times, spec.shares, latest, tower.embedded


def _copy_rows(new: torch.Tensor, old: torch.Tensor, to: Sequence[int], source: Sequence[int]) -> None:
    new[torch.tensor(to, dtype=torch.long)] = old[torch.tensor(source, dtype=torch.long)]


@torch.no_grad()
def warm_start(
    model: DAT, query_ids: list[str], item_ids: list[str], query_spec: InputSpec, item_spec: InputSpec, initial: Bundle
) -> None:
    """Copy what still fits: embeddings of known ids and values, and layers of the same shape.

    New ids keep their fresh embeddings. A tower whose inputs changed keeps what reads them, its first layer and the
    linear path beside the layers, fresh.
    """
    items = {name: row + 1 for row, name in enumerate(initial.items.ids)}
    known_items = [(row + 1, items[name]) for row, name in enumerate(item_ids) if name in items]
    sides = (
        (
            model.query_tower,
            initial.model.query_tower,
            query_ids,
            initial.queries.ids,
            query_spec,
            initial.manifest.query,
        ),
        (model.item_tower, initial.model.item_tower, item_ids, initial.items.ids, item_spec, initial.manifest.item),
    )
    for tower, old, ids, old_ids, spec, old_spec in sides:
        if tower.ids.weight.shape[1] != old.ids.weight.shape[1]:
            continue
        position = {name: row + 1 for row, name in enumerate(old_ids)}
        shared = [(row + 1, position[name]) for row, name in enumerate(ids) if name in position]
        _copy_rows(tower.ids.weight, old.ids.weight, [0, *(a for a, _ in shared)], [0, *(b for _, b in shared)])
        values, old_values = _value_rows(spec), _value_rows(old_spec)
        both = [key for key in values if key in old_values]
        _copy_rows(tower.features.weight, old.features.weight, [values[k] for k in both], [old_values[k] for k in both])
        inputs_match = _layout(tower, spec) == _layout(old, old_spec)
        if tower.latest is not None and old.latest is not None:
            _copy_rows(tower.latest.items.weight, old.latest.items.weight, *zip((0, 0), *known_items, strict=True))
        if inputs_match:  # the first layer belongs to the scales that it was trained with
            tower.dense_mean, tower.dense_std = old.dense_mean.clone(), old.dense_std.clone()
        pairs = list(zip(tower.layers, old.layers, strict=False))
        if tower.shortcut is not None and old.shortcut is not None:
            pairs.insert(0, (tower.shortcut, old.shortcut))
        first = {tower.layers[0], tower.shortcut}
        for layer, old_layer in pairs:
            for name, parameter in layer.named_parameters():
                before = dict(old_layer.named_parameters()).get(name)
                if before is not None and before.shape == parameter.shape and (layer not in first or inputs_match):
                    parameter.copy_(before)
