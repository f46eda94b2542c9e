"""Processes that share a store: ``sharing:asgi`` and ``sharing:wsgi``, one API, configured by a file.

``GET /`` needs a token. ``POST /revoke`` revokes what its JSON body names: 204, or 503 if the store failed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from scopeguard import AuthorityUnavailable, Guard
from scopeguard.asgi import GuardMiddleware as GuardASGI
from scopeguard.wsgi import GuardMiddleware as GuardWSGI

_guard = Guard.from_file(os.environ["SHARING_CONFIG"])


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("this app speaks HTTP only")
    status = 200
    if scope["path"] == "/revoke":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            await _guard.arevoke(**json.loads(body))
            status = 204
        except AuthorityUnavailable:
            status = 503
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    status = "200 OK"
    if environ["PATH_INFO"] == "/revoke":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        try:
            _guard.revoke(**json.loads(body))
            status = "204 No Content"
        except AuthorityUnavailable:
            status = "503 Service Unavailable"
    start_response(status, [("Content-Length", "0")] if status.startswith("200") else [])
    return []


asgi = GuardASGI(_asgi, guard=_guard, public=["/revoke", "/healthz"])
wsgi = GuardWSGI(_wsgi, guard=_guard, public=["/revoke", "/healthz"])
