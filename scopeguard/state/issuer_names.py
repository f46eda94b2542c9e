"""Which configured issuer a name was probably meant to be: for the operator's log, never for a decision."""

from __future__ import annotations

from collections.abc import Iterable

_MOST_NAMES = 3


class IssuerNames:
    """The configured *names*, by what is easily got wrong about them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        # The first of several that are alike is the one to show.
        self._alike = {_loosely(name): name for name in reversed(self._names)}
        self._of_host = {_loosely(name).partition("/")[0]: name for name in reversed(self._names)}

    def nearest(self, issuer: str) -> dict[str, str]:
        """What is ``configured``, and how *issuer*, which is none of the names, ``differs`` from that.

        Two look-ups, however many names there are, since strangers choose *issuer*.
        """
        loosely = _loosely(issuer)
        found = self._alike.get(loosely)
        if found is not None:
            return {"configured": found, "differs": _difference(issuer, found)}
        found = self._of_host.get(loosely.partition("/")[0])
        if found is not None:
            return {"configured": found, "differs": "in the path"}
        if not self._names:
            return {}
        more = len(self._names) - _MOST_NAMES
        return {"configured": " ".join(self._names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")}


def _loosely(issuer: str) -> str:
    """*issuer* without scheme, upper case, default port and slashes at the end."""
    name = issuer.lower().removeprefix("https://").removeprefix("http://").rstrip("/")
    host, slash, path = name.partition("/")
    return host.removesuffix(":443").removesuffix(":80") + slash + path


def _difference(issuer: str, configured: str) -> str:
    if issuer.rstrip("/") == configured.rstrip("/"):
        return "only in the slash at the end"
    if issuer.lower() == configured.lower():
        return "only in upper and lower case"
    if issuer.partition("://")[2] == configured.partition("://")[2]:
        return "only in the scheme"
    return "only in how it is written: scheme, case, port or slash at the end"
