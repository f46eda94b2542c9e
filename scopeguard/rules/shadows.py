"""Rules that can never decide, because earlier ones take all they could match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scopeguard.rules.rule import Rule
from scopeguard.rules.template import Many, One, Rest, Template
from scopeguard.rules.tree import NEVER, Node, Terminal, Tree

# Stands for a parameter of the template in question. No template holds it, so that only a parameter takes it.
_ANYTHING = "\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """*rule* never decides: for each of its methods one of *by*, which come before it, matches all of its paths."""

    rule: Rule
    by: tuple[Rule, ...]


def shadowed(rules: Sequence[Rule], tree: Tree) -> tuple[Shadowed, ...]:
    """The rules that never decide, in their order. *tree* is that of *rules*.

    Certain, not complete: a rule whose paths are taken by several templates together, none of which takes them all,
    is not found, nor some cases of two ``{name:segments}`` in one template.
    """
    found: list[Shadowed] = []
    for index, rule in enumerate(rules):
        terminals = _covering(tree, rule.template)
        by: set[int] = set()
        for method in ("",) if rule.methods is None else rule.methods:
            # "" is no method that a rule could name: for a rule of all methods only another such will do.
            by.add(min((terminal.first(method) for terminal in terminals), default=NEVER))
        if max(by) < index:
            found.append(Shadowed(rule=rule, by=tuple(rules[earlier] for earlier in sorted(by))))
    return tuple(found)


def _covering(tree: Tree, template: Template) -> list[Terminal]:
    """The ends of templates that match every path that *template* matches, its own among them."""
    found: list[Terminal] = []
    active: Sequence[Node] = tree.root.closure
    for step in template.steps:
        match step:
            case One(literals):
                active = tree.step(active, _ANYTHING.join(literals), found)
            case Many(tail):
                found += [node.rest for node in active if node.rest is not None]
                active = tree.step([node for node in active if node.loops], _ANYTHING + tail, found)
            case Rest():
                return [*found, *(node.rest for node in active if node.rest is not None)]
    return [*found, *(node.end for node in active if node.end is not None)]
