"""What every part of the settings has in common: it is frozen, and a key that it does not know is an error."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class SettingsPart(BaseModel):
    """One table of ``dat.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    renamed: ClassVar[dict[str, str]] = {}
    """Old name of a setting → its name today. The old one is refused with the new one's name."""

    @model_validator(mode="before")
    @classmethod
    def _names_of_today(cls, given: Any) -> Any:
        for old, new in cls.renamed.items():
            if isinstance(given, dict) and old in given:
                raise PydanticCustomError("renamed", "{old} is called {new} now", {"old": old, "new": new})
        return given
