"""Introspection and revocation, step by step: the requests to the authority and to a shared store, in order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flow_player import play
from scopeguard import Guard, Issuer
from scopeguard.config.introspection import Introspection
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.token_sources import TokenSource, TokenSources
from scopeguard.config.validation import Validation
from scopeguard.core.revoking import record_revocation
from scopeguard.devserver.keys import SigningKey, base64url, compact
from scopeguard.errors import AuthorityUnavailable, Blame, InvalidToken
from scopeguard.flow.authenticate import authenticate
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import Answer, CallHook, Flow, Send, SingleFlight, UseStore
from scopeguard.flow.introspection import introspect
from scopeguard.flow.introspection_requests import ask_authority, introspection_request
from scopeguard.flow.issuers import choose_issuer
from scopeguard.guard import engine_of
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.spec.introspection import digest
from scopeguard.state.introspection import IntrospectionAnswer, IntrospectionState
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.state.revocation import Revocation, Revocations, Revoked, digest_of
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority

OAUTH = "https://as.test/.well-known/oauth-authorization-server"
OPENID = "https://as.test/.well-known/openid-configuration"
INTROSPECT = "https://as.test/introspect"
JSON = {"content-type": "application/json"}


class Broken(MemoryStore):
    """A store whose operations fail while ``down`` contains their names."""

    def __init__(self, clock: Any, *down: str) -> None:
        super().__init__(clock)
        self.down = set(down)
        self.asked: list[str] = []

    def _try(self, operation: str) -> None:
        self.asked.append(operation)
        if operation in self.down:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0)

    def get(self, key: str, /) -> bytes | None:
        self._try("get")
        return super().get(key)

    def put(self, key: str, value: bytes, /, *, seconds: float) -> None:
        self._try("put")
        super().put(key, value, seconds=seconds)

    def read(self, after: str | None, /) -> tuple[str | None, Sequence[bytes]]:
        self._try("read")
        return super().read(after)


class Stage:
    """An authority, a guard whose edge is not used, and its flows, performed here."""

    def __init__(
        self, authority: FakeAuthority, store: Any = None, *, policy: RevocationPolicy | None = None, **settings: Any
    ) -> None:
        self.authority = authority
        self.clock = authority.clock
        self.store = store
        introspection = Introspection(client_id="api", client_secret=authority.api.secret, **settings)
        issuer = replace(authority.issuer, validate=Validation.AUTO, introspection=introspection)
        self.guard = Guard(issuer, transport=authority.transport, clock=self.clock, store=store, revocation=policy)
        self.context = engine_of(self.guard).context
        self.record = self.context.issuers.all[0]
        self.effects: list[object] = []
        self.background: list[SingleFlight] = []

    @property
    def state(self) -> IntrospectionState:
        assert self.record.introspection is not None
        return self.record.introspection

    def flow(self, token: str) -> Flow[Any]:
        headers = HeaderList([(b"authorization", b"Bearer " + token.encode("ascii"))])
        view = RequestView(method="GET", path="/", headers=headers)
        return authenticate(view, TokenSources(), replace(self.context, token_cache=None))

    def judge(self, token: str) -> Any:
        return self.play(self.flow(token))

    def play(self, flow: Flow[Any]) -> Any:
        return play(flow, self._perform)

    def _perform(self, effect: object) -> object:
        self.effects.append(effect)
        match effect:
            case Send():
                return self.authority.transport.send(effect)
            case UseStore(operation=operation):
                return operation(self.store)
            case SingleFlight(wait=False):
                self.background.append(effect)
            case SingleFlight() if effect.needed():
                self.play(effect.flow())
            case _:
                pass
        return None

    def finish(self) -> None:
        flights, self.background = self.background, []
        for flight in flights:
            self.play(flight.flow())


@pytest.fixture
def stage(authority: FakeAuthority) -> Stage:
    return Stage(authority)


def mint_opaque(authority: FakeAuthority, **options: Any) -> str:
    return authority.mint("read", token_format="opaque", **options)


def outage_of(stage: Stage, token: str) -> AuthorityUnavailable:
    with pytest.raises(AuthorityUnavailable) as error:
        stage.judge(token)
    return error.value


def refusal_reason(stage: Stage, token: str) -> Reason:
    with pytest.raises(InvalidToken) as error:
        stage.judge(token)
    return error.value.reason


# -- the request


@pytest.mark.rule("I-01", "I-02", "I-05")
def test_cold_introspection_discovers_and_asks_in_one_flight(stage: Stage, authority: FakeAuthority):
    token = mint_opaque(authority)
    assert stage.judge(token).scopes == {"read"}
    flight, discovery, request = stage.effects
    assert isinstance(flight, SingleFlight)
    assert flight.key == f"answer {digest(token, stage.state.context).hex()}"
    assert token not in flight.key
    assert flight.wait
    assert discovery == Send(url=OAUTH, authority=authority.url)
    assert isinstance(request, Send)
    assert (request.url, request.authority, request.accept) == (INTROSPECT, authority.url, "application/json")
    assert request.form == (("token", token), ("token_type_hint", "access_token"))
    assert request.authorization is not None
    assert (request.timeout, request.retries) == (5.0, 1)
    assert token not in repr(stage.effects)
    assert authority.api.secret not in repr(stage.effects)


def test_cached_answer_causes_no_effect(stage: Stage, authority: FakeAuthority):
    token = mint_opaque(authority)
    first = stage.judge(token)
    stage.effects.clear()
    assert stage.judge(token) == first
    assert stage.effects == []


def test_endpoint_and_keys_may_be_in_two_documents(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch):
    """The class of input: each well-known URL has what the other lacks; both documents are kept."""
    whole = authority.authority.metadata()
    documents = {
        OAUTH: {name: value for name, value in whole.items() if name != "jwks_uri"},
        OPENID: {name: value for name, value in whole.items() if name != "introspection_endpoint"},
    }
    send = authority.transport.send

    def note_and_send(request: Send, /) -> Answer:
        if request.url in documents:
            asked.append(request.url)
            return Answer(200, json.dumps(documents[request.url]).encode(), JSON)
        return send(request)

    asked: list[str] = []
    monkeypatch.setattr(authority.transport, "send", note_and_send)
    stage = Stage(authority)
    for _ in range(2):
        assert stage.judge(authority.mint("read")).scopes == {"read"}
        assert stage.judge(mint_opaque(authority)).scopes == {"read"}
    assert asked == [OAUTH, OPENID, OAUTH]


def test_configured_endpoint_is_not_discovered(authority: FakeAuthority):
    stage = Stage(authority, endpoint=INTROSPECT, timeout=2.0, retries=0)
    stage.judge(mint_opaque(authority))
    (request,) = (effect for effect in stage.effects if isinstance(effect, Send))
    assert (request.url, request.timeout, request.retries) == (INTROSPECT, 2.0, 0)


def test_jwt_is_introspected_only_if_the_policy_says_so(stage: Stage, authority: FakeAuthority):
    token = authority.mint("read")
    stage.judge(token)
    assert INTROSPECT not in authority.requests
    issuer = replace(stage.record.issuer, validate=Validation.INTROSPECTION)
    other = Guard(issuer, transport=authority.transport, clock=authority.clock)
    stage.context = engine_of(other).context
    assert stage.judge(token).scopes == {"read"}
    assert authority.requests[-1] == INTROSPECT
    authority.revoke(token)
    authority.clock.advance(61)
    assert refusal_reason(stage, token) is Reason.TOKEN_NOT_ACTIVE


@pytest.mark.rule("I-29")
@pytest.mark.parametrize(
    "token",
    [
        "eyJ.x.y",
        "eyJhbGciOiJub25lIn0.e30.",
        "eyJhbGciOiJub25lIn0.e30.x",
        *(
            f"{base64url(header)}.e30."
            for header in (b'{ "alg":"none"}', b'{\n "alg": "none"\n}', b' \n{"alg":"none"}', b" " * 99 + b"{}")
        ),
    ],
)
def test_malformed_jwt_is_not_introspected(stage: Stage, token: str):
    assert refusal_reason(stage, token) in (Reason.MALFORMED_TOKEN, Reason.MISSING_CLAIM)
    assert stage.effects == []


@pytest.mark.parametrize("token", ["v4.public.token", "eyJ", "e30.x", "!!!!.x.y", "a.b.c", ".x.y"])
def test_opaque_token_may_have_dots(stage: Stage, authority: FakeAuthority, token: str):
    assert refusal_reason(stage, token) is Reason.TOKEN_NOT_ACTIVE
    assert authority.transport.count("introspection") == 1


def test_encrypted_token_is_introspected_as_opaque(stage: Stage, authority: FakeAuthority):
    encrypted = "eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn"
    assert refusal_reason(stage, encrypted) is Reason.TOKEN_NOT_ACTIVE
    assert authority.transport.count("introspection") == 1


def test_authority_without_introspection_gets_no_request(authority: FakeAuthority):
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    credential = Credential(token="opaque", source=TokenSource.HEADER)
    with pytest.raises(InvalidToken):
        next(choose_issuer(credential, engine_of(guard).context))
    with pytest.raises(InvalidToken):
        next(introspect(credential, engine_of(guard).issuers.all[0], engine_of(guard).context))
    assert authority.requests == []


# -- joined flights


def key_of(stage: Stage, token: str) -> bytes:
    return digest(token, stage.state.context)


@pytest.mark.rule("I-25")
def test_request_that_joins_a_flight_uses_its_answer(stage: Stage, authority: FakeAuthority):
    token = mint_opaque(authority)
    flow = stage.flow(token)
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    assert flight.needed()
    members = {"active": True, "aud": authority.audience, "sub": "from-the-other"}
    stage.state.cache.absorb(key_of(stage, token), IntrospectionAnswer(members), stage.clock.monotonic(), lifetime=60)
    assert not flight.needed()
    with pytest.raises(StopIteration) as end:
        flow.send(None)
    assert end.value.value.subject == "from-the-other"


@pytest.mark.rule("I-18", "H-19")
def test_request_that_joins_a_failed_flight_is_503_without_a_retry(stage: Stage, authority: FakeAuthority):
    token = mint_opaque(authority)
    flow = stage.flow(token)
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    stage.state.cache.failures.fail(key_of(stage, token), stage.clock.monotonic(), pauses=False)
    assert not flight.needed()
    with pytest.raises(AuthorityUnavailable):
        flow.send(None)
    stage.clock.advance(0.001)
    assert stage.judge(token).scopes == {"read"}  # A later request tries again.


def test_answer_is_as_old_as_its_request(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch):
    """A revocation while the answer is on its way takes effect within ``ttl``, in the process and in the store."""
    send, delay = authority.transport.send, 4.0

    def answer_late(request: Send, /) -> Answer:
        answer = send(request)
        authority.clock.advance(delay)
        return answer

    monkeypatch.setattr(authority.transport, "send", answer_late)
    store = MemoryStore(authority.clock)
    one, other = (Stage(authority, store, endpoint=INTROSPECT, ttl=10) for _ in range(2))
    token = mint_opaque(authority)
    one.judge(token)
    authority.revoke(token)
    delay = 0.0
    authority.clock.advance(5.5)
    assert one.judge(token).scopes == other.judge(token).scopes == {"read"}
    authority.clock.advance(0.5)
    assert refusal_reason(one, token) is refusal_reason(other, token) is Reason.TOKEN_NOT_ACTIVE


def test_answer_that_took_longer_than_its_ttl_serves_the_requests_that_waited(
    authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
):
    send = authority.transport.send

    def answer_late(request: Send, /) -> Answer:
        authority.clock.advance(4)
        return send(request)

    monkeypatch.setattr(authority.transport, "send", answer_late)
    stage, token = Stage(authority, endpoint=INTROSPECT, ttl=2), mint_opaque(authority)
    waiting = stage.flow(token)
    flight = next(waiting)
    assert isinstance(flight, SingleFlight)
    stage.judge(token)
    assert not flight.needed()
    with pytest.raises(StopIteration) as end:
        waiting.send(None)
    assert end.value.value.scopes == {"read"}
    assert authority.requests.count(INTROSPECT) == 1


def test_repetition_of_a_request_has_a_new_assertion(authority: FakeAuthority):
    stage = Stage(authority)
    introspection = Introspection(
        client_id="api", auth="private_key_jwt", private_key=SigningKey.generate("RS256").private_jwk()
    )
    issuer = replace(stage.record.issuer, introspection=introspection)
    record = engine_of(Guard(issuer, transport=authority.transport, clock=authority.clock)).context.issuers.all[0]
    assert record.introspection is not None
    credential = Credential(token="opaque", source=TokenSource.HEADER)
    first = introspection_request(credential, INTROSPECT, record, record.introspection, authority.clock, "")
    assert first.renew is not None
    second = first.renew()
    assert (first.form or ())[:-1] == (second.form or ())[:-1]
    assert dict(first.form or ())["client_assertion"] != dict(second.form or ())["client_assertion"]
    assert second.renew is not None
    assert replace(second, form=first.form) == first


@pytest.mark.parametrize("settings", [{}, {"auth": "client_secret_post"}])
def test_repetition_with_a_secret_is_the_same_request(authority: FakeAuthority, settings: dict[str, Any]):
    stage = Stage(authority, endpoint=INTROSPECT, **settings)
    stage.judge(mint_opaque(authority))
    (request,) = (effect for effect in stage.effects if isinstance(effect, Send))
    assert request.renew is None


@pytest.mark.rule("I-22")
def test_ttl_of_zero_gives_each_request_a_separate_flight(authority: FakeAuthority):
    stage = Stage(authority, ttl=0)
    token = mint_opaque(authority)
    flights = [next(stage.flow(token)) for _ in range(2)]
    assert len({flight.key for flight in flights if isinstance(flight, SingleFlight)}) == 2
    first = flights[0]
    assert isinstance(first, SingleFlight)
    assert first.needed()
    stage.play(first.flow())
    assert not first.needed()  # It has its answer, which is not cached.


# -- the breaker


def test_failures_open_the_breaker_which_sets_retry_after(stage: Stage, authority: FakeAuthority):
    stage.judge(mint_opaque(authority))
    with authority.outage():
        for number in range(3):
            assert outage_of(stage, f"t{number}").reason is Reason.AUTHORITY_UNREACHABLE
        error = outage_of(stage, "t3")
    assert (error.reason, error.retry_after) == (Reason.AUTHORITY_BACKING_OFF, 0.5)
    stage.clock.advance(0.5)
    assert stage.judge(mint_opaque(authority)).scopes == {"read"}


def test_error_about_one_token_does_not_open_the_breaker(stage: Stage, authority: FakeAuthority):
    stage.judge(mint_opaque(authority))
    with authority.outage():
        for number in range(3):
            outage_of(stage, f"t{number}")
    stage.clock.advance(0.5)
    with authority.mode("introspection", Answer(400, b"{}", JSON)):
        assert outage_of(stage, "strange").detail["status"] == "400"
    assert stage.judge(mint_opaque(authority)).scopes == {"read"}


def failure_of(reason: Reason, *, sent: bool | None) -> AuthorityUnavailable:
    error = AuthorityUnavailable(reason, "https://as.test")
    error.sent = sent
    return error


class Failing(Stage):
    """A stage whose introspection endpoint answers *outcome*."""

    outcome: Answer | AuthorityUnavailable | None = None

    def _perform(self, effect: object) -> object:
        if isinstance(effect, Send) and effect.form is not None and self.outcome is not None:
            self.effects.append(effect)
            if isinstance(self.outcome, AuthorityUnavailable):
                raise self.outcome
            return self.outcome
        return super()._perform(effect)

    def count_requests(self) -> int:
        return sum(isinstance(effect, Send) and effect.form is not None for effect in self.effects)


INVALID_CLIENT = b'{"error": "invalid_client"}'


@pytest.mark.rule("I-17", "I-18")
@pytest.mark.parametrize(
    ("outcome", "blame"),
    [
        *((Answer(status, b"", JSON), Blame.TOKEN) for status in (400, 401, 403, 404, 408, 413, 500)),
        *((Answer(status, b"", JSON), Blame.AUTHORITY) for status in (429, 502, 503, 504)),
        *((Answer(status, INVALID_CLIENT, JSON), Blame.AUTHORITY) for status in (400, 401, 403)),
        (Answer(200, b"<html>", {"content-type": "text/html"}), Blame.TOKEN),
        (Answer(200, b"[]", JSON), Blame.TOKEN),
        (failure_of(Reason.AUTHORITY_TIMED_OUT, sent=False), Blame.AUTHORITY),
        (failure_of(Reason.AUTHORITY_TIMED_OUT, sent=True), Blame.TOKEN),
        (failure_of(Reason.AUTHORITY_TIMED_OUT, sent=None), Blame.TOKEN),
        (failure_of(Reason.AUTHORITY_UNREACHABLE, sent=False), Blame.AUTHORITY),
        (failure_of(Reason.AUTHORITY_UNREACHABLE, sent=True), Blame.TOKEN),
        (failure_of(Reason.AUTHORITY_UNREACHABLE, sent=None), Blame.AUTHORITY),
        (failure_of(Reason.AUTHORITY_ANSWER_INVALID, sent=None), Blame.TOKEN),
    ],
    ids=str,
)
def test_cause_of_a_failure_decides_between_pausing_the_token_and_the_server(
    authority: FakeAuthority, outcome: Answer | AuthorityUnavailable, blame: Blame
):
    stage = Failing(authority, endpoint=INTROSPECT)
    stage.outcome = outcome
    error = outage_of(stage, "one")
    assert error.blame is blame
    if blame is Blame.TOKEN:
        assert error.retry_after == 1
        before = stage.count_requests()
        error = outage_of(stage, "one")
        assert (error.reason, error.retry_after) == (Reason.AUTHORITY_BACKING_OFF, 1)
        assert stage.count_requests() == before
    for number in range(10):
        outage_of(stage, str(number))
    assert stage.count_requests() == (11 if blame is Blame.TOKEN else 3)
    stage.outcome = None
    if blame is Blame.TOKEN:
        assert stage.judge(mint_opaque(authority)).scopes == {"read"}


@pytest.mark.rule("I-17")
def test_client_error_right_after_a_success_does_not_open_the_breaker(authority: FakeAuthority):
    stage = Failing(authority, endpoint=INTROSPECT)
    stage.judge(mint_opaque(authority))
    stage.outcome = Answer(401, INVALID_CLIENT, JSON)
    assert outage_of(stage, "made-up").blame is Blame.TOKEN
    stage.clock.advance(60)
    assert outage_of(stage, "another").blame is Blame.AUTHORITY


def test_request_that_joins_a_flight_failing_for_the_token_gets_its_retry_after(stage: Stage, authority: FakeAuthority):
    flow = stage.flow("made-up")
    assert isinstance(next(flow), SingleFlight)
    stage.state.cache.failures.fail(key_of(stage, "made-up"), stage.clock.monotonic())
    with pytest.raises(AuthorityUnavailable) as error:
        flow.send(None)
    assert error.value.retry_after == 1


@pytest.mark.rule("I-18")
def test_failure_for_three_accepted_tokens_opens_the_breaker(authority: FakeAuthority):
    stage = Failing(authority, endpoint=INTROSPECT)
    known = [mint_opaque(authority) for _ in range(4)]
    for token in known:
        stage.judge(token)
    authority.clock.advance(61)
    stage.outcome, before = Answer(500, b"", {}), stage.count_requests()
    told = [outage_of(stage, token) for token in known]
    assert [error.retry_after for error in told] == [1, 1, 0.5, 0.5]
    assert stage.count_requests() - before == 3
    stage.outcome = None
    authority.clock.advance(0.5)
    assert stage.judge(known[3]).scopes == {"read"}
    authority.clock.advance(0.5)
    assert stage.judge(known[0]).scopes == {"read"}


# -- signed answers


def sign_answer(authority: FakeAuthority) -> Answer:
    key, now = authority.key(), authority.clock.wall()
    claims = {
        "iss": authority.url,
        "aud": "api",
        "iat": now,
        "token_introspection": {"active": True, "aud": authority.audience, "scope": "read"},
    }
    token = compact({"typ": "token-introspection+jwt", "alg": key.algorithm, "kid": key.kid}, claims, key)
    return Answer(200, token.encode(), {"content-type": "application/token-introspection+jwt"})


@pytest.mark.rule("I-38", "I-18")
def test_key_fetch_without_budget_does_not_count_as_an_introspection_failure(authority: FakeAuthority):
    stage = Failing(authority, endpoint=INTROSPECT, signed=True)
    stage.outcome = sign_answer(authority)
    assert stage.judge("a").scopes == {"read"}
    for number in range(3):  # Forged tokens use up the budget for key fetches.
        with pytest.raises(InvalidToken):
            stage.judge(authority.mint(headers={"kid": str(number)}))
    authority.rotate()
    stage.outcome = sign_answer(authority)
    for number in range(5):
        error = outage_of(stage, str(number))
        assert (error.blame, error.reason, error.retry_after) == (Blame.KEYS, Reason.AUTHORITY_BACKING_OFF, 10)
    authority.clock.advance(10)
    assert stage.judge("0").scopes == {"read"}
    stage.outcome = Answer(500, b"", {})
    assert outage_of(stage, "z").blame is Blame.TOKEN


# -- a shared store


@pytest.mark.rule("I-24", "I-21")
def test_answer_is_looked_up_in_the_store_and_stored_for_its_lifetime(authority: FakeAuthority):
    store = Broken(authority.clock)
    stage = Stage(authority, store, endpoint=INTROSPECT)
    token = mint_opaque(authority, expires_in=40)
    stage.judge(token)
    assert list(dict.fromkeys(store.asked)) == ["read", "get", "put"]
    ((name, (until, value)),) = store._values.items()
    assert name == f"answer:{key_of(stage, token).hex()}"
    assert until == authority.clock.monotonic() + 40
    assert json.loads(value)["members"]["active"] is True
    assert token.encode() not in value
    other = Stage(authority, store, endpoint=INTROSPECT)
    authority.clock.advance(0.2)
    assert other.judge(token).scopes == {"read"}
    assert authority.transport.count("introspection") == 1


def test_an_inactive_answer_is_shared_for_a_shorter_time(authority: FakeAuthority):
    store = Broken(authority.clock)
    stage = Stage(authority, store)
    assert refusal_reason(stage, "nobody") is Reason.TOKEN_NOT_ACTIVE
    ((until, _),) = store._values.values()
    assert until == authority.clock.monotonic() + 10
    assert refusal_reason(Stage(authority, store), "nobody") is Reason.TOKEN_NOT_ACTIVE
    assert authority.transport.count("introspection") == 1


@pytest.mark.parametrize("down", [("get",), ("put",), ("get", "put")])
def test_failing_store_is_ignored_for_answers(authority: FakeAuthority, down: tuple[str, ...]):
    stage = Stage(authority, Broken(authority.clock, *down))
    assert stage.judge(mint_opaque(authority)).scopes == {"read"}


@pytest.mark.parametrize("settings", [{"ttl": 0}, {"ttl": 0, "negative_ttl": 0}])
def test_ttl_of_zero_bypasses_the_store(authority: FakeAuthority, settings: dict[str, Any]):
    store = Broken(authority.clock)
    Stage(authority, store, **settings).judge(mint_opaque(authority))
    assert set(store.asked) == {"read"}


@pytest.mark.rule("I-10", "I-21")
@pytest.mark.parametrize("seconds", [-30, -1000])
def test_active_answer_about_an_expired_token_is_cached_as_a_refusal(authority: FakeAuthority, seconds: float):
    store = Broken(authority.clock)
    stage = Stage(authority, store)
    members = {"active": True, "aud": authority.audience, "exp": authority.clock.wall() + seconds}
    with authority.mode("introspection", Answer(200, json.dumps(members).encode(), JSON)):
        assert refusal_reason(stage, "t") is Reason.TOKEN_EXPIRED
    assert refusal_reason(stage, "t") is Reason.TOKEN_NOT_ACTIVE
    ((_, value),) = store._values.values()
    assert json.loads(value)["members"] is None


@pytest.mark.rule("I-21")
def test_answer_about_a_token_within_the_leeway_is_used_once_and_not_cached(authority: FakeAuthority):
    store = Broken(authority.clock)
    stage = Stage(authority, store)
    members = {"active": True, "aud": authority.audience, "exp": authority.clock.wall()}
    with authority.mode("introspection", Answer(200, json.dumps(members).encode(), JSON)):
        assert stage.judge("t").audience == (authority.audience,)
    assert store._values == {}
    assert len(stage.state.cache) == 0


# -- the bearer token of the API


class Source:
    """A source function that returns or raises the given results in turn, and repeats the last one."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return result


