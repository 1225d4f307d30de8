"""The gate: what a new bundle must show before it may replace the one in service."""

from typing import Literal

import numpy as np
from pydantic import BaseModel

from spark_jobs.config import NightConfig
from training.collapse import EpochReport
from training.fitted import Fitted


class Verdict(BaseModel):
    """Published or refused, and why."""

    verdict: Literal["published", "refused"]
    reason: str


def judge(
    fitted: Fitted, coverage: float | None, hr100: float | None, in_service_hr100: float | None, config: NightConfig,
    tried_on: str = "the newest day",
) -> Verdict:  # fmt: skip
    """Hold a trained model against the gate.

    Args:
        coverage: Share of the newest day's clicks whose item the model knows; None: that day has no clicks yet.
        hr100: HR@100 on the newest day, live; None likewise.
        in_service_hr100: The same of the bundle in service; None: there is none.
        tried_on: What the clicks of the newest day are here, for the reason: by the other cut they are the last ones.
    """
    for side, table in (("query", fitted.queries), ("item", fitted.items)):
        if not (np.isfinite(table.vectors).all() and np.isfinite(table.a).all()):
            return Verdict(verdict="refused", reason=f"some {side} vectors are not finite")
    last: EpochReport | None = fitted.history[-1] if fitted.history else None
    if last is not None and last.collapsed:
        return Verdict(
            verdict="refused",
            reason=f"the item vectors collapsed: effective rank {last.item_rank:.1f}, "
            f"{last.dead_units:.0%} of the units dead",
        )
    if coverage is not None and coverage < config.gate_coverage:
        return Verdict(
            verdict="refused",
            reason=f"only {coverage:.1%} of {tried_on}'s clicks are on items it knows; "
            f"{config.gate_coverage:.0%} asked",
        )
    if hr100 is None:
        return Verdict(verdict="published", reason=f"vectors finite and alive; {tried_on} has no clicks to compare on")
    if in_service_hr100 is None:
        return Verdict(
            verdict="published", reason=f"HR@100 {hr100:.3f} on {tried_on}; no bundle in service to compare with"
        )
    floor = in_service_hr100 * (1 - config.gate_tolerance)
    return Verdict(
        verdict="published" if hr100 >= floor else "refused",
        reason=f"HR@100 {hr100:.3f} on {tried_on}; the bundle in service has {in_service_hr100:.3f}, "
        f"and at least {floor:.3f} was asked",
    )
