"""Debian's chromium, steered by Selenium; nothing is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

with suppress(ImportError):  # an extra; without it there is no browser
    from selenium import webdriver
    from selenium.webdriver import ActionChains
    from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

NONE = "" if CHROMIUM and DRIVER else "chromium and chromium-driver are not installed"
"""Why there is no browser; empty where there is one."""


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser, until the end of the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """What the tests do with it.

    :param driver: Selenium's.
    """

    def __init__(self, driver: object) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)  # type: ignore[attr-defined]

    def run(self, script: str) -> object:
        """The value of an expression in JavaScript."""
        return self.driver.execute_script(f"return {script}")  # type: ignore[attr-defined]

    def press(self, key: str) -> None:
        """Press a key, at whatever has the focus."""
        ActionChains(self.driver).send_keys(key).perform()  # type: ignore[arg-type]

    def emulate(self, width: int, *, dark: bool) -> None:
        """A window of that width, in one of the themes."""
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._command("Emulation.setEmulatedMedia", {"features": theme})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._command("Emulation.setDeviceMetricsOverride", size)

    def without_scripts(self, off: bool) -> None:
        """Whether scripts run on pages that are opened from now on."""
        self._command("Emulation.setScriptExecutionDisabled", {"value": off})

    def _command(self, name: str, parameters: dict[str, object]) -> None:
        self.driver.execute_cdp_cmd(name, parameters)  # type: ignore[attr-defined]

    def complaints(self) -> list[str]:
        """What it has logged since it was last asked."""
        return [each["message"] for each in self.driver.get_log("browser")]  # type: ignore[attr-defined]
