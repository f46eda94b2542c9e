"""Reason codes: why a request is denied or left undecided.

What each code means for an operator is in :mod:`scopeguard.core.causes_and_fixes`, what clients read about it in
:mod:`scopeguard.refusal_texts`. The exceptions that carry a code are in :mod:`scopeguard.errors`.
"""

from __future__ import annotations

from enum import StrEnum


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
    # an API key
    TOKEN_AND_API_KEY = "token_and_api_key"
    REPEATED_API_KEY = "repeated_api_key"
    API_KEY_REFUSED = "api_key_refused"
    API_KEY_AS_TOKEN = "api_key_as_token"
    API_KEY_MALFORMED = "api_key_malformed"
    API_KEY_UNKNOWN = "api_key_unknown"
    API_KEY_MISMATCH = "api_key_mismatch"
    API_KEY_REVOKED = "api_key_revoked"
    API_KEY_EXPIRED = "api_key_expired"
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
    API_KEYS_UNAVAILABLE = "api_keys_unavailable"
