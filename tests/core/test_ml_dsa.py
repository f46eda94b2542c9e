"""ML-DSA (RFC 9964) through the guard: tokens and DPoP proofs. Not collected if ``cryptography`` lacks ML-DSA."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from scopeguard import (
    ConfigurationError,
    Denied,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    Issuer,
    Reason,
    RequestView,
    TokenSources,
    all_of,
)
from scopeguard.client import ClientCredentials, DPoPKey
from scopeguard.config.ml_dsa import ML_DSA
from scopeguard.guard import Decision
from scopeguard.testing import FakeAuthority, ProofKey

RES = "https://api.test"
URI = f"{RES}/rows"
NAMES = sorted(ML_DSA)


class Api:
    """A guard that accepts *algorithm* for tokens and for proofs, and requests to it."""

    def __init__(self, algorithm: str, **policy: Any) -> None:
        self.authority = FakeAuthority(audience=RES, algorithm=algorithm)
        settings = {"algorithms": (algorithm,), "max_proof_bytes": 16384, **policy}
        self.guard = Guard(
            Issuer(self.authority.url, algorithms=(algorithm,)),
            resource=RES,
            dpop=DPoP(**settings),
            transport=self.authority.transport,
            clock=self.authority.clock,
            audit="off",
        )
        self.key = ProofKey(algorithm)
        self.bound = self.authority.mint("read", claims=self.key.confirmation)

    def send(self, token: str, *, proof: str | None = None) -> Decision:
        pairs = [(b"authorization", f"{'Bearer' if proof is None else 'DPoP'} {token}".encode())]
        if proof is not None:
            pairs.append((b"dpop", proof.encode()))
        view = RequestView(method="GET", path="/rows", raw_path=b"/rows", headers=HeaderList(pairs))
        return self.guard.check(view, all_of("read"))

    def proof(self, **overrides: Any) -> str:
        key = overrides.pop("key", self.key)
        proof: str = key.proof(self.bound, "GET", URI, at=self.authority.clock.wall(), **overrides)
        return proof


def reason(decision: Decision) -> tuple[Reason, dict[str, Any]]:
    assert isinstance(decision, Denied), decision
    assert decision.response.status == 401
    return decision.error.reason, dict(decision.error.detail)


@pytest.mark.rule("PQ-01", "PQ-05")
@pytest.mark.parametrize("algorithm", NAMES)
def test_token_and_proof_are_accepted_within_the_limits(algorithm: str):
    api = Api(algorithm)
    assert isinstance(api.send(api.authority.mint("read")), Granted)
    proof = api.proof(claims={"nonce": "n" * 200})
    assert len(api.bound) < TokenSources().max_token_bytes / 2
    assert len(proof) < 16384 * 0.75
    decision = api.send(api.bound, proof=proof)
    assert isinstance(decision, Granted)
    assert decision.access_token.sender_constrained is True
    assert reason(api.send(api.bound, proof=proof))[0] is Reason.PROOF_USED


@pytest.mark.rule("PQ-05")
@pytest.mark.parametrize("algorithm", ["ML-DSA-65", "ML-DSA-87"])
def test_limit_below_a_proof_is_a_configuration_error(algorithm: str):
    message = rf"dpop: max_proof_bytes: a proof of {algorithm} has about \d+ bytes, more than 8192; set 16384"
    with pytest.raises(ConfigurationError, match=message):
        DPoP(algorithms=("ES256", algorithm))
    assert DPoP(algorithms=("ML-DSA-44",)).max_proof_bytes == 8192
    api = Api(algorithm)
    estimate = int(str(_error_of(algorithm)).partition("about ")[2].partition(" ")[0])
    assert len(api.proof()) <= estimate < len(api.proof()) + 512


def _error_of(algorithm: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        DPoP(algorithms=(algorithm,), max_proof_bytes=1)
    return raised.value


@pytest.mark.rule("PQ-03", "J-38")
@pytest.mark.parametrize("algorithm", NAMES)
def test_token_and_proof_are_refused_unless_their_algorithm_is_enabled(algorithm: str):
    authority = FakeAuthority(audience=RES, algorithm=algorithm)
    key = ProofKey(algorithm)
    guard = Guard(
        Issuer(authority.url, algorithms=("ES256",)),
        resource=RES,
        dpop=DPoP(max_proof_bytes=16384),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )

    def send(token: str, *proofs: str) -> Decision:
        pairs = [(b"authorization", f"{'DPoP' if proofs else 'Bearer'} {token}".encode())]
        pairs += [(b"dpop", proof.encode()) for proof in proofs]
        view = RequestView(method="GET", path="/rows", raw_path=b"/rows", headers=HeaderList(pairs))
        return guard.check(view, all_of("read"))

    found, detail = reason(send(authority.mint("read")))
    assert (found, detail["alg"]) == (Reason.ALGORITHM_REFUSED, algorithm)
    assert authority.transport.count("jwks") == 0
    bound = authority.mint("read", claims=key.confirmation, algorithm="ES256")
    proof = key.proof(bound, "GET", URI, at=authority.clock.wall())
    found, detail = reason(send(bound, proof))
    assert (found, detail["cause"]) == (Reason.PROOF_MALFORMED, "algorithm_refused")


@pytest.mark.rule("PQ-02")
def test_key_of_a_proof_must_name_the_algorithm_of_its_header():
    api = Api("ML-DSA-44", algorithms=("ML-DSA-44", "ML-DSA-65", "ES256"))
    for alg in ("ML-DSA-65", "ES256"):
        found, detail = reason(api.send(api.bound, proof=api.proof(headers={"alg": alg})))
        assert (found, detail["problem"]) == (Reason.PROOF_KEY, f"the key is not for {alg}")
    without = {name: value for name, value in api.key.jwk.items() if name != "alg"}
    found, detail = reason(api.send(api.bound, proof=api.proof(headers={"jwk": without})))
    assert (found, detail["problem"]) == (Reason.PROOF_KEY, "alg is missing, which a key of kty AKP needs")
    assert isinstance(api.send(api.bound, proof=api.proof()), Granted)


def test_challenge_and_metadata_list_the_algorithms():
    api = Api("ML-DSA-87", algorithms=("ES256", "ML-DSA-87"))
    decision = api.guard.check(RequestView(method="GET", path="/rows", headers=HeaderList([])), all_of("read"))
    assert isinstance(decision, Denied)
    (value,) = [value for _, value in decision.response.headers if value.startswith("DPoP")]
    assert 'algs="ES256 ML-DSA-87"' in value


@pytest.mark.parametrize("algorithm", NAMES)
def test_issuer_of_the_fake_authority_accepts_its_algorithm(algorithm: str):
    authority = FakeAuthority(algorithm=algorithm)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    header = b"Bearer " + authority.mint("read").encode()
    view = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", header)]))
    assert isinstance(guard.check(view), Granted)
    with authority.takes_over(guard):
        assert isinstance(guard.check(view), Granted)


@pytest.mark.parametrize("algorithm", NAMES)
def test_client_gets_and_sends_tokens_that_are_bound_to_its_key(algorithm: str):
    api = Api(algorithm)
    key = DPoPKey(algorithm=algorithm)
    pem = key._key.material
    assert isinstance(pem, str)
    assert DPoPKey(pem=pem, algorithm=algorithm).thumbprint == key.thumbprint
    statuses = []

    def answer(request: httpx.Request) -> httpx.Response:
        pairs = [(name.lower(), value) for name, value in request.headers.raw]
        view = RequestView(method="GET", path="/rows", raw_path=b"/rows", headers=HeaderList(pairs))
        statuses.append(type(api.guard.check(view)).__name__)
        return httpx.Response(200)

    client = api.authority.client
    auth = ClientCredentials(
        f"{api.authority.url}/token",
        client.client_id,
        client.secret,
        dpop=key,
        transport=api.authority.transport,
        clock=api.authority.clock,
    )
    with httpx.Client(auth=auth, transport=httpx.MockTransport(answer)) as http:
        http.get(URI)
    assert statuses == ["Granted"]
