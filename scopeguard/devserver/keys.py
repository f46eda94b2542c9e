"""The signing keys of the development authorization server.

Keys are in memory only, and new at every start, unless a path for a key file is given. ``cryptography`` generates the
keys, and PyJWT signs with them and converts them to JWKs, except for ML-DSA.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWK
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from scopeguard.config import checks
from scopeguard.config.checks import methods, number, text
from scopeguard.config.ml_dsa import ML_DSA, check_available
from scopeguard.devserver.lifetimes import KEY_OVERLAP
from scopeguard.edge.files import read_text
from scopeguard.errors import ConfigurationError
from scopeguard.spec.jwks import MIN_RSA_BITS
from scopeguard.spec.ml_dsa import MLDSAAlgorithm


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=MIN_RSA_BITS)


_GENERATORS: Final[Mapping[str, Callable[[], Any]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), _rsa),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ES256K": lambda: ec.generate_private_key(ec.SECP256K1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    **{name: MLDSAAlgorithm(name).generate for name in ML_DSA},
}
# RFC 9864 names EdDSA over Curve25519 "Ed25519". PyJWT has it under the older name; the signatures are the same.
_ALGORITHMS: Final[Mapping[str, Any]] = {
    name: MLDSAAlgorithm(name) if name in ML_DSA else get_default_algorithms()["EdDSA" if name == "Ed25519" else name]
    for name in _GENERATORS
}
_JWK_MEMBERS: Final = ("kty", "crv", "x", "y", "n", "e", "pub")


def _check_algorithm(algorithm: str) -> None:
    text(algorithm, "algorithm")
    if algorithm not in _GENERATORS:
        raise ConfigurationError(f"algorithm: must be one of {', '.join(_GENERATORS)}, not {algorithm!r}")
    check_available((algorithm,), "algorithm")


def base64url(data: bytes) -> str:
    """Return *data* in base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key with its key id and the only algorithm that it is used with."""

    kid: str
    algorithm: str
    private_key: Any = field(repr=False)

    def __post_init__(self) -> None:
        text(self.kid, "kid", empty=False)
        _check_algorithm(self.algorithm)
        methods(self.private_key, ("sign", "public_key"), "private_key")

    @classmethod
    def generate(cls, algorithm: str = "RS256", *, kid: str | None = None) -> Self:
        """Return a new key for *algorithm*, with a random key id unless *kid* is given."""
        _check_algorithm(algorithm)
        if kid is None:
            kid = f"dev-{algorithm.lower()}-{secrets.token_hex(4)}"
        text(kid, "kid", empty=False)
        return cls(kid=kid, algorithm=algorithm, private_key=_GENERATORS[algorithm]())

    @classmethod
    def from_private_jwk(cls, jwk: Mapping[str, Any]) -> Self:
        """Return the key in *jwk*, which must have ``kid`` and ``alg``."""
        algorithm = jwk["alg"]
        if algorithm in ML_DSA:
            check_available((algorithm,), "algorithm")
            return cls(kid=jwk["kid"], algorithm=algorithm, private_key=MLDSAAlgorithm(algorithm).from_jwk(jwk))
        name = "EdDSA" if algorithm == "Ed25519" else algorithm
        return cls(kid=jwk["kid"], algorithm=algorithm, private_key=PyJWK(dict(jwk), algorithm=name).key)

    def sign(self, message: bytes) -> bytes:
        """Return the JWS signature of *message* (RFC 7518 section 3)."""
        signature: bytes = _ALGORITHMS[self.algorithm].sign(message, self.private_key)
        return signature

    def public_jwk(self) -> dict[str, Any]:
        """Return the JWK for a key set, without private members."""
        exported = _ALGORITHMS[self.algorithm].to_jwk(self.private_key.public_key(), as_dict=True)
        members = {name: exported[name] for name in _JWK_MEMBERS if name in exported}
        return {"kid": self.kid, "use": "sig", "alg": self.algorithm, **members}

    def private_jwk(self) -> dict[str, Any]:
        """Return the JWK with its private members, for the key file only."""
        exported: dict[str, Any] = _ALGORITHMS[self.algorithm].to_jwk(self.private_key, as_dict=True)
        exported.pop("key_ops", None)
        return {**exported, "kid": self.kid, "alg": self.algorithm}


def compact(header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, key: SigningKey) -> str:
    """Return a JWS in compact serialization (RFC 7515 section 3.1). A header or payload in bytes is not encoded."""
    parts = (part if isinstance(part, bytes) else json_bytes(part) for part in (header, payload))
    signed = ".".join(base64url(part) for part in parts)
    return f"{signed}.{base64url(key.sign(signed.encode('ascii')))}"


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Return *value* as JSON without white space."""
    return json.dumps(value, separators=(",", ":")).encode("utf-8")


