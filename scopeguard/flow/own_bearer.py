"""The access token by which this API authenticates to another server, if a function of the operator returns it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import CallHook, Flow, Lane, SingleFlight, ask
from scopeguard.flow.waiting_times import HOOK_TIMEOUT
from scopeguard.reasons import Reason
from scopeguard.spec import credentials
from scopeguard.state.own_bearer import OwnBearer


def own_bearer(
    source: Callable[[], str | Awaitable[str]],
    held: OwnBearer,
    *,
    authority: str,
    setting: str,
    priority: bool = True,
    account: str = "",
) -> Flow[str]:
    """Return the token that *source* last returned. Call *source* first if no such token is held.

    One call serves all waiting requests. Any exception in it is an outage of *authority*: it says nothing about
    the token of a request. *setting* names *source* in messages. *priority* and *account* are those of a
    :class:`~scopeguard.flow.effects.SingleFlight`.
    """
    seen, token = held.generation, held.token
    if token is not None:
        return token

    def failure(problem: str) -> AuthorityUnavailable:
        return AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, authority, problem=f"{setting} {problem}")

    def fetch() -> Flow[tuple[str, ...]]:
        found: Any
        try:
            found = yield from ask(CallHook(source))
        except Exception as error:  # noqa: BLE001 - the function of the configuration may raise anything
            held.fail()
            raise failure(f"raised {type(error).__name__}") from None
        if not credentials.is_token(found):
            held.fail()
            raise failure("returned no token; a string is needed, of visible ASCII without commas and quotes")
        held.keep(found)
        return ()

    yield from ask(
        SingleFlight(
            key=f"bearer token for {authority}",
            authority=authority,
            needed=lambda: held.generation == seen,
            flow=fetch,
            lane=Lane.HOOKS,
            priority=priority,
            account=account,
            deadline=HOOK_TIMEOUT,
        )
    )
    if held.token is None:
        raise failure("failed a moment ago, for another request")
    return held.token
