"""The entry for ``INSTALLED_APPS``, which adds the system checks."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.core.checks import Tags, register

from scopeguard.django.schema import describe_authentication
from scopeguard.django.system_checks import check_project, list_open_routes


class _ScopeGuardConfig(AppConfig):
    """Adds :func:`~scopeguard.django.system_checks.check_project` to ``manage.py check``."""

    name = "scopeguard.django"
    label = "scopeguard"
    verbose_name = "scopeguard"

    def ready(self) -> None:
        """Register the checks, and the description of the authentication for OpenAPI documents."""
        if apps.is_installed("drf_spectacular"):
            describe_authentication()
        register(check_project, Tags.urls)
        register(list_open_routes, Tags.urls, deploy=True)
