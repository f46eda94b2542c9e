"""The auth class for the call to the next API: it exchanges the token of the caller (RFC 8693)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final, Self, Unpack

from scopeguard.client.client_credentials import ClientCredentials, fetcher_of, proofs_of
from scopeguard.client.errors import ForwardingRefused
from scopeguard.client.exchanging import Exchanger, Subject
from scopeguard.client.forwarding import contains
from scopeguard.client.httpx_auth import Auth
from scopeguard.client.proofs import Proofs
from scopeguard.client.settings import ExchangePolicy, ExchangeSettings, Grant
from scopeguard.client.signing import Origins, SigningAuth
from scopeguard.config.checks import instance, strings, text
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.edge.insecure_http import warn_of_insecure_hosts
from scopeguard.errors import ConfigurationError
from scopeguard.inbound_tokens import InboundToken, inbound_token, text_for_exchange
from scopeguard.log_values import fingerprint
from scopeguard.spec.token_endpoint import TokenResponse
from scopeguard.spec.token_exchange import ID_JAG

# RFC 6749 appendix A.12: access-token = 1*VSCHAR
_PRINTABLE: Final = re.compile(r"[\x20-\x7E]+")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?")
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


class TokenExchange(Auth):
    """An ``httpx`` auth class that calls the next API on behalf of the user whose request this API serves.

    ::

        guard = Guard(issuer, keep_token_for_exchange=True)
        stock = httpx.AsyncClient(auth=TokenExchange(token_url, "orders", secret, audience="https://stock.example.com"))

        @app.get("/orders")
        async def orders():
            return (await stock.get("https://stock.example.com/levels")).json()

    For each outgoing request, it sends the token of the current request to the authorization server, and gets one for
    the next API. It works in every function that the app calls during a request, in ASGI and WSGI apps, and in threads
    and tasks that run in a copy of the request's context. Elsewhere, use :meth:`for_token`.

    The tokens are cached, by a digest of the caller's token and of the settings, no longer than either token lives.
    At most one exchange is in flight for each token of a caller, for any number of threads and tasks. If the next API
    refuses a token as :class:`ClientCredentials` describes it, the class exchanges again and sends the request once
    more.

    The arguments are those of :class:`ClientCredentials`, where *retries* is 1 by default, and:

    * *audience*, *resource*, *scopes*: the API that the token is for, and what it may do there.
    * *subject_token_type*: the type of the caller's token (RFC 8693 section 3), by default an access token.
    * *requested_token_type*: the type to request; by default the server decides.
    * *actor*: this API as the acting party: a :class:`ClientCredentials`, or a function that returns a token. Most
      servers take the authenticated client instead. *actor_token_type*: the type of that token.
    * *issued_token_type_optional*: accept a response without ``issued_token_type``.
    * *max_entries*: the greatest number of cached tokens.
    * *longest_use*: the seconds for which a token is cached if the expiry of the caller's token is unknown.
    * *leeway*: a cached token is not used in this many seconds before its expiry, or in the last tenth of its lifetime
      if that is less.
    * *default_lifetime*: the lifetime of a token without ``expires_in``, in seconds.

    Checked: the response has ``access_token``, ``issued_token_type`` and ``token_type`` (RFC 8693 section 2.2.1); the
    types are those that were requested; the token is not the one that was exchanged; the outgoing request does not
    contain the caller's token. Not checked: the content of the new token.

    After a failure, the caller's token is not exchanged again for a second, then for twice as long after each further
    failure, at most 30 seconds. If the server is down, or refuses this client, no token is exchanged for a while.

    Raises :class:`~scopeguard.errors.ConfigurationError` for invalid arguments, and in a request without an access
    token or whose guard drops the text. Requests raise:

    * :class:`TokenExchangeRefused`: the server issues no token for this caller.
    * :class:`TokenEndpointUnavailable`: the server did not answer. ``retry_after`` has the seconds for the
      ``Retry-After`` of a 503.
    * :class:`TokenEndpointError`: the server refused this client, or its response is invalid.
    * :class:`ScopeNotGranted`, :class:`OriginNotAllowed`: see :class:`ClientCredentials`.
    * :class:`ForwardingRefused`: the outgoing request contains the caller's token. It was not sent.
    """

    def __init__(
        self, token_url: str, client_id: str, client_secret: str | None = None, **settings: Unpack[ExchangeSettings]
    ) -> None:
        text(token_url, "token_url", empty=False)
        self._configure(
            ExchangePolicy(
                token_url=token_url, issuer=None, client_id=client_id, client_secret=client_secret, **settings
            )
        )

    @classmethod
    def from_issuer(
        cls, issuer: str, client_id: str, client_secret: str | None = None, **settings: Unpack[ExchangeSettings]
    ) -> Self:
        """Return an object that finds the token endpoint in the metadata of *issuer*.

        See :meth:`ClientCredentials.from_issuer`.
        """
        text(issuer, "issuer", empty=False)
        return cls._from(
            ExchangePolicy(token_url=None, issuer=issuer, client_id=client_id, client_secret=client_secret, **settings)
        )

    @classmethod
    def entra(
        cls,
        tenant: str,
        client_id: str,
        client_secret: str | None = None,
        *,
        host: str = "login.microsoftonline.com",
        **settings: Unpack[ExchangeSettings],
    ) -> Self:
        """Return an object for the on-behalf-of flow of Microsoft Entra.

        It is a JWT bearer grant with the caller's token as the assertion, and ``requested_token_use=on_behalf_of``. The
        *scopes* name the next API, as in ``["api://stock/.default"]``. *host*: the host of the cloud. The flow needs
        a token of a user: Entra refuses tokens of applications.

        The secret is sent in the form. With *private_key* and *certificate* instead, the client signs assertions as
        Microsoft requires them: PS256, ``typ`` JWT, ``x5t#S256``, and the token endpoint as the audience.

        ``error`` is ``interaction_required`` if the user has to consent or to sign in again.
        """
        _check(_TENANT, tenant, "tenant", "the ID of the tenant or its domain")
        _check(_HOST, host, "host", "a host name without https://")
        if not strings(settings.get("scopes", ()), "scopes"):
            raise ConfigurationError('scopes: name the next API, as in ["api://stock/.default"]')
        token_url = f"https://{host}/{tenant}/oauth2/v2.0/token"
        if settings.get("private_key") is None:
            settings.setdefault("auth_method", ClientAuthentication.CLIENT_SECRET_POST)
        else:
            settings.setdefault("auth_method", ClientAuthentication.PRIVATE_KEY_JWT)
            settings.setdefault("key_algorithm", "PS256")
            settings.setdefault("assertion_typ", "JWT")
            settings.setdefault("assertion_audience", token_url)
            if settings.get("certificate") is None:
                raise ConfigurationError(
                    "certificate: is missing; Entra finds the key of an assertion by its certificate"
                )
        return cls._from(
            ExchangePolicy(
                token_url=token_url,
                issuer=None,
                client_id=client_id,
                client_secret=client_secret,
                grant=Grant.ON_BEHALF_OF,
                **settings,
            )
        )

    @classmethod
    def auth0(
        cls, domain: str, client_id: str, client_secret: str | None = None, **settings: Unpack[ExchangeSettings]
    ) -> Self:
        """Return an object for Auth0, as in ``TokenExchange.auth0("tenant.eu.auth0.com", ..., audience=...)``.

        It uses the on-behalf-of token exchange, for which the client is a *custom API client* of this API. For a custom
        token exchange, set *subject_token_type* to the one of your profile, as in ``"urn:acme:legacy-token"``. The
        *audience* is the identifier of the next API. A response may omit ``issued_token_type``.
        """
        _check(_HOST, domain, "domain", 'the host of the tenant, as in "tenant.eu.auth0.com"')
        _check_audience(settings)
        settings.setdefault("auth_method", ClientAuthentication.CLIENT_SECRET_POST)
        settings.setdefault("issued_token_type_optional", True)
        return cls._from(
            ExchangePolicy(
                token_url=f"https://{domain}/oauth/token",
                issuer=None,
                client_id=client_id,
                client_secret=client_secret,
                **settings,
            )
        )

    @classmethod
    def identity_assertion(
        cls,
        token_url: str,
        client_id: str,
        client_secret: str | None = None,
        *,
        redeem_with: ClientCredentials,
        **settings: Unpack[ExchangeSettings],
    ) -> Self:
        """Return an object for a next API that trusts another authorization server (ID-JAG).

        It exchanges the caller's token for an identity assertion, which the other server redeems for an access token by
        a JWT bearer grant (draft-ietf-oauth-identity-assertion-authz-grant). The *audience* is the issuer of that
        server. *redeem_with*: this API as a client of that server. The draft exchanges ID tokens: pass one to
        :meth:`for_token` and set *subject_token_type*, or use a server that takes access tokens.
        """
        text(token_url, "token_url", empty=False)
        _check_audience(settings)
        instance(redeem_with, ClientCredentials, "redeem_with", "a ClientCredentials")
        if settings.get("requested_token_type") is not None:
            raise ConfigurationError("requested_token_type: has no effect for identity assertions; remove it")
        if settings.get("dpop") is not None:
            raise ConfigurationError("dpop: set it in redeem_with, whose server issues the token for the next API")
        settings["requested_token_type"] = ID_JAG
        policy = ExchangePolicy(
            token_url=token_url, issuer=None, client_id=client_id, client_secret=client_secret, **settings
        )
        return cls._from(policy, redeem_with)

    @classmethod
    def _from(cls, policy: ExchangePolicy, redeem_with: ClientCredentials | None = None) -> Self:
        self = cls.__new__(cls)
        self._configure(policy, redeem_with)
        return self

    def _configure(self, policy: ExchangePolicy, redeem_with: ClientCredentials | None = None) -> None:
        self._policy = policy
        warn_of_insecure_hosts(policy.authority, policy.insecure_http_dangerously)
        self._exchanger = Exchanger(policy, None if redeem_with is None else fetcher_of(redeem_with))
        self._origins = Origins(policy.origins, policy.insecure_http_dangerously)
        # The server that issues the token for the next API binds it to the key of its client.
        if redeem_with is not None:
            self._proofs = proofs_of(redeem_with)
        else:
            self._proofs = None if policy.dpop is None else Proofs(policy.dpop, policy.clock)

    def __repr__(self) -> str:
        policy = self._policy
        to = " ".join((*policy.audience, *policy.resource, *policy.scopes))
        return f"TokenExchange({policy.authority!r}, client_id={policy.client_id!r}, for {to!r})"

    def for_token(self, token: InboundToken | str) -> TokenOfSubject:
        """Return an auth object that exchanges *token*, for code that runs outside the request.

        *token*: what :func:`scopeguard.inbound_token` returned in the request, or the text of a token. The
        object shares the cache. It keeps working after the request, until the token expires; a revocation in between is
        left to the authorization server, and takes effect when a cached token is no longer used.

        Raises :class:`~scopeguard.errors.ConfigurationError` for another kind of *token*.
        """
        if isinstance(token, InboundToken):
            subject = Subject(text_for_exchange(token), token.access_token.expires_at)
        elif isinstance(token, str) and _PRINTABLE.fullmatch(token):
            subject = Subject(token, None)
        else:
            raise ConfigurationError(
                "for_token: pass inbound_token(), called in the request, or the text of a token in printable "
                f"ASCII, not {type(token).__name__}"
            )
        return TokenOfSubject(self._exchanger, self._origins, self._proofs, subject)

    def token(self) -> TokenResponse:
        """Return a token for the next API on behalf of the caller of the current request.

        If none is cached, the caller's token is exchanged, which blocks. For clients other than httpx. Raises the
        exceptions of requests.
        """
        return self._current().token()

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await self._current().atoken()

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Send *request* with a token for the next API. ``httpx.Client`` calls it."""
        return self._current().sync_auth_flow(request)

    def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """:meth:`sync_auth_flow` for ``httpx.AsyncClient``."""
        return self._current().async_auth_flow(request)

    def close(self) -> None:
        """Close the connections to the authorization server. The object stays usable."""
        self._exchanger.close()

    async def aclose(self) -> None:
        """:meth:`close` for asyncio and trio."""
        await self._exchanger.aclose()

    def _current(self) -> TokenOfSubject:
        return self.for_token(inbound_token())


