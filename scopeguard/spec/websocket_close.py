"""The status code with which a websocket is closed: RFC 6455 section 7.4.1."""

from __future__ import annotations

from typing import Final

POLICY_VIOLATION: Final = 1008
"""For a refusal after the handshake, and for a connection whose token ends."""
