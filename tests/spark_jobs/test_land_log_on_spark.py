"""A log that Spark's workers read is the log that one machine reads: the same rows, the same counts, the same words."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_repo.card import CardError, DatasetCard, load_card
from model.settings.night import Rules
from spark_jobs.land_log import LandingReport, land_log
from tests.feature_repo.formats import FORMATS, Format, csv, files
from tests.feature_repo.test_cases import CASES, NAMES

READ = [form for form in FORMATS if not form.refused]
SOME = READ[:: max(1, len(READ) // 8)]
COLUMNS = ["event_id", "query_id", "item_id", "event_time", "event_type", "value", "position"]


def land(card: DatasetCard, lake: Path, spark=None) -> tuple[LandingReport, list[dict]]:
    report = land_log(card, Path(card.folder), lake, Rules(max_invalid=1), spark=spark)
    tables = [
        pq.read_table(file, partitioning=None).select(COLUMNS) for file in lake.glob("landing=*/date=*/*.parquet")
    ]
    return report, sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["position"])


def check_same(card: DatasetCard, folder: Path, spark) -> None:
    try:
        one, rows = land(card, folder / "one")
    except CardError as error:
        with pytest.raises(CardError) as refusal:
            land(card, folder / "many", spark)
        assert str(refusal.value) == str(error)
        return
    many, rows_of_many = land(card, folder / "many", spark)
    assert rows_of_many == rows
    # Which rows are shown as examples follows the order of the files.
    assert many.model_dump(exclude={"examples"}) == one.model_dump(exclude={"examples"})


@pytest.mark.parametrize("form", SOME, ids=lambda form: form.name)
def test_both_ways_land_the_same_rows_of_a_format(form, spark, tmp_path: Path):
    check_same(load_card(form.bring(tmp_path / "log")), tmp_path, spark)


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("name", NAMES)
def test_both_ways_land_the_same_rows_of_a_case(name: str, spark, tmp_path: Path):
    check_same(load_card(CASES / name / "card.toml"), tmp_path, spark)


def test_files_that_overlap_and_a_minority_of_wrong_times_are_counted_alike(spark, tmp_path: Path):
    folder = tmp_path / "log"
    folder.mkdir()
    csv(name="log-1.csv")(folder)
    csv(name="log-2.csv", after={3: "u1,i1,-5"})(folder)  # the same rows again
    files({"log-3.csv": b"user,item,ts\nu1,i1,5\nu1,i1,6\nu1,i2,1700006596\n"}, "")(
        folder
    )  # most of this one are wrong
    (tmp_path / "card.toml").write_text(
        'name = "log"\ntitle = "log"\nfolder = "log"\n'
        'clicks = { path = "log-*.csv", query = "user", item = "item", time = "ts" }\n'
    )
    card = load_card(tmp_path / "card.toml")
    check_same(card, tmp_path, spark)
    report, _ = land(card, tmp_path / "again")
    assert (report.rows, report.duplicates, report.dropped) == (41, 40, {"time out of range": 3})


def test_a_file_that_has_lost_rows_is_told_on_a_cluster_too(spark, tmp_path: Path):
    log = tmp_path / "log.csv"
    card = Format("log", csv()).bring(tmp_path)
    land_log(load_card(card), tmp_path, tmp_path / "lake", Rules(), spark=spark)
    log.write_text("\n".join(log.read_text().splitlines()[:-3]) + "\n")
    report = land_log(load_card(card), tmp_path, tmp_path / "lake", Rules(), spark=spark)
    assert [line for line in report.lines() if "log.csv has changed and lacks 3 rows" in line]


def test_a_table_of_spark_is_read_by_the_same_card(spark, tmp_path: Path):
    rows = [("u1", 7.0, "2024-03-01", "view")] * 2 + [
        ("u2", 8.0, "2024-03-02", "view"),
        ("NULL", 8.0, "2024-03-02", "view"),
    ]
    spark.createDataFrame(rows, "user string, item double, at string, kind string").createOrReplaceTempView(
        "clicks_of_shop"
    )
    clicks = {"path": "table:clicks_of_shop", "query": "user", "item": "item", "time": "at", "time_unit": "date"}
    card = DatasetCard.model_validate({"name": "t", "title": "t", "folder": str(tmp_path), "clicks": clicks})
    report, rows = land(card, tmp_path / "lake", spark)
    assert sorted((row["query_id"], row["item_id"]) for row in rows) == [("u1", "7"), ("u1", "7"), ("u2", "8")]
    assert report.dropped == {"query id missing": 1} and (report.queries, report.items) == (2, 2)
    assert land(card, tmp_path / "lake", spark)[0].landed == 0, "what the lake has does not land again"
    with pytest.raises(CardError, match="table:clicks_of_shop is a table that Spark knows"):
        land(card, tmp_path / "lake")
