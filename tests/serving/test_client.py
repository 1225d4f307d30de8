"""The Python client against the real loop, and against what the service refuses."""

import pytest

from serving.client import Client, RequestRefused
from tests.serving.conftest import Running


def test_click_and_retrieve_counts_the_click(loop: Running):
    with Client(loop.url) as dat:
        before = dat.retrieve("q0", n=10)
        clicked = before.items[0].item_id
        after = dat.click_and_retrieve("q0", clicked, n=10, timeout_ms=10_000)
        assert after.reached and after.clicks == before.clicks + 1
        assert clicked not in [item.item_id for item in after.items]
        both = dat.retrieve_many(["q0", "q5"], n=3, category="war")
        assert [answer.query_id for answer in both] == ["q0", "q5"]
        assert dat.click("q0", "a/b ?#ü").wait_for_clicks == after.clicks + 1
        loop.wait(lambda: loop.service.retriever.served.corpus.row("a/b ?#ü") is not None)
        assert dat.item("a/b ?#ü").clicks == 1


def test_what_is_refused_is_raised_with_its_reason(running: Running):
    with Client(running.url) as dat:
        with pytest.raises(RequestRefused, match="less than or equal to 1000") as refused:
            dat.retrieve("q0", n=2_000)
        assert (refused.value.status, refused.value.code) == (422, "not-valid")
        with pytest.raises(RequestRefused, match="knows this item") as missing:
            dat.item("never-seen")
        assert missing.value.status == 404
