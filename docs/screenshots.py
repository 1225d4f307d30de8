"""The README's pictures, while ``dat demo`` serves: ``.venv/bin/python docs/screenshots.py --url http://127.0.0.1:8000``.

The page of a running service in headless Chromium, before and after a click, on a desktop and on a phone:
``page-before.png``, ``page-after.png``, ``phone-before.png``, ``phone-after.png``.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


def browser(width: int, height: int, dark: bool, profile: str):
    """Chromium with a window of that size."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    return driver


def wait_for(driver, selector: str, timeout_s: float = 15) -> None:
    """Wait until the page shows something.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + timeout_s
    while not driver.execute_script("return document.querySelector(arguments[0])", selector):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the page does not show {selector}")
        time.sleep(0.1)


def main(
    url: Annotated[str, typer.Option(help="The running service.")] = "http://127.0.0.1:8000",
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("docs/images"),
    user: Annotated[str, typer.Option(help="Whose page; by default the one with the latest click.")] = "",
    card: Annotated[int, typer.Option(min=1, max=24, help="Which card is clicked.")] = 5,
    phone: Annotated[bool, typer.Option(help="On a phone as well.")] = False,
) -> None:
    """Take pictures of the page before and after a click."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        raise typer.BadParameter("Chromium is missing: apt-get install chromium chromium-driver")
    out.mkdir(parents=True, exist_ok=True)
    for name, width, height, dark in (("page", 1280, 800, False), ("phone", 390, 844, True))[: 1 + phone]:
        with tempfile.TemporaryDirectory() as profile:
            driver = browser(width, height, dark, profile)
            try:
                driver.get(f"{url}/#{user}")
                wait_for(driver, "#cards .card")
                wait_for(driver, "#night li")
                time.sleep(1)
                driver.save_screenshot(str(out / f"{name}-before.png"))
                driver.execute_script("document.querySelectorAll('.card')[arguments[0]].click()", card - 1)
                wait_for(driver, ".ribbon")
                time.sleep(0.9)  # the cards have come to rest
                driver.save_screenshot(str(out / f"{name}-after.png"))
            finally:
                driver.quit()
    print(f"pictures are in {out}")


if __name__ == "__main__":
    typer.run(main)
