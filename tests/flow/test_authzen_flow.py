"""An evaluation request to a decision point, step by step: authentication, pauses after failures, kept decisions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from flow_player import play
from scopeguard import AccessToken, AuthZen, PolicyDenied, PolicyRequest, PolicyUnavailable
from scopeguard.config.policy import Policy
from scopeguard.core.wiring import build_decision_point
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.authzen import evaluate, longest_evaluation
from scopeguard.flow.context import Context
from scopeguard.flow.effects import Answer, CallApp, CallHook, Flow, Lane, Send, SingleFlight
from scopeguard.flow.policy import decide
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.state.issuers import Issuers
from scopeguard.state.revocation import Revocations
from scopeguard.testing import FakeClock, FakeDecisionPoint

REQUEST = PolicyRequest(method="GET", path="/x", route="/x")
OTHER = PolicyRequest(method="GET", path="/y", route="/y")


def token(subject: str | None = "alice", expires_at: float | None = None) -> AccessToken:
    return AccessToken(
        issuer="https://as.test",
        subject=subject,
        client_id=None,
        audience=("api",),
        scopes=frozenset(),
        granted_scopes=None,
        expires_at=expires_at,
        claims={},
    )


class Player:
    """Performs the effects of a flow in this thread, and records requests, flights and sentences for the log."""

    def __init__(self, pdp: FakeDecisionPoint) -> None:
        self.respond: Callable[[Send], Answer] = pdp.transport.send
        self.sends: list[Send] = []
        self.flights: list[SingleFlight] = []
        self.sentences: list[str] = []

    def play(self, flow: Flow[Any]) -> Any:
        return play(flow, self._perform)

    def _perform(self, effect: object) -> Any:
        match effect:
            case Send():
                self.sends.append(effect)
                return self.respond(effect)
            case CallHook(hook=hook):
                return hook()
            case CallApp(function=function):
                return function()
            case SingleFlight():
                self.flights.append(effect)
                if effect.needed():
                    self.sentences += self.play(effect.flow())
                return None
        raise AssertionError(effect)


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.pdp = FakeDecisionPoint()
        self.clock = FakeClock(wall=1_800_000_000)
        self.point = build_decision_point(self.pdp.authzen(**settings))
        self.player = Player(self.pdp)

    def ask(self, access: AccessToken | None = None, request: PolicyRequest = REQUEST) -> Any:
        return self.player.play(evaluate(self.point, access or token(), request, self.clock))

    def outage(self, access: AccessToken | None = None, request: PolicyRequest = REQUEST) -> PolicyUnavailable:
        with pytest.raises(PolicyUnavailable) as caught:
            self.ask(access, request)
        return caught.value

    def context(self) -> Context:
        revocations = Revocations(max_lag=1, fail_open_dangerously=False)
        issuers = Issuers([], resolved=None, revocations=revocations, shared=False)
        return Context(issuers=issuers, clock=self.clock, points={id(self.point.settings): self.point})

    @property
    def authorizations(self) -> list[str | None]:
        return [send.authorization for send in self.player.sends]


def test_permit_and_denial():
    bench = Bench()
    assert bench.ask() is True
    bench.pdp.decide = False
    with pytest.raises(PolicyDenied):
        bench.ask()
    assert {flight.lane for flight in bench.player.flights} == {Lane.DECISIONS}
    assert len({flight.key for flight in bench.player.flights}) == 2


# -- failures


@pytest.mark.rule("Z-04")
def test_dead_decision_point_gets_no_requests_after_a_few_failures():
    bench = Bench()
    bench.pdp.go_down()
    causes = [bench.outage(token(str(number))).detail["cause"] for number in range(5)]
    assert causes == [Reason.AUTHORITY_UNREACHABLE] * 3 + [Reason.AUTHORITY_BACKING_OFF] * 2
    assert bench.outage().retry_after
    bench.clock.advance(60)
    bench.pdp.recover()
    assert bench.ask() is True


@pytest.mark.rule("Z-04")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 302])
def test_responses_do_not_stop_requests_of_others(status: int):
    bench = Bench()
    for _ in range(10):
        bench.pdp.answer(status)
        assert bench.outage().detail["status"] == str(status)
        bench.pdp.recover()
        assert bench.ask(token("bob")) is True


@pytest.mark.rule("Z-04")
def test_malformed_answers_do_not_stop_requests():
    bench = Bench()
    bench.pdp.answer(200, '{"decision": 1}')
    for _ in range(10):
        assert "no decision" in bench.outage().detail["problem"]


@pytest.mark.rule("Z-04")
@pytest.mark.parametrize("fault", ["hang", "500", "large"])
def test_failure_that_a_request_may_cause_pauses_only_requests_like_it(fault: str):
    bench = Bench()

    def fail() -> None:
        if fault == "hang":
            bench.pdp.hang()
        else:
            bench.pdp.answer(500 if fault == "500" else 200, b" " * (70_000 if fault == "large" else 0))

    for _ in range(20):
        fail()
        assert bench.outage().detail["cause"] != Reason.AUTHORITY_BACKING_OFF
        assert bench.outage().detail["cause"] == Reason.AUTHORITY_BACKING_OFF
        bench.pdp.recover()
        assert bench.ask(token("bob")) is True
        assert bench.ask(request=OTHER) is True
        bench.clock.advance(61)


def test_failures_of_several_subjects_are_an_outage():
    bench = Bench()
    bench.pdp.hang()
    causes = [bench.outage(token(str(number))).detail["cause"] for number in range(4)]
    assert causes == [Reason.AUTHORITY_TIMED_OUT] * 3 + [Reason.AUTHORITY_BACKING_OFF]
    bench.clock.advance(10)
    bench.pdp.recover()
    assert [bench.ask(token("0")), bench.ask(token("1"))] == [True, True]


def test_failure_before_or_after_the_request_was_sent():
    bench = Bench()

    def fail_with(sent: bool | None, reason: Reason) -> Callable[[Send], Answer]:
        def respond(request: Send) -> Answer:
            error = AuthorityUnavailable(reason, request.authority)
            error.sent = sent
            raise error

        return respond

    for sent, reason, is_down in (
        (None, Reason.AUTHORITY_UNREACHABLE, True),
        (False, Reason.AUTHORITY_TIMED_OUT, True),
        (True, Reason.AUTHORITY_UNREACHABLE, False),
        (None, Reason.AUTHORITY_TIMED_OUT, False),
    ):
        bench = Bench()
        bench.player.respond = fail_with(sent, reason)
        for _ in range(3):
            bench.outage()
            bench.clock.advance(0.1 if is_down else 61)
        assert (bench.point.breaker.pause(bench.clock.monotonic()) > 0) is is_down


# -- metadata


@pytest.mark.rule("Z-08")
def test_metadata_are_read_again_after_an_outage():
    bench = Bench(discover=True)
    assert [bench.ask(), bench.ask()] == [True, True]
    bench.pdp.answer(503, retry_after="1")
    assert bench.outage().retry_after == 1
    bench.pdp.recover()
    bench.clock.advance(60)
    assert bench.ask() is True
    well_known = [send.url for send in bench.player.sends if send.content is None]
    assert well_known == ["https://pdp.test/.well-known/authzen-configuration"] * 2
    assert longest_evaluation(bench.point.settings) > longest_evaluation(AuthZen("https://pdp.test"))


@pytest.mark.parametrize("metadata", [{}, {"policy_decision_point": "https://other.test"}], ids=repr)
def test_metadata_of_another_decision_point_is_an_outage(metadata: dict[str, str]):
    bench = Bench(discover=True)
    body = json.dumps(metadata).encode()
    bench.player.respond = lambda request: Answer(200, body, {"content-type": "application/json"})
    failed = bench.outage()
    assert failed.detail["cause"] == Reason.AUTHORITY_ANSWER_INVALID
    assert "policy_decision_point" in failed.detail["problem"]
    assert len(bench.player.sends) == 1  # no evaluation request was sent


# -- authentication


def test_constant_bearer_token_is_sent():
    bench = Bench(authentication="secret")
    assert bench.ask() is True
    assert bench.authorizations == ["Bearer secret"]


def test_function_is_called_again_after_a_401_and_not_for_each_of_them():
    tokens = iter(("one", "two", "three"))
    bench = Bench(authentication=lambda: next(tokens))
    assert [bench.ask(), bench.ask()] == [True, True]
    good = "Bearer two"
    respond = bench.player.respond

    def accept_good(request: Send) -> Answer:
        return respond(request) if request.authorization == good else Answer(401, b"")

    bench.player.respond = accept_good
    assert [bench.ask(), bench.ask()] == [True, True]
    assert bench.authorizations == ["Bearer one"] * 3 + [good] * 2
    good = "Bearer none"
    assert bench.outage().detail["status"] == "401"  # renewed a moment ago
    bench.clock.advance(6)
    assert bench.outage().detail["status"] == "401"
    assert bench.authorizations[5:] == ["Bearer two", "Bearer two", "Bearer three"]
    assert longest_evaluation(bench.point.settings) > 30


def test_401_for_the_same_token_is_not_repeated():
    bench = Bench(authentication=lambda: "same")
    bench.pdp.answer(401)
    assert bench.outage().detail["status"] == "401"
    assert len(bench.player.sends) == 1


class Client:
    """A client with the methods ``token`` and ``refuse``, as ClientCredentials has them."""

    def __init__(self, *tokens: Any) -> None:
        self.tokens = list(tokens)
        self.refused: list[str] = []

    def token(self) -> Any:
        found = self.tokens.pop(0)
        if isinstance(found, Exception):
            raise found

        class Fetched:
            access_token = found

        return Fetched

    def refuse(self, token: Any) -> bool:
        self.refused.append(token.access_token)
        return len(self.refused) < 2


def test_token_of_a_client_is_requested_for_each_evaluation():
    bench = Bench(authentication=Client("one", "two", RuntimeError("sg-secret"), 7))
    assert [bench.ask(), bench.ask()] == [True, True]
    assert bench.authorizations == ["Bearer one", "Bearer two"]
    failed = bench.outage()
    assert failed.detail["problem"] == "authzen.authentication raised RuntimeError"
    assert bench.outage().detail["problem"] == "authzen.authentication returned no token"


def test_client_is_told_that_its_token_was_refused():
    client = Client("old", "new", "newer")
    bench = Bench(authentication=client)
    respond = bench.player.respond

    def accept_new(request: Send) -> Answer:
        return respond(request) if request.authorization == "Bearer new" else Answer(401, b"")

    bench.player.respond = accept_new
    assert bench.ask() is True
    assert (client.refused, bench.authorizations) == (["old"], ["Bearer old", "Bearer new"])
    assert bench.outage().detail["status"] == "401"
    assert client.refused == ["old", "newer"]


@pytest.mark.parametrize("authentication", [None, "constant"])
def test_401_without_another_token_is_an_outage(authentication: str | None):
    bench = Bench(authentication=authentication)
    bench.pdp.answer(401)
    assert bench.outage().detail["status"] == "401"
    assert len(bench.player.sends) == 1


def test_failure_of_the_function_is_an_outage():
    def fail() -> str:
        raise RuntimeError("sg-secret")

    bench = Bench(authentication=fail)
    assert bench.outage().detail["problem"] == "authzen.authentication raised RuntimeError"
    assert bench.player.sends == []


# -- identifiers, kept decisions


@pytest.mark.rule("Z-07")
def test_another_identifier_in_the_answer_is_logged():
    bench = Bench()
    bench.pdp.answer(200, '{"decision": true}')
    assert bench.ask() is True
    assert bench.player.sentences == []
    bench.pdp.answer(200, '{"decision": true}', x_request_id="x\nforged line")
    for _ in range(10):
        assert bench.ask() is True
    assert len(bench.player.sentences) == 5
    assert "forged" not in "".join(bench.player.sentences)


@pytest.mark.rule("Z-11")
@pytest.mark.parametrize(("expires_in", "kept"), [(None, 60), (10, 10), (-5, 0)])
def test_kept_decision_ends_with_its_token(expires_in: float | None, kept: float):
    bench = Bench(ttl=60)
    access = token(expires_at=None if expires_in is None else bench.clock.wall() + expires_in)
    assert bench.ask(access) is True
    bench.clock.advance(max(0.0, kept - 0.5))
    bench.pdp.decide = False
    if kept:
        assert bench.ask(access) is True
    bench.clock.advance(0.5)
    for _ in range(2):  # a denial is kept as well
        with pytest.raises(PolicyDenied):
            bench.ask(access)


@pytest.mark.rule("Z-11")
def test_kept_decision_is_as_old_as_its_request():
    bench = Bench(ttl=10)
    respond = bench.player.respond

    def respond_late(request: Send) -> Answer:
        answer = respond(request)
        bench.clock.advance(4)
        return answer

    bench.player.respond = respond_late
    assert bench.ask() is True
    bench.player.respond = respond
    bench.pdp.decide = False
    bench.clock.advance(5.5)
    assert bench.ask() is True
    bench.clock.advance(0.5)
    with pytest.raises(PolicyDenied):
        bench.ask()


# -- functions and decision points together


def test_policies_are_applied_in_order_until_one_denies():
    bench = Bench()
    asked: list[str] = []

    def function(answer: bool) -> Any:
        def decide(token: AccessToken, request: PolicyRequest) -> bool:
            asked.append(request.route)
            return answer

        return decide

    context = Context(
        issuers=Issuers(
            [], resolved=None, revocations=Revocations(max_lag=1, fail_open_dangerously=False), shared=False
        ),
        clock=bench.clock,
        points={id(bench.point.settings): bench.point},
    )
    view = RequestView(method="GET", path="/x", headers=HeaderList([]), query=b"access_token=t&a=b")

    def run(*policies: Policy) -> Any:
        return bench.player.play(decide(policies, token(), view, context))

    point = Policy(decide=bench.point.settings, route="/p")
    allow, deny = Policy(decide=function(True), route="/a"), Policy(decide=function(False), route="/d")
    assert run(allow, point) is True
    assert run(allow, deny, point) is False
    assert run() is True
    assert (asked, len(bench.pdp.evaluations)) == (["/a", "/a", "/d"], 1)
    assert (allow.title.rpartition(".")[2], point.title) == ("decide", "https://pdp.test")


def test_query_without_the_token_is_passed_to_functions():
    queries: list[bytes] = []

    class Remember:
        def __call__(self, token: AccessToken, request: PolicyRequest) -> Any:
            queries.append(request.query)
            return 1

    bench = Bench()
    context = Context(
        issuers=Issuers(
            [], resolved=None, revocations=Revocations(max_lag=1, fail_open_dangerously=False), shared=False
        ),
        clock=bench.clock,
    )
    view = RequestView(method="GET", path="/x", headers=HeaderList([]), query=b"a=1&access_token=secret&b=2")
    with pytest.raises(TypeError, match=r"Remember must return True or False, not int"):
        bench.player.play(decide([Policy(decide=Remember(), route="/x")], token(), view, context))
    assert queries == [b"a=1&b=2"]


def test_coroutine_is_closed_and_is_an_error():
    async def allow(token: AccessToken, request: PolicyRequest) -> bool:
        return True

    bench = Bench()
    context = Context(
        issuers=Issuers(
            [], resolved=None, revocations=Revocations(max_lag=1, fail_open_dangerously=False), shared=False
        ),
        clock=bench.clock,
    )
    view = RequestView(method="GET", path="/x", headers=HeaderList([]))
    with pytest.raises(TypeError, match="returned a coroutine"):
        bench.player.play(decide([Policy(decide=allow, route="/x")], token(), view, context))
