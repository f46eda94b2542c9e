"""The result of an audit, as values; and as JSON, whose shape is stable within a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from scopeguard.guard import Guard
from scopeguard.scopes import is_scope

JSON_VERSION: Final = 1


class Kind(StrEnum):
    """Who may pass a route."""

    SCOPES = "scopes"  # a token with the scopes of one alternative
    AUTHENTICATED = "authenticated"  # any valid token
    OPTIONAL = "optional"  # no token, or a valid one
    PUBLIC = "public"  # everybody, because somebody said so
    DENIED = "denied"  # nobody: no rule opens it
    UNGUARDED = "unguarded"  # everybody, because nobody said anything


class Severity(StrEnum):
    """Whether a finding is wrong, or merely worth knowing."""

    ERROR = "error"
    WARNING = "warning"


class Code(StrEnum):
    """What a finding is about. Codes are stable: a build may rely on them."""

    UNGUARDED = "unguarded"
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
    UNREADABLE = "unreadable"
    CORS_INSIDE_GUARD = "cors-inside-guard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to do. *where* is a route, a rule or an issuer; *fix* what to do about it."""

    severity: Severity
    code: Code
    where: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One route and method. *method* is ``*`` for all of them. *alternatives*: sets of scopes, any of which opens it.

    *sources*: where it takes tokens. *declared*: who says so, from outside in. *exceptions*: what other rules say about
    some of its paths. *opaque*: an app that cannot be looked into; then *path* is that of a rule, or of its mount.
    """

    method: str
    path: str
    kind: Kind
    alternatives: tuple[frozenset[str], ...] = ()
    sources: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    endpoint: str = ""
    opaque: bool = False

    @property
    def scope_sets(self) -> tuple[frozenset[str], ...]:
        """The alternatives without their conditions, whose texts are no scopes: they contain a space."""
        return tuple(frozenset(filter(is_scope, alternative)) for alternative in self.alternatives)

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that occurs in an alternative."""
        return frozenset().union(*self.scope_sets)

    @property
    def where(self) -> str:
        """The route as people write it."""
        return f"{self.method} {self.path}"

    @property
    def access(self) -> str:
        """What it requires, in words."""
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
class Report:
    """What was found out about *target*. *entries* in the order of the app's routes, *findings* errors first,
    *guards* as they were found, from outside in."""

    target: str
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    guards: tuple[Guard, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is allowed and may surprise."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.WARNING)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every scope that any route requires, in order."""
        return tuple(sorted(frozenset().union(*(entry.scopes for entry in self.entries))))

    @property
    def summary(self) -> str:
        """One sentence."""
        counts = ((len(self.entries), "route"), (len(self.errors), "error"), (len(self.warnings), "warning"))
        return ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts)

    def as_json(self) -> dict[str, Any]:
        """For ``json.dumps``. Members are added to a version, and neither removed nor given another meaning.

        ``{"version": 1, "target", "summary": {"routes", "errors", "warnings"}, "guards": [{"realm", "issuers"}],
        "scopes": [...], "findings": [{"severity", "code", "where", "message", "fix"}], "routes": [{"method", "path",
        "access", "any_of": [[...]], "token_sources", "declared", "exceptions", "endpoint", "opaque"}]}``
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
                    "exceptions": list(entry.exceptions),
                    "endpoint": entry.endpoint,
                    "opaque": entry.opaque,
                }
                for entry in self.entries
            ],
        }
