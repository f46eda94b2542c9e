"""The audience of a token: RFC 7519 section 4.1.3, RFC 9068 section 4."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.log_facts import malformed_claim
from scopeguard.spec.token_kind import check_is_access_token
from scopeguard.tokens import Unverified

# The scheme and the host of an https or http URL, without user information.
_ORIGIN: Final = r"[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9.:\[\]-]+(?=[/?#]|\Z)"
_AUDIENCES: Final = "a non-empty string or an array of them"


def audience_of(token: Unverified, issuer: Issuer) -> tuple[str, ...]:
    """Return all audiences of the token, from the claims that the policy configures for them."""
    found: tuple[str, ...] = ()
    for name in issuer.audience_claims:
        if name.startswith("header:"):
            members, member = token.header, name[7:]
        else:
            members, member = token.claims, name
        if member not in members:
            continue
        value = members[member]
        # RFC 7519 section 4.1.3: "In the special case when the JWT has one audience, the "aud" value MAY be a single
        # case-sensitive string containing a StringOrURI value."
        if isinstance(value, str) and value:
            found += (value,)
            continue
        if not isinstance(value, list) or not value:
            raise malformed_claim(name, value, _AUDIENCES)
        for item in value:
            if not isinstance(item, str) or not item:
                raise malformed_claim(name, item, _AUDIENCES)
        found += tuple(value)
    return found


def check_audience(token: Unverified, issuer: Issuer) -> tuple[str, ...]:
    """Check that one of the token's audiences is this API, and return all of them."""
    accepted = issuer.audiences
    if issuer.audience_is_aud and accepted is not None:  # one accepted audience: the usual token
        value = token.claims.get("aud")
        if type(value) is str and value in accepted:
            return (value,)
    audience = audience_of(token, issuer)
    # RFC 9068 section 5 asks authorization servers to make clear which audience a scope is meant for. Not all do.
    if issuer.single_audience and len(set(audience)) > 1:
        raise InvalidToken(Reason.SEVERAL_AUDIENCES, aud=" ".join(audience))
    if accepted is None:
        return audience
    if not audience:
        raise InvalidToken(Reason.MISSING_CLAIM, claim=" or ".join(issuer.audience_claims))
    # RFC 9068 section 4: "The JWT access token MUST be rejected if "aud" does not contain a resource indicator of the
    # current resource server as a valid audience."
    if accepted.isdisjoint(audience) and not (
        issuer.canonicalize_audience and _matches_canonically(audience, accepted)
    ):
        kind = _find_other_kind(token.claims, issuer)
        raise InvalidToken(Reason.WRONG_AUDIENCE, aud=" ".join(audience), expected=" ".join(sorted(accepted)), **kind)
    return audience


def _find_other_kind(claims: Mapping[str, Any], issuer: Issuer) -> dict[str, str]:
    """Return a fact for the log if *claims* are of another kind of token, else none.

    OpenID Connect Core section 2: the audience of an ID token is the client. So a client that sends its ID token is
    refused for the audience, and another value of ``Issuer(audience=...)`` would not help.
    """
    try:
        check_is_access_token(claims, issuer, typed=True)
    except InvalidToken as error:
        if error.reason is Reason.NOT_AN_ACCESS_TOKEN:
            return {"also": f"{error.reason.value} (claim {error.detail['claim']})"}
    return {}


def _matches_canonically(audience: Collection[str], accepted: Collection[str]) -> bool:
    """Return whether one of *audience* equals one of *accepted* if the case of scheme and host does not count.

    RFC 3986 section 6.2.2.1: "the scheme and host are case-insensitive and therefore should be normalized to
    lowercase". Paths and queries, default ports and final slashes are compared as they are.
    """
    return not {_lower_origin(url) for url in accepted}.isdisjoint(map(_lower_origin, audience))


def _lower_origin(value: str) -> str:
    origin = re.match(_ORIGIN, value)
    return value if origin is None else origin[0].lower() + value[origin.end() :]
