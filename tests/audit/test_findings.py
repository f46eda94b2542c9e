"""Errors and warnings of the audit."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from scopeguard import (
    ANY_AUDIENCE_DANGEROUSLY,
    AUTHENTICATED,
    DENIED,
    OPTIONAL,
    PUBLIC,
    AccessToken,
    AuthZen,
    Guard,
    Issuer,
    PolicyRequest,
    Rule,
    all_of,
    any_of,
    wsgi,
)
from scopeguard.asgi import GuardMiddleware
from scopeguard.audit.findings import audit_app
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.flask import ScopeGuard
from scopeguard.starlette import requires

ISSUER = Issuer("https://auth.example.com", audience="https://api.example.com")


async def endpoint(request: Request) -> Any: ...


def api(*paths: str, methods: list[str] | None = None) -> Starlette:
    """Return an app whose view has no decorated version. Those of :func:`endpoint` live until they are collected."""

    async def view(request: Request) -> Any: ...

    return Starlette(routes=[Route(path, view, methods=methods) for path in paths])


def allow(token: AccessToken, request: PolicyRequest) -> bool:
    return True


def test_decisions_after_the_token_are_shown_beside_the_scopes(guard: Guard):
    rules = [
        Rule("/scoped", all_of("a"), decide=AuthZen("https://pdp.test")),
        Rule("/bare", decide=allow),
        Rule("/either", any_of("a", "b"), decide=allow),
        Rule("/plain"),
    ]
    report = audit_app(GuardMiddleware(api(*(rule.path for rule in rules)), guard=guard, rules=rules))
    function = f"decision of {__name__}.allow"
    assert {entry.path: entry.access for entry in report.entries} == {
        "/scoped": "a + decision of https://pdp.test",
        "/bare": function,
        "/either": f"a + {function} or b + {function}",
        "/plain": "any valid token",
    }
    assert report.scopes == ("a", "b")
    assert not report.errors


def test_route_that_nothing_declares_is_told_from_one_that_is_for_any_token_on_purpose(guard: Guard):
    app = Starlette(
        routes=[
            Route("/plain", endpoint, methods=["GET", "POST"]),
            Route("/named", requires(AUTHENTICATED)(endpoint)),
            Route("/scoped", requires("a")(endpoint)),
            Route("/open", endpoint),
        ]
    )
    report = audit_app(GuardMiddleware(app, guard=guard, public=["/open"]))
    assert report.undeclared == ("GET,POST /plain",)
    assert {route["path"] for route in report.as_json()["routes"] if route["by_default"]} == {"/plain"}
    assert not report.findings
    ruled = audit_app(GuardMiddleware(api("/plain"), guard=guard, rules=[Rule("/plain")]))
    assert [entry.access for entry in ruled.entries] == ["any valid token"]
    assert ruled.undeclared == audit_app(api("/plain")).undeclared == ()
    flask = Flask("flask", static_folder=None)
    flask.add_url_rule("/plain", view_func=lambda: "")
    ScopeGuard(flask, guard)
    assert audit_app(flask).undeclared == ("GET /plain",)


def test_rule_without_the_decision_of_another_is_an_exception(guard: Guard):
    rules = [Rule("/rows/secret", all_of("a"), decide=allow), Rule("/rows/{id}", all_of("a"))]
    report = audit_app(GuardMiddleware(api("/rows/{id}"), guard=guard, rules=rules))
    (entry,) = report.entries
    assert entry.exceptions == (f"/rows/secret: a + decision of {__name__}.allow",)


def test_rules_that_can_never_decide_are_errors(guard: Guard, codes: Any):
    rules = [Rule("/{any}", all_of("a"), ["GET"]), Rule("/rows", all_of("b"), ["GET"]), Rule("/{x}", all_of("c"))]
    assert codes(GuardMiddleware(api("/rows"), guard=guard, rules=rules)) == {"shadowed-rule": ["GET /rows"]}


def test_rule_may_deny_an_operation_that_a_contract_allows(guard: Guard, codes: Any):
    rules = [
        Rule("/rows", DENIED, ["GET"]),
        Rule("/rows", all_of("a"), ["GET"], source="tables.json: GET /rows (list)"),
    ]
    report = audit_app(GuardMiddleware(api("/rows"), guard=guard, rules=rules))
    assert [(entry.access, entry.declared) for entry in report.entries] == [("denied to all", ("rule /rows",))]
    assert codes(report) == {"shadowed-rule": ["GET /rows"]}
    assert not report.errors


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        (Rule("/row", all_of("a")), "* /row"),
        (Rule("/rows", all_of("a"), ["DELETE"]), "DELETE /rows"),
        (Rule("/rows/{id}", all_of("a"), ["GET", "POST"]), "GET,POST /rows/{id}"),
        (Rule("/x/{rest:path}", DENIED), "* /x/{rest:path}"),
    ],
)
def test_rules_that_match_no_route_are_errors(guard: Guard, codes: Any, rule: Rule, where: str):
    app = GuardMiddleware(api("/rows"), guard=guard, rules=[rule, Rule("/rows")])
    assert codes(app) == {"rule-without-route": [where]}


def test_rules_that_decide_about_some_paths_of_a_route_are_used(guard: Guard, codes: Any):
    rules = [Rule("/users/me"), Rule("/users/root", DENIED), Rule("/users/{id}", all_of("users.read"))]
    app = GuardMiddleware(api("/users/{name}"), guard=guard, rules=rules)
    (entry,) = audit_app(app).entries
    assert entry.access == "users.read"
    assert entry.exceptions == ("/users/me: any valid token", "/users/root: denied to all")
    assert codes(app) == {}


def test_many_exceptions_are_counted(guard: Guard):
    rules = [*(Rule(f"/users/{number}") for number in range(9)), Rule("/users/{id}", all_of("users.read"))]
    (entry,) = audit_app(GuardMiddleware(api("/users/{name}"), guard=guard, rules=rules)).entries
    assert len(entry.exceptions) == 7
    assert entry.exceptions[-1] == "and 3 more"


def test_rules_below_an_opaque_mount_may_match_there(guard: Guard, codes: Any):
    async def old(scope: Any, receive: Any, send: Any) -> None: ...

    app = Starlette(routes=[Mount("/old", old), Route("/new", endpoint)])
    rules = [Rule("/old/rows/{id}", all_of("read")), Rule("/new"), Rule("/gone")]
    assert codes(GuardMiddleware(app, guard=guard, rules=rules))["rule-without-route"] == ["* /gone"]


def test_operations_of_a_contract_and_routes_are_compared_in_both_directions(guard: Guard, codes: Any):
    contract = [
        Rule("/rows", all_of("read"), ["GET"], source="tables.json: GET /rows (list)"),
        Rule("/rows/{id}", all_of("write"), ["PUT"], source="tables.json: PUT /rows/{id} (put)"),
    ]
    app = GuardMiddleware(api("/rows", "/extra"), guard=guard, rules=contract)
    report = audit_app(app)
    assert codes(report) == {"operation-without-route": ["PUT /rows/{id}"], "route-without-rule": ["GET /extra"]}
    assert not report.errors
    assert report.entries[0].declared == ("tables.json: GET /rows (list)",)


def test_other_methods_of_a_route_with_rules_for_some_are_no_finding(guard: Guard, codes: Any):
    class App:
        """An app as the endpoint of a route, which takes every method."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    routes = Starlette(routes=[Route("/rows", App()), Route("/extra", App())])
    report = audit_app(GuardMiddleware(routes, guard=guard, rules=[Rule("/rows", all_of("read"), ["GET"])]))
    assert {entry.where: entry.access for entry in report.entries if entry.path == "/rows"} == {
        "GET /rows": "read",
        "* /rows": "denied to all",
    }
    assert codes(report) == {"route-without-rule": ["* /extra"]}


