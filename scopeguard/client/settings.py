"""The settings of the client, which are checked at construction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, TypedDict
from urllib.parse import urlsplit

from scopeguard.client.dpop import DPoPKey, check_key
from scopeguard.config.answer_limits import ANSWER_TIMEOUT
from scopeguard.config.checks import (
    Converted,
    converted,
    flag,
    instance,
    mapping,
    methods,
    number,
    strings,
    text,
    whole,
)
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.hosts import insecure_hosts, join_host_port
from scopeguard.config.urls import check_url
from scopeguard.edge.http import HttpxTransport
from scopeguard.edge.runtime import SystemClock, Transport
from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Clock
from scopeguard.scopes import check_scope
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.spec.request_uri import DEFAULT_PORTS
from scopeguard.spec.token_endpoint import OTHER_TOKEN_TYPES, RESERVED_PARAMETERS, TokenResponse, Tolerance
from scopeguard.spec.token_exchange import ACCESS_TOKEN, RESERVED_EXCHANGE_PARAMETERS

# The methods of client authentication, with the setting that each needs.
_AUTH_METHODS: Final = {
    ClientAuthentication.CLIENT_SECRET_BASIC: "client_secret",
    ClientAuthentication.CLIENT_SECRET_POST: "client_secret",
    ClientAuthentication.PRIVATE_KEY_JWT: "private_key",
    ClientAuthentication.TLS_CLIENT_AUTH: None,
}
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[\x21\x22\x24-\x7E]+")  # RFC 8707 section 2: no fragment


class NarrowerScope(StrEnum):
    """The reaction to a token with fewer scopes than requested: log a warning, or raise."""

    WARN = "warn"
    REFUSE = "refuse"


class ClientSettings(TypedDict, total=False):
    """The keyword arguments of :class:`~scopeguard.client.ClientCredentials`, which documents them."""

    scopes: str | Iterable[str]
    resource: str | Iterable[str]
    audience: str | Iterable[str]
    parameters: Mapping[str, str]
    auth_method: str
    private_key: str | Mapping[str, Any] | None
    key_algorithm: str
    key_id: str | None
    certificate: str | None
    assertion_audience: str | None
    assertion_typ: str | None
    origins: str | Iterable[str]
    narrower_scope: str
    default_lifetime: float
    timeout: float
    retries: int
    dpop: DPoPKey | None
    dpop_optional: bool
    token_types: str | Iterable[str]
    token_type_optional: bool
    scope_list: bool
    insecure_http_dangerously: Iterable[str]
    transport: Transport | None
    clock: Clock


class ExchangeSettings(ClientSettings, total=False):
    """The keyword arguments of :class:`~scopeguard.client.TokenExchange`, which documents them."""

    subject_token_type: str
    requested_token_type: str | None
    actor: SupportsToken | Callable[[], str] | None
    actor_token_type: str
    issued_token_type_optional: bool
    max_entries: int
    longest_use: float
    leeway: float


class SupportsToken(Protocol):
    """An object that returns an access token of this program, such as :class:`~scopeguard.client.ClientCredentials`."""

    def token(self) -> TokenResponse:
        """Return the token. May block."""
        ...


class Grant(StrEnum):
    """The grant by which a token is exchanged."""

    TOKEN_EXCHANGE = "token_exchange"  # RFC 8693
    ON_BEHALF_OF = "on_behalf_of"  # Microsoft Entra


class Secret:
    """A string that ``repr``, and so a traceback with local variables, does not show."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the string."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The checked settings of one client. Either ``token_url`` or ``issuer`` is ``None``."""

    token_url: str | None
    issuer: str | None
    client_id: str
    client_secret: Any = field(default=None, repr=False)  # a string, converted to a Secret; None without one
    scopes: Any = ()  # this and the next four: one string or several, converted to tuples
    resource: Any = ()
    audience: Any = ()
    origins: Any = None
    token_types: Any = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    auth_method: str = ClientAuthentication.CLIENT_SECRET_BASIC
    private_key: str | Mapping[str, Any] | None = field(default=None, repr=False)
    key_algorithm: str = "RS256"
    key_id: str | None = None
    certificate: str | None = None
    assertion_audience: str | None = None
    assertion_typ: str | None = "client-authentication+jwt"
    narrower_scope: str = NarrowerScope.WARN
    default_lifetime: float = 300.0
    timeout: float = ANSWER_TIMEOUT
    retries: int = 2
    dpop: DPoPKey | None = None
    dpop_optional: bool = False
    token_type_optional: bool = False
    scope_list: bool = False
    insecure_http_dangerously: Converted[Iterable[str], frozenset[str]] = converted(frozenset())
    transport: Transport | None = None
    clock: Clock = field(default_factory=SystemClock)
    tolerance: Tolerance = field(init=False)
    assertion_key: AssertionKey | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        insecure = insecure_hosts(self.insecure_http_dangerously)
        object.__setattr__(self, "insecure_http_dangerously", insecure)
        if self.token_url is not None:
            check_url(self.token_url, "token_url", insecure=insecure)
        if self.issuer is not None:
            check_url(self.issuer, "issuer", query=False, insecure=insecure)
        text(self.client_id, "client_id", empty=False)
        for name in ("scopes", "resource", "audience", "token_types"):
            object.__setattr__(self, name, strings(getattr(self, name), name, empty=False))
        origins = () if self.origins is None else strings(self.origins, "origins")
        if self.origins is not None and not origins:
            raise ConfigurationError(
                "origins: must not be empty; name the origin of the API, or leave origins out to bind the token to the "
                "first origin that is called"
            )
        object.__setattr__(self, "origins", tuple(_configured_origin(url, insecure) for url in origins))
        object.__setattr__(self, "parameters", dict(mapping(self.parameters, "parameters")))
        self._check_parameters()
        self._check_choices()
        object.__setattr__(self, "assertion_key", self._check_authentication())
        if self.client_secret is not None:
            object.__setattr__(self, "client_secret", Secret(self.client_secret))
        object.__setattr__(self, "tolerance", self._tolerance())

    @property
    def authority(self) -> str:
        """The URL that stands for the authorization server in exceptions and log lines."""
        return self.issuer or self.token_url or ""

    def _check_parameters(self) -> None:
        for scope in self.scopes:
            check_scope(scope, "scopes")
        for uri in self.resource:
            if not _ABSOLUTE_URI.fullmatch(uri):
                raise ConfigurationError(
                    f"resource: {uri!r} is not an absolute URI without a fragment (RFC 8707); for a server with other "
                    "identifiers (Entra v1, AD FS), leave it out and set parameters={'resource': ...}"
                )
        for name, value in self.parameters.items():
            text(value, f"parameters[{name!r}]")
            if name in RESERVED_PARAMETERS or (name == "resource" and self.resource):
                raise ConfigurationError(f"parameters: {name!r} has a setting of its own; two values would be sent")

    def _check_choices(self) -> None:
        for name, known in (("auth_method", tuple(_AUTH_METHODS)), ("narrower_scope", tuple(NarrowerScope))):
            if getattr(self, name) not in known:
                choices = ", ".join(repr(str(item)) for item in known)
                raise ConfigurationError(f"{name}: {getattr(self, name)!r} is not one of {choices}")
        for name, least in (("default_lifetime", 1.0), ("timeout", 0.001)):
            value = number(getattr(self, name), name)
            if value < least:
                raise ConfigurationError(f"{name}: must be at least {least}, not {value:g}")
        whole(self.retries, "retries", least=0)
        if self.transport is not None:
            methods(self.transport, ("send", "close"), "transport")
        methods(self.clock, ("wall", "monotonic"), "clock")

    def _check_authentication(self) -> AssertionKey | None:
        """Check the settings of client authentication. Return the key that signs assertions, if there is one."""
        if self.client_secret is not None:
            text(self.client_secret, "client_secret", empty=False)
        if self.private_key is not None:
            instance(self.private_key, (str, Mapping), "private_key", "PEM text or a JWK")
        text(self.key_algorithm, "key_algorithm", empty=False)
        for name in ("key_id", "certificate", "assertion_audience", "assertion_typ"):
            if getattr(self, name) is not None:
                text(getattr(self, name), name, empty=False)
        method, needed = str(self.auth_method), _AUTH_METHODS[ClientAuthentication(self.auth_method)]
        for name in ("client_secret", "private_key"):
            is_set = getattr(self, name) is not None
            if name == needed and not is_set:
                raise ConfigurationError(f"{name}: is missing; auth_method={method!r} needs it")
            if name != needed and is_set:
                raise ConfigurationError(f"{name}: has no effect with auth_method={method!r}; remove one of them")
        if method == ClientAuthentication.TLS_CLIENT_AUTH:
            self._check_certificate()
        if self.private_key is None:
            if self.certificate is not None:
                raise ConfigurationError("certificate: has no effect without private_key; for TLS, set transport")
            return None
        if self.assertion_audience is None and self.issuer is None:
            raise ConfigurationError(
                "assertion_audience: is missing; set it to the issuer identifier of the authorization server, or use "
                "from_issuer"
            )
        return AssertionKey(
            material=self.private_key,
            algorithm=self.key_algorithm,
            kid=self.key_id,
            certificate=self.certificate,
            setting="private_key",
        )

    def _check_certificate(self) -> None:
        transport = self.transport
        if transport is None or (isinstance(transport, HttpxTransport) and not transport.may_have_certificate):
            raise ConfigurationError(
                "transport: auth_method='tls_client_auth' needs a client certificate; set "
                "transport=HttpxTransport(cert=('client.pem', 'client-key.pem'))"
            )

    def _tolerance(self) -> Tolerance:
        for name in self.token_types:
            if name.lower() in OTHER_TOKEN_TYPES:
                raise ConfigurationError(f"token_types: {name!r} is the name of another type, not of bearer tokens")
        for name in ("token_type_optional", "scope_list", "dpop_optional"):
            flag(getattr(self, name), name)
        accepted = {"bearer", *(name.lower() for name in self.token_types)}
        if self.dpop is not None:
            check_key(self.dpop)
            for name in ("token_types", "token_type_optional"):
                if getattr(self, name) and not self.dpop_optional:
                    raise ConfigurationError(f"{name}: has no effect with dpop, unless dpop_optional is set")
            accepted = {"dpop", *(accepted if self.dpop_optional else ())}
        elif self.dpop_optional:
            raise ConfigurationError("dpop_optional: has no effect without dpop; set dpop=DPoPKey()")
        return Tolerance(
            token_types=frozenset(accepted),
            token_type_optional=self.token_type_optional,
            scope_list=self.scope_list,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePolicy(Policy):
    """The checked settings of one token exchange.

    ``redeem_with``: the client at another authorization server that redeems what the exchange issues.
    """

    retries: int = 1
    grant: Grant = Grant.TOKEN_EXCHANGE
    subject_token_type: str = ACCESS_TOKEN
    requested_token_type: str | None = None
    actor: SupportsToken | Callable[[], str] | None = None
    actor_token_type: str = ACCESS_TOKEN
    issued_token_type_optional: bool = False
    max_entries: int = 1000
    longest_use: float = 300.0
    leeway: float = 10.0

    def __post_init__(self) -> None:
        Policy.__post_init__(self)  # super() fails in a slotted dataclass
        for name in ("subject_token_type", "requested_token_type", "actor_token_type"):
            value = getattr(self, name)
            if value is None and name == "requested_token_type":
                continue
            text(value, name)
            if not _ABSOLUTE_URI.fullmatch(value):
                raise ConfigurationError(f"{name}: {value!r} is not a URI, as in {ACCESS_TOKEN!r} (RFC 8693 section 3)")
        if self.actor is not None and not callable(self.actor) and not callable(getattr(self.actor, "token", None)):
            raise ConfigurationError("actor: must be a ClientCredentials, or a function that returns a token")
        flag(self.issued_token_type_optional, "issued_token_type_optional")
        whole(self.max_entries, "max_entries")
        for name in ("longest_use", "leeway"):
            if number(getattr(self, name), name) < 0:
                raise ConfigurationError(f"{name}: must be at least 0, not {getattr(self, name):g}")
        for name in self.parameters:
            if name in RESERVED_EXCHANGE_PARAMETERS:
                raise ConfigurationError(f"parameters: {name!r} is set by the exchange; two values would be sent")
        if self.grant is Grant.ON_BEHALF_OF:
            for name in ("audience", "resource", "actor", "requested_token_type"):
                if getattr(self, name):
                    raise ConfigurationError(f"{name}: has no effect on this server, which decides by the scopes")


def _configured_origin(url: str, insecure: frozenset[str]) -> str:
    parts = urlsplit(check_url(url, "origins", query=False, insecure=insecure))
    if parts.path not in ("", "/"):
        raise ConfigurationError(f"origins: {url!r} has a path; an origin is a scheme, a host and a port")
    return origin(parts.scheme, parts.hostname or "", parts.port)


def origin(scheme: str, host: str, port: int | None) -> str:
    """Return a normalized origin, with its port. A WebSocket URL has the origin of its handshake, which is HTTP."""
    scheme = {"wss": "https", "ws": "http"}.get(scheme, scheme)
    return f"{scheme}://{join_host_port(host.lower(), port or DEFAULT_PORTS.get(scheme, DEFAULT_PORTS['http']))}"
