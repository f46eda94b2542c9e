"""The declaration of access tokens in the OpenAPI document of an app."""

from __future__ import annotations

from copy import copy
from typing import Any

from litestar.config.app import AppConfig
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins import InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.audit.litestar_routes import access_of, handlers_of, marked_objects
from scopeguard.config.checks import instance
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.guard import Guard, engine_of
from scopeguard.rules import OPTIONAL, PUBLIC
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, scopes_in


class OpenAPISecurity(InitPlugin, ReceiveRoutePlugin):
    """A plugin that adds the security schemes of *guard* to the OpenAPI document, and to each operation its scopes.

    ::

        Litestar([...], plugins=[OpenAPISecurity(guard)])

    The scopes are those of the guards of an operation. The document does not show those of rules. An operation for
    which the app sets ``security`` itself, at any layer, is left as it is.
    """

    def __init__(self, guard: Guard) -> None:
        instance(guard, Guard, "guard", "a scopeguard.Guard, as in OpenAPISecurity(guard)")
        dpop = engine_of(guard).settings.dpop
        mode = DPoPMode.OFF if dpop is None else dpop.mode
        bearer = {"Bearer": SecurityScheme(type="http", scheme="Bearer", bearer_format="JWT")}
        proof = {"DPoP": SecurityScheme(type="http", scheme="DPoP", description="An access token with a DPoP proof")}
        self._schemes: dict[str, Any] = {
            **(bearer if mode is not DPoPMode.REQUIRED else {}),
            **(proof if mode is not DPoPMode.OFF else {}),
        }

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the security schemes. Litestar calls this."""
        if app_config.openapi_config is not None:
            app_config.openapi_config = config = copy(app_config.openapi_config)
            given = config.components if isinstance(config.components, list) else [config.components]
            config.components = [*given, Components(security_schemes=self._schemes)]
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Add the scopes of the operations of *route*. Litestar calls this."""
        for handler in handlers_of(route):
            if not isinstance(handler, HTTPRouteHandler) or any(layer.security for layer in handler.ownership_layers):
                continue
            marked = marked_objects(handler)
            needed = [item for guard in marked if isinstance(item := getattr(guard, REQUIREMENT, None), Requirement)]
            access = access_of(handler)
            if needed or access is not PUBLIC:
                scopes = [sorted(scopes_in(one)) for one in (all_of(*needed) if needed else AUTHENTICATED).alternatives]
                anonymous: list[dict[str, list[str]]] = [{}] if access is OPTIONAL and not needed else []
                handler.security = [{name: each} for each in scopes for name in self._schemes] + anonymous
