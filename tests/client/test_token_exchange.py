"""Calls to the next API with a token that was exchanged for the caller's (RFC 8693): requests, cache, failures."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import hashlib
import logging
import pickle
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.from_thread
import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from scopeguard import AccessToken, ConfigurationError, InboundToken
from scopeguard.client import (
    ClientCredentials,
    ForwardingRefused,
    OriginNotAllowed,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
    TokenExchange,
    TokenExchangeRefused,
    arefuse_inbound_token,
    refuse_inbound_token,
)
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Answer, Send
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.spec.token_exchange import ACCESS_TOKEN, ID_JAG, JWT, JWT_BEARER, TOKEN_EXCHANGE
from scopeguard.tokens import begin_serving, end_serving

TOKEN_URL = "https://as.example/token"
NEXT = "https://api.example/"
SECRET = "sg-secret-1"
ANN, BOB = "sg-opaque-of-ann", "sg-opaque-of-bob"


def inbound(text: str, *, expires_at: float | None = 1_800_000_600.0) -> InboundToken:
    access = AccessToken(
        issuer="https://as.example", subject=text, client_id=None, audience=(), scopes=frozenset(),
        granted_scopes=None, expires_at=expires_at, claims={}, fingerprint=fingerprint(text),
    )  # fmt: skip
    return InboundToken(access, text)


@contextmanager
def request_of(text: str, **facts: Any) -> Iterator[InboundToken]:
    """A request with the token *text* is being served."""
    token = inbound(text, **facts)
    before = begin_serving(token)
    try:
        yield token
    finally:
        end_serving(before)


@dataclass
class Server:
    """An authorization server that exchanges "sg-opaque-of-x" for "sg-opaque-x-1", "sg-opaque-x-2" and so on."""

    members: dict[str, Any] = field(default_factory=dict)
    script: list[Answer | AuthorityUnavailable | Callable[[Send], Answer]] = field(default_factory=list)
    seen: list[Send] = field(default_factory=list)
    gate: threading.Event | None = None
    arrived: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, request: Send, /) -> Answer:
        with self._lock:
            self.seen.append(request)
            step = self.script.pop(0) if self.script else None
            number = len(self.seen)
        self.arrived.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        if isinstance(step, Answer):
            return step
        if isinstance(step, AuthorityUnavailable):
            raise step
        if step is not None:
            return step(request)
        form = dict(request.form or ())
        name = (form.get("subject_token") or form["assertion"]).rpartition("-")[2]
        return answer(**{"access_token": f"sg-opaque-{name}-{number}", **self.members})

    def close(self) -> None: ...

    @property
    def forms(self) -> list[dict[str, str]]:
        return [dict(request.form or ()) for request in self.seen]


def answer(status: int = 200, headers: dict[str, str] | None = None, **members: Any) -> Answer:
    import json

    if status == 200:
        members = {"token_type": "Bearer", "issued_token_type": ACCESS_TOKEN, "expires_in": 300, **members}
    kept = {name: value for name, value in members.items() if value is not ...}
    return Answer(status, json.dumps(kept).encode(), {"content-type": "application/json", **(headers or {})})


def refusal(error: str = "invalid_grant", status: int = 400, **members: Any) -> Answer:
    return answer(status, error=error, **members)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def make(server, clock) -> Callable[..., TokenExchange]:
    def build(**settings: Any) -> TokenExchange:
        made = TokenExchange(TOKEN_URL, "orders", SECRET, **{"transport": server, "clock": clock, **settings})
        made._exchanger._transport._sleep = lambda seconds: None
        return made

    return build


# -- the request


@pytest.mark.rule("G-28")
def test_the_exchange_has_exactly_the_parameters_of_the_rfc_and_the_token_in_the_body_only(call, make, server, api):
    exchange = make(audience="stock", resource="https://down.example", scopes=["read", "write"])
    next_api = api()
    with request_of(ANN):
        assert call(exchange, next_api).status_code == 200
    (request,) = server.seen
    assert request.form == (
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", ANN),
        ("subject_token_type", ACCESS_TOKEN),
        ("resource", "https://down.example"),
        ("audience", "stock"),
        ("scope", "read write"),
    )
    assert request.url == TOKEN_URL
    assert (request.authorization or "").startswith("Basic ")
    assert ANN not in request.url + (request.authorization or "")
    assert next_api.tokens == ["Bearer sg-opaque-ann-1"]


@pytest.mark.rule("G-28")
def test_types_and_the_actor_are_sent_if_they_are_set(make, server, credentials, endpoint):
    own = credentials()
    exchange = make(requested_token_type=JWT, subject_token_type=JWT, actor=own, auth_method="client_secret_post")
    exchange.for_token(inbound(ANN)).token()
    assert server.seen[0].form == (
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", ANN),
        ("subject_token_type", JWT),
        ("actor_token", "sg-opaque-1"),
        ("actor_token_type", ACCESS_TOKEN),
        ("requested_token_type", JWT),
        ("client_id", "orders"),
        ("client_secret", SECRET),
    )
    assert len(endpoint.seen) == 1


def test_a_function_can_return_the_actor_token(make, server):
    make(actor=lambda: "sg-opaque-actor", actor_token_type=JWT).for_token(ANN).token()
    assert (server.forms[0]["actor_token"], server.forms[0]["actor_token_type"]) == ("sg-opaque-actor", JWT)
    with pytest.raises(ConfigurationError, match="actor: it must return a token, not NoneType"):
        make(actor=lambda: None).for_token(ANN).token()


def test_the_endpoint_is_found_in_the_metadata(server, clock):
    metadata: dict[str, Any] = {"issuer": "https://as.example", "token_endpoint": "https://as.example/t"}
    server.script = [answer(status=200, **metadata)]
    exchange = TokenExchange.from_issuer("https://as.example", "orders", SECRET, transport=server, clock=clock)
    exchange.for_token(ANN).token()
    assert server.seen[1].url == "https://as.example/t"


# -- the response


@pytest.mark.rule("G-29")
@pytest.mark.parametrize("member", ["access_token", "issued_token_type", "token_type"])
@pytest.mark.parametrize("value", [..., None, 1, [], {}, True], ids=str)
def test_a_response_without_a_required_member_is_an_error(make, server, member, value):
    server.script = [answer(**{"access_token": "sg-opaque-x", member: value})]
    with pytest.raises(TokenEndpointError) as raised:
        make().for_token(ANN).token()
    assert (raised.value.status, raised.value.error) == (200, None)
    assert not isinstance(raised.value, TokenExchangeRefused)
    assert "sg-opaque" not in str(raised.value)


@pytest.mark.parametrize("kind", ["DPoP", "N_A", "mac", "", "Bearer "])
def test_another_token_type_than_bearer_is_an_error(make, server, kind):
    server.script = [answer(access_token="sg-opaque-x", token_type=kind)]
    with pytest.raises(TokenEndpointError, match="token_type is not Bearer"):
        make().for_token(ANN).token()


@pytest.mark.parametrize(
    ("requested", "issued", "good"),
    [
        (None, ACCESS_TOKEN, True),
        (None, JWT, True),
        (JWT, ACCESS_TOKEN, True),
        (ACCESS_TOKEN, JWT, True),
        ("urn:x:own", "urn:x:own", True),
        (None, "urn:ietf:params:oauth:token-type:refresh_token", False),
        (ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:id_token", False),
        ("urn:x:own", ACCESS_TOKEN, False),
        (None, ACCESS_TOKEN.upper(), False),
    ],
)
def test_the_issued_type_is_the_requested_one(make, server, requested, issued, good):
    server.script = [answer(access_token="sg-opaque-x", issued_token_type=issued)]
    bound = make(requested_token_type=requested).for_token(ANN)
    if good:
        assert bound.token().issued_token_type == issued
    else:
        with pytest.raises(TokenEndpointError, match="issued_token_type is not the type"):
            bound.token()


def test_a_server_may_omit_the_issued_type_if_that_is_set(make, server):
    server.members = {"issued_token_type": ...}
    assert make(issued_token_type_optional=True).for_token(ANN).token().issued_token_type is None


@pytest.mark.rule("G-27")
def test_a_server_that_returns_the_callers_token_would_have_it_forwarded(make, server, api, call):
    server.script = [answer(access_token=ANN)]
    next_api = api()
    with request_of(ANN), pytest.raises(TokenEndpointError, match="returned the token that it was given"):
        call(make(), next_api)
    assert next_api.seen == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(make, server, status):
    server.script = [answer(status, {"location": "https://evil.example/token"})]
    with pytest.raises(TokenEndpointError, match="redirects of a token endpoint are not followed"):
        make().for_token(ANN).token()
    assert len(server.seen) == 1


def test_an_oversized_answer_is_an_outage(make, server):
    server.script = [AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, TOKEN_URL, problem="larger than")]
    with pytest.raises(TokenEndpointUnavailable) as raised:
        make().for_token(ANN).token()
    assert raised.value.retry_after == 1.0
    assert server.seen[0].limit == 64 * 1024


# -- the cache


def test_each_caller_has_a_token_of_its_own_and_gets_it_again(call, make, server, api):
    exchange, next_api = make(), api()
    for name in (ANN, BOB, ANN, BOB, ANN):
        with request_of(name):
            call(exchange, next_api)
    ann, bob = "Bearer sg-opaque-ann-1", "Bearer sg-opaque-bob-2"
    assert next_api.tokens == [ann, bob, ann, bob, ann]
    assert len(server.seen) == 2


def test_two_callers_at_once_get_their_own_tokens(make, server):
    """On one event loop and in threads, while the server holds both requests."""
    exchange, found = make(), {}

    async def serve(name: str) -> None:
        with request_of(name):
            found[name] = (await exchange.atoken()).access_token

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for name in (ANN, BOB):
                group.start_soon(serve, name)
                await anyio.to_thread.run_sync(server.arrived.wait)
                server.arrived.clear()
            gate.set()

    gate = server.gate = threading.Event()
    anyio.run(main)
    assert sorted(found) == [ANN, BOB]
    assert found[ANN].startswith("sg-opaque-ann-")
    assert found[BOB].startswith("sg-opaque-bob-")


@pytest.mark.parametrize("lifetime", [300, 0, -5])
def test_one_exchange_serves_all_waiting_callers(make, server, lifetime):
    """Threads, asyncio and trio together. Even a token that has expired on arrival serves the callers that waited."""
    server.gate, server.members = threading.Event(), {"expires_in": lifetime}
    exchange = make()
    bound, found = exchange.for_token(inbound(ANN)), []

    def in_loop(backend: str) -> None:
        async def main() -> None:
            found.append(await bound.atoken())

        anyio.run(main, backend=backend)

    jobs = [lambda: found.append(bound.token()), lambda: in_loop("asyncio"), lambda: in_loop("trio")] * 2
    threads = [threading.Thread(target=job) for job in jobs]
    threads[0].start()
    assert server.arrived.wait(30)
    for thread in threads[1:]:
        thread.start()
    flights = exchange._exchanger._outside.flights
    while sum(len(flight.waiting) for flight in list(flights._running.values())) < 5:
        threading.Event().wait(0.001)
    server.gate.set()
    for thread in threads:
        thread.join(30)
    assert [token.access_token for token in found] == ["sg-opaque-ann-1"] * 6
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("settings", "members", "expires_at", "seconds"),
    [
        pytest.param({}, {"expires_in": 300}, 1_800_003_600.0, 290.0, id="the new token's lifetime, less the leeway"),
        pytest.param({}, {"expires_in": 60}, 1_800_003_600.0, 54.0, id="less a tenth of a short lifetime"),
        pytest.param({"leeway": 0.0}, {"expires_in": 300}, 1_800_003_600.0, 300.0, id="no leeway"),
        pytest.param({}, {"expires_in": 3600}, 1_800_000_120.0, 120.0, id="the caller's token expires first"),
        pytest.param({}, {"expires_in": 3600}, 1_799_999_990.0, 0.0, id="the caller's token has expired"),
        pytest.param({}, {"expires_in": 2**63}, 1_800_000_120.0, 120.0, id="a huge lifetime"),
        pytest.param({}, {"expires_in": 3600}, None, 300.0, id="the caller's expiry is unknown"),
        pytest.param({"longest_use": 20.0}, {"expires_in": 3600}, None, 20.0, id="unknown, with a bound"),
        pytest.param({"longest_use": 0.0}, {"expires_in": 3600}, None, 0.0, id="unknown, and not cached"),
        pytest.param({}, {"expires_in": ...}, 1_800_003_600.0, 290.0, id="no lifetime"),
        pytest.param({"default_lifetime": 50.0}, {"expires_in": ...}, 1_800_003_600.0, 45.0, id="a default lifetime"),
        pytest.param({}, {"expires_in": 0}, 1_800_003_600.0, 0.0, id="expired on arrival"),
        pytest.param({}, {"expires_in": -1}, 1_800_003_600.0, 0.0, id="negative"),
    ],
)
@pytest.mark.parametrize("which", ["now", "wall_now"])
def test_a_token_is_cached_no_longer_than_either_lives(
    make, server, clock, settings, members, expires_at, seconds, which
):
    server.members = members
    bound = make(**settings).for_token(inbound(ANN, expires_at=expires_at))
    bound.token()
    if seconds:
        setattr(clock, which, getattr(clock, which) + seconds - 0.5)
        assert bound.token().access_token == "sg-opaque-ann-1"
        setattr(clock, which, getattr(clock, which) + 1.0)
    assert bound.token().access_token == "sg-opaque-ann-2"


@pytest.mark.parametrize("value", ["soon", 1.5, [], {}, True])
def test_an_odd_lifetime_is_an_error(make, server, value):
    server.members = {"expires_in": value}
    with pytest.raises(TokenEndpointError, match="expires_in"):
        make().for_token(ANN).token()


def test_the_cache_is_bounded(make, server):
    exchange = make(max_entries=2)
    for name in (ANN, BOB, "sg-opaque-of-cleo", BOB, ANN):
        exchange.for_token(name).token()
    assert len(exchange._exchanger._held) == 2
    assert [form["subject_token"] for form in server.forms] == [ANN, BOB, "sg-opaque-of-cleo", ANN]


def test_exchanges_with_other_settings_share_nothing(make, server):
    for settings in ({}, {"audience": "a"}, {"audience": "b"}, {"scopes": "x"}, {"resource": "urn:x"}):
        make(**settings).for_token(ANN).token()
    assert len(server.seen) == 5


# -- the API refuses


def test_a_token_that_the_api_refuses_is_exchanged_once_more(call, make, server, clock, api):
    challenge = {"www-authenticate": 'Bearer error="invalid_token"'}
    exchange, next_api = make(), api(200, (401, challenge), 200)
    with request_of(ANN):
        call(exchange, next_api)
        clock.now += 2
        assert call(exchange, next_api).status_code == 200
    assert next_api.tokens == [f"Bearer sg-opaque-ann-{number}" for number in (1, 1, 2)]


def test_an_api_that_refuses_every_token_causes_one_exchange_a_second(call, make, server, clock, api):
    exchange, next_api = make(), api((401, {}))
    with request_of(ANN):
        for _ in range(5):
            assert call(exchange, next_api).status_code == 401
        assert len(server.seen) == 1
        clock.now += 1
        call(exchange, next_api)
        assert len(server.seen) == 2


# -- the server refuses, or is away


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_request", "invalid_target", "interaction_required"])
def test_a_refusal_is_an_error_of_its_own(call, make, server, api, error):
    server.script = [refusal(error, error_description="the user must consent")]
    next_api = api()
    with request_of(ANN), pytest.raises(TokenExchangeRefused) as raised:
        call(make(), next_api)
    assert (raised.value.error, raised.value.status) == (error, 400)
    assert raised.value.error_description == "the user must consent"
    assert next_api.seen == []


def test_a_refused_token_is_exchanged_again_after_growing_pauses_and_others_at_once(make, server, clock):
    server.script = [refusal() for _ in range(9)]
    exchange = make()
    bound = exchange.for_token(ANN)
    for pause in (1, 2, 4, 8, 16, 30, 30):
        for _ in range(3):
            with pytest.raises(TokenExchangeRefused):
                bound.token()
        before = len(server.seen)
        clock.now += pause - 0.1
        with pytest.raises(TokenExchangeRefused):
            bound.token()
        assert len(server.seen) == before
        clock.now += 0.2
    server.script = []
    assert exchange.for_token(BOB).token().access_token.startswith("sg-opaque-bob-")
    assert bound.token().access_token.startswith("sg-opaque-ann-")


def test_an_outage_is_unavailable_with_the_time_to_wait(call, make, server, api, clock):
    server.script = [answer(503, {"retry-after": "7"})]
    exchange, next_api = make(), api()
    with request_of(ANN), pytest.raises(TokenEndpointUnavailable) as raised:
        call(exchange, next_api)
    assert (raised.value.retry_after, raised.value.status) == (7.0, 503)
    with request_of(BOB), pytest.raises(TokenEndpointUnavailable) as raised:
        call(exchange, next_api)
    assert raised.value.retry_after == 7.0
    assert len(server.seen) == 1, "no other caller's token is sent to a server that asked for a pause"
    clock.now += 7.1
    with request_of(BOB):
        assert call(exchange, next_api).status_code == 200


@pytest.mark.parametrize("status", [500, 408, 503, 429])
def test_an_outage_always_says_when_to_try_again(make, server, status):
    server.script = [answer(status)] * 2
    with pytest.raises(TokenEndpointUnavailable) as raised:
        make().for_token(ANN).token()
    assert (raised.value.status, raised.value.retry_after) == (status, 1.0)


@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error"])
def test_an_outage_that_the_server_reports_with_status_400_is_not_a_refusal(make, server, error):
    server.script = [refusal(error)]
    with pytest.raises(TokenEndpointUnavailable, match=error):
        make().for_token(ANN).token()


def test_a_refusal_does_not_cause_another_search_for_the_endpoint(server, clock):
    """One caller whose token is refused must not cause a request for metadata with each exchange."""
    metadata: dict[str, Any] = {"issuer": "https://as.example", "token_endpoint": "https://as.example/t"}
    server.script = [answer(200, **metadata), refusal(), refusal(), answer(404), answer(200, **metadata)]
    exchange = TokenExchange.from_issuer("https://as.example", "orders", SECRET, transport=server, clock=clock)
    for name in (ANN, BOB):
        with pytest.raises(TokenExchangeRefused):
            exchange.for_token(name).token()
    with pytest.raises(TokenEndpointError):
        exchange.for_token("sg-opaque-of-cleo").token()
    exchange.for_token("sg-opaque-of-dave").token()
    paths = [request.url.removeprefix("https://as.example") for request in server.seen]
    assert paths[1:4] == ["/t"] * 3
    assert paths[5] == "/t"


def test_one_callers_token_that_breaks_the_server_does_not_shut_others_out(make, server, clock):
    """One valid token that makes the server fail must not pause the exchanges of other tokens."""

    def fail_for_bob(request: Send) -> Answer:
        return answer(500) if dict(request.form or ())["subject_token"] == BOB else answer(access_token="sg-opaque-ok")

    exchange = make(retries=0)
    for _ in range(20):
        server.script = [fail_for_bob] * 2
        clock.now += 31
        with pytest.raises(TokenEndpointUnavailable):
            exchange.for_token(BOB).token()
        assert exchange.for_token(ANN + "x").token().access_token == "sg-opaque-ok"


def test_a_refused_client_is_not_tried_with_each_callers_token(make, server, clock, caplog):
    caplog.set_level(logging.WARNING)
    server.script = [refusal("invalid_client", 401) for _ in range(5)]
    exchange = make()
    for name in (ANN, BOB, "sg-opaque-of-cleo"):
        with pytest.raises(TokenEndpointError) as raised:
            exchange.for_token(name).token()
        assert raised.value.error == "invalid_client"
        assert not isinstance(raised.value, TokenExchangeRefused)
    assert len(server.seen) == 1
    assert "no token for the next API" in caplog.text
    server.script = []
    clock.now += 61
    exchange.for_token(BOB).token()


def test_waiting_callers_get_the_failure_of_the_exchange_they_waited_for(make, server):
    server.gate, server.script = threading.Event(), [answer(500)]
    exchange = make(retries=0)
    bound, failures = exchange.for_token(ANN), []

    def take() -> None:
        try:
            bound.token()
        except TokenEndpointUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    threads[0].start()
    assert server.arrived.wait(30)
    for thread in threads[1:]:
        thread.start()
    flights = exchange._exchanger._outside.flights
    while sum(len(flight.waiting) for flight in list(flights._running.values())) < 3:
        threading.Event().wait(0.001)
    server.gate.set()
    for thread in threads:
        thread.join(30)
    assert len({id(error) for error in failures}) == 4, "each raises a copy of its own"
    assert len(server.seen) == 1


def test_a_full_lane_and_a_wait_that_takes_too_long_are_unavailable(make, server):
    exchange = make()
    exchange._exchanger._longest_wait = 0.0
    server.gate = threading.Event()
    first = threading.Thread(target=exchange.for_token(BOB).token)
    first.start()
    assert server.arrived.wait(30)
    try:
        with pytest.raises(TokenEndpointUnavailable) as raised:
            exchange.for_token(BOB).token()
        assert raised.value.retry_after == 1.0
    finally:
        server.gate.set()
        first.join(30)


def test_fewer_scopes_are_warned_of_once_or_refused(make, server, caplog):
    caplog.set_level(logging.WARNING)
    server.members = {"scope": "read"}
    exchange = make(scopes=["read", "write"])
    for name in (ANN, BOB):
        exchange.for_token(name).token()
    assert caplog.text.count("missing: write") == 1
    with pytest.raises(ScopeNotGranted):
        make(scopes=["read", "write"], narrower_scope="refuse").for_token(ANN).token()


# -- where it works


def test_exchange_without_request_and_text_is_a_configuration_error(call, make, server, api):
    exchange, next_api = make(), api()
    with pytest.raises(ConfigurationError, match="no access token here"):
        call(exchange, next_api)
    before = begin_serving(inbound(ANN).access_token)
    try:
        with pytest.raises(ConfigurationError, match="keep_token_for_exchange=True"):
            call(exchange, next_api)
    finally:
        end_serving(before)
    assert (server.seen, next_api.seen) == ([], [])


def test_a_background_task_has_an_explicit_token_and_shares_the_cache(call, make, server, api):
    exchange, next_api = make(), api()
    with request_of(ANN) as token:
        call(exchange, next_api)
        bound = exchange.for_token(token)
    call(bound, next_api)
    assert next_api.tokens == ["Bearer sg-opaque-ann-1"] * 2
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "wrong",
    [None, "", b"x", 1, object(), "\ud800", "a\nb"],
    ids=["none", "empty", "bytes", "number", "object", "half a character", "two lines"],
)
def test_another_kind_of_token_is_refused(make, wrong):
    with pytest.raises(ConfigurationError, match="for_token: pass inbound_token"):
        make().for_token(wrong)


def test_exchange_works_in_httpx2(call, make, api, library):
    call.library = library
    next_api = api(library=library)
    with request_of(ANN):
        assert call(make(), next_api).status_code == 200
    assert next_api.tokens == ["Bearer sg-opaque-ann-1"]


def test_exchange_can_be_closed_and_used_again(make, server):
    exchange = make()
    exchange.for_token(ANN).token()
    exchange.close()
    anyio.run(exchange.aclose)
    assert exchange.for_token(BOB).token().access_token == "sg-opaque-bob-2"


# -- the caller's token stays here


@pytest.mark.rule("G-27", "N-05", "MC-12")
@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"x-forwarded-authorization": f"Bearer {ANN}"}},
        {"headers": {"x-token": ANN}},
        {"headers": {"cookie": f"a=b; token={ANN}"}},
        {"params": {"access_token": ANN}},
    ],
    ids=["bearer", "plain", "cookie", "query"],
)
def test_a_request_with_the_callers_token_elsewhere_is_not_sent(call, make, api, options):
    next_api = api()
    with request_of(ANN), pytest.raises(ForwardingRefused) as raised:
        call(make(), next_api, **options)
    assert ANN not in str(raised.value)
    assert next_api.seen == []


def test_authorization_is_replaced(call, make, api):
    next_api = api()
    with request_of(ANN):
        call(make(), next_api, headers={"authorization": f"Bearer {ANN}"})
    assert next_api.tokens == ["Bearer sg-opaque-ann-1"]


@pytest.mark.rule("G-27", "N-05")
@pytest.mark.parametrize("backend", ["blocking", "asyncio", "trio"])
def test_a_hook_refuses_to_forward_the_callers_token(backend):
    sent: list[httpx.Request] = []

    def answer_all(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    transport = httpx.MockTransport(answer_all)

    def send_blocking(**options: Any) -> None:
        with httpx.Client(transport=transport, event_hooks={"request": [refuse_inbound_token]}) as client:
            client.get("https://other.example/", **options)

    async def in_loop(options: dict[str, Any]) -> None:
        hooks = {"request": [arefuse_inbound_token]}
        async with httpx.AsyncClient(transport=transport, event_hooks=hooks) as client:
            await client.get("https://other.example/", **options)

    def send(**options: Any) -> None:
        send_blocking(**options) if backend == "blocking" else anyio.run(in_loop, options, backend=backend)

    mine = {"headers": {"authorization": f"Bearer {ANN}"}}
    before = begin_serving(inbound(ANN).access_token)  # a guard that keeps no text
    try:
        for options in (mine, {"params": {"t": ANN}}, {"headers": {"x-user": f'token="{ANN}"'}}):
            with pytest.raises(ForwardingRefused, match="TokenExchange"):
                send(**options)
        assert sent == []
        send(headers={"authorization": f"Bearer {BOB}"})
    finally:
        end_serving(before)
    send(**mine)  # outside a request there is no caller
    assert len(sent) == 2


def test_the_token_goes_to_the_first_origin_only(call, make, api):
    exchange, next_api = make(), api()
    with request_of(ANN):
        call(exchange, next_api)
        with pytest.raises(OriginNotAllowed):
            call(exchange, next_api, url="https://other.example/")
    with request_of(BOB), pytest.raises(OriginNotAllowed):  # for all callers
        call(exchange, next_api, url="https://other.example/")
    assert len(next_api.seen) == 1


def test_nothing_shows_a_token_or_the_secret(make, server, caplog):
    caplog.set_level(logging.DEBUG)
    exchange = make(actor=lambda: "sg-opaque-actor")
    server.script = [
        refusal("x", error_description=f"bad token {ANN}"),
        refusal("x", error_description="actor sg-opaque-actor", error_uri=f"https://x/{ANN}"),
        refusal("x", error_description=f"secret {SECRET}"),
        answer(access_token=ANN),
        answer(500),
        answer(500),
    ]
    texts = []
    for number in range(6):
        token = ANN if number < 1 else f"{ANN}-{number}"
        try:
            exchange.for_token(token).token()
        except (TokenEndpointError, TokenEndpointUnavailable) as error:
            texts += [str(error), repr(error), repr(vars(error)), repr(error.__context__), repr(error.__cause__)]
    bound = exchange.for_token(ANN)
    texts += [repr(exchange), repr(bound), repr(bound.__dict__), repr(exchange._exchanger._held.__dict__), caplog.text]
    shown = "\n".join(texts)
    for secret in (SECRET, "sg-opaque-actor", ANN + "-1", ANN + "-5"):
        assert secret not in shown
    assert "withheld: it quotes a token" in shown
    for spread in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            spread(bound)


# -- presets


def test_entra_takes_the_callers_token_as_an_assertion(server, clock):
    exchange = TokenExchange.entra(
        "contoso.example", "orders", SECRET, scopes=["api://stock/.default"], transport=server, clock=clock
    )
    server.members = {"issued_token_type": ..., "refresh_token": "sg-secret-r"}
    assert exchange.for_token(inbound(ANN)).token().access_token == "sg-opaque-ann-1"
    (request,) = server.seen
    assert request.url == "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"
    assert request.form == (
        ("grant_type", JWT_BEARER),
        ("assertion", ANN),
        ("requested_token_use", "on_behalf_of"),
        ("scope", "api://stock/.default"),
        ("client_id", "orders"),
        ("client_secret", SECRET),
    )
    assert request.authorization is None


def key_and_certificate() -> tuple[rsa.RSAPrivateKey, str, str]:
    """Return an RSA key, the same as PEM text, and a certificate of it as PEM text."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders")])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + dt.timedelta(days=365))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )
    return key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(), certificate


