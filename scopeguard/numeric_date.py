"""The range of dates in tokens and settings: NumericDate, RFC 7519 section 2."""

from __future__ import annotations

from typing import Final

LATEST_DATE: Final = 2.0**53
"""The latest date that is accepted, in seconds since the epoch. A float represents every integer up to it exactly."""
