"""Tokens with algorithms, keys and signatures of ML-DSA (RFC 9964) that do not belong together."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scopeguard.config.ml_dsa import is_available
from scopeguard.devserver.keys import SigningKey, base64url
from scopeguard.testing.forgeries.token_parts import Corpus, Forge, attacker_key

_NAMES: Final = (
    "ml-dsa-65", "ML-DSA", "MLDSA65", "ML-DSA-65 ", "ML-DSA-64", "HashML-DSA-65", "ML-DSA-65-ES256", "CRYDI3",
)  # fmt: skip


def add_all(forge: Forge, corpus: Corpus) -> None:
    """Add the tokens of this file. There are none if ``cryptography`` lacks ML-DSA, as none could be accepted."""
    if not is_available():
        return
    key, smaller = forge.authority.key("ML-DSA-65"), forge.authority.key("ML-DSA-44")
    _signatures(forge, corpus, key)
    _other_sets(forge, corpus, key, smaller)
    _other_algorithms(forge, corpus, key)
    _symmetric(forge, corpus, key)
    _attacker(forge, corpus, key)


def _signatures(forge: Forge, corpus: Corpus, key: SigningKey) -> None:
    text = forge.text(forge.header(key))
    good = key.sign(text.encode("ascii"))
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    lengths = "a signature of ML-DSA-65 has 3309 bytes"
    for name, signature, why, rule in (
        ("truncated", good[:-1], lengths, "PQ-04"),
        ("beheaded", good[1:], lengths, "PQ-04"),
        ("lengthened", good + b"\0", lengths, "PQ-04"),
        ("leading-zero", b"\0" + good, lengths, "PQ-04"),
        ("twice", good + good, lengths, "PQ-04"),
        ("one-octet", b"\0", lengths, "PQ-04"),
        ("zeros", bytes(len(good)), "the signature is zero", "P-07"),
        ("flipped-begin", bytes([good[0] ^ 1]) + good[1:], "a bit of the signature is flipped", "P-07"),
        ("flipped-end", flipped, "a bit of the signature is flipped", "P-07"),
        ("context", key.private_key.sign(text.encode("ascii"), b"JWT"), "the context must be empty", "P-07"),
        ("hashed", key.sign(hashlib.sha512(text.encode("ascii")).digest()), "the hash is signed instead", "P-07"),
    ):
        corpus.bad(f"ml-dsa-65-{name}", f"{text}.{base64url(signature)}", why, rule)
    corpus.bad("ml-dsa-65-unsigned", f"{text}.", "there is no signature", "PQ-04", "J-04")
    swapped = forge.text(forge.header(key), forge.claims(sub="mallory"))
    corpus.bad("ml-dsa-65-claims-swapped", f"{swapped}.{base64url(good)}", "the claims are not signed", "P-07")


def _other_sets(forge: Forge, corpus: Corpus, key: SigningKey, smaller: SigningKey) -> None:
    why = "the key is for a different parameter set from the one in the header"
    for name, header, signer in (
        ("65-by-44", forge.header(key), smaller),
        ("44-by-65", forge.header(smaller), key),
        ("44-key-as-65", forge.header(smaller, alg="ML-DSA-65"), smaller),
        ("65-key-as-44", forge.header(key, alg="ML-DSA-44"), key),
        ("65-key-as-87", forge.header(key, alg="ML-DSA-87"), key),
    ):
        corpus.bad(f"ml-dsa-{name}", forge.sign(header, key=signer), why, "PQ-02", "J-14")
    # The signature has the length for the algorithm of the header, and not for that of the key.
    text = forge.text(forge.header(key, alg="ML-DSA-44"))
    signature = base64url(smaller.sign(text.encode("ascii")))
    corpus.bad("ml-dsa-65-key-as-44-by-44", f"{text}.{signature}", why, "PQ-02", "PQ-04")


def _other_algorithms(forge: Forge, corpus: Corpus, key: SigningKey) -> None:
    why = "the key does not fit the algorithm"
    for alg in ("ES256", "EdDSA", "RS256"):
        corpus.bad(f"ml-dsa-key-as-{alg.lower()}", forge.sign(forge.header(key, alg=alg), key=key), why, "PQ-02")
    for other in (forge.ec, forge.ed, forge.rsa):
        name = other.algorithm.lower()
        header = forge.header(other, alg="ML-DSA-65")
        corpus.bad(f"ml-dsa-65-by-{name}-key", forge.sign(header, key=other), why, "PQ-02", "J-14")
        corpus.bad(f"ml-dsa-65-signature-for-{name}", forge.sign(forge.header(other), key=key), why, "PQ-02", "J-14")
    for alg in _NAMES:
        name = alg.strip().lower() + ("-space" if alg.endswith(" ") else "-name")
        why = "names of algorithms are compared exactly, and others are not enabled"
        corpus.bad(f"ml-dsa-alg-{name}", forge.sign(forge.header(key, alg=alg), key=key), why, "J-12", "PQ-03")
    unsecured = forge.text(forge.header(key, alg="none"))
    corpus.bad("ml-dsa-key-as-none", f"{unsecured}.", "an unsecured token: anyone can write it", "J-11", "X-02")


def _symmetric(forge: Forge, corpus: Corpus, key: SigningKey) -> None:
    public, jwk = key.private_key.public_key(), key.public_jwk()
    text = forge.text(forge.header(key, alg="HS256"))
    for form, secret in (
        ("pub", public.public_bytes_raw()),
        ("pub-text", jwk["pub"].encode()),
        ("pem", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        ("der", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        ("jwk", json.dumps(jwk, separators=(",", ":")).encode()),
    ):
        tag = hmac.new(secret, text.encode("ascii"), hashlib.sha256).digest()
        why = "the secret of the HMAC is the public key, which anyone knows"
        corpus.bad(f"hs256-ml-dsa-{form}", f"{text}.{base64url(tag)}", why, "X-01", "P-21", "J-14")


def _attacker(forge: Forge, corpus: Corpus, key: SigningKey) -> None:
    why = "signed with a key that the issuer does not publish"
    stranger = attacker_key("ML-DSA-65")
    borrowed = SigningKey(kid=key.kid, algorithm=key.algorithm, private_key=stranger.private_key)
    corpus.bad("ml-dsa-65-foreign-key", forge.sign(forge.header(stranger), key=stranger), why, "P-07", "J-20")
    corpus.bad("ml-dsa-65-foreign-key-same-kid", forge.sign(forge.header(borrowed), key=borrowed), why, "P-07", "X-14")
    unnamed = forge.header(stranger, "kid", jwk=stranger.public_jwk())
    corpus.bad("ml-dsa-65-key-in-header", forge.sign(unnamed, key=stranger), why, "P-07", "J-25")
