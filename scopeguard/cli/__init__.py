"""The ``scopeguard`` command. The options of each command are in :mod:`scopeguard.cli.options`.

It needs ``pip install "scopeguard-oauth2[cli]"``, and says so if packages are missing.
"""

from __future__ import annotations

from scopeguard.cli.entry import main

__all__ = ["main"]
