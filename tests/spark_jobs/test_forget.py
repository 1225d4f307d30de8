"""What is forgotten is in no landing, no training set and no bundle, and stays out whatever is landed again."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cli.forget import forget as dat_forget
from cli.nightly import run_night
from feature_repo.card import load_card
from feature_repo.place import UrlPath, read_parquet
from model.bundle import Bundle
from model.bundle_store import BundleStore
from model.forget_notes import leave_note, taken_notes
from model.forgetting import Forgotten
from model.ids import is_nobody
from model.settings.night import Rules
from model.shared_bundles import SharedBundles
from spark_jobs import forget, forgotten, lake
from spark_jobs.forget import rewrite
from spark_jobs.forgotten import known, learn, take_notes
from spark_jobs.land_kafka import Ledger
from spark_jobs.land_log import land_log
from streaming.forgetting import ForgetWriter
from tests.market import FIRST_MS, write_market
from tests.objects import Bucket
from tests.objects import bucket as bucket
from tests.spark_jobs.conftest import Silent, market_settings
from tests.spark_jobs.test_land_kafka import DAY, Topic, click, events, topic  # noqa: F401 (a fixture)
from tests.streaming.test_forgetting import forget as say
from tests.tiny import SMALL_AMM, tiny_bundle

MOMENT = FIRST_MS + 2 * DAY


@pytest.fixture
def card(tmp_path: Path):
    return load_card(write_market(tmp_path))


def in_files(home: Path, text: str) -> set[str]:
    """The Parquet files under a folder of which a column of strings has a value."""
    found = set()
    for file in home.rglob("*.parquet"):
        table = pq.read_table(file, partitioning=None)
        for column in table.columns:
            if column.type == pa.string() and pc.any(pc.equal(column, text)).as_py():
                found.add(str(file.relative_to(home)))
    return found


def test_clicks_of_before_the_moment_leave_the_lake_and_never_land_again(spark, card, topic: Topic, tmp_path):  # noqa: F811
    """Whether they had landed, land in the same go as the moment, come late, or are landed once more from the topic."""
    home = tmp_path / "home"
    clicks = home / "lake" / "clicks"
    topic.send([click(1, FIRST_MS, "u1"), click(2, FIRST_MS, "u2"), click(3, FIRST_MS + DAY, "u1")])
    topic.land(spark, card, clicks)
    topic.send([click(4, FIRST_MS + DAY, "u1"), click(5, MOMENT + 5, "u1")])  # by its place of before, not by its time
    before = lake.fingerprints(clicks)
    say(topic.config, "u1", before=MOMENT)
    topic.send([click(6, FIRST_MS, "u1"), click(7, MOMENT, "u1"), click(8, FIRST_MS, "u3")])
    topic.land(spark, card, clicks)
    assert events(spark, card, clicks) == ["e1", "e2", "e3", "e7", "e8"], "what had landed is still there"
    done = rewrite(home)
    assert (done.queries, done.clicks) == (1, 2)
    assert events(spark, card, clicks) == ["e2", "e7", "e8"]
    after = lake.fingerprints(clicks)
    assert all(after[day] != of for day, of in before.items())
    assert rewrite(home).queries == 0 and lake.fingerprints(clicks) == after
    lake.compact(spark, card, clicks)
    assert events(spark, card, clicks) == ["e2", "e7", "e8"]
    for path in clicks.glob("landing=*"):  # all is lost but the list, and landed again
        path.rename(tmp_path / path.name)
    (clicks / "kafka.json").unlink()
    topic.land(spark, card, clicks)
    assert events(spark, card, clicks) == ["e2", "e7", "e8"] and Ledger.load(clicks).gaps == []
    topic.send([click(9, FIRST_MS, "u1")])  # written again by somebody
    topic.land(spark, card, clicks)
    assert events(spark, card, clicks) == ["e2", "e7", "e8"]


def test_a_query_that_is_only_hidden_yet_is_left_out_by_its_time(spark, card, topic: Topic, tmp_path):  # noqa: F811
    clicks = tmp_path / "lake"
    topic.send([click(1, FIRST_MS, "u1"), click(2, MOMENT + 1, "u1")])
    writer = ForgetWriter(topic.config)
    writer.hide(["u1"], MOMENT)
    topic.land(spark, card, clicks)
    assert events(spark, card, clicks) == ["e2"]
    listed, _ = writer.forget(["u1"], MOMENT)
    writer.close()
    topic.land(spark, card, clicks)
    assert known(clicks, unwritten=True)["u1"].offset == listed["u1"].offset
    rewrite_lake = forgotten.leave_out(clicks, known(clicks))
    assert rewrite_lake == 1 and events(spark, card, clicks) == []


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_log_files_land_without_it_also_when_they_have_grown_or_are_landed_anew(kind: str, spark, tmp_path):
    card = load_card(write_market(tmp_path))
    home = tmp_path / "home" if kind == "folder" else UrlPath.of(f"file://{tmp_path}/store")
    log, clicks = tmp_path / "market" / "clicks.csv", home / "lake" / "clicks"
    times = lambda: sorted(  # noqa: E731
        time
        for file in clicks.rglob("*.parquet")
        for who, time in zip(*read_parquet(file, ["query_id", "event_time"]), strict=True)
        if who.as_py() == "u1"
        for time in [time.as_py()]
    )
    land_log(card, tmp_path / "market", clicks, Rules())
    every = times()
    learn(clicks, {"u1": Forgotten(before=MOMENT)})
    before = lake.fingerprints(clicks)
    assert rewrite(tmp_path / "home", shared=home).clicks and lake.fingerprints(clicks) != before
    assert rewrite(tmp_path / "home", shared=home).queries == 0
    later = [time for time in every if time > MOMENT]
    assert times() == later and 0 < len(later) < len(every)
    log.write_text(log.read_text() + f"u1,s1,{FIRST_MS + 61_001}\nu1,s1,{MOMENT + 7}\nu2,s1,{FIRST_MS + 61_001}\n")
    report = land_log(card, tmp_path / "market", clicks, Rules())
    assert report.landed == 2 and times() == sorted([*later, MOMENT + 7])
    land_log(card, tmp_path / "market", clicks, Rules(), again=True)
    assert times() == sorted([*later, MOMENT + 7])
    land_log(card, tmp_path / "market", clicks, Rules(), again=True, spark=spark)
    assert times() == sorted([*later, MOMENT + 7])


def test_a_note_of_a_service_reaches_the_lake_once_and_one_that_comes_meanwhile_is_kept(tmp_path):
    home = tmp_path / "home"
    clicks = home / "lake" / "clicks"
    assert not leave_note(home, "u1", MOMENT), "there is no lake that this is of use to"
    card = load_card(write_market(tmp_path))
    land_log(card, tmp_path / "market", clicks, Rules())
    assert leave_note(home, "u1", MOMENT) and leave_note(home, "a/b é", MOMENT) and leave_note(home, "u1", MOMENT + 1)
    listed, files = taken_notes(home)
    assert listed == {"u1": Forgotten(before=MOMENT + 1), "a/b é": Forgotten(before=MOMENT)}
    assert leave_note(home, "u2", MOMENT) and all(file.exists() for file in files)
    take_notes(home, home / "lake" / "clicks")
    assert known(clicks).keys() == {"u1", "u2", "a/b é"} and taken_notes(home) == ({}, [])
    assert rewrite(home).clicks > 0 and rewrite(home).queries == 0
    report = land_log(card, tmp_path / "market", clicks, Rules(), again=True)
    theirs = {
        row
        for file in clicks.rglob("*.parquet")
        for row in zip(
            *pq.read_table(file, columns=["query_id", "event_time"], partitioning=None).to_pydict().values(),
            strict=True,
        )
    }
    assert report and all(time > MOMENT for who, time in theirs if who in ("u1", "u2"))


@pytest.mark.parametrize("config", [None, SMALL_AMM], ids=["memories", "amm"])
def test_a_kept_bundle_has_a_blank_row_and_is_the_same_in_all_else(tmp_path, config):
    shelf = BundleStore(tmp_path / "bundles")
    for version in ("one", "two"):
        shelf.publish(tiny_bundle(version, config=config))
    read_before = shelf.load("one")  # a process that has it mapped
    learn(tmp_path / "lake" / "clicks", {"q0": Forgotten(before=MOMENT), "nobody": Forgotten(before=MOMENT)})
    assert rewrite(tmp_path).bundles == ("one", "two")
    for version in ("one", "two"):
        now = shelf.load(version)
        assert is_nobody(now.queries.ids[0]) and now.queries.ids[1:] == read_before.queries.ids[1:]
        for name, column in read_before.queries.columns.items():
            blank = np.full_like(column[0], now.queries.NAMES[name].fill)
            np.testing.assert_array_equal(now.queries.columns[name][0], blank, name)
            if version == "one":
                np.testing.assert_array_equal(now.queries.columns[name][1:], column[1:], name)
    for name, weight in read_before.towers.weights.items():
        rewritten = shelf.load("one").towers.weights[name]
        if name == "query_tower.ids.weight":
            np.testing.assert_array_equal(rewritten[1], weight[0])
            rewritten, weight = np.delete(rewritten, 1, 0), np.delete(weight, 1, 0)
        np.testing.assert_array_equal(rewritten, weight, name)
    assert read_before.queries.clicks[0] == 3
    assert not list(tmp_path.rglob("*.writing")) and not list(tmp_path.rglob(".rewritten"))


@pytest.mark.parametrize("at", range(3))
def test_a_crash_while_a_bundle_is_rewritten_leaves_one_that_loads_and_the_next_run_ends_it(tmp_path, monkeypatch, at):
    shelf = BundleStore(tmp_path / "bundles")
    shelf.publish(tiny_bundle("one", config=SMALL_AMM))
    learn(tmp_path / "lake" / "clicks", {"q0": Forgotten(before=MOMENT)})
    replace, calls = Path.replace, []

    def crash(self: Path, target: Path) -> Path:
        if Path(target).suffix in (".safetensors", ".parquet") and "bundles" in str(target):
            calls.append(target)
            if len(calls) == at + 1:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        rewrite(tmp_path)
    monkeypatch.undo()
    assert isinstance(shelf.load("one"), Bundle)
    assert rewrite(tmp_path).bundles == ("one",)
    assert is_nobody(shelf.load("one").queries.ids[0]) and rewrite(tmp_path).queries == 0


@pytest.mark.slow
def test_after_dat_forget_no_file_of_the_home_has_the_query_and_the_next_night_does_not_know_it(
    spark, tmp_path, monkeypatch, capsys
):
    settings = market_settings(tmp_path, keep_sets=2)
    summary = run_night(settings, progress=Silent())
    home = settings.home
    held = in_files(home, "u1")
    assert {name.split("/")[0] for name in held} >= {"activity", "bundles", "lake", "offline", "training_sets"}, held
    monkeypatch.setenv("DAT_HOME", str(home))
    dat_forget(["u1", "never-seen"], kafka=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "forgotten: 2 queries" in said and summary.bundle in said
    catalogue = ("lake/catalogues/", "loaded/", "offline/query_profile/")
    assert all(name.startswith(catalogue) for name in in_files(home, "u1")), in_files(home, "u1")
    for report in home.rglob("report.json"):
        assert '"u1"' not in report.read_text() or "catalogues" in str(report)
    assert "u1" not in BundleStore(home / "bundles").load().queries.ids
    assert leave_note(
        home, "u2", known(home / "lake" / "clicks")["u1"].before
    )  # as a service does: this night has no Kafka
    again = run_night(settings, progress=Silent())
    assert in_files(home, "u2") and all(name.startswith(catalogue) for name in in_files(home, "u2"))
    assert taken_notes(home) == ({}, []) and "u2" not in BundleStore(home / "bundles").load().queries.ids
    assert again.bundle != summary.bundle and again.gate.verdict == "published" and again.rows < summary.rows
    assert "u1" not in BundleStore(home / "bundles").load().queries.ids
    assert all(name.startswith(catalogue) for name in in_files(home, "u1")), in_files(home, "u1")
    assert known(home / "lake" / "clicks")["u1"].before == max(
        pc.max(pq.read_table(file, columns=["event_time"], partitioning=None)["event_time"]).as_py()
        for file in lake.files_of(home / "lake" / "clicks")
    )
    assert forget.rewrite(home).queries == 0


@pytest.mark.long
def test_a_bundle_in_an_object_store_is_rewritten_there_and_in_a_home_that_took_it(bucket: Bucket, tmp_path: Path):
    night, pod = (SharedBundles(tmp_path / name, bucket.url) for name in ("night", "pod"))
    for version in ("one", "two"):
        night.publish(tiny_bundle(version, config=SMALL_AMM))
    pod.load("one")
    pod.take()
    shutil.rmtree(night.folder / "one")  # the night's disk need not have it
    before = bucket.keys
    learn(tmp_path / "night" / "lake" / "clicks", {"q0": Forgotten(before=MOMENT)})
    assert rewrite(tmp_path / "night", night).bundles == ("one", "two")
    pod.take()
    for version in ("one", "two"):
        for shelf in (pod.taken, SharedBundles(tmp_path / "new", bucket.url)):
            assert is_nobody(shelf.load(version).queries.ids[0])
    assert len(before - bucket.keys) == 3, "ids, state and embeddings, which the two had in common, are gone"
    assert bucket.keys == {"bundles.json"} | {f"objects/{name}" for name in night.look().objects}
