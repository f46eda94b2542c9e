"""What each reason code means, and what to do about it: the catalog for the log, the commands and the reference page.

:func:`entry_of` returns the entry of a reason. ``docs/reasons.md`` is written from this catalog by ``make reasons``.

The texts are for operators and developers. Clients never see them; they see :attr:`Entry.client_text`. Code is
between backticks, as in Markdown; :attr:`Entry.advice` has none.

Longer than 400 lines because the catalog has an entry for each reason code, so that their texts stay alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from scopeguard.errors import (
    AccessDenied,
    ApiKeysUnavailable,
    AuthorityUnavailable,
    Forbidden,
    InsufficientAuthorizationDetails,
    InsufficientScope,
    InsufficientUserAuthentication,
    InvalidApiKey,
    InvalidProof,
    InvalidRequest,
    InvalidToken,
    MalformedMessage,
    MissingCredentials,
    NonceRequired,
    PolicyDenied,
    PolicyUnavailable,
    RequestTimedOut,
    RequestTooLarge,
)
from scopeguard.reasons import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The entry of a reason code.

    * ``reason``: the code.
    * ``error``: the class of the exception with this reason.
    * ``standard``: the section of the standard that demands the check, ``""`` if there is none.
    * ``cause``: what happened, in one sentence.
    * ``fix``: what to do, in one sentence or two.
    """

    reason: Reason
    error: type[AccessDenied | AuthorityUnavailable]
    standard: str
    cause: str
    fix: str

    @property
    def status(self) -> int:
        """The HTTP status of the response."""
        return self.error.status

    @property
    def oauth_error(self) -> str | None:
        """The ``error`` in the challenge (RFC 6750 section 3.1), or ``None`` if the challenge has none."""
        return self.error.error if issubclass(self.error, AccessDenied) else None

    @property
    def client_text(self) -> str:
        """The constant text that the client sees. A policy decision may replace that of ``policy_denied``."""
        return self.error.text_for(self.reason)

    @property
    def advice(self) -> str:
        """The cause and the fix as one line of plain text."""
        return f"{self.cause} {self.fix}".replace("`", "")


def _entry(
    reason: Reason, error: type[AccessDenied | AuthorityUnavailable], standard: str, cause: str, fix: str
) -> Entry:
    return Entry(reason=reason, error=error, standard=standard, cause=cause, fix=fix)


