"""Find the configured issuer that a name resembles. Only log lines use the result, never a decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

_MOST_NAMES: Final = 3
_DEFAULT_PORTS: Final = {"https": "443", "http": "80"}


class SimilarNames:
    """The configured *names*, indexed without the parts that are easily mistaken."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        # Of several similar names, the first one is shown.
        parts = [(_split(name), name) for name in reversed(self._names)]
        self._alike = {part.loose_parts: name for part, name in parts}
        self._by_host = {part.host.lower(): name for part, name in parts}
        self._by_path = {path: name for part, name in parts if (path := part.path.lower().strip("/"))}

    def nearest(self, issuer: str) -> dict[str, str]:
        """Return the ``configured`` name that resembles *issuer*, and how *issuer* ``differs`` from it.

        This takes a few look-ups for any number of names, because strangers choose *issuer*.
        """
        given = _split(issuer)
        found = (
            self._alike.get(given.loose_parts)
            or self._by_host.get(given.host.lower())
            or self._by_path.get(given.path.lower().strip("/"))
            or (self._names[0] if len(self._names) == 1 and given.scheme.lower() in _DEFAULT_PORTS else None)
        )
        if found is not None:
            return {"configured": found, "differs": _difference(issuer, found)}
        if not self._names:
            return {}
        more = len(self._names) - _MOST_NAMES
        return {"configured": " ".join(self._names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")}


class _Parts(NamedTuple):
    scheme: str
    host: str
    port: str
    path: str

    @property
    def loose_parts(self) -> tuple[str, str, str]:
        """The parts in lower case, without the scheme and without slashes at the end."""
        return self.host.lower(), self.port, self.path.lower().rstrip("/")


def _split(name: str) -> _Parts:
    scheme, separator, rest = name.partition("://")
    if not separator:
        scheme, rest = "", name
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not port.isdecimal() or not colon or (":" in host and not host.endswith("]")):
        host, port = authority, ""
    default = _DEFAULT_PORTS.get(scheme.lower(), "443")
    return _Parts(scheme, host, "" if port == default else port, slash + path)


def _difference(issuer: str, configured: str) -> str:
    if issuer.rstrip("/") == configured.rstrip("/"):
        return "only in the slash at the end"
    if issuer.lower() == configured.lower():
        return "only in upper and lower case"
    one, other = _split(issuer), _split(configured)
    named = [
        name
        for name, part, counterpart in (
            ("scheme", one.scheme.lower(), other.scheme.lower()),
            ("host", one.host.lower(), other.host.lower()),
            ("port", one.port, other.port),
            (_name_of_path(one.path, other.path), one.path.rstrip("/"), other.path.rstrip("/")),
        )
        if part != counterpart
    ]
    if not named:
        return "only in how it is written: case, default port or slash at the end"
    return ("only in the " if len(named) == 1 else "in the ") + " and the ".join(named)


def _name_of_path(path: str, other: str) -> str:
    """Return "realm" if the paths are those of two realms of one Keycloak server, otherwise "path"."""
    before, separator, realm = path.rstrip("/").rpartition("/realms/")
    beyond, _, counterpart = other.rstrip("/").rpartition("/realms/")
    is_realm = separator and before == beyond and "/" not in realm and counterpart and "/" not in counterpart
    return "realm" if is_realm else "path"