class Asked(Stage):
    """A stage whose authority accepts the bearer tokens in ``taken`` and answers others with 401."""

    def __init__(self, authority: FakeAuthority, source: Any, *taken: str, **options: Any) -> None:
        super().__init__(authority)
        settings = Introspection(auth="bearer", bearer_token=source, endpoint=INTROSPECT, **options)
        issuer = replace(authority.issuer, validate="auto", introspection=settings)
        self.guard = Guard(issuer, transport=authority.transport, clock=self.clock)
        self.context = engine_of(self.guard).context
        self.record = self.context.issuers.all[0]
        self.taken = set(taken)
        self.shown: list[str | None] = []

    def _perform(self, effect: object) -> object:
        match effect:
            case Send():
                self.shown.append(effect.authorization)
                if str(effect.authorization).removeprefix("Bearer ") not in self.taken:
                    return Answer(401, b"{}", JSON)
                members = {"active": True, "aud": self.authority.audience, "scope": "read"}
                return Answer(200, json.dumps(members).encode(), JSON)
            case CallHook(hook=hook):
                return hook()
        return super()._perform(effect)


@pytest.mark.rule("I-06")
def test_bearer_token_is_requested_once_and_cached(authority: FakeAuthority):
    source = Source("one")
    stage = Asked(authority, source, "one")
    for token in ("a", "b", "c"):
        assert stage.judge(token).scopes == {"read"}
    assert stage.shown == ["Bearer one"] * 3
    assert source.calls == 1
    hooks = [effect for effect in stage.effects if isinstance(effect, SingleFlight) and "bearer" in effect.key]
    assert [hook.key for hook in hooks] == [f"bearer token for {authority.url}"]
    assert "one" not in repr(stage.effects)


