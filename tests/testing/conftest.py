"""Our own fixture, as a user's suite finds it by its entry point; here it is there without an installation too."""

from __future__ import annotations

from scopeguard.testing.pytest_plugin import authority

__all__ = ["authority"]
