"""The HTML page: names of routes cannot inject markup, and a browser shows the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scopeguard import Guard, Issuer, Rule, all_of, any_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.audit.findings import audit_app
from scopeguard.audit.page import as_html
from scopeguard.audit.report import Code, Entry, Finding, Kind, Provenance, Report, Severity
from scopeguard.audit.text import as_markdown, as_table
from shared_page import SharedPage

ATTACKS = [
    "<script>window.broken=1</script>",
    '"><img src=x onerror=window.broken=1>',
    "'-alert(1)-'",
    "</style><script>window.broken=1</script>",
    "</title><svg onload=window.broken=1>",
    "&lt;b&gt;&amp;",
    "\u202etxt.evil\u2066",
    "\x1b[31m\x07\x00\r\nX",
    "{{7*7}}${7*7}",
    "javascript:alert(1)",
]


def hostile_report() -> Report:
    """A report in which each text is an injection."""
    attack = " ".join(ATTACKS)
    guard = Guard(Issuer("https://auth.example.com/a'b", audience="a"), realm="<i>'realm'")
    return Report(
        target=attack,
        entries=tuple(
            Entry(
                method=text,
                path=f"/{text}",
                kind=kind,
                alternatives=(frozenset({"<b>", "'>&"}), frozenset({"b"})) if kind is Kind.SCOPES else (),
                sources=(text,),
                declared=(text,),
                by_default=True,
                exceptions=(text,),
                endpoint=text,
                opaque=True,
            )
            for text in ATTACKS
            for kind in Kind
        ),
        findings=tuple(
            Finding(severity=severity, code=Code.UNGUARDED, where=f"GET /{text}", message=text, fix=text)
            for severity in Severity
            for text in ATTACKS
        ),
        guards=(guard,),
        provenance=Provenance(day=attack, version=attack, configuration=attack),
    )


class Elements(HTMLParser):
    """Collect the elements and attributes of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.attributes: set[str] = set()
        self.urls: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes |= {name for name, _ in attrs}
        self.urls += [value for name, value in attrs if name in ("src", "href", "action")]


def test_names_from_an_app_are_escaped():
    page = as_html(hostile_report())
    read = Elements()
    read.feed(page)
    assert (read.tags["script"], read.tags["style"], read.tags["title"]) == (1, 1, 1)
    assert not {"img", "svg", "b" + "r", "link", "iframe", "base", "object", "form", "a"} & set(read.tags)
    assert read.urls == []
    assert not {name for name in read.attributes if name.startswith("on") or name == "style"}
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", page)


def test_page_loads_nothing_and_its_policy_forbids_it():
    page = as_html(hostile_report())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; script-src 'sha256-[\w+/=]{44}'; base-uri 'none'", policy
    )
    assert "url(" not in page
    assert "@import" not in page


def test_text_and_markdown_write_no_control_characters_and_no_markup():
    report = hostile_report()
    for text in (as_table(report), as_markdown(report)):
        assert not re.search("[^\n\x20-\x7e]", text)
    markdown = as_markdown(report)
    assert "<script" not in markdown.replace("\\<script", "")
    rows = [line for line in markdown.splitlines() if line.startswith("| ") and "---" not in line]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


def test_routes_for_which_nothing_is_declared_are_listed_once_for_all_methods():
    found = [Entry(method=method, path="/me", kind=Kind.AUTHENTICATED, by_default=True) for method in ("GET", "POST")]
    other = Entry(method="GET", path="/rows", kind=Kind.AUTHENTICATED, declared=("rule /rows",))
    report = Report(target="app:app", entries=(*found, other), findings=())
    message = "nothing declares what these routes require, so every client with a token for this API may call them"
    assert f"\n\nany valid token\n  GET,POST /me\n      {message}\n      name their scopes; or" in as_table(report)
    assert "## Any valid token\n\nnothing declares" in as_markdown(report)
    assert "\n* GET,POST /me\n\n## Routes" in as_markdown(report)
    page = as_html(report)
    assert '<h2 id="any-token">Any valid token</h2>' in page
    assert "<code>GET,POST /me</code>" in page
    without = Report(target="app:app", entries=(other,), findings=())
    for text in (as_table(without), as_markdown(without), as_html(without)):
        assert "nothing declares" not in text


def test_a_route_with_conditions_shows_them():
    condition = "signed in within 300 s"
    routes = [
        Entry(method="GET", path="/both", kind=Kind.SCOPES, alternatives=(frozenset({"pay", condition}),)),
        Entry(method="GET", path="/only", kind=Kind.SCOPES, alternatives=(frozenset({condition}),)),
    ]
    page = as_html(Report(target="app", entries=tuple(routes), findings=()))
    assert f"<li>pay + {condition}</li>" in page
    assert f"<li>{condition}</li>" in page
    assert '<span class="kind">1 scope, conditions</span>' in page
    assert '<span class="kind">conditions</span>' in page
    assert page.count('<th scope="col" class="scope"') == 1


