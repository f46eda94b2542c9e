"""Writes a diagnosis as text and as JSON."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

import click

from scopeguard.doctor.advisories import DATE
from scopeguard.doctor.finding import Diagnosis, Level

JSON_VERSION: Final = 1
_COLORS: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red", Level.SKIPPED: "bright_black"}
_WIDTH: Final = max(len(level) for level in Level)


def as_text(diagnosis: Diagnosis) -> str:
    """Return the findings as text, grouped by subject, each with its fix. The last line has the count of each level."""
    lines: list[str] = []
    for subject, findings in groupby(diagnosis.findings, key=lambda finding: finding.subject):
        lines += ["", click.style(subject, bold=True)]
        for finding in findings:
            level = click.style(f"{finding.level.value:{_WIDTH}}", fg=_COLORS[finding.level])
            lines.append(f"  {level}  {finding.check}: {finding.text}")
            if finding.fix is not None:
                lines.append(f"  {'':{_WIDTH}}  fix: {finding.fix}")
    counts = ", ".join(_count(level, number) for level, number in diagnosis.counts.items() if number)
    lines += ["", f"{diagnosis.file}: {counts}. Advisories as known on {DATE.isoformat()}.", ""]
    return "\n".join(lines[1:])


def _count(level: Level, number: int) -> str:
    plural = number > 1 and level in (Level.WARNING, Level.ERROR)
    return f"{number} {level.value}{'s' if plural else ''}"


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis for ``json.dumps``. Within a version, members are added but never removed or changed.

    ``{"version": 1, "file", "advisories", "summary": {"ok", "warning", "error", "skipped"}, "findings": [{"subject",
    "check", "level", "text", "fix"}]}``
    """
    return {
        "version": JSON_VERSION,
        "file": diagnosis.file,
        "advisories": DATE.isoformat(),
        "summary": {level.value: number for level, number in diagnosis.counts.items()},
        "findings": [
            {
                "subject": finding.subject,
                "check": finding.check,
                "level": finding.level.value,
                "text": finding.text,
                "fix": finding.fix,
            }
            for finding in diagnosis.findings
        ],
    }
