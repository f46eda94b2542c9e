"""Read the values of a TOML document by kind, and write the errors about wrong ones.

No key is named here. The tables with the keys are in :mod:`scopeguard.config.file.tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

from scopeguard.errors import ConfigurationError
from scopeguard.frozen import dataclass

T = TypeVar("T")

MOST_BYTES: Final = 1024 * 1024
"""The largest size of a configuration file, and of a file that ``file:PATH`` names, in bytes."""


class UnreadableError(Exception):
    """A file cannot be read. The message says why, and never quotes the file."""


def text_of(path: Path) -> str:
    """Return the text of the file at *path*. Raises :class:`UnreadableError` if it is not UTF-8 or too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not a path"
        raise UnreadableError(f"cannot be read: {problem}") from None
    if len(content) > MOST_BYTES:
        raise UnreadableError(f"cannot be read: it is larger than {MOST_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableError("cannot be read: it is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table.

    *read* returns the value, or raises :class:`WrongKindError`. *example* is a value in TOML, for messages.
    """

    read: Callable[[Place, str, Any], Any]
    example: str


class WrongKindError(Exception):
    """A value has the wrong kind. The message is the right kind, as in "a list of strings"."""


@dataclass(frozen=True, slots=True)
class Place:
    """A table of the file, for messages.

    * *file*, *table*: their names in messages.
    * *base*: the directory that paths are relative to.
    * *environment*: the variables that ``env:NAME`` refers to.
    * *elsewhere*: a function that explains a key which belongs in another table or another version.
    """

    file: str
    table: str
    base: Path
    environment: Mapping[str, str]
    elsewhere: Callable[[str], str | None] = field(default=lambda name: None)

    def inner(self, table: str) -> Place:
        """Return the place of an inner *table*."""
        return replace(self, table=table)

    def error(self, key: str, problem: str) -> ConfigurationError:
        """Return an error about *key* of this table."""
        return ConfigurationError(f"{self.file}: {self.table}: {key}: {problem}")

    def construct(self, key: str, build: Callable[[], T]) -> T:
        """Return the result of *build*. Its :class:`ConfigurationError` gets this place, and *key* if it lacks it."""
        try:
            return build()
        except ConfigurationError as error:
            problem = str(error)
            named = not key or problem.startswith((f"{key}:", f"{key}.", f"{key}["))
            raise ConfigurationError(
                f"{self.file}: {self.table}: {problem if named else f'{key}: {problem}'}"
            ) from None

    def read(self, table: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
        """Return the values of *table*.

        Raises :class:`ConfigurationError` for a key that is not in *keys* and for a value of the wrong kind.
        """
        values: dict[str, Any] = {}
        for name, value in table.items():
            key = keys.get(name)
            if key is None:
                raise self.error(show(name), self.elsewhere(name) or _unknown(name, keys))
            try:
                values[name] = key.read(self, name, value)
            except WrongKindError as needed:
                found = kind_of(value)
                raise self.error(name, f"must be {needed}, not {found}, as in: {name} = {key.example}") from None
        return values


def show(name: str) -> str:
    """Return the key *name* for a message: one line of limited length, whatever the key contains."""
    return name if len(name) <= 80 and name.isprintable() else ascii(name[:80])


def _unknown(name: str, keys: Mapping[str, Key]) -> str:
    near = get_close_matches(name, keys, n=1, cutoff=0.6)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; use one of {', '.join(sorted(keys))}"


def kind_of(value: object) -> str:
    """Return the kind of *value* in TOML's terms."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        wrong = {kind_of(item) for item in value}
        return f"a list with {' and '.join(sorted(wrong))}" if wrong else "an empty list"
    if isinstance(value, Mapping):
        return "a table"
    kinds = {str: "a string", int: "a whole number", float: "a number"}
    return kinds.get(type(value), "a date or time")


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


def resolve(value: str, place: Place, key: str) -> str:
    """Return *value*, the environment variable for ``env:NAME``, or the content of the file for ``file:PATH``.

    Line ends at the end of the file are removed. Raises :class:`ConfigurationError` if the variable or the file is
    missing or empty. The message has the name of the variable or the file, and *key*, but never the content.
    """
    kind, colon, name = value.partition(":")
    if not colon or kind not in ("env", "file"):
        return value
    if kind == "env":
        found = place.environment.get(name)
        if not found:
            problem = "is not set" if found is None else "is empty"
            raise place.error(key, f"the environment variable {show(name)} {problem}")
        return found
    try:
        content = text_of(place.base / name).rstrip("\r\n")
    except UnreadableError as problem:
        raise place.error(key, f"the file {show(name)} {problem}") from None
    if not content:
        raise place.error(key, f"the file {show(name)} is empty")
    return content


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A function that returns the content of a file, and reads it again at each call, because it may be renewed."""

    path: Path

    def __call__(self) -> str:
        return text_of(self.path).rstrip("\r\n")


def renewable(place: Place, key: str, value: Any) -> str | SecretFile:
    """Read a string as :func:`reference` does, but return a :class:`SecretFile` for ``file:PATH``.

    The file must exist already.
    """
    text = reference(place, key, value)
    return SecretFile(place.base / value.removeprefix("file:")) if value.startswith("file:") else text


def path(place: Place, key: str, value: Any) -> str:
    """Read a path that is relative to the configuration file. It may be ``env:NAME``, and not ``file:PATH``."""
    path = string(place, key, value)
    if path.startswith("file:"):
        raise place.error(key, f'must be the path itself, without "file:", as in: {key} = "keys.json"')
    return str(place.base / resolve(path, place, key))


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
