"""Checks of settings.

Each function returns the value or nothing, and raises :class:`ConfigurationError` with the name of the setting, the
kind of the value and the fix.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar, cast

from scopeguard.errors import ConfigurationError

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")
Given_contra = TypeVar("Given_contra", contravariant=True)
Kept_co = TypeVar("Kept_co", covariant=True)

_FIELD_NAME: Final = r"[A-Za-z0-9\-]+"  # compiled when a setting needs it, which few do
MOST_SECONDS: Final = 1_000_000_000
"""The longest time limit: 31 years. Locks and sockets raise :class:`OverflowError` for much longer ones."""

_MOST_BYTES: Final = 2**63 - 1


class PathObject(Protocol):
    """An object that stands for a path, as those of :mod:`pathlib` do. It is :class:`os.PathLike` for text."""

    def __fspath__(self) -> str: ...


class Converted(Protocol[Given_contra, Kept_co]):
    """The type of a setting whose argument and attribute have different types.

    ``Converted[str, Validation]`` accepts ``"auto"``, and the attribute is ``Validation.AUTO``. Type checkers treat it
    as a descriptor. At run time there is no descriptor: ``__post_init__`` replaces the value.
    """

    def __get__(self, instance: object, owner: type[object] | None = None, /) -> Kept_co: ...

    def __set__(self, instance: Any, value: Given_contra, /) -> None: ...


def converted(default: T) -> Converted[Any, T]:
    """Return *default*, typed as the default of a :class:`Converted` setting."""
    return cast("Converted[Any, T]", default)


def media_type(typ: str) -> str:
    """Return *typ* in a form for comparisons: lower case, without ``application/`` (RFC 7515 §4.1.9)."""
    lowered = typ.lower() if typ.isascii() else typ
    short = lowered.removeprefix("application/")
    return short if "/" not in short else lowered


def field_name(name: object, setting: str) -> str:
    """Return *name*, the name of a header field, in lower case (RFC 9110 §5.1).

    ``Authorization`` is refused. Its value begins with a scheme, and it is read as the usual token source.
    """
    text(name, setting)
    name = cast("str", name)
    if not re.fullmatch(_FIELD_NAME, name) or name.lower() == "authorization":
        raise ConfigurationError(
            f"{setting}: must be the name of a header field other than Authorization, not {name!r}"
        )
    return name.lower()


def instance(value: object, kind: type | tuple[type, ...], setting: str, wanted: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* is a *kind*. *wanted* describes it, as in ``"an Issuer"``."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(value).__name__}")


def text(value: object, setting: str, *, empty: bool = True) -> None:
    """Raise :class:`ConfigurationError` unless *value* is a string that UTF-8 can encode. *empty*: it may be empty."""
    instance(value, str, setting, "a string")
    if not (value or empty):
        raise ConfigurationError(f"{setting}: must not be empty")
    if not is_encodable(cast("str", value)):
        raise ConfigurationError(f"{setting}: must not contain half of a surrogate pair, which UTF-8 cannot encode")


def is_encodable(value: str) -> bool:
    """Return whether UTF-8 can encode *value*. If not, every request that sends it would fail."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def path(value: object, setting: str, wanted: str = "the path of a file") -> str:
    """Return the text of *value*. Raises :class:`ConfigurationError` unless it is a path: text, or a path object.

    A number is refused, because :func:`open` would take it for a file descriptor. Whether the file exists is not
    checked. *wanted* describes the path.
    """
    given = value.__fspath__() if hasattr(value, "__fspath__") else value
    if not isinstance(given, str):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(given).__name__}")
    if not given or "\0" in given or not is_encodable(given):
        problem = "text that cannot be a path" if given else "an empty string"
        raise ConfigurationError(f"{setting}: must be {wanted}, not {problem}")
    return given


def function(value: object, setting: str, wanted: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* can be called. *wanted* describes the function."""
    if not callable(value):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(value).__name__}")


def plain_function(value: object, setting: str, wanted: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* can be called without ``await``. *wanted* describes it."""
    function(value, setting, wanted)
    if is_async(value):
        raise ConfigurationError(f"{setting}: must be {wanted} and is not async; start a task in it if it has to wait")


def is_async(value: Any) -> bool:
    """Return whether *value*, a function or an object with ``__call__``, returns a coroutine."""
    while isinstance(value, functools.partial):
        value = value.func
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None))  # noqa: B004


def app(value: Any, wanted: str) -> None:
    """Raise :class:`ConfigurationError` for an app that is not callable, or does not have the interface *wanted*.

    *wanted* is ``"an ASGI app"`` or ``"a WSGI app"``. The signature of a function, or of the ``__call__`` of an object,
    shows which it is: WSGI passes an environ and a function, and ASGI passes three arguments and awaits the result.
    Other objects are not checked.
    """
    if not callable(value) or isinstance(value, Mapping):
        raise ConfigurationError(f"app: must be {wanted}, not {type(value).__name__}")
    function = value if inspect.isroutine(value) else getattr(type(value), "__call__", None)  # noqa: B004 - its signature is needed
    if isinstance(value, type) or not (inspect.isfunction(function) or inspect.ismethod(function)):
        return
    code = function.__code__
    arguments = code.co_argcount - (function is not value or inspect.ismethod(function))
    is_async, takes_more = code.co_flags & inspect.CO_COROUTINE, code.co_flags & inspect.CO_VARARGS
    needed = arguments - len(function.__defaults__ or ())
    if wanted == "a WSGI app" and (is_async or needed == 3):
        raise ConfigurationError("app: it is an ASGI app: use scopeguard.asgi.GuardMiddleware")
    if wanted == "an ASGI app" and arguments == needed == 2 and not is_async and not takes_more:
        raise ConfigurationError(
            "app: it is a WSGI app: use scopeguard.wsgi.GuardMiddleware, or scopeguard.flask.ScopeGuard for Flask"
        )


