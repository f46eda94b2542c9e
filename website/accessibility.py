"""``python -m website.accessibility``: look at every page of the built site with axe-core in Chromium.

Checked: what a program can check of WCAG 2.2 A and AA, the order of headings and other good practice; that no page
scrolls sideways in a window of 390 pixels; and that none loads a file from elsewhere.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from website.pages import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE: Final = ROOT / "tests" / "peers" / "node" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS: Final = (390, 1280)
# Nested parts of the navigation of the theme share their names.
_RUN: Final = "axe.run(document, { resultTypes: ['violations'], rules: { 'landmark-unique': { enabled: false } } })"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the standard library
        """Write nothing."""


@contextmanager
def serve(site: Path) -> Iterator[str]:
    """Serve *site* on a loopback port. The value is its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the Chromium of the system."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


def examine(browser: Browser, base: str, path: str, width: int, scheme: Any) -> list[str]:
    """Return the problems of the page *path* of the site at *base*, in a window of *width* pixels."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    foreign: list[str] = []
    page.on("request", lambda request: None if request.url.startswith((base, "data:")) else foreign.append(request.url))
    try:
        page.goto(base + path, wait_until="load")
        found = problems_of(page)
    finally:
        page.close()
    where = f"{path or 'index'} ({width} px, {scheme})"
    return [f"{where}: {problem}" for problem in [*(f"loads {url}" for url in foreign), *found]]


def problems_of(page: Page) -> list[str]:
    """Return the problems of *page* as it is shown now."""
    problems: list[str] = []
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate(_RUN)["violations"]
    if wide > 0:
        problems.append(f"scrolls sideways by {wide} px")
    for rule in found:
        html = " ".join(rule["nodes"][0]["html"].split())[:200]
        problems.append(f"{rule['id']} ({len(rule['nodes'])} places, as {html}): {rule['help']}")
    return problems


def paths(site: Path) -> list[str]:
    """Return the pages of *site* that people read."""
    found = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))
    return ["" if path == "." else f"{path}/" for path in found]


def check(site: Path, which: Iterable[str]) -> list[str]:
    """Return the problems of the pages *which* of *site*, in both widths and both colour schemes."""
    problems: list[str] = []
    with serve(site) as base, chromium() as browser:
        for path in which:
            for width, scheme in zip(WIDTHS, ("light", "dark"), strict=True):
                problems += examine(browser, base, path, width, scheme)
    return problems


if __name__ == "__main__":
    from website.__main__ import build

    built = build()
    wrong = check(built, paths(built))
    print(*wrong, f"{len(paths(built))} pages, {len(wrong)} problems", sep="\n")
    sys.exit(bool(wrong))
