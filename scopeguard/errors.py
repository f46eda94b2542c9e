"""Exceptions and reason codes, grouped by cause: the request, the authorization server, or the settings.

    Exception
    +-- AccessDenied            the request is refused: 4xx
    |   +-- MissingCredentials      401, a challenge without an error code
    |   +-- InvalidRequest          400  invalid_request
    |   |   +-- RequestTooLarge     413  invalid_request
    |   |   +-- RequestTimedOut     408  invalid_request
    |   +-- InvalidToken            401  invalid_token
    |   +-- InvalidProof            401  invalid_dpop_proof
    |   |   +-- NonceRequired           401  use_dpop_nonce
    |   +-- InsufficientUserAuthentication    401  insufficient_user_authentication
    |   +-- InsufficientScope       403  insufficient_scope
    |   +-- InsufficientAuthorizationDetails  403  insufficient_scope, without a scope
    |   +-- Forbidden               403, a refusal that no scope would change
    |       +-- PolicyDenied            403, the answer of a function or a policy decision point
    +-- AuthorityUnavailable    the token could not be checked, because the authorization server is unavailable: 503
    |   +-- PolicyUnavailable       the policy decision point is unavailable: 503
    +-- ResponseAborted         the token ended while the response was being sent: raised to the ASGI server
    +-- ConfigurationError      a setting is missing or wrong: raised at construction

``AccessDenied`` and ``AuthorityUnavailable`` share no base but ``Exception``, so that no ``except`` clause treats an
outage as a denial.

``str()`` of these exceptions is for the operator's log. It names the reason and what was expected, and never contains a
token or a secret. Clients see the ``description`` only.

Longer than 400 lines because all exceptions and reason codes are here, so that one page describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Final


class Reason(StrEnum):
    """The reasons for denying a request or leaving it undecided: stable codes for logs, metrics and tests.

    Clients never see the code. They see :attr:`AccessDenied.description`, which is a constant for each code::

        except AccessDenied as error:
            metrics.count("denied", reason=error.reason)
    """

    # the request (RFC 6750 section 2)
    NO_CREDENTIALS = "no_credentials"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    MALFORMED_CREDENTIALS = "malformed_credentials"
    EMPTY_CREDENTIALS = "empty_credentials"
    REPEATED_AUTHORIZATION = "repeated_authorization"
    SEVERAL_METHODS = "several_methods"
    REPEATED_PARAMETER = "repeated_parameter"
    TOO_MANY_PARAMETERS = "too_many_parameters"
    NON_ASCII_FORM = "non_ascii_form"
    FORM_TOO_LARGE = "form_too_large"
    FORM_INCOMPLETE = "form_incomplete"
    FORM_TOO_SLOW = "form_too_slow"
    BODY_TOO_LARGE = "body_too_large"
    BODY_INCOMPLETE = "body_incomplete"
    BODY_TOO_SLOW = "body_too_slow"
    TOKEN_TOO_LARGE = "token_too_large"
    QUERY_TOKEN_REFUSED = "query_token_refused"
    HTTPS_REQUIRED = "https_required"
    # the message of an MCP client
    ORIGIN_REFUSED = "origin_refused"
    HEADER_MISMATCH = "header_mismatch"
    MALFORMED_MESSAGE = "malformed_message"
    INVALID_MESSAGE = "invalid_message"
    # the token's form (RFC 7515, RFC 7519, RFC 8725)
    MALFORMED_TOKEN = "malformed_token"
    ENCRYPTED_TOKEN = "encrypted_token"
    NESTED_TOKEN = "nested_token"
    CRITICAL_HEADER = "critical_header"
    UNENCODED_PAYLOAD = "unencoded_payload"
    ALGORITHM_REFUSED = "algorithm_refused"
    TYPE_REFUSED = "type_refused"
    HEADER_REFUSED = "header_refused"
    # the token's issuer, key and signature
    UNKNOWN_ISSUER = "unknown_issuer"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    # the token's claims (RFC 7519 section 4.1, RFC 9068 section 4)
    MISSING_CLAIM = "missing_claim"
    MALFORMED_CLAIM = "malformed_claim"
    FORBIDDEN_CLAIM = "forbidden_claim"
    UNEXPECTED_CLAIM = "unexpected_claim"
    REPLICATED_CLAIM = "replicated_claim"
    NOT_AN_ACCESS_TOKEN = "not_an_access_token"
    WRONG_AUDIENCE = "wrong_audience"
    SEVERAL_AUDIENCES = "several_audiences"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    TOKEN_ISSUED_IN_FUTURE = "token_issued_in_future"
    TOKEN_LIFETIME_TOO_LONG = "token_lifetime_too_long"
    MALFORMED_SCOPE = "malformed_scope"
    SENDER_CONSTRAINT_UNPROVEN = "sender_constraint_unproven"
    SENDER_CONSTRAINT_MISSING = "sender_constraint_missing"
    # its proof of possession (RFC 9449)
    PROOF_MISSING = "proof_missing"
    PROOF_REPEATED = "proof_repeated"
    PROOF_TOO_LARGE = "proof_too_large"
    PROOF_MALFORMED = "proof_malformed"
    PROOF_KEY = "proof_key"
    PROOF_SIGNATURE = "proof_signature"
    PROOF_MISMATCH = "proof_mismatch"
    PROOF_EXPIRED = "proof_expired"
    PROOF_USED = "proof_used"
    PROOF_NONCE = "proof_nonce"
    WRONG_PROOF_KEY = "wrong_proof_key"
    WRONG_CERTIFICATE = "wrong_certificate"
    PROOF_MEMORY_FULL = "proof_memory_full"
    # revocation and introspection (RFC 7662)
    TOKEN_NOT_ACTIVE = "token_not_active"
    TOKEN_REVOKED = "token_revoked"
    # the route
    INSUFFICIENT_USER_AUTHENTICATION = "insufficient_user_authentication"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    INSUFFICIENT_AUTHORIZATION_DETAILS = "insufficient_authorization_details"
    USER_REQUIRED = "user_required"
    MACHINE_REQUIRED = "machine_required"
    ACTOR_REFUSED = "actor_refused"
    NO_RULE = "no_rule"
    RULE_FAILED = "rule_failed"
    POLICY_DENIED = "policy_denied"
    # a new token for a connection in progress
    RENEWAL_MISMATCH = "renewal_mismatch"
    TOO_MANY_RENEWALS = "too_many_renewals"
    # outages, which say nothing about the token
    AUTHORITY_UNREACHABLE = "authority_unreachable"
    AUTHORITY_ANSWER_INVALID = "authority_answer_invalid"
    AUTHORITY_BACKING_OFF = "authority_backing_off"
    AUTHORITY_TIMED_OUT = "authority_timed_out"
    TOO_MANY_WAITING = "too_many_waiting"
    CALLER_LEFT = "caller_left"
    SHUTTING_DOWN = "shutting_down"
    STORE_UNAVAILABLE = "store_unavailable"
    SIGNATURE_BACKEND_FAILED = "signature_backend_failed"
    POLICY_UNAVAILABLE = "policy_unavailable"


# RFC 6750 section 3: values of "error_description" "MUST NOT include characters outside the set
# %x20-21 / %x23-5B / %x5D-7E": printable ASCII without quotes and backslashes.
_INVALID_TOKEN: Final = "The access token is not valid for this API"
_CLIENT_TEXTS: Final[Mapping[Reason, str]] = {
    Reason.NO_CREDENTIALS: "Send an access token in the request header: Authorization: Bearer",
    Reason.UNSUPPORTED_SCHEME: "Send an access token in the request header: Authorization: Bearer",
    Reason.MALFORMED_CREDENTIALS: "The access token is malformed: send one scheme, a space and one token",
    Reason.EMPTY_CREDENTIALS: "The access token in the request is empty",
    Reason.REPEATED_AUTHORIZATION: "Send the Authorization header once",
    Reason.SEVERAL_METHODS: "Send the access token by one method only",
    Reason.REPEATED_PARAMETER: "Send the access_token parameter once",
    Reason.TOO_MANY_PARAMETERS: "The request has too many parameters",
    Reason.NON_ASCII_FORM: "A form with an access token must contain ASCII characters only",
    Reason.FORM_TOO_LARGE: "The form is too large to contain an access token; use the Authorization header",
    Reason.FORM_INCOMPLETE: "The form ended before it was complete",
    Reason.FORM_TOO_SLOW: "The form did not arrive in time",
    Reason.BODY_TOO_LARGE: "The body of the request is too large",
    Reason.BODY_INCOMPLETE: "The body ended before it was complete",
    Reason.BODY_TOO_SLOW: "The body did not arrive in time",
    Reason.ORIGIN_REFUSED: "Requests from this origin are not allowed",
    Reason.HEADER_MISMATCH: "The Mcp-Method and Mcp-Name headers must be present once and agree with the body",
    Reason.MALFORMED_MESSAGE: "The body must be one JSON object in UTF-8, without repeated members",
    Reason.INVALID_MESSAGE: "The body must be one JSON-RPC message",
    Reason.TOKEN_TOO_LARGE: "The access token is too large",
    Reason.QUERY_TOKEN_REFUSED: "Access tokens are not accepted in the query string; use the Authorization header",
    Reason.HTTPS_REQUIRED: "Access tokens are accepted over https only",
    Reason.PROOF_NONCE: "The DPoP proof needs the nonce in the DPoP-Nonce header",
    Reason.PROOF_MISSING: "Send a DPoP proof with the access token",
    # The only text that says which check of a token failed: an example in RFC 6750 section 3 has this sentence.
    Reason.TOKEN_EXPIRED: "The access token expired",
    Reason.INSUFFICIENT_USER_AUTHENTICATION: "This operation needs a stronger or more recent sign-in of the user",
    Reason.INSUFFICIENT_SCOPE: "The access token lacks a scope that this operation needs",
    Reason.INSUFFICIENT_AUTHORIZATION_DETAILS: "The access token lacks an authorization detail for this operation",
    Reason.USER_REQUIRED: "This operation is for users, and the access token was issued to a client for itself",
    Reason.MACHINE_REQUIRED: "This operation is for clients that act for themselves, not for users",
    Reason.ACTOR_REFUSED: "The party that acts for the subject of the access token may not use this operation",
    Reason.NO_RULE: "No rule allows this operation",
    Reason.RULE_FAILED: "The request does not have the form that the rule for this operation expects",
    Reason.POLICY_DENIED: "The policy of this API does not allow this operation",
    Reason.RENEWAL_MISMATCH: "The new access token is not for the user and client of this connection",
    Reason.TOO_MANY_RENEWALS: "Too many renewals on this connection; try again later",
}
_MOST_CHARACTERS: Final = 300  # in a text for the client that a policy decision point wrote


def printable(value: object, limit: int = 200) -> str:
    """Return *value* as one line of printable ASCII, cut after *limit* characters.

    Values from tokens may contain control characters, which could forge log lines.
    """
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return text if len(text) <= limit else text[:limit] + "..."


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
    * ``detail``: facts for the operator's log, such as the expected issuer; escaped and bounded, and never a token.
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
        return _CLIENT_TEXTS.get(reason, _INVALID_TOKEN)


class MissingCredentials(AccessDenied):
    """The request has no access token, or credentials of another scheme only: 401.

    The challenge has no error code. RFC 6750 section 3.1: "If the request lacks any authentication information (e.g.,
    the client was unaware that authentication is necessary or attempted using an unsupported authentication method),
    the resource server SHOULD NOT include an error code or other error information."
    """

    status: ClassVar[int] = 401


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


class InvalidProof(AccessDenied):
    """The DPoP proof is missing, malformed, expired or used, or is for another request (RFC 9449 section 7.1)."""

    status: ClassVar[int] = 401
    error: ClassVar[str | None] = "invalid_dpop_proof"

    @classmethod
    def text_for(cls, reason: Reason) -> str:
        """Return the text that clients see for *reason*."""
        return _CLIENT_TEXTS.get(reason, "The DPoP proof is not valid for this request")


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


class InsufficientUserAuthentication(AccessDenied):
    """The token is valid, but the user did not sign in strongly or recently enough for the route: 401.

    RFC 9470 section 3. The challenge names what the route requires:

    * ``acr_values``: authentication context class references, of which one suffices; empty if any does.
    * ``max_age``: the greatest number of seconds since the user signed in; ``None`` for no limit.
    * ``scopes``: the scopes of the operation if the token lacks one of them as well, so that the client needs one new
      token only; otherwise empty.
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


