"""Connections in progress: what ends them, what does not, and new tokens for websockets."""

from __future__ import annotations

import gc
import logging
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from scopeguard import (
    AuthorityUnavailable,
    AuthorizationDetail,
    ConfigurationError,
    Denied,
    Granted,
    Guard,
    Introspection,
    Reason,
    Requirement,
    RevocationPolicy,
    Rule,
    StatusListPolicy,
    Unavailable,
    Validation,
    access_token_or_none,
    all_of,
)
from scopeguard.adapter import streams
from scopeguard.adapter.streams import Watcher, watcher_of
from scopeguard.asgi import CloseStreams, GuardMiddleware, renew
from scopeguard.core.revoking import record_revocation
from scopeguard.devserver.keys import base64url, compact
from scopeguard.errors import ResponseAborted
from scopeguard.flow.effects import Answer
from scopeguard.guard import engine_of
from scopeguard.inbound_tokens import inbound_token, text_for_exchange
from scopeguard.state.revocation import Revoked
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority
from scopeguard.testing.transport import FakeTransport

pytestmark = pytest.mark.anyio

EXPIRED, REVOKED, REFUSED = (
    "The access token expired",
    "The access token was revoked",
    "The access token is no longer accepted",
)
A_DAY = 86400


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the timer of the watcher: it waits until something wakes it."""
    monkeypatch.setattr(streams, "_PAUSE", float(A_DAY))


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def guard_of(authority: FakeAuthority, issuer: Any = None, **settings: Any) -> Guard:
    settings.setdefault("transport", authority.transport)
    settings.setdefault("revocation", RevocationPolicy(max_lag=A_DAY))
    return Guard(issuer or authority.issuer, clock=authority.clock, **settings)


def introspecting_guard(authority: FakeAuthority, **settings: Any) -> Guard:
    asking = Introspection(client_id="api", client_secret=authority.api.secret, **settings)
    return guard_of(authority, replace(authority.issuer, validate=Validation.AUTO, introspection=asking))


async def hold(scope: Any, receive: Any, send: Any) -> None:
    """An app that keeps every connection open."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
    else:
        events = [(b"content-type", b"text/event-stream")] if scope["path"] == "/events" else []
        await send({"type": "http.response.start", "status": 200, "headers": events})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await anyio.sleep_forever()


class Wire:
    """The client's end of one connection to a guarded app."""

    def __init__(self, token: str | None, kind: str = "websocket", path: str = "/ws") -> None:
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        self.scope: dict[str, Any] = {
            "type": kind,
            "scheme": "wss" if kind == "websocket" else "https",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": headers,
            "state": {},
        }
        self.sent: list[Any] = []
        self.is_open = anyio.Event()
        self.has_ended = anyio.Event()
        self.is_aborted = False
        self._put, self._get = anyio.create_memory_object_stream[Any](10)
        self._put.send_nowait({"type": "websocket.connect"})

    async def run(self, app: Any) -> None:
        async def send(message: Any) -> None:
            self.sent.append(message)
            await anyio.lowlevel.checkpoint()
            if message["type"] == "websocket.accept" or message.get("more_body"):
                self.is_open.set()

        try:
            with self._put, self._get:
                await app(self.scope, self._get.receive, send)
        except ResponseAborted:
            self.is_aborted = True
        self.has_ended.set()

    def say(self, text: Any) -> None:
        self._put.send_nowait({"type": "websocket.receive", "text": text})

    @property
    def reason(self) -> str | None:
        """Why the websocket was closed; ``None`` while it is open."""
        last = self.sent[-1]
        return last["reason"] if last["type"] == "websocket.close" else None


