"""Header fields similar to a granted one, which must not be accepted in its place."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from scopeguard.devserver.keys import base64url


def refused_fields(token: str) -> dict[str, bytes]:
    """Return fields that no guard grants, even after it has granted *token*."""
    header, payload, signature = token.split(".")
    misspelt = payload[:-1] + ("B" if payload[-1] == "A" else "A")
    forged = _segment({**_members(payload), "scope": "read write admin"})
    return {
        "nothing": b"",
        "the scheme alone": b"Bearer ",
        "the token without a scheme": token.encode(),
        "the token behind a space": b" " + token.encode(),
        "no space": f"Bearer{token}".encode(),
        "a tab": f"Bearer\t{token}".encode(),
        "another scheme": f"Basic {token}".encode(),
        "another scheme of tokens": f"DPoP {token}".encode(),
        "another payload": f"Bearer {header}.{forged}.{signature}".encode(),
        "another last letter": f"Bearer {header}.{misspelt}.{signature}".encode(),
        "another header": f"Bearer {_segment({**_members(header), 'typ': 'JWT'})}.{payload}.{signature}".encode(),
        "another signature": f"Bearer {header}.{payload}.{signature[::-1]}".encode(),
        "no signature": f"Bearer {header}.{payload}.".encode(),
        "no algorithm": f"Bearer {_segment({'alg': 'none'})}.{payload}.".encode(),
        "the token twice": f"Bearer {token}, Bearer {token}".encode(),
        "the token and more": f"Bearer {token}.x".encode(),
        "padding": f"Bearer {token}=".encode(),
        "more padding": f"Bearer {token}==".encode(),
        "a digest of the token": b"Bearer " + sha256(token.encode()).hexdigest().encode(),
        "a digest of the field": sha256(b"Bearer " + token.encode()).digest(),
    }


def rewritten_fields(token: str) -> dict[str, bytes]:
    """Return other valid spellings of the same credential: the scheme in any case, and one or more spaces."""
    return {
        "lower case": f"bearer {token}".encode(),
        "upper case": f"BEARER {token}".encode(),
        "two spaces": f"Bearer  {token}".encode(),
    }


def _segment(members: Mapping[str, Any]) -> str:
    return base64url(json.dumps(members).encode())


def _members(segment: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=="))
    return members
