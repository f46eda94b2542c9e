"""Find the configured issuer that a name resembles. Only log lines use the result, never a decision."""

from __future__ import annotations

from collections.abc import Iterable

_MOST_NAMES = 3


class SimilarNames:
    """The configured *names*, indexed without the parts that are easily mistaken."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        # Of several similar names, the first one is shown.
        self._alike = {_normalize(name): name for name in reversed(self._names)}
        self._of_host = {_normalize(name).partition("/")[0]: name for name in reversed(self._names)}

    def nearest(self, issuer: str) -> dict[str, str]:
        """Return the ``configured`` name that resembles *issuer*, and how *issuer* ``differs`` from it.

        This takes two look-ups for any number of names, because strangers choose *issuer*.
        """
        normalized = _normalize(issuer)
        found = self._alike.get(normalized)
        if found is not None:
            return {"configured": found, "differs": _difference(issuer, found)}
        found = self._of_host.get(normalized.partition("/")[0])
        if found is not None:
            return {"configured": found, "differs": "in the path"}
        if not self._names:
            return {}
        more = len(self._names) - _MOST_NAMES
        return {"configured": " ".join(self._names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")}


def _normalize(issuer: str) -> str:
    """Return *issuer* in lower case, without scheme, default port and trailing slashes."""
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
