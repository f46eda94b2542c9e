"""Policy and router agree on each spelling of a path, in each framework, behind each server, over a socket.

The property of each case: the handler that answers never has a stricter policy than the one that was applied. If
the spelling plainly names a handler, they agree exactly.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from confusion_apps import AUDIENCE, AUTHORITY, LEVELS, MOUNT
from confusion_table import PLAIN, SUSPICIOUS, WEBSOCKETS, Spelling
from scopeguard.testing import FakeAuthority, FakeClock
from server_process import ASGI_SERVERS, WSGI_SERVERS, ServerProcess, server_environment, server_process
from warm_start import WarmInterpreter

_ASGI_APPS = (
    *("starlette", "fastapi", "quart", "litestar", "falcon", "django", "django-extension"),
    *("quart-declared", "litestar-declared"),  # the views have the policy, and there are no rules
)
_WSGI_APPS = ("flask", "flask-extension", "falcon", "django", "django-extension")
# The effect of a mount on a path does not depend on the server, so one server for each suffices.
_MOUNTED = {
    "uvicorn-httptools": (
        *("starlette-mounted", "litestar-mounted"),
        *("litestar-declared-mounted", "quart-declared-mounted"),
    ),
    "waitress": ("flask-mounted", "django-mounted"),
}
_ROOTED = {
    "hypercorn": (
        *("starlette-rooted", "litestar-rooted", "quart-rooted"),
        *("litestar-declared-rooted", "quart-declared-rooted"),
    )
}
_HANDLER = re.compile(rb"(?im)^x-handler: *([\w-]+)")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


class Server:
    """A running server with every app, and tokens for it."""

    def __init__(self, process: ServerProcess, authority: FakeAuthority) -> None:
        self._process = process
        self._tokens = ("", authority.mint("read"), authority.mint("read secret"))

    def ask(self, app: str, spelling: Spelling, level: int) -> tuple[int, list[str]]:
        """Send a request with a token of *level*; return the status (0 for no answer) and the handlers."""
        prefix = MOUNT.encode() if app.endswith("-mounted") else b""
        request = spelling.wire(app, self._tokens[level], prefix=prefix)
        answer = self._process.send(request, head_only=not spelling.body)
        status = _STATUS.match(answer)
        handlers = [name.decode() for name in _HANDLER.findall(answer)]
        if spelling.websocket and answer.startswith(b"HTTP/1.1 101") and not handlers:
            handlers = ["live"]  # granian drops the headers of an accepted websocket.....
        return (int(status[1]) if status else 0), handlers


# Every server has all apps, so each would spend two seconds on these imports.
_IMPORTED = (
    *("scopeguard.asgi", "scopeguard.wsgi", "scopeguard.litestar", "scopeguard.quart", "scopeguard.flask"),
    *("starlette.applications", "fastapi", "falcon", "falcon.asgi", "django.core.handlers.asgi", "flask"),
    *("uvicorn", "hypercorn", "gunicorn", "waitress"),
)


class Servers:
    """The servers in use, each started once."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._interpreter = stack.enter_context(WarmInterpreter(*_IMPORTED, environment=server_environment()))
        self._running: dict[str, Server] = {}

    def get(self, name: str) -> Server:
        if name not in self._running:
            self._running[name] = self._start(name, self._folder / name)
        return self._running[name]

    def _start(self, name: str, folder: Path) -> Server:
        authority = FakeAuthority(AUTHORITY, audience=AUDIENCE, clock=FakeClock(wall=time.time()))
        folder.mkdir()
        jwks = folder / "jwks.json"
        jwks.write_text(json.dumps(authority.authority.keys.key_set(authority.clock.wall())))
        kind, command = ("asgi", ASGI_SERVERS[name]) if name in ASGI_SERVERS else ("wsgi", WSGI_SERVERS[name])
        environment = {"SERVED_JWKS": str(jwks)}
        process = server_process(
            command,
            folder,
            app=f"confusion_apps:{kind}",
            environment=environment,
            interpreter=self._interpreter,
        )
        return Server(self._stack.enter_context(process), authority)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("confusion"), stack)


def _pairs() -> Iterator[tuple[str, str]]:
    """Sort by server, so that the workers of pytest-xdist, which get neighbours, start few of them twice."""
    for server in (*ASGI_SERVERS, *WSGI_SERVERS):
        apps = _ASGI_APPS if server in ASGI_SERVERS else _WSGI_APPS
        for app in (*apps, *_MOUNTED.get(server, ()), *_ROOTED.get(server, ())):
            yield server, app


def _spellings(server: str, app: str) -> Iterator[Spelling]:
    rooted = app in _ROOTED.get(server, ())
    for spelling in (*PLAIN, *SUSPICIOUS):
        yield replace(spelling, reaches=None) if rooted else spelling  # Not all frameworks route so.
    if server in ASGI_SERVERS and not app.startswith("django") and not rooted:  # Django has no websockets.....
        yield from WEBSOCKETS


# Some two hundred cases per test: as separate tests, counting them would take longer than running them.
@pytest.mark.rule("H-02", "H-06", "H-08", "H-09", "H-10", "H-12", "X-74")
@pytest.mark.parametrize(("server", "app"), [*_pairs()])
def test_policy_and_router_agree(servers: Servers, server: str, app: str):
    running = servers.get(server)
    wrong = []
    asked = 0
    for spelling in _spellings(server, app):
        asked += 1
        try:
            _check(running, app, spelling)
        except AssertionError as error:
            wrong.append(f"{server}-{app}-{spelling.name}: {error}")
    assert asked >= len(PLAIN) + len(SUSPICIOUS)
    assert not wrong, "\n".join(wrong)


def _check(server: Server, app: str, spelling: Spelling) -> None:
    if spelling.reaches is None:
        _no_handler_past_its_policy(server, app, spelling)
    elif spelling.method == b"HEAD" and app.startswith("litestar"):
        assert server.ask(app, spelling, 0)[0] == 401  # Its routes do not answer to HEAD.
    else:
        _check_exactly(server, app, spelling, spelling.reaches)


def _check_exactly(server: Server, app: str, spelling: Spelling, handler: str) -> None:
    for level in range(3):
        status, handlers = server.ask(app, spelling, level)
        if level >= LEVELS[handler]:
            assert (status, handlers) == (101 if spelling.websocket else 200, [handler])
        else:
            assert (status, handlers) == (401 if level == 0 else 403, [])


def _no_handler_past_its_policy(server: Server, app: str, spelling: Spelling) -> None:
    """Assert that no handler answers with less than its policy. No token passes only where a weak one does."""
    _, handlers = server.ask(app, spelling, 1)
    assert all(LEVELS[handler] <= 1 for handler in handlers), handlers
    if any(LEVELS[handler] == 1 for handler in handlers):
        _, handlers = server.ask(app, spelling, 0)
        assert all(LEVELS[handler] == 0 for handler in handlers), handlers
