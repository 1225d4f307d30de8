"""The page in a real browser, over the real loop: the click, the change, the errors, the keyboard, the phone."""

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.serving.conftest import Running
from tests.tiny import tiny_bundle
from training.bundle import Shelf

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium: apt-get install chromium chromium-driver"
)
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
        self.loop.wait(self.items, 15)

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
        self.loop.wait(lambda: f"“{title}”" in self.text("#fresh"), 12)
        return title

    def problems(self) -> list[str]:
        """Errors of the browser's console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def page(loop: Running, tmp_path) -> Iterator[Page]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'browser'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield Page(driver, loop)
    driver.quit()


def test_a_click_changes_the_list_and_everything_around_it(page: Page):
    page.open("q0")
    before = page.items()
    assert len(before) == 24 and page.text("h1") == "Top 24 for q0"
    title = page.click_card(1)
    after = page.items()
    assert before[1] not in after and after != before
    assert "counts" in page.text("#fresh") and page.text("#fresh b").endswith(" ms")
    page.loop.wait(lambda: page.history()[:1] == [title])
    assert "clicks folded" in page.text("#source")
    assert page.js("return document.querySelectorAll('#cards .entered, #cards .move:not(:empty)').length") > 0
    page.loop.wait(lambda: page.js("return document.querySelectorAll('#map .was').length") == 1)
    assert page.js("return document.querySelectorAll('#map .item').length") == 60
    page.loop.wait(lambda: "caught up" in page.text("#status"))
    assert not page.problems()


def test_a_user_that_nobody_knows_becomes_one_with_a_list_of_its_own(page: Page):
    page.open("q0")
    page.keys("n")
    page.loop.wait(lambda: page.text("h1").startswith("Top 24 for guest-") and page.items())
    page.loop.wait(lambda: "Nobody knows this user yet" in page.text("#source"))
    page.click_card(0)
    assert page.text("#source") == "From 1 clicks folded into the user's vector, live"
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
    page.loop.wait(lambda: page.text("h1") == "Top 24 for somebody")


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
    page.loop.wait(lambda: page.text("#banner") == "The service does not answer.")
    assert len(page.items()) == 24, "the list stays"


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
    page.loop.wait(lambda: "tiny-1" in page.text("#status"))
    before = page.items()
    Shelf(tmp_path / "bundles").publish(tiny_bundle("tiny-2", queries=6, items=60, seed=1))
    page.loop.wait(lambda: page.text("#banner") == "Bundle tiny-2 is in service now.", 20)
    page.loop.wait(lambda: page.items() != before)
    page.loop.wait(lambda: page.text("#bundle") == "bundle tiny-2")
    assert not page.problems()
