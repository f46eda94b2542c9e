"""The requirements that decorators and dependencies in an app declare, for the challenge of middleware around it.

Middleware checks a token before the app routes the request. If its challenge named only the scopes of the rules, the
client would request a token with them, and the route would refuse that token for its own scopes (RFC 6750 section 3).
"""

from __future__ import annotations

from typing import Any

from scopeguard.audit.route import WEBSOCKET, AppRoute, Surroundings
from scopeguard.audit.walk import find_routes
from scopeguard.errors import ConfigurationError
from scopeguard.rules import PUBLIC, Rule, Rules
from scopeguard.scopes import Requirement, all_of


class RouteRequirements:
    """The requirements that the routes of *app* declare, read once, at the first refusal.

    They are used for challenges and not for decisions: templates match more paths than converters such as ``{id:int}``.
    """

    __slots__ = ("__weakref__", "_app", "_rules", "rules")

    def __init__(self, app: Any, rules: Rules | None = None) -> None:
        self.rules: Rules = Rules() if rules is None else rules
        """The rules of the adapter around the app."""
        self._app = app
        self._rules: Rules | None = None

    def combine(self, requirement: Requirement | None, method: str, path: str) -> Requirement | None:
        """Return *requirement* together with the one that the route of *method* and *path* declares."""
        found = self._load_rules().find(method, path)
        declared = None if found is None else found.requirement
        if declared is None or requirement is None or declared == requirement:
            return requirement if declared is None else declared
        try:
            return all_of(requirement, declared)
        except ConfigurationError:  # more alternatives than a requirement may have; each of the two is checked alone
            return requirement

    def declared_rules(self) -> tuple[Rule, ...]:
        """Return the declarations of the app's routes as rules."""
        return self._load_rules().all

    def _load_rules(self) -> Rules:
        rules = self._rules
        if rules is None:
            rules = self._rules = Rules(_read_rules(self._app))
        return rules


def _read_rules(app: Any) -> list[Rule]:
    try:
        routes = find_routes(app, Surroundings())
    except Exception:  # noqa: BLE001 - any object may be an app, and a refusal must not fail for lack of a hint
        return []
    return [rule for route in routes for rule in rules_of(route)]


def rules_of(route: AppRoute) -> list[Rule]:
    """Return the requirements of *route* as one rule, which is public if there are none.

    The result is empty if rules cannot express the path.
    """
    requirements = [item.access for item in route.declared if isinstance(item.access, Requirement)]
    sources = frozenset().union(*(item.sources or () for item in route.declared))
    methods = None if route.methods is None else sorted("GET" if name == WEBSOCKET else name for name in route.methods)
    try:
        # A route without a requirement needs a rule, too: it shadows later routes.
        return [Rule(route.path, all_of(*requirements) if requirements else PUBLIC, methods, sources or None)]
    except ConfigurationError:  # rules cannot express the path
        return []