def test_a_decorator_behind_a_public_path_is_an_error(guard: Guard, codes: Any):
    async def rows(request: Request) -> Any: ...

    app = Starlette(routes=[Route("/rows", requires("read")(rows))])
    assert codes(GuardMiddleware(app, guard=guard, public=["/rows"])) == {"decorator-on-public": ["GET /rows"]}
    assert codes(GuardMiddleware(app, guard=guard, rules=[Rule("/rows", OPTIONAL)])) == {}


def test_dangerous_settings_are_warnings(codes: Any):
    anybody = Issuer("https://any.example.com", audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"tenant": ["a"]})
    guard = Guard(ISSUER, anybody)
    rules = [Rule("/download", token_sources=["header", "query"]), Rule("/news", OPTIONAL)]
    report = audit_app(GuardMiddleware(api("/download", "/news"), guard=guard, rules=rules))
    assert codes(report) == {
        "any-audience": ["issuer https://any.example.com"],
        "optional-token": ["GET /news"],
        "query-tokens": ["GET /download"],
    }
    assert not report.errors


# -- scopes that no issuer can grant


def protect(guard: Guard, **rules: Any) -> GuardMiddleware:
    return GuardMiddleware(
        api(*(f"/{name}" for name in rules)),
        guard=guard,
        rules=[Rule(f"/{name}", access) for name, access in rules.items()],
    )


def test_no_scope_is_ungrantable_if_the_scopes_of_an_issuer_are_unknown(guard: Guard, codes: Any):
    assert codes(protect(guard, a=all_of("no.such.scope"))) == {}