class Stage:
    """Guarded connections in one task group, which ends with the test."""

    def __init__(self, guard: Guard, app: Any = hold, close_streams: str = "revocation", **settings: Any) -> None:
        self.guard = guard
        self.app = GuardMiddleware(app, guard=guard, close_streams=close_streams, **settings)

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        self._limit = anyio.fail_after(20)
        self._limit.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit.__exit__(kind, error, traceback)
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(kind, error, traceback)

    async def connect(self, token: str | None, kind: str = "websocket", path: str = "/ws") -> Wire:
        wire = Wire(token, kind, path)
        self._group.start_soon(wire.run, self.app)
        await wire.is_open.wait()
        return wire

    @property
    def watcher(self) -> Watcher:
        return watcher_of(engine_of(self.guard))

    def advance(self, authority: FakeAuthority, seconds: float) -> None:
        """Let *seconds* pass, and let the watcher notice at once."""
        authority.clock.advance(seconds)
        self.watcher.wake()


@contextmanager
def watch_log(text: str) -> Iterator[anyio.Event]:
    """An event that is set when a log line with *text* is written in this event loop."""
    noticed = anyio.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                noticed.set()

    handler = Handler()
    logging.getLogger("scopeguard").addHandler(handler)
    try:
        yield noticed
    finally:
        logging.getLogger("scopeguard").removeHandler(handler)


# -- what ends a connection


@pytest.mark.parametrize("named", ["token", "jti", "subject", "client_id"])
async def test_revocation_in_this_process_ends_the_connection_and_no_other(authority: FakeAuthority, named: str):
    guard = guard_of(authority)
    token = authority.mint(subject="ann", client_id="web", claims={"jti": "one"})
    async with Stage(guard) as stage:
        other = await stage.connect(authority.mint(subject="bob", client_id="cli"))
        wire = await stage.connect(token)
        what: dict[str, Any] = {"token": token, "jti": "one", "subject": "ann", "client_id": "web"}
        await guard.arevoke(**{named: what[named]})
        await wire.has_ended.wait()
        assert wire.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": REVOKED}
        assert other.reason is None


async def test_each_kind_of_response_ends_in_its_own_way(authority: FakeAuthority):
    guard = guard_of(authority)
    async with Stage(guard) as stage:
        token = authority.mint(subject="ann")
        events, download = await stage.connect(token, "http", "/events"), await stage.connect(token, "http", "/csv")
        guard.revoke(subject="ann")
        await events.has_ended.wait()
        await download.has_ended.wait()
        assert events.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        assert not events.is_aborted
        assert download.sent[-1]["body"] == b"first"
        assert download.is_aborted


async def test_revocation_from_another_thread_ends_the_connection(authority: FakeAuthority):
    guard = guard_of(authority)
    async with Stage(guard) as stage:
        wire = await stage.connect(authority.mint(subject="ann"))
        await anyio.to_thread.run_sync(lambda: guard.revoke(subject="ann"))
        await wire.has_ended.wait()
        assert wire.reason == REVOKED


async def test_revocation_between_the_check_and_the_handshake_ends_the_connection(authority: FakeAuthority):
    guard = guard_of(authority)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        guard.revoke(subject="ann")
        await hold(scope, receive, send)

    async with Stage(guard, slow) as stage:
        wire = await stage.connect(authority.mint(subject="ann"))
        await wire.has_ended.wait()
        assert wire.reason == REVOKED


async def test_revocation_in_another_process_ends_the_connection(authority: FakeAuthority):
    store = MemoryStore(authority.clock)
    here, there = (guard_of(authority, store=store) for _ in range(2))
    async with Stage(here) as stage:
        wire = await stage.connect(authority.mint(subject="ann"))
        there.revoke(subject="ann", issuer=authority.url)
        stage.advance(authority, 1)
        await wire.has_ended.wait()
        assert wire.reason == REVOKED


