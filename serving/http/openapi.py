"""The OpenAPI document without a service: ``python -m serving.http.openapi`` writes ``docs/openapi.json``."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from model.settings.serving import ServingConfig
from serving.http.api import create_app
from serving.service import Service

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"


@cache
def document() -> dict[str, Any]:
    """What ``/openapi.json`` answers where no setting is changed."""
    described = SimpleNamespace(config=ServingConfig(), items=None, catalogue=None)
    return create_app(cast(Service, described)).openapi()


def text() -> str:
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
