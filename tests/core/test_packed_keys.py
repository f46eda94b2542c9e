"""A key set that was packed at build time: used at once, refreshed in the background, never a reason to refuse."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scopeguard import ConfigurationError, Denied, Granted, Guard, HeaderList, Issuer, RequestView, Unavailable
from scopeguard.guard import engine_of
from scopeguard.presets import spiffe
from scopeguard.spec.packed_keys import pack_keys
from scopeguard.testing import FakeAuthority, bad_tokens

HOUR = 3600.0


def pack(authority: FakeAuthority) -> dict[str, Any]:
    now = authority.clock.wall()
    return pack_keys(authority.authority.keys.key_set(now), authority.url, now)


def build(authority: FakeAuthority, seed: Any, **policy: Any) -> Guard:
    issuer = replace(authority.issuer, jwks_seed=seed)
    if policy:
        issuer = replace(issuer, key_set=replace(issuer.key_set, **policy))
    return Guard(issuer, transport=authority.transport, clock=authority.clock)


def judge(guard: Guard, token: str) -> str:
    """Return ``granted`` or the reason of the refusal, after the flights that the request started have ended."""
    headers = HeaderList([(b"authorization", b"Bearer " + token.encode())])
    decision = guard.check(RequestView(method="GET", path="/", headers=headers))
    guard.close()
    match decision:
        case Granted():
            return "granted"
        case Denied(error=error):
            return error.reason.value
        case Unavailable(error=outage):
            return f"503 {outage.reason.value}"
        case other:
            raise AssertionError(other)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def test_first_request_does_not_wait_and_keys_are_fetched_behind_it(authority: FakeAuthority):
    guard = build(authority, pack(authority))
    headers = HeaderList([(b"authorization", authority.bearer("read")["Authorization"].encode())])
    with authority.hold() as held:
        assert isinstance(guard.check(RequestView(method="GET", path="/", headers=headers)), Granted)
        held.wait_for_requests()
    guard.close()
    asked = len(authority.requests)
    assert asked
    assert [judge(guard, authority.mint("read")) for _ in range(3)] == ["granted"] * 3
    assert len(authority.requests) == asked


@pytest.mark.parametrize("overlap", [True, False])
def test_token_of_a_rotated_key_waits_for_the_fetch(authority: FakeAuthority, overlap: bool):
    guard = build(authority, pack(authority))
    authority.rotate(overlap=overlap)
    assert judge(guard, authority.mint("read")) == "granted"


def test_token_of_a_rotated_key_gets_503_while_no_fetch_succeeds(authority: FakeAuthority):
    guard, packed = build(authority, pack(authority)), authority.mint("read")
    authority.rotate()
    with authority.outage():
        assert judge(guard, authority.mint("read")).startswith("503")
        assert judge(guard, packed) == "granted"
    authority.clock.advance(60)
    assert judge(guard, authority.mint("read")) == "granted"


def test_new_key_under_an_old_id_gets_503_while_no_fetch_succeeds(authority: FakeAuthority):
    """The packed key of that id, or its algorithm, says nothing about the token."""
    stranger = FakeAuthority(authority.url, audience=authority.audience, clock=authority.clock)
    kid = authority.key().kid
    seed = pack(authority)
    other = FakeAuthority(authority.url, audience=authority.audience, clock=authority.clock, algorithm="EdDSA")
    guard = build(authority, seed)
    with authority.outage():
        for signer in (stranger, other):
            assert judge(guard, signer.mint("read", headers={"kid": kid})).startswith("503")
    authority.clock.advance(60)
    assert judge(guard, stranger.mint("read", headers={"kid": kid})) == "bad_signature"


def test_key_that_the_published_set_limits_less_is_tried_again(authority: FakeAuthority):
    # Fault: a key that was tried with the limits of an older set was not tried with those of the new one.
    seed = pack(authority)
    seed["keys"] = [{**key, "issuer": "https://other.test"} for key in seed["keys"]]
    guard = build(authority, seed)
    assert judge(guard, authority.mint("read")) == "granted"


def test_packed_bundle_of_a_trust_domain_is_used_and_no_older_one_replaces_it(authority: FakeAuthority):
    # Fault: keys of a trust domain have another use, and a set that was packed for it was never usable.
    clock, transport = authority.clock, authority.transport
    bundle = authority.authority.keys.key_set(clock.wall())
    keys = [{**key, "use": "jwt-svid"} for key in bundle["keys"]]
    seed = pack_keys({"keys": keys, "spiffe_sequence": 7}, "spiffe://prod.test", clock.wall())
    issuer = spiffe("prod.test", authority.audience, jwks_uri="https://prod.test/bundle")
    guard = Guard(replace(issuer, jwks_seed=seed), transport=transport, clock=clock)
    token = authority.mint("read", headers={"typ": "JWT"}, claims={"sub": "spiffe://prod.test/api"})
    with authority.outage():
        assert judge(guard, token) == "granted"
    held = engine_of(guard).issuers.all[0].ring.current
    assert held is not None
    assert held.keys.sequence == 7


def test_withdrawn_key_leaves_with_the_first_fetch(authority: FakeAuthority):
    token, guard = authority.mint("read"), build(authority, pack(authority))
    authority.rotate(overlap=False)
    assert judge(guard, token) == "granted"  # the fetch ran behind it
    assert judge(guard, token) == "unknown_key"


def test_packed_set_is_used_until_its_age(authority: FakeAuthority):
    guard = build(authority, pack(authority), max_seed_age=2 * HOUR)
    with authority.outage():
        authority.clock.advance(HOUR)
        assert judge(guard, authority.mint("read")) == "granted"
        authority.clock.advance(HOUR)
        assert judge(guard, authority.mint("read")).startswith("503")


def test_age_counts_from_the_fetch_before_the_start(authority: FakeAuthority, caplog: pytest.LogCaptureFixture):
    seed = pack(authority)
    authority.clock.advance(8 * 24 * HOUR)
    guard = build(authority, seed)
    with caplog.at_level(logging.WARNING, "scopeguard"):
        assert judge(guard, authority.mint("read")) == "granted"  # it waited for a fetch
    assert authority.requests
    assert f"the jwks_seed of {authority.url} is not used: it is 192 hours old (key_set.max_seed_age)" in caplog.text
    with authority.outage():
        assert judge(build(authority, seed), authority.mint("read")).startswith("503")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"issuer": "https://other.example"}, "its member issuer is not"),
        ({"issuer": None}, "its member issuer is not"),
        ({"fetched_at": None}, "its member fetched_at is not a date"),
        ({"fetched_at": True}, "its member fetched_at is not a date"),
        ({"fetched_at": 20260101}, "its member fetched_at is not a date"),
        ({"fetched_at": float("nan")}, "not a JWK Set"),
        ({"fetched_at": 9e9}, "its date is in the future"),
        ({"fetched_at": 10**400}, "its member fetched_at is not a date"),
        ({"keys": []}, "without a usable key"),
        ({"keys": None}, "not a JWK Set"),
        ({"keys": [{"kty": "oct", "k": "AAAA"}]}, "it is symmetric"),
    ],
)
def test_file_that_cannot_be_used_is_logged_and_ignored(
    authority: FakeAuthority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: dict[str, Any],
    problem: str,
):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(pack(authority) | content), "utf-8")
    with caplog.at_level(logging.WARNING, "scopeguard"):
        assert judge(build(authority, str(path)), authority.mint("read")) == "granted"
    assert problem in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"keys": [], "keys": []}', b"\xff"])
def test_file_that_is_no_key_set_is_logged_and_ignored(
    authority: FakeAuthority, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
):
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "scopeguard"):
        assert judge(build(authority, str(path)), authority.mint("read")) == "granted"
    assert "is not used: " in caplog.text


def test_file_is_read_at_the_first_request(authority: FakeAuthority, tmp_path: Path):
    path = tmp_path / "keys.json"
    guard = build(authority, str(path))
    path.write_text(json.dumps(pack(authority)), "utf-8")
    with authority.outage():
        assert judge(guard, authority.mint("read")) == "granted"


def test_unusable_key_of_a_packed_set_is_named_once(authority: FakeAuthority, caplog: pytest.LogCaptureFixture):
    seed = pack(authority)
    seed["keys"] = [*seed["keys"], {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"}]
    with caplog.at_level(logging.WARNING, "scopeguard"):
        assert judge(build(authority, seed), authority.mint("read")) == "granted"
    assert caplog.text.count("kid='weak'") == 1


def test_warm_fetches_keys_and_an_outage_leaves_the_packed_ones(authority: FakeAuthority):
    guard = build(authority, pack(authority))
    with authority.outage():
        guard.warm()
        assert guard.ready().ready
        assert judge(guard, authority.mint("read")) == "granted"
    authority.clock.advance(60)
    guard.warm()
    assert not engine_of(guard).issuers.all[0].ring.is_packed


def test_no_hostile_token_is_accepted_with_packed_keys(authority: FakeAuthority):
    bad = bad_tokens(authority)  # the authority publishes the keys that sign them
    guard = build(authority, pack(authority))
    with authority.outage():
        assert [name for name, each in bad.items() if judge(guard, each.token) == "granted"] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jwks_seed": {"keys": []}}, "jwks_seed: must have issuer, fetched_at and keys"),
        ({"jwks_seed": {"issuer": "https://b.test", "fetched_at": 1, "keys": []}}, "keys of another issuer"),
        ({"jwks_seed": 7}, "jwks_seed: must be a packed key set, or the path of a file that holds one, not int"),
        ({"jwks_seed": "k", "jwks_file": "k"}, "jwks_seed: has no effect with jwks_file"),
        ({"jwks_seed": "k", "keys": {"keys": []}}, "jwks_seed: has no effect with keys"),
        ({"jwks_seed": "k", "jwks_uri": ["https://a.test/1", "https://a.test/2"]}, "with several jwks_uri"),
    ],
)
def test_settings_that_contradict_a_seed_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        Issuer("https://a.test", audience="x", **settings)
