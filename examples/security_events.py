"""An authorization server ends a session, and says so: the tokens of that user are refused from then on.

    python examples/security_events.py

Both sides are in this one process. The receiver is an app of its own, to be mounted at any path; the transmitter
sends the Authorization header that was agreed on when the stream of events was made.
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

    # What the authorization server would do.
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
    print(client.get("/", headers=ann).status_code, "before")
    print(push("Bearer a-guess"), "pushed without the credential")
    print(push(agreed), "pushed, session-revoked")
    print(client.get("/", headers=ann).status_code, "afterwards")
    print(push(agreed), "pushed again")
    guard.close()


if __name__ == "__main__":
    main()
