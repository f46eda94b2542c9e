"""Hostile and faulty keys for the key set of an authority, and a token for each that must be refused.

They are not in :mod:`scopeguard.testing.hostile_tokens` because they change the key set of the authority.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from scopeguard.config.checks import instance
from scopeguard.config.ml_dsa import is_available
from scopeguard.devserver.keys import SigningKey, base64url
from scopeguard.testing.fake import FakeAuthority
from scopeguard.testing.forgeries.token_parts import BadToken, Corpus, Forge

# The prefix of a PKCS #1 signature over SHA-256 (RFC 8017 section 9.2, note 1).
_DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")


def bad_keys(authority: FakeAuthority) -> Mapping[str, BadToken]:
    """Publish keys at *authority* that a guard must not use. Return a token for each key, by the key id.

    All the tokens must be refused, and tokens signed with the other keys must still be accepted.
    ``authority.reset()`` removes the keys.

    >>> bad_keys(FakeAuthority())["key-rsa-e-one"].status
    401
    """
    instance(authority, FakeAuthority, "authority", "a FakeAuthority")
    forge = Forge(authority)
    corpus = Corpus()
    for publish in (_purposes, _secrets, _weak_rsa, _odd_curves, _ml_dsa):
        publish(forge, corpus)
    return MappingProxyType(corpus.tokens)


def _add(forge: Forge, corpus: Corpus, key: SigningKey, jwk: Mapping[str, Any], why: str, *rules: str) -> None:
    """Publish *jwk* and add a token signed with *key*."""
    forge.authority.authority.keys.publish(jwk)
    corpus.bad(key.kid, forge.sign(forge.header(key), key=key), why, *rules)


def _purposes(forge: Forge, corpus: Corpus) -> None:
    for name, members, rule in (
        ("use-enc", {"use": "enc"}, "J-16"),
        ("ops-encrypt", {"use": None, "key_ops": ["encrypt"]}, "J-17"),
        ("ops-contradict-use", {"use": "enc", "key_ops": ["verify"]}, "J-17"),
        ("ops-both", {"use": None, "key_ops": ["verify", "encrypt"]}, "J-17"),
        ("ops-empty", {"use": None, "key_ops": []}, "J-17"),
        ("alg-of-encryption", {"alg": "ECDH-ES"}, "J-15"),
        ("alg-of-another", {"alg": "ES384"}, "J-15"),
        ("kty-unknown", {"kty": "PQC"}, "J-22"),
        ("kty-akp", {"kty": "AKP"}, "PQ-01"),
    ):
        key = SigningKey.generate("ES256", kid=f"key-{name}")
        jwk = {member: value for member, value in {**key.public_jwk(), **members}.items() if value is not None}
        _add(forge, corpus, key, jwk, "the JWK says that the key is not for verifying such signatures", rule)


def _secrets(forge: Forge, corpus: Corpus) -> None:
    for algorithm in ("ES256", "EdDSA"):
        key = SigningKey.generate(algorithm, kid=f"key-leaked-{algorithm.lower()}")
        why = "the key set contains the private key, so anyone can sign with it"
        _add(forge, corpus, key, {**key.private_jwk(), "use": "sig"}, why, "J-23")
    secret = b"0123456789abcdef0123456789abcdef"
    forge.authority.authority.keys.publish(
        {"kty": "oct", "kid": "key-symmetric", "alg": "HS256", "k": base64url(secret)}
    )
    text = forge.text(forge.header(alg="HS256", kid="key-symmetric"))
    tag = base64url(hmac.new(secret, text.encode("ascii"), hashlib.sha256).digest())
    corpus.bad("key-symmetric", f"{text}.{tag}", "the shared secret is public", "J-24", "J-39", "P-21")


def _octets(number: int) -> str:
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _rsa_jwk(kid: str, modulus: int, exponent: int) -> dict[str, Any]:
    return {"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": _octets(modulus), "e": _octets(exponent)}


def _weak_rsa(forge: Forge, corpus: Corpus) -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - weak on purpose
    key = SigningKey(kid="key-rsa-1024", algorithm="RS256", private_key=small)
    why = "RSA keys must have at least 2048 bits (RFC 7518 section 3.3)"
    text = forge.text(forge.header(key))
    forge.authority.authority.keys.publish(_rsa_jwk(key.kid, small.public_key().public_numbers().n, 65537))
    corpus.bad(key.kid, f"{text}.{base64url(_pad(text, 128, small))}", why, "J-31", "X-07")
    modulus = forge.rsa.private_key.public_key().public_numbers().n
    for name, exponent, number, why in (
        ("e-one", 1, modulus, "with the exponent 1, the padded hash is its own signature"),
        ("e-even", 2, modulus, "an RSA exponent is odd"),
        ("e-huge", 2**64 + 13, modulus, "a large exponent makes each verification slow and is not more secure"),
        ("n-even", 65537, modulus - 1, "an even modulus is easy to factor"),
        ("n-65536-bits", 65537, (1 << 65535) | 1, "a large modulus makes each verification take a minute"),
        ("n-zero", 65537, 0, "zero is not a modulus"),
    ):
        kid = f"key-rsa-{name}"
        forge.authority.authority.keys.publish(_rsa_jwk(kid, number, exponent))
        text = forge.text(forge.header(forge.rsa, kid=kid))
        signature = base64url(_pad(text, max(256, (number.bit_length() + 7) // 8)))
        corpus.bad(kid, f"{text}.{signature}", why, "J-32", "J-22", "X-07")


def _pad(text: str, length: int, signer: rsa.RSAPrivateKey | None = None) -> bytes:
    """Return the padded hash of *text* in *length* bytes, or its signature with *signer*."""
    digest_info = _DIGEST_INFO + hashlib.sha256(text.encode("ascii")).digest()
    padded = b"\x00\x01" + b"\xff" * (length - len(digest_info) - 3) + b"\x00" + digest_info
    if signer is None:
        return padded
    numbers = signer.private_numbers()
    # PyJWT would warn of the short key.
    return pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n).to_bytes(length, "big")


def _odd_curves(forge: Forge, corpus: Corpus) -> None:
    key = SigningKey.generate("ES256", kid="key-ec-off-curve")
    flipped = key.public_jwk() | {"y": key.public_jwk()["x"]}
    _add(forge, corpus, key, flipped, "the point is not on its curve", "J-35", "X-08")
    key = SigningKey.generate("ES256", kid="key-ec-infinity")
    zero = base64url(bytes(32))
    _add(forge, corpus, key, key.public_jwk() | {"x": zero, "y": zero}, "the point at infinity", "J-35", "X-08")
    key = SigningKey.generate("ES256", kid="key-ec-wrong-curve")
    _add(forge, corpus, key, key.public_jwk() | {"crv": "P-384"}, "a point of another curve", "J-35", "X-08")
    key = _with_short_coordinate()
    number = key.private_key.public_key().public_numbers().x
    _add(forge, corpus, key, key.public_jwk() | {"x": _octets(number)}, "a coordinate has 32 bytes", "J-35")
    key = SigningKey.generate("ES256K", kid="key-secp256k1")
    _add(forge, corpus, key, key.public_jwk(), "the issuer's algorithms do not include this curve", "X-09", "J-12")
    key = SigningKey(kid="key-secp256k1-as-es256", algorithm="ES256", private_key=key.private_key)
    curve = {**SigningKey.public_jwk(SigningKey(kid=key.kid, algorithm="ES256K", private_key=key.private_key))}
    _add(forge, corpus, key, curve | {"alg": "ES256"}, "ES256 requires a P-256 key", "J-14", "X-09")
    key = SigningKey.generate("EdDSA", kid="key-x25519")
    _add(
        forge,
        corpus,
        key,
        key.public_jwk() | {"crv": "X25519"},
        "the key is for key agreement",
        "J-14",
        "X-09",
    )
    key = SigningKey.generate("EdDSA", kid="key-ed25519-small-order")
    one = base64url(b"\x01" + bytes(31))
    forge.authority.authority.keys.publish(key.public_jwk() | {"x": one})
    text = forge.text(forge.header(key))
    forged = base64url(b"\x01" + bytes(63))
    corpus.bad(key.kid, f"{text}.{forged}", "for a point of small order, anyone can make a signature", "J-35")


def _ml_dsa(forge: Forge, corpus: Corpus) -> None:
    """Add keys of ML-DSA (RFC 9964), unless ``cryptography`` lacks it."""
    if not is_available():
        return
    pub = SigningKey.generate("ML-DSA-65").public_jwk()["pub"]
    for name, members, why in (
        ("without-alg", {"alg": None}, "an AKP key needs alg (RFC 9964 section 3)"),
        ("alg-of-another-set", {"alg": "ML-DSA-44"}, "pub does not have the length that alg requires"),
        ("alg-es256", {"alg": "ES256"}, "ES256 does not use keys of kty AKP"),
        ("alg-list", {"alg": ["ML-DSA-65"]}, "alg is not a string"),
        ("without-pub", {"pub": None}, "there is no public key"),
        ("pub-short", {"pub": pub[:-4]}, "pub is too short"),
        ("pub-long", {"pub": pub + "AAAA"}, "pub is too long"),
        ("pub-empty", {"pub": ""}, "pub is empty"),
        ("pub-of-another", {"pub": pub}, "another key has signed the token"),
        ("kty-okp", {"kty": "OKP", "crv": "Ed25519"}, "kty is not AKP"),
        ("use-enc", {"use": "enc"}, "the key is not for signatures"),
    ):
        key = SigningKey.generate("ML-DSA-65", kid=f"key-ml-dsa-{name}")
        jwk = {member: value for member, value in {**key.public_jwk(), **members}.items() if value is not None}
        _add(forge, corpus, key, jwk, why, "PQ-01", "J-22")
    key = SigningKey.generate("ML-DSA-65", kid="key-leaked-ml-dsa")
    _add(forge, corpus, key, {**key.private_jwk(), "use": "sig"}, "the key set contains the seed", "PQ-01", "J-23")


def _with_short_coordinate() -> SigningKey:
    """Return a key whose x coordinate begins with a zero byte, as one key in 256 does."""
    while True:
        key = SigningKey.generate("ES256", kid="key-ec-coordinate-short")
        if key.private_key.public_key().public_numbers().x < 1 << 248:
            return key
