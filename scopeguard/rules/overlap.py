"""Compare path templates with each other: which is more concrete, and which may match the same path.

The audit and contracts use it. A request gets the first rule that matches it (:mod:`scopeguard.rules.rules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from scopeguard.rules.path_matching import fits
from scopeguard.rules.template_syntax import One, Step

T = TypeVar("T")


def is_narrower(one: Step, other: Step) -> bool:
    """Return whether *other* matches every segment that *one* matches. False if either matches several segments."""
    if not isinstance(one, One) or not isinstance(other, One):
        return False
    if one == other:
        return True
    if other.is_literal:
        return False
    (head, tail), (needed_head, needed_tail) = one.ends, other.ends
    if not head.startswith(needed_head) or not tail.endswith(needed_tail):
        return False
    if one.is_literal:
        start, end = len(needed_head), len(head) - len(needed_tail)
        return start < end and fits(other.literals[1:-1], head, start, end)
    return len(other.literals) == 2


def may_meet(one: Step, other: Step) -> bool:
    """Return whether both may match the same segment; true if in doubt. False if either matches several segments."""
    if is_narrower(one, other) or is_narrower(other, one):
        return True
    if not isinstance(one, One) or not isinstance(other, One) or one.is_literal or other.is_literal:
        return False
    (head, tail), (another_head, another_tail) = one.ends, other.ends
    heads_meet = head.startswith(another_head) or another_head.startswith(head)
    return heads_meet and (tail.endswith(another_tail) or another_tail.endswith(tail))


class Overlaps(Generic[T]):
    """Values by template. A template finds the values of those that may match one of its paths, without trying all.

    A parameter for several segments ends the comparison: whatever follows, some path may match both templates.
    """

    __slots__ = ("_ends", "_literals", "_open", "_others")

    def __init__(self) -> None:
        # The nodes below, by the texts of the step that leads to them.
        self._literals: dict[tuple[str, ...], tuple[One, Overlaps[T]]] = {}
        self._others: dict[tuple[str, ...], tuple[One, Overlaps[T]]] = {}
        self._ends: list[T] = []  # values whose templates end here
        self._open: list[T] = []  # values whose templates go on with several segments

    def add(self, steps: Sequence[Step], value: T) -> None:
        """Add *value* for the template with *steps*."""
        node = self
        for step in steps:
            if not isinstance(step, One):
                node._open.append(value)
                return
            children = node._literals if step.is_literal else node._others
            child = children.get(step.literals)
            if child is None:
                child = children[step.literals] = (step, Overlaps())
            node = child[1]
        node._ends.append(value)

    def find_overlaps(self, steps: Sequence[Step]) -> list[T]:
        """Return the values whose templates may match a path that the template with *steps* matches."""
        found: list[T] = []
        self._find(steps, 0, found)
        return found

    def _find(self, steps: Sequence[Step], at: int, found: list[T]) -> None:
        """Add the values of this node and below to *found*, as far as they agree with *steps* from *at* on."""
        if at == len(steps):
            found += (*self._open, *self._ends)
            return
        wanted = steps[at]
        if not isinstance(wanted, One):
            found += self._all()
            return
        found += self._open
        if not wanted.is_literal:
            for step, node in self._literals.values():
                if may_meet(step, wanted):
                    node._find(steps, at + 1, found)
        elif wanted.literals in self._literals:
            self._literals[wanted.literals][1]._find(steps, at + 1, found)
        for step, node in self._others.values():
            if may_meet(step, wanted):
                node._find(steps, at + 1, found)

    def _all(self) -> list[T]:
        children = (*self._literals.values(), *self._others.values())
        return [*self._open, *self._ends, *(value for _, node in children for value in node._all())]
