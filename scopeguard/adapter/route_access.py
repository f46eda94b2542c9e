"""The rules of an adapter whose views declare what they require, and the combined requirement of a rule and a view."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import reduce
from typing import Any, Final, Generic, TypeVar

from scopeguard.adapter.declarations import REQUIREMENT, SOURCES, access_of
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.policy import Policy
from scopeguard.config.token_sources import TokenSource, TokenSources, join_sources
from scopeguard.core.engine import Engine
from scopeguard.rules import DENIED, OPTIONAL, Access, Rule, Rules
from scopeguard.rules.rule import strictest
from scopeguard.scopes import Requirement, all_of

_ANYTHING: Final = "/{rest:path}"
_REST: Final = Rule(_ANYTHING, OPTIONAL)
AMBIGUOUS: Final = Rule(_ANYTHING, DENIED)
"""The rule for a request that has several readings with different rules. It denies the request."""
MOST_ROUTES: Final = 4096
"""Routes whose combined requirements are kept."""


class RouteAccess:
    """The combined requirement of *rule* and *view* for a request. The stricter of the two holds.

    *marked*: the objects that decorators may have marked for *view*, the most specific first. *closed*: every request
    is denied. *is_plain*: a valid token in one of the guard's places that satisfies *requirement* suffices. *policies*:
    what decides after the token.
    """

    __slots__ = (
        "_combined", "access", "closed", "dpop", "is_plain", "policies", "requirement", "requirements", "rule",
        "sources", "token_sources", "view",
    )  # fmt: skip

    def __init__(self, rule: Rule | None, view: Any, marked: Iterable[Any], engine: Engine, rules: Rules) -> None:
        self._combined: tuple[Rule | None] | None = None
        self.rule: Rule | None = rule
        self.view: Any = view
        found = list(marked)
        requirements = tuple(getattr(item, REQUIREMENT) for item in found if hasattr(item, REQUIREMENT))
        accesses = {access_of(item) for item in found}
        sources = [places for item in found if (places := getattr(item, SOURCES, None)) is not None]
        if rule is not None:
            if rule.requirement is not None:
                requirements = (rule.requirement, *requirements)
            elif isinstance(rule.access, Access):
                accesses.add(rule.access)
            if rule.sources is not None:
                sources.append(rule.sources)
        self.requirements: tuple[Requirement, ...] = requirements
        self.requirement: Requirement | None = all_of(*requirements) if requirements else None
        declared = (*requirements, *(access for access in accesses if access is not None))
        self.access: Requirement | Access | None = strictest(*declared) if declared else None
        self.closed: bool = self.access is DENIED or (self.access is None and rules.closes(rule))
        self.sources: frozenset[TokenSource] | None = reduce(join_sources, sources) if sources else None
        if self.sources is not None and not self.sources:  # the rule and the view accept different credentials
            self.sources, self.closed = None, True
        self.token_sources: TokenSources = engine.sources_for(self.sources)
        self.token_sources.check_senders()
        self.policies: tuple[Policy, ...] = () if rule is None else rule.policies
        self.dpop: DPoPMode | None = None if rule is None else rule.mode
        has_more = self.sources is not None or self.policies or self.dpop is not None
        self.is_plain: bool = not self.closed and not has_more

    def add_requirements(self, later: Iterable[Requirement]) -> None:
        """Add requirements that are checked *later*, unless the route is open or closed."""
        more = tuple(later)
        if more and not self.closed and not isinstance(self.access, Access):
            self.requirements += more
            self.access = self.requirement = all_of(*self.requirements)

    @property
    def combined(self) -> Rule | None:
        """One rule for the request, or ``None`` if neither the rule nor the view declares anything."""
        if self._combined is None:
            self._combined = (self._combine(),)
        return self._combined[0]

    def _combine(self) -> Rule | None:
        rule = self.rule
        if self.access is None:
            return rule
        path, source = (_ANYTHING, None) if rule is None else (rule.path, rule.source)
        if self.closed:
            return Rule(path, DENIED, source=source)
        if rule is not None and (self.access, self.sources) == (rule.access, rule.sources):
            return rule
        combined = Rule(path, self.access, token_sources=self.sources, source=source, dpop=self.dpop)
        return combined.with_policies(self.policies)


Route = TypeVar("Route", bound=RouteAccess)


class ViewRules(Generic[Route]):
    """*rules*, for an adapter that looks up the view of a request before it checks the request."""

    __slots__ = ("_matches_every_path", "_routes", "rules")

    def __init__(self, rules: Rules) -> None:
        self.rules: Rules = rules
        self._matches_every_path = Rules([*rules.all, _REST])
        self._routes: dict[Hashable, Route] = {}

    def find(self, method: str, path: str, raw_path: bytes | None) -> Rule | None:
        """Return the rule for a request; ``None`` if no reading of its path matches a rule, so that the view decides.

        If the readings lead to different rules, the result denies the request: the declaration of the view must not
        replace the rule that one of them has.
        """
        rule = self.rules.find(method, path, raw_path)
        if rule is None and self.rules.deny_unmatched:
            return None if self._matches_every_path.find(method, path, raw_path) is _REST else AMBIGUOUS
        return rule

    def route(self, rule: Rule | None, view: Any, key: Hashable, make: Callable[[], Route]) -> Route:
        """Return the combined requirement of *rule* and *view*, which *make* computes once for each *key* and rule."""
        known = (id(rule), key)
        route = self._routes.get(known)
        if route is None or route.view is not view:
            route = make()
            if len(self._routes) < MOST_ROUTES:
                self._routes[known] = route
        return route
