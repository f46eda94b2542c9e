"""Asking the authorization server about a token, once for all who carry it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scopeguard.access_token import AccessToken, fingerprint
from scopeguard.config.introspection import Dialect, Introspection
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable, Blame, InvalidToken, Reason
from scopeguard.flow.credential import Credential
from scopeguard.flow.effects import (
    HOOK_PATIENCE,
    LONGEST_RETRY_PAUSE,
    TURN,
    Answer,
    CallHook,
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
from scopeguard.flow.responses import check_status, json_body
from scopeguard.flow.revocation import stable_part, sync_if_due
from scopeguard.spec import credentials, introspection, jwt, tokeninfo
from scopeguard.state.introspection import IntrospectionAnswer, IntrospectionState
from scopeguard.state.issuers import TrustedIssuer, TrustedIssuers

# Statuses that say that the authority, or the gateway before it, is down or busy, whatever it was asked.
_ABOUT_THE_AUTHORITY: Final = frozenset((429, 502, 503, 504))


def introspect(credential: Credential, trust: TrustedIssuer, trusts: TrustedIssuers, clock: Clock) -> Flow[AccessToken]:
    """*credential* as its authority describes it now, or did a moment ago (RFC 7662).

    An answer is shared by everybody who asks about the same token under the same configuration, across processes if
    there is a store; it is judged by each of them (I-10 to I-15). A store that fails is passed over. What was revoked
    by its own text is refused whatever the authority would say, and whether or not it can say anything.
    """
    state = trust.introspection
    if state is None:  # whoever routed here would have asked somebody who is not to be asked
        raise InvalidToken(Reason.UNKNOWN_ISSUER)
    try:
        yield from sync_if_due(trusts, clock)
    except AuthorityUnavailable:
        pass  # whether that is an outage is asked at the end, of a token that is good
    if trusts.revocations.names(trust.issuer.url, stable_part(credential)):
        raise InvalidToken(Reason.TOKEN_REVOKED)
    settings = state.settings
    key = introspection.digest(credential.token, state.context)
    began = clock.monotonic()
    landed: list[IntrospectionAnswer] = []

    def usable() -> IntrospectionAnswer | None:
        known = state.cache.lookup(key, clock.monotonic())
        return None if known is None or is_outdated(known, trust, trusts) else known

    def fly() -> Flow[tuple[str, ...]]:
        landed.append((yield from fetch_answer(credential, key, trust, state, trusts, clock)))
        return ()

    known = usable()
    waited = known is None
    if known is None:
        pause = state.cache.pause(key, began)
        if pause > 0:
            raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, trust.issuer.url, retry_after=pause)
        shares = settings.ttl > 0
        yield from ask(
            SingleFlight(
                key=f"answer {key.hex()}" if shares else f"answer {state.new_id()}",
                authority=trust.issuer.url,
                # Without "landed", an answer that is not kept (ttl = 0) would be asked for again and again.
                needed=lambda: (
                    not landed and usable() is None and not (shares and state.cache.failed_since(key, began))
                ),
                flow=fly,
                # The key holds the whole digest, which stores use as a name; logs show the fingerprint, as everywhere.
                label=f"introspection of token {fingerprint(credential.token)} at {trust.issuer.url}",
                lane=Lane.INTROSPECTION,
                priority=key in state.accepted,  # strangers can make up tokens, but none that was accepted
                account=trust.account,
                deadline=longest_introspection(trust.issuer, settings),
            )
        )
        known = landed[0] if landed else usable()
        if known is None:
            pause = state.cache.pause(key, clock.monotonic())
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, trust.issuer.url, retry_after=pause or None)
    if known.members is None:
        state.accepted.discard(key)
        raise InvalidToken(Reason.TOKEN_NOT_ACTIVE)
    described = introspection.as_claims(known.members, fingerprint(credential.token))
    introspection.check_answer(described, trust.issuer, clock.wall(), audience_required=settings.require_audience)
    access = jwt.accept(described, trust.issuer, trust.vocabulary)
    if waited:
        state.accepted.add(key)
    return access


def longest_introspection(issuer: Issuer, settings: Introspection) -> float:
    """How long a caller waits for an answer at most, in seconds: for its turn, then as long as the time limits of all
    exchanges allow that may be needed. A function that returns our own token has no time limit but its waiters'."""
    calls = 1 + settings.retries
    exchange = calls * settings.timeout + settings.retries * LONGEST_RETRY_PAUSE
    seconds = TURN + exchange
    if callable(settings.bearer_token):  # asked for again when the authority refuses it, and then the question too
        seconds += exchange + 2 * HOOK_PATIENCE
    if settings.endpoint is None:
        seconds += longest_search(issuer)
    if settings.signed:
        seconds += longest_fetch(issuer)
    return seconds


