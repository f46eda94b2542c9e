"""What happens to the findings of an audit when an app starts."""

from __future__ import annotations

from enum import StrEnum

from scopeguard.errors import ConfigurationError


class AuditMode(StrEnum):
    """What is done about the findings of an audit when an app starts."""

    ERROR = "error"
    WARN = "warn"
    OFF = "off"

    @classmethod
    def of(cls, setting: AuditMode | str) -> AuditMode:
        """*setting*, or :class:`ConfigurationError`."""
        if setting not in set(cls):
            raise ConfigurationError(f"audit: {setting!r} is none of {', '.join(cls)}")
        return cls(setting)