async def test_each_task_of_the_watcher_runs_after_its_pause(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch):
    """Expiry, the store and the checks again each have a pause of their own, which nothing here ends early."""
    monkeypatch.setattr(streams, "_PAUSE", 0.001)
    store = MemoryStore(authority.clock)
    asking = Introspection(client_id="api", client_secret=authority.api.secret, ttl=0)
    issuer = replace(authority.issuer, validate=Validation.AUTO, introspection=asking)
    here, there = (
        guard_of(authority, issuer, store=store, revocation=RevocationPolicy(max_lag=0.002)) for _ in range(2)
    )
    opaque = authority.mint(token_format="opaque", subject="bob")
    async with Stage(here, recheck_streams=20) as stage:
        revoked = await stage.connect(authority.mint(subject="ann"))
        inactive = await stage.connect(opaque)
        expired = await stage.connect(authority.mint(subject="cid", expires_in=600))
        there.revoke(subject="ann", issuer=authority.url)
        await revoked.has_ended.wait()
        authority.revoke(opaque)
        authority.clock.advance(21)
        await inactive.has_ended.wait()
        authority.clock.advance(700)
        await expired.has_ended.wait()
        assert [wire.reason for wire in (revoked, inactive, expired)] == [REVOKED, REVOKED, EXPIRED]


async def test_expiry_ends_the_connection_by_the_clock_of_the_guard(authority: FakeAuthority):
    for close_streams in CloseStreams.EXPIRY, CloseStreams.REVOCATION:
        async with Stage(guard_of(authority), close_streams=close_streams) as stage:
            wire = await stage.connect(authority.mint(expires_in=60))
            other = await stage.connect(authority.mint(expires_in=600))
            stage.advance(authority, 91)
            await wire.has_ended.wait()
            assert wire.reason == EXPIRED
            assert other.reason is None


async def test_with_expiry_a_revocation_ends_no_connection(authority: FakeAuthority):
    guard = guard_of(authority)
    async with Stage(guard, close_streams="expiry") as stage:
        wire = await stage.connect(authority.mint(subject="ann", expires_in=60))
        control = await stage.connect(authority.mint(subject="bob", expires_in=20))
        guard.revoke(subject="ann")
        stage.advance(authority, 55)
        await control.has_ended.wait()
        assert wire.reason is None


async def test_inactive_introspection_response_ends_the_connection(authority: FakeAuthority):
    guard = introspecting_guard(authority)
    async with Stage(guard, recheck_streams=20) as stage:
        token = authority.mint(token_format="opaque")
        wire, other = await stage.connect(token), await stage.connect(authority.mint(token_format="opaque"))
        authority.revoke(token)
        stage.advance(authority, 61)  # the first answers are no longer used
        await wire.has_ended.wait()
        assert wire.reason == REVOKED
        assert other.reason is None


async def test_tokens_are_checked_at_once_after_an_event_that_discards_answers(authority: FakeAuthority):
    guard = introspecting_guard(authority)
    async with Stage(guard, recheck_streams=A_DAY) as stage:
        token = authority.mint(token_format="opaque", subject="ann")
        wire = await stage.connect(token)
        authority.revoke(token)
        authority.clock.advance(1)
        record_revocation(engine_of(guard), Revoked.ANSWERS, authority.url, "ann")
        await wire.has_ended.wait()
        assert wire.reason == REVOKED


IS_OPEN = AuthorizationDetail("stream", where=lambda detail: detail["open"])  # raises for another detail


@pytest.mark.parametrize(
    "needed",
    [all_of("live"), all_of("live", max_age=30), all_of("live", IS_OPEN)],
    ids=["a scope", "a sign-in that grows old", "a condition that fails"],
)
async def test_scope_that_introspection_withdraws_ends_the_connection(authority: FakeAuthority, needed: Requirement):
    """A condition beside the scope neither keeps the connection nor ends those of others."""
    guard = introspecting_guard(authority)
    async with Stage(guard, rules=[Rule("/ws", needed), Rule("/other", "read")], recheck_streams=20) as stage:
        claims: dict[str, Any] = {
            "auth_time": int(authority.clock.wall()),
            "authorization_details": [{"type": "stream", "open": True}],
        }
        token = authority.mint("live read", token_format="opaque", claims=claims)
        wire, other = await stage.connect(token), await stage.connect(token, path="/other")
        content = {"iss": authority.url, "aud": authority.audience, "client_id": "client", "sub": "client"}
        now = int(authority.clock.wall())
        claims["authorization_details"] = [{"type": "stream"}]
        authority.authority.tokens.add(token, {**content, **claims, "exp": now + 3600, "scope": "read"}, now)
        stage.advance(authority, 61)
        await wire.has_ended.wait()
        assert wire.reason == REFUSED
        assert other.reason is None


