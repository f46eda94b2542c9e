"""Checks the links of the built site: every target exists, and every anchor is in its page."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_ATTRIBUTES: Final = {"a": "href", "link": "href", "img": "src", "script": "src"}


class _Page(HTMLParser):
    """The anchors of a page and the targets of its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.parts: list[str] = []  # what the browser loads for the page
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.anchors.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        target = attributes.get(_ATTRIBUTES.get(tag, ""))
        if target is not None:
            self.targets.append(target)
            if tag != "a":
                self.parts.append(target)


def check(site: Path) -> list[str]:
    """Return a line for each wrong link of *site*, and for each file that a page would load from elsewhere."""
    pages = {path.resolve(): _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())}: {problem}" for path in pages for problem in _problems(path, pages, site)
    ]


def _problems(path: Path, pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    for target in dict.fromkeys(pages[path].targets):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            if target in pages[path].parts and parts.scheme != "data":
                yield f"{target} would be loaded from elsewhere"
            continue
        if path.name == "404.html":  # served for any path, so its links begin with a slash
            continue
        file = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
        if file.is_dir():
            file /= "index.html"
        if not file.is_relative_to(site.resolve()) or not file.exists():
            yield f"{target} does not exist"
        elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
            yield f"{target} has no such anchor"
