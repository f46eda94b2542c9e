"""Hooks, decorators, error handlers, sinks and websockets of Falcon, for WSGI and ASGI."""

from __future__ import annotations

from typing import Any

import anyio
import falcon
import falcon.asgi
import pytest
from falcon.routing.util import SuffixedMethodNotFoundError
from falcon.testing import TestClient

from doors import call_asgi, call_in_loop, call_wsgi, guard_for
from scenarios import Answered, Exchange
from scopeguard import (
    OPTIONAL,
    PUBLIC,
    ConfigurationError,
    DecisionEvent,
    DPoP,
    Guard,
    Rule,
    access_token,
    access_token_or_none,
    asgi,
)
from scopeguard import wsgi as scopeguard_wsgi
from scopeguard.falcon import protect, requires
from scopeguard.testing import FakeAuthority, ProofKey

KINDS = ("wsgi", "asgi")
NO_APP: Any = object()


class Api:
    """An app of *kind* with ``resource`` at ``/rows``, and requests to it."""

    def __init__(self, kind: str, *, middleware: Any = (), **settings: Any) -> None:
        self.kind = kind
        self.authority = FakeAuthority()
        self.guard: Guard = guard_for(self.authority, audit="off", **settings)
        made: Any = falcon.App if kind == "wsgi" else falcon.asgi.App
        self.app: Any = made(middleware=list(middleware))

    def serve(self, **settings: Any) -> Any:
        app: Any = protect(self.app, guard=self.guard, **settings)
        return (
            call_in_loop("asyncio", call_asgi, app)
            if self.kind == "asgi"
            else lambda exchange: call_wsgi(app, exchange)
        )

    def request(self, scope: str | None, target: str = "/rows", method: str = "GET", **more: Any) -> Exchange:
        field = () if scope is None else ((b"authorization", f"Bearer {self.authority.mint(scope)}".encode()),)
        return Exchange(method=method, target=target, headers=field, **more)


@pytest.fixture(params=KINDS)
def api(request: pytest.FixtureRequest) -> Api:
    return Api(request.param)


def responder(kind: str, decorate: Any = lambda responder: responder) -> Any:
    def on_get(self: Any, req: Any, resp: Any, **_: str) -> None:
        resp.media = {"client": access_token().client_id, "same": access_token() is req.context.access_token}

    async def on_get_async(self: Any, req: Any, resp: Any, **_: str) -> None:
        on_get(self, req, resp)

    return decorate(on_get if kind == "wsgi" else on_get_async)


def resource(kind: str, decorate: Any = lambda responder: responder, name: str = "on_get") -> Any:
    return type("Resource", (), {name: responder(kind, decorate)})


def scope_in(answer: Answered) -> str:
    (challenge,) = answer.all("www-authenticate")
    return challenge.partition('scope="')[2].partition('"')[0]


@pytest.mark.parametrize("decorate", [falcon.before(requires("read")), requires("read")], ids=["hook", "decorator"])
def test_responder_resource_and_suffix_are_guarded(api: Api, decorate: Any):
    whole = decorate(resource(api.kind))
    api.app.add_route("/rows", resource(api.kind, decorate)())
    api.app.add_route("/whole", whole())
    api.app.add_route("/batch", resource(api.kind, decorate, "on_get_batch")(), suffix="batch")
    send = api.serve()
    for target in ("/rows", "/whole", "/batch"):
        assert send(api.request("read", target)).json == {"client": "client", "same": True}
        refused = send(api.request("other", target))
        assert (refused.status, scope_in(refused)) == (403, "read")
        unknown = send(api.request(None, target))
        assert (unknown.status, scope_in(unknown)) == (401, "read")


