"""The API of the scenarios for real servers: ``served:asgi`` and ``served:wsgi``, configured by the environment.

Beside the routes of the scenarios: ``/stream`` sends a line, waits for the body of the request to end and sends
another; ``/cut/...`` begins a response that is ended at once, as if its token had expired; ``/ws`` is a websocket that
answers with the client of its token; ``/held`` is one that stays open, and takes new tokens, until ``/revoke`` revokes
the tokens of the subject ``held``; ``/started`` tells whether lifespan ran. ``/post-quantum`` has a guard of its
own, which accepts only tokens and proofs of ML-DSA-87, the largest that there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import anyio

from algorithms import ML_DSA_HERE
from doors import asgi_app, rules, wsgi_app
from endings import Expiring
from scenarios import REALM
from scopeguard import AUTHENTICATED, ChallengeStyle, DPoP, Guard, Issuer, Rule, Rules
from scopeguard.adapter.asgi_messages import run_until_ended
from scopeguard.asgi import GuardMiddleware as GuardASGI
from scopeguard.asgi import renew
from scopeguard.wsgi import GuardMiddleware as GuardWSGI

_guard = Guard(
    Issuer("https://as.test", audience="https://api.test", jwks_file=os.environ["SERVED_JWKS"]),
    challenge=ChallengeStyle(realm=REALM),
)
_rules = Rules(
    [
        Rule("/stream", AUTHENTICATED),
        Rule("/cut/{kind}", AUTHENTICATED),
        Rule("/ws", token_sources=("header", "query")),
        Rule("/held", AUTHENTICATED),
        Rule("/revoke", AUTHENTICATED),
        *rules().all,
    ],
    public=["/started"],
)
_largest = ML_DSA_HERE[-1:] or ("ES256",)
_post_quantum_guard = Guard(
    Issuer("https://as.test", audience="https://api.test", jwks_file=os.environ["SERVED_JWKS"], algorithms=_largest),
    dpop=DPoP(mode="required", base_url="https://api.test", algorithms=_largest, max_proof_bytes=16384),
)
_post_quantum_rules = Rules([Rule("/post-quantum")])
_lifespan: set[str] = set()


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            _lifespan.add(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/held":
            while (message := await receive())["type"] == "websocket.receive":
                decision = await renew(scope, message["text"])
                await send({"type": "websocket.send", "text": type(decision).__name__})
            return
        token = scope["state"]["access_token"]
        await send({"type": "websocket.send", "text": f"{token.client_id} {scope['query_string'].decode()}"})
        await send({"type": "websocket.close", "code": 1000})
    elif scope["path"].startswith("/cut/"):
        await run_until_ended(Expiring(0), _respond_without_end, scope, receive, send)
    elif scope["path"] == "/revoke":
        await _guard.arevoke(subject="held")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    elif scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.body", "body": b"last\n"})
    elif scope["path"] == "/started":
        await send(
            {"type": "http.response.start", "status": 200 if "lifespan.startup" in _lifespan else 500, "headers": []}
        )
        await send({"type": "http.response.body", "body": b""})
    else:
        await asgi_app(scope, receive, send)


async def _respond_without_end(scope: Any, receive: Any, send: Any) -> None:
    """Begins a response and never ends it."""
    kind = scope["path"].removeprefix("/cut/")
    headers = [(b"content-type", b"text/event-stream" if kind == "events" else b"text/csv")]
    if kind == "length":
        headers.append((b"content-length", b"1000"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
    await receive()
    await anyio.sleep_forever()


class _Lines:
    """Sends its second line when the client has sent the rest of its body, and says when it is closed."""

    def __init__(self, environ: Any) -> None:
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        yield b"first\n"
        self._environ["wsgi.input"].read(int(self._environ["CONTENT_LENGTH"]))
        yield b"last\n"

    def close(self) -> None:
        print("closed the stream", file=self._environ["wsgi.errors"], flush=True)


def _wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return _Lines(environ)
    if environ["PATH_INFO"] == "/started":
        start_response("200 OK", [])
        return []
    return wsgi_app(environ, start_response)


_guarded_asgi = GuardASGI(_asgi, guard=_guard, rules=_rules, close_streams="revocation")
_guarded_wsgi = GuardWSGI(_wsgi, guard=_guard, rules=_rules)
_post_quantum_asgi = GuardASGI(asgi_app, guard=_post_quantum_guard, rules=_post_quantum_rules)
_post_quantum_wsgi = GuardWSGI(wsgi_app, guard=_post_quantum_guard, rules=_post_quantum_rules)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    app = _post_quantum_asgi if scope.get("path") == "/post-quantum" else _guarded_asgi
    await app(scope, receive, send)


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    app = _post_quantum_wsgi if environ["PATH_INFO"] == "/post-quantum" else _guarded_wsgi
    return app(environ, start_response)
