"""How long a caller waits for an outbound request, in seconds."""

from __future__ import annotations

from typing import Final

QUEUE_TIMEOUT: Final = 5.0
"""The wait for the start of a flight, besides the time that the flight itself may take."""

FLIGHT_TIMEOUT: Final = 15.0
"""The wait for a flight that has no other time limit."""

HOOK_TIMEOUT: Final = 15.0
"""The wait for a function of the configuration."""

# Before an exchange is repeated. The pause is random, so that requests that failed together do not retry together.
SHORTEST_RETRY_PAUSE: Final = 0.05
LONGEST_RETRY_PAUSE: Final = 0.25


def longest_exchange(timeout: float, retries: int) -> float:
    """Return the longest time, in seconds, of an exchange with *retries*. Each attempt takes at most *timeout*."""
    return (1 + retries) * timeout + retries * LONGEST_RETRY_PAUSE
