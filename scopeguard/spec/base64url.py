"""Encode base64url without padding: RFC 7515 section 2. :mod:`scopeguard.spec.jws` decodes it."""

from __future__ import annotations

from base64 import urlsafe_b64encode


def encode_base64url(data: bytes) -> str:
    """Return *data* in base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
