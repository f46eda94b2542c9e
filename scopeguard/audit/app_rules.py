"""The rules of a guard for the paths of the app inside it, which may change after the first request."""

from __future__ import annotations

from typing import Any

from scopeguard.adapter.declarations import Layer
from scopeguard.audit.inspection import inspect_app
from scopeguard.guard import engine_of
from scopeguard.rules import Rule
from scopeguard.rules.prefix_removal import RoutedRules


class AppRules:
    """The rules of *layer* for its app. The app is inspected at the first request, and again after a change.

    A change is noticed in the attributes by which a framework routes: the routes of routers, the ``root_path`` of
    FastAPI apps, ``wsgi_app``, ``request_class`` and ``url_map`` of Flask apps, the mounts of a
    ``DispatcherMiddleware``. It is not noticed in attributes of other objects.

    ``is_plain``: a path has one reading, as long as the app does not change and the server has no ``root_path``.
    :meth:`Rules.find` then suffices. ``watches``: the app has attributes that may change.
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
        """Return the rule for a request, as :meth:`RoutedRules.find` does, for the app as it is now."""
        routed = self._inspect() if self._routed is None or self.has_changed() else self._routed
        return routed.find(method, path, raw_path, root_path)

    def has_changed(self) -> bool:
        """Return whether the prefixes that the app removes from paths may have changed since it was inspected."""
        # This costs less than the routing itself, because lists compare their elements by identity first.
        return self.watches and list(map(getattr, self._owners, self._names)) != self._values

    def _inspect(self) -> RoutedRules:
        # At the first request, because an app may add routes after its middleware, or in its lifespan.
        layer = self._layer
        found = inspect_app(layer.app, layer.root_path)
        routed = RoutedRules(layer.rules, found.prefixes, engine_of(layer.guard).sources.methods)
        watched = found.watched if routed.depends_on_app else ()
        self._owners, self._names = [owner for owner, _, _ in watched], [name for _, name, _ in watched]
        self._values = [value for _, _, value in watched]
        self._routed, self.is_plain, self.watches = routed, routed.is_plain, bool(watched)
        return routed
