"""Bad proofs of possession (DPoP, RFC 9449), by name, that an app must refuse.

@pytest.fixture(scope="module")
def proofs(authority):
    return bad_proofs(authority, uri="https://api.test/rows")

@pytest.mark.parametrize("name", NAMES)
def test_a_bad_proof_is_refused(name, client, proofs):
    bad = proofs[name]
    assert client.get("/rows", headers=bad.headers).status_code == bad.status, bad.why

Longer than 400 lines because each bad proof stands beside those of its kind, with its reason.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa, utils

from scopeguard.config.checks import instance, text
from scopeguard.config.ml_dsa import is_available
from scopeguard.config.urls import check_url
from scopeguard.devserver.keys import SigningKey, base64url, compact, json_bytes
from scopeguard.errors import ConfigurationError
from scopeguard.rules.rule import METHODS
from scopeguard.spec.dpop import token_hash
from scopeguard.testing.fake import FakeAuthority
from scopeguard.testing.proofs import ProofKey, present

__all__ = ["BadProof", "bad_proofs"]

_PROOF, _TOKEN = "invalid_dpop_proof", "invalid_token"
_WEAK_BITS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BadProof:
    """An access token with a proof that must be refused.

    * ``why``: the reason to refuse it.
    * ``rules``: the rules that it violates, listed in ``docs/rules.md``.
    * ``scheme``: the scheme of ``Authorization``, and of the challenge that names the error.
    * ``proofs``: the values of the ``DPoP`` fields: one, none or several.
    * ``error``: the expected error code (RFC 9449 section 7.1).
    """

    name: str
    token: str = field(repr=False)
    proofs: tuple[str, ...] = field(repr=False)
    rules: tuple[str, ...]
    why: str
    scheme: str = "DPoP"
    error: str = _PROOF

    @property
    def status(self) -> int:
        """The expected HTTP status, 401 for every proof."""
        return 401

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Request headers with the token and its proofs, as pairs, because a field may occur twice."""
        return [("Authorization", f"{self.scheme} {self.token}"), *(("DPoP", proof) for proof in self.proofs)]


def bad_proofs(
    authority: FakeAuthority, *, uri: str | None = None, method: str = "GET", scope: str = "read write admin"
) -> Mapping[str, BadProof]:
    """Return requests by name that an API with DPoP must refuse.

    Each differs in one respect from a good request with *method* to *uri*, at the current time of the clock of
    *authority*. In most, the proof is bad; in some, the token. *uri* is the audience of *authority* by default. The
    tokens have *scope*.

    The guard must have the default limits of :class:`~scopeguard.DPoP`, and no nonces: with ``nonce_keys``, some are
    answered with ``use_dpop_nonce``.

    Not included: proofs that were used before, nonces, values that HTTP clients do not send (control characters,
    non-ASCII), and hostile access tokens (:func:`~scopeguard.testing.bad_tokens`).

    >>> from scopeguard.testing import FakeAuthority
    >>> proofs = bad_proofs(FakeAuthority())
    >>> proofs["htm-other"].error, proofs["stolen-as-bearer"].error
    ('invalid_dpop_proof', 'invalid_token')

    Raises :class:`~scopeguard.ConfigurationError` for an argument of the wrong kind.
    """
    instance(authority, FakeAuthority, "authority", "a FakeAuthority")
    text(method, "method", empty=False)
    target = authority.audience if uri is None else check_url(uri, "uri", query=False)
    if method not in METHODS:
        raise ConfigurationError("method: must be one that the IANA registry lists, in capitals, as in 'POST'")
    text(scope, "scope")
    forge = _Forge(authority, target, method, scope)
    for add in (_forms, _headers, _keys, _signatures, _claims, _uris, _times, _bindings, _ml_dsa):
        add(forge)
    return MappingProxyType(forge.proofs)


