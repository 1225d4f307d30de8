"""JSON in what strangers send."""

import json
from typing import Any


def read_json(text: str | bytes) -> Any:
    """The value that a text says.

    Raises:
        ValueError: it is not JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
