"""The setting for connections in progress whose token ends."""

from __future__ import annotations

from enum import StrEnum


class CloseStreams(StrEnum):
    """When to end a connection in progress: a websocket, server-sent events, or another streamed response."""

    NEVER = "never"  # the token is checked at the beginning only
    EXPIRY = "expiry"  # when the token expires
    REVOCATION = "revocation"  # when a new request with the token would be refused, for its expiry or otherwise
