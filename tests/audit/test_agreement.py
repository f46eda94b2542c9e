"""The audit of a route agrees with the responses to requests."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from scopeguard import OPTIONAL, PUBLIC, Guard, Rule, all_of, any_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.audit.findings import audit_app
from scopeguard.audit.matching import example_path
from scopeguard.audit.report import Entry, Kind
from scopeguard.flask import ScopeGuard
from scopeguard.flask import optional as flask_optional
from scopeguard.flask import public as flask_public
from scopeguard.flask import requires as flask_requires
from scopeguard.starlette import requires
from scopeguard.testing import FakeAuthority


def starlette_app(guard: Guard) -> Any:
    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    @requires(any_of("write", "admin"))
    async def writing(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    routes = [
        Route("/open", plain),
        Route("/maybe/{x}", plain),
        Route("/rows/{id}", plain, methods=["GET", "PUT"]),
        Route("/rows", writing, methods=["POST"]),
        Route("/me", plain),
        Route("/nobody", plain),
        Mount("/v1", routes=[Route("/{a}/{b}:go", writing), Route("/deep/{rest:path}", plain)]),
    ]
    rules = [
        Rule("/maybe/{x}", OPTIONAL),
        Rule("/rows/{id}", all_of("read", "rows"), ["GET"]),
        Rule("/rows/{id}", all_of("write"), ["PUT"]),
        Rule("/rows", all_of("rows")),
        Rule("/v1/deep/{rest:path}", PUBLIC),
        Rule("/v1/{rest:path}"),
        Rule("/me"),
    ]
    return GuardMiddleware(Starlette(routes=routes), guard=guard, rules=rules, public=["/open"])


def flask_app(guard: Guard) -> Any:
    app = Flask("agreeing", static_folder=None)
    ScopeGuard(app, guard, rules=[Rule("/rows", all_of("rows"), ["POST"]), Rule("/both", OPTIONAL), Rule("/plain")])
    app.get("/open", endpoint="open")(flask_public(lambda: "open"))
    app.get("/maybe", endpoint="maybe")(flask_optional(lambda: "maybe"))
    app.get("/plain", endpoint="plain")(lambda: "plain")
    app.get("/both", endpoint="both")(flask_requires("read")(lambda: "both"))
    app.route("/rows", methods=["GET", "POST"], endpoint="rows")(flask_requires(any_of("a", "b"))(lambda: "rows"))
    app.get("/nobody", endpoint="nobody")(lambda: "nobody")
    return app


@pytest.mark.parametrize("make", [starlette_app, flask_app])
def test_audit_agrees_with_the_responses(make: Any):
    authority = FakeAuthority(audience="https://api.example.com")
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    app = make(guard)
    if isinstance(app, Flask):
        client: Any = httpx.Client(transport=httpx.WSGITransport(app), base_url="https://api.example.com")
    else:
        client = TestClient(app, base_url="https://api.example.com")

    def answer(entry: Entry, scopes: frozenset[str] | None) -> int:
        headers = {} if scopes is None else authority.bearer(" ".join(sorted(scopes)))
        return int(client.request(entry.method, example_path(entry.path), headers=headers).status_code)

    entries = audit_app(app).entries
    assert {entry.kind for entry in entries} == set(Kind) - {Kind.UNGUARDED}
    for entry in entries:
        nothing, some = answer(entry, None), answer(entry, frozenset({"other"}))
        if entry.kind in (Kind.PUBLIC, Kind.OPTIONAL):
            assert (nothing, some) == (200, 200), entry
        elif entry.kind is Kind.AUTHENTICATED:
            assert (nothing, some) == (401, 200), entry
        else:
            assert (nothing, some) == (401, 403), entry
        for scopes in entry.alternatives:
            assert answer(entry, scopes) == 200, entry
            for scope in scopes if len(scopes) > 1 else ():
                assert answer(entry, scopes - {scope}) == 403, entry
    guard.close()
