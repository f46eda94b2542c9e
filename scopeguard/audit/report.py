"""The result of an audit, as Python values and as JSON. Within a version, the JSON only gets new members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from scopeguard.guard import Guard
from scopeguard.scopes import is_scope

JSON_VERSION: Final = 1


class Kind(StrEnum):
    """The requests that a route accepts."""

    SCOPES = "scopes"  # a token with the scopes of one alternative
    AUTHENTICATED = "authenticated"  # any valid token
    OPTIONAL = "optional"  # no token, or a valid one
    PUBLIC = "public"  # every request, as declared
    DENIED = "denied"  # no request: a rule denies it, or no rule matches
    UNGUARDED = "unguarded"  # every request, and nothing declares that


class Severity(StrEnum):
    """The severity of a finding: a mistake, or a fact that may be unexpected."""

    ERROR = "error"
    WARNING = "warning"


class Code(StrEnum):
    """The kind of a finding. Codes are stable, so that a build may rely on them."""

    UNGUARDED = "unguarded"
    OPEN_DOCUMENTATION = "open-documentation"
    SHADOWED_RULE = "shadowed-rule"
    RULE_WITHOUT_ROUTE = "rule-without-route"
    UNGRANTABLE_SCOPE = "ungrantable-scope"
    DECORATOR_ON_PUBLIC = "decorator-on-public"
    DECORATOR_PASSED_BY = "decorator-passed-by"
    DECORATOR_WITHOUT_GUARD = "decorator-without-guard"
    QUERY_TOKENS = "query-tokens"
    ANY_AUDIENCE = "any-audience"
    OPTIONAL_TOKEN = "optional-token"
    OPERATION_WITHOUT_ROUTE = "operation-without-route"
    ROUTE_WITHOUT_RULE = "route-without-rule"
    ROOT_PATH = "root-path"
    UNKNOWN_PATH = "unknown-path"
    METHOD_OVERRIDE = "method-override"
    CORS_INSIDE_GUARD = "cors-inside-guard"
    TOOL_WITHOUT_RULE = "tool-without-rule"
    RULE_WITHOUT_TOOL = "rule-without-tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding. *where*: a route, a rule or an issuer. *fix*: how to solve it."""

    severity: Severity
    code: Code
    where: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One route and method of an app, or one operation of an MCP server.

    For an operation, *method* is ``tool``, ``prompt``, ``resource`` or ``method``, and *path* its name or pattern.

    *method*: ``*`` for all methods. *alternatives*: sets of scopes and conditions, each of which suffices. *sources*:
    where the route takes tokens. *declared*: the middleware, rules, decorators and dependencies that require this, from
    the outermost to the route. *by_default*: nothing but a default of the guard requires a token. *exceptions*: the
    requirements of other rules for some of its paths. *opaque*: the app cannot be inspected, and *path* is that of a
    rule or of the mount.
    """

    method: str
    path: str
    kind: Kind
    alternatives: tuple[frozenset[str], ...] = ()
    sources: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    by_default: bool = False
    exceptions: tuple[str, ...] = ()
    endpoint: str = ""
    opaque: bool = False

    @property
    def scope_sets(self) -> tuple[frozenset[str], ...]:
        """The alternatives without their conditions. A condition contains a space, which a scope cannot."""
        return tuple(frozenset(filter(is_scope, alternative)) for alternative in self.alternatives)

    @property
    def scopes(self) -> frozenset[str]:
        """All scopes of all alternatives."""
        return frozenset().union(*self.scope_sets)

    @property
    def where(self) -> str:
        """The method and the path, as in ``GET /tables``."""
        return f"{self.method} {self.path}"

    @property
    def access(self) -> str:
        """The requirement in words."""
        if self.kind is Kind.SCOPES:
            shown = [" + ".join(sorted(alternative)) for alternative in self.alternatives]
            return " or ".join(shown)
        return WORDS[self.kind]


WORDS: Final[Mapping[Kind, str]] = {
    Kind.SCOPES: "scopes",
    Kind.AUTHENTICATED: "any valid token",
    Kind.OPTIONAL: "a valid token or none",
    Kind.PUBLIC: "public",
    Kind.DENIED: "denied to all",
    Kind.UNGUARDED: "unguarded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """When and with what a report was made.

    *day*: as in ``2026-11-29``. *configuration*: the file, or ``None`` if the app has its own guards.
    """

    day: str
    version: str
    configuration: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report on *target*.

    *entries*: in the order of the routes of the app. *findings*: errors first. *guards*: the outermost first.
    *provenance*: for the HTML page, which is often read long after the audit. The other formats leave it out, so that
    reports on an app that has not changed are equal.
    """

    target: str
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    guards: tuple[Guard, ...] = ()
    provenance: Provenance | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are mistakes."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are allowed but may be unexpected."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.WARNING)

    @property
    def undeclared(self) -> tuple[str, ...]:
        """The methods and paths of routes for which nothing is declared, so that every valid token suffices."""
        methods: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.by_default:
                methods.setdefault(entry.path, []).append(entry.method)
        return tuple(f"{','.join(given)} {path}" for path, given in methods.items())

    @property
    def scopes(self) -> tuple[str, ...]:
        """All scopes that routes require, sorted."""
        return tuple(sorted(frozenset().union(*(entry.scopes for entry in self.entries))))

    @property
    def summary(self) -> str:
        """The numbers of routes, errors and warnings, as in ``"3 routes, 0 errors, 1 warning"``."""
        counts = ((len(self.entries), "route"), (len(self.errors), "error"), (len(self.warnings), "warning"))
        return ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts)

    def as_json(self) -> dict[str, Any]:
        """Return the report for ``json.dumps``. Within a version, members are added but never removed or changed.

        ``{"version": 1, "target", "summary": {"routes", "errors", "warnings"}, "guards": [{"realm", "issuers"}],
        "scopes": [...], "findings": [{"severity", "code", "where", "message", "fix"}], "routes": [{"method", "path",
        "access", "any_of": [[...]], "token_sources", "declared", "by_default", "exceptions", "endpoint", "opaque"}]}``
        """
        return {
            "version": JSON_VERSION,
            "target": self.target,
            "summary": {
                "routes": len(self.entries),
                "errors": len(self.errors),
                "warnings": len(self.warnings),
            },
            "guards": [
                {"realm": guard.style.realm, "issuers": [issuer.url for issuer in guard.issuers]}
                for guard in self.guards
            ],
            "scopes": list(self.scopes),
            "findings": [
                {
                    "severity": finding.severity.value,
                    "code": finding.code.value,
                    "where": finding.where,
                    "message": finding.message,
                    "fix": finding.fix,
                }
                for finding in self.findings
            ],
            "routes": [
                {
                    "method": entry.method,
                    "path": entry.path,
                    "access": entry.kind.value,
                    "any_of": [sorted(alternative) for alternative in entry.alternatives],
                    "token_sources": list(entry.sources),
                    "declared": list(entry.declared),
                    "by_default": entry.by_default,
                    "exceptions": list(entry.exceptions),
                    "endpoint": entry.endpoint,
                    "opaque": entry.opaque,
                }
                for entry in self.entries
            ],
        }
