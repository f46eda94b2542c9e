"""Writes ``llms.txt``: a list of all pages with a sentence about each, for language models (llmstxt.org).

The pages themselves lie beside it as Markdown.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from website.pages import ROOT


def navigation() -> list[tuple[str, list[str]]]:
    """Return the sections of the navigation with their pages, in their order."""
    nav = tomllib.loads((ROOT / "website" / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    return [(title, list(_pages(inside))) for section in nav for title, inside in section.items()]


def _pages(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for inner in value:
                yield from _pages(inner)
        case dict():
            for inner in value.values():
                yield from _pages(inner)


def write(site: Path, docs: Path) -> None:
    """Write the list into *site*, and copy the Markdown of the pages in *docs* there."""
    lines = ["# scopeguard", "", f"> {_description()}", ""]
    for title, names in navigation():
        lines += [f"## {title}", ""]
        for name in names:
            text = (docs / name).read_text("utf-8")
            heading, sentence = _summary(text)
            target = name
            if "\n:::" in text:  # generated from docstrings, so only the built page has the text
                target = name.removesuffix(".md") + "/index.html"
            else:
                (site / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(docs / name, site / name)
            lines.append(f"- [{heading}]({target}): {sentence}")
        lines.append("")
    (site / "llms.txt").write_text("\n".join(lines), "utf-8")


def _description() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    description: str = project["description"]
    return description


def _summary(text: str) -> tuple[str, str]:
    """Return the heading of a page and the first sentence after it."""
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    if heading is None:
        raise ValueError(f"a page without a heading: {text[:80]!r}")
    rest = re.sub(
        r"^(````.*?^````|```.*?^```|!\[.*?|    .*?|#.*?|\|.*?|<!--.*?-->)$",
        "",
        text[heading.end() :],
        flags=re.DOTALL | re.MULTILINE,
    )
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(rest.split()).replace("**", ""))
    sentence = re.match(r".+?[.](?= |$)", plain)
    return heading[1].replace("`", ""), (sentence[0] if sentence else plain).rstrip(":")