@pytest.mark.rule("I-06")
def test_refused_bearer_token_is_renewed_once_and_the_request_repeated(authority: FakeAuthority):
    source = Source("old", "new")
    stage = Asked(authority, source, "new")
    assert stage.judge("a").scopes == {"read"}
    assert stage.shown == ["Bearer old", "Bearer new"]
    assert stage.judge("b").scopes == {"read"}
    assert stage.shown[2:] == ["Bearer new"]
    assert source.calls == 2


@pytest.mark.rule("I-06", "I-18")
def test_refusal_of_a_renewed_bearer_token_is_an_outage_without_more_requests(authority: FakeAuthority):
    source = Source("one", "two", "three", "four")
    stage = Asked(authority, source)
    error = outage_of(stage, "a")
    assert (error.reason, error.detail["status"]) == (Reason.AUTHORITY_ANSWER_INVALID, "401")
    assert stage.shown == ["Bearer one", "Bearer two"]
    outage_of(stage, "b")
    assert stage.shown[2:] == ["Bearer two"]  # It was renewed a moment ago.
    stage.state.breaker.succeed()
    stage.clock.advance(5)
    outage_of(stage, "c")
    assert stage.shown[3:] == ["Bearer two", "Bearer three"]
    assert source.calls == 3


@pytest.mark.rule("I-06")
def test_source_without_a_new_token_causes_no_second_request(authority: FakeAuthority):
    stage = Asked(authority, Source("same"))
    assert outage_of(stage, "a").detail["status"] == "401"
    assert stage.shown == ["Bearer same"]


