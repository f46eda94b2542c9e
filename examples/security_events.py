"""An authorization server pushes an event when a session ends, and the guard then refuses the tokens of that user.

    pip install .
    python examples/security_events.py

Both sides are in this process. The receiver is an app that can be mounted at any path. The transmitter sends the
Authorization header on which both sides agreed when the event stream was created.
"""

from __future__ import annotations

import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from scopeguard import Guard
from scopeguard.asgi import GuardMiddleware
from scopeguard.devserver.keys import compact
from scopeguard.security_events import SecurityEventReceiver
from scopeguard.testing import FakeAuthority

SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"


async def hello(request: Any) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.user.subject}")


def main() -> None:
    authority = FakeAuthority(audience="https://api.example.com")
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    agreed = f"Bearer {secrets.token_urlsafe()}"
    receiver = SecurityEventReceiver(guard, authorization=agreed)
    app = Starlette(
        routes=[Route("/", hello), Route("/events", receiver.asgi)],
        middleware=[Middleware(GuardMiddleware, guard=guard, public=["/events"])],
    )
    client = TestClient(app, base_url=authority.audience)

    # The authorization server signs this event.
    key = authority.key()
    now = authority.clock.wall()
    event = compact(
        {"typ": "secevent+jwt", "alg": key.algorithm, "kid": key.kid},
        {
            "iss": authority.url,
            "aud": authority.audience,
            "jti": secrets.token_urlsafe(),
            "iat": int(now),
            "sub_id": {"format": "iss_sub", "iss": authority.url, "sub": "ann"},
            "events": {SESSION_REVOKED: {"event_timestamp": now}},
        },
        key,
    )

    def push(authorization: str) -> int:
        headers = {"Authorization": authorization, "Content-Type": "application/secevent+jwt"}
        return client.post("/events", content=event, headers=headers).status_code

    ann = authority.bearer("read", subject="ann")
    print(client.get("/", headers=ann).status_code, "before the event")
    print(push("Bearer a-guess"), "event pushed with a wrong credential")
    print(push(agreed), "event pushed: session-revoked")
    print(client.get("/", headers=ann).status_code, "after the event")
    print(push(agreed), "event pushed again")
    guard.close()


if __name__ == "__main__":
    main()
