"""A connection that ends as soon as its response has begun, or never."""

from __future__ import annotations

import anyio


class Expiring:
    """Stands in for :class:`scopeguard.adapter.streams.Connection`, whose token expires in *seconds* from now."""

    def __init__(self, seconds: float) -> None:
        self.cancel_scope = anyio.CancelScope()
        self.ending: str | None = None
        self._has_expired = seconds <= 0

    def open(self) -> None:
        if self._has_expired:
            self.ending = "The access token expired"
            self.cancel_scope.cancel()

    def close(self) -> None:
        """Do nothing: there is no watcher."""
