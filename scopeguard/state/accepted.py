"""Which tokens this process has accepted before, so that their callers go first when an authority is short of time."""

from __future__ import annotations


class AcceptedTokens:
    """Digests of tokens that were accepted, at most twice *max_entries*; safe to use from any thread.

    It grants nothing: a token in it is judged like any other and only waits less. The older half is dropped when the
    newer one is full, so a digest that is added again from time to time stays.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        # Replaced whole and never iterated, so no lock is needed: a lost entry costs one place in a queue.
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()

    def add(self, digest: bytes) -> None:
        """The token with *digest* was accepted."""
        if len(self._newer) >= self._max_entries:
            self._older, self._newer = self._newer, set()
        self._newer.add(digest)

    def discard(self, digest: bytes) -> None:
        """The token with *digest* is not active any more."""
        self._newer.discard(digest)
        self._older.discard(digest)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._newer or digest in self._older