@pytest.mark.rule("I-06")
def test_fixed_bearer_token_is_not_renewed(authority: FakeAuthority):
    stage = Asked(authority, "sg-one")
    assert outage_of(stage, "a").detail["status"] == "401"
    assert stage.shown == ["Bearer sg-one"]
    stage.taken.add("sg-one")
    stage.clock.advance(1)  # For so long, this access token is not introspected again: the refusal may be about it.
    assert stage.judge("a").scopes == {"read"}


@pytest.mark.rule("I-06", "X-73")
@pytest.mark.parametrize("result", [OSError("sg-secret"), None, "", "a b", "sg-secret\r\nx: y", b"sg-secret", 7])
def test_failing_source_is_an_outage_with_back_off(authority: FakeAuthority, result: object):
    source = Source(result)
    stage = Asked(authority, source)
    for token in ("a", "b", "c"):
        error = outage_of(stage, token)
        assert error.reason is Reason.AUTHORITY_UNREACHABLE
        assert "introspection.bearer_token" in str(error)
        assert "sg-secret" not in str(error)
        assert error.__cause__ is None
    assert outage_of(stage, "d").reason is Reason.AUTHORITY_BACKING_OFF
    assert source.calls == 3
    assert stage.shown == []


@pytest.mark.rule("I-06")
def test_request_that_waits_for_a_bearer_token_uses_the_one_another_fetched(authority: FakeAuthority):
    stage = Asked(authority, Source("one"), "two")
    credential = Credential(token="a", source=TokenSource.HEADER)
    held = stage.state.bearer
    for end, result in ((held.fail, None), (lambda: held.keep("two"), {"active": True})):
        flow = ask_authority(credential, stage.record, stage.state, stage.clock)
        flight = next(flow)
        assert isinstance(flight, SingleFlight)
        assert flight.needed()
        end()
        assert not flight.needed()
        if result is None:
            with pytest.raises(AuthorityUnavailable, match="bearer_token failed"):
                flow.send(None)
        else:
            assert isinstance(flow.send(None), Send)
            held.refuse("two", 0.0)


