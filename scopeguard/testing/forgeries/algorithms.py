"""Missing signatures, signatures of another algorithm or key, and malformed signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scopeguard.devserver.keys import SigningKey, base64url
from scopeguard.testing.forgeries.token_parts import Corpus, Forge, attacker_key

_HASHES: Final[Mapping[str, Any]] = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
_ORDER_P256: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ORDER_25519: Final = 2**252 + 27742317777372353535851937790883648493


def add_all(forge: Forge, corpus: Corpus) -> None:
    """Add the tokens of this file."""
    _none(forge, corpus)
    _no_algorithm(forge, corpus)
    _symmetric(forge, corpus)
    _other_algorithm(forge, corpus)
    _other_key_type(forge, corpus)
    _ecdsa(forge, corpus)
    _other_signatures(forge, corpus)
    _attacker(forge, corpus)


def _none(forge: Forge, corpus: Corpus) -> None:
    rules = ("J-11", "P-07", "X-02")
    for letters in itertools.product(*((letter, letter.upper()) for letter in "none")):
        spelling = "".join(letters)
        why = "an unsecured token: anyone can write it"
        corpus.bad(f"alg-none-{spelling}", f"{forge.text(forge.header(alg=spelling))}.", why, *rules)
    text = forge.text(forge.header(alg="none"))
    corpus.bad("alg-none-garbage", f"{text}.{base64url(b'garbage')}", "unsecured, with a junk signature", *rules)
    corpus.bad("alg-none-signed", forge.sign(forge.header(alg="none")), "signed, but alg is none", *rules)
    corpus.bad("alg-none-without-kid", f"{forge.text({'alg': 'none'})}.", "the form of RFC 7519 section 6.1", *rules)
    corpus.bad("alg-none-two-segments", text, "an unsecured token without the last dot", "J-01", *rules)


def _no_algorithm(forge: Forge, corpus: Corpus) -> None:
    why = "alg must be one of the issuer's algorithms, as an exact string"
    corpus.bad("alg-missing", forge.sign(forge.header(None, "alg")), why, "J-10")
    shapes: tuple[tuple[str, Any], ...] = (
        ("number", 7),
        ("null", None),
        ("list", ["ES256"]),
        ("object", {"ES256": True}),
        ("true", True),
        ("empty", ""),
        ("lower-case", "es256"),
        ("space", "ES256 "),
        ("nul", "ES256\x00"),
        ("unknown", "ES255"),
        ("surname", "ECDSA"),
    )
    for name, value in shapes:
        corpus.bad(f"alg-{name}", forge.sign(forge.header(alg=value)), why, "J-10", "J-12")


def _hmac(forge: Forge, key: SigningKey, algorithm: str, secret: bytes) -> str:
    text = forge.text(forge.header(key, alg=algorithm))
    return f"{text}.{base64url(hmac.new(secret, text.encode('ascii'), _HASHES[algorithm]).digest())}"


def _public_texts(key: SigningKey) -> dict[str, bytes]:
    """Return forms of a public key that a careless verifier may use as a shared secret."""
    public = key.private_key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = key.public_jwk()
    bare = {name: value for name, value in sorted(jwk.items()) if name not in ("kid", "use", "alg")}
    return {
        "pem": pem,
        "pem-without-newline": pem.rstrip(b"\n"),
        "pem-crlf": pem.replace(b"\n", b"\r\n"),
        "pem-leading-space": b" " + pem,
        "pem-one-line": pem.replace(b"\n", b""),
        "pem-body": base64.b64encode(der),
        "der": der,
        "jwk": json.dumps(jwk, separators=(",", ":")).encode(),
        "jwk-spaced": json.dumps(jwk).encode(),
        "jwk-thumbprint-form": json.dumps(bare, separators=(",", ":")).encode(),
        "jwks": json.dumps({"keys": [jwk]}).encode(),
    }


def _symmetric(forge: Forge, corpus: Corpus) -> None:
    confusion = "the secret of the HMAC is the public key, which anyone knows"
    rsa_public = forge.rsa.private_key.public_key()
    numbers = forge.rsa.public_jwk()
    for kind, key in (("rsa", forge.rsa), ("ec", forge.ec), ("ed", forge.ed)):
        for form, secret in _public_texts(key).items():
            corpus.bad(f"hs256-{kind}-{form}", _hmac(forge, key, "HS256", secret), confusion, "X-01", "P-21", "J-14")
    for form, secret in (
        ("pkcs1-pem", rsa_public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)),
        ("pkcs1-der", rsa_public.public_bytes(Encoding.DER, PublicFormat.PKCS1)),
        ("openssh", rsa_public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
        ("modulus-text", numbers["n"].encode()),
        ("modulus", base64.urlsafe_b64decode(numbers["n"] + "==")),
    ):
        corpus.bad(f"hs256-rsa-{form}", _hmac(forge, forge.rsa, "HS256", secret), confusion, "X-01", "P-21", "J-14")
    for algorithm in ("HS384", "HS512"):
        for form in ("pem", "jwk", "der"):
            token = _hmac(forge, forge.rsa, algorithm, _public_texts(forge.rsa)[form])
            corpus.bad(f"{algorithm.lower()}-rsa-{form}", token, confusion, "X-01", "P-21")
    for name, secret in (("empty", b""), ("kid", forge.rsa.kid.encode()), ("dictionary", b"secret"), ("nul", b"\x00")):
        token = _hmac(forge, forge.rsa, "HS256", secret)
        corpus.bad(f"hs256-{name}", token, "the secret of the HMAC is guessable, or empty", "P-21", "J-39")


def _other_algorithm(forge: Forge, corpus: Corpus) -> None:
    for algorithm in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        signer = SigningKey(kid=forge.rsa.kid, algorithm=algorithm, private_key=forge.rsa.private_key)
        corpus.bad(
            f"rs256-key-used-for-{algorithm.lower()}",
            forge.sign(forge.header(signer), key=signer),
            "the JWK of the key allows RS256 only",
            "J-15", "X-12",
        )  # fmt: skip
    for algorithm in ("ES256K", "Ed448", "ML-DSA-65", "RSA-OAEP", "dir", "A256GCM", "ES521"):
        corpus.bad(
            f"alg-{algorithm.lower()}",
            forge.with_signature(bytes(64), forge.header(alg=algorithm)),
            "the algorithm is not allowed, or is not for signatures",
            "J-12", "J-38", "X-09",
        )  # fmt: skip
    salted = forge.authority.key("PS256")
    text = forge.text(forge.header(salted))
    short_salt = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=20)
    signature = salted.private_key.sign(text.encode("ascii"), short_salt, hashes.SHA256())
    corpus.bad("ps256-short-salt", f"{text}.{base64url(signature)}", "the salt must be as long as the hash", "J-36")


def _other_key_type(forge: Forge, corpus: Corpus) -> None:
    why = "the key does not fit the algorithm"
    for name, alg, named, signer in (
        ("es256-by-rsa-key", "ES256", forge.rsa, attacker_key("ES256")),
        ("es256-by-ed25519-key", "ES256", forge.ed, attacker_key("ES256")),
        ("rs256-by-ec-key", "RS256", forge.ec, attacker_key("RS256")),
        ("rs256-by-ed25519-key", "RS256", forge.ed, attacker_key("RS256")),
        ("eddsa-by-ec-key", "EdDSA", forge.ec, attacker_key("EdDSA")),
        ("eddsa-by-rsa-key", "EdDSA", forge.rsa, attacker_key("EdDSA")),
        ("es256-with-rsa-signature", "ES256", forge.ec, forge.rsa),
        ("rs256-with-ec-signature", "RS256", forge.rsa, forge.ec),
        ("es384-by-p256-key", "ES384", forge.ec, forge.ec),
    ):
        corpus.bad(f"alg-{name}", forge.sign(forge.header(named, alg=alg), key=signer), why, "J-14", "P-07")
    wide = forge.authority.key("ES384")
    text = forge.text(forge.header(wide, alg="ES256"))
    r, s = decode_dss_signature(wide.private_key.sign(text.encode("ascii"), ec.ECDSA(hashes.SHA256())))
    corpus.bad(
        "alg-es256-by-p384-key",
        f"{text}.{base64url(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}",
        "ES256 requires a P-256 key",
        "J-14", "J-33",
    )  # fmt: skip


def _ecdsa(forge: Forge, corpus: Corpus) -> None:
    text = forge.text()
    good = forge.ec.sign(text.encode("ascii"))
    r, s = good[:32], good[32:]
    zero, order = bytes(32), _ORDER_P256.to_bytes(32, "big")
    one = (1).to_bytes(32, "big")
    out_of_range = (
        ("zeros", zero + zero, ("J-34", "X-06")),
        ("r-zero", zero + s, ("J-34",)),
        ("s-zero", r + zero, ("J-34",)),
        ("r-order", order + s, ("J-34",)),
        ("s-order", r + order, ("J-34",)),
        ("both-order", order + order, ("J-34", "X-06")),
        ("ones", one + one, ("J-34",)),
        ("r-all-bits", b"\xff" * 32 + s, ("J-34",)),
        ("exchanged", s + r, ("J-51",)),
    )
    for name, signature, rules in out_of_range:
        why = "r and s must be between 1 and n-1; unchecked zeros verify any message (CVE-2022-21449)"
        corpus.bad(f"es256-{name}", f"{text}.{base64url(signature)}", why, *rules)
    lengths = (
        ("der", encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")), ("J-33",)),
        ("der-zeros", bytes.fromhex("3006020100020100"), ("J-33", "X-06")),
        ("63-octets", good[:-1], ("J-33",)),
        ("65-octets", good + b"\x00", ("J-33",)),
        ("leading-zero", b"\x00" + good, ("J-33",)),
        ("padded-halves", b"\x00" + r + b"\x00" + s, ("J-33",)),
        ("one-half", r, ("J-33",)),
        ("empty-object", b"{}", ("J-33",)),
    )
    for name, signature, rules in lengths:
        why = "an ES256 signature is two numbers of 32 bytes each (RFC 7518 section 3.4)"
        corpus.bad(f"es256-{name}", f"{text}.{base64url(signature)}", why, *rules)


def _other_signatures(forge: Forge, corpus: Corpus) -> None:
    text = forge.text(forge.header(forge.ed))
    good = forge.ed.sign(text.encode("ascii"))
    shifted = (int.from_bytes(good[32:], "little") + _ORDER_25519).to_bytes(32, "little")
    for name, signature in (
        ("63-octets", good[:-1]),
        ("65-octets", good + b"\x00"),
        ("zeros", bytes(64)),
        ("s-plus-order", good[:32] + shifted),
        ("empty-point", b"\x01" + bytes(63)),
    ):
        why = "an Ed25519 signature has 64 bytes, and its S is below the order of the group"
        corpus.bad(f"eddsa-{name}", f"{text}.{base64url(signature)}", why, "J-37", "X-28")
    text = forge.text(forge.header(forge.rsa))
    good = forge.rsa.sign(text.encode("ascii"))
    for name, signature in (
        ("zeros", bytes(256)),
        ("one", bytes(255) + b"\x01"),
        ("leading-zero", b"\x00" + good),
        ("255-octets", good[:-1]),
        ("ten-thousand-octets", b"\x01" * 10_000),
    ):
        why = "an RSA signature is as long as the modulus (RFC 8017 section 8.2.2)"
        corpus.bad(f"rs256-{name}", f"{text}.{base64url(signature)}", why, "P-07", "X-28")


def _attacker(forge: Forge, corpus: Corpus) -> None:
    why = "signed with a key that the issuer does not publish"
    for algorithm, genuine in (("RS256", forge.rsa), ("ES256", forge.ec), ("EdDSA", forge.ed)):
        key = attacker_key(algorithm)
        name = algorithm.lower()
        borrowed = SigningKey(kid=genuine.kid, algorithm=algorithm, private_key=key.private_key)
        unnamed = forge.header(key, "kid")
        corpus.bad(f"{name}-foreign-key", forge.sign(forge.header(key), key=key), why, "P-07", "J-20")
        corpus.bad(
            f"{name}-foreign-key-same-kid",
            forge.sign(forge.header(borrowed), key=borrowed),
            "signed with another key that has the kid of a published one",
            "P-07", "P-19", "X-14", "X-57",
        )  # fmt: skip
        corpus.bad(f"{name}-foreign-key-without-kid", forge.sign(unnamed, key=key), why, "P-07", "J-19")
