"""The clients, service accounts and users of the development authorization server."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote_plus, urlsplit

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import instance, items, member, strings, text, whole
from scopeguard.config.urls import check_form
from scopeguard.devserver.lifetimes import TOKEN_LIFETIME
from scopeguard.errors import ConfigurationError
from scopeguard.scopes import check_scope

GOOGLE_TOKEN_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""The audience that Google's client libraries write into every assertion, for every ``token_uri``."""

Form = tuple[tuple[str, str], ...]


class TokenFormat(StrEnum):
    """The format of an access token."""

    JWT = "jwt"  # RFC 9068
    OPAQUE = "opaque"  # a random string, for introspection


class ClientAuthMethod(StrEnum):
    """A method of client authentication (RFC 6749 section 2.3.1, RFC 8414 section 2)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"  # a public client, such as a browser


class OAuthError(Exception):
    """An error answer of RFC 6749 section 5.2; ``challenge`` adds ``WWW-Authenticate: Basic``."""

    def __init__(self, error: str, description: str, *, status: int = 400, challenge: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status
        self.challenge = challenge


def invalid_client() -> OAuthError:
    """Return the error for a failed client authentication. It does not say what failed."""
    return OAuthError("invalid_client", "Client authentication failed", status=401, challenge=True)


def _strings(values: Sequence[str], setting: str) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ConfigurationError(f'{setting}: write a list, as in ["{values}"], not one string')
    return tuple(dict.fromkeys(strings(values, setting, empty=False)))


def _scopes(values: Sequence[str], setting: str) -> tuple[str, ...]:
    return tuple(check_scope(scope, setting) for scope in _strings(values, setting))


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client of RFC 6749 section 2: confidential, or public if ``auth_methods`` is ``["none"]``.

    * ``secret``: the secret of a confidential client. A public client has none and cannot use client credentials.
    * ``redirect_uris``: where users may be sent after they have signed in, each compared as a whole string (RFC 9700
      section 2.1). Empty means that the client cannot use authorization codes.
    * ``scopes``: the scopes that it may get. A request without ``scope`` gets all of them.
    * ``audiences``: the APIs that it may get tokens for. The first is used if a request names none (RFC 8707). Empty
      means the default audience of the authority.
    * ``introspects``: audiences for which this client is the resource server. Introspection reports all other tokens as
      inactive (RFC 7662 section 2.2).
    * ``exchanges_for``: audiences for which this client may get a token in exchange for one that it has received (token
      exchange, RFC 8693). A token that was issued to another client must be for an audience in ``introspects``. Empty
      means that the client may not exchange tokens.
    * ``token_format``: ``"jwt"`` or ``"opaque"``.
    * ``lifetime``: the lifetime of its tokens, in seconds.
    * ``auth_methods``: the allowed methods of client authentication.

    Raises :class:`ConfigurationError` for a confidential client without a secret, a public one with a secret, an
    invalid scope or redirect URI, and no authentication method.
    """

    client_id: str
    secret: str = field(default="", repr=False)
    redirect_uris: Sequence[str] = ()
    scopes: Sequence[str] = ()
    audiences: Sequence[str] = ()
    introspects: Sequence[str] = ()
    exchanges_for: Sequence[str] = ()
    token_format: TokenFormat | str = TokenFormat.JWT
    lifetime: int = TOKEN_LIFETIME
    auth_methods: Collection[ClientAuthMethod | str] = (ClientAuthMethod.BASIC, ClientAuthMethod.POST)

    def __post_init__(self) -> None:
        text(self.client_id, "client: client_id", empty=False)
        setting = f"client {self.client_id!r}"
        text(self.secret, f"{setting}: secret")
        whole(self.lifetime, f"{setting}: lifetime")
        named = items(self.auth_methods, f"{setting}: auth_methods", 'a list, as in ["client_secret_basic"]')
        methods = frozenset(member(ClientAuthMethod, method, f"{setting}: auth_methods") for method in named)
        token_format = member(TokenFormat, self.token_format, f"{setting}: token_format")
        if not methods:
            raise ConfigurationError(f"{setting}: auth_methods is empty; name at least one")
        if ClientAuthMethod.NONE in methods and (self.secret or len(methods) > 1):
            raise ConfigurationError(
                f"{setting}: a public client has no secret; remove secret, or 'none' in auth_methods"
            )
        if ClientAuthMethod.NONE not in methods and not self.secret:
            raise ConfigurationError(
                f'{setting}: secret is empty; set it, or auth_methods=["none"] for a public client'
            )
        redirect_uris = _strings(self.redirect_uris, f"{setting}, redirect_uris")
        for uri in redirect_uris:
            _check_redirect_uri(uri, f"{setting}, redirect_uris")
        for name, value in (
            ("redirect_uris", redirect_uris),
            ("scopes", _scopes(self.scopes, f"{setting}, scopes")),
            ("audiences", _strings(self.audiences, f"{setting}, audiences")),
            ("introspects", _strings(self.introspects, f"{setting}, introspects")),
            ("exchanges_for", _strings(self.exchanges_for, f"{setting}, exchanges_for")),
            ("token_format", token_format),
            ("auth_methods", methods),
        ):
            object.__setattr__(self, name, value)

    @property
    def is_public(self) -> bool:
        """Whether the client has no secret."""
        return ClientAuthMethod.NONE in self.auth_methods


