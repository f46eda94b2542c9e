"""Every bad token of the checklist can be minted, is bad for its own reason, and is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from jwt.algorithms import get_default_algorithms

from scopeguard import HeaderList, Issuer, KeySetPolicy, Reason, RequestView
from scopeguard.guard import Denied, Granted, Guard
from scopeguard.testing import BadToken, FakeAuthority, FakeClock, bad_keys, bad_tokens
from scopeguard.testing.forgeries.token_parts import Corpus

NAMES = sorted(bad_tokens(FakeAuthority(), strict=True))
KEY_NAMES = sorted(bad_keys(FakeAuthority()))

# The negative lines of the families J, P and X that a token alone can violate. The others need a key set (see below),
# a configuration, a request, a clock or an authority that misbehaves.
LINES = {
    "J": "01 02 03 04 05 06 07 08 10 11 12 14 15 18 19 20 25 26 27 28 29 30 33 34 36 37 38 39 41 42 43 44 45 46 47 48 "
    "49 51 52 53 54 55 56 57 58 59 60 62 63",
    "P": "01 03 05 06 07 08 09 14 18 19 21",
    "X": "01 02 03 04 05 06 09 12 13 14 15 16 17 18 19 20 21 25 26 27 28 29 30 34 35 36 38 39 40 41 42 43 44 45 46 47 "
    "48 49 50 53 57 78",
    "IJ": "01",
}
KEY_LINES = {"J": "15 16 17 22 23 24 31 32 35", "X": "07 08 09"}


def lines(table: Mapping[str, str]) -> set[str]:
    return {f"{family}-{number}" for family, numbers in table.items() for number in numbers.split()}


class World:
    def __init__(self) -> None:
        self.authority = FakeAuthority(clock=FakeClock(1_800_000_000))
        self.tokens = bad_tokens(self.authority, strict=True)
        self.default = self.guard(self.authority.issuer)
        self.strict = self.guard(Issuer(self.authority.url, audience=self.authority.audience, typ="at+jwt"))

    def guard(self, issuer: Issuer) -> Guard:
        guard = guard_of(self.authority, issuer)
        guard.warm()
        return guard


def guard_of(authority: FakeAuthority, issuer: Issuer) -> Guard:
    """A guard that looks for every unknown key at once: the clock stands still, and each costs one of its budget."""
    issuer = replace(issuer, key_set=KeySetPolicy(refetch_burst=1000))
    return Guard(issuer, transport=authority.transport, clock=authority.clock)


def judge(guard: Guard, token: str) -> Any:
    header = b"Bearer " + token.encode("ascii")
    return guard.check(RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", header)])))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.mark.rule("T-10")
def test_there_is_a_token_for_every_negative_line(world):
    covered = {rule for bad in world.tokens.values() for rule in bad.rules}
    assert lines(LINES) <= covered
    assert covered - lines(LINES) <= {"G-08", "G-10", "PQ-02", "PQ-03", "PQ-04"}
    assert len(world.tokens) > 500


@pytest.mark.rule("T-10")
@pytest.mark.parametrize("name", NAMES)
def test_each_bad_token_is_refused_with_its_status(world, name):
    bad = world.tokens[name]
    decision = judge(world.strict, bad.token)
    assert isinstance(decision, Denied), bad.why
    assert decision.error.status == bad.status
    assert decision.error.error == bad.error
    decision = judge(world.default, bad.token)
    assert isinstance(decision, Granted if bad.strict else Denied), bad.why


@pytest.mark.rule("T-10")
@pytest.mark.parametrize(
    ("prefix", "reasons"),
    [
        ("segments-", {Reason.MALFORMED_TOKEN}),
        ("signature-", {Reason.MALFORMED_TOKEN, Reason.BAD_SIGNATURE}),
        ("json-", {Reason.MALFORMED_CREDENTIALS}),
        ("base64-", {Reason.MALFORMED_TOKEN, Reason.MALFORMED_CREDENTIALS}),
        ("header-", {Reason.MALFORMED_TOKEN}),
        ("payload-", {Reason.MALFORMED_TOKEN}),
        ("too-large", {Reason.TOKEN_TOO_LARGE}),
        ("alg-none-", {Reason.MALFORMED_TOKEN, Reason.ALGORITHM_REFUSED}),
        ("hs", {Reason.ALGORITHM_REFUSED}),
        ("es256-", {Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY}),
        ("eddsa-", {Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY}),
        ("rs256-", {Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY, Reason.ALGORITHM_REFUSED}),
        ("key-from-", {Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY}),
        ("crit-", {Reason.CRITICAL_HEADER}),
        ("b64-false", {Reason.CRITICAL_HEADER, Reason.UNENCODED_PAYLOAD}),
        ("b64-true", {Reason.CRITICAL_HEADER, Reason.UNENCODED_PAYLOAD}),
        ("typ-", {Reason.TYPE_REFUSED}),
        ("cty-", {Reason.NESTED_TOKEN}),
        ("replicated-", {Reason.REPLICATED_CLAIM}),
        ("claim-aud-", {Reason.WRONG_AUDIENCE, Reason.MALFORMED_CLAIM, Reason.MISSING_CLAIM}),
        ("claim-iss-", {Reason.UNKNOWN_ISSUER, Reason.MALFORMED_CLAIM, Reason.MISSING_CLAIM}),
        ("claim-exp-past", {Reason.TOKEN_EXPIRED}),
        ("claim-exp-at-leeway", {Reason.TOKEN_EXPIRED}),
        ("claim-nbf-future", {Reason.TOKEN_NOT_YET_VALID}),
        ("claim-iat-future", {Reason.TOKEN_ISSUED_IN_FUTURE}),
        ("claim-scope-", {Reason.MALFORMED_SCOPE, Reason.MALFORMED_TOKEN}),
        ("claim-cnf-", {Reason.SENDER_CONSTRAINT_UNPROVEN}),
        ("jwe-", {Reason.ENCRYPTED_TOKEN, Reason.MALFORMED_CREDENTIALS}),
    ],
)
def test_each_kind_is_bad_for_its_own_reason(world, prefix, reasons):
    """A token that fell over something else would prove nothing about what it is for."""
    kind = [bad for name, bad in world.tokens.items() if name.startswith(prefix)]
    assert kind
    wrong = {bad.name: reason for bad in kind if (reason := judge(world.strict, bad.token).error.reason) not in reasons}
    assert not wrong


def verifies(token: str, jwks: list[dict[str, Any]]) -> bool:
    """Return whether a published key made the signature, by a library that checks nothing else."""
    text, _, signature = token.rpartition(".")
    octets = base64.urlsafe_b64decode(signature + "==")
    for jwk in jwks:
        algorithm = get_default_algorithms()[jwk["alg"]]
        if algorithm.verify(text.encode(), algorithm.from_jwk(json.dumps(jwk)), octets):
            return True
    return False


@pytest.mark.rule("T-10")
@pytest.mark.parametrize("prefix", ["claim-", "kind-", "crit-", "cty-", "typ-", "replicated-", "payload-", "header-"])
def test_tokens_with_invalid_content_have_a_valid_signature(world, prefix):
    """A verifier that checks only the signature accepts these tokens. They test the other checks."""
    jwks = world.authority.authority.keys.key_set(world.authority.clock.wall())["keys"]
    kind = [bad for name, bad in world.tokens.items() if name.startswith(prefix)]
    assert kind
    assert [bad.name for bad in kind if not verifies(bad.token, jwks)] == []


@pytest.mark.rule("T-10")
def test_tokens_are_derived_from_valid_ones(world):
    for algorithm in ("RS256", "PS256", "ES256", "ES384", "EdDSA"):
        assert isinstance(judge(world.strict, world.authority.mint("read", algorithm=algorithm)), Granted)


def test_no_token_causes_a_request_to_a_place_of_its_choice(world):
    for bad in world.tokens.values():
        judge(world.default, bad.token)
    assert {url.removeprefix(world.authority.url) for url in world.authority.requests} == {
        "/.well-known/oauth-authorization-server",
        "/jwks",
    }


def test_any_client_can_send_each_token(world):
    for bad in world.tokens.values():
        assert bad.token.isascii()
        assert bad.token.isprintable()
        assert bad.headers == {"Authorization": f"Bearer {bad.token}"}


@pytest.mark.parametrize(
    ("url", "audience"),
    [
        ("https://as.test/t1/", "https://api.test/v1/"),
        ("http://127.0.0.1:9000", "urn:api"),
        ("https://as.test", "api"),
        ("https://AS.TEST:443", "API"),
    ],
)
def test_tokens_are_bad_for_other_names_too(url, audience):
    authority = FakeAuthority(url, audience)
    tokens = bad_tokens(authority)
    guard = guard_of(authority, authority.issuer)
    assert isinstance(judge(guard, authority.mint("read")), Granted)
    accepted = [name for name, bad in tokens.items() if not isinstance(judge(guard, bad.token), Denied)]
    assert accepted == []


def test_leeway_is_that_of_the_guard():
    authority = FakeAuthority()
    guard = Guard(
        Issuer(authority.url, audience=authority.audience, leeway=0),
        transport=authority.transport,
        clock=authority.clock,
    )
    bad = bad_tokens(authority, leeway=0)["claim-exp-at-leeway"]
    exp = json.loads(base64.urlsafe_b64decode(bad.token.split(".")[1] + "=="))["exp"]
    assert exp == authority.clock.wall()
    assert isinstance(judge(guard, bad.token), Denied)


@pytest.mark.rule("T-10")
def test_there_is_a_key_for_every_bad_line_about_keys():
    covered = {rule for bad in bad_keys(FakeAuthority()).values() for rule in bad.rules}
    assert lines(KEY_LINES) <= covered


@pytest.mark.rule("T-10")
def test_bad_keys_verify_nothing_and_do_not_affect_good_ones():
    authority = FakeAuthority()
    keys = bad_keys(authority)
    guard = guard_of(authority, authority.issuer)
    assert isinstance(judge(guard, authority.mint("read")), Granted)
    assert [name for name, bad in keys.items() if not isinstance(judge(guard, bad.token), Denied)] == []
    authority.reset()
    assert len(authority.authority.keys.key_set(0)["keys"]) == 1 + len(("RS256", "EdDSA"))


def test_names_of_bad_tokens_are_unique():
    corpus = Corpus()
    corpus.bad("a", "b.c.d", "why", "J-01")
    with pytest.raises(ValueError, match="name a"):
        corpus.bad("a", "b.c.d", "why", "J-01")


def test_no_token_is_in_a_repr():
    bad = BadToken(name="a", token="sg-opaque-token", rules=(), why="because")
    assert "sg-opaque" not in repr(bad)


def test_malformed_credential_is_an_invalid_request():
    for token, status in (("a.b.c", 401), ("a.b.c==", 401), ("a b", 400), ('"a"', 400), ("x" * 16385, 400)):
        assert BadToken(name="a", token=token, rules=(), why="because").status == status


def test_corpus_is_read_only(world):
    with pytest.raises(TypeError):
        world.tokens["x"] = world.tokens["sd-jwt"]
