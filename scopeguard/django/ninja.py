"""Django Ninja: the verified token as the authentication of an API, a router or an operation.

    api = NinjaAPI(auth=TokenAuth())

    @api.get("/rows", auth=TokenAuth("rows.read"))
    def rows(request):
        return {"for": request.auth.subject}

The middleware :class:`scopeguard.django.GuardMiddleware` checks the token. It reads the authentication of an operation,
so that a request is refused before the operation runs, with the challenge and the body of the guard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.conditions import Condition
from scopeguard.django.decorators import refuse
from scopeguard.django.request_state import state_of
from scopeguard.django.responses import end_with
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import AUTHENTICATED, Requirement, require
from scopeguard.tokens import AccessToken


class TokenAuth:
    """Authentication of Django Ninja by an access token that satisfies all of *items*, as in :func:`requires`.

    Without arguments, any valid token is accepted. ``request.auth`` is the verified
    :class:`~scopeguard.AccessToken`, and ``request.user`` its user. The OpenAPI document gets the bearer scheme.

    A refusal is final: the authentication that follows it in a list is not tried.

    Raises :class:`ConfigurationError` for the arguments that :func:`requires` refuses.
    """

    def __init__(
        self,
        *items: Requirement | Condition | str,
        acr: Requirement | Iterable[str] | None = None,
        max_age: int | None = None,
    ) -> None:
        requirement = require(*(items or (AUTHENTICATED,)), acr=acr, max_age=max_age)
        setattr(self, REQUIREMENT, requirement)
        self._requirement = requirement
        self.openapi_security_schema: dict[str, str] = {"type": "http", "scheme": "bearer"}

    def __call__(self, request: Any) -> AccessToken | None:
        """Return the token of *request*. Raises :class:`ConfigurationError` if no guard has checked the request."""
        state = state_of(request)
        if state is None:
            raise ConfigurationError(
                "TokenAuth: no guard has checked this request; add scopeguard.django.GuardMiddleware to MIDDLEWARE"
            )
        refusal = refuse(request, self._requirement)
        if refusal is not None:
            raise end_with(refusal, request)
        return state.token
