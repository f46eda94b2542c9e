"""The decision about a request with a valid token: by functions of the app, and by policy decision points."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import CoroutineType
from typing import Any

from scopeguard.config.policy import Policy
from scopeguard.flow.context import Context
from scopeguard.flow.effects import CallApp, Flow, ask
from scopeguard.request import PolicyRequest, RequestView
from scopeguard.spec.credentials import without_access_token
from scopeguard.tokens import AccessToken


def decide(policies: Iterable[Policy], token: AccessToken, request: RequestView, context: Context) -> Flow[bool]:
    """Return whether all *policies* allow *request*. *token* is verified and satisfies the requirement of the route.

    They are applied in order, and the first denial ends the decision. A function must return ``True`` or ``False``:
    anything else raises :class:`TypeError`. Exceptions of functions are not caught; they may be denials and outages.
    Raises :class:`~scopeguard.errors.PolicyUnavailable` if a policy decision point makes no decision.
    """
    for policy in policies:
        policy_request = PolicyRequest(
            method=request.method,
            path=request.path,
            route=policy.route,
            query=without_access_token(request.query),
            client=request.client,
            is_websocket=request.is_websocket,
        )
        if callable(policy.decide):
            function = partial(policy.decide, token, policy_request)
            answer = yield from ask(CallApp(function=function, is_async=policy.is_async))
            check_answer(answer, policy)
        else:
            from scopeguard.flow.authzen import evaluate  # imported already, when the guard was constructed

            answer = yield from evaluate(context.points[id(policy.decide)], token, policy_request, context.clock)
        if answer is not True:
            return False
    return True


def check_answer(answer: Any, policy: Policy) -> None:
    """Raise :class:`TypeError` unless *answer*, which a function returned, is ``True`` or ``False``."""
    if isinstance(answer, bool):
        return
    if isinstance(answer, CoroutineType):
        answer.close()  # it is never awaited
        raise TypeError(f"{policy.title} returned a coroutine: declare the function with async def, for ASGI apps only")
    raise TypeError(f"{policy.title} must return True or False, not {type(answer).__name__}")
