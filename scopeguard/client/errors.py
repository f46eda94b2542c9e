"""The exceptions of the client. A refusal by the API is a response, not an exception.

The exceptions can be copied with ``copy.copy``: each caller that waited for a failed fetch raises its own copy.
"""

from __future__ import annotations

from scopeguard.spec.token_endpoint import TokenRefusal


class TokenEndpointError(Exception):
    """The token endpoint, or the issuer's metadata, refused or gave an invalid response. The fetch is not retried.

    * ``authority``: the issuer or the token endpoint.
    * ``status``: the HTTP status of the response.
    * ``problem``: a description of the problem.
    * ``error``, ``error_description``, ``error_uri``: members of the response (RFC 6749 section 5.2), or ``None``.
      Texts that quote the client secret are replaced.
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


class TokenExchangeRefused(TokenEndpointError):
    """The authorization server issues no token in exchange for the one that it was given.

    ``error`` says why: ``invalid_request`` or ``invalid_grant`` for a token that it does not accept,
    ``invalid_target``, ``invalid_scope`` or ``access_denied`` for something that it does not permit,
    ``interaction_required`` if the user has to take part. It is not an outage: repeating the exchange does not help.
    """


class TokenEndpointUnavailable(Exception):
    """The token endpoint, or the issuer's metadata, is unavailable, and all retries failed.

    * ``authority``: the issuer or the token endpoint.
    * ``problem``: a description of the problem.
    * ``retry_after``: the seconds in the server's ``Retry-After``, at most 300; ``None`` without one.
    * ``status``: the status of the last response (408, 429 or 5xx); ``None`` without a response.
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
    """The token has fewer scopes than requested, and ``narrower_scope="refuse"`` is set.

    ``missing`` has the scopes that were not granted, ``granted`` those of the token.
    """

    def __init__(self, missing: tuple[str, ...], granted: tuple[str, ...]) -> None:
        super().__init__(missing, granted)
        self.missing = missing
        self.granted = granted

    def __str__(self) -> str:
        return f"granted: {' '.join(self.granted) or 'no scope'}; missing: {' '.join(self.missing)}"


class OriginNotAllowed(Exception):
    """The token must not be sent to the origin of the request. The request was not sent."""


class ForwardingRefused(Exception):
    """The request contains the access token of the request that is being served. It was not sent.

    Get a token for the next API with :class:`scopeguard.client.TokenExchange`.
    """


Failure = TokenEndpointError | TokenEndpointUnavailable | ScopeNotGranted
