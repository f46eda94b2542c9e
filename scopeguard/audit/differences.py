"""What a guard and the app inside it may read differently: findings of an audit."""

from __future__ import annotations

from typing import Final

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.inspection import inside
from scopeguard.audit.report import Code
from scopeguard.errors import printable
from scopeguard.rules.routed import RoutedRules

_MOST_NAMES: Final = 3

_ROOT_PATH_FIX: Final = (
    "rules hold for the path with and without it; give root_path to the server, or put the guard around that app"
)
_UNKNOWN_PATH_FIX: Final = (
    "until that is known, rules hold for every path that ends like theirs; say what is taken off with "
    'GuardMiddleware(root_path="/api"), or root_path="" for nothing'
)
_METHOD_OVERRIDE_FIX: Final = "put it outside of the guard, or remove it"


def doubts(layer: Layer, at: str) -> list[tuple[Code, str, str, str]]:
    """Code, place, message and fix of each doubt about what is inside *layer*, which stands at the path *at*."""
    told = inside(layer.app, layer.root_path)
    found: list[tuple[Code, str, str, str]] = []
    for place, name, own in told.hidden:
        message = (
            f"{printable(name)} takes {printable(own)} off the path before it routes, where it is easily overlooked"
        )
        found.append((Code.ROOT_PATH, f"* {at}{place or '/'}", message, _ROOT_PATH_FIX))
    if told.unknown and not RoutedRules(layer.rules, told.prefixes).is_plain:
        names = ", ".join(map(printable, told.unknown[:_MOST_NAMES]))
        message = f"it cannot be seen which path {names} leaves for routing"
        found.append((Code.UNKNOWN_PATH, f"* {at or '/'}", message, _UNKNOWN_PATH_FIX))
    for name in told.overrides:
        message = (
            f"{printable(name)} may change the method of a request after the guard has judged the one that was sent"
        )
        found.append((Code.METHOD_OVERRIDE, f"* {at or '/'}", message, _METHOD_OVERRIDE_FIX))
    return found
