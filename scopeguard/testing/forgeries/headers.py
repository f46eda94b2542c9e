"""Headers with a key or the URL of one, with critical extensions, or with a false statement about the payload."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import hmac
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from scopeguard.devserver.keys import base64url, json_bytes
from scopeguard.testing.forgeries.token_parts import ATTACKER, Corpus, Forge, attacker_key


def add_all(forge: Forge, corpus: Corpus) -> None:
    """Add the tokens of this file."""
    _keys_brought_along(forge, corpus)
    _key_ids(forge, corpus)
    _critical(forge, corpus)
    _unencoded_payload(forge, corpus)
    _types(forge, corpus)
    _nested(forge, corpus)
    _replicated(forge, corpus)


@functools.cache
def _attacker_certificate() -> bytes:
    """Return a self-signed certificate of the attacker in DER."""
    key = attacker_key("ES256").private_key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "as.test")])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER)


def _keys_brought_along(forge: Forge, corpus: Corpus) -> None:
    key = attacker_key("ES256")
    rsa = attacker_key("RS256")
    der = _attacker_certificate()
    jwk = {**key.public_jwk(), "kid": forge.ec.kid}
    sha1 = base64url(hashlib.sha1(der, usedforsecurity=False).digest())
    sha256 = base64url(hashlib.sha256(der).digest())
    why = "a key must not come from the token that it verifies"
    embedded: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("jwk", {"jwk": jwk}, "J-25"),
        ("jwk-without-kid", {"jwk": key.public_jwk(), "kid": "attacker"}, "J-25"),
        ("jwk-private", {"jwk": {**key.private_jwk(), "kid": forge.ec.kid}}, "J-25"),
        ("jku", {"jku": f"{ATTACKER}/jwks"}, "J-26"),
        ("jku-lookalike", {"jku": f"{forge.authority.url}@attacker.test/jwks"}, "J-26"),
        ("jku-internal", {"jku": "http://169.254.169.254/latest/meta-data"}, "J-26"),
        ("jku-file", {"jku": "file:///etc/passwd"}, "J-26"),
        ("x5u", {"x5u": f"{ATTACKER}/certificate.pem"}, "J-26"),
        ("x5c", {"x5c": [base64.b64encode(der).decode()]}, "J-27"),
        ("x5t", {"x5t": sha1}, "J-27"),
        ("x5t-s256", {"x5t#S256": sha256}, "J-27"),
        ("all-of-them", {"jwk": jwk, "jku": f"{ATTACKER}/jwks", "x5c": [base64.b64encode(der).decode()]}, "J-25"),
    )
    for name, members, rule in embedded:
        token = forge.sign(forge.header(**members), key=key)
        corpus.bad(f"key-from-{name}", token, why, rule, "X-04")
    token = forge.sign(forge.header(rsa, jwk=rsa.public_jwk()), key=rsa)
    corpus.bad("key-from-jwk-rsa", token, why, "J-25", "X-04")


def _key_ids(forge: Forge, corpus: Corpus) -> None:
    shapes: tuple[tuple[str, Any], ...] = (
        ("number", 1),
        ("null", None),
        ("true", True),
        ("list", [forge.ec.kid]),
        ("object", {"kid": forge.ec.kid}),
    )
    for name, value in shapes:
        corpus.bad(f"kid-{name}", forge.sign(forge.header(kid=value)), "kid must be a string", "J-18")
    near = (
        ("other-case", forge.ec.kid.swapcase()),
        ("trailing-space", f"{forge.ec.kid} "),
        ("trailing-nul", f"{forge.ec.kid}\x00"),
        ("prefix", forge.ec.kid[:-1]),
        ("empty", ""),
        ("unknown", "no-such-key"),
    )
    for name, value in near:
        token = forge.sign(forge.header(kid=value))
        corpus.bad(f"kid-{name}", token, "kid must match exactly (RFC 7515 section 4.1.4)", "J-18", "J-20")
    injected = (
        ("url", f"{ATTACKER}/jwks#attacker"),
        ("path", "../../../../../../dev/null"),
        ("absolute-path", "/dev/null"),
        ("sql", "' OR 1=1--"),
        ("sql-union", "x' UNION SELECT 'secret"),
        ("ldap", "*)(uid=*"),
        ("shell", "x; curl attacker.test"),
        ("template", "{{7*7}}${7*7}%(kid)s"),
        ("line-end", "x\r\nSet-Cookie: a=b"),
        ("terminal", "x\x1b[2J\x1b[31m"),
        ("right-to-left", "x\u202ekcehc"),
        ("surrogate-pair", "\U0001f511"),
        ("10-kB", "k" * 10_000),
    )
    for name, value in injected:
        token = forge.sign(forge.header(attacker_key("ES256"), kid=value), key=attacker_key("ES256"))
        why = "a kid may only be compared with those of the key set, not used as a path, a query or a command"
        corpus.bad(f"kid-{name}", token, why, "X-13", "J-20", "X-78")
    text = forge.text(forge.header(alg="HS256", kid="../../../../../../dev/null"))
    empty = base64url(hmac.new(b"", text.encode("ascii"), hashlib.sha256).digest())
    corpus.bad("kid-path-to-empty-secret", f"{text}.{empty}", "its HMAC key is the empty /dev/null", "X-13", "P-21")
    lone = forge.raw_header(kid='"\\ud800"')
    corpus.bad("kid-surrogate", forge.sign(lone), "a lone surrogate is not a character", "X-21")


def _critical(forge: Forge, corpus: Corpus) -> None:
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("claim", {"crit": ["exp"], "exp": 1}, "J-28"),
        ("registered-claim-absent", {"crit": ["exp"]}, "J-28"),
        ("unknown", {"crit": ["foo"], "foo": 1}, "J-28"),
        ("url", {"crit": ["http://openbanking.org.uk/iat"], "http://openbanking.org.uk/iat": 1}, "J-28"),
        ("empty", {"crit": []}, "J-29"),
        ("string", {"crit": "b64"}, "J-29"),
        ("registered", {"crit": ["alg"]}, "J-29"),
        ("absent", {"crit": ["x"]}, "J-29"),
        ("twice", {"crit": ["foo", "foo"], "foo": 1}, "J-29"),
        ("number", {"crit": [1], "1": 1}, "J-29"),
        ("null", {"crit": None}, "J-29"),
        ("object", {"crit": {"foo": 1}, "foo": 1}, "J-29"),
        ("itself", {"crit": ["crit"]}, "J-29"),
    )
    for name, members, rule in cases:
        corpus.bad(
            f"crit-{name}",
            forge.sign(forge.header(**members)),
            "crit is malformed, or names an extension that is not supported (RFC 7515 section 4.1.11)",
            rule, "X-05",
        )  # fmt: skip


def _unencoded_payload(forge: Forge, corpus: Corpus) -> None:
    why = "b64 is not for JWTs (RFC 7797 section 7), because two parsers could read different payloads"
    for name, members in (
        ("false", {"b64": False}),
        ("false-critical", {"b64": False, "crit": ["b64"]}),
        ("true", {"b64": True}),
        ("true-critical", {"b64": True, "crit": ["b64"]}),
        ("string", {"b64": "false"}),
    ):
        corpus.bad(f"b64-{name}", forge.sign(forge.header(**members)), why, "J-30", "X-05")
    header = base64url(json_bytes(forge.header(b64=False, crit=["b64"])))
    corpus.bad(
        "b64-unencoded", forge.signed_text(f"{header}.{json_bytes(forge.claims()).decode()}"), why, "J-30", "X-05"
    )
    detached = forge.sign(forge.header(b64=False, crit=["b64"])).split(".")
    corpus.bad("b64-detached", f"{detached[0]}..{detached[2]}", why, "J-30", "X-05")


def _types(forge: Forge, corpus: Corpus) -> None:
    shapes: tuple[tuple[str, Any], ...] = (
        ("number", 7),
        ("list", ["at+jwt"]),
        ("object", {"at+jwt": True}),
        ("null", None),
        ("true", True),
        ("empty", ""),
        ("text", "text/at+jwt"),
        ("space", "at+jwt "),
        ("underscore", "at_jwt"),
        ("doubled-prefix", "application/application/at+jwt"),
        ("joined", "at+jwt,JWT"),
        ("kelvin-sign", "to\u212aen+jwt"),
        ("parameter", "at+jwt;x=y"),
    )
    for name, value in shapes:
        why = "typ must be a known type of access token, in any case and with or without application/"
        corpus.bad(f"typ-{name}", forge.sign(forge.header(typ=value)), why, "P-01", "J-43")
    why = "typ does not say that it is an access token"
    corpus.bad("typ-jwt", forge.sign(forge.header(typ="JWT")), why, "P-01", strict=True)
    corpus.bad("typ-missing", forge.sign(forge.header(None, "typ")), why, "P-03", strict=True)


def _nested(forge: Forge, corpus: Corpus) -> None:
    inner = forge.sign().encode("ascii")
    unsecured = f"{forge.text({'alg': 'none'})}.".encode("ascii")
    why = "a token inside a token: the outer signature is not that of the issuer of the inner claims"
    for name, value in (("jwt", "JWT"), ("lower-case", "jwt"), ("media-type", "application/jwt"), ("at", "at+jwt")):
        corpus.bad(f"cty-{name}", forge.sign(forge.header(cty=value)), why, "J-44")
    outer = forge.header(cty="JWT")
    corpus.bad("nested-signed", forge.sign(outer, inner), why, "J-44", "X-19")
    corpus.bad("nested-unsecured", forge.sign(outer, unsecured), why, "J-44", "X-19")
    twice = forge.sign(outer, inner).encode("ascii")
    corpus.bad("nested-twice", forge.sign(outer, twice), why, "J-44", "X-19")
    corpus.bad("nested-without-cty", forge.sign(claims=inner), "the payload is not a JSON object", "J-42", "J-44")


def _replicated(forge: Forge, corpus: Corpus) -> None:
    for claim, value in (
        ("iss", ATTACKER),
        ("sub", "root"),
        ("aud", "https://other-api.test"),
    ):
        corpus.bad(
            f"replicated-{claim}",
            forge.sign(forge.header(**{claim: value})),
            "a claim is replicated in the header with another value (RFC 7519 section 5.3)",
            "J-45",
        )  # fmt: skip
