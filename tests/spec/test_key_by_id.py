"""A single key in PEM: its URL and its accepted forms."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from rsa_keys import rsa_key
from scopeguard.spec.jwks import MalformedKeySet
from scopeguard.spec.key_by_id import key_url, parse_public_key

TEMPLATE = "https://keys.test/{kid}"
KID = "c2f80c8b-c05c-4068-af14-17299f7896b1"
P256 = ec.generate_private_key(ec.SECP256R1())


def pem(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
    form: serialization.PublicFormat = serialization.PublicFormat.SubjectPublicKeyInfo,
) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def test_kid_that_is_a_lower_case_uuid_gives_a_url():
    assert key_url(TEMPLATE, KID) == (KID, f"https://keys.test/{KID}")


@given(st.one_of(st.text(), st.none(), st.integers(), st.from_regex(r"[0-9a-f-]{36}\n?", fullmatch=True)))
def test_any_other_kid_gives_no_url(kid: object):
    found = key_url(TEMPLATE, kid)
    if found is not None:
        assert [len(part) for part in found[0].split("-")] == [8, 4, 4, 4, 12]
        assert set(found[0]) <= set("0123456789abcdef-")
        assert found[1] == "https://keys.test/" + found[0]


def test_an_elliptic_curve_key_and_an_rsa_key_are_read():
    key = parse_public_key(pem(P256), KID, ("ES256",))
    assert key.kid == KID
    assert key.algorithms == {"ES256"}
    assert key.public_key == P256.public_key()
    big = rsa_key()
    assert "RS256" in parse_public_key(pem(big), KID, ("RS256",)).algorithms


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (pem(ec.generate_private_key(ec.SECP384R1())), "cannot verify any algorithm"),
        (pem(ec.generate_private_key(ec.BrainpoolP256R1())), "not one PEM public key"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "not one PEM public key"),
        (pem(rsa_key(1024)), "an RSA key of 1024 bits"),
        (
            pem(rsa_key(), serialization.PublicFormat.PKCS1),
            "not one PEM public key",
        ),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not one PEM public key"),
        (pem(P256) * 2, "not one PEM public key"),
        (b"", "not one PEM public key"),
    ],
    ids=["P-384", "Brainpool", "Ed25519", "RSA of 1024 bits", "PKCS #1", "not a key", "two keys", "empty"],
)
def test_anything_else_is_refused(document: bytes, problem: str):
    with pytest.raises(MalformedKeySet, match=problem):
        parse_public_key(document, KID, ("ES256",))


@given(st.binary(max_size=300), st.integers(0, 200))
def test_random_bytes_are_refused(garbage: bytes, at: int):
    good = pem(P256)
    for document in (garbage, good[:at] + garbage + good[at:]):
        try:
            parse_public_key(document, KID, ("ES256",))
        except MalformedKeySet:
            pass