class KeyRing:
    """The keys of one authority: a signing key for each algorithm in use, and retired keys that are still published.

    * ``algorithm``: the default for tokens.
    * ``overlap``: the time for which a retired key stays published, in seconds.
    * ``path``: a file that stores the signing keys, readable by its owner only. Without it, they are lost when the
      process ends. Retired keys are not stored, so a restart ends their overlap.

    Raises :class:`ConfigurationError` for an unknown algorithm, and for a file that is not a private key set or that
    other users can read.
    """

    def __init__(
        self, algorithm: str = "RS256", *, overlap: float = KEY_OVERLAP, path: str | os.PathLike[str] | None = None
    ) -> None:
        _check_algorithm(algorithm)
        if number(overlap, "overlap") < 0:
            raise ConfigurationError("overlap: must not be negative; 0 removes retired keys at once")
        if path is not None:
            checks.path(path, "path", "the path of the key file")
        self.algorithm = algorithm
        self.overlap = overlap
        self._path = path
        self._lock = threading.RLock()
        self._active: dict[str, SigningKey] = {}
        self._retired: list[tuple[SigningKey, float]] = []
        self._others: list[dict[str, Any]] = []
        if path is not None and os.path.exists(path):
            self._active = {key.algorithm: key for key in _read_keys(path)}

    def signing_key(self, algorithm: str | None = None) -> SigningKey:
        """Return the current key for *algorithm*. It is generated, and then published, on first use."""
        name = algorithm or self.algorithm
        with self._lock:
            key = self._active.get(name)
            if key is None:
                key = self._active[name] = SigningKey.generate(name)
                self._save()
            return key

    def rotate(self, now: float, *, overlap: float | None = None) -> SigningKey:
        """Replace the signing keys, and return the new one.

        The old keys stay published for *overlap* seconds; the default is the overlap of the ring. ``overlap=0`` removes
        them at once: their tokens can no longer be verified with a fresh key set.
        """
        until = now + (self.overlap if overlap is None else overlap)
        with self._lock:
            if until > now:
                self._retired = [(key, end) for key, end in self._retired if end > now]
                self._retired += [(key, until) for key in self._active.values()]
            else:
                self._retired = []
            self._active = {}
            return self.signing_key()

    def publish(self, jwk: Mapping[str, Any]) -> None:
        """Publish *jwk* unchanged after the other keys, such as an encryption key, or a hostile key in a test."""
        with self._lock:
            self._others.append(dict(jwk))

    def key_set(self, now: float) -> dict[str, Any]:
        """Return the JWK Set to publish at *now* (RFC 7517 section 5)."""
        with self._lock:
            self.signing_key()
            keys = [*self._active.values(), *(key for key, until in self._retired if until > now)]
            return {"keys": [*(key.public_jwk() for key in keys), *map(dict, self._others)]}

    def reset(self) -> None:
        """Forget retired keys and those of :meth:`publish`."""
        with self._lock:
            self._retired = []
            self._others = []

    def _save(self) -> None:
        if self._path is None:
            return
        data = json.dumps({"keys": [key.private_jwk() for key in self._active.values()]}, indent=1)
        # The file is created with its mode, so that no other user can read the keys at any time.
        temporary = f"{os.fspath(self._path)}.{secrets.token_hex(4)}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(data)
        os.replace(temporary, self._path)


def _read_keys(path: str | os.PathLike[str]) -> list[SigningKey]:
    if os.name == "posix" and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise ConfigurationError("key file: other users can read it; it holds private keys, so set its mode to 600")
    try:
        return [SigningKey.from_private_jwk(jwk) for jwk in json.loads(read_text(path))["keys"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PyJWTError):
        # from None: the cause may quote the file.
        raise ConfigurationError(
            "key file: not a set of private keys with kid and alg; remove it, and new keys are generated"
        ) from None
