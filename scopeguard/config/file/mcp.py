"""Read the tables of the file that describe an MCP server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scopeguard.config.file.access import read_access
from scopeguard.config.file.place import Place
from scopeguard.config.file.tables import MCP, MCP_RESOURCE, MCP_RULE
from scopeguard.rules.mcp import McpPolicy, Method, OperationRule, Prompt, ResourceUri, Tool

_KINDS: Final[Mapping[str, type[OperationRule]]] = {
    "tools": Tool,
    "prompts": Prompt,
    "resources": ResourceUri,
    "methods": Method,
}


def policy_of(table: Mapping[str, Any], place: Place) -> McpPolicy:
    """Return the policy in the ``[mcp]`` *table*. Raises :class:`ConfigurationError` for a missing or wrong key."""
    given = place.read(table, MCP)
    rules = [
        _rule(kind, rule, place.inner(f"[[mcp.{key}]] {number}"))
        for key, kind in _KINDS.items()
        for number, rule in enumerate(given.pop(key, ()), 1)
    ]
    return place.construct("", lambda: McpPolicy(rules=rules, **given))


def _rule(kind: type[OperationRule], table: Mapping[str, Any], place: Place) -> OperationRule:
    keys = MCP_RESOURCE if kind is ResourceUri else MCP_RULE
    given = place.read(table, keys)
    if kind.setting not in given:
        raise place.error(kind.setting, f"is missing; set it, as in: {kind.setting} = {keys[kind.setting].example}")
    _, access = read_access(given, place, kind.setting, keys)
    return place.construct(kind.setting, lambda: kind(given[kind.setting], access))
