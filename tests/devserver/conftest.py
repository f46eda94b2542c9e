"""An authority with one client of each kind, and requests as tests make them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote_plus

import pytest

from scopeguard.devserver import Authority, Client, KeyRing
from scopeguard.flow.effects import Answer
from scopeguard.testing import FakeClock


class Bench:
    """``authority`` and what is needed to ask it for something."""

    now = 1_800_000_000
    issuer = "https://as.example"
    api = "https://api.example"
    other_api = "https://other.example"

    robot = Client(
        client_id="robot", secret="sg-secret-robot", scopes=["read", "write"], audiences=[api, other_api], lifetime=600
    )
    opaque = Client(client_id="opaque", secret="sg-secret-opaque", scopes=["read"], token_format="opaque")
    awkward = Client(client_id="a:b", secret="sg-secret-p%+ü", scopes=["read"])
    resource = Client(client_id="api", secret="sg-secret-api", introspects=[api])
    other_resource = Client(client_id="other-api", secret="sg-secret-other", introspects=[other_api])

    def __init__(self) -> None:
        self.clock = FakeClock(self.now)
        self.authority = Authority(
            self.issuer,
            audience=self.api,
            clients=[self.robot, self.opaque, self.awkward, self.resource, self.other_resource],
            subjects=["alice"],
            keys=KeyRing("ES256"),
            clock=self.clock,
        )

    def basic(self, client: Client) -> str:
        """Basic credentials, form-encoded before Base64 (RFC 6749 section 2.3.1)."""
        text = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
        return "Basic " + base64.b64encode(text.encode()).decode()

    def post(
        self, path: str, client: Client | None, /, *, proofs: Sequence[str] = (), **form: str | list[str]
    ) -> Answer:
        """A form, authenticated as *client* by Basic unless it is ``None``; a list repeats the parameter."""
        pairs = tuple(
            (name, item) for name, value in form.items() for item in (value if isinstance(value, list) else [value])
        )
        return self.authority.respond(
            "POST", path, form=pairs, authorization=None if client is None else self.basic(client), proofs=proofs
        )

    def token(self, client: Client | None = None, /, **form: str | list[str]) -> str:
        """An access token by client credentials."""
        answer = self.post("/token", client or self.robot, grant_type="client_credentials", **form)
        assert answer.status == 200, answer
        return str(self.read(answer)["access_token"])

    def read(self, answer: Answer) -> dict[str, Any]:
        """The JSON document in *answer*."""
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def error(self, answer: Answer) -> tuple[int, str]:
        """The status and the error code of a refusal."""
        return answer.status, self.read(answer)["error"]


@pytest.fixture
def bench() -> Bench:
    return Bench()
