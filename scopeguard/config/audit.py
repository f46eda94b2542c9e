"""Settings of the audit at the start of an app."""

from __future__ import annotations

from enum import StrEnum

from scopeguard.config.checks import member


class AuditMode(StrEnum):
    """The treatment of the audit's findings when an app starts."""

    ERROR = "error"  # the app refuses to start
    WARN = "warn"  # the app logs the findings
    OFF = "off"  # there is no audit

    @classmethod
    def of(cls, setting: AuditMode | str) -> AuditMode:
        """Return *setting* as a member. Raises :class:`ConfigurationError` for an unknown value."""
        return member(cls, setting, "audit")
