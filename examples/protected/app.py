"""An app without code for access tokens. ``scopeguard serve`` protects it with ../scopeguard.toml."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

ROWS: list[dict[str, object]] = [{"station": "Kew", "departures": 7}]


async def insert(request: Request) -> JSONResponse:
    ROWS.append(await request.json())
    return JSONResponse({"rows": len(ROWS)})


async def read(_: Request) -> JSONResponse:
    return JSONResponse(ROWS)


async def export(_: Request) -> PlainTextResponse:
    return PlainTextResponse("\n".join(",".join(map(str, row.values())) for row in ROWS))


async def me(request: Request) -> JSONResponse:
    return JSONResponse({"client": request.user.display_name})


async def healthz(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/tables/{table}/rows", insert, methods=["POST"]),
        Route("/tables/{table}/rows", read),
        Route("/tables/{table}/export", export),
        Route("/me", me),
        Route("/healthz", healthz),
    ]
)
