"""The pages that scopeguard itself shows pass axe-core on a phone, in light and in dark colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest

from scopeguard import OPTIONAL, Guard, Issuer, Rule, ScopeCatalog, all_of, any_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.audit.findings import audit_app
from scopeguard.audit.page import as_html
from scopeguard.audit.report import Provenance
from scopeguard.devserver import Authority, Client, DevServer
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.edge.listener import listen
from scopeguard.testing import FakeAuthority
from website import accessibility

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CALLBACK = "http://127.0.0.1:8000/docs/oauth2-redirect"
REQUEST = {
    "response_type": "code", "client_id": "swagger", "redirect_uri": CALLBACK, "scope": "rows.read rows.write",
    "state": "1", "code_challenge": "c" * 43, "code_challenge_method": "S256",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("axe")


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


@pytest.fixture(scope="module")
def devserver() -> Iterator[str]:
    """Yield the URL of a development server with a client for its login page."""
    authority = Authority(
        audience="https://api.example",
        clients=[
            Client(client_id="swagger", scopes=["rows.read", "rows.write"], redirect_uris=[CALLBACK],
                   auth_methods=["none"]),
            Client(client_id="robot", secret="a password", scopes=["rows.read"]),
        ],
        subjects=["bob", "alice"],
        catalog=ScopeCatalog(descriptions={"rows.read": "Read rows", "rows.write": ""}),
    )  # fmt: skip
    with DevServer(authority) as server:
        yield server.url


@pytest.fixture(scope="module")
def debug_page() -> Iterator[str]:
    """Yield the URL of a debug page with an accepted, a refused and an undecided request."""
    authority = FakeAuthority()
    guard = Guard(
        authority.issuer, transport=authority.transport, clock=authority.clock, refusal_log="off", audit="off",
        rules=[Rule("/rows", all_of("rows.read"))],
    )  # fmt: skip
    listener = listen("127.0.0.1", 0)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Serving(GuardMiddleware(_app, guard=guard, debug=True), listener), httpx.Client(trust_env=False) as client:
        for scope in ("rows.read", "other"):
            client.get(f"{base}/rows", headers={"authorization": f"Bearer {authority.mint(scope)}"})
        with authority.outage():
            authority.rotate(overlap=False)
            client.get(f"{base}/rows", headers={"authorization": f"Bearer {authority.mint('rows.read')}"})
        yield f"{base}/_scopeguard"


@pytest.fixture(scope="module")
def audit_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of an audit page with routes and with errors and warnings."""
    rules = [Rule(f"/rows/{number}", any_of("rows.read", f"rows.{number}")) for number in range(20)]
    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"))
    report = audit_app(
        GuardMiddleware(_app, guard=guard, rules=[*rules, rules[3], Rule("/open", OPTIONAL)]), target="app"
    )
    assert report.errors
    assert report.warnings
    made = Provenance(day="2026-11-29", version="1.0", configuration="etc/guard.toml")
    file: Path = tmp_path_factory.mktemp("audit") / "audit.html"
    file.write_text(as_html(replace(report, provenance=made)), "utf-8")
    return file.as_uri()


@pytest.fixture(params=["light", "dark"])
def phone(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Any]:
    """Yield a page of 390 pixels in one of the two colour schemes."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=request.param, reduced_motion="reduce")
    page.set_default_timeout(20_000)
    yield page
    page.close()


def test_login_page_is_accessible(phone: Any, devserver: str):
    phone.goto(f"{devserver}/authorize?{urlencode(REQUEST)}")
    assert phone.get_by_text("Read rows").is_visible()
    assert accessibility.problems_of(phone) == []


def test_error_of_the_login_page_is_accessible(phone: Any, devserver: str):
    phone.goto(f"{devserver}/authorize?{urlencode({**REQUEST, 'client_id': 'unknown'})}")
    assert accessibility.problems_of(phone) == []


def test_start_page_of_the_development_server_is_accessible(phone: Any, devserver: str):
    phone.goto(devserver)
    assert phone.get_by_text("robot").first.is_visible()
    assert accessibility.problems_of(phone) == []


def test_debug_page_is_accessible(phone: Any, debug_page: str):
    phone.goto(debug_page)
    phone.locator("ol li").nth(2).wait_for()
    for summary in phone.locator("ol summary").all():
        summary.click()
    assert accessibility.problems_of(phone) == []


def test_audit_page_is_accessible(phone: Any, audit_page: str):
    phone.goto(audit_page)
    assert phone.locator(".findings").is_visible()
    assert accessibility.problems_of(phone) == []
