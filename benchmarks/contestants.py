"""The contestants: each framework bare and with scopeguard, and the installed peers."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from fastapi import FastAPI, Security
from fastapi.security import SecurityScopes
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import scopeguard.flask
import scopeguard.starlette
import scopeguard.wsgi
from benchmarks import peers
from benchmarks.material import SCOPE, Claims, Material
from scopeguard import AccessToken, Rule, Rules, all_of
from scopeguard.asgi import GuardMiddleware
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.fastapi import Protected

Message = MutableMapping[str, Any]

# Four thousand tokens take turns and a token cache holds a thousand, so none is cached.
COLD = {"token_cache": TokenCachePolicy(max_entries=1000, ready_entries=500)}
COLD_TOKENS = 4000


@dataclass(frozen=True)
class Contestant:
    """An app that answers GET /rows with 200 for a token with the scope, and with 4xx for other requests.

    *app* makes the ASGI or WSGI app. *base* is the name of the contestant that it is compared with. *guards* says
    whether it refuses requests at all. *claims* are further claims of its tokens.
    """

    name: str
    base: str
    app: Callable[[Material], Any]
    wsgi: bool = False
    peer: bool = False
    guards: bool = True
    claims: Claims | None = None


def raw_asgi(material: Material) -> Any:
    del material

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    return app


def guarded_raw_asgi(material: Material, **settings: Any) -> Any:
    rules = Rules([Rule("/rows", all_of(SCOPE), methods=["GET"])])
    return GuardMiddleware(raw_asgi(material), guard=material.guard(**settings), rules=rules)


def _starlette(endpoint: Any, **settings: Any) -> Any:
    return Starlette(routes=[Route("/rows", endpoint)], **settings)


def bare_starlette(material: Material) -> Any:
    del material

    async def rows(request: Any) -> Response:
        return JSONResponse({})

    return _starlette(rows)


def guarded_starlette(material: Material, **settings: Any) -> Any:
    from scopeguard.starlette import GuardMiddleware

    @scopeguard.starlette.requires(SCOPE)
    async def rows(request: Any) -> Response:
        return JSONResponse({})

    return _starlette(rows, middleware=[Middleware(GuardMiddleware, guard=material.guard(**settings))])


def wrapped_starlette(material: Material, **settings: Any) -> Any:
    rules = Rules([Rule("/rows", all_of(SCOPE), methods=["GET"])])
    return GuardMiddleware(bare_starlette(material), guard=material.guard(**settings), rules=rules)


def verifier(material: Material) -> Callable[[bytes, bytes], None]:
    """Return a function that verifies a signature in the form of JWS with ``cryptography``, and raises if it is
    wrong.
    """
    key: Any = material.public_key
    if material.algorithm == "ES256":
        kind = ec.ECDSA(hashes.SHA256())

        def verify(signature: bytes, signed: bytes) -> None:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(encode_dss_signature(r, s), signed, kind)

        return verify
    if material.algorithm == "RS256":
        padding_, digest = padding.PKCS1v15(), hashes.SHA256()
        return lambda signature, signed: key.verify(signature, signed, padding_, digest)
    verify_: Callable[[bytes, bytes], None] = key.verify
    return verify_


async def do_nothing(connection: HTTPConnection, security_scopes: SecurityScopes) -> None:
    """A dependency with the parameters of scopeguard's, which does nothing."""


def signature_alone(material: Material) -> Any:
    """Starlette with the minimum for a new token: the check of its signature."""
    verify, app = verifier(material), bare_starlette(material)

    async def check(scope: Message, receive: Any, send: Any) -> None:
        token = next(value for name, value in scope["headers"] if name == b"authorization")[7:]
        signed, _, signature = token.rpartition(b".")
        verify(base64.urlsafe_b64decode(signature + b"=="), signed)
        await app(scope, receive, send)

    return check


class DigestAlone:
    """*app* with the minimum for a known token: find the header, hash the token, and pass the result of a look-up to
    the app. It knows all tokens and checks nothing.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: dict[bytes, object] = {}
        self._current: ContextVar[object] = ContextVar("current", default=None)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        known = self.find_entry(scope)
        scope["state"] = {"access_token": known}
        scope["user"] = scope["auth"] = known
        before = self._current.set(known)
        try:
            await self._app(scope, receive, send)
        finally:
            self._current.reset(before)

    def find_entry(self, scope: Message) -> object:
        """Return the entry for the digest."""
        for name, value in scope["headers"]:
            if len(name) == 13 and name.lower() == b"authorization":
                digest = sha256(value).digest()
                return self._known.get(digest) or self._known.setdefault(digest, scope)
        raise AssertionError("a request without a token")


def digest_only_raw_asgi(material: Material) -> Any:
    return DigestAlone(raw_asgi(material))


def digest_only_starlette(material: Material) -> Any:
    return DigestAlone(bare_starlette(material))


def digest_only_fastapi(material: Material) -> Any:
    del material
    app, recognising = FastAPI(), DigestAlone(None)

    async def find_entry(connection: HTTPConnection, security_scopes: SecurityScopes) -> object:
        return recognising.find_entry(connection.scope)

    @app.get("/rows")
    async def rows(token: object = Security(find_entry, scopes=[SCOPE])) -> dict[str, str]:
        return {}

    return app


def empty_fastapi(material: Material) -> Any:
    """FastAPI with a dependency that does nothing, which shows the framework's own cost."""
    del material
    app = FastAPI()

    @app.get("/rows")
    async def rows(token: None = Security(do_nothing, scopes=[SCOPE])) -> dict[str, str]:
        return {}

    return app


