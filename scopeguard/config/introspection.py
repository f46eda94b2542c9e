"""Settings of introspection (RFC 7662): who may ask, where, and how long an answer is believed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from scopeguard.config.checks import (
    Converted,
    checked_form,
    converted,
    flag,
    instance,
    member,
    number,
    positive,
    text,
    whole,
)
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.errors import ConfigurationError


class Validation(StrEnum):
    """How the tokens of an issuer are judged."""

    JWT = "jwt"  # locally, with its published keys
    INTROSPECTION = "introspection"  # by asking it, about every token
    AUTO = "auto"  # JWTs locally, everything else by asking


class Dialect(StrEnum):
    """How an authority is asked about a token."""

    RFC7662 = "rfc7662"
    GITLAB_TOKEN_INFO = "gitlab_token_info"  # the token as the bearer, other names, 401 for "no"
    GOOGLE_TOKENINFO = "google_tokeninfo"  # the token as the bearer, other names, numbers as strings, 400 for "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """How an issuer is asked about a token, and for how long its answer is used. Times are in seconds.

    * ``auth``: with ``client_id`` and ``client_secret`` for the two secret methods; with ``client_id``,
      ``private_key`` (PEM or JWK), ``key_algorithm`` and ``key_id`` for ``private_key_jwt``; ``tls_client_auth`` needs
      a transport with the client certificate; ``bearer`` sends ``bearer_token``; ``none`` asks as nobody, which is
      right only where the network keeps others out. Given as a string or as a member of
      :class:`ClientAuthentication`, and read back as the member; ``dialect`` likewise.
    * ``bearer_token``: the token itself, or a function that returns it, which may block and may be ``async``: that is
      called when there is no token yet, and again when the authority answers 401 to the one there is; then the
      question is asked once more. Never in an event loop of the app; an awaitable gets one of its own. Give it a time
      limit: none is set here. Whatever it raises is an outage (503); at most one renewal is made in five seconds.
    * ``assertion_audience``: of ``private_key_jwt``: the issuer unless the server wants another.
    * ``endpoint``: discovered unless given. The :class:`~scopeguard.Issuer` refuses one that is http, unless its
      ``insecure_http_dangerously`` names the host.
    * ``token_type_hint``: sent with the token; ``None`` sends none.
    * ``ttl`` and ``negative_ttl``: how long an active and an inactive answer is used, never beyond ``exp``; 0 asks
      every time. A revocation is noticed after ``ttl`` at the latest. ``max_entries``: answers kept of each kind.
    * ``require_audience``: refuse an answer without ``aud``. Switch it off only where the server answers for this API
      alone.
    * ``signed``: ask for a signed answer (RFC 9701) and accept no other.
    * ``dialect``: how the question and the answer are spelled. ``"google_tokeninfo"`` and
      ``"gitlab_token_info"`` need ``endpoint`` and ``auth = "none"``: the token itself is the credential.
    * ``timeout``: of one call; ``retries``: further calls after a failure to connect or a 502, 503 or 504.
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
    timeout: float = 5.0
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
                raise ConfigurationError(f"introspection.{name} is missing; auth = {self.auth.value!r} needs it")
        for name in ("client_secret", "private_key", "bearer_token"):
            if getattr(self, name) is not None and name not in needed:
                raise ConfigurationError(f"introspection.{name} has no use with auth = {self.auth.value!r}; drop one")
        for name in ("require_audience", "signed"):
            flag(getattr(self, name), f"introspection.{name}")
        if self.signed and not self.client_id:
            raise ConfigurationError("introspection.client_id is missing; it is the audience of signed answers")
        if self.endpoint is not None:
            # Whether it may be http is for the Issuer to say, which knows insecure_http_dangerously.
            checked_form(self.endpoint, "introspection.endpoint")
        object.__setattr__(self, "dialect", member(Dialect, self.dialect, "introspection.dialect"))
        if self.dialect is not Dialect.RFC7662 and (
            self.endpoint is None or self.signed or self.auth is not ClientAuthentication.NONE
        ):
            raise ConfigurationError(
                f'introspection.dialect = "{self.dialect.value}" needs endpoint and auth = "none", and has no signed '
                "answers"
            )
        for name in ("ttl", "negative_ttl"):
            if number(getattr(self, name), f"introspection.{name}") < 0:
                raise ConfigurationError(f"introspection.{name}: not less than 0")
        positive(self.timeout, "introspection.timeout")
        whole(self.max_entries, "introspection.max_entries")
        whole(self.retries, "introspection.retries", least=0)
