"""The state of one request that the middleware and the decorators share."""

from __future__ import annotations

from typing import Any, Final

from scopeguard.adapter.route_access import RouteAccess
from scopeguard.core.decision import Report
from scopeguard.django.configuration import ProjectLayer
from scopeguard.request import ProofNotes
from scopeguard.tokens import AccessToken

_ATTRIBUTE: Final = "_scopeguard"


class RequestState:
    """The progress and the result of the check of *request*.

    * ``key``: the method, path and view that the check was for. Middleware may change all three.
    * ``is_at_view``: the check is the last one, with the view that Django calls.
    * ``is_passed``: the request is a preflight, which needs no token.
    * ``is_checked``: the token satisfies ``route``. It stays false for a public route.
    * ``has_other_field``: the credential is, or may be, outside ``Authorization``, so no cache may store the response.
    * ``refusal``: the response that must replace that of the view.
    * ``is_ambient``: the token is in a place that a browser or a proxy may fill without the page, or that a page of
      another site may fill: any but the ``Authorization`` field.
    """

    __slots__ = (
        "has_other_field", "is_ambient", "is_at_view", "is_checked", "is_in_query", "is_passed", "key", "layer",
        "own_report", "proofs", "refusal", "report", "request", "route", "token",
    )  # fmt: skip

    def __init__(self, layer: ProjectLayer, request: Any, key: tuple[str, str, Any], route: RouteAccess) -> None:
        self.layer: ProjectLayer = layer
        self.request: Any = request
        self.key: tuple[str, str, Any] = key
        self.route: RouteAccess = route
        self.token: AccessToken | None = None
        self.is_at_view: bool = False
        self.is_passed: bool = False
        self.is_checked: bool = False
        self.is_ambient: bool = False
        self.is_in_query: bool = False
        self.refusal: Any = None
        self.has_other_field: bool = False
        self.proofs: ProofNotes | None = None
        self.report: Report | None = None  # the report of middleware around the application, if it has begun one
        self.own_report: Report | None = None
        setattr(request, _ATTRIBUTE, self)

    def report_route(self) -> None:
        """Add the route that Django has matched to the report."""
        if self.report is not None:
            match = getattr(self.request, "resolver_match", None)
            self.report.publish(None if match is None else f"/{match.route}")


def state_of(request: Any) -> RequestState | None:
    """Return the state of *request*, or ``None`` if the middleware has not seen it."""
    found: RequestState | None = getattr(request, _ATTRIBUTE, None)
    return found
