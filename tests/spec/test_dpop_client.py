"""The proofs and nonces of a client (RFC 9449)."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from scopeguard.config.dpop import DPoP
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.spec.dpop import check_proof
from scopeguard.spec.dpop_client import make_proof, proof_uri, read_nonce
from scopeguard.spec.jwks import thumbprint
from scopeguard.spec.jws import decode_base64url

# RFC 9449 section 4.1, figure 2: the token, the URI and the hash of the token in section 7.1.
TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
ATH = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
URI = "https://resource.example.org/protectedresource"


def make_key() -> AssertionKey:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return AssertionKey(material=pem.decode(), algorithm="ES256")


@pytest.mark.rule("C-35")
def test_a_proof_has_the_claims_of_its_request_and_is_accepted():
    key = make_key()
    proof = make_proof(
        key,
        key.public_jwk(),
        method="GET",
        uri=URI + "?a=b#c",
        now=1562262618.9,
        identifier="e1j3V_bKic8-LAEB",
        token=TOKEN,
        nonce="n-1",
    )
    assert json.loads(decode_base64url(proof.split(".")[1])) == {
        "jti": "e1j3V_bKic8-LAEB",
        "htm": "GET",
        "htu": URI,
        "iat": 1562262618,
        "ath": ATH,
        "nonce": "n-1",
    }
    jkt = thumbprint(key.public_jwk())
    checked = check_proof(proof, policy=DPoP(), method="GET", uri=URI, token=TOKEN, jkt=jkt, now=1562262620)
    assert checked.nonce == "n-1"


def test_a_proof_for_the_token_endpoint_has_neither_token_nor_nonce():
    key = make_key()
    proof = make_proof(
        key, key.public_jwk(), method="POST", uri="https://server.example.com/token", now=1, identifier="x"
    )
    assert set(json.loads(decode_base64url(proof.split(".")[1]))) == {"jti", "htm", "htu", "iat"}
    assert set(json.loads(decode_base64url(proof.split(".")[0]))["jwk"]) == {"kty", "crv", "x", "y"}


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("https://API.example/a%2Fb%7e?x=1", "https://api.example/a%2Fb%7e"),
        ("https://api.example", "https://api.example/"),
        ("https://api.example:443/", "https://api.example/"),
        ("http://api.example:80/", "http://api.example/"),
        ("http://api.example:443/", "http://api.example:443/"),
        ("https://user:password@api.example:8443/x#y", "https://api.example:8443/x"),
        ("https://[2001:DB8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("wss://api.example/socket", "https://api.example/socket"),
        ("ws://127.0.0.1:80/socket", "http://127.0.0.1/socket"),
    ],
)
def test_the_uri_of_a_proof_has_no_query_fragment_user_and_default_port(url: str, uri: str):
    assert proof_uri(url) == uri


@pytest.mark.rule("C-34")
@pytest.mark.parametrize(
    ("values", "nonce"),
    [
        (["eyJ7S_zG.eyJH0-Z.HX4w-7v"], "eyJ7S_zG.eyJH0-Z.HX4w-7v"),
        (["!#[]~,"], "!#[]~,"),
        (["x" * 1024], "x" * 1024),
        (["x" * 1025], None),
        ([], None),
        ([""], None),
        (["a", "b"], None),
        (["a b"], None),
        (['a"'], None),
        (["a\\"], None),
        (["a\n"], None),
        (["ä"], None),
    ],
)
def test_a_nonce_is_one_field_of_permitted_characters(values: list[str], nonce: str | None):
    assert read_nonce(values) == nonce
