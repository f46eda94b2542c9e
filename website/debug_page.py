"""``python -m website.debug_page``: send requests to an app and save its debug page as docs/pictures/debug-page.png."""

from __future__ import annotations

import shutil
import sys
from typing import Any, Final

import httpx

from scopeguard import Guard, Rule, Rules, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.edge.listener import listen
from scopeguard.testing import FakeAuthority
from website.pages import DOCS, ROOT

PICTURE: Final = DOCS / "pictures" / "debug-page.png"
ROWS: Final = "/tables/stations/rows"


async def _app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def _send_requests(url: str, authority: FakeAuthority) -> None:
    """Send requests of which some are refused."""
    with httpx.Client(base_url=url, trust_env=False) as client:
        both = authority.bearer("rows.read rows.write", client_id="loader", subject="alice")
        reader = authority.bearer("rows.read", client_id="dashboard")
        for headers in (*[both] * 24, *[reader] * 8):
            client.get(ROWS, headers=headers)
        client.get(ROWS)
        client.get(ROWS, headers=authority.bearer("rows.read", expires_in=-7200))
        client.delete(ROWS, headers=both)
        for headers in [both] * 12:
            client.post("/tables/trips/rows", headers=headers)
        authority.rotate(overlap=False)
        with authority.outage():
            client.get(ROWS, headers=authority.bearer("rows.read"))
        client.get(ROWS, headers=authority.bearer("rows.read", claims={"iss": f"{authority.url}/"}))
        client.post(ROWS, headers=reader)
        client.get(ROWS, headers=reader)


def draw() -> None:
    """Take the picture."""
    from playwright.sync_api import sync_playwright

    authority = FakeAuthority("https://login.example.com", audience="https://api.example.com")
    rules = Rules(
        [
            Rule("/tables/{table}/rows", all_of("rows.read"), methods=["GET"]),
            Rule("/tables/{table}/rows", all_of("rows.write"), methods=["POST"]),
        ]
    )
    guard = Guard(authority.issuer, transport=authority.transport, rules=rules, refusal_log="off", audit="off")
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Serving(GuardMiddleware(_app, guard=guard, debug=True), listener), sync_playwright() as playwright:
        _send_requests(url, authority)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 900}, reduced_motion="reduce")
        page.goto(f"{url}/_scopeguard")
        page.locator("summary", has_text="unknown_issuer").click()
        page.locator(".fix").wait_for()
        page.screenshot(path=PICTURE)
        browser.close()
    print(PICTURE.relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    draw()
