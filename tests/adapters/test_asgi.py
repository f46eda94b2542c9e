"""The ASGI middleware beyond the table of scenarios: protocols, bodies, streams, mounts, preflights."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
import trio.testing

from doors import call_asgi, guard_for
from scenarios import Answered, Exchange
from scopeguard import (
    DENIED,
    OPTIONAL,
    AccessToken,
    ConfigurationError,
    Guard,
    Rule,
    Rules,
    TokenSources,
    access_token,
    access_token_or_none,
    all_of,
    any_of,
)
from scopeguard.asgi import GuardMiddleware, route_path
from scopeguard.config.introspection import Introspection
from scopeguard.config.validation import Validation
from scopeguard.edge.lanes import BOUNDS
from scopeguard.errors import ResponseAborted
from scopeguard.flow.effects import Lane
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority

pytestmark = pytest.mark.anyio


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


class App:
    """An app that records its calls and answers 204."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.current: list[AccessToken | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.current.append(access_token_or_none())
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def bearer(token: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", f"Bearer {token}".encode()),)


async def fail_if_called() -> Any:
    raise AssertionError("the body must not be read here")


async def test_app_sees_the_token_through_each_accessor(authority: FakeAuthority):
    app = App()
    token = authority.mint("a b", subject="alice")
    await call_asgi(GuardMiddleware(app, guard=guard_for(authority)), Exchange(headers=bearer(token)))
    (scope,) = app.scopes
    seen = scope["state"]["access_token"]
    assert (seen.subject, seen.scopes) == ("alice", {"a", "b"})
    assert isinstance(seen, AccessToken)
    assert scope["user"] is scope["auth"] is app.current[0]
    assert scope["user"] is seen
    assert seen.is_authenticated
    assert seen.identity == (authority.url, "alice")
    assert seen.display_name == "alice"


@pytest.mark.rule("H-14")
async def test_no_state_of_a_request_remains_after_it(authority: FakeAuthority):
    app = App()
    guarded = GuardMiddleware(app, guard=guard_for(authority), public=["/public"])
    await call_asgi(guarded, Exchange(headers=bearer(authority.mint())))
    assert access_token_or_none() is None
    await call_asgi(guarded, Exchange(target="/public"))
    assert app.current[-1] is None
    assert app.scopes[-1]["state"]["access_token"] is None
    assert not app.scopes[-1]["user"].is_authenticated
    with pytest.raises(ConfigurationError, match="no access token here"):
        access_token()


@pytest.mark.rule("H-14")
async def test_hundred_concurrent_requests_each_see_their_token(authority: FakeAuthority):
    seen: dict[str, str] = {}
    everybody = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting.append(None)
        if len(waiting) == 100:
            everybody.set()
        await everybody.wait()
        seen[scope["path"]] = str(access_token().subject)
        await anyio.to_thread.run_sync(lambda: seen.update({scope["path"] + "t": str(access_token().subject)}))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    waiting: list[None] = []
    guarded = GuardMiddleware(app, guard=guard_for(authority))
    async with anyio.create_task_group() as group:
        for i in range(100):
            headers = bearer(authority.mint(subject=f"user{i}"))
            group.start_soon(call_asgi, guarded, Exchange(target=f"/{i}", headers=headers))
    assert seen == {f"/{i}{t}": f"user{i}" for i in range(100) for t in ("", "t")}


@pytest.mark.rule("H-14")
async def test_request_can_be_closed_in_another_context(authority: FakeAuthority):
    """An event loop does this with a task that is pending when the loop ends."""
    closed: list[str] = []

    class Pending:
        def __await__(self) -> Any:
            yield

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await Pending()
        finally:
            closed.append(scope["path"])

    guard = guard_for(authority)
    guard.warm()
    scope: Any = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": list(bearer(authority.mint())),
    }
    send: Any = fail_if_called
    request: Any = GuardMiddleware(app, guard=guard)(scope, fail_if_called, send)
    copy_context().run(request.send, None)
    request.close()
    assert closed == ["/"]
    assert access_token_or_none() is None


