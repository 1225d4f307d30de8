"""The page in a real browser, over the real loop: the click, the change, the errors, the keyboard, the phone."""

import json
import shutil
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from model.bundle_store import BundleStore
from tests.serving.conftest import Running
from tests.tiny import tiny_bundle

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"
)
AXE = Path(__file__).parents[2] / "build" / "tools" / "axe.min.js"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)


class Page:
    """What a person sees and does."""

    def __init__(self, driver, loop: Running):
        self.driver = driver
        self.loop = loop

    def open(self, user: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(f"{self.loop.url}/#{user}")
        self.loop.wait(self.items)

    def items(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('#cards li[data-item]')].map(li => li.dataset.item)")

    def history(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('#history span')].map(span => span.textContent)")

    def text(self, selector: str) -> str:
        return self.js(f"return document.querySelector('{selector}')?.innerText ?? ''")

    def js(self, code: str):
        return self.driver.execute_script(code)

    def keys(self, *names: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*names).perform()

    def click_card(self, at: int) -> str:
        """Click a card; returns its title."""
        from selenium.webdriver.common.by import By

        card = self.driver.find_elements(By.CSS_SELECTOR, ".card")[at]
        title = card.find_element(By.CSS_SELECTOR, ".title").text
        card.click()
        self.loop.wait(lambda: f"“{title}” counts" in self.text("#fresh"), 12)
        return title

    def problems(self) -> list[str]:
        """Errors of the browser's console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    """One Chromium for all tests: each service has an origin of its own, so that nothing is shared."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, loop: Running) -> Iterator[Page]:
    browser.get("about:blank")
    browser.get_log("browser")  # what earlier pages said is not this one's
    yield Page(browser, loop)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_click_changes_the_list_and_everything_around_it(page: Page):
    page.open("q0")
    before = page.items()
    assert len(before) == 24 and page.text("#list-title") == "Recommended for q0 now"
    title = page.click_card(1)
    after = page.items()
    assert before[1] not in after and after != before
    assert "counts" in page.text("#fresh") and page.text("#fresh b").endswith(" ms")
    page.loop.wait(lambda: page.history()[:1] == [title])
    assert "the last one included" in page.text("#source")
    night = page.js("return [...document.querySelectorAll('#night li')].map(li => li.innerText)")
    assert len(night) == 10 and any("clicked" in row or "now #" in row for row in night), (
        "last night's list stays beside it"
    )
    assert page.js("return document.querySelector('#fresh').getBoundingClientRect().bottom") < 300, "it is in sight"
    assert page.js("return document.querySelectorAll('#cards .entered, #cards .move:not(:empty)').length") > 0
    page.loop.wait(lambda: page.text("#pulse").startswith("Live: no click waits"))
    assert not page.problems()


def test_a_user_that_nobody_knows_becomes_one_with_a_list_of_its_own(page: Page):
    page.open("q0")
    page.keys("n")
    page.loop.wait(lambda: page.text("#list-title") == "Recommended for you now" and page.items())
    page.loop.wait(lambda: "nothing is known of this user yet" in page.text("#source"))
    page.loop.wait(lambda: "Click 3 that you like" in page.text("#fresh"))
    page.click_card(0)
    assert page.text("#source") == "From 1 click, the last one included"
    assert "2 more to go" in page.text("#fresh")
    assert not page.problems()


def test_the_keyboard_is_enough(page: Page):
    from selenium.webdriver.common.keys import Keys

    page.open("q2")
    page.js("document.querySelector('.card').focus()")
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    columns = page.js("return getComputedStyle(document.querySelector('#cards')).gridTemplateColumns.split(' ').length")
    at = "return [...document.querySelectorAll('.card')].indexOf(document.activeElement)"
    assert page.js(at) == columns
    focused = page.items()[columns]
    page.keys(Keys.ENTER)
    page.loop.wait(lambda: "counts" in page.text("#fresh"))
    assert focused not in page.items()
    assert page.js(at) == columns, "the focus stays in its place"
    page.keys("/")
    page.keys("somebody", Keys.ENTER)
    page.loop.wait(lambda: page.text("#list-title") == "Recommended for somebody now")


def test_everything_that_can_be_used_has_a_name_for_those_who_cannot_see_it(page: Page):
    page.open("q0")
    page.loop.wait(lambda: page.js("return document.querySelectorAll('#night li').length") == 10)
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "textbox", "combobox", "checkbox", "link", "list", "img", "DisclosureTriangle", "heading"}
    shown = [node for node in nodes if not node.get("ignored") and node.get("role", {}).get("value") in roles]
    nameless = [node["role"]["value"] for node in shown if not node.get("name", {}).get("value")]
    # Lists of text are read out by their items; what can be used must say what it is.
    assert len(shown) > 30 and set(nameless) <= {"list"}, nameless
    first = page.js("const li = document.querySelector('#cards li'); return li.querySelector('.title').innerText")
    cards = [node["name"]["value"] for node in shown if node["name"].get("value", "").startswith("#1 ")]
    assert len(cards) == 1 and first in cards[0] and cards[0].split()[-1] in ("war", "drama", "comedy"), cards


SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


@pytest.mark.slow
def test_axe_finds_nothing_wrong_in_any_state_on_any_screen(page: Page):
    """A new visitor, a click, last night's list, a late stream, an error, a question for a key, the reference."""
    if not AXE.exists():
        pytest.skip("there is no axe: deploy/tools.sh fetches it")
    found = []

    def look(state: str) -> None:
        page.js(AXE.read_text())
        for (size, (width, height)), scheme in product(SIZES.items(), ["light", "dark"]):
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            # What still fades in has no colour of its own yet: let nothing move.
            wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
            features = [{"name": name, "value": value} for name, value in wanted.items()]
            page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            report = page.driver.execute_async_script("axe.run().then(arguments[0])")
            assert report["passes"]
            for one in report["violations"]:
                where = [(node["html"][:100], node["failureSummary"][:200]) for node in one["nodes"][:3]]
                found.append((state, size, scheme, one["impact"], one["id"], where))

    page.open("q0")
    page.keys("n")
    page.loop.wait(lambda: "Click 3 that you like" in page.text("#fresh"))
    look("new visitor")
    page.click_card(0)
    page.loop.wait(lambda: page.text("#pulse").startswith("Live"))
    look("after a click")
    page.open("q0")
    page.click_card(1)
    page.js("document.querySelector('details').open = true")
    page.loop.wait(lambda: page.js("return document.querySelectorAll('#night .out').length"))
    page.loop.wait(lambda: page.text("#status"))
    look("somebody who is known")
    freshness = page.loop.service.freshness
    freshness.close()
    freshness.waiting_ms = {"clicks": 4_000}
    page.loop.wait(lambda: "Clicks have waited for" in page.text("#pulse"))
    look("late")
    page.js("window.fetch = () => Promise.reject(new TypeError('gone'))")
    page.js("document.querySelector('.card').click()")
    page.loop.wait(lambda: page.text("#banner span") and page.text("#pulse") == "The service does not answer.")
    look("an error")
    page.js("document.getElementById('key').hidden = false")
    look("a key is asked for")
    page.driver.get(f"{page.loop.url}/docs")
    page.loop.wait(lambda: page.js("return document.querySelectorAll('details, section, h2').length") > 5)
    look("the reference")
    assert not found, "\n".join(map(str, found))


