"""How the tokens of an issuer are validated: the setting ``validate`` of an issuer."""

from __future__ import annotations

from enum import StrEnum


class Validation(StrEnum):
    """The way in which the tokens of an issuer are validated."""

    JWT = "jwt"  # locally, with the issuer's published keys
    INTROSPECTION = "introspection"  # by introspection of every token
    AUTO = "auto"  # JWTs locally, all other tokens by introspection
