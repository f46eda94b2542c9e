"""The lifetime of an answer (RFC 9111 section 5.2), and its content type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_SHORTEST_USE: Final = 1.0  # seconds

# RFC 9111 section 5.2: "Cache directives are identified by a token, to be compared case-insensitively, and have an
# optional argument that can use both token and quoted-string syntax."
_MAX_AGE: Final = re.compile(r"(?<![\w-])max-age\s*=\s*\"?(\d{1,10})\"?", re.ASCII | re.IGNORECASE)


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


def time_left(ttl: float, age: float) -> float:
    """Return the seconds for which an answer of *age* may be used, if *ttl* seconds are allowed.

    The age counts from the request, because the answer says nothing about later events. An answer that took longer than
    *ttl* may be used for a second, or for *ttl* if that is less: by the callers that have waited for it.
    """
    return max(ttl - age, min(ttl, _SHORTEST_USE))


def content_type(headers: Mapping[str, str]) -> str:
    """Return the media type in lower case and without parameters, or an empty string if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(headers: Mapping[str, str]) -> bool:
    """Return whether the content type is JSON: ``application/json`` or ``application/...+json``."""
    kind = content_type(headers)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