@pytest.mark.parametrize("suffix", [None, "batch"])
def test_decorated_resource_guards_its_responder_for_other_methods(api: Api, suffix: str | None):
    """Fault: a responder that the hooks of the framework leave out of a class."""
    name = "on_request" if suffix is None else f"on_request_{suffix}"
    whole = requires("read")(resource(api.kind, name=name))
    options = api.app.router_options
    is_routed = hasattr(options, "default_to_on_request")  # by Falcon 4.3 and newer
    if is_routed:
        options.default_to_on_request = True
    elif suffix is not None:
        with pytest.raises(SuffixedMethodNotFoundError):
            api.app.add_route("/rows", whole(), suffix=suffix)
        return
    api.app.add_route("/rows", whole(), suffix=suffix)
    send = api.serve()
    expected = [200, 403, 401] if is_routed else [405, 405, 401]
    for method in ("GET", "POST", "DELETE"):
        assert [send(api.request(scope, method=method)).status for scope in ("read", "other", None)] == expected
    assert scope_in(send(api.request(None))) == ("read" if is_routed else "")  # the audit sees it, too


def test_hooks_and_decorators_add_up(api: Api):
    for decorate in (
        lambda item: requires("read")(requires("write")(item)),
        lambda item: falcon.before(requires("read"))(requires("write")(item)),
        lambda item: requires("read")(falcon.before(requires("write"))(item)),
    ):
        api.app.add_route("/rows", resource(api.kind, decorate)())
        send = api.serve()
        assert [send(api.request(scope)).status for scope in ("read write", "read", "write")] == [200, 403, 403]


def test_hook_is_checked_even_if_falcon_does_not_await_it(monkeypatch: pytest.MonkeyPatch):
    """With this setting, Falcon wraps hooks that are not coroutine functions, and drops their result."""
    monkeypatch.setenv("FALCON_ASGI_WRAP_NON_COROUTINES", "Y")
    api = Api("asgi")
    api.app.add_route("/rows", resource("asgi", falcon.before(requires("read")))())
    send = api.serve()
    assert [send(api.request(scope)).status for scope in ("read", "other")] == [200, 403]


def test_error_handlers_of_the_app_do_not_change_a_refusal(api: Api):
    api.app.add_route("/rows", resource(api.kind, falcon.before(requires("read")))())
    send = api.serve()
    plain = send(api.request("other"))

    def hide(req: Any, resp: Any, error: Any, params: Any) -> None:
        resp.status, resp.text = "200 OK", "nothing happened"
        resp.set_header("www-authenticate", "Basic")

    async def hide_async(req: Any, resp: Any, error: Any, params: Any, ws: Any = None) -> None:
        hide(req, resp, error, params)

    for kind in (Exception, falcon.HTTPError, falcon.HTTPStatus):
        api.app.add_error_handler(kind, hide if api.kind == "wsgi" else hide_async)
    assert send(api.request("other")) == plain
    assert plain.status == 403
    assert plain.json["error"] == "insufficient_scope"
    assert plain.all("content-type") == ["application/problem+json"]
    assert plain.all("cache-control") == ["no-store"]


def test_each_challenge_of_a_refusal_has_a_field_of_its_own():
    key = ProofKey()
    for kind in KINDS:
        api = Api(kind, dpop=DPoP(base_url="https://api.test"))
        api.app.add_route("/rows", resource(kind, falcon.before(requires("read", acr="gold")))())
        token = api.authority.mint("read", bound_to=key)
        proof = key.proof(token, "GET", "https://api.test/rows", at=api.authority.clock.wall())
        fields = ((b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode()))
        answer = api.serve()(Exchange(target="/rows", headers=fields))
        assert answer.status == 401
        assert [value.partition(" ")[0] for value in answer.all("www-authenticate")] == ["Bearer", "DPoP"]


