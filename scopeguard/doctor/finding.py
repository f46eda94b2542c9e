"""Findings of the checks, and the diagnosis that they make up. Does no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from scopeguard.errors import ConfigurationError


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # works, but may have unexpected effects or fail later
    ERROR = "error"  # requests are refused or unprotected
    SKIPPED = "skipped"  # not checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    * ``subject``: what was checked: an issuer, a file, the store.
    * ``check``: the name of the check.
    * ``text``: what was found, without a secret.
    * ``fix``: what to do. Warnings and errors have one.
    """

    subject: str
    check: str
    level: Level
    text: str
    fix: str | None = None

    def __post_init__(self) -> None:
        if (self.fix is None) is (self.level in (Level.WARNING, Level.ERROR)):
            raise ConfigurationError(f"fix: warnings and errors must have one, other findings must not: {self.check}")


def ok(subject: str, check: str, text: str) -> Finding:
    return Finding(subject=subject, check=check, level=Level.OK, text=text)


def warning(subject: str, check: str, text: str, *, fix: str) -> Finding:
    return Finding(subject=subject, check=check, level=Level.WARNING, text=text, fix=fix)


def error(subject: str, check: str, text: str, *, fix: str) -> Finding:
    return Finding(subject=subject, check=check, level=Level.ERROR, text=text, fix=fix)


def skipped(subject: str, check: str, text: str) -> Finding:
    return Finding(subject=subject, check=check, level=Level.SKIPPED, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings about one configuration file, in the order of the checks."""

    file: str
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[Level, int]:
        """The number of findings of each level."""
        found = Counter(finding.level for finding in self.findings)
        return {level: found[level] for level in Level}

    def status(self, *, strict: bool) -> int:
        """Return the exit status: 1 if there is an error, or with *strict* a warning; else 0."""
        counts = self.counts
        return int(counts[Level.ERROR] > 0 or (strict and counts[Level.WARNING] > 0))
