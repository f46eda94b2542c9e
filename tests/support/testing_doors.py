"""Small apps in each framework that a guard protects, as functions that send a request and return the status.

The route needs the scope ``read``.
"""

# No ``from __future__ import annotations``: FastAPI could not look up what is local to a function.

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import django.test
from django.http import HttpResponse
from fastapi import Depends, FastAPI, Security
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.test import Client

from django_project import GUARD_MIDDLEWARE, project, url_conf
from scopeguard import AccessToken, Guard, Rule, all_of, any_of, asgi, wsgi
from scopeguard.django import requires as django_requires
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.mcp import McpMiddleware, Method
from scopeguard.starlette import requires

Call = Callable[[dict[str, str]], int]


def asgi_door(guard: Guard) -> Call:
    app = asgi.GuardMiddleware(PlainTextResponse("in"), guard=guard, rules=[Rule("/", all_of("read"))])
    return lambda headers: TestClient(app).get("/", headers=headers).status_code


def wsgi_door(guard: Guard) -> Call:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"in"]

    client = Client(wsgi.GuardMiddleware(app, guard=guard, rules=[Rule("/", all_of("read"))]))
    return lambda headers: client.get("/", headers=headers).status_code


def starlette_door(guard: Guard) -> Call:
    @requires("read")
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    middleware: Any = Middleware(asgi.GuardMiddleware, guard=guard)
    client = TestClient(Starlette(routes=[Route("/", endpoint)], middleware=[middleware]))
    return lambda headers: client.get("/", headers=headers).status_code


def fastapi_door(guard: Guard) -> Call:
    app = FastAPI()
    protected = Protected(guard)

    @app.get("/")
    async def endpoint(token: Annotated[AccessToken, Security(protected, scopes=["read"])]) -> str:
        return "in"

    client = TestClient(app)
    return lambda headers: client.get("/", headers=headers).status_code


def fastapi_requirement_door(guard: Guard) -> Call:
    app = FastAPI()
    protected = Protected(guard)

    @app.get("/", dependencies=[Depends(protected.requires(any_of("read", "all")))])
    async def endpoint() -> str:
        return "in"

    client = TestClient(app)
    return lambda headers: client.get("/", headers=headers).status_code


def flask_door(guard: Guard) -> Call:
    app = Flask("app")
    ScopeGuard(app, guard)
    app.add_url_rule("/", view_func=flask_requires("read")(lambda: "in"))
    return lambda headers: app.test_client().get("/", headers=headers).status_code


def django_door(guard: Guard) -> Call:
    @django_requires("read")
    def view(request: Any) -> HttpResponse:
        return HttpResponse("in")

    urls = url_conf({"/": view})

    def call(headers: dict[str, str]) -> int:
        with project(urls, {"GUARD": guard}, MIDDLEWARE=[GUARD_MIDDLEWARE]):
            status: int = django.test.Client().get("/", headers=headers).status_code
            return status

    return call


def django_async_door(guard: Guard) -> Call:
    @django_requires("read")
    async def view(request: Any) -> HttpResponse:
        return HttpResponse("in")

    urls = url_conf({"/": view})

    def call(headers: dict[str, str]) -> int:
        with project(urls, {"GUARD": guard}, MIDDLEWARE=[GUARD_MIDDLEWARE]):
            status: int = asyncio.run(django.test.AsyncClient().get("/", headers=headers)).status_code
            return status

    return call


def mcp_door(guard: Guard) -> Call:
    client = TestClient(McpMiddleware(PlainTextResponse("in"), guard=guard, rules=[Method("*", all_of("read"))]))
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    return lambda headers: client.post("/mcp", json=message, headers=headers).status_code


DOORS = [
    asgi_door,
    wsgi_door,
    starlette_door,
    fastapi_door,
    fastapi_requirement_door,
    flask_door,
    django_door,
    django_async_door,
    mcp_door,
]