def test_entra_takes_an_assertion_in_the_form_that_microsoft_requires(server, clock):
    """https://learn.microsoft.com/entra/identity-platform/certificate-credentials"""
    key, pem, certificate = key_and_certificate()
    exchange = TokenExchange.entra(
        "contoso.example",
        "orders",
        private_key=pem,
        certificate=certificate,
        scopes=["api://stock/.default"],
        transport=server,
        clock=clock,
    )
    server.members = {"issued_token_type": ...}
    assert exchange.for_token(inbound(ANN)).token().access_token == "sg-opaque-ann-1"
    (request,) = server.seen
    form = dict(request.form)
    assertion = form.pop("client_assertion")
    assert form == {
        "grant_type": JWT_BEARER,
        "assertion": ANN,
        "requested_token_use": "on_behalf_of",
        "scope": "api://stock/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    thumbprint = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert jwt.get_unverified_header(assertion) == {"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint}
    endpoint = "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"
    timeless: Any = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(assertion, key.public_key(), algorithms=["PS256"], audience=endpoint, options=timeless)
    now = int(clock.wall())
    assert len(claims.pop("jti")) >= 20
    assert claims == {"aud": endpoint, "iss": "orders", "sub": "orders", "iat": now, "exp": now + 60}


def test_certificate_of_an_assertion_must_be_one_of_its_key():
    _, pem, certificate = key_and_certificate()
    _, other, _ = key_and_certificate()
    given: dict[str, Any] = {"scopes": ["x"], "private_key": pem}
    for wrong, message in (
        ({}, "certificate: is missing; Entra finds the key"),
        ({"certificate": pem}, "certificate: must be one certificate as PEM text"),
        ({"certificate": certificate + certificate}, "certificate: must be one certificate as PEM text"),
        ({"certificate": certificate.replace("MII", "AAA", 1)}, "certificate: must be one certificate as PEM text"),
        ({"certificate": certificate, "private_key": other}, "certificate: must be for the key in private_key"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            TokenExchange.entra("contoso", "orders", **{**given, **wrong})
    with pytest.raises(ConfigurationError, match="certificate: has no effect without private_key"):
        TokenExchange.entra("contoso", "orders", SECRET, scopes=["x"], certificate=certificate)
    with pytest.raises(ConfigurationError, match="client_secret: is missing"):
        TokenExchange.entra("contoso", "orders", scopes=["x"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": ()},
        {"tenant": "a/b"},
        {"tenant": ""},
        {"host": "https://login.microsoftonline.com"},
        {"audience": "x"},
        {"resource": "urn:x"},
        {"requested_token_type": JWT},
        {"actor": lambda: "x"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_entra_refuses_settings_without_effect(wrong):
    settings: dict[str, Any] = {"tenant": "contoso", "scopes": ["x"], **wrong}
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        TokenExchange.entra(settings.pop("tenant"), "orders", SECRET, **settings)


def test_auth0_exchanges_by_the_rfc_on_behalf_of_and_by_a_profile(server, clock):
    world = {"transport": server, "clock": clock}
    server.members = {"issued_token_type": ...}
    exchange = TokenExchange.auth0("acme.eu.auth0.com", "orders", SECRET, audience="https://stock.example", **world)
    exchange.for_token(ANN).token()
    assert server.seen[0].url == "https://acme.eu.auth0.com/oauth/token"
    assert server.forms[0] == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": ANN,
        "subject_token_type": ACCESS_TOKEN,
        "audience": "https://stock.example",
        "client_id": "orders",
        "client_secret": SECRET,
    }
    legacy = TokenExchange.auth0(
        "acme.eu.auth0.com", "orders", SECRET, audience="x", subject_token_type="urn:acme:legacy", **world
    )
    legacy.for_token(ANN).token()
    assert server.forms[1]["subject_token_type"] == "urn:acme:legacy"
    for wrong in ({"domain": "https://acme.eu.auth0.com"}, {"audience": ()}):
        settings: dict[str, Any] = {"domain": "acme.eu.auth0.com", "audience": "x", **wrong}
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            TokenExchange.auth0(settings.pop("domain"), "orders", SECRET, **settings)


def test_an_identity_assertion_is_redeemed_at_the_other_server(server, clock, endpoint, credentials):
    jag = {"token_type": "N_A", "issued_token_type": ID_JAG}
    server.members = jag
    other = credentials("https://as.next.example/token")
    exchange = TokenExchange.identity_assertion(
        TOKEN_URL, "orders", SECRET, audience="https://as.next.example", redeem_with=other,
        scopes=["read"], transport=server, clock=clock,
    )  # fmt: skip
    assert exchange.for_token(ANN).token().access_token == "sg-opaque-1"
    assert server.forms[0]["requested_token_type"] == ID_JAG
    assert server.forms[0]["audience"] == "https://as.next.example"
    (request,) = endpoint.seen
    assert request.url == "https://as.next.example/token"
    assert request.form == (("grant_type", JWT_BEARER), ("assertion", "sg-opaque-ann-1"))
    exchange.for_token(ANN).token()
    assert len(server.seen) == 1, "the access token is cached"

    endpoint.script = [endpoint.answer(400, error="invalid_grant", error_description="sg-opaque-bob-2")]
    with pytest.raises(TokenExchangeRefused) as raised:
        exchange.for_token(BOB).token()
    assert raised.value.authority == "https://as.next.example/token"
    assert "sg-opaque" not in str(raised.value)
    for members in ({}, {**jag, "token_type": "Bearer"}, {**jag, "issued_token_type": ACCESS_TOKEN}):
        clock.now += 100
        server.members = members
        with pytest.raises(TokenEndpointError):
            exchange.for_token(BOB).token()


def test_an_identity_assertion_needs_the_other_server():
    other = ClientCredentials("https://as.next.example/token", "orders", SECRET)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("audience", {"redeem_with": other}),
        ("redeem_with", {"audience": "x", "redeem_with": None}),
        ("requested_token_type", {"audience": "x", "redeem_with": other, "requested_token_type": JWT}),
    ]
    for name, settings in cases:
        with pytest.raises(ConfigurationError, match=name):
            TokenExchange.identity_assertion(TOKEN_URL, "orders", SECRET, **settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subject_token_type", "access_token"),
        ("requested_token_type", ""),
        ("actor_token_type", "urn with space:x"),
        ("actor", "a token"),
        ("max_entries", 0),
        ("longest_use", -1.0),
        ("leeway", -1.0),
        ("parameters", {"subject_token": "x"}),
        ("parameters", {"requested_token_use": "x"}),
        ("token_types", "DPoP"),
    ],
)
def test_settings_are_checked_at_construction(name, value):
    with pytest.raises(ConfigurationError, match=name):
        TokenExchange(TOKEN_URL, "orders", SECRET, **{name: value})


def test_the_pauses_of_the_state_are_those_of_the_documentation():
    from scopeguard.state import exchanged_tokens

    backoff = exchanged_tokens._BACKOFF
    assert (backoff.first, backoff.longest) == (1.0, 30.0)
