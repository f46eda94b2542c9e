"""What happens to the findings of an audit when an app starts."""

from __future__ import annotations

from enum import StrEnum

from scopeguard.config.checks import member


class AuditMode(StrEnum):
    """What is done about the findings of an audit when an app starts."""

    ERROR = "error"
    WARN = "warn"
    OFF = "off"

    @classmethod
    def of(cls, setting: AuditMode | str) -> AuditMode:
        """Return *setting* as a member. Raises :class:`ConfigurationError`."""
        return member(cls, setting, "audit")
