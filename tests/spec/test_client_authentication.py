"""Client authentication at an authorization server: the exact bytes that a request carries."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from compact import parse_compact
from scopeguard.devserver.keys import SigningKey
from scopeguard.errors import ConfigurationError
from scopeguard.spec.client_authentication import (
    ASSERTION_LIFETIME,
    ASSERTION_TYPE,
    AssertionKey,
    Proof,
    assertion,
    basic,
    bearer,
    client_id_only,
    post,
)
from scopeguard.spec.jwks import parse_configured_key_set

NOW = 1_800_000_000.75
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


@pytest.fixture(scope="module")
def keys() -> Mapping[str, SigningKey]:
    return {algorithm: SigningKey.generate(algorithm, kid=f"k-{algorithm}") for algorithm in ALGORITHMS}


def pem(key: SigningKey) -> str:
    data: bytes = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data.decode()


def make_assertion(key: AssertionKey, **options: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the header, the claims and the token of an assertion signed with *key*."""
    settings: dict[str, Any] = {
        "audience": "https://as.test",
        "now": NOW,
        "identifier": "one",
        "typ": "client-authentication+jwt",
        **options,
    }
    proof = assertion("api", key, **settings)
    assert proof.authorization is None
    (kind, value), (name, token) = proof.parameters
    assert (kind, value, name) == ("client_assertion_type", ASSERTION_TYPE, "client_assertion")
    parsed = parse_compact(token)
    return dict(parsed.header), json.loads(parsed.payload), token


def decode_basic(proof: Proof) -> str:
    assert proof.authorization is not None
    scheme, _, value = proof.authorization.partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(value, validate=True).decode()


@pytest.mark.rule("I-04")
@pytest.mark.parametrize(
    ("client_id", "secret", "sent"),
    [
        ("a:b", "p%+ü", "a%3Ab:p%25%2B%C3%BC"),
        ("api", "s3cret", "api:s3cret"),
        ("a b", "", "a+b:"),
    ],
)
def test_basic_encodes_both_parts_as_a_form_before_base64(client_id: str, secret: str, sent: str):
    proof = basic(client_id, secret)
    assert decode_basic(proof) == sent
    assert proof.parameters == ()


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_basic_credentials_decode_to_the_same_id_and_secret(client_id: str, secret: str):
    first, colon, second = decode_basic(basic(client_id, secret)).partition(":")
    assert (unquote_plus(first), colon, unquote_plus(second)) == (client_id, ":", secret)


@pytest.mark.rule("I-05")
@pytest.mark.parametrize(
    ("proof", "authorization", "parameters"),
    [
        (basic("api", "hush"), "Basic YXBpOmh1c2g=", ()),
        (post("api", "hush"), None, (("client_id", "api"), ("client_secret", "hush"))),
        (bearer("other"), "Bearer other", ()),
        (client_id_only("api"), None, (("client_id", "api"),)),
        (Proof(), None, ()),
    ],
    ids=["basic", "post", "bearer", "named", "none"],
)
def test_each_method_puts_credentials_in_one_place(
    proof: Proof, authorization: str | None, parameters: tuple[Any, ...]
):
    assert (proof.authorization, proof.parameters) == (authorization, parameters)


def test_repr_of_a_proof_and_a_key_shows_no_secret(keys: Mapping[str, SigningKey]):
    shown = repr((basic("api", "hush"), post("api", "hush"), AssertionKey(material=pem(keys["RS256"]))))
    assert "hush" not in shown
    assert "YXBp" not in shown
    assert "PRIVATE" not in shown


# -- private_key_jwt


