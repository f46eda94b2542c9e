"""Token requests: find the token endpoint of an authorization server, authenticate to it, and request tokens."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NoReturn

from scopeguard.client.errors import ScopeNotGranted, TokenEndpointError, TokenEndpointUnavailable
from scopeguard.client.proofs import Proofs
from scopeguard.client.repeated_token_requests import BETWEEN_ATTEMPTS, LONGEST_RETRY_AFTER
from scopeguard.client.settings import Policy
from scopeguard.config.answer_limits import LARGEST_ANSWER, LARGEST_TOKEN_RESPONSE
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Flow, Send, ask
from scopeguard.flow.issuers import search_metadata
from scopeguard.reasons import Reason
from scopeguard.spec.client_authentication import Proof, assertion, basic, client_id_only, post
from scopeguard.spec.discovery import METADATA_LIFETIME, MalformedMetadata, Metadata, check_endpoint, metadata_urls
from scopeguard.spec.dpop_client import USE_DPOP_NONCE
from scopeguard.spec.outage_statuses import is_outage
from scopeguard.spec.retry_after import read_retry_after
from scopeguard.spec.token_endpoint import (
    TokenRefusal,
    TokenResponse,
    Tolerance,
    parse_token_response,
)

# RFC 6749 section 5.2, RFC 8707 section 2, and two that servers send about exchanges. These codes are never withheld,
# even if one contains a secret by chance.
_ERRORS: Final = frozenset(
    (
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope", "invalid_target", "access_denied", "interaction_required",
    )
)  # fmt: skip
# Codes of RFC 6749 section 4.1.2.1 that some servers send with status 400. They say nothing about the request.
_OUTAGES: Final = ("temporarily_unavailable", "server_error")


class TokenEndpoint:
    """Sends the token requests of one client."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._discovered: str | None = None
        self._discovered_until = 0.0
        self._proofs = None if policy.dpop is None else Proofs(policy.dpop, policy.clock)
        exchanges = 1 if policy.dpop is None else 2  # a second one with the nonce of the server
        exchanges += 0 if policy.issuer is None else len(metadata_urls(policy.issuer))
        self.longest_request: float = exchanges * (policy.retries + 1) * (policy.timeout + BETWEEN_ATTEMPTS.longest)
        """The seconds that a request takes at most, with the search for the endpoint and all retries."""

    def request(
        self, form: tuple[tuple[str, str], ...], tolerance: Tolerance, tokens: Iterable[str] = ()
    ) -> Flow[tuple[float, TokenResponse]]:
        """Request a token. Return the seconds since the request began, and the token.

        *form* has the parameters without client authentication. *tokens*: those in it, which no exception quotes.
        """
        url = yield from self._endpoint()
        start, start_wall = self._now(), self._policy.clock.wall()
        outcome = yield from self._exchange(url, form, tolerance)
        if isinstance(outcome, TokenRefusal):
            raise TokenEndpointError(self._policy.authority, self._without_secrets(outcome, tokens))
        return max(self._now() - start, self._policy.clock.wall() - start_wall), outcome

    def search_again(self) -> None:
        """Search for the endpoint before the next request, because it may have moved."""
        self._discovered_until = 0.0

    def narrower(self, token: TokenResponse) -> ScopeNotGranted | None:
        """Return an error if scopes were not granted. Without ``scope``, all were (RFC 6749 section 5.1)."""
        if token.scope is None:
            return None
        missing = tuple(scope for scope in self._policy.scopes if scope not in token.scope)
        return ScopeNotGranted(missing, token.scope) if missing else None

    def _now(self) -> float:
        return self._policy.clock.monotonic()

    def _exchange(
        self, url: str, form: tuple[tuple[str, str], ...], tolerance: Tolerance
    ) -> Flow[TokenResponse | TokenRefusal]:
        """Request a token, and once more if the server asks for a proof with the nonce that it sends."""
        may_repeat = self._proofs is not None
        while True:
            answer = yield from ask(self._token_request(url, form))
            has_nonce = self._learn_nonce(url, answer)
            self._check_outage(answer)
            outcome = parse_token_response(answer.status, answer.body, tolerance)
            if not isinstance(outcome, TokenRefusal):
                return outcome
            if outcome.error in _OUTAGES:
                self._raise_outage(answer, f"it answers with the error {outcome.error}")
            # RFC 9449 section 8: "the authorization server responds [...] with an HTTP 400 (Bad Request) error response
            # [...] using use_dpop_nonce as the error code value". Some servers answer 401.
            if not (may_repeat and has_nonce and outcome.error == USE_DPOP_NONCE and answer.status in (400, 401)):
                return outcome
            may_repeat = False

    def authenticate(self, request: Send) -> Send:
        """Return *request* with the client authentication and a DPoP proof, if it is a token request.

        Call it for each attempt: a proof is for one request (RFC 9449 section 4.2).
        """
        if request.form is None:
            return request
        credentials = self._credentials()
        headers = request.headers
        if self._proofs is not None:
            headers += (("dpop", self._proofs.make("POST", request.url)),)
        return replace(
            request,
            form=request.form + credentials.parameters,
            authorization=credentials.authorization,
            headers=headers,
        )

    def _credentials(self) -> Proof:
        policy = self._policy
        match policy.auth_method:
            case ClientAuthentication.CLIENT_SECRET_BASIC:
                return basic(policy.client_id, policy.client_secret.reveal())
            case ClientAuthentication.CLIENT_SECRET_POST:
                return post(policy.client_id, policy.client_secret.reveal())
            case ClientAuthentication.PRIVATE_KEY_JWT if policy.assertion_key is not None:
                return assertion(
                    policy.client_id,
                    policy.assertion_key,
                    audience=policy.assertion_audience or policy.issuer or "",
                    now=policy.clock.wall(),
                    identifier=secrets.token_urlsafe(16),
                    typ=policy.assertion_typ,
                )
            case _:
                return client_id_only(policy.client_id)

    def _learn_nonce(self, url: str, answer: Answer) -> bool:
        """Keep the DPoP nonce in *answer*, if it has one. Return whether it has one."""
        nonce = answer.headers.get("dpop-nonce")
        return self._proofs is not None and nonce is not None and self._proofs.learn(url, [nonce])

    def _token_request(self, url: str, form: tuple[tuple[str, str], ...]) -> Send:
        policy = self._policy
        return Send(
            url=url,
            authority=policy.authority,
            form=form,
            insecure=policy.insecure_http_dangerously,
            limit=LARGEST_TOKEN_RESPONSE,
            timeout=policy.timeout,
        )

    def _check_outage(self, answer: Answer) -> None:
        if is_outage(answer.status):
            self._raise_outage(answer, f"it answers with status {answer.status}")

    def _raise_outage(self, answer: Answer, problem: str) -> NoReturn:
        pause = read_retry_after(answer.headers, self._policy.clock.wall())
        closed = None if pause is None else min(pause, LONGEST_RETRY_AFTER)
        raise TokenEndpointUnavailable(self._policy.authority, problem, closed, answer.status)

    def _without_secrets(self, refusal: TokenRefusal, tokens: Iterable[str]) -> TokenRefusal:
        """Return *refusal* without texts that quote a secret, because exceptions and logs show them."""
        secret = None if self._policy.client_secret is None else self._policy.client_secret.reveal()

        def withhold(text: str | None) -> str | None:
            if text and secret and secret in text:
                return "(withheld: it quotes the client secret)"
            return "(withheld: it quotes a token)" if text and any(each in text for each in tokens) else text

        return replace(
            refusal,
            error=refusal.error if refusal.error in _ERRORS else withhold(refusal.error),
            description=withhold(refusal.description),
            uri=withhold(refusal.uri),
        )

    def _endpoint(self) -> Flow[str]:
        policy = self._policy
        if policy.issuer is None:
            return policy.token_url or ""
        if self._discovered is None or self._now() >= self._discovered_until:
            self._discovered = yield from self._discover(policy.issuer)
            self._discovered_until = self._now() + METADATA_LIFETIME
        return self._discovered

    def _discover(self, issuer: str) -> Flow[str]:
        """Return the token endpoint of *issuer*, from the first metadata document that has one."""
        failure: TokenEndpointError | TokenEndpointUnavailable
        try:
            metadata = yield from search_metadata(
                issuer,
                metadata_urls(issuer),
                lambda found: found.token_endpoint is not None,
                self._policy.clock,
                limit=LARGEST_ANSWER,
                timeout=self._policy.timeout,
                setting="token_url",
                insecure=self._policy.insecure_http_dangerously,
            )
        except AuthorityUnavailable as error:
            if error.reason is Reason.AUTHORITY_ANSWER_INVALID:
                status = 200 if "url" in error.detail else 404
                failure = TokenEndpointError(issuer, TokenRefusal(status=status, problem=error.detail["problem"]))
            else:
                closed = None if error.retry_after is None else min(error.retry_after, LONGEST_RETRY_AFTER)
                failure = TokenEndpointUnavailable(self._policy.authority, describe(error), closed)
        else:
            endpoint = self._token_endpoint(metadata)
            if endpoint is not None:
                return endpoint
            problem = "the metadata has no token_endpoint; set token_url"
            failure = TokenEndpointError(issuer, TokenRefusal(status=200, problem=problem))
        raise failure

    def _token_endpoint(self, metadata: Metadata) -> str | None:
        """Return the token endpoint in *metadata*: with mutual TLS, its alias if there is one (RFC 8705 section 5)."""
        aliases = metadata.raw.get("mtls_endpoint_aliases")
        if self._policy.auth_method != ClientAuthentication.TLS_CLIENT_AUTH or not isinstance(aliases, dict):
            return metadata.token_endpoint
        try:
            insecure = self._policy.insecure_http_dangerously
            alias = check_endpoint(aliases, "token_endpoint", metadata.issuer, (), insecure)
        except MalformedMetadata as error:
            raise TokenEndpointError(metadata.issuer, TokenRefusal(status=200, problem=str(error))) from None
        return alias or metadata.token_endpoint


def describe(error: AuthorityUnavailable) -> str:
    """Return the reason and the facts of *error*, as one line."""
    return ", ".join((error.reason.value, *(f"{name}={value}" for name, value in error.detail.items())))


def refuses_client(error: TokenEndpointError) -> bool:
    """Return whether *error* is about the client and its authentication."""
    return error.error in ("invalid_client", "unauthorized_client") or error.status == 401
