"""The gate: what a new bundle must show before it may replace the one in service."""

import math
from typing import Literal

import numpy as np
from pydantic import BaseModel

from model.settings.night import NightConfig
from training.trained_model import TrainedModel


class Verdict(BaseModel):
    """Published or refused, and why."""

    verdict: Literal["published", "refused"]
    reason: str


class Evidence(BaseModel):
    """What the gate decides by: HR@100 on the test clicks (None: not measured), and how well they are known.

    coverage: share of the test clicks whose item the model knows · live, static: the new model's · in_service: that of
    the bundle in service, live where the new one's is · popularity: that of the most clicked items, likewise · clicks:
    what was evaluated on, in words · test_clicks: how many those are (0: rates are exact).
    """

    coverage: float | None = None
    live: float | None = None
    static: float | None = None
    in_service: float | None = None
    popularity: float | None = None
    clicks: str = "the newest day"
    test_clicks: int = 0

    @property
    def hr100(self) -> float | None:
        return self.static if self.live is None else self.live

    def below(self, rate: float | None) -> bool:
        """Whether the new model is worse than another rate by more than chance, which is two standard errors."""
        if self.hr100 is None or rate is None:
            return False
        return self.hr100 < rate - (2 * math.sqrt(rate * (1 - rate) / self.test_clicks) if self.test_clicks else 0)


def judge(model: TrainedModel, evidence: Evidence, config: NightConfig) -> Verdict:
    """Hold a trained model against the gate; the reason has the figures."""
    for side, state in (("query", model.queries), ("item", model.items)):
        if not (np.isfinite(state.vectors).all() and np.isfinite(state.a).all()):
            return _refused(f"some {side} vectors are not finite")
    if model.epochs and model.epochs[-1].collapsed:
        last = model.epochs[-1]
        return _refused(
            f"the item vectors collapsed: effective rank {last.item_rank:.1f}, {last.dead_units:.0%} of the units dead"
        )
    if evidence.coverage is not None and evidence.coverage < config.gate_coverage:
        return _refused(
            f"the model knows the items of only {evidence.coverage:.1%} of the clicks of {evidence.clicks}, below the "
            f"limit of {config.gate_coverage:.0%} (night.gate_coverage)"
        )
    hr100 = evidence.hr100
    if hr100 is None:
        return Verdict(verdict="published", reason=f"vectors are finite and alive; {evidence.clicks} has no clicks yet")
    figures = f"HR@100 {hr100:.3f} on {evidence.clicks}"
    if config.gate_live and evidence.below(evidence.static):
        return _refused(
            f"{figures} live, below its static {evidence.static:.3f}: clicks make it worse (night.gate_live)"
        )
    if config.gate_popularity and evidence.popularity is not None:
        if evidence.below(evidence.popularity):
            return _refused(
                f"{figures}, below trailing popularity with {evidence.popularity:.3f} (night.gate_popularity)"
            )
        figures += f", trailing popularity {evidence.popularity:.3f}"
    if evidence.in_service is None:
        return Verdict(verdict="published", reason=f"{figures}; no bundle in service to compare with")
    floor = evidence.in_service * (1 - config.gate_tolerance)
    return Verdict(
        verdict="published" if hr100 >= floor else "refused",
        reason=f"{figures}; the bundle in service has {evidence.in_service:.3f}, so at least {floor:.3f} is required "
        "(night.gate_tolerance)",
    )


def _refused(reason: str) -> Verdict:
    return Verdict(verdict="refused", reason=reason)
