"""Introspection (RFC 7662): one question about a token for all requests that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scopeguard.config.introspection import Dialect, Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable, Blame, InvalidToken
from scopeguard.flow.answers import check_status, json_body
from scopeguard.flow.bearer import own_bearer
from scopeguard.flow.context import Context
from scopeguard.flow.credential import Credential
from scopeguard.flow.effects import (
    HOOK_TIMEOUT,
    LONGEST_RETRY_PAUSE,
    QUEUE_TIMEOUT,
    Answer,
    Clock,
    Flow,
    Lane,
    Send,
    SingleFlight,
    UseStore,
    ask,
)
from scopeguard.flow.issuers import discover, longest_search
from scopeguard.flow.keys import longest_fetch, verify_signature
from scopeguard.flow.revocation import stable_part, sync_if_due
from scopeguard.reasons import Reason
from scopeguard.redaction import fingerprint
from scopeguard.spec import introspection, jwt, tokeninfo
from scopeguard.state.introspection import IntrospectionAnswer, IntrospectionState
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.revocation import Revocations
from scopeguard.tokens import AccessToken

# With these statuses, the authorization server or its gateway is down or busy. The token is not the cause.
_ABOUT_THE_AUTHORITY: Final = frozenset((429, 502, 503, 504))


def introspect(credential: Credential, record: IssuerRecord, context: Context) -> Flow[AccessToken]:
    """Return the access token that the authorization server describes for *credential* (RFC 7662).

    An answer is cached and shared by all requests with the same token and configuration, across processes if there is
    a store. Its claims are checked for every request. A failing store is ignored. A token that was revoked by its text
    is denied without a question, even during an outage of the authorization server.
    """
    state, clock, revocations = record.introspection, context.clock, context.issuers.revocations
    if state is None:  # unreachable: this issuer does not introspect
        raise InvalidToken(Reason.UNKNOWN_ISSUER)
    try:
        yield from sync_if_due(context)
    except AuthorityUnavailable:
        pass  # check_not_revoked() decides about it once the token is known to be valid
    if revocations.names(record.issuer.url, stable_part(credential)):
        raise InvalidToken(Reason.TOKEN_REVOKED, by="its text")
    settings = state.settings
    key = introspection.digest(credential.token, state.context)
    began = clock.monotonic()
    landed: list[IntrospectionAnswer] = []

    def usable() -> IntrospectionAnswer | None:
        known = state.cache.lookup(key, clock.monotonic())
        return None if known is None or is_outdated(known, record, revocations) else known

    def fly() -> Flow[tuple[str, ...]]:
        landed.append((yield from fetch_answer(credential, key, record, state, context)))
        return ()

    known = usable()
    waited = known is None
    if known is None:
        pause = state.cache.failures.pause(key, began)
        if pause > 0:
            raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, record.issuer.url, retry_after=pause)
        shares = settings.ttl > 0
        yield from ask(
            SingleFlight(
                key=f"answer {key.hex()}" if shares else f"answer {state.new_id()}",
                authority=record.issuer.url,
                # Without "landed", an uncached answer (ttl = 0) would be requested again and again.
                needed=lambda: (
                    not landed and usable() is None and not (shares and state.cache.failures.failed_since(key, began))
                ),
                flow=fly,
                # The key holds the whole digest, which names the entry in the store; logs show the fingerprint only.
                label=f"introspection of token {fingerprint(credential.token)} at {record.issuer.url}",
                lane=Lane.INTROSPECTION,
                priority=key in state.accepted,  # a stranger cannot make up a token that was accepted
                account=record.account,
                deadline=longest_introspection(record.issuer, settings),
            )
        )
        known = landed[0] if landed else usable()
        if known is None:
            pause = state.cache.failures.pause(key, clock.monotonic())
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, record.issuer.url, retry_after=pause or None)
    if known.members is None:
        state.accepted.discard(key)
        raise InvalidToken(Reason.TOKEN_NOT_ACTIVE, answered_by=record.issuer.url)
    described = introspection.as_claims(known.members, fingerprint(credential.token))
    introspection.check_answer(described, record.issuer, clock.wall(), audience_required=settings.require_audience)
    access = jwt.accept(described, record.issuer, record.vocabulary)
    if waited:
        state.accepted.add(key)
    return access


def longest_introspection(issuer: Issuer, settings: Introspection) -> float:
    """Return the most seconds that a caller waits for an answer. They include the wait for a place, and every exchange.

    The function that returns the bearer token has no other time limit than that of its callers.
    """
    calls = 1 + settings.retries
    exchange = calls * settings.timeout + settings.retries * LONGEST_RETRY_PAUSE
    seconds = QUEUE_TIMEOUT + exchange
    if callable(settings.bearer_token):  # after a 401, the function is called and the question sent once more
        seconds += exchange + 2 * HOOK_TIMEOUT
    if settings.endpoint is None:
        seconds += longest_search(issuer)
    if settings.signed:
        seconds += longest_fetch(issuer)
    return seconds


def is_outdated(known: IntrospectionAnswer, record: IssuerRecord, revocations: Revocations) -> bool:
    """Return whether an event about the subject of *known* is newer. An inactive answer has no subject."""
    if known.members is None:
        return False
    subject = jwt.subject_of(known.members, record.issuer)
    return revocations.outdates(record.issuer.url, subject, known.asked_at)


def fetch_answer(
    credential: Credential,
    key: bytes,
    record: IssuerRecord,
    state: IntrospectionState,
    context: Context,
) -> Flow[IntrospectionAnswer]:
    """Fetch the answer from the shared store or the authorization server, and cache it in both places."""
    issuers, clock, settings = context.issuers, context.clock, state.settings
    name = f"answer:{key.hex()}"
    if issuers.shared and settings.ttl > 0:
        try:
            entry = yield from ask(UseStore(lambda store: store.get(name)))
            found, seconds, at = introspection.read_entry(entry, clock.wall())
            kept = IntrospectionAnswer(found, at)
            if not is_outdated(kept, record, issuers.revocations):
                state.cache.absorb(key, kept, clock.monotonic(), lifetime=seconds)
                return kept
        except (AuthorityUnavailable, introspection.MalformedAnswer):
            pass  # ask the authorization server instead
    accepted = key in state.accepted
    pause = state.suspicion.pause(clock.monotonic(), accepted=accepted) or state.breaker.pause(clock.monotonic())
    if pause > 0:
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, record.issuer.url, retry_after=pause)
    at = clock.wall()
    try:
        members = yield from ask_authority(credential, record, state, clock)
    except AuthorityUnavailable as error:
        record_failure(error, key, state, clock.monotonic(), accepted=accepted)
        raise
    state.breaker.succeed()
    state.suspicion.succeed(clock.monotonic())
    lasting, seconds = members, introspection.seconds_left(members, clock.wall())
    if seconds <= -record.issuer.leeway:
        lasting, seconds = None, float("inf")  # the answer says "active" but has expired by its own "exp"
    state.cache.absorb(key, IntrospectionAnswer(lasting, at), clock.monotonic(), lifetime=seconds)
    keep = min(settings.negative_ttl if lasting is None else settings.ttl, seconds)
    if issuers.shared and keep > 0:
        written = introspection.write_entry(lasting, clock.wall() + keep, at)
        try:
            yield from ask(UseStore(lambda store: store.put(name, written, seconds=keep)))
        except AuthorityUnavailable:
            pass  # other processes will send questions of their own
    return IntrospectionAnswer(members, at)


def record_failure(
    error: AuthorityUnavailable, key: bytes, state: IntrospectionState, now: float, *, accepted: bool
) -> None:
    """Pause questions to the authorization server or about this token, as *error* requires; set its ``retry_after``.

    A failure that the token may have caused must not stop questions about other tokens, because strangers choose such
    tokens.
    """
    match error.blame:
        case Blame.AUTHORITY:
            state.breaker.fail(now, retry_after=error.retry_after)
            state.cache.failures.fail(key, now, pauses=False)
        case Blame.KEYS:
            state.breaker.succeed()
            state.cache.failures.fail(key, now, pauses=False)
        case _:
            state.breaker.succeed()
            timed_out = error.reason is Reason.AUTHORITY_TIMED_OUT
            outage = state.suspicion.fail(key, now, accepted=accepted, timed_out=timed_out)
            pause = state.cache.failures.fail(key, now, pauses=outage == 0.0) or outage
            error.retry_after = max(pause, error.retry_after or 0.0)


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
    if endpoint is not None and settings.dialect is not Dialect.RFC7662:
        return (yield from ask_token_info(credential, endpoint, record, state, clock))
    if endpoint is None:
        metadata = yield from discover(record, clock, lambda found: introspection.has_endpoint(found, settings))
        endpoint = introspection.endpoint_of(
            metadata, settings, issuer.internal_hosts, issuer.insecure_http_dangerously
        )
    bearer = yield from bearer_token(record, state)
    answer = yield from send_question(credential, endpoint, bearer, record, state, clock)
    if answer.status == 401 and callable(settings.bearer_token) and state.bearer.refuse(bearer, clock.monotonic()):
        renewed = yield from bearer_token(record, state)
        if renewed != bearer:
            answer = yield from send_question(credential, endpoint, renewed, record, state, clock)
    if answer.status in (400, 401, 403):
        works = state.suspicion.has_answered_recently(clock.monotonic())
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
        error.blame = Blame.AUTHORITY if answer.status in _ABOUT_THE_AUTHORITY else Blame.TOKEN
        raise


def unusable_answer(record: IssuerRecord, endpoint: str, problem: str, *, status: int = 200) -> AuthorityUnavailable:
    """Return the error for a response that says nothing about the token but may have been caused by it."""
    error = AuthorityUnavailable(
        Reason.AUTHORITY_ANSWER_INVALID, record.issuer.url, url=endpoint, status=status, problem=problem
    )
    error.blame = Blame.TOKEN
    return error


def exchange(question: Send) -> Flow[Answer]:
    """Send *question*, which contains a token that a stranger may have chosen, and return the response.

    A token cannot cause a failure to connect. It can cause a response that is too large or too late.
    """
    try:
        return (yield from ask(question))
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


def send_question(
    credential: Credential, endpoint: str, bearer: str, record: IssuerRecord, state: IntrospectionState, clock: Clock
) -> Flow[Answer]:
    """Send *credential* to *endpoint*. *bearer* is the token that authenticates this API, if the method needs one."""
    settings, authority = state.settings, record.issuer.url
    proof = introspection.proof(
        settings, state.key, authority, now=clock.wall(), identifier=state.new_id(), bearer=bearer
    )
    return (
        yield from exchange(
            Send(
                url=endpoint,
                authority=authority,
                accept=introspection.SIGNED if settings.signed else introspection.JSON,
                form=introspection.request_form(credential.token, proof, settings.token_type_hint),
                authorization=proof.authorization,
                insecure=record.issuer.insecure_http_dangerously,
                timeout=settings.timeout,
                retries=settings.retries,
            )
        )
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
