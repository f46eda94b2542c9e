"""Reports as one HTML page for a security reviewer: the findings, then which scope opens which route.

The page loads nothing. Its content security policy allows only its own style sheet and script, by their hashes. Without
the script, the page shows everything and cannot be filtered.

The page is filled with :class:`string.Template`. Jinja2 was considered: it would be a further dependency of the audit,
and a page without conditions in its markup does not need it. :func:`fill` escapes all text, with :func:`html.escape`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from string import Template
from typing import Final

from scopeguard.audit import messages
from scopeguard.audit import page_templates as templates
from scopeguard.audit.report import WORDS, Code, Entry, Finding, Kind, Provenance, Report, Severity

_MOST_SHOWN: Final = 12
"""Findings of one kind that are visible at once. The reader can unfold the others."""
_LONGEST_LABEL: Final = 28


class Markup(str):
    """HTML. :func:`fill` escapes every other string."""

    __slots__ = ()


def fill(template: Template, **values: str | int) -> Markup:
    """Return *template* with *values*, escaped for an element or a quoted attribute unless they are :class:`Markup`.

    Characters that do not print, or that change the direction of text, become escape sequences.
    """
    texts = {name: value if isinstance(value, Markup) else _escape(str(value)) for name, value in values.items()}
    return Markup(template.substitute(texts))


def _escape(text: str) -> str:
    return escape(
        "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text),
        quote=True,
    )


def _join(parts: Iterable[Markup], separator: str = "") -> Markup:
    return Markup(separator.join(parts))


_NOTHING: Final = Markup("")


def as_html(report: Report) -> str:
    """Return the page for *report*. The page ends with a line feed."""
    style, script = templates.STYLE, templates.SCRIPT
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'"
    return fill(
        templates.PAGE,
        policy=Markup(policy),
        target=report.target,
        style=Markup(style),
        script=Markup(script),
        verdict="bad" if report.errors else "odd" if report.warnings else "good",
        provenance=_provenance(report.provenance),
        counts=_counts(report),
        guards=_guards(report),
        findings=_join([_findings(report), _any_token(report)]),
        matrix=_matrix(report),
        scopes=_scopes(report),
    )


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _provenance(found: Provenance | None) -> Markup:
    if found is None:
        return _NOTHING
    file = found.configuration
    configuration = "that of the app" if file is None else fill(templates.CODE, text=file)
    return fill(templates.PROVENANCE, day=found.day, version=found.version, configuration=configuration)


def _counts(report: Report) -> Markup:
    errors, warnings = len(report.errors), len(report.warnings)
    counts = (
        (errors, "error", "errors" if errors else "errors none"),
        (warnings, "warning", "warnings" if warnings else "warnings none"),
        (len(report.entries), "route", "routes"),
        (len(report.scopes), "scope", "scopes"),
    )
    return _join(
        fill(templates.COUNT, number=number, noun=noun if number == 1 else f"{noun}s", kind=kind)
        for number, noun, kind in counts
    )


def _guards(report: Report) -> Markup:
    guards = _join(
        fill(
            templates.GUARD,
            realm=guard.style.realm,
            issuers=_join((fill(templates.CODE, text=issuer.url) for issuer in guard.issuers), ", ") or "a resolver",
        )
        for guard in report.guards
    )
    return fill(templates.GUARDS, guards=guards) if guards else _NOTHING


# -- findings


def _findings(report: Report) -> Markup:
    if not report.findings:
        return Markup(templates.NO_FINDINGS)
    groups: dict[tuple[Severity, Code, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.code, finding.fix), []).append(finding)
    return fill(templates.FINDINGS, groups=_join(map(_finding_group, groups.values())))


def _finding_group(findings: list[Finding]) -> Markup:
    """Return the markup for *findings* with the same severity, code and fix."""
    first = findings[0]
    messages = {item.message for item in findings}
    # A message that all have in common is shown once, above the routes.
    common = fill(templates.MESSAGE, message=_sentence(first.message)) if len(messages) == 1 else _NOTHING
    items = [
        fill(templates.FINDING, where=item.where, message=_NOTHING if common else f" {item.message}")
        for item in findings
    ]
    shown, more = items[:_MOST_SHOWN], items[_MOST_SHOWN:]
    return fill(
        templates.FINDING_GROUP,
        severity=first.severity.value,
        title=first.code.value.replace("-", " ").capitalize(),
        count=fill(templates.GROUP_COUNT, number=len(findings)) if len(findings) > 1 else _NOTHING,
        message=common,
        fix=_sentence(first.fix),
        shown=_join(shown),
        more=fill(templates.MORE_FINDINGS, number=len(more), findings=_join(more)) if more else _NOTHING,
    )


def _any_token(report: Report) -> Markup:
    """Return the section on routes for which nothing is declared."""
    if not report.undeclared:
        return _NOTHING
    message, fix = messages.ANY_TOKEN
    return fill(
        templates.ANY_TOKEN,
        message=_sentence(message),
        fix=_sentence(fix),
        routes=_join(fill(templates.FINDING, where=where, message=_NOTHING) for where in report.undeclared),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# -- the matrix of routes and scopes


def _matrix(report: Report) -> Markup:
    severities = _severities(report)
    order = (Severity.ERROR, Severity.WARNING, None)
    entries = sorted(report.entries, key=lambda entry: order.index(severities.get((entry.method, entry.path))))
    return fill(
        templates.MATRIX,
        columns=Markup("<col>" * len(report.scopes)),
        headings=_join(fill(templates.HEADING, scope=scope, label=_label(scope)) for scope in report.scopes),
        rows=_join(_row(entry, report.scopes, severities.get((entry.method, entry.path))) for entry in entries),
    )


def _severities(report: Report) -> Mapping[tuple[str, str], Severity]:
    """Return the highest severity among the findings of each method and path."""
    highest: dict[tuple[str, str], Severity] = {}
    for finding in report.findings:  # errors come first
        methods, _, path = finding.where.partition(" ")
        for method in methods.split(","):
            highest.setdefault((method, path), finding.severity)
    return highest


def _label(scope: str) -> str:
    """Return the last part of a long scope. The title of its column has the whole scope."""
    tail = scope.rstrip("/").rpartition("/")[2] if "://" in scope else scope
    return tail if len(tail) <= _LONGEST_LABEL else f"{tail[: _LONGEST_LABEL - 1]}…"


_SHORT: Final = {**WORDS, Kind.SCOPES: "", Kind.AUTHENTICATED: "any token", Kind.OPTIONAL: "token or none"}


def _row(entry: Entry, scopes: tuple[str, ...], severity: Severity | None) -> Markup:
    return fill(
        templates.ROW,
        kind=entry.kind.value,
        state=severity.value if severity else "fine",
        method_class=entry.method.lower() if entry.method.isalpha() else "any",
        method=entry.method if entry.method != "*" else "ANY",
        endpoint=entry.endpoint,
        path=entry.path,
        opaque=Markup(templates.OPAQUE) if entry.opaque else _NOTHING,
        tag=fill(templates.TAG, severity=severity.value) if severity else _NOTHING,
        notes=_join(fill(templates.NOTE, text=note) for note in _notes(entry)),
        access=_SHORT[entry.kind] or _summary(entry),
        needs=_needs(entry),
        cells=_cells(entry, scopes),
    )


def _needs(entry: Entry) -> Markup:
    """Return what *entry* requires as text, for screens that are too narrow for the columns of the scopes."""
    if entry.kind is not Kind.SCOPES or entry.access in _notes(entry):
        return _NOTHING
    return fill(templates.NEEDS, text=entry.access)


def _cells(entry: Entry, scopes: tuple[str, ...]) -> Markup:
    required = frozenset.intersection(*entry.alternatives) if entry.alternatives else frozenset()
    return Markup(
        "".join(
            templates.REQUIRED
            if scope in required
            else templates.ALTERNATIVE
            if scope in entry.scopes
            else templates.NOT_REQUIRED
            for scope in scopes
        )
    )


def _notes(entry: Entry) -> list[str]:
    notes = [", ".join(entry.declared)]
    if entry.sources not in ((), ("header",)):
        notes.append(f"tokens from {', '.join(entry.sources)}")
    is_combined = len(entry.alternatives) > 1 and any(len(alternative) > 1 for alternative in entry.alternatives)
    if is_combined or _has_conditions(entry):
        notes.append(entry.access)
    notes += [f"except {exception}" for exception in entry.exceptions]
    return [note for note in notes if note]


def _has_conditions(entry: Entry) -> bool:
    return entry.alternatives != entry.scope_sets


def _summary(entry: Entry) -> str:
    """Return the number of scopes that *entry* requires."""
    number = len(entry.scopes)
    if _has_conditions(entry):
        return "conditions" if number == 0 else f"{number} scope{'' if number == 1 else 's'}, conditions"
    if len(entry.alternatives) == 1:
        return "1 scope" if number == 1 else f"all of {number}"
    if all(len(scopes) == 1 for scopes in entry.alternatives):
        return f"any of {number}"
    return f"{len(entry.alternatives)} ways"


def _scopes(report: Report) -> Markup:
    if not report.scopes:
        return _NOTHING
    rows = _join(
        fill(
            templates.SCOPE,
            scope=scope,
            named=sum(scope in entry.scopes for entry in report.entries),
            alone=sum(frozenset({scope}) in entry.alternatives for entry in report.entries),
        )
        for scope in report.scopes
    )
    return fill(templates.SCOPES, rows=rows)
