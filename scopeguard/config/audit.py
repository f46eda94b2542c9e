"""Settings of the audit at the start of an app."""

from __future__ import annotations

from enum import StrEnum

from scopeguard.config.checks import member


class AuditMode(StrEnum):
    """How an app treats the findings of the audit when it starts."""

    ERROR = "error"  # it refuses to start
    WARN = "warn"  # it logs them
    OFF = "off"  # there is no audit

    @classmethod
    def of(cls, setting: AuditMode | str) -> AuditMode:
        """Return *setting* as a member. Raises :class:`ConfigurationError` for an unknown value."""
        return member(cls, setting, "audit")
