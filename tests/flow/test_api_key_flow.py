"""The check of an API key, driven step by step: the file, the function of the operator, and every failure of both."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from flow_player import play
from scopeguard import ApiKey, ApiKeys, ApiKeysUnavailable, InvalidApiKey, PolicyDenied, Reason
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.token_sources import TokenSource
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.api_key import verify_key, warm_keys
from scopeguard.flow.authenticate import validate
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import CallApp, CallHook, Lane, ReadFile, SingleFlight
from scopeguard.flow.observation import Observation, TokenCheck
from scopeguard.spec.api_key import Grantor, id_of, key_from_field, make_key
from scopeguard.state.api_keys import ApiKeyState
from scopeguard.state.issuers import Issuers
from scopeguard.state.revocation import Revocation, Revocations, Revoked, digest_of
from scopeguard.testing import FakeClock

ISSUER = "https://api.test/keys"
ID, TEXT, DIGEST = make_key("acme", lambda size: b"x" * size)
OTHER = make_key("acme", lambda size: b"y" * size)[1]
KEY = ApiKey(id=ID, sha256=DIGEST, subject="alice", scopes=["rows.read"], expires_at=None)
FILE = f'[[keys]]\nid = "{ID}"\nsha256 = "{DIGEST}"\nsubject = "alice"\nexpires_at = "never"\n'
FOUND = {"ttl": 10, "negative_ttl": 5}


class Keys:
    """Keys of an API, the effects that were performed, and what they return: a value or an exception."""

    def __init__(self, **settings: Any) -> None:
        given: dict[str, Any] = {"keys_file": "keys.toml"} if "lookup" not in settings else {}
        self.clock = FakeClock()
        self.state = ApiKeyState(
            ApiKeys(prefix="acme", issuer=ISSUER, **given, **settings),
            Grantor(issuer=ISSUER, audience=ISSUER, vocabulary=ScopeVocabulary()),
        )
        self.revocations = Revocations()
        self.context = Context(issuers=Issuers((), revocations=self.revocations), clock=self.clock, api_keys=self.state)
        self.effects: list[Any] = []
        self.answer: Any = FILE.encode()

    def perform(self, effect: Any) -> Any:
        if isinstance(effect, SingleFlight):
            assert (effect.lane, effect.priority) == (Lane.KEYS, True)
            if effect.needed():
                assert play(effect.flow(), self.perform) == ()
            return None
        self.effects.append(effect)
        if isinstance(effect, CallApp) and self.state.settings.lookup is not None and not callable(self.answer):
            effect.function()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def check(self, text: str = TEXT, observation: Observation | None = None) -> Any:
        credential = Credential(token=text, source=TokenSource.API_KEY, header="x-api-key")
        return play(validate(credential, self.context, observation), self.perform)


def outage_of(keys: Keys, text: str = TEXT) -> ApiKeysUnavailable:
    with pytest.raises(ApiKeysUnavailable) as caught:
        keys.check(text)
    assert caught.value.reason is Reason.API_KEYS_UNAVAILABLE
    assert caught.value.detail["key_id"] in (ID, OTHER[5:21])
    assert text not in str(caught.value)
    return caught.value


def refusal_of(keys: Keys, text: str = TEXT) -> Reason:
    with pytest.raises(InvalidApiKey) as caught:
        keys.check(text)
    assert caught.value.detail["key_id"] in (ID, OTHER[5:21])
    return caught.value.reason


# -- the file


def test_file_is_read_once_and_again_after_its_time():
    keys = Keys()
    assert keys.check().subject == "alice"
    assert keys.check().identity == (ISSUER, "alice")
    (read,) = keys.effects
    assert isinstance(read, ReadFile)
    assert read.path == "keys.toml"
    keys.answer = (FILE + "revoked = true").encode()
    keys.clock.advance(9.9)
    keys.check()
    keys.clock.advance(0.1)
    assert refusal_of(keys) is Reason.API_KEY_REVOKED
    assert len(keys.effects) == 2


def test_unchanged_file_is_read_and_not_parsed_again():
    keys = Keys()
    keys.check()
    held = keys.state.file.held
    keys.clock.advance(10)
    keys.check()
    assert keys.state.file.held is held
    assert len(keys.effects) == 2


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "x", problem="keys.toml: No such file"), "No such file"),
        (AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "x"), ""),
        (b"[[keys]", "it is not TOML"),
        ((FILE + "revokd = true").encode(), "'revokd' is not a key"),
    ],
)
def test_file_that_cannot_be_used_is_an_outage_until_it_can(answer: Any, problem: str):
    keys = Keys()
    keys.check()
    keys.clock.advance(10)
    keys.answer = answer
    assert problem in outage_of(keys).detail["problem"]
    during = outage_of(keys)  # the pause
    assert (during.retry_after, problem in during.detail["problem"], len(keys.effects)) == (1.0, True, 2)
    keys.answer = FILE.encode()
    keys.clock.advance(1)
    assert keys.check().subject == "alice"


def test_request_that_waited_for_a_failed_read_of_another_gets_the_outage():
    keys = Keys()
    credential = Credential(token=TEXT, source=TokenSource.API_KEY)
    waiting = validate(credential, keys.context)
    flight = next(waiting)
    assert isinstance(flight, SingleFlight)
    keys.answer = b"\xff"
    outage_of(keys)
    assert not flight.needed()
    with pytest.raises(ApiKeysUnavailable, match="not UTF-8"):
        waiting.send(None)


def test_request_that_waited_for_the_read_of_another_uses_its_keys():
    keys = Keys()
    waiting = validate(Credential(token=TEXT, source=TokenSource.API_KEY), keys.context)
    next(waiting)
    keys.check()
    with pytest.raises(StopIteration) as end:
        waiting.send(None)
    assert end.value.value.subject == "alice"


def test_warming_reads_the_file_and_calls_no_function():
    keys = Keys()
    play(warm_keys(keys.state, keys.clock), keys.perform)
    assert len(keys.effects) == 1
    by_function = Keys(lookup=lambda _: None)
    play(warm_keys(by_function.state, by_function.clock), by_function.perform)
    assert by_function.effects == []


@pytest.mark.parametrize(
    ("text", "reason"), [(OTHER, Reason.API_KEY_UNKNOWN), (TEXT[:-49] + OTHER[-49:], Reason.API_KEY_MISMATCH)]
)
def test_other_keys_are_refused(text: str, reason: Reason):
    assert refusal_of(Keys(), text) is reason


# -- the function


def test_function_is_called_with_the_id_and_its_answer_is_used_for_its_time():
    called: list[str] = []
    keys = Keys(lookup=called.append, **FOUND)
    keys.answer = KEY
    assert keys.check().subject == "alice"
    keys.check()
    keys.clock.advance(10)
    keys.check()
    assert called == [ID, ID]
    assert [effect.is_async for effect in keys.effects] == [False, False]


def test_async_function_runs_in_the_event_loop_of_the_request():
    async def find(identifier: str) -> None: ...

    keys = Keys(lookup=find)
    keys.answer = KEY
    credential = Credential(token=TEXT, source=TokenSource.API_KEY)
    call = next(validate(credential, keys.context))
    assert isinstance(call, CallApp)
    assert call.is_async


def test_unknown_id_is_refused_without_another_call_for_a_while():
    keys = Keys(lookup=lambda _: None, **FOUND)
    keys.answer = None
    assert refusal_of(keys) is Reason.API_KEY_UNKNOWN
    assert refusal_of(keys) is Reason.API_KEY_UNKNOWN
    assert len(keys.effects) == 1
    keys.clock.advance(5)
    keys.answer = KEY
    assert keys.check().subject == "alice"


def test_strangers_cannot_flood_the_function():
    keys = Keys(lookup=lambda _: None, unknown_burst=1, unknown_interval=7)
    keys.answer = None
    refusal_of(keys)
    assert outage_of(keys, OTHER).retry_after == 7
    assert len(keys.effects) == 1
    keys.clock.advance(7)
    refusal_of(keys, OTHER)


def present(keys: Keys, text: str) -> Any:
    """Return the access token of *text* as the value of the field for keys."""
    settings = keys.state.settings
    return keys.check(key_from_field([text.encode()], settings.prefix, settings.checksum_key))


def flood(keys: Keys, number: int) -> int:
    """Send *number* keys with ids of strangers, which do not exist, and return the calls of the function."""
    answer, keys.answer, before = keys.answer, None, len(keys.effects)
    for _ in range(number):
        with pytest.raises((InvalidApiKey, ApiKeysUnavailable)):
            present(keys, make_key("acme", secrets.token_bytes)[1])
    keys.answer = answer
    return len(keys.effects) - before


def test_flood_without_a_secret_delays_the_keys_that_were_not_found_before():
    """The exact limit: a key that this process has found is not affected, also after ``ttl``. A new one gets 503."""
    keys = Keys(lookup=lambda _: None, ttl=1, unknown_burst=10, unknown_interval=1)
    keys.answer = KEY
    keys.check()
    assert flood(keys, 100) == 10
    keys.clock.advance(1)
    assert flood(keys, 100) == 1
    assert keys.check().subject == "alice"
    new = replace(KEY, id=id_of(OTHER), sha256=sha256(OTHER.encode()).hexdigest())
    keys.answer = new
    assert outage_of(keys, OTHER).retry_after == 1
    keys.clock.advance(1)
    assert keys.check(OTHER).subject == "alice"


def test_flood_with_a_secret_calls_nothing_and_keeps_no_key_from_its_look_up():
    """Fault: strangers who use up what a client with a good key needs."""
    keys = Keys(lookup=lambda _: None, unknown_burst=1, unknown_interval=7, checksum_secret="sg-secret-for-checksums")
    assert flood(keys, 300) == 0
    identifier, text, digest = make_key("acme", lambda size: b"z" * size, keys.state.settings.checksum_key)
    keys.answer = replace(KEY, id=identifier, sha256=digest)
    assert present(keys, text).subject == "alice"


@pytest.mark.parametrize("place", [{}, {"lookup": lambda _: None}], ids=["file", "function"])
def test_slow_answer_is_used_no_longer_than_a_fast_one(place: dict[str, Any]):
    """Fault: an age that is counted from the end of the work, so that a revocation during it takes effect late."""
    keys = Keys(ttl=10, **place)
    if place:
        keys.answer = KEY
    flow = verify_key(TEXT, keys.state, keys.clock)
    effect: Any = next(flow)
    if isinstance(effect, SingleFlight):
        reading = effect.flow()
        next(reading)
        keys.clock.advance(4)
        with pytest.raises(StopIteration):
            reading.send(keys.answer)
        effect = None
    else:
        keys.clock.advance(4)
        effect = keys.answer
    with pytest.raises(StopIteration):
        flow.send(effect)
    keys.clock.advance(6)  # ten seconds after the look-up
    keys.check()
    assert len(keys.effects) == 1


def test_strangers_cannot_flood_the_function_with_calls_at_once():
    """Fault: a budget that is checked before the work and charged after it."""
    keys = Keys(lookup=lambda _: None, unknown_burst=1, unknown_interval=7)
    held = verify_key(TEXT, keys.state, keys.clock)
    assert isinstance(next(held), CallApp)  # a call in progress
    assert outage_of(keys, OTHER).retry_after == 7
    assert keys.effects == []
    held.close()  # the client has gone, and its call is paid
    assert outage_of(keys, OTHER).retry_after == 7


def begin_two(keys: Keys) -> tuple[Any, Any, SingleFlight]:
    """Return a check that has called the function, a second one of the same key, and what the second one waits for."""
    first, second = (verify_key(TEXT, keys.state, keys.clock) for _ in range(2))
    assert isinstance(next(first), CallApp)
    flight = next(second)
    assert isinstance(flight, SingleFlight)
    assert (flight.lane, flight.needed()) == (Lane.API_KEYS, True)
    waiting = flight.flow()
    assert isinstance(next(waiting), CallHook)
    with pytest.raises(StopIteration) as end:
        waiting.send(True)
    assert end.value.value == ()
    return first, second, flight


def test_requests_at_once_with_one_key_cause_one_call():
    keys = Keys(lookup=lambda _: None, unknown_burst=1)
    first, second, flight = begin_two(keys)
    for flow, answer in ((first, KEY), (second, None)):
        with pytest.raises(StopIteration) as end:
            flow.send(answer)
        assert end.value.value.subject == "alice"
        assert not flight.needed()


def test_requests_that_waited_for_a_failed_call_get_its_outage():
    first, second, flight = begin_two(Keys(lookup=lambda _: None, unknown_burst=1))
    with pytest.raises(ApiKeysUnavailable):
        first.throw(OSError())
    assert not flight.needed()
    with pytest.raises(ApiKeysUnavailable) as caught:
        second.send(None)
    assert caught.value.detail["problem"] == "raised OSError"


def test_next_request_calls_the_function_if_the_first_one_is_cancelled():
    first, second, flight = begin_two(Keys(lookup=lambda _: None, unknown_burst=2, unknown_interval=7))
    first.close()
    assert not flight.needed()
    assert isinstance(second.send(None), CallApp)


def test_call_that_does_not_end_is_an_outage_for_the_requests_that_wait():
    _, second, _ = begin_two(Keys(lookup=lambda _: None))
    with pytest.raises(ApiKeysUnavailable) as caught:
        second.send(None)
    assert "did not answer in time" in caught.value.detail["problem"]


def test_waiting_request_has_a_call_of_its_own_without_a_ttl():
    keys = Keys(lookup=lambda _: None, ttl=0, unknown_burst=1)
    first, second, _ = begin_two(keys)
    with pytest.raises(StopIteration):
        first.send(KEY)
    assert isinstance(second.send(None), CallApp)


@pytest.mark.parametrize("answer", [KEY, OSError(), replace(KEY, id="b" * 16)], ids=["found", "failed", "wrong"])
def test_call_that_finds_a_key_or_fails_does_not_cost_the_budget(answer: Any):
    keys = Keys(lookup=lambda _: None, unknown_burst=1, unknown_interval=7)
    keys.answer = answer
    with suppress(ApiKeysUnavailable):
        keys.check()
    keys.answer = None
    refusal_of(keys, OTHER)


def test_failed_look_up_of_a_known_key_gives_strangers_no_further_call():
    """Fault: a refund of what was not paid. The look-up of a key that was found before costs nothing."""
    keys = Keys(lookup=lambda _: None, ttl=1, unknown_burst=1, unknown_interval=7)
    keys.answer = KEY
    keys.check()
    keys.answer = None
    refusal_of(keys, OTHER)  # the whole budget
    keys.clock.advance(1)
    keys.answer = OSError()
    outage_of(keys)
    assert keys.state.answers.charge("c" * 16, keys.clock.monotonic())[0] == 6


class Odd:
    pass


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (OSError("secret of the database"), "raised OSError"),
        (PolicyDenied("you"), "raised PolicyDenied"),  # the function decides nothing
        (InvalidApiKey(Reason.API_KEY_UNKNOWN), "raised InvalidApiKey"),
        (AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "x"), "raised AuthorityUnavailable"),
        (replace(KEY, id="b" * 16), "returned another key"),
        (True, "returned bool"),
        ({"id": ID}, "returned dict"),
        (Odd(), "returned Odd"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_failure_of_the_function_is_an_outage_and_is_not_cached(answer: Any, problem: str):
    keys = Keys(lookup=lambda _: None)
    keys.answer = answer
    error = outage_of(keys)
    assert problem in error.detail["problem"]
    assert "secret of" not in str(error)
    keys.answer = KEY
    assert keys.check().subject == "alice"


def test_coroutine_that_nothing_awaits_is_an_outage():
    async def find() -> None: ...

    keys = Keys(lookup=lambda _: None)
    keys.answer = find()  # closed, or the interpreter would warn
    assert "returned coroutine" in outage_of(keys).detail["problem"]


# -- revocation and observation


@pytest.mark.parametrize(
    ("kind", "value"), [(Revoked.TOKEN, TEXT), (Revoked.SUBJECT, "alice"), (Revoked.JTI, ID)], ids=str
)
def test_revoked_key_is_refused_as_a_key(kind: Revoked, value: str):
    keys = Keys()
    entry = Revocation(kind=kind, digest=digest_of(kind, ISSUER, value), at=2e9, until=3e9)
    keys.revocations.add(entry, keys.clock.wall())
    assert refusal_without_id(keys) is Reason.API_KEY_REVOKED


def refusal_without_id(keys: Keys) -> Reason:
    with pytest.raises(InvalidApiKey) as caught:
        keys.check()
    return caught.value.reason


def test_revocation_of_others_does_not_matter():
    keys = Keys()
    digest = digest_of(Revoked.SUBJECT, ISSUER, "bob")
    keys.revocations.add(Revocation(kind=Revoked.SUBJECT, digest=digest, at=2e9, until=3e9), keys.clock.wall())
    assert keys.check().subject == "alice"


def test_listener_learns_the_issuer_and_the_work():
    keys = Keys()
    observation = Observation(None)
    keys.check(observation=observation)
    assert (observation.issuer, observation.token_check) == (ISSUER, TokenCheck.VERIFIED)


def test_guard_without_keys_accepts_none():
    keys = Keys()
    keys.context = replace(keys.context, api_keys=None)
    assert refusal_without_id(keys) is Reason.API_KEY_UNKNOWN