class TokenOfSubject(SigningAuth):
    """Sends requests with tokens that are exchanged for one subject token. :meth:`TokenExchange.for_token` makes it."""

    def __init__(self, exchanger: Exchanger, origins: Origins, proofs: Proofs | None, subject: Subject) -> None:
        self._fetcher = _SubjectSource(exchanger, subject)
        self._origins = origins
        self._proofs = proofs
        self._subject = subject

    def __repr__(self) -> str:
        return f"TokenOfSubject({fingerprint(self._subject.text)})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a TokenOfSubject cannot be pickled or copied, because it holds the text of an access token")

    def token(self) -> TokenResponse:
        """Return a token for the next API. If none is cached, exchange the subject token, which blocks."""
        return self._fetcher.token()

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await self._fetcher.atoken()

    def _check(self, request: Any) -> None:
        """Refuse *request* if it contains the subject token. ``Authorization`` is replaced in any case."""
        super()._check(request)
        request.headers.pop("Authorization", None)
        if contains(request, self._subject.text):
            raise ForwardingRefused(
                f"the request to {request.url.host} contains the access token of the caller in a header field or in "
                "the query; the next API gets one of its own"
            )


class _SubjectSource:
    """The tokens for one subject."""

    def __init__(self, exchanger: Exchanger, subject: Subject) -> None:
        self._exchanger = exchanger
        self._subject = subject

    def token(self) -> TokenResponse:
        return self._exchanger.token(self._subject)

    async def atoken(self) -> TokenResponse:
        return await self._exchanger.atoken(self._subject)

    def refuse(self, token: TokenResponse) -> bool:
        return self._exchanger.refuse(self._subject, token)

    def accept(self, token: TokenResponse) -> None:
        """Do nothing: a refused token is replaced once a second at most."""


def _check(form: re.Pattern[str], value: str, name: str, right: str) -> None:
    text(value, name)
    if not form.fullmatch(value):
        raise ConfigurationError(f"{name}: must be {right}, not {value!r}")


def _check_audience(settings: ExchangeSettings) -> None:
    if not strings(settings.get("audience", ()), "audience", empty=False):
        raise ConfigurationError("audience: name the next API or its authorization server, as that server knows it")
