"""What events weigh, by their types, as arrays and one by one."""

import pyarrow as pa

from feature_repo.event_rule import EventRule
from model.event_weights import weights_of


def test_arrays_of_weights_are_what_the_rule_says_of_each_event():
    types = ["view", "buy", None, "scroll", "hide"]
    rule = EventRule(events={"view": 1.0, "buy": 5.0, "hide": -1.0})
    weights = weights_of(pa.table({"event_type": types}), rule)
    assert weights is not None and weights.tolist() == [1, 5, 1, 0, -1] == [rule.weight(kind) for kind in types]


def test_where_nothing_is_said_of_types_there_are_no_weights():
    assert weights_of(pa.table({"event_type": ["view", None]}), EventRule()) is None
    assert weights_of(pa.table({"n": [1, 2]}), EventRule(events={"view": 2.0})) is None
