"""Lists beside an item and for a visit without an id, and what a shop wants of a list: rules and pages."""

import numpy as np
import pytest

from model.memory import gap_inputs
from model.scan import Groups
from serving.retrieval import Ask
from tests.serving.conftest import Running


def ids(reply) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [item["item_id"] for item in reply.json()["items"]]


def test_similar_items_are_the_nearest_by_the_item_towers_vectors_and_filters_hold(running: Running):
    corpus = running.service.snapshot.corpus
    vectors = corpus.index.vectors(np.arange(60))
    near = np.argsort(-(vectors @ vectors[3]), kind="stable")
    expected = [f"i{row}" for row in near.tolist() if row != 3]
    reply = running.client.get("/v1/items/i3/similar?n=10")
    assert ids(reply) == expected[:10]
    assert reply.json()["source"] == "item" and reply.json()["fallback"] is None and reply.json()["answer_id"]
    drama = ids(running.client.get("/v1/items/i3/similar", params={"n": 5, "category": "war", "exclude": expected[0]}))
    assert all("war" in corpus.category_of(int(item[1:])) for item in drama) and expected[0] not in drama
    assert running.client.get("/v1/items/nothing-like-it/similar").status_code == 404


def test_a_session_is_answered_as_a_query_that_made_those_clicks_now(running: Running):
    """The same state in the online store gives the same list."""
    service, clicked = running.service, ["i4", "i9", "i4", "i30"]
    reply = running.client.post("/v1/sessions", json={"items": clicked, "n": 60, "exclude_seen": False})
    answer = reply.json()
    assert answer["source"] == "session" and answer["clicks"] == 4 and answer["fallback"] is None
    corpus, bundle = service.snapshot.corpus, service.snapshot.bundle
    config, items, one = bundle.manifest.config, bundle.items, Groups.of(np.zeros(1, np.int64), 1)
    readings = bundle.towers.read(
        items.inputs(bundle.manifest.item, corpus.rows(clicked), np.zeros(4, np.int64)), items.a
    )
    a = np.zeros((1, config.query_state_dim), np.float32)
    for k, reading in enumerate(readings):
        gap = gap_inputs(np.full(1, min(k, 1)), np.ones(1, np.int64))
        a = bundle.towers.memory.fold(one, a, np.array([k]), reading[None], gap).after()
    columns = {
        "query_augmented__a": [a.ravel()], "query_augmented__folded": [4], "query_augmented__bundle": [bundle.version],
        "query_activity__clicks": [4], "query_activity__counters": [[4.0, 4.0]],
        "query_activity__last_click": [answer["at"]], "query_history__history": [clicked],
    }  # fmt: skip
    ask = Ask("somebody-else", n=60, at_ms=answer["at"], exclude_seen=False)
    expected = service.retriever.answer([ask], columns)[0]
    assert ids(reply) == expected.items
    np.testing.assert_allclose([item["score"] for item in answer["items"]], expected.scores, atol=1e-5)
    assert ids(running.client.post("/v1/sessions", json={"items": clicked[::-1], "n": 60})) != ids(reply)


def test_a_session_of_items_that_nobody_knows_is_answered_by_what_is_popular(running: Running):
    answer = running.client.post("/v1/sessions", json={"items": ["never-heard-of"], "n": 5}).json()
    assert (answer["source"], answer["fallback"]) == ("popularity", "unknown-query") and len(answer["items"]) == 5


def test_a_new_visitor_sees_what_was_never_clicked_after_all_that_was_and_no_section_is_empty(running: Running):
    """Every other item of the bundle has clicks; i69 is one that an operator has just described."""
    running.client.put("/v1/items/i69", json={"features": {"genres": ["war"]}})
    everything = running.client.get("/v1/retrieve", params={"query_id": "nobody", "n": 200}).json()["items"]
    scores = [item["score"] for item in everything]
    assert len(everything) == len(running.service.snapshot.corpus) and scores == sorted(scores, reverse=True)
    assert scores[0] == 1 and scores[29] > 0 == scores[-1] and "i69" in [item["item_id"] for item in everything]
    for category, count in running.client.get("/v1/categories").json().items():
        found = running.client.get("/v1/retrieve", params={"query_id": "nobody", "n": 200, "category": category})
        assert len(ids(found)) == count
    unclicked = running.client.post("/v1/retrieve", json={"query_ids": ["nobody"], "allow": ["i3"]}).json()
    assert [item["score"] for item in unclicked["answers"][0]["items"]] == [0]
    running.client.delete("/v1/items/i69")