@pytest.mark.rule("H-01")
async def test_lifespan_passes_through_unchanged(authority: FakeAuthority):
    app = App()
    scope = {"type": "lifespan", "state": {}}

    async def send(message: Any) -> None: ...

    await GuardMiddleware(app, guard=guard_for(authority))(scope, fail_if_called, send)
    assert app.scopes == [{"type": "lifespan", "state": {}}]
    assert app.scopes[0] is scope


@pytest.mark.rule("H-01")
async def test_unknown_scope_type_does_not_reach_the_app(authority: FakeAuthority):
    app = App()

    async def send(message: Any) -> None: ...

    with pytest.raises(RuntimeError, match="'smtp'"):
        await GuardMiddleware(app, guard=guard_for(authority))({"type": "smtp"}, fail_if_called, send)
    assert app.scopes == []


@pytest.mark.rule("H-18")
async def test_header_with_the_name_of_the_scope_key_is_only_a_header(authority: FakeAuthority):
    for name in (b"access_token", b"scopeguard.access_token", b"scopeguard", b"state"):
        answer = await call_asgi(GuardMiddleware(App(), guard=guard_for(authority)), Exchange(headers=((name, b"x"),)))
        assert answer.status == 401


@pytest.mark.rule("H-18")
async def test_nested_guards_decide_independently(authority: FakeAuthority):
    other = FakeAuthority("https://other.test", "https://inner.test", clock=authority.clock)
    app = App()
    inner = GuardMiddleware(app, guard=guard_for(other))
    answer = await call_asgi(
        GuardMiddleware(inner, guard=guard_for(authority)), Exchange(headers=bearer(authority.mint()))
    )
    assert answer.status == 401
    assert app.scopes == []


@pytest.mark.rule("H-05")
async def test_exception_in_a_decision_is_raised_and_grants_nothing(
    authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
):
    def raise_bug(request: object) -> None:
        raise RuntimeError("a bug")

    app = App()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    monkeypatch.setattr(authority.transport, "send", raise_bug)
    with pytest.raises(RuntimeError, match="a bug"):
        await call_asgi(GuardMiddleware(app, guard=guard), Exchange(headers=bearer(authority.mint())))
    assert app.scopes == []


@pytest.mark.rule("H-19")
async def test_an_outage_is_a_503_with_retry_after_and_without_a_challenge(authority: FakeAuthority):
    app = App()
    authority.outage()
    guarded = GuardMiddleware(app, guard=guard_for(authority))
    answer = await call_asgi(guarded, Exchange(headers=bearer(authority.mint())))
    assert answer.status == 503
    assert int(answer.all("retry-after")[0]) >= 1
    assert answer.all("www-authenticate") == []
    assert "error" not in answer.json
    assert app.scopes == []


class WebSocket:
    """Drives one websocket connection."""

    def __init__(self, *, extension: bool = False, query: bytes = b"", headers: Any = ()) -> None:
        self.sent: list[Any] = []
        self.scope = {
            "type": "websocket",
            "scheme": "wss",
            "path": "/ws",
            "query_string": query,
            "headers": list(headers),
            "extensions": {"websocket.http.response": {}} if extension else {},
            "state": {},
        }

    async def run(self, app: Any) -> list[Any]:
        async def send(message: Any) -> None:
            self.sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"} if not self.sent else await anyio.sleep_forever()

        await app(self.scope, receive, send)
        return self.sent


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": scope["state"]["access_token"].client_id})
    await send({"type": "websocket.close"})


@pytest.mark.rule("H-02", "H-03")
async def test_websocket_is_refused_before_it_is_accepted(authority: FakeAuthority):
    guarded = GuardMiddleware(echo, guard=guard_for(authority))
    assert await WebSocket().run(guarded) == [
        {"type": "websocket.close", "code": 1008, "reason": "Unauthorized"},
    ]
    start, body = await WebSocket(extension=True).run(guarded)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert any(name == b"www-authenticate" for name, _ in start["headers"])
    assert (body["type"], body["more_body"]) == ("websocket.http.response.body", False)


