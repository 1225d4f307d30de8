"""The gate: what a new bundle must show, and the figures in the reasons why it is refused."""

from dataclasses import replace

import numpy as np
import pytest

from model.settings.night import NightConfig
from spark_jobs.gate import Evidence, judge
from tests.tiny import tiny_bundle
from training.diagnostics import EpochReport
from training.trained_model import TrainedModel

GOOD = Evidence(coverage=0.9, live=0.40, static=0.35, popularity=0.30)


@pytest.fixture
def model() -> TrainedModel:
    return TrainedModel.of(tiny_bundle())


@pytest.mark.parametrize(
    ("evidence", "setting", "figures"),
    [
        ({"in_service": 0.45}, {"gate_tolerance": 0.2}, ["0.400", "0.450", "0.427", "night.gate_tolerance"]),
        ({"popularity": 0.41}, {"gate_popularity": False}, ["0.400", "0.410", "night.gate_popularity"]),
        ({"static": 0.42}, {"gate_live": False}, ["0.400", "0.420", "night.gate_live"]),
        ({"coverage": 0.1}, {"gate_coverage": 0.1}, ["10.0%", "50%", "night.gate_coverage"]),
    ],
    ids=["in service", "popularity", "live", "coverage"],
)
def test_what_is_worse_is_refused_with_the_figures_unless_the_settings_say_otherwise(model, evidence, setting, figures):
    worse = GOOD.model_copy(update=evidence)
    verdict = judge(model, worse, NightConfig())
    assert verdict.verdict == "refused" and all(figure in verdict.reason for figure in figures), verdict.reason
    assert judge(model, worse, NightConfig(**setting)).verdict == "published"


def test_what_is_as_good_is_published_with_the_figures(model):
    verdict = judge(model, GOOD.model_copy(update={"in_service": 0.41}), NightConfig())
    assert verdict.verdict == "published" and all(f"{rate:.3f}" in verdict.reason for rate in (0.40, 0.41, 0.30))


@pytest.mark.parametrize(("clicks", "refused"), [(600, False), (6_000, True)])
@pytest.mark.parametrize("other", ["popularity", "static"])
def test_a_rate_that_is_lower_by_chance_is_not_worse(model, other, clicks, refused):
    """0.02 of 600 clicks are 12: one standard error; of 6,000 three of them."""
    verdict = judge(model, GOOD.model_copy(update={other: 0.42, "test_clicks": clicks}), NightConfig())
    assert (verdict.verdict == "refused") is refused


def test_where_clicks_are_not_folded_in_static_rates_are_compared(model):
    assert judge(model, Evidence(static=0.35, popularity=0.36), NightConfig()).verdict == "refused"
    assert judge(model, Evidence(static=0.35, popularity=0.34), NightConfig()).verdict == "published"
    assert "has no clicks yet" in judge(model, Evidence(), NightConfig()).reason


@pytest.mark.parametrize("name", ["a", "vectors"])
def test_vectors_that_are_not_finite_are_refused(model, name):
    getattr(model.items, name)[0, 0] = np.nan
    assert "some item vectors are not finite" in judge(model, GOOD, NightConfig()).reason


def test_a_model_that_collapsed_is_refused(model):
    epochs = [EpochReport(1, 0.69, 0.69, 0, 0, 0, item_rank=1.0, dead_units=0.25, seconds=1.0)]
    assert "effective rank 1.0, 25%" in judge(replace(model, epochs=epochs), GOOD, NightConfig()).reason
