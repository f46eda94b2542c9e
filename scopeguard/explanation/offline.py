"""A transport and a store for an explanation that must not use the network."""

from __future__ import annotations

from typing import Any

from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import SHARED_STORE, Answer, Send
from scopeguard.reasons import Reason

PROBLEM = "offline: nothing is fetched"


class Offline:
    """A transport and a store that answer nothing. Local files are read all the same."""

    def send(self, request: Send, /) -> Answer:
        """Raise :class:`AuthorityUnavailable`."""
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority, problem=PROBLEM)

    def get(self, *_: object) -> bytes | None:
        """Raise :class:`AuthorityUnavailable`."""
        raise _no_store()

    def put(self, *_: object, **__: object) -> None:
        """Raise :class:`AuthorityUnavailable`."""
        raise _no_store()

    def append(self, *_: object, **__: object) -> None:
        """Raise :class:`AuthorityUnavailable`."""
        raise _no_store()

    def read(self, *_: object) -> tuple[str | None, Any]:
        """Raise :class:`AuthorityUnavailable`."""
        raise _no_store()

    def close(self) -> None:
        """Do nothing."""


def _no_store() -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.STORE_UNAVAILABLE, SHARED_STORE, problem=PROBLEM)