@pytest.mark.rule("H-02")
async def test_rules_of_a_path_apply_to_websockets(authority: FakeAuthority):
    guarded = GuardMiddleware(
        echo, guard=guard_for(authority), rules=[Rule("/ws", all_of("live"), token_sources=("header", "query"))]
    )
    sent = await WebSocket(extension=True, headers=bearer(authority.mint("other"))).run(guarded)
    assert sent[0]["status"] == 403
    sent = await WebSocket(headers=bearer(authority.mint("live"))).run(guarded)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    socket = WebSocket(query=f"access_token={authority.mint('live')}&room=1".encode())
    sent = await socket.run(guarded)
    assert sent[1]["text"] == "client"
    assert socket.scope["query_string"] == b"room=1"


async def stream(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await anyio.sleep_forever()


LEEWAY = 30  # Seconds; the default of Issuer.


def in_stopped_time(function: Any) -> Any:
    """Run on trio with a clock that jumps ahead as soon as all tasks wait."""
    return trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.rule("H-04")
def test_a_websocket_is_closed_when_its_token_expires():
    authority = FakeAuthority()
    guarded = GuardMiddleware(stream, guard=guard_for(authority), close_streams="expiry")

    async def main() -> tuple[list[Any], float]:
        await trio.to_thread.run_sync(guarded.guard.warm)
        begun = trio.current_time()
        sent = await WebSocket(headers=bearer(authority.mint(expires_in=90))).run(guarded)
        return sent, trio.current_time() - begun

    sent, took = in_stopped_time(main)
    assert sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "The access token expired"}
    assert took == pytest.approx(90 + LEEWAY)


def receive_until_aborted(guarded: GuardMiddleware, token: str) -> tuple[bytes, float]:
    """Return the body that was sent before the response was aborted, and the time that took."""

    async def main() -> tuple[bytes, float]:
        await trio.to_thread.run_sync(guarded.guard.warm)
        begun, parts = trio.current_time(), []

        async def send(message: Any) -> None:
            parts.append(message.get("body", b""))

        scope = {**WebSocket(headers=bearer(token)).scope, "type": "http", "scheme": "https", "method": "GET"}
        with pytest.raises(ResponseAborted):
            await guarded(scope, trio.sleep_forever, send)
        return b"".join(parts), trio.current_time() - begun

    aborted: tuple[bytes, float] = in_stopped_time(main)
    return aborted


@pytest.mark.rule("H-04")
@pytest.mark.parametrize(("expires_in", "lasts"), [(90, 120), (-10, 20), (-29, 1)])
def test_response_stream_is_aborted_when_its_token_is_no_longer_accepted(expires_in: int, lasts: int):
    """Fault: two deadlines for one token. A token within the leeway was accepted, and its stream ended."""
    authority = FakeAuthority()
    guarded = GuardMiddleware(stream, guard=guard_for(authority), close_streams="expiry")
    body, took = receive_until_aborted(guarded, authority.mint(expires_in=expires_in))
    assert body == b"first"
    assert took == pytest.approx(lasts)


@pytest.mark.rule("H-04")
def test_stream_with_a_recalled_token_is_aborted_at_its_expiry():
    authority = FakeAuthority()
    guarded = GuardMiddleware(stream, guard=guard_for(authority), close_streams="expiry")
    token = authority.mint(expires_in=90)
    assert [receive_until_aborted(guarded, token)[0] for _ in range(3)] == [b"first"] * 3
    assert engine_of(guarded.guard).recall(b"Bearer " + token.encode(), None, b"", None) is not None


@pytest.mark.rule("H-04")
def test_late_response_that_is_not_a_stream_is_not_aborted():
    authority = FakeAuthority()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(200)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("the app's own")

    async def main() -> Answered:
        guard = guard_for(authority)
        await trio.to_thread.run_sync(guard.warm)
        headers = bearer(authority.mint(expires_in=90))
        with pytest.raises(KeyError, match="the app's own"):
            await call_asgi(GuardMiddleware(fail, guard=guard, close_streams="expiry"), Exchange(headers=headers))
        return await call_asgi(GuardMiddleware(slow, guard=guard, close_streams="expiry"), Exchange(headers=headers))

    assert in_stopped_time(main).body == b"done"


