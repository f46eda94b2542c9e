"""The setting for CORS preflights of browsers."""

from __future__ import annotations

from enum import StrEnum


class Preflight(StrEnum):
    """The treatment of CORS preflights, which never carry credentials."""

    GUARD = "guard"  # the preflight needs a token unless a rule opens its path, like any other request
    PASS = "pass"  # the preflight reaches the app without a token
