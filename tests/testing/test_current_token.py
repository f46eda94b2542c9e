"""Access tokens without a request: ``make_token`` and ``as_token``."""

# No ``from __future__ import annotations``: FastAPI could not look up what is local to a function.

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import anyio
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI, Security
from fastapi.security import SecurityScopes
from flask import Flask
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from scopeguard import (
    USER,
    AccessToken,
    ConfigurationError,
    Granted,
    Guard,
    HeaderList,
    RequestView,
    Rule,
    access_token,
    access_token_or_none,
    all_of,
    any_of,
    asgi,
)
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.flask import optional as flask_optional
from scopeguard.testing import FakeAuthority, as_token, current_token, make_token
from scopeguard.tokens import begin_serving, end_serving
from testing_doors import DOORS


@pytest.fixture(autouse=True)
def leave_requests() -> Iterator[None]:
    """Begin without the token of a WSGI response that an earlier test has left open."""
    before = begin_serving(current_token._NO_REQUEST)
    yield
    end_serving(before)


def name() -> str:
    return access_token().display_name


def test_token_is_like_one_that_a_guard_has_checked(authority: FakeAuthority):
    given: dict[str, Any] = {"subject": "alice", "claims": {"tenant": "a", "groups": ["x"]}}
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    pairs = [(b"authorization", authority.bearer("rows.read rows.write", **given)["Authorization"].encode())]
    decision = guard.check(RequestView(method="GET", path="/", headers=HeaderList(pairs)))
    assert isinstance(decision, Granted)
    judged, made = decision.access_token, make_token("rows.read", "rows.write", **given)
    same = ("issuer", "subject", "client_id", "audience", "scopes", "granted_scopes", "roles", "machine", "identity")
    assert {name: getattr(made, name) for name in same} == {name: getattr(judged, name) for name in same}
    assert set(made.claims) == set(judged.claims) - {"jti"}
    assert made.claims["groups"] == ("x",)  # read-only, as those of a guard
    assert made.claims["scope"] == judged.claims["scope"]
    assert made.issued_at is not None
    assert made.expires_at == made.issued_at + 3600 == made.claims["exp"]
    assert abs(made.issued_at - time.time()) < 600


def test_members_can_be_absent():
    made = make_token(subject=None, client_id=None, expires_in=None, machine=True, roles=["admin"])
    assert (made.subject, made.client_id, made.expires_at, made.machine) == (None, None, None, True)
    assert made.roles == {"admin"}
    assert not {"sub", "client_id", "exp"} & set(made.claims)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("a b",), {}),
        (("",), {}),
        ((["a"],), {}),
        ((), {"issuer": ""}),
        ((), {"audience": [1]}),
        ((), {"roles": 1}),
        ((), {"claims": ["a"]}),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments: Any, settings: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        make_token(*arguments, **settings)
    with pytest.raises(ConfigurationError), as_token(*arguments, **settings):
        pass
    assert access_token_or_none() is None


def test_token_is_current_in_the_block_only():
    with as_token("rows.read", subject="alice") as token:
        assert access_token() is token
        with as_token(subject="bob"):
            assert name() == "bob"
        assert name() == "alice"
    assert access_token_or_none() is None
    with pytest.raises(ZeroDivisionError), as_token(subject="alice"):
        _ = 1 / 0
    assert access_token_or_none() is None
    assert current_token._in_block.get() is None


def test_coroutines_and_threads_that_they_start_have_the_token():
    async def names(user: str) -> list[str]:
        with as_token(subject=user):
            await anyio.lowlevel.checkpoint()
            return [name(), await anyio.to_thread.run_sync(name), await asyncio.create_task(say())]

    async def say() -> str:
        return name()

    async def main() -> list[list[str]]:
        return list(await asyncio.gather(names("alice"), names("bob")))

    assert asyncio.run(main()) == [["alice"] * 3, ["bob"] * 3]


def test_other_threads_do_not_have_the_token():
    seen: list[Any] = []
    with as_token(subject="alice"):
        thread = threading.Thread(target=lambda: seen.append(access_token_or_none()))
        thread.start()
        thread.join()
    assert seen == [None]


