"""``scopeguard.records.dataclass`` makes what the standard library's makes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any, ClassVar

import pytest

import scopeguard.records

# Type checkers are told that the two are the same, and would take the comparison for one of a thing with itself.
OURS: Any = vars(scopeguard.records)["dataclass"]
MAKERS = pytest.mark.parametrize("dataclass", [dataclasses.dataclass, OURS], ids=["stdlib", "ours"])


def point(dataclass: Any, **options: Any) -> Any:
    class Point:
        """A point."""

        x: int
        y: int = 2
        label: str = dataclasses.field(default="", repr=False, compare=False)
        tags: list[str] = dataclasses.field(default_factory=list, kw_only=True, hash=False)

    return dataclass(slots=True, **options)(Point)


@scopeguard.records.dataclass(frozen=True, slots=True)
class Pickled:
    """At the top level, where pickle finds it."""

    x: int


@MAKERS
@pytest.mark.parametrize("frozen", [True, False])
def test_instances_are_equal_by_class_and_compared_fields(dataclass, frozen):
    made, other = point(dataclass, frozen=frozen), point(dataclass, frozen=frozen)
    assert made(1) == made(1, label="elsewhere")
    assert made(1) != made(2)
    assert made(1) != made(1, tags=["far"])
    assert made(1) != other(1)
    assert made(1) != 1


@MAKERS
def test_frozen_instances_are_hashed_by_what_is_compared_and_others_not_at_all(dataclass):
    @dataclass(frozen=True, slots=True)
    class Pair:
        a: int
        b: int = 0
        c: int = dataclasses.field(default=0, compare=False)

    assert hash(Pair(1)) == hash(Pair(1, c=5))
    assert len({Pair(1), Pair(1, 0), Pair(0, 1)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(point(dataclass)(1))


@MAKERS
def test_identity_decides_where_equality_was_not_asked_for(dataclass):
    made = point(dataclass, eq=False)
    one = made(1)
    assert one == one  # noqa: PLR0124 - this is the test
    assert one != made(1)


@MAKERS
def test_a_repr_names_the_fields_that_are_shown(dataclass):
    shown = repr(point(dataclass)(1, label="secret", tags=["a"]))
    assert shown == "point.<locals>.Point(x=1, y=2, tags=['a'])"


@MAKERS
def test_a_repr_of_what_holds_itself_ends(dataclass):
    loop = point(dataclass)(1)
    loop.tags.append(loop)
    assert repr(loop) == "point.<locals>.Point(x=1, y=2, tags=[...])"


@MAKERS
def test_a_class_without_fields_has_one_value(dataclass):
    @dataclass(frozen=True, slots=True)
    class Nothing:
        """Nothing."""

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert repr(Nothing()).endswith("Nothing()")


@MAKERS
def test_what_the_class_says_itself_is_left_alone(dataclass):
    @dataclass(frozen=True, slots=True)
    class Spoken:
        x: int

        def __repr__(self) -> str:
            return "mine"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    @dataclass(frozen=True, slots=True)
    class Equal:  # noqa: PLW1641 - the hash is what is looked at
        x: int

        def __eq__(self, other: object) -> bool:
            return True

    assert (repr(Spoken(1)), Spoken(1) == Spoken(2), hash(Spoken(1))) == ("mine", True, 7)
    assert Equal(1) == Equal(2)
    assert hash(Equal(1)) == hash(Equal(1))


@MAKERS
def test_frozen_instances_cannot_be_changed(dataclass):
    one = point(dataclass, frozen=True)(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.x


@MAKERS
def test_the_tools_for_dataclasses_take_it(dataclass):
    made = point(dataclass, frozen=True, kw_only=True)
    assert dataclasses.replace(made(x=1), y=9) == made(x=1, y=9)
    assert dataclasses.asdict(made(x=1)) == {"x": 1, "y": 2, "label": "", "tags": []}
    assert copy.deepcopy(made(x=1)) == made(x=1)
    assert (made.__match_args__, made.__slots__) == ((), ("x", "y", "label", "tags"))
    with pytest.raises(TypeError):
        made(1)


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(Pickled(1))) == Pickled(1)


@MAKERS
def test_a_signature_is_what_the_class_says(dataclass):
    made = point(dataclass, frozen=True)
    assert str(inspect.signature(made)).replace("scopeguard.records.", "") == (
        "(x: 'int', y: 'int' = 2, label: 'str' = '', *, tags: 'list[str]' = <factory>) -> None"
    )
    with pytest.raises(TypeError, match=r"Point.__init__\(\) missing 1 required positional argument: 'x'"):
        made()


@MAKERS
@pytest.mark.parametrize("frozen", [True, False])
def test_fields_that_nobody_passes_are_set_all_the_same(dataclass, frozen):
    @dataclass(frozen=frozen, slots=True)
    class Derived:
        x: int
        fixed: int = dataclasses.field(default=3, init=False)
        made: list[int] = dataclasses.field(default_factory=list, init=False)
        twice: int = dataclasses.field(init=False)
        known: ClassVar[int] = 9

        def __post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self.x)

    one: Any = Derived(4)
    assert (one.fixed, one.made, one.twice, one.known) == (3, [], 8, 9)
    assert one.made is not Derived(4).made
    with pytest.raises(TypeError):
        type(one)(4, fixed=1)


def test_a_subclass_may_have_attributes_of_its_own():
    """The standard library's may not where there are slots, by a mistake of CPython 3.11."""
    base: Any = point(OURS, frozen=True)

    class Named(base):  # type: ignore[misc]  # made while this runs
        """With a dictionary."""

    one = Named(1)
    one.nickname = "origin"
    del one.nickname
    for change in (lambda: setattr(one, "x", 2), lambda: delattr(one, "x")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()


@MAKERS
def test_the_standard_library_makes_frozen_subclasses_of_it(dataclass):
    base: Any = point(dataclass, frozen=True)

    @dataclasses.dataclass(frozen=True)
    class Space(base):  # type: ignore[misc]  # made while this runs
        z: int = 0

    assert repr(Space(1, z=5)).endswith("Space(x=1, y=2, tags=[], z=5)")
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        dataclasses.dataclass(type("Mutable", (base,), {}))
