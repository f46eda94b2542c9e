"""``python -m website.pictures``: draw the Mermaid diagrams of the pages into docs/pictures, with Chromium.

A comment above each diagram gives the name of the picture and its description::

    <!-- picture: steps: The steps of a decision, from the request to the response. -->

The site shows the pictures, so that a reader's browser runs no Mermaid. A picture contains a digest of its diagram, by
which a test finds one that is out of date.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from website.pages import DIAGRAM, DOCS, ROOT

FOLDER: Final = DOCS / "pictures"
_VERSION: Final = "12.3.0"
_SETTINGS: Final = """{
    startOnLoad: false, theme: "neutral", fontFamily: "sans-serif",
    flowchart: { useMaxWidth: false, nodeSpacing: 24, rankSpacing: 32 }, sequence: { useMaxWidth: false },
}"""


@dataclass(frozen=True, slots=True)
class Diagram:
    """A diagram of a page."""

    page: Path
    name: str
    description: str
    source: str

    @property
    def digest(self) -> str:
        """The digest of its source, as in the picture."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def path(self) -> Path:
        """The file of the picture."""
        return FOLDER / f"{self.name}.svg"

    @property
    def is_drawn(self) -> bool:
        """True if the picture is that of the present source."""
        return self.path.exists() and f"<!-- {self.digest} -->" in self.path.read_text("utf-8")


def diagrams() -> Iterator[Diagram]:
    """Yield the diagrams of all pages."""
    for page in sorted(DOCS.rglob("*.md")):
        for name, description, source in DIAGRAM.findall(page.read_text("utf-8")):
            yield Diagram(page, name, " ".join(description.split()), source)


def _library() -> str:
    """Return the source of Mermaid, which npm fetches once."""
    folder = ROOT / "build" / "mermaid"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"mermaid-{_VERSION}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", f"mermaid@{_VERSION}"], cwd=folder, check=True)
    member = "package/dist/mermaid.min.js"
    subprocess.run(["tar", "-xzf", archive.name, member], cwd=folder, check=True)
    return (folder / member).read_text("utf-8")


def draw() -> None:
    """Draw the pictures that are missing or out of date, and remove those without a diagram."""
    from playwright.sync_api import sync_playwright

    found = list(diagrams())
    FOLDER.mkdir(exist_ok=True)
    for path in set(FOLDER.glob("*.svg")) - {diagram.path for diagram in found}:
        path.unlink()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content("<!doctype html><body></body>")
        page.add_script_tag(content=_library())
        page.evaluate(f"mermaid.initialize({_SETTINGS})")
        for diagram in (each for each in found if not each.is_drawn):
            svg: str = page.evaluate("async (source) => (await mermaid.render('diagram', source)).svg", diagram.source)
            diagram.path.write_text(f"<!-- {diagram.digest} -->\n{svg}\n", "utf-8")
            print(diagram.path.relative_to(ROOT), file=sys.stderr)
        browser.close()


if __name__ == "__main__":
    draw()
