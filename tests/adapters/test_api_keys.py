"""API keys behind every adapter: which route accepts them, and that neither the app nor a shared cache sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import falcon
import falcon.asgi
import fastapi
import flask
import pytest
from aiohttp import web
from django.http import HttpRequest, HttpResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiohttp_calls import RunningApp
from django_project import GUARD_MIDDLEWARE, USUAL_MIDDLEWARE, make_application, url_conf
from doors import call_asgi, call_in_loop, call_wsgi
from kept import keep
from scenarios import Answered, Exchange
from scopeguard import AUTHENTICATED, OPTIONAL, AccessToken, ApiKey, ApiKeys, Guard, Rule, Rules, asgi, wsgi
from scopeguard import access_token_or_none as current
from scopeguard.aiohttp import setup
from scopeguard.errors import ResponseAborted
from scopeguard.falcon import protect
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.inbound_tokens import inbound_token_or_none
from scopeguard.spec.api_key import make_key
from scopeguard.testing import FakeAuthority

ID, KEY, DIGEST = make_key("acme", lambda size: b"x" * size)
ENTRY = ApiKey(id=ID, sha256=DIGEST, subject="alice", scopes=["read"], expires_at=None)
RULES = Rules(
    [
        Rule("/tokens", token_sources=["header"]),
        Rule("/keys", token_sources=["api_key"]),
        Rule("/either", "read", token_sources=["header", "api_key"]),
        Rule("/usual"),
        Rule("/optional", OPTIONAL, token_sources=["header", "api_key"]),
    ],
    public=["/public"],
)
PATHS = ("/tokens", "/keys", "/either", "/usual", "/optional", "/public")
CACHE = {"Cache-Control": "public, max-age=60, s-maxage=60"}
Send = Callable[[Exchange], Answered]


def describe_request(fields: Any, token: AccessToken | None) -> bytes:
    """Return what the app sees: its request fields and the subject of the token."""
    return json.dumps({"fields": str(fields), "subject": None if token is None else token.subject}).encode()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in CACHE.items()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": describe_request(scope["headers"], current())})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", list(CACHE.items()))
    return [describe_request({k: v for k, v in environ.items() if k.startswith("HTTP_")}, current())]


def _asgi(guard: Guard) -> Send:
    return call_in_loop("trio", call_asgi, asgi.GuardMiddleware(asgi_app, guard=guard))


def _wsgi(guard: Guard) -> Send:
    app = wsgi.GuardMiddleware(wsgi_app, guard=guard)
    return lambda exchange: call_wsgi(app, exchange)


def _starlette(guard: Guard) -> Send:
    async def endpoint(request: Request) -> Response:
        return Response(describe_request(request.headers.items(), request.state.access_token), headers=CACHE)

    middleware: Any = Middleware(asgi.GuardMiddleware, guard=guard)
    return call_in_loop(
        "asyncio", call_asgi, Starlette(routes=[Route(path, endpoint) for path in PATHS], middleware=[middleware])
    )


def _fastapi(guard: Guard) -> Send:
    app = fastapi.FastAPI()
    for path in PATHS:
        rule = RULES.find("GET", path)
        assert rule is not None
        # "/usual" has the sources of the guard; a rule of the guard would need the middleware.
        own = Protected(guard, token_sources=rule.sources, optional=path == "/optional")
        dependency: Any = fastapi.Depends(own if path != "/public" else (lambda: None))

        async def endpoint(request: fastapi.Request, token: Any = dependency) -> Any:
            return json.loads(describe_request(request.headers.items(), token))

        app.add_api_route(path, endpoint, name=path)
    return call_in_loop("asyncio", call_asgi, app)


def _flask(guard: Guard) -> Send:
    app = flask.Flask(__name__, static_folder=None)
    app.testing = True
    ScopeGuard(app, guard, rules=RULES)
    for path in PATHS:
        app.add_url_rule(path, path, lambda: (describe_request(dict(flask.request.headers), current()), CACHE))
    return lambda exchange: call_wsgi(app, exchange)


def _django(*, asynchronous: bool) -> Callable[[Guard], Send]:
    def open_door(guard: Guard) -> Send:
        def view(request: HttpRequest) -> HttpResponse:
            fields = (dict(request.headers), {k: v for k, v in request.META.items() if k.startswith("HTTP_")})
            raw = getattr(request, "scope", {}).get("headers")
            return HttpResponse(describe_request((fields, raw), request.access_token), headers=CACHE)

        async def view_async(request: HttpRequest) -> HttpResponse:
            return view(request)

        views: dict[str, Any] = dict.fromkeys(PATHS, view_async if asynchronous else view)
        settings = {"GUARD": guard, "RULES": RULES.all, "PUBLIC": ["/public"]}
        app = make_application(url_conf(views), settings, asynchronous=asynchronous, MIDDLEWARE=[GUARD_MIDDLEWARE])
        return call_in_loop("asyncio", call_asgi, app) if asynchronous else lambda exchange: call_wsgi(app, exchange)

    return open_door


class FalconResource:
    def on_get(self, req: Any, resp: Any) -> None:
        own = req.env if hasattr(req, "env") else req.scope["headers"]
        resp.data = describe_request((req.headers, own), req.context.access_token)
        resp.set_headers(CACHE)


class FalconAsyncResource:
    async def on_get(self, req: Any, resp: Any) -> None:
        FalconResource().on_get(req, resp)


def _falcon(*, asynchronous: bool) -> Callable[[Guard], Send]:
    def open_door(guard: Guard) -> Send:
        app: Any = falcon.asgi.App() if asynchronous else falcon.App()
        for path in PATHS:
            app.add_route(path, FalconAsyncResource() if asynchronous else FalconResource())
        guarded: Any = protect(app, guard=guard)
        return (
            call_in_loop("asyncio", call_asgi, guarded)
            if asynchronous
            else lambda exchange: call_wsgi(guarded, exchange)
        )

    return open_door


def _aiohttp(guard: Guard) -> Send:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=describe_request((request.headers, request.raw_headers), request["access_token"]), headers=CACHE
        )

    def make_app() -> web.Application:
        app = web.Application()
        for path in PATHS:
            app.router.add_get(path, handler)
        setup(app, guard)
        return app

    return keep(RunningApp(make_app)).send


DOORS: dict[str, Callable[[Guard], Send]] = {
    "asgi": _asgi,
    "wsgi": _wsgi,
    "starlette": _starlette,
    "fastapi": _fastapi,
    "flask": _flask,
    "django-wsgi": _django(asynchronous=False),
    "django-asgi": _django(asynchronous=True),
    "falcon-wsgi": _falcon(asynchronous=False),
    "falcon-asgi": _falcon(asynchronous=True),
    "aiohttp": _aiohttp,
}


@dataclass
class Api:
    """The API behind one door, and a token for it."""

    name: str
    send: Send
    token: str

    def get(self, path: str, *, key: str | None = None, token: bool = False, field: bytes = b"X-Api-Key") -> Answered:
        headers = [] if key is None else [(field, key.encode())]
        if token:
            headers.append((b"authorization", f"Bearer {self.token}".encode()))
        return self.send(Exchange(target=path, headers=tuple(headers)))


@pytest.fixture(scope="module", params=DOORS)
def api(request: pytest.FixtureRequest) -> Api:
    authority = FakeAuthority(audience="https://api.test")
    rules = None if request.param == "fastapi" else RULES
    guard = Guard(
        authority.issuer,
        resource="https://api.test",
        api_keys=ApiKeys(prefix="acme", lookup=lambda identifier: ENTRY if identifier == ID else None),
        rules=rules,
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    return Api(request.param, DOORS[request.param](guard), authority.mint("read", subject="bob"))


@pytest.mark.parametrize(
    ("path", "with_key", "with_token"),
    [("/tokens", 401, 200), ("/keys", 200, 401), ("/either", 200, 200), ("/usual", 401, 200), ("/optional", 200, 200)],
)
def test_each_route_accepts_the_credentials_of_its_rule(api: Api, path: str, with_key: int, with_token: int):
    for _ in range(3):  # a token is known then
        assert api.get(path, key=KEY).status == with_key
        assert api.get(path, token=True).status == with_token
    assert api.get(path).status == (200 if path == "/optional" else 401)


@pytest.mark.parametrize("path", ["/tokens", "/keys", "/either", "/usual", "/optional"])
@pytest.mark.parametrize("key", [KEY, "nonsense"])
def test_both_credentials_are_refused_also_when_the_token_is_known(api: Api, path: str, key: str):
    for _ in range(3):
        api.get(path, token=True)
    assert api.get(path, token=True, key=key).status == 400


@pytest.mark.parametrize("path", ["/keys", "/either", "/optional", "/public"])
def test_app_never_sees_the_key(api: Api, path: str):
    if (api.name, path) == ("fastapi", "/public"):
        return  # no part of the guard sees a route without a dependency
    for field in (b"x-api-key", b"X-Api-Key", b"X-API-KEY"):
        answer = api.get(path, key=KEY, field=field)
        assert answer.status == 200
        assert KEY not in answer.body.decode()
        assert answer.json["subject"] == (None if path == "/public" else "alice")


@pytest.mark.parametrize("path", ["/keys", "/either", "/optional"])
def test_no_shared_cache_may_store_the_response_to_a_key(api: Api, path: str):
    """RFC 9111 section 3.5 protects responses to requests with Authorization only."""
    directives = ", ".join(api.get(path, key=KEY).all("cache-control")).split(", ")
    assert "private" in directives
    assert not {"public", "s-maxage=60"} & set(directives)
    if api.name != "fastapi" and path != "/keys":
        assert "public" in ", ".join(api.get(path, token=True).all("cache-control"))


def test_response_of_an_optional_route_varies_with_both_credentials(api: Api):
    fields = ", ".join(api.get("/optional").all("vary")).lower()
    assert "authorization" in fields
    assert "x-api-key" in fields


def test_challenge_names_the_field_where_only_keys_are_accepted(api: Api):
    assert [value.partition(" ")[0] for value in api.get("/keys").all("www-authenticate")] == ["ApiKey"]
    assert [value.partition(" ")[0] for value in api.get("/either").all("www-authenticate")] == ["Bearer"]


# -- what only one adapter has


def guard_with_keys(**settings: Any) -> Guard:
    authority = FakeAuthority(audience="https://api.test")
    return Guard(
        authority.issuer,
        resource="https://api.test",
        api_keys=ApiKeys(prefix="acme", lookup=lambda identifier: ENTRY if identifier == ID else None),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
        **settings,
    )


def test_openapi_document_of_fastapi_has_the_scheme():
    app = fastapi.FastAPI()
    protected = Protected(guard_with_keys(), token_sources=["header", "api_key"])
    app.add_api_route("/x", lambda: None, dependencies=[fastapi.Depends(protected)])
    schemes = app.openapi()["components"]["securitySchemes"]
    assert schemes["ApiKey"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}


def test_key_needs_no_csrf_token_in_django():
    views: dict[str, Any] = {"/keys": lambda request: HttpResponse("done")}
    settings = {"GUARD": guard_with_keys(), "RULES": [Rule("/keys", token_sources=["api_key"])]}
    app = make_application(url_conf(views), settings, asynchronous=False, MIDDLEWARE=USUAL_MIDDLEWARE)
    post = Exchange(method="POST", target="/keys", headers=((b"x-api-key", KEY.encode()),), body=b"x")
    assert call_wsgi(app, post).status == 200


def test_rule_and_view_must_both_accept_the_credential():
    guard = guard_with_keys()
    app = flask.Flask(__name__, static_folder=None)
    app.testing = True
    ScopeGuard(app, guard, rules=[Rule("/x", token_sources=["header"])])
    app.add_url_rule("/x", "x", flask_requires(AUTHENTICATED, token_sources=["api_key"])(lambda: "done"))
    assert call_wsgi(app, Exchange(target="/x", headers=((b"x-api-key", KEY.encode()),))).status == 401


def test_revocation_of_a_key_ends_its_stream():
    guard = guard_with_keys(rules=[Rule("/keys", token_sources=["api_key"])], keep_token_for_exchange=True)
    ended: list[str] = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert inbound_token_or_none() is None  # the text of a key is not held
        guard.revoke(token=KEY)
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(scope["path"])

    app = asgi.GuardMiddleware(stream, guard=guard, close_streams="revocation")
    send = call_in_loop("asyncio", call_asgi, app)
    with pytest.raises(ResponseAborted):
        send(Exchange(target="/keys", headers=((b"x-api-key", KEY.encode()),)))
    assert ended == ["/keys"]
