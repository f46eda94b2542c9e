"""``dataclass`` for frozen classes with slots, made at a third of the cost.

The decorator of the standard library compiles six methods for each class, of about a hundred that every guard needs:
71 of the 150 ms of ``import scopeguard.asgi`` with Python 3.11, and as many with 3.13. Here only ``__init__`` is
compiled: 24 ms. The classes are dataclasses in every other respect: ``fields``, ``replace``, ``match``, ``copy``,
``pickle`` and ``FrozenInstanceError`` work as usual.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, fields
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]


@recursive_repr()
def _repr(self: Any) -> str:
    values = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({values})"


def _setattr(self: Any, name: str, value: object) -> None:
    _refuse(self, name, "assign to")
    object.__setattr__(self, name, value)


def _delattr(self: Any, name: str) -> None:
    _refuse(self, name, "delete")
    object.__delattr__(self, name)


def _refuse(self: Any, name: str, what: str) -> None:
    """Refuse to change a field. A derived class that is no dataclass may have attributes of its own."""
    own = type(self)
    if "__dataclass_fields__" in vars(own) or name in own.__dataclass_fields__:
        raise FrozenInstanceError(f"cannot {what} field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


_SHARED: dict[str, Callable[..., Any]] = {
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}


def _comparison(cls: Any) -> dict[str, Callable[..., Any]]:
    names = [each.name for each in fields(cls) if each.compare]
    compared: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    def eq(self: Any, other: object) -> bool:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    return {"__eq__": eq, "__hash__": lambda self: hash(compared(self))}


class _Absent:
    """The default of a parameter whose field has a ``default_factory``, as ``inspect.signature`` shows it."""

    def __repr__(self) -> str:
        return "<factory>"


_ABSENT = _Absent()


def _compile_init(cls: Any) -> Callable[..., None]:
    """Return ``__init__``. It is compiled, because each request constructs several objects."""
    values: dict[str, Any] = {"_set": object.__setattr__, "_absent": _ABSENT}
    positional: list[str] = []
    by_name: list[str] = []
    body: list[str] = []
    annotations: dict[str, Any] = {}
    for each in fields(cls):
        name, value, default = each.name, each.name, ""
        if each.default_factory is not MISSING:
            values[f"_make_{name}"] = each.default_factory
            default = "=_absent"
            value = f"_make_{name}() if {name} is _absent else {name}" if each.init else f"_make_{name}()"
        elif each.default is not MISSING:
            values[f"_default_{name}"] = each.default
            default = f"=_default_{name}"
            value = name if each.init else f"_default_{name}"
        elif not each.init:
            continue  # __post_init__ assigns it
        if each.init:
            (by_name if each.kw_only else positional).append(name + default)
            annotations[name] = each.type
        body.append(f" _set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *by_name] if by_name else [])])
    text = "\n".join([f"def __init__({parameters}):", *(body or [" pass"])])
    exec(text, values)  # noqa: S102 - names of fields only
    init: Callable[..., None] = values["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {**annotations, "return": None}
    return init


def _dataclass(
    cls: Any = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
    init: bool = True,
    eq: bool = True,
) -> Any:
    """Decorate a class as :func:`dataclasses.dataclass` does, which serves the few that are derived or not frozen."""

    def decorate(cls: Any) -> Any:
        derived = any(hasattr(base, "__dataclass_fields__") for base in cls.__mro__[1:])
        if derived or not frozen or not slots:
            return dataclasses.dataclass(frozen=frozen, slots=slots, kw_only=kw_only, init=init, eq=eq)(cls)
        cls.__doc__ = cls.__doc__ or cls.__name__  # else the standard library writes one from the signature, slowly
        cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
        cls.__dataclass_params__.frozen = True  # a class that is derived from this one must be frozen as well
        methods = {**_SHARED, **(_comparison(cls) if eq else {}), **({"__init__": _compile_init(cls)} if init else {})}
        for name, method in methods.items():
            if name not in vars(cls):
                setattr(cls, name, method)
        return cls

    return decorate if cls is None else decorate(cls)


if TYPE_CHECKING:
    # Type checkers and the API reference know the decorator of the standard library.
    from dataclasses import dataclass
else:
    dataclass = _dataclass