async def test_withdrawn_key_ends_the_connection_and_a_rotation_does_not(authority: FakeAuthority):
    async with Stage(guard_of(authority)) as stage:
        old = await stage.connect(authority.mint(expires_in=10 * A_DAY))
        authority.rotate(overlap=False)
        new = await stage.connect(authority.mint(expires_in=10 * A_DAY))
        stage.advance(authority, A_DAY)
        await old.has_ended.wait()
        assert old.reason == REFUSED
        assert new.reason is None


class WithStatusList:
    """A transport that serves a status list, whose entries are *statuses* in two bits each, beside the authority."""

    def __init__(self, authority: FakeAuthority) -> None:
        self._authority = authority
        self.statuses = b"\x00"

    def send(self, request: Any, /) -> Answer:
        if request.url != "https://as.test/list":
            return self._authority.transport.send(request)
        signer, now = self._authority.key(), self._authority.clock.wall()
        entries = {"bits": 2, "lst": base64url(zlib.compress(self.statuses))}
        claims = {"sub": request.url, "iat": now, "exp": now + 600, "ttl": 60, "status_list": entries}
        header = {"typ": "statuslist+jwt", "alg": signer.algorithm, "kid": signer.kid}
        token = compact(header, claims, signer)
        return Answer(200, token.encode(), {"content-type": "application/statuslist+jwt"})

    def close(self) -> None:
        pass


async def test_status_list_ends_the_connection(authority: FakeAuthority):
    transport = WithStatusList(authority)
    issuer = replace(authority.issuer, experimental_status_list=StatusListPolicy())
    async with Stage(guard_of(authority, issuer, transport=transport)) as stage:
        wires = [
            await stage.connect(
                authority.mint(claims={"status": {"status_list": {"idx": number, "uri": "https://as.test/list"}}})
            )
            for number in (0, 1)
        ]
        transport.statuses = b"\x04"  # the second one is invalid
        stage.advance(authority, 120)
        await wires[1].has_ended.wait()
        assert wires[0].reason is None


# -- what does not


async def test_outage_of_the_authorization_server_ends_no_connection(authority: FakeAuthority):
    guard = introspecting_guard(authority)
    token = authority.mint(token_format="opaque")
    async with Stage(guard, recheck_streams=20) as stage:
        wire = await stage.connect(token)
        with authority.outage(), watch_log("does not answer; connections in progress stay open") as noticed:
            stage.advance(authority, 61)
            await noticed.wait()
        assert wire.reason is None
        authority.revoke(token)
        stage.advance(authority, 120)
        await wire.has_ended.wait()
        assert wire.reason == REVOKED


class Faulty(MemoryStore):
    """A store that does not answer while *is_down*."""

    is_down = False

    def read(self, after: str | None, /) -> Any:
        if self.is_down:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store")
        return super().read(after)


async def test_outage_of_the_store_ends_no_connection_and_known_revocations_still_count(authority: FakeAuthority):
    store = Faulty(authority.clock)
    guard = guard_of(authority, store=store)
    async with Stage(guard) as stage:
        wire, other = [await stage.connect(authority.mint(subject=name)) for name in ("ann", "bob")]
        store.is_down = True
        with watch_log("the shared store does not answer; connections") as noticed:
            stage.advance(authority, 60)
            await noticed.wait()
        assert (wire.reason, other.reason) == (None, None)
        guard.revoke(subject="ann", issuer=authority.url)
        await wire.has_ended.wait()
        assert other.reason is None