def test_stream_that_starts_after_expiry_is_aborted_at_its_first_chunk():
    authority = FakeAuthority()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(200)
        await stream(scope, receive, send)

    guarded = GuardMiddleware(late, guard=guard_for(authority), close_streams="expiry")
    body, took = receive_until_aborted(guarded, authority.mint(expires_in=90))
    assert body == b"first"
    assert took == pytest.approx(200)


class Body:
    """A request with the given body messages, which counts the reads."""

    def __init__(self, *messages: Any, headers: Any = ()) -> None:
        self.left = list(messages)
        self.read = 0
        self.sent: list[Any] = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "scheme": "https",
            "path": "/form",
            "query_string": b"",
            "headers": [(b"content-type", b"application/x-www-form-urlencoded"), *headers],
        }

    async def receive(self) -> Any:
        self.read += 1
        return self.left.pop(0) if self.left else await anyio.sleep_forever()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def status(self, app: Any) -> int:
        await app(self.scope, self.receive, self.send)
        status: int = self.sent[0]["status"]
        return status


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def forms(authority: FakeAuthority, app: Any, **sources: Any) -> GuardMiddleware:
    guard = guard_for(authority, token_sources=TokenSources(**sources).with_methods(("header", "form")))
    return GuardMiddleware(app, guard=guard)


@pytest.mark.rule("B-27")
async def test_app_receives_the_same_messages_and_then_those_of_the_server(authority: FakeAuthority):
    body = b"access_token=" + authority.mint().encode() + b"&a=1"
    request = Body(part(body[:5], more=True), part(b"", more=True), part(body[5:]), {"type": "http.disconnect"})
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not received or received[-1]["type"] != "http.disconnect":
            received.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})

    assert await request.status(forms(authority, app)) == 204
    assert received == [
        part(body[:5], more=True),
        part(b"", more=True),
        part(body[5:]),
        {"type": "http.disconnect"},
    ]


@pytest.mark.rule("B-26")
@pytest.mark.parametrize("length", [b"70000", b"1" * 5000], ids=["70000", "5000 digits"])
async def test_form_with_a_too_large_content_length_is_not_read(authority: FakeAuthority, length: bytes):
    request = Body(headers=[(b"content-length", length)])
    assert await request.status(forms(authority, App())) == 413
    assert request.read == 0


@pytest.mark.rule("B-26", "X-31")
async def test_form_without_a_length_is_read_up_to_the_limit(authority: FakeAuthority):
    request = Body(*(part(b"x" * 30_000, more=True) for _ in range(100)))
    assert await request.status(forms(authority, App())) == 413
    assert request.read == 3


@pytest.mark.rule("X-31")
def test_slow_form_is_aborted():
    authority = FakeAuthority()
    request = Body(part(b"access_", more=True))

    async def main() -> int:
        return await request.status(forms(authority, App(), form_timeout=10))

    assert in_stopped_time(main) == 408


async def test_client_that_disconnects_during_its_form_is_refused(authority: FakeAuthority):
    app = App()
    request = Body(part(b"access_", more=True), {"type": "http.disconnect"})
    assert await request.status(forms(authority, app)) == 400
    assert app.scopes == []


@pytest.mark.rule("H-17")
async def test_body_is_not_read_unless_a_form_may_carry_the_token(authority: FakeAuthority):
    guarded = GuardMiddleware(App(), guard=guard_for(authority))
    request = Body(part(b"x" * 100))
    assert await request.status(guarded) == 401
    assert request.read == 0


async def test_refusal_says_that_no_more_body_follows(authority: FakeAuthority):
    """That is the default, but Quart's test client looks for the key."""
    request = Body(part(b""))
    assert await request.status(GuardMiddleware(App(), guard=guard_for(authority))) == 401
    assert request.sent[-1]["more_body"] is False


@pytest.mark.rule("H-06")
@pytest.mark.parametrize(
    ("path", "prefix", "routed"),
    [
        ("/v1/items", "/v1", "/items"),
        ("/v1", "/v1", ""),
        ("/v10/items", "/v1", "/v10/items"),
        ("/items", "/v1", "/items"),
        ("/items", "", "/items"),
    ],
)
async def test_rules_match_the_path_that_the_inner_router_sees(path: str, prefix: str, routed: str):
    assert route_path({"path": path, "root_path": prefix}) == routed


