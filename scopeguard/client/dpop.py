"""The key of a client for DPoP (RFC 9449)."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from scopeguard.config.checks import instance, path, text
from scopeguard.config.ml_dsa import ML_DSA, check_available
from scopeguard.edge.files import read_text
from scopeguard.errors import ConfigurationError
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.spec.dpop_client import make_proof
from scopeguard.spec.jwks import MIN_RSA_BITS, parse_proof_key
from scopeguard.spec.ml_dsa import MLDSAAlgorithm

_GENERATORS: Final[Mapping[str, Callable[[], Any]]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "PS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=MIN_RSA_BITS),
    **{name: MLDSAAlgorithm(name).generate for name in ML_DSA},
}


class DPoPKey:
    """A private key that signs DPoP proofs: ``ClientCredentials(..., dpop=DPoPKey())``.

    * *pem*: the private key as PEM text. *file*: the path of a file with it, which is read once. With neither, a key is
      generated, and lives as long as the object.
    * *algorithm*: ``"ES256"``, ``"EdDSA"`` or ``"PS256"``; with ``cryptography`` 48 also ``"ML-DSA-44"``,
      ``"ML-DSA-65"`` or ``"ML-DSA-87"``. It must fit the key.

    One key can serve several auth objects. ``repr`` shows the thumbprint only, and the object cannot be pickled.

    Raises :class:`~scopeguard.errors.ConfigurationError` for an unreadable file, and for a key that is not private, is
    encrypted, is weak (RSA below 2048 bits) or does not fit *algorithm*.
    """

    __slots__ = ("_jwk", "_key", "_thumbprint")

    def __init__(
        self, *, pem: str | None = None, file: str | os.PathLike[str] | None = None, algorithm: str = "ES256"
    ) -> None:
        _check_algorithm(algorithm)
        if pem is not None and file is not None:
            raise ConfigurationError("dpop: pem and file: set one of them")
        if file is not None:
            pem = _read(file)
        elif pem is not None:
            text(pem, "dpop: pem", empty=False)
        else:
            pem = generate_pem(algorithm)
        self._key = AssertionKey(
            material=pem, algorithm=algorithm, setting="dpop: pem" if file is None else "dpop: file"
        )
        self._jwk = self._key.public_jwk()
        try:
            self._thumbprint = parse_proof_key(self._jwk).thumbprint
        except ValueError as error:
            raise ConfigurationError(f"dpop: the key cannot be used: {error}") from None

    @property
    def algorithm(self) -> str:
        """The signature algorithm."""
        return self._key.algorithm

    @property
    def thumbprint(self) -> str:
        """The thumbprint of the public key (RFC 7638), which a bound token has as ``cnf.jkt``."""
        return self._thumbprint

    def proof(
        self, method: str, uri: str, *, token: str | None = None, nonce: str | None = None, now: float | None = None
    ) -> str:
        """Return a new proof for one request with *method* to *uri*, as the value of the field ``DPoP``.

        The auth classes call this method themselves. Other code needs it for requests without httpx. *token* is the
        access token of the request, ``None`` at the token endpoint. *nonce* is the latest ``DPoP-Nonce`` of the server,
        if it sent one. *now* is in seconds since the epoch, by default the time of the system.
        """
        return make_proof(
            self._key,
            self._jwk,
            method=method,
            uri=uri,
            now=time.time() if now is None else now,
            identifier=secrets.token_urlsafe(16),
            token=token,
            nonce=nonce,
        )

    def __repr__(self) -> str:
        return f"DPoPKey(algorithm={self.algorithm!r}, thumbprint={self.thumbprint!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a DPoPKey cannot be pickled or copied, because it holds a private key")


def check_key(key: object) -> None:
    """Raise :class:`ConfigurationError` if *key* is not a :class:`DPoPKey`."""
    instance(key, DPoPKey, "dpop", "a DPoPKey")


def generate_pem(algorithm: str) -> str:
    """Return a new private key for *algorithm* as PEM text.

    Raises :class:`ConfigurationError` if it is not supported.
    """
    _check_algorithm(algorithm)
    encoded: bytes = _GENERATORS[algorithm]().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode("ascii")


def _check_algorithm(algorithm: str) -> None:
    text(algorithm, "dpop: algorithm", empty=False)
    if algorithm not in _GENERATORS:
        raise ConfigurationError(f"dpop: algorithm: {algorithm!r} is not one of {', '.join(sorted(_GENERATORS))}")
    check_available((algorithm,), "dpop: algorithm")


def _read(file: str | os.PathLike[str]) -> str:
    file = path(file, "dpop: file")
    try:
        return read_text(file, "ascii")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"dpop: file: {file!r} is not a readable PEM file: {getattr(error, 'strerror', None) or 'not ASCII'}"
        ) from None