def test_filters_and_the_replay_chart(page: Page, tmp_path):
    page.open("q4")
    page.js("const s = document.getElementById('category'); s.value = 'war'; s.dispatchEvent(new Event('change'))")
    chips = "return [...document.querySelectorAll('#cards li')].every(li => li.innerText.includes('war'))"
    page.loop.wait(lambda: page.js(chips))
    assert page.js("return document.getElementById('progress').hidden")
    rates = {"hr50": 0.2, "hr100": 0.25, "mrr10": 0.3}
    series = [[10, 0.2, 0.3], [20, 0.25, 0.5]]
    progress = {"sent": 20, "static": rates, "live": {**rates, "hr100": 0.5}, "series": series}
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    page.loop.wait(lambda: not page.js("return document.getElementById('progress').hidden"))
    assert page.text("#live-now") == "50.0 %" and page.text("#static-now") == "25.0 %"
    assert page.js("return document.querySelectorAll('#chart path').length") == 3
    assert not page.problems()


def test_a_service_that_is_gone_is_said(page: Page):
    page.open("q0")
    page.js("window.fetch = () => Promise.reject(new TypeError('gone'))")
    page.js("document.querySelector('.card').click()")
    page.loop.wait(lambda: page.text("#banner span") == "The service does not answer.")
    assert len(page.items()) == 24, "the list stays"


def test_a_failed_click_stays_said_until_a_click_succeeds_or_it_is_closed(page: Page):
    page.open("q0")
    page.js(
        "window.real = window.fetch; window.fetch = (path, options) => options?.method === 'POST' "
        "? Promise.reject(new TypeError('gone')) : window.real(path, options)"
    )
    page.js("document.querySelector('.card').click()")
    page.loop.wait(lambda: page.text("#banner span") == "The service does not answer.")
    polls = page.js("return performance.getEntriesByName(location.origin + '/v1/status').length")
    page.loop.wait(
        lambda: page.js("return performance.getEntriesByName(location.origin + '/v1/status').length") > polls + 2
    )
    assert not page.js("return document.getElementById('banner').hidden")
    page.js("document.querySelector('#banner button').click()")
    assert page.js("return document.getElementById('banner').hidden")


def test_a_stray_percent_in_the_address_shows_a_list(page: Page):
    page.driver.get("about:blank")
    page.driver.get(f"{page.loop.url}/#%E0%A4%A")
    page.loop.wait(page.items)
    assert not page.problems()


@pytest.mark.flaky(reruns=2)
def test_waiting_clicks_and_a_dead_service_are_on_the_page_within_two_seconds(page: Page):
    page.open("q0")
    page.loop.wait(lambda: page.text("#pulse").startswith("Live"))
    freshness = page.loop.service.freshness
    freshness.close()
    freshness.waiting_ms = {"clicks": 4_000}
    began = time.monotonic()
    page.loop.wait(lambda: "Clicks have waited for" in page.text("#pulse"))
    assert time.monotonic() - began < 3  # two seconds, and one for a machine that tests keep busy
    page.js("window.fetch = () => Promise.reject(new TypeError('gone'))")
    page.loop.wait(lambda: page.text("#pulse") == "The service does not answer.")


def test_the_checkbox_begins_as_the_bundle_was_trained(page: Page):
    page.open("q0")
    assert page.js("return document.getElementById('seen').checked")
    manifest = page.loop.service.snapshot.bundle.manifest
    manifest.excludes_seen = False
    page.open("q2")
    page.loop.wait(lambda: not page.js("return document.getElementById('seen').checked"))


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_a_phone(page: Page, width):
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    page.open("q0")
    assert page.js("return document.documentElement.scrollWidth") <= width
    page.click_card(0)
    assert page.js("return document.documentElement.scrollWidth") <= width


def test_a_swap_is_seen_as_it_happens(page: Page, tmp_path):
    page.open("q0")
    page.loop.wait(lambda: page.text("#bundle") == "bundle tiny-1")
    before = page.items()
    BundleStore(tmp_path / "bundles").publish(tiny_bundle("tiny-2", queries=6, items=60, seed=1))
    page.loop.wait(lambda: page.text("#banner span") == "Bundle tiny-2 is in service now.", 20)
    page.loop.wait(lambda: page.items() != before)
    page.loop.wait(lambda: page.text("#bundle") == "bundle tiny-2")
    assert not page.problems()