@pytest.mark.rule("H-06")
async def test_absolute_form_target_matches_no_public_path(authority: FakeAuthority):
    answer = await call_asgi(
        GuardMiddleware(App(), guard=guard_for(authority), public=["/public"]),
        Exchange(target="http://api.test/public"),
    )
    assert answer.status == 401


PREFLIGHT = Exchange(
    method="OPTIONS", headers=((b"origin", b"https://spa.test"), (b"access-control-request-method", b"POST"))
)


@pytest.mark.rule("B-57")
async def test_only_a_preflight_passes_without_a_token_if_configured(authority: FakeAuthority):
    guard = guard_for(authority)
    passing = GuardMiddleware(App(), guard=guard, cors_preflight="pass")
    assert (await call_asgi(passing, PREFLIGHT)).status == 204
    assert (await call_asgi(GuardMiddleware(App(), guard=guard), PREFLIGHT)).status == 401
    assert (await call_asgi(passing, Exchange(method="OPTIONS"))).status == 401
    assert (await call_asgi(passing, Exchange(method="GET", headers=PREFLIGHT.headers))).status == 401
    assert (await call_asgi(passing, Exchange(method="OPTIONS", headers=PREFLIGHT.headers[:1]))).status == 401


def preflight(path: str, method: str = "POST") -> Exchange:
    wanted = (b"access-control-request-method", method.encode())
    return Exchange(method="OPTIONS", target=path, headers=((b"origin", b"https://spa.test"), wanted))


@pytest.mark.rule("B-57", "H-07")
async def test_preflight_for_a_denied_route_does_not_pass(authority: FakeAuthority):
    rules = [
        Rule("/internal/{rest:path}", DENIED),
        Rule("/reports", DENIED, ["DELETE"]),
        Rule("/reports", any_of("read"), ["GET"]),
        Rule("/items", any_of("read")),
    ]
    app = App()
    guarded = GuardMiddleware(app, guard=guard_for(authority), rules=rules, cors_preflight="pass")
    for passing in (preflight("/items"), preflight("/items", "GET"), preflight("/reports", "GET")):
        assert (await call_asgi(guarded, passing)).status == 204
    reached = len(app.scopes)
    for refused in (
        preflight("/internal/a"),
        preflight("/internal/a", "GET"),
        preflight("//internal/a"),
        preflight("/x/../internal/a"),
        preflight("/reports", "DELETE"),
        preflight("/reports", "PUT"),
        preflight("/other"),
        preflight("/other", "\xff"),
    ):
        assert (await call_asgi(guarded, refused)).status in (401, 403)
    closed = GuardMiddleware(app, guard=guard_for(authority), rules=[], cors_preflight="pass")
    assert (await call_asgi(closed, preflight("/items"))).status in (401, 403)
    assert len(app.scopes) == reached


