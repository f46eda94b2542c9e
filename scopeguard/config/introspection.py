"""Settings of token introspection (RFC 7662): endpoint, authentication and caching."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from scopeguard.config.answer_limits import ANSWER_TIMEOUT
from scopeguard.config.checks import (
    Converted,
    PathObject,
    converted,
    flag,
    instance,
    member,
    number,
    path,
    positive,
    text,
    whole,
)
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.urls import check_form
from scopeguard.errors import ConfigurationError


class Dialect(StrEnum):
    """The form of the request to the endpoint and of its answer."""

    RFC7662 = "rfc7662"
    KUBERNETES_TOKEN_REVIEW = "kubernetes_token_review"  # the TokenReview API, which gets the audiences with the token
    GITLAB_TOKEN_INFO = "gitlab_token_info"  # the token is the credential; other member names; 401 means not active
    GOOGLE_TOKENINFO = "google_tokeninfo"  # the token is the credential; numbers are strings; 400 means not active


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """The settings for introspection requests to an issuer, and for the use of its answers.

    * ``auth``: how this API authenticates at the endpoint (RFC 7662 §2.1): a :class:`ClientAuthentication` or its
      value. The attribute is the member. Each method needs its own credentials and refuses those of the others:

      * ``client_secret_basic`` and ``client_secret_post``: ``client_id`` and ``client_secret``.
      * ``private_key_jwt``: ``client_id`` and ``private_key``.
      * ``tls_client_auth``: ``client_id``, and a transport with the client certificate.
      * ``bearer``: ``bearer_token``.
      * ``none``: nothing. Use it only if the network keeps others away from the endpoint.

    * ``client_id``: the id of this API at the authorization server. Signed answers need it as well.
    * ``client_secret``: its secret.
    * ``private_key``: the key that signs assertions (RFC 7523 §2.2): PEM text, or a private JWK as a mapping.
    * ``key_algorithm``: the algorithm of the assertions: RS256, PS256, ES256, ES384, EdDSA or, with ``cryptography``
      48, ML-DSA-44, ML-DSA-65 or ML-DSA-87. It must fit the key.
    * ``key_id``: the ``kid`` in the header of assertions. ``None`` sends none.
    * ``assertion_audience``: the ``aud`` of assertions. ``None`` uses the issuer's identifier.
    * ``assertion_typ``: the ``typ`` in the header of assertions. ``None`` sends none.
    * ``bearer_token``: the token for ``auth = "bearer"``, or a function that returns it. The function may block and may
      be ``async``. It is called when there is no token yet, and once more when the endpoint answers 401 to the current
      one, but at most once in five seconds. It never runs in an event loop of the app; if it is ``async``, it gets a
      loop of its own. It has no time limit unless it sets one. Any exception that it raises is an outage (503).
    * ``endpoint``: the URL of the introspection endpoint, instead of the one in the metadata. http is refused, except
      as the issuer's ``insecure_http_dangerously`` says.
    * ``token_type_hint``: the hint that is sent with each token (RFC 7662 §2.1). ``None`` sends none.
    * ``ttl``: seconds for which an answer about an active token is used, but never beyond its ``exp``. A revocation at
      the authorization server takes effect within this time. 0 sends an introspection request for each request.
    * ``negative_ttl``: seconds for which an answer "not active" is used. 0 sends an introspection request for each
      request.
    * ``max_entries``: the number of cached answers, counted separately for active and inactive tokens.
    * ``require_audience``: refuse answers without ``aud``. Set it to ``False`` only if the server answers for this API
      alone: without the check, tokens for other APIs are accepted.
    * ``signed``: request signed answers and accept no others (RFC 9701). Needs ``client_id``.
    * ``dialect``: a :class:`Dialect` or its value. The attribute is the member. Dialects other than ``"rfc7662"`` need
      ``endpoint``. Those of token-info endpoints send the token itself as the credential, so they need
      ``auth = "none"``; ``"kubernetes_token_review"`` needs ``auth = "bearer"``.
    * ``ca_file``: the path of a PEM file with the certificate authorities for the server of ``endpoint``. They replace
      the default ones. The file is read again for each new connection. Only with ``endpoint``.
    * ``timeout``: seconds for one call.
    * ``retries``: further calls after a failed connection or a 502, 503 or 504. 0 makes one call.

    Raises :class:`ConfigurationError`, with the name of the setting, for a missing, wrong or contradictory setting.
    Whether the key fits its algorithm is checked when a :class:`~scopeguard.Guard` is constructed.
    """

    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    auth: Converted[str, ClientAuthentication] = converted(ClientAuthentication.CLIENT_SECRET_BASIC)
    private_key: str | Mapping[str, Any] | None = field(default=None, repr=False)
    key_algorithm: str = "RS256"
    key_id: str | None = None
    assertion_audience: str | None = None
    assertion_typ: str | None = "client-authentication+jwt"
    bearer_token: str | Callable[[], str | Awaitable[str]] | None = field(default=None, repr=False)
    endpoint: str | None = None
    token_type_hint: str | None = "access_token"
    ttl: float = 60.0
    negative_ttl: float = 10.0
    max_entries: int = 10_000
    require_audience: bool = True
    signed: bool = False
    dialect: Converted[str, Dialect] = converted(Dialect.RFC7662)
    ca_file: Converted[str | PathObject | None, str | None] = converted(None)
    timeout: float = ANSWER_TIMEOUT
    retries: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "auth", member(ClientAuthentication, self.auth, "introspection.auth"))
        needed = {
            ClientAuthentication.CLIENT_SECRET_BASIC: ("client_id", "client_secret"),
            ClientAuthentication.CLIENT_SECRET_POST: ("client_id", "client_secret"),
            ClientAuthentication.PRIVATE_KEY_JWT: ("client_id", "private_key"),
            ClientAuthentication.TLS_CLIENT_AUTH: ("client_id",),
            ClientAuthentication.BEARER: ("bearer_token",),
            ClientAuthentication.NONE: (),
        }[self.auth]
        for name in (
            "client_id",
            "client_secret",
            "bearer_token",
            "token_type_hint",
            "assertion_audience",
            "key_id",
            "assertion_typ",
        ):
            value = getattr(self, name)
            is_source = name == "bearer_token" and callable(value)
            if value is not None and not is_source:
                text(value, f"introspection.{name}")
        if self.private_key is not None:
            instance(self.private_key, (str, Mapping), "introspection.private_key", "PEM text or a JWK")
        text(self.key_algorithm, "introspection.key_algorithm", empty=False)
        for name in needed:
            if not getattr(self, name):
                raise ConfigurationError(f"introspection.{name}: is missing; auth = {self.auth.value!r} needs it")
        for name in ("client_secret", "private_key", "bearer_token"):
            if getattr(self, name) is not None and name not in needed:
                raise ConfigurationError(
                    f"introspection.{name}: has no effect with auth = {self.auth.value!r}; remove one of them"
                )
        for name in ("require_audience", "signed"):
            flag(getattr(self, name), f"introspection.{name}")
        if self.signed and not self.client_id:
            raise ConfigurationError("introspection.client_id: is missing; signed answers name it as their audience")
        if self.endpoint is not None:
            # The Issuer checks whether it may be http, because it has insecure_http_dangerously.
            check_form(self.endpoint, "introspection.endpoint")
        self._check_dialect()
        for name in ("ttl", "negative_ttl"):
            if number(getattr(self, name), f"introspection.{name}") < 0:
                raise ConfigurationError(f"introspection.{name}: must be at least 0 seconds, not {getattr(self, name)}")
        positive(self.timeout, "introspection.timeout")
        whole(self.max_entries, "introspection.max_entries")
        whole(self.retries, "introspection.retries", least=0)

    @property
    def reviews_tokens(self) -> bool:
        """True if the dialect is the TokenReview API of Kubernetes, whose requests name the audiences."""
        return self.dialect is Dialect.KUBERNETES_TOKEN_REVIEW

    def _check_dialect(self) -> None:
        object.__setattr__(self, "dialect", member(Dialect, self.dialect, "introspection.dialect"))
        if self.dialect is not Dialect.RFC7662:
            auth = ClientAuthentication.BEARER if self.reviews_tokens else ClientAuthentication.NONE
            if self.endpoint is None or self.signed or self.auth is not auth:
                raise ConfigurationError(
                    f'introspection.dialect: "{self.dialect.value}" needs endpoint and auth = "{auth.value}", '
                    "and not signed"
                )
            if self.reviews_tokens and not self.require_audience:
                raise ConfigurationError(
                    "introspection.require_audience: must be true with this dialect; without it, tokens for the API "
                    "server itself would be accepted"
                )
        if self.ca_file is not None:
            object.__setattr__(self, "ca_file", path(self.ca_file, "introspection.ca_file"))
            if self.endpoint is None:
                raise ConfigurationError("introspection.ca_file: has no effect without endpoint; set both")
