"""Every adapter serves the metadata of the resource (RFC 9728), and its challenges lead there."""

from __future__ import annotations

import json
from typing import Any

import fastapi
import flask
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from doors import DOORS, Door, asgi_app, call_asgi, call_in_loop, call_wsgi, wsgi_app
from framework_doors import FRAMEWORK_DOORS
from scenarios import Answered, Exchange
from scopeguard import ConfigurationError, Guard, Issuer, Rule, all_of, asgi, wsgi
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.starlette import GuardMiddleware, requires

WELL_KNOWN = "/.well-known/oauth-protected-resource"
HOST = ((b"host", b"evil.example"), (b"x-forwarded-host", b"evil.example"))
ADAPTERS = [door for door in (*DOORS, *FRAMEWORK_DOORS) if "asgi" in door.name or door.name == "wsgi"]
ADAPTERS += [door for door in FRAMEWORK_DOORS if door not in ADAPTERS]


def guard_of(path: str = "/v1", **settings: Any) -> Guard:
    return Guard(Issuer("https://as.test"), resource=f"https://api.test{path}", audit="off", **settings)


def get(target: str, method: str = "GET", *headers: tuple[bytes, bytes]) -> Exchange:
    return Exchange(method=method, target=target, headers=(*HOST, *headers))


@pytest.mark.rule("R-01", "R-07", "R-09", "R-10", "R-24", "R-28", "R-30", "MC-16")
@pytest.mark.parametrize("door", ADAPTERS, ids=lambda door: door.name)
def test_every_adapter_serves_the_document_without_a_token(door: Door):
    send = door.opened(guard_of())
    answer = send(get(f"{WELL_KNOWN}/v1", "GET", (b"origin", b"https://evil.example")))
    assert (answer.status, answer.all("content-type")) == (200, ["application/json"])
    assert answer.json["resource"] == "https://api.test/v1"
    assert answer.json["authorization_servers"] == ["https://as.test"]
    assert answer.json["scopes_supported"] == ["admin", "read", "write"]
    assert answer.json["bearer_methods_supported"] == ["header", "body", "query"] or "fastapi" in door.name
    assert answer.all("access-control-allow-origin") == ["*"]
    (tag,) = answer.all("etag")
    assert send(get(f"{WELL_KNOWN}/v1", "GET", (b"if-none-match", tag.encode()))).status == 304
    head = send(get(WELL_KNOWN, "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert send(get(f"{WELL_KNOWN}/v1", "POST")).status == 405
    assert send(get(f"{WELL_KNOWN}/other")).status == 404


@pytest.mark.rule("R-22", "R-24")
@pytest.mark.parametrize("door", ADAPTERS, ids=lambda door: door.name)
def test_every_challenge_leads_to_the_document(door: Door):
    answer = door.opened(guard_of())(get("/both"))
    (challenge,) = answer.all("www-authenticate")
    assert f'resource_metadata="https://api.test{WELL_KNOWN}/v1"' in challenge


def test_what_decorators_require_is_listed():
    guard = guard_of(rules=[Rule("/a", all_of("a"))])

    @requires("from.starlette")
    async def endpoint(request: Request) -> Response:
        return Response()

    app: Any = Starlette(routes=[Route("/b", endpoint)], middleware=[Middleware(GuardMiddleware, guard=guard)])
    answer = call_in_loop("asyncio", call_asgi, app)(get(f"{WELL_KNOWN}/v1"))
    assert answer.json["scopes_supported"] == ["a", "from.starlette"]


def test_what_dependencies_require_is_listed():
    protected = Protected(guard_of())
    app = fastapi.FastAPI(dependencies=[fastapi.Depends(protected)])

    @app.get("/b", dependencies=[fastapi.Depends(protected.requires("from.fastapi"))])
    async def endpoint() -> None: ...

    answer = call_in_loop("trio", call_asgi, app)(get(f"{WELL_KNOWN}/v1"))
    assert answer.json["scopes_supported"] == ["from.fastapi"]
    assert call_in_loop("asyncio", call_asgi, app)(get("/b")).status == 401


def test_what_views_require_is_listed():
    app = flask.Flask(__name__, static_folder=None)
    ScopeGuard(app, guard_of())

    @app.get("/b")
    @flask_requires("from.flask")
    def view() -> str:
        return ""

    assert call_wsgi(app, get(f"{WELL_KNOWN}/v1")).json["scopes_supported"] == ["from.flask"]


@pytest.mark.rule("R-29", "R-25")
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_mounted_guards_have_a_document_each(kind: str):
    orders, billing = guard_of("/orders", rules=[Rule("/a", all_of("orders"))]), guard_of("/billing")

    def send(exchange: Exchange) -> Answered:
        if kind == "wsgi":
            return call_wsgi(wsgi.ResourceMetadataMiddleware(wsgi_app, guards=[orders, billing]), exchange)
        inner: Any = asgi.GuardMiddleware(asgi_app, guard=orders)
        routes = [Mount("/orders", inner), Mount("/billing", asgi.GuardMiddleware(asgi_app, guard=billing))]
        app: Any = asgi.ResourceMetadataMiddleware(Starlette(routes=routes), guards=[orders, billing])
        return call_in_loop("asyncio", call_asgi, app)(exchange)

    for name in ("orders", "billing"):
        assert send(get(f"{WELL_KNOWN}/{name}")).json["resource"] == f"https://api.test/{name}"
    assert send(get(WELL_KNOWN)).json["resource"] == "https://api.test/orders"
    assert send(get(f"{WELL_KNOWN}/else")).status == 404
    if kind == "asgi":
        (challenge,) = send(get("/billing/x")).all("www-authenticate")
        assert f'resource_metadata="https://api.test{WELL_KNOWN}/billing"' in challenge


@pytest.mark.parametrize("make", [asgi.ResourceMetadataMiddleware, wsgi.ResourceMetadataMiddleware])
def test_a_guard_without_metadata_is_refused(make: Any):
    app = asgi_app if make is asgi.ResourceMetadataMiddleware else wsgi_app
    with pytest.raises(ConfigurationError, match="a guard has no metadata; give it a resource"):
        make(app, guards=[Guard(Issuer("https://as.test", audience="a"))])
    for guards in ([], "x", [1]):
        with pytest.raises(ConfigurationError, match="guards: "):
            make(app, guards=guards)


def test_without_a_resource_the_paths_belong_to_the_app():
    guard = Guard(Issuer("https://as.test", audience="a"), audit="off")
    app: Any = asgi.GuardMiddleware(asgi_app, guard=guard, public=[WELL_KNOWN])
    answer = call_in_loop("asyncio", call_asgi, app)(get(WELL_KNOWN))
    assert json.loads(answer.body)["client"] is None