# -- tokens revoked by their text


@pytest.mark.rule("H-19", "X-63")
@pytest.mark.parametrize("cold", [True, False])
def test_token_revoked_by_its_text_is_refused_without_a_request(authority: FakeAuthority, *, cold: bool):
    stage = Stage(authority)
    token = mint_opaque(authority)
    if not cold:
        stage.judge(token)
    stage.guard.revoke(token=token)
    stage.effects.clear()
    with authority.outage():
        assert refusal_reason(stage, token) is Reason.TOKEN_REVOKED
        assert stage.effects == []
        assert outage_of(stage, mint_opaque(authority)).reason is Reason.AUTHORITY_UNREACHABLE


@pytest.mark.rule("H-19")
def test_token_revoked_in_another_process_is_refused_during_an_outage(authority: FakeAuthority):
    store = Broken(authority.clock)
    here, elsewhere = Stage(authority, store), Stage(authority, store)
    token = mint_opaque(authority)
    here.judge(token)
    elsewhere.guard.revoke(token=token)
    authority.clock.advance(61)
    with authority.outage():
        assert refusal_reason(here, token) is Reason.TOKEN_REVOKED
        store.down.add("read")
        assert refusal_reason(here, token) is Reason.TOKEN_REVOKED  # This is known.
        authority.clock.advance(2)
        assert outage_of(here, mint_opaque(authority)).reason is Reason.AUTHORITY_UNREACHABLE


