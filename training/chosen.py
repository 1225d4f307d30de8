"""What was chosen for a log, and why: it stands in the data card of a training set and in the bundle's manifest."""

from collections.abc import Iterator
from typing import Any

from model.closed_form_choice import ClosedFormChoice
from model.settings.night import NightConfig
from model.settings.settings import DEFAULT_NEGATIVES
from training.training_set import RARE_REPEATS, TrainingSet

FULL_SOFTMAX_ITEMS = 20_000
"""Of more items the softmax is sampled, where the settings leave it open."""


def is_full(softmax: str, items: int) -> bool:
    """Whether the softmax is over all of so many items (``memory.softmax`` of the settings)."""
    return softmax == "full" or (softmax == "auto" and items <= FULL_SOFTMAX_ITEMS)


def chosen(data: TrainingSet, config: NightConfig, closed_form: ClosedFormChoice | None) -> dict[str, str]:
    """By name a value and why it is that: what follows the log, and what is not the default.

    Args:
        config: With the card's model and negatives, as :meth:`model.settings.settings.Settings.night_of` gives it.
        closed_form: What was chosen of it, if anything was to be.
    """
    items, model, card = len(data.items), config.model, data.card
    rare = data.repeats < RARE_REPEATS
    found = {
        "excludes_seen": f"{_yes(rare)}: {data.repeats:.1%} of the window's clicks repeat one of the same query; "
        f"below {RARE_REPEATS:.0%} answers leave out what was clicked",
        "negatives": f"{config.negatives}: {_by(config.negatives, card.training.negatives, DEFAULT_NEGATIVES)}",
    }
    if data.excludes_seen != rare:
        found["excludes_seen"] = f"{_yes(data.excludes_seen)}: as asked"
    if model.preset == "memories":
        softmax = model.memory.softmax
        why = f"{items:,} items, and up to {FULL_SOFTMAX_ITEMS:,} are few" if softmax == "auto" else "as asked"
        found["memory.softmax"] = f"{'full' if is_full(softmax, items) else 'sampled'}: {why}"
    if closed_form is not None:
        earlier = f"as chosen for a window of {closed_form.clicks:,} clicks: "
        before = "" if closed_form.clicks == len(data) else earlier
        found["closed_form.weight"] = f"{closed_form.weight:g}: {before}{closed_form.why}"
        found["closed_form.l2"] = f"{closed_form.l2:g}: chosen with the weight"
    said = dict(_flat(card.training.model))
    default = dict(_flat(type(model)().model_dump()))
    for name, value in _flat(model.model_dump(exclude_unset=True)):
        if name not in found and value != default.get(name):
            found[name] = f"{_shown(value)}: {_by(value, said.get(name), default.get(name))}"
    return found


def _by(value: Any, of_card: Any, default: Any) -> str:
    """Whose choice a value is."""
    if of_card is not None and _shown(of_card) == _shown(value):
        return "the card's [training]"
    return "the default" if value == default else "given for the night"


def _flat(settings: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """``memory.dim`` and the like."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _shown(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