def test_catalog_defines_the_existing_scopes(codes: Any):
    catalog = ScopeCatalog(descriptions={"read": "Read", "write": ""}, prefix="https://api.example.com/")
    app = protect(
        Guard(ISSUER, catalog=catalog),
        known=all_of("read", "https://api.example.com/write"),
        either=any_of("raed", "read"),
        typo=all_of("raed", "read"),
    )
    assert codes(app) == {"ungrantable-scope": ["GET /typo"]}
    (finding,) = audit_app(app).findings
    assert "'raed'" in finding.message


def test_empty_catalog_defines_no_scopes(codes: Any):
    guard = Guard(ISSUER, catalog=ScopeCatalog(implies={"admin": ["read"]}))
    assert codes(protect(guard, a=all_of("write"))) == {}


def test_one_issuer_has_to_grant_all_of_one_alternative(codes: Any):
    second = Issuer("https://second.example.com", audience="https://api.example.com", implies={"admin": ["all"]})
    app = protect(
        Guard(ISSUER, second), one=all_of("a", "b"), implied=all_of("all"), spread=all_of("a", "admin"), no=all_of("x")
    )
    granted = {ISSUER.url: frozenset({"a", "b"}), second.url: frozenset({"admin"})}
    assert codes(app, granted=granted) == {"ungrantable-scope": ["GET /spread", "GET /no"]}
    assert codes(app, granted={ISSUER.url: frozenset({"a"})}) == {}  # The scopes of the second issuer are unknown.


def test_roles_for_scopes_are_not_known(codes: Any):
    issuer = Issuer(ISSUER.url, audience="https://api.example.com", role_claims=("roles",), roles_as_scopes=True)
    assert codes(protect(Guard(issuer), a=all_of("x")), granted={ISSUER.url: frozenset({"a"})}) == {}


def test_cors_middleware_inside_the_guard_is_reported(guard: Guard, codes: Any, caplog: pytest.LogCaptureFixture):
    cors: Any = Middleware(CORSMiddleware, allow_origins=["https://spa.test"])
    name = "* starlette.middleware.cors.CORSMiddleware"

    def starlette(*middleware: Any) -> Starlette:
        return Starlette(routes=[Route("/rows", endpoint)], middleware=middleware)

    def guard_middleware(**settings: Any) -> Any:
        return Middleware(GuardMiddleware, guard=guard, **settings)

    inside: dict[str, Any] = {
        "in the app": starlette(guard_middleware(), cors),
        "in the app, the guard around it": GuardMiddleware(starlette(cors), guard=guard),
        "both around it": GuardMiddleware(CORSMiddleware(starlette()), guard=guard),
        "with a public path": starlette(guard_middleware(public=["/healthz"]), cors),
    }
    for how, app in inside.items():
        assert codes(app)["cors-inside-guard"] == [name], how
    fine = {
        "outside": starlette(cors, guard_middleware()),
        "around": CORSMiddleware(starlette(guard_middleware())),
        "passed": starlette(guard_middleware(cors_preflight="pass"), cors),
        "public": starlette(guard_middleware(public=["/{path:path}"]), cors),
        "public for OPTIONS": starlette(
            guard_middleware(rules=[Rule("/rows", PUBLIC, methods=["OPTIONS"]), Rule("/rows")]), cors
        ),
        "alone": starlette(cors),
    }
    for how, app in fine.items():
        assert "cors-inside-guard" not in codes(app), how
    with caplog.at_level(logging.WARNING), TestClient(inside["in the app"]):
        pass
    assert "CORSMiddleware: it is inside the guard" in caplog.text
    # The first fix works in every framework: Flask-CORS cannot be put around the guard.
    assert 'scripts cannot read refusals: set cors_preflight="pass" in the guard; or put it around' in caplog.text


def test_cors_inside_the_guard_of_a_flask_app_is_reported(guard: Guard, codes: Any):
    def cors_after_request(response: Any) -> Any:
        return response

    def app(**settings: Any) -> Flask:
        flask = Flask("app")
        flask.after_request(cors_after_request)
        flask.add_url_rule("/rows", "rows", lambda: "")
        if settings:
            ScopeGuard(flask, guard, **settings)
        return flask

    (found,) = codes(app(cors_preflight="guard"))["cors-inside-guard"]
    assert found.endswith("cors_after_request")
    assert "cors-inside-guard" not in codes(app(cors_preflight="pass"))
    assert "cors-inside-guard" in codes(wsgi.GuardMiddleware(app(), guard=guard))
    assert "cors-inside-guard" not in codes(wsgi.GuardMiddleware(app(), guard=guard, cors_preflight="pass"))
