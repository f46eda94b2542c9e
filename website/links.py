"""Checks the built site: every link has its target, no heading skips a level, and no column lacks a heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
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
        self.levels: list[int] = []  # of the headings, in their order
        self.nameless = 0  # empty cells in the heads of tables
        self._in_empty_head = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self._in_empty_head = tag == "th"
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.anchors.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        target = attributes.get(_ATTRIBUTES.get(tag, ""))
        if target is not None:
            self.targets.append(target)
            if tag != "a":
                self.parts.append(target)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self._in_empty_head = False

    def handle_endtag(self, tag: str) -> None:
        if tag == "th" and self._in_empty_head:
            self.nameless += 1
        self._in_empty_head = False


def check(site: Path) -> list[str]:
    """Return a line for each wrong link of *site*, each file that a page would load from elsewhere, and the like."""
    pages = {path.resolve(): _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())}: {problem}" for path in pages for problem in _problems(path, pages, site)
    ]


def _problems(path: Path, pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    if pages[path].nameless:
        yield "a table has a column without a heading"
    for above, below in pairwise(pages[path].levels):
        if below > above + 1:
            yield f"a heading of level {below} follows one of level {above}"
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
