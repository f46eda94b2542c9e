"""drf-spectacular: the bearer token in the OpenAPI document of a Django REST framework project."""

from __future__ import annotations

from typing import Any


def describe_authentication() -> None:
    """Tell drf-spectacular, which must be installed, what ``TokenAuthentication`` takes."""
    # The package can be imported only after the settings.
    from drf_spectacular.extensions import OpenApiAuthenticationExtension  # noqa: PLC0415

    base: Any = OpenApiAuthenticationExtension

    class TokenScheme(base):
        target_class = "scopeguard.django.rest_framework.TokenAuthentication"
        name = "accessToken"

        def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
            del auto_schema
            return {"type": "http", "scheme": "bearer"}
