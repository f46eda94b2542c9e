"""Read the values of a TOML document, one function for each kind of value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scopeguard.config.file.place import Place, WrongKindError, show
from scopeguard.config.file.references import SecretFile, resolve
from scopeguard.edge.files import irregular_kind

# Each of these functions reads one kind of value, and raises WrongKindError for all others.


def string(place: Place, key: str, value: Any) -> str:
    del place, key
    if not isinstance(value, str):
        raise WrongKindError("a string")
    return value


def boolean(place: Place, key: str, value: Any) -> bool:
    del place, key
    if not isinstance(value, bool):
        raise WrongKindError("true or false")
    return value


def only_true(place: Place, key: str, value: Any) -> bool:
    del place, key
    if value is not True:
        raise WrongKindError("true or left out")
    return True


def number(place: Place, key: str, value: Any) -> float:
    del place, key
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongKindError("a number")
    return value


def whole_number(place: Place, key: str, value: Any) -> int:
    del place, key
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongKindError("a whole number")
    return value


def strings(place: Place, key: str, value: Any) -> tuple[str, ...]:
    del place, key
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise WrongKindError("a list of strings")
    return tuple(value)


def one_or_more_strings(place: Place, key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    try:
        return strings(place, key, value)
    except WrongKindError:
        raise WrongKindError("a string or a list of strings") from None


def reference(place: Place, key: str, value: Any) -> str:
    """Read a string that may be ``env:NAME`` or ``file:PATH``."""
    return resolve(string(place, key, value), place, key)


def references(place: Place, key: str, value: Any) -> tuple[str, ...]:
    return tuple(resolve(item, place, key) for item in one_or_more_strings(place, key, value))


def renewable(place: Place, key: str, value: Any) -> str | SecretFile:
    """Read a string as :func:`reference` does, but return a :class:`SecretFile` for ``file:PATH``.

    The file must exist already.
    """
    text = reference(place, key, value)
    return SecretFile(place.base / value.removeprefix("file:")) if value.startswith("file:") else text


def path(place: Place, key: str, value: Any) -> str:
    """Read a path that is relative to the configuration file. It may be ``env:NAME``, but not ``file:PATH``."""
    path = string(place, key, value)
    if path.startswith("file:"):
        raise place.error(key, f'must be the path itself, without "file:", as in: {key} = "keys.json"')
    found = place.base / resolve(path, place, key)
    kind = irregular_kind(found)
    if kind is not None:
        raise place.error(key, f"{show(str(found))} is {kind}; write the path of a regular file")
    return str(found)


def paths(place: Place, key: str, value: Any) -> tuple[str, ...]:
    """Read a path or a list of paths. An empty list is refused, because it would have no effect."""
    found = tuple(path(place, key, item) for item in one_or_more_strings(place, key, value))
    if not found:
        raise WrongKindError("a path or a list of paths")
    return found


def table(place: Place, key: str, value: Any) -> Mapping[str, Any]:
    del place, key
    if not isinstance(value, Mapping):
        raise WrongKindError("a table")
    return value


def tables(place: Place, key: str, value: Any) -> list[Mapping[str, Any]]:
    del place
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise WrongKindError(f"a list of tables, which [[{key}]] begin")
    return value
