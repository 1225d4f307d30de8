"""The Python client against the real loop, and against what the service refuses."""

import asyncio
import hashlib
import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from dat_client import AsyncClient, Client, RequestRefused

from tests.serving.conftest import Running

CLIENTS = Path(__file__).parents[2] / "clients"


def test_a_click_counts_in_the_answer_that_waits_for_it(loop: Running):
    with Client(loop.url) as dat:
        before = dat.retrieve("q0", n=10, details=True)
        top = before.items[0]
        assert top.title.startswith("Film") and top.category
        clicked = dat.click("q0", top.item_id, answer_id=before.answer_id)
        after = dat.retrieve("q0", n=10, wait_for=clicked.token, timeout_ms=10_000)
        assert after.reached and after.clicks == before.clicks + 1
        assert top.item_id not in [item.item_id for item in after.items]
        both = dat.retrieve_many(["q0", "q5"], n=3, category=["war"])
        assert [answer.query_id for answer in both] == ["q0", "q5"]
        war = dat.retrieve("q0", n=60, where={"genres": {"any": ["war"]}}).items
        assert len(war) == len(dat.retrieve("q0", n=60, category="war").items) > 10
        assert dat.history("q0")[0] == top.item_id
        assert dat.categories()["war"] == 40 and dat.status()["bundle"]["version"] == loop.bundle.version
        dat.impression(before.answer_id, "q0", [top.item_id])
        odd = dat.click("q0", "a/b ?#ü")
        dat.retrieve("q0", wait_for=odd.token)
        loop.wait(lambda: dat.status()["index"]["held"] == 1)
        assert dat.item("a/b ?#ü").held == ["unknown"]


def test_placements_and_items(running: Running):
    with Client(running.url) as dat:
        assert len(dat.similar("i3", n=5, where={"genres": "war"}).items) == 5
        session = dat.session(["i1", "i2"], n=5, boost=[{"where": {"genres": "war"}, "by": 0.5}])
        assert (session.source, len(session.items)) == ("session", 5)
        page = dat.retrieve("q0", n=5, paged=True, boost=[{"where": {"genres": "war"}, "by": 0.5}])
        again = dat.retrieve("q0", n=5, next=page.next, boost=[{"where": {"genres": "war"}, "by": 0.5}])
        assert not {item.item_id for item in page.items} & {item.item_id for item in again.items}
        assert dat.patch_item("i7", hidden=True).held == ["hidden"] and dat.put_item("i7").in_index
        dat.put_items([{"item_id": "i7", "available": False}])
        assert dat.item("i7").held == ["unavailable"] and not dat.item("i7").available
        dat.click("to be/forgotten", "i3")
        dat.forget("to be/forgotten")
        assert dat.history("to be/forgotten") == []
        dat.delete_item("i7")
        assert dat.item("i7").held == ["deleted"] and dat.put_item("i7").in_index


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_typescript_client_says_the_same(running: Running, tmp_path: Path):
    script = tmp_path / "try.mjs"
    script.write_text(f"""
        import {{ Client, RequestRefused }} from {json.dumps(str(CLIENTS / "typescript" / "index.js"))};
        const dat = new Client({json.dumps(running.url)}, {{ retries: 1 }});
        const found = await dat.retrieve("q0", {{ n: 3, where: {{ genres: "war" }}, details: true }});
        const similar = await dat.similar("i3", {{ n: 4 }});
        const session = await dat.session(["i1", "i2"], {{ n: 2 }});
        const [one] = await dat.retrieveMany(["q0"], {{ n: 1 }});
        const click = await dat.click("q0", found.items[0].item_id, {{ answer_id: found.answer_id }});
        const hidden = await dat.patchItem("i8", {{ hidden: true }});
        await dat.deleteItem("i8");
        const gone = await dat.forgetQuery("a/b");
        const back = await dat.putItem("i8");
        const refused = await dat.retrieve("q0", {{ n: 5000 }}).catch((problem) => problem);
        const known = refused instanceof RequestRefused ? refused.status : refused.message;
        console.log(JSON.stringify([found.items.length, similar.source, session.source, one.items.length,
                                    click.token, hidden.held, back.in_index, known, gone.status]));
    """)
    done = subprocess.run(["node", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *told, token, held, back, refused, gone = [*json.loads(done.stdout)]
    assert gone == "forgotten"
    assert told == [3, "item", "session", 1] and ":" in token and held == ["hidden"] and back and refused == 422


def test_the_typescript_types_are_of_the_document_that_is_published():
    published = hashlib.sha256((CLIENTS.parent / "docs" / "openapi.json").read_bytes()).hexdigest()
    types = (CLIENTS / "typescript" / "schema.d.ts").read_text()
    assert types.startswith(f"// docs/openapi.json {published}"), "clients/typescript/README.md says how to write them"


def test_the_same_for_asyncio(loop: Running):
    async def run() -> None:
        async with AsyncClient(loop.url) as dat:
            clicked = await dat.click("q1", "i3")
            answer, other = await asyncio.gather(
                dat.retrieve("q1", n=5, wait_for=clicked.token, timeout_ms=10_000), dat.retrieve("q2", n=5)
            )
            assert answer.reached and answer.clicks == 1 and len(other.items) == 5
            with pytest.raises(RequestRefused, match="knows this item"):
                await dat.item("never-seen")

    asyncio.run(run())


def test_what_is_refused_is_raised_with_its_reason_and_not_tried_again(running: Running):
    with Client(running.url) as dat:
        with pytest.raises(RequestRefused, match="less than or equal to 1000") as refused:
            dat.retrieve("q0", n=2_000)
        assert (refused.value.status, refused.value.code) == (422, "not-valid")
        with pytest.raises(RequestRefused, match="knows this item") as missing:
            dat.item("never-seen")
        assert missing.value.status == 404


def test_a_service_that_is_busy_for_a_moment_is_asked_again():
    """Twice it drops the connection, once it says that it is busy; then it answers."""
    replies = [
        b"",
        b"",
        b"HTTP/1.1 503 -\r\nContent-Length: 2\r\nRetry-After: 0\r\nConnection: close\r\n\r\n{}",
        b'HTTP/1.1 200 -\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{"war":4}',
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for reply in replies:
                connection, _ = server.accept()
                connection.recv(10_000)
                connection.sendall(reply)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(f"http://127.0.0.1:{server.getsockname()[1]}") as dat:
            assert dat.categories() == {"war": 4}
        thread.join()
