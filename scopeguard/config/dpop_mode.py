"""Whether tokens need a proof of possession: the mode of a guard, an issuer and a rule."""

from __future__ import annotations

from enum import StrEnum


class DPoPMode(StrEnum):
    """Whether tokens may or must be bound to a key of the client."""

    OFF = "off"  # a token with a cnf claim is refused, as no proof is checked
    ALLOWED = "allowed"  # bound tokens need a proof; other tokens are bearer tokens
    REQUIRED = "required"  # every token must be bound, and needs a proof
