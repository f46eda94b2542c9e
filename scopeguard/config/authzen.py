"""Settings of a policy decision point (AuthZEN Authorization API 1.0): its URL, and the evaluation requests to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from scopeguard.config.answer_limits import DECISION_TIMEOUT
from scopeguard.config.checks import Converted, converted, flag, function, member, number, positive, text, whole
from scopeguard.config.hosts import insecure_hosts
from scopeguard.config.urls import check_url
from scopeguard.errors import ConfigurationError
from scopeguard.request import PolicyRequest
from scopeguard.tokens import AccessToken

Part: TypeAlias = Callable[[AccessToken, PolicyRequest], Mapping[str, Any]]
"""A function that returns a member of the evaluation request: ``subject``, ``action``, ``resource`` or ``context``."""

_PARTS = ("subject", "action", "resource", "context", "evaluations")


class Semantics(StrEnum):
    """How several evaluations become one decision (section 7.1.2.1 of the specification)."""

    EXECUTE_ALL = "execute_all"  # all are evaluated, and all must be permitted
    DENY_ON_FIRST_DENY = "deny_on_first_deny"  # all must be permitted; the first denial ends the evaluation
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"  # one permit suffices, and ends the evaluation


class TokenClient(Protocol):
    """An OAuth client that caches and renews its access token, as :class:`scopeguard.client.ClientCredentials` does."""

    def token(self) -> Any:
        """Return the current token, which has its text in ``access_token``, and fetch one if there is none."""
        ...

    def refuse(self, token: Any, /) -> bool:
        """Record that a server refused *token*. Return whether :meth:`token` may return a newer one."""
        ...


@dataclass(frozen=True, slots=True)
class AuthZen:
    """A policy decision point that decides about requests: ``Rule("/x", decide=AuthZen("https://pdp.example.com"))``.

    For each request whose token satisfies the rule, one evaluation request (``POST /access/v1/evaluation``) is sent
    with these members, unless a function replaces one of them:

    * ``subject``: *subject_type*; the ``sub`` of the token, or its ``client_id``; the issuer, the client and the
      granted scopes as properties.
    * ``action``: the HTTP method.
    * ``resource``: *resource_type*, and the path template of the rule as ``id``.
    * ``context``: ``path`` and ``method`` of the request.

    The settings:

    * *url*: the URL of the policy decision point. https, or http on loopback or at a host in
      *insecure_http_dangerously*.
    * *subject*, *action*, *resource*, *context*: functions that take the :class:`AccessToken` and the
      :class:`PolicyRequest`, and return that part as a mapping that replaces the default. They must return quickly.
    * *evaluations*: a function with the same arguments that returns a list of mappings. They are sent in one request
      (``POST /access/v1/evaluations``). Each may replace any of the four parts for one evaluation. *semantics*: a
      :class:`Semantics` or its value.
    * *authentication*: how this API authenticates: a bearer token, a function that returns one, or a
      :class:`scopeguard.client.ClientCredentials`. The function may block and may be ``async``; it is called when there
      is no token yet, and once more after a 401, but at most once in five seconds. A ``ClientCredentials`` has limits
      of its own.
    * *discover*: read the endpoint from ``/.well-known/authzen-configuration``, whose ``policy_decision_point`` must
      equal *url* exactly.
    * *step_up*: answer a denial with ``acr_values`` or ``max_age`` in its context with 401 and the challenge of
      RFC 9470. Otherwise it is a 403 like other denials.
    * *strict_context*: do not use a permit whose context has members other than ``reason_admin`` and ``reason_user``:
      the answer is then 503.
    * *ttl*: seconds for which a decision is reused for an equal evaluation request, but never beyond the expiry of the
      token that it was made for. 0 sends one for every request. *max_entries*: the number of decisions that are kept.
    * *timeout*: seconds for one exchange. *retries*: further attempts after a failed connection or a 502, 503 or 504.

    Only ``true`` as ``decision`` permits. Everything but a decision (another status, a timeout, a redirect, an answer
    that is not JSON or has a member twice) is an outage: 503 with ``Retry-After``. ``reason_user`` of a denial is sent
    to the client if it is plain text, ``reason_admin`` is logged only.

    Not checked: whether a decision is right. Use the same object in all rules for one policy decision point: each
    object has its own state. Raises :class:`ConfigurationError` for a wrong setting.
    """

    url: str
    _: KW_ONLY
    subject: Part | None = None
    action: Part | None = None
    resource: Part | None = None
    context: Part | None = None
    evaluations: Callable[[AccessToken, PolicyRequest], Iterable[Mapping[str, Any]]] | None = None
    semantics: Converted[str, Semantics] = converted(Semantics.DENY_ON_FIRST_DENY)
    subject_type: str = "user"
    resource_type: str = "route"
    authentication: str | Callable[[], str | Awaitable[str]] | TokenClient | None = field(default=None, repr=False)
    discover: bool = False
    step_up: bool = True
    strict_context: bool = False
    ttl: float = 0.0
    max_entries: int = 10_000
    timeout: float = DECISION_TIMEOUT
    retries: int = 1
    insecure_http_dangerously: Converted[Iterable[str], frozenset[str]] = converted(frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "insecure_http_dangerously", insecure_hosts(self.insecure_http_dangerously))
        check_url(self.url, "authzen.url", query=False, insecure=self.insecure_http_dangerously)
        for name in _PARTS:
            if getattr(self, name) is not None:
                function(getattr(self, name), f"authzen.{name}", "a function that takes an AccessToken and a request")
        object.__setattr__(self, "semantics", member(Semantics, self.semantics, "authzen.semantics"))
        for name in ("subject_type", "resource_type"):
            text(getattr(self, name), f"authzen.{name}", empty=False)
        self._check_authentication()
        for name in ("discover", "step_up", "strict_context"):
            flag(getattr(self, name), f"authzen.{name}")
        if number(self.ttl, "authzen.ttl") < 0:
            raise ConfigurationError(f"authzen.ttl: must be at least 0 seconds, not {self.ttl}")
        positive(self.timeout, "authzen.timeout")
        whole(self.max_entries, "authzen.max_entries")
        whole(self.retries, "authzen.retries", least=0)

    def _check_authentication(self) -> None:
        given = self.authentication
        if isinstance(given, str):
            text(given, "authzen.authentication", empty=False)
        elif given is not None and not callable(given) and not _is_client(given):
            raise ConfigurationError(
                "authzen.authentication: must be a bearer token, a function that returns one, or a ClientCredentials, "
                f"not {type(given).__name__}"
            )


def _is_client(given: object) -> bool:
    return all(callable(getattr(given, name, None)) for name in ("token", "refuse"))
