"""The decorator and hook of Falcon responders: what a responder requires of a token."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Iterable
from typing import Any, Final, TypeVar, overload

import falcon

from scopeguard.adapter.declarations import REQUIREMENT, add_inner, mark
from scopeguard.adapter.inner_check import refuse_inside
from scopeguard.asgi import request_view as asgi_view
from scopeguard.asgi import require_of_renewals
from scopeguard.conditions import Condition
from scopeguard.core.decision import Adapter
from scopeguard.errors import ConfigurationError
from scopeguard.falcon.application import Refused, guard_and_token
from scopeguard.guard import Guard
from scopeguard.request import RequestView
from scopeguard.scopes import Requirement, require
from scopeguard.wsgi import request_view as wsgi_view

T = TypeVar("T")

# "request": on_request serves the methods that have no responder, with router_options.default_to_on_request.
_METHODS: Final = frozenset(("request", *(method.lower() for method in falcon.COMBINED_METHODS)))
_DECORABLE: Final = "a responder, a resource class or a sink"


def requires(
    *items: Requirement | Condition | str,
    acr: Requirement | Iterable[str] | None = None,
    max_age: int | None = None,
) -> Requires:
    """Require an access token that satisfies all of *items* for a responder, a resource or a sink.

    Each item is a scope, a condition, or a requirement such as ``any_of("read", "admin")``. The result is a hook for
    ``falcon.before``, and also a decorator, which sinks need because Falcon has no hooks for them::

        @falcon.before(requires("rows.read"))
        class Rows:
            def on_get(self, req, resp): ...

            @falcon.before(requires(any_of("rows.insert", "admin")))
            def on_post_batch(self, req, resp): ...

        @requires("files.read")
        def files(req, resp, **params): ...

    Responders with a suffix and ``on_websocket`` may be decorated, too. Several hooks and decorators add up. On a
    class, ``falcon.before`` and the decorator cover the responders that it has or inherits, but not those that a
    subclass defines. ``falcon.before`` leaves ``on_request`` of a class out, with a warning; the decorator does not.

    *acr* and *max_age* (seconds) require that the user signed in strongly and recently enough, as in
    :func:`~scopeguard.all_of`.

    A request without a token gets 401. One whose token lacks a scope gets 403, with the scopes in the challenge
    (RFC 6750 section 3.1). A websocket is refused before it is accepted, or else closed with code 1008.

    Raises :class:`ConfigurationError` for an object that cannot be decorated, and, at each call, in an app without a
    guard.
    """
    return Requires(require(*items, acr=acr, max_age=max_age))


class Requires:
    """A hook for ``falcon.before`` and a decorator. :func:`requires` makes it."""

    __module__ = "scopeguard.falcon"  # where apps import it from

    def __init__(self, requirement: Requirement) -> None:
        self._requirement = requirement
        setattr(self, REQUIREMENT, requirement)  # for the audit, which finds the hook in the responder

    @overload
    def __call__(self, decorated: T, /) -> T: ...
    @overload
    def __call__(self, req: Any, resp: Any, resource: Any, params: dict[str, Any], /) -> Awaitable[None]: ...
    def __call__(self, *given: Any) -> Any:
        if len(given) == 1:
            return self._decorate(given[0])
        # The check is complete here, because a WSGI app does not await the result.
        _check(given[0], self._requirement)
        return _NOTHING

    def _decorate(self, decorated: Any) -> Any:
        if isinstance(decorated, type):
            # One by one, because Falcon leaves on_request out when it decorates a class.
            for name, responder in inspect.getmembers(decorated, callable):
                if name.startswith("on_") and name.split("_")[1] in _METHODS:
                    setattr(decorated, name, falcon.before(self)(responder))
            return decorated
        if not callable(decorated):
            raise ConfigurationError(f"requires: must decorate {_DECORABLE}, not {type(decorated).__name__}")
        whole = add_inner(self._requirement, getattr(decorated, REQUIREMENT, None))
        guarded = _guard(decorated, whole)
        mark(guarded, decorated, whole)
        return guarded


def _guard(responder: Any, requirement: Requirement) -> Any:
    if inspect.iscoroutinefunction(responder):

        @functools.wraps(responder)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            _check(_request_in(args), requirement)
            return await responder(*args, **kwargs)

        return guarded_async

    @functools.wraps(responder)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check(_request_in(args), requirement)
        return responder(*args, **kwargs)

    return guarded


def _request_in(args: tuple[Any, ...]) -> Any:
    """Return the request in *args*: it comes first for a sink, and second for a responder."""
    for given in args[:2]:
        if isinstance(given, falcon.Request):
            return given
    raise ConfigurationError(f"requires: found no request in the first two arguments; decorate {_DECORABLE}")


class _Done:
    """An awaitable result. A coroutine would warn in a WSGI app, which does not await it."""

    def __await__(self) -> Any:
        return iter(())


_NOTHING: Final = _Done()


def _check(req: Any, requirement: Requirement) -> None:
    """Raise :class:`Refused` unless the token of *req* satisfies *requirement*."""
    guard, token = guard_and_token(req)
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            "requires: no guard has checked this request; give the server protect(app, guard=guard)"
        )
    scope = getattr(req, "scope", None)

    def describe() -> RequestView:
        return wsgi_view(req.env) if scope is None else asgi_view(scope, req.method)

    refused = refuse_inside(guard, token, requirement, Adapter.FALCON, describe)
    if refused is not None:
        raise Refused(refused)
    if scope is not None and scope["type"] == "websocket":
        require_of_renewals(scope, requirement)
