"""What the documents ask of the service, asked as it is printed; their clicks, written to Kafka and counted."""

import json
import shutil
from pathlib import Path

import pytest

from tests.runnable import SERVICE, Block, by_page, reader, run
from tests.serving.conftest import Running

PAGES = by_page(lambda block: block.asks_the_service)
TOOLS = {"bash": ("curl", "jq"), "ts": ("node",)}


@pytest.mark.parametrize("page", PAGES)
def test_each_runnable_request_of_a_page_is_answered_and_each_click_counts(page: str, loop: Running, tmp_path: Path):
    folder = tmp_path / "reader"
    folder.mkdir()
    environment = reader(folder)
    for block in PAGES[page]:
        if block.language == "json":
            key = json.loads(block.code)["query_id"]
            placed = loop.producer.send(loop.kafka.topics.clicks, block.code.encode(), key.encode()).get(10)
            asked = {"query_id": key, "wait_for": f"{placed.partition}:{placed.offset}", "timeout_ms": 10_000}
            assert loop.client.get("/v1/retrieve", params=asked).json()["reached"], block.code
        elif missing := [tool for tool in TOOLS.get(block.language, ()) if not shutil.which(tool)]:
            pytest.skip(f"there is no {missing[0]} on the PATH")
        else:
            run(Block(block.language, block.code.replace(SERVICE, loop.url)), folder, environment)