@pytest.mark.rule("X-63")
def test_stored_answer_does_not_admit_a_revoked_token(authority: FakeAuthority):
    store = Broken(authority.clock)
    one, two = Stage(authority, store), Stage(authority, store)
    token = mint_opaque(authority)
    one.judge(token)
    one.guard.revoke(token=token)
    assert len(store._values) == 1  # The answer.
    store.asked.clear()
    for stage in (one, two, Stage(authority, store)):
        assert refusal_reason(stage, token) is Reason.TOKEN_REVOKED
    assert "get" not in store.asked


@pytest.mark.rule("X-63")
def test_cached_answer_suffices_to_refuse_a_revoked_subject(authority: FakeAuthority):
    stage = Stage(authority)
    token = mint_opaque(authority, subject="ann")
    stage.judge(token)
    stage.guard.revoke(subject="ann")
    with authority.outage():
        assert refusal_reason(stage, token) is Reason.TOKEN_REVOKED


# -- changes of a subject


def revoke_answers(stage: Stage, subject: str) -> None:
    record_revocation(engine_of(stage.guard), Revoked.ANSWERS, stage.record.issuer.url, subject)


@pytest.mark.rule("E-16", "X-63")
@pytest.mark.parametrize("subject", ["ann", ""])
def test_answers_from_before_a_change_are_renewed_in_each_process(authority: FakeAuthority, subject: str):
    store = Broken(authority.clock)
    here, elsewhere = Stage(authority, store), Stage(authority, store)
    token, other = mint_opaque(authority, subject="ann"), mint_opaque(authority, subject="bob")
    for stage in (here, elsewhere):
        assert stage.judge(token).subject == "ann"
        assert stage.judge(other).subject == "bob"
    assert authority.transport.count("introspection") == 2
    authority.clock.advance(1)
    revoke_answers(here, subject)
    others = 0 if subject else 1
    assert here.judge(token).subject == "ann"
    assert here.judge(other).subject == "bob"
    assert authority.transport.count("introspection") == 3 + others
    assert elsewhere.judge(token).subject == "ann"  # By the answer that the other process has just stored.
    assert elsewhere.judge(other).subject == "bob"
    assert Stage(authority, store).judge(token).subject == "ann"
    assert authority.transport.count("introspection") == 3 + others


