"""Templates compiled to a tree over segments, walked by all of them at once.

A walk takes the segments of a path one after the other and keeps the nodes that they lead to. It never goes back: the
work is bounded by the number of segments times the number of nodes that match so far, whatever the path. A node finds
its literal children by a look-up, and those with a parameter in them by one look-up for each length of literal text
they begin or end with, so that the number of rules does not matter. Only templates that differ solely behind the
second parameter of one segment, like ``{a}.{b}-x-{c}`` and ``{a}.{b}-y-{c}``, are tried one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from scopeguard.rules.template import Many, One, Rest, Template

NEVER: Final = 1 << 62
"""Behind every index: no rule."""


class Terminal:
    """Where a template ends: for each method the index of the first rule that has this template."""

    __slots__ = ("by_method", "other")

    def __init__(self) -> None:
        self.by_method: dict[str, int] = {}
        self.other: int = NEVER

    def add(self, index: int, methods: Iterable[str] | None) -> None:
        """Rules come in their order, so that what is there already comes first."""
        if self.other != NEVER:
            return
        if methods is None:
            self.other = index
        else:
            for method in methods:
                self.by_method.setdefault(method, index)

    def first(self, method: str) -> int:
        """The index of the first rule for *method*."""
        return self.by_method.get(method, self.other)


class Node:
    """A place in the tree. *one*: where a parameter alone leads. *loops*: whether segments may stay here. *chooses*:
    whether anything but a literal and *one* leads on."""

    __slots__ = ("chooses", "closure", "end", "literals", "loops", "one", "parts", "rest")

    def __init__(self, *, loops: bool = False) -> None:
        self.literals: dict[str, Node] = {}
        self.one: Node | None = None
        self.parts: Parts | None = None
        self.rest: Terminal | None = None
        self.end: Terminal | None = None
        self.loops: bool = loops
        self.chooses: bool = loops
        # This node, and the one that takes segments in any number from here on.
        self.closure: tuple[Node, ...] = (self,)

    def child(self, literals: tuple[str, ...]) -> Node:
        """Where a segment of *literals* leads, made if it is not there."""
        if len(literals) == 1:
            return self.literals.setdefault(literals[0], Node())
        if literals == ("", ""):
            self.one = self.one or Node()
            return self.one
        self.chooses = True
        self.parts = self.parts or Parts()
        return self.parts.child(literals)

    def many(self) -> Node:
        """The node that takes any number of segments from here on; its children take the last of them."""
        self.chooses = True
        if len(self.closure) == 1:
            self.closure = (self, Node(loops=True))
        return self.closure[1]


class Parts:
    """Children for segments with text and parameters in them, by the text these begin with, then the text they end
    with. *heads* and the values in it go by the length of that text first."""

    __slots__ = ("heads",)

    def __init__(self) -> None:
        self.heads: dict[int, dict[str, dict[int, dict[str, Middles]]]] = {}

    def child(self, literals: tuple[str, ...]) -> Node:
        """Where a segment of *literals* leads, made if it is not there."""
        head, tail = literals[0], literals[-1]
        tails = self.heads.setdefault(len(head), {}).setdefault(head, {})
        return tails.setdefault(len(tail), {}).setdefault(tail, Middles()).child(literals[1:-1])

    def lead(self, segment: str, following: list[Node]) -> None:
        """Add the children that *segment* leads to."""
        size = len(segment)
        for head, heads in self.heads.items():
            tails = heads.get(segment[:head])
            if tails is None:
                continue
            for tail, middles in tails.items():
                end = size - tail
                if end > head and (found := middles.get(segment[end:])) is not None:
                    found.lead(segment, head, end, following)


class Middles:
    """Children for segments that begin and end with the same text: *one* where that is all, the others by the first
    text between two parameters."""

    __slots__ = ("firsts", "lengths", "one")

    def __init__(self) -> None:
        self.one: Node | None = None
        self.firsts: dict[str, dict[tuple[str, ...], Node]] = {}
        self.lengths: set[int] = set()

    def child(self, inner: tuple[str, ...]) -> Node:
        """Where *inner* lead, made if it is not there."""
        if not inner:
            self.one = self.one or Node()
            return self.one
        self.lengths.add(len(inner[0]))
        return self.firsts.setdefault(inner[0], {}).setdefault(inner, Node())

    def lead(self, segment: str, start: int, end: int, following: list[Node]) -> None:
        """Add the children that *segment* between *start* and *end* leads to."""
        if self.one is not None:
            following += self.one.closure
        firsts: Iterable[str] = self.firsts
        # Whichever is less: to look for each text in the segment, or to look up each piece of the segment.
        if len(self.lengths) * (end - start) < len(self.firsts):
            pieces = {segment[at : at + size] for size in self.lengths for at in range(start + 1, end - size)}
            firsts = pieces & self.firsts.keys()
        for first in firsts:
            for inner, child in self.firsts[first].items():
                if fits(inner, segment, start, end):
                    following += child.closure


def fits(inner: Sequence[str], segment: str, start: int, end: int) -> bool:
    """Whether *inner* stand in *segment* between *start* and *end* in this order, with a character or more before,
    between and behind them. The first place of each is the best one for all that follow."""
    for text in inner:
        found = segment.find(text, start + 1, end - 1)
        if found < 0:
            return False
        start = found + len(text)
    return True


class Tree:
    """Templates in order. Where several match, the caller takes the lowest index."""

    __slots__ = ("has_loops", "root")

    def __init__(self, templates: Iterable[tuple[Template, Iterable[str] | None]]) -> None:
        self.root: Node = Node()
        self.has_loops: bool = False
        for index, (template, methods) in enumerate(templates):
            self._terminal(template).add(index, methods)

    def _terminal(self, template: Template) -> Terminal:
        node = self.root
        for step in template.steps:
            match step:
                case One(literals):
                    node = node.child(literals)
                case Many(tail):
                    self.has_loops = True
                    node = node.many().child(("", tail))
                case Rest():
                    node.chooses = True
                    node.rest = node.rest or Terminal()
                    return node.rest
        node.end = node.end or Terminal()
        return node.end

    def terminals(self, segments: Sequence[str]) -> list[Terminal]:
        """The ends of all templates that match *segments*."""
        found: list[Terminal] = []
        node = self.root
        # Most paths meet no choice on most of their way: then there is one node, and no list of them is needed.
        for at, segment in enumerate(segments):
            child = node.literals.get(segment)
            if node.chooses or (child is not None and node.one is not None):
                return self._among_many(node, segments[at:], found)
            if child is None:
                child = node.one
                if child is None or not segment:
                    return found
            node = child
        return found if node.end is None else [node.end]

    def _among_many(self, node: Node, segments: Sequence[str], found: list[Terminal]) -> list[Terminal]:
        active: Sequence[Node] = node.closure
        for segment in segments:
            active = self.step(active, segment, found)
            if not active:
                return found
        found += [node.end for node in active if node.end is not None]
        return found

    def step(self, active: Sequence[Node], segment: str, found: list[Terminal]) -> Sequence[Node]:
        """Where *segment* leads from the *active* nodes. Templates that take all the rest are *found* on the way."""
        following: list[Node] = []
        for node in active:
            if node.rest is not None:
                found.append(node.rest)
            child = node.literals.get(segment)
            if child is not None:
                following += child.closure
            if not segment:
                continue
            if node.one is not None:
                following += node.one.closure
            if node.parts is not None:
                node.parts.lead(segment, following)
            if node.loops:
                following.append(node)
        # Behind a loop one node may be reached in several ways, and without this the more often the longer the path.
        return tuple(dict.fromkeys(following)) if self.has_loops and len(following) > 1 else following
