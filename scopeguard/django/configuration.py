"""The setting ``SCOPEGUARD`` of a Django project, and the layer that it describes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.signals import setting_changed
from django.urls import get_resolver
from django.utils.module_loading import import_string

from scopeguard.adapter.declarations import Layer
from scopeguard.adapter.route_access import RouteAccess, ViewRules
from scopeguard.audit.django_routes import marked_objects, methods_with_declarations
from scopeguard.audit.route_requirements import RouteRequirements
from scopeguard.audit.startup import StartCheck
from scopeguard.config.checks import flag, function, instance, mapping
from scopeguard.core.engine import Engine
from scopeguard.errors import ConfigurationError
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import Rule, Rules
from scopeguard.tokens import AccessToken

if TYPE_CHECKING:
    from scopeguard.adapter.debug_page import DebugPage

_KEYS: Final = ("GUARD", "FILE", "PUBLIC", "RULES", "USER", "ENFORCE_CSRF", "DEBUG")


class ProjectLayer(Layer):
    """The middleware of one project, as requests and the audit see it.

    *find_user*: the function of the setting ``USER``. *enforces_csrf*: Django's protection against forged requests also
    holds for requests with a token. *debug*: the page of the setting ``DEBUG``.
    """

    default = "SCOPEGUARD default"
    views_decide = True

    def __init__(self, given: Mapping[str, Any]) -> None:
        guard = _guard_of(given)
        engine = engine_of(guard)
        user = _load(given.get("USER"), "USER")
        if user is not None:
            function(user, "SCOPEGUARD: USER", "a function of an access token, or its dotted path")
        enforces_csrf = given.get("ENFORCE_CSRF", False)
        flag(enforces_csrf, "SCOPEGUARD: ENFORCE_CSRF")
        rules = Rules.choose(given.get("RULES"), guard.rules).with_public(given.get("PUBLIC", ()))
        self.app: Any = get_resolver()
        self.guard: Guard = guard
        self.engine: Engine = engine
        self.rules: Rules = engine.check_rules(rules)
        self.find_user: Callable[[AccessToken], Any] | None = user
        self.enforces_csrf: bool = enforces_csrf
        self.passes_preflights: bool = engine.passes_preflights()
        self.start_check: StartCheck = StartCheck(self.app, guard)
        debug = given.get("DEBUG", False)
        self.debug: DebugPage | None = None
        if debug is not False:
            from scopeguard.adapter.debug_page import open_debug_page  # noqa: PLC0415 - for development only

            self.debug = open_debug_page(debug, engine)
        self._view_rules: ViewRules[RouteAccess] = ViewRules(self.rules)
        self.find_rule: Callable[[str, str, bytes | None], Rule | None] = self._view_rules.find
        self._declared = RouteRequirements(self.app, self.rules)
        if engine.metadata is not None:
            engine.metadata.add(self._declared)

    def route(self, rule: Rule | None, view: Any, method: str) -> RouteAccess:
        """Return the combined requirement of *rule* and *view*. It is cached for each rule, view and method."""
        # Clients can send any method. Only known ones are part of the key, so that the cache stays small.
        key = (id(view), method if method in methods_with_declarations(view) else "")
        return self._view_rules.route(
            rule, view, key, lambda: RouteAccess(rule, view, marked_objects(view, method), self.engine, self.rules)
        )


@functools.cache
def get_layer() -> ProjectLayer:
    """Return the layer that the setting ``SCOPEGUARD`` describes. Every call returns the same object.

    Raises :class:`ConfigurationError` for a setting that is missing, unknown or of the wrong kind.
    """
    given = getattr(settings, "SCOPEGUARD", None)
    if given is None:
        raise ConfigurationError('SCOPEGUARD is missing in the settings; write SCOPEGUARD = {"GUARD": Guard(...)}')
    unknown = [name for name in mapping(given, "SCOPEGUARD") if name not in _KEYS]
    if unknown:
        raise ConfigurationError(f"SCOPEGUARD: unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS)}")
    return ProjectLayer(given)


def get_guard() -> Guard:
    """Return the guard of the project, for tests (``authority.takes_over(get_guard())``) and for code that calls it.

    Raises :class:`ConfigurationError` if the setting ``SCOPEGUARD`` has an error.
    """
    return get_layer().guard


def _guard_of(given: Mapping[str, Any]) -> Guard:
    guard, file = given.get("GUARD"), given.get("FILE")
    if (guard is None) == (file is None):
        raise ConfigurationError("SCOPEGUARD: needs either GUARD, a scopeguard.Guard, or FILE, the path of a TOML file")
    if file is not None:
        instance(file, (str, PathLike), "SCOPEGUARD: FILE", "the path of a TOML file")
        return Guard.from_file(fspath(file))
    guard = _load(guard, "GUARD")
    instance(guard, Guard, "SCOPEGUARD: GUARD", "a scopeguard.Guard, or its dotted path")
    found: Guard = guard
    return found


def _load(value: Any, name: str) -> Any:
    """Return the object that *value*, a dotted path, names, or *value* itself if it is not a string."""
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise ConfigurationError(f"SCOPEGUARD: {name}: {value!r} cannot be imported ({error})") from None


def _forget(*, setting: str, **_: Any) -> None:
    """Read the settings again after a test has changed one of them."""
    if setting in ("SCOPEGUARD", "ROOT_URLCONF"):
        get_layer.cache_clear()


setting_changed.connect(_forget)
