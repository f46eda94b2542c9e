"""What logs show of tokens and of values from requests: the fingerprint of a token, and escaped, bounded text."""

from __future__ import annotations

import hashlib
from typing import Final

FINGERPRINT_OCTETS: Final = 6
"""Octets of the SHA-256 of a token that logs may show, as twelve hexadecimal digits."""


def fingerprint(token: str) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of *token*. Logs may contain nothing else of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()[:FINGERPRINT_OCTETS].hex()


def printable(value: object, limit: int = 200) -> str:
    """Return *value* as one line of printable ASCII, cut after *limit* characters.

    Values from tokens may contain control characters, which could forge log lines.
    """
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return text if len(text) <= limit else text[:limit] + "..."
