"""Exceptions, grouped by cause: the request, the authorization server, or the settings.

    Exception
    +-- AccessDenied            the request is refused: 4xx
    |   +-- MissingCredentials      401, a challenge without an error code
    |   +-- InvalidRequest          400  invalid_request
    |   |   +-- RequestTooLarge     413  invalid_request
    |   |   +-- RequestTimedOut     408  invalid_request
    |   +-- MalformedMessage        400, a message to an MCP server
    |   +-- InvalidToken            401  invalid_token
    |   +-- InvalidApiKey           401, a challenge without an error code
    |   +-- InvalidProof            401  invalid_dpop_proof
    |   |   +-- NonceRequired           401  use_dpop_nonce
    |   +-- InsufficientUserAuthentication    401  insufficient_user_authentication
    |   +-- InsufficientScope       403  insufficient_scope
    |   +-- InsufficientAuthorizationDetails  403  insufficient_scope, without a scope
    |   +-- Forbidden               403, a refusal that no scope would change
    |       +-- PolicyDenied            403, the answer of a function or a policy decision point
    +-- AuthorityUnavailable    the token could not be checked, because the authorization server is unavailable: 503
    |   +-- PolicyUnavailable       the policy decision point is unavailable: 503
    |   +-- ApiKeysUnavailable      the API keys cannot be read: 503
    +-- ResponseAborted         the token ended while the response was being sent: raised to the ASGI server
    +-- ConfigurationError      a setting is missing or wrong: raised at construction

``AccessDenied`` and ``AuthorityUnavailable`` share no base but ``Exception``, so that no ``except`` clause treats an
outage as a denial.

``str()`` of these exceptions is for the operator's log. It names the reason and what was expected, and never contains a
token or a secret. Clients see the ``description`` only.

Longer than 400 lines because all exceptions are here, so that one page describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Final

from scopeguard.log_values import printable
from scopeguard.reasons import Reason
from scopeguard.refusal_texts import (
    AUTHORITY_UNAVAILABLE,
    INVALID_API_KEY,
    INVALID_PROOF,
    INVALID_TOKEN,
    KEY_LACKS_SCOPE,
    REFUSAL_TEXTS,
    SEND_API_KEY,
    is_plain_line,
)

Later = Callable[[], Mapping[str, object]]
"""A function that returns facts. It is called when they are read, because many refusals are never written to a log."""


def _show(facts: Mapping[str, object]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in facts.items():
        if callable(value):
            shown.update({later: printable(fact) for later, fact in value().items()})
        else:
            shown[name] = printable(value)
    return shown


_NO_HINTS: Final[Mapping[str, str]] = MappingProxyType({})


class AccessDenied(Exception):
    """The request is denied: the base class of all denials.

    * ``reason``: the stable code.
    * ``status``: the HTTP status of the response.
    * ``error``: the OAuth error code (RFC 6750 section 3.1), or ``None`` if the challenge has none.
    * ``description``: the constant text for the client.
    * ``detail``: facts for the operator's log, such as the expected issuer; escaped and bounded; they contain no token.
    * ``hints``: texts for the log by reason, or by reason and a value in ``detail`` (``Issuer.hints``).

    A fact of the constructor may be a function without arguments that returns further facts (:data:`Later`).

    An outage of the authorization server is an :class:`AuthorityUnavailable` instead.
    """

    status: ClassVar[int] = 403
    error: ClassVar[str | None] = None

    def __init__(self, reason: Reason, /, **detail: object) -> None:
        self.reason = reason
        # The scheme of the credentials, which decides the challenge that names the error (RFC 9449 section 7.2).
        self.is_dpop: bool = False
        self.is_api_key: bool = False  # the credential was an API key
        # The field for API keys if the route accepts keys only, for the challenge.
        self.api_key_header: str | None = None
        self.hints: Mapping[str, str] = _NO_HINTS
        self._facts: dict[str, object] = detail
        super().__init__(reason)

    def note(self, **facts: object) -> None:
        """Add *facts* to ``detail``, or replace them."""
        self._facts.update(facts)

    def take_facts(self, other: AccessDenied | AuthorityUnavailable) -> None:
        """Add the facts of *other*, which has led to this error."""
        self._facts.update(other._facts)

    @property
    def detail(self) -> dict[str, str]:
        """Facts for the operator's log, by name. The dictionary is a new one at each call."""
        shown = _show(self._facts)
        if self.hints:
            keys = (*(f"{self.reason.value}:{value}" for value in shown.values()), self.reason.value)
            shown.update(next(({"hint": self.hints[key]} for key in keys if key in self.hints), {}))
        return shown

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self.detail.items())
        return f"{self.reason.value} ({facts})" if facts else self.reason.value

    @property
    def description(self) -> str:
        """The text for the client, a constant for each reason (``error_description`` of RFC 6750 section 3)."""
        return self.text_for(self.reason)

    @classmethod
    def text_for(cls, reason: Reason) -> str:
        """Return the text that clients see for *reason*."""
        return REFUSAL_TEXTS.get(reason, INVALID_TOKEN)


