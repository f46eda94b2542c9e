"""The tokens that this process accepted before. They are introspected first when an authorization server is slow."""

from __future__ import annotations


class AcceptedTokens:
    """Digests of accepted tokens, at most twice *max_entries*. Safe to use from any thread.

    Membership grants nothing: such a token is validated like any other, but waits less. The older half is dropped when
    the newer half is full, so a digest stays if it is added again from time to time.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        # The sets are replaced and never iterated, so there is no lock. A lost entry only costs a place in a queue.
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()

    def add(self, digest: bytes) -> None:
        """Record that the token with *digest* was accepted."""
        if len(self._newer) >= self._max_entries:
            self._older, self._newer = self._newer, set()
        self._newer.add(digest)

    def discard(self, digest: bytes) -> None:
        """Record that the token with *digest* is no longer active."""
        self._newer.discard(digest)
        self._older.discard(digest)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._newer or digest in self._older
