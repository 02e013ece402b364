"""A real browser for tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def running_chromium() -> Iterator[Any]:
    """A browser that reaches no network, driven by Playwright; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next((path for path in BROWSERS if Path(path).exists()), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        )
        yield browser
        browser.close()
