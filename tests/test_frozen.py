"""The decorator of frozen classes, compared with that of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, fields, replace
from typing import Any, ClassVar

import pytest

from scopeguard import frozen


def define(dataclass: Callable[..., Any], **options: Any) -> Any:
    @dataclass(frozen=True, slots=True, **options)
    class Sample:
        kind: ClassVar[str] = "sample"
        url: str = field(kw_only=False)
        size: int = 3
        secret: str = field(default="s", repr=False, compare=False)
        names: list[str] = field(default_factory=list, compare=False)
        total: int = field(init=False)
        fixed: int = field(default=7, init=False)
        seen: list[int] = field(default_factory=list, init=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "total", self.size * 2)

        def twice(self) -> Any:
            return replace(self, size=self.size * 2)

    return Sample


OURS, THEIRS = define(frozen.dataclass), define(dataclasses.dataclass)
KEYWORDS = define(frozen.dataclass, kw_only=True), define(dataclasses.dataclass, kw_only=True)


@frozen.dataclass(frozen=True, slots=True)
class Pair:
    """A class that pickle finds."""

    left: int
    right: Any = None


def outcome(action: Callable[[Any], Any], cls: Any) -> Any:
    """Return the result of *action* in a form that does not depend on the class, or its error."""
    try:
        result = action(cls)
    except Exception as error:  # noqa: BLE001 - whatever the standard library raises
        return type(error), str(error).replace("Sample.__init__()", "__init__()")
    return repr(result) if isinstance(result, cls) else result


@pytest.mark.parametrize(
    "action",
    [
        lambda cls: cls("a"),
        lambda cls: cls("a", 4),
        lambda cls: cls(url="a", size=4, secret="x", names=["n"]),
        lambda cls: cls(),
        lambda cls: cls("a", other=1),
        lambda cls: cls("a", total=1),
        lambda cls: cls("a").total,
        lambda cls: cls("a").fixed,
        lambda cls: cls("a").names is cls("a").names,
        lambda cls: cls("a").seen,
        lambda cls: cls("a").twice(),
        lambda cls: replace(cls("a"), url="b"),
        lambda cls: replace(cls("a"), total=1),
        lambda cls: copy.copy(cls("a")),
        lambda cls: copy.deepcopy(cls("a", names=["n"])),
        lambda cls: cls("a") == cls("a", secret="y"),
        lambda cls: cls("a") == cls("b"),
        lambda cls: cls("a") == Pair(1),
        lambda cls: hash(cls("a")) == hash(cls("a", names=["n"])),
        lambda cls: len({cls("a"), cls("a"), cls("b")}),
        lambda cls: setattr(cls("a"), "url", "b"),
        lambda cls: delattr(cls("a"), "url"),
        lambda cls: cls("a").__dict__,
        lambda cls: [(each.name, each.init, each.kw_only, each.default) for each in fields(cls)],
        lambda cls: str(inspect.signature(cls)),
        lambda cls: dataclasses.asdict(cls("a", names=["n"])),
        lambda cls: cls.__match_args__,
        lambda cls: cls.__slots__,
        lambda cls: cls.kind,
    ],
)
@pytest.mark.parametrize(("ours", "theirs"), [(OURS, THEIRS), KEYWORDS])
def test_class_behaves_as_that_of_the_standard_library(action: Callable[[Any], Any], ours: Any, theirs: Any):
    assert outcome(action, ours) == outcome(action, theirs)


def test_unknown_attribute_is_refused_as_a_field_is():
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'unknown'"):
        setattr(OURS("a"), "unknown", 1)  # noqa: B010 - type checkers refuse the statement


def test_pickled_object_is_equal():
    assert pickle.loads(pickle.dumps(Pair(1, "x"))) == Pair(1, "x")


def test_repr_of_an_object_within_itself_ends():
    pair = Pair(1, [])
    pair.right.append(pair)
    assert repr(pair) == "Pair(left=1, right=[...])"


def test_derived_class_is_frozen_and_may_have_attributes_of_its_own():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Triple(Pair):
        third: int = 0

    assert Triple(1, 2, 3) == Triple(1, 2, 3)
    with pytest.raises(FrozenInstanceError):
        setattr(Triple(1, 2, 3), "left", 4)  # noqa: B010 - type checkers refuse the statement
    with pytest.raises(TypeError, match="non-frozen"):
        dataclasses.dataclass(type("Open", (Pair,), {}))

    class Named(Pair):
        pass

    named: Any = Named(1)
    named.name = "n"
    assert named.name == "n"
    del named.name
    for change in (lambda: setattr(named, "left", 2), lambda: delattr(named, "left")):
        with pytest.raises(FrozenInstanceError):
            change()


def test_class_may_define_methods_itself_or_compare_by_identity():
    @frozen.dataclass(frozen=True, slots=True, eq=False)
    class Own:
        value: int

        def __repr__(self) -> str:
            return "own"

    assert repr(Own(1)) == "own"
    assert Own(1) != Own(1)


def test_class_without_fields_compares_and_hashes():
    @frozen.dataclass(frozen=True, slots=True)
    class Empty:
        pass

    assert Empty() == Empty()
    assert len({Empty(), Empty()}) == 1
