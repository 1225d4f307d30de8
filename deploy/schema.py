"""The JSON schema of the chart's values: ``python -m deploy.schema`` writes it. Types follow values.yaml; what is a map
of the user's own, such as ``settings``, takes any key, and no other place takes one that values.yaml does not name."""

import json
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "helm" / "dat"
_OPEN = {"settings", "env", "digests", "nodeSelector", "labels", "annotations", "resources"}
_EITHER = {"minAvailable": ["integer", "string"]}


def schema(values: Any, name: str = "") -> dict[str, Any]:
    """The schema of a part of the values."""
    if name in _EITHER:
        return {"type": _EITHER[name]}
    if isinstance(values, dict):
        if name in _OPEN:
            return {"type": "object"}
        properties = {key: schema(value, key) for key, value in values.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}
    kinds = {bool: "boolean", int: "integer", str: "string", list: "array"}
    return {"type": kinds[type(values)]}


def text() -> str:
    whole = schema(yaml.safe_load((CHART / "values.yaml").read_text()))
    whole["properties"]["global"] = {"type": "object"}  # Helm's own
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}, indent=2) + "\n"


if __name__ == "__main__":
    (CHART / "values.schema.json").write_text(text())
