"""The servers and clients of the demo, on loopback: an authorization server, and three processes of one API.

The third process also accepts tokens that are bound to a key of the client (DPoP, RFC 9449).

They use real sockets and real HTTP. Only the time is simulated: all read one clock, which the demo can move forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

import httpx

from scopeguard.cli.demo.api import INSERT, READ, guarded_app
from scopeguard.client import ClientCredentials, DPoPKey
from scopeguard.config.dpop import DPoP
from scopeguard.config.issuer import Issuer
from scopeguard.config.refusal_log import RefusalLog
from scopeguard.devserver import Authority, Client, DevServer, KeyRing
from scopeguard.devserver.uvicorn_server import Serving
from scopeguard.edge.listener import listen
from scopeguard.guard import DecisionEvent, Guard
from scopeguard.spec.challenge import ChallengeStyle

OTHER_API: Final = "https://billing.example.com"
CLIENTS: Final = (
    Client(client_id="loader", secret="loader-password", scopes=[INSERT]),
    Client(client_id="reader", secret="reader-password", scopes=[READ]),
    Client(client_id="biller", secret="biller-password", scopes=[INSERT], audiences=[OTHER_API]),
)


class MovableClock:
    """The clocks of the machine, plus the seconds by which the demo has moved them forward."""

    def __init__(self) -> None:
        self._wall = self._monotonic = 0.0

    def wall(self) -> float:
        return time.time() + self._wall

    def monotonic(self) -> float:
        return time.monotonic() + self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by *seconds*."""
        self._wall += seconds
        self._monotonic += seconds

    def return_to_now(self) -> None:
        """Set the wall clock to the time of the machine. The monotonic clock must not go back."""
        self._wall = 0.0


class World:
    """Runs the servers for the length of a ``with`` block."""

    def __init__(self) -> None:
        self.clock: MovableClock = MovableClock()
        self._reasons: list[str] = []
        self.on_event: Callable[[DecisionEvent], None] = lambda _: None
        """Called with the decision about each request."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        listeners = [self._stack.enter_context(listen("127.0.0.1", 0)) for _ in range(3)]
        first, second, third = (f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners)
        self.api: str = first
        self.second_process: str = second
        self.process_with_proofs: str = third
        self.authority: Authority = Authority(
            audience=self.api, clients=CLIENTS, keys=KeyRing("ES256"), clock=self.clock, jwks_max_age=600
        )
        self.server: DevServer = DevServer(self.authority)
        self.start_authority()
        self._stack.callback(self.stop_authority)
        # All processes serve the same API, so they share its audience.
        issuer = Issuer(self.server.url, audience=self.api)
        for listener, policy in zip(listeners, (None, None, DPoP(base_url=third)), strict=True):
            style = ChallengeStyle(realm="tables")
            guard = Guard(
                issuer,
                challenge=style,
                dpop=policy,
                clock=self.clock,
                on_decision=self._record,
                refusal_log=RefusalLog(interval=0),  # the caller tries the same refusal again
            )
            self._stack.callback(guard.close)
            self._stack.enter_context(Serving(guarded_app(guard), listener))
        self.http: httpx.Client = self._stack.enter_context(httpx.Client(trust_env=False, timeout=10))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_authority(self) -> None:
        """Start the authorization server, after a stop on the same port."""
        self.server.__enter__()
        self._authority_is_up = True

    def stop_authority(self) -> None:
        """Stop the authorization server and close its port."""
        if self._authority_is_up:
            self.server.__exit__(None, None, None)
            self._authority_is_up = False

    def client(self, client_id: str, dpop: DPoPKey | None = None) -> ClientCredentials:
        """Return a new client, without a token. It fetches one with its first request, bound to *dpop* if given."""
        client = self.authority.registry.clients[client_id]
        return ClientCredentials(
            f"{self.server.url}/token",
            client_id,
            client.secret,
            scopes=client.scopes,
            origins=[self.api, self.second_process, self.process_with_proofs],
            dpop=dpop,
            clock=self.clock,
        )

    def new_requests(self) -> list[str]:
        """Return the requests that the authorization server received since the last call."""
        requests = list(self.authority.requests)
        self.authority.requests.clear()
        return requests

    def new_reason(self) -> str | None:
        """Return the reason code of the last refusal since the last call, ``None`` without one."""
        reason = self._reasons[-1] if self._reasons else None
        self._reasons.clear()
        return reason

    def _record(self, event: DecisionEvent) -> None:
        if event.reason is not None:
            self._reasons.append(event.reason.value)
        self.on_event(event)
