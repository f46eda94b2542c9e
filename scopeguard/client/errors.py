"""What can go wrong when a token is fetched. None of it is a denial by the API: that comes back as a response.

These exceptions are made of their arguments, so that each caller that waited for a fetch can raise a copy of its own
(``copy.copy``).
"""

from __future__ import annotations

from scopeguard.spec.token_endpoint import TokenRefusal


class TokenEndpointError(Exception):
    """The token endpoint refused, or answered with something that cannot be used. The fetch is not retried.

    ``error``, ``error_description`` and ``error_uri`` are from its answer (RFC 6749 section 5.2), or ``None``;
    ``status`` is the status of that answer, and ``problem`` is our description of what is wrong.
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
    """The token endpoint, or the issuer's metadata, gave no answer that decides, within the retries.

    ``retry_after``: the seconds that the server's ``Retry-After`` asked for, at most 300; ``None`` without one.
    ``status``: the status of its last answer (408, 429 or 5xx); ``None`` when there was no answer.
    """

    def __init__(
        self, authority: str, problem: str, retry_after: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(authority, problem, retry_after, status)
        self.authority = authority
        self.problem = problem
        self.retry_after = retry_after
        self.status = status

    def __str__(self) -> str:
        return f"{self.authority}: {self.problem}"


class ScopeNotGranted(Exception):
    """The token has fewer scopes than requested, and ``narrower_scope="refuse"`` is set."""

    def __init__(self, missing: tuple[str, ...], granted: tuple[str, ...]) -> None:
        super().__init__(missing, granted)
        self.missing = missing
        self.granted = granted

    def __str__(self) -> str:
        return f"granted: {' '.join(self.granted) or 'no scope'}; missing: {' '.join(self.missing)}"


class OriginNotAllowed(Exception):
    """The request goes to an origin that the token is not for. It was not sent."""


Failure = TokenEndpointError | TokenEndpointUnavailable | ScopeNotGranted
