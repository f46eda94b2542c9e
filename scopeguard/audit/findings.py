"""Find the requirements of each route of an app, and the problems with them, and make the report.

Longer than 400 lines because the verdict on a route and its findings are collected in one walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.adapter.declarations import Declaration, Layer
from scopeguard.audit import messages
from scopeguard.audit.differences import find_differences
from scopeguard.audit.matching import Index, example_path
from scopeguard.audit.mcp_operations import check_tools, describe_operations
from scopeguard.audit.report import Code, Entry, Finding, Kind, Report, Severity
from scopeguard.audit.route import WEBSOCKET, AppRoute, Surroundings, find_bypassing_routes
from scopeguard.audit.scopes import find_ungrantable
from scopeguard.audit.walk import find_routes
from scopeguard.config.token_sources import TokenSource
from scopeguard.guard import Guard
from scopeguard.rules import DENIED, PUBLIC, Access, Rule, Rules
from scopeguard.rules.rule import strictest
from scopeguard.scopes import AUTHENTICATED, Requirement

_OTHER: Final = "OTHER"  # a method that no rule names
_MOST_EXCEPTIONS: Final = 6
# The functions that FastAPI itself registers for /docs, /redoc, /openapi.json and /docs/oauth2-redirect. The app may
# choose other paths.
_DOCUMENTATION: Final = "fastapi.applications.FastAPI.setup."


def audit_app(
    app: Any,
    *,
    target: str = "app",
    public: Iterable[str] = (),
    granted: Mapping[str, frozenset[str]] | None = None,
    list_tools: Callable[[Any], Sequence[str] | None] | None = None,
) -> Report:
    """Return the report on *app*, for the guards around it, in it and at its routes.

    *target*: the name of the app in the report. *public*: templates of unguarded paths that are open on purpose.
    *granted*: the scopes that each issuer can grant, by the URL of the issuer. If an issuer is missing and the guard
    has no catalog, no scope is reported as ungrantable.
    *list_tools*: returns the names of the tools of an MCP server, ``None`` if they are not known.

    Not checked: the code of a route, and responses of other middleware.
    """
    return _Audit(Rules(public=public), granted or {}, list_tools).report(target, find_routes(app, Surroundings()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """The combined requirement of layers and declarations for one path and method."""

    kind: Kind
    requirement: Requirement | None
    sources: tuple[str, ...]
    declared: tuple[str, ...]
    opened: Rule | None  # the rule because of which middleware does not check a token
    decisions: frozenset[str] = frozenset()

    @property
    def alternatives(self) -> tuple[frozenset[str], ...]:
        if self.kind is not Kind.SCOPES or self.requirement is None:
            return ()
        return tuple(frozenset(terms) | self.decisions for terms in self.requirement.terms)


@dataclass(slots=True)
class _Collected:
    """The requirements of a route, collected from the outermost layer to the route."""

    requirements: list[Requirement] = field(default_factory=list)
    access: set[Access] = field(default_factory=set)
    by: list[str] = field(default_factory=list)
    sources: frozenset[TokenSource] = frozenset()
    denied: bool = False
    is_checked: bool = False
    opened: Rule | None = None
    decisions: set[str] = field(default_factory=set)

    def kind(self) -> tuple[Kind, Requirement | None]:
        if self.denied:
            return Kind.DENIED, None
        declared: tuple[Requirement | Access, ...] = (*self.requirements, *self.access)
        if not declared:
            return Kind.UNGUARDED, None
        whole = strictest(*declared)
        if isinstance(whole, Requirement):
            is_bare = whole == AUTHENTICATED and not self.decisions
            return (Kind.AUTHENTICATED if is_bare else Kind.SCOPES), whole
        return Kind(whole.value), None


class _Audit:
    def __init__(
        self,
        public: Rules,
        granted: Mapping[str, frozenset[str]],
        list_tools: Callable[[Any], Sequence[str] | None] | None,
    ) -> None:
        self._public = public
        self._granted = granted
        self._list_tools = list_tools
        self._indexes: dict[int, tuple[Layer, Index]] = {}
        self._layers: dict[int, tuple[Layer, str]] = {}
        self._used: set[int] = set()
        self._guards: dict[int, Guard] = {}
        self._findings: dict[tuple[Severity, Code, str, str, str], list[str]] = {}

    def report(self, target: str, found: Sequence[AppRoute]) -> Report:
        entries: list[Entry] = []
        for route in find_bypassing_routes(found):
            for method in _methods(route, ()):
                where = f"{method or '*'} {route.path}"
                self._add_finding(Severity.ERROR, Code.DECORATOR_PASSED_BY, where, *messages.DECORATOR_PASSED_BY)
        for route in (inner for item in found for inner in self._with_rules(item)):
            for layer, at in route.around.layers:
                self._index(layer)
                self._layers[id(layer)] = (layer, at)
            entries += [self._entry(route, method) for method in _methods(route, self._candidates(route))]
            self._check_cors(route)
        for layer, index in self._indexes.values():
            self._check_rules(layer, index)
        for layer, at in self._layers.values():
            if not layer.views_decide:  # the Flask extension sees the path that Flask routes on
                for code, where, message, fix in find_differences(layer, at):
                    self._add_finding(Severity.WARNING, code, where, message, fix)
        for layer, _ in self._layers.values():
            if layer.policy is not None:
                tools = None if self._list_tools is None else self._list_tools(layer.app)
                for entry in describe_operations(layer.guard, layer.policy, tools):
                    entries.append(entry)
                    self._check_scopes(entry, [layer.guard])
                for severity, code, where, (message, fix) in check_tools(layer.policy, tools):
                    self._add_finding(severity, code, where, message, fix)
        for guard in self._guards.values():
            self._check_guard(guard)
        return Report(
            target=target,
            entries=tuple(dict.fromkeys(entries)),
            findings=self._sorted_findings(),
            guards=tuple(self._guards.values()),
        )

    # -- the requirement of a route

    def _index(self, layer: Layer) -> Index:
        if id(layer.rules) not in self._indexes:
            self._indexes[id(layer.rules)] = (layer, Index(layer.rules))
        self._guards[id(layer.guard)] = layer.guard
        return self._indexes[id(layer.rules)][1]

    def _with_rules(self, route: AppRoute) -> list[AppRoute]:
        """Return *route* or, if it is opaque, a route for each rule that may match one of its paths."""
        if not route.opaque:
            return [route]
        from_rules: list[AppRoute] = []
        beginning = route.path.partition("{")[0]
        for layer, at in route.around.layers:
            for rule in self._index(layer).all:
                if (at + rule.path).startswith(beginning) and at + rule.path != route.path:
                    methods = None if rule.methods is None else frozenset(rule.methods)
                    from_rules.append(
                        AppRoute(
                            path=at + rule.path,
                            around=route.around,
                            methods=methods - {"HEAD"} if methods and "GET" in methods else methods,
                            endpoint=route.endpoint,
                            declared=route.declared,
                            opaque=True,
                        )
                    )
        return [*from_rules, route]

    def _candidates(self, route: AppRoute) -> list[Rule]:
        if route.opaque:
            return []
        return [
            rule
            for layer, at in route.around.layers
            for rule in self._index(layer).candidates(_path_below(route.path, at))
        ]

    def _entry(self, route: AppRoute, method: str | None) -> Entry:
        verdict = self._verdict(route, method, example_path(route.path))
        exceptions = self._exceptions(route, method, verdict)
        entry = Entry(
            method=method or "*",
            path=route.path,
            kind=verdict.kind,
            alternatives=verdict.alternatives,
            sources=verdict.sources,
            declared=verdict.declared,
            by_default=verdict.kind is Kind.AUTHENTICATED
            and {layer.default for layer, _ in route.around.layers}.issuperset(verdict.declared),
            exceptions=tuple(exceptions),
            endpoint=route.endpoint,
            opaque=route.opaque,
        )
        self._check_entry(entry, route, verdict)
        return entry

    def _exceptions(self, route: AppRoute, method: str | None, usual: _Verdict) -> list[str]:
        """Return the rules that require something else for some paths of *route*. Also record which rules decide."""
        found: dict[str, None] = {}
        for layer, at in route.around.layers:
            index = self._index(layer)
            below = _path_below(route.path, at)
            for path, rule in index.paths(below) if not route.opaque else [(example_path(below), None)]:
                for asked_method in _methods_to_ask(method):
                    decided = layer.rules.find(asked_method, path)
                    if decided is not None:
                        self._used.add(id(decided))
                if rule is None or layer.rules.find(_methods_to_ask(method)[0], path) is not rule:
                    continue
                verdict = self._verdict(route, method, at + path)
                if (verdict.kind, verdict.alternatives) != (usual.kind, usual.alternatives):
                    entry = Entry(method="*", path=path, kind=verdict.kind, alternatives=verdict.alternatives)
                    found[f"{at}{rule.path}: {entry.access}"] = None
        shown = list(found)
        more = len(shown) - _MOST_EXCEPTIONS
        return shown if more <= 0 else [*shown[:_MOST_EXCEPTIONS], f"and {more} more"]

    def _verdict(self, route: AppRoute, method: str | None, path: str) -> _Verdict:
        collected = _Collected()
        for layer, at in route.around.layers:
            self._add_layer(
                collected, layer, _methods_to_ask(method)[0], _path_below(path, at), decided_inside=bool(route.declared)
            )
        for declared in route.declared:
            self._add_declaration(collected, declared)
        if not collected.by and self._public.find(_methods_to_ask(method)[0], path) is not None:
            collected.access.add(PUBLIC)
            collected.by.append("--public")
        kind, requirement = collected.kind()
        open_to_all = kind in (Kind.PUBLIC, Kind.UNGUARDED, Kind.DENIED)
        return _Verdict(
            kind=kind,
            requirement=requirement,
            sources=() if open_to_all else tuple(sorted(source.value for source in collected.sources)),
            declared=tuple(dict.fromkeys(collected.by)),
            opened=collected.opened if not collected.is_checked else None,
            decisions=frozenset(collected.decisions),
        )

    def _add_layer(self, collected: _Collected, layer: Layer, method: str, path: str, *, decided_inside: bool) -> None:
        rule = layer.rules.find(method, path)
        sources = layer.guard.sources.methods if rule is None or rule.sources is None else rule.sources
        if rule is not None and rule.access is DENIED:
            collected.is_checked, collected.sources, collected.denied = True, sources, True
            collected.by.append(describe_rule(rule))
            return
        if rule is None:
            collected.is_checked, collected.sources = True, sources
            if layer.views_decide and decided_inside:
                return
            if layer.policy is not None:
                collected.requirements.append(AUTHENTICATED)
                collected.by.append(messages.MCP_RULES)
            elif layer.rules.deny_unmatched:
                collected.denied = True
                collected.by.append(messages.NO_RULE)
            else:
                collected.requirements.append(AUTHENTICATED)
                collected.by.append(layer.default)
            return
        collected.by.append(describe_rule(rule))
        if isinstance(rule.access, Requirement):
            collected.requirements.append(rule.access)
            collected.decisions.update(f"decision of {policy.title}" for policy in rule.policies)
        else:
            collected.access.add(rule.access)
        if rule.access is PUBLIC and not layer.views_decide:
            collected.opened = rule
        else:
            collected.is_checked, collected.sources = True, sources

    def _add_declaration(self, collected: _Collected, declared: Declaration) -> None:
        collected.by.append(declared.by)
        if isinstance(declared.access, Requirement):
            collected.requirements.append(declared.access)
        else:
            collected.access.add(declared.access)
        if declared.guard is not None:
            self._guards[id(declared.guard)] = declared.guard
            if not collected.is_checked:
                collected.sources = declared.guard.sources.methods
            collected.is_checked = True
        if declared.sources is not None:
            collected.sources = declared.sources

    # -- findings

    def _closes_rest(self, entry: Entry, route: AppRoute) -> bool:
        """Return whether *entry* is for all other methods of a route, and rules describe some of its methods."""
        if entry.method != "*":
            return False
        path, named = example_path(route.path), _methods(route, self._candidates(route))
        verdicts = [self._verdict(route, method, path) for method in named if method is not None]
        return any(messages.NO_RULE not in verdict.declared for verdict in verdicts)

    def _check_entry(self, entry: Entry, route: AppRoute, verdict: _Verdict) -> None:
        where = entry.where
        if entry.kind is Kind.UNGUARDED and entry.endpoint.startswith(_DOCUMENTATION):
            self._add_finding(Severity.WARNING, Code.OPEN_DOCUMENTATION, where, *messages.OPEN_DOCUMENTATION)
        elif entry.kind is Kind.UNGUARDED:
            self._add_finding(Severity.ERROR, Code.UNGUARDED, where, *messages.UNGUARDED)
        if entry.kind is Kind.OPTIONAL:
            self._add_finding(Severity.WARNING, Code.OPTIONAL_TOKEN, where, *messages.OPTIONAL_TOKEN)
        if messages.NO_RULE in entry.declared and not route.opaque and not self._closes_rest(entry, route):
            self._add_finding(Severity.WARNING, Code.ROUTE_WITHOUT_RULE, where, *messages.ROUTE_WITHOUT_RULE)
        if TokenSource.QUERY.value in entry.sources:
            self._add_finding(Severity.WARNING, Code.QUERY_TOKENS, where, *messages.QUERY_TOKENS)
        needs_layer = [item for item in route.declared if isinstance(item.access, Requirement) and item.guard is None]
        if needs_layer and not route.around.layers:
            self._add_finding(Severity.ERROR, Code.DECORATOR_WITHOUT_GUARD, where, *messages.DECORATOR_WITHOUT_GUARD)
        if needs_layer and verdict.opened is not None:
            message = f"{describe_rule(verdict.opened)} {messages.DECORATOR_ON_PUBLIC}"
            fix = "remove the path from public, or the decorator from the route"
            self._add_finding(Severity.ERROR, Code.DECORATOR_ON_PUBLIC, where, message, fix)
        guards = [layer.guard for layer, _ in route.around.layers]
        guards += [item.guard for item in route.declared if item.guard is not None]
        self._check_scopes(entry, guards)

    def _check_scopes(self, entry: Entry, guards: Iterable[Guard]) -> None:
        if entry.kind is Kind.SCOPES:
            for guard in guards:
                missing = find_ungrantable(entry.scope_sets, guard, self._granted)
                if missing is not None:
                    names = ", ".join(repr(scope) for scope in missing)
                    message = f"no issuer grants {names}, so no token opens this route"
                    self._add_finding(
                        Severity.ERROR, Code.UNGRANTABLE_SCOPE, entry.where, message, messages.UNGRANTABLE_FIX
                    )

    def _check_cors(self, route: AppRoute) -> None:
        """Report CORS middleware inside the guard if a path behind it is guarded."""
        cors, usual = route.around.cors, example_path(route.path)
        if cors and self._verdict(route, "OPTIONS", usual).kind not in (Kind.PUBLIC, Kind.UNGUARDED):
            self._add_finding(Severity.WARNING, Code.CORS_INSIDE_GUARD, f"* {cors}", *messages.CORS_INSIDE_GUARD)

    def _check_rules(self, layer: Layer, index: Index) -> None:
        shadowed = {id(found.rule): found.by for found in layer.rules.find_shadowed()}
        for rule in index.all:
            where = f"{_methods_of(rule)} {rule.path}"
            by = shadowed.get(id(rule))
            if by is not None:
                before = " and ".join(dict.fromkeys(map(describe_rule, by)))
                message = (
                    f"{describe_rule(rule)} can never decide: {before} comes first and matches all that it matches"
                )
                # Rules before a contract usually override it on purpose.
                severity = Severity.WARNING if _is_from_contract(rule) else Severity.ERROR
                self._add_finding(severity, Code.SHADOWED_RULE, where, message, "move it up, or remove it")
            elif id(rule) not in self._used and _is_from_contract(rule):
                message = f"the app has no route for {rule.source}"
                self._add_finding(
                    Severity.WARNING, Code.OPERATION_WITHOUT_ROUTE, where, message, messages.OPERATION_FIX
                )
            elif id(rule) not in self._used:
                message = f"{describe_rule(rule)} matches no route of the app"
                self._add_finding(Severity.ERROR, Code.RULE_WITHOUT_ROUTE, where, message, messages.RULE_FIX)

    def _check_guard(self, guard: Guard) -> None:
        for issuer in guard.issuers:
            if issuer.audiences is None:
                self._add_finding(Severity.WARNING, Code.ANY_AUDIENCE, f"issuer {issuer.url}", *messages.ANY_AUDIENCE)

    def _add_finding(self, severity: Severity, code: Code, where: str, message: str, fix: str) -> None:
        method, _, place = where.partition(" ")
        methods = self._findings.setdefault((severity, code, place, message, fix), [])
        if method not in methods:
            methods.append(method)

    def _sorted_findings(self) -> tuple[Finding, ...]:
        found = [
            Finding(severity=severity, code=code, where=f"{','.join(methods)} {place}", message=message, fix=fix)
            for (severity, code, place, message, fix), methods in self._findings.items()
        ]
        return tuple(sorted(found, key=lambda finding: (finding.severity is not Severity.ERROR, finding.code.value)))


def describe_rule(rule: Rule) -> str:
    """Return the source of *rule* or, without one, its access and path."""
    if rule.source is not None:
        return rule.source
    return f"{'public' if rule.access is PUBLIC else 'rule'} {rule.path}"


def _is_from_contract(rule: Rule) -> bool:
    """Return whether *rule* comes from an OpenAPI document. A rule in a TOML file was written for the app."""
    return rule.source is not None and "[[rules]]" not in rule.source


def _methods_of(rule: Rule) -> str:
    methods = frozenset(rule.methods or ())
    return ",".join(sorted(methods - {"HEAD"} if "GET" in methods else methods)) or "*"


def _path_below(path: str, at: str) -> str:
    return path[len(at) :] or "/"


def _methods_to_ask(method: str | None) -> tuple[str, ...]:
    """Return the methods to ask the rules about for one row of the report, beginning with the method of the row."""
    if method is None:
        return (_OTHER,)
    if method == WEBSOCKET:
        return ("GET",)
    return (method, "HEAD", "OPTIONS") if method == "GET" else (method, "OPTIONS")


def _methods(route: AppRoute, candidates: Iterable[Rule]) -> list[str | None]:
    """Return the methods of the rows for *route*.

    A route for any method has a row for each method that rules name, and one for all others (``None``).
    """
    if route.methods is not None:
        return [*sorted(route.methods)]
    named_methods = sorted({method for rule in candidates for method in rule.methods or ()} - {"HEAD"})
    return [*named_methods, None]
