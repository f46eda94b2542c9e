"""The dates of a token: RFC 7519 sections 4.1.4 to 4.1.6."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from scopeguard.config.issuer import Issuer
from scopeguard.errors import InvalidToken
from scopeguard.numeric_date import LATEST_DATE
from scopeguard.reasons import Reason
from scopeguard.spec.log_facts import describe_times, malformed_claim


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """Return the claim *name* as seconds since the epoch, or ``None`` if it is absent.

    RFC 7519 section 2 defines NumericDate as a JSON number. Strings and booleans are refused.
    """
    value = claims.get(name)
    # isinstance() would accept a bool, which is an int.
    if (type(value) is int or type(value) is float) and -LATEST_DATE <= value <= LATEST_DATE:
        return value
    if name not in claims:
        return None
    raise malformed_claim(name, value, "a number of seconds since 1970")


def check_times(claims: Mapping[str, Any], issuer: Issuer, now: float, *, expiry_required: bool = True) -> None:
    """Check ``exp``, ``nbf`` and ``iat`` against *now* with the issuer's leeway, and the lifetime against its limit.

    *now* and the leeway are in seconds. Claims that the policy lists as ``past_claims`` must not be in the future
    either.
    """
    if "nbf" not in claims and not issuer.limits_dates:  # the usual token, if both its dates are plain integers
        exp, iat = claims.get("exp"), claims.get("iat")
        if (
            type(exp) is int
            and type(iat) is int
            # First, because an integer too large for a float cannot be added to the leeway.
            and -LATEST_DATE <= iat <= exp <= LATEST_DATE
            and iat - issuer.leeway <= now < exp + issuer.leeway
        ):
            return
    expires, issued, begins = _seconds(claims, "exp"), _seconds(claims, "iat"), _seconds(claims, "nbf")
    if expires is None:
        if expiry_required or issuer.max_lifetime is not None:
            raise InvalidToken(Reason.MISSING_CLAIM, claim="exp")
        expires = float("inf")
    # RFC 7519 section 4.1.4: "The "exp" (expiration time) claim identifies the expiration time on or after which the
    # JWT MUST NOT be accepted for processing." "Implementers MAY provide for some small leeway, usually no more than a
    # few minutes, to account for clock skew."
    if now >= expires + issuer.leeway:
        raise InvalidToken(Reason.TOKEN_EXPIRED, times=partial(describe_times, "exp", expires, now, issuer.leeway))
    # RFC 7519 section 4.1.5: "The "nbf" (not before) claim identifies the time before which the JWT MUST NOT be
    # accepted for processing."
    if begins is not None and now < begins - issuer.leeway:
        raise InvalidToken(Reason.TOKEN_NOT_YET_VALID, times=partial(describe_times, "nbf", begins, now, issuer.leeway))
    # RFC 7519 section 4.1.6 sets no such rule for "iat". A token from the future shows a wrong clock or a forged date.
    if issued is not None and now < issued - issuer.leeway:
        times = partial(describe_times, "iat", issued, now, issuer.leeway)
        raise InvalidToken(Reason.TOKEN_ISSUED_IN_FUTURE, times=times)
    for name in issuer.past_claims:
        date = _seconds(claims, name)
        if date is not None and now < date - issuer.leeway:
            times = partial(describe_times, name, date, now, issuer.leeway)
            raise InvalidToken(Reason.TOKEN_ISSUED_IN_FUTURE, times=times)
    if issuer.max_lifetime is not None and expires - (now if issued is None else issued) > issuer.max_lifetime:
        lifetime = expires - (now if issued is None else issued)
        raise InvalidToken(
            Reason.TOKEN_LIFETIME_TOO_LONG, lifetime=f"{lifetime:.0f} s", limit=f"{issuer.max_lifetime:.0f} s"
        )
