"""The rules of a guard for the app inside it, as that app is now."""

from __future__ import annotations

from typing import Any

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.inspection import inside
from scopeguard.rules import Rule
from scopeguard.rules.routed import RoutedRules


class AppRules:
    """The rules of *layer* for its app, which is looked at when the first request comes and whenever it has changed.

    A change is noticed where a framework keeps what it routes by: the routes of routers, the ``root_path`` of FastAPI
    apps, ``wsgi_app``, ``request_class`` and ``url_map`` of Flask apps, the mounts of a ``DispatcherMiddleware``. Not
    noticed: an attribute of another object that is set after the first request.

    ``is_plain``: while nothing changes, and without a ``root_path`` of the server, the path has one reading, and
    :meth:`Rules.find` is all there is to it. ``watches``: something may change.
    """

    __slots__ = ("_layer", "_names", "_owners", "_routed", "_values", "is_plain", "watches")

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._routed: RoutedRules | None = None
        self._owners: list[Any] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        self.is_plain: bool = False
        self.watches: bool = False

    def find(self, method: str, path: str, raw_path: bytes | None = None, root_path: str = "") -> Rule | None:
        """:meth:`RoutedRules.find`, for the app as it is now."""
        routed = self._look() if self._routed is None or self.has_changed() else self._routed
        return routed.find(method, path, raw_path, root_path)

    def has_changed(self) -> bool:
        """Whether the app may take other prefixes off than when it was looked at."""
        # Lists compare their elements by identity first, so that this costs less than the routing itself.
        return self.watches and list(map(getattr, self._owners, self._names)) != self._values

    def _look(self) -> RoutedRules:
        # Not before the first request: an app may be put together after its middleware, or in its lifespan.
        layer = self._layer
        found = inside(layer.app, layer.root_path)
        routed = RoutedRules(layer.rules, found.prefixes)
        watched = found.watched if routed.depends_on_app else ()
        self._owners, self._names = [owner for owner, _, _ in watched], [name for _, name, _ in watched]
        self._values = [value for _, _, value in watched]
        self._routed, self.is_plain, self.watches = routed, routed.is_plain, bool(watched)
        return routed
