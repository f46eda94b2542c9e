"""The auth class for the client credentials grant."""

from __future__ import annotations

from typing import Self, Unpack

from scopeguard.client.fetching import Fetcher
from scopeguard.client.proofs import Proofs
from scopeguard.client.settings import ClientSettings, Policy
from scopeguard.client.signing import Origins, SigningAuth
from scopeguard.config.checks import text
from scopeguard.edge.insecure_http import warn_of_insecure_hosts
from scopeguard.spec.token_endpoint import TokenResponse


class ClientCredentials(SigningAuth):
    """An ``httpx`` auth class for the client credentials grant (RFC 6749 section 4.4).

    It fetches a token with the first request and sends it with every request. Ahead of expiry (30 seconds or a tenth of
    the lifetime, whichever is less), it renews the token in the background. At most one token request is in flight,
    for any number of threads and tasks.

    When the API answers 401 with the Bearer error ``invalid_token``, or 401 without any challenge, the class fetches a
    new token and sends the request once more. It does not repeat a request whose body is a stream, such as a multipart
    upload.

    The arguments:

    * *token_url*: the token endpoint, by https, or by http on loopback or at a host in *insecure_http_dangerously*.
      :meth:`from_issuer` reads it from the issuer's metadata instead.
    * *client_id*, *client_secret*: sent to the token endpoint only.
    * *auth_method*: ``"client_secret_basic"`` sends them in the ``Authorization`` header, ``"client_secret_post"`` in
      the form. ``"private_key_jwt"`` signs an assertion with *private_key* instead (RFC 7523 section 2.2), and
      ``"tls_client_auth"`` uses the client certificate of the *transport* (RFC 8705 section 2); both need no secret.
    * *private_key*: PEM text, or a private JWK as a mapping. *key_algorithm*: RS256, PS256, ES256, ES384,
      EdDSA or, with ``cryptography`` 48, ML-DSA-44, ML-DSA-65 or ML-DSA-87.
      *key_id*: the ``kid`` of assertions. *certificate*: the certificate of the key, as PEM text, which assertions then
      name with ``x5t#S256``. *assertion_audience*: their ``aud``, which is the issuer identifier of the server;
      :meth:`from_issuer` knows it. *assertion_typ*: their ``typ``, ``None`` for none.
    * *dpop*: a :class:`DPoPKey` to which the tokens are bound (RFC 9449). Each request then has a proof.
      *dpop_optional*: accept bearer tokens as well.
    * *scopes*: the scopes to request, one string or several.
    * *resource*: the API as an absolute URI (RFC 8707). *audience*: the API as Auth0 and others expect it.
    * *parameters*: further form parameters. A ``resource`` that is not a URI (Entra v1, AD FS) belongs here.
    * *origins*: the origins that the token may be sent to, as in ``["https://api.example.com"]``. The default is the
      origin of the first request only, so that a link in a response cannot send the token to another server.
    * *narrower_scope*: what happens if the server grants fewer scopes than requested: ``"warn"`` logs a warning,
      ``"refuse"`` raises :class:`ScopeNotGranted`.
    * *default_lifetime*: the lifetime of a token without ``expires_in``, in seconds.
    * *timeout*: the time limit of one exchange with the authorization server, in seconds.
    * *retries*: the number of further attempts in one fetch if the server does not answer, or answers 408, 429 or 5xx.
      The pauses grow. A ``Retry-After`` of at most 5 seconds is obeyed, a longer one ends the fetch.
    * *token_types*: further values of ``token_type`` that mean Bearer at this server, as in ``["BearerToken"]``.
    * *token_type_optional*: accept a response without ``token_type``. *scope_list*: accept ``scope`` as an array.
    * *insecure_http_dangerously*: hosts with ports, as in ``["keycloak:8080"]``, at which the token endpoint, the
      metadata and the API may be used by http. The secret and the tokens can then be read on the network. Every start
      logs a warning.
    * *transport*: sends the requests to the authorization server. For a proxy or a private certificate authority, pass
      a :class:`~scopeguard.edge.http.HttpxTransport` with that setting. *clock*: the time.

    After a failed fetch, requests raise the same exception for a while, without a token request:

    * for the time of ``Retry-After``, at most 5 minutes;
    * for a minute, if the server refused the client;
    * after 429, 503 or the second failure in a row, for a second, then twice as long after each further failure, at
      most a minute.

    Refusals by the API cause at most one token request a second, and one a minute if the API accepts no token. Expiry
    causes at most one a second, because a token is used for a second even if its ``expires_in`` is 0.

    Not checked: the content of the token, which is for the resource server only (RFC 9068 section 6). A 403 response is
    returned unchanged; :func:`required_scopes` reads the scopes in its challenge.

    Raises :class:`~scopeguard.errors.ConfigurationError` for invalid arguments. Requests raise:

    * :class:`TokenEndpointError`: the server refused, or its response is invalid.
    * :class:`TokenEndpointUnavailable`: the server did not answer.
    * :class:`ScopeNotGranted`: see *narrower_scope*.
    * :class:`OriginNotAllowed`: the request goes to an origin that is not allowed, or by http to a host that is not
      allowed. It is not sent. With ``auth=None``, httpx sends it without a token.
    """

    def __init__(
        self, token_url: str, client_id: str, client_secret: str | None = None, **settings: Unpack[ClientSettings]
    ) -> None:
        text(token_url, "token_url", empty=False)
        self._configure(
            Policy(token_url=token_url, issuer=None, client_id=client_id, client_secret=client_secret, **settings)
        )

    @classmethod
    def from_issuer(
        cls, issuer: str, client_id: str, client_secret: str | None = None, **settings: Unpack[ClientSettings]
    ) -> Self:
        """Return an object that finds the token endpoint in the metadata of *issuer* (RFC 8414, OpenID Connect
        Discovery).

        The metadata is fetched with the first token, and again after an hour or a failure. Its ``issuer`` must be
        identical to *issuer* (RFC 8414 section 3.3), else requests raise :class:`TokenEndpointError`. The other
        arguments and the errors are those of the class.
        """
        text(issuer, "issuer", empty=False)
        self = cls.__new__(cls)
        self._configure(
            Policy(token_url=None, issuer=issuer, client_id=client_id, client_secret=client_secret, **settings)
        )
        return self

    def _configure(self, policy: Policy) -> None:
        self._policy = policy
        warn_of_insecure_hosts(policy.authority, policy.insecure_http_dangerously)
        self._fetcher: Fetcher = Fetcher(policy)
        self._proofs = None if policy.dpop is None else Proofs(policy.dpop, policy.clock)
        self._origins = Origins(policy.origins, policy.insecure_http_dangerously)

    def __repr__(self) -> str:
        policy = self._policy
        return f"ClientCredentials({policy.authority!r}, client_id={policy.client_id!r}, scopes={policy.scopes!r})"

    def token(self) -> TokenResponse:
        """Return the token that a request would send now. Fetch it if there is none, which blocks.

        Raises the exceptions of requests.
        """
        return self._fetcher.token()

    async def atoken(self) -> TokenResponse:
        """:meth:`token` for asyncio and trio."""
        return await self._fetcher.atoken()

    def refuse(self, token: TokenResponse) -> bool:
        """Record that an API refused *token*, for code that sends it without httpx.

        Returns whether :meth:`token` may return a newer one: the limits of the class on token requests apply.
        """
        return self._fetcher.refuse(token)


def proofs_of(credentials: ClientCredentials) -> Proofs | None:
    """Return the object that makes proofs for the tokens of *credentials*, if they are bound to a key."""
    return credentials._proofs


def fetcher_of(credentials: ClientCredentials) -> Fetcher:
    """Return the object that sends the token requests of *credentials*."""
    return credentials._fetcher