@pytest.mark.parametrize("absent", [True, False], ids=["absent", "None"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("sources", [["header"], ["header", "query", "form"]], ids=["header", "all"])
async def test_optional_scope_keys_may_be_missing(
    kind: str, absent: bool, sources: list[str], authority: FakeAuthority
):
    """``query_string``, ``headers`` and others are optional in the ASGI specification, especially for websockets."""
    optional = ("query_string", "root_path", "raw_path", "client", "server", "scheme", "state", "extensions")
    given = {} if absent else dict.fromkeys(optional)
    reached: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["state"]["access_token"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    guard = guard_for(authority, token_sources=sources)
    for settings in ({}, {"rules": [Rule("/{rest:path}"), Rule("/a", any_of("x"))]}, {"cors_preflight": "pass"}):
        guarded = GuardMiddleware(app, guard=guard, **settings)
        token = authority.mint()
        for headers in ([(b"authorization", b"Bearer " + token.encode())], [], None):
            scope: dict[str, Any] = {"type": kind, "path": "/b/a", **given}
            if kind == "http":
                scope["method"] = "POST"
            if headers is not None or not absent:
                scope["headers"] = headers
            for _ in range(2):  # The second time the token is cached.
                await guarded(dict(scope), receive, send)
    assert len(reached) == 6
    refusals = {message.get("status", message.get("code")) for message in sent if "body" not in message}
    assert refusals == ({401} if kind == "http" else {1008})


@pytest.mark.rule("B-58")
async def test_challenge_is_readable_for_browsers_with_cors(authority: FakeAuthority):
    guarded = GuardMiddleware(App(), guard=guard_for(authority), cors_preflight="pass")
    answer = await call_asgi(guarded, Exchange(headers=((b"origin", b"https://spa.test"),)))
    assert answer.all("access-control-expose-headers") == ["WWW-Authenticate"]
    assert (await call_asgi(guarded, Exchange())).all("access-control-expose-headers") == []


@pytest.mark.rule("B-46")
async def test_challenge_of_the_app_is_sent_unchanged(authority: FakeAuthority):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"www-authenticate", b'Basic realm="inner"')]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    for rules in (Rules(), Rules([Rule("/both", OPTIONAL)])):
        guarded = GuardMiddleware(app, guard=guard_for(authority), rules=rules)
        answer = await call_asgi(guarded, Exchange(headers=bearer(authority.mint())))
        assert answer.all("www-authenticate") == ['Basic realm="inner"']


@pytest.mark.rule("H-07")
async def test_route_without_a_rule_is_denied_for_any_token(authority: FakeAuthority):
    app = App()
    guarded = GuardMiddleware(app, guard=guard_for(authority), rules=[Rule("/a", any_of("x", "y"))])
    answer = await call_asgi(guarded, Exchange(target="/b", headers=bearer(authority.mint("x y"))))
    assert answer.status == 403
    assert answer.all("www-authenticate") == []
    assert "error" not in answer.json
    assert app.scopes == []


async def test_listener_gets_one_decision_for_a_route_without_a_rule(authority: FakeAuthority):
    heard: list[Any] = []
    guard = guard_for(authority, on_decision=heard.append)
    guarded = GuardMiddleware(App(), guard=guard, rules=[Rule("/a")])
    await call_asgi(guarded, Exchange(target="/b", headers=bearer(authority.mint())))
    assert [type(event.decision).__name__ for event in heard] == ["Denied"]


async def test_middleware_without_rules_uses_those_of_the_guard(authority: FakeAuthority):
    guard = guard_for(authority, rules=Rules([Rule("/a", all_of("x"))], public=["/p"]))
    guarded = GuardMiddleware(App(), guard=guard, public=["/q"])
    for path, status in (("/p", 204), ("/q", 204), ("/a", 401)):
        assert (await call_asgi(guarded, Exchange(target=path))).status == status


def test_a_middleware_without_a_guard_is_refused():
    nothing: Any = None
    with pytest.raises(ConfigurationError, match="guard="):
        GuardMiddleware(App(), guard=nothing)


def test_public_must_be_a_list():
    with pytest.raises(ConfigurationError, match="list of paths"):
        GuardMiddleware(App(), guard=guard_for(FakeAuthority()), public="/healthz")


@pytest.mark.anyio
async def test_http_client_is_imported_before_the_first_request():
    """Importing httpx in the thread of a flight would block the event loop too."""
    code = (
        "import asyncio, sys\n"
        "from scopeguard import Guard, Issuer\n"
        "from scopeguard.asgi import GuardMiddleware\n"
        "async def app(scope, receive, send): print('httpx' in sys.modules)\n"
        "guard = Guard(Issuer('https://as.test', audience='https://api.test'))\n"
        "print('httpx' in sys.modules)\n"
        "asyncio.run(GuardMiddleware(app, guard=guard)({'type': 'lifespan'}, None, None))\n"
    )
    done = await anyio.run_process([sys.executable, "-c", code])
    assert done.stdout.split() == [b"False", b"True"]


# -- clients that disconnect while their request waits for an authority


class Server:
    """The server side of one ASGI request: sends *messages*, and more when the test says so."""

    def __init__(self, *messages: Any) -> None:
        self.messages = list(messages)
        self.more = anyio.Event()
        self.received = 0
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        if not self.messages:
            await self.more.wait()
        self.received += 1
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def go(self) -> None:
        self.messages.append({"type": "http.disconnect"})
        self.more.set()


WHOLE = {"type": "http.request", "body": b"", "more_body": False}
PART = {"type": "http.request", "body": b"part", "more_body": True}


class Held:
    """A transport that answers when its gate is open."""

    def __init__(self, authority: FakeAuthority) -> None:
        self.authority = authority
        self.gate = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.asked = 0

    def send(self, request: Any, /) -> Any:
        self.asked += 1
        self.arrived.release()
        assert self.gate.wait(30), "the gate was not opened"
        return self.authority.transport.send(request)

    def close(self) -> None: ...


@pytest.fixture
def held(authority: FakeAuthority) -> Iterator[Held]:
    held = Held(authority)
    yield held
    held.gate.set()


def opaque_guard(authority: FakeAuthority, held: Held) -> Guard:
    introspection = Introspection(client_id="api", client_secret=authority.api.secret)
    issuer = replace(authority.issuer, validate=Validation.INTROSPECTION, introspection=introspection)
    return Guard(issuer, transport=held, clock=authority.clock)


def scope_with(token: str, *headers: tuple[bytes, bytes], method: str = "GET") -> Any:
    return {
        "type": "http",
        "method": method,
        "scheme": "https",
        "path": "/",
        "query_string": b"",
        "headers": [*bearer(token), *headers],
    }


@pytest.mark.parametrize("messages", [(), (WHOLE,)], ids=["before its body", "after its body"])
async def test_disconnect_withdraws_a_waiting_introspection(authority: FakeAuthority, held: Held, messages: Any):
    guard, app = opaque_guard(authority, held), App()
    middleware = GuardMiddleware(app, guard=guard)
    server = Server(*messages)
    places = BOUNDS[Lane.INTROSPECTION].places_of_one - BOUNDS[Lane.INTROSPECTION].reserved
    async with anyio.create_task_group() as group:
        for number in range(places):
            group.start_soon(middleware, scope_with(f"filler-{number}"), Server(WHOLE).receive, server.send)
        for _ in range(places):
            assert await anyio.to_thread.run_sync(held.arrived.acquire, True, 30)
        async with anyio.create_task_group() as request:
            request.start_soon(middleware, scope_with("left"), server.receive, server.send)
            while len(engine_of(guard).runtime.flights) == places:
                await anyio.lowlevel.checkpoint()
            server.go()
        assert len(engine_of(guard).runtime.flights) == places
        assert server.sent[0]["status"] == 503
        held.gate.set()
    await guard.aclose()
    assert (
        held.asked <= 2 * places
    )  # Each may have looked the endpoint up; the token of the disconnected client was not introspected.
    assert app.scopes == []


@pytest.mark.parametrize(
    ("messages", "headers"),
    [((WHOLE,), ()), ((PART, WHOLE), ()), ((PART, WHOLE), ((b"expect", b"100-continue"),))],
    ids=["whole", "in parts", "asked for"],
)
async def test_app_receives_the_whole_body_after_a_wait(
    authority: FakeAuthority, held: Held, messages: Any, headers: Any
):
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.extend([await receive() for _ in messages])

    server = Server(*messages)
    middleware = GuardMiddleware(app, guard=opaque_guard(authority, held))
    token = authority.mint("a", token_format="opaque")
    async with anyio.create_task_group() as group:
        group.start_soon(middleware, scope_with(token, *headers, method="POST"), server.receive, server.send)
        assert await anyio.to_thread.run_sync(held.arrived.acquire, True, 30)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        assert server.received == (0 if headers else 1)
        held.gate.set()
    assert received == list(messages)


async def test_server_that_repeats_one_message_is_not_read_endlessly(authority: FakeAuthority, held: Held):
    """Some test clients answer every call with the same message."""
    calls: list[int] = []

    async def receive() -> Any:
        calls.append(1)
        return WHOLE

    app = App()
    middleware = GuardMiddleware(app, guard=opaque_guard(authority, held))
    token = authority.mint("a", token_format="opaque")
    async with anyio.create_task_group() as group:
        group.start_soon(middleware, scope_with(token), receive, Server().send)
        assert await anyio.to_thread.run_sync(held.arrived.acquire, True, 30)
        held.gate.set()
    assert len(calls) == 2
    assert len(app.scopes) == 1