class _Forge:
    """Makes good proofs and proofs that differ from them, and collects the latter by name."""

    def __init__(self, authority: FakeAuthority, uri: str, method: str, scope: str) -> None:
        self.authority, self.uri, self.method, self.scope = authority, uri, method, scope
        self.key, self.stranger = ProofKey(), ProofKey()
        self.now = int(authority.clock.wall())
        self.token = authority.mint(scope, bound_to=self.key)
        self.proofs: dict[str, BadProof] = {}
        self._count = 0

    def add(self, name: str, proofs: str | tuple[str, ...], why: str, *rules: str, **more: Any) -> None:
        if name in self.proofs:
            raise ValueError(f"two proofs have the name {name}")
        given = (proofs,) if isinstance(proofs, str) else proofs
        self.proofs[name] = BadProof(
            name=name, token=more.pop("token", self.token), proofs=given, rules=rules, why=why, **more
        )

    def header(self, **overrides: Any) -> dict[str, Any]:
        return present({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.jwk, **overrides})

    def claims(self, **overrides: Any) -> dict[str, Any]:
        self._count += 1
        good = {
            "jti": f"bad-proof-{self._count}",
            "htm": self.method,
            "htu": self.uri,
            "iat": self.now,
            "ath": token_hash(self.token),
        }
        return present({**good, **overrides})

    def good(self, **claims: Any) -> str:
        return self.sign(claims=self.claims(**claims))

    def sign(
        self,
        header: Mapping[str, Any] | bytes | None = None,
        claims: Mapping[str, Any] | bytes | None = None,
        key: SigningKey | None = None,
    ) -> str:
        """Return a proof with any header and claims, signed with *key*, by default that of the client."""
        return compact(
            self.header() if header is None else header,
            self.claims() if claims is None else claims,
            key or self.key.signing,
        )

    def claim(self, name: str, why: str, *rules: str, **overrides: Any) -> None:
        self.add(name, self.good(**overrides), why, *rules)

    def head(self, name: str, why: str, *rules: str, **overrides: Any) -> None:
        self.add(name, self.sign(self.header(**overrides)), why, *rules)


def _forms(forge: _Forge) -> None:
    good = forge.good()
    header, payload, signature = good.split(".")
    add = forge.add
    add("missing", (), "there is no proof", "D-06", "D-73")
    add("repeated", (forge.good(), forge.good()), "there are two fields", "D-03")
    add("joined", f"{forge.good()}, {forge.good()}", "two fields joined by a comma", "D-04", "D-71")
    add("joined-without-space", f"{forge.good()},{forge.good()}", "two fields joined by a comma", "D-04")
    add("comma-behind", f"{forge.good()},", "a comma joins it with an empty field", "D-04", "D-71")
    add("comma-before", f",{forge.good()}", "a comma joins it with an empty field", "D-04", "D-71")
    add("empty", "", "the field is empty", "D-05")
    add("word", "abc", "it is not a JWT", "D-05")
    add("two-segments", f"{header}.{payload}", "it has no signature segment", "D-05")
    add("four-segments", f"{good}.{signature}", "it has four segments", "D-05")
    add("five-segments", f"{header}.a.b.c.d", "it has five segments, as an encrypted JWT", "D-05")
    add("dot-behind", f"{good}.", "it ends with an empty segment", "D-05")
    add("in-quotes", f'"{good}"', "it is quoted", "D-04", "D-05")
    add("scheme-before", f"DPoP {good}", "it begins with a scheme", "D-04", "D-05")
    add("space-inside", f"{header}. {payload}.{signature}", "base64url has no white space", "D-05")
    add("padded", f"{header}.{payload}=.{signature}", "a segment is padded", "D-05")
    add("base64", f"{header}.{payload}+.{signature}", "base64url has no +", "D-05")
    add("json", json.dumps({"protected": header, "payload": payload, "signature": signature}), "a JWS in JSON", "D-05")
    for name, raw in {
        "not-json": b"{",
        "array": b"[]",
        "string": b'"a"',
        "empty": b"",
        "not-utf8": b'{"a":"\xff"}',
    }.items():
        add(f"header-{name}", forge.sign(raw), "the header is not a JSON object", "D-05")
        add(f"claims-{name}", forge.sign(claims=raw), "the claims are not a JSON object", "D-05")
    for name in ("alg", "jwk", "typ"):
        raw = json_bytes(forge.header())[:-1] + b"," + json_bytes({name: forge.header()[name]})[1:]
        add(f"header-duplicate-{name}", forge.sign(raw), f"the header has {name} twice", "D-05")
    for name, value in {"jti": "other", "htm": forge.method, "ath": "x"}.items():
        raw = json_bytes({name: value})[:-1] + b"," + json_bytes(forge.claims())[1:]
        add(f"claims-duplicate-{name}", forge.sign(claims=raw), f"the claims have {name} twice", "D-05")
    add("large", forge.good(padding="x" * 9000), "it is larger than 8 KiB", "D-66")


