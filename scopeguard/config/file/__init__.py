"""Read the configuration file, a TOML document, into the arguments of :class:`~scopeguard.guard.Guard`.

Nothing in the file is ignored. A key that is unknown, has a value of the wrong kind, or belongs in another table
raises :class:`ConfigurationError` with the names of the file, the table and the key. Secrets and URLs may
be references: ``env:NAME`` to an environment variable, ``file:PATH`` to a file.
"""

from __future__ import annotations

from scopeguard.config.file.document import read_settings, settings_from

__all__ = ["read_settings", "settings_from"]