async def test_error_in_a_transport_of_the_operator_ends_no_connection(authority: FakeAuthority):
    guard = introspecting_guard(authority)
    engine = engine_of(guard)
    async with Stage(guard, recheck_streams=20) as stage:
        wire = await stage.connect(authority.mint(token_format="opaque"))

        class Broken(FakeTransport):
            def send(self, request: Any, /) -> Any:
                raise ValueError("a bug")

        engine.runtime.transport = Broken(authority.authority)
        with watch_log("stay open until their tokens expire: ValueError") as noticed:
            stage.advance(authority, 61)
            await noticed.wait()
        assert wire.reason is None


async def test_complete_response_is_not_watched(authority: FakeAuthority):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all", "more_body": scope["path"] == "/parts"})
        if scope["path"] == "/parts":
            assert len(stage.watcher) == 1
            await send({"type": "http.response.body", "body": b"end"})
            assert len(stage.watcher) == 0

    guard = guard_of(authority)
    stage = Stage(guard, app)
    wire = Wire(authority.mint(), "http", "/one")
    await wire.run(stage.app)
    assert not engine_of(guard).revocation_listeners  # no watcher has started
    await Wire(authority.mint(), "http", "/parts").run(stage.app)


async def test_anonymous_connection_does_not_end(authority: FakeAuthority):
    async with Stage(guard_of(authority), public=["/ws"]) as stage:
        wire = await stage.connect(None)
        assert "scopeguard.connection" in wire.scope["state"]
        assert wire.reason is None


async def test_no_task_starts_before_a_connection_is_open():
    authority = FakeAuthority()
    guard = guard_of(authority)
    GuardMiddleware(hold, guard=guard, close_streams="revocation")
    assert not engine_of(guard).revocation_listeners


# -- many


async def test_one_revocation_among_a_thousand_connections_ends_exactly_its_own(authority: FakeAuthority):
    guard = guard_of(authority)
    async with Stage(guard) as stage:
        subjects = [f"user-{number % 100}" for number in range(1000)]
        wires = [await stage.connect(authority.mint(subject=subject)) for subject in subjects]
        watcher = stage.watcher
        assert len(watcher) == 1000
        await guard.arevoke(subject="user-7")
        ended = [wire for wire, subject in zip(wires, subjects, strict=True) if subject == "user-7"]
        for wire in ended:
            await wire.has_ended.wait()
        assert [wire for wire in wires if wire.has_ended.is_set()] == ended
        assert len(ended) == 10
        assert stage.watcher is watcher
        assert len(watcher) == 990
        assert len(engine_of(guard).revocation_listeners) == 1


@pytest.mark.parametrize("count", [3, 7, 50])
async def test_tokens_that_are_due_together_are_all_checked(authority: FakeAuthority, count: int):
    async with Stage(introspecting_guard(authority), recheck_streams=20) as stage:
        tokens = [authority.mint(token_format="opaque") for _ in range(count)]
        wires = [await stage.connect(token) for token in tokens]
        for token in tokens[1:]:
            authority.revoke(token)
        stage.advance(authority, 61)
        for wire in wires[1:]:
            await wire.has_ended.wait()
            assert wire.reason == REVOKED
        assert wires[0].reason is None


async def test_closed_connections_are_freed_and_their_watcher_ends(authority: FakeAuthority):
    guard = guard_of(authority)
    async with Stage(guard) as stage:
        wire = await stage.connect(authority.mint(subject="ann"))
        watcher = stage.watcher
        (watched,) = watcher._connections
        connection = weakref.ref(watched)
        guard.revoke(subject="ann")
        await wire.has_ended.wait()
        watcher.wake()
        while engine_of(guard).revocation_listeners:
            await anyio.lowlevel.checkpoint()
        del wire, watched
        again = await stage.connect(authority.mint(subject="bob"))  # another watcher starts for it
        guard.revoke(subject="bob")
        await again.has_ended.wait()
        assert again.reason == REVOKED
    await anyio.lowlevel.checkpoint()
    gc.collect()
    assert connection() is None