def _headers(forge: _Forge) -> None:
    head, add = forge.head, forge.add
    head("typ-missing", "typ is missing", "D-09", typ=None)
    for typ in ("JWT", "at+jwt", "dpop", "dpop+jwt2", "client-authentication+jwt", 7, ["dpop+jwt"], ""):
        head(
            f"typ-{typ}" if isinstance(typ, str) and typ else f"typ-{type(typ).__name__}",
            f"typ is {typ!r}",
            "D-09",
            typ=typ,
        )
    head("alg-missing", "alg is missing", "D-11", alg=None)
    for alg in ("none", "nOnE", "HS256", "RS256", "ES256K", "ES384", "es256", "EdDSA", 256, ["ES256"], ""):
        label = alg if isinstance(alg, str) and alg else type(alg).__name__
        head(f"alg-{label}", f"alg is {alg!r}, and the key is for ES256", "D-11", alg=alg)
    unsigned = f"{base64url(json_bytes(forge.header(alg='none')))}.{base64url(json_bytes(forge.claims()))}."
    add("unsigned", unsigned, "it has alg none and no signature", "D-11", "D-12")
    for name, value in {"crit": ["exp"], "crit-empty": [], "b64": False, "cty": "JWT", "zip": "DEF"}.items():
        head(f"header-{name}", f"{name} changes what the JWT means", "D-05", **{name.partition("-")[0]: value})


