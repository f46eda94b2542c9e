"""The page of the setting ``debug`` in Chromium: live, filtered, explained, and readable on small and dark screens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from scopeguard import Guard, Rule, Rules, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.edge.listener import listen
from scopeguard.testing import FakeAuthority
from shared_page import SharedPage

ATTACK = '"><img src=x onerror=window.broken=1><script>window.broken=1</script>'


async def _app(scope: Any, receive: Any, send: Any) -> None:
    kind = (b"content-type", b"text/html")
    await send({"type": "http.response.start", "status": 200, "headers": [kind]})
    await send({"type": "http.response.body", "body": b"the app"})


class Api:
    """A guarded app on a loopback port, with the page."""

    def __init__(self) -> None:
        self.authority = FakeAuthority()
        rules = Rules([Rule("/rows/{rest:path}", all_of("read")), Rule("/write", all_of("write"))], public=["/open"])
        guard = Guard(
            self.authority.issuer, transport=self.authority.transport, clock=self.authority.clock, rules=rules,
            refusal_log="off", audit="off",
        )  # fmt: skip
        self.listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.app = GuardMiddleware(_app, guard=guard, debug=True)

    def send(self, path: str, token: str | None = None) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        httpx.get(self.url + path, headers=headers, trust_env=False)


@pytest.fixture
def api() -> Iterator[Api]:
    running = Api()
    with Serving(running.app, running.listener):
        yield running


@pytest.fixture
def open_page(shared_page: SharedPage, api: Api) -> Iterator[Callable[..., Any]]:
    """``open_page(**options)`` opens the page; nothing may go wrong in it, and it may load nothing from elsewhere."""
    yield partial(shared_page.open, f"{api.url}/_scopeguard", api.url, "data:")
    trouble = [*shared_page.trouble]
    shared_page.leave()
    assert trouble == []


def test_page_is_live_and_explains_a_refusal(open_page: Callable[..., Any], api: Api):
    page = open_page()
    page.get_by_text("No decision yet").wait_for()
    assert page.locator("#origin").text_content() == api.url
    token = api.authority.mint("other", client_id="loader")
    api.send("/rows/1", token)
    row = page.locator("ol li", has_text="insufficient_scope")
    row.wait_for()  # without a reload
    assert page.locator("#state").text_content() == "live"
    assert not page.get_by_text("No decision yet").is_visible()
    assert row.locator(".path").text_content() == "/rows/1"
    assert row.locator(".status").text_content() == "403"
    row.locator("summary").click()
    assert row.locator("dl", has_text="needed").text_content().startswith("neededread")
    assert "client sees403: The access token lacks a scope that this operation needs" in row.text_content()
    assert token not in page.content()
    assert "`" not in row.text_content()
    row.locator(".fix a").click()
    article = page.locator("article:target")
    assert article.locator("h3 code").text_content() == "insufficient_scope"
    assert article.bounding_box()["y"] < page.viewport_size["height"]


def test_filters_pause_and_clear(open_page: Callable[..., Any], api: Api):
    authority = api.authority
    for path in ("/rows/1", "/rows/2"):
        api.send(path, authority.mint("read", client_id="loader"))
    api.send("/rows/3", authority.mint("read", expires_in=-60))
    with authority.outage():
        authority.rotate(overlap=False)
        api.send("/rows/4", authority.mint("read"))
    page = open_page()
    rows, buttons = page.locator("ol li:visible"), page.locator(".filters button")
    page.locator("ol li").first.wait_for()
    assert [button.text_content() for button in buttons.all()] == ["All 4", "Accepted 2", "Refused 1", "Undecided 1"]
    assert rows.first.locator(".path").text_content() == "/rows/4"  # the newest
    assert page.locator("#chart i").count() == 4
    buttons.nth(2).click()
    assert [row.locator(".reason").text_content() for row in rows.all()] == ["token_expired"]
    buttons.nth(0).click()
    page.fill("#search", "LOADER rows/2")
    assert rows.count() == 1
    page.fill("#search", "nothing")
    assert page.get_by_text("No decision matches").is_visible()
    page.fill("#search", "")
    page.click("#pause")
    assert page.locator("#state").text_content() == "paused"
    api.send("/rows/5", authority.mint("read"))
    assert rows.count() == 4
    page.click("#pause")
    page.locator(".path", has_text="/rows/5").wait_for()
    page.click("#clear")
    assert rows.count() == 0


def test_texts_of_strangers_stay_texts(open_page: Callable[..., Any], api: Api):
    for token in (None, api.authority.mint("read", claims={"iss": ATTACK}), api.authority.mint(ATTACK)):
        api.send(f"/rows/{ATTACK}", token)
    page = open_page()
    page.locator("ol li").nth(2).wait_for()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("window.broken") is None
    assert page.locator("img").count() == 0
    assert ATTACK in page.locator("ol").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_screen_and_has_contrast(open_page: Callable[..., Any], api: Api, scheme: str, width: int):
    api.send("/rows/" + "long/" * 40, api.authority.mint("other", client_id="c" * 80))
    api.send("/write", api.authority.mint("write"))
    page = open_page(scheme=scheme, size=(width, 800), moves=False)
    page.locator("ol li").nth(1).wait_for()
    page.locator("summary").last.click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRASTS) == []


# The texts whose contrast with their background is below 4.5, WCAG 2.2 success criterion 1.4.3.
CONTRASTS = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, style")) continue;
    const [one, other] = [parse(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    if (ratio < 4.5) found.push([element.className || element.tagName, element.textContent, ratio.toFixed(2)]);
  }
  return found;
}"""


def test_another_origin_reads_nothing(browser: Any, api: Api):
    """A page of another port is another origin: its scripts can neither read the decisions nor frame the page."""
    other = Api()
    with Serving(other.app, other.listener):
        page = browser.new_page()
        page.goto(f"{other.url}/open")
        read = page.evaluate(
            "url => fetch(url).then(answer => answer.text(), () => 'blocked')", f"{api.url}/_scopeguard/decisions"
        )
        assert read == "blocked"
        page.evaluate(
            """url => new Promise(done => {
              const frame = document.createElement('iframe');
              frame.onload = done;
              frame.src = url;
              document.body.append(frame);
            })""",
            f"{api.url}/_scopeguard",
        )
        assert len(page.frames) == 2
        assert "Decisions" not in page.frames[1].content()
        page.close()
