"""Find the objects that functions and classes may call, and whether their code may rewrite the path of a request.

The code is read and not run. It counts as rewriting if it mentions a key of a request that contains the path, calls a
library function that removes a prefix, or makes an app.
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
# Functions and classes of libraries that remove a prefix from the path. The code of known libraries is not searched.
_PREFIX_REMOVERS: Final = frozenset(
    {
        ("wsgiref.util", "shift_path_info"),
        ("werkzeug.wsgi", "pop_path_info"),
        ("werkzeug.middleware.dispatcher", "DispatcherMiddleware"),
    }
)
_REMOVER_NAMES: Final = frozenset(name for _, name in _PREFIX_REMOVERS)
_KNOWN_LIBRARIES: Final = (
    *("starlette", "fastapi", "werkzeug", "flask", "falcon", "scopeguard"),
    *sys.stdlib_module_names,
)


def is_known_library(module: Any) -> bool:
    """Return whether *module* is the name of a module of a known library."""
    return isinstance(module, str) and module.partition(".")[0] in _KNOWN_LIBRARIES


def is_function(value: Any) -> bool:
    """Return whether *value* is a function or a method."""
    return isinstance(value, FunctionType) or inspect.ismethod(value)


def may_call_apps(value: Any) -> bool:
    """Return whether *value* is a callable of the app or of an unknown library."""
    if inspect.ismethod(value) or isinstance(value, functools.partial) or _wrapped_functions(value):
        return True
    if isinstance(value, FunctionType):
        return not is_known_library(value.__module__)
    if isinstance(value, type):  # a class with callable instances, such as middleware
        return not is_known_library(value.__module__) and any("__call__" in vars(base) for base in value.__mro__)
    return callable(value) and not is_known_library(type(value).__module__)


def removes_prefix(value: Any) -> bool:
    """Return whether *value* is a library function or class that removes a prefix, or a key that contains the path."""
    if isinstance(value, str):
        return value in _KEYS
    return (getattr(value, "__module__", None), getattr(value, "__qualname__", None)) in _PREFIX_REMOVERS


def codes_of(item: Any) -> list[CodeType]:
    """Return the code of *item*: that of a function, or that of the functions in a class or the class of an object."""
    while isinstance(item, functools.partial):
        item = item.func
    if inspect.ismethod(item):
        item = item.__self__
    if isinstance(item, FunctionType):
        return [item.__code__]
    return [function.__code__ for function in _functions(item if isinstance(item, type) else type(item))]


def _functions(made: type) -> list[FunctionType]:
    """Return the functions of *made* and of its bases outside the known libraries."""
    members = (
        member for base in made.__mro__ if not is_known_library(base.__module__) for member in vars(base).values()
    )
    return [member for member in map(_function_of, members) if isinstance(member, FunctionType)]


def _function_of(member: Any) -> Any:
    match member:
        case property():
            return member.fget
        case staticmethod() | classmethod():
            return member.__func__
        case functools.cached_property():
            return member.func
        case _:
            return member


def _wrapped_functions(item: Any) -> list[Any]:
    """Return the function that *item* wraps with ``functools.lru_cache`` or ``functools.wraps``, if any."""
    wrapped = None if isinstance(item, type) else getattr(item, "__wrapped__", None)
    return [wrapped] if isinstance(wrapped, FunctionType) else []


def texts_of(code: CodeType) -> list[str]:
    """Return the strings in *code*, including its inner functions and the names of keyword arguments."""
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
    """Return whether *code* mentions a key that contains the path, or a function that removes a prefix."""
    return (
        not _KEYS.isdisjoint(texts_of(code))
        or not _REMOVER_NAMES.isdisjoint((*_names_in(code), *texts_of(code)))
        or assigns(code, "path_info")  # the attribute by which Django routes
    )


def assigns(code: CodeType, attribute: str) -> bool:
    """Return whether *code* assigns to *attribute* of an object."""
    return any(
        step.opname == "STORE_ATTR" and step.argval == attribute
        for each in _with_inner(code)
        if attribute in each.co_names
        for step in dis.get_instructions(each)
    )


def _with_inner(code: CodeType) -> list[CodeType]:
    inner = [each for constant in code.co_consts if isinstance(constant, CodeType) for each in _with_inner(constant)]
    return [code, *inner]


def _names_in(code: CodeType) -> list[str]:
    return [name for each in _with_inner(code) for name in each.co_names]


def values_of(item: Any) -> list[Any]:
    """Return the values that *item* may call: attributes, and the closures, defaults and globals of its functions."""
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if inspect.ismethod(item):
        return [item.__self__, item.__func__]
    made = item if isinstance(item, type) else type(item)
    found = _wrapped_functions(item)
    if isinstance(item, type):
        members = [
            value for base in made.__mro__ if not is_known_library(base.__module__) for value in vars(base).values()
        ]
        found += [value for value in members if not isinstance(_function_of(value), FunctionType)]
    elif not isinstance(item, FunctionType):
        for slot in [slot for base in made.__mro__ for slot in getattr(base, "__slots__", ())]:
            with suppress(AttributeError):
                found.append(getattr(item, slot))
        found += list(getattr(item, "__dict__", {}).values())
    for function in [item] if isinstance(item, FunctionType) else _functions(made):
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # the cell is empty
                found.append(cell.cell_contents)
        found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        found += _globals_of(function)
    return [item for value in found for item in _flatten(value)]


def _globals_of(function: FunctionType) -> list[Any]:
    """Return the globals that *function* uses. For a global module, also return the attributes that it uses."""
    names = _names_in(function.__code__)
    found = [function.__globals__[name] for name in names if name in function.__globals__]
    package = function.__globals__.get("__package__")
    for name in names:
        found += [sys.modules[full] for full in (name, f"{package}.{name}") if full in sys.modules]
    modules = [value for value in found if isinstance(value, ModuleType) and not is_known_library(value.__name__)]
    return found + [vars(module)[name] for module in modules for name in names if name in vars(module)]


def _flatten(value: Any) -> list[Any]:
    """Return the elements of a collection, or *value* itself in a list."""
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(value.values()) if isinstance(value, dict) else [value]
