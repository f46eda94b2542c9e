"""An evaluation request to a policy decision point (AuthZEN Authorization API 1.0), and the decision in its answer."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from scopeguard.config.answer_limits import LARGEST_DECISION
from scopeguard.config.authzen import AuthZen
from scopeguard.errors import AuthorityUnavailable, Blame, PolicyUnavailable
from scopeguard.flow.answers import json_body
from scopeguard.flow.effects import (
    Answer,
    CallHook,
    Clock,
    Flow,
    Lane,
    Send,
    SingleFlight,
    ask,
)
from scopeguard.flow.own_bearer import own_bearer
from scopeguard.flow.waiting_times import HOOK_TIMEOUT, QUEUE_TIMEOUT, longest_exchange
from scopeguard.reasons import Reason
from scopeguard.request import PolicyRequest
from scopeguard.spec import authzen, credentials
from scopeguard.spec.authzen import EvaluationRequest, MalformedDecision, Outcome
from scopeguard.spec.outage_statuses import DOWN_OR_BUSY
from scopeguard.state.authzen import DecisionPoint
from scopeguard.tokens import AccessToken


def evaluate(point: DecisionPoint, token: AccessToken, request: PolicyRequest, clock: Clock) -> Flow[bool]:
    """Return ``True`` if the decision point permits *request*, whose verified token is *token*.

    Raises the denial otherwise, and :class:`PolicyUnavailable` if there is no decision: a failure to get one is never
    a denial. A decision is kept for ``ttl`` seconds, but not longer than *token* is valid.
    """
    settings = point.settings
    evaluation = authzen.build_evaluation_request(settings, token, request)
    outcome = point.decisions.lookup(evaluation.digest, clock.monotonic())
    if outcome is None:
        outcomes: list[Outcome] = []
        asked = clock.monotonic()

        def find_outcome() -> Flow[tuple[str, ...]]:
            nonlocal asked
            asked = clock.monotonic()  # the decision is as old as its request
            sentences, found = yield from fetch_decision(point, evaluation, failure_key(token, request), clock)
            outcomes.append(found)
            return sentences

        try:
            yield from ask(
                SingleFlight(
                    key=f"decision {point.new_id()}",
                    authority=settings.url,
                    needed=lambda: not outcomes,
                    flow=find_outcome,
                    label=f"decision by {settings.url}",
                    lane=Lane.DECISIONS,
                    deadline=longest_evaluation(settings),
                )
            )
        except AuthorityUnavailable as error:
            raise as_policy_unavailable(error, settings) from None
        (outcome,) = outcomes
        left = float("inf") if token.expires_at is None else token.expires_at - clock.wall()
        now = clock.monotonic()
        point.decisions.keep(evaluation.digest, outcome, now, lifetime=left, age=now - asked)
    if outcome.permits:
        return True
    raise authzen.denial_of(outcome, settings)


def as_policy_unavailable(error: AuthorityUnavailable, settings: AuthZen) -> PolicyUnavailable:
    """Return *error*, the failure of an exchange or of a lane, as the failure to get a decision."""
    unavailable = PolicyUnavailable(settings.url, cause=error.reason, retry_after=error.retry_after)
    unavailable.take_facts(error)
    return unavailable


def longest_evaluation(settings: AuthZen) -> float:
    """Return the longest time, in seconds, that a caller waits for a decision: in the queue and for all exchanges."""
    exchange = longest_exchange(settings.timeout, settings.retries)
    seconds = QUEUE_TIMEOUT + exchange
    if settings.discover:
        seconds += exchange
    if settings.authentication is not None and not isinstance(settings.authentication, str):
        seconds += exchange + 2 * HOOK_TIMEOUT  # after a 401, the function is called and the request sent once more
    return seconds


def failure_key(token: AccessToken, request: PolicyRequest) -> bytes:
    """Return the key for failures that an evaluation request may have caused: a digest of issuer, subject and route."""
    parts = (token.issuer, authzen.subject_of(token) or "", request.route)
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def fetch_decision(
    point: DecisionPoint, evaluation: EvaluationRequest, key: bytes, clock: Clock
) -> Flow[tuple[tuple[str, ...], Outcome]]:
    """Send *evaluation* unless evaluation requests pause. Return sentences for the log, and the decision.

    They pause while the decision point is down, and while it fails on requests with the same failure *key*.
    """
    settings, now = point.settings, clock.monotonic()
    pause = point.failures.pause(key, now)
    pause = pause or point.throttle.pause(now, accepted=True) or point.breaker.pause(now)
    if pause > 0:
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, settings.url, retry_after=pause)
    try:
        sentences, outcome = yield from ask_point(point, evaluation, clock)
    except AuthorityUnavailable as error:
        record_failure(error, point, key, clock.monotonic())
        raise
    point.breaker.succeed()
    point.throttle.succeed(clock.monotonic())
    point.failures.succeed(key)
    return sentences, outcome


def record_failure(error: AuthorityUnavailable, point: DecisionPoint, key: bytes, now: float) -> None:
    """Pause evaluation requests as *error* requires, and set its ``retry_after``.

    A request can cause a timeout, for example with a path that a policy handles badly. So such a failure pauses only
    requests with the same *key*, unless those of several keys fail without an answer in between.
    """
    if error.blame is Blame.AUTHORITY:
        point.breaker.fail(now, retry_after=error.retry_after)
        point.endpoint.forget()
        return
    point.breaker.succeed()
    if error.blame is Blame.TOKEN:
        timed_out = error.reason is Reason.AUTHORITY_TIMED_OUT
        outage = point.throttle.fail(key, now, accepted=True, timed_out=timed_out)
        error.retry_after = max(point.failures.fail(key, now), outage, error.retry_after or 0.0)


def ask_point(
    point: DecisionPoint, evaluation: EvaluationRequest, clock: Clock
) -> Flow[tuple[tuple[str, ...], Outcome]]:
    """Send *evaluation*. Return sentences for the log, and the decision.

    Everything but a decision raises :class:`AuthorityUnavailable`. Its ``blame`` is ``AUTHORITY`` if the decision point
    is down, ``TOKEN`` if the request may be the cause, and ``KEYS`` if there was a response, so that no pause follows.
    """
    settings = point.settings
    endpoint = yield from find_endpoint(point, clock)
    bearer, fetched = yield from own_token(point)
    identifier = point.new_id()
    answer = yield from send_evaluation(point, endpoint, evaluation, bearer, identifier)
    if answer.status == 401 and may_renew(point, bearer, fetched, clock):
        renewed, _ = yield from own_token(point)
        if renewed != bearer:
            answer = yield from send_evaluation(point, endpoint, evaluation, renewed, identifier)
    try:
        body = json_body(answer, endpoint, settings.url, clock)
    except AuthorityUnavailable as error:
        if answer.status in DOWN_OR_BUSY or answer.status == 408:
            error.blame = Blame.AUTHORITY
        else:
            error.blame = Blame.TOKEN if answer.status >= 500 else Blame.KEYS
        raise
    try:
        outcome = authzen.parse_answer(body, evaluation, settings)
    except MalformedDecision as malformed:
        unusable = AuthorityUnavailable(
            Reason.AUTHORITY_ANSWER_INVALID, settings.url, url=endpoint, problem=str(malformed)
        )
        unusable.blame = Blame.KEYS
        raise unusable from None
    return compare_identifiers(point, answer, identifier, clock), outcome


def compare_identifiers(point: DecisionPoint, answer: Answer, identifier: str, clock: Clock) -> tuple[str, ...]:
    """Return a sentence for the log if the request identifier in *answer* is not *identifier*, that of the request."""
    found = answer.headers.get(authzen.REQUEST_ID)
    if found is None or found == identifier or point.lines.spend(authzen.REQUEST_ID, clock.monotonic()) is None:
        return ()
    return (f"{point.settings.url}: the X-Request-ID of the answer differs from that of the request, {identifier}",)


def send_evaluation(
    point: DecisionPoint, endpoint: str, evaluation: EvaluationRequest, bearer: str, identifier: str
) -> Flow[Answer]:
    """Send *evaluation* to *endpoint* and return the response.

    An evaluation request cannot cause a failure to connect. It can cause a response that is too large or too late.
    """
    settings = point.settings
    try:
        return (
            yield from ask(
                Send(
                    url=endpoint,
                    authority=settings.url,
                    content=evaluation.body,
                    headers=((authzen.REQUEST_ID, identifier),),
                    authorization=f"Bearer {bearer}" if bearer else None,
                    insecure=settings.insecure_http_dangerously,
                    limit=LARGEST_DECISION,
                    timeout=settings.timeout,
                    retries=settings.retries,
                )
            )
        )
    except AuthorityUnavailable as error:
        not_sent = error.sent is False or (error.sent is None and error.reason is Reason.AUTHORITY_UNREACHABLE)
        error.blame = Blame.AUTHORITY if not_sent else Blame.TOKEN
        raise


def find_endpoint(point: DecisionPoint, clock: Clock) -> Flow[str]:
    """Return the URL of the endpoint: a fixed path, or what the metadata of the decision point names."""
    settings = point.settings
    if not settings.discover:
        return authzen.endpoint_of(settings)
    known = point.endpoint.current(clock.monotonic())
    if known is not None:
        return known
    url = authzen.metadata_url(settings.url)
    answer = yield from ask(
        Send(
            url=url,
            authority=settings.url,
            insecure=settings.insecure_http_dangerously,
            limit=LARGEST_DECISION,
            timeout=settings.timeout,
            retries=settings.retries,
        )
    )
    body = json_body(answer, url, settings.url, clock)
    try:
        found = authzen.parse_metadata(body, settings, settings.insecure_http_dangerously)
    except MalformedDecision as malformed:
        problem = str(malformed)
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, settings.url, url=url, problem=problem) from None
    point.endpoint.keep(found, clock.monotonic())
    return found


def own_token(point: DecisionPoint) -> Flow[tuple[str, Any]]:
    """Return the token by which this API authenticates, ``""`` without authentication.

    The second value is the token as its client returned it, ``None`` without a client. The evaluation request cannot
    cause a failure to get a token, so this failure pauses all of them.
    """
    source, url = point.settings.authentication, point.settings.url
    if source is None or isinstance(source, str):
        return source or "", None
    if callable(source):
        return (yield from own_bearer(source, point.bearer, authority=url, setting="authzen.authentication")), None
    try:
        fetched = yield from ask(CallHook(source.token))
        text = fetched.access_token
    except Exception as error:  # noqa: BLE001 - the client has exceptions of its own
        problem = f"authzen.authentication raised {type(error).__name__}"
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, url, problem=problem) from None
    if not credentials.is_token(text):
        problem = "authzen.authentication returned no token"
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, url, problem=problem)
    return text, fetched


def may_renew(point: DecisionPoint, bearer: str, fetched: Any, clock: Clock) -> bool:
    """Record that the decision point refused our token. Return whether there may be a newer one."""
    source = point.settings.authentication
    if source is None or isinstance(source, str):
        return False
    if callable(source):
        return point.bearer.refuse(bearer, clock.monotonic())
    return source.refuse(fetched)
