"""Pushed security events and their effect on tokens, through ASGI (asyncio, trio) and WSGI."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from doors import call_asgi, call_wsgi
from environment import ROOT, plain_environment
from scenarios import Answered, Exchange
from scopeguard import Guard, Introspection, Issuer, IssuerResolver, Validation
from scopeguard.config.body_limits import LARGEST_SECURITY_EVENT
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY
from scopeguard.devserver.keys import SigningKey, compact
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.guard import Denied, Granted
from scopeguard.reasons import Reason
from scopeguard.security_events import SecurityEvent, SecurityEventReceiver
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority
from storms import request_with

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
REVOKED = CAEP + "session-revoked"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
CHANGES = [CAEP + name for name in ("token-claims-change", "assurance-level-change", "credential-change")]
AUTHORIZATION = "Bearer sg-secret-of-the-stream"
GOOD = (("authorization", AUTHORIZATION), ("content-type", "application/secevent+jwt"))


@pytest.fixture(params=["wsgi", "asyncio", "trio"])
def runtime(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def send(runtime: str) -> Callable[..., Answered]:
    """Sends a request to a receiver."""

    def call(receiver: SecurityEventReceiver, body: str, headers: Any = GOOD, method: str = "POST") -> Answered:
        pairs = tuple((name.encode(), value.encode("latin-1")) for name, value in headers)
        exchange = Exchange(method=method, target="/events", headers=pairs, body=body.encode())
        if runtime == "wsgi":
            return call_wsgi(receiver.wsgi, exchange)
        return anyio.run(call_asgi, receiver.asgi, exchange, backend=runtime)

    return call


Send = Callable[..., Answered]


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_for(authority: FakeAuthority, **options: Any) -> Guard:
    introspection = Introspection(client_id="api", client_secret=authority.api.secret)
    issuer = replace(authority.issuer, validate=Validation.AUTO, introspection=introspection)
    return Guard(issuer, transport=authority.transport, clock=authority.clock, **options)


@pytest.fixture
def guard(authority: FakeAuthority):
    guard = guard_for(authority)
    yield guard
    guard.close()


@pytest.fixture
def receiver(guard: Guard) -> SecurityEventReceiver:
    return SecurityEventReceiver(guard, authorization=AUTHORIZATION)


def event(authority: FakeAuthority, type_: str = REVOKED, *, key: SigningKey | None = None, **claims: Any) -> str:
    """Return a token with one event about Ann, of just now; *claims* replace its claims, ``None`` removes one."""
    key = key or authority.key()
    content = {
        "iss": authority.url,
        "aud": authority.audience,
        "jti": "the-first",
        "iat": int(authority.clock.wall()),
        "sub_id": {"format": "iss_sub", "iss": authority.url, "sub": "ann"},
        "events": {type_: {"event_timestamp": authority.clock.wall()}},
        **claims,
    }
    header = {"typ": "secevent+jwt", "alg": key.algorithm, "kid": key.kid}
    return compact(header, {name: value for name, value in content.items() if value is not None}, key)


def is_good(guard: Guard, token: str) -> bool:
    decision = guard.check(request_with(token))
    assert isinstance(decision, Granted | Denied), decision
    return isinstance(decision, Granted)


def is_error(answer: Answered, code: str, status: int = 400) -> bool:
    assert (answer.status, answer.json["err"]) == (status, code)
    assert answer.json["description"]
    assert answer.all("content-type") == ["application/json"]
    assert answer.all("content-language") == ["en"]
    return True


@pytest.mark.rule("E-01", "E-10")
def test_a_revoked_session_ends_the_tokens_issued_until_then(
    authority: FakeAuthority, guard: Guard, receiver: SecurityEventReceiver, send: Send
):
    older = [authority.mint("read", subject="ann", token_format=kind) for kind in ("jwt", "opaque")]
    bystander = authority.mint("read", subject="bob")
    assert all(is_good(guard, token) for token in (*older, bystander))
    answer = send(receiver, event(authority))
    assert (answer.status, answer.body) == (202, b"")
    assert not any(is_good(guard, token) for token in older)
    assert is_good(guard, bystander)
    authority.clock.advance(1)
    assert is_good(guard, authority.mint("read", subject="ann"))


@pytest.mark.rule("E-11")
def test_event_without_a_time_uses_the_time_of_its_token(
    authority: FakeAuthority, guard: Guard, receiver: SecurityEventReceiver, send: Send
):
    token = authority.mint("read", subject="ann")
    authority.clock.advance(60)
    late = authority.mint("read", subject="ann")
    assert send(receiver, event(authority, iat=authority.clock.wall() - 60, events={REVOKED: {}})).status == 202
    assert (is_good(guard, token), is_good(guard, late)) == (False, True)


@pytest.mark.rule("E-02", "E-04", "E-05", "E-06", "E-07", "E-08")
@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://other.test"}, "invalid_issuer"),
        ({"aud": "https://other.test"}, "invalid_audience"),
        ({"sub": "ann"}, "invalid_request"),
        ({"exp": 4_000_000_000}, "invalid_request"),
        ({"sub_id": None}, "invalid_request"),
        ({"key": SigningKey.generate("ES256")}, "invalid_key"),
        ({"key": SigningKey.generate("ES256K")}, "invalid_key"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_a_bad_token_is_answered_with_a_code_and_has_no_effect(
    authority: FakeAuthority,
    guard: Guard,
    receiver: SecurityEventReceiver,
    send: Send,
    claims: dict[str, Any],
    code: str,
):
    token = authority.mint("read", subject="ann")
    assert is_error(send(receiver, event(authority, **claims)), code)
    assert is_good(guard, token)


@pytest.mark.rule("E-02", "E-04")
def test_body_that_is_not_a_security_event_token_is_an_invalid_request(
    authority: FakeAuthority, receiver: SecurityEventReceiver, send: Send
):
    good = event(authority)
    forged = good[:-8] + ("AAAAAAAA" if not good.endswith("AAAAAAAA") else "BBBBBBBA")
    assert is_error(send(receiver, forged), "invalid_key")
    for junk in ("", "junk", "é.é.é", authority.mint("read"), "a" * 1000):
        assert is_error(send(receiver, junk), "invalid_request")
    for kind in ("application/jwt", "application/secevent+jwtx", "text/plain"):
        headers = (GOOD[0], ("content-type", kind))
        assert is_error(send(receiver, good, headers), "invalid_request")
    assert is_error(send(receiver, good, GOOD[:1]), "invalid_request")
    assert is_error(send(receiver, "a" * (LARGEST_SECURITY_EVENT + 1)), "invalid_request", 413)
    assert is_error(send(receiver, good, method="GET"), "invalid_request", 405)
    assert send(receiver, good, (GOOD[0], ("content-type", "Application/SECEVENT+jwt; x=y"))).status == 202


@pytest.mark.rule("E-03")
@pytest.mark.parametrize(
    "given",
    [
        (),
        ("",),
        ("Bearer",),
        (AUTHORIZATION + "x",),
        (AUTHORIZATION[:-1],),
        (AUTHORIZATION.lower(),),
        ("Bearer \xe9",),
        (AUTHORIZATION, AUTHORIZATION),
    ],
    ids=lambda given: str(len("".join(given))),
)
def test_request_without_the_credential_is_refused_without_a_fetch(
    authority: FakeAuthority, receiver: SecurityEventReceiver, send: Send, given: tuple[str, ...]
):
    headers = [("authorization", value) for value in given] + [GOOD[1]]
    answer = send(receiver, event(authority), headers)
    assert is_error(answer, "authentication_failed", 401)
    assert answer.all("www-authenticate") == ['Bearer realm="security events"']
    assert authority.requests == []


def test_requests_without_the_credential_do_not_fill_the_log(
    authority: FakeAuthority, receiver: SecurityEventReceiver, send: Send, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "scopeguard"):
        for _ in range(30):
            assert send(receiver, "", GOOD[1:]).status == 401
        assert len(caplog.messages) == 10
        authority.clock.advance(10)
        send(receiver, "", GOOD[1:])
    assert len(caplog.messages) == 11
    assert "[and 20 more such requests since the last such line]" in caplog.messages[-1]


@pytest.mark.rule("E-09")
@pytest.mark.parametrize("shared", [False, True])
def test_repeated_event_is_acknowledged_and_has_one_effect(authority: FakeAuthority, send: Send, *, shared: bool):
    store = MemoryStore(authority.clock) if shared else None
    calls: list[SecurityEvent] = []
    receivers = [
        SecurityEventReceiver(guard_for(authority, store=store), authorization=AUTHORIZATION, hooks={REVOKED: add})
        for add in (calls.append, calls.append)
    ]
    body = event(authority)
    for receiver in (receivers[0], receivers[0], *(receivers[1:] if shared else ())):
        assert send(receiver, body).status == 202
    assert len(calls) == 1
    assert send(receivers[0], event(authority, jti="the-second")).status == 202
    assert len(calls) == 2


@pytest.mark.rule("E-09")
def test_event_repeated_while_it_is_handled_gets_503(authority: FakeAuthority, guard: Guard, send: Send):
    entered, leave = threading.Event(), threading.Event()
    calls: list[SecurityEvent] = []

    def hook(event: SecurityEvent) -> None:
        calls.append(event)
        entered.set()
        assert leave.wait(30)

    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION, hooks={REVOKED: hook})
    body, answers = event(authority), []
    first = threading.Thread(target=lambda: answers.append(send(receiver, body)))
    first.start()
    try:
        assert entered.wait(30)
        answer = send(receiver, body)
    finally:
        leave.set()
        first.join(30)
    assert (answer.status, answer.all("retry-after")) == (503, ["1"])
    assert [answer.status for answer in answers] == [202]
    assert send(receiver, body).status == 202
    assert len(calls) == 1


def test_event_whose_effect_failed_may_be_repeated(authority: FakeAuthority, guard: Guard, send: Send):
    results: list[Any] = [OSError("full"), None]

    async def hook(event: SecurityEvent) -> None:
        result = results.pop(0)
        if result is not None:
            raise result

    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION, hooks={REVOKED: hook})
    with pytest.raises(OSError, match="full"):
        send(receiver, event(authority))
    assert send(receiver, event(authority)).status == 202
    assert results == []


class Broken(MemoryStore):
    broken = True

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        if self.broken:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=7)
        super().append(entry, seconds=seconds)


@pytest.mark.rule("E-15")
def test_revocations_are_shared_and_a_failing_store_is_503(authority: FakeAuthority, send: Send):
    store = Broken(authority.clock)
    receiver = SecurityEventReceiver(guard_for(authority, store=store), authorization=AUTHORIZATION)
    token = authority.mint("read", subject="ann")
    answer = send(receiver, event(authority))
    assert (answer.status, answer.all("retry-after"), answer.body) == (503, ["7"], b"")
    store.broken = False
    assert send(receiver, event(authority)).status == 202
    assert not is_good(guard_for(authority, store=store), token)  # A worker that starts now.


def test_missing_keys_of_the_transmitter_are_503(
    authority: FakeAuthority, guard: Guard, receiver: SecurityEventReceiver, send: Send
):
    body = event(authority)
    with authority.outage():
        answer = send(receiver, body)
    assert answer.status == 503
    assert answer.all("retry-after")
    authority.clock.advance(60)
    assert send(receiver, body).status == 202


@pytest.mark.rule("E-12", "E-17")
def test_events_about_others_and_with_critical_members_have_no_effect(
    authority: FakeAuthority, guard: Guard, send: Send
):
    calls: list[SecurityEvent] = []
    receiver = SecurityEventReceiver(
        guard,
        authorization=AUTHORIZATION,
        hooks={REVOKED: calls.append},
        critical_subject_members=["session"],
    )
    token = authority.mint("read", subject="ann")
    user = {"format": "iss_sub", "iss": authority.url, "sub": "ann"}
    for number, subject in enumerate(
        (
            {**user, "iss": "https://other.test"},
            {"format": "complex", "user": user, "session": {"format": "opaque", "id": "s"}},
        )
    ):
        assert send(receiver, event(authority, jti=str(number), sub_id=subject)).status == 202
    assert is_good(guard, token)
    assert calls == []
    device = {"format": "opaque", "id": "d"}
    answer = send(receiver, event(authority, sub_id={"format": "complex", "user": user, "device": device}))
    assert answer.status == 202
    assert not is_good(guard, token)


def test_event_with_another_kind_of_subject_is_left_to_the_hook(
    authority: FakeAuthority, guard: Guard, send: Send, caplog: pytest.LogCaptureFixture
):
    calls: list[SecurityEvent] = []
    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION, hooks={REVOKED: calls.append})
    with caplog.at_level(logging.WARNING, "scopeguard"):
        assert send(receiver, event(authority, sub_id={"format": "email", "email": "ann@x.test"})).status == 202
    assert [dict(call.sub_id) for call in calls] == [{"format": "email", "email": "ann@x.test"}]
    assert "nothing is revoked" in caplog.text
    assert "ann@" not in caplog.text


@pytest.mark.rule("E-13", "E-18")
@pytest.mark.parametrize("type_", [VERIFICATION, "https://x.test/event"])
def test_verification_and_unknown_events_are_acknowledged(
    authority: FakeAuthority, guard: Guard, receiver: SecurityEventReceiver, send: Send, type_: str
):
    tokens = [authority.mint("read", subject="ann", token_format=kind) for kind in ("jwt", "opaque")]
    assert all(is_good(guard, token) for token in tokens)
    asked = len(authority.requests)
    stream = {"format": "opaque", "id": "ann"}
    answer = send(receiver, event(authority, sub_id=stream, events={type_: {"state": "x", "event_timestamp": "?"}}))
    assert (answer.status, answer.body) == (202, b"")
    assert all(is_good(guard, token) for token in tokens)
    assert len(authority.requests) == asked


@pytest.mark.rule("E-14")
def test_security_event_token_is_not_accepted_as_an_access_token(authority: FakeAuthority, guard: Guard):
    assert not is_good(guard, event(authority))
    more: dict[str, Any] = {"sub": "ann", "client_id": "app", "scope": "read", "exp": authority.clock.wall() + 60}
    assert not is_good(guard, event(authority, **more))


@pytest.mark.rule("E-16")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("type_", CHANGES)
def test_change_event_renews_introspection_and_calls_the_hook_once(
    authority: FakeAuthority, send: Send, type_: str, *, shared: bool
):
    calls: list[SecurityEvent] = []
    guard = guard_for(authority, store=MemoryStore(authority.clock) if shared else None)
    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION, hooks={type_: calls.append})
    token = authority.mint("read", subject="ann", token_format="opaque")
    for _ in range(2):
        assert is_good(guard, token)
    assert authority.transport.count("introspection") == 1
    authority.clock.advance(1)
    assert send(receiver, event(authority, type_)).status == 202
    assert [call.type for call in calls] == [type_]
    for _ in range(2):
        assert is_good(guard, token)
    assert authority.transport.count("introspection") == 2
    without_hook = SecurityEventReceiver(guard, authorization=AUTHORIZATION)
    authority.clock.advance(1)
    assert send(without_hook, event(authority, type_, jti="the-second")).status == 202
    assert is_good(guard, token)
    assert authority.transport.count("introspection") == 3


@pytest.mark.rule("E-16")
@pytest.mark.parametrize("type_", CHANGES)
def test_change_applies_in_each_process_with_the_store_and_only_to_its_user(
    authority: FakeAuthority, send: Send, type_: str
):
    store = MemoryStore(authority.clock)
    here, elsewhere = (guard_for(authority, store=store) for _ in range(2))
    receiver = SecurityEventReceiver(here, authorization=AUTHORIZATION)
    token, other = (authority.mint("read", subject=name, token_format="opaque") for name in ("ann", "bob"))
    for guard in (here, elsewhere):
        assert is_good(guard, token)
        assert is_good(guard, other)
    assert authority.transport.count("introspection") == 2
    authority.clock.advance(1)
    assert send(receiver, event(authority, type_)).status == 202
    authority.revoke(token)  # As after the session was ended at the authorization server.
    authority.revoke(other)
    assert not is_good(elsewhere, token)
    assert not is_good(here, token)
    assert is_good(elsewhere, other)
    assert is_good(here, other)
    assert authority.transport.count("introspection") == 3
    device = {"format": "opaque", "id": "d"}
    authority.clock.advance(1)
    about_a_device = event(authority, type_, jti="the-second", sub_id={"format": "complex", "device": device})
    assert send(receiver, about_a_device).status == 202
    assert not is_good(elsewhere, other)


def test_change_that_the_store_refuses_is_503(authority: FakeAuthority, send: Send):
    store = Broken(authority.clock)
    guard = guard_for(authority, store=store)
    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION)
    assert send(receiver, event(authority, CHANGES[0])).status == 503
    store.broken = False
    assert send(receiver, event(authority, CHANGES[0])).status == 202
    assert len(store._log) == 1


@pytest.mark.rule("E-10", "E-17")
@pytest.mark.parametrize("held", [True, False])
def test_issuer_may_be_found_by_a_resolver(authority: FakeAuthority, send: Send, *, held: bool):
    answers: list[Issuer | None] = [authority.issuer]
    guard = Guard(
        Issuer("https://other.test", audience="x"),
        resolver=IssuerResolver(accepts=lambda name: name == authority.url, resolve=lambda name: answers[-1]),
        transport=authority.transport,
        clock=authority.clock,
    )
    with pytest.raises(ConfigurationError, match="issuer"):
        SecurityEventReceiver(guard, authorization=AUTHORIZATION, issuer=authority.url)
    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION, issuer=authority.issuer)
    token, other = authority.mint("read", subject="ann"), authority.mint("read", subject="bob")
    if held:
        assert is_good(guard, token)
    answers.append(None)  # An event causes no look-up.
    assert send(receiver, event(authority)).status == 202
    answers.pop()
    assert not is_good(guard, token)
    assert is_good(guard, other)


def test_change_has_no_effect_without_introspection(authority: FakeAuthority, send: Send):
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION)
    assert send(receiver, event(authority, CHANGES[0])).status == 202


@pytest.mark.rule("E-07", "E-08", "E-17")
def test_separate_transmitter_sends_events_about_the_issuer_but_signs_no_access_tokens(
    authority: FakeAuthority, send: Send
):
    guard = Guard(
        authority.issuer,
        Issuer("https://other.test", audience="x"),
        transport=authority.transport,
        clock=authority.clock,
    )
    key = SigningKey.generate("ES256")
    receiver = SecurityEventReceiver(
        guard,
        authorization=AUTHORIZATION,
        issuer=authority.url,
        transmitter=Issuer("https://ssf.test", audience="receiver", keys={"keys": [key.public_jwk()]}),
    )
    token = authority.mint("read", subject="ann")
    theirs: dict[str, Any] = {"iss": "https://ssf.test", "aud": "receiver"}
    assert is_error(send(receiver, event(authority, **theirs)), "invalid_key")
    assert is_error(send(receiver, event(authority)), "invalid_issuer")
    assert is_good(guard, token)
    assert send(receiver, event(authority, key=key, **theirs)).status == 202
    assert not is_good(guard, token)
    assert not is_good(guard, authority.mint("read", key=key, claims={"iss": "https://ssf.test"}))


def test_audience_can_be_configured(authority: FakeAuthority, guard: Guard, send: Send):
    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION, audience=["receiver"])
    assert is_error(send(receiver, event(authority)), "invalid_audience")
    assert send(receiver, event(authority, aud=["other", "receiver"])).status == 202


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"authorization": ""}, "authorization"),
        ({"authorization": None}, "authorization"),
        ({"authorization": "Bearer "}, "authorization"),
        ({"authorization": "sg-secret-alone"}, "authorization"),
        ({"authorization": "Bearer sg-secret-\n"}, "authorization"),
        ({"issuer": "https://other.test"}, "issuer"),
        ({"audience": []}, "audience"),
        ({"audience": "x", "transmitter": Issuer("https://ssf.test", audience="x")}, "transmitter"),
        (
            {
                "transmitter": Issuer(
                    "https://ssf.test", audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"a": ["b"]}
                )
            },
            "audience",
        ),
        ({"hooks": [print]}, "hooks"),
        ({"critical_subject_members": 1}, "critical_subject_members"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_settings_are_refused_at_construction(guard: Guard, options: dict[str, Any], setting: str):
    with pytest.raises(ConfigurationError, match=setting) as caught:
        SecurityEventReceiver(guard, **{"authorization": AUTHORIZATION, **options})
    assert "sg-secret" not in str(caught.value)


def test_issuer_is_required_with_several_issuers(authority: FakeAuthority):
    guard = Guard(authority.issuer, Issuer("https://other.test", audience="x"))
    with pytest.raises(ConfigurationError, match="issuer"):
        SecurityEventReceiver(guard, authorization=AUTHORIZATION)


def test_receiver_can_be_a_starlette_route(authority: FakeAuthority, receiver: SecurityEventReceiver):
    client = TestClient(Starlette(routes=[Route("/events", receiver.asgi)]))
    assert client.post("/events", content=event(authority), headers=dict(GOOD)).status_code == 202
    assert client.get("/events").status_code == 405


@pytest.mark.anyio
async def test_receiver_accepts_only_http(receiver: SecurityEventReceiver):
    not_reached: Any = None
    with pytest.raises(RuntimeError, match="HTTP only"):
        await receiver.asgi({"type": "lifespan"}, not_reached, not_reached)


def test_example_prints_the_expected_output(no_leaks: Callable[[str], None]):
    done = subprocess.run(
        [sys.executable, "-W", "error", "examples/security_events.py"],
        cwd=ROOT,
        env=plain_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    no_leaks(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "200 before the event",
        "401 event pushed with a wrong credential",
        "202 event pushed: session-revoked",
        "401 after the event",
        "202 event pushed again",
    ]


def test_a_problem_is_json(authority: FakeAuthority, receiver: SecurityEventReceiver, send: Send):
    """It does not repeat the request."""
    answer = send(receiver, event(authority, iss="https://secret-name.test"))
    assert set(json.loads(answer.body)) == {"err", "description"}
    assert b"secret-name" not in answer.body


@pytest.mark.rule("E-10")
@pytest.mark.parametrize("apart", [False, True])
def test_clock_of_a_separate_transmitter_may_be_behind_that_of_the_issuer(
    authority: FakeAuthority, guard: Guard, send: Send, *, apart: bool
):
    """With one clock, a token with a later time was issued after the event; with two it may have been issued before."""
    key = SigningKey.generate("ES256")
    theirs: dict[str, Any] = {"iss": "https://ssf.test", "key": key} if apart else {}
    transmitter = Issuer("https://ssf.test", audience=authority.audience, keys={"keys": [key.public_jwk()]})
    receiver = SecurityEventReceiver(guard, authorization=AUTHORIZATION, transmitter=transmitter if apart else None)
    ahead = authority.mint("read", subject="ann", claims={"iat": int(authority.clock.wall()) + 20})
    assert is_good(guard, ahead)
    assert send(receiver, event(authority, **theirs)).status == 202
    assert is_good(guard, ahead) is not apart
