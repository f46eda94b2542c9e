"""Which key may verify which token, and which keys and signatures are accepted.

The file is long because all its tests need the keys and the signers at its top.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import random
import string
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms import ML_DSA_HERE, USABLE
from rsa_keys import rsa_key
from scopeguard.config.algorithms import DEFAULT_ALGORITHMS
from scopeguard.config.ml_dsa import load_class
from scopeguard.errors import ConfigurationError
from scopeguard.spec import jwks as module
from scopeguard.spec.jwks import (
    MAX_CANDIDATES,
    KeySet,
    MalformedKeySet,
    VerificationKey,
    parse_configured_key_set,
    parse_key_set,
    thumbprint,
)
from scopeguard.spec.signatures import prepare_verifier

JWK = dict[str, Any]
SIGNED = b"header.payload"
RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
CURVES: Mapping[str, tuple[str, ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "ES256": ("P-256", ec.SECP256R1(), hashes.SHA256()),
    "ES384": ("P-384", ec.SECP384R1(), hashes.SHA384()),
    "ES512": ("P-521", ec.SECP521R1(), hashes.SHA512()),
    "ES256K": ("secp256k1", ec.SECP256K1(), hashes.SHA256()),
}
# SEC 2, FIPS 186-5
ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": int(
        "1FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
        "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
        16,
    ),
    "ES256K": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def number(value: int, length: int | None = None) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


# --- keys that sign --------------------------------------------------------------------------------------------------


@functools.cache
def ec_key(algorithm: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[algorithm][1])


@functools.cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@functools.cache
def ml_dsa_key(algorithm: str) -> Any:
    return load_class(algorithm, "PrivateKey").generate()


def ml_dsa_jwk(algorithm: str = "ML-DSA-65", **members: Any) -> JWK:
    pub = b64(ml_dsa_key(algorithm).public_key().public_bytes_raw())
    return {"kty": "AKP", "alg": algorithm, "pub": pub, **members}


def rsa_jwk(key: rsa.RSAPrivateKey | None = None, **members: Any) -> JWK:
    numbers = (key or rsa_key()).public_key().public_numbers()
    return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **members}


def ec_jwk(algorithm: str = "ES256", **members: Any) -> JWK:
    point, length = ec_key(algorithm).public_key().public_numbers(), coordinate(algorithm)
    crv = CURVES[algorithm][0]
    return {"kty": "EC", "crv": crv, "x": number(point.x, length), "y": number(point.y, length), **members}


def ed_jwk(**members: Any) -> JWK:
    x = ed_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(x), **members}


def coordinate(algorithm: str) -> int:
    return (CURVES[algorithm][1].key_size + 7) // 8


def sign(algorithm: str, signed: bytes, key: rsa.RSAPrivateKey | None = None, salt: int | None = None) -> bytes:
    if algorithm in CURVES:
        length = coordinate(algorithm)
        r, s = decode_dss_signature(ec_key(algorithm).sign(signed, ec.ECDSA(CURVES[algorithm][2])))
        return r.to_bytes(length, "big") + s.to_bytes(length, "big")
    if algorithm in ML_DSA_HERE:
        made: bytes = ml_dsa_key(algorithm).sign(signed)
        return made
    if algorithm not in RSA_ALGORITHMS:
        return ed_key().sign(signed)
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size if salt is None else salt)
    return (key or rsa_key()).sign(signed, padding.PKCS1v15() if algorithm.startswith("RS") else pss, digest)


def jwk_for(algorithm: str, **members: Any) -> JWK:
    if algorithm in CURVES:
        return ec_jwk(algorithm, **members)
    if algorithm in ML_DSA_HERE:
        return ml_dsa_jwk(algorithm, **members)
    return rsa_jwk(**members) if algorithm in RSA_ALGORITHMS else ed_jwk(**members)


def token(algorithm: str = "RS256", key: rsa.RSAPrivateKey | None = None, **header: Any) -> str:
    signed = f"{b64(json.dumps({'alg': algorithm, **header}).encode())}.{b64(b'{}')}"
    return f"{signed}.{b64(sign(algorithm, signed.encode(), key))}"


def key_from(jwk: JWK) -> VerificationKey:
    (key,) = parse_key_set({"keys": [jwk]}).keys
    return key


def find_alarm(jwk: object) -> tuple[str, bool]:
    """Return the reason for which *jwk* is ignored, and whether it is alarming. The good key in the same set must stay
    usable.
    """
    key_set = parse_key_set({"keys": [jwk, ed_jwk(kid="good")]})
    assert [key.kid for key in key_set.keys] == ["good"]
    (ignored,) = key_set.ignored
    assert ignored.position == 0
    assert ignored.reason.isprintable()
    with pytest.raises(MalformedKeySet):
        parse_key_set({"keys": [jwk]})
    return ignored.reason, ignored.alarming


# --- published examples ----------------------------------------------------------------------------------------------

RFC7515_A2_KEY = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ"
    "S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg6"
    "65xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp"
    "oQ",
    "e": "AQAB",
}
RFC7515_PAYLOAD = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
RFC7515_A2 = (
    f"eyJhbGciOiJSUzI1NiJ9.{RFC7515_PAYLOAD}."
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZ"
    "cAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-e"
    "OkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)
RFC7515_A3_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
RFC7515_A3 = (
    f"eyJhbGciOiJFUzI1NiJ9.{RFC7515_PAYLOAD}."
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
RFC8037_A_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
RFC8037_A4 = (
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)
PUBLISHED = [
    pytest.param(RFC7515_A2, RFC7515_A2_KEY, id="RFC 7515 A.2"),
    pytest.param(RFC7515_A3, RFC7515_A3_KEY, id="RFC 7515 A.3"),
    pytest.param(RFC8037_A4, RFC8037_A_KEY, id="RFC 8037 A.4"),
]


@pytest.mark.rule("J-51")
@pytest.mark.parametrize(("text", "jwk"), PUBLISHED)
def test_published_examples_verify_unless_one_bit_is_flipped(judge, text, jwk):
    assert judge(text, {"keys": [jwk]}) == "accepted"
    signed, _, signature = text.rpartition(".")
    octets = bytearray(unb64(signature))
    for position in (0, len(octets) // 2, len(octets) - 1):
        octets[position] ^= 1
        assert judge(f"{signed}.{b64(bytes(octets))}", {"keys": [jwk]}) == "bad signature"
        octets[position] ^= 1
    header, _, payload = signed.partition(".")
    changed = bytearray(unb64(payload))
    changed[0] ^= 1
    assert judge(f"{header}.{b64(bytes(changed))}.{signature}", {"keys": [jwk]}) == "bad signature"


@pytest.mark.rule("J-50")
def test_thumbprints_are_those_of_the_rfcs():
    rfc7638 = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(rfc7638) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert thumbprint(RFC8037_A_KEY) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert key_from(rfc7638).thumbprint == thumbprint(rfc7638)


@pytest.mark.rule("J-50")
def test_thumbprint_of_an_ec_key_covers_its_four_members_in_order():
    jwk = ec_jwk("ES256")
    canonical = f'{{"crv":"P-256","kty":"EC","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'
    assert thumbprint({"use": "sig", **jwk, "kid": "é"}) == b64(hashlib.sha256(canonical.encode()).digest())


@pytest.mark.parametrize(
    "jwk",
    [{}, {"kty": "oct", "k": "AA"}, {"kty": ["RSA"]}, {"kty": "RSA", "n": "AQ"}, {"kty": "RSA", "n": 5, "e": "AQAB"}],
)
def test_malformed_key_has_no_thumbprint(jwk):
    with pytest.raises(ValueError, match=r"kty|missing"):
        thumbprint(jwk)


# --- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.rule("J-13", "J-37")
@pytest.mark.parametrize("algorithm", sorted(USABLE))
def test_each_supported_algorithm_verifies_only_its_own_signatures(algorithm):
    key = key_from(jwk_for(algorithm))
    signature = sign(algorithm, SIGNED)
    assert key.verify(algorithm, SIGNED, signature)
    assert not key.verify(algorithm, SIGNED + b"x", signature)
    assert not key.verify(algorithm, b"", signature)
    assert not key.verify(algorithm, SIGNED, signature[::-1])


@pytest.mark.rule("X-03")
@pytest.mark.parametrize("algorithm", sorted(USABLE))
def test_a_signature_of_any_other_length_is_wrong(algorithm):
    key = key_from(jwk_for(algorithm))
    signature = sign(algorithm, SIGNED)
    variants = [signature[:-1], signature[1:], signature + b"\0", b"\0" + signature, signature * 2, b"", b"\0"]
    assert not any(key.verify(algorithm, SIGNED, variant) for variant in variants)


@pytest.mark.rule("J-04", "X-28")
@pytest.mark.parametrize("algorithm", sorted(RSA_ALGORITHMS))
def test_rsa_signature_without_its_leading_zero_octet_is_refused(algorithm):
    key = key_from(rsa_jwk())
    # PSS draws a salt for each signature, PKCS #1 v1.5 needs another content: in 1 of 256 the first octet is zero.
    signed = signature = b"x"
    while signature[0]:
        signed += b"x"
        signature = sign(algorithm, signed)
    assert key.verify(algorithm, signed, signature)
    assert not key.verify(algorithm, signed, signature[1:])
    assert not key.verify(algorithm, signed, b"\0" + signature)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
@pytest.mark.parametrize("bits", [2050, 2060])
def test_rsa_signature_must_have_the_length_of_the_modulus(algorithm, bits):
    key = rsa_key(bits)
    assert key.key_size == bits
    assert key_from(rsa_jwk(key)).verify(algorithm, SIGNED, sign(algorithm, SIGNED, key))


@pytest.mark.rule("J-33")
@pytest.mark.parametrize("algorithm", sorted(CURVES))
def test_an_ecdsa_signature_is_r_and_s_of_exact_length_and_not_der(algorithm):
    key, signature, length = key_from(ec_jwk(algorithm)), sign(algorithm, SIGNED), coordinate(algorithm)
    assert len(signature) == {"ES256": 64, "ES384": 96, "ES512": 132, "ES256K": 64}[algorithm]
    r, s = signature[:length], signature[length:]
    assert key.verify(algorithm, SIGNED, r + s)
    der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    for wrong in (der, b"\0" + r + b"\0" + s, r + b"\0" + s, r[:-1] + s, r + s[:-1], s + r):
        assert not key.verify(algorithm, SIGNED, wrong)


@pytest.mark.rule("J-34", "X-06")
@pytest.mark.parametrize("algorithm", sorted(CURVES))
def test_r_and_s_lie_between_zero_and_the_order_of_the_curve(algorithm):
    key, length = key_from(ec_jwk(algorithm)), coordinate(algorithm)
    order = ORDERS[algorithm]
    signature = sign(algorithm, SIGNED)
    r, s = (int.from_bytes(half, "big") for half in (signature[:length], signature[length:]))
    edge = (0, 1, order - 1, order, order + 1, 2 ** (8 * length) - 1)
    for pair in [(a, b) for a in edge for b in edge] + [(r, 0), (0, s), (r, order), (order, s)]:
        raw = b"".join(value.to_bytes(length, "big") for value in pair)
        assert not key.verify(algorithm, SIGNED, raw)
    for shifted in ((r + order, s), (r, s + order)):
        if max(shifted) < 2 ** (8 * length):
            assert not key.verify(algorithm, SIGNED, b"".join(value.to_bytes(length, "big") for value in shifted))
    assert not key.verify(algorithm, SIGNED, encode_dss_signature(0, 0))
    assert not key.verify(algorithm, SIGNED, bytes(2 * length))


@pytest.mark.rule("J-36")
@pytest.mark.parametrize(("algorithm", "length"), [("PS256", 32), ("PS384", 48), ("PS512", 64)])
def test_the_salt_of_pss_is_as_long_as_the_hash(algorithm, length):
    key = key_from(rsa_jwk())
    assert key.verify(algorithm, SIGNED, sign(algorithm, SIGNED, salt=length))
    for salt in (0, 20, length - 1, length + 1, 100):
        assert not key.verify(algorithm, SIGNED, sign(algorithm, SIGNED, salt=salt))


@pytest.mark.rule("J-36")
def test_the_mask_of_pss_uses_the_hash_of_the_signature():
    signature = rsa_key().sign(SIGNED, padding.PSS(padding.MGF1(hashes.SHA1()), 32), hashes.SHA256())
    assert not key_from(rsa_jwk()).verify("PS256", SIGNED, signature)


@pytest.mark.rule("J-14", "X-09")
@pytest.mark.parametrize("algorithm", [*sorted(USABLE), "none", "HS256", "", "ES521", "Ed448", "ML-DSA-65"])
@pytest.mark.parametrize("jwk", [rsa_jwk, ed_jwk, *(functools.partial(ec_jwk, name) for name in CURVES)])
def test_key_is_not_used_with_algorithms_of_another_type(jwk, algorithm):
    key = key_from(jwk())
    kind = jwk()["kty"], jwk().get("crv")
    fitting = {name for name in USABLE if (jwk_for(name)["kty"], jwk_for(name).get("crv")) == kind}
    assert key.algorithms == fitting
    if algorithm not in fitting:
        assert parse_key_set({"keys": [jwk()]}).candidates(None, algorithm) == ()
        for signature in (b"", b"\0" * 64, *(sign(name, SIGNED) for name in USABLE)):
            assert not key.verify(algorithm, SIGNED, signature)


ALL_KEYS = st.sampled_from(sorted(USABLE))


@settings(max_examples=200)
@given(ALL_KEYS, st.text(max_size=9) | ALL_KEYS, st.binary(), st.binary() | st.binary(min_size=64, max_size=64))
def test_random_signatures_are_refused_without_an_exception(kind, algorithm, signed, signature):
    assert key_from(jwk_for(kind)).verify(algorithm, signed, signature) is False


@settings(max_examples=200)
@given(ALL_KEYS, st.data())
def test_random_signatures_of_the_right_length_are_refused_without_an_exception(kind, data):
    length = len(sign(kind, SIGNED))
    signature = data.draw(
        st.binary(min_size=length, max_size=length) | st.sampled_from([b"\0" * length, b"\xff" * length])
    )
    assert key_from(jwk_for(kind)).verify(kind, SIGNED, signature) is False


@pytest.mark.rule("J-04", "X-28")
@pytest.mark.parametrize(("text", "jwk"), PUBLISHED)
def test_token_with_one_changed_character_is_refused(judge, text, jwk):
    # All characters for the shortest token, a sample for each position of the others: a signature check is slow.
    characters = string.ascii_letters + string.digits + "-_.=+/~ \n"
    sample = len(characters) if len(text) < 150 else 3
    picked = random.Random(7)
    for position, present in enumerate(text):
        others = characters.replace(present, "")
        for other in others if sample == len(characters) else picked.sample(others, sample):
            assert judge(text[:position] + other + text[position + 1 :], {"keys": [jwk]}) != "accepted"
        assert judge(text[:position] + text[position + 1 :], {"keys": [jwk]}) != "accepted"
        assert judge(text[:position] + picked.choice(characters) + text[position:], {"keys": [jwk]}) != "accepted"


# --- forgeries that choose the key or the algorithm ------------------------------------------------------------------


def forge(signature_of: Any, **header: Any) -> str:
    signed = f"{b64(json.dumps(header).encode())}.{b64(b'{}')}"
    return f"{signed}.{b64(signature_of(signed.encode()))}"


@pytest.mark.rule("J-14", "J-24", "X-01")
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("algorithms", [DEFAULT_ALGORITHMS, (*DEFAULT_ALGORITHMS, "HS256", "HS384", "HS512")])
def test_hmac_with_the_public_key_is_refused(judge, algorithm, algorithms):
    public = rsa_key().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    jwk = rsa_jwk(kid="k1")
    secrets = [
        *(pem, pem.strip(), pem + b"\n", pem.replace(b"\n", b"\r\n"), b" " + pem, b""),
        *(public.public_bytes(Encoding.DER, form) for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1)),
        *(json.dumps(jwk, separators=form).encode() for form in ((",", ":"), (", ", ": "))),
        *(unb64(jwk["n"]), jwk["n"].encode()),
    ]  # fmt: skip
    for secret in secrets:
        digest = functools.partial(hmac.digest, secret, digest=f"sha{algorithm[2:]}")
        text = forge(digest, alg=algorithm, kid="k1")
        # Even if HS* were allowed, no key verifies it.
        assert judge(text, {"keys": [jwk]}, algorithms=algorithms) in ("algorithm_refused", "no candidate")


@pytest.mark.rule("J-24", "X-01")
def test_a_symmetric_key_in_the_set_is_never_used(judge):
    secret = b"s" * 64
    jwks = {"keys": [{"kty": "oct", "k": b64(secret), "alg": "HS256", "kid": "k1"}, ec_jwk(kid="k2")]}
    text = forge(functools.partial(hmac.digest, secret, digest="sha256"), alg="HS256", kid="k1")
    assert judge(text, jwks) == "algorithm_refused"
    assert judge(text, jwks, algorithms=["HS256"]) == "no candidate"
    why, alarming = find_alarm(jwks["keys"][0])
    assert "symmetric" in why
    assert alarming


@pytest.mark.rule("J-25", "J-26", "J-27", "X-04")
@pytest.mark.parametrize(
    "kid", ["k1", "https://attacker.example/jwks", "../../dev/null", "' OR 1=1--", "k\x00", "*)(uid=*"]
)
def test_a_key_in_the_token_is_not_a_key(judge, kid):
    attacker = rsa_key(number=1)
    own = {
        "jwk": rsa_jwk(attacker, kid=kid),
        "jku": "https://attacker.example/jwks",
        "x5u": "https://attacker.example/cert",
        "x5c": ["MIIC"],
        "x5t": "AAAA",
        "x5t#S256": "AAAA",
    }
    for header in ({}, own, *({name: value} for name, value in own.items())):
        answer = judge(token("RS256", attacker, kid=kid, **header), {"keys": [rsa_jwk(kid="k1")]})
        assert answer == ("bad signature" if kid == "k1" else "no candidate")


# --- which keys are tried --------------------------------------------------------------------------------------------


@pytest.mark.rule("J-18")
@pytest.mark.parametrize("kid", ["k1", "K1 ", "", "\uff2b1", "K1\x00", "\u212a1"])
def test_key_ids_are_compared_exactly(judge, kid):
    jwks = {"keys": [rsa_jwk(kid="K1"), ed_jwk(kid="other")]}
    assert judge(token(kid="K1"), jwks) == "accepted"
    assert judge(token(kid=kid), jwks) == "no candidate"
    assert not parse_key_set(jwks).has_key_id(kid)


@pytest.mark.rule("J-19")
def test_token_without_a_kid_is_tried_with_all_matching_keys(judge):
    other, nameless = rsa_key(number=2), rsa_key(number=3)
    jwks = {"keys": [rsa_jwk(other, kid="b"), ec_jwk(kid="c"), rsa_jwk(kid="a"), rsa_jwk(nameless)]}
    assert judge(token(), jwks) == "accepted"
    assert [key.kid for key in parse_key_set(jwks).candidates(None, "RS256")] == ["b", "a", None]


@pytest.mark.rule("J-19", "X-86")
@pytest.mark.parametrize("kid", [None, "same"])
def test_no_more_than_eight_keys_are_tried(kid):
    one = ec_jwk("ES256", **({"kid": kid} if kid else {}))
    key_set = parse_key_set({"keys": [one] * 50 + [rsa_jwk(kid="rsa")]})
    assert len(key_set.keys) == 51
    assert len(key_set.candidates(kid, "ES256")) == MAX_CANDIDATES == 8
    assert len(key_set.candidates(None, "RS256")) == 1, "keys of another type do not count towards the limit"


@pytest.mark.rule("J-21")
def test_matching_one_of_two_keys_with_the_same_kid_is_used(judge):
    jwks = {"keys": [rsa_jwk(kid="1"), ec_jwk(kid="1")]}
    assert judge(token("ES256", kid="1"), jwks) == "accepted"
    assert judge(token("RS256", kid="1"), jwks) == "accepted"
    assert judge(token("ES384", kid="1"), jwks) == "no candidate"


@pytest.mark.rule("J-21", "X-58")
@pytest.mark.parametrize("twin", ["other", "weak", "broken"])
def test_unusable_key_with_the_same_kid_is_harmless(judge, twin):
    twins = {
        "other": rsa_jwk(rsa_key(number=4), kid="1"),
        "weak": rsa_jwk(rsa_key(1024), kid="1"),
        "broken": {"kty": "RSA", "kid": "1", "n": "!", "e": "AQAB"},
    }
    for keys in ([twins[twin], rsa_jwk(kid="1")], [rsa_jwk(kid="1"), twins[twin]]):
        assert judge(token(kid="1"), {"keys": keys}) == "accepted"


def test_key_without_a_kid_matches_no_kid_if_the_set_has_other_keys(judge):
    jwks = {"keys": [rsa_jwk(), ec_jwk(kid="k2")]}
    assert judge(token(kid="k1"), jwks) == "no candidate"
    assert judge(token(), jwks) == "accepted"
    assert not parse_key_set(jwks).has_key_id("k1")


def test_the_only_key_is_tried_for_any_kid_when_it_has_none(judge):
    jwks = {"keys": [rsa_jwk(), rsa_jwk(use="enc")]}
    assert judge(token(kid="k1"), jwks) == "accepted"
    assert judge(token(kid="k1", key=rsa_key(number=1)), jwks) == "bad signature"
    assert not parse_key_set(jwks).has_key_id("whatever")


def test_only_key_with_a_kid_is_not_tried_for_another_kid(judge):
    assert judge(token(kid="k1"), {"keys": [rsa_jwk(kid="k2")]}) == "no candidate"


def test_key_set_lists_its_kids_for_all_algorithms():
    key_set = parse_key_set({"keys": [rsa_jwk(kid="a"), ec_jwk(kid="b"), ec_jwk(kid="c", use="enc")]})
    assert [key_set.has_key_id(kid) for kid in "abcd"] == [True, True, False, False]
    assert key_set.candidates("b", "RS256") == ()


def test_an_empty_key_set_has_no_candidates():
    assert KeySet(keys=()).candidates(None, "RS256") == ()
    assert not KeySet(keys=()).has_key_id("a")


@pytest.mark.rule("J-15", "X-12")
@pytest.mark.parametrize("pinned", sorted(USABLE - {"EdDSA", "Ed25519"}))
def test_a_key_that_names_its_algorithm_verifies_no_other(judge, pinned):
    jwks = {"keys": [jwk_for(pinned, kid="k", alg=pinned)]}
    assert parse_key_set(jwks).keys[0].algorithms == {pinned}
    assert judge(token(pinned, kid="k"), jwks) == "accepted"
    for other in RSA_ALGORITHMS - {pinned}:
        assert judge(token(other, kid="k"), jwks) == "no candidate"


@pytest.mark.rule("J-15")
@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(functools.partial(rsa_jwk, alg="ES256"), id="ES256 on RSA"),
        pytest.param(functools.partial(rsa_jwk, alg="RSA-OAEP"), id="RSA-OAEP"),
        pytest.param(functools.partial(rsa_jwk, alg="RSA1_5"), id="RSA1_5"),
        pytest.param(functools.partial(rsa_jwk, alg="HS256"), id="HS256"),
        pytest.param(functools.partial(rsa_jwk, alg="rs256"), id="lower case"),
        pytest.param(functools.partial(rsa_jwk, alg=["RS256"]), id="array"),
        pytest.param(functools.partial(rsa_jwk, alg=None), id="null"),
        pytest.param(functools.partial(ec_jwk, alg="ES384"), id="ES384 on P-256"),
        pytest.param(functools.partial(ec_jwk, alg="ECDH-ES"), id="ECDH-ES"),
        pytest.param(functools.partial(ec_jwk, alg="ES521"), id="no such algorithm"),
        pytest.param(functools.partial(ed_jwk, alg="Ed448"), id="Ed448"),
        pytest.param(functools.partial(ed_jwk, alg="ES256"), id="ES256 on Ed25519"),
    ],
)
def test_a_key_for_an_algorithm_that_does_not_fit_it_is_ignored(jwk):
    why, alarming = find_alarm(jwk())
    assert "alg" in why
    assert not alarming


@pytest.mark.rule("J-37")
@pytest.mark.parametrize("pinned", [None, "EdDSA", "Ed25519"])
@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
def test_ed25519_key_verifies_both_algorithm_names_if_allowed(judge, pinned, algorithm):
    jwks = {"keys": [ed_jwk(**({"alg": pinned} if pinned else {}))]}
    assert judge(token(algorithm), jwks, algorithms=[algorithm]) == "accepted"
    other = {"EdDSA": "Ed25519", "Ed25519": "EdDSA"}[algorithm]
    assert judge(token(algorithm), jwks, algorithms=[other]) == "algorithm_refused"


@pytest.mark.rule("J-38", "X-09")
def test_es256k_is_accepted_only_if_allowed(judge):
    jwks = {"keys": [ec_jwk("ES256K")]}
    assert judge(token("ES256K"), jwks, algorithms=["ES256K"]) == "accepted"
    assert judge(token("ES256K"), jwks, algorithms=DEFAULT_ALGORITHMS) == "algorithm_refused"


# --- which keys are usable -------------------------------------------------------------------------------------------


@pytest.mark.rule("J-16")
@pytest.mark.parametrize("use", ["enc", "SIG", "", None, 7, ["sig"], "verify"])
def test_a_key_that_is_not_for_signatures_is_ignored(judge, use):
    why, alarming = find_alarm(rsa_jwk(use=use, kid="k"))
    assert "use" in why
    assert not alarming
    assert judge(token(kid="k"), {"keys": [rsa_jwk(use=use, kid="k"), ed_jwk(kid="x")]}) == "no candidate"


@pytest.mark.rule("J-17")
@pytest.mark.parametrize(
    "members",
    [
        {"key_ops": ["encrypt"]},
        {"key_ops": []},
        {"key_ops": ["sign"]},
        {"key_ops": ["Verify"]},
        {"key_ops": ["verify", "encrypt"]},
        {"key_ops": ["wrapKey", "verify"]},
        {"key_ops": ["verify", "deriveBits"], "use": "sig"},
        {"key_ops": ["verify"], "use": "enc"},
        {"key_ops": ["encrypt"], "use": "sig"},
        {"key_ops": "verify"},
        {"key_ops": [["verify"]]},
        {"key_ops": None},
        {"key_ops": {"verify": True}},
    ],
    ids=str,
)
def test_key_whose_operations_exclude_verify_is_ignored(members):
    why, _ = find_alarm(ec_jwk(**members))
    assert "key_ops" in why or "use" in why


@pytest.mark.parametrize(
    "members", [{"use": "sig"}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"], "use": "sig"}]
)
def test_key_whose_operations_include_verify_is_used(members):
    assert key_from(ec_jwk(**members)).algorithms == {"ES256"}


@pytest.mark.rule("J-22", "J-38")
@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param({"kty": "AKP", "alg": "ML-DSA-65-ES256", "pub": "AAAA"}, id="composite"),
        pytest.param({"kty": "AKP", "alg": "SLH-DSA-SHA2-128s", "pub": "AAAA"}, id="SLH-DSA"),
        pytest.param({"kty": "rsa", "n": "AAAA", "e": "AQAB"}, id="lower case"),
        pytest.param({"kty": ["RSA"]}, id="kty is an array"),
        pytest.param({"kty": None}, id="kty is null"),
        pytest.param({}, id="no kty"),
        pytest.param({"kty": "OKP", "crv": "X25519", "x": b64(b"\1" * 32)}, id="X25519"),
        pytest.param({"kty": "OKP", "crv": "Ed448", "x": b64(b"\1" * 57)}, id="Ed448"),
        pytest.param({"kty": "OKP", "crv": ["Ed25519"]}, id="crv is an array"),
        pytest.param({"kty": "EC", "crv": "P-192", "x": b64(b"\1" * 24), "y": b64(b"\1" * 24)}, id="P-192"),
        pytest.param({"kty": "EC", "crv": ["P-256"]}, id="EC crv is an array"),
        pytest.param({"kty": "EC", "x": "AA", "y": "AA"}, id="no crv"),
        pytest.param({"kty": "EC", "crv": "P-256K", "x": "AA", "y": "AA"}, id="P-256K"),
    ],
)
def test_key_of_an_unknown_type_is_ignored_without_alarm(jwk):
    assert not find_alarm(jwk)[1]


@pytest.mark.rule("J-22")
@pytest.mark.parametrize("jwk", ["x", None, 7, [], [["kty", "RSA"]], True], ids=repr)
def test_key_that_is_not_an_object_is_ignored(jwk):
    assert find_alarm(jwk)[1]


@pytest.mark.rule("J-22")
@pytest.mark.parametrize("make", [rsa_jwk, ec_jwk, ed_jwk], ids=["RSA", "EC", "OKP"])
@pytest.mark.parametrize(
    "value", [None, 7, "", "A", "!!!!", "AQAB=", "AQ+B", "AQ/B", " AQAB", "AQAB\n", "AR", ["AQAB"], "é"]
)
def test_key_with_malformed_base64url_is_ignored_and_others_are_used(make, value):
    for name in {"n", "e", "x", "y"} & make().keys():
        assert find_alarm({**make(), name: value})[1]
        without = make()
        del without[name]
        assert "missing" in find_alarm(without)[0]


@pytest.mark.rule("J-18", "J-22")
@pytest.mark.parametrize("name", ["kid", "issuer"])
@pytest.mark.parametrize("value", [None, 7, ["k"], {}])
def test_key_with_a_kid_or_issuer_of_another_type_is_ignored_and_others_are_used(name, value):
    why, alarming = find_alarm(rsa_jwk(**{name: value}))
    assert name in why
    assert alarming


@pytest.mark.rule("J-23")
@pytest.mark.parametrize("name", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
@pytest.mark.parametrize("make", [rsa_jwk, ec_jwk, ed_jwk], ids=["RSA", "EC", "OKP"])
def test_key_published_with_its_private_part_is_ignored(judge, make, name):
    why, alarming = find_alarm(make(kid="k", **{name: "c2VjcmV0"}))
    assert f"({name})" in why
    assert "c2VjcmV0" not in why
    assert alarming
    assert judge(token(kid="k"), {"keys": [make(kid="k", **{name: ""}), ed_jwk(kid="x")]}) == "no candidate"


@pytest.mark.rule("J-31", "X-07")
@pytest.mark.parametrize("bits", [1, 512, 1024, 2047])
def test_a_short_rsa_key_is_ignored(bits):
    why, alarming = find_alarm({"kty": "RSA", "n": number(2 ** (bits - 1) | 1), "e": "AQAB"})
    assert f"{bits} bits" in why
    assert alarming


@pytest.mark.rule("J-31", "X-07")
def test_a_signature_by_a_short_rsa_key_is_not_accepted(judge):
    weak = rsa_key(1024)
    assert judge(token("RS256", weak), {"keys": [rsa_jwk(weak)]}) == "no usable key"


@pytest.mark.rule("J-32", "X-07")
@pytest.mark.parametrize("bits", [8193, 16384, 65536])
def test_an_oversized_rsa_key_is_ignored(bits):
    why, _ = find_alarm({"kty": "RSA", "n": number(2 ** (bits - 1) | 1), "e": "AQAB"})
    assert f"{bits} bits" in why


@pytest.mark.rule("J-32", "X-07")
@pytest.mark.parametrize("exponent", [0, 1, 2, 4, 65536, 2**32, 2**32 + 1, 2**2000 + 1])
def test_an_absurd_rsa_exponent_is_ignored(exponent):
    jwk = rsa_jwk()
    jwk["e"] = number(exponent) if exponent else "AA"
    assert "exponent" in find_alarm(jwk)[0]


@pytest.mark.rule("J-32")
def test_an_even_modulus_is_ignored():
    assert "even" in find_alarm({"kty": "RSA", "n": number(2**2047 + 2**900 + 6), "e": "AQAB"})[0]


@pytest.mark.rule("J-31", "J-32")
@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096, 8192])
@pytest.mark.parametrize("exponent", [3, 17, 65537, 2**32 - 1])
def test_rsa_keys_within_the_bounds_are_accepted(bits, exponent):
    assert (
        key_from({"kty": "RSA", "n": number(2 ** (bits - 1) | 1), "e": number(exponent)}).algorithms == RSA_ALGORITHMS
    )


def test_a_modulus_written_with_a_leading_zero_octet_is_accepted(judge):
    jwk = rsa_jwk()
    padded = {**jwk, "n": b64(b"\0" + unb64(jwk["n"])), "e": "AAEAAQ"}
    assert judge(token(), {"keys": [padded]}) == "accepted"


def test_a_key_of_the_infineon_library_is_recognised():
    # Its primes have the form k * M + (65537 ** a mod M), so their product is a power of 65537 modulo M.
    primes = [p for p in range(3, 168) if all(p % d for d in range(2, p))]
    product = functools.reduce(int.__mul__, primes)
    modulus = pow(65537, 12345, product) + product * 2 ** (2048 - product.bit_length())
    modulus += 0 if modulus % 2 else product
    assert modulus.bit_length() == 2048
    assert "CVE-2017-15361" in find_alarm({"kty": "RSA", "n": number(modulus), "e": "AQAB"})[0]
    assert key_from({"kty": "RSA", "n": number(modulus + 2), "e": "AQAB"})


@pytest.mark.rule("J-35", "X-08")
@pytest.mark.parametrize("algorithm", sorted(CURVES))
def test_ec_point_must_lie_on_its_curve(algorithm):
    jwk, length = ec_jwk(algorithm), coordinate(algorithm)
    x, y = (int.from_bytes(unb64(jwk[name]), "big") for name in ("x", "y"))
    field = 2 ** (8 * length) - 1
    for point in ((x, y ^ 1), (x ^ 1, y), (0, 0), (0, 1), (1, 1), (field, field)):
        wrong = {**jwk, "x": number(point[0], length), "y": number(point[1], length)}
        why, alarming = find_alarm(wrong)
        assert "numbers" in why
        assert alarming


@pytest.mark.rule("J-35")
@pytest.mark.parametrize("algorithm", sorted(CURVES))
def test_ec_coordinate_must_have_its_exact_length(algorithm):
    jwk = ec_jwk(algorithm)
    for name in ("x", "y"):
        octets = unb64(jwk[name])
        for wrong in (octets[1:], octets[:-1], b"\0" + octets, octets + b"\0", b""):
            assert "octets" in find_alarm({**jwk, name: b64(wrong)})[0]
    assert "octets" in find_alarm({**jwk, "x": b64(b"\0" + unb64(jwk["x"])), "y": b64(unb64(jwk["y"])[1:])})[0]


@pytest.mark.rule("J-35", "X-08")
def test_ec_point_of_another_curve_is_ignored():
    for crv in ("P-384", "P-521", "secp256k1"):
        assert find_alarm({**ec_jwk("ES256"), "crv": crv})[1]


@pytest.mark.rule("J-37")
@pytest.mark.parametrize("length", [0, 31, 33, 57])
def test_ed25519_point_must_have_32_octets(length):
    assert "32 octets" in find_alarm({**ed_jwk(), "x": b64(b"\x42" * length)})[0]


@pytest.mark.rule("X-08")
@pytest.mark.parametrize("sign_bit", [0, 1])
def test_an_ed25519_point_of_small_order_is_ignored(sign_bit):
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime) % prime
    eighth = [y for y in module._SMALL_ORDER if (d * y**4 + 2 * y * y - 1) % prime == 0]
    assert len(eighth) == 2, "twice a point of order 8 has y = 0"
    for y in (0, 1, prime - 1, *eighth, prime, prime + 1):
        octets = (y | sign_bit << 255).to_bytes(32, "little")
        why, alarming = find_alarm({**ed_jwk(), "x": b64(octets)})
        assert "small order" in why
        assert alarming


@pytest.mark.rule("X-08")
def test_forged_signature_for_a_point_of_small_order_is_refused(judge):
    assert ed25519.Ed25519PublicKey.from_public_bytes(bytes(32)).verify(bytes(64), b"x") is None
    text = forge(lambda _: bytes(64), alg="EdDSA")
    assert judge(text, {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(32))}]}) == "no usable key"


def test_key_on_a_curve_that_openssl_lacks_is_ignored_without_alarm(monkeypatch):
    def raise_unsupported(jwk: Mapping[str, Any]) -> Any:
        raise UnsupportedAlgorithm("no such curve")

    monkeypatch.setattr(module, "_READERS", {**module._READERS, "EC": raise_unsupported})
    why, alarming = find_alarm(ec_jwk())
    assert "OpenSSL" in why
    assert not alarming


@pytest.mark.rule("J-27")
def test_certificates_in_a_key_are_ignored():
    for members in ({"x5c": ["nonsense"]}, {"x5c": 7}, {"x5u": "https://canary.example/"}, {"x5t": None}):
        assert key_from(rsa_jwk(**members)).algorithms == RSA_ALGORITHMS
    assert "missing" in find_alarm({"kty": "RSA", "x5c": ["MIIC"]})[0]


def test_key_keeps_its_issuer():
    jwks = {"keys": [rsa_jwk(issuer="https://login.example/{tenantid}/v2.0"), ec_jwk()]}
    assert [key.issuer for key in parse_key_set(jwks).keys] == ["https://login.example/{tenantid}/v2.0", None]


# --- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.rule("J-09", "X-20")
@pytest.mark.parametrize(
    "repeated",
    ['"n":"AQAB"', '"kid":"k1"', '"x":{"a":1,"a":2}', '"x":[{"y":{"a":1,"a":1}}]'],
    ids=["n", "kid", "inside", "deep"],
)
def test_key_with_a_repeated_member_is_ignored_and_others_are_used(repeated):
    bad = json.dumps(rsa_jwk(kid="k1"))[:-1] + f", {repeated}}}"
    document = f'{{"keys": [{bad}, {json.dumps(ed_jwk(kid="good"))}]}}'.encode()
    key_set = parse_key_set(document)
    assert [key.kid for key in key_set.keys] == ["good"]
    assert [(key.kid, key.alarming) for key in key_set.ignored] == [("k1", True)]
    assert "twice" in key_set.ignored[0].reason


@pytest.mark.rule("J-09", "X-20")
def test_set_with_a_repeated_member_is_malformed():
    keys = json.dumps([rsa_jwk()])
    with pytest.raises(MalformedKeySet, match="twice"):
        parse_key_set(f'{{"keys": {keys}, "keys": {keys}}}'.encode())


@pytest.mark.rule("A-19")
@pytest.mark.parametrize(
    "document",
    [
        b"", b"{}", b"[]", b"null", b"<html>", b'{"keys":[]}', b'{"keys":{}}', b'{"keys":null}', b'{"Keys":[]}',
        b'{"keys":[{}]}', b'{"keys":["x"]}', b'{"keys":[NaN]}', b'\xef\xbb\xbf{"keys":[]}', b'{"keys":[{"kty":"oct"}]}',
        json.dumps({"keys": [{"kty": "RSA", "use": "enc"}]}).encode("utf-16"), b'{"error":"rate limited"}',
    ],
)  # fmt: skip
def test_document_without_a_usable_key_is_malformed(document):
    with pytest.raises(MalformedKeySet):
        parse_key_set(document)


@pytest.mark.rule("A-13")
def test_the_number_of_keys_is_bounded():
    jwk = ed_jwk()
    assert len(parse_key_set({"keys": [jwk] * 100}).keys) == 100
    for keys in ([jwk] * 101, [jwk] + [None] * 100):
        with pytest.raises(MalformedKeySet, match="101"):
            parse_key_set({"keys": keys})
    with pytest.raises(MalformedKeySet, match="at most 2"):
        parse_key_set({"keys": [jwk] * 3}, max_keys=2)


@pytest.mark.rule("J-22")
def test_good_key_among_many_bad_ones_is_used(judge):
    bad: list[object] = [
        {"kty": "AKP", "alg": "ML-DSA-65"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, None, "x", 7, [],
        {"kty": "RSA"}, {"kty": "oct", "k": "AA"}, {**rsa_jwk(), "use": "enc"}, {**rsa_jwk(), "d": "AA"}, {},
    ]  # fmt: skip
    document = json.dumps({"keys": [*bad, rsa_jwk(kid="k")], "extra": [1, {"a": None}]}).encode()
    assert judge(token(kid="k"), document) == "accepted"
    assert [key.position for key in parse_key_set(document).ignored] == list(range(len(bad)))


def test_error_about_a_set_without_a_usable_key_states_the_reasons_briefly():
    bad = [{"kty": f"kind {position} " + "x" * 500} for position in range(100)]
    with pytest.raises(MalformedKeySet, match="kind 0") as caught:
        parse_key_set({"keys": bad})
    assert len(str(caught.value)) < 1000


@pytest.mark.rule("X-21")
def test_text_of_the_document_is_escaped_in_the_reasons():
    for members in ({"kty": "a\r\nb\x1b[31m\u202e"}, {**rsa_jwk(), "alg": "\n" * 99}, {**rsa_jwk(), "use": ["\n"]}):
        why, _ = find_alarm(members)
        assert why.isascii()
        assert len(why) < 200


WEIRD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.binary(max_size=40).map(b64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.one_of(
    WEIRD,
    st.sampled_from(
        ["RSA", "EC", "OKP", "P-256", "P-521", "Ed25519", "sig", "verify", "AQAB", "RS256", "EdDSA", ["verify"]]
    ),
    st.binary(min_size=32, max_size=32).map(b64),
    st.integers(0, 2**2048).map(number),
)
NAMES = st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "issuer", "n", "e", "x", "y"])


@given(st.lists(st.dictionaries(NAMES, PARTS) | WEIRD, max_size=4), st.booleans())
def test_any_list_of_keys_is_parsed_or_reported_as_malformed(keys, as_bytes):
    document = {"keys": keys}
    try:
        key_set = parse_key_set(json.dumps(document).encode() if as_bytes else document)
    except MalformedKeySet as error:
        assert str(error)  # noqa: PT017
        return
    assert len(key_set.keys) + len(key_set.ignored) == len(keys)
    assert all(key.algorithms <= USABLE for key in key_set.keys)


@given(st.binary() | WEIRD.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_parsed_or_reported_as_malformed(document):
    with pytest.raises(MalformedKeySet):
        parse_key_set(document)


def test_bytes_and_the_parsed_object_give_the_same_keys():
    document = {"keys": [rsa_jwk(kid="a"), ec_jwk(kid="b", alg="ES256"), ed_jwk(use="enc")]}
    assert parse_key_set(json.dumps(document).encode()) == parse_key_set(document)
    tuples = {"keys": tuple({**jwk, "key_ops": ("verify",)} for jwk in document["keys"])}
    assert parse_key_set(tuples).keys == parse_key_set(document).keys


def test_equal_keys_compare_equal_and_have_a_short_repr():
    key_set = parse_key_set({"keys": [rsa_jwk(kid="a")]})
    assert hash(key_set) == hash(parse_key_set({"keys": [rsa_jwk(kid="a")]}))
    assert rsa_jwk()["n"][:20] not in repr(key_set)
    key: Any = key_set.keys[0]
    with pytest.raises(AttributeError):
        key.kid = "b"


# --- keys in the configuration ---------------------------------------------------------------------------------------


def test_configured_keys_are_parsed_like_fetched_ones():
    document = {"keys": [rsa_jwk(kid="a"), rsa_jwk(kid="enc", use="enc"), {"kty": "AKP", "alg": "SLH-DSA"}]}
    assert parse_configured_key_set(document) == parse_key_set(document)


@pytest.mark.rule("J-31", "J-32", "J-39", "X-07")
@pytest.mark.parametrize(
    ("jwk", "name"),
    [
        pytest.param(lambda: rsa_jwk(rsa_key(1024), kid="w"), "kid 'w': an RSA key of 1024 bits", id="weak"),
        pytest.param(lambda: rsa_jwk(kid="p", d="c2VjcmV0"), r"kid 'p': it has private members \(d\)", id="private"),
        pytest.param(lambda: {"kty": "oct", "k": "c2VjcmV0"}, "key 2: it is symmetric", id="symmetric"),
        pytest.param(lambda: {**rsa_jwk(), "e": "AQ"}, "key 2: its exponent", id="e=1"),
        pytest.param(lambda: {**ec_jwk(), "x": "AA"}, "key 2: its coordinates", id="broken"),
        pytest.param(lambda: "x", "key 2: it is not an object", id="not an object"),
    ],
)
def test_a_bad_key_in_the_configuration_is_an_error_that_names_it(jwk, name):
    with pytest.raises(ConfigurationError, match=name) as caught:
        parse_configured_key_set({"keys": [ed_jwk(kid="good"), jwk()]}, setting="issuer.keys")
    assert str(caught.value).startswith("issuer.keys: ")
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.rule("J-39", "X-10", "X-11")
@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(b"sixteen octets..", id="short"),
        pytest.param(b"correct horse battery staple and so on", id="words"),
        pytest.param(b"\x9f" * 64, id="long"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n", id="PEM"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n", id="certificate"),
        pytest.param(b"ssh-ed25519 AAAA somebody", id="SSH"),
    ],
)
def test_no_secret_can_be_configured_as_a_key(secret):
    for members in ({}, {"alg": "HS256"}, {"use": "enc"}, {"kid": "s", "key_ops": ["verify"]}):
        with pytest.raises(ConfigurationError, match="symmetric"):
            parse_configured_key_set({"keys": [rsa_jwk(), {"kty": "oct", "k": b64(secret), **members}]})


@pytest.mark.rule("J-40")
def test_there_is_no_symmetric_algorithm_whose_result_could_be_compared_in_variable_time():
    keys = [key_from(jwk_for(algorithm)) for algorithm in USABLE]
    assert {algorithm for key in keys for algorithm in key.algorithms} == USABLE
    asymmetric = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    assert all(isinstance(key.public_key, asymmetric) or key.algorithms <= set(ML_DSA_HERE) for key in keys)
    for symmetric in ("HS256", "HS384", "HS512", "none"):
        with pytest.raises(KeyError):  # No configuration accepts it, and no backend computes it.
            prepare_verifier(symmetric, rsa_key().public_key())


@pytest.mark.parametrize("document", [{}, {"keys": []}, {"keys": "x"}, {"keys": [{"kty": "RSA", "use": "enc"}]}])
def test_a_configuration_without_a_usable_key_is_an_error(document):
    with pytest.raises(ConfigurationError, match=r"keys: (not|a) "):
        parse_configured_key_set(document)


def padded_jwk(algorithm: str) -> JWK:
    """Return a key whose numbers are padded, as plain base64 libraries write them."""
    jwk = jwk_for(algorithm, kid="k")
    return {
        name: value + "=" * (-len(value) % 4) if name in ("n", "e", "x", "y") else value for name, value in jwk.items()
    }


@pytest.mark.rule("J-22")
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_padding_in_a_key_is_refused_with_a_hint_at_the_setting(algorithm: str):
    why, alarming = find_alarm(padded_jwk(algorithm))
    assert "key_set.padded = true accepts padding" in why
    assert alarming
    with pytest.raises(ConfigurationError, match=r"key_set\.padded"):
        parse_configured_key_set({"keys": [padded_jwk(algorithm)]})


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_padding_in_a_key_is_accepted_if_configured(algorithm: str):
    plain = parse_key_set({"keys": [jwk_for(algorithm, kid="k")]}, padded=True)
    for document in ({"keys": [padded_jwk(algorithm)]}, json.dumps({"keys": [padded_jwk(algorithm)]}).encode()):
        found = parse_key_set(document, padded=True)
        assert found.keys == plain.keys
        assert found.keys[0].thumbprint == plain.keys[0].thumbprint
        assert found.keys[0].verify(algorithm, b"signed", sign(algorithm, b"signed"))
    assert parse_configured_key_set({"keys": [padded_jwk(algorithm)]}, padded=True).keys == plain.keys


@pytest.mark.rule("J-22")
@pytest.mark.parametrize("ending", ["=", "===", "====", "=A==", " ", "+/=="])
def test_invalid_padding_is_refused_even_if_padding_is_configured(ending: str):
    jwk = ec_jwk(kid="k")  # A coordinate of 43 characters takes one "=".
    for wrong in ({**jwk, "x": jwk["x"] + "=" + ending}, {**jwk, "kid": "k="}, 7, {**jwk, "x": 7}):
        found = parse_key_set({"keys": [wrong, ed_jwk(kid="good")]}, padded=True)
        assert [key.kid for key in found.keys] in (["good"], ["k=", "good"])
    twice = b'{"keys": [{"kty": "OKP", "kty": "OKP"}, %s]}' % json.dumps(ed_jwk(kid="good")).encode()
    assert [key.kid for key in parse_key_set(twice, padded=True).keys] == ["good"]


def test_too_many_configured_keys_are_an_error():
    with pytest.raises(ConfigurationError, match="at most 1"):
        parse_configured_key_set({"keys": [ed_jwk(), ed_jwk()]}, max_keys=1)
