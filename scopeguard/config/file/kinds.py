"""How the values of a TOML document are read: of which kind they are, where they may stand, what is said of wrong ones.

Nothing here knows a key by name; the tables are in :mod:`scopeguard.config.file`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

from scopeguard.errors import ConfigurationError

T = TypeVar("T")

MOST_BYTES: Final = 1024 * 1024
"""Of a configuration file, and of a file that ``file:PATH`` names."""


class UnreadableError(Exception):
    """Why a file could not be read; the text names no content."""


def text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not a path"
        raise UnreadableError(f"cannot be read: {problem}") from None
    if len(content) > MOST_BYTES:
        raise UnreadableError(f"cannot be read: larger than {MOST_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableError("cannot be read: not UTF-8") from None


# One key of a table: how its value is read, and an example of it in TOML for messages.


@dataclass(frozen=True, slots=True)
class Key:
    """``read`` returns the value or raises :class:`WrongKindError`."""

    read: Callable[[Place, str, Any], Any]
    example: str


class WrongKindError(Exception):
    """What is needed instead of the value, as in "a list of strings"."""


@dataclass(frozen=True, slots=True)
class Place:
    """A table of the file: where messages say that something is wrong, and what paths and variables mean there.

    ``elsewhere``: what is to be said of a key that has its place in another table, or in another version.
    """

    file: str
    table: str
    base: Path
    environment: Mapping[str, str]
    elsewhere: Callable[[str], str | None] = field(default=lambda name: None)

    def inner(self, table: str) -> Place:
        """The place of a table inside."""
        return replace(self, table=table)

    def error(self, key: str, problem: str) -> ConfigurationError:
        """*problem* with *key*."""
        return ConfigurationError(f"{self.file}: {self.table}: {key}: {problem}")

    def built(self, key: str, build: Callable[[], T]) -> T:
        """What *build* returns; its :class:`ConfigurationError` gets the place, and *key* unless it names it."""
        try:
            return build()
        except ConfigurationError as error:
            problem = str(error)
            named = not key or problem.startswith((f"{key}:", f"{key}.", f"{key}["))
            raise ConfigurationError(
                f"{self.file}: {self.table}: {problem if named else f'{key}: {problem}'}"
            ) from None

    def read(self, table: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
        """The values of *table*; a key that *keys* does not have and a value of the wrong kind are refused."""
        values: dict[str, Any] = {}
        for name, value in table.items():
            key = keys.get(name)
            if key is None:
                raise self.error(shown(name), self.elsewhere(name) or _stranger(name, keys))
            try:
                values[name] = key.read(self, name, value)
            except WrongKindError as needed:
                found = kind_of(value)
                raise self.error(name, f"{needed} is needed, not {found}; as in: {name} = {key.example}") from None
        return values


def shown(name: str) -> str:
    """A key for a message: whatever it holds, one line of it and not too much."""
    return name if len(name) <= 80 and name.isprintable() else ascii(name[:80])


def _stranger(name: str, keys: Mapping[str, Key]) -> str:
    near = get_close_matches(name, keys, n=1, cutoff=0.5)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(sorted(keys))}"


def kind_of(value: object) -> str:
    """What *value* is, in the words of TOML."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        wrong = {kind_of(item) for item in value}
        return f"a list with {' and '.join(sorted(wrong))}" if wrong else "an empty list"
    if isinstance(value, Mapping):
        return "a table"
    kinds = {str: "a string", int: "a whole number", float: "a number"}
    return kinds.get(type(value), "a date or time")


# Readers, one for each kind of value.


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
        raise WrongKindError("true, or no such line at all,")
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
    """A string that may stand elsewhere."""
    return resolved(string(place, key, value), place, key)


def references(place: Place, key: str, value: Any) -> tuple[str, ...]:
    return tuple(resolved(item, place, key) for item in one_or_more_strings(place, key, value))


def resolved(value: str, place: Place, key: str) -> str:
    """*value*; of ``env:NAME`` that variable, of ``file:PATH`` the content of that file, without the line end.

    Raises :class:`ConfigurationError` naming the variable or the file and *key*, never a content.
    """
    kind, colon, name = value.partition(":")
    if not colon or kind not in ("env", "file"):
        return value
    if kind == "env":
        found = place.environment.get(name)
        if not found:
            problem = "is not set" if found is None else "is empty"
            raise place.error(key, f"the environment variable {shown(name)} {problem}")
        return found
    try:
        content = text_of(place.base / name).rstrip("\r\n")
    except UnreadableError as problem:
        raise place.error(key, f"the file {shown(name)} {problem}") from None
    if not content:
        raise place.error(key, f"the file {shown(name)} is empty")
    return content


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file whose content is read again whenever it is called for, because somebody renews it."""

    path: Path

    def __call__(self) -> str:
        return text_of(self.path).rstrip("\r\n")


def renewed(place: Place, key: str, value: Any) -> str | SecretFile:
    """As :func:`reference`; but ``file:PATH`` is the file, which must be there now, and is read when it is needed."""
    text = reference(place, key, value)
    return SecretFile(place.base / value.removeprefix("file:")) if value.startswith("file:") else text


def path(place: Place, key: str, value: Any) -> str:
    """A path, relative to the file; it may stand in the environment, and a file that holds it would confuse people."""
    path = string(place, key, value)
    if path.startswith("file:"):
        raise place.error(key, f'write the path itself, as in: {key} = "keys.json"')
    return str(place.base / resolved(path, place, key))


def paths(place: Place, key: str, value: Any) -> tuple[str, ...]:
    """One path or several; an empty list is refused, because it would say less than no list."""
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
        raise WrongKindError(f"a list of tables, each begun by [[{key}]],")
    return value
