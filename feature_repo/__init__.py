"""What is known of every query and item: the click, the dataset card, and the Feast definitions."""

from typing import Any

import typeguard


def _unchecked(target: Any = None, **_: Any) -> Any:
    return target if target is not None else _unchecked


# Feast decorates its classes with it, and it parses and compiles their modules anew in each process that imports them:
# half of the seconds that Feast takes to import. It is told so here, before anything of ours can import Feast.
typeguard.typechecked = _unchecked
