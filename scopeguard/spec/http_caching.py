"""How long an answer may be kept, and when to ask again: RFC 9111 section 5.2, RFC 9110 section 10.2.3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Final

_MAX_AGE: Final = re.compile(r"(?<![\w-])max-age\s*=\s*\"?(\d{1,10})\"?", re.ASCII | re.IGNORECASE)
_DIGITS: Final = re.compile(r"\d{1,10}", re.ASCII)


def lifetime(headers: Mapping[str, str]) -> float | None:
    """The ``max-age`` of *headers* (lower-case names) in seconds, 0 for ``no-store`` and ``no-cache``, else ``None``.

    Not looked at: ``Expires``, ``Age`` and ``s-maxage``; the caller clamps what it gets.
    """
    directives = headers.get("cache-control", "")
    lowered = directives.lower()
    if "no-store" in lowered or "no-cache" in lowered:
        return 0.0
    found = _MAX_AGE.search(directives)
    return float(found[1]) if found else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that ``Retry-After`` asks to wait from *now* (wall clock), ``None`` without a readable one."""
    value = headers.get("retry-after", "").strip()
    if _DIGITS.fullmatch(value):
        return float(value)
    try:
        date = parsedate_tz(value)  # without a zone it is GMT, as every date in HTTP
        return None if date is None else max(0.0, mktime_tz(date) - now)
    except (ValueError, TypeError, OverflowError):
        return None


def content_type(headers: Mapping[str, str]) -> str:
    """The media type of the content, in lower case and without parameters; empty if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(headers: Mapping[str, str]) -> bool:
    """Whether the content type is JSON: ``application/json`` or ``application/...+json``."""
    kind = content_type(headers)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
