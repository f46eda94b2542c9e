"""What decorators and dependencies in an app require, for the challenge of a guard around it.

Middleware judges a token before the app routes the request. A refusal that names only what rules say would send the
caller away for a token that the route refuses next, with the scopes that it needs (RFC 6750 section 3).
"""

from __future__ import annotations

from typing import Any

from scopeguard.audit.route import WEBSOCKET, Around, Found
from scopeguard.audit.walk import walk
from scopeguard.errors import ConfigurationError
from scopeguard.rules import PUBLIC, Rule, Rules
from scopeguard.scopes import Requirement, all_of


class RouteNeeds:
    """The requirements that the routes of *app* declare. They are read once, when the first refusal asks for them.

    For challenges only, and no decision: paths are matched by templates, which know nothing of converters such as
    ``{id:int}``.
    """

    __slots__ = ("_app", "_rules")

    def __init__(self, app: Any) -> None:
        self._app = app
        self._rules: Rules | None = None

    def beside(self, requirement: Requirement | None, method: str, path: str) -> Requirement | None:
        """*requirement*, and what the route of a request declares."""
        rules = self._rules
        if rules is None:
            rules = self._rules = Rules(_declared(self._app))
        found = rules.find(method, path)
        declared = None if found is None else found.requirement
        if declared is None or requirement is None or declared == requirement:
            return requirement if declared is None else declared
        return all_of(requirement, declared)


def _declared(app: Any) -> list[Rule]:
    try:
        found = walk(app, Around())
    except Exception:  # noqa: BLE001 - an app may be made of anything, and a refusal does not fail for want of a hint
        return []
    return [rule for route in found for rule in _rule(route)]


def _rule(route: Found) -> list[Rule]:
    requirements = [item.access for item in route.declared if isinstance(item.access, Requirement)]
    methods = None if route.methods is None else sorted("GET" if name == WEBSOCKET else name for name in route.methods)
    try:
        # A route that declares nothing hides later ones all the same.
        return [Rule(route.path, all_of(*requirements) if requirements else PUBLIC, methods)]
    except ConfigurationError:  # a path that rules cannot express
        return []
