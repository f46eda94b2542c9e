"""Verify signatures with ``cryptography``, or with a faster library that the operator configures.

The algorithms are those of RFC 7518, RFC 8037 and RFC 9964.

A verifier is built once for a key and an algorithm and called for each token. The form and the length of a signature
are checked before the call, by :meth:`~scopeguard.spec.jwks.VerificationKey.verify`.

PyJWT's algorithm classes are not used, because they construct paddings and hashes at each call. Nanoseconds that a call
costs beyond ``public_key.verify``, which both need (CPython 3.11, minimum of 300 runs):

    =====================  =====  =====  =====  =====
    .                      RS256  PS256  ES256  EdDSA
    PyJWT 2.15.1             243   1167   3528    521
    this module               28     28   1142     28
    =====================  =====  =====  =====  =====

The difference is 4 % of a whole PS256 or ES256 verification. For ES256, the conversion of the signature to DER remains.
The tests compare each result with PyJWT's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm


class MLDSAPublicKey(Protocol):
    """A public key of ML-DSA, from ``cryptography`` 48 or newer, which has a class for each parameter set."""

    def verify(self, signature: bytes, data: bytes, /) -> None:
        """Raise ``InvalidSignature`` unless *signature* is the one of *data*, with an empty context."""
        ...


PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | MLDSAPublicKey

Verifier = Callable[[bytes, bytes], bool]
"""Takes the signed octets and a signature in the form and length of RFC 7518 section 3; returns whether it is valid."""


class SignatureBackend(Protocol):
    """A library that verifies signatures, for a :class:`~scopeguard.guard.Guard`.

    The algorithm, the key and the length of the signature are checked before a verifier is called. The verifier must be
    as strict as ``cryptography`` about the rest: R and S of ES* lie between 1 and n-1, the salt of PS* is as long as
    the hash, and the whole padding of RS* is checked.
    """

    @property
    def name(self) -> str:
        """The name of the library, for messages."""
        ...

    def prepare(self, algorithm: str, public_key: PublicKey, /) -> Verifier | None:
        """Return a verifier for *algorithm*, such as ``"RS256"``, with *public_key*, which fits it.

        Return ``None`` if the library does not support this algorithm or this key. The next backend is then tried, and
        ``cryptography`` last. ``prepare`` is called once for a key and an algorithm, at the first token. The verifier
        may be called from any thread.

        If ``prepare`` or the verifier raises, or the verifier returns anything but a bool, the request is answered with
        503 and the failure is logged.
        """
        ...


Backends = tuple[SignatureBackend, ...]


class SignatureBackendError(Exception):
    """A backend failed, so it is unknown whether the signature is valid.

    The message names the backend and the type of its error. It quotes neither the token nor the error's text.
    """


def prepare_verifier(algorithm: str, public_key: PublicKey, backends: Backends = ()) -> Verifier:
    """Return a verifier for *algorithm* with *public_key*, which must fit it.

    The first of *backends* that supports both provides it, otherwise ``cryptography`` does. Raises
    :class:`SignatureBackendError` if a backend fails; so does the verifier that a backend provided.
    """
    for backend in backends:
        try:
            verifier = backend.prepare(algorithm, public_key)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything
            raise SignatureBackendError(f"{backend.name} raised {type(error).__name__}") from None
        if verifier is not None:
            return _wrap_backend(verifier, backend.name)
    return _cryptography_verifier(algorithm, public_key)


def _wrap_backend(verifier: Verifier, name: str) -> Verifier:
    """Wrap *verifier*, which the backend *name* provided, so that its failures raise :class:`SignatureBackendError`."""

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            result: object = verifier(signed, signature)
        except Exception as error:  # noqa: BLE001 - chained, it could quote the token
            raise SignatureBackendError(f"{name} raised {type(error).__name__}") from None
        # A coroutine or NotImplemented is truthy, so only a bool counts.
        if not isinstance(result, bool):
            raise SignatureBackendError(f"{name} returned {type(result).__name__} instead of true or false")
        return result

    return verify


_HASHES: Final[Mapping[str, HashAlgorithm]] = {
    **dict.fromkeys(("RS256", "PS256", "ES256", "ES256K"), SHA256()),
    **dict.fromkeys(("RS384", "PS384", "ES384"), SHA384()),
    **dict.fromkeys(("RS512", "PS512", "ES512"), SHA512()),
}


def _cryptography_verifier(algorithm: str, public_key: PublicKey) -> Verifier:
    match public_key:
        case EllipticCurvePublicKey():
            return _ecdsa_verifier(public_key, _HASHES[algorithm])
        case RSAPublicKey():
            digest = _HASHES[algorithm]
            # RFC 7518 section 3.5: "The size of the salt value is the same size as the hash function output."
            pss = PSS(MGF1(digest), digest.digest_size)
            return _rsa_verifier(public_key, pss if algorithm.startswith("PS") else PKCS1v15(), digest)
        case _:  # Ed25519 and ML-DSA. RFC 9964 section 5: "The ctx parameter MUST be the empty string", the default.
            return _plain_verifier(public_key.verify)


def _plain_verifier(check: Callable[[bytes, bytes], None]) -> Verifier:
    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            check(signature, signed)
        except InvalidSignature:
            return False
        return True

    return verify


def _rsa_verifier(public_key: RSAPublicKey, padding: PSS | PKCS1v15, digest: HashAlgorithm) -> Verifier:
    check = public_key.verify

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            check(signature, signed, padding, digest)
        except InvalidSignature:
            return False
        return True

    return verify


def _ecdsa_verifier(public_key: EllipticCurvePublicKey, digest: HashAlgorithm) -> Verifier:
    check, method = public_key.verify, ECDSA(digest)

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            check(der_signature(signature), signed, method)
        except InvalidSignature:
            return False
        return True

    return verify


def der_signature(signature: bytes) -> bytes:
    """Convert *signature*, the concatenation of R and S (RFC 7518 section 3.4), to the DER that libraries expect."""
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
