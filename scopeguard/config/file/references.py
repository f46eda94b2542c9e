"""Read files and environment variables that the configuration file names: ``env:NAME`` and ``file:PATH``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scopeguard.config.file.place import Place, show
from scopeguard.config.file_limits import LARGEST_CONFIGURATION_FILE
from scopeguard.edge.files import open_regular


class UnreadableError(Exception):
    """A file cannot be read. The message says why, and never quotes the file."""


def text_of(path: Path) -> str:
    """Return the text of the file at *path*. Raises :class:`UnreadableError` if it is not UTF-8 or too large."""
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_CONFIGURATION_FILE + 1)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not a path"
        raise UnreadableError(f"cannot be read: {problem}") from None
    if len(content) > LARGEST_CONFIGURATION_FILE:
        raise UnreadableError(f"cannot be read: it is larger than {LARGEST_CONFIGURATION_FILE} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableError("cannot be read: it is not UTF-8") from None


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
