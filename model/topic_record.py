"""Records of the topics that hold JSON and that only this system writes: each carries its format."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

FORMAT = 1
"""Of the records that are written. A release reads its own and the one before; 0.1 wrote none, which is 1."""
UNKNOWN = "unknown_format"
"""What pydantic calls the error of a record that this release does not read."""


class TopicRecord(BaseModel):
    """A JSON object. Fields that it does not know are ignored, absent ones have their era's default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, given: Any) -> Any:
        number = given.get("format", 1) if isinstance(given, dict) else 1
        if not isinstance(number, int) or not FORMAT - 1 <= number <= FORMAT:
            raise PydanticCustomError(
                UNKNOWN,
                "it has format {format}, and this release reads {least} to {most}: run the release that wrote it",
                {"format": repr(number), "least": max(1, FORMAT - 1), "most": FORMAT},
            )  # fmt: skip
        return given

    def as_json(self, **options: Any) -> bytes:
        """The object, in the format of this release.

        Args:
            options: Of pydantic's ``model_dump``, such as ``exclude_none``.
        """
        return json.dumps({"format": FORMAT} | self.model_dump(**options)).encode()
