"""Decorators, middleware order, sub-apps, streams and websockets of aiohttp."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer

from aiohttp_calls import call_aiohttp
from doors import guard_for
from scenarios import Answered, Exchange
from scopeguard import (
    DENIED,
    OPTIONAL,
    ConfigurationError,
    DecisionEvent,
    DPoP,
    Guard,
    MutualTLS,
    Rule,
    access_token,
    access_token_or_none,
    all_of,
)
from scopeguard.aiohttp import optional, public, requires, setup
from scopeguard.spec.certificate_fields import thumbprint
from scopeguard.testing import FakeAuthority, ProofKey

Handler = Callable[..., Any]
NO_APP: Any = object()


async def handler(request: web.Request) -> web.Response:
    return web.json_response({"client": access_token().client_id, "same": access_token() is request["access_token"]})


class Api:
    """An app of which a test adds the routes, and requests to it."""

    def __init__(self, **settings: Any) -> None:
        self.authority = FakeAuthority()
        self.guard: Guard = guard_for(self.authority, audit="off", **settings)
        self.extra: dict[str, Any] = {}

    def send(
        self, build: Callable[[web.Application], object], scope: str | None = None, target: str = "/rows",
        method: str = "GET", *fields: tuple[bytes, bytes], middlewares: Any = (), body: bytes = b"", **given: Any,
    ) -> Answered:  # fmt: skip
        def make_app() -> web.Application:
            app = web.Application(middlewares=middlewares)
            build(app)
            if not given.pop("without", False):
                setup(app, self.guard, **given)
            return app

        own = () if scope is None else ((b"authorization", f"Bearer {self.authority.mint(scope)}".encode()),)
        exchange = Exchange(method=method, target=target, headers=(*own, *fields), body=body)
        return call_aiohttp(make_app, exchange, **self.extra)


@pytest.fixture
def api() -> Api:
    return Api()


def scope_in(answer: Answered) -> str:
    (challenge,) = answer.all("www-authenticate")
    return challenge.partition('scope="')[2].partition('"')[0]


class View(web.View):
    @requires("read")
    async def get(self) -> web.Response:
        return await handler(self.request)

    async def post(self) -> web.Response:
        return await handler(self.request)


@requires("read")
class Whole(web.View):
    async def get(self) -> web.Response:
        return await handler(self.request)


class Inherited(Whole):
    @requires("write")
    async def get(self) -> web.Response:
        return await handler(self.request)


class Handlers:
    @requires("read")
    async def handle(self, request: web.Request) -> web.Response:
        return await handler(request)


GUARDED: dict[str, Any] = {
    "function": requires("read")(handler),
    "method": Handlers().handle,
    "method of a view": View,
    "view": Whole,
}


@pytest.mark.parametrize("guarded", GUARDED.values(), ids=list(GUARDED))
def test_handlers_and_views_are_guarded(api: Api, guarded: Any):
    def build(app: web.Application) -> None:
        app.router.add_route("*", "/rows", guarded)

    assert api.send(build, "read").json == {"client": "client", "same": True}
    refused = api.send(build, "other")
    assert (refused.status, scope_in(refused)) == (403, "read")
    unknown = api.send(build)
    assert (unknown.status, scope_in(unknown)) == (401, "read")


def test_decorators_of_a_class_and_its_methods_add_up(api: Api):
    def build(app: web.Application) -> None:
        app.router.add_view("/rows", Inherited)
        app.router.add_view("/view", View)

    assert [api.send(build, scope).status for scope in ("read write", "read", "write")] == [200, 403, 403]
    assert [api.send(build, scope, "/view", "POST").status for scope in ("other", None)] == [200, 401]


def test_decorator_below_another_that_hides_it_still_holds(api: Api):
    def hide(inner: Handler) -> Handler:
        async def call_inner(request: web.Request) -> Any:
            return await inner(request)

        return call_inner

    def build(app: web.Application) -> None:
        app.router.add_get("/rows", hide(requires("read")(handler)))

    assert [api.send(build, scope).status for scope in ("read", "other", None)] == [200, 403, 401]


def test_requirement_overrides_public_and_optional(api: Api):
    async def anybody(request: web.Request) -> web.Response:
        assert access_token_or_none() is request["access_token"]
        return web.Response(text=str(request["access_token"] is not None))

    def build(app: web.Application) -> None:
        app.router.add_get("/open", public(_copy(anybody)))
        app.router.add_get("/maybe", optional(_copy(anybody)))
        app.router.add_get("/rows", public(requires("read")(anybody)))

    assert [api.send(build, scope, "/open").body for scope in ("read", None)] == [b"False", b"False"]
    assert [api.send(build, scope, "/maybe").body for scope in ("read", None)] == [b"True", b"False"]
    assert [api.send(build, scope).status for scope in ("read", None)] == [200, 401]


def _copy(function: Any) -> Any:
    async def call(request: web.Request) -> Any:
        return await function(request)

    return call


def test_unknown_path_and_method_are_guarded(api: Api):
    def build(app: web.Application) -> None:
        app.router.add_get("/rows", handler)

    for target, method, status in (("/nowhere", "GET", 404), ("/rows", "DELETE", 405)):
        assert [api.send(build, scope, target, method).status for scope in ("read", None)] == [status, 401]
    denied = [Rule("/rows", all_of("read"))]
    assert api.send(build, "read", "/nowhere", rules=denied).status == 403
    assert api.send(build, "read", "/rows", rules=denied).status == 200


def test_readings_of_a_path_that_lead_to_different_rules_are_denied(api: Api):
    def build(app: web.Application) -> None:
        app.router.add_get("/items/{name}", requires("read")(handler))

    def build_other(app: web.Application) -> None:
        app.router.add_get("/{name}", handler)  # aiohttp matches it with /open%2Fsecret, too

    rules = [Rule("/open/{name}", OPTIONAL), Rule("/{name}", all_of("secret"))]
    assert api.send(build_other, "secret", "/secret", rules=rules).status == 200
    assert [api.send(build_other, scope, "/open%2Fsecret", rules=rules).status for scope in ("read", None)] == [
        403,
        401,
    ]
    rules = [Rule("/items/admin/secret", all_of("secret"))]
    assert api.send(build, "read", "/items/a", rules=rules).status == 200
    assert api.send(build, "read", "/items/admin%2Fsecret", rules=rules).status == 403


def test_sub_apps_are_guarded_by_the_guard_of_the_app_and_their_own(api: Api):
    def build(app: web.Application) -> None:
        plain, guarded = web.Application(), web.Application()
        plain.router.add_get("/rows", requires("read")(handler))
        guarded.router.add_get("/rows", handler)
        setup(guarded, api.guard, rules=[Rule("/own/rows", all_of("own"))])
        app.add_subapp("/plain", plain)
        app.add_subapp("/own", guarded)

    assert [api.send(build, scope, "/plain/rows").status for scope in ("read", "other", None)] == [200, 403, 401]
    assert [api.send(build, scope, "/own/rows").status for scope in ("own", "other", None)] == [200, 403, 401]
    assert api.send(build, "own", "/own/rows", without=True).status == 200
    assert api.send(build, None, "/own/rows", without=True).status == 401


def test_middleware_of_the_app_does_not_change_a_refusal(api: Api):
    """The middleware of ``setup`` is outside, and its refusal is not an exception."""
    seen: list[str] = []

    @web.middleware
    async def hide(request: web.Request, handler: Handler) -> web.StreamResponse:
        seen.append(request.path)
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPException:
            return web.Response(text="hidden")
        return response

    def build(app: web.Application) -> None:
        app.router.add_get("/rows", requires("read")(handler))
        app.router.add_get("/late", late)

    async def late(request: web.Request) -> Any:
        return await requires("read")(handler)(request)

    plain = [api.send(build, scope) for scope in ("other", None)]
    assert [api.send(build, scope, middlewares=[hide]).headers for scope in ("other", None)] == [
        a.headers for a in plain
    ]
    assert not seen
    inside = api.send(build, "other", "/late", middlewares=[hide])
    assert (inside.status, inside.json["error"]) == (403, "insufficient_scope")
    assert api.send(build, "read", "/nowhere", middlewares=[hide]).body == b"hidden"


def test_raised_response_gets_the_headers_of_the_guard():
    api = Api(token_sources=["header", "query"])

    async def move(request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere", headers={"Cache-Control": "public"})

    def build(app: web.Application) -> None:
        app.router.add_get("/rows", move)

    answer = api.send(build, None, f"/rows?a=1&access_token={api.authority.mint('read')}")
    assert (answer.status, answer.all("cache-control"), answer.all("referrer-policy")) == (
        302,
        ["private"],
        ["no-referrer"],
    )


def test_token_in_the_query_is_hidden_from_handlers_and_the_access_log(caplog: pytest.LogCaptureFixture):
    api = Api(token_sources=["header", "query"])
    token = api.authority.mint("read")
    shown: list[str] = []

    async def show(request: web.Request) -> web.Response:
        shown.extend([str(request.url), request.path_qs, request.raw_path, request.query_string, str(request.rel_url)])
        assert request.query.getall("a") == ["1", "2"]
        return web.Response()

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/rows", show)
        setup(app, api.guard)
        async with TestClient(TestServer(app)) as client:
            assert (await client.get(f"/rows?a=1&access_token={token}&a=2")).status == 200

    with caplog.at_level(logging.INFO, "aiohttp.access"):
        asyncio.run(run())
    assert any("/rows?a=1&a=2" in record.getMessage() for record in caplog.records)
    assert not any(token in text for text in (*shown, *(record.getMessage() for record in caplog.records)))


def test_form_of_a_route_reaches_the_handler():
    api = Api(token_sources=["header", "form"])

    async def echo(request: web.Request) -> web.Response:
        return web.json_response([(await request.post())["a"], (await request.read()).decode()[:3]])

    def build(app: web.Application) -> None:
        app.router.add_post("/rows", echo)

    kind = (b"content-type", b"application/x-www-form-urlencoded")
    body = f"a=1&access_token={api.authority.mint('read')}".encode()
    assert json.loads(api.send(build, None, "/rows", "POST", kind, body=body).body) == ["1", "a=1"]
    assert api.send(build, None, "/rows", "POST", kind, body=b"a=" + b"x" * 70_000).status == 413
    assert api.send(build, "read", "/rows", "POST", kind, body=b"a=1").status == 200


class Streams:
    """Requests to an app with a real server on loopback."""

    def __init__(self, api: Api, build: Callable[[web.Application], object], **settings: Any) -> None:
        self._api, self._build, self._settings = api, build, settings

    def run(self, use: Callable[[TestClient[Any, Any]], Awaitable[Any]]) -> Any:
        async def inside() -> Any:
            app = web.Application()
            self._build(app)
            setup(app, self._api.guard, **self._settings)
            async with TestClient(TestServer(app)) as client:
                return await use(client)

        return asyncio.run(inside())


def test_request_and_response_bodies_are_streamed(api: Api):
    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk.upper() + str(access_token().client_id).encode())
        return response

    async def use(client: TestClient[Any, Any]) -> tuple[int, bytes, int]:
        async def parts() -> Any:
            yield b"a"
            await asyncio.sleep(0)
            yield b"b"

        answer = await client.post("/rows", data=parts(), headers=api.authority.bearer("read"))
        refused = await client.post("/rows", data=parts())
        return answer.status, await answer.read(), refused.status

    status, body, refused = Streams(api, lambda app: app.router.add_post("/rows", requires("read")(echo))).run(use)
    assert (status, refused) == (200, 401)
    assert body.replace(b"client", b"") == b"AB"


def test_streamed_response_gets_the_nonce_of_the_guard():
    key = ProofKey()
    api = Api(dpop=DPoP(base_url="https://api.test", nonce_keys=["a secret of the operator, 32 bytes or more"]))
    token = api.authority.mint("read", bound_to=key)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    def build(app: web.Application) -> None:
        app.router.add_get("/rows", stream)

    def send(**claims: Any) -> Answered:
        proof = key.proof(token, "GET", "https://api.test/rows", at=api.authority.clock.wall(), claims=claims)
        fields = ((b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode()))
        return api.send(build, None, "/rows", "GET", *fields)

    (nonce,) = send().all("dpop-nonce")
    api.authority.clock.advance(200)
    assert len(send(nonce=nonce).all("dpop-nonce")) == 1


def test_websocket_is_refused_before_it_is_accepted(api: Api):
    async def live(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{message.data} {access_token().client_id}")
        return socket

    async def use(client: TestClient[Any, Any]) -> str:
        for headers, status in (({}, 401), (api.authority.bearer("other"), 403)):
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect("/live", headers=headers)
            assert refused.value.status == status
            assert refused.value.headers is not None
            assert "Bearer" in refused.value.headers["www-authenticate"]
        async with client.ws_connect("/live", headers=api.authority.bearer("read")) as socket:
            await socket.send_str("hello")
            return str(await socket.receive_str())

    assert Streams(api, lambda app: app.router.add_get("/live", requires("read")(live))).run(use) == "hello client"


def test_token_among_subprotocols_is_hidden_and_its_marker_selected():
    api = Api(token_sources=["header", "subprotocol"])
    seen: list[Any] = []

    async def live(request: web.Request) -> web.WebSocketResponse:
        seen.append(request.headers.get("Sec-WebSocket-Protocol"))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async def use(client: TestClient[Any, Any]) -> Any:
        async with client.ws_connect("/live", protocols=["bearer", api.authority.mint("read")]) as socket:
            return socket.protocol

    assert Streams(api, lambda app: app.router.add_get("/live", live)).run(use) == "bearer"
    assert seen == [None]


def test_listener_gets_the_template_of_the_route():
    events: list[DecisionEvent] = []
    api = Api(on_decision=events.append)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    def build(app: web.Application) -> None:
        app.router.add_get("/rows/{row}", requires("read")(stream))

    for scope in ("read", "other"):
        api.send(build, scope, "/rows/7", rules=[Rule("/{rest:path}")])
    found = [(type(event.decision).__name__, event.route, event.adapter.value) for event in events]
    assert found == [("Granted", "/rows/{row}", "aiohttp"), ("Denied", "/rows/{row}", "aiohttp")]


def test_preflight_passes_and_scripts_can_read_a_refusal(api: Api):
    async def add_cors(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Access-Control-Allow-Origin"] = "*"

    def build(app: web.Application) -> None:
        app.router.add_get("/rows", requires("read")(handler))
        app.router.add_options("/rows", _copy(lambda _: _respond()))
        app.on_response_prepare.append(add_cors)

    async def _respond() -> web.Response:
        return web.Response()

    origin = (b"origin", b"https://spa.test")
    asks = (origin, (b"access-control-request-method", b"GET"))
    settings: dict[str, Any] = {"cors_preflight": "pass"}
    assert api.send(build, None, "/rows", "OPTIONS", *asks, **settings).status == 200
    assert api.send(build, None, "/rows", "OPTIONS", *asks).status == 401
    assert api.send(build, None, "/rows", "OPTIONS", *asks, rules=[Rule("/rows", DENIED)], **settings).status == 401
    assert api.send(build, None, "/rows", "OPTIONS", *asks, rules=[Rule("/other")], **settings).status == 200
    unknown = api.send(build, None, "/rows", "OPTIONS", asks[0], (b"access-control-request-method", b"PUT"), **settings)
    assert unknown.status == 200
    closed = {"rules": [Rule("/other")], **settings}
    refused = api.send(build, None, "/rows", "OPTIONS", asks[0], (b"access-control-request-method", b"PUT"), **closed)
    assert refused.status == 401
    refused = api.send(build, "other", "/rows", "GET", origin, **settings)
    assert (refused.status, refused.all("access-control-allow-origin")) == (403, ["*"])
    assert "WWW-Authenticate" in refused.all("access-control-expose-headers")[0]


def test_certificate_of_the_connection_is_compared():
    class Connection:
        def getpeercert(self, *, binary_form: bool) -> bytes:
            return b"the certificate" if binary_form else b""

    api = Api(mutual_tls=MutualTLS())
    build: Callable[[web.Application], object] = lambda app: app.router.add_get("/rows", handler)  # noqa: E731
    bound = api.authority.mint("read", claims={"cnf": {"x5t#S256": thumbprint(b"the certificate")}})
    field = (b"authorization", f"Bearer {bound}".encode())
    assert api.send(build, None, "/rows", "GET", field).status == 401
    api.extra = {"ssl_object": Connection()}
    assert api.send(build, None, "/rows", "GET", field).status == 200


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda guard: setup(NO_APP, guard), "app: must be an aiohttp web.Application"),
        (lambda guard: setup(web.Application(), NO_APP), "guard: must be a scopeguard.Guard"),
        (lambda guard: requires("read")(lambda request: None), "cannot be decorated"),
        (lambda guard: asyncio.run(requires("read")(handler)(NO_APP)), "found no request"),
    ],
    ids=["no app", "no guard", "not async", "no request"],
)
def test_mistake_is_named(call: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        call(guard_for(FakeAuthority(), audit="off"))


def test_setup_is_called_once_and_decorators_need_it(api: Api):
    app = web.Application()
    setup(app, api.guard)
    with pytest.raises(ConfigurationError, match="has a guard already"):
        setup(app, api.guard)

    def build(app: web.Application) -> None:
        app.router.add_get("/rows", requires("read")(handler))

    assert api.send(build, "read", without=True).status == 500
