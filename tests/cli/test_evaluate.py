"""``dat evaluate``: what it reports, and that the index it asks beside gives the ranks of exact search."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import build
from cli.through_index import DEPTH, ThroughIndex
from feature_repo.card import CardError
from serving.config import IndexConfig
from tests.market import write_market
from training.evaluation import MISS, Vectors, ranks


@pytest.mark.parametrize("interests", [1, 3])
def test_an_index_that_visits_every_list_finds_the_exact_ranks(interests):
    """Vectors move, items appear, some are hidden: at every block the ranks up to 100 are those of all scores."""
    random = np.random.default_rng(0)
    index = ThroughIndex(IndexConfig(kind="ivf", lists=1))
    items = random.normal(size=(400, 8)).astype(np.float32)
    for block in range(5):
        items[random.integers(0, 400, 50)] = random.normal(size=(50, 8))
        vectors = Vectors(random.normal(size=(16, interests, 8)).astype(np.float32), items.copy())
        existing = 200 + 40 * block + np.sort(random.integers(0, 3, 16))
        targets = random.integers(0, 240 + 40 * block, 16)
        hidden = np.repeat(np.arange(16), 30), random.integers(0, 400, 480)
        index.block(vectors, targets, existing, hidden)
        exact = ranks(vectors.scores(), targets, existing, hidden)
        np.testing.assert_array_equal(index.found[-1], np.where(exact <= DEPTH, exact, MISS))


def test_the_report_has_exact_figures_those_through_faiss_and_the_health_of_the_model(tmp_path, monkeypatch):
    card = write_market(tmp_path, clicks=1_200)
    with card.open("a") as text:
        text.write("\n[evaluate]\nnegatives = 2\n[evaluate.model]\nepochs = 9\ntower = { output_dim = 16 }\n")
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    monkeypatch.setenv("DAT_NIGHT__MODEL__EPOCHS", "5")
    file = tmp_path / "out.json"
    command = f"evaluate --data {card} --home {tmp_path / 'home'} --models dat,popularity --seeds 2 --json {file}"
    done = CliRunner().invoke(build(), command.split(), catch_exceptions=False)
    assert done.exit_code == 0
    summary = json.loads(file.read_text())
    assert summary["settings"] == {"epochs": 5, "tower": {"output_dim": 16}}, "the card's, and over them the settings"
    assert summary["negatives"] == 2
    results = summary["results"]
    assert len(results["dat"]["runs"]) == 2 and len(results["popularity"]["runs"]) == 1
    for run in results["dat"]["runs"]:
        assert not run["health"]["collapsed"] and run["health"]["item_rank"] > 2
        assert run["faiss"]["hr100"] == pytest.approx(run["hr100"] + run["faiss_minus_exact"]["hr100"])
        assert abs(run["faiss_minus_exact"]["hr100"]) < 0.1
    assert "faiss" not in results["popularity"]
    clicks = sum(part["clicks"] for name, part in results["dat"]["parts"].items() if name.startswith("seen"))
    assert clicks == results["dat"]["runs"][0]["clicks"]


def test_a_card_that_names_a_setting_which_is_none_is_refused_by_name(tmp_path, monkeypatch):
    card = write_market(tmp_path, clicks=1_200)
    with card.open("a") as text:
        text.write("\n[evaluate.model]\ncolour = 3\n")
    monkeypatch.setenv("DAT_DATA", str(tmp_path))
    with pytest.raises(CardError, match=r"evaluate\.model\.colour"):
        CliRunner().invoke(build(), f"evaluate --data {card} --home {tmp_path}".split(), catch_exceptions=False)
