"""When ``scopeguard doctor`` warns."""

from __future__ import annotations

from typing import Final

DAYS_LEFT: Final = 14
"""Days until a certificate or an API key expires."""
DAYS_LEFT_OF_PYTHON: Final = 180
"""Days until this version of Python gets no more security fixes."""
SLOW_ANSWER: Final = 1.0
"""Seconds for an answer of an authorization server."""
CLOCK_DIFFERENCE: Final = 5.0
"""Seconds between two clocks. A ``Date`` header has a resolution of one second."""
