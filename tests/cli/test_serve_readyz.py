"""The readiness probe of ``scopeguard serve``, without a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from doors import call_wsgi
from scenarios import Exchange
from scopeguard import Guard, Introspection, Issuer, asgi, wsgi
from scopeguard.cli.commands import cli
from scopeguard.request import HeaderList, RequestView
from scopeguard.server.readyz import ASGIReadyz, Probe, WSGIReadyz
from scopeguard.server.reload import ASGISwitch, WSGISwitch
from scopeguard.testing import FakeAuthority

API = "https://api.test"
Get = Callable[..., tuple[int, str]]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []


class Scene:
    """A guard behind a probe, and what waits for the fetches that probes start."""

    def __init__(self, kind: str, *others: Issuer) -> None:
        self.authority = FakeAuthority()
        self.guard = Guard(
            self.authority.issuer, *others, transport=self.authority.transport, clock=self.authority.clock
        )
        if kind == "asgi":
            switch = ASGISwitch(self.guard, lambda guard: asgi.GuardMiddleware(_app, guard=guard))
            client = TestClient(ASGIReadyz(switch, "/readyz", Probe(switch)))
            self.send = lambda method, path: _read_response(client.request(method, path))
        else:
            other = WSGISwitch(self.guard, lambda guard: wsgi.GuardMiddleware(_wsgi_app, guard=guard))
            app = WSGIReadyz(other, "/readyz", Probe(other))
            self.send = lambda method, path: _read_answer(call_wsgi(app, Exchange(method=method, target=path)))

    def get(self, path: str = "/readyz") -> tuple[int, str]:
        return self.send("GET", path)

    def wait(self) -> None:
        """Wait for the fetch that a probe has started."""
        for thread in threading.enumerate():
            if thread.name == "scopeguard-readyz":
                thread.join(10)


def _read_response(response: Any) -> tuple[int, str]:
    assert response.headers["cache-control"] == "no-store" or response.status_code not in (200, 503)
    return response.status_code, response.text


def _read_answer(answer: Any) -> tuple[int, str]:
    return answer.status, answer.body.decode()


@pytest.fixture(params=["asgi", "wsgi"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(request.param)
    yield scene
    scene.wait()
    scene.guard.close()


def test_probe_fails_until_there_are_keys_and_starts_to_fetch_them(scene: Scene):
    assert scene.get() == (503, "not ready: no_keys\n")
    scene.wait()
    assert scene.get() == (200, "ready\n")
    assert scene.send("HEAD", "/readyz") == (200, "")


def test_probes_during_an_outage_do_not_repeat_the_fetch_at_once(scene: Scene):
    with scene.authority.outage():
        for _ in range(5):
            assert scene.get() == (503, "not ready: no_keys\n")
            scene.wait()
        assert len(scene.authority.requests) <= 2
    scene.authority.clock.advance(60)
    scene.get()
    scene.wait()
    assert scene.get() == (200, "ready\n")


def test_probes_during_an_outage_do_not_repeat_the_fetch_because_of_another_issuer():
    introspection = Introspection(endpoint="https://down.test/introspect", client_id="api", client_secret="s" * 16)
    other = Issuer("https://down.test", audience=API, validate="introspection", introspection=introspection)
    scene = Scene("asgi", other)
    for number in range(5):
        headers = HeaderList([(b"authorization", b"Bearer opaque%d" % number)])
        scene.guard.check(RequestView(method="GET", path="/", headers=headers))
    before = len(scene.authority.requests)
    with scene.authority.outage():
        for _ in range(10):
            assert scene.get() == (503, "not ready: no_keys, introspection_paused\n")
            scene.wait()
    assert 0 < len(scene.authority.requests) - before <= 2
    scene.guard.close()


def test_other_paths_and_methods_are_guarded(scene: Scene):
    assert scene.get("/readyz/")[0] == 401
    assert scene.get("/")[0] == 401
    assert scene.send("POST", "/readyz")[0] == 401


def test_probe_names_no_issuer(scene: Scene):
    assert "as.test" not in scene.get()[1]


@pytest.mark.parametrize("path", ["readyz", "", "/readyz?x=1"])
def test_path_of_the_probe_is_checked(path: str):
    options = ["serve", "apps:asgi", "--config", "api.toml", "--readyz", path]
    result = CliRunner().invoke(cli, options)
    assert result.exit_code == 2
    assert "--readyz: must be a path, as in /readyz" in result.output
