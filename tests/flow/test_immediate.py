"""A new token is judged in one straight line or by the flow, with the same result.

The straight line may leave a token to the flow, and may never grant one that the flow refuses or reads differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from typing import Any

import pytest

from odd_tokens import Comparison, OddTokens
from scopeguard import DPoP, Guard, Introspection, Issuer, IssuerResolver, Validation
from scopeguard.flow.immediate import verify_at_once
from scopeguard.guard import engine_of
from scopeguard.state.status_list import StatusLists
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import BadToken, FakeAuthority, bad_tokens
from scopeguard.tokens import AccessToken

Settings = dict[str, Any]
POLICIES: dict[str, Settings] = {
    "the default": {},
    "only RFC 9068": {"typ": ("at+jwt",)},
    "aliases": {"aliases": {"https://other.test": {"tid": "x"}}},
    "few required claims": {"required_claims": ("sub",)},
    "a short lifetime": {"max_lifetime": 3600.0},
    "expected and forbidden claims": {"expected_claims": {"purpose": ("access",)}, "forbidden_claims": ("groups",)},
    "several scope claims": {"merge_scope_claims": True},
    "roles as scopes": {"role_claims": ("roles", "groups"), "roles_as_scopes": True},
    "other audience claims": {"audience_claims": ("aud", "azp")},
    "ID tokens": {"accept_id_tokens_dangerously": True},
    "dates in the past": {"past_claims": ("auth_time",)},
    "DPoP allowed": {"dpop": "allowed"},
}


def comparison_of(authority: FakeAuthority, settings: Settings) -> Comparison:
    issuer = replace(authority.issuer, **settings)
    proofs: Settings = {"dpop": DPoP(), "resource": "https://api.test"} if "dpop" in settings else {}
    guard = Guard(issuer, transport=authority.transport, clock=authority.clock, **proofs)
    return Comparison(guard, authority.mint("read", claims={"purpose": "access"}))


@pytest.mark.parametrize("policy", POLICIES)
def test_odd_tokens_get_the_same_judgement_in_both_ways(policy: str):
    authority = FakeAuthority(algorithm="EdDSA")
    comparison = comparison_of(authority, POLICIES[policy])
    for number, token in enumerate(islice(OddTokens(authority, seed=2026, claims={"purpose": "access"}), 300)):
        assert comparison.compare(token) is None, f"token {number}"
    assert comparison.granted > 20
    assert comparison.refused > 50
    assert comparison.left == 0


@pytest.fixture(scope="module")
def hostile() -> tuple[FakeAuthority, Mapping[str, BadToken]]:
    authority = FakeAuthority(algorithm="ES256")
    return authority, bad_tokens(authority)


@pytest.mark.parametrize("policy", POLICIES)
def test_hostile_tokens_are_left_to_the_flow(hostile: tuple[FakeAuthority, Mapping[str, BadToken]], policy: str):
    authority, tokens = hostile
    comparison = comparison_of(authority, POLICIES[policy])
    for name, bad in tokens.items():
        assert comparison.compare(bad.token) is None, name


# -- each condition alone


Verify = Callable[[str], AccessToken | None]


def verifier(guard: Guard) -> Verify:
    """Return a function that verifies a token at once, or returns ``None``."""
    engine = engine_of(guard)
    cache = engine.context.token_cache
    assert cache is not None

    def verify(token: str) -> AccessToken | None:
        octets = token.encode()
        return verify_at_once(octets, sha256(octets).digest(), engine.context, cache, engine.clock.wall())

    return verify


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def check_by_flow(guard: Guard, authority: FakeAuthority, **request: Any) -> None:
    assert isinstance(Comparison(guard, authority.mint("read", **request)), Comparison)


def guard_of(authority: FakeAuthority, issuer: Issuer | None = None, **settings: Any) -> Guard:
    return Guard(issuer or authority.issuer, transport=authority.transport, clock=authority.clock, **settings)


def test_token_is_verified_at_once_after_another_with_its_header(authority: FakeAuthority):
    guard = guard_of(authority)
    verify = verifier(guard)
    assert verify(authority.mint("read")) is None  # no token with this header was accepted
    check_by_flow(guard, authority)
    token = authority.mint("write")
    found = verify(token)
    assert found is not None
    assert found.scopes == {"write"}
    assert verify(token) is None  # it is cached now
    assert verify("e30.e30.e30") is None
    assert verify("") is None


def test_cached_token_is_the_one_that_was_verified_at_once(authority: FakeAuthority):
    guard = guard_of(authority)
    check_by_flow(guard, authority)
    token = authority.mint("write")
    found = verifier(guard)(token)
    cache = engine_of(guard).context.token_cache
    assert cache is not None
    cached = cache.find(sha256(token.encode()).digest(), authority.clock.wall())
    assert cached is not None
    assert cached.access == found


def other_signature(token: str) -> str:
    return token[:-10] + ("A" * 10 if token[-10:] != "A" * 10 else "B" * 10)


def test_bad_signature_is_left_to_the_flow(authority: FakeAuthority):
    guard = guard_of(authority)
    check_by_flow(guard, authority)
    assert verifier(guard)(other_signature(authority.mint("write"))) is None


class Counting:
    """A signature backend that counts verifications, and accepts the signatures that do not end in ``AAAA``."""

    name = "counting"

    def __init__(self) -> None:
        self.calls = 0

    def prepare(self, algorithm: str, public_key: object, /) -> Callable[[bytes, bytes], bool]:
        def verify(signed: bytes, signature: bytes) -> bool:
            self.calls += 1
            return not signature.endswith(bytes(6))

        return verify


def test_flood_of_bad_signatures_is_verified_once_per_token(authority: FakeAuthority):
    backend = Counting()
    guard = guard_of(authority, signature_backends=[backend])
    check_by_flow(guard, authority)
    verify = verifier(guard)
    assert verify(authority.mint("write")) is not None
    assert verify(other_signature(authority.mint("write"))) is None
    before = backend.calls
    forged = [other_signature(authority.mint("write", claims={"n": number})) for number in range(20)]
    assert [verify(token) for token in forged] == [None] * 20
    assert backend.calls == before  # the flow verifies them, and nothing else does
    assert verify(authority.mint("read")) is None
    authority.clock.advance(1.0)
    assert verify(authority.mint("read")) is not None


def test_token_is_left_to_the_flow_when_a_key_refresh_is_due(authority: FakeAuthority):
    guard = guard_of(authority)
    check_by_flow(guard, authority)
    ring = engine_of(guard).issuers.all[0].ring
    held = ring.current
    assert held is not None
    ring.current = replace(held, refresh_at=authority.clock.monotonic())
    assert verifier(guard)(authority.mint("write")) is None
    ring.current = None
    assert verifier(guard)(authority.mint("write")) is None


def test_token_is_left_to_the_flow_after_any_revocation(authority: FakeAuthority):
    guard = guard_of(authority)
    check_by_flow(guard, authority)
    guard.revoke(jti="of another token")
    assert verifier(guard)(authority.mint("write")) is None


def test_token_is_left_to_the_flow_if_a_store_is_shared(authority: FakeAuthority):
    guard = guard_of(authority, store=MemoryStore(authority.clock))
    check_by_flow(guard, authority)
    assert verifier(guard)(authority.mint("write")) is None


def test_bound_token_is_left_to_the_flow(authority: FakeAuthority):
    guard = guard_of(authority, dpop=DPoP(), resource="https://api.test")
    check_by_flow(guard, authority)
    verify = verifier(guard)
    assert verify(authority.mint("read")) is not None
    assert verify(authority.mint("read", claims={"cnf": {"jkt": "A" * 43}})) is None


class Broken:
    """A signature backend that fails after its first verification."""

    name = "broken"

    def __init__(self) -> None:
        self.calls = 0

    def prepare(self, algorithm: str, public_key: object, /) -> Callable[[bytes, bytes], bool]:
        def verify(signed: bytes, signature: bytes) -> bool:
            self.calls += 1
            if self.calls > 1:
                raise OSError
            return True

        return verify


def test_failure_of_a_signature_backend_is_left_to_the_flow(authority: FakeAuthority):
    backend = Broken()
    guard = guard_of(authority, signature_backends=[backend])
    check_by_flow(guard, authority)
    assert verifier(guard)(authority.mint("write")) is None
    assert backend.calls == 2


def test_headers_of_special_issuers_are_not_known(authority: FakeAuthority):
    """Exceptions are issuers whose tokens need an effect, a proof or another request field."""
    plain = engine_of(guard_of(authority)).issuers.all[0]
    assert plain.needs_computation_only
    changes: dict[str, Settings] = {
        "introspection": {
            "validate": Validation.INTROSPECTION,
            "introspection": Introspection(
                endpoint="https://as.test/introspect", client_id="api", client_secret="s" * 16
            ),
        },
        "proofs": {"dpop": "required"},
        "a field": {"token_header": "X-Assertion"},
        "a key per URL": {"key_url_template": "https://as.test/keys/{kid}"},
    }
    for name, settings in changes.items():
        assert not replace(plain, issuer=replace(plain.issuer, **settings)).needs_computation_only, name
    assert not replace(plain, others=(plain,)).needs_computation_only
    assert not replace(plain, status_lists=StatusLists(max_bytes=1000)).needs_computation_only


def test_headers_of_resolved_issuers_are_not_known(authority: FakeAuthority):
    resolver = IssuerResolver(accepts=lambda name: True, resolve=lambda name: authority.issuer)
    guard = Guard(resolver=resolver, transport=authority.transport, clock=authority.clock)
    check_by_flow(guard, authority)
    assert not engine_of(guard).issuers.accepted
    assert verifier(guard)(authority.mint("write")) is None


def test_headers_of_tokens_that_need_no_issuer_are_not_known(authority: FakeAuthority):
    guard = guard_of(authority, replace(authority.issuer, issuer_claim_optional_dangerously=True))
    check_by_flow(guard, authority)
    assert verifier(guard)(authority.mint("write")) is None


def test_headers_that_replicate_claims_are_not_known(authority: FakeAuthority):
    guard = guard_of(authority)
    check_by_flow(guard, authority, headers={"iss": authority.url})
    assert not engine_of(guard).issuers.accepted


# -- a header that proves nothing about the next token with it


def test_token_of_a_withdrawn_key_is_refused_though_its_header_is_known(authority: FakeAuthority):
    """Fault: what was learned from an accepted token outlives the key that signed it."""
    guard = guard_of(authority)
    check_by_flow(guard, authority)
    withdrawn, before = authority.key(), authority.mint("write")
    authority.rotate(overlap=False)
    authority.clock.advance(100_000)
    assert isinstance(Comparison(guard, authority.mint("read")).judge_by_flow(before), str)
    late = authority.mint("write", key=withdrawn)
    assert verifier(guard)(late) is None
    assert Comparison(guard, authority.mint("read")).judge_by_flow(late) == "unknown_key"


def two_issuers_with_equal_headers() -> tuple[FakeAuthority, FakeAuthority, Guard]:
    first = FakeAuthority(algorithm="ES256")
    second = FakeAuthority("https://other.test", algorithm="ES256", clock=first.clock)
    kid = first.key().kid
    keys = [{**each.key().public_jwk(), "kid": kid} for each in (first, second)]
    issuers = [replace(each.issuer, keys={"keys": [key]}) for each, key in zip((first, second), keys, strict=True)]
    return first, second, Guard(*issuers, clock=first.clock, transport=first.transport)


def test_two_issuers_may_share_the_text_of_a_header():
    """Fault: a token is judged by the policy and the keys of another issuer."""
    first, second, guard = two_issuers_with_equal_headers()
    check_by_flow(guard, first)
    kid = {"kid": first.key().kid}
    verify = verifier(guard)
    own, other = first.mint("read"), second.mint("write", headers=kid)
    assert own.partition(".")[0] == other.partition(".")[0]
    assert verify(own) is not None
    assert verify(other) is None
    found = Comparison(guard, first.mint("read")).judge_by_flow(other)
    assert isinstance(found, AccessToken)
    assert found.issuer == second.url
    forged = second.mint("admin", headers=kid, claims={"iss": first.url})
    assert verify(forged) is None
    assert Comparison(guard, first.mint("read")).judge_by_flow(forged) == "bad_signature"
