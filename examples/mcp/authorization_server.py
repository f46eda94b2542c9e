"""An authorization server with a login, for this example only.

It adds the authorization code flow with PKCE (RFC 6749 section 4.1, RFC 7636) and dynamic client registration
(RFC 7591) to scopeguard's development authorization server, which issues the tokens and publishes the keys. There is
one user, who is always signed in. *consent* decides what this user allows.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from scopeguard.devserver import Authority, create_app
from scopeguard.devserver.token_requests import Grant

USER = "alice"
LIFETIME = 600  # seconds

Consent = Callable[[str, list[str]], bool]


@dataclass(frozen=True)
class Code:
    """What an authorization code stands for."""

    client_id: str
    redirect_uri: str
    challenge: str
    resource: str
    scopes: tuple[str, ...]


class AuthorizationServer:
    """The endpoints beside those of *authority*. *consent* gets the name of the client and the requested scopes."""

    def __init__(self, authority: Authority, scopes: list[str], consent: Consent) -> None:
        self._authority = authority
        self._scopes = scopes
        self._consent = consent
        self._clients: dict[str, dict[str, Any]] = {}
        self._codes: dict[str, Code] = {}

    def app(self) -> Starlette:
        """Return the ASGI app."""
        return Starlette(
            routes=[
                Route("/.well-known/oauth-authorization-server", self._metadata),
                Route("/register", self._register, methods=["POST"]),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Mount("/", create_app(self._authority, control=False)),
            ]
        )

    async def _metadata(self, _request: Request) -> Response:
        issuer = self._authority.issuer
        return JSONResponse(
            {
                **self._authority.metadata(),
                "authorization_endpoint": f"{issuer}/authorize",
                "registration_endpoint": f"{issuer}/register",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "token_endpoint_auth_methods_supported": ["none"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
                "scopes_supported": self._scopes,
            }
        )

    async def _register(self, request: Request) -> Response:
        metadata = await request.json()
        client_id = secrets.token_urlsafe(8)
        self._clients[client_id] = {
            "client_id": client_id,
            "client_name": metadata.get("client_name", client_id),
            "redirect_uris": metadata["redirect_uris"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code"],
        }
        return JSONResponse(self._clients[client_id], status_code=201)

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        client = self._clients.get(query.get("client_id", ""))
        redirect_uri = query.get("redirect_uri", "")
        if client is None or redirect_uri not in client["redirect_uris"]:
            # RFC 6749 section 4.1.2.1: "MUST NOT automatically redirect the user-agent to the invalid redirection URI".
            return JSONResponse({"error": "invalid_request"}, status_code=400)
        answer = {"state": query.get("state", ""), "iss": self._authority.issuer}
        scopes = query.get("scope", "").split()
        challenge = query.get("code_challenge", "") if query.get("code_challenge_method") == "S256" else ""
        if query.get("response_type") != "code" or not challenge:
            answer["error"] = "invalid_request"
        elif not set(scopes) <= set(self._scopes):
            answer["error"] = "invalid_scope"
        elif not self._consent(client["client_name"], scopes):
            answer["error"] = "access_denied"
        else:
            answer["code"] = secrets.token_urlsafe()
            self._codes[answer["code"]] = Code(
                client["client_id"],
                redirect_uri,
                challenge,
                query.get("resource", self._authority.audience),
                tuple(scopes),
            )
        return RedirectResponse(f"{redirect_uri}?{urlencode(answer)}", status_code=303)

    async def _token(self, request: Request) -> Response:
        form = await request.form()
        code = self._codes.pop(str(form.get("code")), None)  # RFC 6749 section 4.1.2: a code is used once
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        expected = (form.get("client_id"), form.get("redirect_uri"), _base64url(digest), form.get("resource"))
        if code is None or expected != (code.client_id, code.redirect_uri, code.challenge, code.resource):
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        issued = self._authority.issue(
            Grant(
                client_id=code.client_id,
                subject=USER,
                scopes=code.scopes,
                audiences=(code.resource,),
                token_format="jwt",
                lifetime=LIFETIME,
            )
        )
        return JSONResponse(
            {
                "access_token": issued.token,
                "token_type": "Bearer",
                "expires_in": LIFETIME,
                "scope": " ".join(code.scopes),
            },
            headers={"cache-control": "no-store"},
        )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