def is_plain_line(text: object) -> bool:
    """Return whether *text* is one line of printable characters that no client takes for markup.

    Control characters and marks that change the direction of text are not printable.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _MOST_CHARACTERS:
        return False
    return text.isprintable() and "<" not in text and ">" not in text


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
    * ``detail``: facts for the operator's log; escaped, and never a token.
    """

    status: ClassVar[int] = 503
    description: ClassVar[str] = (
        "The access token could not be checked because the authorization server did not answer; try again"
    )

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

    @classmethod
    def text_for(cls, reason: Reason) -> str:
        """Return the text that clients see, the same for each *reason*."""
        del reason
        return cls.description

    def __str__(self) -> str:
        facts = "".join(f", {name}={value}" for name, value in self.detail.items())
        return f"{self.reason.value} (authority={printable(self.authority)}{facts})"


class PolicyUnavailable(AuthorityUnavailable):
    """The policy decision point gave no usable answer: 503, neither "denied" nor "allowed".

    ``authority`` is its URL. *cause*, also in ``detail``, is the code of the failure. A function that decides may raise
    this as well.
    """

    description: ClassVar[str] = (
        "The request could not be decided because the policy decision point did not answer; try again"
    )

    def __init__(
        self, authority: str, /, *, cause: Reason | None = None, retry_after: float | None = None, **detail: object
    ) -> None:
        causes = {} if cause is None else {"cause": cause.value}
        super().__init__(Reason.POLICY_UNAVAILABLE, authority, retry_after=retry_after, **causes, **detail)


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
