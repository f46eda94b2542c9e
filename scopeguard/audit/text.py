"""Reports as text: an aligned table for terminals and logs, and Markdown for pull requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from scopeguard.audit.report import Entry, Finding, Report
from scopeguard.errors import printable

_HEAD: Final = ("method", "path", "requires", "tokens from", "declared by")
_LONGEST: Final = 2000
# What Markdown, or the HTML within it, would take for markup.
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&])")


def as_table(report: Report) -> str:
    """For terminals. Control characters are escaped, so that no route can write to the screen what it likes."""
    rows = [_row(entry) for entry in report.entries]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    lines = [f"{_plain(report.target)}: {report.summary}", ""]
    for guard in report.guards:
        issuers = ", ".join(_plain(issuer.url) for issuer in guard.issuers)
        lines += [f"guard {_plain(guard.style.realm)}: {issuers or 'a resolver'}"]
    lines += ["", _aligned(_HEAD, widths), _aligned(["-" * width for width in widths], widths)]
    for entry, row in zip(report.entries, rows, strict=True):
        lines.append(_aligned(row, widths))
        lines += [f"{'':{widths[0]}}    except {_plain(exception)}" for exception in entry.exceptions]
    for title, findings in (("errors", report.errors), ("warnings", report.warnings)):
        if findings:
            lines += ["", title]
            for finding in findings:
                lines.append(f"  {_plain(finding.where)}  [{finding.code.value}]")
                lines.append(f"      {_plain(finding.message)}")
                lines.append(f"      {_plain(finding.fix)}")
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """For pull requests and wikis."""
    lines = [f"# Audit of {_escaped(report.target)}", "", f"{report.summary}.", ""]
    for title, findings in (("Errors", report.errors), ("Warnings", report.warnings)):
        if findings:
            lines += [f"## {title}", "", *(_item(finding) for finding in findings), ""]
    lines += ["## Routes", "", _cells(name.capitalize() for name in _HEAD), _cells("---" for _ in _HEAD)]
    for entry in report.entries:
        row = _row(entry)
        if entry.exceptions:
            row[2] += f"; except {', '.join(entry.exceptions)}"
        lines.append(_cells(_escaped(cell) for cell in row))
    return "\n".join(lines) + "\n"


def _row(entry: Entry) -> list[str]:
    path = f"{entry.path} (opaque app)" if entry.opaque else entry.path
    cells = (entry.method, path, entry.access, ", ".join(entry.sources), ", ".join(entry.declared))
    return [_plain(cell) for cell in cells]


def _plain(text: str) -> str:
    return printable(text, _LONGEST)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _item(finding: Finding) -> str:
    return (
        f"* **{_escaped(finding.where)}** ({finding.code.value}): {_escaped(finding.message)}. {_escaped(finding.fix)}"
    )


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", _plain(text))


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