def is_outdated(known: IntrospectionAnswer, trust: TrustedIssuer, trusts: TrustedIssuers) -> bool:
    """Whether something has happened to the subject of *known* since (E-16). "Not active" is about nobody."""
    if known.members is None:
        return False
    subject = jwt.subject_of(known.members, trust.issuer)
    return trusts.revocations.outdates(trust.issuer.url, subject, known.asked_at)


def fetch_answer(
    credential: Credential,
    key: bytes,
    trust: TrustedIssuer,
    state: IntrospectionState,
    trusts: TrustedIssuers,
    clock: Clock,
) -> Flow[IntrospectionAnswer]:
    """The answer of the shared store, else of the authority; remembered here and there."""
    settings = state.settings
    name = f"answer:{key.hex()}"
    if trusts.shared and settings.ttl > 0:
        try:
            entry = yield from ask(UseStore(lambda store: store.get(name)))
            found, seconds, at = introspection.read_entry(entry, clock.wall())
            kept = IntrospectionAnswer(found, at)
            if not is_outdated(kept, trust, trusts):
                state.cache.absorb(key, kept, clock.monotonic(), lifetime=seconds)
                return kept
        except (AuthorityUnavailable, introspection.MalformedAnswer):
            pass  # the authority knows
    accepted = key in state.accepted
    pause = state.suspicion.pause(clock.monotonic(), accepted=accepted) or state.breaker.pause(clock.monotonic())
    if pause > 0:
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, trust.issuer.url, retry_after=pause)
    at = clock.wall()
    try:
        members = yield from ask_authority(credential, trust, state, clock)
    except AuthorityUnavailable as error:
        record_failure(error, key, state, clock.monotonic(), accepted=accepted)
        raise
    state.breaker.succeed()
    state.suspicion.succeed(clock.monotonic())
    lasting, seconds = members, introspection.remaining(members, clock.wall())
    if seconds <= -trust.issuer.leeway:
        lasting, seconds = None, float("inf")  # "active", and by its own date it is not
    state.cache.absorb(key, IntrospectionAnswer(lasting, at), clock.monotonic(), lifetime=seconds)
    keep = min(settings.negative_ttl if lasting is None else settings.ttl, seconds)
    if trusts.shared and keep > 0:
        written = introspection.write_entry(lasting, clock.wall() + keep, at)
        try:
            yield from ask(UseStore(lambda store: store.put(name, written, seconds=keep)))
        except AuthorityUnavailable:
            pass  # others will ask for themselves
    return IntrospectionAnswer(members, at)


def record_failure(
    error: AuthorityUnavailable, key: bytes, state: IntrospectionState, now: float, *, accepted: bool
) -> None:
    """Leave alone for a while what *error* is due to: the authority, or this one token; and say so in *error*.

    A failure that a token may be the cause of must not stop questions about others: strangers choose such tokens.
    """
    match error.blame:
        case Blame.AUTHORITY:
            state.breaker.fail(now, retry_after=error.retry_after)
            state.cache.fail(key, now)
        case Blame.KEYS:
            state.breaker.succeed()
            state.cache.fail(key, now)
        case _:
            state.breaker.succeed()
            timed_out = error.reason is Reason.AUTHORITY_TIMED_OUT
            outage = state.suspicion.fail(key, now, accepted=accepted, timed_out=timed_out)
            pause = state.cache.fail(key, now, alone=outage == 0.0) or outage
            error.retry_after = max(pause, error.retry_after or 0.0)