@functools.cache
def _weak_key() -> SigningKey:
    """Return an RSA key that is too short. It is cached, because generating RSA keys is slow."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=_WEAK_BITS)
    return SigningKey(kid="weak", algorithm="PS256", private_key=private)


def _keys(forge: _Forge) -> None:
    head, jwk = forge.head, forge.key.jwk
    head("jwk-missing", "there is no key", "D-13", jwk=None)
    for name, value in {"string": "key", "array": [jwk], "empty": {}, "number": 1}.items():
        head(f"jwk-{name}", "jwk is not a key", "D-13", jwk=value)
    for name, other in {
        "kid": "k",
        "jku": "https://attacker.test/jwks",
        "x5u": "https://attacker.test/certificate",
        "x5c": ["AAAA"],
    }.items():
        head(f"jwk-{name}-instead", f"the key must be in jwk, not in {name}", "D-13", jwk=None, **{name: other})
    for member in ("d", "k", "p", "dp"):
        head(f"jwk-private-{member}", "the key has a private member", "D-14", jwk={**jwk, member: "AAAA"})
    symmetric = {"kty": "oct", "k": base64url(b"k" * 32)}
    head("jwk-symmetric", "the key is symmetric", "D-15", jwk=symmetric)
    head("jwk-symmetric-hs256", "key and algorithm are symmetric", "D-15", "D-11", alg="HS256", jwk=symmetric)
    for member in ("kty", "crv", "x", "y"):
        head(
            f"jwk-without-{member}",
            f"the key has no {member}",
            "D-16",
            jwk={k: v for k, v in jwk.items() if k != member},
        )
    head("jwk-off-curve", "the point is not on the curve", "D-16", jwk={**jwk, "x": jwk["y"]})
    head("jwk-zero", "the point is zero", "D-16", jwk={**jwk, "x": "A" * 43, "y": "A" * 43})
    head("jwk-short", "a coordinate is too short", "D-16", jwk={**jwk, "x": jwk["x"][:-2]})
    head("jwk-other-curve", "the coordinates are those of another curve", "D-16", jwk={**jwk, "crv": "P-384"})
    head("jwk-unknown-curve", "the curve is unknown", "D-16", jwk={**jwk, "crv": "P-255"})
    head("jwk-kty-ec", "kty is case-sensitive", "D-16", jwk={**jwk, "kty": "ec"})
    head("jwk-for-encryption", "the key is for encryption", "D-16", jwk={**jwk, "use": "enc"})
    head("jwk-for-signing", "the key does not allow verification", "D-16", jwk={**jwk, "key_ops": ["sign"]})
    head("jwk-for-another-alg", "the key is for another algorithm", "D-16", jwk={**jwk, "alg": "ES384"})
    weak = _weak_key()
    public = {name: value for name, value in weak.public_jwk().items() if name in ("kty", "n", "e")}
    forge.add(
        "jwk-weak", forge.sign(forge.header(alg="PS256", jwk=public), key=weak), "an RSA key of 1024 bits", "D-16"
    )


def _signatures(forge: _Forge) -> None:
    add, good = forge.add, forge.good()
    signed, _, signature = good.rpartition(".")
    raw = forge.key.signing.sign(signed.encode("ascii"))
    flipped = bytes([raw[0] ^ 1]) + raw[1:]
    for name, value, why in (
        ("empty", b"", "it has no signature"),
        ("flipped", flipped, "a bit of the signature is flipped"),
        ("zero", bytes(64), "the signature is zero"),
        ("short", raw[:-1], "the signature is too short"),
        ("long", raw + b"\0", "the signature is too long"),
        (
            "der",
            utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")),
            "the signature is in DER",
        ),
    ):
        add(f"signature-{name}", f"{signed}.{base64url(value)}", why, "D-12")
    add(
        "signature-of-another-proof",
        f"{forge.good().rpartition('.')[0]}.{signature}",
        "the signature is that of another proof",
        "D-12",
    )
    add(
        "signature-of-another-key",
        forge.sign(key=forge.stranger.signing),
        "the signature was made with another key",
        "D-12",
    )
    swapped = base64url(json_bytes(forge.claims()))
    add("claims-swapped", f"{signed.partition('.')[0]}.{swapped}.{signature}", "the claims are not signed", "D-12")


def _claims(forge: _Forge) -> None:
    claim = forge.claim
    for name in ("jti", "htm", "htu", "iat", "ath"):
        claim(f"{name}-missing", f"{name} is missing", "D-08" if name == "ath" else "D-07", **{name: None})
        for kind, value in (("list", ["x"]), ("object", {"a": 1}), ("true", True), ("empty", "")):
            claim(f"{name}-{kind}", f"{name} has the wrong type", "D-07", **{name: value})
    claim("jti-number", "jti is a number", "D-07", jti=7)
    claim("jti-long", "jti is longer than 1024 characters", "D-56", jti="x" * 1025)
    other = "POST" if forge.method != "POST" else "GET"
    claim("htm-other", "it is for another method", "D-17", htm=other)
    claim("htm-lower-case", "methods are case-sensitive", "D-17", htm=forge.method.lower())
    claim("htm-space", "htm ends with a space", "D-17", htm=forge.method + " ")
    digest = hashlib.sha256(forge.token.encode()).digest()
    for name, value in {
        "other-token": token_hash("another.token"),
        "padded": base64url(digest) + "=",
        "hex": digest.hex(),
        "sha-512": base64url(hashlib.sha512(forge.token.encode()).digest()),
        "half": base64url(digest[:16]),
        "token-itself": forge.token,
        "scheme-too": token_hash(f"DPoP {forge.token}"),
    }.items():
        claim(f"ath-{name}", "ath is not the hash of the token", "D-42", ath=value)
    claim(
        "of-the-token-endpoint",
        "it was made for a token request",
        "D-08",
        ath=None,
        htm="POST",
        htu="https://as.test/token",
    )


def _uris(forge: _Forge) -> None:
    scheme, _, rest = forge.uri.partition("://")
    host, slash, path = rest.partition("/")
    tail = slash + path
    for name, uri in {
        "other-path": f"{forge.uri.rstrip('/')}/other",
        "other-host": f"{scheme}://attacker.test{tail}",
        "subdomain": f"{scheme}://a.{host}{tail}",
        "suffix": f"{scheme}://{host}.attacker.test{tail}",
        "http": f"{'http' if scheme == 'https' else 'https'}://{rest}",
        "other-port": f"{scheme}://{host.partition(':')[0]}:8443{tail}",
        "no-host": f"{tail or '/'}",
        "no-scheme": f"//{rest}",
        "user": f"{scheme}://user@{rest}",
        "script": "javascript:alert(1)",
        "file": f"file:///{path}",
        "bad-port": f"{scheme}://{host.partition(':')[0]}:99999999{tail}",
        "space": f"{forge.uri} ",
        "escaped-slash": f"{scheme}://{host}%2F{path}",
        "dots": f"{forge.uri.rstrip('/')}/../../other",
    }.items():
        forge.claim(f"htu-{name}", "htu is not the URI of the request", "D-24" if "other" in name else "D-25", htu=uri)
    forge.claim("htu-number", "htu is a number", "D-07", htu=1)


def _times(forge: _Forge) -> None:
    now, claim = forge.now, forge.claim
    claim("iat-old", "it is older than a minute", "D-37", iat=now - 61)
    claim("iat-hour", "it is an hour old", "D-37", iat=now - 3600)
    claim("iat-future", "it is more than ten seconds in the future", "D-38", iat=now + 11)
    claim("iat-milliseconds", "iat is in milliseconds", "D-37", iat=now * 1000)
    claim("iat-string", "iat is a string", "D-40", iat=str(now))
    claim("iat-negative", "iat is negative", "D-40", iat=-1)
    claim("iat-huge", "iat is far too large", "D-40", iat=10**30)
    for name, raw in {"nan": b"NaN", "infinity": b"1e400"}.items():
        payload = json_bytes(forge.claims(iat=None))[:-1] + b',"iat":' + raw + b"}"
        forge.add(f"iat-{name}", forge.sign(claims=payload), "iat is not a finite number", "D-40")
    claim("exp-past", "it has expired", "D-41", exp=now - 60)
    claim("exp-string", "exp is a string", "D-41", exp="later")
    claim("nbf-future", "it is not valid yet", "D-41", nbf=now + 3600)


def _bindings(forge: _Forge) -> None:
    add, mint = forge.add, forge.authority.mint
    stranger = forge.stranger
    add(
        "key-of-another-client",
        forge.sign(forge.header(jwk=stranger.jwk), key=stranger.signing),
        "the token is bound to another key",
        "D-43",
        error=_TOKEN,
    )

    def bad_token(name: str, why: str, rule: str, **settings: Any) -> None:
        token = mint(forge.scope, **settings)
        add(name, forge.good(ath=token_hash(token)), why, rule, token=token, error=_TOKEN)

    bad_token("token-unbound", "the token is bound to no key", "D-46")
    bad_token("token-of-another-key", "the token is bound to another key", "D-43", bound_to=stranger)
    bad_token("token-expired", "the token has expired", "D-61", bound_to=forge.key, expires_in=-3600)
    thumbprint = forge.key.thumbprint
    for name, confirmation in {
        "empty": {},
        "list": [thumbprint],
        "string": thumbprint,
        "padded": {"jkt": thumbprint + "="},
        "number": {"jkt": 5},
        "kid": {"kid": thumbprint},
        "unknown-too": {"jkt": thumbprint, "jku": "https://attacker.test/jwks"},
    }.items():
        bad_token(f"confirmation-{name}", "cnf is not a thumbprint alone", "D-64", claims={"cnf": confirmation})
    add("stolen-as-bearer", (), "a bound token is not a bearer token", "D-44", scheme="Bearer", error=_TOKEN)
    add(
        "stolen-with-proof", forge.good(), "a proof does not help a bearer token", "D-45", scheme="Bearer", error=_TOKEN
    )


def _ml_dsa(forge: _Forge) -> None:
    """Add proofs with keys of ML-DSA (RFC 9964), unless ``cryptography`` lacks it. The token is bound to such a key."""
    if not is_available():
        return
    key, wider = ProofKey("ML-DSA-44"), ProofKey("ML-DSA-65")
    token = forge.authority.mint(forge.scope, claims=key.confirmation)
    jwk, ath = key.jwk, token_hash(token)

    def add(name: str, why: str, *rules: str, signer: SigningKey = key.signing, **header: Any) -> None:
        proof = forge.sign(forge.header(**{"alg": "ML-DSA-44", "jwk": jwk, **header}), forge.claims(ath=ath), signer)
        forge.add(f"ml-dsa-{name}", proof, why, *rules, token=token)

    private = key.signing.private_jwk()["priv"]
    add("alg-of-another-set", "the key is for another parameter set", "PQ-02", "D-16", alg="ML-DSA-65")
    add("alg-es256", "the key is for ML-DSA", "PQ-02", "D-16", alg="ES256")
    add("alg-lower-case", "names of algorithms are compared exactly", "PQ-03", "D-11", alg="ml-dsa-44")
    add("key-for-es256", "the key is for ES256", "PQ-02", "D-16", jwk=forge.key.jwk)
    add("key-of-another-set", "the key is for another parameter set", "PQ-02", "D-16", jwk=wider.jwk)
    add("key-without-alg", "an AKP key needs alg", "PQ-01", "D-16", jwk={k: v for k, v in jwk.items() if k != "alg"})
    add(
        "key-with-wrong-alg",
        "pub has another length",
        "PQ-01",
        "D-16",
        alg="ML-DSA-65",
        jwk={**jwk, "alg": "ML-DSA-65"},
    )
    add("key-without-pub", "there is no key", "PQ-01", "D-16", jwk={k: v for k, v in jwk.items() if k != "pub"})
    add("key-private", "the key has its seed", "PQ-01", "D-14", jwk={**jwk, "priv": private})
    add("key-short", "pub is too short", "PQ-01", "D-16", jwk={**jwk, "pub": jwk["pub"][:-4]})
    add("key-kty-okp", "kty is not AKP", "PQ-01", "D-16", jwk={**jwk, "kty": "OKP", "crv": "Ed25519", "x": jwk["pub"]})
    add("signature-of-another-key", "another key has signed", "D-12", signer=ProofKey("ML-DSA-44").signing)
    add("signature-of-another-set", "another parameter set has signed", "PQ-04", "D-12", signer=wider.signing)
    signed = forge.sign(forge.header(alg="ML-DSA-44", jwk=jwk), forge.claims(ath=ath), key.signing).rpartition(".")[0]
    raw = key.signing.sign(signed.encode("ascii"))
    for name, signature, why in (
        ("truncated", raw[:-1], "the signature is too short"),
        ("lengthened", raw + b"\0", "the signature is too long"),
        ("zero", bytes(len(raw)), "the signature is zero"),
        ("flipped", bytes([raw[0] ^ 1]) + raw[1:], "a bit of the signature is flipped"),
        ("context", key.signing.private_key.sign(signed.encode("ascii"), b"dpop"), "the context must be empty"),
    ):
        proof = f"{signed}.{base64url(signature)}"
        forge.add(f"ml-dsa-signature-{name}", proof, why, "PQ-04", "D-12", token=token)
    unsigned = base64url(json_bytes(forge.header(alg="HS256", jwk=jwk))) + "." + signed.partition(".")[2]
    tag = hmac.new(key.signing.private_key.public_key().public_bytes_raw(), unsigned.encode("ascii"), hashlib.sha256)
    symmetric = f"{unsigned}.{base64url(tag.digest())}"
    forge.add("ml-dsa-hs256", symmetric, "the secret of the HMAC is the public key", "D-11", "D-15", token=token)
