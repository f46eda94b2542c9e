"""Introspection through the guard with faults of every kind: in threads, on asyncio and on trio.

An outage of any form is a 503 with Retry-After and no challenge; a refusal is a 401; an answer is used for its
lifetime and no longer.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from loopback import Loopback, answer_with, response
from scopeguard import Guard, Issuer
from scopeguard.config.introspection import Introspection
from scopeguard.config.validation import Validation
from scopeguard.devserver.keys import SigningKey, base64url, compact
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import Decision, Denied, Granted, Unavailable, engine_of
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.scopes import all_of
from scopeguard.spec.client_authentication import Proof
from scopeguard.spec.introspection import request_form
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority
from scopeguard.testing.transport import Network
from storms import HERD, PATIENCE, Storm, Watched, request_with

JSON = {"content-type": "application/json"}
RUNTIMES = ("threads", "asyncio", "trio")


def introspecting_issuer(authority: FakeAuthority, **settings: Any) -> Issuer:
    """Return settings that introspect opaque tokens at *authority* and verify its JWTs locally."""
    policy = {name: settings.pop(name) for name in ("leeway", "audience", "opaque_prefixes") if name in settings}
    secret = {} if "auth" in settings else {"client_secret": authority.api.secret}
    introspection = Introspection(**{"client_id": "api", **secret, **settings})
    return replace(authority.issuer, validate=Validation.AUTO, introspection=introspection, **policy)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


NewGuard = Callable[..., Guard]


@pytest.fixture
def new_guard(authority: FakeAuthority) -> Iterator[NewGuard]:
    """``new_guard(ttl=0)``: a guard that introspects with these settings."""
    open_: list[Guard] = []

    def make(*, transport: Any = None, store: Any = None, **settings: Any) -> Guard:
        guard = Guard(
            introspecting_issuer(authority, **settings),
            transport=transport or authority.transport,
            clock=authority.clock,
            store=store,
        )
        open_.append(guard)
        return guard

    yield make
    for guard in open_:
        guard.close()


@pytest.fixture
def guard(new_guard: NewGuard) -> Guard:
    return new_guard()


Decide = Callable[..., Decision]


@pytest.fixture(params=RUNTIMES)
def decide(request: pytest.FixtureRequest) -> Decide:
    """``decide(guard, token)`` in a thread, on asyncio or on trio."""
    runtime: str = request.param

    def check(guard: Guard, token: str, *needed: str) -> Decision:
        requirement = all_of(*needed) if needed else None
        if runtime == "threads":
            return guard.check(request_with(token), requirement)
        return anyio.run(guard.acheck, request_with(token), requirement, backend=runtime)

    return check


def mint_opaque(authority: FakeAuthority, scope: str | None = "read", **options: Any) -> str:
    return authority.mint(scope, token_format="opaque", **options)


def calls(authority: FakeAuthority) -> int:
    return authority.transport.count("introspection")


def answer(**members: Any) -> Answer:
    """An active answer about a token for this API, with these changes; ``None`` removes a member."""
    content = {"active": True, "aud": "https://api.test", "sub": "alice", "scope": "read", **members}
    return Answer(200, json.dumps({k: v for k, v in content.items() if v is not None}).encode(), JSON)


def is_outage(decision: Decision, retry_after: str | None = None) -> bool:
    """Return whether *decision* is a complete 503: with Retry-After, without a challenge, and not cacheable."""
    assert isinstance(decision, Unavailable), decision
    headers = dict(decision.response.headers)
    assert decision.response.status == 503
    assert "www-authenticate" not in headers
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(decision.response.body)["status"] == 503
    assert 1 <= int(headers["retry-after"]) <= 300
    assert retry_after in (None, headers["retry-after"])
    return True


def is_refusal(decision: Decision, reason: Reason | None = None) -> bool:
    """Return whether *decision* is a 401 with ``invalid_token``."""
    assert isinstance(decision, Denied), decision
    assert decision.response.status == 401
    assert 'error="invalid_token"' in dict(decision.response.headers)["www-authenticate"]
    assert reason in (None, decision.error.reason)
    return True


# -- the fault table: metadata, keys and introspection alike

Fault = Callable[[FakeAuthority, str], AbstractContextManager[Any]]


def answer_verbatim(status: int, body: bytes = b"", **headers: str) -> Fault:
    fixed = Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return lambda authority, endpoint: authority.mode(endpoint, fixed)


def mode(name: str) -> Fault:
    return lambda authority, endpoint: authority.mode(endpoint, name)


FAULTS: dict[str, Fault] = {
    "dead": lambda authority, endpoint: authority.outage(),
    "slow": lambda authority, endpoint: authority.slow(60),
    "down": lambda authority, endpoint: authority.outage("unavailable"),
    "500": mode("server_error"),
    "502": answer_verbatim(502),
    "429": answer_verbatim(429, retry_after="17"),
    "429 for a day": answer_verbatim(429, retry_after="86400"),
    "HTML": mode("garbage"),
    "truncated": mode("truncated"),
    "10 MB": mode("oversize"),
    "bomb": mode("gzip_bomb"),
    "content type": mode("wrong_content_type"),
    "no content type": answer_verbatim(200, b'{"active": true}'),
    "redirect": mode("redirect"),
    "redirect to another host": answer_verbatim(307, location="https://evil.test/introspect"),
    "204": answer_verbatim(204, content_type="application/json"),
    "array": answer_verbatim(200, b"[]", content_type="application/json"),
    "two members": answer_verbatim(200, b'{"active": true, "active": true}', content_type="application/json"),
    "empty": answer_verbatim(200, b"", content_type="application/json"),
    "404": answer_verbatim(404),
    "403": answer_verbatim(403),
    "401": answer_verbatim(401, b'{"error": "invalid_client"}', content_type="application/json"),
    "400": answer_verbatim(400, b'{"error": "invalid_request"}', content_type="application/json"),
}
TOLD = {"429": "17", "429 for a day": "300", "down": "7"}
ENDPOINTS = ("metadata", "jwks", "introspection")


def prepare_token(authority: FakeAuthority, guard: Guard, decide: Decide, endpoint: str) -> str:
    """Return a token whose check starts with a request to *endpoint*; all earlier answers are cached."""
    if endpoint != "metadata":
        assert isinstance(decide(guard, mint_opaque(authority)), Granted)
    return authority.mint("read") if endpoint == "jwks" else mint_opaque(authority)


@pytest.mark.rule("I-17", "I-18", "I-19", "I-20", "H-19")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_an_outage_that_ends_with_the_fault(
    authority: FakeAuthority, guard: Guard, decide: Decide, fault: str, endpoint: str
):
    token = prepare_token(authority, guard, decide, endpoint)
    authority.transport.sends.clear()
    with FAULTS[fault](authority, endpoint):
        assert is_outage(decide(guard, token), TOLD.get(fault))
        asked = len(authority.requests)
        assert authority.transport.count(endpoint) == asked  # No other host was called: no redirect was followed.
        assert asked <= (3 if endpoint == "metadata" else 1)
        assert is_outage(decide(guard, token))
    authority.clock.advance(301)
    assert isinstance(decide(guard, token), Granted)


@pytest.mark.rule("I-18", "I-22", "H-19")
@pytest.mark.parametrize("fault", FAULTS)
def test_cached_answer_bridges_each_fault_for_its_ttl_only(
    authority: FakeAuthority, guard: Guard, decide: Decide, fault: str
):
    good, bad = mint_opaque(authority), "sg-opaque-nobody"
    assert isinstance(decide(guard, good), Granted)
    assert is_refusal(decide(guard, bad))
    with FAULTS[fault](authority, "introspection"):
        authority.clock.advance(9.9)
        assert is_refusal(decide(guard, bad))
        assert isinstance(decide(guard, good), Granted)
        authority.clock.advance(50)
        assert isinstance(decide(guard, good), Granted)
        authority.clock.advance(0.2)
        for _ in range(5):
            assert is_outage(decide(guard, good))
            assert is_outage(decide(guard, bad))
            authority.clock.advance(31)
    authority.clock.advance(31)
    assert isinstance(decide(guard, good), Granted)
    assert is_refusal(decide(guard, bad))


@pytest.mark.rule("I-23")
def test_outage_is_not_cached_as_an_answer(authority: FakeAuthority, guard: Guard, decide: Decide):
    token = mint_opaque(authority)
    with authority.outage():
        assert is_outage(decide(guard, token))
    authority.clock.advance(0.001)
    assert isinstance(decide(guard, token), Granted)


def test_flapping_authority_causes_no_refusal_and_no_outdated_grant(
    authority: FakeAuthority, guard: Guard, decide: Decide
):
    token, seen = mint_opaque(authority, expires_in=86400), set()
    for number in range(40):
        fault = list(FAULTS.values())[number % len(FAULTS)]
        with fault(authority, "introspection"):
            authority.clock.advance(61)  # The cached answers have expired.
            assert is_outage(decide(guard, token))
        authority.clock.advance(30)
        decision = decide(guard, token)
        seen.add(type(decision))
        assert isinstance(decision, Granted | Unavailable)
    assert Granted in seen


@pytest.mark.rule("I-17")
@pytest.mark.parametrize(
    ("status", "hint"), [(400, 'validate = "auto"'), (401, "check client_id"), (403, "not allowed to introspect")]
)
def test_refusal_of_the_credentials_of_the_api_is_logged(
    authority: FakeAuthority, guard: Guard, caplog: pytest.LogCaptureFixture, status: int, hint: str
):
    with authority.mode("introspection", Answer(status, b"{}", JSON)), caplog.at_level(logging.WARNING):
        assert is_outage(guard.check(request_with(mint_opaque(authority))))
    assert hint in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_log_identifies_a_token_by_its_fingerprint_only(
    authority: FakeAuthority, guard: Guard, decide: Decide, caplog: pytest.LogCaptureFixture, fault: str
):
    token = mint_opaque(authority)
    with FAULTS[fault](authority, "introspection"), caplog.at_level(logging.DEBUG):
        assert is_outage(decide(guard, token))
    assert fingerprint(token) in caplog.text
    assert re.findall("[0-9a-f]{13,}", caplog.text) == []


# -- active answers that must be refused

LIES: dict[str, tuple[dict[str, Any], Reason]] = {
    "active false": ({"active": False}, Reason.TOKEN_NOT_ACTIVE),
    "active 'false'": ({"active": "false"}, Reason.TOKEN_NOT_ACTIVE),
    "active 'true'": ({"active": "true"}, Reason.TOKEN_NOT_ACTIVE),
    "active 1": ({"active": 1}, Reason.TOKEN_NOT_ACTIVE),
    "active missing": ({"active": None}, Reason.TOKEN_NOT_ACTIVE),
    "wrong aud": ({"aud": "https://other.test"}, Reason.WRONG_AUDIENCE),
    "no aud": ({"aud": None}, Reason.MISSING_CLAIM),
    "wrong iss": ({"iss": "https://as.test/"}, Reason.UNKNOWN_ISSUER),
    "expired": ({"exp": 1}, Reason.TOKEN_EXPIRED),
    "not yet": ({"nbf": 2**40}, Reason.TOKEN_NOT_YET_VALID),
    "exp is text": ({"exp": "4102444800"}, Reason.MALFORMED_CLAIM),
    "exp is huge": ({"exp": 10**400}, Reason.MALFORMED_CLAIM),
    "refresh token": ({"token_type": "refresh_token"}, Reason.NOT_AN_ACCESS_TOKEN),
    "refresh token in use": ({"token_use": ["refresh_token"]}, Reason.NOT_AN_ACCESS_TOKEN),
    "DPoP": ({"token_type": "DPoP"}, Reason.SENDER_CONSTRAINT_UNPROVEN),
    "dpop, in small letters": ({"token_type": "dpop"}, Reason.SENDER_CONSTRAINT_UNPROVEN),
    "DPoP and bound": ({"token_type": "DPoP", "cnf": {"jkt": "x"}}, Reason.SENDER_CONSTRAINT_UNPROVEN),
    "another type and bound": ({"token_type": "pop", "cnf": {"jwk": {}}}, Reason.SENDER_CONSTRAINT_UNPROVEN),
    "ID token": ({"typ": "ID"}, Reason.NOT_AN_ACCESS_TOKEN),
    "logout token": ({"events": {}}, Reason.NOT_AN_ACCESS_TOKEN),
    "bound": ({"cnf": {"jkt": "x"}}, Reason.SENDER_CONSTRAINT_UNPROVEN),
    "scope is a number": ({"scope": 7}, Reason.MALFORMED_SCOPE),
}


@pytest.mark.rule("I-08", "I-09", "I-10", "I-11", "I-12", "I-13", "I-14", "I-15", "X-49", "X-65")
@pytest.mark.parametrize("lie", LIES)
def test_active_answer_is_checked_when_received_and_when_cached(
    authority: FakeAuthority, guard: Guard, decide: Decide, lie: str
):
    members, reason = LIES[lie]
    with authority.mode("introspection", answer(**members)):
        assert is_refusal(decide(guard, "sg-opaque-t"), reason)
        assert is_refusal(decide(guard, "sg-opaque-t"))
    assert calls(authority) == 1


# -- the request, as the server receives it


@pytest.mark.rule("I-01", "I-02", "I-05", "I-27")
def test_request_is_a_form_post_with_credentials_in_one_place():
    body = b'{"active": true, "aud": "https://api.test", "scope": "read"}'
    with Loopback(answer_with(response(body))) as server:
        endpoint = server.url + "/introspect"
        transport = HttpxTransport()
        transport.send(Send(url=endpoint, authority="a", form=request_form("a+b=~", Proof(), "access_token")))
        for settings in (
            {"client_secret": "p%+s"},
            {"client_secret": "p%+s", "auth": "client_secret_post", "token_type_hint": None},
        ):
            guard = Guard(
                Issuer(
                    server.url,
                    audience="https://api.test",
                    validate=Validation.INTROSPECTION,
                    introspection=Introspection(client_id="a:b", endpoint=endpoint, **settings),
                )
            )
            assert isinstance(guard.check(request_with("a+b~=")), Granted)
            guard.close()
        transport.close()
        plain, basic, post = (request.partition(b"\r\n\r\n") for request in server.requests)
    assert all(head.startswith(b"POST /introspect HTTP/1.1\r\n") for head, _, _ in (plain, basic, post))
    assert all(b"application/x-www-form-urlencoded" in head for head, _, _ in (plain, basic, post))
    assert plain[2] == b"token=a%2Bb%3D~&token_type_hint=access_token"
    assert basic[2] == b"token=a%2Bb~%3D&token_type_hint=access_token"
    assert b"authorization: basic " in basic[0].lower()
    assert post[2] == b"token=a%2Bb~%3D&client_id=a%3Ab&client_secret=p%25%2Bs"
    assert b"authorization:" not in post[0].lower()


@pytest.mark.rule("I-05", "I-27")
@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post"])
def test_both_secret_methods_authenticate_at_a_server(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide, auth: str
):
    guard = new_guard(auth=auth, client_secret=authority.api.secret)
    assert isinstance(decide(guard, mint_opaque(authority)), Granted)
    sent = [send for send in authority.transport.sends if send.url.endswith("/introspect")]
    assert all(send.form is not None and authority.api.secret not in send.url for send in sent)


def test_a_wrong_secret_is_an_outage(authority: FakeAuthority, new_guard: NewGuard, decide: Decide):
    guard = new_guard(auth="client_secret_basic", client_secret="sg-secret-wrong")
    assert is_outage(decide(guard, mint_opaque(authority)))


@pytest.mark.rule("I-32", "I-33", "I-35")
def test_each_call_uses_a_new_assertion(authority: FakeAuthority, new_guard: NewGuard):
    key = SigningKey.generate("ES256", kid="k")
    guard = new_guard(
        auth="private_key_jwt",
        private_key=key.private_jwk(),
        key_algorithm="ES256",
        key_id="k",
        endpoint="https://as.test/introspect",
    )
    with authority.mode("introspection", answer()):
        for token in ("one", "two"):
            assert isinstance(guard.check(request_with(token)), Granted)
    claims = []
    for send in authority.transport.sends:
        assertion = dict(send.form or ())["client_assertion"]
        claims.append(json.loads(_decode(assertion.split(".")[1])))
        assert send.authorization is None
    assert [one["aud"] for one in claims] == [authority.url, authority.url]
    assert claims[0]["jti"] != claims[1]["jti"]


def _decode(segment: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@pytest.mark.rule("I-36", "I-37")
def test_endpoint_and_method_follow_the_metadata(authority: FakeAuthority, new_guard: NewGuard):
    document = {
        **authority.authority.metadata(),
        "introspection_endpoint_auth_methods_supported": ["tls_client_auth"],
        "mtls_endpoint_aliases": {"introspection_endpoint": "https://mtls.as.test/introspect"},
    }
    with authority.mode("metadata", Answer(200, json.dumps(document).encode(), JSON)):
        mtls = new_guard(auth="tls_client_auth")
        assert is_outage(mtls.check(request_with("t")))  # No server is listening there.
        assert authority.requests[-1] == "https://mtls.as.test/introspect"
        asked = len(authority.requests)
        assert is_outage(new_guard().check(request_with("t")))
        assert "https://as.test/introspect" not in authority.requests[asked:]


# -- the choice of the authority


@pytest.mark.rule("I-29")
def test_token_of_an_unknown_issuer_is_not_introspected(authority: FakeAuthority, guard: Guard, decide: Decide):
    for token in (
        authority.mint("read", claims={"iss": "https://evil.test"}),
        authority.mint("read", claims={"iss": None}),
        authority.mint("read", expires_in=-60),
        "eyJ.x.y",
    ):
        assert is_refusal(decide(guard, token))
    assert authority.requests == []


@pytest.mark.rule("I-28")
def test_opaque_token_is_introspected_only_at_its_authority(decide: Decide):
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    with pytest.raises(ConfigurationError, match="opaque_prefixes"):
        Guard(introspecting_issuer(one), introspecting_issuer(two))
    with pytest.raises(ConfigurationError, match="opaque_prefixes"):
        Guard(introspecting_issuer(one, opaque_prefixes=("x",)), introspecting_issuer(two, opaque_prefixes=("x",)))
    guard = Guard(
        introspecting_issuer(one, opaque_prefixes=("sg-opaque-",)),
        introspecting_issuer(two),
        transport=Network(one, two),
        clock=one.clock,
    )
    assert isinstance(decide(guard, mint_opaque(one)), Granted)
    assert two.requests == []
    asked = len(one.requests)
    assert is_refusal(decide(guard, "another-token"))
    assert calls(two) == 1
    assert len(one.requests) == asked
    guard.close()


@pytest.mark.rule("I-43")
def test_signed_answer_is_not_accepted_as_an_access_token(authority: FakeAuthority, guard: Guard, decide: Decide):
    answer_about_a_token = {"aud": authority.audience, "token_introspection": {"active": True}}
    token = authority.mint("read", headers={"typ": "token-introspection+jwt"}, claims=answer_about_a_token)
    assert is_refusal(decide(guard, token), Reason.TYPE_REFUSED)
    assert authority.requests == []


# -- the lifetime of an answer


@pytest.mark.rule("I-22", "X-63")
def test_revocation_at_the_authority_takes_effect_after_the_ttl(authority: FakeAuthority, guard: Guard, decide: Decide):
    token = mint_opaque(authority)
    assert isinstance(decide(guard, token), Granted)
    authority.revoke(token)
    authority.clock.advance(59.9)
    assert isinstance(decide(guard, token), Granted)
    authority.clock.advance(0.1)
    assert is_refusal(decide(guard, token), Reason.TOKEN_NOT_ACTIVE)
    assert calls(authority) == 2


@pytest.mark.rule("I-22")
def test_ttl_of_zero_introspects_each_time(authority: FakeAuthority, new_guard: NewGuard, decide: Decide):
    guard = new_guard(ttl=0, store=MemoryStore(authority.clock))
    token = mint_opaque(authority)
    for number in range(1, 5):
        assert isinstance(decide(guard, token), Granted)
        assert calls(authority) == number
    authority.revoke(token)
    assert is_refusal(decide(guard, token))


@pytest.mark.rule("I-21")
def test_answer_is_not_used_after_the_expiry_of_the_token(authority: FakeAuthority, guard: Guard, decide: Decide):
    token = mint_opaque(authority, expires_in=5)
    assert isinstance(decide(guard, token), Granted)
    authority.clock.advance(4.9)
    assert isinstance(decide(guard, token), Granted)
    authority.clock.advance(0.1)
    assert is_refusal(decide(guard, token))
    assert calls(authority) == 2


@pytest.mark.rule("I-21")
def test_expired_token_within_the_leeway_is_introspected_each_time(
    authority: FakeAuthority, guard: Guard, decide: Decide
):
    """The clock of the authority may be behind that of the guard. Then "active" counts for this request."""
    with authority.mode("introspection", answer(exp=authority.clock.wall() - 1)):
        assert isinstance(decide(guard, "t"), Granted)
        assert isinstance(decide(guard, "t"), Granted)
    assert calls(authority) == 2
    with authority.mode("introspection", answer(active=False)):
        assert is_refusal(decide(guard, "t"), Reason.TOKEN_NOT_ACTIVE)


@pytest.mark.rule("I-10", "I-21", "X-65", "X-66")
def test_expiry_is_checked_by_the_wall_clock_on_each_hit(authority: FakeAuthority, guard: Guard, decide: Decide):
    token = mint_opaque(authority, expires_in=100)
    assert isinstance(decide(guard, token), Granted)
    start = authority.clock.wall()
    authority.clock.set_wall(start + 131)  # No time has passed for the cache.
    assert is_refusal(decide(guard, token), Reason.TOKEN_EXPIRED)
    authority.clock.set_wall(start - 3600)
    assert is_refusal(decide(guard, token), Reason.TOKEN_ISSUED_IN_FUTURE)
    authority.clock.set_wall(start)
    assert isinstance(decide(guard, token), Granted)
    assert calls(authority) == 1


@pytest.mark.rule("X-65", "X-63")
def test_cache_keeps_answers_not_decisions(authority: FakeAuthority, guard: Guard, decide: Decide):
    token = mint_opaque(authority, "read")
    for _ in range(2):
        assert isinstance(decide(guard, token, "read"), Granted)
        refusal = decide(guard, token, "write")
        assert isinstance(refusal, Denied)
        assert refusal.response.status == 403
    assert calls(authority) == 1
    guard.revoke(token=token)
    assert is_refusal(decide(guard, token), Reason.TOKEN_REVOKED)


@pytest.mark.rule("I-30", "G-17", "X-64")
def test_app_cannot_change_the_claims_of_later_requests(authority: FakeAuthority, guard: Guard, decide: Decide):
    details = [{"type": "payment", "actions": ["pay"]}]
    token = mint_opaque(authority, claims={"foo": 1, "authorization_details": details})
    first = decide(guard, token)
    assert isinstance(first, Granted)
    claims: Any = first.access_token.claims
    assert claims["foo"] == 1
    assert claims["authorization_details"][0]["actions"] == ("pay",)
    with pytest.raises(TypeError):
        claims["foo"] = 2
    with pytest.raises(TypeError):
        claims["authorization_details"][0]["type"] = "refund"
    assert decide(guard, token) == first


@pytest.mark.rule("X-62")
def test_token_introspected_too_early_is_accepted_ten_seconds_later(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide
):
    """The delay is not doubled if another guard takes the answer from the store just before it expires."""
    store = MemoryStore(authority.clock)
    one, two = new_guard(store=store), new_guard(store=store)
    assert is_refusal(decide(one, "sg-opaque-early"))
    authority.clock.advance(9)
    assert is_refusal(decide(two, "sg-opaque-early"))
    claims = {"aud": authority.audience, "exp": authority.clock.wall() + 60, "client_id": "c"}
    authority.authority.tokens.add("sg-opaque-early", claims, authority.clock.wall())
    authority.clock.advance(1)
    assert isinstance(decide(two, "sg-opaque-early"), Granted)
    assert isinstance(decide(one, "sg-opaque-early"), Granted)
    assert calls(authority) == 2


@pytest.mark.rule("I-23")
def test_flood_of_forged_tokens_evicts_no_active_answer(authority: FakeAuthority, new_guard: NewGuard):
    guard = new_guard(max_entries=10)
    good = [mint_opaque(authority) for _ in range(10)]
    assert all(isinstance(guard.check(request_with(token)), Granted) for token in good)
    for number in range(200):
        assert is_refusal(guard.check(request_with(f"sg-opaque-{number}")))
    asked = calls(authority)
    with authority.outage():
        assert all(isinstance(guard.check(request_with(token)), Granted) for token in good)
    assert calls(authority) == asked
    record = engine_of(guard).issuers.all[0]
    assert record.introspection is not None
    assert len(record.introspection.cache) == 20


# -- sharing


@pytest.mark.rule("I-24", "I-26")
def test_only_guards_with_equal_configuration_share_answers(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide
):
    store = MemoryStore(authority.clock)
    token = mint_opaque(authority, audience=[authority.audience, "https://second.test"])
    assert isinstance(decide(new_guard(store=store), token), Granted)
    assert isinstance(decide(new_guard(store=store), token), Granted)
    assert calls(authority) == 1
    assert isinstance(decide(new_guard(store=store, audience="https://second.test"), token), Granted)
    assert calls(authority) == 2
    assert is_outage(decide(new_guard(store=store, client_id="other"), token))
    kept = repr(vars(store)).encode()
    assert token.encode() not in kept
    assert authority.api.secret.encode() not in kept


@pytest.mark.rule("I-42", "I-26")
def test_guard_that_requires_signed_answers_ignores_unsigned_stored_ones(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide
):
    store = MemoryStore(authority.clock)
    token = mint_opaque(authority)
    assert isinstance(decide(new_guard(store=store), token), Granted)
    assert is_outage(decide(new_guard(store=store, signed=True), token))


@pytest.mark.rule("X-68")
def test_malformed_store_values_are_ignored(authority: FakeAuthority, new_guard: NewGuard, decide: Decide):
    class Nonsense(MemoryStore):
        def get(self, key: str, /) -> bytes | None:
            return b"\x80\x04]."

    guard = new_guard(store=Nonsense(authority.clock))
    assert isinstance(decide(guard, mint_opaque(authority)), Granted)
    assert calls(authority) == 1


# -- herds


@pytest.fixture(params=[*RUNTIMES, "mixed"])
def storm(request: pytest.FixtureRequest, guard: Guard) -> Storm:
    return Storm(request.param, guard)


@pytest.mark.rule("I-25", "H-20")
@pytest.mark.parametrize("kind", ["active", "inactive"])
def test_two_hundred_concurrent_requests_for_one_token_cause_one_call(
    storm: Storm, authority: FakeAuthority, kind: str
):
    token = mint_opaque(authority)
    if kind == "inactive":
        authority.revoke(token)
    with authority.hold() as held:
        storm.start([token] * HERD)
        storm.crowd(HERD)
        held.release()
        assert storm.end() == {"Granted" if kind == "active" else "Denied": HERD}
    assert calls(authority) == 1
    assert storm.run([token] * HERD) == {"Granted" if kind == "active" else "Denied": HERD}
    assert calls(authority) == 1


@pytest.mark.rule("I-18", "I-25", "H-19")
def test_two_hundred_concurrent_requests_in_an_outage_cause_one_call_and_get_503(
    storm: Storm, authority: FakeAuthority
):
    token = mint_opaque(authority)
    assert storm.run([mint_opaque(authority)]) == {"Granted": 1}
    asked = calls(authority)
    with authority.outage(), authority.hold() as held:
        storm.decisions.clear()
        storm.crowd(1)
        storm.start([token] * HERD)
        storm.crowd(HERD)
        held.release()
        assert storm.end() == {"Unavailable": HERD}
    assert calls(authority) == asked + 1


class Gate:
    """A transport to an authority that holds the request for one token back until its gate is opened."""

    def __init__(self, authority: FakeAuthority, token: str) -> None:
        self._authority = authority
        self._token = token
        self.open = threading.Event()
        self.arrived = threading.Event()

    def send(self, request: Send, /) -> Answer:
        if request.form is not None and ("token", self._token) in request.form:
            self.arrived.set()
            assert self.open.wait(PATIENCE)
        return self._authority.transport.send(request)

    def close(self) -> None:
        pass


@pytest.mark.rule("I-25")
@pytest.mark.parametrize("runtime", [*RUNTIMES, "mixed"])
def test_tokens_do_not_wait_for_each_other(authority: FakeAuthority, new_guard: NewGuard, runtime: str):
    slow, gate = mint_opaque(authority), None
    gate = Gate(authority, slow)
    guard = new_guard(transport=gate)
    guard.check(request_with(mint_opaque(authority)))
    waiting = Storm("threads", guard)
    waiting.start([slow])
    assert gate.arrived.wait(PATIENCE)
    assert Storm(runtime, guard).run([mint_opaque(authority) for _ in range(40)]) == {"Granted": 40}
    assert waiting.count_decisions() == {}
    gate.open.set()
    assert waiting.end() == {"Granted": 1}


@pytest.mark.rule("I-22", "I-25")
@pytest.mark.parametrize("runtime", [*RUNTIMES, "mixed"])
def test_ttl_of_zero_shares_no_answer_between_requests(authority: FakeAuthority, new_guard: NewGuard, runtime: str):
    guard = new_guard(ttl=0)
    token = mint_opaque(authority)
    assert Storm(runtime, guard).run([token] * 16) == {"Granted": 16}
    assert calls(authority) == 16


@pytest.mark.rule("I-25", "H-16")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_request_does_not_fail_the_others(backend: str, guard: Guard, authority: FakeAuthority):
    storm = Storm(backend, guard)
    token = mint_opaque(authority)

    async def run() -> None:
        with authority.hold() as held:
            async with anyio.create_task_group() as group:
                async with anyio.create_task_group() as leader:
                    leader.start_soon(storm._acheck, token)
                    await held.await_requests()
                    for _ in range(HERD):
                        group.start_soon(storm._acheck, token)
                    while storm._boarded._value < HERD + 1:
                        await anyio.lowlevel.checkpoint()
                    leader.cancel_scope.cancel()
                held.release()

    anyio.run(run, backend=backend)
    assert storm.count_decisions() == {"Granted": HERD}
    assert calls(authority) == 1


@pytest.mark.rule("H-15")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_fault_blocks_the_thread_of_an_event_loop(
    authority: FakeAuthority, new_guard: NewGuard, backend: str, fault: str
):
    guard = new_guard(transport=(transport := Watched(authority)), store=MemoryStore(authority.clock))
    loops: set[threading.Thread] = set()

    async def run() -> None:
        loops.add(threading.current_thread())
        await guard.acheck(request_with(mint_opaque(authority)))
        with FAULTS[fault](authority, "introspection"):
            assert is_outage(await guard.acheck(request_with(mint_opaque(authority))))
        await guard.arevoke(jti="x")
        authority.clock.advance(31)
        assert isinstance(await guard.acheck(request_with(mint_opaque(authority))), Granted)
        await guard.aclose()

    anyio.run(run, backend=backend)
    assert transport.threads
    assert not loops & transport.threads


# -- the breaker


@pytest.mark.rule("I-18")
def test_dead_endpoint_is_paused_and_probed_by_one_request_at_a_time(
    authority: FakeAuthority, guard: Guard, decide: Decide
):
    held = mint_opaque(authority, expires_in=86400)
    assert isinstance(decide(guard, held), Granted)
    before = calls(authority)
    with authority.outage():
        for number in range(20):
            assert is_outage(decide(guard, f"sg-opaque-{number}"))
        assert calls(authority) - before == 3
        assert isinstance(decide(guard, held), Granted)
        authority.clock.advance(0.5)  # Half open: one of many requests may try.
        for number in range(20):
            assert is_outage(decide(guard, f"sg-opaque-{number}"))
        assert calls(authority) - before == 4
    authority.clock.advance(0.9)
    assert is_outage(decide(guard, "sg-opaque-x"))  # The pause has doubled.
    authority.clock.advance(0.1)
    token = mint_opaque(authority)
    assert isinstance(decide(guard, token), Granted)
    assert is_refusal(decide(guard, "sg-opaque-x"))
    assert calls(authority) - before == 6


@pytest.mark.rule("I-18")
def test_outage_of_an_hour_causes_one_request_per_half_minute(authority: FakeAuthority, guard: Guard, decide: Decide):
    assert isinstance(decide(guard, mint_opaque(authority)), Granted)
    before = calls(authority)
    with authority.outage():
        for number in range(360):
            assert is_outage(decide(guard, f"sg-opaque-{number}"))
            authority.clock.advance(10)
    assert calls(authority) - before <= 3 + 7 + 120


@pytest.mark.rule("I-18")
def test_busy_authority_is_paused_for_its_retry_after(authority: FakeAuthority, guard: Guard, decide: Decide):
    decide(guard, mint_opaque(authority))
    token, before = mint_opaque(authority), calls(authority)
    with authority.mode("introspection", Answer(429, b"", {"retry-after": "17"})):
        assert is_outage(decide(guard, token), "17")
    authority.clock.advance(6)
    assert is_outage(decide(guard, token), "11")
    assert calls(authority) - before == 1
    authority.clock.advance(11)
    assert isinstance(decide(guard, token), Granted)


def test_token_that_the_authority_cannot_parse_does_not_affect_others(
    authority: FakeAuthority, guard: Guard, decide: Decide
):
    decide(guard, mint_opaque(authority))
    with authority.mode("introspection", Answer(400, b'{"error": "invalid_request"}', JSON)):
        for number in range(10):
            assert is_outage(decide(guard, f"sg-opaque-{number}"))
    assert isinstance(decide(guard, mint_opaque(authority)), Granted)


def test_two_hundred_tokens_failing_at_once_count_as_one_failure(storm: Storm, authority: FakeAuthority):
    storm.run([mint_opaque(authority)])
    with authority.outage():
        assert storm.run([mint_opaque(authority) for _ in range(HERD)]) == {"Unavailable": HERD}
    authority.clock.advance(0.5)
    assert storm.run([mint_opaque(authority)]) == {"Granted": 1}
    # As many as may wait at once: the lane would refuse further unknown tokens.
    assert storm.run([mint_opaque(authority) for _ in range(60)]) == {"Granted": 60}


@pytest.mark.rule("I-18")
def test_restarting_gateway_costs_one_retry_and_no_503():
    served: list[bytes] = [
        response(b"", status="503 Service Unavailable"),
        response(b'{"active": true, "aud": "https://api.test"}'),
    ]
    with Loopback(lambda connection, request: connection.send(served.pop(0))) as server:
        settings = Introspection(client_id="api", client_secret="s", endpoint=server.url + "/introspect")
        guard = Guard(
            Issuer(server.url, audience="https://api.test", validate=Validation.INTROSPECTION, introspection=settings)
        )
        assert isinstance(guard.check(request_with("t")), Granted)
        assert served == []
        served[:] = [response(b"", "Retry-After: 9", status="503 Service Unavailable")]
        assert is_outage(guard.check(request_with("u")), "9")  # It sent Retry-After; no request is sent before.
        guard.close()


# -- failures that a token may cause


def unavailable(*, sent: bool | None, reason: Reason) -> AuthorityUnavailable:
    error = AuthorityUnavailable(reason, "https://as.test")
    error.sent = sent
    return error


# Failures of an authority at a token that it cannot parse, while it answers for all others.
STUMBLES: dict[str, Answer | AuthorityUnavailable] = {
    **{str(status): Answer(status, b"{}", JSON) for status in (400, 401, 403, 404, 408, 413, 414, 431, 500, 501)},
    "400 invalid_client": Answer(400, b'{"error": "invalid_client"}', JSON),
    "204": Answer(204, b"", {}),
    "redirect to a login": Answer(302, b"", {"location": "https://as.test/login"}),
    "a page of a firewall": Answer(200, b"<html>", {"content-type": "text/html"}),
    "nonsense": Answer(200, b"[]", JSON),
    "a large answer": unavailable(sent=True, reason=Reason.AUTHORITY_ANSWER_INVALID),
    "a timeout": unavailable(sent=True, reason=Reason.AUTHORITY_TIMED_OUT),
    "a timeout without further details": unavailable(sent=None, reason=Reason.AUTHORITY_TIMED_OUT),
    "a connection that is reset": unavailable(sent=True, reason=Reason.AUTHORITY_UNREACHABLE),
}


class Stumbling:
    """A transport to an authority that fails at forged tokens or, if ``down``, at all tokens."""

    def __init__(self, authority: FakeAuthority, stumble: Answer | AuthorityUnavailable) -> None:
        self._authority = authority
        self._stumble = stumble
        self.down = False
        self.asked: list[str] = []

    def send(self, request: Send, /) -> Answer:
        token = dict(request.form or ()).get("token")
        if token is not None:
            self.asked.append(token)
        if token is None or (token.startswith("sg-opaque-") and not self.down):
            return self._authority.transport.send(request)
        if isinstance(self._stumble, Answer):
            return self._stumble
        raise unavailable(sent=self._stumble.sent, reason=self._stumble.reason)

    def close(self) -> None:
        pass


@pytest.mark.rule("I-17", "I-18", "H-19")
@pytest.mark.parametrize("stumble", STUMBLES)
def test_failures_at_forged_tokens_do_not_affect_valid_ones(
    authority: FakeAuthority, new_guard: NewGuard, stumble: str
):
    """The class of input: a failure that an attacker's token may cause is not an outage for all."""
    transport = Stumbling(authority, STUMBLES[stumble])
    guard = new_guard(transport=transport)
    if stumble == "400 invalid_client":  # Accepted credentials are not blamed.
        assert isinstance(guard.check(request_with(mint_opaque(authority))), Granted)
    for second in range(30):
        for number in range(20):
            assert is_outage(guard.check(request_with(f"made-up-{second}-{number}")))
            authority.clock.advance(0.05)
        assert isinstance(guard.check(request_with(mint_opaque(authority))), Granted)


