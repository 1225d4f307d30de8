"""``dat evaluate``: what it reports, and that the index it asks beside gives the ranks of exact search."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import build
from evaluation.faiss_ranks import DEPTH, FaissRanks
from evaluation.metrics import MISS
from evaluation.ranks import Vectors, ranks
from evaluation.studies import plans
from feature_repo.card import CardError
from model.settings.serving import IndexConfig
from tests.market import write_market

pytestmark = pytest.mark.trains


@pytest.mark.parametrize("interests", [1, 3])
def test_an_index_that_visits_every_list_finds_the_exact_ranks(interests):
    """Vectors move, items appear, some are hidden: at every block the ranks up to 100 are those of all scores."""
    random = np.random.default_rng(0)
    index = FaissRanks(IndexConfig(kind="ivf", lists=1))
    items = random.normal(size=(400, 8)).astype(np.float32)
    for block in range(5):
        items[random.integers(0, 400, 50)] = random.normal(size=(50, 8))
        vectors = Vectors(random.normal(size=(16, interests, 8)).astype(np.float32), items.copy())
        exists = np.arange(400) < 200 + 40 * block + np.sort(random.integers(0, 3, 16))[:, None]
        targets = random.integers(0, 240 + 40 * block, 16)
        hidden = np.repeat(np.arange(16), 30), random.integers(0, 400, 480)
        index.block(vectors, targets, exists, hidden)
        exact = ranks(vectors.scores(), targets, exists, hidden)
        np.testing.assert_array_equal(index.parts[-1], np.where(exact <= DEPTH, exact, MISS))


def test_the_report_has_exact_figures_those_through_faiss_and_the_health_of_the_model(tmp_path, monkeypatch):
    card = write_market(tmp_path, clicks=1_200)
    with card.open("a") as text:
        text.write("\n[training]\nnegatives = 2\n[training.model]\nepochs = 9\ntower = { output_dim = 16 }\n")
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    monkeypatch.setenv("DAT_NIGHT__MODEL__EPOCHS", "5")
    file = tmp_path / "out.json"
    command = f"evaluate --data {card} --home {tmp_path / 'home'} --models dat,popularity --seeds 2 --json {file}"
    done = CliRunner().invoke(build(), command.split(), catch_exceptions=False)
    assert done.exit_code == 0
    summary = json.loads(file.read_text())
    assert summary["settings"] == {"epochs": 5, "tower": {"output_dim": 16}}, "the card's, and over them the settings"
    assert summary["negatives"] == 2
    why = summary["chosen"]
    assert (why["epochs"], why["negatives"]) == ("5: given for the night", "2: the card's [training]")
    assert why["tower.output_dim"] == "16: the card's [training]" and why["memory.softmax"].startswith("full: ")
    results = summary["results"]
    assert len(results["dat"]["runs"]) == 2 and len(results["popularity"]["runs"]) == 1
    for run in results["dat"]["runs"]:
        assert not run["health"]["collapsed"] and run["health"]["item_rank"] > 2
        assert run["faiss"]["hr100"] == pytest.approx(run["hr100"] + run["faiss_minus_exact"]["hr100"])
        assert abs(run["faiss_minus_exact"]["hr100"]) < 0.1
    assert "faiss" not in results["popularity"]
    clicks = sum(part["clicks"] for name, part in results["dat"]["parts"].items() if name.startswith("seen"))
    assert clicks == results["dat"]["runs"][0]["clicks"]


def test_finished_runs_that_are_kept_are_not_done_again_and_say_the_same(tmp_path, monkeypatch):
    card = write_market(tmp_path, clicks=1_200)
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    monkeypatch.setenv("DAT_NIGHT__MODEL__EPOCHS", "1")
    file = tmp_path / "out.json"

    def evaluated(models: str) -> dict:
        options = f"--home {tmp_path / 'home'} --models {models} --out {tmp_path / 'kept'} --json {file}"
        done = CliRunner().invoke(build(), f"evaluate --data {card} {options}".split(), catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(file.read_text())["results"]

    first = evaluated("dat,popularity")
    monkeypatch.setattr("training.trainer.Trainer.run", None)
    assert evaluated("dat,item-cf")["dat"]["runs"] == first["dat"]["runs"]
    monkeypatch.setenv("DAT_NIGHT__MODEL__EPOCHS", "2")
    with pytest.raises(TypeError):
        evaluated("dat")
    monkeypatch.setenv("DAT_NIGHT__MODEL__EPOCHS", "1")
    shutil.rmtree(tmp_path / "market")
    write_market(tmp_path, clicks=1_200, seed=1)
    with pytest.raises(TypeError):
        evaluated("dat")


def test_the_evidence_is_a_comparison_a_log_and_an_unknown_log_is_refused(tmp_path, monkeypatch):
    card, out = write_market(tmp_path, clicks=1_200), tmp_path / "out"
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    monkeypatch.setattr(plans, "EVIDENCE", (plans.Comparison(str(card), "night", "popularity,item-cf", 1),))
    command = f"experiment evidence --out {out} --home {tmp_path / 'home'}"
    assert CliRunner().invoke(build(), command.split(), catch_exceptions=False).exit_code == 0
    (report,) = (json.loads(file.read_text()) for file in out.glob("compare-*.json"))
    assert report["results"].keys() == {"popularity", "item-cf"} and report["provenance"]["commit"]
    with pytest.raises(CardError, match="none of the documents' logs"):
        CliRunner().invoke(build(), [*command.split(), "--data", "globo-news"], catch_exceptions=False)


def test_a_card_that_names_a_setting_which_is_none_is_refused_by_name(tmp_path, monkeypatch):
    card = write_market(tmp_path, clicks=1_200)
    with card.open("a") as text:
        text.write("\n[training.model]\ncolour = 3\n")
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    with pytest.raises(CardError, match=r"training\.model\.colour"):
        CliRunner().invoke(build(), f"evaluate --data {card} --home {tmp_path}".split(), catch_exceptions=False)
