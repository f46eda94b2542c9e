"""ML-DSA in JOSE (RFC 9964): which key verifies which signature. Not collected if ``cryptography`` lacks ML-DSA."""

from __future__ import annotations

import base64
import functools
import json
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS, InvalidJWSSignature

from scopeguard.config.algorithms import DEFAULT_ALGORITHMS
from scopeguard.config.ml_dsa import ML_DSA, load_class
from scopeguard.errors import ConfigurationError
from scopeguard.spec.client_authentication import AssertionKey, sign_jwt
from scopeguard.spec.jwks import (
    MalformedKeySet,
    VerificationKey,
    parse_configured_key_set,
    parse_key_set,
    parse_proof_key,
    thumbprint,
)
from scopeguard.spec.ml_dsa import MLDSAAlgorithm

Members = dict[str, Any]
SIGNED = b"header.payload"
NAMES = sorted(ML_DSA)
SIZES = {"ML-DSA-44": (1312, 2420), "ML-DSA-65": (1952, 3309), "ML-DSA-87": (2592, 4627)}  # FIPS 204, table 2


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@functools.cache
def private_key(algorithm: str, name: str = "a") -> Any:
    return load_class(algorithm, "PrivateKey").generate()


def public_octets(algorithm: str) -> bytes:
    raw: bytes = private_key(algorithm).public_key().public_bytes_raw()
    return raw


def jwk_of(algorithm: str = "ML-DSA-65", **members: Any) -> Members:
    jwk = {"kty": "AKP", "alg": algorithm, "pub": b64(public_octets(algorithm)), **members}
    return {name: value for name, value in jwk.items() if value is not None}


def key_of(algorithm: str) -> VerificationKey:
    (key,) = parse_key_set({"keys": [jwk_of(algorithm)]}).keys
    return key


def token(algorithm: str, *, alg: str | None = None, **header: Any) -> str:
    """Return a JWS signed with *algorithm*, whose header says *alg*."""
    signed = f"{b64(json.dumps({'alg': alg or algorithm, **header}).encode())}.{b64(b'{}')}"
    return f"{signed}.{b64(private_key(algorithm).sign(signed.encode()))}"


def refusal(jwk: Members) -> tuple[str, bool]:
    """Return why *jwk* is not used, and whether its publisher should act."""
    good = jwk_of("ML-DSA-87", kid="good")
    key_set = parse_key_set({"keys": [jwk, good]})
    assert [key.kid for key in key_set.keys] == ["good"]
    (ignored,) = key_set.ignored
    return ignored.reason, ignored.alarming


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PQ-01")
@pytest.mark.parametrize("algorithm", NAMES)
def test_key_is_used_for_the_algorithm_that_it_names(algorithm: str):
    key = key_of(algorithm)
    assert key.algorithms == {algorithm}
    assert (len(public_octets(algorithm)), key.signature_octets) == SIZES[algorithm]
    assert key.thumbprint == thumbprint(jwk_of(algorithm)) == thumbprint(jwk_of(algorithm, kid="k", use="sig"))


@pytest.mark.rule("PQ-01")
@pytest.mark.parametrize(
    ("jwk", "reason", "alarming"),
    [
        (jwk_of(alg=None), "alg is missing, which a key of kty AKP needs", True),
        (jwk_of(pub=None), "pub is missing or not a string", True),
        (jwk_of(pub=7), "pub is missing or not a string", True),
        (jwk_of(pub=""), "pub is not 1952 octets", True),
        (jwk_of(pub=b64(public_octets("ML-DSA-65")[:-1])), "pub is not 1952 octets", True),
        (jwk_of(pub=b64(public_octets("ML-DSA-65") + b"\0")), "pub is not 1952 octets", True),
        (jwk_of(pub=b64(public_octets("ML-DSA-44"))), "pub is not 1952 octets", True),
        (jwk_of(pub=b64(public_octets("ML-DSA-65")) + "="), "pub is not base64url; key_set.padded = true", True),
        (jwk_of(priv=b64(bytes(32))), "it has private members (priv)", True),
        (jwk_of(alg=None, priv=""), "it has private members (priv)", True),
        (jwk_of(alg="ES256"), "alg 'ES256' is not one of ML-DSA-44, ML-DSA-65, ML-DSA-87", False),
        (jwk_of(alg=["ML-DSA-65"]), "alg ['ML-DSA-65'] is not one of", False),
        (jwk_of(alg="ml-dsa-65"), "alg 'ml-dsa-65' is not one of", False),
        (jwk_of(alg="ML-DSA-65-ES256"), "alg 'ML-DSA-65-ES256' is not one of", False),
        (jwk_of(use="enc"), "use is 'enc'", False),
        (jwk_of(key_ops=["sign"]), "key_ops lacks verify", False),
        (jwk_of(kty="akp"), "kty 'akp' is not RSA, EC, OKP or AKP", False),
        (jwk_of(kty="OKP", crv="ML-DSA-65"), "crv 'ML-DSA-65' is not Ed25519", False),
    ],
)
def test_key_that_breaks_a_rule_is_ignored(jwk: Members, reason: str, alarming: bool):
    why, alarm = refusal(jwk)
    assert why.startswith(reason)
    assert alarm is alarming
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_proof_key(jwk)


