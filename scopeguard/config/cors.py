"""What happens to the CORS preflights of browsers."""

from __future__ import annotations

from enum import StrEnum


class Preflight(StrEnum):
    """What happens to a CORS preflight, which carries no credentials by design."""

    GUARD = "guard"
    PASS = "pass"