def test_sink_does_not_serve_a_path_whose_segments_are_others(api: Api):
    """Falcon compares the prefix of a sink as text: the sink at ``/files`` serves ``/filesx``, too."""

    def sink(req: Any, resp: Any, **_: str) -> None:
        resp.text = req.path

    async def sink_async(req: Any, resp: Any, **_: str) -> None:
        sink(req, resp)

    for prefix in ("/files", "/filestore", "/v", "/slash/", r"/(?P<name>re)"):
        api.app.add_sink(sink if api.kind == "wsgi" else sink_async, prefix)
    api.app.add_route("/filesystem/{name}", resource(api.kind)())
    rules = [Rule("/files/{rest:path}", "files"), Rule("/v1/{rest:path}", PUBLIC), Rule("/{rest:path}", OPTIONAL)]
    send = api.serve(rules=rules)
    for target in ("/filesx", "/filesx/y", "/files;x", "/filestorex", "/v2/x", "/vx/v1/x"):
        assert [send(api.request(scope, target)).status for scope in (None, "files")] == [401, 403], target
    assert send(api.request("files", "/files/x")).body == b"/files/x"
    assert send(api.request("read", "/filesystem/x")).status == 200
    for target in ("/filestore", "/filestore/x", "/v1/x", "/v", "/slash/x", "/rest"):
        assert send(api.request(None, target)).body.decode() == target


def test_sink_that_is_added_later_does_not_serve_such_a_path(api: Api):
    def sink(req: Any, resp: Any, **_: str) -> None:
        resp.text = req.path

    async def sink_async(req: Any, resp: Any, **_: str) -> None:
        sink(req, resp)

    send = api.serve(rules=[Rule("/files/{rest:path}", "files"), Rule("/{rest:path}", OPTIONAL)])
    assert send(api.request(None, "/filesx")).status == 404
    api.app.add_sink(sink if api.kind == "wsgi" else sink_async, "/files")
    assert send(api.request(None, "/filesx")).status == 401


def test_sink_and_unknown_path_are_guarded(api: Api):
    def sink(req: Any, resp: Any, **_: str) -> None:
        resp.text = access_token().client_id

    async def sink_async(req: Any, resp: Any, **_: str) -> None:
        sink(req, resp)

    api.app.add_sink(requires("files")(sink if api.kind == "wsgi" else sink_async), "/files")
    send = api.serve()
    assert [send(api.request(scope, "/files/a")).status for scope in ("files", "read", None)] == [200, 403, 401]
    assert [send(api.request(scope, "/nowhere")).status for scope in ("files", None)] == [404, 401]


def test_public_route_has_no_token_and_its_hook_refuses(api: Api):
    seen = []

    def on_get(self: Any, req: Any, resp: Any) -> None:
        seen.append((req.context.access_token, access_token_or_none()))

    async def on_get_async(self: Any, req: Any, resp: Any) -> None:
        on_get(self, req, resp)

    api.app.add_route("/open", type("Open", (), {"on_get": on_get if api.kind == "wsgi" else on_get_async})())
    api.app.add_route("/rows", resource(api.kind, requires("read"))())
    send = api.serve(public=["/open", "/rows"])
    assert send(api.request("read", "/open")).status == 200
    assert seen == [(None, None)]
    assert send(api.request("read")).status == 401


@pytest.mark.parametrize("kind", KINDS)
def test_app_behind_plain_middleware_keeps_status_challenge_and_body(kind: str):
    api = Api(kind)
    api.app.add_route("/rows", resource(kind, falcon.before(requires("read")))())
    plain: Any
    if kind == "wsgi":
        plain = scopeguard_wsgi.GuardMiddleware(api.app, guard=api.guard)
        answer = call_wsgi(plain, api.request("other"))
    else:
        plain = asgi.GuardMiddleware(api.app, guard=api.guard)
        answer = call_in_loop("asyncio", call_asgi, plain)(api.request("other"))
    assert (answer.status, scope_in(answer), answer.json["error"]) == (403, "read", "insufficient_scope")


