"""The setting for CORS preflights of browsers."""

from __future__ import annotations

from enum import StrEnum


class Preflight(StrEnum):
    """How to treat a CORS preflight, which never carries credentials."""

    GUARD = "guard"  # like any other request: it needs a token unless a rule opens its path
    PASS = "pass"  # it reaches the app without a token
