"""The development server binds tokens to the key of a DPoP proof (RFC 9449 section 5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scopeguard import DPoP, Granted, Guard, HeaderList, Introspection, Issuer, RequestView
from scopeguard.testing import FakeTransport, ProofKey

KEY = ProofKey()


def proof(bench: Any, key: ProofKey = KEY, **overrides: Any) -> str:
    method, uri = overrides.pop("method", "POST"), overrides.pop("uri", bench.authority.issuer + "/token")
    claims = {"ath": None, **overrides.pop("claims", {})}
    made: str = key.proof("unused", method, uri, at=bench.clock.wall(), claims=claims, **overrides)
    return made


def ask(bench: Any, *proofs: str, client: Any = None) -> Any:
    return bench.post("/token", client or bench.robot, proofs=proofs, grant_type="client_credentials")


@pytest.mark.rule("T-09")
@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "RS256", "EdDSA"])
def test_a_proof_binds_the_token_to_its_key(bench: Any, algorithm: str):
    key = ProofKey(algorithm)
    document = bench.read(ask(bench, proof(bench, key)))
    assert document["token_type"] == "DPoP"
    issued = bench.authority.tokens.find(document["access_token"])
    assert issued.claims["cnf"] == {"jkt": key.thumbprint}
    plain = bench.read(ask(bench))
    assert plain["token_type"] == "Bearer"
    assert "cnf" not in bench.authority.tokens.find(plain["access_token"]).claims


@pytest.mark.rule("T-09")
@pytest.mark.parametrize("opaque", [False, True])
def test_a_guard_admits_the_holder_of_the_key_only(bench: Any, *, opaque: bool):
    client = bench.opaque if opaque else bench.robot
    token = bench.read(ask(bench, proof(bench), client=client))["access_token"]
    introspection = Introspection(client_id="api", client_secret="sg-secret-api")
    guard = Guard(
        Issuer(bench.authority.issuer, audience=bench.api, validate="auto", introspection=introspection),
        dpop=DPoP(base_url="https://api.example", mode="required"),
        transport=FakeTransport(bench.authority),
        clock=bench.clock,
        audit="off",
    )

    def is_granted(key: ProofKey) -> bool:
        headers = key.headers(token, "GET", "https://api.example/", at=bench.clock.wall())
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return isinstance(guard.check(RequestView(method="GET", path="/", headers=HeaderList(pairs))), Granted)

    assert is_granted(KEY)
    assert not is_granted(ProofKey())


@pytest.mark.rule("T-09")
@pytest.mark.parametrize(
    "overrides",
    [
        {"method": "GET"},
        {"uri": "https://as.example/introspect"},
        {"claims": {"iat": 1}},
        {"claims": {"jti": None}},
        {"headers": {"typ": "JWT"}},
        {"headers": {"alg": "none"}},
        {"headers": {"jwk": ProofKey().jwk}},
    ],
    ids=["htm", "htu", "iat", "jti", "typ", "alg", "key"],
)
def test_an_invalid_proof_is_refused(bench: Any, overrides: dict[str, Any]):
    answer = ask(bench, proof(bench, **overrides))
    assert bench.error(answer) == (400, "invalid_dpop_proof")
    assert b"access_token" not in answer.body


@pytest.mark.rule("T-09")
def test_a_proof_is_accepted_once_and_alone(bench: Any):
    once = proof(bench)
    assert ask(bench, once).status == 200
    assert bench.error(ask(bench, once)) == (400, "invalid_dpop_proof")
    assert bench.error(ask(bench, proof(bench), proof(bench))) == (400, "invalid_dpop_proof")
    assert bench.error(ask(bench, "caf\u00e9")) == (400, "invalid_dpop_proof")
    assert bench.error(ask(bench, "")) == (400, "invalid_dpop_proof")


@pytest.mark.rule("T-09")
def test_metadata_names_the_algorithms_and_introspection_the_type(bench: Any):
    document = bench.read(bench.authority.respond("GET", "/.well-known/oauth-authorization-server"))
    assert {"ES256", "RS256", "EdDSA"} <= set(document["dpop_signing_alg_values_supported"])
    token = bench.read(ask(bench, proof(bench), client=bench.opaque))["access_token"]
    answer = json.loads(bench.post("/introspect", bench.resource, token=token).body)
    assert (answer["token_type"], answer["cnf"]) == ("DPoP", {"jkt": KEY.thumbprint})
