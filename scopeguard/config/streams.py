"""The settings for connections in progress whose token ends."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

RECHECK_INTERVAL: Final = 30.0
"""Seconds between two validations of the token of a connection, unless ``recheck_streams`` says otherwise."""


class CloseStreams(StrEnum):
    """When to end a connection in progress: a websocket, server-sent events, or another streamed response."""

    NEVER = "never"  # the token is checked at the beginning only
    EXPIRY = "expiry"  # when the token expires
    REVOCATION = "revocation"  # when a new request with the token would be refused for any reason, such as its expiry
