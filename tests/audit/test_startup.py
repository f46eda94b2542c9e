"""The audit at the start of an app: at the right moment, once, and as configured."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from scopeguard import ConfigurationError, Guard, Issuer, Rule, Rules
from scopeguard.asgi import GuardMiddleware
from scopeguard.audit import startup
from scopeguard.audit.findings import audit_app
from scopeguard.audit.report import Report
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.testing import FakeAuthority
from scopeguard.wsgi import GuardMiddleware as WSGIGuard

RULES = [Rule("/rows"), Rule("/nowhere")]


def a_guard(audit: str, rules: Iterable[Rule] = RULES) -> Guard:
    issuer = Issuer("https://auth.example.com", audience="https://api.example.com")
    return Guard(issuer, audit=audit, rules=Rules(rules))


def without_rules(audit: str) -> Guard:
    return Guard(Issuer("https://auth.example.com", audience="https://api.example.com"), audit=audit)


async def endpoint(request: Request) -> Any: ...


def an_app(guard: Guard, **options: Any) -> Starlette:
    return Starlette(
        routes=[Route("/rows", endpoint)], middleware=[Middleware(GuardMiddleware, guard=guard)], **options
    )


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "audit:" in record.getMessage()]


def test_another_setting_is_refused():
    with pytest.raises(ConfigurationError, match="audit: 'loud' is not one of 'error', 'warn', 'off'"):
        a_guard("loud")


def test_by_default_findings_are_logged_at_the_start_and_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    guard = Guard(Issuer("https://auth.example.com", audience="https://api.example.com"), rules=Rules(RULES))
    app = an_app(guard)
    for _ in range(2):
        with TestClient(app) as client:
            assert len(audit_lines(caplog)) == 1
            assert client.get("/rows").status_code == 401
    (line,) = audit_lines(caplog)
    assert line.startswith("audit: * /nowhere: rule /nowhere matches no route of the app: check")


def test_routes_added_at_the_start_are_checked(caplog: pytest.LogCaptureFixture):
    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        app.router.routes.append(Route("/nowhere", endpoint))
        yield

    with TestClient(an_app(a_guard("error"), lifespan=lifespan)) as client:
        assert client.get("/rows").status_code == 401
    assert audit_lines(caplog) == []


def test_error_prevents_the_start_and_the_app_cleans_up():
    ended: list[str] = []
    sent: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        del app
        try:
            yield
        finally:
            ended.append("cleaned up")

    with (
        pytest.raises(ConfigurationError, match=r"audit: \* /nowhere"),
        TestClient(an_app(a_guard("error"), lifespan=lifespan)),
    ):
        sent.append("started")
    assert (sent, ended) == ([], ["cleaned up"])


@pytest.mark.anyio
async def test_failed_start_is_reported_once_on_one_line():
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ConfigurationError):
        await an_app(a_guard("error"))({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert sent[0]["message"].startswith("audit: * /nowhere: rule /nowhere matches no route")
    assert "\n" not in sent[0]["message"]


def test_without_lifespan_each_request_is_refused_until_the_rules_are_correct():
    client = TestClient(an_app(a_guard("error")))  # without "with": no lifespan
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="matches no route"):
            client.get("/rows")


def test_off_disables_the_audit(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(startup, "audit_app", lambda app: pytest.fail("it looked"))
    with TestClient(an_app(a_guard("off"))) as client:
        assert client.get("/rows").status_code == 401
    assert audit_lines(caplog) == []


def test_audit_runs_neither_at_construction_nor_after_the_first_request(monkeypatch: pytest.MonkeyPatch):
    calls: list[Any] = []

    def count_and_audit(app: Any) -> Report:
        calls.append(app)
        return audit_app(app)

    monkeypatch.setattr(startup, "audit_app", count_and_audit)
    app = GuardMiddleware(Starlette(routes=[Route("/rows", endpoint)]), guard=a_guard("warn"))
    assert calls == []
    client = TestClient(app)
    for _ in range(3):
        client.get("/rows")
    assert calls == [app]
    assert app._check.pending is False


def fastapi_app(guard: Guard, *, forgotten: bool, middleware: bool = False, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.add_api_route("/rows", lambda: "rows", dependencies=[Depends(Protected(guard))])
    if forgotten:
        app.add_api_route("/everything", lambda: "gone", methods=["DELETE"])
    if middleware:
        app.add_middleware(GuardMiddleware, guard=guard)
    return app


def test_an_app_with_dependencies_and_no_middleware_is_checked_when_it_starts(caplog: pytest.LogCaptureFixture):
    strict = fastapi_app(without_rules("error"), forgotten=True)
    with (
        pytest.raises(
            ConfigurationError, match="audit: DELETE /everything: no middleware, decorator or dependency guards it"
        ),
        TestClient(strict),
    ):
        pass
    for _ in range(2):  # A server that continues after a failed start, or has no lifespan support.
        with pytest.raises(ConfigurationError, match="DELETE /everything"):
            TestClient(strict).delete("/everything")
    caplog.clear()
    with TestClient(fastapi_app(without_rules("warn"), forgotten=True)) as client:
        assert len(audit_lines(caplog)) == 1
        assert client.delete("/everything").status_code == 200
    assert len(audit_lines(caplog)) == 1


@pytest.mark.parametrize("audit", ["error", "warn", "off"])
def test_an_app_with_dependencies_everywhere_starts(audit: str, caplog: pytest.LogCaptureFixture):
    """Its documentation pages stay open, as documented."""
    with TestClient(fastapi_app(without_rules(audit), forgotten=False)) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/rows").status_code == 401
    assert TestClient(fastapi_app(without_rules(audit), forgotten=False, docs_url=None)).get("/rows").status_code == 401
    with TestClient(fastapi_app(without_rules("off"), forgotten=True)) as client:
        assert client.delete("/everything").status_code == 200
    assert audit_lines(caplog) == []


def test_audit_does_not_run_for_later_requests():
    app = fastapi_app(without_rules("warn"), forgotten=False)
    with TestClient(app) as client:
        assert client.get("/rows").status_code == 401
        assert type(app.middleware_stack).__module__.startswith("starlette.")


def test_routes_that_an_app_adds_while_it_starts_are_checked():
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        app.add_api_route("/late", lambda: "late")
        yield

    app = fastapi_app(without_rules("error"), forgotten=False, lifespan=lifespan)
    with (
        pytest.raises(ConfigurationError, match="GET /late: no middleware, decorator or dependency guards it"),
        TestClient(app),
    ):
        pass


def test_outer_middleware_runs_the_audit(caplog: pytest.LogCaptureFixture):
    guard = without_rules("error")
    inside = fastapi_app(guard, forgotten=True, middleware=True)
    around = GuardMiddleware(fastapi_app(guard, forgotten=True), guard=guard)
    for app in (inside, around):
        with TestClient(app) as client:
            assert client.delete("/everything").status_code == 401
        assert TestClient(app).delete("/everything").status_code == 401
    assert audit_lines(caplog) == []


def test_app_mounted_behind_middleware_is_not_audited_separately(authority: FakeAuthority):
    inner = fastapi_app(without_rules("error"), forgotten=True)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, audit="off")
    app = Starlette(routes=[Mount("/api", inner)], middleware=[Middleware(GuardMiddleware, guard=guard)])
    assert TestClient(app).delete("/api/everything", headers=authority.bearer()).status_code == 200


def test_strictest_setting_of_several_guards_applies():
    app = fastapi_app(without_rules("warn"), forgotten=True)
    app.add_api_route("/other", lambda: "rows", dependencies=[Depends(Protected(without_rules("error")))])
    with pytest.raises(ConfigurationError, match="DELETE /everything"), TestClient(app):
        pass


def test_an_app_without_a_guard_starts():
    app = FastAPI()
    app.add_api_route("/rows", lambda: "rows")
    with TestClient(app) as client:
        assert client.get("/rows").status_code == 200


def test_wsgi_is_checked_at_the_first_request(caplog: pytest.LogCaptureFixture):
    def start_response(status: str, headers: Any) -> None: ...

    flask = Flask("f", static_folder=None)
    flask.get("/rows")(lambda: "rows")
    environ = flask.test_request_context("/rows").request.environ
    app = WSGIGuard(flask, guard=a_guard("warn"))
    for _ in range(2):
        app(dict(environ), start_response)
    assert len(audit_lines(caplog)) == 1
    with pytest.raises(ConfigurationError, match="/nowhere"):
        WSGIGuard(flask, guard=a_guard("error"))(dict(environ), start_response)


def test_flask_is_checked_at_the_first_request(caplog: pytest.LogCaptureFixture):
    for setting, status in (("warn", 401), ("error", 500)):
        app = Flask("f", static_folder=None)
        ScopeGuard(app, a_guard(setting))
        app.get("/rows")(lambda: "rows")
        for _ in range(2):
            assert app.test_client().get("/rows").status_code == status
    assert len(audit_lines(caplog)) == 2 * 1


def test_app_that_cannot_be_inspected_starts_unless_configured_otherwise(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def fail(app: Any) -> None:
        raise LookupError("of its own making")

    monkeypatch.setattr(startup, "audit_app", fail)
    assert TestClient(an_app(a_guard("warn"))).get("/rows").status_code == 401
    assert audit_lines(caplog) == ["audit: the routes of the app cannot be read"]
    with pytest.raises(ConfigurationError, match=r"cannot be read \(LookupError\)"):
        TestClient(an_app(a_guard("error"))).get("/rows")


def test_long_list_is_truncated_and_route_names_cannot_forge_log_lines(caplog: pytest.LogCaptureFixture):
    rules = [Rule("/rows"), *(Rule(f"/no\u2028{number}") for number in range(30))]
    TestClient(an_app(a_guard("warn", rules))).get("/rows")
    lines = audit_lines(caplog)
    assert len(lines) == startup.MOST_LINES + 1
    assert lines[-1] == "audit: and 10 more; scopeguard audit shows them"
    assert "\u2028" not in "".join(lines)