class MissingCredentials(AccessDenied):
    """The request has no access token, or credentials of another scheme only: 401.

    The challenge has no error code. RFC 6750 section 3.1: "If the request lacks any authentication information (e.g.,
    the client was unaware that authentication is necessary or attempted using an unsupported authentication method),
    the resource server SHOULD NOT include an error code or other error information."
    """

    status: ClassVar[int] = 401

    @property
    def description(self) -> str:
        """The text for the client."""
        return super().description if self.api_key_header is None else SEND_API_KEY


class InvalidRequest(AccessDenied):
    """The request is malformed: 400. It has more than one token, a token of the wrong form, or a repeated parameter.

    RFC 6750 section 3.1: "The resource server SHOULD respond with the HTTP 400 (Bad Request) status code."
    """

    status: ClassVar[int] = 400
    error: ClassVar[str | None] = "invalid_request"


class RequestTooLarge(InvalidRequest):
    """A body that has to be read, such as a form that may contain a token, exceeds the size limit: 413."""

    status: ClassVar[int] = 413


class RequestTimedOut(InvalidRequest):
    """A body that has to be read, such as a form that may contain a token, did not arrive in time: 408."""

    status: ClassVar[int] = 408


class MalformedMessage(AccessDenied):
    """The body of an MCP request is not one unambiguous JSON-RPC message, or differs from the header fields: 400.

    There is no challenge, because another token would not help. ``message_id`` is the ``id`` of the message, if known.
    """

    status: ClassVar[int] = 400

    def __init__(self, reason: Reason, /, *, message_id: str | int | None = None, **detail: object) -> None:
        super().__init__(reason, **detail)
        self.message_id = message_id


class InvalidToken(AccessDenied):
    """The token is not valid for this API: 401.

    ``reason`` says which check failed. The client learns only whether the token has expired.

    RFC 6750 section 3.1: "The access token provided is expired, revoked, malformed, or invalid for other reasons."
    """

    status: ClassVar[int] = 401
    error: ClassVar[str | None] = "invalid_token"


class InvalidApiKey(AccessDenied):
    """The API key is malformed, unknown, expired or revoked: 401. The client does not learn which.

    The error codes of RFC 6750 are about access tokens, so the challenge has none.
    """

    status: ClassVar[int] = 401

    @classmethod
    def text_for(cls, reason: Reason) -> str:
        """Return the text that clients see, the same for each *reason*."""
        del reason
        return INVALID_API_KEY


class InvalidProof(AccessDenied):
    """The DPoP proof is missing, malformed, expired or used, or is for another request (RFC 9449 section 7.1)."""

    status: ClassVar[int] = 401
    error: ClassVar[str | None] = "invalid_dpop_proof"

    @classmethod
    def text_for(cls, reason: Reason) -> str:
        """Return the text that clients see for *reason*."""
        return REFUSAL_TEXTS.get(reason, INVALID_PROOF)


