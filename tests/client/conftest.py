"""A token endpoint, a clock and an API without network and real time, called in a thread, on asyncio and on trio."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from scopeguard.client import ClientCredentials
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Send
from scopeguard.reasons import Reason

TOKEN_URL = "https://as.example/token"
SECRET = "sg-secret-1"


@dataclass
class Clock:
    now: float = 1000.0
    wall_now: float = 1_800_000_000.0

    def wall(self) -> float:
        return self.wall_now

    def monotonic(self) -> float:
        return self.now


@dataclass
class TokenEndpoint:
    """Issues sg-opaque-1, sg-opaque-2 and so on, for an hour; ``script`` comes first: answers, or failures."""

    expires_in: Any = 3600
    script: list[Answer | AuthorityUnavailable | Callable[[Send], Answer]] = field(default_factory=list)
    seen: list[Send] = field(default_factory=list)
    closed: int = 0
    issued: int = 0
    gate: threading.Event | None = None
    arrived: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def answer(status: int = 200, headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
        return Answer(status, json.dumps(members).encode(), {"content-type": "application/json", **(headers or {})})

    @staticmethod
    def outage(reason: Reason = Reason.AUTHORITY_UNREACHABLE) -> AuthorityUnavailable:
        return AuthorityUnavailable(reason, "as.example", problem="ConnectError")

    def send(self, request: Send, /) -> Answer:
        with self._lock:
            self.seen.append(request)
            step = self.script.pop(0) if self.script else None
            if step is None:
                self.issued += 1
            number = self.issued
        self.arrived.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        if isinstance(step, Answer):
            return step
        if isinstance(step, AuthorityUnavailable):
            raise step
        if step is not None:
            return step(request)
        members = {"access_token": f"sg-opaque-{number}", "token_type": "Bearer", "expires_in": self.expires_in}
        return self.answer(**{name: value for name, value in members.items() if value is not None})

    def close(self) -> None:
        self.closed += 1

    @property
    def forms(self) -> list[list[tuple[str, str]]]:
        return [list(request.form or ()) for request in self.seen]

    @property
    def basic(self) -> str:
        """Return the Basic credentials of the last request."""
        scheme, _, encoded = (self.seen[-1].authorization or "").partition(" ")
        assert scheme == "Basic"
        return base64.b64decode(encoded).decode()


@dataclass
class Caller:
    """Sends one request with an auth object, in a client and, if async, an event loop of its own."""

    runtime: str
    library: ModuleType

    def __call__(
        self,
        auth: ClientCredentials,
        api: Callable[[Any], Any],
        url: str = "https://api.example/",
        method: str = "GET",
        follow_redirects: bool = False,
        **options: Any,
    ) -> Any:
        transport = api if isinstance(api, self.library.BaseTransport) else self.library.MockTransport(api)
        if self.runtime == "blocking":
            with self.library.Client(transport=transport, auth=auth, follow_redirects=follow_redirects) as client:
                return client.request(method, url, **options)

        async def main() -> Any:
            client = self.library.AsyncClient(transport=transport, auth=auth, follow_redirects=follow_redirects)
            async with client:
                return await client.request(method, url, **options)

        return anyio.run(main, backend=self.runtime)

    def token(self, auth: ClientCredentials) -> Any:
        return auth.token() if self.runtime == "blocking" else anyio.run(auth.atoken, backend=self.runtime)


@dataclass
class Api:
    """Answers with ``answers``, the last one for ever; keeps what it was sent."""

    library: ModuleType
    answers: list[Any]
    seen: list[Any] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def __call__(self, request: Any) -> Any:
        self.seen.append(request)
        self.tokens.append(request.headers.get("authorization"))
        status, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return self.library.Response(status, headers=headers)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def endpoint():
    return TokenEndpoint()


@dataclass
class Maker:
    """Makes credentials at the token endpoint of this world; pauses are recorded, and not waited for."""

    endpoint: TokenEndpoint
    clock: Clock
    pauses: list[float] = field(default_factory=list)

    def __call__(self, token_url: str = TOKEN_URL, *, issuer: str | None = None, **settings: Any) -> ClientCredentials:
        settings = {"transport": self.endpoint, "clock": self.clock, **settings}
        identity = (settings.pop("client_id", "client-1"), settings.pop("client_secret", SECRET))
        if issuer is not None:
            made = ClientCredentials.from_issuer(issuer, *identity, **settings)
        else:
            made = ClientCredentials(token_url, *identity, **settings)
        made._fetcher._transport._sleep = self.pauses.append
        return made


@pytest.fixture
def credentials(clock, endpoint):
    return Maker(endpoint, clock)


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def call(request):
    return Caller(request.param, httpx)


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request):
    return request.param


@pytest.fixture
def api():
    """``api((401, {...}), 200)``: an API that answers so, one after the other, and then goes on with the last."""

    def make(*answers: Any, library: ModuleType = httpx) -> Api:
        pairs = [answer if isinstance(answer, tuple) else (answer, {}) for answer in answers or (200,)]
        return Api(library, pairs)

    return make


@pytest.fixture
def wait_for_flight():
    """Waits until no flight is running."""

    def wait(auth: ClientCredentials) -> None:
        auth._fetcher._outside.close()

    return wait
