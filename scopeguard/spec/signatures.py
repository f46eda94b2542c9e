"""Who computes whether a signature is right: ``cryptography``, or a library that the operator chose for its speed.

A verifier is made once for a key and an algorithm, and called for each token. Forms and lengths are settled before it
is asked (:meth:`~scopeguard.spec.jwks.VerificationKey.verify`), whoever computes.

Why not PyJWT's algorithm classes, as before: they make paddings and hashes anew at each call. What one call costs
beyond ``public_key.verify``, which does the work in either case (CPython 3.11, minimum of 300 turns, nanoseconds):

    =====================  =====  =====  =====  =====
    .                      RS256  PS256  ES256  EdDSA
    PyJWT 2.15.1             243   1167   3528    521
    here                      28     28   1142     28
    =====================  =====  =====  =====  =====

That is 4 % of a whole PS256 or ES256 verification. What is left for ES256 is the change of the signature's form, by
``cryptography`` too. The tests hold every verdict against PyJWT's.
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

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

Verifier = Callable[[bytes, bytes], bool]
"""Called with what was signed and the signature, in the form of RFC 7518 section 3 and of the right length."""


class SignatureBackend(Protocol):
    """A library that computes signatures; give it to a :class:`~scopeguard.guard.Guard`.

    It decides nothing but whether a signature is right: which algorithms and keys are acceptable, and how long a
    signature is, is settled before it is asked. What it does decide, it has to decide as strictly as ``cryptography``:
    R and S of ES* between 1 and n-1, the salt of PS* as long as the hash, the whole padding of RS*.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def prepare(self, algorithm: str, public_key: PublicKey, /) -> Verifier | None:
        """The verifier of *algorithm*, a name of RFC 7518 section 3.1, under *public_key*, which fits it.

        ``None``: not this algorithm, or not this key; then the next backend is asked, and ``cryptography`` at last. It
        is called once for a key and an algorithm, at the first token; the verifier is called from any thread.

        An exception of either, and a verdict that is neither true nor false, is no verdict: the request is answered
        503, and what failed is logged.
        """
        ...


Backends = tuple[SignatureBackend, ...]


class SignatureNotJudgedError(Exception):
    """A backend failed, so nobody knows whether the signature is right. The text names it and quotes nothing."""


def prepared(algorithm: str, public_key: PublicKey, backends: Backends = ()) -> Verifier:
    """The verifier of *algorithm* under *public_key*, which fits it: of the first of *backends* that has one, else by
    ``cryptography``.

    Raises :class:`SignatureNotJudgedError` when a backend fails, and so does the verifier that it made.
    """
    for backend in backends:
        try:
            verifier = backend.prepare(algorithm, public_key)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was judged
            raise SignatureNotJudgedError(f"{backend.name} raised {type(error).__name__}") from None
        if verifier is not None:
            return _watched(verifier, backend.name)
    return _by_cryptography(algorithm, public_key)


def _watched(verifier: Verifier, name: str) -> Verifier:
    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            verdict: object = verifier(signed, signature)
        except Exception as error:  # noqa: BLE001 - and from None: it may quote the token
            raise SignatureNotJudgedError(f"{name} raised {type(error).__name__}") from None
        # A coroutine, say, or NotImplemented, is true for Python and no verdict.
        if not isinstance(verdict, bool):
            raise SignatureNotJudgedError(f"{name} returned {type(verdict).__name__} instead of true or false")
        return verdict

    return verify


_HASHES: Final[Mapping[str, HashAlgorithm]] = {
    **dict.fromkeys(("RS256", "PS256", "ES256", "ES256K"), SHA256()),
    **dict.fromkeys(("RS384", "PS384", "ES384"), SHA384()),
    **dict.fromkeys(("RS512", "PS512", "ES512"), SHA512()),
}


def _by_cryptography(algorithm: str, public_key: PublicKey) -> Verifier:
    match public_key:
        case Ed25519PublicKey():
            return _eddsa(public_key)
        case EllipticCurvePublicKey():
            return _ecdsa(public_key, _HASHES[algorithm])
        case _:
            digest = _HASHES[algorithm]
            # A salt exactly as long as the hash (RFC 7518 section 3.5).
            pss = PSS(MGF1(digest), digest.digest_size)
            return _rsa(public_key, pss if algorithm.startswith("PS") else PKCS1v15(), digest)


def _rsa(public_key: RSAPublicKey, padding: PKCS1v15 | PSS, digest: HashAlgorithm) -> Verifier:
    check = public_key.verify

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            check(signature, signed, padding, digest)
        except InvalidSignature:
            return False
        return True

    return verify


def _ecdsa(public_key: EllipticCurvePublicKey, digest: HashAlgorithm) -> Verifier:
    check, method = public_key.verify, ECDSA(digest)

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            check(der_signature(signature), signed, method)
        except InvalidSignature:
            return False
        return True

    return verify


def _eddsa(public_key: Ed25519PublicKey) -> Verifier:
    check = public_key.verify

    def verify(signed: bytes, signature: bytes) -> bool:
        try:
            check(signature, signed)
        except InvalidSignature:
            return False
        return True

    return verify


def der_signature(signature: bytes) -> bytes:
    """*signature*, R and S of equal length side by side (RFC 7518 section 3.4), as the DER that libraries read."""
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