class NonceRequired(InvalidProof):
    """The proof has no nonce of this API, or one that has expired (RFC 9449 §9). The response carries a new one.

    A wrong nonce and a missing one get the same response.
    """

    error: ClassVar[str | None] = "use_dpop_nonce"

    def __init__(self, reason: Reason, /, *, nonce: str | None = None, **detail: object) -> None:
        super().__init__(reason, **detail)
        self.nonce = nonce


class InsufficientScope(AccessDenied):
    """The token is valid but lacks a scope that the route requires: 403.

    ``scopes`` are all scopes of the operation, not only the missing ones. The challenge names them. RFC 6750
    section 3.1: the response "MAY include the "scope" attribute with the scope necessary to access the protected
    resource".
    """

    status: ClassVar[int] = 403
    error: ClassVar[str | None] = "insufficient_scope"

    def __init__(self, scopes: tuple[str, ...], /, **detail: object) -> None:
        super().__init__(Reason.INSUFFICIENT_SCOPE, needed=" ".join(scopes), **detail)
        self.scopes = scopes

    @property
    def description(self) -> str:
        """The text for the client."""
        return KEY_LACKS_SCOPE if self.is_api_key else super().description


class InsufficientUserAuthentication(AccessDenied):
    """The token is valid, but the user did not sign in strongly or recently enough for the route: 401.

    RFC 9470 section 3. The challenge names what the route requires:

    * ``acr_values``: authentication context class references, of which one suffices; empty if any does.
    * ``max_age``: the greatest number of seconds since the user signed in; ``None`` for no limit.
    * ``scopes``: the scopes of the operation if the token lacks one of them as well, so that the client needs only
      one new token; otherwise empty.
    """

    status: ClassVar[int] = 401
    error: ClassVar[str | None] = "insufficient_user_authentication"

    def __init__(
        self,
        *,
        acr_values: tuple[str, ...] = (),
        max_age: int | None = None,
        scopes: tuple[str, ...] = (),
        **detail: object,
    ) -> None:
        needed = {"acr_values": " ".join(acr_values)} if acr_values else {}
        limits = {} if max_age is None else {"max_age": max_age}
        super().__init__(Reason.INSUFFICIENT_USER_AUTHENTICATION, **needed, **limits, **detail)
        self.acr_values = acr_values
        self.max_age = max_age
        self.scopes = scopes


class InsufficientAuthorizationDetails(AccessDenied):
    """The token is valid, but has no authorization detail that allows the operation (RFC 9396): 403.

    RFC 9396 defines no error code for this. The challenge has ``insufficient_scope`` without a ``scope``, because no
    scope would help.
    """

    status: ClassVar[int] = 403
    error: ClassVar[str | None] = "insufficient_scope"

    def __init__(self, **detail: object) -> None:
        super().__init__(Reason.INSUFFICIENT_AUTHORIZATION_DETAILS, **detail)


class Forbidden(AccessDenied):
    """The request is denied with every token: 403 without a challenge, because no scope would help."""


class PolicyDenied(Forbidden):
    """The decision about the request, by a function or a policy decision point, is "no": 403 without a challenge.

    *text* is for the client, as in ``PolicyDenied("Your plan includes ten tables")``. It is sent if it is one line of
    at most 300 printable characters without ``<`` and ``>``. Otherwise, and without *text*, the response has a constant
    text. *detail*: facts for the operator's log.
    """

    def __init__(self, text: str | None = None, /, **detail: object) -> None:
        super().__init__(Reason.POLICY_DENIED, **detail)
        self.text: str | None = text if is_plain_line(text) else None

    @property
    def description(self) -> str:
        """The text for the client."""
        return super().description if self.text is None else self.text


