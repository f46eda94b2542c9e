"""Sender-constrained access tokens: RFC 7800, RFC 8705, RFC 9449."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken, Reason


def check_sender_constraint(claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Raise :class:`InvalidToken` if *claims* bind the token to a proof of possession (``cnf``).

    Raise it as well if they do not, and *issuer* requires bound tokens (FAPI 2.0 Security Profile section 5.3.4).

    *claims* are those of a JWT, or the members of an introspection response (RFC 8705 section 3.2). No proof is
    supported yet.

    RFC 7800 section 3.1 lets a recipient ignore a confirmation method that it does not support. A stolen token that is
    bound to a key would then be accepted as a bearer token.
    """
    if "cnf" in claims:
        raise InvalidToken(Reason.SENDER_CONSTRAINT_UNPROVEN)
    if issuer.require_sender_constraint:
        raise InvalidToken(Reason.SENDER_CONSTRAINT_MISSING)
