"""An empty list of rules closes each route, in each adapter; absent rules close none.

Fault: an empty value counts as "no value", so that undescribed routes are open to any valid token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from doors import asgi_app, call_asgi, call_in_loop, call_wsgi, guard_for, wsgi_app
from scenarios import Exchange
from scopeguard import ConfigurationError, Guard, Rule, Rules, all_of, asgi, wsgi
from scopeguard.flask import ScopeGuard
from scopeguard.flask import requires as flask_requires
from scopeguard.testing import FakeAuthority

Door = Callable[..., Callable[[Exchange], Any]]


def _asgi(guard: Guard, **settings: Any) -> Any:
    return call_in_loop("asyncio", call_asgi, asgi.GuardMiddleware(asgi_app, guard=guard, **settings))


def _wsgi(guard: Guard, **settings: Any) -> Any:
    app = wsgi.GuardMiddleware(wsgi_app, guard=guard, **settings)
    return lambda exchange: call_wsgi(app, exchange)


def _starlette(guard: Guard, **settings: Any) -> Any:
    def endpoint(request: Any) -> Response:
        return Response(b"{}")

    middleware: Any = Middleware(asgi.GuardMiddleware, guard=guard, **settings)
    app = Starlette(routes=[Route("/{rest:path}", endpoint, methods=["GET", "DELETE"])], middleware=[middleware])
    return call_in_loop("asyncio", call_asgi, app)


def _marked() -> dict[str, str]:
    return {}


def _flask(guard: Guard, **settings: Any) -> Any:
    app = flask.Flask("test")
    app.add_url_rule("/<path:rest>", view_func=lambda rest: {}, methods=["GET", "DELETE"], endpoint="any")
    app.add_url_rule("/marked", view_func=flask_requires("read")(_marked), endpoint="marked")
    ScopeGuard(app, guard, **settings)
    return lambda exchange: call_wsgi(app, exchange)


DOORS: dict[str, Door] = {"asgi": _asgi, "wsgi": _wsgi, "starlette": _starlette, "flask": _flask}
EMPTY: dict[str, Callable[[], Any]] = {
    "list": list,
    "tuple": tuple,
    "iterator": lambda: iter(()),
    "Rules": lambda: Rules([]),
}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


def ask(send: Callable[[Exchange], Any], authority: FakeAuthority, target: str = "/anything", **more: Any) -> int:
    token = authority.mint("read").encode()
    answer: int = send(Exchange(target=target, headers=((b"authorization", b"Bearer " + token),), **more)).status
    return answer


@pytest.mark.rule("H-07")
@pytest.mark.parametrize("empty", EMPTY)
def test_empty_rules_close_each_route(door: Door, empty: str, authority: FakeAuthority):
    for guard in (guard_for(authority), guard_for(authority, rules=Rules([Rule("/anything")]))):
        send = door(guard, rules=EMPTY[empty]())
        assert ask(send, authority) == 403
        assert ask(send, authority, method="DELETE") == 403
        assert ask(send, authority, "/healthz") == 403
        assert ask(door(guard, rules=EMPTY[empty](), public=["/healthz"]), authority, "/healthz") == 200


@pytest.mark.rule("H-07")
def test_empty_rules_of_the_guard_close_each_route(door: Door, authority: FakeAuthority):
    guard = guard_for(authority, rules=Rules([]))
    assert ask(door(guard), authority) == 403
    assert ask(door(guard, public=["/healthz"]), authority) == 403
    assert ask(door(guard, rules=[Rule("/anything")]), authority) == 200


def test_public_paths_alone_are_not_rules(door: Door, authority: FakeAuthority):
    assert ask(door(guard_for(authority), public=["/healthz"]), authority) == 200
    assert ask(door(guard_for(authority), rules=Rules(public=["/healthz"])), authority) == 200
    assert ask(door(guard_for(authority)), authority) == 200
    # They are added to the rules of the guard, and do not replace them.
    guard = guard_for(authority, rules=Rules([Rule("/anything", all_of("admin"))]))
    send = door(guard, rules=Rules(public=["/healthz"]))
    assert [ask(send, authority, target) for target in ("/anything", "/other", "/healthz")] == [403, 403, 200]


def test_flask_view_may_still_declare_its_requirement(authority: FakeAuthority):
    send = _flask(guard_for(authority), rules=[])
    assert ask(send, authority, "/marked") == 200
    assert ask(send, authority, "/unmarked") == 403


HEAD = 'resource = "https://api.test"\n'
ISSUER = '[[issuers]]\nurl = "https://as.test"\n'


@pytest.mark.parametrize(
    ("settings", "closed"),
    [
        ("rules = []\n", True),
        ('rules = []\npublic = ["/healthz"]\n', True),
        ('public = ["/healthz"]\n', False),
        ("public = []\n", False),
        ("", False),
    ],
)
def test_empty_list_of_rules_in_a_file_closes_each_route(settings: str, closed: bool, door: Door, tmp_path: Path):
    authority = FakeAuthority("https://as.test", audience="https://api.test")
    (tmp_path / "guard.toml").write_text(HEAD + settings + ISSUER)
    guard = Guard.from_file(str(tmp_path / "guard.toml"), transport=authority.transport, clock=authority.clock)
    assert ask(door(guard), authority) == (403 if closed else 200)


@pytest.mark.rule("H-07")
def test_rules_from_an_iterator_reach_each_adapter_of_a_guard(door: Door, authority: FakeAuthority):
    guard = guard_for(authority, rules=(rule for rule in [Rule("/anything")]))
    for _ in range(2):
        send = door(guard)
        assert ask(send, authority) == 200
        assert ask(send, authority, "/other") == 403


@pytest.mark.parametrize("wrong", [0, False, True, 7, 0.0, Rule("/anything"), "", "/anything", b"/anything", {"/a": 1}])
def test_rules_of_another_kind_are_a_configuration_error(door: Door, wrong: Any, authority: FakeAuthority):
    for make in (
        lambda: Rules(wrong),
        lambda: Rules.of(wrong),
        lambda: guard_for(authority, rules=wrong),
        lambda: ask(door(guard_for(authority), rules=wrong), authority),
    ):
        with pytest.raises(ConfigurationError, match="rules: "):
            make()


@pytest.mark.parametrize("wrong", [0, False, None, "/healthz", Rule("/healthz")])
def test_public_paths_of_another_kind_are_a_configuration_error(wrong: Any):
    with pytest.raises(ConfigurationError, match="public: "):
        Rules(public=wrong)
