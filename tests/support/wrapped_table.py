"""The requests to each wrapped app, in order, with and without the guard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from server_process import ServerProcess

BIG: Final = bytes(range(256)) * 12_000  # 3 MB


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    method: str
    target: str
    headers: tuple[str, ...] = ()
    body: bytes = b""
    chunked: bool = False

    def wire(self, token: str) -> bytes:
        """As bytes, on a connection of its own. The token goes to the bare app too: some show what they are sent."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost", "Connection: close", *self.headers]
        body = self.body
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        elif body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True, slots=True)
class Pair:
    """An app: *bare*, and *guarded*; *token* opens the guard, *weak* is valid and lacks the scope."""

    name: str
    bare: ServerProcess
    guarded: ServerProcess
    token: str
    weak: str


def multipart(fields: dict[str, bytes], files: dict[str, tuple[str, bytes]]) -> tuple[tuple[str, ...], bytes]:
    """A form with files: its header and its body."""
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value for name, value in fields.items()
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        for name, (filename, content) in files.items()
    ]
    body = b"".join(b"--frontier\r\n" + part + b"\r\n" for part in parts) + b"--frontier--\r\n"
    return ("Content-Type: multipart/form-data; boundary=frontier",), body


_JSON: Final = ("Content-Type: application/json", "Accept: application/json")
_FORM: Final = ("Content-Type: application/x-www-form-urlencoded",)
_XML: Final = ("Content-Type: application/xml", "Depth: 1")
_GZIP: Final = ("Accept-Encoding: gzip",)

_EVENT: Final = b"""BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:test\r
BEGIN:VEVENT\r
UID:event-1\r
DTSTAMP:20260101T000000Z\r
DTSTART:20260102T000000Z\r
SUMMARY:Something\r
END:VEVENT\r
END:VCALENDAR\r
"""

_DATASETTE: Final = [
    Ask("GET", "/"),
    Ask("GET", "/things/things?_size=20"),
    Ask("GET", "/things/things.json?_size=5&_shape=objects"),
    Ask("GET", "/things/things.json?name__contains=77"),
    Ask("GET", "/things/things.csv?_stream=on&_size=max"),
    Ask("GET", "/things/things/7.json"),
    Ask("GET", "/things?sql=select+count(*)+from+things"),
    Ask("HEAD", "/things/things.json"),
    Ask("OPTIONS", "/things"),
    Ask("GET", "/-/static/app.css", _GZIP),
    Ask("GET", "/-/static/app.css", ("Range: bytes=0-99",)),
    Ask("GET", "/things.db"),
    Ask("GET", "/things/things/"),
    Ask("GET", "/nothing-here"),
    Ask("POST", "/things", _FORM, b"sql=select+1"),
    Ask("GET", "/-/messages"),
]

_HTTPBIN: Final = [
    Ask("GET", "/get?one=1&two=%C3%A9"),
    Ask("HEAD", "/get"),
    Ask("OPTIONS", "/get"),
    Ask("POST", "/post", _FORM, b"a=1&b=2"),
    Ask("POST", "/post", ("Content-Type: application/octet-stream",), BIG),
    Ask("POST", "/post", ("Content-Type: application/octet-stream",), BIG[:300_000], chunked=True),
    Ask("PUT", "/anything/here?x=y", _JSON, b'{"a": 1}'),
    Ask("PATCH", "/patch", _JSON, b"{}"),
    Ask("DELETE", "/delete"),
    Ask("GET", "/gzip", _GZIP),
    Ask("GET", "/deflate"),
    Ask("GET", "/range/5000", ("Range: bytes=10-1999",)),
    Ask("GET", "/redirect/2"),
    Ask("GET", "/absolute-redirect/1"),
    Ask("GET", "/cookies/set?k=v"),
    Ask("GET", "/cookies", ("Cookie: k=v",)),
    Ask("GET", "/stream/5"),
    Ask("GET", "/stream-bytes/200000?seed=1&chunk_size=1000"),
    Ask("GET", "/bytes/3000?seed=1"),
    Ask("GET", "/status/418"),
    Ask("GET", "/etag/one", ("If-None-Match: one",)),
    Ask("GET", "/bearer"),
    Ask("GET", "/image/png"),
    Ask("GET", "/drip?duration=0&numbytes=10&delay=0"),
    Ask("GET", "/nothing-here"),
]

_UPLOAD: Final = multipart({":action": b"file_upload"}, {"content": ("uploaded-1.0.tar.gz", BIG)})
_REMOVAL: Final = multipart({":action": b"remove_pkg", "name": b"uploaded", "version": b"1.0"}, {})
_PYPISERVER: Final = [
    Ask("GET", "/"),
    Ask("GET", "/simple"),
    Ask("GET", "/simple/"),
    Ask("GET", "/simple/example/"),
    Ask("GET", "/packages/example-2.0.tar.gz"),
    Ask("GET", "/packages/example-2.0.tar.gz", ("Range: bytes=100-4000099",)),
    Ask("HEAD", "/packages/example-2.0.tar.gz"),
    Ask("GET", "/packages/example-1.0.tar.gz", ("If-Modified-Since: Wed, 01 Jan 2025 00:00:00 GMT",)),
    Ask("POST", "/", *_UPLOAD),
    Ask("POST", "/", *_UPLOAD),  # a second time is a conflict
    Ask("GET", "/simple/uploaded/"),
    Ask("GET", "/packages/uploaded-1.0.tar.gz"),
    Ask("POST", "/", *_REMOVAL),
    Ask("GET", "/simple/uploaded/"),
    Ask("OPTIONS", "/"),
]