@pytest.mark.rule("I-18", "I-25")
@pytest.mark.parametrize("stumble", STUMBLES)
def test_token_at_which_the_authority_fails_is_paused_with_retry_after(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide, stumble: str
):
    transport = Stumbling(authority, STUMBLES[stumble])
    guard = new_guard(transport=transport)
    assert isinstance(decide(guard, mint_opaque(authority)), Granted)
    for pause in (1, 2, 4):
        before = len(transport.asked)
        for _ in range(5):
            assert is_outage(decide(guard, "made-up"), str(pause))
        assert len(transport.asked) - before == 1
        authority.clock.advance(pause)


@pytest.mark.rule("I-18")
@pytest.mark.parametrize("stumble", STUMBLES)
def test_authority_that_fails_at_each_token_is_paused(authority: FakeAuthority, new_guard: NewGuard, stumble: str):
    """Attackers cannot forge tokens that were accepted before: failures at three of those are an outage."""
    transport = Stumbling(authority, STUMBLES[stumble])
    guard = new_guard(transport=transport)
    known = [mint_opaque(authority, expires_in=86400) for _ in range(50)]
    assert all(isinstance(guard.check(request_with(token)), Granted) for token in known)
    authority.clock.advance(61)
    transport.asked.clear()
    transport.down = True
    for token in known:
        assert is_outage(guard.check(request_with(token)))
    assert len(transport.asked) == 3
    for number in range(300):  # Five minutes.
        assert is_outage(guard.check(request_with(known[number % 50])))
        assert is_outage(guard.check(request_with(f"made-up-{number}")))
        authority.clock.advance(1)
    assert len(transport.asked) <= 3 + 2 * (300 / 5 + 4)
    transport.down = False
    authority.clock.advance(5)
    assert all(isinstance(guard.check(request_with(token)), Granted) for token in known)


