"""Findings about requests that a guard and the app inside it may read differently."""

from __future__ import annotations

from typing import Final

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.inspection import inspect_app
from scopeguard.audit.report import Code
from scopeguard.guard import engine_of
from scopeguard.log_values import printable
from scopeguard.rules.prefix_removal import RoutedRules

_MOST_NAMES: Final = 3

_ROOT_PATH_FIX: Final = (
    "rules hold for the path with and without it; set root_path in the server, or put the guard around that app"
)
_UNKNOWN_PATH_FIX: Final = (
    "rules therefore hold for every path that ends with theirs; name the prefix that is removed, as in "
    'GuardMiddleware(root_path="/api"), or root_path="" for none'
)
_METHOD_OVERRIDE_FIX: Final = "put it around the guard, or remove it"


def find_differences(layer: Layer, at: str) -> list[tuple[Code, str, str, str]]:
    """Return the code, place, message and fix of each finding about the app in *layer*, which is at the path *at*."""
    inspection = inspect_app(layer.app, layer.root_path)
    found: list[tuple[Code, str, str, str]] = []
    for place, name, own in inspection.hidden:
        message = (
            f"{printable(name)} removes {printable(own)} from the path before it routes, which is easily overlooked"
        )
        found.append((Code.ROOT_PATH, f"* {at}{place or '/'}", message, _ROOT_PATH_FIX))
    rules = RoutedRules(layer.rules, inspection.prefixes, engine_of(layer.guard).sources.methods)
    if inspection.unknown and not rules.is_plain:
        names = ", ".join(map(printable, inspection.unknown[:_MOST_NAMES]))
        message = f"the audit cannot tell by which path {names} routes"
        found.append((Code.UNKNOWN_PATH, f"* {at or '/'}", message, _UNKNOWN_PATH_FIX))
    for name in inspection.overrides:
        message = f"{printable(name)} may change the method of a request after the guard has checked it"
        found.append((Code.METHOD_OVERRIDE, f"* {at or '/'}", message, _METHOD_OVERRIDE_FIX))
    return found
