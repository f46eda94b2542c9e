"""Reports as one HTML page for a security reviewer: what is wrong, then which scope opens which route.

The page is complete in itself and loads nothing; its content security policy forbids everything but its own style and
script, by their hashes. Without the script all is there, and cannot be filtered. Whatever comes from an app is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Final

from scopeguard.audit.page_parts import SCRIPT, STYLE
from scopeguard.audit.report import WORDS, Code, Entry, Finding, Kind, Report, Severity

_SHOWN: Final = 12
"""Findings of one kind that are shown at once; the others unfold."""


def as_html(report: Report) -> str:
    """The page, with a final line end."""
    policy = f"default-src 'none'; style-src '{_hash(STYLE)}'; script-src '{_hash(SCRIPT)}'; base-uri 'none'"
    title = f"Audit of {_text(report.target)}"
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{_header(report)}<main>\n{_findings(report)}{_matrix(report)}{_scopes(report)}</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _text(text: str) -> str:
    """*text* for an element or a quoted attribute; what does not print, or turns the direction of text, as a code."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return escape(shown, quote=True)


def _counted(number: int, noun: str) -> str:
    return f"<b>{number}</b> {noun}{'' if number == 1 else 's'}"


def _header(report: Report) -> str:
    verdict = "bad" if report.errors else "odd" if report.warnings else "good"
    guards = "".join(
        f"<dt>Guard <q>{_text(guard.style.realm)}</q></dt>"
        f"<dd>{', '.join(f'<code>{_text(issuer.url)}</code>' for issuer in guard.issuers) or 'a resolver'}</dd>"
        for guard in report.guards
    )
    return (
        f'<header>\n<p class="kicker">scopeguard audit</p>\n<h1>{_text(report.target)}</h1>\n'
        f'<ul class="summary {verdict}">'
        f'<li class="errors{"" if report.errors else " none"}">{_counted(len(report.errors), "error")}</li>'
        f'<li class="warnings{"" if report.warnings else " none"}">{_counted(len(report.warnings), "warning")}</li>'
        f"<li>{_counted(len(report.entries), 'route')}</li>"
        f"<li>{_counted(len(report.scopes), 'scope')}</li></ul>\n"
        f"{f'<dl>{guards}</dl>' if guards else ''}\n</header>\n"
    )


def _findings(report: Report) -> str:
    if not report.findings:
        return (
            '<section aria-labelledby="findings"><h2 id="findings">Findings</h2>'
            '<p class="clean">Nothing is wrong: every route is guarded, or was declared public.</p></section>\n'
        )
    groups: dict[tuple[Severity, Code, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.code, finding.fix), []).append(finding)
    items = "".join(map(_group, groups.values()))
    return (
        '<section aria-labelledby="findings"><h2 id="findings">Findings</h2>\n'
        f'<ul class="findings">\n{items}</ul></section>\n'
    )


def _group(findings: list[Finding]) -> str:
    """Findings that ask for the same thing."""
    first = findings[0]
    count = f' <span class="count">{len(findings)}</span>' if len(findings) > 1 else ""
    lines = [f"<li><code>{_text(item.where)}</code> <span>{_text(item.message)}</span></li>" for item in findings]
    shown, more = lines[:_SHOWN], lines[_SHOWN:]
    rest = f"<details><summary>{len(more)} more</summary><ul>{''.join(more)}</ul></details>" if more else ""
    return (
        f'<li class="{first.severity.value}"><span class="tag">{first.severity.value}</span>'
        f"<div><h3>{_text(first.code.value.replace('-', ' ').capitalize())}{count}</h3>"
        f'<p class="fix">{_text(first.fix[:1].upper() + first.fix[1:])}.</p>'
        f"<ul>{''.join(shown)}</ul>{rest}</div></li>\n"
    )


# -- the matrix


