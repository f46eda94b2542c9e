"""A rule that denies takes precedence over declarations in the code of an app, in each adapter."""

from __future__ import annotations

import io
from typing import Any

import fastapi
import flask
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from doors import asgi_app, call_asgi, call_in_loop, call_wsgi, guard_for, wsgi_app
from scenarios import Exchange
from scopeguard import DENIED, PUBLIC, Rule, Rules, access_token_or_none, asgi, wsgi
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard, optional, public
from scopeguard.flask import requires as flask_requires
from scopeguard.starlette import requires as starlette_requires
from scopeguard.testing import FakeAuthority


def fresh_view() -> Any:
    def view(**_: Any) -> dict[str, str]:
        return {}

    return view


RULES = Rules([Rule("/closed/{name}", DENIED), Rule("/{rest:path}", PUBLIC)])
PATHS = ("/closed/plain", "/closed/requires", "/closed/public", "/closed/optional")


def _asgi(guard: Any) -> Any:
    return call_in_loop("asyncio", call_asgi, asgi.GuardMiddleware(asgi_app, guard=guard, rules=RULES))


def _wsgi(guard: Any) -> Any:
    app = wsgi.GuardMiddleware(wsgi_app, guard=guard, rules=RULES)
    return lambda exchange: call_wsgi(app, exchange)


def _starlette(guard: Any) -> Any:
    async def endpoint(request: Any) -> Response:
        return Response(b"{}")

    routes = [
        Route("/closed/requires", starlette_requires("read")(endpoint), methods=["GET"]),
        Route("/{rest:path}", endpoint),
    ]
    middleware: Any = Middleware(asgi.GuardMiddleware, guard=guard, rules=RULES)
    return call_in_loop("asyncio", call_asgi, Starlette(routes=routes, middleware=[middleware]))


def _fastapi(guard: Any) -> Any:
    app = fastapi.FastAPI()
    protected = Protected(guard)
    app.add_api_route("/closed/requires", lambda: 1, dependencies=[fastapi.Security(protected, scopes=["read"])])
    app.add_api_route("/closed/optional", lambda: 1, dependencies=[fastapi.Depends(Protected(guard, optional=True))])
    app.add_api_route("/{rest:path}", lambda: 1)
    app.add_middleware(asgi.GuardMiddleware, guard=guard, rules=RULES)
    return call_in_loop("asyncio", call_asgi, app)


def _flask(guard: Any) -> Any:
    app = flask.Flask(__name__, static_folder=None)
    ScopeGuard(app, guard, rules=RULES)

    view = fresh_view()

    class Method(flask.views.MethodView):
        init_every_request = False

        def get(self) -> Any:
            return {}

    app.add_url_rule("/closed/requires", "requires", flask_requires("read")(view))
    app.add_url_rule("/closed/public", "public", public(fresh_view()))
    app.add_url_rule("/closed/optional", "optional", optional(fresh_view()))
    app.add_url_rule("/closed/method", "method", public(Method).as_view("method"))
    app.add_url_rule("/<path:rest>", "plain", view)
    return lambda exchange: call_wsgi(app, exchange)


DOORS = {"asgi": _asgi, "wsgi": _wsgi, "starlette": _starlette, "fastapi": _fastapi, "flask": _flask}


@pytest.mark.rule("H-07")
@pytest.mark.parametrize("cache", ["cache-on", "cache-off"])
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_denying_rule_takes_precedence(door: Any, cache: str):
    authority = FakeAuthority()
    guard = guard_for(authority, **({} if cache == "cache-on" else {"token_cache": "off"}))
    send = door(guard)
    headers = ((b"authorization", authority.bearer("read")["Authorization"].encode()),)
    assert send(Exchange(target="/open", headers=headers)).status == 200
    assert send(Exchange(target="/open")).status == 200
    for path in (*PATHS, "/closed/method"):
        for _ in range(2):
            answer = send(Exchange(target=path, headers=headers))
            assert answer.status == 403, path
            assert not answer.all("www-authenticate")
        assert send(Exchange(target=path)).status == 401, path
        assert send(Exchange(target=path, method="POST", headers=headers)).status == 403, path


@pytest.mark.rule("H-06", "H-07")
def test_view_does_not_open_a_path_that_is_denied_in_another_reading():
    guard = guard_for(FakeAuthority())
    app = flask.Flask(__name__, static_folder=None)
    ScopeGuard(app, guard, rules=[Rule("/admin", DENIED), Rule("/{name}", PUBLIC)])
    app.add_url_rule("/<name>", "view", public(lambda name: {}))
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/%61dmin", "REQUEST_URI": "/%2561dmin", "SERVER_NAME": "a",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(), "QUERY_STRING": "",
    }  # fmt: skip
    started: list[str] = []
    start: Any = lambda status, headers, exc_info=None: started.append(status)  # noqa: E731 - to say that it is enough
    app(environ, start)
    assert started == ["401 UNAUTHORIZED"]


def test_requirement_of_a_replaced_view_is_not_cached(monkeypatch: pytest.MonkeyPatch):
    """The requirement of a view is cached; a view that replaces it has its requirement read again."""
    authority = FakeAuthority()
    app = flask.Flask(__name__, static_folder=None)
    ScopeGuard(app, guard_for(authority))
    app.add_url_rule("/a", "a", public(fresh_view()))
    client = app.test_client()
    assert [client.get("/a").status_code for _ in range(2)] == [200, 200]
    monkeypatch.setitem(app.view_functions, "a", fresh_view())
    assert [client.get("/a").status_code for _ in range(2)] == [401, 401]
    monkeypatch.setattr("scopeguard.adapter.route_access.MOST_ROUTES", 0)
    monkeypatch.setitem(app.view_functions, "a", public(fresh_view()))
    assert [client.get("/a").status_code for _ in range(2)] == [200, 200]


def test_without_the_end_of_a_request_from_fastapi_there_is_no_current_token(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("scopeguard.fastapi.protected.REQUEST_STACK", "elsewhere")
    authority = FakeAuthority()
    app = fastapi.FastAPI()
    protected = Protected(guard_for(authority))

    @app.get("/", dependencies=[fastapi.Depends(protected)])
    async def current() -> Any:
        return access_token_or_none()

    client = TestClient(app, base_url="https://testserver")
    answer = client.get("/", headers=authority.bearer())
    assert (answer.status_code, answer.json()) == (200, None)
    assert client.get("/").status_code == 401
