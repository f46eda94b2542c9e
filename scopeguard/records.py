"""``dataclass`` as of the standard library, at a quarter of what its classes cost when they are imported.

The standard library compiles six methods for each frozen class, with an ``exec`` each: 0.62 ms for a class of four
fields, CPython 3.11, and with our seventy classes more than half of the time that importing scopeguard took. Here
``__init__`` alone is compiled, because it has a signature, and the others are closures over the names of the fields:
0.17 ms. What they say, compare and refuse is the same; tests/test_records.py holds the one against the other.

What scopeguard has no use for is left out: ``InitVar``, ``order``, inheritance among frozen classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Final, TypeVar

__all__ = ["dataclass", "made_often", "prepared_late"]

R = TypeVar("R")


class _Factory:
    """Stands in a signature for a default that is made at each call."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY: Final = _Factory()


def _record(
    *, slots: bool = False, frozen: bool = False, kw_only: bool = False, eq: bool = True
) -> Callable[[type], type]:
    """:func:`dataclasses.dataclass`. A method that the class has itself is left as it is."""
    make = dataclasses.dataclass(slots=slots, kw_only=kw_only, init=not frozen, eq=False, repr=False)

    def made(cls: type) -> type:
        own = frozenset(vars(cls))
        has_hash = vars(cls).get("__hash__") is not None
        record: Any = make(cls)
        members = dataclasses.fields(record)
        methods: dict[str, Any] = {"__repr__": _repr(tuple(member.name for member in members if member.repr))}
        if eq:
            values = _values(tuple(member.name for member in members if member.compare))
            methods["__eq__"] = _eq(values)
        if frozen:
            names = tuple(member.name for member in members)
            methods["__init__"] = _init(record, members)
            methods["__setattr__"], methods["__delattr__"] = _frozen(record, frozenset(names))
            methods["__getstate__"], methods["__setstate__"] = _state(names)
            record.__dataclass_params__.frozen = True
        for name in methods.keys() - own:
            methods[name].__qualname__ = f"{record.__qualname__}.{name}"
            setattr(record, name, methods[name])
        if eq and not has_hash:
            record.__hash__ = _hash(values) if frozen else None
        result: type = record
        return result

    return made


def made_often(record: type[R]) -> type[R]:
    """*record*, frozen and with slots, in half the time: for what is made with every request.

    A frozen object takes no assignments, not even of its own ``__init__``, and the way around costs as much for each
    field as several assignments. So while ``__init__`` runs, the object is of a class that has the same slots and is
    not frozen. Nobody else has it yet.
    """
    made: Any = record
    members = dataclasses.fields(made)
    unfrozen = type(record.__name__, (), {"__slots__": tuple(member.name for member in members)})
    made.__init__ = _init(record, members, unfrozen)
    return record


def prepared_late(record: type, name: str, prepare: Callable[[Any], Any], unprepared: type) -> None:
    """What *record*, which has slots, holds as *name* goes through *prepare* when it is first looked at: for what is
    made with every request and seldom asked for. Only values of the class *unprepared* do."""
    slot: Any = vars(record)[name]
    read, write = slot.__get__, slot.__set__

    def value(holder: object) -> Any:
        held = read(holder)
        if type(held) is unprepared:
            held = prepare(held)
            write(holder, held)
        return held

    setattr(record, name, property(value, write))


def _init(record: Any, members: tuple[dataclasses.Field[Any], ...], unfrozen: type | None = None) -> Any:
    scope: dict[str, Any] = {
        "__set": object.__setattr__,
        "__factory": _FACTORY,
        "__record": record,
        "__unfrozen": unfrozen,
        "__slowly": record.__init__,
    }
    positional, body, keywords = ["self"], ["  pass"], list[str]()
    if unfrozen is not None:
        given = ", ".join(f"{member.name}={member.name}" for member in members if member.init)
        # What inherits from it may have other slots.
        body = ["  if self.__class__ is not __record:", f"    return __slowly(self, {given})"]
        body.append("  __set(self, '__class__', __unfrozen)")
    for member in members:
        name = value = member.name
        if member.default is not dataclasses.MISSING:
            scope[f"__{name}"], default, otherwise = member.default, f"=__{name}", f"__{name}"
        elif member.default_factory is not dataclasses.MISSING:
            scope[f"__{name}"], default, otherwise = member.default_factory, "=__factory", f"__{name}()"
            value = f"__{name}() if {name} is __factory else {name}"
        else:
            default = otherwise = ""
        if member.init:
            (keywords if member.kw_only else positional).append(name + default)
        else:
            value = otherwise
        if value:
            body.append(f"  __set(self, {name!r}, {value})" if unfrozen is None else f"  self.{name} = {value}")
    if unfrozen is not None:
        body.append("  self.__class__ = __record")
    if hasattr(record, "__post_init__"):
        body.append("  self.__post_init__()")
    parameters = ", ".join([*positional, *(["*", *keywords] if keywords else ())])
    text = "\n".join([f"def __init__({parameters}):", *body])
    exec(text, scope)  # noqa: S102 - of the names of fields, and as the standard library does it
    init = scope["__init__"]
    init.__module__, init.__qualname__ = record.__module__, f"{record.__qualname__}.__init__"
    init.__annotations__ = {member.name: member.type for member in members if member.init} | {"return": None}
    return init


def _frozen(record: Any, names: frozenset[str]) -> tuple[Any, Any]:
    def assign(self: object, name: str, value: object) -> None:
        if type(self) is record or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(record, self).__setattr__(name, value)

    def delete(self: object, name: str) -> None:
        if type(self) is record or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(record, self).__delattr__(name)

    return assign, delete


def _state(names: tuple[str, ...]) -> tuple[Any, Any]:
    def get(self: object) -> list[Any]:
        return [getattr(self, name) for name in names]

    def put(self: object, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    return get, put


def _values(names: tuple[str, ...]) -> Callable[[object], object]:
    return attrgetter(*names) if names else lambda _: ()


def _eq(values: Callable[[object], object]) -> Any:
    def eq(self: object, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return eq


def _hash(values: Callable[[object], object]) -> Any:
    return lambda self: hash(values(self))


def _repr(names: tuple[str, ...]) -> Any:
    @recursive_repr()
    def shown(self: object) -> str:
        return f"{self.__class__.__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in names])})"

    return shown


if TYPE_CHECKING:
    # To type checkers it is the very same: they know that decorator, and what it does with these arguments.
    from dataclasses import dataclass
else:
    dataclass = _record
