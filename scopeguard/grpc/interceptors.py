"""The interceptors for both kinds of server."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from scopeguard.config.checks import instance
from scopeguard.config.token_sources import TokenSource
from scopeguard.core.decision import Adapter, Decision, Denied, Granted, Report, Unavailable
from scopeguard.errors import ConfigurationError
from scopeguard.grpc.calls import (
    MALFORMED,
    METHOD,
    LaterResponses,
    Responses,
    abort,
    abort_unknown,
    abort_unknown_async,
    parse_message,
    replace_handler,
    request_view,
    status_of,
    trailing_metadata,
)
from scopeguard.guard import Guard, engine_of
from scopeguard.inbound_tokens import to_serve
from scopeguard.request import RequestView
from scopeguard.rules import OPTIONAL, PUBLIC, Rule, Rules
from scopeguard.tokens import Serving, begin_serving, end_serving


class _Interceptor:
    """The part that the interceptors for both kinds of server share."""

    _blocks = False

    def __init__(
        self, guard: Guard, *, rules: Rules | Iterable[Rule] | None = None, public: Iterable[str] = ()
    ) -> None:
        instance(guard, Guard, "guard", f"a scopeguard.Guard, as in {type(self).__name__}(guard)")
        self._engine = engine = engine_of(guard)
        chosen = Rules.choose(rules, guard.rules).with_public(public)
        if not chosen.deny_unmatched:
            raise ConfigurationError(
                f"{type(self).__name__}: rules: must name the methods of the server, as in "
                'rules=[Rule("/rows.v1.Rows/{method}", all_of("rows.read"))]; a method without a rule is denied'
            )
        if not engine.sources.in_header:
            raise ConfigurationError(
                f"{type(self).__name__}: token_sources of the guard lacks 'header', and gRPC has no other place; "
                "add it, or give gRPC a guard of its own"
            )
        for rule in chosen.all:
            if rule.sources is not None and rule.sources != {TokenSource.HEADER}:
                raise ConfigurationError(
                    f"rule {rule.path!r}: token_sources: gRPC has only the metadata authorization; remove it"
                )
        self._rules: Rules = engine.check_rules(chosen, blocks=self._blocks)
        self._sources = engine.sources_for(frozenset((TokenSource.HEADER,)))

    def check_services(self, *services: Any) -> None:
        """Raise :class:`ConfigurationError` unless a rule or *public* names each method of *services*.

        They are descriptors of services, as in ``rows_pb2.DESCRIPTOR.services_by_name["Rows"]``. A method without a
        rule is denied to everyone, so this finds a forgotten rule when the server starts, not at the first call.
        """
        names = [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]
        lost = [name for name in names if self._rules.find(METHOD, name) is None]
        if lost:
            raise ConfigurationError(f"rules: no rule matches {', '.join(lost)}; add one, which may say DENIED")

    def _find_rule(self, method: str) -> Rule | None:
        # A client may send any path. A query is never part of a method, but a parameter would match it, and a server to
        # which a handler forwards the call may ignore it.
        return None if "?" in method or "#" in method else self._rules.find(METHOD, method)

    def _guard(self, method: str, rule: Rule | None, inner: Any, parse: Any, *, streams: bool) -> Any:
        """Return *inner*, a function that handles a call and may block, preceded by the check.

        *parse* makes the request message from its bytes. It is ``None`` for a stream of requests, which gRPC parses.
        *streams*: the result is an iterator.
        """

        @functools.wraps(inner)  # also copies the attributes by which gRPC chooses a thread pool
        def guarded(request: Any, context: Any, *callback: Any) -> Any:
            serving = self._check(method, rule, context)
            before = begin_serving(serving)
            try:
                answer = inner(parse_message(parse, request, context), context, *callback)
            finally:
                end_serving(before)
            return Responses(answer, serving) if streams and not callback else answer

        if not streams or getattr(inner, "experimental_non_blocking", False):
            return guarded

        # An async server calls the function in its event loop, where it must not block, and the iterator in a thread.
        @functools.wraps(inner)
        def guarded_later(request: Any, context: Any) -> Any:
            return LaterResponses(functools.partial(guarded, request, context))

        return guarded_later

    def _check(self, method: str, rule: Rule | None, context: Any) -> Serving:
        """Return the token to serve during the call, or abort the call."""
        view = request_view(method, context, with_proofs=self._engine.checks_proofs)
        report = self._begin_report(method, rule)
        try:
            decision = self._recall(view, rule) or self._engine.check(view, **self._arguments(rule))
        finally:
            if report is not None:
                report.end()
        if isinstance(decision, Denied | Unavailable):
            context.set_trailing_metadata(trailing_metadata(decision))
            abort(context, *status_of(decision))
        if view.proofs is not None and view.proofs.nonce is not None:
            context.set_trailing_metadata((("dpop-nonce", view.proofs.nonce),))
        return self._token_to_serve(decision)

    def _recall(self, view: RequestView, rule: Rule | None) -> Granted | None:
        """Return the decision if the guard has verified the token before and no other check is due."""
        fields = view.headers.get_all("authorization")
        if rule is None or not rule.is_plain or len(fields) != 1 or self._engine.has_other_field(view.headers):
            return None
        peer = None if view.secure or view.client is None else (view.client,)
        token = self._engine.recall(fields[0], rule.requirement, b"", peer)
        return None if token is None else Granted(token)

    def _begin_report(self, method: str, rule: Rule | None) -> Report | None:
        if not self._engine.listens:
            return None
        return self._engine.begin_report(Adapter.GRPC, METHOD, method, None if rule is None else rule.path)

    def _arguments(self, rule: Rule | None) -> dict[str, Any]:
        return {
            "requirement": None if rule is None else rule.requirement,
            "optional": rule is not None and rule.access is OPTIONAL,
            "closed": self._rules.closes(rule),
            "sources": self._sources,
            "policies": () if rule is None else rule.policies,
            "dpop": None if rule is None else rule.mode,
        }

    def _token_to_serve(self, decision: Decision) -> Serving:
        token = decision.access_token if isinstance(decision, Granted) else None
        return to_serve(token) if self._engine.keeps_inbound else token


class GuardInterceptor(_Interceptor, grpc.ServerInterceptor):
    """Require a valid access token for every call to a ``grpc.server``, unless a rule says otherwise.

    * *rules*: the requirement of each method, by path: ``/package.Service/Method``, or ``/package.Service/{method}``.
      Default: the rules of the guard. A method that matches none is denied, even if the server does not have it.
    * *public*: methods that need no token, such as ``"/grpc.health.v1.Health/{method}"`` and those of reflection.

    Handlers call :func:`access_token`. The message of a refused unary call is not parsed. The token is checked when the
    call begins: a stream may outlive it.

    DPoP proofs are in the metadata ``dpop``. RFC 9449 does not mention gRPC, but a call is an HTTP request: ``htm`` is
    ``POST``, and ``htu`` is ``DPoP.base_url`` with the path of the method. A token that is bound to a certificate needs
    ``MutualTLS()``, and a server that asks its clients for certificates.

    Raises :class:`ConfigurationError` for an argument of the wrong kind, without rules, for rules that the guard cannot
    apply, and for a guard that takes no tokens in the header.
    """

    __module__ = "scopeguard.grpc"  # where apps import it from
    _blocks = True

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Return the handler of a call, preceded by the check. gRPC calls this."""
        method: str = handler_call_details.method
        rule, handler = self._find_rule(method), continuation(handler_call_details)
        if rule is not None and rule.access is PUBLIC:
            return handler
        return replace_handler(handler, functools.partial(self._guard, method, rule), abort_unknown)


