"""Experiments online: who is answered by what, lists drawn up by two rankers in turns, and what is logged of it."""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace

from serving.config import ExperimentConfig, ServingConfig
from serving.desk import Busy, Closed, Desk
from serving.impressions import ImpressionLog, share_of
from serving.retrieval import Answer, Answerer, Ask, Found

log = logging.getLogger(__name__)
_IN_SHADOW = 64  # shadow answers under way at most; beyond it they are left out


class Popularity:
    """The treatment that ranks by trailing popularity: a floor for any model."""

    def __init__(self, retriever: Answerer):
        self._retriever = retriever
        self.reached = retriever.reached

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        return self._retriever.answer([replace(ask, popular=True) for ask in asks])


def team_draft(control: Sequence[Found], treatment: Sequence[Found], n: int, seed: str) -> tuple[list[Found], str]:
    """The two lists as one (team-draft interleaving, Radlinski et al. 2008), and whose each item is: ``c`` or ``t``.

    In every round a coin says who goes first; each adds its best item that is not in the list yet. A click on an item
    speaks for the ranker that put it there.
    """
    coin, mixed, teams, taken = random.Random(seed), [], "", set()
    left = {"c": iter(control), "t": iter(treatment)}
    while len(mixed) < n:
        before = len(mixed)
        for team in ("ct", "tc")[coin.random() < 0.5]:
            item = next((item for item in left[team] if item.item_id not in taken), None)
            if item is not None and len(mixed) < n:
                mixed.append(item)
                teams += team
                taken.add(item.item_id)
        if len(mixed) == before:
            break  # both have come to their end
    return mixed, teams


class Experiment:
    """Answers as the bundle in service does, the *control*, but for what an experiment says, and logs what is shown.

    A treatment that fails is replaced by the control: an experiment must not cost an answer.
    """

    def __init__(
        self,
        control: Answerer,
        impressions: ImpressionLog,
        config: ExperimentConfig | None = None,
        treatment: Answerer | None = None,
    ):
        self.config = config
        self._control, self._treatment, self._log = control, treatment, impressions
        self._shadow = None
        if config is not None and config.mode == "shadow":
            self._shadow = Desk(treatment, ServingConfig(max_pending=_IN_SHADOW))
        self.answers = {"control": 0, "treatment": 0, "interleaved": 0, "shadow": 0}
        self.failures = 0  # of the treatment

    def reached(self, query_ids: Sequence[str], clicks: Sequence[int]) -> list[bool]:
        return self._control.reached(query_ids, clicks)

    def close(self) -> None:
        if self._shadow is not None:
            self._shadow.close()

    def chosen(self, query_id: str) -> bool:
        """Whether the treatment has to do with a query: always the same answer."""
        return self.config is not None and share_of(self.config.name, query_id) < self.config.share

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer N questions, each by its arm, and log them."""
        config = self.config
        if config is None or not asks:
            answers = self._control.answer(asks) if asks else []
            for ask, answer in zip(asks, answers, strict=True):
                if ask.shown:
                    self._log.note(answer)
            return answers
        chosen = [self.chosen(ask.query_id) for ask in asks]
        treated = self._treat([ask for ask, yes in zip(asks, chosen, strict=True) if yes])
        # The control answers whoever the treatment does not answer alone.
        alone = config.mode == "split" and treated is not None
        left = [ask for ask, yes in zip(asks, chosen, strict=True) if not (yes and alone)]
        rest, others, answers = iter(self._control.answer(left) if left else ()), iter(treated or ()), []
        for ask, yes in zip(asks, chosen, strict=True):
            if yes and alone:
                answers.append(self._logged(ask, next(others), "treatment"))
            elif yes and treated is not None and config.mode == "interleave":
                answers.append(self._mix(ask, next(rest), next(others)))
            else:
                answers.append(self._logged(ask, next(rest), "control"))
                if yes and self._shadow is not None:
                    self._ask_in_shadow(ask)
        return answers

    def _treat(self, asks: list[Ask]) -> list[Answer] | None:
        """The treatment's answers; None in shadow, or if it fails."""
        if self._shadow is not None:
            return None
        try:
            return self._treatment.answer(asks) if asks else []
        except Exception:
            self.failures += 1
            log.exception("the treatment of %s fails; the control answers", self.config.name)
            return None

    def _mix(self, ask: Ask, control: Answer, treatment: Answer) -> Answer:
        # The same list as long as the query has the same clicks: a reload must not draw again.
        seed = f"{self.config.name}\0{ask.query_id}\0{control.clicks}"
        items, teams = team_draft(control.items, treatment.items, ask.n, seed)
        mixed = replace(control, items=items, took_ms=control.took_ms + treatment.took_ms)
        return self._logged(ask, mixed, "interleaved", teams)

    def _logged(self, ask: Ask, answer: Answer, arm: str, teams: str | None = None) -> Answer:
        self.answers[arm] += 1
        answer = replace(answer, arm=arm)
        if ask.shown:
            self._log.note(answer, self.config.name, arm, teams)
        return answer

    def _ask_in_shadow(self, ask: Ask) -> None:
        def log_it(future) -> None:
            if future.exception() is None:
                self.answers["shadow"] += 1
                self._log.note(future.result(), self.config.name, "treatment", shown=False)
            else:
                self.failures += 1

        try:
            self._shadow.submit(replace(ask, wait_for_clicks=None, details=False)).add_done_callback(log_it)
        except (Busy, Closed):
            self.failures += 1
