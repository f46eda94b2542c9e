"""``scopeguard.records.dataclass`` makes what the standard library's makes; ``made_often`` changes nothing of it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import scopeguard.records

# Type checkers are told that the two are the same, and would take the comparison for one of a thing with itself.
OURS: Any = vars(scopeguard.records)["dataclass"]


def often(**options: Any) -> Callable[[type], Any]:
    """Ours, as it decorates what is made with every request."""
    return lambda cls: scopeguard.records.made_often(OURS(**options)(cls))


MAKERS = pytest.mark.parametrize("dataclass", [dataclasses.dataclass, OURS], ids=["stdlib", "ours"])
FROZEN_MAKERS = pytest.mark.parametrize(
    "dataclass", [dataclasses.dataclass, OURS, often], ids=["stdlib", "ours", "made often"]
)
# Of the standard library's, nothing can inherit where there are slots, by a mistake of CPython 3.11.
OUR_MAKERS = pytest.mark.parametrize("dataclass", [OURS, often], ids=["ours", "made often"])


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


@scopeguard.records.made_often
@scopeguard.records.dataclass(frozen=True, slots=True)
class PickledOften:
    """As above."""

    x: int


EACH_KIND = pytest.mark.parametrize(
    ("dataclass", "frozen"),
    [(dataclasses.dataclass, False), (OURS, False), (dataclasses.dataclass, True), (OURS, True), (often, True)],
    ids=["stdlib", "ours", "stdlib, frozen", "ours, frozen", "made often"],
)


@EACH_KIND
def test_instances_are_equal_by_class_and_compared_fields(dataclass, frozen):
    made, other = point(dataclass, frozen=frozen), point(dataclass, frozen=frozen)
    assert made(1) == made(1, label="elsewhere")
    assert made(1) != made(2)
    assert made(1) != made(1, tags=["far"])
    assert made(1) != other(1)
    assert made(1) != 1


@MAKERS
def test_what_is_not_frozen_is_not_hashed(dataclass):
    with pytest.raises(TypeError, match="unhashable"):
        hash(point(dataclass)(1))


@FROZEN_MAKERS
def test_frozen_instances_are_hashed_by_what_is_compared(dataclass):
    @dataclass(frozen=True, slots=True)
    class Pair:
        a: int
        b: int = 0
        c: int = dataclasses.field(default=0, compare=False)

    assert hash(Pair(1)) == hash(Pair(1, c=5))
    assert len({Pair(1), Pair(1, 0), Pair(0, 1)}) == 2


@EACH_KIND
def test_identity_decides_where_equality_was_not_asked_for(dataclass, frozen):
    made = point(dataclass, frozen=frozen, eq=False)
    one = made(1)
    assert one == one  # noqa: PLR0124 - this is the test
    assert one != made(1)


@EACH_KIND
def test_a_repr_names_the_fields_that_are_shown(dataclass, frozen):
    shown = repr(point(dataclass, frozen=frozen)(1, label="secret", tags=["a"]))
    assert shown == "point.<locals>.Point(x=1, y=2, tags=['a'])"


@EACH_KIND
def test_a_repr_of_what_holds_itself_ends(dataclass, frozen):
    loop = point(dataclass, frozen=frozen)(1)
    loop.tags.append(loop)
    assert repr(loop) == "point.<locals>.Point(x=1, y=2, tags=[...])"


@FROZEN_MAKERS
def test_a_class_without_fields_has_one_value(dataclass):
    @dataclass(frozen=True, slots=True)
    class Nothing:
        """Nothing."""

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert repr(Nothing()).endswith("Nothing()")


@FROZEN_MAKERS
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


@FROZEN_MAKERS
def test_frozen_instances_cannot_be_changed(dataclass):
    one = point(dataclass, frozen=True)(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.x
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):  # the latter by another mistake of CPython 3.11
        one.unknown = 2
    assert (one.x, one.y, one.label, one.tags) == (1, 2, "", [])


@FROZEN_MAKERS
def test_it_is_of_its_class_and_frozen_when_the_class_looks_at_it(dataclass):
    seen: list[type] = []

    @dataclass(frozen=True, slots=True)
    class Looking:
        x: int

        def __post_init__(self) -> None:
            seen.append(type(self))
            with pytest.raises(dataclasses.FrozenInstanceError):
                self.x = 2

    one: Any = Looking(1)
    assert seen == [Looking]
    assert type(one) is Looking
    assert one.x == 1


@FROZEN_MAKERS
def test_fields_are_given_by_place_or_by_name_and_defaults_are_made_for_each(dataclass):
    made = point(dataclass, frozen=True)
    first, second = made(1), made(x=1)
    assert first == second == made(1, 2, "")
    assert first.tags is not second.tags
    tags = ["a"]
    assert made(1, 3, "there", tags=tags).tags is tags
    assert (made(1, label="there").label, made(1, 3).y) == ("there", 3)
    for arguments, names in (((), {}), ((1, 2, "", ["a"]), {}), ((1,), {"x": 1}), ((1,), {"z": 1})):
        with pytest.raises(TypeError):
            made(*arguments, **names)


@FROZEN_MAKERS
def test_fields_by_name_may_stand_before_those_by_place(dataclass):
    @dataclass(frozen=True, slots=True)
    class Mixed:
        a: int = dataclasses.field(kw_only=True)
        b: int
        c: int = dataclasses.field(default=3, kw_only=True)

    one: Any = Mixed(2, a=1)
    assert (one.a, one.b, one.c) == (1, 2, 3)


@FROZEN_MAKERS
def test_the_tools_for_dataclasses_take_it(dataclass):
    made = point(dataclass, frozen=True, kw_only=True)
    assert dataclasses.replace(made(x=1), y=9) == made(x=1, y=9)
    assert dataclasses.asdict(made(x=1)) == {"x": 1, "y": 2, "label": "", "tags": []}
    for another in (copy.copy(made(x=1, tags=["a"])), copy.deepcopy(made(x=1, tags=["a"]))):
        assert another == made(x=1, tags=["a"])
        assert type(another) is made
    assert (made.__match_args__, made.__slots__) == ((), ("x", "y", "label", "tags"))
    with pytest.raises(TypeError):
        made(1)


@pytest.mark.parametrize("made", [Pickled, PickledOften])
def test_it_can_be_pickled(made):
    again = pickle.loads(pickle.dumps(made(1)))
    assert again == made(1)
    assert type(again) is made


@FROZEN_MAKERS
def test_a_signature_is_what_the_class_says(dataclass):
    made = point(dataclass, frozen=True)
    assert str(inspect.signature(made)).replace("scopeguard.records.", "") == (
        "(x: 'int', y: 'int' = 2, label: 'str' = '', *, tags: 'list[str]' = <factory>) -> None"
    )
    with pytest.raises(TypeError, match=r"Point.__init__\(\) missing 1 required positional argument: 'x'"):
        made()


@EACH_KIND
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


@OUR_MAKERS
def test_a_subclass_may_have_attributes_of_its_own(dataclass):
    base: Any = point(dataclass, frozen=True)

    with_a_dictionary: Any = type("Named", (base,), {})
    with_slots: Any = type("Slotted", (base,), {"__slots__": ("nickname",)})
    for named in (with_a_dictionary, with_slots):
        one = named(1, label="there")
        assert type(one) is named
        assert (one.x, one.y, one.label, one.tags) == (1, 2, "there", [])
        assert one == named(1, tags=[])
        assert one != base(1)
        one.nickname = "origin"
        assert copy.copy(one) == dataclasses.replace(one, label="elsewhere") == one
        del one.nickname
        for change in (lambda one=one: setattr(one, "x", 2), lambda one=one: delattr(one, "x")):
            with pytest.raises(dataclasses.FrozenInstanceError):
                change()
        with pytest.raises(TypeError):
            named()


@OUR_MAKERS
def test_a_subclass_is_looked_at_by_its_class_once(dataclass):
    seen: list[type] = []

    @dataclass(frozen=True, slots=True)
    class Looking:
        x: int
        twice: int = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            seen.append(type(self))
            object.__setattr__(self, "twice", 2 * self.x)

    class Below(Looking):
        """Nothing of its own."""

    one: Any = Below(4)
    assert seen == [Below]
    assert (one.x, one.twice) == (4, 8)


@FROZEN_MAKERS
def test_the_standard_library_makes_frozen_subclasses_of_it(dataclass):
    base: Any = point(dataclass, frozen=True)

    plain: Any = type("Space", (base,), {"__annotations__": {"z": int}, "z": 0})
    space = dataclasses.dataclass(frozen=True)(plain)
    assert repr(space(1, z=5)).endswith("Space(x=1, y=2, tags=[], z=5)")
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        dataclasses.dataclass(type("Mutable", (base,), {}))
