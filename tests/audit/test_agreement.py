"""The audit of a route agrees with the responses to requests."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from flask import Flask
from litestar import Litestar, get, post
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from scopeguard import OPTIONAL, PUBLIC, Guard, Rule, all_of, any_of
from scopeguard import litestar as in_litestar
from scopeguard import quart as in_quart
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


def litestar_app(guard: Guard) -> Any:
    async def answer() -> str:
        return "answer"

    app = Litestar(
        [
            get("/open", scopeguard="public")(answer),
            get("/maybe", scopeguard="optional")(answer),
            get("/plain")(answer),
            get("/both", guards=[in_litestar.requires("read")])(answer),
            get("/rows/{number:str}", guards=[in_litestar.requires(any_of("a", "b"))])(answer),
            post("/rows/{number:str}", status_code=200)(answer),
            get("/files/{rest:path}", scopeguard="public")(answer),
            get("/nobody")(answer),
        ],
        openapi_config=None,
        logging_config=None,
    )
    rules = [Rule("/rows/{number}", all_of("rows"), ["POST"]), Rule("/both", OPTIONAL), Rule("/plain")]
    in_litestar.ScopeGuard(app, guard, rules=rules)
    return app


def quart_app(guard: Guard) -> Any:
    app = Quart("agreeing", static_folder=None)

    def add(path: str, decorate: Any = lambda view: view, *methods: str) -> None:
        async def answer(**_: Any) -> str:
            return "answer"

        app.add_url_rule(path, f"{path} {methods}", decorate(answer), methods=methods or ["GET"])

    add("/open", in_quart.public)
    add("/maybe", in_quart.optional)
    add("/plain")
    add("/both", in_quart.requires("read"))
    add("/rows/<number>", in_quart.requires(any_of("a", "b")), "GET", "POST")
    add("/files/<path:rest>", in_quart.public)
    add("/nobody")
    rules = [Rule("/rows/{number}", all_of("rows"), ["POST"]), Rule("/both", OPTIONAL), Rule("/plain")]
    in_quart.ScopeGuard(app, guard, rules=rules)
    return app


@pytest.mark.parametrize("make", [starlette_app, flask_app, litestar_app, quart_app])
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