def test_app_without_a_guard_fails_and_does_not_call_the_responder(
    api: Api, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    called = []

    def count(self: Any, req: Any, resp: Any) -> None:
        called.append(1)

    async def count_async(self: Any, req: Any, resp: Any) -> None:
        called.append(1)

    guarded = requires("read")(count if api.kind == "wsgi" else count_async)
    api.app.add_route("/rows", type("Rows", (), {"on_get": guarded})())
    result = TestClient(api.app).simulate_get("/rows", headers=api.authority.bearer("read"))
    assert result.status_code == 500
    assert not called
    assert "no guard has checked this request" in capsys.readouterr().err + caplog.text


def test_listener_gets_the_template_of_the_route():
    for kind in KINDS:
        events = list[DecisionEvent]()
        api = Api(kind, on_decision=events.append)
        api.app.add_route("/rows/{row}", resource(kind, falcon.before(requires("read")))())
        send = api.serve(rules=[Rule("/{rest:path}")])
        for scope in ("read", "other"):
            send(api.request(scope, "/rows/7"))
        found = [(type(event.decision).__name__, event.route, event.adapter.value) for event in events]
        assert found == [("Granted", "/rows/{row}", "falcon"), ("Denied", "/rows/{row}", "falcon")]


def test_preflight_passes_and_scripts_can_read_a_refusal(api: Api):
    made: Any = falcon.App if api.kind == "wsgi" else falcon.asgi.App
    api.app = made(cors_enable=True)
    api.app.add_route("/rows", resource(api.kind, falcon.before(requires("read")))())
    send = api.serve(cors_preflight="pass")
    origin = (b"origin", b"https://spa.test")
    asks = (origin, (b"access-control-request-method", b"GET"))
    assert send(Exchange(method="OPTIONS", target="/rows", headers=asks)).status == 200
    for scope, status in ((None, 401), ("other", 403)):
        sent = api.request(scope)
        answer = send(Exchange(target="/rows", headers=(*sent.headers, origin)))
        assert (answer.status, answer.all("access-control-allow-origin")) == (status, ["*"])
        assert "WWW-Authenticate" in answer.all("access-control-expose-headers")[0]


class Socket:
    """A responder for websockets that is guarded at the handshake or at its first message."""

    @falcon.before(requires("read"))
    async def on_websocket(self, req: Any, ws: Any) -> None:
        await ws.accept()
        await ws.send_text(access_token().client_id)
        await ws.close()

    async def on_websocket_late(self, req: Any, ws: Any) -> None:
        await ws.accept()
        await self._read(req, ws)

    @requires("read")
    async def _read(self, req: Any, ws: Any) -> None: ...


def open_socket(api: Api, target: str, scope: str | None, *, extension: bool = True) -> list[dict[str, Any]]:
    app: Any = protect(api.app, guard=api.guard)
    fields = [] if scope is None else [(b"authorization", f"Bearer {api.authority.mint(scope)}".encode())]
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "websocket.connect"}]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    connection = {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.3"}, "scheme": "wss", "path": target,
        "raw_path": target.encode(), "query_string": b"", "root_path": "", "headers": fields, "subprotocols": [],
        "client": ("192.0.2.1", 1), "extensions": {"websocket.http.response": {}} if extension else {}, "state": {},
    }  # fmt: skip
    anyio.run(app, connection, receive, send)
    return sent


def test_websocket_is_refused_before_it_is_accepted():
    api = Api("asgi")
    api.app.add_route("/live", Socket())
    accepted = open_socket(api, "/live", "read")
    assert [message["type"] for message in accepted] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert accepted[1]["text"] == "client"
    start, body = open_socket(api, "/live", "other")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    assert b'scope="read"' in dict(start["headers"])[b"www-authenticate"]
    assert b"insufficient_scope" in body["body"]
    (closed,) = open_socket(api, "/live", "other", extension=False)
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
    assert open_socket(api, "/live", None)[0]["status"] == 401


def test_websocket_that_is_accepted_is_closed():
    api = Api("asgi")
    api.app.add_route("/late", Socket(), suffix="late")
    accepted, closed = open_socket(api, "/late", "other")
    assert accepted["type"] == "websocket.accept"
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda guard: protect(NO_APP, guard=guard), "must be a falcon.App"),
        (lambda guard: protect(falcon.App(), guard=guard, close_streams="expiry"), "close_streams"),
        (lambda guard: requires("read")(7), "must decorate a responder"),
        (lambda guard: requires("read")(lambda: None)(), "found no request"),
    ],
    ids=["no app", "WSGI", "no function", "no request"],
)
def test_mistake_is_named(call: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        call(guard_for(FakeAuthority(), audit="off"))
