"""The access token by which this API authenticates to another server, if a function of the operator returns it."""

from __future__ import annotations

from typing import Final

from scopeguard.state.fork import Locked

RENEWAL_INTERVAL: Final = 5.0
"""Seconds between two calls of the function."""


class OwnBearer(Locked):
    """The access token by which this API authenticates to another server. Safe to use from any thread.

    A function of the operator returns it. The token is used until the server refuses it. A refusal may be wrong: some
    authorization servers answer 401 to an introspection request about a bad token, and anyone may send a bad token. The
    function is therefore called at most once in :data:`RENEWAL_INTERVAL` seconds, and if it fails, the refused token is
    used again. Seconds are monotonic.
    """

    def __init__(self) -> None:
        super().__init__()
        self._token: str | None = None
        self._refused: str | None = None
        self._renewed_at = float("-inf")
        self._generation = 0

    @property
    def generation(self) -> int:
        """The number of calls of the function that have ended, successfully or not."""
        return self._generation

    @property
    def token(self) -> str | None:
        """The current token, if there is one."""
        return self._token

    def refuse(self, token: str, now: float) -> bool:
        """Record that the server refused *token*. Return whether to repeat the request with another token.

        The other token is already here or has to be fetched. Returns false within :data:`RENEWAL_INTERVAL` of the last
        renewal.
        """
        with self._lock:
            if self._token != token:
                return True
            if now < self._renewed_at + RENEWAL_INTERVAL:
                return False
            self._token, self._refused = None, token
            self._renewed_at = now
            return True

    def keep(self, token: str) -> None:
        """Record that the function returned *token*."""
        with self._lock:
            self._token, self._refused = token, None
            self._generation += 1

    def fail(self) -> None:
        """Record that the function returned no token. A refused token is used again: it may be valid after all."""
        with self._lock:
            if self._token is None:
                self._token, self._refused = self._refused, None
            self._generation += 1
