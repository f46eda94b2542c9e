"""Test data for all contestants: an issuer, its keys, tokens of about one kilobyte, and requests with them."""

from __future__ import annotations

import io
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scopeguard import Guard, Issuer
from scopeguard.devserver.keys import KeyRing, SigningKey
from scopeguard.testing import FakeAuthority, FakeClock

AUDIENCE = "https://api.example.com"
SCOPE = "https://www.googleapis.com/auth/bigquery.insertdata"
SCOPES = f"{SCOPE} https://www.googleapis.com/auth/bigquery.readonly read:orders write:orders profile"
ALGORITHMS = ("RS256", "ES256", "EdDSA")
# Bytes of a token.
TOKEN_SIZE = 980


Claims = Callable[[str], Mapping[str, Any]]
"""Takes scopes, and returns the claims that a contestant needs besides the common ones."""


@dataclass
class Material:
    """An authority with keys for one algorithm. With *key_file*, another process can use the same keys.

    *settings* are for each guard that it makes, and *guards* has all of them.
    """

    algorithm: str
    key_file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    authority: FakeAuthority = field(init=False)
    guards: list[Guard] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.authority = FakeAuthority(audience=AUDIENCE, algorithm=self.algorithm, clock=FakeClock(time.time()))
        if self.key_file is not None:
            self.authority.authority.keys = KeyRing(self.algorithm, path=self.key_file)

    @property
    def issuer(self) -> Issuer:
        return self.authority.issuer

    def guard(self, **settings: Any) -> Guard:
        """Return a guard that has its keys, as after its first request."""
        guard = Guard(self.issuer, transport=self.authority.transport, **{**self.settings, **settings})
        guard.warm()
        self.guards.append(guard)
        return guard

    # Settings of peers

    @property
    def metadata(self) -> dict[str, Any]:
        return {**self.authority.authority.metadata(), "authorization_endpoint": self.authority.url + "/authorize"}

    @property
    def jwks(self) -> Any:
        """Return the JSON Web Key Set, from which each library makes its own type."""
        return self.authority.authority.keys.key_set(self.authority.clock.wall())

    @property
    def public_key(self) -> Any:
        """Return the key in the type of ``cryptography``."""
        return self.authority.key().private_key.public_key()

    @property
    def pem(self) -> str:
        encoded: bytes = self.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return encoded.decode()

    @cached_property
    def origin(self) -> str:
        """Serve metadata and keys on loopback, for peers that must fetch them, and return the origin."""
        material = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key_set = self.path.endswith("/jwks.json")
                document = material.jwks if key_set else {**material.metadata, "jwks_uri": f"{origin}/jwks.json"}
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        origin = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return origin

    # Tokens

    def token(
        self, scopes: str = SCOPES, *, claims: Claims | None = None, signed_by: SigningKey | None = None, **changes: Any
    ) -> str:
        """Return a new token of the common size. *changes* are arguments of ``mint``."""
        given = {"subject": secrets.token_hex(12), **changes}
        wanted = dict(claims(scopes)) if claims is not None else {}
        token = self.authority.mint(scopes, claims=wanted, key=signed_by, **given)
        missing = (TOKEN_SIZE - len(token)) * 3 // 4 - len('"note":"",')
        if missing > 0:
            token = self.authority.mint(scopes, claims={**wanted, "note": "x" * missing}, key=signed_by, **given)
        return token

    def tokens(self, count: int, *, claims: Claims | None = None) -> list[str]:
        return [self.token(claims=claims) for _ in range(count)]

    def bad_tokens(self, *, claims: Claims | None = None) -> dict[str, str]:
        """Return tokens that must be refused on a route that requires ``SCOPE``."""

        def claims_of_another(scopes: str) -> Mapping[str, Any]:
            return {**(claims(scopes) if claims is not None else {}), "iss": "https://elsewhere.example.com"}

        stranger = SigningKey.generate(self.algorithm, kid=self.authority.key().kid)
        return {
            "without the scope": self.token("read:orders profile", claims=claims),
            "expired": self.token(claims=claims, expires_in=-600),
            "for another audience": self.token(claims=claims, audience="https://other.example.com"),
            "of another issuer": self.token(claims=claims_of_another),
            "signed by a stranger": self.token(claims=claims, signed_by=stranger),
        }


def header_fields(token: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request as a service sends them."""
    return [
        (b"host", b"api.example.com"),
        (b"user-agent", b"loader/1.0"),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"keep-alive"),
        (b"x-request-id", b"5f1c2e0a7a1e4b7e"),
        (b"authorization", b"Bearer " + token.encode()),
        (b"content-type", b"application/json"),
    ]


def asgi_scope(token: str, path: str = "/rows") -> dict[str, Any]:
    """Return an HTTP request in the form of uvicorn."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": header_fields(token),
        "state": {},
    }


def wsgi_environ(token: str, path: str = "/rows") -> dict[str, Any]:
    """Return an HTTP request in the form of a WSGI server."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "api.example.com",
        "HTTP_USER_AGENT": "loader/1.0",
        "HTTP_ACCEPT": "application/json",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate",
        "HTTP_CONNECTION": "keep-alive",
        "HTTP_X_REQUEST_ID": "5f1c2e0a7a1e4b7e",
        "HTTP_AUTHORIZATION": "Bearer " + token,
        "CONTENT_TYPE": "application/json",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