def ask_authority(
    credential: Credential, trust: TrustedIssuer, state: IntrospectionState, clock: Clock
) -> Flow[Mapping[str, Any] | None]:
    """What the authority says of *credential*: the members of its answer, ``None`` for "not active".

    An answer that is none is an outage, not a verdict: its 401 means that our credentials are wrong (I-17 to I-20), or
    that it does not know the token, as some authorities say it. The ``blame`` of the error tells what may be the cause.
    """
    issuer, settings = trust.issuer, state.settings
    endpoint = settings.endpoint
    if endpoint is not None and settings.dialect is not Dialect.RFC7662:
        return (yield from ask_token_info(credential, endpoint, trust, state, clock))
    if endpoint is None:
        metadata = yield from discover(trust, clock, lambda found: introspection.has_endpoint(found, settings))
        endpoint = introspection.endpoint_of(
            metadata, settings, issuer.internal_hosts, issuer.insecure_http_dangerously
        )
    bearer = yield from bearer_token(trust, state)
    answer = yield from send_question(credential, endpoint, bearer, trust, state, clock)
    if answer.status == 401 and callable(settings.bearer_token) and state.bearer.refuse(bearer, clock.monotonic()):
        renewed = yield from bearer_token(trust, state)
        if renewed != bearer:
            answer = yield from send_question(credential, endpoint, renewed, trust, state, clock)
    if answer.status in (400, 401, 403):
        ours = introspection.refuses_client(answer.body) and not state.suspicion.answered_recently(clock.monotonic())
        failure = unusable_answer(trust, endpoint, introspection.COMPLAINTS[answer.status], status=answer.status)
        failure.blame = Blame.AUTHORITY if ours else Blame.TOKEN
        raise failure
    try:
        if not settings.signed:
            return introspection.read_answer(read_content(answer, endpoint, trust, clock))
        signed = introspection.read_signed(
            read_content(answer, endpoint, trust, clock), answer.headers, issuer, settings, clock.wall()
        )
        try:
            yield from verify_signature(signed, trust, clock)
        except AuthorityUnavailable as error:
            error.blame = Blame.KEYS
            raise
        return introspection.active_members(signed.claims["token_introspection"])
    except (introspection.MalformedAnswer, InvalidToken) as unfit:
        problem = f"its answer cannot be used: {unfit}"
    raise unusable_answer(trust, endpoint, problem)


def read_content(answer: Answer, endpoint: str, trust: TrustedIssuer, clock: Clock) -> bytes:
    """The body of *answer*, a 200 with JSON, or with whatever a signed answer is checked for."""
    state, authority = trust.introspection, trust.issuer.url
    try:
        if state is None or not state.settings.signed:
            return json_body(answer, endpoint, authority, clock)
        check_status(answer, endpoint, authority, clock)
        return answer.body
    except AuthorityUnavailable as error:
        error.blame = Blame.AUTHORITY if answer.status in _ABOUT_THE_AUTHORITY else Blame.TOKEN
        raise


def unusable_answer(trust: TrustedIssuer, endpoint: str, problem: str, *, status: int = 200) -> AuthorityUnavailable:
    """The outage for an answer that says nothing about the token, which may be due to the token."""
    error = AuthorityUnavailable(
        Reason.AUTHORITY_ANSWERED_NONSENSE, trust.issuer.url, url=endpoint, status=status, problem=problem
    )
    error.blame = Blame.TOKEN
    return error