@pytest.mark.parametrize("door", DOORS)
def test_no_guard_is_opened_by_the_token_of_a_block(authority: FakeAuthority, door: Callable[[Guard], Any]):
    call = door(Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off"))
    with as_token("read", "all", subject="mallory"):
        assert call({}) == 401
        assert call(authority.bearer("other")) == 403
        assert call(authority.bearer("read")) == 200
        assert name() == "mallory"


def replace_token() -> str:
    with as_token("admin", subject="mallory"):
        return name()


def test_token_of_a_request_is_never_replaced(authority: FakeAuthority):
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
    said: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        said.append(None if access_token_or_none() is None else name())
        with pytest.raises(ConfigurationError, match="a guard is serving a request"):
            replace_token()
        await PlainTextResponse("in")(scope, receive, send)

    guarded = asgi.GuardMiddleware(app, guard=guard, rules=[Rule("/", all_of("read"))], public=["/public"])
    client = TestClient(guarded)
    assert client.get("/", headers=authority.bearer("read", subject="alice")).status_code == 200
    assert client.get("/public").status_code == 200
    with as_token(subject="outside"):
        assert client.get("/", headers=authority.bearer("read", subject="alice")).status_code == 200
        assert client.get("/public").status_code == 200
    assert said == ["alice", None, "alice", None]


def test_token_of_a_request_to_flask_is_never_replaced(authority: FakeAuthority):
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
    app = Flask("app")
    ScopeGuard(app, guard)
    app.testing = True

    @app.get("/")
    @flask_optional
    def view() -> str:
        with pytest.raises(ConfigurationError, match="a guard is serving a request"):
            replace_token()
        return "in"

    assert app.test_client().get("/").text == "in"
    assert app.test_client().get("/", headers=authority.bearer("read")).text == "in"


def test_first_use_logs_a_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(current_token, "_warned", threading.Event())
    with caplog.at_level(logging.WARNING, "scopeguard.testing"):
        for _ in range(2):
            replace_token()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["FOR TESTS ONLY"]


# FastAPI's dependency_overrides


def overridden_app() -> tuple[FastAPI, Protected, Protected]:
    guard = Guard(FakeAuthority().issuer, audit="off")
    protected, maybe = Protected(guard), Protected(guard, optional=True)
    app = FastAPI()

    @app.get("/security")
    async def by_security(token: Annotated[AccessToken, Security(protected, scopes=["rows.read"])]) -> Any:
        return token.subject

    @app.get("/requires")
    async def by_requirement(token: Annotated[AccessToken, Depends(protected.requires(any_of("a", "b"), USER))]) -> Any:
        return token.subject

    @app.get("/optional")
    async def by_option(token: Annotated[AccessToken | None, Security(maybe, scopes=["rows.read"])]) -> Any:
        return token and token.subject

    @app.get("/narrowed")
    async def narrowed(token: Annotated[AccessToken | None, Depends(maybe.requires("a"))]) -> Any:
        return token and token.subject

    return app, protected, maybe


def test_override_with_a_token_reaches_every_kind_of_dependency():
    app, protected, maybe = overridden_app()
    client = TestClient(app)
    app.dependency_overrides[protected] = lambda: make_token("rows.read", subject="alice")
    assert [client.get(path).json() for path in ("/security", "/requires")] == ["alice", "alice"]
    assert [client.get(path).json() for path in ("/optional", "/narrowed")] == [None, None]  # not overridden
    app.dependency_overrides[maybe] = lambda: make_token(subject="bob")
    assert [client.get(path).json() for path in ("/optional", "/narrowed")] == ["bob", "bob"]
    app.dependency_overrides.clear()
    assert client.get("/security").status_code == 401


def test_override_can_check_the_scopes_that_a_route_needs():
    app, protected, maybe = overridden_app()
    seen: list[list[str]] = []

    def override(needed: SecurityScopes) -> AccessToken:
        seen.append(needed.scopes)
        return make_token(*needed.scopes, subject="alice")

    app.dependency_overrides = {protected: override, maybe: override}
    client = TestClient(app)
    for path in ("/security", "/requires", "/optional", "/narrowed"):
        assert client.get(path).json() == "alice"
    assert seen == [["rows.read"], ["a"], ["rows.read"], ["a"]]


def test_token_of_an_override_is_not_current():
    # Code that calls access_token() needs a request that a guard has checked, or as_token.
    app, protected, _ = overridden_app()

    @app.get("/name", dependencies=[Depends(protected)])
    async def say() -> str:
        return name()

    app.dependency_overrides[protected] = lambda: make_token(subject="alice")
    with as_token(subject="bob"):
        assert TestClient(app).get("/name").json() == "bob"
    with pytest.raises(ConfigurationError, match="no access token here"):
        TestClient(app).get("/name")
