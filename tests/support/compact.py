"""Parse a compact JWS in one step, for tests of signatures and headers that need no claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scopeguard.spec.jws import parse_header, split_compact


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactJWS:
    """The unverified parts of a token."""

    header: Mapping[str, Any]
    payload: bytes
    signed: bytes
    signature: bytes


def parse_compact(token: str, *, padded: bool = False) -> CompactJWS:
    """Return the parts of *token*, as a real token is parsed up to its header."""
    header, payload, signed, signature = split_compact(token, padded=padded)
    return CompactJWS(header=parse_header(header), payload=payload, signed=signed, signature=signature)
