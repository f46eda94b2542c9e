"""Counts the work that a call does, so that a test can hold how it grows with the input, on any machine and load.

Two things are counted: the lines of Python that run, and the steps of every regular expression that a module of
scopeguard holds. The regular expression engine of CPython does not count, so :class:`Stepper` walks the same parsed
pattern in the same way, backtracking included, and counts the characters it looks at. Functions in C (``bytes.split``,
``str.encode``, the scanner of ``json``) count as the line that calls them.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import pytest

# How re itself takes a pattern apart; private, and the only way to see what the engine will do.
ops: Final[Any] = import_module("re._constants")
parser: Final[Any] = import_module("re._parser")

_CATEGORIES: Final = {
    ops.CATEGORY_DIGIT: r"\d",
    ops.CATEGORY_NOT_DIGIT: r"\D",
    ops.CATEGORY_SPACE: r"\s",
    ops.CATEGORY_NOT_SPACE: r"\S",
    ops.CATEGORY_WORD: r"\w",
    ops.CATEGORY_NOT_WORD: r"\W",
}


class TooMuchWork(AssertionError):
    """The limit was reached; what called it would have gone on."""


class Work:
    """The work that was done: ``units`` of it, at most ``limit``."""

    def __init__(self) -> None:
        self.limit = float("inf")
        self.units = 0

    def add(self, units: int = 1) -> None:
        self.units += units
        if self.units > self.limit:
            raise TooMuchWork(f"more than {self.limit:.0f} units of work")


class _Characters(dict[Any, bool]):
    """Whether a part of a pattern that matches one character matches this one."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self._pattern = pattern

    def __missing__(self, character: Any) -> bool:
        text = bytes((character,)) if isinstance(character, int) else character
        found = self[character] = self._pattern.fullmatch(text) is not None
        return found


# A parsed pattern, as lists of an operation and its argument: _ONE with the characters, and the other operations of re
# with nodes in place of what re parsed.
_Nodes = list[tuple[Any, Any]]
_ONE: Final = "one character"
_SINGLE: Final = (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN)


