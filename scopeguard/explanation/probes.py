"""Calls the functions with which the engine checks a token, one by one, so that all faults show at once.

Each function of ``PROBES`` calls a function of :mod:`scopeguard.spec` and returns, or raises its error. A function that
checks several things gets a part of the token for each of them: of the dates, for example, ``exp`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec import jwt
from scopeguard.spec.audience import check_audience
from scopeguard.spec.jws import check_header
from scopeguard.spec.scope_claims import granted_scopes
from scopeguard.spec.sender_constraint import check_confirmation
from scopeguard.spec.times import check_times
from scopeguard.spec.token_kind import check_is_access_token
from scopeguard.tokens import Unverified

DATES: Final = ("exp", "nbf", "iat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The content of one token, the policy of its issuer, and the time in seconds since the epoch.

    *introspected*: the content is an introspection answer, and ``audience_required`` says whether it must have ``aud``.
    """

    token: Unverified
    issuer: Issuer
    now: float
    introspected: bool = False
    audience_required: bool = True

    @property
    def header(self) -> Mapping[str, Any]:
        """The header parameters, not verified."""
        return self.token.header

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims, not verified."""
        return self.token.claims

    def of(self, *names: str) -> dict[str, Any]:
        """Return those of the claims *names* that are present."""
        return {name: self.claims[name] for name in names if name in self.claims}

    @property
    def is_rfc9068(self) -> bool:
        """Whether the rules of RFC 9068 apply to the token."""
        try:
            return not self.introspected and jwt.check_type(self.header, self.issuer)
        except InvalidToken:
            return False


def _algorithm(content: Content) -> None:
    check_header({"alg": content.header.get("alg")}, algorithms=content.issuer.algorithms)


def _header(content: Content) -> None:
    algorithms = tuple(content.issuer.algorithms)
    check_header({**content.header, "alg": algorithms[0]}, algorithms=algorithms)


def _issuer_claim(content: Content) -> None:
    if not content.introspected or "iss" in content.claims:
        jwt.check_issuer(content.claims, content.issuer)


def _audience(content: Content) -> None:
    if not content.introspected or content.audience_required or "aud" in content.claims:
        check_audience(content.token, content.issuer)


def _times(content: Content, *names: str, now: float | None = None, required: bool = False, **policy: Any) -> None:
    """Check the dates *names* alone, by the policy of the issuer with the changes in *policy*."""
    issuer = replace(content.issuer, **policy) if policy else content.issuer
    at = content.now if now is None else now
    check_times(content.of(*names), issuer, at, expiry_required=required)


def _dates(content: Content) -> None:
    for name in DATES:
        try:
            _times(content, name, max_lifetime=None, past_claims=())
        except InvalidToken as error:
            if error.reason is Reason.MALFORMED_CLAIM:
                raise


def _lifetime(content: Content) -> None:
    issued: Any = content.claims.get("iat")
    # At the time of issue, no other check of these dates fails.
    is_date = type(issued) in (int, float)
    _times(content, "exp", "iat", now=issued if is_date else None, past_claims=())


PROBES: Final[Mapping[str, Callable[[Content], object]]] = MappingProxyType(
    {
        "algorithm": _algorithm,
        "header": _header,
        "type": lambda content: jwt.check_type(content.header, content.issuer),
        "issuer_claim": _issuer_claim,
        "expected_headers": lambda content: jwt.check_header_members(content.token, content.issuer),
        "expected_claims": lambda content: jwt.check_members(content.token, content.issuer),
        "audience": _audience,
        "dates": _dates,
        "expiry": lambda content: _times(
            content, "exp", required=not content.introspected, max_lifetime=None, past_claims=()
        ),
        "not_before": lambda content: _times(content, "nbf", max_lifetime=None, past_claims=()),
        "issued_at": lambda content: _times(content, "iat", *content.issuer.past_claims, max_lifetime=None),
        "lifetime": _lifetime,
        "required_claims": lambda content: jwt.check_presence(
            content.claims, content.issuer, rfc9068=content.is_rfc9068
        ),
        "token_kind": lambda content: check_is_access_token(
            content.claims, content.issuer, typed=content.is_rfc9068, introspected=content.introspected
        ),
        "scope_claim": lambda content: granted_scopes(content.claims, content.issuer),
        "confirmation": lambda content: check_confirmation(content.claims, content.issuer),
    }
)
"""The checks of the content of a token, by the name of the check."""


def applies(name: str, content: Content) -> bool:
    """Return whether the check *name* has something to check in this token. If not, a passed check is left out."""
    issuer, claims = content.issuer, content.claims
    match name:
        case "issuer_claim":
            return bool(issuer.aliases) or issuer.issuer_claim_optional_dangerously
        case "expected_headers":
            return bool(issuer.expected_headers or issuer.forbidden_headers)
        case "expected_claims":
            return bool(issuer.expected_claims or issuer.claim_prefixes or issuer.forbidden_claims)
        case "not_before":
            return "nbf" in claims
        case "issued_at":
            return "iat" in claims
        case "lifetime":
            return issuer.max_lifetime is not None
        case "confirmation":
            return "cnf" in claims or issuer.require_sender_constraint
        case _:
            return True
