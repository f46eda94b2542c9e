"""Django REST framework: the verified token as its authentication, and permission classes by scope.

    REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["scopeguard.django.rest_framework.TokenAuthentication"]}

    class Rows(APIView):
        permission_classes = [has_scopes("rows.read")]

The middleware :class:`scopeguard.django.GuardMiddleware` checks the token. It reads the permission classes of a view,
so that a request is refused before the view runs, with the challenge and the body of the guard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scopeguard.extras import explain_missing

try:
    import rest_framework as _framework
except ModuleNotFoundError as _missing:
    raise explain_missing(
        _missing, "drf", library="rest_framework", needed_by="scopeguard.django.rest_framework"
    ) from None

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission

from scopeguard.adapter.declarations import REQUIREMENT
from scopeguard.conditions import Condition
from scopeguard.django.decorators import refuse, would_admit
from scopeguard.django.request_state import RequestState, state_of
from scopeguard.django.responses import end_with
from scopeguard.errors import ConfigurationError, MissingCredentials
from scopeguard.reasons import Reason
from scopeguard.scopes import Requirement, require
from scopeguard.tokens import AccessToken

del _framework


class _TokenAuthentication(BaseAuthentication):
    def authenticate(self, request: Any) -> tuple[Any, AccessToken] | None:
        state = _state_of(request)
        return None if state.token is None else (request._request.user, state.token)

    def authenticate_header(self, request: Any) -> str:
        state = _state_of(request)
        requirement = state.route.requirement
        scopes = () if requirement is None else requirement.challenge_scopes
        style = state.layer.engine.settings.style
        return ", ".join(style.challenges(MissingCredentials(Reason.NO_CREDENTIALS), scopes))


TokenAuthentication: Any = _TokenAuthentication
"""The authentication class: ``request.user`` and ``request.auth``, the verified
:class:`~scopeguard.AccessToken`, are those of the request's token. Without a token, the next class is tried.

``authenticate_header`` is the challenge of the guard, so that the framework answers 401 and not 403.
"""


def has_scopes(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
) -> Any:
    """Return a permission class for requests whose token satisfies all of *items*, as in :func:`requires`.

    Use it in ``permission_classes`` of a view, of an action, or of a function with ``api_view``. Write alternatives
    with :func:`~scopeguard.any_of`: the operators ``|`` and ``~`` of permission classes do not override a refusal.
    """
    requirement = require(*items, acr=acr, max_age=max_age)

    class HasScopes(BasePermission):
        def has_permission(self, request: Any, view: Any) -> bool:
            del view
            inner = request._request
            # The framework asks about other methods to describe them: in the browsable API, and for OPTIONS.
            if request.method != inner.method:
                return would_admit(inner, requirement)
            refusal = refuse(inner, requirement)
            if refusal is not None:
                raise end_with(refusal, inner)
            return True

    setattr(HasScopes, REQUIREMENT, requirement)
    return HasScopes


def _state_of(request: Any) -> RequestState:
    state = state_of(request._request)
    if state is None:
        raise ConfigurationError(
            "TokenAuthentication: no guard has checked this request; add scopeguard.django.GuardMiddleware to "
            "MIDDLEWARE"
        )
    return state
