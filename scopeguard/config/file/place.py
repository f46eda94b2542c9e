"""Read a table by its keys, and write errors that name the file, the table and the key.

No key is named here. The tables with the keys are in :mod:`scopeguard.config.file.tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from scopeguard.config.suggestions import nearest
from scopeguard.errors import ConfigurationError

T = TypeVar("T")


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
    * *elsewhere*: a function that explains a key which belongs in another table, given the keys of this one.
    """

    file: str
    table: str
    base: Path
    environment: Mapping[str, str]
    elsewhere: Callable[[str, Mapping[str, Key]], str | None] = field(default=lambda name, keys: None)

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
                raise self.error(show(name), self.elsewhere(name, keys) or _unknown(name, keys))
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
    return f"unknown key; {fix_of(name, keys, similarity=0.6)}"


def fix_of(name: str, keys: Mapping[str, Key], *, similarity: float) -> str:
    """Return what to write for *name*, which is not one of *keys*: a key that resembles it, or the list of them."""
    near = nearest(name, keys, similarity=similarity)
    return f"did you mean {near}?" if near else f"use one of {', '.join(sorted(keys))}"


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
