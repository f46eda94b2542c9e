"""The texts that clients read in a refusal: constants that never show a value of the request or a setting.

They are the ``error_description`` of a challenge and the ``detail`` of a body. Only a policy decision may replace one
with a text of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scopeguard.reasons import Reason

# RFC 6750 section 3: values of "error_description" "MUST NOT include characters outside the set
# %x20-21 / %x23-5B / %x5D-7E": printable ASCII without quotes and backslashes.
INVALID_TOKEN: Final = "The access token is not valid for this API"
"""The text for each reason of an invalid token that has no text of its own."""

INVALID_PROOF: Final = "The DPoP proof is not valid for this request"
"""The text for each reason of an invalid proof that has no text of its own."""

AUTHORITY_UNAVAILABLE: Final = (
    "The access token could not be checked because the authorization server did not answer; try again"
)
"""The text for each outage that has no text of its own."""

INVALID_API_KEY: Final = "The API key is not valid for this API"
"""The text for every reason of an invalid API key."""

SEND_API_KEY: Final = "Send an API key in the request header that the challenge names"
"""The text for a request without credentials, if its route accepts API keys only."""

KEY_LACKS_SCOPE: Final = "The API key lacks a scope that this operation needs"

REFUSAL_TEXTS: Final[Mapping[Reason, str]] = {
    Reason.POLICY_UNAVAILABLE: (
        "The request could not be decided because the policy decision point did not answer; try again"
    ),
    Reason.API_KEYS_UNAVAILABLE: "The API key could not be checked because the list of keys is unavailable; try again",
    # These are outages of the API. The authorization server has no part in them.
    Reason.STORE_UNAVAILABLE: "The request could not be checked because of an outage in this API; try again",
    Reason.SIGNATURE_BACKEND_FAILED: "The request could not be checked because of an outage in this API; try again",
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
    Reason.TOKEN_AND_API_KEY: "Send an access token or an API key, not both",
    Reason.REPEATED_API_KEY: "Send the header with the API key once",
    Reason.API_KEY_REFUSED: "API keys are not accepted for this operation; send an access token",
    Reason.API_KEY_AS_TOKEN: "This is an API key and not an access token; send it in the header for API keys",
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


def is_plain_line(text: object) -> bool:
    """Return whether *text* is one line of printable characters that no client takes for markup.

    Control characters and marks that change the direction of text are not printable.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _MOST_CHARACTERS:
        return False
    return text.isprintable() and "<" not in text and ">" not in text
