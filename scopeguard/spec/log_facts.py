"""What was found in a token, in the words of log lines. No decision uses it, and it is never for a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason

_KINDS: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    dict: "an object",
    list: "an array",
}
_LAST_DATE: Final = 253402300799  # the last second of the year 9999


def describe(value: object) -> str:
    """Return *value*, from a parsed JSON document, for a log line: the text itself, or the kind of another value."""
    if isinstance(value, str):
        return value or "an empty string"
    kind = _KINDS.get(type(value), "another value")
    return f"{kind} ({value})" if isinstance(value, int | float) else kind


def malformed_claim(name: str, value: object, expected: str) -> InvalidToken:
    """Return the error for *value* of the claim *name*, which should be *expected*."""
    return InvalidToken(Reason.MALFORMED_CLAIM, claim=name, found=describe(value), expected=expected)


def unexpected_claim(name: str, claims: Mapping[str, Any], expected: Iterable[object]) -> InvalidToken:
    """Return the error for the claim *name*, whose value is not one of *expected*."""
    found = describe(claims[name]) if name in claims else "absent"
    wanted = " or ".join(sorted(map(describe, expected)))
    return InvalidToken(Reason.UNEXPECTED_CLAIM, claim=name, found=found, expected=wanted)


def describe_times(name: str, seconds: float, now: float, leeway: float) -> dict[str, str]:
    """Return how *seconds*, the value of the claim *name*, differs from *now*, the time of this host.

    *seconds* and *now* are in seconds since the epoch, and *leeway* is in seconds.
    """
    apart = abs(now - seconds)
    return {
        name: _date(seconds),
        "now": f"{_date(now)} by the clock of this host",
        "differs": f"{_duration(apart)} {'ago' if seconds <= now else 'ahead'}",
        "leeway": f"{leeway:.0f} s",
    }


def _date(seconds: float) -> str:
    if not 0 <= seconds <= _LAST_DATE:
        return f"{seconds:.0f}"
    from email.utils import formatdate  # noqa: PLC0415 - an HTTP client has imported it

    return formatdate(seconds, usegmt=True).partition(", ")[2]


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
