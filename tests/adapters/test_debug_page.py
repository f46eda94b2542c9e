"""The setting ``debug`` of the middlewares: a page for programs on this machine, and for nobody else."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import anyio
import flask
import pytest
from django.http import HttpResponse

from django_project import GUARD_MIDDLEWARE, handler, project, url_conf
from scopeguard import ConfigurationError, Guard, Reason, asgi, wsgi
from scopeguard.flask import ScopeGuard
from scopeguard.guard import engine_of
from scopeguard.mcp import McpMiddleware, Tool
from scopeguard.testing import FakeAuthority, bad_tokens

Answer = tuple[int, dict[str, str], bytes]
LOCAL = ("127.0.0.1", 50000)
HERE = {"host": "127.0.0.1:8000"}
PAGE, FEED, REASONS = "/_scopeguard", "/_scopeguard/decisions", "/_scopeguard/reasons"


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the app"})


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"the app"]


def call_asgi(
    app: Any,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    peer: tuple[str, int] | None = LOCAL,
    server: tuple[str, int | None] | None = ("127.0.0.1", 8000),
    root_path: str = "",
) -> Answer:
    path, _, query = target.partition("?")
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in (HERE if headers is None else headers).items()]
    scope: dict[str, Any] = {
        "type": "http", "method": method, "scheme": "http", "path": path, "raw_path": path.encode(),
        "query_string": query.encode(), "headers": pairs, "client": peer, "server": server, "root_path": root_path,
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await anyio.sleep_forever()  # until the app cancels it

    async def run() -> None:
        await app(scope, receive, send)

    anyio.run(run)
    found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent)


def call_wsgi(
    app: Any,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    peer: tuple[str, int] | None = LOCAL,
) -> Answer:
    path, _, query = target.partition("?")
    fields = {
        f"HTTP_{name.upper().replace('-', '_')}": value
        for name, value in (HERE if headers is None else headers).items()
    }
    environ = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000", "wsgi.input": io.BytesIO(), "QUERY_STRING": query, "wsgi.url_scheme": "http", **fields,
        **({} if peer is None else {"REMOTE_ADDR": peer[0]}),
    }  # fmt: skip
    started: list[Any] = []
    body = b"".join(app(environ, lambda status, given: started.append((status, given))))
    status, given = started[0]
    return int(status[:3]), dict(given), body


Call = Callable[..., Answer]
AUTHORITY = FakeAuthority()


def new_guard(**arguments: Any) -> Guard:
    given = {"refusal_log": "off", "audit": "off", **arguments}
    return Guard(AUTHORITY.issuer, transport=AUTHORITY.transport, clock=AUTHORITY.clock, **given)


def asgi_app(guard: Guard | None = None, *, debug: bool | str = True) -> Any:
    return asgi.GuardMiddleware(_asgi_app, guard=guard or new_guard(), debug=debug)


def wsgi_app(guard: Guard | None = None, *, debug: bool | str = True) -> Any:
    return wsgi.GuardMiddleware(_wsgi_app, guard=guard or new_guard(), debug=debug)


def flask_app(guard: Guard | None = None, *, debug: bool | str = True) -> Any:
    app = flask.Flask("app")
    app.add_url_rule("/<path:rest>", view_func=lambda rest: "the app", methods=["GET", "POST"])
    ScopeGuard(app, guard or new_guard(), debug=debug)
    return app


PROJECTS = ExitStack()
"""The settings of Django, which hold until the end of a test."""


def django_app(guard: Guard | None = None, *, debug: bool | str = True, asynchronous: bool = False) -> Any:
    urls = url_conf({"/<path:rest>": lambda request, rest: HttpResponse("the app")})
    setting = {"GUARD": guard or new_guard(), "DEBUG": debug}
    PROJECTS.enter_context(project(urls, setting, MIDDLEWARE=[GUARD_MIDDLEWARE]))
    return handler(asynchronous=asynchronous)


DOORS: dict[str, tuple[Callable[..., Any], Call]] = {
    "asgi": (asgi_app, call_asgi),
    "wsgi": (wsgi_app, call_wsgi),
    "flask": (flask_app, call_wsgi),
    "django": (django_app, call_wsgi),
    "django-asgi": (partial(django_app, asynchronous=True), call_asgi),
}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Iterator[tuple[Callable[..., Any], Call]]:
    """A function that builds a guarded app, and one that calls it."""
    with PROJECTS:
        yield DOORS[request.param]


def bearer(token: str) -> dict[str, str]:
    return {**HERE, "authorization": f"Bearer {token}"}


def decisions(call: Call, app: Any, after: int = 0) -> list[dict[str, Any]]:
    status, _, body = call(app, f"{FEED}?after={after}")
    assert status == 200
    found: list[dict[str, Any]] = json.loads(body)["decisions"]
    return found


def test_a_local_browser_gets_the_page_and_the_decisions(door: tuple[Callable[..., Any], Call]):
    build, call = door
    app = build()
    status, headers, body = call(app, PAGE)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<h1>Decisions</h1>" in body
    assert AUTHORITY.url.encode() in body
    call(app, "/rows", bearer(AUTHORITY.mint("read", client_id="loader")))
    call(app, "/rows?secret=1", bearer(AUTHORITY.mint("read", expires_in=-60)))
    granted, denied = decisions(call, app)
    assert (granted["decision"], granted["client"], granted["status"]) == ("granted", "loader", None)
    assert (denied["decision"], denied["reason"], denied["status"]) == ("denied", "token_expired", 401)
    assert denied["path"] == "/rows"
    assert denied["answer"] == "The access token expired"
    assert set(denied["facts"]) == {"exp", "now", "differs", "leeway", "issuer"}
    assert denied["cause"]
    assert denied["fix"]
    assert [record["number"] for record in decisions(call, app, after=1)] == [2]


STRANGERS: dict[str, dict[str, Any]] = {
    "remote peer": {"peer": ("192.0.2.7", 50000)},
    "peer of a container network": {"peer": ("172.17.0.1", 50000)},
    "Unix socket": {"peer": None},
    "name of another site": {"headers": {"host": "attacker.test:8000"}},
    "name that contains an address": {"headers": {"host": "127.0.0.1.nip.io:8000"}},
    "name that begins like localhost": {"headers": {"host": "localhost.attacker.test"}},
    "user information before the host": {"headers": {"host": "127.0.0.1:80@attacker.test"}},
    "port that is not a number": {"headers": {"host": "localhost:x"}},
    "address of this network": {"headers": {"host": "192.0.2.1:8000"}},
    "no host": {"headers": {}},
    "request of another site": {"headers": {**HERE, "sec-fetch-site": "cross-site"}},
    "request of another port": {"headers": {**HERE, "sec-fetch-site": "same-site"}},
    "script of another site": {"headers": {**HERE, "origin": "https://attacker.test"}},
    "script of another port": {"headers": {**HERE, "origin": "http://127.0.0.1:9999"}},
    "script of a file": {"headers": {**HERE, "origin": "null"}},
    **{
        f"proxy with {name}": {"headers": {**HERE, name: value}}
        for name, value in (
            ("forwarded", "for=127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-for", ""),
            ("x-forwarded-host", "localhost"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", "127.0.0.1"),
            ("via", "1.1 proxy"),
            ("cf-connecting-ip", "127.0.0.1"),
        )
    },
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("path", [PAGE, FEED, REASONS])
def test_a_stranger_gets_what_the_guard_says_about_the_path(
    door: tuple[Callable[..., Any], Call], name: str, path: str
):
    build, call = door
    given = STRANGERS[name]
    app = build()
    call(app, "/rows", bearer(AUTHORITY.mint("read", client_id="loader")))
    status, headers, body = call(app, path, **given)
    assert (status, b"loader" in body, b"Decisions" in body) == (401, False, False)
    assert headers["www-authenticate"].startswith("Bearer")
    # A token opens the app, not the page.
    token = {"authorization": f"Bearer {AUTHORITY.mint('read')}"}
    with_token = {**given, "headers": {**given.get("headers", HERE), **token}}
    assert call(app, path, **with_token)[::2] == (200, b"the app")


@pytest.mark.parametrize("server", [("192.0.2.1", 8000), ("0.0.0.0", 8000), ("/run/app.sock", None)])
def test_a_connection_to_another_address_of_this_machine_is_not_local(server: tuple[str, int | None]):
    assert call_asgi(asgi_app(), PAGE, server=server)[0] == 401
    assert call_asgi(asgi_app(), PAGE, server=None)[0] == 200


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST:80", "127.0.0.1", "127.8.9.1:1", "[::1]", "[::1]:8000"]
)
def test_names_of_this_machine(door: tuple[Callable[..., Any], Call], host: str):
    build, call = door
    same = {"host": host, "sec-fetch-site": "same-origin", "origin": f"http://{host}"}
    assert call(build(), PAGE, same)[0] == 200


def test_responses_allow_no_other_site_and_are_not_stored(door: tuple[Callable[..., Any], Call]):
    build, call = door
    app = build()
    for path in (PAGE, FEED, REASONS):
        _, headers, body = call(app, path)
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control")]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert int(headers["content-length"]) == len(body)
        status, _, empty = call(app, path, method="HEAD")
        assert (status, empty) == (200, b"")
    assert call(app, PAGE, method="POST")[0] == 405
    assert call(app, PAGE, method="OPTIONS")[1]["allow"] == "GET, HEAD"


def test_debug_page_is_off_by_default_and_then_costs_nothing(door: tuple[Callable[..., Any], Call]):
    build, call = door
    guard = new_guard()
    app = build(guard, debug=False)
    assert call(app, PAGE)[0] == 401
    assert not engine_of(guard).listens


@pytest.mark.parametrize(
    "setting", [None, 1, "", "/", "page", "/page/", "/pa ge?", "/p{x}", "/../x", "//", "/é", b"/x"]
)
def test_other_settings_are_refused(door: tuple[Callable[..., Any], Call], setting: Any):
    with pytest.raises(ConfigurationError, match="debug: "):
        door[0](debug=setting)


def test_a_guard_that_requires_https_is_refused(door: tuple[Callable[..., Any], Call]):
    with pytest.raises(ConfigurationError, match=r"debug: .* require_https"):
        door[0](new_guard(require_https=True))


def test_path_can_be_chosen_and_a_mount_does_not_matter(door: tuple[Callable[..., Any], Call]):
    build, call = door
    app = build(debug="/internal/why")
    assert call(app, "/internal/why")[0] == 200
    assert call(app, PAGE)[0] == 401
    assert b'data-base="why"' in call(app, "/internal/why")[2]
    assert call_asgi(asgi_app(), "/api/_scopeguard", root_path="/api")[0] == 200


def test_the_last_hundred_are_kept_and_after_is_robust(door: tuple[Callable[..., Any], Call]):
    build, call = door
    app = build()
    for _ in range(130):
        call(app, "/rows")
    assert [record["number"] for record in decisions(call, app)] == list(range(31, 131))
    for after in ("", "x", "-1", "9" * 5000, "\u0663", "1&after=2"):
        assert call(app, f"{FEED}?after={after}".encode("ascii", "ignore").decode())[0] == 200
    (first, again) = (json.loads(call(build(), FEED)[2])["run"] for _ in range(2))
    assert first != again  # so that an open page begins anew after a restart


@cache  # some of their keys take long to generate
def some_bad_tokens() -> tuple[str, ...]:
    return tuple(bad.token for bad in list(bad_tokens(AUTHORITY).values())[::6])


def test_no_token_is_shown(door: tuple[Callable[..., Any], Call]):
    build, call = door
    app = build()
    for token in (AUTHORITY.mint("read"), *some_bad_tokens()):
        if token.isascii() and token.isprintable():
            call(app, f"/rows?access_token={token}", bearer(token))
            body = call(app, FEED)[2].decode()
            parts = [part for part in token.split(".") if len(part) > 30]
            assert not [part for part in parts if part in body]


def test_texts_of_strangers_are_ascii_and_bounded(door: tuple[Callable[..., Any], Call]):
    build, call = door
    app = build()
    token = AUTHORITY.mint("read", claims={"iss": "https://a\u202e\x1b.test/" + "x" * 5000})
    call(app, "/<b>\x07" + "y" * 5000, bearer(token))
    body = call(app, FEED)[2]
    assert body.isascii()
    assert len(body) < 5000
    assert "\\u202e" in decisions(call, app)[0]["facts"]["iss"]


def test_listener_of_the_app_and_the_page_get_the_same_decisions(door: tuple[Callable[..., Any], Call]):
    build, call = door
    events: list[Any] = []
    app = build(new_guard(on_decision=events.append))
    call(app, "/rows")
    call(app, PAGE)  # a request for the page itself is not a decision
    assert [event.reason for event in events] == [Reason.NO_CREDENTIALS]
    assert [record["reason"] for record in decisions(call, app)] == ["no_credentials"]


def test_the_start_is_logged_and_a_stranger_once(
    door: tuple[Callable[..., Any], Call], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "scopeguard")
    build, call = door
    app = build()
    for _ in range(3):
        call(app, PAGE, peer=("192.0.2.7", 1))
    assert [record.getMessage() for record in caplog.records if record.name == "scopeguard"] == [
        "debug: /_scopeguard shows the last decisions to programs on this machine; for development only",
        "debug: /_scopeguard was not shown: the peer is not on this machine. It is for browsers on this machine only",
    ]


def test_every_reason_has_its_place_on_the_page_of_reasons(door: tuple[Callable[..., Any], Call]):
    build, call = door
    body = call(build(), REASONS)[2].decode()
    assert set(re.findall(r'<article id="(\w+)">', body)) == {reason.value for reason in Reason}
    assert '<a href="https://www.rfc-editor.org/rfc/rfc7519#section-4.1.4" rel="noreferrer">' in body


def test_a_websocket_is_not_answered():
    sent: list[Any] = []

    async def run() -> None:
        scope = {
            "type": "websocket", "path": PAGE, "raw_path": PAGE.encode(), "query_string": b"", "scheme": "ws",
            "headers": [(b"host", b"localhost")], "client": LOCAL, "server": LOCAL, "root_path": "",
        }  # fmt: skip

        async def send(message: Any) -> None:
            sent.append(message)

        await asgi_app()(scope, None, send)

    anyio.run(run)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_flask_app_needs_no_view_for_the_debug_page():
    app = flask.Flask("app")
    ScopeGuard(app, new_guard(), debug=True)
    assert b"<h1>Decisions</h1>" in call_wsgi(app, PAGE)[2]
    assert call_wsgi(app, PAGE, {"host": "attacker.test"})[0] == 401


def test_an_mcp_server_has_it_too():
    app = McpMiddleware(_asgi_app, guard=new_guard(), rules=[Tool("query", "read")], debug=True)
    assert call_asgi(app, "/mcp", method="POST")[0] == 401
    assert [(record["adapter"], record["reason"]) for record in decisions(call_asgi, app)] == [
        ("mcp", "no_credentials")
    ]
    assert call_asgi(app, PAGE, {"host": "attacker.test"})[0] == 401