class Stepper:
    """One compiled pattern, matched step by step. It replaces the pattern and returns the same results."""

    def __init__(self, pattern: re.Pattern[Any], work: Work) -> None:
        self._pattern = pattern
        self._work = work
        self._nodes = self._prepare(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
        self.used = False

    def __getattr__(self, name: str) -> Any:
        if name not in ("match", "fullmatch", "search", "findall", "finditer", "split", "sub"):
            return getattr(self._pattern, name)

        def match(*arguments: Any, **options: Any) -> Any:
            self.used = True
            text = arguments[1] if name == "sub" else arguments[0]
            trace = sys.gettrace()
            sys.settrace(None)  # the lines that count are not counted
            try:
                if name in ("match", "fullmatch"):
                    self._match_at(text, 0, whole=name == "fullmatch")
                else:
                    self._search(text, every=name != "search")
            finally:
                sys.settrace(trace)
            return getattr(self._pattern, name)(*arguments, **options)

        return match

    def _prepare(self, tree: Any) -> _Nodes:
        return [self._node(op, argument) for op, argument in tree]

    def _node(self, op: Any, argument: Any) -> tuple[Any, Any]:
        if op in _SINGLE:
            return _ONE, _Characters(self._compile(op, argument))
        if op is ops.SUBPATTERN:
            return op, self._prepare(argument[3])
        if op is ops.BRANCH:
            return op, [self._prepare(way) for way in argument[1]]
        if op in (ops.ASSERT, ops.ASSERT_NOT):
            direction, inner = argument
            return op, (0 if direction > 0 else inner.getwidth()[0], self._prepare(inner))
        if op is ops.ATOMIC_GROUP:
            return op, self._prepare(argument)
        if op in (ops.MAX_REPEAT, ops.POSSESSIVE_REPEAT):
            least, most, inner = argument
            return op, (least, None if most is ops.MAXREPEAT else most, self._prepare(inner))
        return op, argument

    def _search(self, text: Any, *, every: bool) -> None:
        at = 0
        while at <= len(text):
            self._work.add()
            failed = self._fails_at_once(self._nodes, text, at)
            end = None if failed else self._first(self._nodes, 0, text, at)
            if end is None:
                at += 1
            elif every:
                at = max(end, at + 1)
            else:
                return

    def _match_at(self, text: Any, at: int, *, whole: bool) -> int | None:
        if not whole:
            return self._first(self._nodes, 0, text, at)
        return next((end for end in self._ends(self._nodes, 0, text, at) if end == len(text)), None)

    def _fails_at_once(self, nodes: _Nodes, text: Any, at: int) -> bool:
        """Whether *nodes* begin with one character, and another one is there. Such an attempt costs one unit."""
        if not nodes or nodes[0][0] is not _ONE or (at < len(text) and nodes[0][1][text[at]]):
            return False
        self._work.add()
        return True

    def _first(self, nodes: _Nodes, index: int, text: Any, at: int) -> int | None:
        """The first of :meth:`_ends`, for the same work, without a generator where there is nothing to choose."""
        for place in range(index, len(nodes)):
            op, argument = nodes[place]
            if op is _ONE:
                self._work.add()
                if at >= len(text) or not argument[text[at]]:
                    return None
                at += 1
            elif op is ops.AT:
                if not self._holds(argument, text, at):
                    return None
            elif op in (ops.ASSERT, ops.ASSERT_NOT):
                if not self._looks(op, argument, text, at):
                    return None
            elif place + 1 == len(nodes):
                return self._first_choice(op, argument, text, at)
            else:
                for end in self._choices(op, argument, text, at):
                    found = self._first(nodes, place + 1, text, end)
                    if found is not None:
                        return found
                return None
        return at

    def _first_choice(self, op: Any, argument: Any, text: Any, at: int) -> int | None:
        if op is ops.SUBPATTERN:
            return self._first(argument, 0, text, at)
        if op is ops.BRANCH:
            for way in argument:
                found = self._first(way, 0, text, at)
                if found is not None:
                    return found
            return None
        return next(self._choices(op, argument, text, at), None)

    def _ends(self, nodes: _Nodes, index: int, text: Any, at: int) -> Iterator[int]:
        """Every place where *nodes* from *index* on can end, the preferred one first."""
        while index < len(nodes):
            op, argument = nodes[index]
            index += 1
            if op is _ONE:
                self._work.add()
                if at >= len(text) or not argument[text[at]]:
                    return
                at += 1
            elif op is ops.AT:
                if not self._holds(argument, text, at):
                    return
            elif op in (ops.ASSERT, ops.ASSERT_NOT):
                if not self._looks(op, argument, text, at):
                    return
            else:
                for end in self._choices(op, argument, text, at):
                    yield from self._ends(nodes, index, text, end)
                return
        yield at

    def _choices(self, op: Any, argument: Any, text: Any, at: int) -> Iterator[int]:
        """Every place where one node that leaves a choice can end."""
        if op is ops.SUBPATTERN:
            yield from self._ends(argument, 0, text, at)
        elif op is ops.BRANCH:
            for way in argument:
                if not self._fails_at_once(way, text, at):
                    yield from self._ends(way, 0, text, at)
        elif op is ops.ATOMIC_GROUP:
            end = self._first(argument, 0, text, at)
            if end is not None:
                yield end
        elif op in (ops.MAX_REPEAT, ops.POSSESSIVE_REPEAT):
            yield from self._ends_of_repetition(op, argument, text, at)
        else:
            raise AssertionError(f"the reference matcher cannot count {op} in {self._pattern.pattern!r}; teach it")

    def _looks(self, op: Any, argument: Any, text: Any, at: int) -> bool:
        back, inner = argument
        found = at >= back and self._first(inner, 0, text, at - back) is not None
        return found == (op is ops.ASSERT)

    def _ends_of_repetition(self, op: Any, argument: Any, text: Any, at: int) -> Iterator[int]:
        """The ends of a greedy repetition, the longest first; of a possessive one that one only.

        One character, or one way each time, is enough for the patterns in use: a repetition whose inner part could
        match in several ways, and be followed by backtracking into it, is not followed there.
        """
        least, most, inner = argument
        if len(inner) == 1 and inner[0][0] is _ONE:
            ends: Sequence[int] = range(at, self._run(inner[0][1], most, text, at) + 1)
        else:
            ends = self._chain(inner, most, text, at)
        possible = ends[least:]
        for end in possible[-1:] if op is ops.POSSESSIVE_REPEAT else reversed(possible):
            self._work.add()
            yield end

    def _run(self, characters: _Characters, most: int | None, text: Any, at: int) -> int:
        """The end of the longest run of *characters*."""
        stop = len(text) if most is None else min(len(text), at + most)
        end = at
        while end < stop and characters[text[end]]:
            end += 1
        self._work.add(end - at + (most is None or end < at + most))  # the one after the run is looked at too
        return end

    def _chain(self, inner: _Nodes, most: int | None, text: Any, at: int) -> list[int]:
        ends = [at]
        while most is None or len(ends) <= most:
            end = self._first(inner, 0, text, ends[-1])
            if end is None or end == ends[-1]:
                break
            ends.append(end)
        return ends

    def _compile(self, op: Any, argument: Any) -> re.Pattern[Any]:
        items = argument if op is ops.IN else [(op, argument)]
        if op is ops.ANY:
            source = "."
        elif op is ops.NOT_LITERAL:
            source = f"[^{_escape(argument)}]"
        else:
            source = "[" + "".join(map(_item, items)) + "]"
        flags = self._pattern.flags & (re.IGNORECASE | re.DOTALL)
        if isinstance(self._pattern.pattern, bytes):
            return re.compile(source.encode("latin-1"), flags)
        return re.compile(source, flags | self._pattern.flags & re.ASCII)

    def _holds(self, place: Any, text: Any, at: int) -> bool:
        self._work.add()
        if place in (ops.AT_BEGINNING, ops.AT_BEGINNING_STRING):
            return at == 0
        if place in (ops.AT_END, ops.AT_END_STRING):
            return at == len(text)
        raise AssertionError(f"the reference matcher cannot count {place} in {self._pattern.pattern!r}; teach it")


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\U{code:08x}"


def _item(item: tuple[Any, Any]) -> str:
    op, argument = item
    if op is ops.NEGATE:
        return "^"
    if op is ops.LITERAL:
        return _escape(argument)
    if op is ops.RANGE:
        return f"{_escape(argument[0])}-{_escape(argument[1])}"
    return _CATEGORIES[argument]


@contextmanager
def count_work() -> Iterator[Callable[..., int]]:
    """Yields ``units_of(call, limit=...)``: the work that *call* does, whether it returns or raises.

    Meanwhile the patterns of scopeguard's modules, defaults of functions among them, are stepped through.
    """
    work = Work()
    steppers: dict[int, Stepper] = {}

    def stepper(value: Any) -> Any:
        if not isinstance(value, re.Pattern):
            return value
        if id(value) not in steppers:
            steppers[id(value)] = Stepper(value, work)
        return steppers[id(value)]

    def units_of(call: Callable[[], object], *, limit: float = float("inf")) -> int:
        work.units, work.limit = 0, limit
        _run_traced(call, work)
        return work.units

    with pytest.MonkeyPatch.context() as patch:
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "scopeguard"]:
            for name, value in list(vars(module).items()):
                if isinstance(value, re.Pattern):
                    patch.setattr(module, name, stepper(value))
                elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                    _patch_defaults(patch, value, stepper)
        yield units_of


def _run_traced(call: Callable[[], object], work: Work) -> None:
    def trace(frame: types.FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename == __file__:
            return None
        if event == "line":
            work.add()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except TooMuchWork:
        raise
    except Exception:  # noqa: BLE001 - a refusal is work as well
        pass
    finally:
        sys.settrace(before)


def _patch_defaults(patch: pytest.MonkeyPatch, function: types.FunctionType, stepper: Callable[[Any], Any]) -> None:
    positional, named = function.__defaults__, function.__kwdefaults__
    if positional and any(isinstance(value, re.Pattern) for value in positional):
        patch.setattr(function, "__defaults__", tuple(map(stepper, positional)))
    if named and any(isinstance(value, re.Pattern) for value in named.values()):
        patch.setattr(function, "__kwdefaults__", {name: stepper(value) for name, value in named.items()})
