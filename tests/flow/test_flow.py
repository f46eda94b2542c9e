"""The decision, driven step by step: send an answer, check the next effect. No socket, no thread, no waiting."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scopeguard.config.issuer import Issuer
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.token_sources import StrayQueryToken, TokenSource, TokenSources
from scopeguard.devserver.keys import SigningKey, base64url, json_bytes
from scopeguard.errors import AuthorityUnavailable, InvalidRequest, InvalidToken, MissingCredentials
from scopeguard.flow.authenticate import authenticate
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import find_credential
from scopeguard.flow.effects import Answer, ReadFile, ReadForm, Send, SingleFlight, start
from scopeguard.flow.keys import MOST_VERIFICATIONS, warm
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.spec.jwks import VerificationKey, parse_configured_key_set
from scopeguard.state.issuers import Issuers
from scopeguard.state.revocation import Revocations
from scopeguard.testing import FakeAuthority
from scopeguard.tokens import AccessToken

OAUTH = "https://as.test/.well-known/oauth-authorization-server"
OPENID = "https://as.test/.well-known/openid-configuration"
JWKS = "https://as.test/jwks"
JSON = {"content-type": "application/json"}


def json_answer(document: object, **headers: str) -> Answer:
    return Answer(200, json.dumps(document).encode(), {**JSON, **headers})


def view(
    token: str | None = None, *, method: str = "GET", query: bytes = b"", content_type: bytes | None = None
) -> RequestView:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    if content_type is not None:
        headers.append((b"content-type", content_type))
    return RequestView(method=method, path="/", headers=HeaderList(headers), query=query)


# -- a complete decision


def test_cold_request_fetches_metadata_then_keys_and_returns_an_access_token(bench: Any, authority: Any):
    token = authority.mint("read", subject="alice")
    flow = bench.flow(token)
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    assert flight.key == "keys of https://as.test"
    assert flight.wait
    assert flight.needed()
    refresh = flight.flow()
    asked = next(refresh)
    assert asked == Send(url=OAUTH, authority="https://as.test")
    asked = refresh.send(json_answer(authority.authority.metadata()))
    assert asked == Send(url=JWKS, authority="https://as.test", accept="application/jwk-set+json, application/json")
    with pytest.raises(StopIteration) as end:
        refresh.send(json_answer(authority.authority.keys.key_set(authority.clock.wall())))
    assert end.value.value == ()  # Nothing to log.
    assert not flight.needed()
    with pytest.raises(StopIteration) as end:
        flow.send(None)
    assert isinstance(end.value.value, AccessToken)
    assert end.value.value.subject == "alice"


def test_warm_request_fetches_nothing(bench: Any, authority: Any):
    bench.judge(authority.mint("read"))
    with pytest.raises(StopIteration):
        next(bench.flow(authority.mint("write")))


@pytest.mark.rule("P-12")
def test_key_set_is_fetched_from_the_url_in_the_metadata(bench: Any, authority: Any):
    assert bench.judge(authority.mint()).issuer == "https://as.test"
    assert bench.asked == [OAUTH, JWKS]


@pytest.mark.parametrize(
    ("issuer", "asked"),
    [
        ({"jwks_uri": "https://as.test/jwks"}, [JWKS]),
        ({"metadata_url": OPENID}, [OPENID, JWKS]),
        ({}, [OAUTH, JWKS]),
    ],
    ids=["jwks_uri", "metadata_url", "discovery"],
)
def test_key_set_is_fetched_from_the_configured_url(
    new_bench: Any, authority: Any, issuer: dict[str, Any], asked: list[str]
):
    bench = new_bench(authority, Issuer("https://as.test", audience=authority.audience, **issuer))
    bench.judge(authority.mint())
    assert bench.asked == asked


def test_static_keys_need_no_fetch(new_bench: Any, authority: Any):
    document = authority.authority.keys.key_set(authority.clock.wall())
    bench = new_bench(authority, static=parse_configured_key_set(document))
    bench.judge(authority.mint())
    with pytest.raises(InvalidToken) as refused:
        bench.judge(authority.mint(headers={"kid": "unknown"}))
    assert refused.value.reason is Reason.UNKNOWN_KEY
    with pytest.raises(InvalidToken) as refused:
        bench.judge(authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid)))
    assert refused.value.reason is Reason.BAD_SIGNATURE
    assert bench.asked == []


def test_started_flow_is_at_its_first_effect_or_at_its_end(bench: Any, authority: Any):
    flow = bench.flow(authority.mint("read"))
    effect, nothing = start(flow)
    assert isinstance(effect, SingleFlight)
    assert nothing is None
    flow.close()
    bench.judge(authority.mint("read"))
    token = authority.mint("read")
    assert start(bench.flow(token)) == (None, bench.judge(token))
    with pytest.raises(InvalidToken):
        start(bench.flow(authority.mint(expires_in=-60)))


# -- refusals that need no key cause no fetch (law 9)


@pytest.mark.rule("P-18", "X-54")
@pytest.mark.parametrize(
    "issuer", ["https://evil.test", "https://as.test/", "http://127.0.0.1:9/", "https://AS.test", ""]
)
def test_unknown_issuer_is_refused_without_a_fetch(bench: Any, authority: Any, issuer: str):
    with pytest.raises(InvalidToken) as refused:
        bench.judge(authority.mint(claims={"iss": issuer}))
    assert refused.value.reason is Reason.UNKNOWN_ISSUER
    assert bench.asked == []


@pytest.mark.parametrize(
    "overrides",
    [
        {"expires_in": -3600},
        {"audience": "https://other.test"},
        {"claims": {"sub": None}},
        {"claims": {"cnf": {"jkt": "x"}}},
        {"headers": {"alg": "none"}},
        {"headers": {"crit": ["exp"]}},
        {"headers": {"typ": "dpop+jwt"}},
    ],
    ids=["expired", "audience", "subject", "bound", "none", "crit", "typ"],
)
def test_token_with_invalid_claims_or_header_causes_no_fetch(bench: Any, authority: Any, overrides: dict[str, Any]):
    with pytest.raises(InvalidToken):
        bench.judge(authority.mint(**overrides))
    assert bench.asked == []


@pytest.mark.rule("X-54")
@pytest.mark.parametrize("header", ["jku", "x5u", "kid"])
def test_url_in_a_token_is_never_fetched(bench: Any, authority: Any, header: str):
    bench.judge(authority.mint())
    for url in ("https://evil.test/jwks", "http://localhost/jwks", "https://[::ffff:169.254.169.254]/", "file:///k"):
        try:
            bench.judge(authority.mint(headers={header: url}))
        except (InvalidToken, AuthorityUnavailable):  # The fourth unknown key id is looked up later.
            assert header == "kid"
    assert set(bench.asked) == {OAUTH, JWKS}


# -- the signature


@pytest.mark.rule("J-20")
def test_rotated_key_is_accepted_at_its_first_request(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.rotate()
    bench.judge(authority.mint())
    assert bench.asked == [OAUTH, JWKS, JWKS]


def test_two_rotations_in_a_minute_are_served(bench: Any, authority: Any):
    bench.judge(authority.mint())
    for _ in range(2):
        authority.clock.advance(20)
        authority.rotate(overlap=False)
        bench.judge(authority.mint())


def test_new_key_under_an_old_id_is_fetched(bench: Any, authority: Any):
    bench.judge(authority.mint())
    keys = authority.authority.keys
    old = authority.key()
    with keys._lock:
        keys._active["ES256"] = SigningKey.generate("ES256", kid=old.kid)  # Restarted with new keys under old ids.
    bench.judge(authority.mint())
    assert bench.asked == [OAUTH, JWKS, JWKS]
    with pytest.raises(InvalidToken) as refused:
        bench.judge(authority.mint(key=old))
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_bad_signatures_cause_no_more_fetches_than_the_budget_allows(bench: Any, authority: Any):
    bench.judge(authority.mint())
    forged = authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid))
    for _ in range(50):
        with pytest.raises(InvalidToken) as refused:
            bench.judge(forged)
        assert refused.value.reason is Reason.BAD_SIGNATURE
    assert bench.asked.count(JWKS) == 1 + 3


def test_bad_signature_under_keys_fetched_for_this_request_is_final(bench: Any, authority: Any):
    forged = authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid))
    with pytest.raises(InvalidToken) as refused:
        bench.judge(forged)
    assert refused.value.reason is Reason.BAD_SIGNATURE
    assert bench.asked == [OAUTH, JWKS]


def land_keys_after(bench: Any, step: str, jwk: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """After each *step* of the key ring, add *jwk*, as if a newer fetch in another thread had returned it."""
    ring = bench.record.ring
    done = getattr(ring, step)

    def do(*arguments: Any, **options: Any) -> object:
        found, now = done(*arguments, **options), bench.clock.monotonic()
        number = ring.begin(now, provoked=False)
        ring.absorb(parse_configured_key_set({"keys": [jwk]}), now, number=number, lifetime=None)
        return found

    monkeypatch.setattr(ring, step, do)


@pytest.mark.rule("J-20")
def test_key_that_arrives_right_after_a_failed_look_up_is_used(
    bench: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
):
    bench.judge(authority.mint())
    authority.rotate()
    token = authority.mint("read")
    land_keys_after(bench, "lookup", authority.key().public_jwk(), monkeypatch)
    assert bench.judge(token).scopes == {"read"}
    assert bench.asked.count(JWKS) == 1  # Another request had fetched it.


def test_key_that_arrives_while_an_older_one_of_its_id_is_tried_is_tried_too(
    bench: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
):
    bench.judge(authority.mint())
    newer = SigningKey.generate("ES256", kid=authority.key().kid)
    land_keys_after(bench, "fresh", newer.public_jwk(), monkeypatch)
    assert bench.judge(authority.mint("read", key=newer)).scopes == {"read"}


def test_bad_signature_is_refused_during_an_outage(bench: Any, authority: Any):
    bench.judge(authority.mint())
    forged = authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid))
    with authority.outage():
        for _ in range(2):  # First a fetch, then back-off.
            with pytest.raises(InvalidToken) as refused:
                bench.judge(forged)
            assert refused.value.reason is Reason.BAD_SIGNATURE
        bench.judge(authority.mint())


def test_key_withdrawn_after_a_bad_signature_verifies_nothing(bench: Any, authority: Any):
    bench.judge(authority.mint())
    forged = authority.mint(key=SigningKey.generate("ES256", kid=authority.key().kid))
    authority.rotate(overlap=False)
    with pytest.raises(InvalidToken) as refused:
        bench.judge(forged)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.rule("X-86", "J-19")
def test_forged_token_costs_at_most_eight_signature_checks_and_three_requests(
    new_bench: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
):
    made = [SigningKey.generate("ES256", kid=f"k{i}") for i in range(100)]
    for key in made[:50]:
        authority.authority.keys.publish(key.public_jwk())
    checks: list[str | None] = []
    verify = VerificationKey.verify

    def count_and_verify(key: VerificationKey, algorithm: str, signed: bytes, signature: bytes) -> bool:
        checks.append(key.kid)
        return verify(key, algorithm, signed, signature)

    monkeypatch.setattr(VerificationKey, "verify", count_and_verify)
    hostile = authority.mint(key=SigningKey.generate("ES256"), headers={"kid": None})
    cold = new_bench(authority)
    with pytest.raises(InvalidToken):
        cold.judge(hostile)
    assert len(checks) == MOST_VERIFICATIONS == 8
    assert len(cold.asked) <= 3
    # Warm, and each key is new: earlier attempts count too.
    checks.clear()
    cold.asked.clear()
    authority.rotate(overlap=False)
    authority.authority.keys._others[:] = [key.public_jwk() for key in made[50:]]
    with pytest.raises(InvalidToken):
        cold.judge(hostile)
    assert len(checks) <= 8
    assert len(cold.asked) <= 3


@pytest.mark.rule("J-19")
def test_token_without_a_kid_is_tried_with_all_matching_keys(bench: Any, authority: Any):
    authority.authority.keys.publish(SigningKey.generate("ES256", kid="other").public_jwk())
    old = authority.key()
    authority.rotate()
    bench.judge(authority.mint(key=old, headers={"kid": None}))
    bench.judge(authority.mint(headers={"kid": None}))


@pytest.mark.rule("P-19", "P-07", "X-57")
def test_two_issuers_with_the_same_key_id_share_no_key(new_bench: Any):
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    kid = one.key().kid
    two.authority.keys._active["ES256"] = SigningKey.generate("ES256", kid=kid)
    benches = [new_bench(authority) for authority in (one, two)]
    issuers = [bench.record for bench in benches]
    for bench, authority in zip(benches, (one, two), strict=True):
        assert bench.judge(authority.mint(), issuers=issuers).issuer == authority.url
    for bench, authority, other in ((benches[0], one, two), (benches[1], two, one)):
        stolen = authority.mint(key=other.key(), claims={"iss": authority.url})
        with pytest.raises(InvalidToken) as refused:
            bench.judge(stolen, issuers=issuers)
        assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.rule("X-57")
def test_key_in_a_token_is_never_stored(bench: Any, authority: Any):
    own = SigningKey.generate("ES256", kid="mine")
    for _ in range(2):
        with pytest.raises(InvalidToken):
            bench.judge(authority.mint(key=own, headers={"jwk": own.public_jwk()}))
    assert bench.record.ring.key_set.candidates("mine", "ES256") == ()


# -- unknown keys


@pytest.mark.rule("J-20")
def test_unknown_key_is_refused_after_one_fetch(bench: Any, authority: Any):
    bench.judge(authority.mint())
    for _ in range(100):
        with pytest.raises(InvalidToken) as refused:
            bench.judge(authority.mint(headers={"kid": "nobody"}))
        assert refused.value.reason is Reason.UNKNOWN_KEY
    assert bench.asked == [OAUTH, JWKS, JWKS]


def test_unknown_key_at_a_cold_start_costs_one_fetch(bench: Any, authority: Any):
    for _ in range(2):
        with pytest.raises(InvalidToken) as refused:
            bench.judge(authority.mint(headers={"kid": "nobody"}))
        assert refused.value.reason is Reason.UNKNOWN_KEY
    assert bench.asked == [OAUTH, JWKS]
    assert bench.record.ring.may_doubt(
        authority.clock.monotonic()
    )  # The budget is untouched: the set was needed anyway.


@pytest.mark.rule("X-59", "A-16")
def test_rotation_works_during_a_flood_of_unknown_keys(bench: Any, authority: Any):
    bench.judge(authority.mint())
    _, payload, signature = authority.mint().split(".")
    for i in range(10_000):
        header = base64url(json_bytes({"typ": "at+jwt", "alg": "ES256", "kid": f"random-{i}"}))
        with pytest.raises((InvalidToken, AuthorityUnavailable)):
            bench.judge(f"{header}.{payload}.{signature}")
        authority.clock.advance(0.01)
        if i == 5_000:
            authority.rotate()
            rotated_at = authority.clock.monotonic()
    assert bench.asked.count(JWKS) <= 1 + 3 + 10
    assert authority.clock.monotonic() - rotated_at > 10
    bench.judge(authority.mint())


@pytest.mark.rule("A-19", "H-19")
def test_unknown_key_during_an_outage_is_503_and_keeps_the_keys(bench: Any, authority: Any):
    bench.judge(authority.mint())
    with authority.outage():
        with pytest.raises(AuthorityUnavailable) as outage:
            bench.judge(authority.mint(headers={"kid": "nobody"}))
        assert outage.value.reason is Reason.AUTHORITY_UNREACHABLE  # A fetch was tried just now.
        with pytest.raises(AuthorityUnavailable) as outage:
            bench.judge(authority.mint(headers={"kid": "nobody"}))
        assert outage.value.reason is Reason.AUTHORITY_BACKING_OFF  # A fetch was tried a moment ago.
        assert outage.value.retry_after == 0.25
        bench.judge(authority.mint())
    authority.clock.advance(0.25)
    with pytest.raises(InvalidToken):
        bench.judge(authority.mint(headers={"kid": "nobody"}))


def test_request_that_joined_an_earlier_fetch_may_fetch_once_more(bench: Any, authority: Any):
    """The running fetch was answered before the rotation: its result says nothing about the new key."""
    bench.judge(authority.mint())
    ring = bench.record.ring
    now = authority.clock.monotonic()
    number = ring.begin(now, provoked=True)
    early = ring.key_set
    authority.rotate()
    flow = bench.flow(authority.mint())
    flight = next(flow)
    ring.absorb(early, now, number=number, lifetime=None)  # The earlier fetch returns without the new key.
    assert not flight.needed()
    second = flow.send(None)
    assert isinstance(second, SingleFlight)
    assert second.needed()
    bench.script.play(second.flow())
    with pytest.raises(StopIteration):
        flow.send(None)


def test_request_before_the_waiters_wake_does_not_fetch_again(bench: Any, authority: Any):
    """Otherwise each wave of clients with a withdrawn key would use a part of the budget, and a later rotation
    would find it empty."""
    bench.judge(authority.mint())
    token = authority.mint(headers={"kid": "withdrawn"})
    first = bench.flow(token)
    bench.script.play(next(first).flow())
    asked = list(bench.asked)
    with pytest.raises(InvalidToken) as refused:
        next(bench.flow(token))
    assert refused.value.reason is Reason.UNKNOWN_KEY
    with pytest.raises(InvalidToken):
        first.send(None)
    assert bench.asked == asked


def test_request_that_joined_an_earlier_fetch_is_503_without_budget(new_bench: Any, authority: Any):
    bench = new_bench(authority, replace(authority.issuer, key_set=KeySetPolicy(refetch_burst=1)))
    bench.judge(authority.mint())
    ring = bench.record.ring
    now = authority.clock.monotonic()
    number = ring.begin(now, provoked=True)
    flow = bench.flow(authority.mint(headers={"kid": "new"}))
    next(flow)
    ring.absorb(ring.key_set, now, number=number, lifetime=None)
    with pytest.raises(AuthorityUnavailable) as outage:  # That fetch had started before the key was requested.
        flow.send(None)
    assert outage.value.retry_after == 10.0


def test_budget_spent_by_another_request_stops_the_fetch(new_bench: Any, authority: Any):
    bench = new_bench(authority, replace(authority.issuer, key_set=KeySetPolicy(refetch_burst=1)))
    bench.judge(authority.mint())
    flow = bench.flow(authority.mint(headers={"kid": "new"}))
    flight = next(flow)
    ring = bench.record.ring
    number = ring.begin(authority.clock.monotonic(), provoked=True)
    assert number is not None
    ring.abandon(number)
    assert flight.needed()
    with pytest.raises(StopIteration) as end:
        next(flight.flow())
    assert end.value.value == ()
    with pytest.raises(AuthorityUnavailable):
        flow.send(None)


def test_lost_fetch_causes_no_endless_loop(new_bench: Any, authority: Any):
    """It counts as running, so a request may join it; but there is no flight, and the budget allows no other."""
    bench = new_bench(authority, replace(authority.issuer, key_set=KeySetPolicy(refetch_burst=1)))
    bench.judge(authority.mint())
    assert bench.record.ring.begin(authority.clock.monotonic(), provoked=True) is not None
    with pytest.raises(AuthorityUnavailable):
        bench.judge(authority.mint(headers={"kid": "new"}))
    bench.judge(authority.mint())


# -- a spent budget is an outage, not a refusal


def forge_token(authority: Any, number: int, **header: Any) -> str:
    """Return a token signed by an unknown key, with an invented key id unless *header* sets another."""
    forger = SigningKey.generate("ES256", kid="x")
    token: str = authority.mint(headers={"kid": f"made-up-{number}", **header}, key=forger)
    return token


def outcome(bench: Any, token: str) -> str:
    try:
        bench.judge(token)
    except InvalidToken as error:
        return str(error.reason)
    except AuthorityUnavailable as error:
        honest = error.retry_after is not None and 0 < error.retry_after <= 10
        return "503" if honest and error.reason is Reason.AUTHORITY_BACKING_OFF else repr(error)
    return "200"


@pytest.mark.rule("J-20", "A-16", "H-19")
@pytest.mark.parametrize("kid", ["made up", None], ids=["with kid", "without kid"])
def test_rotation_while_attackers_drain_the_budget_refuses_no_valid_token(bench: Any, authority: Any, kid: str | None):
    """The class of input: a key that was not looked up causes an outage, not a refusal, with or without an id."""
    unnamed = {"headers": {"kid": None}} if kid is None else {}
    bench.judge(authority.mint(**unnamed))
    for number in range(3):
        bench.judge(authority.mint(**unnamed))
        outcome(bench, forge_token(authority, number, **({"kid": None} if kid is None else {})))
    authority.rotate()
    told = []
    for tenth in range(200):
        if tenth % 10 == 0:
            outcome(bench, forge_token(authority, 100 + tenth, **({"kid": None} if kid is None else {})))
        told.append(outcome(bench, authority.mint(**unnamed)))
        authority.clock.advance(0.1)
    assert set(told) == {"200", "503"}
    served = told.index("200")
    assert served <= 101
    assert told[served:] == ["200"] * (200 - served)
    assert bench.asked.count(JWKS) <= 1 + 3 + 2


def test_key_without_an_id_that_arrives_during_a_look_up_is_used(
    bench: Any, authority: Any, monkeypatch: pytest.MonkeyPatch
):
    bench.judge(authority.mint())
    authority.rotate()
    land_keys_after(bench, "look_beyond", authority.key().public_jwk(), monkeypatch)
    assert bench.judge(authority.mint("read", headers={"kid": None})).scopes == {"read"}
    assert bench.asked.count(JWKS) == 1


def test_single_key_without_an_id_may_be_replaced_by_another(bench: Any, authority: Any):
    """No token can name the new key before it is fetched, and the old key has no id that distinguishes them."""
    old, new = (SigningKey.generate("ES256", kid="x") for _ in range(2))
    published = [{name: value for name, value in key.public_jwk().items() if name != "kid"} for key in (old, new)]
    with authority.mode("jwks", json_answer({"keys": [published[0]]})):
        bench.judge(authority.mint(key=old))
        for number in range(4):
            outcome(bench, forge_token(authority, number))
        assert outcome(bench, authority.mint(key=new)) == "503"
    with authority.mode("jwks", json_answer({"keys": [published[1]]})):
        authority.clock.advance(10)
        assert outcome(bench, authority.mint(key=new)) == "200"
        assert outcome(bench, authority.mint(key=old)) == "503"
        authority.clock.advance(10)
        assert outcome(bench, authority.mint(key=old)) == "bad_signature"


def test_unfetched_key_without_an_id_is_503_during_an_outage(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.rotate()
    token = authority.mint(headers={"kid": None})
    with authority.outage(), pytest.raises(AuthorityUnavailable):
        bench.judge(token)
    authority.clock.advance(1)
    assert outcome(bench, token) == "200"


def test_forged_token_without_a_key_id_causes_one_fetch(bench: Any, authority: Any):
    bench.judge(authority.mint())
    token = forge_token(authority, 0, kid=None)
    assert [outcome(bench, token) for _ in range(5)] == ["bad_signature"] * 5
    assert bench.asked.count(JWKS) == 2


# -- refresh


@pytest.mark.rule("A-15")
def test_refresh_runs_in_the_background(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.clock.advance(570)
    bench.judge(authority.mint())
    bench.judge(authority.mint())
    assert len(bench.script.background) == 1
    assert bench.asked == [OAUTH, JWKS]
    bench.script.land_background()
    assert bench.asked == [OAUTH, JWKS, JWKS]
    authority.clock.advance(400)
    bench.judge(authority.mint())
    assert bench.script.background == []


def test_failed_background_refresh_does_not_affect_requests(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.clock.advance(570)
    flow = bench.flow(authority.mint())
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    assert not flight.wait
    with pytest.raises(StopIteration):
        flow.send(None)
    with authority.outage(), pytest.raises(AuthorityUnavailable):
        bench.script.play(flight.flow())
    bench.judge(authority.mint())


@pytest.mark.rule("A-18", "X-60")
def test_a_removed_key_stops_verifying_even_after_an_idle_period(bench: Any, authority: Any):
    old = authority.key()
    bench.judge(authority.mint())
    authority.rotate(overlap=False)
    authority.clock.advance(7200)  # There was no request for two hours, so there was no refresh.
    with pytest.raises(InvalidToken) as refused:
        bench.judge(authority.mint(key=old))
    assert refused.value.reason is Reason.UNKNOWN_KEY


def test_held_keys_are_used_if_an_overdue_refresh_fails(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.clock.advance(700)
    with authority.outage():
        bench.judge(authority.mint())
        assert bench.asked[2:] == [JWKS]  # This request waited for it.
        authority.clock.advance(1)
        bench.judge(authority.mint())
        assert bench.asked[2:] == [JWKS]  # This one did not.
        assert len(bench.script.background) == 1


@pytest.mark.rule("A-17")
def test_no_key_is_used_beyond_its_maximum_age_during_a_refresh(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.clock.advance(86_399)
    flow = bench.flow(authority.mint())
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    assert flight.wait
    with authority.outage(), pytest.raises(AuthorityUnavailable) as failed:
        bench.script.play(flight.flow())
    authority.clock.advance(1)
    again = flow.throw(failed.value)
    assert isinstance(again, SingleFlight)  # No key is held any more, and the first pause is over.
    with pytest.raises(AuthorityUnavailable):
        flow.throw(failed.value)


def test_keys_older_than_the_maximum_age_at_arrival_are_fetched_again(bench: Any, authority: Any):
    flow = bench.flow(authority.mint())
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    bench.script.play(flight.flow())
    authority.clock.advance(90_000)
    again = flow.send(None)
    assert isinstance(again, SingleFlight)
    bench.script.play(again.flow())
    with pytest.raises(StopIteration):
        flow.send(None)


@pytest.mark.rule("A-17")
def test_held_keys_bridge_an_outage_up_to_the_maximum_age(new_bench: Any, authority: Any):
    bench = new_bench(authority, replace(authority.issuer, key_set=KeySetPolicy(max_stale=3600)))
    bench.judge(authority.mint())
    with authority.outage():
        authority.clock.advance(600)
        bench.judge(authority.mint())
        authority.clock.advance(2999)
        bench.judge(authority.mint())
        authority.clock.advance(1)
        with pytest.raises(AuthorityUnavailable):
            bench.judge(authority.mint())
    authority.clock.advance(30)
    bench.judge(authority.mint())


# -- responses of the authority


def refusal_reason(bench: Any, token: str) -> Reason:
    with pytest.raises(AuthorityUnavailable) as outage:
        bench.judge(token)
    reason: Reason = outage.value.reason
    return reason


GARBLED = {
    "empty": Answer(200, b"{}", JSON),
    "no keys": Answer(200, b'{"keys":[]}', JSON),
    "array": Answer(200, b"[]", JSON),
    "truncated": Answer(200, b'{"keys": [', JSON),
    "html": Answer(200, b"<html>", {"content-type": "text/html"}),
    "unnamed": Answer(200, b"{}", {}),
    "204": Answer(204, b"", JSON),
    "404": Answer(404, b"", JSON),
    "500": Answer(500, b"", JSON),
    "redirect": Answer(302, b"", {"location": "http://169.254.169.254/"}),
    "too many keys": Answer(200, json.dumps({"keys": [{"kty": "RSA"}] * 101}).encode(), JSON),
    "twice": Answer(200, b'{"keys": [], "keys": []}', JSON),
}


@pytest.mark.rule("A-19", "A-08", "A-12", "A-13", "A-14", "X-60")
@pytest.mark.parametrize("answer", GARBLED.values(), ids=GARBLED)
def test_malformed_key_set_is_an_outage_and_replaces_nothing(bench: Any, authority: Any, answer: Answer):
    with authority.mode("jwks", answer):
        refusal_reason(bench, authority.mint())  # cold
    authority.clock.advance(30)
    bench.judge(authority.mint())
    authority.clock.advance(570)
    bench.judge(authority.mint())
    with authority.mode("jwks", answer):
        with pytest.raises(AuthorityUnavailable):
            bench.script.land_background()
        bench.judge(authority.mint())  # Held keys stay in use.
    assert all(url.startswith("https://as.test/") for url in bench.asked)


@pytest.mark.rule("X-60", "A-18")
def test_malformed_key_set_only_delays_the_end_of_a_removed_key(bench: Any, authority: Any):
    old = authority.key()
    bench.judge(authority.mint())
    authority.rotate(overlap=False)
    authority.clock.advance(700)
    with authority.mode("jwks", "empty"):
        bench.judge(authority.mint(key=old))
    authority.clock.advance(1)
    bench.judge(authority.mint(key=old))
    bench.script.land_background()
    with pytest.raises(InvalidToken):
        bench.judge(authority.mint(key=old))


@pytest.mark.rule("A-14")
@pytest.mark.parametrize("kind", ["application/json", "application/jwk-set+json", "Application/JSON; charset=utf-8"])
def test_key_set_is_accepted_with_its_two_content_types(bench: Any, authority: Any, kind: str):
    document = json.dumps(authority.authority.keys.key_set(0)).encode()
    with authority.mode("jwks", Answer(200, document, {"content-type": kind})):
        bench.judge(authority.mint())


@pytest.mark.rule("X-58", "J-21")
def test_bad_key_affects_neither_the_set_nor_a_good_key_of_its_id(bench: Any, authority: Any):
    good = authority.key().public_jwk()
    leaked = SigningKey.generate("ES256", kid="leaked").private_jwk()
    document = {"keys": [{**good, "x": "AA"}, {"kty": "PQC", "kid": good["kid"]}, leaked, good]}
    with authority.mode("jwks", json_answer(document)):
        bench.judge(authority.mint())
        told = list(bench.script.sentences)
        assert len(told) == 2, told  # Broken or leaked keys are logged, keys of other types are not.
        assert any("leaked" in sentence for sentence in told)
        with pytest.raises(InvalidToken):
            bench.judge(authority.mint(headers={"kid": "other"}))
        assert bench.asked.count(JWKS) == 2
        assert bench.script.sentences == told  # Once, not with each refresh.


def test_log_line_about_a_bad_key_has_a_part_of_a_long_id(bench: Any, authority: Any):
    symmetric = {"kty": "oct", "k": "AAAA", "kid": "long" * 10_000}
    with authority.mode("jwks", json_answer({"keys": [symmetric, authority.key().public_jwk()]})):
        bench.judge(authority.mint())
    (sentence,) = bench.script.sentences
    assert "kid='longlong" in sentence
    assert len(sentence) < 500


@pytest.mark.rule("A-15")
def test_lifetime_of_a_key_set_follows_its_headers_within_bounds(bench: Any, authority: Any):
    document = authority.authority.keys.key_set(0)
    with authority.mode("jwks", json_answer(document, **{"cache-control": "max-age=120"})):
        bench.judge(authority.mint())
    authority.clock.advance(90)
    bench.judge(authority.mint())
    assert not bench.script.background
    authority.clock.advance(11)
    bench.judge(authority.mint())
    assert bench.script.background


@pytest.mark.rule("A-04", "A-12")
@pytest.mark.parametrize("first", [None, Answer(302, b"", {"location": "https://as.test/login"})], ids=["404", "302"])
def test_metadata_is_requested_from_three_urls_in_order(new_bench: Any, first: Answer | None):
    authority = FakeAuthority("https://as.test/tenant")
    bench = new_bench(authority)
    places = [
        "https://as.test/.well-known/oauth-authorization-server/tenant",
        "https://as.test/.well-known/openid-configuration/tenant",
        "https://as.test/tenant/.well-known/openid-configuration",
    ]
    metadata, keys = json_answer(authority.authority.metadata()), json_answer(authority.authority.keys.key_set(0))
    missing = iter(
        [
            Answer(404, b"", {}) if first is None else first,
            Answer(200, b"<html>a web app answers everything</html>", {"content-type": "text/html"}),
        ]
    )
    bench.script._replies = lambda url: next(missing) if url in places[:2] else metadata if url in places else keys
    bench.judge(authority.mint())
    assert bench.asked == [*places, "https://as.test/tenant/jwks"]


def test_missing_metadata_is_an_outage_with_advice(bench: Any, authority: Any):
    with authority.mode("metadata", Answer(404, b"", {})), pytest.raises(AuthorityUnavailable) as outage:
        bench.judge(authority.mint())
    assert "set jwks_uri or metadata_url" in str(outage.value)
    assert bench.asked == [OAUTH, OPENID]


@pytest.mark.rule("A-05", "A-08")
@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"issuer": "https://as.test/", "jwks_uri": JWKS}),
        json_answer({"issuer": "https://other.test", "jwks_uri": JWKS}),
        json_answer({"jwks_uri": JWKS}),
        json_answer([]),
        json_answer({"issuer": "https://as.test"}),
        Answer(204, b"", JSON),
        Answer(301, b"", {"location": OPENID}),
        Answer(429, b"", {**JSON, "retry-after": "9"}),
        Answer(408, b"", JSON),
        Answer(503, b"", JSON),
    ],
    ids=["slash", "other", "no issuer", "array", "no jwks_uri", "204", "301", "429", "408", "503"],
)
def test_metadata_without_the_configured_issuer_is_not_used(bench: Any, authority: Any, answer: Answer):
    with authority.mode("metadata", answer), pytest.raises(AuthorityUnavailable):
        bench.judge(authority.mint())
    assert JWKS not in bench.asked


@pytest.mark.rule("A-04")
@pytest.mark.parametrize(
    "first",
    [
        json_answer({"issuer": "https://as.test", "token_endpoint": "https://as.test/token"}),
        json_answer({"issuer": "https://as.test", "jwks_uri": None}),
        json_answer({"error": "not found"}),
        json_answer({"issuer": None, "jwks_uri": JWKS}),
        json_answer([]),
        json_answer(None),
        Answer(200, b"", JSON),
        Answer(200, b'{"issuer":', JSON),
        Answer(200, b"not found", {}),
        Answer(204, b"", JSON),
        *(Answer(status, b"", {}) for status in (301, 303, 400, 401, 403, 404, 405, 406, 408, 410, 429, 451)),
        *(Answer(status, b"{}", {**JSON, "retry-after": "30"}) for status in (429, 500, 501, 502, 503, 504, 599)),
        AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, "https://as.test", problem="larger than 9 bytes"),
    ],
    ids=lambda answer: ascii(answer)[:80],
)
def test_search_continues_after_a_document_without_the_endpoint(bench: Any, authority: Any, first: Any):
    """The class of input: an OAuth layer in front of a server publishes less, or fails at paths it does not know."""
    good = bench.script._replies
    bench.script._replies = lambda url: first if url == OAUTH else good(url)
    assert bench.judge(authority.mint()).issuer == "https://as.test"
    assert bench.asked == [OAUTH, OPENID, JWKS]


@pytest.mark.rule("A-05")
@pytest.mark.parametrize(
    ("first", "said"),
    [
        (
            json_answer({"issuer": "https://as.test/", "jwks_uri": JWKS}),
            "the issuer in the metadata is 'https://as.test/'",
        ),
        (json_answer({"issuer": "https://as.test", "jwks_uri": "https://10.0.0.1/"}), "jwks_uri"),
        (AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "https://as.test", problem="reset"), "reset"),
        (AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "https://as.test"), "timed_out"),
    ],
    ids=["another issuer", "internal address", "unreachable", "timed out"],
)
def test_search_ends_at_an_answer_that_is_reported(bench: Any, authority: Any, first: Any, said: str):
    good = bench.script._replies
    bench.script._replies = lambda url: first if url == OAUTH else good(url)
    with pytest.raises(AuthorityUnavailable, match=said):
        bench.judge(authority.mint())
    assert bench.asked == [OAUTH]


@pytest.mark.parametrize(
    ("second", "reason", "said"),
    [
        (Answer(404, b"", {}), Reason.AUTHORITY_ANSWER_INVALID, "names no jwks_uri; set jwks_uri"),
        (Answer(503, b"", {"retry-after": "9"}), Reason.AUTHORITY_UNREACHABLE, "status=503"),
        (Answer(200, b"[]", JSON), Reason.AUTHORITY_ANSWER_INVALID, "names no jwks_uri"),
    ],
    ids=["404", "503", "array"],
)
def test_missing_jwks_uri_in_all_documents_is_an_outage(
    bench: Any, authority: Any, second: Answer, reason: Reason, said: str
):
    short = json_answer({"issuer": "https://as.test"})
    bench.script._replies = {OAUTH: short, OPENID: second}.__getitem__
    with pytest.raises(AuthorityUnavailable, match=said) as outage:
        bench.judge(authority.mint())
    assert outage.value.reason is reason
    assert outage.value.retry_after == (9 if reason is Reason.AUTHORITY_UNREACHABLE else None)
    # The documents are of no use and are dropped: the next attempt searches again.
    authority.clock.advance(60)
    with pytest.raises(AuthorityUnavailable):
        bench.judge(authority.mint())
    assert bench.asked == [OAUTH, OPENID, OAUTH, OPENID]


def test_malformed_document_is_named_if_no_url_has_metadata(bench: Any, authority: Any):
    bench.script._replies = {OAUTH: Answer(200, b"[]", JSON), OPENID: Answer(404, b"", {})}.__getitem__
    with pytest.raises(AuthorityUnavailable, match=r"oauth-authorization-server, problem=the metadata is "):
        bench.judge(authority.mint())


@pytest.mark.rule("X-55")
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://as.test/",
        "unix:///run/x",
        "http://as.test/jwks",
        "https://user:pw@as.test/jwks",
        "https://127.0.0.1/jwks",
        "https://[::1]/jwks",
        "https://[::ffff:10.0.0.1]/jwks",
        "https://169.254.169.254/latest/meta-data",
        "https://10.1.2.3/jwks",
        "https://127.1/jwks",
        "https://2130706433/jwks",
        "https://localhost./jwks",
    ],
)
def test_metadata_that_names_an_internal_host_is_refused_without_a_request_to_it(bench: Any, authority: Any, url: str):
    with (
        authority.mode("metadata", json_answer({"issuer": "https://as.test", "jwks_uri": url})),
        pytest.raises(AuthorityUnavailable) as outage,
    ):
        bench.judge(authority.mint())
    assert outage.value.reason is Reason.AUTHORITY_ANSWER_INVALID
    assert bench.asked == [OAUTH]


def test_retry_after_of_the_authority_reaches_the_caller_and_delays_the_next_fetch(bench: Any, authority: Any):
    with authority.outage("unavailable"):  # 503 with Retry-After: 7
        with pytest.raises(AuthorityUnavailable) as outage:
            bench.judge(authority.mint())
        assert outage.value.retry_after == 7
        assert outage.value.reason is Reason.AUTHORITY_UNREACHABLE
        authority.clock.advance(6)
        assert refusal_reason(bench, authority.mint()) is Reason.AUTHORITY_BACKING_OFF
        assert bench.asked == [OAUTH, OPENID]  # Once each.


def test_moved_key_set_is_found_through_fresh_metadata(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.clock.advance(601)
    with authority.mode("jwks", "server_error"):
        bench.judge(authority.mint())
    authority.clock.advance(1)
    bench.judge(authority.mint())
    bench.script.land_background()
    assert bench.asked == [OAUTH, JWKS, JWKS, OAUTH, JWKS]


def test_old_metadata_is_fetched_again(bench: Any, authority: Any):
    bench.judge(authority.mint())
    authority.clock.advance(3601)
    bench.judge(authority.mint())
    assert bench.asked == [OAUTH, JWKS, OAUTH, JWKS]


# -- a file of keys


def test_key_file_is_read_in_a_flight_and_refreshed(new_bench: Any, new_script: Any, authority: Any):
    bench = new_bench(authority, Issuer("https://as.test", audience=authority.audience, jwks_file="keys.json"))
    bench.script = new_script(lambda path: json_answer(authority.authority.keys.key_set(0)))
    flight = next(bench.flow(authority.mint()))
    assert isinstance(flight, SingleFlight)
    assert next(flight.flow()) == ReadFile(path="keys.json", authority="https://as.test")
    bench = new_bench(authority, bench.record.issuer)
    bench.script = new_script(lambda path: json_answer(authority.authority.keys.key_set(0)))
    bench.judge(authority.mint())
    authority.rotate()
    bench.judge(authority.mint())
    assert bench.asked == ["keys.json", "keys.json"]


def test_malformed_key_file_is_an_outage(new_bench: Any, new_script: Any, authority: Any):
    bench = new_bench(authority, Issuer("https://as.test", audience=authority.audience, jwks_file="keys.json"))
    bench.script = new_script(lambda path: Answer(200, b"not json", {}))
    assert refusal_reason(bench, authority.mint()) is Reason.AUTHORITY_ANSWER_INVALID


# -- flights that end unexpectedly


def test_exception_of_a_transport_is_raised_and_paced_and_keeps_the_keys(bench: Any, authority: Any):
    flow = bench.flow(authority.mint())
    flight = next(flow)
    refresh = flight.flow()
    next(refresh)
    with pytest.raises(KeyError):
        refresh.throw(KeyError("a bug"))
    assert not flight.needed()  # A waiting request looks up the key again and does not repeat the call.
    with pytest.raises(KeyError):
        flow.throw(KeyError("a bug"))
    with pytest.raises(AuthorityUnavailable) as outage:
        next(bench.flow(authority.mint()))
    assert outage.value.retry_after == 0.25


@pytest.mark.rule("H-16")
@pytest.mark.parametrize("how", ["interrupt", "close"])
def test_cancelled_fetch_is_replaced_by_the_next_request(bench: Any, authority: Any, how: str):
    flight = next(bench.flow(authority.mint()))
    refresh = flight.flow()
    next(refresh)
    if how == "close":
        refresh.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            refresh.throw(KeyboardInterrupt())
    assert flight.needed()  # The next waiting request fetches.
    bench.script.play(flight.flow())
    bench.judge(authority.mint())
    assert bench.asked == [OAUTH, JWKS]


# -- warm-up


def test_warm_up_fetches_only_missing_keys(bench: Any, authority: Any):
    for _ in range(2):
        bench.script.play(warm(bench.record, authority.clock))
    assert bench.asked == [OAUTH, JWKS]
    authority.clock.advance(86_400)
    bench.script.play(warm(bench.record, authority.clock))
    assert bench.asked == [OAUTH, JWKS] * 2


def test_warm_up_that_joins_a_failing_fetch_fails(bench: Any, authority: Any):
    flow = warm(bench.record, authority.clock)
    flight = next(flow)
    assert isinstance(flight, SingleFlight)
    with authority.outage(), pytest.raises(AuthorityUnavailable):
        bench.script.play(flight.flow())  # By another thread.
    with pytest.raises(AuthorityUnavailable):
        flow.send(None)


# -- token sources

ALL = TokenSources(methods=frozenset(TokenSource) - {TokenSource.API_KEY}, trusted_proxies=("*",))
FORM = b"application/x-www-form-urlencoded"


def find_in(request: RequestView, sources: TokenSources, new_script: Any, form: bytes = b"") -> Any:
    script = new_script()
    script.form = form
    return script.play(find_credential(request, sources))


@pytest.mark.parametrize(
    ("request_", "form", "source"),
    [
        (view("t"), b"", TokenSource.HEADER),
        (view(query=b"access_token=t"), b"", TokenSource.QUERY),
        (view(method="POST", content_type=FORM), b"a=b&access_token=t", TokenSource.FORM),
    ],
    ids=["header", "query", "form"],
)
def test_token_is_found_in_each_enabled_source(
    request_: RequestView, form: bytes, source: TokenSource, new_script: Any
):
    credential = find_in(request_, ALL, new_script, form)
    assert credential.token == "t"
    assert credential.source is source
    assert "'t'" not in repr(credential)


@pytest.mark.parametrize(
    ("request_", "form"),
    [
        (view("t", query=b"access_token=t"), b""),
        (view("t", method="POST", content_type=FORM), b"access_token=t"),
        (view(query=b"access_token=t", method="POST", content_type=FORM), b"access_token=t"),
    ],
    ids=["header and query", "header and form", "query and form"],
)
def test_token_in_two_sources_is_refused(request_: RequestView, form: bytes, new_script: Any):
    with pytest.raises(InvalidRequest) as refused:
        find_in(request_, ALL, new_script, form)
    assert refused.value.reason is Reason.SEVERAL_METHODS


def test_disabled_source_is_ignored(new_script: Any):
    request = view("t", query=b"access_token=u", method="POST", content_type=FORM)
    assert find_in(request, TokenSources(), new_script, b"access_token=v").token == "t"
    query = TokenSources(methods=frozenset((TokenSource.QUERY,)))
    assert find_in(request, query, new_script).token == "u"
    form = TokenSources(methods=frozenset((TokenSource.FORM,)))
    assert find_in(request, form, new_script, b"access_token=v").token == "v"


@pytest.mark.parametrize(
    "request_", [view(), view(query=b"a=b"), view(method="POST", content_type=FORM)], ids=["bare", "query", "form"]
)
def test_missing_token_has_no_error_code(request_: RequestView, new_script: Any):
    with pytest.raises(MissingCredentials) as missing:
        find_in(request_, ALL, new_script, b"a=b")
    assert missing.value.reason is Reason.NO_CREDENTIALS


def test_preflight_without_a_token_says_where_cors_middleware_belongs(new_script: Any):
    announced = HeaderList([(b"access-control-request-method", b"GET")])
    for method, headers, facts in (
        ("OPTIONS", announced, ["preflight"]), ("GET", announced, []), ("OPTIONS", HeaderList([]), []),
    ):  # fmt: skip
        with pytest.raises(MissingCredentials) as missing:
            find_in(RequestView(method=method, path="/", headers=headers), ALL, new_script)
        assert missing.value.reason is Reason.NO_CREDENTIALS
        assert list(missing.value.detail) == facts


def test_another_scheme_is_reported_unless_another_source_has_a_token(new_script: Any):
    basic = HeaderList([(b"authorization", b"Basic YTpi")])
    with pytest.raises(MissingCredentials) as missing:
        find_in(RequestView(method="GET", path="/", headers=basic), ALL, new_script)
    assert missing.value.reason is Reason.UNSUPPORTED_SCHEME
    request = RequestView(method="GET", path="/", headers=basic, query=b"access_token=t")
    assert find_in(request, ALL, new_script).token == "t"


def test_stray_query_token_is_refused_if_configured(new_script: Any):
    strict = TokenSources(stray_query_token=StrayQueryToken.REFUSE)
    assert find_in(view("t"), strict, new_script).token == "t"
    with pytest.raises(InvalidRequest) as refused:
        find_in(view("t", query=b"access_token=u"), strict, new_script)
    assert refused.value.reason is Reason.QUERY_TOKEN_REFUSED


def test_body_is_read_only_for_forms_and_up_to_the_limit(new_script: Any):
    script = new_script()
    limits = TokenSources(methods=frozenset((TokenSource.HEADER, TokenSource.FORM)), max_form_bytes=77)
    for request in (view("t"), view("t", method="POST"), view("t", method="GET", content_type=FORM)):
        script.play(find_credential(request, limits))
    assert script.form_limits == []
    script.play(find_credential(view("t", method="POST", content_type=FORM), limits))
    assert script.form_limits == [77]
    flow = find_credential(view("t", method="POST", content_type=FORM), limits)
    assert next(flow) == ReadForm(limit=77)


@pytest.mark.rule("B-56")
@pytest.mark.parametrize(
    "request_",
    [
        view,
        lambda token: view(query=b"access_token=" + token.encode()),
        lambda token: view(method="POST", content_type=FORM),
    ],
    ids=["header", "query", "form"],
)
def test_cleartext_token_is_reported_for_each_source(
    request_: Callable[[str], RequestView], bench: Any, authority: Any
):
    token = authority.mint()
    told: list[str] = []
    bench.script.form = b"access_token=" + token.encode()
    flow = authenticate(
        request_(token),
        ALL,
        Context(issuers=Issuers([bench.record], revocations=Revocations()), clock=authority.clock),
        on_credential=lambda found: told.append(found.token),
    )
    bench.script.play(flow)
    assert told == [token]


def test_cleartext_request_without_a_token_is_not_reported(bench: Any, authority: Any):
    def fail(found: Any) -> None:
        raise AssertionError("there was no token")

    flow = authenticate(
        view(),
        ALL,
        Context(issuers=Issuers([bench.record], revocations=Revocations()), clock=authority.clock),
        on_credential=fail,
    )
    with pytest.raises(MissingCredentials):
        bench.script.play(flow)


# -- clocks


@pytest.mark.rule("X-66")
def test_keys_age_by_the_monotonic_clock_and_tokens_by_the_wall_clock(bench: Any, authority: Any):
    token = authority.mint(expires_in=100)
    wall = authority.clock.wall()
    bench.judge(token)
    authority.clock.set_wall(wall + 50)
    bench.judge(token)
    assert not bench.script.background  # An hour of wall time does not age keys.
    authority.clock.set_wall(wall + 200)
    with pytest.raises(InvalidToken) as refused:
        bench.judge(token)
    assert refused.value.reason is Reason.TOKEN_EXPIRED
    authority.clock.advance(601)
    authority.clock.set_wall(wall)  # Set back: the token is valid again, but the keys are still old.
    bench.judge(token)
    assert bench.asked == [OAUTH, JWKS, JWKS]
