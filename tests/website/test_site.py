"""The documentation site: it builds without a warning, is complete, and is readable for everyone."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from documentation import MANUAL
from environment import ROOT, skip_or_fail
from website import accessibility, links, llms, pages, pictures, reference, samples
from website.docstrings import as_markdown

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def site() -> Path:
    if find_spec("zensical") is None:
        skip_or_fail("no zensical: the extra docs installs it")
    from website.__main__ import build

    return build()


# -- complete


def test_navigation_has_every_page(tmp_path: Path):
    target = tmp_path / "docs"
    staged = {*pages.stage(target), *reference.write(target), samples.write(target)}
    shown = [name for _, names in llms.navigation() for name in names]
    assert len(shown) == len(set(shown))
    linked = {name for name in staged if name.startswith("decisions/")} - {"decisions/index.md"}
    assert set(shown) == staged - linked


@pytest.fixture(scope="module")
def anchors(site: Path) -> set[str]:
    """Every ``id`` of the API reference."""
    pages = (site / reference.FOLDER).rglob("*.html")
    return {anchor for page in pages for anchor in re.findall(r' id="([^"]+)"', page.read_text("utf-8"))}


@pytest.mark.parametrize("module", ["scopeguard", *reference.MODULES])
def test_every_public_name_has_its_entry(anchors: set[str], module: str):
    names = reference.public_names(importlib.import_module(module))
    assert names
    for name in names:
        assert f"{module}.{name}" in anchors, name


def test_entry_of_a_class_of_settings_shows_the_arguments_of_its_constructor(site: Path):
    """They are fields: the site must recognise the decorator of the class."""
    texts = (re.sub(r"<[^>]+>", "", path.read_text("utf-8")) for path in (site / reference.FOLDER).rglob("*.html"))
    assert any(re.search(r"KeySetPolicy\(\s*\*,\s*ttl: float = ", text) for text in texts)


def test_list_for_language_models_names_every_page_once(site: Path):
    text = (site / "llms.txt").read_text("utf-8")
    assert text.startswith("# scopeguard\n\n> ")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [t for t, _ in llms.navigation()]
    entries = re.findall(r"^- \[(.+?)\]\((.+?)\): (.+)$", text, re.MULTILINE)
    assert len(entries) == sum(len(names) for _, names in llms.navigation()) == text.count("\n- ")
    for title, target, sentence in entries:
        assert (site / target).exists(), title
        assert len(sentence) > 10, title


def test_each_provider_has_a_decoded_token(site: Path):
    text = (site / "reference" / "tokens" / "index.html").read_text("utf-8")
    assert {sample["provider"] for sample in samples.samples()} == set(samples.TITLES)
    for title in samples.TITLES.values():
        assert f">{title}<a" in text, title
    assert text.count("<pre>") == len(samples.samples())


# -- links


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A site of two pages without a wrong link."""
    (tmp_path / "a").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"></h1><a href="a/#here">x</a><a href="https://x.test">y</a>', "utf-8"
    )
    (tmp_path / "a" / "index.html").write_text('<p id="here"><a href="../#top">x</a><img src="data:,"></p>', "utf-8")
    return tmp_path


def test_links_of_the_site_are_checked(small: Path):
    assert links.check(small) == []


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="b/">', "b/ does not exist"),
        ('<a href="a/#there">', "a/#there has no such anchor"),
        ('<a href="#down">', "#down has no such anchor"),
        ('<a href="../outside.html">', "../outside.html does not exist"),
        ('<img src="picture.svg">', "picture.svg does not exist"),
        ("<h3>b</h3>", "a heading of level 3 follows one of level 1"),
        ("<table><tr><th></th><th>a</th></tr></table>", "a table has a column without a heading"),
        ('<script src="https://cdn.test/x.js"></script>', "https://cdn.test/x.js would be loaded from elsewhere"),
    ],
)
def test_wrong_link_is_a_problem(small: Path, html: str, problem: str):
    with (small / "index.html").open("a", encoding="utf-8") as page:
        page.write(html)
    assert links.check(small) == [f"index.html: {problem}"]


def test_link_of_a_page_to_a_file_outside_of_the_site_is_an_error():
    source = pages.DOCS / "index.md"
    text = "[a](../CONTRIBUTING.md#x) [b](guides/flask.md) [c](#here) [d](https://x.test)\n    [code](../Makefile)\n"
    assert pages.rewrite(text, source, "index.md") == text.replace("../CONTRIBUTING.md", "contributing.md")
    assert "../examples/mcp.md" in pages.rewrite(
        "[a](../../examples/mcp/README.md)", pages.DOCS / "guides/mcp.md", "guides/mcp.md"
    )
    with pytest.raises(ValueError, match=r"docs/index.md: \.\./Makefile leads to no page"):
        pages.rewrite("[a](../Makefile)", source, "index.md")


