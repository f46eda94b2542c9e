"""What functions and classes can reach, and which of a request they may rewrite, read from their code.

Nothing is called. Code counts as rewriting when it mentions a key of the path, calls a function of a library that takes
a prefix off, or makes an app: it need not do so.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

_KEYS: Final = frozenset({"path", "root_path", "raw_path", "PATH_INFO", "SCRIPT_NAME", "path_info"})
# Functions and classes of libraries that take a prefix off the path. The code of known libraries is not searched.
_STRIPPERS: Final = frozenset(
    {
        ("wsgiref.util", "shift_path_info"),
        ("werkzeug.wsgi", "pop_path_info"),
        ("werkzeug.middleware.dispatcher", "DispatcherMiddleware"),
    }
)
_STRIPPER_NAMES: Final = frozenset(name for _, name in _STRIPPERS)
_PLAIN_PACKAGES: Final = ("starlette", "fastapi", "werkzeug", "flask", "scopeguard", *sys.stdlib_module_names)


def is_plain(module: Any) -> bool:
    """Whether *module* is the name of one whose code is known."""
    return isinstance(module, str) and module.partition(".")[0] in _PLAIN_PACKAGES


def is_function(value: Any) -> bool:
    """Whether *value* is a function or a method."""
    return isinstance(value, FunctionType) or inspect.ismethod(value)


def is_worth_a_look(value: Any) -> bool:
    """Whether *value* is something to call that was written for the app, or in a library that is not known."""
    if inspect.ismethod(value) or isinstance(value, functools.partial) or _wrapped(value):
        return True
    if isinstance(value, FunctionType):
        return not is_plain(value.__module__)
    if isinstance(value, type):  # whose instances can be called, as those of middleware
        return not is_plain(value.__module__) and any("__call__" in vars(base) for base in value.__mro__)
    return callable(value) and not is_plain(type(value).__module__)


def is_stripper(value: Any) -> bool:
    """Whether *value* is a function or class of a library that takes a prefix off, or a key that code may rewrite."""
    if isinstance(value, str):
        return value in _KEYS
    return (getattr(value, "__module__", None), getattr(value, "__qualname__", None)) in _STRIPPERS


def codes_of(item: Any) -> list[CodeType]:
    """The code of *item*: a function, or what the class of an object, or a class, defines in Python."""
    while isinstance(item, functools.partial):
        item = item.func
    if inspect.ismethod(item):
        item = item.__self__
    if isinstance(item, FunctionType):
        return [item.__code__]
    return [function.__code__ for function in _functions(item if isinstance(item, type) else type(item))]


def _functions(made: type) -> list[FunctionType]:
    """The functions that *made* and its bases define, as far as these are not of a known library."""
    members = (member for base in made.__mro__ if not is_plain(base.__module__) for member in vars(base).values())
    return [member for member in map(_plain_member, members) if isinstance(member, FunctionType)]


def _plain_member(member: Any) -> Any:
    match member:
        case property():
            return member.fget
        case staticmethod() | classmethod():
            return member.__func__
        case functools.cached_property():
            return member.func
        case _:
            return member


def _wrapped(item: Any) -> list[Any]:
    """The function that *item* wraps, as ``functools.lru_cache`` and ``functools.wraps`` say it."""
    wrapped = None if isinstance(item, type) else getattr(item, "__wrapped__", None)
    return [wrapped] if isinstance(wrapped, FunctionType) else []


def texts_of(code: CodeType) -> list[str]:
    """The strings in *code*, those of functions inside it and of keyword arguments among them."""
    found: list[str] = []
    for constant in code.co_consts:
        if isinstance(constant, str):
            found.append(constant)
        elif isinstance(constant, tuple | frozenset):
            found += [item for item in constant if isinstance(item, str)]
        elif isinstance(constant, CodeType):
            found += texts_of(constant)
    return found


def mentions_path(code: CodeType) -> bool:
    """Whether *code* mentions a key of the path, or what takes a prefix off."""
    return (
        not _KEYS.isdisjoint(texts_of(code))
        or not _STRIPPER_NAMES.isdisjoint((*_names_in(code), *texts_of(code)))
        or any(map(_sets_path_info, _with_inner(code)))
    )


def _sets_path_info(code: CodeType) -> bool:
    """Whether *code* assigns the attribute that Django routes on."""
    return "path_info" in code.co_names and any(
        step.opname == "STORE_ATTR" and step.argval == "path_info" for step in dis.get_instructions(code)
    )


def _with_inner(code: CodeType) -> list[CodeType]:
    inner = [each for constant in code.co_consts if isinstance(constant, CodeType) for each in _with_inner(constant)]
    return [code, *inner]


def _names_in(code: CodeType) -> list[str]:
    return [name for each in _with_inner(code) for name in each.co_names]


def values_of(item: Any) -> list[Any]:
    """What *item* may call: attributes, what its functions close over, their defaults and the globals they name."""
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if inspect.ismethod(item):
        return [item.__self__, item.__func__]
    made = item if isinstance(item, type) else type(item)
    found = _wrapped(item)
    if isinstance(item, type):
        members = [value for base in made.__mro__ if not is_plain(base.__module__) for value in vars(base).values()]
        found += [value for value in members if not isinstance(_plain_member(value), FunctionType)]
    elif not isinstance(item, FunctionType):
        for slot in [slot for base in made.__mro__ for slot in getattr(base, "__slots__", ())]:
            with suppress(AttributeError):
                found.append(getattr(item, slot))
        found += list(getattr(item, "__dict__", {}).values())
    for function in [item] if isinstance(item, FunctionType) else _functions(made):
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # it is empty
                found.append(cell.cell_contents)
        found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        found += _named_in(function)
    return [item for value in found for item in _flattened(value)]


def _named_in(function: FunctionType) -> list[Any]:
    """The globals that *function* names, and what it names of modules that it imports or finds there."""
    names = _names_in(function.__code__)
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    package = function.__globals__.get("__package__")
    for name in names:
        found += [sys.modules[full] for full in (name, f"{package}.{name}") if full in sys.modules]
    modules = [value for value in found if isinstance(value, ModuleType) and not is_plain(value.__name__)]
    return found + [vars(module)[name] for module in modules for name in names if name in vars(module)]


def _flattened(value: Any) -> list[Any]:
    """What is in *value* if that is a collection, else *value* itself."""
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(value.values()) if isinstance(value, dict) else [value]