@pytest.mark.rule("E-16", "H-19")
def test_outdated_answer_is_not_used_during_an_outage(authority: FakeAuthority):
    store = Broken(authority.clock)
    here, elsewhere = Stage(authority, store), Stage(authority, store)
    token = mint_opaque(authority, subject="ann")
    here.judge(token)
    elsewhere.judge(token)
    authority.clock.advance(1)
    revoke_answers(here, "ann")
    with authority.outage():
        for stage in (here, elsewhere, Stage(authority, store)):
            assert outage_of(stage, token).reason is Reason.AUTHORITY_UNREACHABLE
    authority.clock.advance(0.001)
    assert here.judge(token).subject == "ann"


@pytest.mark.rule("E-16")
def test_answer_requested_before_a_change_is_outdated(authority: FakeAuthority):
    stage = Stage(authority, Broken(authority.clock))
    token = mint_opaque(authority, subject="ann")
    transport: Any = authority.transport
    send = transport.send

    def slow(request: Send) -> Answer:
        answer: Answer = send(request)
        if request.url == INTROSPECT:
            stage.clock.advance(0.1)
            revoke_answers(stage, "ann")
            stage.clock.advance(0.1)
        return answer

    transport.send = slow  # The change happens during the request.
    stage.judge(token)
    transport.send = send
    assert authority.transport.count("introspection") == 1
    for _ in range(2):
        stage.judge(token)
    assert authority.transport.count("introspection") == 2


@pytest.mark.rule("I-22", "E-16")
def test_change_does_not_affect_inactive_answers(authority: FakeAuthority):
    stage = Stage(authority)
    assert refusal_reason(stage, "nobody") is Reason.TOKEN_NOT_ACTIVE
    authority.clock.advance(1)
    revoke_answers(stage, "")
    assert refusal_reason(stage, "nobody") is Reason.TOKEN_NOT_ACTIVE
    assert authority.transport.count("introspection") == 1


# -- the shared revocation log


def revoke(store: MemoryStore, authority: FakeAuthority, jti: str) -> None:
    entry = Revocation(
        kind=Revoked.JTI,
        digest=digest_of(Revoked.JTI, authority.url, jti),
        at=authority.clock.wall(),
        until=authority.clock.wall() + 3600,
    )
    store.append(entry.to_bytes(), seconds=3600)