@pytest.mark.parametrize("query_id", ["q1", "nobody-at-all"])
def test_at_most_so_many_of_a_category_pinned_first_and_boosted_higher(running: Running, query_id: str):
    corpus = running.service.snapshot.corpus
    ask = lambda **body: running.client.post(  # noqa: E731
        "/v1/retrieve", json={"query_ids": [query_id], "n": 6, **body}
    ).json()["answers"][0]["items"]
    plain = [item["item_id"] for item in ask(n=60)]
    of = lambda items, name: [i for i in items if name in corpus.category_of(int(i[1:]))]  # noqa: E731
    few = [item["item_id"] for item in ask(max_per_category=2)]
    assert all(len(of(few, name)) <= 2 for name in ("drama", "comedy", "war")) and few[0] == plain[0]
    pinned = [item["item_id"] for item in ask(pinned=["i59", "i2", "i59", "not-there"])]
    assert pinned[:2] == ["i59", "i2"] and len(pinned) == 6
    assert pinned[2:] == [item for item in plain if item not in ("i59", "i2")][:4]
    boosted = ask(n=60, boost=[{"where": {"genres": "war"}, "by": 2.0}])
    names = [item["item_id"] for item in boosted]
    assert sorted(names) == sorted(plain), "a boost takes nothing out"
    assert names == of(plain, "war") + [item for item in plain if item not in of(plain, "war")]
    url = f'/v1/retrieve?query_id={query_id}&n=6&boost={{"where":{{"genres":"war"}},"by":2}}'
    assert ids(running.client.get(url)) == names[:6]


WAR, NOTHING = {"genres": "war"}, {"genres": {"any": ["war"], "none": ["war"]}}
CONTRADICTIONS = {
    "pinned and excluded": ({"pinned": ["i1", "i2"], "exclude": ["i1"]}, ["i2"], 10),
    "pinned twice": ({"pinned": ["i2", "i2", "i1"]}, ["i2", "i1"], 10),
    "pinned and nobody's": ({"pinned": ["nobody-knows-it", "i2"]}, ["i2"], 10),
    "more pinned than asked for": ({"pinned": ["i1", "i2", "i3"], "n": 2}, ["i1", "i2"], 2),
    "pinned beside what is allowed": ({"pinned": ["i1"], "allow": ["i2", "i3"]}, ["i1"], 3),
    "pinned, and nothing else is allowed": ({"pinned": ["i1"], "allow": []}, ["i1"], 1),
    "more pinned of a category than may be": ({"pinned": ["i1", "i2", "i4", "i5"], "max_per_category": 1}, None, 4),
    "a boost of what the filter leaves out": (
        {"where": {"genres": {"none": ["war"]}}, "boost": [{"where": WAR, "by": 2}]}, [], 10
    ),
    "a boost that nothing meets": ({"boost": [{"where": NOTHING, "by": 2}]}, [], 10),
    "a filter that nothing meets": ({"where": NOTHING}, [], 0),
    "bounds that hold nothing": ({"where": {"released": {"gt": 5, "lt": 1}}}, [], 0),
    "all are excluded": ({"exclude": [f"i{k}" for k in range(70)]}, [], 0),
}  # fmt: skip


@pytest.mark.parametrize("query_id", ["q0", "nobody"])
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_of_rules_that_contradict_each_other_what_forbids_goes_before_what_pins_before_what_filters(
    running: Running, name: str, query_id: str
):
    asked, first, size = CONTRADICTIONS[name]
    body = {"query_ids": [query_id], "n": 10, "exclude_seen": False, **asked}
    reply = running.client.post("/v1/retrieve", json=body)
    assert reply.status_code == 200, reply.text
    items = [item["item_id"] for item in reply.json()["answers"][0]["items"]]
    assert len(items) == len(set(items)) == size, items
    if first is None:
        assert items == asked["pinned"], "no other has a place left"
    else:
        assert items[: len(first)] == first
    assert not set(items) & set(asked.get("exclude", ()))
    corpus = running.service.snapshot.corpus
    if name == "a boost of what the filter leaves out":
        assert not any("war" in corpus.category_of(corpus.row(item)) for item in items)


def test_a_hidden_item_is_not_pinned(running: Running):
    running.client.patch("/v1/items/i20", json={"hidden": True})
    assert "i20" not in ids(running.client.get("/v1/retrieve?query_id=q1&n=3&pinned=i20"))
    running.client.put("/v1/items/i20", json={})
    assert ids(running.client.get("/v1/retrieve?query_id=q1&n=3&pinned=i20"))[0] == "i20"


def test_pages_hold_nothing_twice_and_end_where_everything_was_shown(running: Running):
    whole = ids(running.client.get("/v1/retrieve?query_id=q3&n=100"))
    reply = running.client.get("/v1/retrieve?query_id=q3&n=9&paged=true")
    pages = [ids(reply)]
    while token := reply.json()["next"]:
        reply = running.client.get("/v1/retrieve", params={"query_id": "q3", "n": 9, "next": token})
        pages.append(ids(reply))
    assert [item for page in pages for item in page] == whole
    assert "next" not in running.client.get("/v1/retrieve?query_id=q3&n=9").json()
    for wrong in ("!", "abc", "eJwDAAAAAAE"):
        assert running.client.get("/v1/retrieve", params={"query_id": "q3", "next": wrong}).status_code == 422


def test_a_list_that_cannot_be_filled_looks_at_four_thousand_items_and_no_more():
    from types import SimpleNamespace

    from serving.rules import Rules, arranged

    asked = []

    def find(n: int, part: object) -> tuple[np.ndarray, np.ndarray]:
        asked.append(n)
        return np.arange(n), -np.arange(n, dtype=float)

    corpus = SimpleNamespace(rows=lambda ids: np.empty(0, np.int64), category_of=lambda row: ("the only one",))
    rows, _ = arranged(Rules(max_per_category=1), 10, corpus, find, None)
    assert rows.tolist() == [0] and asked == [10, 40, 160, 640, 2560, 4000]
