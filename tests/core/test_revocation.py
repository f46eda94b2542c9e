"""Guard.revoke and Guard.arevoke: which tokens they end, in this process and in others that share the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from scopeguard import Guard, Issuer
from scopeguard.config.introspection import Introspection
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.validation import Validation
from scopeguard.core.revoking import record_revocation
from scopeguard.devserver.keys import base64url
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import SingleFlight
from scopeguard.flow.revocation import sync_if_due
from scopeguard.guard import Decision, Denied, Granted, Unavailable, engine_of
from scopeguard.reasons import Reason
from scopeguard.state.revocation import Revocation, Revoked, digest_of
from scopeguard.stores import MemoryStore
from scopeguard.testing import FakeAuthority, FakeClock
from scopeguard.testing.transport import Network
from storms import request_with

P256: int = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def new_guard(authority: FakeAuthority) -> Iterator[Callable[..., Guard]]:
    open_: list[Guard] = []

    def make(**options: Any) -> Guard:
        introspection = Introspection(client_id="api", client_secret=authority.api.secret)
        issuer = replace(authority.issuer, validate=Validation.AUTO, introspection=introspection)
        guard = Guard(issuer, transport=authority.transport, clock=authority.clock, **options)
        open_.append(guard)
        return guard

    yield make
    for guard in open_:
        guard.close()


NewGuard = Callable[..., Guard]
Do = Callable[..., Any]


@pytest.fixture(params=["threads", "asyncio", "trio"])
def runtime(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def decide(runtime: str) -> Do:
    def check(guard: Guard, token: str) -> Decision:
        if runtime == "threads":
            return guard.check(request_with(token))
        return anyio.run(guard.acheck, request_with(token), backend=runtime)

    return check


@pytest.fixture
def revoke(runtime: str) -> Do:
    def call(guard: Guard, **what: Any) -> None:
        if runtime == "threads":
            guard.revoke(**what)
            return

        async def run() -> None:
            await guard.arevoke(**what)

        anyio.run(run, backend=runtime)

    return call


def is_revoked(decision: Decision) -> bool:
    assert isinstance(decision, Denied), decision
    assert decision.error.reason is Reason.TOKEN_REVOKED
    assert decision.response.status == 401
    assert 'error="invalid_token"' in dict(decision.response.headers)["www-authenticate"]
    assert b"revoked" not in decision.response.body  # Clients do not learn which check failed (B-49).
    return True


KINDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "token": lambda token: {"token": token},
    "jti": lambda token: {"jti": "the-jti"},
    "subject": lambda token: {"subject": "alice"},
    "client_id": lambda token: {"client_id": "app"},
}


def mint_named(authority: FakeAuthority, token_format: str, *, name: str = "", **options: Any) -> str:
    return authority.mint(
        "read",
        subject=name + "alice",
        client_id=name + "app",
        claims={"jti": name + "the-jti"},
        token_format=token_format,
        **options,
    )


@pytest.mark.rule("X-63", "E-17")
@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
@pytest.mark.parametrize("kind", KINDS)
def test_revoked_tokens_are_refused_at_once_and_others_are_not(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do, kind: str, token_format: str
):
    guard = new_guard()
    token, other = mint_named(authority, token_format), mint_named(authority, token_format, name="another-")
    assert isinstance(decide(guard, token), Granted)
    revoke(guard, **KINDS[kind](token))
    assert is_revoked(decide(guard, token))
    assert isinstance(decide(guard, other), Granted)


@pytest.mark.rule("E-10")
@pytest.mark.parametrize("kind", ["subject", "client_id"])
def test_tokens_issued_after_a_revocation_by_subject_or_client_are_accepted(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do, kind: str
):
    """This holds after the leeway. Until then a token may have been issued before, by a clock that is ahead."""
    guard = new_guard()
    old = mint_named(authority, "jwt")
    revoke(guard, **KINDS[kind](old))
    authority.clock.advance(30)
    assert is_revoked(decide(guard, old))
    assert is_revoked(decide(guard, mint_named(authority, "jwt")))
    authority.clock.advance(1)
    assert isinstance(decide(guard, mint_named(authority, "jwt")), Granted)
    revoke(guard, **KINDS[kind](old), at=authority.clock.wall())
    authority.clock.advance(1)
    assert isinstance(decide(guard, mint_named(authority, "jwt")), Granted)  # "at" is a time of the issuer's clock.
    revoke(guard, **KINDS[kind](old), at=authority.clock.wall() + 10)
    assert is_revoked(decide(guard, mint_named(authority, "jwt")))
    undated = authority.mint("read", subject="alice", client_id="app", claims={"iat": None}, headers={"typ": "JWT"})
    authority.clock.advance(100)
    assert is_revoked(decide(guard, undated))  # It does not show that it is newer.


@pytest.mark.rule("E-10", "E-15")
@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
@pytest.mark.parametrize("kind", ["subject", "client_id"])
def test_token_with_a_future_iat_is_revoked_with_the_others(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do, kind: str, token_format: str
):
    """It was issued before the call but its iat is later; tested here and in a process that shares the store."""
    store = MemoryStore(authority.clock)
    one, two = new_guard(store=store), new_guard(store=store)
    ahead = authority.mint(
        "read",
        subject="alice",
        client_id="app",
        token_format=token_format,
        claims={"iat": int(authority.clock.wall()) + 29},
    )
    assert isinstance(decide(one, ahead), Granted)
    revoke(one, **KINDS[kind](ahead))
    authority.clock.advance(1)
    for guard in (one, two):
        assert is_revoked(decide(guard, ahead))
    authority.clock.advance(100)
    for guard in (one, two):
        assert is_revoked(decide(guard, ahead))


@pytest.mark.rule("E-15")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_revocation_is_kept_until_the_last_covered_token_expires(
    authority: FakeAuthority,
    new_guard: NewGuard,
    decide: Do,
    revoke: Do,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    *,
    shared: bool,
):
    """A token with the lifetime of a revocation, issued by a clock that is ahead, is accepted for the leeway longer."""
    store = MemoryStore(authority.clock) if shared else None
    policy = RevocationPolicy(retention=3600)
    guard = new_guard(store=store, revocation=policy)
    now = int(authority.clock.wall())
    claims = {"jti": "the-jti", "iat": now + 30, "exp": now + 30 + 3600}
    token = authority.mint("read", subject="alice", client_id="app", claims=claims)
    revoke(guard, **KINDS[kind](token))
    authority.clock.advance(3600 + 30 + 29)
    with caplog.at_level(logging.WARNING, "scopeguard"):  # a line for each would take longer than the test
        for number in range(1100):  # Other revocations make the memory drop expired ones.
            record_revocation(engine_of(guard), Revoked.JTI, authority.url, str(number))
    assert is_revoked(decide(guard, token))
    if shared:
        assert is_revoked(decide(new_guard(store=store, revocation=policy), token))
    authority.clock.advance(1)
    decision = decide(guard, token)
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_process_with_the_store_follows_within_the_lag(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do, kind: str, token_format: str
):
    store = MemoryStore(authority.clock)
    one, two = new_guard(store=store), new_guard(store=store)
    token = mint_named(authority, token_format)
    assert isinstance(decide(one, token), Granted)
    assert isinstance(decide(two, token), Granted)
    revoke(one, **KINDS[kind](token))
    assert is_revoked(decide(one, token))
    authority.clock.advance(1)
    assert is_revoked(decide(two, token))
    assert is_revoked(decide(new_guard(store=store), token))  # A process that starts now.
    assert isinstance(decide(two, mint_named(authority, token_format, name="another-")), Granted)


@pytest.mark.rule("E-15")
def test_revocation_outlives_each_token_it_covers(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do
):
    store = MemoryStore(authority.clock)
    one, two = (new_guard(store=store, revocation=RevocationPolicy(retention=7200)) for _ in range(2))
    token = mint_named(authority, "jwt", expires_in=7000)
    revoke(one, token=token)
    authority.clock.advance(6999)
    assert is_revoked(decide(one, token))
    assert is_revoked(decide(two, token))


def test_jwt_with_another_valid_signature_is_revoked_too(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do
):
    """Anyone can derive a second valid signature from an ECDSA signature."""
    guard = new_guard()
    token = authority.mint("read")
    signed, _, signature = token.rpartition(".")
    octets = _decode(signature)
    r, s = int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big")
    twin = f"{signed}.{base64url(r.to_bytes(32, 'big') + (P256 - s).to_bytes(32, 'big'))}"
    assert twin != token
    assert decode_dss_signature(encode_dss_signature(r, P256 - s)) == (r, P256 - s)
    assert isinstance(decide(guard, twin), Granted)
    revoke(guard, token=token)
    assert is_revoked(decide(guard, twin))


def _decode(segment: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


@pytest.mark.rule("E-17")
def test_revoked_names_apply_to_one_issuer(decide: Do, revoke: Do):
    one, two = FakeAuthority("https://one.test"), FakeAuthority("https://two.test")
    two.clock = two.authority.clock = one.clock
    guard = Guard(one.issuer, two.issuer, transport=Network(one, two), clock=one.clock)
    revoke(guard, subject="alice", issuer="https://two.test")
    assert isinstance(decide(guard, one.mint("read", subject="alice")), Granted)
    assert is_revoked(decide(guard, two.mint("read", subject="alice")))
    guard.close()


@pytest.mark.rule("H-19", "X-63")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["token", "jti", "subject", "client_id"])
def test_revoked_token_is_refused_during_an_outage(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do, kind: str, *, shared: bool
):
    """A token revoked by its text is always refused; one revoked by a claim while its answer is cached."""
    store = MemoryStore(authority.clock) if shared else None
    guard, other = new_guard(store=store), new_guard(store=store)
    token = mint_named(authority, "opaque")
    for one in (guard, other):
        assert isinstance(decide(one, token), Granted)
    revoke(guard, **KINDS[kind](token))
    authority.clock.advance(1)
    with authority.outage():
        assert is_revoked(decide(guard, token))
        if shared:
            assert is_revoked(decide(other, token))
        authority.clock.advance(60)
        decision = decide(guard, token)
        assert is_revoked(decision) if kind == "token" else isinstance(decision, Unavailable)
        assert isinstance(decide(guard, mint_named(authority, "opaque")), Unavailable)


# -- wrong calls


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({}, "exactly one"),
        ({"issuer": "https://as.test"}, "exactly one"),
        ({"jti": "a", "subject": "b"}, "exactly one"),
        ({"jti": "a", "issuer": "https://other.test"}, "not a trusted issuer"),
        ({"token": "eyJ.x.y"}, "not from a trusted issuer"),
        ({"token": b"eyJ.x.y"}, "revoke: token: must be a string, not bytes"),
        ({"client_id": 7}, "revoke: client_id: must be a string, not int"),
        ({"jti": "a", "at": "now"}, "revoke: at: must be a number, not str"),
        ({"jti": "a", "at": float("nan")}, "revoke: at: must be a number, not NaN"),
        ({"jti": "a", "at": 1767225600000}, "revoke: at: 1767225600000 is too far in the future; write seconds"),
        ({"jti": "a", "at": float("inf")}, "revoke: at: inf is too far in the future"),
    ],
)
def test_invalid_arguments_are_refused(new_guard: NewGuard, revoke: Do, what: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        revoke(new_guard(), **what)


def test_issuer_argument_is_required_with_several_issuers(authority: FakeAuthority):
    guard = Guard(authority.issuer, Issuer("https://two.test", audience="x", jwks_uri="https://two.test/jwks"))
    with pytest.raises(ConfigurationError, match="name one with issuer"):
        guard.revoke(jti="a")
    guard.revoke(token=authority.mint("read"))
    with pytest.raises(ConfigurationError, match="not from a trusted issuer"):
        guard.revoke(token=authority.mint("read", claims={"iss": "https://evil.test"}))


@pytest.mark.parametrize("name", ["retention", "max_lag"])
@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan")])
def test_invalid_policy_is_refused(name: str, value: Any):
    with pytest.raises(ConfigurationError, match=f"revocation.{name}"):
        RevocationPolicy(**{name: value})


# -- a failing store


class Failing(MemoryStore):
    failing = True

    def append(self, entry: bytes, /, *, seconds: float) -> None:
        self._fail()
        super().append(entry, seconds=seconds)

    def read(self, after: str | None, /) -> Any:
        self._fail()
        return super().read(after)

    def _fail(self) -> None:
        if self.failing:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0)


def test_revocation_that_the_store_refuses_applies_locally_and_raises(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do
):
    store = Failing(authority.clock)
    guard = new_guard(store=store, revocation=RevocationPolicy(fail_open_dangerously=True))
    with pytest.raises(AuthorityUnavailable) as error:
        revoke(guard, jti="the-jti")
    assert error.value.reason is Reason.STORE_UNAVAILABLE
    assert is_revoked(decide(guard, mint_named(authority, "jwt")))


@pytest.mark.rule("H-19")
def test_unreadable_revocation_log_is_503_not_401(authority: FakeAuthority, new_guard: NewGuard, decide: Do):
    store = Failing(authority.clock)
    closed, open_ = (
        new_guard(store=store),
        new_guard(store=store, revocation=RevocationPolicy(fail_open_dangerously=True)),
    )
    for token in (mint_named(authority, "jwt"), mint_named(authority, "opaque")):
        decision = decide(closed, token)
        assert isinstance(decision, Unavailable)
        assert decision.response.status == 503
        assert isinstance(decide(open_, token), Granted)
    assert isinstance(decide(closed, mint_named(authority, "jwt", expires_in=-60)), Denied)  # This needs no store.
    store.failing = False
    authority.clock.advance(2)
    assert isinstance(decide(closed, mint_named(authority, "jwt")), Granted)


class Slow(MemoryStore):
    """A store that takes *seconds* to read, once or always, and can add a revocation during a read."""

    def __init__(self, clock: FakeClock, seconds: float, *, always: bool = False) -> None:
        super().__init__(clock)
        self.clock = clock
        self.seconds = seconds
        self.always = always
        self.during: Callable[[], None] = lambda: None

    def read(self, after: str | None, /) -> Any:
        found = super().read(after)
        during, self.during = self.during, lambda: None
        during()
        if after is None or self.always:
            self.clock.advance(self.seconds)
        return found


@pytest.mark.parametrize("always", [False, True])
def test_log_that_takes_longer_to_read_than_the_lag_is_used_when_read(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, *, always: bool
):
    """The duration of a read does not show the age of the end of the log that it reached."""
    store = Slow(authority.clock, 5.0, always=always)
    new_guard(store=store).revoke(jti="another-the-jti")
    guard = new_guard(store=store)
    for _ in range(3):
        assert isinstance(decide(guard, mint_named(authority, "jwt")), Granted)
        assert is_revoked(decide(guard, mint_named(authority, "jwt", name="another-")))


def test_token_revoked_during_a_long_read_of_the_log_is_refused(
    authority: FakeAuthority, new_guard: NewGuard, decide: Do, revoke: Do
):
    store = Slow(authority.clock, 5.0)
    other, guard = new_guard(store=store), new_guard(store=store)
    token = mint_named(authority, "jwt")
    other.revoke(jti="another-the-jti")
    store.during = lambda: store.append(_entry(authority, "the-jti"), seconds=3600)
    assert is_revoked(decide(guard, token))


def _entry(authority: FakeAuthority, jti: str) -> bytes:
    now = authority.clock.wall()
    digest = digest_of(Revoked.JTI, "https://as.test", jti)
    return Revocation(kind=Revoked.JTI, digest=digest, at=now, until=now + 3600).to_bytes()


def test_sync_that_began_before_the_request_does_not_count_as_recent(authority: FakeAuthority, new_guard: NewGuard):
    """If one read takes longer than the lag, a request that joined it reads once more, so that it never uses
    outdated revocations."""
    store = Slow(authority.clock, 5.0, always=True)
    guard = new_guard(store=store)
    context = engine_of(guard).context
    issuers, clock = context.issuers, context.clock
    flow = sync_if_due(context)
    first = next(flow)
    assert isinstance(first, SingleFlight)
    issuers.revocations.record_sync(clock.monotonic() - 5.0)  # The sync that this request joined.
    second = flow.send(None)
    assert isinstance(second, SingleFlight)
    assert second.needed()
    issuers.revocations.record_sync(clock.monotonic())
    with pytest.raises(StopIteration):
        flow.send(None)


def test_request_that_joined_a_failed_sync_is_an_outage(authority: FakeAuthority, new_guard: NewGuard):
    guard = new_guard(store=MemoryStore(authority.clock))
    flow = sync_if_due(engine_of(guard).context)
    next(flow)
    engine_of(guard).issuers.revocations.record_failed_sync()
    with pytest.raises(AuthorityUnavailable) as raised:
        flow.send(None)
    assert raised.value.reason is Reason.STORE_UNAVAILABLE


def test_joined_sync_is_used_while_recent(authority: FakeAuthority, new_guard: NewGuard):
    guard = new_guard(store=MemoryStore(authority.clock))
    flow = sync_if_due(engine_of(guard).context)
    next(flow)
    engine_of(guard).issuers.revocations.record_sync(authority.clock.monotonic() - 0.5)
    with pytest.raises(StopIteration):
        flow.send(None)


def test_no_part_of_a_revoked_token_is_stored_or_logged(
    authority: FakeAuthority, new_guard: NewGuard, caplog: pytest.LogCaptureFixture
):
    store = MemoryStore(authority.clock)
    guard = new_guard(store=store)
    token = mint_named(authority, "opaque")
    with caplog.at_level(logging.DEBUG):
        for kind in KINDS.values():
            guard.revoke(**kind(token))
        guard.check(request_with(token))
    assert token not in repr(vars(store))
    shown = repr(store._log) + caplog.text
    assert not any(word in shown for word in (token, "the-jti", "alice", "app"))
    assert "revoked: one subject of https://as.test" in caplog.text
