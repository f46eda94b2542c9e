"""An authority with one client of each kind, and requests as tests make them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import pytest

from scopeguard.devserver import Authority, Client, KeyRing
from scopeguard.effects import Answer
from scopeguard.testing import FakeClock

NOW = 1_800_000_000
ISSUER = "https://as.example"
API = "https://api.example"
OTHER_API = "https://other.example"

ROBOT = Client(
    client_id="robot", secret="sg-secret-robot", scopes=["read", "write"], audiences=[API, OTHER_API], lifetime=600
)
OPAQUE = Client(client_id="opaque", secret="sg-secret-opaque", scopes=["read"], token_format="opaque")
AWKWARD = Client(client_id="a:b", secret="sg-secret-p%+ü", scopes=["read"])
RESOURCE = Client(client_id="api", secret="sg-secret-api", introspects=[API])
OTHER_RESOURCE = Client(client_id="other-api", secret="sg-secret-other", introspects=[OTHER_API])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def dev(clock: FakeClock) -> Authority:
    return Authority(
        ISSUER,
        audience=API,
        clients=[ROBOT, OPAQUE, AWKWARD, RESOURCE, OTHER_RESOURCE],
        subjects=["alice"],
        keys=KeyRing("ES256"),
        clock=clock,
    )


def basic(client: Client, *, encode: bool = True) -> str:
    pair = (client.client_id, client.secret)
    text = ":".join(quote_plus(part) if encode else part for part in pair)
    return "Basic " + base64.b64encode(text.encode()).decode()


def document(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    return found


def post(authority: Authority, path: str, client: Client | None = ROBOT, /, **form: str | list[str]) -> Answer:
    """A form, authenticated by Basic as *client* unless it is ``None``; a list repeats the parameter."""
    pairs = tuple(
        (name, item) for name, value in form.items() for item in (value if isinstance(value, list) else [value])
    )
    return authority.respond("POST", path, form=pairs, authorization=None if client is None else basic(client))


@pytest.fixture
def issue(dev: Authority) -> Callable[..., str]:
    """``issue(client, **form)``: an access token by client credentials."""

    def ask(client: Client = ROBOT, **form: str | list[str]) -> str:
        answer = post(dev, "/token", client, grant_type="client_credentials", **form)
        assert answer.status == 200, document(answer)
        return str(document(answer)["access_token"])

    return ask
