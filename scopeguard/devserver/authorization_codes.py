"""Authorization codes: single-use, and valid for a minute."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from scopeguard.devserver.lifetimes import CODE_LIFETIME

MOST_CODES: Final = 1000
"""The greatest number of codes that are kept. A further one replaces the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a user has allowed a client, and what the client must repeat or prove to get the token."""

    client_id: str
    redirect_uri: str
    code_challenge: str
    subject: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    login: Login
    until: float
    used: bool = False
    token: str | None = field(default=None, repr=False)


class AuthorizationCodes:
    """The codes that were issued, at most :data:`MOST_CODES`. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def add(self, login: Login, now: float) -> str:
        """Return a new code for *login*. Times are in seconds since the epoch."""
        code = secrets.token_urlsafe(32)
        with self._lock:
            # The oldest is the first. Anyone who reaches the page can get codes, so the cost must not grow with them.
            for key, entry in list(islice(self._entries.items(), 2)):
                if entry.until <= now or len(self._entries) >= MOST_CODES:
                    del self._entries[key]
            self._entries[code] = _Entry(login, now + CODE_LIFETIME)
        return code

    def take(self, code: str, now: float) -> tuple[Login | None, str | None]:
        """Mark *code* as used and return its login, ``None`` if the code is unknown, used or expired.

        The second value is the token that an earlier use got, if any.
        """
        with self._lock:
            entry = self._entries.get(code)
            if entry is None:
                return None, None
            used, entry.used = entry.used, True
            return (None if used or now >= entry.until else entry.login), entry.token

    def record(self, code: str, token: str) -> None:
        """Remember that *code* was exchanged for *token*."""
        with self._lock:
            entry = self._entries.get(code)
            if entry is not None:
                entry.token = token

    def reset(self) -> None:
        """Forget every code."""
        with self._lock:
            self._entries = {}
