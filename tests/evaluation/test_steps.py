"""``dat tune``: steps that help are kept, the test is never seen, and the card's text holds what was found."""

import tomllib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import build
from cli.tune import training_table, with_training
from evaluation.metrics import MISS, Metrics, Report
from evaluation.studies import steps
from evaluation.studies.runs import Journal, Run, Setup, Variant
from evaluation.studies.steps import Step, search
from model.settings.model import NO_CLOSED_FORM, DATConfig
from tests.market import write_market
from tests.training.data import CARD, log, profiles

PEOPLE = np.arange(1_000)  # each with a click to predict
DEFAULT = DATConfig().model_dump()
STEPS = (
    Step(name="worse", settings={"temperature": 5.0}),
    Step(name="better", settings={"tower": {"output_dim": 64}}),
    Step(name="by chance", times={"batch_size": 4}),
    Step(name="one negative", negatives=1),
    Step(name="more epochs", times={"epochs": 2}),
)
WORTH = {"worse": 0.2, "better": 0.4, "by chance": 0.403, "one negative": 0.5, "more epochs": 0.45, "as it is": 0.3}


@pytest.fixture
def setup(monkeypatch) -> Setup:
    """Runs whose hit rates are known: those of the step's settings."""

    def run(setup: Setup, variant: Variant, seed: int, tuning: bool = False):
        assert tuning
        worth = WORTH[asked[-1]]
        metrics = Metrics(clicks=9, **dict.fromkeys(set(Metrics.model_fields) - {"clicks"}, worth))
        tried.append((variant.settings, variant.negatives))
        ranks = np.where(worth * len(PEOPLE) > PEOPLE, 1, MISS)
        return Run(report=Report(all=metrics, parts={}), seed=seed, seconds=1.0), ranks

    monkeypatch.setattr(steps, "run", run)
    split = SimpleNamespace(test=SimpleNamespace(clicks=SimpleNamespace(queries=PEOPLE)))
    monkeypatch.setattr(Setup, "split", lambda *asked, tuning: split)
    tried.clear()
    asked.clear()
    return Setup(log(50), profiles(), CARD, "live", training={"epochs": 3, "tower": {"embedding_dim": 8}})


tried: list[tuple[dict, int | None]] = []
asked: list[str] = []


def stage(name: str):
    asked.append(name)
    return nullcontext()


def test_a_step_is_kept_if_it_gains_more_than_chance_and_the_next_goes_on_from_it(setup, tmp_path):
    trials = search(setup, DEFAULT, stage, Journal(tmp_path), STEPS)
    assert [trial.kept for trial in trials] == [True, False, True, False, True, False]
    both = {"epochs": 3, "tower": {"embedding_dim": 8, "output_dim": 64}}
    assert tried[2] == (both, 4) and tried[4] == (both, 1) and tried[5] == (both | {"epochs": 6}, 1)
    assert tried[3][0]["batch_size"] == 4 * DEFAULT["batch_size"], "of the default, where the card says nothing"


def test_it_ends_when_it_is_enough_but_not_before_the_first(setup, tmp_path):
    assert len(search(setup, DEFAULT, stage, Journal(tmp_path), STEPS, enough=lambda done: True)) == 1


def test_a_search_that_was_stopped_goes_on_where_it_was_and_ends_as_it_would_have(setup, tmp_path):
    whole = search(setup, DEFAULT, stage, Journal(tmp_path / "whole"), STEPS)
    stopped = search(setup, DEFAULT, stage, Journal(tmp_path / "two"), STEPS, enough=lambda done: done == 2)
    tried.clear()
    assert search(setup, DEFAULT, stage, Journal(tmp_path / "two"), STEPS) == whole
    assert len(stopped) == 2 and len(tried) == len(whole) - 2


def test_settings_that_were_tried_are_not_tried_again(setup, tmp_path):
    """Half of twice the epochs is where it began."""
    twice = (Step(name="better", times={"epochs": 2}), Step(name="more epochs", times={"epochs": 0.5}))
    assert [trial.name for trial in search(setup, DEFAULT, stage, Journal(tmp_path), twice)] == ["as it is", "better"]


def test_a_gain_that_a_few_people_make_is_not_kept(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "share_better", lambda *ranks: 0.8)
    assert [trial.kept for trial in search(setup, DEFAULT, stage, Journal(tmp_path), STEPS)][1:] == [False] * 5


@pytest.mark.trains
def test_the_command_says_which_lines_go_into_the_card_and_writes_them(tmp_path: Path, monkeypatch):
    card = write_market(tmp_path, clicks=1_200)
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    for name, value in (("EPOCHS", "1"), ("MEMORY__DIM", "4"), ("MEMORY__SECOND", "8"), ("MEMORY__HIDDEN", "8")):
        monkeypatch.setenv(f"DAT_NIGHT__MODEL__{name}", value)
    longer = Step(name="twice the epochs", times={"epochs": 2})
    monkeypatch.setattr(steps, "STEPS", (longer,))
    monkeypatch.setattr(steps, "SURE", 0.0)
    command = ["tune", str(card), "--home", str(tmp_path / "home"), "--limit", "100", "--trials"]

    def tuned(*more: str) -> str:
        done = CliRunner().invoke(build(), [*command, *more], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    before = card.read_text()
    assert "0 of 1 changes were tried, and none helped" in tuned("1") and card.read_text() == before
    monkeypatch.setattr(steps, "objective", lambda metrics: next(values))
    values = iter([0.2, 0.3])
    shown = tuned("2")
    assert "1 finished trials are in" in shown and "in place of a [training] table" in shown
    assert f"end of {card}" in shown.replace("\n", "") and "\nepochs = 2\n" in shown
    values = iter([0.2, 0.3])
    tuned("2", "--write")
    assert tomllib.loads(card.read_text())["training"]["model"]["epochs"] == 2


def test_the_table_replaces_the_cards_own_and_says_why(setup, tmp_path):
    text = training_table(search(setup, DEFAULT, stage, Journal(tmp_path), STEPS))
    assert "# better: +33.3%" in text and "# one negative: +25.0%" in text and "worse" not in text
    before = 'name = "x"\n[training] # mine\nnegatives = 4\n[training.model]\nepochs = 3\n[item]\ncategory = "a"\n'
    found = tomllib.loads(with_training(before, text))
    assert found["item"] == {"category": "a"} and found["name"] == "x"
    assert found["training"] == {
        "negatives": 1, "model": {"epochs": 3, "tower": {"embedding_dim": 8, "output_dim": 64}}
    }  # fmt: skip


def test_every_step_is_of_settings_that_there_are():
    given = DATConfig(closed_form=NO_CLOSED_FORM)
    for step in steps.STEPS:
        tried = step.after({"closed_form": {"weight": 0.0}}, DEFAULT)
        assert DATConfig.model_validate(tried) != given or step.negatives
