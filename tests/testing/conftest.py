"""The fixture of scopeguard, which users get by its entry point. Here it works without an installation, too."""

from __future__ import annotations

from scopeguard.testing.pytest_plugin import authority

__all__ = ["authority"]
