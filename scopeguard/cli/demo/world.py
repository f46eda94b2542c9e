"""Who takes part in the demo: an authorization server, the API, a second process of it, and clients. All on loopback.

Real sockets, real HTTP. Only the time is made: everybody reads one clock, which can be moved on by an hour.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

import httpx
import uvicorn

from scopeguard.asgi import ASGIApp
from scopeguard.cli.demo.api import INSERT, READ, guarded_app
from scopeguard.client import ClientCredentials
from scopeguard.config.issuer import Issuer
from scopeguard.devserver import Authority, Client, DevServer, KeyRing
from scopeguard.edge.listening import listening
from scopeguard.guard import Decision, Denied, Guard, Unavailable
from scopeguard.spec.challenge import ChallengeStyle

OTHER_API: Final = "https://billing.example.com"
LIFETIME: Final = 3600
CLIENTS: Final = (
    Client(client_id="loader", secret="loader-password", scopes=[INSERT], lifetime=LIFETIME),
    Client(client_id="reader", secret="reader-password", scopes=[READ], lifetime=LIFETIME),
    Client(client_id="biller", secret="biller-password", scopes=[INSERT], audiences=[OTHER_API]),
)


class MovableClock:
    """The clocks of the machine, and how far the demo has moved them on; both in seconds."""

    def __init__(self) -> None:
        self._wall = self._monotonic = 0.0

    def wall(self) -> float:
        return time.time() + self._wall

    def monotonic(self) -> float:
        return time.monotonic() + self._monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both."""
        self._wall += seconds
        self._monotonic += seconds

    def return_to_now(self) -> None:
        """Give the wall clock the time of the machine again; the other one cannot run backwards."""
        self._wall = 0.0


class Serving:
    """*app* on *listener*, in a thread of its own, for the length of a ``with`` block."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="demo-api", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()


class World:
    """Everybody, from the beginning of a ``with`` block to its end."""

    def __init__(self) -> None:
        self.clock: MovableClock = MovableClock()
        self._reasons: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _begin(self) -> None:
        listeners = [self._stack.enter_context(listening("127.0.0.1", 0)) for _ in range(2)]
        here, there = (f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners)
        self.api: str = here
        self.second_process: str = there
        self.authority: Authority = Authority(
            audience=self.api, clients=CLIENTS, keys=KeyRing("ES256"), clock=self.clock, jwks_max_age=600
        )
        self.server: DevServer = DevServer(self.authority)
        self.start_authority()
        self._stack.callback(self.stop_authority)
        # Both processes serve the same API: tokens are for the API, not for a port.
        issuer = Issuer(self.server.url, audience=self.api)
        for listener in listeners:
            guard = Guard(
                issuer, challenge=ChallengeStyle(realm="tables"), clock=self.clock, on_decision=self._remember
            )
            self._stack.callback(guard.close)
            self._stack.enter_context(Serving(guarded_app(guard), listener))
        self.http: httpx.Client = self._stack.enter_context(httpx.Client(trust_env=False, timeout=10))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_authority(self) -> None:
        """Start it, for the second time where it was at the first."""
        self.server.__enter__()
        self._authority_is_up = True

    def stop_authority(self) -> None:
        """Stop it: its port is closed, nobody answers."""
        if self._authority_is_up:
            self.server.__exit__(None, None, None)
            self._authority_is_up = False

    def client(self, client_id: str) -> ClientCredentials:
        """What an application uses: fetches a token when it needs one. A new one has none."""
        client = self.authority.registry.clients[client_id]
        return ClientCredentials(
            f"{self.server.url}/token",
            client_id,
            client.secret,
            scopes=client.scopes,
            origins=[self.api, self.second_process],
            clock=self.clock,
        )

    def new_requests(self) -> list[str]:
        """What the authorization server was asked since this was called last."""
        seen = list(self.authority.requests)
        self.authority.requests.clear()
        return seen

    def new_reason(self) -> str | None:
        """The reason of the last refusal since this was called last: what the log of the API says."""
        reason = self._reasons[-1] if self._reasons else None
        self._reasons.clear()
        return reason

    def _remember(self, decision: Decision) -> None:
        if isinstance(decision, Denied | Unavailable):
            self._reasons.append(decision.error.reason.value)
