"""What events weigh as clicks, as arrays: :class:`feature_repo.event_rule.EventRule` over a table."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.event_rule import EventRule

Array = np.ndarray


def weights_of(clicks: pa.Table, rule: EventRule) -> Array | None:
    """[N] float32: what each click weighs by its ``event_type``, 1 where it has none; None if the rule has no types."""
    if not rule.events or "event_type" not in clicks.column_names:
        return None
    place = pc.fill_null(pc.index_in(clicks["event_type"], pa.array(rule.events, pa.string())), -1)
    known = np.array([*rule.events.values(), 0.0], np.float32)[place.to_numpy()]
    return np.where(clicks["event_type"].is_valid().to_numpy(), known, np.float32(1))
