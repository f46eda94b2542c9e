"""Nonces that a server seals: they carry their time, and every process with the same secret recognises them.

RFC 9449 §8 and §9. One secret can serve several purposes: a nonce of one purpose is not valid for another.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from scopeguard.spec.base64url import encode_base64url
from scopeguard.spec.jws import decode_base64url

DPOP: Final = "dpop"
"""The purpose of the nonces in DPoP proofs for a resource server."""

_RANDOM_BYTES: Final = 12
_TIME: Final = struct.Struct(">d")
_SEALED_BYTES: Final = _RANDOM_BYTES + _TIME.size + 16
_LENGTH: Final = -(-_SEALED_BYTES * 4 // 3)


class NonceSealer:
    """Issues and recognises nonces for one *purpose*.

    * *secrets*: the first one seals, all are accepted, so that a secret can be replaced.
    * *lifetime*: for how many seconds a nonce is accepted.
    * *random*: returns the given number of unpredictable bytes.

    A nonce is ChaCha20-Poly1305 of the time of its issue, with a key derived from the secret for the purpose
    (RFC 8439, RFC 5869). A client can neither read nor make one.
    """

    __slots__ = ("_ciphers", "_lifetime", "_random")

    def __init__(self, secrets: Iterable[str], purpose: str, lifetime: float, random: Callable[[int], bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415 - few guards have nonces

        self._ciphers = tuple(
            ChaCha20Poly1305(
                HKDF(algorithm=SHA256(), length=32, salt=None, info=f"scopeguard nonce {purpose}".encode()).derive(
                    secret.encode()
                )
            )
            for secret in secrets
        )
        self._lifetime = lifetime
        self._random = random

    def issue(self, now: float) -> str:
        """Return a new nonce; *now* is in seconds since the epoch.

        RFC 9449 §8.1 requires ``nonce = 1*NQCHAR``, which the characters of base64url are.
        """
        random = self._random(_RANDOM_BYTES)
        sealed = self._ciphers[0].encrypt(random, _TIME.pack(now), None)
        return encode_base64url(random + sealed)

    def issued_at(self, nonce: object, now: float) -> float | None:
        """Return when *nonce* was issued, or ``None`` if it is not a nonce of this server or has expired.

        RFC 9449 §8: the nonce must "exactly match" one that was "recently supplied".
        """
        if not isinstance(nonce, str) or len(nonce) != _LENGTH:
            return None
        try:
            octets = decode_base64url(nonce)
        except ValueError:
            return None
        for cipher in self._ciphers:
            try:
                (at,) = _TIME.unpack(cipher.decrypt(octets[:_RANDOM_BYTES], octets[_RANDOM_BYTES:], None))
            except InvalidTag:
                continue
            # A nonce from the future comes from a process whose clock is ahead.
            return at if abs(now - at) <= self._lifetime else None
        return None

    def is_due(self, issued_at: float, now: float) -> bool:
        """Return whether a response should carry a new nonce, because half of the lifetime of the old one has passed.

        RFC 9449 §8.2: the server "can supply new nonces [...] to be used in subsequent requests".
        """
        return now - issued_at >= self._lifetime / 2
