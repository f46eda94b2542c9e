"""What can go wrong on the way to a token. None of it is a denial by the API: that comes back as a response.

These exceptions are made of their arguments, so that one failure can be told to everybody who waited, each with an
exception of their own (``copy.copy``).
"""

from __future__ import annotations

from scopeguard.spec.token_endpoint import TokenRefusal


class TokenEndpointError(Exception):
    """The token endpoint refused, or answered with something that cannot be used. It is not asked again (C-19).

    ``error``, ``error_description`` and ``error_uri`` are its own words (RFC 6749 section 5.2), or ``None``;
    ``status`` is that of its answer, and ``problem`` says what was wrong in ours.
    """

    def __init__(self, authority: str, refusal: TokenRefusal) -> None:
        super().__init__(authority, refusal)
        self.authority = authority
        self.status: int = refusal.status
        self.problem: str = refusal.problem
        self.error: str | None = refusal.error
        self.error_description: str | None = refusal.description
        self.error_uri: str | None = refusal.uri

    def __str__(self) -> str:
        words = (self.problem, self.error, self.error_description, self.error_uri)
        return f"{self.authority}: status {self.status}, {', '.join(word for word in words if word)}"


class TokenEndpointUnavailable(Exception):
    """Nobody refused: the token endpoint, or the issuer's metadata, could not be had within the retries.

    ``retry_after``: the seconds the server asked to be left alone for, at most 300; ``None`` when it did not ask.
    """

    def __init__(self, authority: str, problem: str, retry_after: float | None = None) -> None:
        super().__init__(authority, problem, retry_after)
        self.authority = authority
        self.problem = problem
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.authority}: {self.problem}"


class ScopeNotGranted(Exception):
    """The token has fewer scopes than were asked for, and ``narrower_scope="refuse"`` says not to use it (C-16)."""

    def __init__(self, missing: tuple[str, ...], granted: tuple[str, ...]) -> None:
        super().__init__(missing, granted)
        self.missing = missing
        self.granted = granted

    def __str__(self) -> str:
        return f"granted: {' '.join(self.granted) or 'no scope'}; missing: {' '.join(self.missing)}"


class OriginNotAllowed(Exception):
    """The request would have taken the token to an origin it is not for. It was not sent (C-25)."""


Failure = TokenEndpointError | TokenEndpointUnavailable | ScopeNotGranted
