"""The decision about a request after its token: by functions of the app, and by policy decision points."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import CoroutineType
from typing import Any

from scopeguard.access_token import AccessToken
from scopeguard.config.authzen import AuthZen
from scopeguard.config.policy import Policy
from scopeguard.flow.authzen import evaluate
from scopeguard.flow.context import Context
from scopeguard.flow.effects import CallApp, Flow, ask
from scopeguard.request import PolicyRequest, RequestView
from scopeguard.spec.credentials import without_access_token


def decide(policies: Iterable[Policy], token: AccessToken, request: RequestView, context: Context) -> Flow[bool]:
    """Return whether all *policies* allow *request*. *token* is verified and satisfies the requirement of the route.

    They are applied in order, and the first denial ends the decision. A function must return ``True`` or ``False``:
    anything else raises :class:`TypeError`. Its exceptions pass, denials and outages among them. A policy decision
    point that gives no decision raises :class:`~scopeguard.errors.PolicyUnavailable`.
    """
    for policy in policies:
        asked = PolicyRequest(
            method=request.method,
            path=request.path,
            route=policy.route,
            query=without_access_token(request.query),
            client=request.client,
            is_websocket=request.is_websocket,
        )
        if isinstance(policy.decide, AuthZen):
            answer = yield from evaluate(context.points[id(policy.decide)], token, asked, context.clock)
        else:
            answer = yield from ask(CallApp(function=partial(policy.decide, token, asked), is_async=policy.is_async))
            check_answer(answer, policy)
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
