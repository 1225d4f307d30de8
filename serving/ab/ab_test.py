"""Experiments online: who is answered by what, and lists drawn up by two rankers in turns."""

import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from model.settings.serving import ExperimentConfig
from serving.ab.impression_log import share_of
from serving.features import Columns
from serving.retrieval import Answer, Answerer, Ask

log = logging.getLogger(__name__)
_IN_SHADOW = 64  # shadow answers that wait at most; beyond it they are left out
_AT_ONCE = 8  # of them, those that are computed before others have their turn
Scored = tuple[str, float]


class Popularity:
    """The treatment that ranks by trailing popularity: a floor for any model."""

    def __init__(self, answerer: Answerer):
        self._answerer = answerer
        self.idle = answerer.idle

    def answer(self, asks: Sequence[Ask], columns: Columns | None) -> list[Answer]:
        return self._answerer.answer([replace(ask, popular=True) for ask in asks], columns)


def team_draft(control: Sequence[Scored], treatment: Sequence[Scored], n: int, seed: str) -> tuple[list[Scored], str]:
    """The two lists as one (team-draft interleaving, Radlinski et al. 2008), and whose each item is: ``c`` or ``t``.

    In every round a coin says who goes first; each adds its best item that is not in the list yet. A click on an item
    speaks for the ranker that put it there.
    """
    coin, taken = random.Random(seed), set()
    mixed: list[Scored] = []
    teams = ""
    left = {"c": iter(control), "t": iter(treatment)}
    while len(mixed) < n:
        before = len(mixed)
        for team in ("ct", "tc")[coin.random() < 0.5]:
            item = next((item for item in left[team] if item[0] not in taken), None)
            if item is not None and len(mixed) < n:
                mixed.append(item)
                teams += team
                taken.add(item[0])
        if len(mixed) == before:
            break  # both have come to their end
    return mixed, teams


class Experiment:
    """Answers as the bundle in service does, the *control*, except where an experiment says otherwise.

    A treatment that fails is replaced by the control: an experiment must not cost an answer.

    Args:
        in_shadow: Takes the answers that nobody sees.
    """

    def __init__(
        self,
        control: Answerer,
        config: ExperimentConfig | None = None,
        treatment: Answerer | None = None,
        in_shadow: Callable[[Answer], None] = lambda _: None,
    ):
        self.config = config
        self._control, self._treatment, self._in_shadow = control, treatment, in_shadow
        self._shadow: deque[tuple[Ask, Columns | None]] = deque()
        self.answers = {"control": 0, "treatment": 0, "interleaved": 0, "shadow": 0}
        self.failures = 0  # of the treatment

    def chosen(self, query_id: str) -> bool:
        """Whether the treatment has to do with a query: always the same answer."""
        return bool(query_id) and self.config is not None and share_of(self.config.name, query_id) < self.config.share

    def answer(self, asks: Sequence[Ask], columns: Columns | None) -> list[Answer]:
        """Answer N questions, each by its arm."""
        config = self.config
        if config is None:
            return self._control.answer(asks, columns)
        chosen = [k for k, ask in enumerate(asks) if self.chosen(ask.query_id)]
        if config.mode == "shadow":
            for k in chosen[: _IN_SHADOW - len(self._shadow)]:
                self._shadow.append((replace(asks[k], details=False, shown=False), _some(columns, [k])))
            chosen = []
        treated = self._treat([asks[k] for k in chosen], _some(columns, chosen))
        # The control answers whoever the treatment does not answer alone.
        alone = set(treated) if config.mode == "split" else set()
        rest = [k for k in range(len(asks)) if k not in {chosen[place] for place in alone}]
        answers = dict(zip(rest, self._control.answer([asks[k] for k in rest], _some(columns, rest)), strict=True))
        for answer in answers.values():
            answer.arm = "control"
        for place, answer in treated.items():
            k = chosen[place]
            answers[k] = self._mix(asks[k], answers[k], answer) if config.mode == "interleave" else answer
        for answer in answers.values():
            self.answers[answer.arm or "control"] += 1
        return [answers[k] for k in range(len(asks))]

    def idle(self) -> bool:
        """Nobody waits: compute some of the shadow answers. Whether there are more."""
        for _ in range(min(_AT_ONCE, len(self._shadow))):
            ask, columns = self._shadow.popleft()
            for answer in self._treat([ask], columns).values():
                self.answers["shadow"] += 1
                self._in_shadow(answer)
        return bool(self._shadow)

    def _treat(self, asks: list[Ask], columns: Columns | None) -> dict[int, Answer]:
        """The treatment's answers by place; none if it fails."""
        if not asks or self._treatment is None:
            return {}
        try:
            answers = self._treatment.answer(asks, columns)
        except Exception:
            self.failures += 1
            log.exception("the treatment of %s fails; the control answers", self.config and self.config.name)
            return {}
        for answer in answers:
            answer.arm = "treatment"
        return dict(enumerate(answers))

    def _mix(self, ask: Ask, control: Answer, treatment: Answer) -> Answer:
        assert self.config is not None
        # The same list as long as the query has the same clicks: a reload must not draw again.
        seed = f"{self.config.name}\0{ask.query_id}\0{control.clicks}"
        ours, theirs = (list(zip(answer.items, answer.scores, strict=True)) for answer in (control, treatment))
        mixed, teams = team_draft(ours, theirs, ask.n, seed)
        return replace(
            control, items=[item for item, _ in mixed], scores=[score for _, score in mixed], arm="interleaved",
            teams=teams, took_ms=control.took_ms + treatment.took_ms,
        )  # fmt: skip


def _some(columns: Columns | None, places: Sequence[int]) -> Columns | None:
    """What the store knows of some of the queries that it was asked about."""
    return None if columns is None else {name: [values[k] for k in places] for name, values in columns.items()}
