"""Parse JWK Sets and choose the keys that may verify a signature: RFC 7517, RFC 7518 section 6, RFC 8037,
RFC 9964.

A document becomes a :class:`KeySet`. A key that is broken, weak or unsupported is left out with the reason, and the
other keys stay usable. Key objects are built once, here, so verifying a signature parses nothing.

``cryptography`` builds the keys, and :mod:`scopeguard.spec.signatures` verifies signatures. This module decides what
both leave open: exact lengths, canonical base64url, bounds of RSA keys, ``use``, ``key_ops`` and ``alg``.

Longer than 400 lines because parsing a key, checking it and finding it share the same tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256K1,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from scopeguard.config.keys import MOST_KEYS
from scopeguard.config.ml_dsa import ML_DSA, load_class
from scopeguard.errors import ConfigurationError
from scopeguard.spec.base64url import encode_base64url
from scopeguard.spec.jws import decode_base64url, strip_padding
from scopeguard.spec.signatures import Backends, PublicKey, Verifier, prepare_verifier
from scopeguard.spec.strict_json import MalformedJSON, is_ambiguous, parse_object

# A key, the algorithms that fit it, and the length of its signatures in octets.
_ParsedKey = tuple[PublicKey, frozenset[str], int]

MAX_CANDIDATES: Final = 8
"""The greatest number of keys that are tried for one token. It bounds the work that a forged token causes."""

# RFC 9864 registered a second name for EdDSA with the curve Ed25519.
_ED25519_NAMES: Final = frozenset(("EdDSA", "Ed25519"))
_RSA_ALGORITHMS: Final = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
# The curve, the length of a coordinate in octets, and the only algorithm for the curve: RFC 7518 section 3.4, RFC 8812.
_CURVES: Final[Mapping[str, tuple[EllipticCurve, int, str]]] = {
    "P-256": (SECP256R1(), 32, "ES256"),
    "P-384": (SECP384R1(), 48, "ES384"),
    "P-521": (SECP521R1(), 66, "ES512"),
    "secp256k1": (SECP256K1(), 32, "ES256K"),
}
_PRIVATE_MEMBERS: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv")
_NUMBERS: Final = ("n", "e", "x", "y", "pub")
_ENCRYPTION_OPERATIONS: Final = frozenset(("encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"))
_THUMBPRINT_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "AKP": ("alg", "kty", "pub"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}

# RFC 7518 section 3.3: "A key of size 2048 bits or larger MUST be used with these algorithms." Section 3.5 says the
# same.
MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192  # the cost of a verification grows with the square of the size
_LONGEST_HINT: Final = 10**9  # in seconds
_MAX_RSA_EXPONENT: Final = 2**32 - 1

# Keys that the Infineon library of CVE-2017-15361 generated can be factored. Their modulus is a power of 65537 modulo
# each of these primes. A sound key has the property with a probability of 1 in 2**27.
_FINGERPRINT_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_POWERS_OF_65537: Final = tuple((p, frozenset(pow(65537, k, p) for k in range(p))) for p in _FINGERPRINT_PRIMES)

# The y coordinates, modulo 2**255 - 19, of the Ed25519 points of order 1, 2, 4 and 8. Anyone can forge signatures for
# such a point. A broken encoder that publishes 32 zero octets publishes one of them.
_ED25519_PRIME: Final = 2**255 - 19
_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER: Final = frozenset((0, 1, _ED25519_PRIME - 1, _ORDER_8, _ED25519_PRIME - _ORDER_8))


class MalformedKeySet(ValueError):
    """The document is not a JWK Set, or has no usable key. The message quotes no key material."""


class _UnsupportedKey(Exception):
    """The key is valid but serves another purpose, or is of a kind that is not supported."""


class _InvalidKey(Exception):
    """The key is malformed, weak, private or symmetric, and should not have been published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One public key, ready to verify.

    * ``algorithms``: the ``alg`` values it may verify: the one in its JWK, otherwise all that fit its type and curve.
    * ``issuer``: the issuer whose tokens it signs, if its JWK names one (Microsoft Entra).
    * ``thumbprint``: RFC 7638 with SHA-256.
    * ``signature_octets``: the length of its signatures.
    * ``backends``: libraries that are preferred to ``cryptography`` for verification.
    """

    kid: str | None
    algorithms: frozenset[str]
    issuer: str | None
    thumbprint: str
    signature_octets: int
    public_key: PublicKey = field(repr=False, compare=False)
    backends: Backends = field(default=(), repr=False, compare=False)
    _verifiers: dict[str, Verifier] = field(init=False, default_factory=dict, repr=False, compare=False)

    def verify(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Return whether *signature* is this key's signature of *signed* with *algorithm*.

        Checked: *algorithm* is one of ``algorithms``; an RS* or PS* signature is as long as the modulus (RFC 8017
        section 8); the salt of PS* is as long as the hash (RFC 7518 section 3.5); R and S of ES* have the length of the
        curve and lie between 1 and n-1 (section 3.4). NOT checked: whether the issuer accepts *algorithm*; see
        :func:`~scopeguard.spec.jws.check_header`.

        Raises only :class:`~scopeguard.spec.signatures.SignatureBackendError`, if a backend fails.
        """
        # RFC 7518 section 3.4, for ES256: "The JWS Signature value MUST be a 64-octet sequence. If it is not a 64-octet
        # sequence, the validation has failed." The length matters for RSA too: OpenSSL accepts a PSS signature without
        # its leading zero octets, which would be a second spelling of one token in 256.
        if len(signature) != self.signature_octets:
            return False
        verifier = self._verifiers.get(algorithm)
        if verifier is None:
            if algorithm not in self.algorithms:
                return False
            verifier = self._verifiers[algorithm] = prepare_verifier(algorithm, self.public_key, self.backends)
        return verifier(signed, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredKey:
    """A key of a JWK Set that is not used.

    * ``position``: its index in the document, from 0.
    * ``reason``: one printable line without key material.
    * ``alarming``: it is malformed, weak, private or symmetric, so its publisher should act. Otherwise it serves
      another purpose or is not supported.
    """

    kid: str | None
    position: int
    reason: str
    alarming: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The usable and the ignored keys of a JWK Set, in their order. A look-up costs the same for a set of any size.

    ``refresh_hint`` and ``sequence`` are those of a SPIFFE bundle: the seconds after which to fetch it again, and a
    number that grows with each change.
    """

    keys: tuple[VerificationKey, ...]
    ignored: tuple[IgnoredKey, ...] = ()
    refresh_hint: float | None = None
    sequence: int | None = None
    _index: Mapping[tuple[str | None, str], tuple[VerificationKey, ...]] = field(init=False, repr=False, compare=False)
    _kids: frozenset[str] = field(init=False, repr=False, compare=False)
    _matches_any_kid: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[tuple[str | None, str], tuple[VerificationKey, ...]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                # The entry None has all keys, for tokens without kid. The set literal adds a key without kid only once.
                for entry in {(key.kid, algorithm), (None, algorithm)}:
                    index[entry] = (*index.get(entry, ()), key)[:MAX_CANDIDATES]
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_kids", frozenset(key.kid for key in self.keys if key.kid is not None))
        object.__setattr__(self, "_matches_any_kid", len(self.keys) == 1 and self.keys[0].kid is None)

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """Return the keys to try for a token, at most 8, in the order of the set.

        With a *kid*, these are the keys with exactly that ``kid`` that may verify *algorithm*; there may be several.
        With ``None``, they are all keys that may verify *algorithm*. A key without ``kid`` is found for a *kid* only if
        it is the only usable key, because a single static key is often configured without one.
        """
        return self._index.get((None if self._matches_any_kid else kid, algorithm), ())

    def has_key_id(self, kid: str) -> bool:
        """Return whether a usable key has the id *kid*, for any algorithm. If not, fetching the set again may help."""
        return kid in self._kids


def parse_key_set(
    document: bytes | Mapping[str, Any],
    *,
    max_keys: int = MOST_KEYS,
    padded: bool = False,
    backends: Backends = (),
    use: str = "sig",
) -> KeySet:
    """Parse *document*, a fetched JWK Set (RFC 7517 section 5). Its keys verify signatures with *backends*.

    A single key is ignored, and listed with the reason, if it

    * is not an object, has a duplicate member, or lacks a member or encodes it wrongly: base64url must be canonical,
      and coordinates must have the exact length;
    * is not for signatures: ``use`` is not ``sig``, ``key_ops`` lacks ``verify`` or contains an operation that
      contradicts it, or ``kty``, ``crv`` or ``alg`` is unknown or does not fit the rest;
    * has private members, or is symmetric;
    * is weak or absurd: RSA below 2048 or above 8192 bits, an even modulus, an exponent that is even, below 3 or above
      2**32-1, a modulus of CVE-2017-15361, an EC point that is not on its curve, an Ed25519 point of small order.

    A key of ``kty`` AKP (RFC 9964) must have ``alg``, and a ``pub`` of the length for it. It is not supported if the
    installed ``cryptography`` lacks ML-DSA.

    NOT checked: the size of *document* in bytes, which the caller bounds. ``x5c`` and ``x5u`` are not read.

    *padded*: the numbers of a key may have base64 padding, which RFC 7518 section 2 forbids. *use*: the ``use`` of keys
    for signatures. With a value other than ``sig``, each key must have it, and a ``kid``, as in a SPIFFE bundle.

    Raises :class:`MalformedKeySet` if *document* is not one strict JSON object with an array ``keys``, has more than
    *max_keys* keys, or has no usable key. The caller must then keep the keys it has.
    """
    parsed = _parse_document(document)
    keys, ignored = _parse_keys(parsed, max_keys, backends, padded=padded, use=use)
    found = _build_key_set(keys, ignored)
    return found if use == "sig" else replace(found, **_bundle_members(parsed))


def parse_configured_key_set(
    document: Mapping[str, Any],
    *,
    setting: str = "keys",
    max_keys: int = MOST_KEYS,
    padded: bool = False,
    backends: Backends = (),
    use: str = "sig",
) -> KeySet:
    """Parse *document*, a JWK Set that the operator configured as *setting*.

    Like :func:`parse_key_set`, but raises :class:`ConfigurationError` for a set without a usable key, and for a key
    that is weak, malformed, symmetric or private; the message names the key. Keys for other purposes are ignored, so
    the whole key set of an authorization server can be pasted.
    """
    try:
        keys, ignored = _parse_keys(document, max_keys, backends, padded=padded, use=use)
        for key in ignored:
            if key.alarming:
                name = f"key {key.position + 1}" if key.kid is None else f"the key with kid {_printable(key.kid)}"
                raise ConfigurationError(f"{setting}: {name}: {key.reason}; use the public part of a sound signing key")
        return _build_key_set(keys, ignored)
    except MalformedKeySet as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def _build_key_set(keys: list[VerificationKey], ignored: list[IgnoredKey]) -> KeySet:
    if not keys:
        reasons = "; ".join(tuple(dict.fromkeys(key.reason for key in ignored))[:5]) or "it is empty"
        raise MalformedKeySet(f"a JWK Set without a usable key: {reasons}")
    return KeySet(keys=tuple(keys), ignored=tuple(ignored))


def _parse_document(document: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(document, bytes):
        return document
    try:
        # A duplicate member makes its key unusable, but not the whole set; see _parse_key().
        return parse_object(document, mark_ambiguous=True)
    except MalformedJSON as error:
        raise MalformedKeySet(f"not a JWK Set: {error}") from None


def _bundle_members(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a SPIFFE bundle other than its keys. A wrong value counts as absent: both are optional."""
    hint, sequence = document.get("spiffe_refresh_hint"), document.get("spiffe_sequence")
    return {
        "refresh_hint": float(hint) if type(hint) is int and 0 < hint < _LONGEST_HINT else None,
        "sequence": sequence if type(sequence) is int and sequence >= 0 else None,
    }


def _parse_keys(
    document: Mapping[str, Any], max_keys: int, backends: Backends, *, padded: bool, use: str
) -> tuple[list[VerificationKey], list[IgnoredKey]]:
    jwks = _key_objects(document)
    if len(jwks) > max_keys:
        raise MalformedKeySet(f"a JWK Set of {len(jwks)} keys; at most {max_keys} are read")
    keys: list[VerificationKey] = []
    ignored: list[IgnoredKey] = []
    for position, jwk in enumerate(jwks):
        try:
            keys.append(_parse_key(_strip_number_padding(jwk) if padded else jwk, backends, use))
        except (_InvalidKey, _UnsupportedKey) as error:
            # RFC 7517 section 5: "Implementations SHOULD ignore JWKs within a JWK Set that use "kty" (key type) values
            # that are not understood by them, that are missing required members, or for which values are out of the
            # supported ranges."
            member = jwk.get("kid") if isinstance(jwk, Mapping) else None
            kid = member if isinstance(member, str) else None
            alarming = isinstance(error, _InvalidKey)
            ignored.append(IgnoredKey(kid=kid, position=position, reason=str(error), alarming=alarming))
    return keys, ignored


def _key_objects(document: Mapping[str, Any]) -> list[Any]:
    jwks = document.get("keys")
    if not isinstance(jwks, list | tuple):
        raise MalformedKeySet("not a JWK Set: it must be an object with an array named keys")
    return list(jwks)


def _parse_key(jwk: object, backends: Backends, use: str = "sig") -> VerificationKey:
    # RFC 7517 section 4: "The member names within a JWK MUST be unique; JWK parsers MUST either reject JWKs with
    # duplicate member names or use a JSON parser that returns only the lexically last duplicate member name".
    if not isinstance(jwk, Mapping) or is_ambiguous(jwk):
        raise _InvalidKey("it is not an object, or has a member twice")
    kty = jwk.get("kty")
    if kty == "oct":
        raise _InvalidKey("it is symmetric: every API that can verify tokens could forge them")
    private = [name for name in _PRIVATE_MEMBERS if name in jwk]
    if private:
        raise _InvalidKey(
            f"it has private members ({', '.join(private)}): replace this key, because its secret is published"
        )
    kid, issuer = (_optional_text(jwk, name) for name in ("kid", "issuer"))
    _check_purpose(jwk, use, kid)
    read = _READERS.get(kty) if isinstance(kty, str) else None
    if read is None:
        raise _UnsupportedKey(f"kty {_printable(kty)} is not RSA, EC, OKP or AKP")
    try:
        public_key, algorithms, signature_octets = read(jwk)
    except (UnsupportedAlgorithm, ImportError):
        raise _UnsupportedKey("the installed cryptography or OpenSSL cannot use this kind of key") from None
    except ValueError:
        # Above all an EC point that is not on its curve. RFC 8725 section 3.4: "The JWS/JWE library itself must
        # validate these inputs before using them, or it must use underlying cryptographic libraries that do so (or
        # both!)."
        raise _InvalidKey("its numbers are not a valid key of its type") from None
    return VerificationKey(
        kid=kid,
        algorithms=_allowed_algorithms(jwk, algorithms),
        issuer=issuer,
        thumbprint=thumbprint(jwk),
        signature_octets=signature_octets,
        public_key=public_key,
        backends=backends,
    )


def parse_proof_key(jwk: Mapping[str, Any]) -> VerificationKey:
    """Parse *jwk*, the key in the header of a proof (RFC 9449 section 4.2), with the checks of :func:`parse_key_set`.

    Raises :class:`ValueError` for a key that is private, symmetric, weak, malformed or of a kind that is not supported.
    The message quotes no key material.
    """
    try:
        return _parse_key(jwk, ())
    except (_InvalidKey, _UnsupportedKey) as error:
        raise ValueError(str(error)) from None


def _strip_number_padding(jwk: object) -> object:
    """Return *jwk* with its numbers unpadded, as its thumbprint needs them too."""
    if not isinstance(jwk, Mapping) or is_ambiguous(jwk):
        return jwk
    return {k: strip_padding(v) if k in _NUMBERS and isinstance(v, str) else v for k, v in jwk.items()}


def _check_purpose(jwk: Mapping[str, Any], use: str, kid: str | None) -> None:
    """Check that ``use`` and ``key_ops``, if present, both allow verification: RFC 7517 sections 4.2 and 4.3.

    In a SPIFFE bundle (*use* is not ``sig``), ``use`` and *kid* must be present.
    """
    if use != "sig" and ("use" not in jwk or kid is None):
        raise _UnsupportedKey(f"use or kid is absent, and this set needs both, with use={use}")
    # RFC 7517 section 4.3: "The "use" and "key_ops" JWK members SHOULD NOT be used together; however, if both are used,
    # the information they convey MUST be consistent."
    if jwk.get("use", use) != use:
        raise _UnsupportedKey(f"use is {_printable(jwk['use'])}")
    if "key_ops" not in jwk:
        return
    operations = jwk["key_ops"]
    if not isinstance(operations, list | tuple) or not all(isinstance(operation, str) for operation in operations):
        raise _InvalidKey("key_ops is not an array of strings")
    if "verify" not in operations:
        raise _UnsupportedKey("key_ops lacks verify")
    # RFC 7517 section 4.3: "Multiple unrelated key operations SHOULD NOT be specified for a key because of the
    # potential vulnerabilities associated with using the same key with multiple algorithms."
    if not _ENCRYPTION_OPERATIONS.isdisjoint(operations):
        raise _UnsupportedKey("key_ops combines verify with encryption")


def _allowed_algorithms(jwk: Mapping[str, Any], fitting: frozenset[str]) -> frozenset[str]:
    """Return the algorithms that a key may verify: its ``alg`` if it has one, otherwise all that fit it."""
    # RFC 7517 section 4.4: "The "alg" (algorithm) parameter identifies the algorithm intended for use with the key."
    if "alg" not in jwk:
        return fitting
    alg = jwk["alg"]
    if not isinstance(alg, str) or alg not in fitting:
        raise _UnsupportedKey(f"alg {_printable(alg)} is not a supported signature algorithm for this kind of key")
    # Both names denote the same algorithm for an Ed25519 key, and servers sign with one key under either name (RFC
    # 9864). The issuer's allow-list, where the names are distinct, decides which of them a token may use.
    return _ED25519_NAMES if alg in _ED25519_NAMES else frozenset((alg,))


def _optional_text(jwk: Mapping[str, Any], name: str) -> str | None:
    if name not in jwk:
        return None
    text = jwk[name]
    if not isinstance(text, str):
        raise _InvalidKey(f"{name} is not a string")
    return text


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise _InvalidKey(f"{name} is missing or not a string")
    try:
        return decode_base64url(text)
    except ValueError as error:
        hint = "; key_set.padded = true accepts padding" if text.endswith("=") else ""
        raise _InvalidKey(f"{name} is {error}{hint}") from None


def _read_rsa(jwk: Mapping[str, Any]) -> _ParsedKey:
    # Leading zero octets are accepted, because they are common. RFC 7518 section 6.3.1.1: "some cryptographic libraries
    # prefix an extra zero-valued octet to the modulus representations they return".
    modulus, exponent = (int.from_bytes(_octets(jwk, name), "big") for name in ("n", "e"))
    bits = modulus.bit_length()
    if not MIN_RSA_BITS <= bits <= _MAX_RSA_BITS:
        raise _InvalidKey(f"an RSA key of {bits} bits; {MIN_RSA_BITS} to {_MAX_RSA_BITS} are accepted")
    if modulus % 2 == 0:
        raise _InvalidKey("its modulus is even")
    if exponent % 2 == 0 or not 3 <= exponent <= _MAX_RSA_EXPONENT:
        raise _InvalidKey("its exponent is even, below 3 or above 2**32-1")
    if all(modulus % prime in powers for prime, powers in _POWERS_OF_65537):
        raise _InvalidKey("its private key can be computed (CVE-2017-15361)")
    return RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS, (bits + 7) // 8


def _read_ec(jwk: Mapping[str, Any]) -> _ParsedKey:
    crv = jwk.get("crv")
    known = _CURVES.get(crv) if isinstance(crv, str) else None
    if known is None:
        raise _UnsupportedKey(f"crv {_printable(crv)} is not one of {', '.join(_CURVES)}")
    curve, length, algorithm = known
    x, y = (_octets(jwk, name) for name in ("x", "y"))
    # RFC 7518 section 6.2.1.2: "The length of this octet string MUST be the full size of a coordinate for the curve
    # specified in the "crv" parameter."
    if not len(x) == len(y) == length:
        raise _InvalidKey(f"its coordinates are not {length} octets each")
    numbers = EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
    return numbers.public_key(), frozenset((algorithm,)), 2 * length


def _read_okp(jwk: Mapping[str, Any]) -> _ParsedKey:
    if jwk.get("crv") != "Ed25519":
        raise _UnsupportedKey(f"crv {_printable(jwk.get('crv'))} is not Ed25519")
    x = _octets(jwk, "x")
    if len(x) != 32:
        raise _InvalidKey("x is not 32 octets")
    if (int.from_bytes(x, "little") & (2**255 - 1)) % _ED25519_PRIME in _SMALL_ORDER:
        raise _InvalidKey("its point has a small order: anyone could forge its signatures")
    return Ed25519PublicKey.from_public_bytes(x), _ED25519_NAMES, 64


def _read_akp(jwk: Mapping[str, Any]) -> _ParsedKey:
    # RFC 9964 section 3: "The alg JSON Web Key Parameter [...] is REQUIRED for all AKP keys."
    if "alg" not in jwk:
        raise _InvalidKey("alg is missing, which a key of kty AKP needs")
    alg = jwk["alg"]
    sizes = ML_DSA.get(alg) if isinstance(alg, str) else None
    if sizes is None:
        raise _UnsupportedKey(f"alg {_printable(alg)} is not one of {', '.join(ML_DSA)}")
    pub = _octets(jwk, "pub")
    if len(pub) != sizes.public_key:
        raise _InvalidKey(f"pub is not {sizes.public_key} octets")
    return load_class(alg, "PublicKey").from_public_bytes(pub), frozenset((alg,)), sizes.signature


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], _ParsedKey]]] = {
    "RSA": _read_rsa,
    "EC": _read_ec,
    "OKP": _read_okp,
    "AKP": _read_akp,
}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of *jwk*: RFC 7638 section 3, RFC 8037 section 2, RFC 9964 section 6.

    The members are used as given. NOT checked: that they describe a valid key. Raises :class:`ValueError` for a
    ``kty`` other than RSA, EC, OKP and AKP, and for a member that is missing or not a string.
    """
    canonical = json.dumps(thumbprint_members(jwk), separators=(",", ":"), ensure_ascii=False)
    return encode_base64url(hashlib.sha256(canonical.encode()).digest())


def thumbprint_members(jwk: Mapping[str, Any]) -> dict[str, str]:
    """Return the members of *jwk* that its thumbprint covers, which are those that a public key needs.

    Raises :class:`ValueError` as :func:`thumbprint` does.
    """
    kty = jwk.get("kty")
    names = _THUMBPRINT_MEMBERS.get(kty) if isinstance(kty, str) else None
    if names is None:
        raise ValueError("kty is not RSA, EC, OKP or AKP")
    # RFC 7638 section 3 orders the members lexicographically by name; _THUMBPRINT_MEMBERS lists them in that order.
    members = {name: value for name in names if isinstance(value := jwk.get(name), str)}
    if len(members) != len(names):
        raise ValueError(f"one of {', '.join(names)} is missing or not a string")
    return members


def _printable(value: object) -> str:
    """Return a value of the document as one short ASCII line, safe to log."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:60] + "..."