# -- docstrings


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("A :class:`Guard` checks.", "A [`Guard`][scopeguard.Guard] checks."),
        (
            "See :class:`~scopeguard.spec.challenge.ChallengeStyle`.",
            "See [`ChallengeStyle`][scopeguard.ChallengeStyle].",
        ),
        ("With :meth:`warm`.", "With [`warm`][scopeguard.Guard.warm]."),
        ("From :mod:`scopeguard.core.engine`.", "From `scopeguard.core.engine`."),
        ("A :class:`policy <scopeguard.mcp.McpPolicy>`.", "A [`policy`][scopeguard.mcp.McpPolicy]."),
        ("As in docs/guides/mcp.md.", "As in [docs/guides/mcp.md](../../guides/mcp.md)."),
        ("Use it::\n\n    x = 1", "Use it:\n\n    x = 1"),
        ("Use it.\n\n::\n\n    x = 1", "Use it.\n\n\n    x = 1"),
        (">>> 1 + 1\n2\n\nEnd.", "```pycon\n>>> 1 + 1\n2\n```\n\nEnd."),
        (">>> 1 + 1\n2", "```pycon\n>>> 1 + 1\n2\n```"),
    ],
)
def test_docstrings_become_markdown(text: str, markdown: str):
    assert as_markdown(text, "scopeguard.guard.Guard") == markdown


def test_no_markup_of_docstrings_is_left(site: Path):
    for path in (site / reference.FOLDER).rglob("*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r":(class|meth|func|attr|mod|data|exc):", text), path
        assert "::</p>" not in text, path
        plain = re.sub(r"<[^>]+>", "", text)
        assert "Converted[" not in plain, path
        assert "converted(" not in plain, path


def test_url_of_an_issuer_is_shown_as_positional(site: Path):
    text = re.sub(r"<[^>]+>", "", (site / reference.FOLDER / "issuers" / "index.html").read_text("utf-8"))
    assert re.search(r"Issuer\(\s*url: str,\s*\*,", text)


def test_every_list_is_rendered_as_one(site: Path):
    """Python-Markdown needs an empty line before a list, and four spaces before a paragraph in it; GitHub does not."""
    for path in site.rglob("index.html"):
        for paragraph in re.findall(r"<p>(.*?)</p>", path.read_text("utf-8"), re.DOTALL):
            assert not re.search(r"\n\s*\* ", paragraph), f"{path.relative_to(site)}: {paragraph[:200]}"


# -- pictures


def test_every_diagram_has_its_picture():
    found = list(pictures.diagrams())
    assert len(found) == sum(text.count("```mermaid") for text in MANUAL.values())
    assert [diagram.name for diagram in found if not diagram.is_drawn] == []  # make pictures
    assert {path.name for path in pictures.FOLDER.glob("*.svg")} == {diagram.path.name for diagram in found}
    assert len({diagram.name for diagram in found}) == len(found)


# -- readable

READ = ("", "settings/", "guides/fastapi/", "decision/", "reference/api/guard/")  # make docs-check looks at all


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with accessibility.serve(site) as base:
        yield base


@pytest.mark.usefixtures("axe")
@pytest.mark.parametrize("path", READ)
def test_page_is_accessible_and_fits_a_phone(browser: Browser, address: str, path: str):
    assert accessibility.examine(browser, address, path, 390, "light") == []


@pytest.mark.usefixtures("axe")
def test_page_is_accessible_in_dark_colours(browser: Browser, address: str):
    assert accessibility.examine(browser, address, "settings/", 1280, "dark") == []


@pytest.mark.usefixtures("axe")
def test_inaccessible_page_is_a_problem(browser: Browser, tmp_path: Path):
    bad = '<html><body><h1>a</h1><h3>b</h3><img src="x"><p style="color: #ccc">a faint line</p>'
    bad += '<p style="width: 2000px">d</p></body></html>'
    (tmp_path / "index.html").write_text(bad, "utf-8")
    with accessibility.serve(tmp_path) as base:
        problems = accessibility.examine(browser, base, "", 390, "light")
    text = "\n".join(problems)
    for word in ("scrolls sideways", "color-contrast", "heading-order", "image-alt", "html-has-lang"):
        assert word in text


def test_commands_are_those_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for module in ("website", "website.accessibility", "website.pictures"):
        assert f"python -m {module}\n" in makefile
