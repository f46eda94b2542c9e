"""``Rule(..., decide=...)``: a function or a policy decision point decides after the token, through every adapter.

Kinds of fault: a decision that is skipped (a token from the cache, a prefix, a final slash), an answer that is taken
for "allow" although it is not ``True``, and a failure of the decision point that reaches the client as a denial.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import flask
import pytest

from doors import asgi_app, call_asgi, call_in_loop, call_wsgi, wsgi_app
from scenarios import Answered, Exchange
from scopeguard import (
    AccessToken,
    AuthZen,
    ConfigurationError,
    DecisionEvent,
    Denied,
    Forbidden,
    Granted,
    Guard,
    InsufficientScope,
    InsufficientUserAuthentication,
    PolicyDenied,
    PolicyRequest,
    PolicyUnavailable,
    Reason,
    Rule,
    Unavailable,
    all_of,
    asgi,
    wsgi,
)
from scopeguard.flask import ScopeGuard
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC
from scopeguard.testing import FakeAuthority, FakeDecisionPoint, Network

Send = Callable[[Exchange], Answered]
DETAIL = "The policy of this API does not allow this operation"


def asgi_door(backend: str, guard: Guard, app: Any = asgi_app) -> Send:
    return call_in_loop(backend, call_asgi, asgi.GuardMiddleware(app, guard=guard))


def wsgi_door(guard: Guard) -> Send:
    return partial(call_wsgi, wsgi.GuardMiddleware(wsgi_app, guard=guard))


def flask_door(guard: Guard) -> Send:
    app = flask.Flask(__name__, static_folder=None)
    app.testing = True
    ScopeGuard(app, guard)
    app.add_url_rule("/<path:path>", "any", lambda path: path, methods=["GET", "POST", "OPTIONS"])
    return partial(call_wsgi, app)


ASYNC_DOORS: dict[str, Any] = {"asgi-asyncio": partial(asgi_door, "asyncio"), "asgi-trio": partial(asgi_door, "trio")}
BLOCKING_DOORS: dict[str, Any] = {"wsgi": wsgi_door, "flask": flask_door}
DOORS = {**ASYNC_DOORS, **BLOCKING_DOORS}


class Api:
    """An API with rules behind one door, with an authority and a decision point."""

    def __init__(self, door: Any, *rules: Rule, pdp: FakeDecisionPoint | None = None, **settings: Any) -> None:
        self.authority = FakeAuthority()
        self.heard: list[DecisionEvent] = []
        self.guard = Guard(
            self.authority.issuer,
            rules=rules,
            transport=Network(self.authority, *([] if pdp is None else [pdp])),
            clock=self.authority.clock,
            on_decision=self.heard.append,
            **settings,
        )
        self.send: Send = door(self.guard)

    def get(self, path: str, token: str | None = None, *, method: str = "GET", **claims: Any) -> Answered:
        if token is None:
            token = self.authority.mint(**{"scope": "read", **claims})
        return self.send(
            Exchange(method=method, target=path, headers=((b"authorization", b"Bearer " + token.encode()),))
        )


def header(answer: Answered, name: str) -> str | None:
    return dict(answer.headers).get(name)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Any:
    return DOORS[request.param]


def body_of(answer: Answered) -> Any:
    return json.loads(answer.body)


# -- functions


def test_function_gets_the_token_and_the_request_and_decides(door: Any):
    asked: list[tuple[AccessToken, PolicyRequest]] = []

    def decide(token: AccessToken, request: PolicyRequest) -> bool:
        asked.append((token, request))
        return request.path != "/tables/secret"

    api = Api(door, Rule("/tables/{table}", all_of("read"), decide=decide))
    token = api.authority.mint(scope="read", subject="alice")
    assert api.get("/tables/a?x=1", token).status == 200
    refused = api.get("/tables/secret", token)
    assert (refused.status, body_of(refused)["detail"]) == (403, DETAIL)
    assert header(refused, "www-authenticate") is None
    assert [access.subject for access, _ in asked] == ["alice", "alice"]
    assert asked[0][1] == PolicyRequest(
        method="GET", path="/tables/a", route="/tables/{table}", query=b"x=1", client="192.0.2.1"
    )
    match api.heard:
        case [DecisionEvent(decision=Granted(), route=route), DecisionEvent(decision=Denied(error=error))]:
            assert error.reason is Reason.POLICY_DENIED
            assert route is not None
        case _:
            raise AssertionError(api.heard)


def test_function_decides_about_tokens_from_the_cache_too(door: Any):
    verdict = [True]
    api = Api(door, Rule("/x", decide=lambda token, request: verdict[0]))
    token = api.authority.mint(scope="read")
    assert [api.get("/x", token).status for _ in range(3)] == [200, 200, 200]
    verdict[0] = False
    assert api.get("/x", token).status == 403


def test_function_is_not_called_for_refused_requests(door: Any):
    def decide(token: AccessToken, request: PolicyRequest) -> bool:
        raise AssertionError("asked")

    api = Api(door, Rule("/x", all_of("write"), decide=decide))
    assert api.get("/x").status == 403
    assert api.get("/x", "made.up.token").status == 401
    assert api.send(Exchange(target="/x")).status == 401
    assert api.get("/y").status == 403


WRONG_ANSWERS: dict[str, Any] = {
    "none": None,
    "one": 1,
    "zero": 0,
    "text": "true",
    "list": [True],
    "not implemented": NotImplemented,
    "type": bool,
}


@pytest.mark.parametrize("answer", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_any_answer_but_true_and_false_is_an_error_of_the_app(door: Any, answer: Any):
    api = Api(door, Rule("/x", decide=lambda token, request: answer))
    with pytest.raises(TypeError, match="must return True or False"):
        api.get("/x")


@pytest.mark.parametrize("door", ASYNC_DOORS.values(), ids=ASYNC_DOORS)
@pytest.mark.parametrize("answer", [None, 1, "true"])
def test_any_answer_of_an_async_function_but_true_and_false_is_an_error(door: Any, answer: Any):
    async def decide(token: AccessToken, request: PolicyRequest) -> Any:
        return answer

    api = Api(door, Rule("/x", decide=decide))
    with pytest.raises(TypeError, match="must return True or False"):
        api.get("/x")


def test_coroutine_that_is_never_awaited_does_not_allow_a_request(door: Any):
    async def allow() -> bool:
        return True

    api = Api(door, Rule("/x", decide=lambda token, request: allow()))
    with pytest.raises(TypeError, match="returned a coroutine"):
        api.get("/x")


@pytest.mark.parametrize("error", [ValueError("x"), StopIteration(True), KeyError(True), GeneratorExit()], ids=repr)
def test_exception_in_a_function_allows_no_request(door: Any, error: BaseException):
    def decide(token: AccessToken, request: PolicyRequest) -> bool:
        raise error

    api = Api(door, Rule("/x", decide=decide))
    with pytest.raises(BaseException) as caught:
        api.get("/x")
    assert not isinstance(caught.value, AssertionError)
    assert not any(isinstance(decision, Granted) for decision in api.heard)


def test_function_may_raise_a_denial_or_an_outage(door: Any):
    errors: dict[str, Exception] = {
        "/denied": PolicyDenied("Your plan includes ten tables", plan="small"),
        "/unsafe": PolicyDenied("<script>"),
        "/forbidden": Forbidden(Reason.NO_RULE),
        "/scope": InsufficientScope(("admin",)),
        "/gold": InsufficientUserAuthentication(acr_values=("gold",)),
        "/down": PolicyUnavailable("https://db.test", retry_after=7),
    }

    def decide(token: AccessToken, request: PolicyRequest) -> bool:
        raise errors[request.path]

    api = Api(door, Rule("/{name}", decide=decide))
    found = {path: api.get(path) for path in errors}
    assert {path: answer.status for path, answer in found.items()} == {
        "/denied": 403, "/unsafe": 403, "/forbidden": 403, "/scope": 403, "/gold": 401, "/down": 503,
    }  # fmt: skip
    assert body_of(found["/denied"])["detail"] == "Your plan includes ten tables"
    assert body_of(found["/unsafe"])["detail"] == DETAIL
    assert 'scope="admin"' in (header(found["/scope"], "www-authenticate") or "")
    assert 'acr_values="gold"' in (header(found["/gold"], "www-authenticate") or "")
    assert (header(found["/down"], "retry-after"), header(found["/down"], "www-authenticate")) == ("7", None)


@pytest.mark.parametrize("door", ASYNC_DOORS.values(), ids=ASYNC_DOORS)
def test_async_function_runs_in_the_event_loop_of_the_request(door: Any):
    threads: list[threading.Thread] = []

    class Allow:
        async def __call__(self, token: AccessToken, request: PolicyRequest) -> bool:
            await anyio.lowlevel.checkpoint()
            threads.append(threading.current_thread())
            return True

    api = Api(door, Rule("/x", decide=partial(Allow())))
    assert api.get("/x").status == 200
    assert threads == [threading.main_thread()]


@pytest.mark.parametrize("door", ASYNC_DOORS.values(), ids=ASYNC_DOORS)
def test_sync_function_does_not_block_the_event_loop(door: Any):
    threads: list[threading.Thread] = []

    def decide(token: AccessToken, request: PolicyRequest) -> bool:
        threads.append(threading.current_thread())
        return True

    api = Api(door, Rule("/x", decide=decide))
    assert [api.get("/x").status, api.get("/x").status] == [200, 200]
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_number_of_sync_functions_that_run_at_once_is_bounded(backend: str):
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Event()

    def decide(token: AccessToken, request: PolicyRequest) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 40:
                gate.set()
        assert gate.wait(30)
        with lock:
            running -= 1
        return True

    authority = FakeAuthority()
    guard = Guard(
        authority.issuer,
        rules=[Rule("/x", decide=decide)],
        transport=authority.transport,
        clock=authority.clock,
    )
    app = asgi.GuardMiddleware(asgi_app, guard=guard)
    exchange = Exchange(target="/x", headers=((b"authorization", b"Bearer " + authority.mint().encode()),))
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await call_asgi(app, exchange)).status)

    async def flood() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(one)

    anyio.run(flood, backend=backend)
    assert (statuses, most) == ([200] * 100, 40)


@pytest.mark.parametrize("door", BLOCKING_DOORS.values(), ids=BLOCKING_DOORS)
def test_async_function_is_refused_by_blocking_adapters(door: Any):
    async def decide(token: AccessToken, request: PolicyRequest) -> bool:
        return True

    with pytest.raises(ConfigurationError, match=r"rule '/x': decide: .*decide is async"):
        Api(door, Rule("/x", decide=decide))


@pytest.mark.parametrize("access", [PUBLIC, OPTIONAL, DENIED])
def test_rule_that_requires_no_token_cannot_decide(access: Any):
    with pytest.raises(ConfigurationError, match=f"decide: needs an access token, and {access.name} requires none"):
        Rule("/x", access, decide=lambda token, request: True)


@pytest.mark.parametrize("value", ["https://pdp.test", True, 1, [], {}, AuthZen], ids=repr)
def test_rule_refuses_a_wrong_kind_of_decide(value: Any):
    with pytest.raises(ConfigurationError, match="rule '/x': decide: must be an"):
        Rule("/x", decide=value)


# -- no way around a decision


def test_prefix_that_an_app_removes_does_not_bypass_a_decision():
    def refuse(token: AccessToken, request: PolicyRequest) -> bool:
        return False

    rules = [Rule("/admin", all_of("read"), decide=refuse), Rule("/{rest:path}", all_of("read"))]

    def app(environ: Any, start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/api")
        return wsgi_app(environ, start_response)

    authority = FakeAuthority()
    guard = Guard(authority.issuer, rules=rules, transport=authority.transport, clock=authority.clock)
    send = partial(call_wsgi, wsgi.GuardMiddleware(app, guard=guard))
    headers = ((b"authorization", b"Bearer " + authority.mint(scope="read").encode()),)
    assert send(Exchange(target="/api/other", headers=headers)).status == 200
    assert send(Exchange(target="/api/admin", headers=headers)).status == 403


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_prefix_that_an_asgi_app_removes_does_not_bypass_a_decision(backend: str):
    """The requirements are equal, so that only the decision tells the rules apart."""
    rules = [Rule("/admin", all_of("read"), decide=lambda *_: False), Rule("/{rest:path}", all_of("read"))]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asgi_app({**scope, "path": scope["path"].removeprefix("/api")}, receive, send)

    authority = FakeAuthority()
    guard = Guard(authority.issuer, rules=rules, transport=authority.transport, clock=authority.clock)
    send = asgi_door(backend, guard, app)
    headers = ((b"authorization", b"Bearer " + authority.mint(scope="read").encode()),)
    for _ in range(2):
        assert send(Exchange(target="/api/other", headers=headers)).status == 200
        assert send(Exchange(target="/api/admin", headers=headers)).status == 403


def test_final_slash_does_not_bypass_a_decision(door: Any):
    api = Api(door, Rule("/admin", decide=lambda token, request: False), Rule("/{rest:path}"))
    assert [api.get(path).status for path in ("/other", "/admin", "/admin/")] == [200, 403, 403]


def test_rules_that_are_joined_keep_all_decisions():
    asked: list[str] = []

    def decide(name: str) -> Any:
        def function(token: AccessToken, request: PolicyRequest) -> bool:
            asked.append(f"{name} {request.route}")
            return True

        return function

    rules = [Rule("/admin", decide=decide("first")), Rule("/{rest:path}", decide=decide("second"))]
    authority = FakeAuthority()
    guard = Guard(authority.issuer, rules=rules, transport=authority.transport, clock=authority.clock)

    def app(environ: Any, start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/api")
        return wsgi_app(environ, start_response)

    send = partial(call_wsgi, wsgi.GuardMiddleware(app, guard=guard))
    headers = ((b"authorization", b"Bearer " + authority.mint().encode()),)
    assert send(Exchange(target="/api/admin", headers=headers)).status == 200
    assert asked == ["second /{rest:path}", "first /admin"]


def test_middleware_around_a_flask_extension_does_not_bypass_its_decision():
    authority = FakeAuthority()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    app = flask.Flask(__name__, static_folder=None)
    verdict = [True]
    rules = [Rule("/x", decide=lambda token, request: verdict[0]), Rule("/y", all_of("write"), decide=lambda *_: True)]
    ScopeGuard(app, guard, rules=rules)
    app.add_url_rule("/<path:path>", "any", lambda path: path)
    send = partial(call_wsgi, wsgi.GuardMiddleware(app, guard=guard))
    headers = ((b"authorization", b"Bearer " + authority.mint().encode()),)
    assert send(Exchange(target="/x", headers=headers)).status == 200
    verdict[0] = False
    assert send(Exchange(target="/x", headers=headers)).status == 403
    assert send(Exchange(target="/y", headers=headers)).status == 403


# -- a policy decision point


@pytest.mark.rule("Z-01")
def test_decision_point_gets_one_request(door: Any):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/tables/{table}", all_of("read"), decide=pdp.authzen()), pdp=pdp)
    token = api.authority.mint(scope="write read", subject="alice", client_id="app")
    assert api.get("/tables/a", token, method="POST").status == 200
    (request,) = pdp.transport.sends
    assert (request.url, request.form) == ("https://pdp.test/access/v1/evaluation", None)
    assert pdp.evaluations == [
        {
            "subject": {
                "type": "user",
                "id": "alice",
                "properties": {"issuer": api.authority.issuer.url, "client_id": "app", "scopes": ["read", "write"]},
            },
            "action": {"name": "POST"},
            "resource": {"type": "route", "id": "/tables/{table}"},
            "context": {"path": "/tables/a", "method": "POST"},
        }
    ]
    assert token.encode() not in (request.content or b"")


@pytest.mark.rule("Z-02")
@pytest.mark.rule("X-37")
def test_only_true_permits(door: Any):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    values: list[Any] = ["true", 1, None, [True], {}]
    for value in values:
        pdp.decide = {"decision": value}
        refused = api.get("/x")
        assert (refused.status, header(refused, "www-authenticate")) == (503, None)
    pdp.decide = {}
    assert api.get("/x").status == 503
    pdp.decide = True
    assert api.get("/x").status == 200


@pytest.mark.rule("Z-03")
def test_reason_for_the_user_is_shown_and_the_one_for_administrators_is_logged(
    door: Any, caplog: pytest.LogCaptureFixture
):
    pdp = FakeDecisionPoint(
        decide={
            "decision": False,
            "context": {"reason_admin": {"403": "policy C076E82F"}, "reason_user": {"403": "Ask your administrator"}},
        }
    )
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    refused = api.get("/x")
    assert (refused.status, body_of(refused)["detail"]) == (403, "Ask your administrator")
    assert b"C076E82F" not in refused.body
    assert header(refused, "www-authenticate") is None
    assert "C076E82F" in caplog.text
    pdp.decide = {"decision": False, "context": {"reason_user": "<b>no</b>"}}
    assert body_of(api.get("/x"))["detail"] == DETAIL


@pytest.mark.rule("Z-04")
@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 401, 403, 404, 408, 413, 429, 500, 502, 503])
def test_any_other_status_is_an_outage(door: Any, status: int):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    pdp.answer(status, '{"decision": true}', location="https://elsewhere.test/access/v1/evaluation")
    refused = api.get("/x")
    assert (refused.status, header(refused, "www-authenticate")) == (503, None)
    assert int(header(refused, "retry-after") or 0) >= 1
    assert b"policy decision point" in refused.body
    assert len(pdp.transport.sends) == 1
    match api.heard:
        case [DecisionEvent(decision=Unavailable(error=error))]:
            assert (error.reason, error.authority) == (Reason.POLICY_UNAVAILABLE, "https://pdp.test")
        case _:
            raise AssertionError(api.heard)


@pytest.mark.rule("Z-04")
@pytest.mark.rule("Z-09")
@pytest.mark.parametrize(
    "body",
    [
        "",
        "true",
        "[]",
        '{"decision": true',
        '{"decision": true, "decision": true}',
        '{"decision": true, "context": {"a": 1, "a": 1}}',
        '{"decision": true, "context": []}',
        '{"decision": false, "context": "no"}',
        '{"decision": true} {"decision": true}',
        "\ufeff" + '{"decision": true}',
        '{"evaluations": [{"decision": true}]}',
    ],
)
def test_answer_without_a_decision_is_an_outage(door: Any, body: str):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    pdp.answer(200, body)
    assert api.get("/x").status == 503


@pytest.mark.rule("Z-04")
def test_answer_of_another_content_type_is_an_outage(door: Any):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    pdp.answer(200, '{"decision": true}', content_type="text/html")
    assert api.get("/x").status == 503


@pytest.mark.rule("Z-04")
def test_hanging_and_dead_decision_points_are_outages_and_recover(door: Any):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    for fault in (pdp.hang, pdp.go_down):
        fault()
        refused = api.get("/x")
        assert refused.status == 503
        api.authority.clock.advance(float(header(refused, "retry-after") or 0))
        pdp.recover()
        assert api.get("/x").status == 200


@pytest.mark.rule("Z-05")
def test_denial_with_acr_values_asks_for_a_stronger_sign_in(door: Any):
    context = {"acr_values": "urn:com:example:loa:3 gold", "amr_values": "mfa hwk", "max_age": 300}
    pdp = FakeDecisionPoint(decide={"decision": False, "context": context})
    api = Api(door, Rule("/x", decide=pdp.authzen()), Rule("/off", decide=pdp.authzen(step_up=False)), pdp=pdp)
    refused = api.get("/x")
    challenge = header(refused, "www-authenticate") or ""
    assert refused.status == 401
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'acr_values="urn:com:example:loa:3 gold"' in challenge
    assert 'max_age="300"' in challenge
    assert api.get("/off").status == 403


@pytest.mark.rule("Z-06")
def test_context_of_a_permit_that_is_not_understood_is_rejected_if_the_settings_say_so(door: Any):
    pdp = FakeDecisionPoint(decide={"decision": True, "context": {"obligations": ["log"]}})
    api = Api(door, Rule("/x", decide=pdp.authzen()), Rule("/strict", decide=pdp.authzen(strict_context=True)), pdp=pdp)
    assert (api.get("/x").status, api.get("/strict").status) == (200, 503)
    pdp.decide = {"decision": True, "context": {"reason_admin": "ok"}}
    assert api.get("/strict").status == 200


@pytest.mark.rule("Z-07")
def test_request_id_is_sent_and_another_one_in_the_answer_is_logged(door: Any, caplog: pytest.LogCaptureFixture):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    assert api.get("/x").status == 200
    assert "X-Request-ID" not in caplog.text
    pdp.answer(200, '{"decision": true}', x_request_id="another")
    for _ in range(20):
        assert api.get("/x").status == 200
    identifiers = [dict(request.headers)["x-request-id"] for request in pdp.transport.sends]
    assert len(set(identifiers)) == 21
    assert 1 <= caplog.text.count("the X-Request-ID of the answer differs") <= 5
    assert identifiers[1] in caplog.text


@pytest.mark.rule("Z-08")
def test_endpoint_is_read_from_metadata_that_names_exactly_this_decision_point(door: Any):
    pdp = FakeDecisionPoint("https://pdp.test/tenant")
    api = Api(door, Rule("/x", decide=pdp.authzen(discover=True)), pdp=pdp)
    assert [api.get("/x").status for _ in range(2)] == [200, 200]
    evaluation = "https://pdp.test/tenant/access/v1/evaluation"
    assert pdp.transport.requests == [
        "https://pdp.test/.well-known/authzen-configuration/tenant", evaluation, evaluation,
    ]  # fmt: skip
    api.authority.clock.advance(3600)
    for named in ("https://pdp.test/tenant/", "https://pdp.test", "HTTPS://pdp.test/tenant", None, 1):
        pdp.answer(200, json.dumps({"policy_decision_point": named, "access_evaluation_endpoint": evaluation}))
        assert api.get("/x").status == 503
        api.authority.clock.advance(60)
    assert pdp.transport.requests.count(evaluation) == 2


@pytest.mark.rule("Z-09")
def test_unknown_members_and_their_order_do_not_matter(door: Any):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), pdp=pdp)
    pdp.answer(200, '{"x": {"decision": false}, "context": {}, "decision": true, "y": [1]}')
    assert api.get("/x").status == 200


@pytest.mark.rule("Z-10")
def test_several_evaluations_are_one_exchange_with_defaults(door: Any):
    pdp = FakeDecisionPoint(decide=lambda evaluation: evaluation["resource"]["id"] != "secret")

    def resources(token: AccessToken, request: PolicyRequest) -> Any:
        names = request.query.decode().split(",")
        return [{"resource": {"type": "table", "id": name}} for name in names] + [{"action": {"name": "list"}}]

    api = Api(
        door,
        Rule("/all", decide=pdp.authzen(evaluations=resources)),
        Rule("/any", decide=pdp.authzen(evaluations=resources, semantics="permit_on_first_permit")),
        pdp=pdp,
    )
    assert api.get("/all?a,b").status == 200
    assert pdp.transport.requests == ["https://pdp.test/access/v1/evaluations"]
    assert [evaluation["action"]["name"] for evaluation in pdp.evaluations] == ["GET", "GET", "list"]
    assert [evaluation["resource"]["id"] for evaluation in pdp.evaluations] == ["a", "b", "/all"]
    assert api.get("/all?a,secret").status == 403
    assert api.get("/any?secret,secret").status == 200


@pytest.mark.rule("Z-11")
def test_decisions_are_not_kept_by_default_and_never_longer_than_the_token_lives(door: Any):
    pdp = FakeDecisionPoint()
    api = Api(door, Rule("/x", decide=pdp.authzen()), Rule("/kept", decide=pdp.authzen(ttl=600)), pdp=pdp)
    token = api.authority.mint(expires_in=300)
    for _ in range(3):
        assert api.get("/x", token).status == 200
    assert len(pdp.evaluations) == 3
    for _ in range(3):
        assert api.get("/kept", token).status == 200
    assert len(pdp.evaluations) == 4
    pdp.decide = False
    api.authority.clock.advance(299)
    assert api.get("/kept", token).status == 200
    api.authority.clock.advance(2)
    # The token is still accepted, by the leeway of the issuer, and the decision is no longer kept.
    assert api.get("/kept", token).status == 403


def test_own_parts_of_the_evaluation_replace_the_default(door: Any):
    pdp = FakeDecisionPoint()
    settings = pdp.authzen(
        subject=lambda token, request: {"type": "tenant", "id": token.claims["tid"], "properties": token.claims["org"]},
        action=lambda token, request: {"name": "can_" + request.method.lower()},
        resource=lambda token, request: {"type": "table", "id": request.path.removeprefix("/")},
        context=lambda token, request: {"client": request.client},
    )
    api = Api(door, Rule("/{table}", decide=settings), pdp=pdp)
    assert api.get("/t1", claims={"tid": "t", "org": {"a": ["b"]}}).status == 200
    assert pdp.evaluations == [
        {
            "subject": {"type": "tenant", "id": "t", "properties": {"a": ["b"]}},
            "action": {"name": "can_get"},
            "resource": {"type": "table", "id": "t1"},
            "context": {"client": "192.0.2.1"},
        }
    ]
