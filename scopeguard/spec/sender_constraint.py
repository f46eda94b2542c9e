"""Sender-constrained access tokens: RFC 7800, RFC 8705, RFC 9449."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason

# RFC 7638 with SHA-256, in base64url: 32 octets are 43 characters, and the last one has two unused bits.
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def check_confirmation(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Raise :class:`InvalidToken` if *claims* bind the token (``cnf``) in a way that is not enforced for *issuer*.

    Also raise it if *claims* do not bind the token and *issuer* requires bound tokens (FAPI 2.0 Security Profile
    section 5.3.4).

    *claims* are those of a JWT, or the members of an introspection response (RFC 9449 section 6.2). If *issuer* says
    so, ``jkt`` (the thumbprint of a DPoP key) and ``x5t#S256`` (that of a certificate, RFC 8705 section 3.1) are
    enforced. NOT checked here: the proof itself, see :mod:`scopeguard.flow.possession`.

    RFC 7800 section 3.1 lets a recipient ignore a confirmation method that it does not support. A stolen token that is
    bound to a key would then be accepted as a bearer token, so every other method is refused.
    """
    if "cnf" not in claims:
        if issuer.require_sender_constraint:
            raise InvalidToken(Reason.SENDER_CONSTRAINT_MISSING, cnf="absent", setting="require_sender_constraint")
        return
    confirmation = claims["cnf"]
    enforced = {name for name, checks in (("jkt", accepts_proofs(issuer)), ("x5t#S256", issuer.mutual_tls)) if checks}
    if (
        not isinstance(confirmation, Mapping)
        or not confirmation
        or not confirmation.keys() <= enforced
        or not all(map(_is_thumbprint, confirmation.values()))
    ):
        found = " ".join(map(str, confirmation)) if isinstance(confirmation, Mapping) else "not an object"
        checked = " ".join(sorted(enforced)) or "none"
        raise InvalidToken(Reason.SENDER_CONSTRAINT_UNPROVEN, cnf=found, checked=checked)


def accepts_proofs(issuer: Issuer) -> bool:
    """Return whether proofs are checked for the tokens of *issuer*."""
    return issuer.dpop is not None and issuer.dpop is not DPoPMode.OFF


def thumbprint_of(claims: Mapping[str, Any]) -> str | None:
    """Return ``jkt``, the thumbprint of the key to which *claims* bind the token, or ``None``."""
    return _member(claims, "jkt")


def certificate_of(claims: Mapping[str, Any]) -> str | None:
    """Return ``x5t#S256``, the thumbprint of the certificate to which *claims* bind the token, or ``None``."""
    return _member(claims, "x5t#S256")


def _member(claims: Mapping[str, Any], name: str) -> str | None:
    confirmation = claims.get("cnf")
    value = confirmation.get(name) if isinstance(confirmation, Mapping) else None
    return value if _is_thumbprint(value) else None


def _is_thumbprint(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _THUMBPRINT.fullmatch(value) is not None
