"""Keys and signatures of ML-DSA in JOSE: RFC 9964. It has what PyJWT's algorithm classes have for other algorithms.

This module is for private keys. :mod:`scopeguard.spec.jwks` parses and checks public keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from scopeguard.config.ml_dsa import ML_DSA, SEED_OCTETS, load_class
from scopeguard.spec.base64url import encode_base64url
from scopeguard.spec.jws import decode_base64url


class MLDSAAlgorithm:
    """One parameter set: *name* is its algorithm in JOSE, such as ``"ML-DSA-65"``."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        if name not in ML_DSA:
            raise ValueError(f"not one of {', '.join(ML_DSA)}")
        self._name = name

    def generate(self) -> Any:
        """Return a new private key."""
        return load_class(self._name, "PrivateKey").generate()

    def fits(self, key: object) -> bool:
        """Return whether *key* is a private key of this parameter set."""
        return isinstance(key, load_class(self._name, "PrivateKey"))

    def prepare_key(self, pem: str) -> Any:
        """Return the private key in *pem*, PKCS #8 without encryption. Any kind of key is returned: see :meth:`fits`.

        Raises :class:`ValueError` and :class:`TypeError` for a text that is not such a key.
        """
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        return load_pem_private_key(pem.encode(), password=None)

    def from_jwk(self, jwk: Mapping[str, Any]) -> Any:
        """Return the private key in *jwk*. Raises :class:`ValueError` if it is not one of this parameter set.

        Checked: ``kty``, ``alg``, the length of ``priv``, and that ``pub`` is its public key.
        """
        if jwk.get("kty") != "AKP" or jwk.get("alg") != self._name:
            raise ValueError(f"not an AKP key for {self._name}")
        seed = decode_base64url(str(jwk.get("priv")))
        # RFC 9964 section 4: "the priv parameter MUST be the seed, and MUST have a length of 32 bytes."
        if len(seed) != SEED_OCTETS:
            raise ValueError(f"priv is not {SEED_OCTETS} octets")
        key = load_class(self._name, "PrivateKey").from_seed_bytes(seed)
        # Section 7.4: "the consequences of using mismatched parameters can range from operations failing to private key
        # compromise."
        if jwk.get("pub") != encode_base64url(key.public_key().public_bytes_raw()):
            raise ValueError("pub is not the public key of priv")
        return key

    def to_jwk(self, key: Any, *, as_dict: Literal[True] = True) -> dict[str, Any]:
        """Return *key*, a public or private key, as a JWK. PyJWT's classes have the argument *as_dict*, too."""
        del as_dict
        public = key.public_key() if self.fits(key) else key
        jwk = {"kty": "AKP", "alg": self._name, "pub": encode_base64url(public.public_bytes_raw())}
        return {**jwk, "priv": encode_base64url(key.private_bytes_raw())} if self.fits(key) else jwk

    def sign(self, message: bytes, key: Any) -> bytes:
        """Return the signature of *message* with the private key *key*."""
        # RFC 9964 section 5: "The ctx parameter MUST be the empty string", which is the default of cryptography.
        signature: bytes = key.sign(message)
        return signature
