"""The access tokens that an authority has issued, for introspection and revocation."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

OPAQUE_PREFIX: Final = "sg-opaque-"
"""The prefix of opaque tokens, by which a scan for leaked tokens can recognise them."""
MOST_TOKENS: Final = 100_000
"""The greatest number of tokens that are kept. A further one replaces the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """An access token, JWT or opaque, and its claims."""

    token: str = field(repr=False)
    client_id: str | None
    claims: Mapping[str, Any] = field(repr=False)

    @property
    def audiences(self) -> tuple[str, ...]:
        """``aud``, which may be one string or several (RFC 7519 section 4.1.3)."""
        audience = self.claims.get("aud", ())
        return (audience,) if isinstance(audience, str) else tuple(audience or ())

    def is_expired(self, now: float) -> bool:
        """Return whether *now* is at or after ``exp``. A token without a numeric ``exp`` is always expired."""
        expires_at = _number(self.claims.get("exp"))
        return expires_at is None or now >= expires_at

    def is_active(self, now: float) -> bool:
        """Return whether *now* is between ``nbf`` and ``exp``."""
        not_before = _number(self.claims.get("nbf", 0))
        return not self.is_expired(now) and not_before is not None and now >= not_before


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class IssuedTokens:
    """Issued tokens, until they expire or are revoked, at most :data:`MOST_TOKENS`. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: dict[str, IssuedToken] = {}
        self._purge_at = 1024

    def add(self, token: str, claims: Mapping[str, Any], now: float) -> IssuedToken:
        """Record *token*. Expired tokens are removed each time the number of records has doubled."""
        client_id = claims.get("client_id")
        issued = IssuedToken(
            token=token,
            client_id=client_id if isinstance(client_id, str) else None,
            claims=copy.deepcopy(dict(claims)),
        )
        with self._lock:
            if len(self._issued) >= self._purge_at:
                self._issued = {key: held for key, held in self._issued.items() if not held.is_expired(now)}
                self._purge_at = max(1024, 2 * len(self._issued))
            if len(self._issued) >= MOST_TOKENS:  # anyone who reaches the login page can get tokens
                del self._issued[next(iter(self._issued))]
            self._issued[token] = issued
        return issued

    def active(self, token: str, now: float) -> IssuedToken | None:
        """Return the record of *token*, ``None`` if it is unknown, revoked or not valid at *now*."""
        with self._lock:
            issued = self._issued.get(token)
        return issued if issued is not None and issued.is_active(now) else None

    def revoke(self, token: str) -> None:
        """Forget *token*, which is then like one that was never issued."""
        with self._lock:
            self._issued.pop(token, None)

    def find(self, token: str) -> IssuedToken | None:
        """Return the record of *token*, even if it has expired."""
        with self._lock:
            return self._issued.get(token)

    def reset(self) -> None:
        """Forget every token."""
        with self._lock:
            self._issued = {}