@pytest.mark.rule("PQ-01")
def test_private_member_is_refused_in_a_key_of_any_type_and_never_quoted():
    seed = b64(bytes(range(32)))
    for jwk in (jwk_of(kid="leaked", priv=seed), {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43, "priv": seed}):
        with pytest.raises(ConfigurationError, match=r"it has private members \(priv\)") as raised:
            parse_configured_key_set({"keys": [jwk]})
        assert seed not in str(raised.value)


def test_padding_of_pub_is_accepted_if_configured():
    jwk = jwk_of("ML-DSA-65", pub=b64(public_octets("ML-DSA-65")) + "=")
    (key,) = parse_key_set({"keys": [jwk]}, padded=True).keys
    assert key.thumbprint == thumbprint(jwk_of("ML-DSA-65"))


@pytest.mark.rule("PQ-01")
def test_thumbprint_covers_the_algorithm():
    jwk = jwk_of("ML-DSA-65")
    assert thumbprint(jwk) != thumbprint({**jwk, "alg": "ML-DSA-44"})
    for name in ("alg", "pub"):
        with pytest.raises(ValueError, match="alg, kty, pub"):
            thumbprint({member: value for member, value in jwk.items() if member != name})


# --- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PQ-04")
@pytest.mark.parametrize("algorithm", NAMES)
def test_signature_has_the_exact_length(algorithm: str):
    key, good = key_of(algorithm), private_key(algorithm).sign(SIGNED)
    assert len(good) == SIZES[algorithm][1]
    assert key.verify(algorithm, SIGNED, good)
    for wrong in (good[:-1], good[1:], good + b"\0", b"\0" + good, good * 2, b"", b"\0", good[: len(good) // 2]):
        assert not key.verify(algorithm, SIGNED, wrong)


@pytest.mark.rule("PQ-04")
@pytest.mark.parametrize("algorithm", NAMES)
def test_library_is_not_called_for_a_signature_of_another_length(algorithm: str, monkeypatch: pytest.MonkeyPatch):
    def verify(signed: bytes, signature: bytes) -> bool:
        return True

    key = key_of(algorithm)
    key._verifiers[algorithm] = verify
    octets = SIZES[algorithm][1]
    assert [key.verify(algorithm, SIGNED, bytes(octets + more)) for more in (-1, 0, 1)] == [False, True, False]


@pytest.mark.rule("PQ-02")
@pytest.mark.parametrize("algorithm", NAMES)
@pytest.mark.parametrize("other", [*NAMES, "ES256", "EdDSA", "RS256", "HS256", "none"])
def test_key_verifies_no_other_algorithm(judge, algorithm: str, other: str):
    jwks = {"keys": [jwk_of(algorithm, kid="k")]}
    accepted = [algorithm, other]
    expected = "accepted" if other == algorithm else "no candidate"
    assert judge(token(algorithm, alg=other, kid="k"), jwks, algorithms=accepted) == expected
    assert judge(token(algorithm, kid="k"), jwks, algorithms=accepted) == "accepted"
    assert key_of(algorithm).verify(other, SIGNED, private_key(algorithm).sign(SIGNED)) is (other == algorithm)


@pytest.mark.rule("PQ-02")
def test_signature_of_another_parameter_set_is_refused(judge):
    jwks = {"keys": [jwk_of(name, kid="k") for name in NAMES]}
    for algorithm in NAMES:
        for signer in NAMES:
            expected = "accepted" if signer == algorithm else "bad signature"
            assert judge(token(signer, alg=algorithm, kid="k"), jwks) == expected


@pytest.mark.rule("PQ-03", "J-38")
@pytest.mark.parametrize("algorithm", NAMES)
def test_algorithm_is_refused_unless_enabled(judge, algorithm: str):
    jwks = {"keys": [jwk_of(algorithm)]}
    assert judge(token(algorithm), jwks, algorithms=DEFAULT_ALGORITHMS) == "algorithm_refused"
    assert judge(token(algorithm), jwks, algorithms=(algorithm,)) == "accepted"
    for other in set(NAMES) - {algorithm}:
        assert judge(token(algorithm), jwks, algorithms=(other,)) == "algorithm_refused"


def test_context_must_be_empty():
    signature = private_key("ML-DSA-65").sign(SIGNED, b"JWT")
    assert not key_of("ML-DSA-65").verify("ML-DSA-65", SIGNED, signature)


@settings(max_examples=50)
@given(st.sampled_from(NAMES), st.data())
def test_random_and_mutated_signatures_are_refused_without_an_exception(algorithm: str, data: st.DataObject):
    good = private_key(algorithm).sign(SIGNED)
    position, octet = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    mutated = bytearray(good)
    mutated[position] ^= octet
    assert not key_of(algorithm).verify(algorithm, SIGNED, bytes(mutated))
    assert not key_of(algorithm).verify(algorithm, SIGNED, data.draw(st.binary(max_size=5000)))


@pytest.mark.rule("PQ-01", "PQ-04")
@pytest.mark.parametrize("algorithm", NAMES)
def test_jwcrypto_and_this_library_accept_the_keys_and_signatures_of_each_other(judge, algorithm: str):
    theirs = JWK.generate(kty="AKP", alg=algorithm)
    jws = JWS(SIGNED)
    jws.allowed_algs = [algorithm]
    jws.add_signature(theirs, protected=json.dumps({"alg": algorithm}))
    public_jwk = theirs.export_public(as_dict=True)
    assert judge(jws.serialize(compact=True), {"keys": [public_jwk]}) == "accepted"
    assert thumbprint(public_jwk) == theirs.thumbprint()
    ours = MLDSAAlgorithm(algorithm)
    assert (
        ours.to_jwk(ours.from_jwk(theirs.export_private(as_dict=True))).items() <= theirs.export(as_dict=True).items()
    )
    read = JWS()
    read.allowed_algs = [algorithm]
    read.deserialize(token(algorithm), key=JWK(**ours.to_jwk(private_key(algorithm))))
    assert read.payload == b"{}"
    with pytest.raises(InvalidJWSSignature):
        read.deserialize(token(algorithm), key=theirs)


# --- private keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", NAMES)
def test_private_key_signs_from_a_jwk_and_from_pem(algorithm: str):
    jwk = MLDSAAlgorithm(algorithm).to_jwk(private_key(algorithm))
    assert set(jwk) == {"kty", "alg", "pub", "priv"}
    assert len(jwk["priv"]) == 43
    pem = private_key(algorithm).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for material in (jwk, pem):
        key = AssertionKey(material=material, algorithm=algorithm)
        assert key.public_jwk() == jwk_of(algorithm)
        assert key_of(algorithm).verify(algorithm, SIGNED, key.sign(SIGNED))
        assert sign_jwt({"alg": algorithm}, {}, key).count(".") == 2
        assert jwk["priv"] not in repr(key)


@pytest.mark.parametrize(
    "members",
    [
        {"kty": "OKP"},
        {"alg": "ML-DSA-44"},
        {"alg": None},
        {"priv": None},
        {"priv": ""},
        {"priv": b64(bytes(31))},
        {"priv": b64(bytes(33))},
        {"priv": b64(bytes(32))},
        {"priv": b64(bytes(32)) + "="},
        {"pub": None},
        {"pub": b64(bytes(1952))},
    ],
    ids=str,
)
def test_private_jwk_that_does_not_fit_is_refused_and_not_quoted(members: Members):
    jwk = {**MLDSAAlgorithm("ML-DSA-65").to_jwk(private_key("ML-DSA-65")), **members}
    with pytest.raises(ConfigurationError, match="not a private key for ML-DSA-65") as raised:
        AssertionKey(material={name: value for name, value in jwk.items() if value is not None}, algorithm="ML-DSA-65")
    assert str(jwk["priv"]) not in str(raised.value) or not jwk["priv"]


def test_pem_of_another_key_is_refused():
    pem = private_key("ML-DSA-44").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for material in (pem, "not PEM"):
        with pytest.raises(ConfigurationError, match="not a private key for ML-DSA-65"):
            AssertionKey(material=material, algorithm="ML-DSA-65")
    with pytest.raises(ValueError, match="not one of ML-DSA-44"):
        MLDSAAlgorithm("ML-DSA-64")


def test_public_key_of_a_set_is_not_a_private_key():
    with pytest.raises(MalformedKeySet):
        parse_key_set({"keys": [MLDSAAlgorithm("ML-DSA-65").to_jwk(private_key("ML-DSA-65"))]})