def test_log_is_read_before_the_first_token_and_each_second(authority: FakeAuthority):
    store = Broken(authority.clock)
    stage = Stage(authority, store)
    token = authority.mint("read", claims={"jti": "the-jti"})
    revoke(store, authority, "another")
    stage.judge(token)
    stage.judge(token)
    assert store.asked == ["read", "read"]  # One read returns the entry, the next finds no more.
    authority.clock.advance(1)
    revoke(store, authority, "the-jti")
    assert refusal_reason(stage, token) is Reason.TOKEN_REVOKED


def test_log_is_read_in_the_background_at_half_the_limit(authority: FakeAuthority):
    store = Broken(authority.clock)
    stage = Stage(authority, store)
    token = authority.mint("read", claims={"jti": "the-jti"})
    stage.judge(token)
    authority.clock.advance(0.5)
    revoke(store, authority, "the-jti")
    stage.judge(token)
    stage.finish()
    assert refusal_reason(stage, token) is Reason.TOKEN_REVOKED


def test_malformed_log_entry_is_ignored(authority: FakeAuthority):
    store = Broken(authority.clock)
    store.append(b"\x80\x04]nonsense", seconds=3600)
    store.append(b'{"kind": "jti", "digest": "x", "at": 1' + b"0" * 400 + b', "until": 1}', seconds=3600)
    revoke(store, authority, "the-jti")
    stage = Stage(authority, store)
    stage.judge(authority.mint("read"))
    assert refusal_reason(stage, authority.mint("read", claims={"jti": "the-jti"})) is Reason.TOKEN_REVOKED


@pytest.mark.rule("H-19")
def test_unreadable_log_is_an_outage(authority: FakeAuthority):
    store = Broken(authority.clock)
    stage = Stage(authority, store)
    token = authority.mint("read")
    stage.judge(token)
    store.down.add("read")
    authority.clock.advance(0.99)
    stage.judge(token)
    authority.clock.advance(0.01)
    assert outage_of(stage, token).reason is Reason.STORE_UNAVAILABLE
    asked = len(store.asked)
    assert outage_of(stage, token).reason is Reason.STORE_UNAVAILABLE
    assert len(store.asked) == asked  # the breaker
    store.down.clear()
    authority.clock.advance(1)
    stage.judge(token)


def test_request_that_waited_for_an_unreadable_log_is_an_outage(authority: FakeAuthority):
    stage = Stage(authority, Broken(authority.clock, "read"))
    flow = stage.flow(authority.mint("read"))
    effect = next(flow)
    while not (isinstance(effect, SingleFlight) and effect.key == "revocations"):
        assert isinstance(effect, SingleFlight)
        stage.play(effect.flow())
        effect = flow.send(None)
    assert effect.needed()
    stage.context.issuers.revocations.record_failed_sync()  # By the request that led the flight.
    assert not effect.needed()
    with pytest.raises(AuthorityUnavailable) as error:
        flow.send(None)
    assert error.value.reason is Reason.STORE_UNAVAILABLE


def test_unreadable_log_is_tolerated_if_configured(authority: FakeAuthority):
    store = Broken(authority.clock)
    stage = Stage(authority, store, policy=RevocationPolicy(fail_open_dangerously=True))
    token = authority.mint("read")
    revoke(store, authority, "the-jti")
    stage.judge(token)
    store.down.add("read")
    authority.clock.advance(3600)
    with pytest.raises(InvalidToken):
        stage.judge(authority.mint("read", claims={"jti": "the-jti"}))
    stage.judge(authority.mint("read"))


def test_revocations_need_no_store(authority: FakeAuthority):
    stage = Stage(authority)
    token = authority.mint("read", claims={"jti": "the-jti"})
    stage.judge(token)
    stage.guard.revoke(jti="the-jti")
    assert refusal_reason(stage, token) is Reason.TOKEN_REVOKED
    assert not any(isinstance(effect, UseStore) for effect in stage.effects)


@pytest.mark.rule("I-28")
def test_prefix_of_an_opaque_token_selects_its_issuer():
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    guards = [
        Guard(
            Issuer(
                one.url,
                audience=one.audience,
                validate=Validation.AUTO,
                introspection=Introspection(client_id="a", client_secret="s"),
                opaque_prefixes=("a-", "a-long-"),
            )
        ),
        Guard(
            Issuer(
                two.url,
                audience=two.audience,
                validate=Validation.AUTO,
                introspection=Introspection(client_id="a", client_secret="s"),
            )
        ),
    ]
    together = Issuers((engine_of(guard).issuers.all[0] for guard in guards), revocations=Revocations())

    def route_to_issuer(token: str) -> str:
        credential = Credential(token=token, source=TokenSource.HEADER)
        with pytest.raises(StopIteration) as stop:  # No effect is needed.
            next(choose_issuer(credential, Context(issuers=together, clock=one.clock)))
        record = stop.value.value
        assert isinstance(record, IssuerRecord)
        return record.issuer.url

    assert [route_to_issuer(token) for token in ("a-1", "a-long-1", "b-1", "a")] == [one.url, one.url, two.url, two.url]
