"""The combined requirement of a rule and a view, for adapters in which views declare what they require."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

from scopeguard.adapter.declarations import REQUIREMENT, SOURCES, access_of
from scopeguard.config.dpop import DPoPMode
from scopeguard.config.policy import Policy
from scopeguard.config.token_sources import TokenSource, TokenSources, join_sources
from scopeguard.core.engine import Engine
from scopeguard.rules import DENIED, Access, Rule, Rules
from scopeguard.rules.rule import strictest
from scopeguard.scopes import Requirement, all_of


class RouteAccess:
    """The combined requirement of *rule* and *view* for a request. The stricter of the two holds.

    *marked*: the objects that decorators may have marked for *view*, the most specific first. *closed*: every request
    is denied. *is_plain*: a valid token in one of the guard's places that satisfies *requirement* suffices. *policies*:
    what decides after the token.
    """

    __slots__ = (
        "access", "closed", "dpop", "is_plain", "policies", "requirement", "requirements", "sources",
        "token_sources", "view",
    )  # fmt: skip

    def __init__(self, rule: Rule | None, view: Any, marked: Iterable[Any], engine: Engine, rules: Rules) -> None:
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
        self.token_sources: TokenSources = engine.sources if self.sources is None else engine.sources.only(self.sources)
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