def _matrix(report: Report) -> str:
    severities = _severities(report)
    order = (Severity.ERROR, Severity.WARNING, None)
    entries = sorted(report.entries, key=lambda entry: order.index(severities.get((entry.method, entry.path))))
    columns = "".join(
        f'<th scope="col" class="scope" title="{_text(scope)}"><div><span>{_label(scope)}</span></div></th>'
        for scope in report.scopes
    )
    rows = "".join(_row(entry, report.scopes, severities.get((entry.method, entry.path))) for entry in entries)
    return (
        '<section aria-labelledby="matrix"><h2 id="matrix">Routes and scopes</h2>\n<div class="tools">'
        '<label>Filter <input type="search" id="filter" placeholder="path, method, scope, kind" autocomplete="off">'
        "</label>"
        '<span id="shown" role="status"></span>'
        '<ul class="legend"><li><i class="dot all"></i> needed</li><li><i class="dot any"></i> one way among several'
        "</li></ul></div>\n"
        '<div class="scroll" role="region" aria-labelledby="matrix" tabindex="0"><table>\n'
        "<caption>Who may pass each route. Routes with errors come first.</caption>\n"
        f"<colgroup><col><col>{'<col>' * len(report.scopes)}</colgroup>\n"
        f'<thead><tr><th scope="col" class="route">Route</th><th scope="col" class="access">Open to</th>{columns}'
        f"</tr></thead>\n<tbody>\n{rows}</tbody></table></div></section>\n"
    )


def _severities(report: Report) -> Mapping[tuple[str, str], Severity]:
    """The worst that was found about each method and path."""
    worst: dict[tuple[str, str], Severity] = {}
    for finding in report.findings:  # errors come first
        methods, _, path = finding.where.partition(" ")
        for method in methods.split(","):
            worst.setdefault((method, path), finding.severity)
    return worst


def _label(scope: str) -> str:
    """The part of a long scope that tells it from others; the whole stands in its title and in the list below."""
    tail = scope.rstrip("/").rpartition("/")[2] if "://" in scope else scope
    return _text(tail if len(tail) <= 28 else f"{tail[:27]}…")


_SHORT: Final = {**WORDS, Kind.SCOPES: "", Kind.AUTHENTICATED: "any token", Kind.OPTIONAL: "token or none"}


def _row(entry: Entry, scopes: tuple[str, ...], severity: Severity | None) -> str:
    every = frozenset.intersection(*entry.alternatives) if entry.alternatives else frozenset()
    cells = []
    for scope in scopes:
        if scope in every:
            cells.append('<td><i class="dot all"></i><span class="unseen">needed</span></td>')
        elif scope in entry.scopes:
            cells.append('<td><i class="dot any"></i><span class="unseen">one way</span></td>')
        else:
            cells.append("<td></td>")
    notes = [
        ", ".join(entry.declared),
        f"tokens from {', '.join(entry.sources)}" if entry.sources not in ((), ("header",)) else "",
    ]
    mixed = len(entry.alternatives) > 1 and any(len(alternative) > 1 for alternative in entry.alternatives)
    notes += [entry.access if mixed else "", *(f"except {exception}" for exception in entry.exceptions)]
    shown = "".join(f"<li>{_text(note)}</li>" for note in notes if note)
    kind = entry.kind.value
    words = _SHORT[entry.kind] or _ways(entry)
    return (
        f'<tr class="{kind} {severity.value if severity else "fine"}"><th scope="row"><div class="cell">'
        f'<span class="method m-{_text(entry.method.lower()) if entry.method.isalpha() else "any"}">'
        f"{_text(entry.method if entry.method != '*' else 'ANY')}</span><div>"
        f'<code class="path" title="{_text(entry.endpoint)}">{_text(entry.path)}</code>'
        f"{'<span class=opaque>opaque app</span>' if entry.opaque else ''}"
        f"{f'<span class=tag>{severity.value}</span>' if severity else ''}"
        f'<ul class="notes">{shown}</ul></div></div></th>'
        f'<td class="access"><span class="kind">{words}</span></td>{"".join(cells)}</tr>\n'
    )


def _ways(entry: Entry) -> str:
    number = len(entry.scopes)
    if len(entry.alternatives) == 1:
        return "1 scope" if number == 1 else f"all of {number}"
    return (
        f"any of {number}"
        if all(len(scopes) == 1 for scopes in entry.alternatives)
        else (f"{len(entry.alternatives)} ways")
    )


def _scopes(report: Report) -> str:
    if not report.scopes:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><code>{_text(scope)}</code></th>'
        f"<td>{sum(scope in entry.scopes for entry in report.entries)}</td>"
        f"<td>{sum(frozenset({scope}) in entry.alternatives for entry in report.entries)}</td></tr>\n"
        for scope in report.scopes
    )
    return (
        '<section aria-labelledby="scopes"><h2 id="scopes">Scopes</h2>\n<div class="scroll short" role="region" '
        'aria-labelledby="scopes" tabindex="0"><table class="plain"><thead><tr><th scope="col">Scope</th>'
        '<th scope="col">Routes that name it</th><th scope="col">Routes it opens alone</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div></section>\n"
    )
