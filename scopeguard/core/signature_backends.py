"""Faster libraries that verify signatures (extra ``fast``). :class:`~scopeguard.guard.Guard` takes them by name.

One verification of 640 signed bytes (CPython 3.11, Linux x86-64, minimum of 60 interleaved turns of CPU time, in
microseconds; awscrt 0.38.1 with AWS-LC, PyNaCl 1.6.2 with libsodium, cryptography 50.0.2 with OpenSSL 4.0.3):

    ============  ============  ======  ======  ============
    .             cryptography  awscrt  pynacl  pycryptodome
    RS256                 24.4    19.4                 119.9
    PS256                 27.3    19.9
    ES256                 80.5    65.0                 333.5
    ES384                386.1   211.2
    EdDSA                114.0            57.1         346.7
    ============  ============  ======  ======  ============

A cell without a number: the library lacks the algorithm, or verifies only whole tokens (as oxyjwt does, which also uses
AWS-LC). Every vector and property test of signatures runs with each backend. ``python -m benchmarks.signatures``
repeats the measurement.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import sha256, sha384
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from scopeguard.config.checks import items
from scopeguard.errors import ConfigurationError
from scopeguard.extras import install_command
from scopeguard.spec.signatures import Backends, PublicKey, SignatureBackend, Verifier, der_signature

_MOST_RSA_BITS: Final = 4096  # of awscrt


class Awscrt:
    """AWS-LC through ``awscrt``: RS256 and PS256 with keys of up to 4096 bits, ES256, ES384.

    It is used on Linux only. On other systems awscrt uses the libraries of the system, which the vectors do not test.
    There, :meth:`prepare` returns ``None``, so that one configuration file works on every system.
    """

    name = "awscrt"

    def __init__(self) -> None:
        import awscrt.crypto  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        self._crypto = awscrt.crypto
        self._der, self._formats = Encoding.DER, PublicFormat

    def prepare(self, algorithm: str, public_key: PublicKey, /) -> Verifier | None:
        """See :meth:`SignatureBackend.prepare`."""
        if sys.platform != "linux":
            return None
        match algorithm, public_key:
            case "RS256" | "PS256", RSAPublicKey(key_size=bits) if bits <= _MOST_RSA_BITS:
                return self._rsa(algorithm, public_key)
            case "ES256", EllipticCurvePublicKey():
                return self._ecdsa(public_key, sha256)
            case "ES384", EllipticCurvePublicKey():
                return self._ecdsa(public_key, sha384)
        return None

    def _rsa(self, algorithm: str, public_key: RSAPublicKey) -> Verifier:
        pkcs1 = public_key.public_bytes(self._der, self._formats.PKCS1)
        key = self._crypto.RSA.new_public_key_from_der_data(pkcs1)
        kinds = self._crypto.RSASignatureAlgorithm
        kind = kinds.PSS_SHA256 if algorithm == "PS256" else kinds.PKCS1_5_SHA256

        def verify(signed: bytes, signature: bytes) -> bool:
            verdict: bool = key.verify(kind, sha256(signed).digest(), signature)
            return verdict

        return verify

    def _ecdsa(self, public_key: EllipticCurvePublicKey, digest: Callable[[bytes], Any]) -> Verifier:
        spki = public_key.public_bytes(self._der, self._formats.SubjectPublicKeyInfo)
        key = self._crypto.EC.new_key_from_der_data(spki)

        def verify(signed: bytes, signature: bytes) -> bool:
            verdict: bool = key.verify(digest(signed).digest(), der_signature(signature))
            return verdict

        return verify


class PyNaCl:
    """libsodium through ``pynacl``: Ed25519.

    Like ``cryptography``, it checks the equation without the cofactor (RFC 8032 section 5.1.7). It also refuses an R of
    small order, which only a nonce of zero produces.
    """

    name = "pynacl"

    def __init__(self) -> None:
        from nacl.bindings import crypto_sign_open  # noqa: PLC0415 - an extra
        from nacl.exceptions import BadSignatureError  # noqa: PLC0415

        self._open, self._bad = crypto_sign_open, BadSignatureError

    def prepare(self, algorithm: str, public_key: PublicKey, /) -> Verifier | None:
        """See :meth:`SignatureBackend.prepare`."""
        del algorithm
        if not isinstance(public_key, Ed25519PublicKey):
            return None
        x, opened, bad = public_key.public_bytes_raw(), self._open, self._bad

        def verify(signed: bytes, signature: bytes) -> bool:
            try:
                opened(signature + signed, x)
            except bad:
                return False
            return True

        return verify


_KNOWN: Final[Mapping[str, Callable[[], SignatureBackend]]] = {"awscrt": Awscrt, "pynacl": PyNaCl}


def load_backends(chosen: Iterable[SignatureBackend | str], *, fast: bool = False) -> Backends:
    """Return *chosen* with the names ``awscrt`` and ``pynacl`` replaced by their backends.

    *fast*: add both at the end, unless *chosen* has them. Raises :class:`ConfigurationError` for an unknown name, a
    library that is not installed, and an object that is not a
    :class:`~scopeguard.spec.signatures.SignatureBackend`.
    """
    backends = items(chosen, "signature_backends", 'a list, as in ["awscrt"]')
    found = tuple(_load_backend(one) if isinstance(one, str) else _check_backend(one) for one in backends)
    if not fast:
        return found
    try:
        every = [_load_backend(name) for name in _KNOWN]
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("signature_backends", "fast", 1)) from None
    return found + tuple(backend for backend in every if backend not in found)


@cache  # a guard that takes over the state of another compares their backends
def _load_backend(name: str) -> SignatureBackend:
    known = _KNOWN.get(name)
    if known is None:
        raise ConfigurationError(f"signature_backends: must be one of {', '.join(_KNOWN)}, not {name!r}")
    try:
        return known()
    except ImportError:
        raise ConfigurationError(f"signature_backends: {name} is not installed; {install_command('fast')}") from None


def _check_backend(backend: SignatureBackend) -> SignatureBackend:
    is_one = isinstance(getattr(backend, "name", None), str) and callable(getattr(backend, "prepare", None))
    if is_one and not isinstance(backend, type):
        return backend
    kind = type(backend).__name__
    raise ConfigurationError(f"signature_backends: an object with name and prepare is needed, not {kind}")
