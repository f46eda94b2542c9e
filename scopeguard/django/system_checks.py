"""The system checks of a project: its settings, the order of its middleware, and the audit of its routes."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Info
from django.utils.module_loading import import_string

from scopeguard.adapter.declarations import FIND_LAYER
from scopeguard.audit.findings import audit_app
from scopeguard.audit.report import Finding, Kind, Severity
from scopeguard.django.configuration import get_layer
from scopeguard.errors import ConfigurationError

_CACHE: Final = "django.middleware.cache.FetchFromCacheMiddleware"
_KINDS: Final = {Severity.ERROR: checks.Error, Severity.WARNING: checks.Warning}
_WORDS: Final = {
    Kind.PUBLIC: "Every request reaches the view: no token is needed.",
    Kind.OPTIONAL: "Requests without a token reach the view.",
}


def check_project(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Return what ``manage.py check`` reports about the guard of the project.

    * ``scopeguard.E001``: the setting ``SCOPEGUARD`` is missing or wrong. Nothing else is then checked.
    * ``scopeguard.E002``: ``MIDDLEWARE`` has no guard, so that it checks no request.
    * ``scopeguard.E003``: Django's cache answers requests before the guard sees them.
    * ``scopeguard.`` with the code of a finding of the audit: a route that is open against its declaration, a rule that
      no request reaches, and the like.
    """
    del app_configs, kwargs
    try:
        layer = get_layer()
    except ConfigurationError as error:
        return [Error(str(error), id="scopeguard.E001")]
    guards = [path for path in settings.MIDDLEWARE if hasattr(import_string(path), FIND_LAYER)]
    if not guards:
        hint = 'Add "scopeguard.django.GuardMiddleware" to MIDDLEWARE.'
        return [Error("No guard checks the requests: MIDDLEWARE does not contain it.", hint=hint, id="scopeguard.E002")]
    messages: list[CheckMessage] = []
    if _CACHE in settings.MIDDLEWARE and settings.MIDDLEWARE.index(_CACHE) < settings.MIDDLEWARE.index(guards[0]):
        hint = "Put FetchFromCacheMiddleware at the end of MIDDLEWARE, as Django's documentation says."
        messages.append(Error("The cache answers requests before the guard.", hint=hint, id="scopeguard.E003"))
    return [*messages, *map(_to_message, audit_app(layer.app).findings)]


def list_open_routes(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Return a message for each route that needs no token, for ``manage.py check --deploy``: ``scopeguard.I001``."""
    del app_configs, kwargs
    try:
        entries = audit_app(get_layer().app).entries
    except ConfigurationError:  # check_project reports it
        return []
    return [
        Info(_WORDS[entry.kind], obj=entry.where, id="scopeguard.I001") for entry in entries if entry.kind in _WORDS
    ]


def _to_message(finding: Finding) -> CheckMessage:
    kind = _KINDS[finding.severity]
    return kind(finding.message, hint=finding.fix, obj=finding.where, id=f"scopeguard.{finding.code}")