def guarded_fastapi(material: Material, **settings: Any) -> Any:
    protected = Protected(material.guard(**settings))
    app = FastAPI()

    @app.get("/rows")
    async def rows(token: AccessToken = Security(protected, scopes=[SCOPE])) -> dict[str, str]:
        return {}

    return app


def raw_wsgi(material: Material) -> Any:
    del material

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"{}"]

    return app


def guarded_raw_wsgi(material: Material, **settings: Any) -> Any:
    rules = Rules([Rule("/rows", all_of(SCOPE), methods=["GET"])])
    return scopeguard.wsgi.GuardMiddleware(raw_wsgi(material), guard=material.guard(**settings), rules=rules)


def bare_flask(material: Material) -> Any:
    del material
    app = Flask("bare")

    @app.get("/rows")
    def rows() -> dict[str, str]:
        return {}

    return app


def guarded_flask(material: Material, **settings: Any) -> Any:
    app = Flask("guarded")
    scopeguard.flask.ScopeGuard(app, material.guard(**settings))

    @app.get("/rows")
    @scopeguard.flask.requires(SCOPE)
    def rows() -> dict[str, str]:
        return {}

    return app


OURS = [
    Contestant("raw ASGI", "raw ASGI", raw_asgi, guards=False),
    Contestant("raw ASGI + scopeguard", "raw ASGI", guarded_raw_asgi),
    Contestant("raw ASGI, digest alone", "raw ASGI", digest_only_raw_asgi, guards=False),
    Contestant("Starlette", "Starlette", bare_starlette, guards=False),
    Contestant("Starlette + scopeguard", "Starlette", guarded_starlette),
    Contestant("Starlette + scopeguard, fast", "Starlette", partial(guarded_starlette, fast=True)),
    Contestant("Starlette in scopeguard, by rules", "Starlette", wrapped_starlette),
    Contestant("Starlette, digest alone", "Starlette", digest_only_starlette, guards=False),
    Contestant("Starlette, signature alone", "Starlette", signature_alone, guards=False),
    Contestant("FastAPI, empty dependency", "FastAPI, empty dependency", empty_fastapi, guards=False),
    Contestant("FastAPI + scopeguard", "FastAPI, empty dependency", guarded_fastapi),
    Contestant("FastAPI, digest alone", "FastAPI, empty dependency", digest_only_fastapi, guards=False),
    Contestant("raw WSGI", "raw WSGI", raw_wsgi, wsgi=True, guards=False),
    Contestant("raw WSGI + scopeguard", "raw WSGI", guarded_raw_wsgi, wsgi=True),
    Contestant("Flask", "Flask", bare_flask, wsgi=True, guards=False),
    Contestant("Flask + scopeguard", "Flask", guarded_flask, wsgi=True),
    Contestant("Flask + scopeguard, fast", "Flask", partial(guarded_flask, fast=True), wsgi=True),
]


def all_contestants(algorithm: str) -> tuple[list[Contestant], dict[str, str]]:
    """Return all contestants that can take part, and the reasons why others cannot."""
    taking_part, absent = list(OURS), {}
    for peer in peers.import_all():
        missing = peers.missing_distributions(peer)
        if missing:
            absent[peer.NAME] = f"not installed: {', '.join(missing)}"
        elif algorithm not in getattr(peer, "ALGORITHMS", (algorithm,)):
            absent[peer.NAME] = f"does not support {algorithm}"
        else:
            claims = getattr(peer, "claims", None)
            wsgi = getattr(peer, "WSGI", False)
            taking_part.append(Contestant(peer.NAME, peer.BASE, peer.app, wsgi=wsgi, peer=True, claims=claims))
    return taking_part, absent


def choose(names: Sequence[str], algorithm: str) -> tuple[list[Contestant], dict[str, str]]:
    """Return the contestants with one of *names* in their name, and their bases. Without *names*, return all."""
    all_of_them, absent = all_contestants(algorithm)
    wanted = [each for each in all_of_them if not names or any(name in each.name for name in names)]
    bases = {each.base for each in wanted}
    return [each for each in all_of_them if each in wanted or each.name in bases], absent
