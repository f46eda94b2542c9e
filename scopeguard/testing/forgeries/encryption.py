"""Encrypted tokens (RFC 7516), which anyone with the public key can make."""

from __future__ import annotations

import json
import zlib
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scopeguard.devserver.keys import base64url, json_bytes
from scopeguard.testing.forgeries.token_parts import Corpus, Forge

_KEY = bytes(range(32))
_VECTOR = bytes(12)


def add_all(forge: Forge, corpus: Corpus) -> None:
    """Add the tokens of this file."""
    claims = json_bytes(forge.claims())
    unsecured = f"{forge.text({'alg': 'none'})}.".encode("ascii")
    signed = forge.sign().encode("ascii")
    oaep = _to_public_key(forge, {}, claims)
    why = "encryption with a public key does not prove who made the token"
    corpus.bad("jwe-plain-claims", oaep, why, "J-01", "J-46", "X-18")
    corpus.bad("jwe-at-jwt", _to_public_key(forge, {"typ": "at+jwt"}, claims), why, "J-01", "J-46", "X-18")
    corpus.bad("jwe-unsecured-inside", _to_public_key(forge, {"cty": "JWT"}, unsecured), why, "J-44", "X-18")
    corpus.bad("jwe-signed-inside", _to_public_key(forge, {"cty": "JWT"}, signed), "JWE is not enabled", "J-01", "J-44")
    corpus.bad("jwe-in-jwe", _to_public_key(forge, {"cty": "JWT"}, oaep.encode("ascii")), why, "X-19", "J-44")
    corpus.bad("jwe-zip", _to_public_key(forge, {"zip": "DEF"}, _deflate(claims)), why, "J-49")
    bomb = _deflate(b'{"a":"' + b"a" * 4_000_000 + b'"}')
    corpus.bad("jwe-zip-bomb", _to_public_key(forge, {"zip": "DEF"}, bomb), "4 kB decompress to 4 MB", "J-49", "X-16")
    _headers(forge, corpus)
    first, key, vector, text, tag = oaep.split(".")
    members = {"protected": first, "encrypted_key": key, "iv": vector, "ciphertext": text, "tag": tag}
    corpus.bad("jwe-json", json.dumps(members, separators=(",", ":")), "JSON serialization", "J-02", "X-15")
    corpus.bad("jwe-empty-segments", "....", "five empty segments", "J-01")


def _deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def _assemble(header: dict[str, Any], encrypted_key: bytes, content: bytes) -> str:
    first = base64url(json_bytes(header))
    sealed = AESGCM(_KEY).encrypt(_VECTOR, content, first.encode("ascii"))
    parts = (encrypted_key, _VECTOR, sealed[:-16], sealed[-16:])
    return ".".join((first, *map(base64url, parts)))


def _to_public_key(forge: Forge, members: dict[str, Any], content: bytes) -> str:
    """Return a correct JWE (RSA-OAEP-256, A256GCM), encrypted with the authority's RSA key."""
    mask = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    header = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": forge.rsa.kid, **members}
    return _assemble(header, forge.rsa.private_key.public_key().encrypt(_KEY, mask), content)


def _headers(forge: Forge, corpus: Corpus) -> None:
    """Add tokens whose headers make a naive recipient spend time or leak a secret before it checks anything."""
    claims = json_bytes(forge.claims())
    point = {"kty": "EC", "crv": "P-256", "x": base64url(bytes(32)), "y": base64url(bytes(32))}
    cases: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        ("dir-empty-key", {"alg": "dir", "enc": "A256GCM"}, ("X-16", "J-46")),
        ("rsa1-5", {"alg": "RSA1_5", "enc": "A128CBC-HS256", "kid": forge.rsa.kid}, ("J-47",)),
        (
            "pbes2-bomb",
            {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2s": base64url(bytes(16)), "p2c": 2**31 - 1},
            ("J-47", "J-48", "X-16"),
        ),
        ("ecdh-off-curve", {"alg": "ECDH-ES", "enc": "A256GCM", "epk": point}, ("X-17",)),
        ("alg-none", {"alg": "none", "enc": "A256GCM"}, ("J-11", "J-46")),
        ("kid-url", {"alg": "dir", "enc": "A256GCM", "jku": "https://attacker.test/jwks"}, ("J-26", "X-04")),
    )
    for name, header, rules in cases:
        why = "an encrypted token must be refused before any key is used"
        corpus.bad(f"jwe-{name}", _assemble(header, b"", claims), why, "J-01", *rules)
