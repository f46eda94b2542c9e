"""The API of the demo: a Starlette app that does not handle tokens itself, and the rules that protect it."""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from scopeguard.asgi import ASGIApp, GuardMiddleware
from scopeguard.guard import Guard
from scopeguard.rules import Rule, Rules
from scopeguard.scopes import all_of, any_of

INSERT: Final = "bigquery.insertdata"
READ: Final = "bigquery.readonly"

RULES: Final = Rules(
    [
        Rule("/tables/{table}/rows", all_of(INSERT), methods=["POST"]),
        Rule("/tables/{table}/rows", any_of(READ, INSERT), methods=["GET"]),
        # A download link cannot send a header, so this route alone also accepts the token in the query.
        Rule("/tables/{table}/export", all_of(READ), methods=["GET"], token_sources=["header", "query"]),
    ],
    public=["/healthz"],
)


def guarded_app(guard: Guard) -> ASGIApp:
    """Return the app, protected by *guard*. Each app has its own rows."""
    rows = 2

    async def insert(request: Request) -> JSONResponse:
        nonlocal rows
        rows += 1
        return JSONResponse({"rows": rows, "by": request.user.display_name})

    async def read(request: Request) -> JSONResponse:
        return JSONResponse({"rows": rows, "for": request.user.display_name})

    async def export(request: Request) -> JSONResponse:
        return JSONResponse({"rows": rows, "query_the_app_sees": request.url.query})

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[
            Route("/tables/{table}/rows", insert, methods=["POST"]),
            Route("/tables/{table}/rows", read),
            Route("/tables/{table}/export", export),
            Route("/healthz", healthz),
        ]
    )
    return GuardMiddleware(app, guard=guard, rules=RULES)
