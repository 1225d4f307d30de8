"""A small storm: workers and the broker are killed while clicks stream in, and every click still counts once."""

import pytest

from cli.chaos import Storm


@pytest.mark.slow
def test_a_small_storm_loses_and_doubles_nothing(tmp_path):
    storm = Storm(
        tmp_path, clicks=6_000, worker_kills=3, broker_kills=1, workers=2, queries=500, items=100, rate=1_000, seed=1
    )
    result = storm.run()
    assert (result["lost"], result["doubled"]) == (0, 0)
    assert result["max_difference"] <= 1e-5
