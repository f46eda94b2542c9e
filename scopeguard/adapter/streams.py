"""Connections in progress, which end with their token: websockets, server-sent events, other streamed responses.

One :class:`Watcher` serves all connections of a guard in one event loop. It starts with the first open connection and
ends soon after the last one. It has three tasks, so that a slow server delays only one of them:

* The sweep ends the connections whose token has expired or is revoked, according to what this process knows. It does
  no I/O.
* If there is a shared store, its log of revocations is read at least twice per ``RevocationPolicy.max_lag``.
* Each token is validated again from time to time, as for a new request. This finds what the status list, the
  introspection endpoint and the key set say by then.

An outage ends no connection: a missing answer says nothing about a token. The connection stays open, at most until its
token expires.

Longer than 400 lines because a connection and its watcher refer to each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from enum import StrEnum
from typing import Any, Final

import anyio
import anyio.lowlevel

from scopeguard.config.policy import Policy
from scopeguard.config.token_sources import TokenSource
from scopeguard.core.decision import Denied, Granted, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.edge.aio import loop_caller
from scopeguard.errors import AccessDenied, AuthorityUnavailable, Forbidden, InvalidToken
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import SHARED_STORE
from scopeguard.flow.revocation import bearer_of
from scopeguard.inbound_tokens import InboundToken
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.scopes import Requirement, all_of, scopes_in
from scopeguard.state.budget import Budget
from scopeguard.state.revocation import Revoked, keys_of
from scopeguard.tokens import AccessToken

log: Final = logging.getLogger("scopeguard")

# The longest pause between two sweeps, in seconds.
_PAUSE: Final = 1.0
# The number of connections that a sweep checks before it lets other tasks run.
_BATCH: Final = 200
# The greatest number of tokens that are validated again at the same time: requests need free places in the lanes.
_CONCURRENT: Final = 4
# Attempts to renew the token of one connection: at once, and the seconds until each further one.
_ATTEMPTS: Final = 5
_ATTEMPT_INTERVAL: Final = 10.0


class Ending(StrEnum):
    """Why a connection was ended. The value is the reason that the client of a websocket gets."""

    EXPIRED = "The access token expired"
    REVOKED = "The access token was revoked"
    REFUSED = "The access token is no longer accepted"


_ENDINGS: Final = {
    Reason.TOKEN_EXPIRED: Ending.EXPIRED,
    Reason.TOKEN_REVOKED: Ending.REVOKED,
    Reason.TOKEN_NOT_ACTIVE: Ending.REVOKED,
}


class Connection:
    """A response or websocket, and the token that it depends on. Belongs to the event loop of its task.

    *credential* is the text of *token*, and *requirement* what the route requires of it. *recheck*: the seconds after
    which the token is validated again; ``None`` ends the connection at its expiry only. *policies* decide about a token
    that replaces the current one. :attr:`cancel_scope` is around the app.
    """

    __slots__ = (
        "__weakref__", "_budget", "_engine", "_policies", "_requirements", "_watcher", "cancel_scope", "changes",
        "credential", "deadline", "discards", "ending", "expires_at", "keys", "next_check", "recheck", "token",
    )  # fmt: skip
    token: AccessToken
    next_check: float

    def __init__(
        self,
        engine: Engine,
        credential: Credential,
        token: AccessToken,
        requirement: Requirement | None,
        recheck: float | None,
        policies: tuple[Policy, ...] = (),
    ) -> None:
        self._engine = engine
        self._policies = policies
        self._requirements: list[Requirement] = [] if requirement is None else [requirement]
        self.recheck = recheck
        self.cancel_scope: anyio.CancelScope = anyio.CancelScope()
        self.ending: Ending | None = None
        self._watcher: Watcher | None = None
        self._budget = Budget(_ATTEMPTS, _ATTEMPT_INTERVAL)
        self._use(credential, token)

    def __call__(self) -> AccessToken:
        """Return the token, or the one that has replaced it. The context variable of the token holds the connection."""
        return self.token

    def inbound_token(self) -> InboundToken | None:
        """Return the token with its text, for the call to the next API; ``None`` if the guard drops the text.

        The text of an API key is always dropped.
        """
        if not self._engine.keeps_inbound or self.credential.source is TokenSource.API_KEY:
            return None
        forwardable = self._engine.settings.forward_token_dangerously
        return InboundToken(self.token, self.credential.token, forwardable=forwardable)

    @property
    def requirement(self) -> Requirement | None:
        """The requirement for the token: everything that was required of it in this connection."""
        return all_of(*self._requirements) if self._requirements else None

    def require(self, requirement: Requirement) -> None:
        """Add a requirement that code inside the app has made, for the tokens that replace the current one."""
        if requirement not in self._requirements:
            self._requirements.append(requirement)

    def joins(self, engine: Engine, token: AccessToken) -> bool:
        """Return whether a layer with *engine*, which has admitted *token*, is a part of this connection."""
        return self._engine is engine and token.fingerprint == self.token.fingerprint

    def add(
        self,
        token: AccessToken,
        requirement: Requirement | None,
        policies: tuple[Policy, ...],
        recheck: float | None,
    ) -> None:
        """Add what a layer inside the first one demands. Of two intervals between checks, the shorter one counts.

        *token*: the :class:`AccessToken` of that layer, which is the current one from now on.
        """
        self.token = token
        if requirement is not None:
            self.require(requirement)
        self._policies += policies
        if recheck is not None and (self.recheck is None or recheck < self.recheck):
            self.recheck = recheck
            self.next_check = self._engine.clock.monotonic() + recheck

    def open(self) -> None:
        """Watch the connection: it has begun, and may last."""
        if self.is_expired():
            self.end(Ending.EXPIRED)
        else:
            self._watcher = watcher_of(self._engine)
            self._watcher.add(self)

    def close(self) -> None:
        """Stop watching the connection: it is complete, or its app has returned."""
        if self._watcher is not None:
            self._watcher.discard(self)
            self._watcher = None

    def end(self, ending: Ending) -> None:
        """Cancel the app."""
        self.close()
        if self.ending is None:
            self.ending = ending
            log.info("a connection was ended: %s (token=%s)", ending.value, self.token.fingerprint)
            self.cancel_scope.cancel()

    def is_expired(self) -> bool:
        """Return whether the token has expired."""
        return self.is_expired_at(anyio.current_time(), self._engine.clock.wall())

    def is_expired_at(self, now: float, wall: float) -> bool:
        """Return whether the token has expired at *now* by the clock of the event loop, or at *wall* by the guard's.

        The clock of the event loop stands still while the machine sleeps. The clock of the guard may be set back.
        """
        return now >= self.deadline or wall >= self.expires_at

    def _use(self, credential: Credential, token: AccessToken) -> None:
        engine = self._engine
        self.credential: Credential = credential
        self.token = token
        expires_at = engine.admits_until(token)
        self.expires_at: float = float("inf") if expires_at is None else expires_at
        self.deadline: float = anyio.current_time() + (self.expires_at - engine.clock.wall())
        self.keys: tuple[tuple[Revoked, str], ...] | None = None  # most responses are complete before they are needed
        # The numbers of revocations, and of those that discard answers, when the token was last compared with them.
        self.changes: int = -1
        self.discards: int = 0
        self.next_check = float("inf") if self.recheck is None else engine.clock.monotonic() + self.recheck

    async def renew(self, token: str, request: RequestView) -> Granted | Denied | Unavailable:
        """Decide whether *token* may replace the current one, and replace it. A refusal changes nothing.

        At most :data:`_ATTEMPTS` attempts at once, then one in :data:`_ATTEMPT_INTERVAL` seconds: messages must not
        cause more validations than the client could cause by requests.
        """
        engine, now = self._engine, self._engine.clock.monotonic()
        if self._budget.shortfall(now) > 0:
            return engine.refuse(Forbidden(Reason.TOO_MANY_RENEWALS), request=request)
        self._budget.spend(now)
        decision = await engine.arenew(token, self.credential, self.token, self.requirement, request, self._policies)
        if isinstance(decision, Granted):
            if self.ending is not None:
                return engine.refuse(InvalidToken(Reason.TOKEN_EXPIRED), request=request)
            renewed = Credential(token=token, source=self.credential.source, header=self.credential.header)
            self._use(renewed, decision.access_token)
            if self._watcher is not None:
                self._watcher.wake()
        return decision


class Watcher:
    """Ends the connections of one guard in one event loop when their tokens end."""

    def __init__(self, engine: Engine, watchers: dict[Engine, Watcher]) -> None:
        self._engine = engine
        self._watchers = watchers
        self._connections: set[Connection] = set()
        self._next_sweep = float("-inf")  # in the time of the event loop
        self._alarms = (_Alarm(), _Alarm(), _Alarm())
        self._sweep_alarm, self._store_alarm, self._check_alarm = self._alarms
        self._pause = min(_PAUSE, engine.issuers.revocations.max_lag / 2)
        self._outages: set[str] = set()
        call_in_loop = loop_caller()

        def wake_soon() -> None:
            try:
                call_in_loop(self.wake)
            except RuntimeError:  # the loop has ended, and with it its connections
                engine.revocation_listeners.discard(wake_soon)

        self._listener: Callable[[], None] = wake_soon

    def __len__(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Run in the background of the event loop, outside the context of any request."""
        self._watchers[self._engine] = self
        self._engine.revocation_listeners.add(self._listener)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            import trio  # noqa: PLC0415 - installed where it runs

            trio.lowlevel.spawn_system_task(self._run)
        else:
            # Event loops hold tasks weakly.
            self._task = loop.create_task(self._run(), context=Context())

    def add(self, connection: Connection) -> None:
        """Watch *connection*."""
        self._connections.add(connection)
        if connection.deadline < self._next_sweep:
            self._sweep_alarm.ring()

    def discard(self, connection: Connection) -> None:
        """Stop watching *connection*."""
        self._connections.discard(connection)

    def wake(self) -> None:
        """Look at all connections now."""
        for alarm in self._alarms:
            alarm.ring()

    async def _run(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                if self._engine.store is not None:
                    group.start_soon(self._follow_store)
                group.start_soon(self._check_again)
                while self._connections:
                    await self._sweep()
                    await self._sweep_alarm.wait(self._next_sweep - anyio.current_time())
                self._forget()  # first: a connection that opens from now on gets another watcher
                group.cancel_scope.cancel()
        except Exception:
            log.exception("the watcher of connections failed; it ends them, because their tokens may be revoked")
            for connection in tuple(self._connections):
                connection.end(Ending.REFUSED)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._engine.revocation_listeners.discard(self._listener)
        if self._watchers.get(self._engine) is self:
            del self._watchers[self._engine]

    async def _sweep(self) -> None:
        """End the connections whose token has expired or is known to be revoked."""
        revocations = self._engine.issuers.revocations
        now, wall = anyio.current_time(), self._engine.clock.wall()
        self._next_sweep = now + self._pause
        for number, connection in enumerate(tuple(self._connections), 1):
            if number % _BATCH == 0:
                await anyio.lowlevel.checkpoint()
            if connection not in self._connections:  # closed in the meantime
                continue
            changes = revocations.changes
            if connection.is_expired_at(now, wall):
                connection.end(Ending.EXPIRED)
            elif connection.recheck is not None and connection.changes != changes:
                connection.changes = changes
                if self._covers(connection):
                    connection.end(Ending.REVOKED)
            self._next_sweep = min(self._next_sweep, connection.deadline)

    def _covers(self, connection: Connection) -> bool:
        """Return whether the token of *connection* is revoked. If answers about it were discarded, make a check due."""
        revocations, token = self._engine.issuers.revocations, connection.token
        if connection.keys is None:
            connection.keys = keys_of(bearer_of(token, connection.credential))
        if revocations.covers_keys(connection.keys, token.issued_at):
            return True
        discards = revocations.discards
        if connection.discards != discards:
            connection.discards = discards
            if revocations.outdates(token.issuer, token.subject, float("-inf")):
                connection.next_check = float("-inf")
                self._check_alarm.ring()
        return False

    async def _follow_store(self) -> None:
        revocations = self._engine.issuers.revocations
        while True:
            changes = revocations.changes
            if any(connection.recheck is not None for connection in self._connections):
                await self._attempt(SHARED_STORE, self._engine.aread_revocations)
            if revocations.changes != changes:
                self._sweep_alarm.ring()
            await self._store_alarm.wait(self._pause)

    async def _check_again(self) -> None:
        clock = self._engine.clock
        while True:
            now = clock.monotonic()
            due = [connection for connection in self._connections if connection.next_check <= now]
            for connection in due:
                connection.next_check = now + (connection.recheck or 0.0)
            async with anyio.create_task_group() as group:
                for _ in range(min(_CONCURRENT, len(due))):
                    group.start_soon(self._check_each, due)
            await self._check_alarm.wait(_PAUSE)

    async def _check_each(self, due: list[Connection]) -> None:
        while due:
            connection = due.pop()
            await anyio.lowlevel.checkpoint()  # most checks do no I/O
            if connection in self._connections:
                await self._check(connection)

    async def _check(self, connection: Connection) -> None:
        engine, credential = self._engine, connection.credential
        try:
            access = await self._attempt(connection.token.issuer, engine.arevalidate, credential)
        except AccessDenied as error:
            ending = _ENDINGS.get(error.reason, Ending.REFUSED)
        else:
            if access is None or access.scopes == connection.token.scopes:
                return
            # Introspection may withdraw a scope. Conditions are not checked again, because a sign-in only grows older.
            requirement = connection.requirement
            if requirement is None or any(scopes_in(each) <= access.scopes for each in requirement.alternatives):
                return
            ending = Ending.REFUSED
        if connection.credential is credential and connection in self._connections:
            connection.end(Ending.EXPIRED if connection.is_expired() else ending)

    async def _attempt(self, authority: str, ask: Callable[..., Any], *arguments: Any) -> Any:
        """Return the answer, or ``None`` if there is none. Log the beginning of an outage."""
        try:
            answer = await ask(*arguments)
        except AccessDenied:
            self._outages.discard(authority)
            raise
        except Exception as error:
            if authority not in self._outages:
                self._outages.add(authority)
                known = isinstance(error, AuthorityUnavailable)
                log.warning(
                    "%s does not answer; connections in progress stay open until their tokens expire: %s",
                    authority,
                    error if known else type(error).__name__,
                    exc_info=not known,
                )
            return None
        self._outages.discard(authority)
        return answer


class _Alarm:
    """Ends a pause early. If it rings outside a pause, it ends the next one."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        with anyio.move_on_after(max(0.0, seconds)):
            await self._event.wait()
        self._event = anyio.Event()


_watchers: Final[anyio.lowlevel.RunVar[dict[Engine, Watcher]]] = anyio.lowlevel.RunVar("scopeguard_watchers")


def watcher_of(engine: Engine) -> Watcher:
    """Return the watcher of the connections of *engine* in the current event loop. Start one if there is none."""
    watchers = _watchers.get(None)
    if watchers is None:
        watchers = {}
        _watchers.set(watchers)
    watcher = watchers.get(engine)
    if watcher is None:
        watcher = Watcher(engine, watchers)
        watcher.start()
    return watcher
