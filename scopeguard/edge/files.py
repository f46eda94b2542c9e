"""Opens the files that settings name.

Only regular files are opened, after following symbolic links, because mounted secrets of Kubernetes are links. A read
from a named pipe blocks until another process writes to it, and a device may have no end.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO, Final

from scopeguard.errors import ConfigurationError

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Windows has neither flag. Opening a named pipe does not wait for its writer.
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open the file at *path* for reading. Raises :class:`OSError` if that fails, or if it is not a regular file.

    The text of the error (``strerror``) says what it is.
    """
    require_regular(path)
    descriptor = os.open(path, _FLAGS)
    try:
        _require(os.fstat(descriptor).st_mode, path)  # the file may have been replaced meanwhile
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of the file at *path*. Raises :class:`OSError` as :func:`open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Return the text of the file at *path*. Raises :class:`OSError` and :class:`UnicodeDecodeError`."""
    return read_bytes(path).decode(encoding)


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raise :class:`OSError` unless there is a regular file at *path*, for libraries that open files themselves."""
    _require(os.stat(path).st_mode, path)


def check_file(path: str | os.PathLike[str], setting: str) -> None:
    """Raise :class:`ConfigurationError` if there is something at *path* that is not a regular file.

    A file may be missing or unreadable when it is configured.
    """
    kind = irregular_kind(path)
    if kind is not None:
        raise ConfigurationError(f"{setting}: {os.fspath(path)!r} is {kind}; write the path of a regular file")


def irregular_kind(path: str | os.PathLike[str]) -> str | None:
    """Return what is at *path*, as in ``"a named pipe"``. Return ``None`` for a regular file, and for nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return None if stat.S_ISREG(mode) else _describe(mode)


def _require(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {_describe(mode)}, and must be a regular file", os.fspath(path))


def _describe(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "not a file")