def exchange(question: Send) -> Flow[Answer]:
    """The answer to *question*, which contains a token that a stranger may have chosen.

    A failure to connect cannot be due to the token. An answer that is too large or does not come in time can.
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
    credential: Credential, endpoint: str, bearer: str, trust: TrustedIssuer, state: IntrospectionState, clock: Clock
) -> Flow[Answer]:
    """What *endpoint* answers to the question about *credential*; *bearer* is our own token, if that is who we are."""
    settings, authority = state.settings, trust.issuer.url
    proof = introspection.proof(
        settings, state.key, authority, now=clock.wall(), identifier=state.new_id(), bearer=bearer
    )
    return (
        yield from exchange(
            Send(
                url=endpoint,
                authority=authority,
                accept=introspection.SIGNED if settings.signed else introspection.JSON,
                form=introspection.question(credential.token, proof, settings.token_type_hint),
                authorization=proof.authorization,
                insecure=trust.issuer.insecure_http_dangerously,
                timeout=settings.timeout,
                retries=settings.retries,
            )
        )
    )


def bearer_token(trust: TrustedIssuer, state: IntrospectionState) -> Flow[str]:
    """The token with which questions are asked: the configured one, or what the operator's function returned last.

    That is called once for all who wait. Whatever it raises is an outage: no token was judged (law 4).
    """
    source, held, authority = state.settings.bearer_token, state.bearer, trust.issuer.url
    if not callable(source):
        return source or ""
    seen, token = held.generation, held.token
    if token is not None:
        return token

    def failure(problem: str) -> AuthorityUnavailable:
        return AuthorityUnavailable(
            Reason.AUTHORITY_UNREACHABLE, authority, problem=f"introspection.bearer_token {problem}"
        )

    def fetch() -> Flow[tuple[str, ...]]:
        try:
            found = yield from ask(CallHook(source))
        except Exception as error:  # noqa: BLE001 - a function of the operator's; its text might hold a secret
            held.fail()
            raise failure(f"raised {type(error).__name__}") from None
        if not credentials.is_token(found):
            held.fail()
            raise failure("returned no token; a string is needed, of visible ASCII without commas and quotes")
        held.keep(found)
        return ()

    yield from ask(
        SingleFlight(
            key=f"bearer token for {authority}",
            authority=authority,
            needed=lambda: held.generation == seen,
            flow=fetch,
            lane=Lane.HOOKS,
            # At most one renewal in five seconds, whatever strangers send; but they may name many new issuers.
            priority=not trust.newcomer,
            account=trust.account,
            deadline=HOOK_PATIENCE,
        )
    )
    if held.token is None:
        raise failure("failed a moment ago, for another request")
    return held.token


def ask_token_info(
    credential: Credential, endpoint: str, trust: TrustedIssuer, state: IntrospectionState, clock: Clock
) -> Flow[Mapping[str, Any] | None]:
    """What a token-info endpoint says of *credential*, in the words of RFC 7662; ``None`` for "not active".

    With the token as the bearer: a token in a URL ends up in logs. Google's, by POST as its own client library asks,
    says 400 to a token that is none; GitLab's, by GET, 401, and nobody else's credentials can be meant by that.
    """
    google = state.settings.dialect is Dialect.GOOGLE_TOKENINFO
    answer = yield from exchange(
        Send(
            url=endpoint,
            authority=trust.issuer.url,
            form=() if google else None,
            authorization=f"Bearer {credential.token}",
            insecure=trust.issuer.insecure_http_dangerously,
            timeout=state.settings.timeout,
            retries=state.settings.retries,
        )
    )
    if answer.status == (400 if google else 401) and tokeninfo.is_refusal(answer.body):
        return None
    try:
        read = tokeninfo.read if google else tokeninfo.read_gitlab
        return read(read_content(answer, endpoint, trust, clock), clock.wall())
    except tokeninfo.MalformedInfo as error:
        problem = str(error)
    raise unusable_answer(trust, endpoint, problem)