class Blame(StrEnum):
    """The probable cause of an outage. It determines which outbound requests pause for a while."""

    AUTHORITY = "authority"
    TOKEN = "token"  # perhaps this token only: requests about other tokens may succeed
    KEYS = "keys"  # the keys that verify the response: their retries have a pause of their own


class AuthorityUnavailable(Exception):
    """The token could not be checked, because the authorization server is unavailable: 503, never 401.

    A 401 would make clients discard good tokens. This is not an :class:`AccessDenied`, so that handlers of denials do
    not catch it.

    * ``reason``: the stable code.
    * ``authority``: the issuer, as configured.
    * ``retry_after``: seconds until the next attempt makes sense, ``None`` if unknown.
    * ``sent``: whether the outbound request was sent before the exchange failed, ``None`` if unknown. A transport sets
      it: if the request was not sent, the token in it cannot have caused the failure.
    * ``blame``: the probable cause, set where introspection fails.
    * ``detail``: facts for the operator's log, escaped; they contain no token.
    """

    status: ClassVar[int] = 503

    def __init__(
        self, reason: Reason, /, authority: str, *, retry_after: float | None = None, **detail: object
    ) -> None:
        self.reason = reason
        self.authority = authority
        self.retry_after = retry_after
        self.sent: bool | None = None
        self.blame: Blame = Blame.AUTHORITY
        self._facts: dict[str, object] = detail
        super().__init__(reason, authority)

    def note(self, **facts: object) -> None:
        """Add *facts* to ``detail``, or replace them."""
        self._facts.update(facts)

    def take_facts(self, other: AccessDenied | AuthorityUnavailable) -> None:
        """Add the facts of *other*, which has led to this error."""
        self._facts.update(other._facts)

    @property
    def detail(self) -> dict[str, str]:
        """Facts for the operator's log, by name. The dictionary is a new one at each call."""
        return _show(self._facts)

    @property
    def description(self) -> str:
        """The text for the client, a constant for each reason."""
        return self.text_for(self.reason)

    @classmethod
    def text_for(cls, reason: Reason) -> str:
        """Return the text that clients see for *reason*."""
        return REFUSAL_TEXTS.get(reason, AUTHORITY_UNAVAILABLE)

    def __str__(self) -> str:
        facts = "".join(f", {name}={value}" for name, value in self.detail.items())
        return f"{self.reason.value} (authority={printable(self.authority)}{facts})"


class PolicyUnavailable(AuthorityUnavailable):
    """The policy decision point gave no usable answer: 503, neither "denied" nor "allowed".

    ``authority`` is its URL. *cause*, also in ``detail``, is the code of the failure. A function that decides may raise
    this as well.
    """

    def __init__(
        self, authority: str, /, *, cause: Reason | None = None, retry_after: float | None = None, **detail: object
    ) -> None:
        causes = {} if cause is None else {"cause": cause.value}
        super().__init__(Reason.POLICY_UNAVAILABLE, authority, retry_after=retry_after, **causes, **detail)


class ApiKeysUnavailable(AuthorityUnavailable):
    """The file with the API keys cannot be used, or the function that looks keys up has failed: 503, never 401."""

    def __init__(self, authority: str, /, *, retry_after: float | None = None, **detail: object) -> None:
        super().__init__(Reason.API_KEYS_UNAVAILABLE, authority, retry_after=retry_after, **detail)


class ResponseAborted(Exception):
    """The access token expired or was revoked while the response was being sent (``close_streams``).

    ASGI middleware raises this to the server after it has stopped the app. The server logs it, and closes the
    connection without completing the message, so that the client sees that the response is incomplete. It is not an
    error of the app: configure error trackers to ignore it.
    """


class ConfigurationError(Exception):
    """A setting is missing, contradictory or unsafe. The message names the setting and says how to correct it.

    Raised when an object is constructed, or when an app is used without the guard that it needs. The content of a
    request never causes it. The message contains no secret.
    """
