"""Which items an answer may hold: conditions on what the catalogue says of them."""

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

Value = Annotated[str, Field(min_length=1, max_length=256)]
Values = Annotated[list[Value], Field(max_length=100)]


class UnknownName(ValueError):
    """A filter names a field or a value that no item has. The message names those that are like it."""

    @classmethod
    def of(cls, what: str, name: str, known: list[str]) -> "UnknownName":
        like = difflib.get_close_matches(name, known, 5, 0.5) or difflib.get_close_matches(
            name.lower(), [one.lower() for one in known], 5, 0.5
        )
        shown = [one for one in known if one in like or one.lower() in like] or sorted(known)[:20]
        return cls(f"there is no {what} {name!r}; there are: {', '.join(shown) or 'none'}")


class Condition(BaseModel):
    """What one field of an item must be. Of a field with categories: ``any``, ``all``, ``none`` of some values. Of a
    number or a time: bounds. An item of which the field is not known meets ``none`` and no other condition."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    any: Values | None = None
    all: Values | None = None
    none: Values | None = None
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, bool):  # a flag
            return {"gte": int(given), "lte": int(given)}
        if isinstance(given, str):
            return {"any": [given]}
        return given

    @property
    def on_categories(self) -> bool:
        return any(part is not None for part in (self.any, self.all, self.none))

    @property
    def on_numbers(self) -> bool:
        return any(bound is not None for bound in (self.gt, self.gte, self.lt, self.lte))


Where = dict[Annotated[str, Field(max_length=256)], Condition]
WHERE: TypeAdapter[Where] = TypeAdapter(Annotated[Where, Field(max_length=20)])


def key_of(where: Where) -> str:
    """The same for filters that mean the same."""
    return WHERE.dump_json(dict(sorted(where.items())), exclude_none=True).decode()
