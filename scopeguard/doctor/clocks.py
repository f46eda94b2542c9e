"""The difference between two clocks. Does no I/O."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from scopeguard.doctor.finding import Finding, error, ok, warning
from scopeguard.doctor.thresholds import CLOCK_DIFFERENCE
from scopeguard.doctor.tracing_transport import Exchange

_CHECK: Final = "clock"


def server_offset(exchange: Exchange) -> float | None:
    """Return the seconds by which the server's clock is ahead of the guard's, ``None`` if its answer does not say.

    RFC 9110 section 6.6.1: "The "Date" header field represents the date and time at which the message was originated".
    ``Age`` is added, because a cache may have kept the message since (RFC 9111 section 5.1).
    """
    if exchange.answer is None or "date" not in exchange.answer.headers:
        return None
    try:
        date = parsedate_to_datetime(exchange.answer.headers["date"])
        age = int(exchange.answer.headers.get("age", "0"))
        # A time between two full seconds is written as the first of them.
        then = date.replace(tzinfo=date.tzinfo or UTC).timestamp() + 0.5 + age
    except (ValueError, OverflowError):
        return None
    return then - exchange.at


def check_clock(subject: str, offset: float, leeway: float) -> Finding:
    """Compare *offset*, the seconds by which the server's clock is ahead, with the *leeway* of the issuer."""
    direction = "behind" if offset > 0 else "ahead of"
    text = f"the clock of this machine is {abs(offset):.0f} s {direction} that of the authorization server"
    fix = "synchronise the clock of this machine (NTP), or that of the authorization server"
    if offset > leeway:
        text += f": new tokens are refused for {offset - leeway:.0f} s (leeway = {leeway:.0f})"
        return error(subject, _CHECK, text, fix=fix)
    if offset < -leeway:
        text += f": tokens are refused {-offset - leeway:.0f} s before they expire (leeway = {leeway:.0f})"
        return error(subject, _CHECK, text, fix=fix)
    if abs(offset) > CLOCK_DIFFERENCE:
        return warning(subject, _CHECK, f"{text}; leeway = {leeway:.0f} s covers it", fix=fix)
    return ok(subject, _CHECK, f"within {CLOCK_DIFFERENCE:.0f} s of the authorization server's")
