"""Read the lifetime of a response and the time of a retry: RFC 9111 section 5.2, RFC 9110 section 10.2.3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# RFC 9111 section 5.2: "Cache directives are identified by a token, to be compared case-insensitively, and have an
# optional argument that can use both token and quoted-string syntax."
_MAX_AGE: Final = re.compile(r"(?<![\w-])max-age\s*=\s*\"?(\d{1,10})\"?", re.ASCII | re.IGNORECASE)
_DIGITS: Final = re.compile(r"\d{1,10}", re.ASCII)


def lifetime(headers: Mapping[str, str]) -> float | None:
    """Return the ``max-age`` in seconds, 0 for ``no-store`` and ``no-cache``, or ``None`` without any of them.

    The names of *headers* are in lower case. ``Expires``, ``Age`` and ``s-maxage`` are ignored. The caller limits the
    value.
    """
    directives = headers.get("cache-control", "")
    lowered = directives.lower()
    if "no-store" in lowered or "no-cache" in lowered:
        return 0.0
    found = _MAX_AGE.search(directives)
    return float(found[1]) if found else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds from *now* until the time of ``Retry-After``, or ``None`` if it is absent or malformed.

    *now* is the wall clock in seconds since the epoch.
    """
    # RFC 9110 section 10.2.3: Retry-After is either a number of seconds or a date.
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


def content_type(headers: Mapping[str, str]) -> str:
    """Return the media type in lower case and without parameters, or an empty string if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(headers: Mapping[str, str]) -> bool:
    """Return whether the content type is JSON: ``application/json`` or ``application/...+json``."""
    kind = content_type(headers)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
