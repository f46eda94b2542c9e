"""Requests to the API of this example: good ones, bad ones, an outage of the authorization server, and a rotation."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from scopeguard.devserver import Authority
from scopeguard.devserver.keys import SigningKey, compact
from scopeguard.devserver.token_requests import Grant
from scopeguard.testing import ProofKey

THREADS = 3


@dataclass
class Caller:
    """Sends requests to the API at *url* with tokens of *authority*, which it issues without a token endpoint."""

    url: str
    authority: Authority
    random: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - the same mix each time
    key: ProofKey = field(default_factory=ProofKey)

    def __post_init__(self) -> None:
        self.issuer = self.authority.issuer
        self.known = [self.token() for _ in range(20)]
        self.opaque = [self.token(token_format="opaque") for _ in range(5)]
        self.bound = [self.token(thumbprint=self.key.thumbprint) for _ in range(5)]

    def token(self, *scopes: str, lifetime: int = 600, token_format: str = "jwt", thumbprint: str | None = None) -> str:
        grant = Grant(
            client_id=f"client-{self.random.randrange(3)}",
            subject="robot",
            scopes=scopes or ("tables.read",),
            audiences=(self.url,),
            lifetime=lifetime,
            token_format=token_format,
            thumbprint=thumbprint,
        )
        return self.authority.issue(grant).token

    def stranger(self) -> str:
        """Return a token of an authorization server that the API does not trust."""
        key = SigningKey.generate("ES256")
        now = int(time.time())
        claims = {"iss": "https://elsewhere.example", "aud": self.url, "exp": now + 60, "iat": now, "sub": "x"}
        return compact({"typ": "at+jwt", "alg": "ES256", "kid": "x"}, {**claims, "client_id": "x", "jti": "x"}, key)

    def read(self, client: httpx.Client, token: str | None, method: str = "GET") -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        client.request(method, f"{self.url}/tables/{secrets.token_hex(2)}", headers=headers)

    def prove(self, client: httpx.Client) -> None:
        """Send a request with a proof, and now and then send it again, as a thief would."""
        url = f"{self.url}/proofs/"
        headers = self.key.headers(self.random.choice(self.bound), "GET", url, at=time.time())
        for _ in range(self.random.choice([1, 1, 1, 2])):
            client.get(url, headers=headers)

    def act(self, client: httpx.Client) -> None:
        """Send one request, usually a good one."""
        acts: list[tuple[float, Callable[[], None]]] = [
            (70, lambda: self.read(client, self.random.choice(self.known))),
            (6, lambda: self.read(client, self.token())),
            (6, lambda: self.read(client, self.random.choice(self.opaque))),
            (6, lambda: self.prove(client)),
            (4, lambda: self.read(client, None)),
            (4, lambda: self.read(client, self.random.choice(self.known), "POST")),
            (2, lambda: self.read(client, self.token(lifetime=-120))),
            (2, lambda: self.read(client, self.stranger())),
        ]
        (act,) = self.random.choices([act for _, act in acts], [weight for weight, _ in acts])
        act()


@contextmanager
def call_in_background(caller: Caller) -> Iterator[None]:
    """Let several threads send requests for the length of the block. Raises the first exception of a thread."""
    over = threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        try:
            with httpx.Client(trust_env=False, timeout=20) as client:
                while not over.is_set():
                    caller.act(client)
                    over.wait(0.02)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
            over.set()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