@pytest.mark.parametrize(
    ("file", "named"), [("etc/guard.toml", "<code>etc/guard.toml</code>"), (None, "that of the app")]
)
def test_page_names_its_date_the_version_and_the_configuration(file: str | None, named: str):
    made = Provenance(day="2026-11-29", version="1.2.3", configuration=file)
    page = as_html(Report(target="app", entries=(), findings=(), provenance=made))
    line = f'<time datetime="2026-11-29">2026-11-29</time> · scopeguard 1.2.3 · configuration: {named}</p>'
    assert page.count(line) == 1
    assert 'class="provenance"' not in as_html(Report(target="app", entries=(), findings=()))


def open_page(shared: SharedPage, report: Report, folder: Path, **options: Any) -> tuple[Any, list[str]]:
    """Open the page of *report*; return it with the errors and the requests of the browser."""
    file = folder / "audit.html"
    file.write_text(as_html(report), "utf-8")
    return shared.open(file.as_uri(), file.as_uri(), **options), shared.trouble


def test_browser_runs_no_injected_code(shared_page: SharedPage, tmp_path: Path):
    page, trouble = open_page(shared_page, hostile_report(), tmp_path)
    assert page.evaluate("window.broken") is None
    assert page.locator("tbody tr code.path").first.text_content() == f"/{ATTACKS[0]}"
    assert trouble == []


def a_large_api() -> Report:
    async def opaque(scope: Any, receive: Any, send: Any) -> None: ...

    rules = [
        Rule(f"/{name}/{{id}}", any_of(f"{name}.read", f"{name}.admin") if number % 2 else all_of(f"{name}.write"))
        for number, name in ((number, f"thing{number % 20}.part{number}") for number in range(100))
    ]
    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))
    return audit_app(GuardMiddleware(opaque, guard=guard, rules=[*rules, rules[3]]), target="large")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_large_matrix_is_readable(shared_page: SharedPage, tmp_path: Path, scheme: str):
    page, trouble = open_page(shared_page, a_large_api(), tmp_path, scheme=scheme, size=(1400, 900))
    rows = page.locator(".scroll tbody tr:visible").filter(has=page.locator(".method"))
    assert rows.count() == 101
    assert rows.first.locator(".tag").text_content() == "error"  # errors first
    # The page itself does not scroll sideways; the matrix does, below its header and beside its routes.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.querySelector('.scroll').scrollTo(2000, 2000)")
    for place in ("thead th.scope >> nth=60", "tbody tr >> nth=60 >> th"):
        box, frame = page.locator(place).bounding_box(), page.locator(".scroll").first.bounding_box()
        assert box["y"] >= frame["y"] - 1 or "tbody" in place
        assert box["x"] >= frame["x"] - 1
    page.fill("#filter", "thing3.part3 read")
    assert rows.count() == 1
    assert page.locator("#shown").text_content() == "1 of 101 routes"
    assert page.locator("thead th.scope:visible").count() == 2
    page.fill("#filter", "")
    assert rows.count() == 101
    assert trouble == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screen_shows_scopes_as_text(shared_page: SharedPage, tmp_path: Path, scheme: str):
    page, trouble = open_page(shared_page, a_large_api(), tmp_path, scheme=scheme, size=(390, 844))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("thead th.scope:visible").count() == 0
    needs = page.locator("td.access .needs:visible")
    assert "thing3.part3.read or thing3.part3.admin" in needs.all_text_contents()
    frame, row = page.locator(".scroll").first.bounding_box(), page.locator("tbody tr:has(.needs)").first
    box = row.locator(".needs").bounding_box()
    assert frame["x"] <= box["x"]
    assert box["x"] + box["width"] <= frame["x"] + frame["width"]
    assert row.bounding_box()["height"] < 160
    assert trouble == []


def test_message_of_several_findings_is_shown_once():
    findings = tuple(
        Finding(severity=Severity.ERROR, code=code, where=f"GET /{number}", message=message, fix="mend it")
        for code, number, message in (
            *((Code.UNGUARDED, number, "nothing guards it") for number in range(3)),
            *((Code.SHADOWED_RULE, number, f"rule {number} is dead") for number in range(2)),
        )
    )
    page = as_html(Report(target="app", entries=(), findings=findings, guards=()))
    assert page.count("othing guards it") == 1
    assert '<p>Nothing guards it.</p><p class="fix">Mend it.</p>' in page
    assert [page.count(f" rule {number} is dead") for number in range(2)] == [1, 1]


def test_printed_page_is_complete(shared_page: SharedPage, tmp_path: Path):
    page, trouble = open_page(shared_page, a_large_api(), tmp_path)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).maxHeight") == "none"
    assert not page.locator("#filter").is_visible()
    assert page.locator("tbody tr:visible").filter(has=page.locator(".method")).count() == 101
    assert trouble == []


def test_table_cells_have_names_for_screen_readers():
    page = as_html(a_large_api())
    assert page.count('<th scope="row">') == 101 + 150
    assert '<html lang="en">' in page
    assert "<caption>" in page
    assert page.count('<i class="dot all"></i><span class="unseen">required</span>') == 50
