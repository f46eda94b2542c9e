"""Write reports as text: an aligned table for terminals and logs, or Markdown for pull requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from scopeguard.audit import messages
from scopeguard.audit.report import Entry, Finding, Report
from scopeguard.log_values import printable

_HEAD: Final = ("method", "path", "requires", "tokens from", "declared by")
_LONGEST: Final = 2000
# Characters that are markup in Markdown or in HTML within it.
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&])")


def as_table(report: Report) -> str:
    """Return *report* for a terminal. Control characters are escaped, so that a route cannot control the terminal."""
    rows = [_cells_of(entry) for entry in report.entries]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    lines = [f"{_printable(report.target)}: {report.summary}", ""]
    for guard in report.guards:
        issuers = ", ".join(_printable(issuer.url) for issuer in guard.issuers)
        lines += [f"guard {_printable(guard.style.realm)}: {issuers or 'a resolver'}"]
    lines += ["", _align(_HEAD, widths), _align(["-" * width for width in widths], widths)]
    for entry, row in zip(report.entries, rows, strict=True):
        lines.append(_align(row, widths))
        lines += [f"{'':{widths[0]}}    except {_printable(exception)}" for exception in entry.exceptions]
    for title, findings in (("errors", report.errors), ("warnings", report.warnings)):
        if findings:
            lines += ["", title]
            for finding in findings:
                lines.append(f"  {_printable(finding.where)}  [{finding.code.value}]")
                lines.append(f"      {_printable(finding.message)}")
                lines.append(f"      {_printable(finding.fix)}")
    if report.undeclared:
        lines += ["", "any valid token", *(f"  {_printable(where)}" for where in report.undeclared)]
        lines += [f"      {text}" for text in messages.ANY_TOKEN]
    return "\n".join(lines) + "\n"


def as_markdown(report: Report) -> str:
    """Return *report* for pull requests and wikis."""
    lines = [f"# Audit of {_escape(report.target)}", "", f"{report.summary}.", ""]
    for title, findings in (("Errors", report.errors), ("Warnings", report.warnings)):
        if findings:
            lines += [f"## {title}", "", *(_list_item(finding) for finding in findings), ""]
    if report.undeclared:
        message, fix = messages.ANY_TOKEN
        lines += ["## Any valid token", "", f"{_escape(message)}. {_escape(fix)}.", ""]
        lines += [*(f"* {_escape(where)}" for where in report.undeclared), ""]
    lines += ["## Routes", "", _table_row(name.capitalize() for name in _HEAD), _table_row("---" for _ in _HEAD)]
    for entry in report.entries:
        row = _cells_of(entry)
        if entry.exceptions:
            row[2] += f"; except {', '.join(entry.exceptions)}"
        lines.append(_table_row(_escape(cell) for cell in row))
    return "\n".join(lines) + "\n"


def _cells_of(entry: Entry) -> list[str]:
    path = f"{entry.path} (opaque app)" if entry.opaque else entry.path
    cells = (entry.method, path, entry.access, ", ".join(entry.sources), ", ".join(entry.declared))
    return [_printable(cell) for cell in cells]


def _printable(text: str) -> str:
    return printable(text, _LONGEST)


def _align(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _list_item(finding: Finding) -> str:
    return f"* **{_escape(finding.where)}** ({finding.code.value}): {_escape(finding.message)}. {_escape(finding.fix)}"


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\1", _printable(text))


def _table_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