# -- new tokens


Answers = list[tuple[Granted | Denied | Unavailable, str | None]]


def renewing_app(answers: Answers) -> Any:
    """An app that presents each message of its client as a new token, and adds the answers with the present subject."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            decision = await renew(scope, message["text"])
            token = access_token_or_none()
            assert scope["state"]["access_token"] is scope["user"] is scope["auth"]
            assert token is None or token is scope["user"]
            answers.append((decision, None if token is None else token.fingerprint))
            await send({"type": "websocket.send", "text": "answered", "more_body": True})

    return app


async def ask(wire: Wire, answers: Answers, token: Any) -> tuple[Granted | Denied | Unavailable, str | None]:
    """Present *token* on *wire* and return the answer."""
    before = len(answers)
    wire.say(token)
    while len(answers) == before:
        await anyio.lowlevel.checkpoint()
    return answers[-1]


async def test_renewed_token_moves_the_deadline_and_is_the_present_one(authority: FakeAuthority):
    answers: Answers = []
    guard = guard_of(authority)
    for close_streams in "expiry", "revocation":
        async with Stage(guard, renewing_app(answers), close_streams) as stage:
            wire = await stage.connect(authority.mint(subject="ann", expires_in=60))
            control = await stage.connect(authority.mint(subject="ann", expires_in=60))
            renewed = authority.mint(subject="ann", expires_in=600)
            decision, present = await ask(wire, answers, renewed)
            assert isinstance(decision, Granted)
            assert present == decision.access_token.fingerprint
            stage.advance(authority, 100)
            await control.has_ended.wait()
            assert wire.reason is None
            stage.advance(authority, 600)
            await wire.has_ended.wait()
            assert wire.reason == EXPIRED


async def test_token_for_the_next_api_is_the_renewed_one(authority: FakeAuthority):
    texts: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        texts.append(text_for_exchange(inbound_token()))
        await renew(scope, (await receive())["text"])
        texts.append(text_for_exchange(inbound_token()))

    first, second = (authority.mint(subject="ann") for _ in range(2))
    async with Stage(guard_of(authority, keep_token_for_exchange=True), app) as stage:
        wire = await stage.connect(first)
        wire.say(second)
        await wire.has_ended.wait()
    assert texts == [first, second]


async def test_guard_that_drops_the_text_of_tokens_gives_none(authority: FakeAuthority):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with pytest.raises(ConfigurationError, match="drops the text"):
            inbound_token()

    async with Stage(guard_of(authority), app) as stage:
        await (await stage.connect(authority.mint())).has_ended.wait()


async def test_revocation_of_the_renewed_token_counts_and_that_of_the_old_one_does_not(authority: FakeAuthority):
    answers: Answers = []
    guard = guard_of(authority)
    async with Stage(guard, renewing_app(answers)) as stage:
        old, new = authority.mint(subject="ann"), authority.mint(subject="ann")
        wire, control = [await stage.connect(old) for _ in range(2)]
        await ask(wire, answers, new)
        guard.revoke(token=old)
        await control.has_ended.wait()
        assert wire.reason is None
        guard.revoke(token=new)
        await wire.has_ended.wait()
        assert wire.reason == REVOKED


async def test_renewed_token_that_expires_earlier_ends_the_connection_earlier(authority: FakeAuthority):
    answers: Answers = []
    async with Stage(guard_of(authority), renewing_app(answers)) as stage:
        wire = await stage.connect(authority.mint(subject="ann", expires_in=600))
        await ask(wire, answers, authority.mint(subject="ann", expires_in=60))
        stage.advance(authority, 100)
        await wire.has_ended.wait()
        assert wire.reason == EXPIRED


Mint = Callable[[FakeAuthority], Any]


@pytest.mark.parametrize(
    ("mint", "reason"),
    [
        (lambda a: a.mint("live", subject="bob"), Reason.RENEWAL_MISMATCH),
        (lambda a: a.mint("live", subject="ann", client_id="other"), Reason.RENEWAL_MISMATCH),
        (lambda a: a.mint("other", subject="ann"), Reason.INSUFFICIENT_SCOPE),
        (lambda a: a.mint("live", subject="ann", expires_in=-100), Reason.TOKEN_EXPIRED),
        (lambda a: a.mint("live", subject="ann", audience="https://other.test"), Reason.WRONG_AUDIENCE),
        (lambda a: FakeAuthority("https://other.test").mint("live", subject="ann"), Reason.UNKNOWN_ISSUER),
        (lambda a: a.mint("live", subject="ann", claims={"cnf": {"jkt": "x"}}), Reason.SENDER_CONSTRAINT_UNPROVEN),
        (lambda a: a.mint("live", subject="ann")[:-8] + "AAAAAAAA", Reason.BAD_SIGNATURE),
        (lambda a: "no token", Reason.MALFORMED_CREDENTIALS),
        (lambda a: "tök\ud800n", Reason.MALFORMED_CREDENTIALS),
        (lambda a: "", Reason.EMPTY_CREDENTIALS),
        (lambda a: {"a": 1}, Reason.MALFORMED_CREDENTIALS),
        (lambda a: "x" * 20_000, Reason.TOKEN_TOO_LARGE),
    ],
    ids=[
        "another subject", "another client", "a scope less", "expired", "another audience", "another issuer",
        "bound to a key", "a bad signature", "no token68", "not ascii", "empty", "no string", "too long",
    ],
)  # fmt: skip
async def test_refused_token_does_not_replace_the_present_one(authority: FakeAuthority, mint: Mint, reason: Reason):
    """The kind of fault: a message of a client that raises an exception in the app."""
    answers: Answers = []
    rules = [Rule("/ws", "live")]
    async with Stage(guard_of(authority), renewing_app(answers), rules=rules) as stage:
        wire = await stage.connect(authority.mint("live", subject="ann", expires_in=60))
        held = wire.scope["user"]
        decision, present = await ask(wire, answers, mint(authority))
        assert isinstance(decision, Denied)
        assert decision.error.reason is reason
        assert present == held.fingerprint
        assert wire.scope["user"] is held
        stage.advance(authority, 100)
        await wire.has_ended.wait()
        assert wire.reason == EXPIRED


async def test_revoked_token_does_not_replace_the_present_one(authority: FakeAuthority):
    answers: Answers = []
    guard = guard_of(authority)
    async with Stage(guard, renewing_app(answers)) as stage:
        token = authority.mint(subject="ann")
        wire = await stage.connect(authority.mint(subject="ann"))
        guard.revoke(token=token)
        decision, _ = await ask(wire, answers, token)
        assert isinstance(decision, Denied)
        assert decision.error.reason is Reason.TOKEN_REVOKED


async def test_outage_during_a_renewal_is_not_a_denial(authority: FakeAuthority):
    answers: Answers = []
    async with Stage(introspecting_guard(authority), renewing_app(answers)) as stage:
        wire = await stage.connect(authority.mint(subject="ann", token_format="opaque"))
        token = authority.mint(subject="ann", token_format="opaque")
        with authority.outage():
            decision, _ = await ask(wire, answers, token)
        assert isinstance(decision, Unavailable)
        assert wire.reason is None


async def test_attempts_are_limited_for_each_connection(authority: FakeAuthority):
    answers: Answers = []
    async with Stage(guard_of(authority), renewing_app(answers)) as stage:
        token = authority.mint(subject="ann")
        wire, other = [await stage.connect(token) for _ in range(2)]
        for _ in range(5):
            decision, _ = await ask(wire, answers, authority.mint(subject="bob"))
            assert isinstance(decision, Denied)
            assert decision.error.reason is Reason.RENEWAL_MISMATCH
        decision, _ = await ask(wire, answers, token)
        assert isinstance(decision, Denied)
        assert (decision.error.reason, decision.response.status) == (Reason.TOO_MANY_RENEWALS, 403)
        assert isinstance((await ask(other, answers, token))[0], Granted)
        authority.clock.advance(10)
        assert isinstance((await ask(wire, answers, token))[0], Granted)


async def test_token_without_subject_and_client_is_refused(authority: FakeAuthority):
    """Such tokens say nothing about their holders, so that two of them may have two."""
    answers: Answers = []
    issuer = replace(authority.issuer, required_claims=())
    nameless = {"sub": None, "client_id": None}
    async with Stage(guard_of(authority, issuer), renewing_app(answers)) as stage:
        wire = await stage.connect(authority.mint(claims=nameless))
        decision, _ = await ask(wire, answers, authority.mint(claims=nameless))
        assert isinstance(decision, Denied)
        assert decision.error.reason is Reason.RENEWAL_MISMATCH


@pytest.mark.parametrize(("outer", "inner"), [("expiry", "revocation"), ("revocation", "expiry"), ("expiry", "never")])
async def test_layers_with_one_guard_share_a_connection(authority: FakeAuthority, outer: str, inner: str):
    """Fault: a renewal that one layer knows of and another does not."""
    answers: Answers = []
    guard = guard_of(authority)
    inside = GuardMiddleware(renewing_app(answers), guard=guard, rules=[Rule("/ws", "inner")], close_streams=inner)
    async with Stage(guard, inside, outer, rules=[Rule("/ws", "outer")]) as stage:
        wire = await stage.connect(authority.mint("inner outer", subject="ann", expires_in=60))
        for scope in "inner", "outer":
            decision, _ = await ask(wire, answers, authority.mint(scope, subject="ann"))
            assert isinstance(decision, Denied)
            assert decision.error.reason is Reason.INSUFFICIENT_SCOPE
        decision, _ = await ask(wire, answers, authority.mint("inner outer", subject="ann", expires_in=600))
        assert isinstance(decision, Granted)
        control = await stage.connect(authority.mint("inner outer", subject="bob", expires_in=60))
        stage.advance(authority, 100)
        await control.has_ended.wait()
        assert wire.reason is None
        guard.revoke(subject="ann")
        if "revocation" not in (outer, inner):
            stage.advance(authority, 600)
        await wire.has_ended.wait()
        assert wire.reason == (REVOKED if "revocation" in (outer, inner) else EXPIRED)


async def test_inner_layer_with_another_guard_takes_no_token_for_the_outer_one(authority: FakeAuthority):
    failures: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ConfigurationError, match="close_streams") as failure:
            await renew(scope, authority.mint())
        failures.append(str(failure.value))

    inside = GuardMiddleware(app, guard=guard_of(authority))
    await Wire(authority.mint()).run(GuardMiddleware(inside, guard=guard_of(authority), close_streams="expiry"))
    assert failures


async def test_failure_of_the_watcher_ends_its_connections(authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch):
    async with Stage(guard_of(authority)) as stage:
        wire = await stage.connect(authority.mint())

        async def fail(watcher: Watcher) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Watcher, "_sweep", fail)
        stage.watcher.wake()
        await wire.has_ended.wait()
        assert wire.reason == REFUSED


async def test_anonymous_connection_takes_no_token(authority: FakeAuthority):
    answers: Answers = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        answers.append((await renew(scope, authority.mint()), None))

    async with Stage(guard_of(authority), app, public=["/ws"]) as stage:
        wire = await stage.connect(None)
        await wire.has_ended.wait()
    decision, _ = answers[0]
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.RENEWAL_MISMATCH


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_renewal_that_cannot_work_is_an_error_of_the_app(authority: FakeAuthority, kind: str):
    failures: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ConfigurationError, match="close_streams") as failure:
            await renew(scope, "x")
        failures.append(str(failure.value))

    guard = guard_of(authority)
    guarded = GuardMiddleware(app, guard=guard, close_streams="never" if kind == "websocket" else "expiry")
    await Wire(authority.mint(), kind).run(guarded)
    assert failures
