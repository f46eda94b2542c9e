"""Sender-constrained access tokens: RFC 7800, RFC 8705, RFC 9449."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from scopeguard.config.dpop import DPoPMode
from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken, Reason

# RFC 7638 with SHA-256, in base64url: 32 octets are 43 characters, and the last one has two unused bits.
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def check_confirmation(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Raise :class:`InvalidToken` if *claims* bind the token (``cnf``) in a way that is not enforced for *issuer*.

    Raise it as well if they do not bind it, and *issuer* requires bound tokens (FAPI 2.0 Security Profile section
    5.3.4).

    *claims* are those of a JWT, or the members of an introspection response (RFC 9449 section 6.2). Enforced is
    ``jkt``, the thumbprint of a DPoP key, where the policy checks proofs. NOT checked: the proof itself, see
    :mod:`scopeguard.flow.possession`.

    RFC 7800 section 3.1 lets a recipient ignore a confirmation method that it does not support. A stolen token that is
    bound to a key would then be accepted as a bearer token, so every other method is refused.
    """
    if "cnf" not in claims:
        if issuer.require_sender_constraint:
            raise InvalidToken(Reason.SENDER_CONSTRAINT_MISSING)
        return
    confirmation = claims["cnf"]
    if (
        not accepts_proofs(issuer)
        or not isinstance(confirmation, Mapping)
        or confirmation.keys() != {"jkt"}
        or thumbprint_of(claims) is None
    ):
        raise InvalidToken(Reason.SENDER_CONSTRAINT_UNPROVEN)


def accepts_proofs(issuer: Issuer) -> bool:
    """Return whether proofs are checked for the tokens of *issuer*."""
    return issuer.dpop is not None and issuer.dpop is not DPoPMode.OFF


def thumbprint_of(claims: Mapping[str, Any]) -> str | None:
    """Return ``jkt``, the thumbprint of the key to which *claims* bind the token, or ``None``."""
    confirmation = claims.get("cnf")
    value = confirmation.get("jkt") if isinstance(confirmation, Mapping) else None
    return value if isinstance(value, str) and _THUMBPRINT.fullmatch(value) else None
