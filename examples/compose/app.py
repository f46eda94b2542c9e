"""An API without code for access tokens. ``scopeguard serve`` protects it with scopeguard.toml."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


async def tables(_: Request) -> JSONResponse:
    return JSONResponse(["stations"])


async def healthz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/tables", tables), Route("/healthz", healthz)])
