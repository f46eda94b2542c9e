"""The access token with which this API asks introspection questions, where a function of the operator provides it.

Kept until the authority refuses it (I-06). A refusal is not always right: some authorities answer 401 to a question
about a bad token, and anybody may send one. So the function is not called again at once after it was, and when it fails
the refused token is used again.
"""

from __future__ import annotations

import threading
from typing import Final

# Seconds between two renewals, whoever asks for them.
RENEWAL_INTERVAL: Final = 5.0


class HeldBearer:
    """Safe to use from any thread. Seconds are monotonic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: str | None = None
        self._refused: str | None = None
        self._renewed_at = float("-inf")
        self._generation = 0

    def after_fork(self) -> None:
        """In a child process: whoever held the lock stayed with the parent."""
        self._lock = threading.Lock()

    @property
    def generation(self) -> int:
        """Counts every call of the function that ended, well or badly."""
        return self._generation

    @property
    def token(self) -> str | None:
        """The token that is held."""
        return self._token

    def refuse(self, token: str, now: float) -> bool:
        """The authority did not take *token*: whether to ask again with another one.

        That is then there already, or is to be fetched; not if the last renewal was a moment ago.
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
        """The function returned *token*."""
        with self._lock:
            self._token, self._refused = token, None
            self._generation += 1

    def fail(self) -> None:
        """The function did not return a token. One that was refused comes back: it may be as good as before."""
        with self._lock:
            if self._token is None:
                self._token, self._refused = self._refused, None
            self._generation += 1
