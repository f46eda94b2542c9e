"""The ``Retry-After`` field, as other servers send it and as this API sends it: RFC 9110 section 10.2.3."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from scopeguard.errors import AuthorityUnavailable

DEFAULT_RETRY_AFTER: Final = 5.0
"""The seconds that this API sends if it does not know when the next attempt makes sense."""
MAX_RETRY_AFTER: Final = 300.0
"""The greatest number of seconds that this API sends."""
_DIGITS: Final = re.compile(r"\d{1,10}", re.ASCII)


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds from *now* until the time of ``Retry-After``, or ``None`` if it is absent or malformed.

    *now* is the wall clock in seconds since the epoch. The caller limits the value.
    """
    # Retry-After is either a number of seconds or a date.
    value = headers.get("retry-after", "").strip()
    if _DIGITS.fullmatch(value):
        return float(value)
    from email.utils import mktime_tz, parsedate_tz  # noqa: PLC0415 - an HTTP client has imported it

    try:
        # A date without a zone is GMT, as RFC 9110 section 5.6.7 requires of all dates in HTTP.
        date = parsedate_tz(value)
        return None if date is None else max(0.0, mktime_tz(date) - now)
    except (ValueError, TypeError, OverflowError):
        return None


def write_retry_after(outage: AuthorityUnavailable) -> str:
    """Return the value of ``Retry-After`` for *outage*: whole seconds, from 1 to 300."""
    wait = DEFAULT_RETRY_AFTER if outage.retry_after is None else outage.retry_after
    return str(max(1, math.ceil(min(wait, MAX_RETRY_AFTER))))
