"""DPoP (RFC 9449) through the guard: a stolen token opens nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from scopeguard import (
    ConfigurationError,
    Denied,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    Introspection,
    Issuer,
    Reason,
    RequestView,
    Rule,
    Rules,
    Unavailable,
    all_of,
    asgi,
    wsgi,
)
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.core.starting import take_over
from scopeguard.errors import AuthorityUnavailable, InvalidProof, NonceRequired
from scopeguard.flow.effects import Store
from scopeguard.guard import Decision, engine_of
from scopeguard.request import ProofNotes
from scopeguard.spec.dpop import single_proof, token_hash
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority, FakeClock, ProofKey
from scopeguard.tokens import Anonymous

RES = "https://api.test/v1"
URI = "https://api.test/v1/rows"
NONCE_KEY = "a secret of the operator, 32 bytes or more"
KEY = ProofKey()
OTHER = ProofKey()


class Api:
    """A guard with DPoP, and requests to it."""

    def __init__(self, *, store: Store | None = None, issuer: Mapping[str, Any] | None = None, **policy: Any) -> None:
        self.authority = FakeAuthority(audience=RES)
        self.clock: FakeClock = self.authority.clock
        self.guard = self.another(store=store, issuer=issuer, **policy)
        self.token = self.authority.mint("read", bound_to=KEY)

    def another(self, *, store: Store | None = None, issuer: Mapping[str, Any] | None = None, **policy: Any) -> Guard:
        return Guard(
            Issuer(self.authority.url, **(issuer or {})),
            resource=RES,
            dpop=DPoP(**policy),
            store=store,
            transport=self.authority.transport,
            clock=self.clock,
            audit="off",
        )

    def proof(self, **overrides: Any) -> str:
        key = overrides.pop("key", KEY)
        token = overrides.pop("token", self.token)
        method, uri = overrides.pop("method", "GET"), overrides.pop("uri", URI)
        proof: str = key.proof(token, method, uri, at=self.clock.wall(), **overrides)
        return proof

    def request(
        self,
        *proofs: str,
        token: str | None = None,
        scheme: str = "DPoP",
        raw_path: bytes | None = b"/v1/rows",
        **view: Any,
    ) -> RequestView:
        pairs = [(b"authorization", f"{scheme} {token or self.token}".encode())]
        pairs += [(b"dpop", proof.encode()) for proof in proofs]
        given = {"method": "GET", "path": "/v1/rows", "raw_path": raw_path, "headers": HeaderList(pairs), **view}
        return RequestView(**given)

    def send(self, *proofs: str, **view: Any) -> Decision:
        return self.guard.check(self.request(*proofs, **view), all_of("read"))


@pytest.fixture
def api() -> Api:
    return Api()


def challenges(decision: Decision) -> dict[str, str]:
    assert isinstance(decision, Denied), decision
    values = [value for name, value in decision.response.headers if name == "www-authenticate"]
    found = dict(value.partition(" ")[::2] for value in values)
    assert len(found) == len(values)
    return found


def refusal(decision: Decision) -> tuple[int, Reason, str]:
    """Return the status, the reason, and the error in the challenge of the scheme DPoP."""
    assert isinstance(decision, Denied), decision
    value = challenges(decision).get("DPoP", "")
    return decision.response.status, decision.error.reason, value.partition('error="')[2].partition('"')[0]


@pytest.mark.rule("B-55", "X-53")
@pytest.mark.parametrize("token", ["bound", "unbound", "malformed"])
def test_optional_route_that_requires_a_proof_refuses_a_token_without_one(token: str):
    for required, asked in ((Api(mode="required"), None), (Api(), DPoPMode.REQUIRED)):
        sent = {"bound": required.token, "unbound": required.authority.mint("read"), "malformed": "x"}[token]
        view = required.request(token=sent, scheme="Bearer")
        decision = engine_of(required.guard).check(view, optional=True, dpop=asked)
        assert refusal(decision) == (401, Reason.UNSUPPORTED_SCHEME, "")
        nothing = RequestView(method="GET", path="/v1/rows", headers=HeaderList([]))
        assert isinstance(engine_of(required.guard).check(nothing, optional=True, dpop=asked), Anonymous)


@pytest.mark.rule("D-01")
@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "EdDSA"])
def test_the_holder_of_the_key_is_admitted(api: Api, algorithm: str):
    key = ProofKey(algorithm)
    token = api.authority.mint("read", bound_to=key)
    decision = api.send(api.proof(key=key, token=token), token=token)
    assert isinstance(decision, Granted)
    assert decision.access_token.sender_constrained is True
    again = api.send(api.proof(key=key, token=token), token=token)  # from the token cache, with a proof of its own
    assert isinstance(again, Granted)


@pytest.mark.rule("D-02")
@pytest.mark.parametrize("scheme", ["dpop", "DPOP", "DPoP  "])
def test_the_scheme_is_case_insensitive(api: Api, scheme: str):
    assert isinstance(api.send(api.proof(), scheme=scheme), Granted)


@pytest.mark.rule("D-42", "D-43")
def test_the_examples_of_the_rfc_are_reproduced():
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    assert token_hash(token) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
    from scopeguard.spec.jwks import thumbprint

    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    }
    assert thumbprint(jwk) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


PRIVATE = {"d": "AAAA"}
HEADERS: dict[str, dict[str, Any]] = {
    "no typ": {"typ": None},
    "typ JWT": {"typ": "JWT"},
    "typ at+jwt": {"typ": "at+jwt"},
    "typ of another kind": {"typ": 7},
    "alg none": {"alg": "none"},
    "alg HS256": {"alg": "HS256"},
    "alg RS256, not enabled": {"alg": "RS256"},
    "alg ES256K": {"alg": "ES256K"},
    "alg for another key": {"alg": "EdDSA"},
    "no alg": {"alg": None},
    "no jwk": {"jwk": None},
    "jwk is a string": {"jwk": "key"},
    "kid instead of jwk": {"jwk": None, "kid": "k"},
    "jku instead of jwk": {"jwk": None, "jku": "https://evil.example/jwks"},
    "x5c instead of jwk": {"jwk": None, "x5c": ["AAAA"]},
    "a private member": {"jwk": {**KEY.jwk, **PRIVATE}},
    "a symmetric key": {"jwk": {"kty": "oct", "k": "AAAA"}},
    "a point off the curve": {"jwk": {**KEY.jwk, "x": KEY.jwk["y"]}},
    "crit": {"crit": ["exp"]},
    "b64": {"b64": False},
    "cty JWT": {"cty": "JWT"},
}
CLAIMS: dict[str, dict[str, Any]] = {
    "no jti": {"jti": None},
    "jti is a number": {"jti": 7},
    "jti is empty": {"jti": ""},
    "jti of 10 kB": {"jti": "x" * 2000},
    "no htm": {"htm": None},
    "htm in lower case": {"htm": "get"},
    "htm of another method": {"htm": "POST"},
    "htm is a list": {"htm": ["GET"]},
    "no htu": {"htu": None},
    "htu is a number": {"htu": 1},
    "htu of another path": {"htu": "https://api.test/v1/other"},
    "htu of another host": {"htu": "https://evil.test/v1/rows"},
    "htu with http": {"htu": "http://api.test/v1/rows"},
    "htu with another port": {"htu": "https://api.test:8443/v1/rows"},
    "htu in capitals": {"htu": "https://api.test/V1/rows"},
    "htu with a slash more": {"htu": "https://api.test/v1/rows/"},
    "htu without host": {"htu": "/v1/rows"},
    "htu without scheme": {"htu": "//api.test/v1/rows"},
    "htu with a user": {"htu": "https://u@api.test/v1/rows"},
    "htu with a script": {"htu": "javascript:alert(1)"},
    "htu with a wrong port": {"htu": "https://api.test:99999999/v1/rows"},
    "htu with a space": {"htu": "https://api.test/v1/rows /"},
    "no ath": {"ath": None},
    "ath of another token": {"ath": token_hash("a.b.c")},
    "ath padded": {"ath": token_hash("a.b.c") + "="},
    "no iat": {"iat": None},
    "iat true": {"iat": True},
    "iat is a string": {"iat": "1800000000"},
    "iat far too large": {"iat": 10**30},
    "iat negative": {"iat": -1},
    "exp in the past": {"exp": 1},
    "exp is a string": {"exp": "later"},
    "nbf in the future": {"nbf": 2**40},
}


@pytest.mark.rule("D-05", "D-09", "D-11", "D-13", "D-14", "D-15", "D-16")
@pytest.mark.parametrize("headers", HEADERS.values(), ids=list(HEADERS))
def test_a_proof_with_a_bad_header_is_refused(api: Api, headers: dict[str, Any]):
    status, _, error = refusal(api.send(api.proof(headers=headers)))
    assert (status, error) == (401, "invalid_dpop_proof")


@pytest.mark.rule("D-07", "D-08", "D-17", "D-21", "D-24", "D-25", "D-40", "D-41", "D-42", "D-56")
@pytest.mark.parametrize("claims", CLAIMS.values(), ids=list(CLAIMS))
def test_a_proof_with_a_bad_claim_is_refused(api: Api, claims: dict[str, Any]):
    status, _, error = refusal(api.send(api.proof(claims=claims)))
    assert (status, error) == (401, "invalid_dpop_proof")


@pytest.mark.rule("D-03", "D-04", "D-05", "D-06", "D-12", "D-66", "D-71", "D-73")
@pytest.mark.parametrize(
    ("proofs", "reason"),
    [
        (lambda api: [], Reason.PROOF_MISSING),
        (lambda api: [api.proof(), api.proof()], Reason.PROOF_REPEATED),
        (lambda api: [f"{api.proof()}, {api.proof()}"], Reason.PROOF_REPEATED),
        (lambda api: [f"{api.proof()},"], Reason.PROOF_REPEATED),
        (lambda api: [""], Reason.PROOF_MALFORMED),
        (lambda api: ["abc"], Reason.PROOF_MALFORMED),
        (lambda api: ["\u00e9.a.b"], Reason.PROOF_MALFORMED),
        (lambda api: ["a.b.c.d.e"], Reason.PROOF_MALFORMED),
        (lambda api: [api.proof() + "."], Reason.PROOF_MALFORMED),
        (lambda api: [api.proof().rpartition(".")[0] + "." + "A" * 86], Reason.PROOF_SIGNATURE),
        (lambda api: ["x" * 9000], Reason.PROOF_TOO_LARGE),
        (lambda api: [api.proof(claims={"x": "y" * 9000})], Reason.PROOF_TOO_LARGE),
    ],
    ids=["none", "two", "joined", "comma", "empty", "a word", "not ASCII", "five", "four", "signature", "long", "big"],
)
def test_a_field_that_is_not_one_proof_is_refused(api: Api, proofs: Callable[[Api], list[str]], reason: Reason):
    assert refusal(api.send(*proofs(api))) == (401, reason, "invalid_dpop_proof")


def test_the_log_says_why_a_proof_is_missing_and_how_old_a_used_one_is(api: Api):
    missing = api.send()
    assert isinstance(missing, Denied)
    assert {name: missing.error.detail[name] for name in ("bound", "mode")} == {"bound": "to a key", "mode": "allowed"}
    proof = api.proof()
    api.send(proof)
    api.clock.advance(3)
    used = api.send(proof)
    assert isinstance(used, Denied)
    assert used.error.detail["age"] == "3 s"


@pytest.mark.rule("D-05")
def test_a_proof_whose_claims_are_not_strict_json_is_refused(api: Api):
    from base64 import urlsafe_b64encode

    head = api.proof().partition(".")[0]
    for payload in (b'{"jti": "a", "jti": "b"}', b"[]", b"{"):
        signed = f"{head}.{urlsafe_b64encode(payload).decode().rstrip('=')}"
        assert refusal(api.send(f"{signed}.AAAA"))[1] is Reason.PROOF_MALFORMED


@pytest.mark.rule("D-11", "D-16")
def test_a_header_that_was_accepted_before_is_still_compared_with_the_policy(api: Api):
    assert isinstance(api.send(api.proof()), Granted)
    strict = api.another(algorithms=["PS256"])
    assert refusal(strict.check(api.request(api.proof())))[1] is Reason.PROOF_MALFORMED
    forged = api.proof().rpartition(".")[0] + "." + "A" * 86  # with a key that is known
    assert refusal(api.send(forged))[1] is Reason.PROOF_SIGNATURE


@pytest.mark.rule("D-10", "D-18", "D-19", "D-20", "D-41", "D-67")
@pytest.mark.parametrize(
    "overrides",
    [
        {"headers": {"typ": "application/dpop+jwt"}},
        {"headers": {"typ": "DPoP+JWT"}},
        {"uri": URI + "?a=1"},
        {"uri": URI + "#x"},
        {"uri": "HTTPS://API.test:443/%761/./x/../rows"},
        {"uri": "wss://api.test/v1/rows"},
        {"claims": {"foo": "bar", "exp": 2**33, "nbf": 1}},
    ],
)
def test_equal_spellings_are_accepted(api: Api, overrides: dict[str, Any]):
    assert isinstance(api.send(api.proof(**overrides)), Granted)


@pytest.mark.rule("D-19")
def test_strict_htu_refuses_a_query():
    api = Api(strict_htu=True)
    assert refusal(api.send(api.proof(uri=URI + "?a=1")))[1] is Reason.PROOF_MISMATCH


@pytest.mark.rule("D-21", "D-22", "D-23", "D-72")
@pytest.mark.parametrize(
    ("raw_path", "path", "uri", "granted"),
    [
        (b"/v1/a%2Fb", "/v1/a/b", "https://api.test/v1/a%2fb", True),
        (b"/v1/a%2Fb", "/v1/a/b", "https://api.test/v1/a/b", False),
        (b"/v1/rows?x=1", "/v1/rows", URI, True),
        (b"https://api.test/v1/rows", "/v1/rows", URI, True),
        (None, "/v1/r\u00f6ws", "https://api.test/v1/r%C3%B6ws", True),
        (None, "/v1/rows:batch@(a,b)", "https://api.test/v1/rows:batch@(a,b)", True),
        (b"", "/", "https://api.test/", True),
        (b"/..", "/", "https://api.test/", True),
        (b"/a/..", "/", "https://api.test", True),
        (b"*", "*", "https://api.test/*", False),
    ],
)
def test_the_raw_path_is_compared(api: Api, raw_path: bytes | None, path: str, uri: str, *, granted: bool):
    decision = api.send(api.proof(uri=uri), raw_path=raw_path, path=path)
    assert isinstance(decision, Granted) is granted


@pytest.mark.rule("D-22", "D-23")
@pytest.mark.parametrize(
    ("base_url", "uri"),
    [
        ("https://gateway.test:8443/prefix", "https://gateway.test:8443/prefix/v1/rows"),
        ("https://gateway.test/prefix/", "https://gateway.test/prefix/v1/rows"),
        ("http://[::1]:8000", "http://[::1]:8000/v1/rows"),
    ],
)
def test_a_prefix_that_a_proxy_removes_is_configured(base_url: str, uri: str):
    api = Api(base_url=base_url)
    assert isinstance(api.send(api.proof(uri=uri)), Granted)
    assert refusal(api.send(api.proof()))[1] is Reason.PROOF_MISMATCH


@pytest.mark.rule("D-37", "D-38")
@pytest.mark.parametrize(("age", "granted"), [(60, True), (61, False), (-10, True), (-11, False)])
def test_a_proof_is_accepted_for_a_minute(api: Api, age: int, *, granted: bool):
    decision = api.send(api.proof(claims={"iat": int(api.clock.wall()) - age}))
    assert isinstance(decision, Granted) is granted


@pytest.mark.rule("D-43", "D-46", "D-61")
def test_token_and_key_must_belong_together(api: Api):
    token = api.authority.mint("read", bound_to=OTHER)
    assert refusal(api.send(api.proof(token=token), token=token)) == (401, Reason.WRONG_PROOF_KEY, "invalid_token")
    unbound = api.authority.mint("read")
    refused = api.send(api.proof(token=unbound), token=unbound)
    assert refusal(refused) == (401, Reason.WRONG_PROOF_KEY, "invalid_token")
    expired = api.authority.mint("read", bound_to=KEY, expires_in=-100)
    assert refusal(api.send(api.proof(token=expired), token=expired)) == (401, Reason.TOKEN_EXPIRED, "invalid_token")


@pytest.mark.rule("D-44", "D-45", "D-49", "D-52")
def test_a_bound_token_is_not_accepted_as_a_bearer_token(api: Api):
    for _ in range(3):  # not from the token cache either
        for proofs in ((), (api.proof(),)):
            found = challenges(api.send(*proofs, scheme="Bearer"))
            assert 'error="invalid_token"' in found["Bearer"]
            assert "error" not in found["DPoP"]
        assert isinstance(api.send(api.proof()), Granted)


@pytest.mark.rule("D-53", "D-77")
def test_a_proof_beside_an_unbound_bearer_token_has_no_effect(api: Api):
    decision = api.send(api.proof(), token=api.authority.mint("read"), scheme="Bearer")
    assert isinstance(decision, Granted)
    assert decision.access_token.sender_constrained is False


UNENFORCED: list[Any] = [
    {"kid": "x"},
    {},
    [],
    "x",
    {"jkt": ""},
    {"jkt": 5},
    {"jkt": KEY.thumbprint + "="},
    {"jkt": "A" * 44},
    {"jkt": KEY.thumbprint, "x5t#S256": "x"},
    {"jkt": KEY.thumbprint[:-1] + "B"},
]


@pytest.mark.rule("D-64", "D-65")
@pytest.mark.parametrize("cnf", UNENFORCED, ids=range(len(UNENFORCED)))
def test_a_confirmation_that_is_not_enforced_refuses_the_token(api: Api, cnf: Any):
    token = api.authority.mint("read", claims={"cnf": cnf})
    for scheme in ("DPoP", "Bearer"):
        decision = api.send(api.proof(token=token), token=token, scheme=scheme)
        assert isinstance(decision, Denied)
        assert (decision.response.status, decision.error.error) == (401, "invalid_token")


@pytest.mark.rule("D-48", "D-50", "D-76", "B-45", "R-23", "R-32")
def test_without_credentials_both_schemes_are_offered(api: Api):
    view = RequestView(method="GET", path="/v1/rows", headers=HeaderList([]))
    found = challenges(api.guard.check(view, all_of("read")))
    assert list(found) == ["Bearer", "DPoP"]
    assert "error" not in "".join(found.values())
    assert 'algs="ES256 PS256 EdDSA Ed25519"' in found["DPoP"]
    assert "algs" not in found["Bearer"]
    assert all('scope="read"' in value and "resource_metadata=" in value for value in found.values())


@pytest.mark.rule("D-51", "D-68", "R-14")
def test_no_bearer_challenge_is_sent_if_proofs_are_required():
    api = Api(mode="required")
    for fields in ([], [(b"authorization", f"Bearer {api.authority.mint('read')}".encode())]):
        view = RequestView(method="GET", path="/v1/rows", headers=HeaderList(fields))
        for _ in range(3):
            found = challenges(api.guard.check(view, all_of("read")))
            assert list(found) == ["DPoP"]
            assert "error" not in found["DPoP"]
    proxy = RequestView(
        method="GET",
        path="/v1/rows",
        headers=HeaderList([(b"proxy-authorization", f"DPoP {api.token}".encode()), (b"dpop", api.proof().encode())]),
    )
    assert "error" not in challenges(api.guard.check(proxy, all_of("read")))["DPoP"]
    assert isinstance(api.send(api.proof()), Granted)


@pytest.mark.rule("D-47")
@pytest.mark.parametrize("joined", [True, False])
def test_two_schemes_in_one_request_are_refused_in_both_challenges(api: Api, *, joined: bool):
    values = [b"Bearer " + api.token.encode(), b"DPoP " + api.token.encode()]
    if joined:
        values = [b", ".join(values)]
    view = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", value) for value in values]))
    decision = api.guard.check(view)
    assert isinstance(decision, Denied)
    assert decision.response.status == 400
    if not joined:
        assert all('error="invalid_request"' in value for value in challenges(decision).values())


@pytest.mark.parametrize("value", ["DPoP", "DPoP ", "DPoP\tx", "DPoP a b", "DPoP " + "a" * 20_000])
def test_malformed_credentials_are_an_invalid_request(api: Api, value: str):
    view = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", value.encode())]))
    decision = api.guard.check(view)
    assert isinstance(decision, Denied)
    assert decision.response.status == 400


@pytest.mark.rule("D-49", "P-11")
def test_a_missing_scope_is_named_in_the_challenge_of_the_scheme(api: Api):
    token = api.authority.mint("other", bound_to=KEY)
    found = challenges(api.send(api.proof(token=token), token=token))
    assert list(found) == ["DPoP"]
    assert 'error="insufficient_scope"' in found["DPoP"]
    bearer = challenges(api.send(token=api.authority.mint("other"), scheme="Bearer"))
    assert list(bearer) == ["Bearer"]


# Modes of issuers and rules


def test_an_issuer_may_require_proofs():
    api = Api(issuer={"dpop": "required"})
    unbound = api.authority.mint("read")
    for _ in range(3):  # from the token cache as well
        decision = api.send(token=unbound, scheme="Bearer")
        assert isinstance(decision, Denied)
        assert decision.error.reason is Reason.SENDER_CONSTRAINT_MISSING
    assert isinstance(api.send(api.proof()), Granted)


def test_an_issuer_may_refuse_bound_tokens():
    api = Api(issuer={"dpop": "off"})
    assert refusal(api.send(api.proof()))[1] is Reason.SENDER_CONSTRAINT_UNPROVEN
    assert isinstance(api.send(token=api.authority.mint("read"), scheme="Bearer"), Granted)


def test_a_rule_may_require_proofs():
    api = Api()
    rule = Rule("/v1/rows", all_of("read"), dpop="required")
    assert rule.is_plain is False  # the quick way does not know about proofs
    engine, unbound = engine_of(api.guard), api.authority.mint("read")
    view = api.request(token=unbound, scheme="Bearer")
    assert isinstance(engine.check(view, rule.requirement), Granted)
    assert list(challenges(engine.check(view, rule.requirement, dpop=rule.mode))) == ["Bearer", "DPoP"]
    assert isinstance(engine.check(api.request(api.proof()), rule.requirement, dpop=rule.mode), Granted)
    required = api.another(mode="required")
    relaxed = Rule("/v1/rows", all_of("read"), dpop="allowed")
    assert isinstance(engine_of(required).check(view, relaxed.requirement, dpop=relaxed.mode), Granted)


RULE = Rule("/bound", all_of("read"), dpop="required")


@pytest.mark.parametrize(
    ("settings", "rule", "modes"),
    [
        # what a bound token with a proof and an unbound bearer token get on the route of the rule, and elsewhere
        ({"dpop": None, "issuer": "required"}, None, [(200, 401), (200, 401)]),
        ({"dpop": None, "issuer": "allowed"}, None, [(200, 200), (200, 200)]),
        ({"dpop": "off", "issuer": "required"}, None, [(200, 401), (200, 401)]),
        ({"dpop": None, "issuer": None}, RULE, [(200, 401), (200, 200)]),
        ({"dpop": "off", "issuer": None}, RULE, [(200, 401), (401, 200)]),
        ({"dpop": "off", "issuer": "off"}, RULE, [(401, 401), (401, 200)]),
    ],
)
def test_one_mode_is_enough(settings: dict[str, Any], rule: Rule | None, modes: list[tuple[int, int]]):
    authority = FakeAuthority(audience=RES)
    guard = Guard(
        Issuer(authority.url, dpop=settings["issuer"]),
        resource=RES,
        dpop=settings["dpop"] and DPoP(mode=settings["dpop"]),
        rules=[rule or Rule("/bound", all_of("read")), Rule("/v1/rows", all_of("read"))],
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    bound, unbound = authority.mint("read", bound_to=KEY), authority.mint("read")

    def status(path: str, *headers: tuple[bytes, bytes]) -> int:
        view = RequestView(method="GET", path=path, headers=HeaderList(headers))
        found = Rules.of(guard.rules).find("GET", path)
        assert found is not None
        decision = engine_of(guard).check(view, found.requirement, dpop=found.mode)
        if isinstance(decision, Granted):
            return 200
        assert isinstance(decision, Denied)
        return decision.response.status

    for path, expected in zip(("/bound", "/v1/rows"), modes, strict=True):
        proof = KEY.proof(bound, "GET", "https://api.test" + path, at=authority.clock.wall())
        stolen = status(path, (b"authorization", f"Bearer {bound}".encode()))
        with_proof = status(path, (b"authorization", f"DPoP {bound}".encode()), (b"dpop", proof.encode()))
        bearer = status(path, (b"authorization", f"Bearer {unbound}".encode()))
        assert (stolen, with_proof, bearer) == (401, *expected), path


def test_a_rule_with_a_mode_needs_a_guard_that_checks_proofs():
    guard = Guard(Issuer("https://as.test", audience="a"), audit="off")
    app: Any = print
    for layer in (asgi.GuardMiddleware, wsgi.GuardMiddleware):
        with pytest.raises(ConfigurationError, match=r"rule '/bound': dpop: the guard checks no proofs"):
            layer(app, guard=guard, rules=[RULE])


@pytest.mark.rule("D-54")
def test_a_guard_that_replaces_another_knows_its_proofs(api: Api):
    proof, other = api.proof(), api.another(max_proofs=2)
    assert isinstance(api.send(proof), Granted)
    take_over(engine_of(other), engine_of(api.guard))
    api.guard = other
    assert refusal(api.send(proof))[1] is Reason.PROOF_USED
    assert isinstance(api.send(api.proof()), Granted)
    assert isinstance(api.send(api.proof()), Unavailable)
    api.clock.advance(72)
    assert isinstance(api.send(api.proof()), Granted)


@pytest.mark.rule("D-75")
def test_a_guard_that_remembers_proofs_elsewhere_makes_a_claim_of_its_own(api: Api):
    store = MemoryStore(api.clock)
    shared = [api.another(store=store), api.another(store=store)]
    proof, notes = api.proof(), ProofNotes()
    for guard in (api.guard, *shared):  # the layers of one request
        assert isinstance(guard.check(api.request(proof, proofs=notes), all_of("read")), Granted)
    for guard in (api.guard, *shared):
        assert refusal(guard.check(api.request(proof, proofs=ProofNotes())))[1] is Reason.PROOF_USED
    strict = api.another(nonce_keys=[NONCE_KEY])
    assert refusal(strict.check(api.request(proof, proofs=notes)))[1] is Reason.PROOF_NONCE


def test_the_strictest_mode_of_several_readings_of_a_path_holds():
    from scopeguard.rules.prefix_removal import _join_rules

    plain, allowed, required = (Rule("/a", dpop=mode) for mode in (None, "allowed", "required"))
    # A rule without a mode has that of the guard, which may be the strictest.
    cases = ((plain, required), "required"), ((allowed, plain), None), ((plain, allowed), None)
    for rules, mode in cases:
        joined = _join_rules(rules[0], rules[1:])
        assert joined is not None
        assert joined.mode == mode
    assert _join_rules(required, (plain,)) is required


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPoP(mode="sometimes"), "dpop: mode"),
        (lambda: DPoP(algorithms=["HS256"]), "'HS256' is not supported"),
        (lambda: DPoP(algorithms=[]), "algorithms: must not be empty"),
        (lambda: DPoP(max_age=0), "max_age"),
        (lambda: DPoP(max_skew=-1), "max_skew: must be at least 0"),
        (lambda: DPoP(nonce_keys=["short"]), "at least 32 bytes"),
        (lambda: DPoP(trust_nonce_time=True), "has no effect without nonce_keys"),
        (lambda: DPoP(base_url="http://api.test"), "is cleartext"),
        (lambda: Issuer("https://as.test", audience="a", dpop="maybe"), "dpop"),
        (lambda: Rule("/", dpop="maybe"), "dpop"),
        (lambda: Guard(Issuer("https://as.test", audience="a"), dpop=DPoP()), "base_url is missing"),
        (lambda: Guard(Issuer("https://as.test", audience="a", dpop="allowed")), "base_url is missing"),
        (lambda: Guard(Issuer("https://as.test", audience="a"), rules=[Rule("/", dpop="required")]), "base_url is mis"),
    ],
)
def test_a_policy_that_cannot_work_is_a_configuration_error(make: Callable[[], object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_policy_that_is_off_counts_as_absent():
    authority = FakeAuthority(audience=RES)
    guard = Guard(
        authority.issuer, dpop=DPoP(mode="off"), transport=authority.transport, clock=authority.clock, audit="off"
    )
    bearer = HeaderList([(b"authorization", f"Bearer {authority.mint(bound_to=KEY)}".encode())])
    decision = guard.check(RequestView(method="GET", path="/", headers=bearer))
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.SENDER_CONSTRAINT_UNPROVEN


# Replay


@pytest.mark.rule("D-54", "D-55", "D-57")
def test_a_proof_is_accepted_once(api: Api):
    proof = api.proof(claims={"iat": int(api.clock.wall()) + 10})
    assert isinstance(api.send(proof), Granted)
    for seconds in (0, 1, 68):
        api.clock.advance(seconds)
        assert refusal(api.send(proof))[1] is Reason.PROOF_USED, seconds
    api.clock.advance(10)
    assert refusal(api.send(proof))[1] is Reason.PROOF_EXPIRED


@pytest.mark.rule("D-55")
def test_another_key_and_another_path_may_have_the_same_identifier(api: Api):
    token = api.authority.mint("read", bound_to=OTHER)
    same = {"jti": "same"}
    assert isinstance(api.send(api.proof(claims=same)), Granted)
    assert isinstance(api.send(api.proof(claims=same, key=OTHER, token=token), token=token), Granted)
    other = api.proof(claims=same, uri="https://api.test/v1/else")
    assert isinstance(api.send(other, raw_path=b"/v1/else"), Granted)
    assert refusal(api.send(api.proof(claims=same)))[1] is Reason.PROOF_USED


@pytest.mark.rule("D-59")
def test_a_forged_proof_does_not_use_up_an_identifier(api: Api):
    proof = api.proof(claims={"jti": "victim"})
    forged = proof.rpartition(".")[0] + "." + "A" * 86
    assert refusal(api.send(forged))[1] is Reason.PROOF_SIGNATURE
    assert isinstance(api.send(proof), Granted)


@pytest.mark.rule("D-75")
def test_a_second_check_of_the_same_request_is_not_a_replay(api: Api):
    notes, proof = ProofNotes(), api.proof()
    assert isinstance(api.send(proof, proofs=notes), Granted)
    assert isinstance(api.send(proof, proofs=notes), Granted)
    assert refusal(api.send(proof, proofs=ProofNotes()))[1] is Reason.PROOF_USED


@pytest.mark.rule("D-56", "D-60")
def test_at_its_limit_the_memory_refuses_and_forgets_nothing():
    api = Api(max_proofs_per_key=2)
    first = api.proof()
    assert [isinstance(api.send(proof), Granted) for proof in (first, api.proof())] == [True, True]
    full = api.send(api.proof())
    assert isinstance(full, Unavailable)
    assert (full.response.status, full.error.reason) == (503, Reason.PROOF_MEMORY_FULL)
    token = api.authority.mint("read", bound_to=OTHER)  # another client has a quota of its own
    assert isinstance(api.send(api.proof(key=OTHER, token=token), token=token), Granted)
    assert refusal(api.send(first))[1] is Reason.PROOF_USED
    api.clock.advance(72)
    assert isinstance(api.send(api.proof()), Granted)
    small = Api(max_proofs=1)
    assert isinstance(small.send(small.proof()), Granted)
    assert isinstance(small.send(small.proof()), Unavailable)


@pytest.mark.rule("D-60")
@pytest.mark.parametrize(
    ("policy", "limits"),
    [
        ({}, (100_000, 1000)),
        ({"max_age": 30}, (100_000, 1000)),
        ({"max_age": 130}, (200_000, 2000)),
        ({"max_age": 130, "max_proofs_per_key": 1500}, (200_000, 1500)),
        ({"max_age": 130, "max_proofs": 1500}, (1500, 2000)),
        ({"nonce_keys": ["k" * 32]}, (100_000, 1000)),
        ({"nonce_keys": ["k" * 32], "nonce_lifetime": 70.0, "trust_nonce_time": True}, (200_000, 2000)),
        ({"max_age": 1e6}, (1_000_000, 10_000)),
    ],
)
def test_a_longer_window_leaves_room_for_as_many_requests_a_second(policy: dict[str, Any], limits: tuple[int, int]):
    possession = engine_of(Api(**policy).guard).context.possession
    assert possession is not None
    assert (possession.memory.limits.total, possession.memory.limits.per_owner) == limits


@pytest.mark.rule("D-58")
def test_processes_that_share_a_store_accept_a_proof_once():
    clock = FakeClock()
    store = MemoryStore(clock)
    api = Api(store=store, max_proofs_per_key=2)
    other = api.another(store=store, max_proofs_per_key=2)
    proof = api.proof()
    assert isinstance(api.send(proof), Granted)
    for guard in (api.guard, other):
        decision = guard.check(api.request(proof), all_of("read"))
        assert refusal(decision)[1] is Reason.PROOF_USED
    assert isinstance(other.check(api.request(api.proof())), Granted)
    full = api.send(api.proof())
    assert isinstance(full, Unavailable)
    assert full.error.reason is Reason.PROOF_MEMORY_FULL


class DeadStore(MemoryStore):
    def claim(self, identity: bytes, owner: str, /, **limits: Any) -> str:
        raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store")


@pytest.mark.rule("D-60")
def test_without_the_store_no_proof_is_accepted():
    api = Api(store=DeadStore(FakeClock()))
    decision = api.send(api.proof())
    assert isinstance(decision, Unavailable)
    assert "www-authenticate" not in dict(decision.response.headers)
    assert isinstance(api.send(token=api.authority.mint("read"), scheme="Bearer"), Granted)
    open_api = Api(store=DeadStore(FakeClock()), replay_fail_open_dangerously=True)
    assert isinstance(open_api.send(open_api.proof()), Granted)


@pytest.mark.rule("D-57")
@pytest.mark.parametrize("shared", [False, True], ids=["in memory", "in a store"])
@pytest.mark.parametrize("by_nonce", [False, True], ids=["time of the proof", "time of the nonce"])
def test_a_clock_that_is_set_back_readmits_no_forgotten_proof(shared: bool, by_nonce: bool):
    by_time_of_nonce = {"nonce_keys": [NONCE_KEY], "nonce_lifetime": 35.0, "trust_nonce_time": True}
    policy: dict[str, Any] = by_time_of_nonce if by_nonce else {}
    api = Api(**policy)
    api.guard = api.another(store=MemoryStore(api.clock) if shared else None, **policy)

    def proof() -> str:
        if not by_nonce:
            return api.proof()
        decision = api.send(api.proof())
        assert isinstance(decision, Denied)
        assert isinstance(decision.error, NonceRequired)
        # The clock of this client runs backwards, which does not matter here.
        return api.proof(claims={"nonce": decision.error.nonce, "iat": int(2 * began - api.clock.wall())})

    began = api.clock.wall()
    used = proof()
    assert isinstance(api.send(used), Granted)
    late = proof()
    api.clock.advance(71)  # the proof is forgotten
    for _ in range(2):
        assert isinstance(api.send(proof()), Granted)  # and the newest proofs are not affected
        api.clock.advance(1)
    api.clock.set_wall(began + 1)
    for old in (used, late):
        assert refusal(api.send(old)) == (401, Reason.PROOF_EXPIRED, "invalid_dpop_proof")
    api.clock.advance(12)
    assert isinstance(api.send(proof()), Granted)


def test_a_store_that_cannot_remember_proofs_is_refused():
    class OldStore:
        def __init__(self) -> None:
            self.get = self.put = self.append = self.read = self.close = lambda *_: None

    store: Any = OldStore()
    with pytest.raises(ConfigurationError, match="store: must be an object with the methods claim"):
        Api(store=store)
    Guard(Issuer("https://as.test", audience="a"), store=store)


# Nonces


def nonce_of(decision: Decision) -> str:
    assert isinstance(decision, Denied)
    found = [value for name, value in decision.response.headers if name == "dpop-nonce"]
    assert len(found) == 1
    assert dict(decision.response.headers)["cache-control"] == "no-store"
    return found[0]


@pytest.mark.rule("D-26", "D-27", "D-28", "D-31", "D-33", "D-34", "D-70", "D-74")
@pytest.mark.parametrize("nonce", [None, "x", 7, ["a"], "A" * 48, "=" * 48, "\u00e9", ""])
def test_a_wrong_nonce_is_answered_as_a_missing_one(nonce: Any):
    api = Api(nonce_keys=[NONCE_KEY])
    decision = api.send(api.proof(claims={"nonce": nonce}))
    assert refusal(decision) == (401, Reason.PROOF_NONCE, "use_dpop_nonce")
    fresh = nonce_of(decision)
    assert isinstance(decision, Denied)
    missing = api.send(api.proof())
    assert isinstance(missing, Denied)
    assert decision.response.body == missing.response.body
    assert fresh not in challenges(decision)["DPoP"]
    assert isinstance(api.send(api.proof(claims={"nonce": fresh})), Granted)
    assert refusal(api.send(api.proof()))[1] is Reason.PROOF_NONCE


@pytest.mark.rule("D-29", "D-30")
def test_nonces_are_unpredictable_and_fit_a_header():
    api = Api(nonce_keys=[NONCE_KEY])
    nonces = {nonce_of(api.send(api.proof())) for _ in range(300)}
    assert len(nonces) == 300
    assert all(set(nonce) <= set(map(chr, range(0x21, 0x7F))) - set('"\\') for nonce in nonces)
    assert len({nonce[:16] for nonce in nonces}) == 300


@pytest.mark.rule("D-32", "D-36")
def test_nonces_are_renewed_before_they_expire_and_valid_in_every_process():
    api = Api(nonce_keys=[NONCE_KEY], nonce_lifetime=100)
    nonce = nonce_of(api.send(api.proof()))
    other = api.another(nonce_keys=["another secret of the operator, as long", NONCE_KEY], nonce_lifetime=100)
    for seconds, renewed in ((0, False), (49, False), (1, True), (50, True)):
        api.clock.advance(seconds)
        notes = ProofNotes()
        request = api.request(api.proof(claims={"nonce": nonce}), proofs=notes)
        assert isinstance(other.check(request, all_of("read")), Granted)
        assert (notes.nonce is not None) is renewed
    api.clock.advance(1)
    assert refusal(api.send(api.proof(claims={"nonce": nonce})))[1] is Reason.PROOF_NONCE
    assert isinstance(other.check(api.request(api.proof(claims={"nonce": notes.nonce}))), Granted)
    assert refusal(api.send(api.proof(claims={"nonce": notes.nonce})))[1] is Reason.PROOF_NONCE  # not its secret
    assert isinstance(api.send(api.proof(), token=api.authority.mint("read"), scheme="Bearer"), Granted)


@pytest.mark.rule("D-35")
def test_a_nonce_of_another_purpose_or_server_is_not_accepted():
    from scopeguard.spec.nonce import NonceSealer

    api = Api(nonce_keys=[NONCE_KEY])
    for secret, purpose in ((NONCE_KEY, "attestation"), ("x" * 40, "dpop")):
        sealer = NonceSealer([secret], purpose, 300, lambda length: b"r" * length)
        foreign = sealer.issue(api.clock.wall())
        assert sealer.issued_at(foreign, api.clock.wall()) is not None
        assert refusal(api.send(api.proof(claims={"nonce": foreign})))[1] is Reason.PROOF_NONCE


@pytest.mark.rule("D-39")
def test_the_nonce_may_replace_the_time_of_the_proof():
    api = Api(nonce_keys=[NONCE_KEY], trust_nonce_time=True)
    nonce = nonce_of(api.send(api.proof()))
    proof = api.proof(claims={"nonce": nonce, "iat": int(api.clock.wall()) - 3600})
    assert isinstance(api.send(proof), Granted)
    api.clock.advance(299)
    assert refusal(api.send(proof))[1] is Reason.PROOF_USED


# Introspection


@pytest.mark.rule("D-62")
@pytest.mark.parametrize("token_type", [None, "DPoP"])
def test_the_confirmation_of_an_introspection_response_is_enforced(token_type: str | None):
    api = Api()
    introspection = Introspection(client_id="api", client_secret=api.authority.api.secret)
    api.guard = api.another(issuer={"validate": "introspection", "introspection": introspection})
    claims = {**KEY.confirmation, "token_type": token_type}
    api.token = api.authority.mint("read", claims=claims, token_format="opaque")
    assert isinstance(api.send(api.proof()), Granted)
    assert refusal(api.send(api.proof(key=OTHER)))[1] is Reason.WRONG_PROOF_KEY
    assert 'error="invalid_token"' in challenges(api.send(scheme="Bearer"))["Bearer"]


def test_an_introspection_response_that_says_dpop_and_names_no_key_is_refused():
    api = Api()
    introspection = Introspection(client_id="api", client_secret=api.authority.api.secret)
    api.guard = api.another(issuer={"validate": "introspection", "introspection": introspection})
    api.token = api.authority.mint("read", claims={"token_type": "DPoP"}, token_format="opaque")
    for scheme in ("DPoP", "Bearer"):
        decision = api.send(api.proof(), scheme=scheme)
        assert isinstance(decision, Denied)
        assert decision.error.reason is Reason.SENDER_CONSTRAINT_UNPROVEN


# Metadata


@pytest.mark.rule("R-14", "R-19")
def test_the_metadata_names_the_algorithms():
    def members(**policy: Any) -> dict[str, Any]:
        metadata = engine_of(Api(**policy).guard).metadata
        assert metadata is not None
        answer = metadata.answer("GET", "/.well-known/oauth-protected-resource/v1")
        assert answer is not None
        found: dict[str, Any] = json.loads(answer.body)
        return found

    allowed = members()
    assert allowed["dpop_signing_alg_values_supported"] == ["ES256", "PS256", "EdDSA", "Ed25519"]
    assert (allowed["bearer_methods_supported"], "dpop_bound_access_tokens_required" in allowed) == (["header"], False)
    required = members(mode="required", algorithms=["ES256"])
    assert required["dpop_signing_alg_values_supported"] == ["ES256"]
    assert (required["bearer_methods_supported"], required["dpop_bound_access_tokens_required"]) == ([], True)


def test_weak_keys_are_refused(api: Api):
    weak = {"kty": "RSA", "e": "AQAB", "n": "AQ" * 60}
    assert refusal(api.send(api.proof(headers={"alg": "PS256", "jwk": weak})))[1] is Reason.PROOF_KEY


@pytest.mark.parametrize("answer", ["claimed", "NEW", None, True, 1, b"new", RuntimeError("x"), KeyError("x")])
def test_a_faulty_custom_store_accepts_no_proof(answer: Any):
    """Fault: the store returns anything but the three answers, or raises. An exception is not hidden."""

    class Faulty(MemoryStore):
        def claim(self, identity: bytes, owner: str, /, **limits: Any) -> str:
            if isinstance(answer, Exception):
                raise answer
            given: str = answer  # which is not even one of the strings
            return given

    authority = FakeAuthority(audience="https://api.test")
    guard = Guard(
        authority.issuer,
        dpop=DPoP(base_url="https://api.test"),
        store=Faulty(authority.clock),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    token = authority.mint(bound_to=KEY)
    proof = KEY.proof(token, "GET", "https://api.test/", at=authority.clock.wall())
    fields = [(b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())]
    with pytest.raises(type(answer) if isinstance(answer, Exception) else ValueError):
        guard.check(RequestView(method="GET", path="/", headers=HeaderList(fields)))


@pytest.mark.parametrize(("values", "found"), [([b"a", b"b"], "2 fields"), ([b"a,b"], "one field with a comma")])
def test_refusal_of_several_proofs_says_how_they_came(values: list[bytes], found: str):
    with pytest.raises(InvalidProof) as caught:
        single_proof(values, 1000)
    assert caught.value.detail == {"found": found}


def test_no_proof_is_missing():
    with pytest.raises(InvalidProof) as caught:
        single_proof([], 1000)
    assert caught.value.reason is Reason.PROOF_MISSING
