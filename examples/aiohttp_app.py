"""An aiohttp app: ``setup`` checks tokens, and ``@requires`` says which scopes a handler requires.

    pip install ".[aiohttp,cli]"
    scopeguard devserver --client "loader:any secret:bigquery.insertdata bigquery.readonly"
    python -m aiohttp.web -H 127.0.0.1 -P 8000 examples.aiohttp_app:make_app

The second command prints how to get a token. Then call the app:

    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/tables/t/rows
"""

from __future__ import annotations

import os

from aiohttp import web

from scopeguard import Guard, Issuer, any_of
from scopeguard.aiohttp import access_token, public, requires, setup

guard = Guard(Issuer(os.environ.get("ISSUER", "http://127.0.0.1:9000"), audience="http://127.0.0.1:8000"))
routes = web.RouteTableDef()
tables: dict[str, list[object]] = {}


@routes.post("/tables/{table}/rows")
@requires(any_of("bigquery.insertdata", "bigquery"))
async def insert(request: web.Request) -> web.Response:
    rows = tables.setdefault(request.match_info["table"], [])
    rows.append(await request.json())
    return web.json_response({"rows": len(rows)}, status=201)


@routes.get("/tables/{table}/rows")
@requires(any_of("bigquery.readonly", "bigquery"))
async def read(request: web.Request) -> web.Response:
    return web.json_response(tables.get(request.match_info["table"], []))


@routes.get("/me")
async def me(_: web.Request) -> web.Response:  # without @requires: any valid token
    return web.json_response({"client": access_token().client_id})


@routes.get("/healthz")
@public
async def healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def make_app(_: list[str] | None = None) -> web.Application:
    """Return the app. ``python -m aiohttp.web`` passes the arguments that are left."""
    app = web.Application()
    app.add_routes(routes)
    setup(app, guard)
    return app
