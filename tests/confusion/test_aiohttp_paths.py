"""Policy and router agree on each spelling of a path in aiohttp, whose server is a part of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp import web

from aiohttp_calls import RunningApp
from confusion_apps import AREA, AUDIENCE, AUTHORITY, LEVELS, PATHS, RULES
from confusion_table import PLAIN, SUSPICIOUS, Spelling
from scopeguard import Guard
from scopeguard.aiohttp import setup
from scopeguard.testing import FakeAuthority

_HANDLER = re.compile(rb"(?im)^x-handler: *([\w-]+)")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


def an_app(guard: Guard) -> web.Application:
    def says(name: str) -> Any:
        async def handler(request: web.Request) -> web.Response:
            return web.Response(headers={"X-Handler": name})

        return handler

    def add(app: web.Application, paths: dict[str, str]) -> None:
        for path, name in paths.items():
            app.router.add_route("*", path, says(name))

    app, area = web.Application(), web.Application()
    add(app, PATHS)
    add(area, AREA)
    app.add_subapp("/area", area)
    add(app, {"/items/{name}": "item"})
    app.router.add_get("/dual", says("dual-get"))
    app.router.add_post("/dual", says("dual-post"))
    add(app, {"/{rest:.*}": "catch-all"})
    setup(app, guard, rules=RULES)
    return app


class Server:
    """Requests to *app* with a token of each level."""

    def __init__(self, app: RunningApp, authority: FakeAuthority) -> None:
        self._app = app
        self._tokens = ("", authority.mint("read"), authority.mint("read secret"))

    def ask(self, spelling: Spelling, level: int) -> tuple[int, list[str]]:
        """Return the status (0 for no answer) and the handlers."""
        request = spelling.wire("aiohttp", self._tokens[level])
        sent = self._app.send_bytes(request, patience=1, sslcontext=object())
        status = _STATUS.match(sent)
        return (int(status[1]) if status else 0), [name.decode() for name in _HANDLER.findall(sent)]


@pytest.mark.rule("H-02", "H-06", "H-08", "H-09", "H-10", "H-12", "X-74")
def test_policy_and_router_agree():
    authority, wrong = FakeAuthority(AUTHORITY, audience=AUDIENCE), []
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
    with RunningApp(lambda: an_app(guard)) as app:
        server = Server(app, authority)
        for spelling in (*PLAIN, *SUSPICIOUS):
            answers = [server.ask(spelling, level) for level in range(3)]
            if spelling.reaches is not None:
                needed = LEVELS[spelling.reaches]
                expected: list[tuple[int, list[str]]] = [(401 if level == 0 else 403, []) for level in range(needed)]
                expected += [(200, [spelling.reaches])] * (3 - needed)
                agrees = answers == expected
            else:  # no handler answers with less than its policy
                agrees = all(LEVELS[name] <= level for level, (_, names) in enumerate(answers) for name in names)
            if not agrees:
                wrong.append(f"{spelling.name}: {answers}")
    assert not wrong, "\n".join(wrong)
