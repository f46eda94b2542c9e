"""Find rules that can never decide, because earlier rules match all their paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scopeguard.rules.path_matching import NEVER, Node, Terminal, Tree
from scopeguard.rules.rule import Rule
from scopeguard.rules.template_syntax import Many, One, Rest, Template

# Stands for a parameter of the template. No template contains it as text, so only a parameter matches it.
_ANYTHING = "\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """A *rule* that never decides: for each of its methods an earlier rule in *by* matches all its paths."""

    rule: Rule
    by: tuple[Rule, ...]


def find_shadowed(rules: Sequence[Rule], tree: Tree) -> tuple[Shadowed, ...]:
    """Return the rules that never decide, in order. *tree* is the compiled form of *rules*.

    Every rule in the result is shadowed, but the result may be incomplete: a rule that several templates shadow only
    together is not found, nor are some cases of two ``{name:segments}`` in one template.
    """
    found: list[Shadowed] = []
    for index, rule in enumerate(rules):
        terminals = _find_covering(tree, rule.template)
        by: set[int] = set()
        for method in ("",) if rule.methods is None else rule.methods:
            # A rule for all methods is shadowed only by another rule for all methods. No rule can name the method "".
            by.add(min((terminal.first(method) for terminal in terminals), default=NEVER))
        if max(by) < index:
            found.append(Shadowed(rule=rule, by=tuple(rules[earlier] for earlier in sorted(by))))
    return tuple(found)


def _find_covering(tree: Tree, template: Template) -> list[Terminal]:
    """Return the ends of templates, including its own, that match every path of *template*."""
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
