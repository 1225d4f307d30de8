"""Tables and files of a home, on a disk and in an object store: whole or not at all, whatever stops whom."""

from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo.place import Place, UrlPath, read_parquet, write_parquet
from feature_repo.table import dataset, delete_table, files_of_tables, whole, write_table, write_text
from tests.objects import Bucket, Killed, kill_after
from tests.objects import bucket as bucket


@pytest.fixture(params=["disk", "file", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":
        return tmp_path
    url = f"file://{tmp_path}" if request.param == "file" else request.getfixturevalue("bucket").url
    return UrlPath.of(url)


def write(table: Place, **files: str) -> None:
    with write_table(table) as folder:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_bytes(text.encode())


def read(table: Place) -> dict[str, str]:
    return {file.name: file.read_text() for file in whole(table).glob("*")}


@pytest.mark.long
def test_files_and_folders_are_found_alike_wherever_they_are(home: Place):
    assert not (home / "a").exists() and not list(home.glob("*")) and not list(home.rglob("*"))
    for name in ("part=2", "part=1"):
        (home / "view" / name).mkdir(parents=True)
        write_parquet(pa.table({"n": [1, 2]}), home / "view" / name / "rows.parquet")
    write_text(home / "view" / "said.json", "{}")
    write_text(home / "view" / "said.json", "{'more': 1}")
    view = home / "view"
    assert view.is_dir() and not view.is_file() and (view / "said.json").is_file()
    assert (view / "said.json").read_text() == "{'more': 1}" and (view / "said.json").stat().st_size == 11
    assert sorted(one.name for one in view.glob("*")) == ["part=1", "part=2", "said.json"]
    assert sorted(one.name for one in view.glob("part=*")) == ["part=1", "part=2"]
    assert [one.parent.name for one in sorted(view.glob("part=*/*.parquet"))] == ["part=1", "part=2"]
    assert [one.parent.name for one in sorted(home.rglob("*.parquet"))] == ["part=1", "part=2"]
    assert read_parquet(view / "part=1" / "rows.parquet")["n"].to_pylist() == [1, 2]
    assert dataset(sorted(view.glob("*/*.parquet"))).count_rows() == 4
    (view / "said.json").unlink()
    delete_table(view / "part=1")
    assert sorted(str(one)[len(str(home)) :] for one in home.rglob("*.parquet")) == ["/view/part=2/rows.parquet"]
    with pytest.raises(FileNotFoundError):
        (view / "said.json").read_text()


def test_a_table_takes_the_place_of_another_and_an_error_leaves_it(home: Place):
    table = home / "tables" / "a"
    assert not whole(table).exists() and not read(table)
    write(table, x="1", y="1")
    with pytest.raises(RuntimeError), write_table(table) as folder:
        folder.mkdir()
        (folder / "x").write_bytes(b"2")
        raise RuntimeError
    assert read(table) == {"x": "1", "y": "1"}
    assert [one.name for one in files_of_tables(home, "tables/a/*")] == ["x", "y"]
    write(table, x="3")
    assert read(table) == {"x": "3"} and [one.read_text() for one in files_of_tables(home, "*/*/x")] == ["3"]
    delete_table(table)
    assert not whole(table).exists() and not files_of_tables(home, "*/*/*")


@pytest.mark.long
def test_who_is_killed_between_any_two_requests_leaves_the_old_table_or_the_new_one_and_the_next_writer_cleans_up(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    table, kill = UrlPath.of(bucket.url) / "t", kill_after(monkeypatch, "write", "under", "delete", "delete_folder")
    old, new = {"x": "old", "y": "old"}, {"x": "new", "z": "new"}
    for change, after in ((lambda: write(table, **new), new), (lambda: delete_table(table), {})):
        for left in range(30):
            kill(-1)
            write(table, **old)
            assert len(bucket.keys) == 3, "nothing is left of what was killed before"
            kill(left)
            try:
                change()
                break
            except Killed:
                kill(-1)
                assert read(table) in (old, after)
        kill(-1)
        assert 3 < left < 29, "each prefix of the requests was tried"
        assert read(table) == after and len(bucket.keys) == (3 if after else 0)


def test_two_writers_at_once_do_not_mix_their_files(bucket: Bucket):
    table = UrlPath.of(bucket.url) / "t"
    with write_table(table) as one, write_table(table) as two:
        for folder, name in ((one, "one"), (two, "two")):
            (folder / name).write_bytes(name.encode())
    assert list(read(table).items()) in ([("one", "one")], [("two", "two")])
