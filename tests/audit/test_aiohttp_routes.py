"""Handlers, view classes, static files and sub-apps of aiohttp."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from scopeguard import ConfigurationError, Guard, Issuer, Rule, all_of
from scopeguard.aiohttp import optional, public, requires, setup


async def plain(request: web.Request) -> web.Response:
    return web.Response()


@requires("read")
async def read(request: web.Request) -> web.Response:
    return web.Response()


class Rows(web.View):
    @requires("read")
    async def get(self) -> web.Response:
        return web.Response()

    async def post(self) -> web.Response:
        return web.Response()


@requires("whole")
class Whole(web.View):
    async def get(self) -> web.Response:
        return web.Response()


class Handlers:
    @requires("method")
    async def handle(self, request: web.Request) -> web.Response:
        return web.Response()


def an_app(folder: Path) -> web.Application:
    @public
    async def opened(request: web.Request) -> web.Response:
        return web.Response()

    @optional
    async def maybe(request: web.Request) -> web.Response:
        return web.Response()

    inner = web.Application()
    inner.router.add_get("/deep", read)
    app = web.Application()
    app.router.add_get(r"/rows/{row:\d+}", plain)
    app.router.add_route("*", "/any", read)
    app.router.add_view("/view", Rows)
    app.router.add_view("/whole", Whole)
    app.router.add_put("/method", Handlers().handle)
    app.router.add_get("/open", opened)
    app.router.add_get("/maybe", maybe)
    app.router.add_get("/files/{rest:.*}", plain)
    app.router.add_get("/odd/{rest:.*}/end", plain)
    app.router.add_static("/static", folder)
    app.add_subapp("/inner", inner)
    return app


def test_each_handler_has_a_line(guard: Guard, lines: Any, tmp_path: Path):
    app = an_app(tmp_path)
    setup(app, guard)
    assert lines(app) == {
        "GET /rows/{row}": "any valid token",
        "* /any": "read",
        "GET /view": "read",
        "POST /view": "any valid token",
        "GET /whole": "whole",
        "PUT /method": "method",
        "GET /open": "public",
        "GET /maybe": "a valid token or none",
        "GET /files/{rest:path}": "any valid token",
        "* /{path:path}": "any valid token",
        "GET /static/{path:path}": "any valid token",
        "GET /inner/deep": "read",
    }


def test_guard_of_a_sub_app_is_for_its_routes(guard: Guard, lines: Any, codes: Any):
    inner = web.Application()
    inner.router.add_get("/deep", plain)
    setup(inner, guard)
    app = web.Application()
    app.router.add_get("/plain", plain)
    app.add_subapp("/inner", inner)
    assert lines(app)["GET /inner/deep"] == "any valid token"
    assert ["GET /plain"] in codes(app).values()


def test_app_with_an_error_does_not_start():
    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"), audit="error")
    app = web.Application()
    app.router.add_get("/plain", plain)
    setup(app, guard, rules=[Rule("/other", all_of("read"))])

    async def start() -> None:
        runner = web.AppRunner(app)
        try:
            await runner.setup()
        finally:
            await runner.cleanup()

    with pytest.raises(ConfigurationError, match="audit"):
        asyncio.run(start())
