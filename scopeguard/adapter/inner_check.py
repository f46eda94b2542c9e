"""Check, inside an app, a token that a layer around the app has verified."""

from __future__ import annotations

from collections.abc import Callable

from scopeguard.core.decision import Adapter, Granted
from scopeguard.guard import Guard, engine_of
from scopeguard.request import RequestView
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import Response
from scopeguard.tokens import AccessToken


def refuse_inside(
    guard: Guard,
    token: AccessToken | None,
    requirement: Requirement,
    adapter: Adapter,
    describe: Callable[[], RequestView],
) -> Response | None:
    """Return the refusal of a request inside the app, or ``None`` if *token* satisfies *requirement*.

    *token*: ``None`` for an anonymous caller. *describe* returns the request, for the log and the listeners of a
    refusal. The event of the request names *adapter*.
    """
    engine = engine_of(guard)
    if engine.listens:
        engine.note_adapter(adapter)
    if engine.permits(token, requirement):
        return None
    decision = engine.authorize(token, requirement, request=describe())
    return None if isinstance(decision, Granted) else decision.response
