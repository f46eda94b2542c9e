"""Match a path against many templates at once, in a tree over their segments.

A walk takes the segments of a path one after the other and keeps the nodes that match so far. It never goes back, so
its work is at most the number of segments times the number of matching nodes. A node finds its literal children by one
look-up, and children with parameters by one look-up for each length of text that they begin or end with. So the number
of rules does not matter. Templates that differ only after the second parameter of a segment, such as
``{a}.{b}-x-{c}`` and ``{a}.{b}-y-{c}``, are tried one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from scopeguard.rules.template_syntax import Many, One, Rest, Template

NEVER: Final = 1 << 62
"""Greater than every index. It stands for "no rule"."""


class Terminal:
    """The end of a template, with the index of the first rule that has this template, for each method."""

    __slots__ = ("by_method", "other")

    def __init__(self) -> None:
        self.by_method: dict[str, int] = {}
        self.other: int = NEVER

    def add(self, index: int, methods: Iterable[str] | None) -> None:
        """Add the rule *index* for *methods*, or for all methods if it is ``None``.

        Rules are added in order, so an index that is already set takes precedence.
        """
        if self.other != NEVER:
            return
        if methods is None:
            self.other = index
        else:
            for method in methods:
                self.by_method.setdefault(method, index)

    def first(self, method: str) -> int:
        """Return the index of the first rule for *method*, or :data:`NEVER`."""
        return self.by_method.get(method, self.other)


class Node:
    """A place in the tree.

    * *literals*: children for literal segments.
    * *one*: the child for a segment that is one parameter.
    * *parts*: children for segments with text and parameters.
    * *rest*, *end*: the templates that match any rest of the path, and those that end here.
    * *loops*: whether further segments may stay at this node.
    * *chooses*: whether anything but *literals* and *one* may match the next segment.
    * *closure*: this node, and the node that takes any number of segments from here on, if there is one.
    """

    __slots__ = ("chooses", "closure", "end", "literals", "loops", "one", "parts", "rest")

    def __init__(self, *, loops: bool = False) -> None:
        self.literals: dict[str, Node] = {}
        self.one: Node | None = None
        self.parts: Parts | None = None
        self.rest: Terminal | None = None
        self.end: Terminal | None = None
        self.loops: bool = loops
        self.chooses: bool = loops
        self.closure: tuple[Node, ...] = (self,)

    def child(self, literals: tuple[str, ...]) -> Node:
        """Return the child for a segment with *literals*. It is created if it does not exist."""
        if len(literals) == 1:
            return self.literals.setdefault(literals[0], Node())
        if literals == ("", ""):
            self.one = self.one or Node()
            return self.one
        self.chooses = True
        self.parts = self.parts or Parts()
        return self.parts.child(literals)

    def many(self) -> Node:
        """Return the node that takes any number of segments from here on. Its children take the last of them."""
        self.chooses = True
        if len(self.closure) == 1:
            self.closure = (self, Node(loops=True))
        return self.closure[1]


class Parts:
    """Children for segments with text and parameters, by the text at their beginning, then by the text at their end.

    The keys of *heads*, from the outside in: the length of the first text, that text, the length of the last text, and
    that text.
    """

    __slots__ = ("heads",)

    def __init__(self) -> None:
        self.heads: dict[int, dict[str, dict[int, dict[str, Middles]]]] = {}

    def child(self, literals: tuple[str, ...]) -> Node:
        """Return the child for a segment with *literals*. It is created if it does not exist."""
        head, tail = literals[0], literals[-1]
        tails = self.heads.setdefault(len(head), {}).setdefault(head, {})
        return tails.setdefault(len(tail), {}).setdefault(tail, Middles()).child(literals[1:-1])

    def lead(self, segment: str, following: list[Node]) -> None:
        """Add the children that match *segment* to *following*."""
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
    """Children for segments that begin and end with the same texts.

    *one* is the child without text between its parameters. The others are found by the first text between two
    parameters; *lengths* are the lengths of these texts.
    """

    __slots__ = ("firsts", "lengths", "one")

    def __init__(self) -> None:
        self.one: Node | None = None
        self.firsts: dict[str, dict[tuple[str, ...], Node]] = {}
        self.lengths: set[int] = set()

    def child(self, inner: tuple[str, ...]) -> Node:
        """Return the child with the texts *inner* between its parameters. It is created if it does not exist."""
        if not inner:
            self.one = self.one or Node()
            return self.one
        self.lengths.add(len(inner[0]))
        return self.firsts.setdefault(inner[0], {}).setdefault(inner, Node())

    def lead(self, segment: str, start: int, end: int, following: list[Node]) -> None:
        """Add the children that match *segment* between *start* and *end* to *following*."""
        if self.one is not None:
            following += self.one.closure
        firsts: Iterable[str] = self.firsts
        # Search the segment for each text, or look up each piece of the segment, whichever is less work.
        if len(self.lengths) * (end - start) < len(self.firsts):
            pieces = {segment[at : at + size] for size in self.lengths for at in range(start + 1, end - size)}
            firsts = pieces & self.firsts.keys()
        for first in firsts:
            for inner, child in self.firsts[first].items():
                if fits(inner, segment, start, end):
                    following += child.closure


def fits(inner: Sequence[str], segment: str, start: int, end: int) -> bool:
    """Return whether *segment* contains the texts *inner* in this order between *start* and *end*.

    There must be at least one character before, between and after them. The search takes the first place of each text,
    which leaves the most room for the following ones.
    """
    for text in inner:
        found = segment.find(text, start + 1, end - 1)
        if found < 0:
            return False
        start = found + len(text)
    return True


class Tree:
    """The tree of templates with their methods, in order. If several match, the caller uses the lowest index."""

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
        """Return the ends of all templates that match *segments*."""
        found: list[Terminal] = []
        node = self.root
        # Most nodes have a single child for a segment. This loop follows it without creating lists.
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
        """Return the nodes after *segment* from *active*. Ends of templates for any rest are added to *found*."""
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
        # After a loop, a node may be reached in several ways. Without this, their number would grow with the path.
        return tuple(dict.fromkeys(following)) if self.has_loops and len(following) > 1 else following