@pytest.mark.rule("I-18")
@pytest.mark.parametrize("stumble", ["401", "500", "a timeout"])
def test_authority_that_never_answered_is_called_at_a_bounded_rate(
    authority: FakeAuthority, new_guard: NewGuard, stumble: str
):
    transport = Stumbling(authority, STUMBLES[stumble])
    guard = new_guard(transport=transport)
    for number in range(3000):  # One minute, at more than twice the rate.
        assert is_outage(guard.check(request_with(f"made-up-{number}")))
        authority.clock.advance(0.02)
    assert len(transport.asked) <= (40 + 60 * 4 if stumble == "a timeout" else 200 + 60 * 20) + 1


@pytest.mark.rule("I-17", "I-18")
@pytest.mark.parametrize("status", [400, 401, 403])
def test_authority_that_refuses_the_client_of_the_api_is_paused(
    authority: FakeAuthority, guard: Guard, decide: Decide, status: int
):
    with authority.mode("introspection", Answer(status, b'{"error": "invalid_client"}', JSON)):
        for number in range(20):
            assert is_outage(decide(guard, f"sg-opaque-{number}"))
        assert calls(authority) == 3
    authority.clock.advance(0.5)
    assert isinstance(decide(guard, mint_opaque(authority)), Granted)


@pytest.mark.rule("I-18", "J-20")
def test_spent_key_budget_does_not_count_as_an_introspection_failure(authority: FakeAuthority, new_guard: NewGuard):
    """Answers are signed, the keys rotate, and forged tokens have used up the budget for key fetches."""
    guard = new_guard(signed=True)
    with authority.mode("introspection", signed_answer(authority)):
        assert isinstance(guard.check(request_with("t")), Granted)
    for number in range(3):
        guard.check(request_with(authority.mint(headers={"kid": f"made-up-{number}"})))
    authority.rotate()
    with authority.mode("introspection", signed_answer(authority)):
        for number in range(10):
            assert is_outage(guard.check(request_with(f"t-{number}")), "10")
        authority.clock.advance(10)
        assert isinstance(guard.check(request_with("t-0")), Granted)


