"""The experiments end to end on a tiny log: they resume, repeat themselves, and say all on one page."""

import json
from contextlib import contextmanager

import numpy as np
import pytest

from evaluation.models import MODELS
from evaluation.studies import plans
from evaluation.studies.online import OnlineConfig
from evaluation.studies.online import run as run_online
from evaluation.studies.report import page
from evaluation.studies.runs import Journal, Setup, Variant
from evaluation.studies.significance import paired
from evaluation.studies.spaces import SPACES, defaults
from tests.training.data import CARD as DAILY
from tests.training.data import MEMORIES, SMALL, log, profiles

pytestmark = pytest.mark.trains

CARD = DAILY.model_copy(update={"day": "20d"})  # whose live test is the last tenth of the clicks


class Stages:
    """Counts what was really done."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def __call__(self, name: str):
        self.names.append(name)
        yield


@pytest.fixture
def setup() -> Setup:
    return Setup(log(300), profiles(), CARD, "live", training={"epochs": 2, "memory": MEMORIES.memory.model_dump()})


def table2(setup, folder, models=("dat", "item-cf", "popularity"), seeds=2, trials=1):
    stages = Stages()
    return plans.table2(setup, folder, list(models), trials, seeds, stages), stages.names


def figures(result):
    return {name: (row["hr50"], row["hr100"], row["mrr10"], row["settings"]) for name, row in result["results"].items()}


def test_a_second_run_does_nothing_and_says_the_same(setup, tmp_path):
    first, done = table2(setup, tmp_path)
    assert len(done) == 2 + 2 + 1 + 1, "a trial of each of two models, two seeds of DAT, one run of the others"
    again, more = table2(setup, tmp_path)
    assert more == [] and figures(again) == figures(first)
    wider, more = table2(setup, tmp_path, seeds=3)
    assert more == ["dat, seed 2"] and wider["results"]["dat"]["seeds"] == 3
    check_page(page(json.loads(json.dumps(wider))))


def check_page(html):
    """Every model is on it, with the paper's figures beside, and it loads nothing."""
    for name in ("dat", "item-cf", "popularity"):
        assert f"<td>{name}</td>" in html
    assert "0.7682" in html, "the paper's DAT on Meituan"
    body = html.replace(html[html.index("<script>") : html.index("</script>")], "")
    assert "src=" not in body and "<link" not in body


def test_what_was_cut_short_ends_as_it_would_have(setup, tmp_path):
    """Also: the same seed gives the same numbers."""
    whole, _ = table2(setup, tmp_path, trials=2, models=("two-tower",), seeds=1)
    folder = tmp_path / "cut"
    folder.mkdir()
    table2(setup, folder, trials=1, models=("two-tower",), seeds=1)
    torn = (folder / "runs.jsonl").read_text()
    (folder / "runs.jsonl").write_text(torn[: len(torn) // 2])  # the process died while it was writing
    assert Journal(folder).runs == {}
    resumed, _ = table2(setup, folder, trials=2, models=("two-tower",), seeds=1)
    assert figures(resumed) == figures(whole)
    assert resumed["results"]["two-tower"]["trials"] == whole["results"]["two-tower"]["trials"]
    assert table2(setup, folder, trials=2, models=("two-tower",), seeds=1)[1] == []


def test_a_variant_that_changes_nothing_is_not_run_again(setup, tmp_path):
    setup.negatives, stages = 8, Stages()
    result = plans.ablation(setup, tmp_path, ["negatives"], 1, stages)
    assert stages.names == ["negatives: S = 1, seed 0", "DAT, seed 0"], "S = 8 is what all have here"
    assert result["results"]["negatives: S = 8"]["mrr10"] == result["results"]["DAT"]["mrr10"]


def test_a_split_for_tuning_is_another_one_and_sees_no_test_click(setup):
    tuning, final = setup.split(0, tuning=True), setup.split(0)
    assert len(tuning.data.clicks) + len(tuning.test) == len(final.data.clicks)
    assert tuning.test.clicks.times[-1] < final.cut_ms


def test_every_model_has_a_space_that_holds_its_defaults():
    assert set(SPACES) == set(MODELS)
    for name in MODELS:
        assert set(defaults(name)) == set(SPACES[name]), name


def test_every_run_starts_from_what_the_card_says_of_its_model(setup, tmp_path):
    setup.training = {"epochs": 2, "memory": {"dim": 8, "second": 8}, "batch_size": 64}
    wider = Variant(label="wider", model="dat", settings={"memory": {"second": 16}})
    assert setup.settings(wider) == setup.training | {"memory": {"dim": 8, "second": 16}}
    assert setup.settings(Variant(label="mind", model="mind")) == {"dim": 8}
    assert defaults("dat", setup.training)["epochs"] == 2


def test_the_ablation_makes_a_page(setup, tmp_path):
    every = plans.ablation(setup, tmp_path, list(plans.ABLATION), 1, Stages())
    assert {row["group"] for row in every["results"].values()} == {"", *plans.ABLATION}
    result = plans.ablation(setup, tmp_path, ["items"], 2, Stages())
    row = result["results"]["no a_v"]
    assert row["p_seeds"].keys() == {"hr50", "hr100", "mrr10"} and row["seeds"] == 2
    assert "plotly" in page(json.loads(json.dumps(result)))


def test_paired_significance_by_hand():
    # differences 1, 2, 3: t = 2 / (1 / √3) = 3.4641 with 2 degrees of freedom: p = 1 − t/√(t² + 2) = 0.0742
    assert paired(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.0742, abs=1e-4)
    assert paired(np.array([1.0, 2.0, 3.0]), np.array([0.0])) == pytest.approx(0.0742, abs=1e-4)
    assert paired(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 1.0
    assert np.isnan(paired(np.array([1.0]), np.array([2.0])))


ONLINE = OnlineConfig(
    users=60, items=80, days=2, window=2, rounds=3, visits=0.5, searches=0.5, candidates=20,
    settings={
        "two-tower": {"epochs": 1, "batch_size": 64, "tower": SMALL.model_dump()},
        "dat": {"epochs": 1, "batch_size": 64, "memory": MEMORIES.memory.model_dump()},
    },
)  # fmt: skip


def test_the_ab_test_is_resumable_and_deterministic(tmp_path):
    stages = Stages()
    first = run_online(ONLINE, tmp_path / "a", stages)
    assert len(stages.names) == 4
    (tmp_path / "a" / "day-02.npz").unlink()
    stages = Stages()
    assert run_online(ONLINE, tmp_path / "a", stages) == first and len(stages.names) == 1
    for arm in first["arms"].values():
        assert len(arm["ctr"]["value"]) == 3 and 0 < arm["ctr"]["value"][-1] < 1
        assert arm["ctr"]["low"][-1] <= arm["ctr"]["value"][-1] <= arm["ctr"]["high"][-1]
    html = page(json.loads(json.dumps(first)))
    assert "+4.17%" in html and "day 2" in html


def test_an_arm_against_itself_wins_nothing(tmp_path):
    result = run_online(ONLINE.model_copy(update={"arms": ("popularity", "popularity")}), tmp_path, Stages())
    gain = result["gain"]["ctr"]
    assert gain["low"][-1] < 0 < gain["high"][-1]
