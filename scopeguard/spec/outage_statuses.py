"""The HTTP statuses that say that another server, or a gateway before it, is down or busy, whatever the request."""

from __future__ import annotations

from typing import Final

TRANSIENT: Final = frozenset((502, 503, 504))
"""Sent by a gateway while a server behind it restarts. The exchange is repeated (``retries``)."""
DOWN_OR_BUSY: Final = TRANSIENT | {429}
"""No token can be the cause, whichever was sent."""
OVERLOADED: Final = frozenset((429, 503))
"""A client pauses its token requests after the first of these, not after the second."""


def is_outage(status: int) -> bool:
    """Return whether *status* is temporary, so that a later request may succeed: 408, 429 or 5xx."""
    return status in (408, 429) or status >= 500
