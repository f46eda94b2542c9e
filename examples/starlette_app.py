"""A Starlette app: the middleware checks tokens, and ``@requires`` says which scopes an endpoint requires.

    pip install ".[cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    uvicorn examples.starlette_app:app

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from scopeguard import Guard, Issuer, any_of
from scopeguard.starlette import GuardMiddleware, access_token, requires

guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
tables: dict[str, list[object]] = {}


@requires(any_of("bigquery.insertdata", "bigquery"))
async def insert(request: Request) -> JSONResponse:
    rows = tables.setdefault(request.path_params["table"], [])
    rows.append(await request.json())
    return JSONResponse({"rows": len(rows)}, 201)


@requires(any_of("bigquery.readonly", "bigquery"))
def read(request: Request) -> JSONResponse:  # not async: Starlette runs it in a thread
    return JSONResponse(tables.get(request.path_params["table"], []))


async def me(_: Request) -> JSONResponse:  # without @requires: any valid token
    return JSONResponse({"client": access_token().client_id})


async def healthz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/tables/{table}/rows", insert, methods=["POST"]),
        Route("/tables/{table}/rows", read),
        Route("/me", me),
        Route("/healthz", healthz),
    ],
    middleware=[Middleware(GuardMiddleware, guard=guard, public=["/healthz"])],
)