class AsyncGuardInterceptor(_Interceptor, grpc.aio.ServerInterceptor):
    """:class:`GuardInterceptor` for ``grpc.aio.server``.

    A handler that is not async runs in a thread of the server, and so does its check: a function in ``decide`` of its
    rule must block, too.
    """

    __module__ = "scopeguard.grpc"

    def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Coroutine[Any, Any, Any]:
        """Return the handler of a call, preceded by the check. gRPC calls this.

        Raises :class:`ConfigurationError` in a ``grpc.server``, which then refuses the call and logs the error.
        """
        found = continuation(handler_call_details)
        if not inspect.isawaitable(found):
            raise ConfigurationError(
                "AsyncGuardInterceptor is for grpc.aio.server; give grpc.server a GuardInterceptor"
            )
        return self._intercept(handler_call_details.method, found)

    async def _intercept(self, method: str, found: Awaitable[Any]) -> Any:
        rule, handler = self._find_rule(method), await found
        if rule is not None and rule.access is PUBLIC:
            return handler
        return replace_handler(handler, functools.partial(self._guard_any, method, rule), abort_unknown_async)

    def _guard_any(self, method: str, rule: Rule | None, inner: Any, parse: Any, *, streams: bool) -> Any:
        if not (inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)):
            return self._guard(method, rule, inner, parse, streams=streams)

        async def guarded(request: Any, context: Any) -> Any:
            # The task of a call has a context of its own, so that the token need not be removed from it.
            begin_serving(await self._check_async(method, rule, context))
            try:
                message = request if parse is None else parse(request)
            except Exception:  # noqa: BLE001 - the message of a client may fail in any way
                await context.abort(grpc.StatusCode.INTERNAL, MALFORMED)
            answer = inner(message, context)
            if not inspect.isasyncgen(answer):
                return await answer
            async with aclosing(answer) as responses:
                async for response in responses:
                    await context.write(response)
            return None

        return guarded

    async def _check_async(self, method: str, rule: Rule | None, context: Any) -> Serving:
        view = request_view(method, context, with_proofs=self._engine.checks_proofs)
        report = self._begin_report(method, rule)
        try:
            decision = self._recall(view, rule) or await self._engine.acheck(view, **self._arguments(rule))
        finally:
            if report is not None:
                report.end()
        if isinstance(decision, Denied | Unavailable):
            await context.abort(*status_of(decision), trailing_metadata(decision))
        if view.proofs is not None and view.proofs.nonce is not None:
            context.set_trailing_metadata((("dpop-nonce", view.proofs.nonce),))
        return self._token_to_serve(decision)
