"""SPIFFE IDs in JWT-SVIDs: the form of ``sub``, and its trust domain (SPIFFE ID, section 2; JWT-SVID, section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.log_facts import malformed_claim, unexpected_claim

KEY_USE: Final = "jwt-svid"
"""The ``use`` of the keys in a bundle that verify JWT-SVIDs. Others verify certificates."""

_LONGEST: Final = 2048
_ID: Final = r"spiffe://([a-z0-9._\-]{1,255})((?:/[A-Za-z0-9._\-]+)+)"
_PREFIX: Final = "spiffe://"


def key_use(trust_domain: str | None) -> str:
    """Return the ``use`` of the keys that verify tokens of an issuer, which may be a *trust_domain*."""
    return "sig" if trust_domain is None else KEY_USE


def trust_domain_of(claims: Mapping[str, Any]) -> str | None:
    """Return the trust domain in the ``sub`` of unverified *claims*; ``None`` if ``sub`` is not of that form.

    Use it only to select the issuer. The path is not checked.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject.startswith(_PREFIX):
        return None
    return subject[len(_PREFIX) :].partition("/")[0]


def check_id(claims: Mapping[str, Any], trust_domain: str) -> None:
    """Check that ``sub`` is the SPIFFE ID of a workload in *trust_domain*.

    "Path segments MUST NOT be empty, and MUST NOT be relative path modifiers". The id of a trust domain itself, which
    has no path, is not that of a workload. Raises :class:`InvalidToken`.
    """
    subject = claims.get("sub")
    if subject is None:
        raise InvalidToken(Reason.MISSING_CLAIM, claim="sub")
    found = re.fullmatch(_ID, subject) if isinstance(subject, str) and len(subject) <= _LONGEST else None
    if found is None or {".", ".."} & set(found[2].split("/")):
        raise malformed_claim("sub", subject, f"a SPIFFE ID, as in spiffe://{trust_domain}/path")
    if found[1] != trust_domain:
        raise unexpected_claim("sub", claims, (f"{_PREFIX}{trust_domain}/",))
