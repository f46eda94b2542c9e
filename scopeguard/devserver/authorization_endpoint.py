"""The authorization endpoint: checks of the request, the login page, and the response to the client.

RFC 6749 section 4.1, with PKCE (RFC 7636, ``S256`` only), the ``iss`` parameter (RFC 9207) and resource indicators (RFC
8707). Users have no passwords: anyone who reaches the page can sign in as any user. It is for development only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from scopeguard.devserver.authorization_codes import AuthorizationCodes, Login
from scopeguard.devserver.login_page import error_page, login_page
from scopeguard.devserver.registry import Client, Form, OAuthError, Registry
from scopeguard.devserver.token_requests import Parameters, granted_audiences, granted_scopes
from scopeguard.flow.effects import Answer

COOKIE: Final = "scopeguard_login"
"""The name of the cookie that binds a login page to the browser that loaded it."""

_COOKIE_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url (RFC 7636 section 4.2)
# The fields that the page adds to the parameters of the client.
_USER: Final = "login_user"
_SCOPE: Final = "login_scope"
_DECISION: Final = "login_decision"
_TOKEN: Final = "login_token"
_OWN_FIELDS: Final = (_USER, _SCOPE, _DECISION, _TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserRequest:
    """What the authorization endpoint reads of a request besides its form.

    ``cookie``: the value of the cookie :data:`COOKIE`. ``same_origin``: ``False`` if the browser says that a page of
    another origin has sent the form.
    """

    query: Form = ()
    cookie: str | None = None
    same_origin: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Valid:
    """A valid authorization request."""

    client: Client
    redirect_uri: str
    state: str | None
    code_challenge: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]


class _Refused(Exception):
    """The request gets an error page, because no redirect URI in it can be trusted."""


class AuthorizationEndpoint:
    """The authorization endpoint of one authority. It issues codes into *codes*."""

    def __init__(self, registry: Registry, codes: AuthorizationCodes, audience: str) -> None:
        self._registry = registry
        self._codes = codes
        self._audience = audience
        self._secret = secrets.token_bytes(32)

    def respond(self, form: Form | None, browser: BrowserRequest, *, issuer: str, now: float) -> Answer:
        """Return the login page, or the redirect after it if there is a *form*.

        An unknown client, a ``redirect_uri`` that is not registered for it, and a repeated parameter get an error page,
        because they must not redirect. Every other mistake goes to the client (RFC 6749 section 4.1.2.1).
        """
        fields = browser.query if form is None else tuple(pair for pair in form if pair[0] not in _OWN_FIELDS)
        try:
            client, redirect_uri, parameters = self._find_client(fields)
        except _Refused as refused:
            return _page(error_page(str(refused)), status=400)

        def redirect(**values: str | None) -> Answer:
            return _redirect(redirect_uri, {**values, "state": parameters.get("state"), "iss": issuer})

        try:
            request = self._check(client, redirect_uri, parameters)
        except OAuthError as error:
            return redirect(error=error.error, error_description=error.description)
        if form is None:
            return self._show(request, fields, browser.cookie, secure=issuer.startswith("https:"))
        if not self._is_own_page(form, browser):
            return _page(
                error_page("The form was not sent from this page. Go back to the app and try again."), status=403
            )
        return self._decide(form, request, redirect, now)

    def _find_client(self, fields: Form) -> tuple[Client, str, Parameters]:
        try:
            parameters = Parameters(fields)
        except OAuthError as error:
            raise _Refused(f"{error.description}.") from None
        client = self._registry.clients.get(parameters.get("client_id") or "")
        redirect_uri = parameters.get("redirect_uri") or ""
        if client is None:
            raise _Refused("The client_id is missing, or is not that of a client of this server.")
        if redirect_uri not in client.redirect_uris:
            raise _Refused(
                f"The redirect_uri is missing, or is not registered for the client {client.client_id!r}. It must equal "
                f"a registered one: {', '.join(client.redirect_uris) or 'there is none'}."
            )
        return client, redirect_uri, parameters

    def _check(self, client: Client, redirect_uri: str, parameters: Parameters) -> _Valid:
        if parameters.require("response_type") != "code":
            raise OAuthError("unsupported_response_type", "This server supports code")
        if parameters.get("response_mode") not in (None, "query"):
            raise OAuthError("invalid_request", "This server supports the response_mode query")
        for name in ("request", "request_uri"):
            if parameters.get(name) is not None:
                raise OAuthError(f"{name}_not_supported", "This server reads parameters only from the query")
        challenge = parameters.require("code_challenge")
        if parameters.get("code_challenge_method") != "S256" or _CHALLENGE.fullmatch(challenge) is None:
            raise OAuthError("invalid_request", "PKCE with the code_challenge_method S256 is required")
        if parameters.get("prompt") == "none":
            raise OAuthError("login_required", "This server always shows its login page")
        return _Valid(
            client=client,
            redirect_uri=redirect_uri,
            state=parameters.get("state"),
            code_challenge=challenge,
            scopes=granted_scopes(parameters.get("scope"), client.scopes),
            audiences=granted_audiences(parameters, self._audience, client.audiences),
        )

    def _show(self, request: _Valid, fields: Form, cookie: str | None, *, secure: bool) -> Answer:
        if not self._registry.subjects:
            return _page(error_page("This server has no users. Start it with --user NAME."), status=400)
        # A second page in the same browser must not invalidate the first, so a cookie is kept.
        value = cookie if cookie is not None and _COOKIE_VALUE.fullmatch(cookie) else secrets.token_urlsafe(16)
        page = login_page(
            client_id=request.client.client_id,
            redirect_uri=request.redirect_uri,
            audiences=request.audiences,
            users=sorted(self._registry.subjects),
            scopes=[(scope, self._registry.describe(scope)) for scope in request.scopes],
            hidden=(*fields, (_TOKEN, self._form_token(value))),
        )
        # SameSite=Lax: the browser sends the cookie with a link from the client, but not with a form of another site.
        attributes = f"HttpOnly; SameSite=Lax; Path=/{'; Secure' if secure else ''}"
        return _page(page, redirect_uri=request.redirect_uri, cookie=f"{COOKIE}={value}; {attributes}")

    def _form_token(self, cookie: str) -> str:
        return hmac.new(self._secret, cookie.encode("utf-8"), hashlib.sha256).hexdigest()

    def _is_own_page(self, form: Form, browser: BrowserRequest) -> bool:
        """Return whether the browser that sends *form* has loaded the page from here."""
        tokens = [value for name, value in form if name == _TOKEN]
        if not browser.same_origin or browser.cookie is None or len(tokens) != 1:
            return False
        return hmac.compare_digest(tokens[0].encode("utf-8"), self._form_token(browser.cookie).encode("ascii"))

    def _decide(self, form: Form, request: _Valid, redirect: Callable[..., Answer], now: float) -> Answer:
        def values_of(name: str) -> list[str]:
            return [value for field, value in form if field == name]

        if values_of(_DECISION) != ["allow"]:
            return redirect(error="access_denied", error_description="The user has not allowed it")
        users = values_of(_USER)
        if len(users) != 1 or users[0] not in self._registry.subjects:
            return redirect(error="access_denied", error_description="No user of this server was chosen")
        code = self._codes.add(
            Login(
                client_id=request.client.client_id,
                redirect_uri=request.redirect_uri,
                code_challenge=request.code_challenge,
                subject=users[0],
                scopes=tuple(scope for scope in request.scopes if scope in values_of(_SCOPE)),
                audiences=request.audiences,
            ),
            now,
        )
        return redirect(code=code)


def _redirect(uri: str, values: dict[str, str | None]) -> Answer:
    """Return a redirect to *uri* with *values* in its query (RFC 6749 section 4.1.2).

    The status is 303, so that the browser does not send the form again (RFC 9700 section 4.12).
    """
    given = {name: value for name, value in values.items() if value is not None}
    query = urlencode(given, quote_via=quote)  # scripts often decode with decodeURIComponent(), which leaves "+"
    location = f"{uri}{'&' if '?' in uri else '?'}{query}"
    return Answer(303, b"", {"location": location, "cache-control": "no-store", "referrer-policy": "no-referrer"})


def _page(page: str, *, status: int = 200, redirect_uri: str | None = None, cookie: str | None = None) -> Answer:
    # Chromium applies form-action to the redirect after a form as well.
    targets: Sequence[str] = ["'self'"] if redirect_uri is None else ["'self'", _source(redirect_uri)]
    headers = {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action {' '.join(targets)}",
        # With no-referrer, browsers would send "Origin: null" with the form.
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }
    if cookie is not None:
        headers["set-cookie"] = cookie
    return Answer(status, page.encode("utf-8"), headers)


def _source(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"