SECTIONS: Final[tuple[tuple[str, tuple[Entry, ...]], ...]] = (
    (
        "The request",
        (
            _entry(
                Reason.NO_CREDENTIALS,
                MissingCredentials,
                "RFC 6750 section 3.1",
                "The request has no access token where the route takes one.",
                "Send `Authorization: Bearer TOKEN`, or an API key if the route takes keys. If the client does, look "
                "for a proxy or a redirect that removes the header. A route that needs no token must be public.",
            ),
            _entry(
                Reason.UNSUPPORTED_SCHEME,
                MissingCredentials,
                "RFC 6750 section 3.1",
                "The credentials have a scheme that the route does not take.",
                'Send `Authorization: Bearer TOKEN`, or `DPoP TOKEN` and a proof if `dpop` is `"required"`. The scheme '
                "`DPoP` needs `Guard(dpop=...)`. An API key belongs in the header that `ApiKeys(header=...)` names.",
            ),
            _entry(
                Reason.MALFORMED_CREDENTIALS,
                InvalidRequest,
                "RFC 6750 section 2.1",
                "The credentials are not one scheme, one space and one token.",
                "In the client, look for quotes, spaces, line breaks or a comma around the token. An opaque token with "
                'other characters needs an issuer with `validate="introspection"` or `"auto"`.',
            ),
            _entry(
                Reason.EMPTY_CREDENTIALS,
                InvalidRequest,
                "RFC 6750 section 2",
                "The request has a place for a token, and nothing in it.",
                "The client has no token at this moment: check that it fetched one, and that its variable is set.",
            ),
            _entry(
                Reason.REPEATED_AUTHORIZATION,
                InvalidRequest,
                "RFC 6750 section 2",
                "The request has more than one `Authorization` header.",
                "Send one. A proxy or a library may add its own to that of the client.",
            ),
            _entry(
                Reason.SEVERAL_METHODS,
                InvalidRequest,
                "RFC 6750 section 2",
                "The request has tokens in several places.",
                "Send the token in one place, preferably in the `Authorization` header.",
            ),
            _entry(
                Reason.REPEATED_PARAMETER,
                InvalidRequest,
                "RFC 6750 section 3.1",
                "The parameter `access_token` is in the request more than once.",
                "Send it once, or send the token in the `Authorization` header.",
            ),
            _entry(
                Reason.TOO_MANY_PARAMETERS,
                InvalidRequest,
                "",
                "The query or form in which a token may be has too many parameters.",
                "Send the token in the `Authorization` header, or raise `TokenSources(max_parameters=...)`.",
            ),
            _entry(
                Reason.NON_ASCII_FORM,
                InvalidRequest,
                "RFC 6750 section 2.2",
                "The form with the token has characters outside ASCII.",
                "Percent-encode them, or send the token in the `Authorization` header.",
            ),
            _entry(
                Reason.FORM_TOO_LARGE,
                RequestTooLarge,
                "",
                "The form in which a token may be is too large.",
                "Send the token in the `Authorization` header, or raise `TokenSources(max_form_bytes=...)`.",
            ),
            _entry(
                Reason.FORM_INCOMPLETE,
                InvalidRequest,
                "RFC 9112 section 8",
                "The form ended before it was complete.",
                "The client or a proxy closed the connection, or sent a `Content-Length` greater than the body.",
            ),
            _entry(
                Reason.FORM_TOO_SLOW,
                RequestTimedOut,
                "",
                "The form in which a token may be did not arrive in time.",
                "Check the network of the client, or raise `TokenSources(form_timeout=...)`.",
            ),
            _entry(
                Reason.TOKEN_TOO_LARGE,
                InvalidRequest,
                "",
                "The token is larger than the limit.",
                "Let the authorization server put less into it, such as fewer groups, or raise "
                "`TokenSources(max_token_bytes=...)`; servers and proxies limit headers as well.",
            ),
            _entry(
                Reason.QUERY_TOKEN_REFUSED,
                InvalidRequest,
                "RFC 9700 section 4.3.2",
                "The query has a token, and this API does not accept tokens there.",
                "Send it in the `Authorization` header. The token is now in logs and histories: revoke it.",
            ),
            _entry(
                Reason.HTTPS_REQUIRED,
                InvalidRequest,
                "RFC 6750 section 5.3",
                "The token came over http, and `require_https` is set.",
                "Call the API by https. Behind a proxy that ends TLS, let the server trust its `X-Forwarded-Proto`: "
                "`--forwarded-allow-ips` of uvicorn, `--trusted-proxy` of `scopeguard serve`, `ProxyFix` in Flask.",
            ),
        ),
    ),
    (
        "The message of an MCP client",
        (
            _entry(
                Reason.BODY_TOO_LARGE,
                RequestTooLarge,
                "",
                "The message is larger than the limit.",
                "Send less, or raise `McpPolicy(max_body_bytes=...)`.",
            ),
            _entry(
                Reason.BODY_INCOMPLETE,
                InvalidRequest,
                "RFC 9112 section 8",
                "The message ended before it was complete.",
                "The client or a proxy closed the connection, or sent a `Content-Length` greater than the body.",
            ),
            _entry(
                Reason.BODY_TOO_SLOW,
                RequestTimedOut,
                "",
                "The message did not arrive in time.",
                "Check the network of the client, or raise `McpPolicy(body_timeout=...)`.",
            ),
            _entry(
                Reason.ORIGIN_REFUSED,
                Forbidden,
                "MCP 2026-07-28, Streamable HTTP",
                "A web page of another origin sent the request.",
                "If the page may call the server, add its origin to `McpPolicy(allowed_origins=...)`.",
            ),
            _entry(
                Reason.HEADER_MISMATCH,
                MalformedMessage,
                "MCP 2026-07-28, Streamable HTTP",
                "`Mcp-Method` or `Mcp-Name` is missing, repeated or differs from the body.",
                "Update the client to the protocol version that it announces, or make it send both as in the body.",
            ),
            _entry(
                Reason.MALFORMED_MESSAGE,
                MalformedMessage,
                "RFC 8259",
                "The body is not one JSON object in UTF-8 without repeated members.",
                "Correct the client. No compression and no other charset is accepted.",
            ),
            _entry(
                Reason.INVALID_MESSAGE,
                MalformedMessage,
                "JSON-RPC 2.0",
                "The body is not one JSON-RPC message.",
                "Correct the client. Batches are not accepted.",
            ),
        ),
    ),
    (
        "The form of the token",
        (
            _entry(
                Reason.MALFORMED_TOKEN,
                InvalidToken,
                "RFC 7519 section 7.2",
                "The token is not a well-formed JWT.",
                "Compare it with what the authorization server issued: it may be cut off, or opaque. For opaque tokens "
                'set `validate="introspection"` or `"auto"`.',
            ),
            _entry(
                Reason.ENCRYPTED_TOKEN,
                InvalidToken,
                "RFC 7516",
                "The token is encrypted (JWE).",
                'Let the authorization server issue signed JWTs, or set `validate="introspection"`. With Auth0, a '
                "token request without `audience` gets such a token.",
            ),
            _entry(
                Reason.NESTED_TOKEN,
                InvalidToken,
                "RFC 7519 section 5.2",
                "The token contains another JWT.",
                "Let the authorization server issue JWTs that are only signed.",
            ),
            _entry(
                Reason.CRITICAL_HEADER,
                InvalidToken,
                "RFC 7515 section 4.1.11",
                "The header has `crit`: an extension that the recipient must understand.",
                "Switch the extension off at the authorization server.",
            ),
            _entry(
                Reason.UNENCODED_PAYLOAD,
                InvalidToken,
                "RFC 7797 section 7",
                "The header has `b64`, which a JWT must not use.",
                "Switch it off at the authorization server.",
            ),
            _entry(
                Reason.ALGORITHM_REFUSED,
                InvalidToken,
                "RFC 8725 section 3.1",
                "The token is signed with an algorithm that is not accepted.",
                "If the authorization server uses it, add it to `Issuer(algorithms=...)`. `none` and `HS256` are never "
                "accepted.",
            ),
            _entry(
                Reason.TYPE_REFUSED,
                InvalidToken,
                "RFC 9068 section 4",
                "The header `typ` is not a type that is accepted for access tokens.",
                "If the access tokens of this issuer have it, add it to `Issuer(typ=...)`. Otherwise the client sent "
                "another kind of token.",
            ),
            _entry(
                Reason.HEADER_REFUSED,
                InvalidToken,
                "RFC 7515 section 4",
                "A header parameter is missing, has an unexpected value, or is forbidden.",
                "See `Issuer(expected_headers=...)` and `forbidden_headers`. Compressed tokens (`zip`) are never "
                "accepted.",
            ),
        ),
    ),
    (
        "The issuer, the key and the signature",
        (
            _entry(
                Reason.UNKNOWN_ISSUER,
                InvalidToken,
                "RFC 9068 section 4",
                "The token is from an issuer that the guard does not trust.",
                "If it should be trusted, make the URL of `Issuer` exactly equal to `iss`, with its scheme, its case "
                "and the slash at the end; one issuer with several names has `aliases`.",
            ),
            _entry(
                Reason.UNKNOWN_KEY,
                InvalidToken,
                "RFC 7515 section 4.1.4",
                "The token names a key that is not in the key set of its issuer.",
                "Compare `iss` and `kid` of the token with the key set: it may come from another environment or realm, "
                "or its key was withdrawn. Then get a new token.",
            ),
            _entry(
                Reason.BAD_SIGNATURE,
                InvalidToken,
                "RFC 7515 section 5.2",
                "No key of the issuer made the signature.",
                "The token was changed or forged, or the authorization server signs with keys that it did not publish.",
            ),
        ),
    ),
    (
        "The claims of the token",
        (
            _entry(
                Reason.MISSING_CLAIM,
                InvalidToken,
                "RFC 9068 section 2.2",
                "The token lacks a claim that is required, or the claim is empty.",
                "Let the authorization server add it. What is required depends on `typ`; "
                "`Issuer(required_claims=...)` changes it.",
            ),
            _entry(
                Reason.MALFORMED_CLAIM,
                InvalidToken,
                "RFC 7519 section 4.1",
                "A claim has a value of the wrong kind.",
                "Correct the mapping of the claim at the authorization server.",
            ),
            _entry(
                Reason.FORBIDDEN_CLAIM,
                InvalidToken,
                "",
                "The token has a claim that the settings forbid.",
                "Use another token, or remove the claim from `Issuer(forbidden_claims=...)`.",
            ),
            _entry(
                Reason.UNEXPECTED_CLAIM,
                InvalidToken,
                "",
                "A claim is absent or does not have the value that the settings expect.",
                "Compare it with `Issuer(expected_claims=...)`, `claim_prefixes` and `aliases`, or with the arguments "
                "of the preset.",
            ),
            _entry(
                Reason.REPLICATED_CLAIM,
                InvalidToken,
                "RFC 7519 section 5.3",
                "A header parameter repeats a claim with another value.",
                "The token is inconsistent: correct it at the authorization server.",
            ),
            _entry(
                Reason.NOT_AN_ACCESS_TOKEN,
                InvalidToken,
                "RFC 8725 section 3.12",
                "The token is of another kind, such as an ID token, or does not show that it is an access token.",
                "Send the access token of the token response, not `id_token` or `refresh_token`. If the provider's "
                "access tokens look like this, use its preset, or expect the claim in `expected_claims`.",
            ),
            _entry(
                Reason.WRONG_AUDIENCE,
                InvalidToken,
                "RFC 9068 section 4",
                "The token is for another API.",
                "Let the client request a token for this API (`resource`, `audience` or the scopes of the API), or "
                "correct `Issuer(audience=...)`. If `aud` is the client, it may be an ID token: send the access token.",
            ),
            _entry(
                Reason.SEVERAL_AUDIENCES,
                InvalidToken,
                "RFC 9068 section 3",
                "The token is for further APIs, and `single_audience` is set.",
                "Request a token for this API only.",
            ),
            _entry(
                Reason.TOKEN_EXPIRED,
                InvalidToken,
                "RFC 7519 section 4.1.4",
                "The token has expired.",
                "Get a new token. If it is new, compare the clocks of this host and of the authorization server; "
                "`Issuer(leeway=...)` tolerates a difference.",
            ),
            _entry(
                Reason.TOKEN_NOT_YET_VALID,
                InvalidToken,
                "RFC 7519 section 4.1.5",
                "The token is not valid yet.",
                "Compare the clocks of this host and of the authorization server; `Issuer(leeway=...)` tolerates a "
                "difference.",
            ),
            _entry(
                Reason.TOKEN_ISSUED_IN_FUTURE,
                InvalidToken,
                "RFC 7519 section 4.1.6",
                "The token says that it was issued in the future.",
                "Compare the clocks of this host and of the authorization server; `Issuer(leeway=...)` tolerates a "
                "difference.",
            ),
            _entry(
                Reason.TOKEN_LIFETIME_TOO_LONG,
                InvalidToken,
                "",
                "The token was issued for longer than `max_lifetime` allows.",
                "Shorten the lifetime at the authorization server, or raise `Issuer(max_lifetime=...)`.",
            ),
            _entry(
                Reason.MALFORMED_SCOPE,
                InvalidToken,
                "RFC 6749 section 3.3",
                "The scope claim does not have the configured form, or a scope has characters that no scope may have.",
                "Correct the form in `Issuer(scope_claims=...)`: words in a string, an array, or either.",
            ),
            _entry(
                Reason.SENDER_CONSTRAINT_UNPROVEN,
                InvalidToken,
                "RFC 9449 section 7.2",
                "The token is bound to a key (`cnf`), and the request does not prove that the sender has it.",
                "Set `Guard(dpop=...)` or `Guard(mutual_tls=...)` to check proofs, and send the token with one: "
                "`Authorization: DPoP TOKEN` and the header `DPoP`.",
            ),
            _entry(
                Reason.SENDER_CONSTRAINT_MISSING,
                InvalidToken,
                "RFC 9449 section 6",
                "The token is not bound to a key of the client, and the settings require that.",
                'Let the client send a DPoP proof in its token request, or lower `dpop` to `"allowed"`.',
            ),
        ),
    ),
    (
        "The proof of possession",
        (
            _entry(
                Reason.PROOF_MISSING,
                InvalidProof,
                "RFC 9449 section 7.1",
                "The request has a bound token and no proof.",
                "Send a DPoP proof for this method and URL in the header `DPoP`.",
            ),
            _entry(
                Reason.PROOF_REPEATED,
                InvalidProof,
                "RFC 9449 section 4.3",
                "The request has several proofs.",
                "Send the header `DPoP` once.",
            ),
            _entry(
                Reason.PROOF_TOO_LARGE,
                InvalidProof,
                "",
                "The proof is larger than the limit.",
                "Put less into it, or raise `DPoP(max_proof_bytes=...)`.",
            ),
            _entry(
                Reason.PROOF_MALFORMED,
                InvalidProof,
                "RFC 9449 section 4.2",
                "The proof does not have the form of a DPoP proof.",
                "Correct the client: a JWT with `typ` `dpop+jwt`, `jwk`, `htm`, `htu`, `iat`, `jti` and `ath`, signed "
                "with one of `DPoP(algorithms=...)`.",
            ),
            _entry(
                Reason.PROOF_KEY,
                InvalidProof,
                "RFC 9449 section 4.3",
                "The key in the proof cannot be used.",
                "Send a public JWK that fits the algorithm of the proof, and no private member.",
            ),
            _entry(
                Reason.PROOF_SIGNATURE,
                InvalidProof,
                "RFC 9449 section 4.3",
                "The proof is not signed with the key in it.",
                "Sign with the private key that belongs to `jwk`.",
            ),
            _entry(
                Reason.PROOF_MISMATCH,
                InvalidProof,
                "RFC 9449 section 4.3",
                "The proof is for another method, URL or token.",
                "Sign a proof for this very request. Behind a proxy, set `DPoP(base_url=...)` to the origin that "
                "clients see.",
            ),
            _entry(
                Reason.PROOF_EXPIRED,
                InvalidProof,
                "RFC 9449 section 11.1",
                "The proof is too old, or its time is in the future.",
                "Sign a new proof for each request, and compare the clock of the client; see `DPoP(max_age=...)` and "
                "`max_skew`. If the clock of the API was set back, proofs are refused until it is past the old time.",
            ),
            _entry(
                Reason.PROOF_USED,
                InvalidProof,
                "RFC 9449 section 11.1",
                "The proof was used before.",
                "Sign a new proof for each request, and for each retry.",
            ),
            _entry(
                Reason.PROOF_NONCE,
                NonceRequired,
                "RFC 9449 section 9",
                "The proof lacks a nonce of this API, or its nonce has expired.",
                "The client repeats the request with the nonce of the response header `DPoP-Nonce`; many libraries do "
                "so by themselves.",
            ),
            _entry(
                Reason.WRONG_PROOF_KEY,
                InvalidToken,
                "RFC 9449 section 6",
                "The token is not bound to the key of the proof.",
                "Sign proofs with the key of the token request. A token that is not bound needs the scheme `Bearer`.",
            ),
            _entry(
                Reason.WRONG_CERTIFICATE,
                InvalidToken,
                "RFC 8705 section 3",
                "The token is not bound to the client certificate of the connection, or there is no certificate.",
                "Connect with the certificate of the token request. Behind a proxy that ends TLS, set "
                "`MutualTLS(source=..., trusted_proxies=...)`.",
            ),
            _entry(
                Reason.PROOF_MEMORY_FULL,
                AuthorityUnavailable,
                "RFC 9449 section 11.1",
                "No more used proofs can be remembered, so that a replay would not be noticed.",
                "Raise `DPoP(max_proofs=...)` or `max_proofs_per_key`, or find the client that sends so many.",
            ),
        ),
    ),
    (
        "API keys",
        (
            _entry(
                Reason.TOKEN_AND_API_KEY,
                InvalidRequest,
                "RFC 6750 section 2",
                "The request has an access token and an API key.",
                "Send one of them. A client that moves from keys to tokens removes the key from its requests.",
            ),
            _entry(
                Reason.REPEATED_API_KEY,
                InvalidRequest,
                "",
                "The request has the header for API keys more than once.",
                "Send one. A proxy or a library may add its own to that of the client.",
            ),
            _entry(
                Reason.API_KEY_REFUSED,
                MissingCredentials,
                "",
                "The request has an API key, and its route accepts tokens only.",
                'Send a token, or add `"api_key"` to the `token_sources` of the rule or the guard. A route with '
                '`dpop="required"` accepts no key.',
            ),
            _entry(
                Reason.API_KEY_AS_TOKEN,
                InvalidToken,
                "",
                "The request has an API key in place of a token.",
                "Send the key in the header that `ApiKeys(header=...)` names. No authorization server has seen it.",
            ),
            _entry(
                Reason.API_KEY_MALFORMED,
                InvalidApiKey,
                "",
                "The prefix, the length or the checksum of the API key is wrong.",
                "Copy the whole key. A key of another API has a different prefix. With checksum_secret, a key that was "
                "made without it has a wrong checksum: make a new one.",
            ),
            _entry(
                Reason.API_KEY_UNKNOWN,
                InvalidApiKey,
                "",
                "There is no API key with this id.",
                "Look for `key_id` in the file of keys, or in the list behind `lookup`. A new key is known after `ttl` "
                "seconds.",
            ),
            _entry(
                Reason.API_KEY_MISMATCH,
                InvalidApiKey,
                "",
                "There is an API key with this id, but its secret is different.",
                "The checksum is right, so this is not a typing error: the key was replaced, or it is forged. Compare "
                "the SHA-256 of the key with `sha256` in the file.",
            ),
            _entry(
                Reason.API_KEY_REVOKED,
                InvalidApiKey,
                "",
                "The API key was revoked, in its list or with `Guard.revoke`.",
                "Make a new key for the client, if it may still have one.",
            ),
            _entry(
                Reason.API_KEY_EXPIRED,
                InvalidApiKey,
                "",
                "The API key has expired.",
                "Make a new key with `scopeguard api-key new`.",
            ),
        ),
    ),
    (
        "Revocation and introspection",
        (
            _entry(
                Reason.TOKEN_NOT_ACTIVE,
                InvalidToken,
                "RFC 7662 section 2.2",
                "The authorization server says that the token is not active.",
                "Get a new token. If it is new, check that the server with the introspection endpoint issued it, and "
                "that this API may introspect it.",
            ),
            _entry(
                Reason.TOKEN_REVOKED,
                InvalidToken,
                "RFC 7009 section 2",
                "The token, its user or its client was revoked with `Guard.revoke`, or by an event.",
                "Get a new token, if the authorization server still issues one.",
            ),
        ),
    ),
    (
        "The route",
        (
            _entry(
                Reason.INSUFFICIENT_USER_AUTHENTICATION,
                InsufficientUserAuthentication,
                "RFC 9470 section 3",
                "The user did not sign in strongly or recently enough for this route.",
                "The client lets the user sign in again, with the `acr_values` and `max_age` of the challenge.",
            ),
            _entry(
                Reason.INSUFFICIENT_SCOPE,
                InsufficientScope,
                "RFC 6750 section 3.1",
                "The token lacks a scope that the route requires.",
                "Request a token with the scopes that are needed, and allow them for the client at the authorization "
                "server; or require less on the route.",
            ),
            _entry(
                Reason.INSUFFICIENT_AUTHORIZATION_DETAILS,
                InsufficientAuthorizationDetails,
                "RFC 9396 section 9",
                "No object in the `authorization_details` of the token allows the operation.",
                "Request a token with such an object.",
            ),
            _entry(
                Reason.USER_REQUIRED,
                Forbidden,
                "",
                "The route is for users, and the token was issued to a client for itself, or does not show that it has "
                "a user.",
                "Use a token of a signed-in user. If this is one, set `Issuer(machine_signs=...)`.",
            ),
            _entry(
                Reason.MACHINE_REQUIRED,
                Forbidden,
                "",
                "The route is for clients that act for themselves, and the token is not known to be one of theirs.",
                "Use a token from the client credentials grant. If this is one, set `Issuer(machine_signs=...)`.",
            ),
            _entry(
                Reason.ACTOR_REFUSED,
                Forbidden,
                "RFC 8693 section 4.1",
                "The party that acts for the user (`act`) may not use this route, or is absent where one is required.",
                "Compare the claim `act` with `DelegatedTo(...)` or `NOT_DELEGATED` of the route.",
            ),
            _entry(
                Reason.NO_RULE,
                Forbidden,
                "",
                "No rule allows this method and path, or a rule denies them.",
                "Add a `Rule` for the route, or a `Tool`, `Prompt`, `ResourceUri` or `Method` for an operation of an "
                "MCP server; `scopeguard audit` lists which rule decides about each.",
            ),
            _entry(
                Reason.RULE_FAILED,
                Forbidden,
                "",
                "A function that a rule calls raised an exception about this request.",
                "Correct the function, or the request if its arguments are wrong.",
            ),
            _entry(
                Reason.POLICY_DENIED,
                PolicyDenied,
                "AuthZEN Authorization API 1.0",
                "The function or policy decision point of the route denied the request.",
                "See its own log. Only `True` allows.",
            ),
        ),
    ),
    (
        "A new token for a connection in progress",
        (
            _entry(
                Reason.RENEWAL_MISMATCH,
                Forbidden,
                "",
                "The new token is for a different issuer, user or client from the connection.",
                "Renew with a token of the same user and client, or open another connection.",
            ),
            _entry(
                Reason.TOO_MANY_RENEWALS,
                Forbidden,
                "",
                "The connection tried to renew its token too often.",
                "Renew once before the token expires: five attempts at once are allowed, then one in ten seconds.",
            ),
        ),
    ),
    (
        "Outages",
        (
            _entry(
                Reason.AUTHORITY_UNREACHABLE,
                AuthorityUnavailable,
                "RFC 9110 section 15.6.4",
                "The authorization server could not be reached, or answered that it is busy.",
                "Check its address, DNS, TLS and proxies from this host: `scopeguard doctor` does that.",
            ),
            _entry(
                Reason.AUTHORITY_ANSWER_INVALID,
                AuthorityUnavailable,
                "RFC 9110 section 15.6.4",
                "The authorization server gave an answer that cannot be used.",
                "Open the URL and compare: it may be the wrong one, a sign-in page or an error. For introspection, "
                "check the credentials of this API.",
            ),
            _entry(
                Reason.AUTHORITY_BACKING_OFF,
                AuthorityUnavailable,
                "RFC 9110 section 15.6.4",
                "No request is sent now, because one has failed or the limit of fetches is reached.",
                "An earlier line has the failure. The next attempt follows by itself, after the time in `Retry-After`.",
            ),
            _entry(
                Reason.AUTHORITY_TIMED_OUT,
                AuthorityUnavailable,
                "RFC 9110 section 15.6.4",
                "The authorization server did not answer in time.",
                "Check its load and the network; `KeySetPolicy(timeout=...)` and `Introspection(timeout=...)` are the "
                "limits.",
            ),
            _entry(
                Reason.TOO_MANY_WAITING,
                AuthorityUnavailable,
                "RFC 9110 section 15.6.4",
                "Too many requests wait for the authorization server already.",
                "It is slow: check its load, and let answers be cached for longer.",
            ),
            _entry(
                Reason.CALLER_LEFT,
                AuthorityUnavailable,
                "",
                "The client closed the connection before its token was checked.",
                "Nothing is wrong here, unless the authorization server is so slow that clients give up.",
            ),
            _entry(
                Reason.SHUTTING_DOWN,
                AuthorityUnavailable,
                "",
                "The guard is being closed.",
                "The request arrived while the process ended: let the load balancer stop sending first.",
            ),
            _entry(
                Reason.STORE_UNAVAILABLE,
                AuthorityUnavailable,
                "",
                "The shared store did not answer, so that revocations or used proofs are not known.",
                "Check Redis and the network to it; `scopeguard doctor` does that.",
            ),
            _entry(
                Reason.SIGNATURE_BACKEND_FAILED,
                AuthorityUnavailable,
                "",
                "A library in `signature_backends` raised an exception.",
                "The log `scopeguard` has the exception. Update the library, or remove it from the setting.",
            ),
            _entry(
                Reason.POLICY_UNAVAILABLE,
                PolicyUnavailable,
                "RFC 9110 section 15.6.4",
                "The policy decision point gave no usable answer.",
                "Check its address, its credentials and its log.",
            ),
            _entry(
                Reason.API_KEYS_UNAVAILABLE,
                ApiKeysUnavailable,
                "RFC 9110 section 15.6.4",
                "The file with the API keys, or the function that looks them up, gave no usable answer.",
                "`problem` says why. A file with a mistake is not used at all, because the mistake may be in the "
                "revocation of a key.",
            ),
        ),
    ),
)
"""The titles of the sections of the catalog, each with its entries."""

CATALOG: Final[Mapping[Reason, Entry]] = MappingProxyType(
    {entry.reason: entry for _, entries in SECTIONS for entry in entries}
)


def entry_of(reason: Reason) -> Entry:
    """Return the entry of *reason*. Every reason has one."""
    return CATALOG[reason]
