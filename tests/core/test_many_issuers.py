"""Many issuers: looked up on demand, isolated from each other, and cheap while unused."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest

from forked import Child
from scopeguard import Guard, Issuer, IssuerResolver, all_of
from scopeguard.devserver.keys import SigningKey
from scopeguard.edge import aio
from scopeguard.errors import AuthorityUnavailable, ConfigurationError
from scopeguard.flow.effects import CallHook, ask
from scopeguard.guard import Denied, Granted, Unavailable, engine_of
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.testing import FakeAuthority, FakeClock
from scopeguard.testing.transport import Network
from storms import HERD, PATIENCE, Storm, request_with

API = "https://api.test"
Tenants = dict[str, Issuer]
NewGuard = Callable[..., Guard]


def tenant(name: str) -> str:
    return f"https://{name}.as.test"


def is_tenant(iss: str) -> bool:
    return iss.startswith("https://") and iss.endswith(".as.test")


class Directory:
    """The directory that a resolver queries, with a record of the queries."""

    def __init__(self, *authorities: FakeAuthority) -> None:
        self.known: Tenants = {authority.url: authority.issuer for authority in authorities}
        self.asked: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def find(self, iss: str) -> Issuer | None:
        self.asked.append(iss)
        self.threads.add(threading.current_thread())
        assert self.gate.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        return self.known.get(iss)

    async def afind(self, iss: str) -> Issuer | None:
        await asyncio.sleep(0)
        return self.find(iss)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tenants(clock: FakeClock) -> list[FakeAuthority]:
    return [FakeAuthority(tenant(name), API, clock=clock) for name in "abc"]


@pytest.fixture
def network(tenants: list[FakeAuthority]) -> Network:
    return Network(*tenants)


@pytest.fixture
def directory(tenants: list[FakeAuthority]) -> Directory:
    return Directory(*tenants)


@pytest.fixture
def new_guard(network: Network, clock: FakeClock, directory: Directory) -> Iterator[NewGuard]:
    made: list[Guard] = []

    def make(
        *issuers: Issuer,
        accepts: Callable[[str], Any] = is_tenant,
        resolve: Callable[[str], Any] | None = None,
        resolves: bool = True,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Guard:
        resolver = IssuerResolver(accepts=accepts, resolve=resolve or directory.find, **settings)
        guard = Guard(
            *issuers, resolver=resolver if resolves else None, transport=network, clock=clock, **(options or {})
        )
        made.append(guard)
        return guard

    yield make
    for guard in made:
        guard.close()


def outcome(guard: Guard, token: str) -> str:
    """Return ``granted`` or the reason of the refusal."""
    match guard.check(request_with(token)):
        case Granted():
            return "granted"
        case Denied(error=error, response=response):
            assert response.status == 401
            return error.reason.value
        case Unavailable(error=failure, response=response):
            assert response.status == 503
            assert "retry-after" in dict(response.headers)
            return failure.reason.value
        case other:
            raise AssertionError(other)


# -- look-up on demand


def test_token_is_accepted_until_the_leeway_of_its_issuer_ends(new_guard: NewGuard, tenants: list[FakeAuthority]):
    one, two, found = tenants
    guard = new_guard(
        replace(one.issuer, leeway=10),
        replace(one.issuer, leeway=20, token_header="X-Proxy-Token"),  # The same issuer with a token header of a proxy.
        two.issuer,
        resolve=lambda name: replace(found.issuer, leeway=5),
        ttl=60,
    )

    def leeway(authority: FakeAuthority) -> float | None:
        match guard.check(request_with(authority.mint(expires_in=90))):
            case Granted(access_token=token):
                until = engine_of(guard).admits_until(token)
                assert until is not None
                return until - authority.clock.wall() - 90
            case refusal:
                raise AssertionError(refusal)

    assert [leeway(authority) for authority in tenants] == [20, 30, 5]
    match guard.check(request_with(found.mint(expires_in=90))):
        case Granted(access_token=token):
            found.clock.advance(60)
            assert engine_of(guard).admits_until(token) == token.expires_at  # The resolver has to be called again.
            assert engine_of(guard).admits_until(replace(token, expires_at=None)) is None
        case refusal:
            raise AssertionError(refusal)


@pytest.mark.parametrize("kind", ["blocking", "async"])
@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio", "mixed"])
def test_concurrent_requests_look_an_issuer_up_once_outside_the_event_loop(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], runtime: str, kind: str
):
    guard = new_guard(resolve=directory.afind if kind == "async" else directory.find)
    directory.gate.clear()
    storm = Storm(runtime, guard)
    storm.start([tenants[0].mint("read")] * HERD)
    storm.crowd(HERD)
    loops = set() if runtime in ("threads", "mixed") else set(storm._threads)
    directory.gate.set()
    assert storm.end() == {"Granted": HERD}
    assert directory.asked == [tenants[0].url]
    assert not directory.threads & loops
    assert tenants[0].transport.count("jwks") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["blocking", "async"])
async def test_other_tenants_are_served_during_a_look_up(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], kind: str
):
    guard = new_guard(tenants[1].issuer, resolve=directory.afind if kind == "async" else directory.find)
    directory.gate.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(guard.acheck, request_with(tenants[0].mint("read")))
        assert isinstance(await guard.acheck(request_with(tenants[1].mint("read"))), Granted)
        directory.gate.set()
    assert directory.asked == [tenants[0].url]


@pytest.mark.rule("P-18")
@pytest.mark.parametrize("iss", ["https://evil.test", "", "https://" + "a" * 512 + ".as.test"])
def test_issuer_that_the_predicate_rejects_is_not_looked_up(
    new_guard: NewGuard, directory: Directory, network: Network, tenants: list[FakeAuthority], iss: str
):
    token = tenants[0].mint("read", claims={"iss": iss})
    assert outcome(new_guard(), token) == "unknown_issuer"
    assert directory.asked == network.requests == []


def test_coroutine_as_a_predicate_admits_no_issuer(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority]
):
    for answer in (object(), "", 0, None):
        guard = new_guard(accepts=lambda iss, answer=answer: answer)
        with pytest.raises(ConfigurationError, match=r"^resolver\.accepts: must return True or False"):
            guard.check(request_with(tenants[0].mint("read")))
    assert directory.asked == []


def test_unknown_issuer_is_cached_for_a_while(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], clock: FakeClock
):
    guard = new_guard(negative_ttl=20)
    settings = directory.known.pop(tenants[0].url)
    token = tenants[0].mint("read")
    assert [outcome(guard, token) for _ in range(3)] == ["unknown_issuer"] * 3
    directory.known[tenants[0].url] = settings
    clock.advance(19)
    assert outcome(guard, token) == "unknown_issuer"
    assert len(directory.asked) == 1
    clock.advance(1)
    assert outcome(guard, token) == "granted"
    assert len(directory.asked) == 2


WRONG: list[tuple[Callable[[FakeAuthority], object], str]] = [
    (lambda a: replace(a.issuer, url=a.url + "/"), "was called with 'https://a.as.test' and returned"),
    (lambda a: replace(a.issuer, url=a.url.upper(), aliases={a.url: {}}, metadata_url=a.url), "was called with"),
    (lambda a: replace(a.issuer, token_header="x-token"), "has token_header"),
    (lambda a: a.url, "must return an Issuer or None, not str"),
    (lambda a: False, "must return an Issuer or None, not bool"),
]


@pytest.mark.parametrize("wrong, message", WRONG)
@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio"])
def test_invalid_result_of_a_resolver_is_an_error_and_grants_nothing(
    new_guard: NewGuard,
    tenants: list[FakeAuthority],
    runtime: str,
    wrong: Callable[[FakeAuthority], object],
    message: str,
):
    guard = new_guard(resolve=lambda iss: wrong(tenants[0]))
    view = request_with(tenants[0].mint("read"))
    with pytest.raises(ConfigurationError, match=f"^resolver.resolve: .*{message}"):
        guard.check(view) if runtime == "threads" else anyio.run(guard.acheck, view, backend=runtime)
    assert outcome(guard, tenants[0].mint("read")) == "authority_backing_off"
    assert tenants[0].requests == []


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_exception_of_a_resolver_is_raised_and_then_an_outage(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], clock: FakeClock, kind: str
):
    guard = new_guard(resolve=directory.afind if kind == "async" else directory.find)
    directory.failure = KeyError("tenant")
    token = tenants[0].mint("read")
    with pytest.raises(KeyError):
        guard.check(request_with(token))
    assert outcome(guard, token) == "authority_backing_off"
    assert len(directory.asked) == 1
    directory.failure = None
    clock.advance(1)
    assert outcome(guard, token) == "granted"


@pytest.mark.rule("P-19")
@pytest.mark.parametrize("asked, pause", [(None, 1.0), (0.1, 1.0), (7.0, 7.0), (3600.0, 30.0)])
def test_failing_look_up_is_an_outage_of_that_tenant_only(
    new_guard: NewGuard,
    directory: Directory,
    tenants: list[FakeAuthority],
    clock: FakeClock,
    asked: float | None,
    pause: float,
):
    guard = new_guard()
    one, other = tenants[0].mint("read"), tenants[1].mint("read")
    directory.failure = AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "the directory", retry_after=asked)
    assert outcome(guard, one) == "authority_unreachable"
    directory.failure = None
    assert outcome(guard, one) == "authority_backing_off"
    assert outcome(guard, other) == "granted"
    clock.advance(pause - 0.01)
    assert outcome(guard, one) == "authority_backing_off"
    clock.advance(0.01)
    assert outcome(guard, one) == "granted"
    assert directory.asked == [tenants[0].url, tenants[1].url, tenants[0].url]


@pytest.mark.parametrize("runtime", ["asyncio", "trio", "mixed"])
def test_requests_that_waited_for_a_failed_look_up_do_not_repeat_it(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], runtime: str
):
    directory.failure = AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "the directory")
    directory.gate.clear()
    storm = Storm(runtime, new_guard())
    storm.start([tenants[0].mint("read")] * 20)
    storm.crowd(20)
    directory.gate.set()
    assert storm.end() == {"Unavailable": 20}
    assert len(directory.asked) == 1


# -- limits and expiry


def test_least_recently_used_issuer_is_evicted_with_its_keys(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority]
):
    guard = new_guard(max_issuers=2)
    a, b, c = (authority.mint("read") for authority in tenants)
    assert [outcome(guard, token) for token in (a, b, a, c, a, b)] == ["granted"] * 6
    assert directory.asked == [tenant(name) for name in "abcb"]
    assert [authority.transport.count("jwks") for authority in tenants] == [1, 2, 1]
    resolved = engine_of(guard).issuers.resolved
    assert resolved is not None
    assert [record.issuer.url for record in resolved.found] == [tenant("a"), tenant("b")]


def test_unknown_names_are_bounded_and_evict_no_issuer(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority]
):
    guard = new_guard(max_issuers=2)
    good = tenants[0].mint("read")
    assert outcome(guard, good) == "granted"
    for number in range(20):
        forged = tenants[0].mint("read", claims={"iss": tenant(f"x{number}")})
        assert outcome(guard, forged) == "unknown_issuer"
    assert outcome(guard, good) == "granted"
    assert directory.asked.count(tenants[0].url) == 1
    resolved = engine_of(guard).issuers.resolved
    assert resolved is not None
    assert (len(resolved._found), len(resolved._others)) == (1, 2)


def test_issuer_is_looked_up_again_after_its_ttl_and_equal_settings_keep_the_keys(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], clock: FakeClock
):
    guard = new_guard(ttl=50)
    token = tenants[0].mint("read")
    for _ in range(3):
        assert outcome(guard, token) == "granted"
        clock.advance(50)
    assert len(directory.asked) == 3
    assert tenants[0].transport.count("jwks") == 1


def test_changed_settings_apply_after_the_next_look_up(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], clock: FakeClock
):
    guard = new_guard(ttl=50)
    url, token = tenants[0].url, tenants[0].mint("read")
    assert outcome(guard, token) == "granted"
    directory.known[url] = replace(tenants[0].issuer, audience="https://another.test")
    clock.advance(50)
    assert outcome(guard, token) == "wrong_audience"
    del directory.known[url]
    clock.advance(50)
    assert outcome(guard, token) == "unknown_issuer"
    directory.known[url] = tenants[0].issuer
    clock.advance(50)
    assert outcome(guard, token) == "granted"
    directory.failure = AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "the directory")
    clock.advance(50)
    assert outcome(guard, token) == "authority_unreachable"
    assert outcome(guard, token) == "authority_backing_off"
    directory.failure = None
    clock.advance(1)
    assert outcome(guard, token) == "granted"
    assert tenants[0].transport.count("jwks") == 2  # Of the first settings, and of the last.


# -- beside configured issuers


def test_a_configured_issuer_is_not_looked_up(new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority]):
    guard = new_guard(tenants[0].issuer)
    assert outcome(guard, tenants[0].mint("read")) == "granted"
    assert directory.asked == []
    assert guard.issuers == (tenants[0].issuer,)
    guard.warm()
    assert outcome(guard, tenants[1].mint("read")) == "granted"
    assert directory.asked == [tenants[1].url]
    assert guard.issuers == (tenants[0].issuer,)


def test_guard_needs_an_issuer_or_a_resolver(new_guard: NewGuard):
    assert new_guard().issuers == ()
    new_guard().warm()
    with pytest.raises(ConfigurationError, match="at least one Issuer"):
        new_guard(resolves=False)


def test_token_in_a_proxy_header_causes_no_look_up(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority]
):
    guard = new_guard(replace(tenants[0].issuer, token_header="x-token"))
    token = tenants[1].mint("read")
    in_field = RequestView(method="GET", path="/", headers=HeaderList([(b"x-token", token.encode())]))
    denied = guard.check(in_field)
    assert isinstance(denied, Denied)
    assert denied.error.reason is Reason.UNKNOWN_ISSUER
    assert directory.asked == []
    assert outcome(guard, token) == "granted"


def test_opaque_token_is_refused_with_a_resolver_alone(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority]
):
    guard = new_guard()
    denied = guard.check(request_with(tenants[0].mint("read", token_format="opaque")))
    assert isinstance(denied, Denied)
    assert directory.asked == tenants[0].requests == []


def test_implications_of_the_api_apply_to_all_issuers(new_guard: NewGuard, tenants: list[FakeAuthority]):
    guard = new_guard(options={"implies": {"all": ["read"]}})
    assert isinstance(guard.check(request_with(tenants[0].mint("all")), all_of("read")), Granted)


@pytest.mark.parametrize("kind", ["blocking", "async"])
@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio"])
def test_tokens_of_a_tenant_can_be_revoked(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], runtime: str, kind: str
):
    guard = new_guard(resolve=directory.afind if kind == "async" else directory.find)
    token, other = tenants[0].mint("read"), tenants[0].mint("read", subject="ann")
    foreign = tenants[1].mint("read", subject="ann")

    def revoke(**what: Any) -> None:
        async def run() -> None:
            await guard.arevoke(**what)

        guard.revoke(**what) if runtime == "threads" else anyio.run(run, backend=runtime)

    revoke(token=token)
    assert outcome(guard, token) == "token_revoked"
    assert outcome(guard, other) == "granted"
    with pytest.raises(ConfigurationError, match="name one with issuer"):
        revoke(subject="ann")
    with pytest.raises(ConfigurationError, match="is not a trusted issuer"):
        revoke(subject="ann", issuer="https://evil.test")
    revoke(subject="ann", issuer=tenants[0].url)
    assert outcome(guard, other) == "token_revoked"
    assert outcome(guard, foreign) == "granted"


def test_revocation_with_a_resolver_needs_an_issuer_argument(new_guard: NewGuard, tenants: list[FakeAuthority]):
    with pytest.raises(ConfigurationError, match="name one with issuer"):
        new_guard(tenants[0].issuer).revoke(subject="ann")


def test_look_up_of_the_parent_does_not_block_a_child(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority]
):
    guard = new_guard(tenants[2].issuer)
    assert outcome(guard, tenants[0].mint("read")) == "granted"
    resolved = engine_of(guard).issuers.resolved
    assert resolved is not None
    found = resolved.found[0]
    resolved._lock.acquire()
    found.ring._lock.acquire()
    engine_of(guard).issuers.all[0].ring._lock.acquire()

    def check() -> None:
        for authority in tenants:
            assert outcome(guard, authority.mint("read", headers={"kid": "new"})) == "unknown_key"
            assert outcome(guard, authority.mint("read")) == "granted"

    assert Child(check).ok()


@pytest.mark.anyio
async def test_hook_is_called_only_inside_a_flight():
    guard = Guard(FakeAuthority().issuer)
    with pytest.raises(TypeError, match="CallHook belongs inside a SingleFlight"):
        await aio.run(ask(CallHook(lambda: None)), engine_of(guard).runtime, None)


@pytest.mark.parametrize(
    "wrong, name",
    [
        ({"accepts": "https://*.as.test"}, "accepts"),
        ({"resolve": None}, "resolve"),
        ({"max_issuers": 0}, "max_issuers"),
        ({"ttl": "1"}, "ttl"),
        ({"negative_ttl": float("inf")}, "negative_ttl"),
    ],
)
def test_invalid_settings_are_refused(wrong: dict[str, Any], name: str):
    with pytest.raises(ConfigurationError, match=rf"^resolver\.{name}: "):
        IssuerResolver(**{"accepts": is_tenant, "resolve": Tenants().get, **wrong})


def test_any_issuer_name_is_logged_on_one_line(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], caplog: pytest.LogCaptureFixture
):
    directory.failure = AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, "the directory")
    guard = new_guard(accepts=lambda iss: True)
    with caplog.at_level(logging.INFO, "scopeguard"):
        outcome(guard, tenants[0].mint("read", claims={"iss": "x\nforged: \x1b[31m\u202e"}))
    assert caplog.messages
    assert all(message.isprintable() for message in caplog.messages)


# -- isolation


@pytest.mark.rule("P-19")
@pytest.mark.parametrize("by_resolver", [False, True])
def test_unreachable_authority_affects_no_other_issuer_and_backs_off(
    new_guard: NewGuard, tenants: list[FakeAuthority], clock: FakeClock, by_resolver: bool
):
    guard = new_guard() if by_resolver else new_guard(*(a.issuer for a in tenants), resolves=False)
    down, up = tenants[0], tenants[1]
    tries: list[int] = []
    with down.outage():
        for _ in range(40):
            for _ in range(3):
                assert outcome(guard, down.mint("read")) in ("authority_unreachable", "authority_backing_off")
                assert outcome(guard, up.mint("read")) == "granted"
            tries.append(len(down.requests))
            clock.advance(0.25)
    at = [number for number in range(1, 40) if tries[number] > tries[number - 1]]
    pauses = [later - earlier for earlier, later in zip([0, *at], at, strict=False)]
    assert pauses == [1, 2, 4, 8, 16]  # Quarters of a second.
    assert up.transport.count("metadata") == up.transport.count("jwks") == 1
    assert tenants[2].requests == []
    clock.advance(8)
    assert outcome(guard, down.mint("read")) == "granted"


@pytest.mark.rule("P-19")
@pytest.mark.parametrize("runtime", ["threads", "asyncio", "trio"])
def test_request_does_not_wait_for_the_keys_of_another_issuer(
    new_guard: NewGuard, tenants: list[FakeAuthority], runtime: str
):
    guard = new_guard(*(authority.issuer for authority in tenants), resolves=False)
    storm = Storm(runtime, guard)
    with tenants[0].hold() as held:
        storm.start([tenants[0].mint("read")])
        held.wait_for_requests()
        assert outcome(guard, tenants[1].mint("read")) == "granted"
        assert storm.decisions == []
    assert storm.end() == {"Granted": 1}


@pytest.mark.rule("P-19", "X-14", "X-57")
@pytest.mark.parametrize("by_resolver", [False, True])
def test_equal_key_ids_of_two_issuers_are_separate(new_guard: NewGuard, directory: Directory, by_resolver: bool):
    keys = [SigningKey.generate("ES256", kid="1") for _ in range(2)]
    one, two = (
        Issuer(tenant(name), audience=API, keys={"keys": [key.public_jwk()]})
        for name, key in zip("xy", keys, strict=True)
    )
    directory.known = {one.url: one, two.url: two}
    guard = new_guard() if by_resolver else new_guard(one, two, resolves=False)
    clock: Any = engine_of(guard).clock
    mint = FakeAuthority(one.url, API, clock=clock).mint
    for name, mine, other in ((one.url, keys[0], keys[1]), (two.url, keys[1], keys[0])):
        assert outcome(guard, mint("read", claims={"iss": name}, key=mine)) == "granted"
        assert outcome(guard, mint("read", claims={"iss": name}, key=other)) == "bad_signature"


@pytest.mark.rule("P-19")
@pytest.mark.parametrize("by_resolver", [False, True])
def test_algorithms_and_audiences_apply_per_issuer(
    new_guard: NewGuard, directory: Directory, tenants: list[FakeAuthority], by_resolver: bool
):
    one, two = tenants[:2]
    settings = [
        replace(one.issuer, algorithms=("ES256",), audience="https://one.test"),
        replace(two.issuer, algorithms=("EdDSA",), audience="https://two.test"),
    ]
    directory.known = {issuer.url: issuer for issuer in settings}
    guard = new_guard() if by_resolver else new_guard(*settings, resolves=False)
    for authority, algorithm, audience, expected in (
        (one, "ES256", "https://one.test", "granted"),
        (one, "EdDSA", "https://one.test", "algorithm_refused"),
        (one, "ES256", "https://two.test", "wrong_audience"),
        (two, "EdDSA", "https://two.test", "granted"),
        (two, "ES256", "https://two.test", "algorithm_refused"),
        (two, "EdDSA", "https://one.test", "wrong_audience"),
    ):
        assert outcome(guard, authority.mint("read", algorithm=algorithm, audience=audience)) == expected


# -- a thousand issuers issuers issuers issuers issuers issuers


def test_thousand_issuers_fetch_nothing_at_the_start_and_three_used_fetch_three(clock: FakeClock):
    used = [FakeAuthority(tenant(f"t{number}"), API, clock=clock) for number in (0, 500, 999)]
    network = Network(*used)
    issuers = [Issuer(tenant(f"t{number}"), audience=API) for number in range(1000)]
    before = set(threading.enumerate())
    guard = Guard(*issuers, transport=network, clock=clock)
    assert network.requests == []
    assert not set(threading.enumerate()) - before  # Threads of earlier tests may end in the meantime.
    for _ in range(2):
        assert [outcome(guard, authority.mint("read")) for authority in used] == ["granted"] * 3
    assert outcome(guard, used[0].mint("read", claims={"iss": tenant("t1000")})) == "unknown_issuer"
    assert len(network.requests) == 6  # Metadata and keys of each.
    guard.close()