def _check_redirect_uri(uri: str, setting: str) -> None:
    """Raise :class:`ConfigurationError` unless *uri* is absolute and has no fragment (RFC 6749 section 3.1.2).

    It may have the scheme of a native app, which contains a dot (RFC 8252 section 7.1).
    """
    scheme = urlsplit(uri).scheme
    if "." not in scheme:
        check_form(uri, setting)
    if not uri.isascii() or not uri.isprintable() or "#" in uri or " " in uri:
        raise ConfigurationError(f"{setting}: {uri!r} has a fragment or a character that is not allowed in a URI")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A client that gets tokens in exchange for assertions that it signs (RFC 7523 section 2.1).

    * ``email``: the ``iss`` of its assertions, and the ``sub`` and ``client_id`` of its tokens.
    * ``public_key``: PEM text, or a JWK as a dict.
    * ``scopes``, ``audiences``, ``token_format``, ``lifetime``: as in :class:`Client`.
    * ``assertion_audiences``: accepted values for the ``aud`` of its assertions, besides the issuer and the token
      endpoint. Google's libraries need :data:`GOOGLE_TOKEN_AUDIENCE`.

    Raises :class:`ConfigurationError` for an invalid scope and for a key that is not public.
    """

    email: str
    public_key: str | Mapping[str, Any] = field(repr=False)
    scopes: Sequence[str] = ()
    audiences: Sequence[str] = ()
    token_format: TokenFormat | str = TokenFormat.JWT
    lifetime: int = TOKEN_LIFETIME
    assertion_audiences: Sequence[str] = ()
    verification_key: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text(self.email, "service account: email", empty=False)
        setting = f"service account {self.email!r}"
        whole(self.lifetime, f"{setting}: lifetime")
        token_format = member(TokenFormat, self.token_format, f"{setting}: token_format")
        for name, value in (
            ("scopes", _scopes(self.scopes, f"{setting}, scopes")),
            ("audiences", _strings(self.audiences, f"{setting}, audiences")),
            ("assertion_audiences", _strings(self.assertion_audiences, f"{setting}, assertion_audiences")),
            ("token_format", token_format),
            ("verification_key", _public_key(self.public_key, setting)),
        ):
            object.__setattr__(self, name, value)


def _public_key(source: str | Mapping[str, Any], setting: str) -> Any:
    try:
        if isinstance(source, str):
            return load_pem_public_key(source.encode("ascii"))
        key = PyJWK(dict(source)).key
    except (ValueError, TypeError, PyJWTError):
        raise ConfigurationError(f"{setting}: public_key is neither a PEM public key nor a JWK") from None
    if not hasattr(key, "public_bytes"):  # a private key, or the bytes of a shared secret
        raise ConfigurationError(f"{setting}: public_key holds a private or symmetric key; give the public one")
    return key


class Registry:
    """The clients, service accounts and users of an authority.

    A client must not have the name of a user: an API would take its tokens for those of the user (RFC 9068 section 5).
    With a *catalog*, clients may only have scopes that are in it. Violations raise :class:`ConfigurationError`.
    """

    def __init__(
        self,
        clients: Iterable[Client],
        service_accounts: Iterable[ServiceAccount],
        subjects: Iterable[str],
        catalog: ScopeCatalog | None = None,
    ) -> None:
        clients = items(clients, "clients", "a list of Client", Client)
        service_accounts = items(service_accounts, "service_accounts", "a list of ServiceAccount", ServiceAccount)
        if catalog is not None:
            instance(catalog, ScopeCatalog, "catalog", "a ScopeCatalog")
        self._catalog = catalog
        self.clients: dict[str, Client] = {}
        self.service_accounts: dict[str, ServiceAccount] = {}
        self.subjects: set[str] = set()
        for subject in strings(subjects, "subjects", empty=False):
            self.add_subject(subject)
        for client in clients:
            self.add_client(client)
        for account in service_accounts:
            self.add_service_account(account)

    def add_client(self, client: Client) -> None:
        """Add *client*. Raises :class:`ConfigurationError` for a name in use or a scope outside the catalog."""
        self._refuse_taken(client.client_id, f"client {client.client_id!r}")
        if client.client_id in self.subjects:
            raise ConfigurationError(
                f"client {client.client_id!r}: a user has this subject; choose another client_id (RFC 9068 section 5)"
            )
        self._refuse_unknown(client.scopes, f"client {client.client_id!r}")
        self.clients[client.client_id] = client

    def add_service_account(self, account: ServiceAccount) -> None:
        """Add *account*. Raises :class:`ConfigurationError` for a name in use or a scope outside the catalog."""
        self._refuse_taken(account.email, f"service account {account.email!r}")
        if account.email in self.subjects:
            raise ConfigurationError(f"service account {account.email!r}: a user has this name as subject")
        self._refuse_unknown(account.scopes, f"service account {account.email!r}")
        self.service_accounts[account.email] = account

    def add_subject(self, subject: str) -> None:
        """Add a user. Raises :class:`ConfigurationError` if a client or service account has this name."""
        self._refuse_taken(subject, f"subject {subject!r}")
        self.subjects.add(subject)

    def _refuse_unknown(self, scopes: Iterable[str], setting: str) -> None:
        for scope in scopes:
            if self._catalog is not None and scope not in self._catalog:
                near = self._catalog.nearest(scope)
                hint = f"did you mean {near}?" if near else "add it to the catalog, or remove it here"
                raise ConfigurationError(f"{setting}, scopes: {scope!r} is not in the catalog; {hint}")

    def _refuse_taken(self, name: str, setting: str) -> None:
        if name in self.clients or name in self.service_accounts:
            raise ConfigurationError(f"{setting}: a client or service account has this name; choose another")

    @property
    def origins(self) -> frozenset[str]:
        """The origins of all redirect URIs with http or https, as browsers write them."""
        parts = [urlsplit(uri) for client in self.clients.values() for uri in client.redirect_uris]
        return frozenset(f"{part.scheme}://{part.netloc.lower()}" for part in parts if part.netloc)

    def describe(self, scope: str) -> str:
        """Return the description of *scope* in the catalog, ``""`` without one."""
        return "" if self._catalog is None else self._catalog.describe(scope) or ""

    def authenticate(self, form: Mapping[str, str], authorization: str | None, *, or_public: bool = False) -> Client:
        """Return the client that *authorization* or the form authenticates.

        With *or_public*, the form may instead have the ``client_id`` of a public client (RFC 6749 section 3.2.1).

        Raises :class:`OAuthError`: ``invalid_client`` if that fails, ``invalid_request`` for two methods at once. RFC
        6749 section 2.3: "The client MUST NOT use more than one authentication method in each request."
        """
        if authorization is not None:
            if "client_secret" in form:
                raise OAuthError("invalid_request", "Use one client authentication method")
            client_id, secret = _basic_credentials(authorization)
            if form.get("client_id", client_id) != client_id:
                raise OAuthError("invalid_request", "client_id differs from the authenticated client")
            method = ClientAuthMethod.BASIC
        else:
            client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
            method = ClientAuthMethod.POST
        client = self.clients.get(client_id)
        if or_public and client is not None and client.is_public and authorization is None and not secret:
            return client
        expected = client.secret if client else ""
        matches = hmac.compare_digest(expected.encode("utf-8"), secret.encode("utf-8", "surrogatepass"))
        if client is None or not secret or not matches or method not in client.auth_methods:
            raise invalid_client()
        return client


def _basic_credentials(authorization: str) -> tuple[str, str]:
    """Return the id and the secret, form-decoded after base64 (RFC 6749 section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise invalid_client()
    try:
        decoded = base64.b64decode(encoded.strip(" "), validate=True).decode("utf-8")
        client_id, colon, secret = decoded.partition(":")
        if not colon:
            raise invalid_client()
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except ValueError:
        raise invalid_client() from None