# -- signed answers


def signed_answer(authority: FakeAuthority, header: Mapping[str, Any] = {}, **payload: Any) -> Answer:
    key: SigningKey = payload.pop("key", None) or authority.key()
    now = authority.clock.wall()
    inner = {"active": True, "aud": authority.audience, "scope": "read", "sub": "alice"}
    claims = {"iss": authority.url, "aud": "api", "iat": now, "token_introspection": inner, **payload}
    jwt = compact({"typ": "token-introspection+jwt", "alg": key.algorithm, "kid": key.kid, **header}, claims, key)
    return Answer(200, jwt.encode(), {"content-type": "application/token-introspection+jwt"})


@pytest.mark.rule("I-38", "I-40", "I-45")
def test_a_signed_answer_is_verified_with_the_keys_of_the_authority(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide
):
    guard = new_guard(signed=True)
    with authority.mode("introspection", signed_answer(authority)):
        decision = decide(guard, "t", "read")
    assert isinstance(decision, Granted)
    assert decision.access_token.subject == "alice"
    (send,) = [send for send in authority.transport.sends if send.form is not None]
    assert send.accept == "application/token-introspection+jwt"
    assert authority.transport.count("jwks") == 1


@pytest.mark.rule("I-39", "I-40", "I-41", "I-42", "I-45")
@pytest.mark.parametrize(
    "spoilt",
    [
        lambda authority: signed_answer(authority, {"typ": "JWT"}),
        lambda authority: signed_answer(authority, {"typ": "at+jwt"}),
        lambda authority: signed_answer(authority, iss="https://other.test"),
        lambda authority: signed_answer(authority, aud="other"),
        lambda authority: signed_answer(authority, iat=authority.clock.wall() - 100),
        lambda authority: signed_answer(authority, iat=None),
        lambda authority: signed_answer(authority, {"alg": "none"}),
        lambda authority: signed_answer(authority, key=SigningKey.generate("ES256", kid=authority.key().kid)),
        lambda authority: signed_answer(authority, key=SigningKey.generate("ES256", kid="nobody")),
        lambda authority: signed_answer(authority, token_introspection=None, active=True),
        lambda authority: answer(),
        lambda authority: replace(signed_answer(authority), status=203),
        lambda authority: replace(signed_answer(authority), status=503),
        lambda authority: Answer(200, b"not a jwt", {"content-type": "application/token-introspection+jwt"}),
        lambda authority: Answer(
            200,
            ".".join(base64url(part) for part in (b'{"alg":"dir","enc":"A256GCM"}', b"", b"i", b"c", b"t")).encode(),
            {"content-type": "application/token-introspection+jwt"},
        ),
    ],
    ids=[
        "typ JWT", "typ at+jwt", "iss", "aud", "iat", "no iat", "alg none", "signature", "unknown key", "outside",
        "plain", "203", "503", "garbage", "encrypted",
    ],
)  # fmt: skip
def test_answer_without_a_valid_signature_is_an_outage(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide, spoilt: Callable[[FakeAuthority], Answer]
):
    guard = new_guard(signed=True)
    with authority.mode("introspection", spoilt(authority)):
        assert is_outage(decide(guard, "t"))


@pytest.mark.rule("I-18")
def test_retry_after_reaches_the_caller_with_signed_answers_too(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide
):
    guard = new_guard(signed=True)
    with authority.mode("introspection", Answer(429, b"", {"retry-after": "17"})):
        assert is_outage(decide(guard, "t"), "17")


@pytest.mark.rule("I-41")
def test_only_the_token_introspection_claim_of_a_signed_answer_counts(
    authority: FakeAuthority, new_guard: NewGuard, decide: Decide
):
    guard = new_guard(signed=True)
    inactive = signed_answer(authority, active=True, scope="admin", token_introspection={"active": False})
    with authority.mode("introspection", inactive):
        assert is_refusal(decide(guard, "t"), Reason.TOKEN_NOT_ACTIVE)