def methods(value: object, names: Iterable[str], setting: str, example: str = "") -> None:
    """Raise :class:`ConfigurationError` unless *value* is an object of any class with the methods *names*.

    Generators and coroutines are refused: they have the methods ``send`` and ``close``, with another meaning. *example*
    is an expression that returns such an object.
    """
    names = tuple(names)
    is_other = isinstance(value, type | Generator | Coroutine | AsyncGenerator)
    if is_other or not all(callable(getattr(value, name, None)) for name in names):
        given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        wanted = f"an object with the methods {', '.join(names)}{f', as in {example}' if example else ''}"
        raise ConfigurationError(f"{setting}: must be {wanted}, not {given}")


def items(values: object, setting: str, wanted: str, kind: type = object) -> tuple[Any, ...]:
    """Return *values* as a tuple. Raises :class:`ConfigurationError` unless it is an iterable of *kind*.

    A string, bytes and a mapping are refused. *wanted* describes the iterable, as in ``"a list of Rule"``.
    """
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise ConfigurationError(f"{setting}: must be {wanted}, not {type(values).__name__}")
    found = tuple(values)
    for item in found:
        if not isinstance(item, kind):
            raise ConfigurationError(
                f"{setting}: every item must be a {kind.__name__}, not {type(item).__name__}; write {wanted}"
            )
    return found


def strings(values: object, setting: str, *, empty: bool = True) -> tuple[str, ...]:
    """Return *values*, a string or an iterable of strings, as a tuple. *empty*: the strings may be empty.

    Raises :class:`ConfigurationError` for anything else, and for a string that UTF-8 cannot encode.
    """
    given = (values,) if isinstance(values, str) else values
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | Mapping):
        raise ConfigurationError(f"{setting}: must be a string or a list of strings, not {type(values).__name__}")
    found = tuple(given)
    for item in found:
        if not isinstance(item, str):
            raise ConfigurationError(f"{setting}: every item must be a string, not {type(item).__name__}")
        if not (item or empty):
            raise ConfigurationError(f"{setting}: must not contain an empty string; remove it")
        if not is_encodable(item):
            text(item, setting)
    return found


def mapping(values: object, setting: str) -> Mapping[str, Any]:
    """Return *values*. Raises :class:`ConfigurationError` unless it is a mapping with strings as keys."""
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{setting}: must be a table of names and values, not {type(values).__name__}")
    for name in values:
        if not isinstance(name, str):
            raise ConfigurationError(f"{setting}: every name must be a string, not {type(name).__name__}")
    return values


def member(kind: type[E], value: str, setting: str) -> E:
    """Return the member of *kind* with the value *value*. Raises :class:`ConfigurationError` if there is none."""
    try:
        return kind(value)
    except (ValueError, TypeError):
        choices = ", ".join(repr(item.value) for item in kind)
        given = repr(value) if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(f"{setting}: {given} is not one of {choices}") from None


def number(value: object, setting: str, *, most: float = MOST_SECONDS) -> float:
    """Return *value* as a float. Raises :class:`ConfigurationError` unless it is a number from -*most* to *most*.

    Booleans, NaN and infinity are refused.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        given = "NaN" if isinstance(value, float) else type(value).__name__
        raise ConfigurationError(f"{setting}: must be a number, not {given}")
    if not -most <= value <= most:
        if isinstance(value, float) and math.isinf(value):
            raise ConfigurationError(f"{setting}: must be a finite number, not infinity")
        raise ConfigurationError(f"{setting}: must be at most {most:,}, not {value}")
    return float(value)


def flag(value: object, setting: str) -> None:
    """Raise :class:`ConfigurationError` unless *value* is a boolean. The string ``"false"`` would count as true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{setting}: must be true or false, not {type(value).__name__}")


def positive(value: object, setting: str, *, most: float = MOST_SECONDS) -> None:
    """Raise :class:`ConfigurationError` unless *value* is a number greater than 0 and at most *most*."""
    if number(value, setting, most=most) <= 0:
        raise ConfigurationError(f"{setting}: must be greater than 0, not {value}")


def whole(value: object, setting: str, *, least: int = 1) -> int:
    """Return *value*. Raises :class:`ConfigurationError` unless it is a whole number of at least *least*."""
    if least == 1:
        positive(value, setting, most=_MOST_BYTES)
    elif number(value, setting, most=_MOST_BYTES) < least:
        raise ConfigurationError(f"{setting}: must be at least {least}, not {value}")
    if not isinstance(value, int):
        raise ConfigurationError(f"{setting}: must be a whole number, not {type(value).__name__}")
    return value


def accepted_values(values: object, setting: str, kind: str) -> frozenset[str | bool]:
    """Return the accepted *values* of a claim or a header parameter, for the setting *kind*.

    Booleans are accepted in ``expected_claims`` only. An empty prefix is left out, because it would match every value.
    Raises :class:`ConfigurationError` for anything else.
    """
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | bytearray | Mapping)
    given = tuple(cast("Iterable[Any]", values)) if is_list else (values,)
    flags = frozenset(item for item in given if isinstance(item, bool) and kind == "expected_claims")
    texts = strings((item for item in given if not (flags and isinstance(item, bool))), setting)
    return flags | frozenset(text for text in texts if text or kind != "claim_prefixes")