_RADICALE: Final = [
    Ask("OPTIONS", "/"),
    Ask("GET", "/"),
    Ask("PROPFIND", "/", ("Depth: 0",)),
    Ask("MKCALENDAR", "/somebody/calendar/"),
    Ask("PUT", "/somebody/calendar/event.ics", ("Content-Type: text/calendar",), _EVENT),
    Ask("GET", "/somebody/calendar/event.ics"),
    Ask("HEAD", "/somebody/calendar/event.ics"),
    Ask(
        "PROPFIND",
        "/somebody/calendar/",
        _XML,
        b'<propfind xmlns="DAV:"><prop><getetag/></prop></propfind>',
    ),
    Ask("MOVE", "/somebody/calendar/event.ics", ("Destination: http://localhost/somebody/calendar/moved.ics",)),
    Ask("GET", "/somebody/calendar/"),
    Ask("DELETE", "/somebody/calendar/moved.ics"),
    Ask("GET", "/somebody/calendar/moved.ics"),
]

_OPERATIONS: Final = {"query": "mutation ($file: Upload!) { size(file: $file) }", "variables": {"file": None}}
_GRAPHQL_UPLOAD: Final = multipart(
    {"operations": json.dumps(_OPERATIONS).encode(), "map": b'{"0": ["variables.file"]}'}, {"0": ("a.bin", BIG)}
)
_STRAWBERRY: Final = [
    Ask("POST", "/graphql", _JSON, b'{"query": "{ echo(text: \\"hello\\") }"}'),
    Ask("POST", "/graphql", _JSON, b'{"query": "{ echo(text: \\"hello\\") }"}', chunked=True),
    Ask("POST", "/graphql", _JSON, json.dumps({"query": '{ echo(text: "%s") }' % ("long " * 200_000)}).encode()),
    Ask("GET", "/graphql?query=%7B%20echo(text%3A%20%22x%22)%20%7D"),
    Ask("GET", "/graphql", ("Accept: text/html",)),
    Ask("POST", "/graphql", *_GRAPHQL_UPLOAD),
    Ask("POST", "/graphql", _JSON, b"{not json"),
    Ask("POST", "/graphql", _JSON, b'{"query": "{ nothing }"}'),
    Ask("OPTIONS", "/graphql"),
    Ask("HEAD", "/graphql"),
    Ask("DELETE", "/graphql"),
]

_DJANGO: Final = [
    Ask("GET", "/admin"),
    Ask("GET", "/admin/"),
    Ask("GET", "/admin/login/"),
    Ask("HEAD", "/admin/login/"),
    Ask("OPTIONS", "/admin/login/"),
    Ask("GET", "/static/admin/css/base.css"),
    Ask("GET", "/static/admin/css/base.css", ("If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT",)),
    Ask("POST", "/admin/login/", _FORM, b"username=admin&password=x"),  # no CSRF token: Django's own 403
    Ask("GET", "/admin/nothing/"),
]

_MCP: Final = ("Content-Type: application/json", "Accept: application/json, text/event-stream")
INITIALIZE: Final = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
).encode()
_FASTMCP: Final = [
    Ask("POST", "/mcp", _MCP, INITIALIZE),
    Ask("POST", "/mcp", _MCP, b"{not json"),
    Ask("POST", "/mcp", ("Content-Type: text/plain",), b"x"),
    Ask("POST", "/mcp", (*_MCP, "Mcp-Session-Id: unknown"), b'{"jsonrpc": "2.0", "id": 2, "method": "tools/list"}'),
    Ask("GET", "/mcp"),
    Ask("DELETE", "/mcp"),
    Ask("POST", "/mcp/", _MCP, INITIALIZE),
    Ask("GET", "/elsewhere"),
]

_LITESTAR: Final = [
    Ask("GET", "/admin"),
    Ask("HEAD", "/admin"),
    Ask("OPTIONS", "/admin"),
    Ask("DELETE", "/admin"),
    Ask("POST", "/admin/login", _FORM, b"username=admin&password=x"),  # no CSRF token
    Ask("GET", "/schema/openapi.json"),
    Ask("GET", "/nothing-here"),
    Ask("POST", "/nothing-here", _JSON, b'{"a": 1}'),
]
_QUART: Final = [
    Ask("GET", "/"),
    Ask("HEAD", "/"),
    Ask("OPTIONS", "/"),
    Ask("POST", "/", _FORM, b"a=1"),
    Ask("POST", "/", body=BIG[:300_000], chunked=True),
    Ask("GET", "/nothing-here"),
]

ASKED: Final = {
    "datasette": _DATASETTE,
    "django-asgi": _DJANGO,
    "django-wsgi": _DJANGO,
    "fastmcp": _FASTMCP,
    "httpbin": _HTTPBIN,
    "litestar": _LITESTAR,
    "pypiserver": _PYPISERVER,
    "quart": _QUART,
    "radicale": _RADICALE,
    "strawberry": _STRAWBERRY,
}
