"""A small storm: workers, the broker and Redis go away while clicks stream in, and every click still counts once."""

import shutil

import pytest

from devstack.chaos.faults import ChaosRun, Plan
from devstack.chaos.night import NightPlan, NightRun


@pytest.mark.slow
def test_a_small_storm_loses_and_doubles_nothing(tmp_path):
    redis = 1 if shutil.which("redis-server") else 0
    plan = Plan(
        6_000, worker_kills=2, broker_kills=1, redis_stops=redis, swap=True, queries=500, items=100, rate=1_000, seed=1
    )
    result = ChaosRun(tmp_path, plan).run()
    assert (result["lost"], result["doubled"], result.get("store_wrong", 0)) == (0, 0, 0)
    assert result["max_difference"] <= 1e-5


@pytest.mark.slow
def test_nights_that_meet_days_out_of_order_count_each_click_once(tmp_path):
    result = NightRun(tmp_path, NightPlan(2_000, nights=2, queries=60, items=80)).run()
    assert (result["lost"], result["doubled"]) == (0, 0)
    assert all(0 < night["in_state"] < night["clicks"] for night in result["nights"]), "the stream has its part"
