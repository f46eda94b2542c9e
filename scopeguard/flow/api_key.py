"""The check of an API key: find it by its id, in the file or with the function ``lookup``, then compare it.

Start with :func:`validate_key`, which :mod:`scopeguard.flow.authenticate` calls instead of the checks of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from types import CoroutineType
from typing import Any

from scopeguard.config.api_keys import ApiKey, LookUp
from scopeguard.config.file_limits import API_KEYS_FILE_TIMEOUT, LARGEST_API_KEYS_FILE
from scopeguard.errors import (
    AccessDenied,
    ApiKeysUnavailable,
    AuthorityUnavailable,
    InvalidApiKey,
    InvalidToken,
)
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import CallApp, CallHook, Clock, Flow, Lane, ReadFile, SingleFlight, T, ask
from scopeguard.flow.observation import Observation, TokenCheck
from scopeguard.flow.revocation import check_not_revoked
from scopeguard.flow.waiting_times import HOOK_TIMEOUT
from scopeguard.reasons import Reason
from scopeguard.spec import api_key
from scopeguard.state.api_keys import PAUSE, ApiKeyState, Call
from scopeguard.tokens import AccessToken


def validate_key(credential: Credential, context: Context, observation: Observation | None) -> Flow[AccessToken]:
    """Return the access token of *credential*, an API key.

    Raises :class:`InvalidApiKey`, and :class:`AuthorityUnavailable` if the keys or the revocations cannot be read.
    """
    state, issuers = context.api_keys, context.issuers
    if state is None:  # unreachable: find_credential() returns keys only if there is a state
        raise InvalidApiKey(Reason.API_KEY_UNKNOWN)
    if observation is not None:
        observation.note(state.grantor.issuer, TokenCheck.VERIFIED)
    access = yield from verify_key(credential.token, state, context.clock)
    if issuers.shared or issuers.revocations.changes:
        try:
            yield from check_not_revoked(access, credential, context)
        except InvalidToken:
            raise InvalidApiKey(Reason.API_KEY_REVOKED, by="Guard.revoke") from None
    return access


def refuse_with_key_challenge(flow: Flow[T], header: str) -> Flow[T]:
    """Run *flow* for a route that accepts API keys only: its denials name the field *header* in their challenge."""
    try:
        return (yield from flow)
    except AccessDenied as error:
        error.api_key_header = header
        raise


def verify_key(text: str, state: ApiKeyState, clock: Clock) -> Flow[AccessToken]:
    """Return the access token of the API key *text*, which has the form of a key.

    Checked: that the key exists, that *text* is the whole key, and that it is neither revoked nor expired. Raises
    :class:`InvalidApiKey`, and :class:`ApiKeysUnavailable` if the keys cannot be read or looked up.
    """
    identifier = api_key.id_of(text)
    try:
        if state.settings.lookup is None:
            key = (yield from read_keys(state, clock)).get(identifier)
        else:
            key = yield from look_up(identifier, state.settings.lookup, state, clock)
        return state.grantor.grant(api_key.check_key(key, text, clock.wall()))
    except (InvalidApiKey, AuthorityUnavailable) as error:
        error.note(key_id=identifier)
        raise


def warm_keys(state: ApiKeyState, clock: Clock) -> Flow[None]:
    """Read the file with the keys, if there is one. The function ``lookup`` is called for requests only."""
    if state.settings.lookup is None:
        yield from read_keys(state, clock)


def read_keys(state: ApiKeyState, clock: Clock) -> Flow[Mapping[str, ApiKey]]:
    """Return the keys in the file, by id. If the last read is too old, one read serves all waiting requests."""
    file, settings = state.file, state.settings
    keys = file.current(clock.monotonic())
    if keys is not None:
        return keys
    pause, seen = file.pause(clock.monotonic()), file.generation
    if pause > 0:
        raise ApiKeysUnavailable(settings.title, retry_after=pause, problem=file.problem)

    def read() -> Flow[tuple[str, ...]]:
        began = clock.monotonic()  # the keys are as old as the look-up: one may be revoked meanwhile
        try:
            content = yield from ask(
                ReadFile(path=str(settings.keys_file), authority=settings.title, limit=LARGEST_API_KEYS_FILE)
            )
            digest = sha256(content).digest()
            if not file.keep(digest, began):
                file.absorb(api_key.read_keys(content), digest, began)
        except (AuthorityUnavailable, api_key.MalformedKeyFile) as error:
            problem = error.detail.get("problem", "") if isinstance(error, AuthorityUnavailable) else str(error)
            file.fail(problem, clock.monotonic())
            raise ApiKeysUnavailable(settings.title, retry_after=PAUSE, problem=problem) from None
        return ()

    yield from ask(
        SingleFlight(
            key=settings.title,
            authority=settings.title,
            needed=lambda: file.generation == seen,
            flow=read,
            lane=Lane.KEYS,
            priority=True,  # strangers cannot cause more than one read in ``ttl`` seconds
            deadline=API_KEYS_FILE_TIMEOUT,
        )
    )
    held = file.held
    if held is None:
        raise ApiKeysUnavailable(settings.title, retry_after=PAUSE, problem=file.problem)
    return held


def look_up(identifier: str, function: LookUp, state: ApiKeyState, clock: Clock) -> Flow[ApiKey | None]:
    """Return the key with *identifier*, or ``None`` if there is none. The function is called if no answer is cached.

    Requests that arrive during the call wait for its answer, unless ``ttl`` is 0.
    """
    answers, title = state.answers, state.settings.title
    while True:
        now = clock.monotonic()
        known = answers.find(identifier, now)
        if known is not None or answers.is_absent(identifier, now):
            return known
        call, is_own, pause = answers.begin(identifier, now)
        if call is None:
            problem = "too many calls found nothing; set checksum_secret, or raise unknown_burst"
            raise ApiKeysUnavailable(title, retry_after=pause, problem=problem)
        if is_own:
            return (yield from make_call(call, identifier, function, state, now))
        yield from wait_for_end(call, identifier, state)
        if call.problem is not None:
            raise ApiKeysUnavailable(title, problem=call.problem)
        if call.answer is not None and state.settings.ttl > 0:
            return call.answer[0]


def make_call(call: Call, identifier: str, function: LookUp, state: ApiKeyState, now: float) -> Flow[ApiKey | None]:
    """Make *call*, which began at *now*, and return its answer. Cache it for later requests."""
    answers = state.answers
    try:
        found = yield from call_look_up(identifier, function, state)
        call.answer = (found,)
        if found is not None and call.is_charged:
            answers.refund()
        answers.absorb(identifier, found, now)  # as old as the look-up: the key may be revoked meanwhile
        return found
    except ApiKeysUnavailable as error:
        call.problem = error.detail.get("problem", "")
        if call.is_charged:
            answers.refund()
        raise
    finally:
        answers.end(identifier, call)  # also if the request is cancelled


def wait_for_end(call: Call, identifier: str, state: ApiKeyState) -> Flow[None]:
    """Wait until *call*, which another request makes, has ended."""
    title = state.settings.title

    def wait() -> Flow[tuple[str, ...]]:
        yield from ask(CallHook(lambda: call.wait(HOOK_TIMEOUT)))
        return ()

    yield from ask(
        SingleFlight(
            key=f"{title}: {identifier}",
            authority=title,
            needed=lambda: not call.has_ended,
            flow=wait,
            lane=Lane.API_KEYS,  # strangers choose the ids, so they must not take the places of other functions
            priority=state.answers.has_found(identifier),  # a stranger cannot make up the id of a key that exists
            deadline=HOOK_TIMEOUT,
        )
    )
    if not call.has_ended:
        raise ApiKeysUnavailable(title, problem="did not answer in time, for another request with the key")


def call_look_up(identifier: str, function: LookUp, state: ApiKeyState) -> Flow[ApiKey | None]:
    """Return what *function* returns. Raises :class:`ApiKeysUnavailable` for an exception, and for another object."""
    title = state.settings.title
    found: Any
    try:
        found = yield from ask(CallApp(function=partial(function, identifier), is_async=state.settings.is_async))
    except Exception as error:  # noqa: BLE001 - the function of the operator may raise anything
        raise ApiKeysUnavailable(title, problem=f"raised {type(error).__name__}") from None
    if isinstance(found, CoroutineType):
        found.close()  # it is never awaited
    if found is None or (isinstance(found, ApiKey) and found.id == identifier):
        return found
    what = "another key" if isinstance(found, ApiKey) else type(found).__name__
    raise ApiKeysUnavailable(title, problem=f"returned {what}; it must return an ApiKey with this id, or None")
