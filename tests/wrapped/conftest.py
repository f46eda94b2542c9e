"""Each wrapped app twice, with the guard and without, on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from environment import ROOT, skip_or_fail
from scopeguard.testing import FakeAuthority, FakeClock
from server_process import ASGI_SERVERS, WSGI_SERVERS, server_environment, server_process
from warm_start import WarmInterpreter
from wrapped_apps import APPS, AUDIENCE, AUTHORITY
from wrapped_table import Pair

_PYTHON = ROOT / ".venv-apps" / "bin" / "python"
# What the processes of an app need, and takes longest to import.
_IMPORTED = {
    "datasette": ("datasette.app",),
    "django": ("django.core.management", "django.db.models", "django.core.asgi", "django.core.wsgi"),
    "fastmcp": ("fastmcp",),
    "httpbin": ("httpbin",),
    "litestar": ("litestar", "admin_litestar"),
    "quart": ("quart",),
    "pypiserver": ("pypiserver",),
    "radicale": ("radicale",),
    "strawberry": ("strawberry.asgi",),
}


_SERVERS = ("uvicorn", "gunicorn", "waitress", "scopeguard.asgi", "scopeguard.wsgi")


class _Interpreters:
    """The interpreter of one app at a time, for all the servers that it is tested on."""

    def __init__(self) -> None:
        self._name = ""
        self._running = ExitStack()

    def of(self, name: str) -> WarmInterpreter:
        if name != self._name:
            self._running.close()
            environment = server_environment() | {"PYTHONHASHSEED": "0"}
            interpreter = WarmInterpreter(*_IMPORTED[name], *_SERVERS, environment=environment, python=_PYTHON)
            self._interpreter = self._running.enter_context(interpreter)
            self._name = name
        return self._interpreter

    def close(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def interpreters() -> Iterator[_Interpreters]:
    with closing(_Interpreters()) as interpreters:
        yield interpreters


@pytest.fixture(scope="module")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, interpreters: _Interpreters
) -> Iterator[Pair]:
    name, server = request.param
    if not _PYTHON.exists():
        skip_or_fail("no apps to wrap: `make apps` installs them into .venv-apps")
    folder = tmp_path_factory.mktemp(f"{name}-{server}")
    authority = FakeAuthority(AUTHORITY, audience=AUDIENCE, clock=FakeClock(wall=time.time()))
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(authority.authority.keys.key_set(authority.clock.wall())))
    usual = "uvicorn-httptools" if APPS[name][0] == "asgi" else "waitress"
    command = {**ASGI_SERVERS, **WSGI_SERVERS}[usual if server == "serve" else server]
    with ExitStack() as stack:
        interpreter = interpreters.of(name.partition("-")[0])
        running = []
        for kind in ("bare", "guarded"):
            here = folder / kind
            here.mkdir()
            environment = {"WRAPPED_APP": name, "WRAPPED_FOLDER": str(here)}
            if kind == "guarded" and server == "serve":
                command = _serve(folder, jwks, wsgi=APPS[name][0] == "wsgi")
            elif kind == "guarded":
                environment["WRAPPED_JWKS"] = str(jwks)
            process = server_process(
                command, here, app="wrapped_apps:app", environment=environment, interpreter=interpreter
            )
            running.append(stack.enter_context(process))
        token, weak = authority.mint("use", expires_in=36_000), authority.mint("other", expires_in=36_000)
        yield Pair(name, running[0], running[1], token, weak)


def _serve(folder: Path, jwks: Path, *, wsgi: bool) -> tuple[str, ...]:
    config = folder / "scopeguard.toml"
    config.write_text(
        f"""
        [[issuers]]
        url = "{AUTHORITY}"
        audience = "{AUDIENCE}"
        jwks_file = "{jwks}"
        [[rules]]
        path = "/{{rest:path}}"
        all_of = ["use"]
        """
    )
    more = ("--wsgi",) if wsgi else ()
    return ("scopeguard", "serve", "{app}", "--config", str(config), "--port", "{port}", *more)
