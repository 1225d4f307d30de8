"""Answer ids: how an answer came about, in a string that clicks and impressions send back."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass

from feature_repo.limits import LATEST_MS
from serving.ab.impressions import Impression
from serving.outside_json import read_json


class NotAnAnswerId(ValueError):
    """The string was not given out by this service."""


@dataclass(frozen=True, slots=True)
class AnswerId:
    """unique: within and across processes · the rest as in :class:`Impression`."""

    unique: str
    served: int
    at: int
    bundle: str
    source: str
    experiment: str | None
    arm: str | None
    teams: str | None

    def __str__(self) -> str:
        values: list[str | int | None] = [self.unique, self.served, self.at, self.bundle, self.source]
        values += [self.experiment, self.arm, self.teams]
        while values[-1] is None:
            values.pop()
        return base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> "AnswerId":
        """Raises:
        NotAnAnswerId: it is none.
        """
        try:
            values = read_json(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
            made = cls(*values, *[None] * (8 - len(values)))
        except (binascii.Error, ValueError, TypeError) as error:
            raise NotAnAnswerId("this is not the id of an answer") from error
        kinds = (str, int, int, str, str, str | None, str | None, str | None)
        of_kind = all(isinstance(value, kind) for value, kind in zip(astuple(made), kinds, strict=True))
        if not of_kind or not all(0 <= time < LATEST_MS for time in (made.served, made.at)):
            raise NotAnAnswerId("this is not the id of an answer")
        return made

    def impression(self, query_id: str, items: Sequence[str], shown: bool = True) -> Impression:
        """What was shown of the answer."""
        fields = {name: value for name, value in asdict(self).items() if name != "unique"}
        return Impression(answer_id=str(self), query_id=query_id, items=list(items), shown=shown, **fields)
