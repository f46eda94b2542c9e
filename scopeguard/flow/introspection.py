"""Introspection (RFC 7662): one introspection request about a token for all requests that carry it."""

from __future__ import annotations

from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable, Blame, InvalidToken
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import (
    Flow,
    Lane,
    SingleFlight,
    UseStore,
    ask,
)
from scopeguard.flow.introspection_requests import ask_authority
from scopeguard.flow.issuers import longest_search
from scopeguard.flow.keys import longest_fetch
from scopeguard.flow.revocation import stable_part, sync_if_due
from scopeguard.flow.waiting_times import HOOK_TIMEOUT, QUEUE_TIMEOUT, longest_exchange
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.spec import introspection, jwt
from scopeguard.spec.answers import time_left
from scopeguard.state.introspection import IntrospectionAnswer, IntrospectionState
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.revocation import Revocations
from scopeguard.tokens import AccessToken


def introspect(credential: Credential, record: IssuerRecord, context: Context) -> Flow[AccessToken]:
    """Return the access token that the authorization server describes for *credential* (RFC 7662).

    An answer is cached and shared by all requests with the same token and configuration, across processes if there is
    a store. Its claims are checked for every request. A failing store is ignored. A token that was revoked by its text
    is denied without an introspection request, even during an outage of the authorization server.
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
    fetched: list[IntrospectionAnswer] = []

    def usable() -> IntrospectionAnswer | None:
        known = state.cache.lookup(key, clock.monotonic())
        return None if known is None or is_outdated(known, record, revocations) else known

    def fetch() -> Flow[tuple[str, ...]]:
        fetched.append((yield from fetch_answer(credential, key, record, state, context)))
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
                # Without "fetched", an uncached answer (ttl = 0) would be requested again and again.
                needed=lambda: (
                    not fetched and usable() is None and not (shares and state.cache.failures.failed_since(key, began))
                ),
                flow=fetch,
                # The key holds the whole digest, which names the entry in the store; logs show the fingerprint only.
                label=f"introspection of token {fingerprint(credential.token)} at {record.issuer.url}",
                lane=Lane.INTROSPECTION,
                priority=key in state.accepted,  # a stranger cannot make up a token that was accepted
                account=record.account,
                deadline=longest_introspection(record.issuer, settings),
            )
        )
        known = fetched[0] if fetched else usable()
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
    """Return the longest time, in seconds, that a caller waits for an answer, including the queue and every exchange.

    Callers wait no longer for the function that returns the bearer token, which has no time limit of its own.
    """
    exchange = longest_exchange(settings.timeout, settings.retries)
    seconds = QUEUE_TIMEOUT + exchange
    if callable(settings.bearer_token):  # after a 401, the function is called and the request sent once more
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
    pause = state.throttle.pause(clock.monotonic(), accepted=accepted) or state.breaker.pause(clock.monotonic())
    if pause > 0:
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, record.issuer.url, retry_after=pause)
    at, asked = clock.wall(), clock.monotonic()
    try:
        members = yield from ask_authority(credential, record, state, clock)
    except AuthorityUnavailable as error:
        record_failure(error, key, state, clock.monotonic(), accepted=accepted)
        raise
    state.breaker.succeed()
    state.throttle.succeed(clock.monotonic())
    lasting, seconds = members, introspection.seconds_left(members, clock.wall())
    if seconds <= -record.issuer.leeway:
        lasting, seconds = None, float("inf")  # the answer says "active" but has expired by its own "exp"
    now = clock.monotonic()
    keep = min(time_left(settings.negative_ttl if lasting is None else settings.ttl, now - asked), seconds)
    state.cache.absorb(key, IntrospectionAnswer(lasting, at), now, lifetime=keep)
    if issuers.shared and keep > 0:
        written = introspection.write_entry(lasting, clock.wall() + keep, at)
        try:
            yield from ask(UseStore(lambda store: store.put(name, written, seconds=keep)))
        except AuthorityUnavailable:
            pass  # other processes will send introspection requests of their own
    return IntrospectionAnswer(members, at)


def record_failure(
    error: AuthorityUnavailable, key: bytes, state: IntrospectionState, now: float, *, accepted: bool
) -> None:
    """Pause introspection, of this token or of all, as *error* requires; set its ``retry_after``.

    A failure that the token may have caused must not stop the introspection of other tokens, because strangers choose
    such tokens.
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
            outage = state.throttle.fail(key, now, accepted=accepted, timed_out=timed_out)
            pause = state.cache.failures.fail(key, now, pauses=outage == 0.0) or outage
            error.retry_after = max(pause, error.retry_after or 0.0)
