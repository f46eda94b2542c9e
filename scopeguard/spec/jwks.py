"""Public keys (RFC 7517, RFC 7518 section 6, RFC 8037), and which of them may verify which signature.

A document full of keys becomes a :class:`KeySet`. A key that cannot be used for sure is left out and named, and
never takes the others down with it. Key objects are made once, here; verifying parses nothing.

Keys are built by ``cryptography``, and signatures computed in :mod:`scopeguard.spec.signatures`. What libraries leave
open is decided here: exact lengths, canonical base64url, bounds of RSA, ``use``, ``key_ops`` and ``alg``.

Longer than 400 lines because reading a key, judging it and finding it again share what is known about its kind.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

from scopeguard.errors import ConfigurationError
from scopeguard.spec.jws import decode_base64url, unpadded
from scopeguard.spec.signatures import Backends, PublicKey, Verifier, prepared
from scopeguard.spec.strict_json import MalformedJSON, is_ambiguous, parse_object

# A key, the algorithms that fit it, and how many octets its signatures have.
_Read = tuple[PublicKey, frozenset[str], int]

MAX_CANDIDATES: Final = 8
"""Most keys that are tried for one token: what a hostile token may cost."""

# RFC 9864 gave EdDSA over Ed25519 a name of its own.
_BOTH_NAMES: Final = frozenset(("EdDSA", "Ed25519"))
_RSA_ALGORITHMS: Final = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
# The curve, the octets of a coordinate, and the one algorithm of RFC 7518 section 3.4 and RFC 8812 that goes with it.
_CURVES: Final[Mapping[str, tuple[EllipticCurve, int, str]]] = {
    "P-256": (SECP256R1(), 32, "ES256"),
    "P-384": (SECP384R1(), 48, "ES384"),
    "P-521": (SECP521R1(), 66, "ES512"),
    "secp256k1": (SECP256K1(), 32, "ES256K"),
}
_PRIVATE_MEMBERS: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_NOT_SIGNING: Final = frozenset(("encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"))
_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}

_MIN_RSA_BITS: Final = 2048  # RFC 7518 sections 3.3 and 3.5
_MAX_RSA_BITS: Final = 8192  # the work of each verification grows with the square of it
_MAX_RSA_EXPONENT: Final = 2**32 - 1

# Keys made by the Infineon library of CVE-2017-15361 can be factored. Their modulus is a power of 65537 modulo every
# small prime; these are the primes where that says something, and 1 in 2**27 sound keys has the property by chance.
_TELLING_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_POWERS_OF_65537: Final = tuple((p, frozenset(pow(65537, k, p) for k in range(p))) for p in _TELLING_PRIMES)

# Points of order 1, 2, 4 and 8 on Ed25519: for such a "key" anyone can make up signatures, and 32 zero octets, what a
# broken encoder publishes, are one of them. Their y coordinates, modulo 2**255 - 19:
_ED25519_PRIME: Final = 2**255 - 19
_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER: Final = frozenset((0, 1, _ED25519_PRIME - 1, _ORDER_8, _ED25519_PRIME - _ORDER_8))


class MalformedKeySet(ValueError):
    """Not a JWK Set, or one without a single key that could verify a signature. The text quotes no key material."""


class _NotForUs(Exception):
    """A key that is fine in itself and cannot verify the signatures we accept."""


class _BadKey(Exception):
    """A key that nobody should have published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One public key, ready to verify.

    * ``algorithms``: the ``alg`` values it may verify: the one its JWK pins, else all that fit its type and curve.
    * ``issuer``: the issuer this key is limited to, where the set says so per key (Microsoft Entra does).
    * ``thumbprint``: RFC 7638 with SHA-256.
    * ``signature_octets``: the one length that its signatures have.
    * ``backends``: who is asked to compute a signature before ``cryptography`` is.
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
        """Whether *signature* is this key's signature of *signed* by *algorithm*, one of ``algorithms``.

        RS* and PS*: as long as the modulus (RFC 8017 section 8). PS*: a salt exactly as long as the hash (RFC 7518
        section 3.5). ES*: R and S of the curve's length each and between 1 and n-1 (section 3.4). Whether *algorithm*
        is acceptable to the issuer is not checked here (:func:`~scopeguard.spec.jws.check_header`).

        Raises :class:`~scopeguard.spec.signatures.SignatureNotJudgedError` when a backend fails, and nothing else.
        """
        # OpenSSL takes a PSS signature without its leading zero octets too: one token in 256 had two spellings.
        if algorithm not in self.algorithms or len(signature) != self.signature_octets:
            return False
        verifier = self._verifiers.get(algorithm)
        if verifier is None:
            verifier = self._verifiers[algorithm] = prepared(algorithm, self.public_key, self.backends)
        return verifier(signed, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredKey:
    """A key that was left out.

    ``position`` counts from 0 in the document. ``why`` is one printable line without key material. ``alarming``: the
    key is broken, weak, private or symmetric, so that somebody should look at it; otherwise it merely serves
    another purpose.
    """

    kid: str | None
    position: int
    why: str
    alarming: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The usable keys of a JWK Set in their order, and what was left out. Looking up costs the same for any size."""

    keys: tuple[VerificationKey, ...]
    ignored: tuple[IgnoredKey, ...] = ()
    _index: Mapping[tuple[str | None, str], tuple[VerificationKey, ...]] = field(init=False, repr=False, compare=False)
    _kids: frozenset[str] = field(init=False, repr=False, compare=False)
    _matches_any_kid: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[tuple[str | None, str], tuple[VerificationKey, ...]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                # Under None: every key, for tokens without kid. {...}: a key without kid is entered once.
                for entry in {(key.kid, algorithm), (None, algorithm)}:
                    index[entry] = (*index.get(entry, ()), key)[:MAX_CANDIDATES]
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_kids", frozenset(key.kid for key in self.keys if key.kid is not None))
        object.__setattr__(self, "_matches_any_kid", len(self.keys) == 1 and self.keys[0].kid is None)

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys to try, at most 8, in the order of the set; empty when there is none.

        With *kid*, the keys of exactly that ``kid`` that may verify *algorithm*; there may be several. Without, every
        key that may. A key without ``kid`` answers to no name, with one exception: when it is the only usable key, it
        is tried for any *kid*. A single static key is often written down without one.
        """
        return self._index.get((None if self._matches_any_kid else kid, algorithm), ())

    def names(self, kid: str) -> bool:
        """Whether a usable key has the id *kid*, whatever its algorithms; if not, fetching the set anew may help."""
        return kid in self._kids


def parse_key_set(
    document: bytes | Mapping[str, Any], *, max_keys: int = 100, padded: bool = False, backends: Backends = ()
) -> KeySet:
    """The usable keys of *document*, a JWK Set (RFC 7517 section 5) as it was fetched, for *backends* to verify with.

    A single key is ignored, and listed with its reason, when it

    * is not an object, has a member twice, or lacks or misspells one: base64url is canonical, coordinates have
      exactly their length;
    * is not for signatures: ``use`` other than ``sig``, ``key_ops`` without ``verify`` or with an operation that
      contradicts it, a ``kty``, ``crv`` or ``alg`` that is unknown or does not fit the rest;
    * contains private members, or is symmetric;
    * is weak or absurd: RSA below 2048 or above 8192 bits, an even modulus, an exponent that is even, below 3 or
      above 2**32-1, a modulus of CVE-2017-15361, an EC point off its curve, an Ed25519 point of small order.

    ``x5c`` and ``x5u`` are not sources of trust or of keys and are not read. Size in bytes is the caller's to bound.
    *padded*: the numbers of a key may have base64 padding, which RFC 7518 section 2 forbids.

    Raises :class:`MalformedKeySet` when *document* is not one strict JSON object with an array ``keys``, has more
    than *max_keys* of them, or not a single usable one: it must never take the place of good keys.
    """
    keys, ignored = _sorted_out(document, max_keys, backends, padded=padded)
    return _usable(keys, ignored)


def configured_key_set(
    document: Mapping[str, Any],
    *,
    setting: str = "keys",
    max_keys: int = 100,
    padded: bool = False,
    backends: Backends = (),
) -> KeySet:
    """The usable keys of *document*, a JWK Set that the operator wrote down under *setting*.

    As :func:`parse_key_set`, but whatever is wrong raises :class:`ConfigurationError`, which names the key: one that
    is weak, broken, symmetric or private, as well as a set without a usable key. Keys for other purposes
    are left out here too, so that an authorization server's whole set can be pasted.
    """
    try:
        keys, ignored = _sorted_out(document, max_keys, backends, padded=padded)
        for key in ignored:
            if key.alarming:
                name = f"key {key.position + 1}" if key.kid is None else f"the key with kid {_shown(key.kid)}"
                raise ConfigurationError(f"{setting}: {name}: {key.why}; use the public part of a sound signing key")
        return _usable(keys, ignored)
    except MalformedKeySet as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def _usable(keys: list[VerificationKey], ignored: list[IgnoredKey]) -> KeySet:
    if not keys:
        reasons = "; ".join(tuple(dict.fromkeys(key.why for key in ignored))[:5]) or "it is empty"
        raise MalformedKeySet(f"a JWK Set without a usable key: {reasons}")
    return KeySet(keys=tuple(keys), ignored=tuple(ignored))


def _sorted_out(
    document: bytes | Mapping[str, Any], max_keys: int, backends: Backends, *, padded: bool
) -> tuple[list[VerificationKey], list[IgnoredKey]]:
    jwks = _members(document)
    if len(jwks) > max_keys:
        raise MalformedKeySet(f"a JWK Set of {len(jwks)} keys; at most {max_keys} are read")
    keys: list[VerificationKey] = []
    ignored: list[IgnoredKey] = []
    for position, jwk in enumerate(jwks):
        try:
            keys.append(_verification_key(_unpadded(jwk) if padded else jwk, backends))
        except (_BadKey, _NotForUs) as error:
            named = jwk.get("kid") if isinstance(jwk, Mapping) else None
            kid = named if isinstance(named, str) else None
            alarming = isinstance(error, _BadKey)
            ignored.append(IgnoredKey(kid=kid, position=position, why=str(error), alarming=alarming))
    return keys, ignored


def _members(document: bytes | Mapping[str, Any]) -> list[Any]:
    if isinstance(document, bytes):
        try:
            # A member that occurs twice costs its key, not the set (RFC 7517 sections 4 and 5).
            document = parse_object(document, mark_ambiguous=True)
        except MalformedJSON as error:
            raise MalformedKeySet(f"not a JWK Set: {error}") from None
    jwks = document.get("keys")
    if not isinstance(jwks, list | tuple):
        raise MalformedKeySet("not a JWK Set: an object with an array named keys is needed")
    return list(jwks)


def _verification_key(jwk: object, backends: Backends) -> VerificationKey:
    if not isinstance(jwk, Mapping) or is_ambiguous(jwk):
        raise _BadKey("it is not an object, or has a member twice")
    kty = jwk.get("kty")
    if kty == "oct":
        raise _BadKey("it is symmetric: whoever can verify could forge")
    private = [name for name in _PRIVATE_MEMBERS if name in jwk]
    if private:
        raise _BadKey(f"it holds private members ({', '.join(private)}): replace this key, its secret is out")
    kid, issuer = (_optional_text(jwk, name) for name in ("kid", "issuer"))
    _check_purpose(jwk)
    read = _READERS.get(kty) if isinstance(kty, str) else None
    if read is None:
        raise _NotForUs(f"kty {_shown(kty)} is not RSA, EC or OKP")
    try:
        public_key, algorithms, signature_octets = read(jwk)
    except UnsupportedAlgorithm:
        raise _NotForUs("the installed OpenSSL cannot use this kind of key") from None
    except ValueError:  # an EC point off its curve above all (RFC 8725 section 3.4)
        raise _BadKey("its numbers are not a key of its kind") from None
    return VerificationKey(
        kid=kid,
        algorithms=_pinned(jwk, algorithms),
        issuer=issuer,
        thumbprint=thumbprint(jwk),
        signature_octets=signature_octets,
        public_key=public_key,
        backends=backends,
    )


def _unpadded(jwk: object) -> object:
    """*jwk* with its numbers without padding, for its thumbprint as well."""
    if not isinstance(jwk, Mapping) or is_ambiguous(jwk):
        return jwk
    return {k: unpadded(v) if k in ("n", "e", "x", "y") and isinstance(v, str) else v for k, v in jwk.items()}


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    """RFC 7517 sections 4.2 and 4.3. Both members are optional; each one present has the right of veto."""
    if jwk.get("use", "sig") != "sig":
        raise _NotForUs(f"use is {_shown(jwk['use'])}")
    if "key_ops" not in jwk:
        return
    operations = jwk["key_ops"]
    if not isinstance(operations, list | tuple) or not all(isinstance(operation, str) for operation in operations):
        raise _BadKey("key_ops is not an array of strings")
    if "verify" not in operations:
        raise _NotForUs("key_ops lacks verify")
    if not _NOT_SIGNING.isdisjoint(operations):
        raise _NotForUs("key_ops combines verify with encryption")


def _pinned(jwk: Mapping[str, Any], fitting: frozenset[str]) -> frozenset[str]:
    """One key, one algorithm, when its ``alg`` says so (RFC 7517 section 4.4)."""
    if "alg" not in jwk:
        return fitting
    alg = jwk["alg"]
    if not isinstance(alg, str) or alg not in fitting:
        raise _NotForUs(f"alg {_shown(alg)} is not a signature of this kind of key that is supported")
    # For an Ed25519 key both names denote one algorithm, and servers sign under either name with one key. Which of
    # the names a token may use is for the issuer's allow-list to say, where they are distinct (RFC 9864).
    return _BOTH_NAMES if alg in _BOTH_NAMES else frozenset((alg,))


def _optional_text(jwk: Mapping[str, Any], name: str) -> str | None:
    if name not in jwk:
        return None
    text = jwk[name]
    if not isinstance(text, str):
        raise _BadKey(f"{name} is not a string")
    return text


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise _BadKey(f"{name} is missing or not a string")
    try:
        return decode_base64url(text)
    except ValueError as error:
        hint = "; key_set.padded = true accepts padding" if text.endswith("=") else ""
        raise _BadKey(f"{name} is {error}{hint}") from None


def _read_rsa(jwk: Mapping[str, Any]) -> _Read:
    # Leading zero octets are let pass, though RFC 7518 section 6.3.1.1 forbids them: it also says who writes them.
    modulus, exponent = (int.from_bytes(_octets(jwk, name), "big") for name in ("n", "e"))
    bits = modulus.bit_length()
    if not _MIN_RSA_BITS <= bits <= _MAX_RSA_BITS:
        raise _BadKey(f"an RSA key of {bits} bits; {_MIN_RSA_BITS} to {_MAX_RSA_BITS} are accepted")
    if modulus % 2 == 0:
        raise _BadKey("its modulus is even")
    if exponent % 2 == 0 or not 3 <= exponent <= _MAX_RSA_EXPONENT:
        raise _BadKey("its exponent is even, below 3 or above 2**32-1")
    if all(modulus % prime in powers for prime, powers in _POWERS_OF_65537):
        raise _BadKey("its private key can be computed (CVE-2017-15361)")
    return RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS, (bits + 7) // 8


def _read_ec(jwk: Mapping[str, Any]) -> _Read:
    crv = jwk.get("crv")
    known = _CURVES.get(crv) if isinstance(crv, str) else None
    if known is None:
        raise _NotForUs(f"crv {_shown(crv)} is not one of {', '.join(_CURVES)}")
    curve, length, algorithm = known
    x, y = (_octets(jwk, name) for name in ("x", "y"))
    if not len(x) == len(y) == length:  # RFC 7518 section 6.2.1.2: full size, leading zeros included
        raise _BadKey(f"its coordinates are not {length} octets each")
    numbers = EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
    return numbers.public_key(), frozenset((algorithm,)), 2 * length


def _read_okp(jwk: Mapping[str, Any]) -> _Read:
    if jwk.get("crv") != "Ed25519":
        raise _NotForUs(f"crv {_shown(jwk.get('crv'))} is not Ed25519")
    x = _octets(jwk, "x")
    if len(x) != 32:
        raise _BadKey("x is not 32 octets")
    if (int.from_bytes(x, "little") & (2**255 - 1)) % _ED25519_PRIME in _SMALL_ORDER:
        raise _BadKey("its point has a small order: anyone could sign for it")
    return Ed25519PublicKey.from_public_bytes(x), _BOTH_NAMES, 64


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], _Read]]] = {
    "RSA": _read_rsa,
    "EC": _read_ec,
    "OKP": _read_okp,
}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """The SHA-256 thumbprint of *jwk*, an RSA, EC or OKP key: RFC 7638 section 3, RFC 8037 section 2.

    The members are taken as they are written; that they describe a key is not checked. Raises :class:`ValueError` for
    another ``kty`` and for a member that is missing or not a string.
    """
    kty = jwk.get("kty")
    names = _THUMBPRINT_MEMBERS.get(kty) if isinstance(kty, str) else None
    if names is None:
        raise ValueError("kty is not RSA, EC or OKP")
    members = {name: jwk.get(name) for name in names}
    if not all(isinstance(value, str) for value in members.values()):
        raise ValueError(f"one of {', '.join(names)} is missing or not a string")
    # The names are in lexicographic order already.
    canonical = json.dumps(members, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode("ascii")


def _shown(value: object) -> str:
    """What a stranger wrote, on one bounded ASCII line."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:60] + "..."
