"""Describe what the operations of an MCP server require, and compare the rules with its tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from scopeguard.audit import messages
from scopeguard.audit.report import Code, Entry, Kind, Severity
from scopeguard.guard import Guard
from scopeguard.scopes import AUTHENTICATED

if TYPE_CHECKING:
    from scopeguard.rules.mcp import McpPolicy, OperationRule

# A text with spaces: reports show it as a condition, and not as a scope.
_FUNCTION: Final = "the result of a function"


def describe_operations(guard: Guard, policy: McpPolicy, tools: Sequence[str] | None) -> list[Entry]:
    """Return a row for each rule of *policy*, and for each of the *tools* that no rule names exactly.

    *tools*: the names of the tools of the server; ``None`` if they are not known.
    """
    entries = [_entry(guard, rule.kind, rule.pattern, rule) for rule in policy.rules]
    named = _named_tools(policy)
    return entries + [_entry(guard, "tool", tool, policy.find_tool(tool)) for tool in tools or () if tool not in named]


def check_tools(policy: McpPolicy, tools: Sequence[str] | None) -> list[tuple[Severity, Code, str, tuple[str, str]]]:
    """Return the findings about *tools*: the severity, the code, the place, and the message with its fix."""
    if tools is None:
        return []
    denied = [tool for tool in tools if policy.find_tool(tool) is None]
    gone = sorted(name for name in _named_tools(policy).difference(tools) if "*" not in name)
    return [
        *((Severity.WARNING, Code.TOOL_WITHOUT_RULE, f"tool {tool}", messages.TOOL_WITHOUT_RULE) for tool in denied),
        *((Severity.ERROR, Code.RULE_WITHOUT_TOOL, f"tool {name}", messages.RULE_WITHOUT_TOOL) for name in gone),
    ]


def _named_tools(policy: McpPolicy) -> set[str]:
    return {rule.pattern for rule in policy.rules if rule.kind == "tool"}


def _entry(guard: Guard, kind: str, name: str, rule: OperationRule | None) -> Entry:
    requirement = None if rule is None else rule.requirement
    alternatives: tuple[frozenset[str], ...] = ()
    access = Kind.DENIED
    if requirement == AUTHENTICATED:
        access = Kind.AUTHENTICATED
    elif requirement is not None:
        access, alternatives = Kind.SCOPES, tuple(map(frozenset, requirement.terms))
    elif rule is not None and rule.decide is not None:
        access, alternatives = Kind.SCOPES, (frozenset((_FUNCTION,)),)
    sources = () if access is Kind.DENIED else tuple(sorted(source.value for source in guard.sources.methods))
    declared = messages.NO_RULE if rule is None else f"{kind} {rule.pattern}"
    return Entry(method=kind, path=name, kind=access, alternatives=alternatives, sources=sources, declared=(declared,))
