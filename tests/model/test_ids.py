"""Which id has which row: as a list and a dict would have it, whatever was added, forgotten and hashed alike."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import model.ids
from model.arrays import map_arrays, writable
from model.ids import Ids, nobody, of_somebody
from model.state import EntityState


@pytest.fixture(params=["as they are", "hashes of 3 bits"])
def hashes(request, monkeypatch):
    if request.param != "as they are":
        plain = model.ids._hashes
        monkeypatch.setattr(model.ids, "_hashes", lambda ids: plain(ids) % 8)


@pytest.mark.usefixtures("hashes")
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_those_of_a_list_and_a_dict_after_anything(seed):
    rng = np.random.default_rng(seed)
    names = [f"{'é' * int(k % 3)}{k}" for k in range(200)]
    plain, ids = names[:90], Ids(pa.chunked_array([names[:40], names[40:90]]))
    for _ in range(60):
        some = [names[k] for k in rng.integers(0, len(names), rng.integers(0, 30)).tolist()]
        if rng.random() < 0.3:
            gone = [id_ for id_ in dict.fromkeys(some) if id_ in plain]
            rows = [plain.index(id_) for id_ in gone]
            for row in rows:
                plain[row] = nobody(row)
            assert ids.forget(some).tolist() == rows
        elif rng.random() < 0.5:
            plain += [id_ for id_ in dict.fromkeys(some) if id_ not in plain]
            assert ids.add(some).tolist() == [plain.index(id_) for id_ in some]
        else:
            ids = ids.copy() if rng.random() < 0.5 else pickle.loads(pickle.dumps(ids))
        at = {id_: row for row, id_ in enumerate(plain)}
        assert ids.rows([*some, "nobody"]).tolist() == [at.get(id_, -1) for id_ in [*some, "nobody"]]
        assert ids == plain and list(ids) == plain and ids[3:-2] == plain[3:-2] and ids[-1] == plain[-1]
        rows = rng.integers(0, len(plain), 20)
        assert ids.take(rows).to_pylist() == [plain[row] for row in rows.tolist()]
        assert pa.array(ids, pa.string()).to_pylist() == plain and (names[0] in ids) == (names[0] in plain)
        assert of_somebody(ids.take(rows)).tolist() == [not plain[row].startswith("dat-") for row in rows.tolist()]


def test_a_copy_knows_nothing_of_what_the_other_one_adds_and_forgets():
    ids = Ids(["a", "b"])
    copied = ids.copy()
    ids.add(["c"])
    ids.forget(["a"])
    assert copied == ["a", "b"] and copied.rows(["a", "c"]).tolist() == [0, -1]
    assert not len(Ids()) and Ids().rows(["a"]).tolist() == [-1] and Ids(["a"]).row("\ud800") == -1


@pytest.mark.parametrize("rows", [1, 700, 5_000])
def test_a_mapped_state_grows_where_it_is(tmp_path, rows):
    """A copy of all rows as soon as one new id comes would be a copy of the bundle in each process."""
    a = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    rings = np.arange(rows * 5, dtype=np.int32).reshape(rows, 5)
    EntityState([f"q{k}" for k in range(rows)], a=a, recent_items=rings).save(tmp_path, "query")
    state = EntityState.load(tmp_path, "query").copy()
    before = {name: column.ctypes.data for name, column in state.columns.items() if column.size}
    state.add(["x", "y"])
    state.put(np.array([0, rows + 1]), a=np.float32([[-1] * 3, [-2] * 3]))
    assert {name: column.ctypes.data for name, column in state.columns.items() if column.size} == before
    np.testing.assert_array_equal(state.a, [[-1] * 3, *a[1:].tolist(), [0] * 3, [-2] * 3])
    np.testing.assert_array_equal(state.recent_items, [*rings.tolist(), [-1] * 5, [-1] * 5])
    state.add([f"z{k}" for k in range(70_000)])  # more than there is room for
    np.testing.assert_array_equal(state.a[1:rows], a[1:])
    np.testing.assert_array_equal(state.a[[0, rows + 1, -1]], [[-1] * 3, [-2] * 3, [0] * 3])
    np.testing.assert_array_equal(EntityState.load(tmp_path, "query").a, a)


def test_what_is_mapped_with_room_is_given_back(tmp_path):
    EntityState(["a"], a=np.ones((1, 4), np.float32)).save(tmp_path, "query")
    file = tmp_path / "query.safetensors"

    def mapped() -> int:
        with Path("/proc/self/maps").open() as maps:
            return sum(str(file) in line for line in maps)

    arrays = map_arrays(file)
    before = mapped()
    copied = writable(arrays["a"], 10)
    part = copied[:1]
    assert mapped() == before + 1 and len(copied) == 11
    del copied
    assert mapped() == before + 1 and part.tolist() == [[1.0] * 4]
    del part
    assert mapped() == before


def test_ids_of_more_bytes_than_one_array_of_strings_holds_are_written_in_parts(monkeypatch):
    monkeypatch.setattr(model.ids, "_SHORT", 10)
    monkeypatch.setattr(model.ids, "_AT_ONCE", 3)
    names = [f"id{n}" for n in range(8)]
    ids = Ids(names)
    ids.forget(["id1"])
    written = pa.table({"id": ids})["id"]
    assert (written.type, written.num_chunks) == (pa.string(), 3)
    assert written.to_pylist() == ["id0", ids[1], *names[2:]]


def test_the_index_is_made_with_the_copy_and_no_later_look_up_makes_it(monkeypatch):
    ids = Ids([f"id{n}" for n in range(50)])
    copied, state = ids.copy(), EntityState([f"id{n}" for n in range(50)]).copy()
    hashed = []
    plain = model.ids._hashes
    monkeypatch.setattr(model.ids, "_hashes", lambda some: hashed.append(len(some)) or plain(some))
    assert copied.rows(["id7", "x"]).tolist() == state.rows(["id7", "x"]).tolist() == [7, -1]
    assert copied.rows([f"id{n}" for n in range(9)]).tolist() == list(range(9))
    assert sum(hashed) == 2 + 2 + 9, "only those that were asked for"
