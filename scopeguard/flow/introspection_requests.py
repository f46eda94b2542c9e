"""The requests about one token: to an introspection endpoint (RFC 7662), a token-info endpoint or TokenReview.

:func:`ask_authority` chooses by the dialect. The caches and the pauses are in :mod:`scopeguard.flow.introspection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from scopeguard.config.introspection import Dialect
from scopeguard.errors import AuthorityUnavailable, Blame, InvalidToken
from scopeguard.flow.answers import check_status, json_body
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import Answer, Clock, Flow, Send, ask
from scopeguard.flow.issuers import discover
from scopeguard.flow.keys import verify_signature
from scopeguard.flow.own_bearer import own_bearer
from scopeguard.reasons import Reason
from scopeguard.spec import introspection, token_review, tokeninfo
from scopeguard.spec.outage_statuses import DOWN_OR_BUSY
from scopeguard.state.introspection import IntrospectionState
from scopeguard.state.issuers import IssuerRecord

_NOT_A_REVIEWER: Final = (
    "the API server refuses the service account of this API; its token must be valid, and the account needs the "
    "cluster role system:auth-delegator"
)


def ask_authority(
    credential: Credential, record: IssuerRecord, state: IntrospectionState, clock: Clock
) -> Flow[Mapping[str, Any] | None]:
    """Ask the authorization server about *credential*. Return the members of its answer, ``None`` for "not active".

    Any other response is an outage, not a verdict on the token. A 401 means that the credentials of this API are wrong
    (RFC 7662 section 2.3), though some authorization servers send it for an unknown token. The ``blame`` of the error
    says which.
    """
    issuer, settings = record.issuer, state.settings
    endpoint = settings.endpoint
    if endpoint is not None and settings.dialect is Dialect.KUBERNETES_TOKEN_REVIEW:
        return (yield from review_token(credential, endpoint, record, state, clock))
    if endpoint is not None and settings.dialect is not Dialect.RFC7662:
        return (yield from ask_token_info(credential, endpoint, record, state, clock))
    if endpoint is None:
        metadata = yield from discover(record, clock, lambda found: introspection.has_endpoint(found, settings))
        endpoint = introspection.endpoint_of(
            metadata, settings, issuer.internal_hosts, issuer.insecure_http_dangerously
        )
    make = partial(introspection_request, credential, endpoint, record, state, clock)
    answer = yield from send_with_bearer(make, record, state, clock)
    if answer.status in (400, 401, 403):
        works = state.throttle.has_answered_recently(clock.monotonic())
        ours = introspection.refuses_client(answer.body) and not works
        failure = unusable_answer(record, endpoint, introspection.STATUS_HINTS[answer.status], status=answer.status)
        failure.blame = Blame.AUTHORITY if ours else Blame.TOKEN
        raise failure
    try:
        if not settings.signed:
            return introspection.read_answer(read_content(answer, endpoint, record, clock))
        signed = introspection.read_signed(
            read_content(answer, endpoint, record, clock), answer.headers, issuer, settings, clock.wall()
        )
        try:
            yield from verify_signature(signed, record, clock)
        except AuthorityUnavailable as error:
            error.blame = Blame.KEYS
            raise
        return introspection.active_members(signed.claims["token_introspection"])
    except (introspection.MalformedAnswer, InvalidToken) as unfit:
        problem = f"its answer cannot be used: {unfit}"
    raise unusable_answer(record, endpoint, problem)


def read_content(answer: Answer, endpoint: str, record: IssuerRecord, clock: Clock) -> bytes:
    """Return the body of *answer*: a 200 response with JSON, or any 200 response if answers are signed."""
    state, authority = record.introspection, record.issuer.url
    try:
        if state is None or not state.settings.signed:
            return json_body(answer, endpoint, authority, clock)
        check_status(answer, endpoint, authority, clock)
        return answer.body
    except AuthorityUnavailable as error:
        error.blame = Blame.AUTHORITY if answer.status in DOWN_OR_BUSY else Blame.TOKEN
        raise


def unusable_answer(record: IssuerRecord, endpoint: str, problem: str, *, status: int = 200) -> AuthorityUnavailable:
    """Return the error for a response that says nothing about the token but may have been caused by it."""
    error = AuthorityUnavailable(
        Reason.AUTHORITY_ANSWER_INVALID, record.issuer.url, url=endpoint, status=status, problem=problem
    )
    error.blame = Blame.TOKEN
    return error


def exchange(request: Send) -> Flow[Answer]:
    """Send *request*, which contains a token that a stranger may have chosen, and return the response.

    A token cannot cause a failure to connect. It can cause a response that is too large or too late.
    """
    try:
        return (yield from ask(request))
    except AuthorityUnavailable as error:
        match error.reason:
            case Reason.AUTHORITY_TIMED_OUT:
                ambiguous = error.sent is not False
            case Reason.AUTHORITY_UNREACHABLE:
                ambiguous = error.sent is True
            case _:
                ambiguous = True
        error.blame = Blame.TOKEN if ambiguous else Blame.AUTHORITY
        raise


def send_with_bearer(
    make: Callable[[str], Send], record: IssuerRecord, state: IntrospectionState, clock: Clock
) -> Flow[Answer]:
    """Send the request that *make* returns for the bearer token of this API, and return the response.

    If the response is a 401 and a function returns the bearer token, the request is sent once more with a new one.
    """
    bearer = yield from bearer_token(record, state)
    answer = yield from exchange(make(bearer))
    is_renewable = callable(state.settings.bearer_token)
    if answer.status == 401 and is_renewable and state.bearer.refuse(bearer, clock.monotonic()):
        renewed = yield from bearer_token(record, state)
        if renewed != bearer:
            answer = yield from exchange(make(renewed))
    return answer


def introspection_request(
    credential: Credential, endpoint: str, record: IssuerRecord, state: IntrospectionState, clock: Clock, bearer: str
) -> Send:
    """Return the request about *credential*. *bearer* is the bearer token of this API, empty without one."""
    settings, authority = state.settings, record.issuer.url
    proof = introspection.proof(
        settings, state.key, authority, now=clock.wall(), identifier=state.new_id(), bearer=bearer
    )
    return Send(
        url=endpoint,
        authority=authority,
        accept=introspection.SIGNED if settings.signed else introspection.JSON,
        form=introspection.request_form(credential.token, proof, settings.token_type_hint),
        authorization=proof.authorization,
        ca_file=settings.ca_file,
        insecure=record.issuer.insecure_http_dangerously,
        timeout=settings.timeout,
        retries=settings.retries,
        # RFC 7523 section 3: the server may reject an assertion with a "jti" that it has seen.
        renew=None
        if state.key is None
        else partial(introspection_request, credential, endpoint, record, state, clock, bearer),
    )


def bearer_token(record: IssuerRecord, state: IntrospectionState) -> Flow[str]:
    """Return the bearer token for introspection: the configured one, or the last result of the configured function."""
    source = state.settings.bearer_token
    if not callable(source):
        return source or ""
    return (
        yield from own_bearer(
            source,
            state.bearer,
            authority=record.issuer.url,
            setting="introspection.bearer_token",
            # At most one renewal in five seconds, whatever strangers send; but they may name many new issuers.
            priority=not record.newcomer,
            account=record.account,
        )
    )


def ask_token_info(
    credential: Credential, endpoint: str, record: IssuerRecord, state: IntrospectionState, clock: Clock
) -> Flow[Mapping[str, Any] | None]:
    """Ask a token-info endpoint about *credential*. Return claims in the terms of RFC 7662, ``None`` for "not active".

    The token is sent as the bearer token, because a URL ends up in logs. Google's endpoint (POST, as in Google's client
    library) rejects an invalid token with 400. GitLab's endpoint (GET) does so with 401, which cannot be about other
    credentials, since none are sent.
    """
    google = state.settings.dialect is Dialect.GOOGLE_TOKENINFO
    answer = yield from exchange(
        Send(
            url=endpoint,
            authority=record.issuer.url,
            form=() if google else None,
            authorization=f"Bearer {credential.token}",
            ca_file=state.settings.ca_file,
            insecure=record.issuer.insecure_http_dangerously,
            timeout=state.settings.timeout,
            retries=state.settings.retries,
        )
    )
    if answer.status == (400 if google else 401) and tokeninfo.is_refusal(answer.body):
        return None
    try:
        read = tokeninfo.read if google else tokeninfo.read_gitlab
        return read(read_content(answer, endpoint, record, clock), clock.wall())
    except tokeninfo.MalformedInfo as error:
        problem = str(error)
    raise unusable_answer(record, endpoint, problem)


def review_token(
    credential: Credential, endpoint: str, record: IssuerRecord, state: IntrospectionState, clock: Clock
) -> Flow[Mapping[str, Any] | None]:
    """Ask the TokenReview API of Kubernetes about a token. Return its claims in the terms of RFC 7662, or ``None``.

    A 401 or 403 is about the service account of this API, never about the token.
    """
    issuer, settings = record.issuer, state.settings
    content = token_review.content(credential.token, issuer.audiences or ())

    def make(bearer: str) -> Send:
        return Send(
            url=endpoint,
            authority=issuer.url,
            content=content,
            authorization=f"Bearer {bearer}",
            ca_file=settings.ca_file,
            insecure=issuer.insecure_http_dangerously,
            timeout=settings.timeout,
            retries=settings.retries,
        )

    answer = yield from send_with_bearer(make, record, state, clock)
    if answer.status in (401, 403):
        failure = unusable_answer(record, endpoint, _NOT_A_REVIEWER, status=answer.status)
        failure.blame = Blame.AUTHORITY
        raise failure
    if answer.status == 201:  # the API server has "created" the review
        answer = replace(answer, status=200)
    try:
        return token_review.read(read_content(answer, endpoint, record, clock))
    except token_review.MalformedReview as error:
        problem = str(error)
    raise unusable_answer(record, endpoint, problem)
