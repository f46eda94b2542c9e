"""The table of all checks, in the order of the engine, and the reasons for a refusal that belong to each.

The table contains no rule of acceptance: the functions that the engine calls are in
:mod:`scopeguard.explanation.probes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scopeguard.reasons import Reason


@dataclass(frozen=True, slots=True)
class CheckKind:
    """One kind of check.

    * ``reasons``: the reasons that belong to it. Each reason belongs to one check.
    * ``shared``: reasons that belong to another check, but that this one may give as well. A claim may be missing in
      several checks, for example.
    """

    name: str
    title: str
    reference: str
    reasons: frozenset[Reason] = frozenset()
    shared: frozenset[Reason] = frozenset()


def _kind(
    name: str, title: str, reference: str, reasons: tuple[Reason, ...] = (), shared: tuple[Reason, ...] = ()
) -> CheckKind:
    return CheckKind(name, title, reference, frozenset(reasons), frozenset(shared))


_R: Final = Reason
_CLAIM: Final = (_R.MISSING_CLAIM, _R.MALFORMED_CLAIM)
OUTAGES: Final = (
    _R.AUTHORITY_UNREACHABLE, _R.AUTHORITY_ANSWER_INVALID, _R.AUTHORITY_BACKING_OFF, _R.AUTHORITY_TIMED_OUT,
    _R.TOO_MANY_WAITING, _R.CALLER_LEFT, _R.SHUTTING_DOWN,
)  # fmt: skip
"""The outages that may occur in every exchange with the authorization server."""

# fmt: off
CHECKS: Final = (
    _kind("message", "MCP message", "", (
        _R.ORIGIN_REFUSED, _R.HEADER_MISMATCH, _R.MALFORMED_MESSAGE, _R.INVALID_MESSAGE, _R.BODY_TOO_LARGE,
        _R.BODY_INCOMPLETE, _R.BODY_TOO_SLOW, _R.RULE_FAILED,
    )),
    _kind("credentials", "Credentials", "RFC 6750 section 2", (
        _R.NO_CREDENTIALS, _R.UNSUPPORTED_SCHEME, _R.MALFORMED_CREDENTIALS, _R.EMPTY_CREDENTIALS,
        _R.REPEATED_AUTHORIZATION, _R.SEVERAL_METHODS, _R.REPEATED_PARAMETER, _R.TOO_MANY_PARAMETERS,
        _R.NON_ASCII_FORM, _R.FORM_TOO_LARGE, _R.FORM_INCOMPLETE, _R.FORM_TOO_SLOW, _R.TOKEN_TOO_LARGE,
        _R.QUERY_TOKEN_REFUSED, _R.TOKEN_AND_API_KEY, _R.REPEATED_API_KEY, _R.API_KEY_REFUSED, _R.API_KEY_AS_TOKEN,
    )),
    _kind("encryption", "Encrypted connection", "RFC 6750 section 5.3", (_R.HTTPS_REQUIRED,)),
    _kind("api_key", "API key", "", (
        _R.API_KEY_MALFORMED, _R.API_KEY_UNKNOWN, _R.API_KEY_MISMATCH, _R.API_KEY_REVOKED, _R.API_KEY_EXPIRED,
        _R.API_KEYS_UNAVAILABLE,
    )),
    _kind("form", "Form of the token", "RFC 7515 section 7.1", (_R.MALFORMED_TOKEN, _R.ENCRYPTED_TOKEN),
          (_R.REPLICATED_CLAIM,)),
    _kind("issuer", "Issuer", "RFC 9068 section 4", (_R.UNKNOWN_ISSUER,), (*_CLAIM, *OUTAGES)),
    _kind("algorithm", "Algorithm", "RFC 8725 section 3.1", (_R.ALGORITHM_REFUSED,)),
    _kind("header", "Header", "RFC 7515 section 4.1", (
        _R.CRITICAL_HEADER, _R.UNENCODED_PAYLOAD, _R.HEADER_REFUSED, _R.NESTED_TOKEN,
    ), (_R.MALFORMED_TOKEN,)),
    _kind("type", "Type", "RFC 9068 section 4", (_R.TYPE_REFUSED,), (_R.NOT_AN_ACCESS_TOKEN,)),
    _kind("introspection", "Introspection", "RFC 7662 section 2.2", (_R.TOKEN_NOT_ACTIVE,), OUTAGES),
    _kind("issuer_claim", "Issuer claim", "RFC 9068 section 4", (), (_R.UNKNOWN_ISSUER, _R.UNEXPECTED_CLAIM)),
    _kind("expected_headers", "Expected headers", "", (), (_R.HEADER_REFUSED,)),
    _kind("expected_claims", "Expected claims", "", (
        _R.UNEXPECTED_CLAIM, _R.FORBIDDEN_CLAIM, _R.REPLICATED_CLAIM,
    )),
    _kind("audience", "Audience", "RFC 9068 section 4", (_R.WRONG_AUDIENCE, _R.SEVERAL_AUDIENCES), _CLAIM),
    _kind("dates", "Form of dates", "RFC 7519 section 2", (_R.MALFORMED_CLAIM,)),
    _kind("expiry", "Expiry", "RFC 7519 section 4.1.4", (_R.TOKEN_EXPIRED,), (_R.MISSING_CLAIM,)),
    _kind("not_before", "Not before", "RFC 7519 section 4.1.5", (_R.TOKEN_NOT_YET_VALID,)),
    _kind("issued_at", "Time of issue", "RFC 7519 section 4.1.6", (_R.TOKEN_ISSUED_IN_FUTURE,), (_R.MALFORMED_CLAIM,)),
    _kind("lifetime", "Lifetime", "", (_R.TOKEN_LIFETIME_TOO_LONG,), (_R.MISSING_CLAIM,)),
    _kind("required_claims", "Required claims", "RFC 9068 section 2.2", (_R.MISSING_CLAIM,), (_R.MALFORMED_CLAIM,)),
    _kind("token_kind", "Kind of token", "RFC 8725 section 3.12", (_R.NOT_AN_ACCESS_TOKEN,),
          (_R.SENDER_CONSTRAINT_UNPROVEN,)),
    _kind("scope_claim", "Form of the scopes", "RFC 8693 section 4.2", (_R.MALFORMED_SCOPE,)),
    _kind("confirmation", "Confirmation", "RFC 7800 section 3.1", (
        _R.SENDER_CONSTRAINT_UNPROVEN, _R.SENDER_CONSTRAINT_MISSING,
    )),
    _kind("keys", "Keys of the issuer", "RFC 8414 section 2", OUTAGES),
    _kind("key", "Signing key", "RFC 7515 section 4.1.4", (_R.UNKNOWN_KEY,)),
    _kind("signature", "Signature", "RFC 7515 section 5.2", (_R.BAD_SIGNATURE, _R.SIGNATURE_BACKEND_FAILED)),
    _kind("revocation", "Revocation", "", (_R.TOKEN_REVOKED, _R.STORE_UNAVAILABLE),
          (*_CLAIM, *OUTAGES, _R.TOKEN_NOT_ACTIVE)),
    _kind("proof", "Proof of possession", "RFC 9449 section 4.3", (
        _R.PROOF_MISSING, _R.PROOF_REPEATED, _R.PROOF_TOO_LARGE, _R.PROOF_MALFORMED, _R.PROOF_KEY, _R.PROOF_SIGNATURE,
        _R.PROOF_MISMATCH, _R.PROOF_EXPIRED, _R.PROOF_NONCE, _R.WRONG_PROOF_KEY, _R.WRONG_CERTIFICATE,
    ), (_R.SENDER_CONSTRAINT_UNPROVEN, _R.SENDER_CONSTRAINT_MISSING)),
    _kind("replay", "First use of the proof", "RFC 9449 section 11.1", (_R.PROOF_USED, _R.PROOF_MEMORY_FULL)),
    _kind("rule", "Rule", "", (_R.NO_RULE,)),
    _kind("scopes", "Scopes", "RFC 6750 section 3.1", (_R.INSUFFICIENT_SCOPE,)),
    _kind("conditions", "Conditions", "RFC 9470, RFC 9396, RFC 8693", (
        _R.INSUFFICIENT_USER_AUTHENTICATION, _R.INSUFFICIENT_AUTHORIZATION_DETAILS, _R.USER_REQUIRED,
        _R.MACHINE_REQUIRED, _R.ACTOR_REFUSED,
    ), (_R.MALFORMED_CLAIM,)),
    _kind("policy", "Policy", "", (_R.POLICY_DENIED, _R.POLICY_UNAVAILABLE)),
    _kind("renewal", "Renewal", "", (_R.RENEWAL_MISMATCH, _R.TOO_MANY_RENEWALS)),
)
# fmt: on
"""Every check, in the order of the engine. An explanation has those that apply."""

BY_NAME: Final = {kind.name: kind for kind in CHECKS}
OWNER: Final = {reason: kind.name for kind in CHECKS for reason in kind.reasons}
"""The name of the check to which each reason belongs."""

# The order of the checks of an introspection answer, where it differs: see spec.introspection.check_answer().
OF_JWTS: Final = (
    "algorithm", "header", "type", "issuer_claim", "expected_headers", "expected_claims", "audience", "dates", "expiry",
    "not_before", "issued_at", "lifetime", "required_claims", "token_kind", "scope_claim", "confirmation",
)  # fmt: skip
OF_ANSWERS: Final = (
    "issuer_claim", "expected_claims", "audience", "dates", "expiry", "not_before", "issued_at", "lifetime",
    "required_claims", "confirmation", "token_kind", "scope_claim",
)  # fmt: skip