@pytest.mark.rule("I-32")
@pytest.mark.parametrize("form", ["pem", "jwk"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_assertion_names_the_client_and_is_signed_by_its_key(keys: Mapping[str, SigningKey], algorithm: str, form: str):
    signer = keys[algorithm]
    material = pem(signer) if form == "pem" else signer.private_jwk()
    header, claims, token = make_assertion(AssertionKey(material=material, algorithm=algorithm, kid=signer.kid))
    assert header == {"alg": algorithm, "typ": "client-authentication+jwt", "kid": signer.kid}
    assert claims == {
        "iss": "api",
        "sub": "api",
        "aud": "https://as.test",
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
        "jti": "one",
    }
    parsed = parse_compact(token)
    (public,) = parse_configured_key_set({"keys": [signer.public_jwk()]}).candidates(signer.kid, algorithm)
    assert public.verify(algorithm, parsed.signed, parsed.signature)


@pytest.mark.rule("I-33")
def test_the_audience_of_an_assertion_is_one_string(keys: Mapping[str, SigningKey]):
    key = AssertionKey(material=pem(keys["ES256"]), algorithm="ES256")
    assert make_assertion(key)[1]["aud"] == "https://as.test"
    assert make_assertion(key, audience="https://as.test/introspect")[1]["aud"] == "https://as.test/introspect"


@pytest.mark.rule("I-34")
def test_the_type_of_an_assertion_can_be_left_out(keys: Mapping[str, SigningKey]):
    key = AssertionKey(material=pem(keys["ES256"]), algorithm="ES256")
    assert make_assertion(key)[0] == {"alg": "ES256", "typ": "client-authentication+jwt"}
    assert make_assertion(key, typ=None)[0] == {"alg": "ES256"}


@pytest.mark.rule("I-35")
def test_assertion_expires_within_a_minute():
    assert ASSERTION_LIFETIME <= 60


@pytest.mark.parametrize(
    ("material", "algorithm"),
    [
        ("not a key", "RS256"),
        ("", "ES256"),
        ({}, "ES256"),
        ({"kty": "oct", "k": "AAAA"}, "RS256"),
        ("the public half", "ES256"),
        ({"the": "public half"}, "ES256"),
        ("another kind", "ES256"),
        ("another kind", "EdDSA"),
        ("itself", "HS256"),
        ("itself", "none"),
        ("itself", "ES512"),
    ],
)
def test_key_that_cannot_sign_is_refused_at_construction(keys: Mapping[str, SigningKey], material: Any, algorithm: str):
    match material:
        case "the public half":
            public = keys["ES256"].private_key.public_key()
            from cryptography.hazmat.primitives.serialization import PublicFormat

            material = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        case {"the": "public half"}:
            material = keys["ES256"].public_jwk()
        case "another kind":
            material = pem(keys["RS256"])
        case "itself":
            material = pem(keys["ES256"])
        case _:
            pass
    with pytest.raises(ConfigurationError, match="private_key_jwt") as refused:
        AssertionKey(material=material, algorithm=algorithm)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


OF_OTHER_KEYS = [
    (algorithm, other)
    for algorithm in ALGORITHMS
    for other in ALGORITHMS
    if algorithm != other and {algorithm, other} != {"RS256", "PS256"}
]


@pytest.mark.parametrize("form", ["pem", "jwk"])
@pytest.mark.parametrize(("algorithm", "other"), OF_OTHER_KEYS)
def test_a_key_of_another_type_or_curve_is_refused(
    keys: Mapping[str, SigningKey], algorithm: str, other: str, form: str
):
    """Older versions of PyJWT load any PEM text under any algorithm, and the first request would fail."""
    material = pem(keys[other]) if form == "pem" else keys[other].private_jwk()
    with pytest.raises(ConfigurationError, match=f"not a private key for {algorithm}"):
        AssertionKey(material=material, algorithm=algorithm)


# -- certificates


def certificate_of(signer: SigningKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    key: Any = signer.private_key
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + dt.timedelta(days=365))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("algorithm", ["PS256", "ES256"])
def test_header_names_the_certificate_of_the_key(keys: Mapping[str, SigningKey], algorithm: str):
    certificate = certificate_of(keys[algorithm])
    key = AssertionKey(material=pem(keys[algorithm]), algorithm=algorithm, certificate=certificate)
    header, _, _ = make_assertion(key)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    assert header["x5t#S256"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert "kid" not in header
    assert "CERTIFICATE" not in repr(key)


def test_certificate_must_be_one_of_the_key(keys: Mapping[str, SigningKey]):
    own, other = certificate_of(keys["ES256"]), certificate_of(keys["PS256"])
    for wrong, message in (
        ("", "must be one certificate as PEM text"),
        (own + other, "must be one certificate as PEM text"),
        (pem(keys["ES256"]), "must be one certificate as PEM text"),
        (own.replace("MII", "AAA", 1), "must be one certificate as PEM text"),
        (other, "must be for the key in private_key"),
    ):
        with pytest.raises(ConfigurationError, match=f"certificate: {message}"):
            AssertionKey(material=pem(keys["ES256"]), algorithm="ES256", certificate=wrong)
