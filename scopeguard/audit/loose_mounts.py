"""Mounts whose prefix need not end where a segment of the path ends.

A rule for ``/files/{rest:path}`` does not match ``/filesx``, but the app that is mounted at ``/files`` gets it. So a
request with such a path is denied.

The functions that this module returns take a path and its rule, and say whether the path is one of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from scopeguard.rules import Rule
from scopeguard.rules.template_syntax import One

Gets = Callable[[str, Rule], bool]


def litestar_mounts(app: Any, beginning: str) -> list[Gets]:
    """Return a function for each mount of a Litestar app. The mounted app gets the rest of the path, such as ``x``.

    *beginning*: the path at which *app* itself is mounted. Litestar looks for routes without parameters first.
    """
    mounts = {route for route in app.routes if getattr(getattr(route, "route_handler", None), "is_mount", False)}
    others = {beginning + route.path for route in app.routes if route not in mounts and not route.path_parameters}

    def check(mount: str) -> Gets:
        return lambda path, _: _breaks(path, mount) and path.rstrip("/") not in others

    return [check(beginning + route.path) for route in mounts]


def falcon_sinks(app: Any) -> list[Gets]:
    """Return a function for the sinks of a Falcon app, if it has any. A sink gets the whole path.

    A sink with a regular expression is not considered, because that can say where the prefix ends. Nor is a path whose
    rule names the segment, such as ``/v1/{rest:path}`` for a sink at ``/v``.
    """

    def gets(path: str, rule: Rule) -> bool:
        for pattern, _, is_sink in app._sink_and_static_routes:
            if pattern.match(path):
                prefix = pattern.pattern if is_sink and pattern.pattern == re.escape(pattern.pattern) else "/"
                return _breaks(path, prefix) and not _names(rule, prefix.count("/") - 1) and not _is_routed(app, path)
        return False

    return [gets] if app._sinks else []


def _is_routed(app: Any, path: str) -> bool:
    return app._router.find(path) is not None


def _names(rule: Rule, place: int) -> bool:
    """Return whether *rule* names the whole segment at *place*."""
    step = rule.template.steps[place] if place < len(rule.template.steps) else None
    return isinstance(step, One) and step.is_literal


def _breaks(path: str, prefix: str) -> bool:
    """Return whether *path* begins with *prefix*, which ends inside one of its segments."""
    rest = path[len(prefix) :]
    return path.startswith(prefix) and not prefix.endswith("/") and rest[:1] not in ("", "/")
