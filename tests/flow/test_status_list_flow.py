"""The status of a token, step by step: what is fetched, when, and with which result."""

from __future__ import annotations

import zlib
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from scopeguard.config.issuer import Issuer
from scopeguard.config.status_list import StatusListPolicy
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.config.token_sources import TokenSources
from scopeguard.devserver.keys import SigningKey, base64url, compact
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.authenticate import authenticate
from scopeguard.flow.context import Context
from scopeguard.flow.effects import Answer, Send, SingleFlight
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList, RequestView
from scopeguard.state.issuers import Issuers
from scopeguard.state.revocation import Revocation, Revocations, Revoked, digest_of
from scopeguard.state.status_list import StatusLists
from scopeguard.state.token_cache import TokenCache
from scopeguard.testing import FakeAuthority

URI = "https://as.test/statuslists/1"
HEADERS = {"content-type": "application/statuslist+jwt"}
VALID, INVALID, SUSPENDED, MAPPED_BY_NOBODY, BEYOND = 0, 1, 2, 3, 4


def status_list_answer(authority: FakeAuthority, *, key: Any = None, headers: Any = None, **claims: Any) -> Answer:
    """Return a list with the statuses 0, 1, 2 and 3, in two bits each."""
    now = authority.clock.wall()
    members = {
        "sub": URI,
        "iat": now,
        "exp": now + 3600,
        "ttl": 60,
        "status_list": {"bits": 2, "lst": base64url(zlib.compress(b"\xe4"))},
    }
    signer = key or authority.key()
    header = {"typ": "statuslist+jwt", "alg": signer.algorithm, "kid": signer.kid}
    given = {name: value for name, value in {**members, **claims}.items() if value is not None}
    return Answer(200, compact(header, given, signer).encode(), HEADERS if headers is None else headers)


class Stage:
    """The bench of the flow, and a URL with a status list."""

    def __init__(self, authority: FakeAuthority, new_bench: Any, **settings: Any) -> None:
        self.authority = authority
        self.clock = authority.clock
        self.policy = StatusListPolicy(**settings)
        self.bench = new_bench(authority, replace(authority.issuer, experimental_status_list=self.policy))
        self.status_lists = StatusLists(max_bytes=1000)
        self.bench.record.status_lists = self.status_lists
        self.answer: Answer | Exception | None = None
        self.bench.script._replies = self._reply

    def _reply(self, url: str) -> Any:
        if url != URI:
            return self.bench._ask(url)
        return status_list_answer(self.authority) if self.answer is None else self.answer

    @property
    def fetched(self) -> list[Send]:
        return [send for send in self.bench.script.sends if send.url == URI]

    def token(self, idx: Any = VALID, uri: str = URI, **options: Any) -> str:
        return self.authority.mint("read", claims={"status": {"status_list": {"idx": idx, "uri": uri}}}, **options)

    def judge(self, idx: Any = VALID) -> Any:
        return self.bench.judge(self.token(idx))

    def refusal(self, token: str) -> Reason:
        with pytest.raises(InvalidToken) as caught:
            self.bench.judge(token)
        return caught.value.reason

    def outage(self) -> AuthorityUnavailable:
        with pytest.raises(AuthorityUnavailable) as caught:
            self.judge()
        return caught.value


@pytest.fixture
def stage(authority: FakeAuthority, new_bench: Any) -> Stage:
    return Stage(authority, new_bench)


@pytest.mark.rule("K-03", "K-21")
def test_status_is_looked_up_in_the_list_that_the_token_names(stage: Stage):
    assert stage.judge().scopes == {"read"}
    assert stage.fetched == [
        Send(
            url=URI,
            authority="https://as.test",
            accept="application/statuslist+jwt",
            limit=16 * 1024 * 1024,
            timeout=5.0,
        )
    ]
    assert stage.fetched[0].form is None  # A GET of the URL in the token, without a time parameter.


@pytest.mark.rule("K-14", "K-15")
@pytest.mark.parametrize(
    ("idx", "reason"),
    [
        (INVALID, Reason.TOKEN_NOT_ACTIVE),
        (SUSPENDED, Reason.TOKEN_NOT_ACTIVE),
        (MAPPED_BY_NOBODY, Reason.TOKEN_NOT_ACTIVE),
        (BEYOND, Reason.MALFORMED_CLAIM),
    ],
)
def test_each_status_but_valid_refuses_the_token(stage: Stage, idx: int, reason: Reason):
    assert stage.refusal(stage.token(idx)) is reason


def test_token_without_a_status_is_refused_where_one_is_required(authority: FakeAuthority, new_bench: Any):
    plain = authority.mint("read")
    assert Stage(authority, new_bench).bench.judge(plain).scopes == {"read"}
    strict = Stage(authority, new_bench, required=True)
    assert strict.refusal(plain) is Reason.MISSING_CLAIM
    assert strict.judge().scopes == {"read"}
    assert strict.fetched


def test_list_is_fetched_once_for_all_its_tokens(stage: Stage):
    stage.judge()
    stage.refusal(stage.token(INVALID))
    stage.judge()
    assert len(stage.fetched) == 1


@pytest.mark.rule("K-14")
def test_status_of_a_cached_token_is_looked_up_again(stage: Stage):
    memory, token = TokenCache(TokenCachePolicy()), stage.token()
    for _ in range(3):
        assert stage.bench.judge(token, token_cache=memory).scopes == {"read"}
    found = memory.find(sha256(token.encode()).digest(), stage.clock.wall())
    assert found is not None
    assert not found.instant
    stage.clock.advance(61)
    lst = base64url(zlib.compress(b"\xe5"))
    stage.answer = status_list_answer(stage.authority, status_list={"bits": 2, "lst": lst})
    with pytest.raises(InvalidToken) as caught:
        stage.bench.judge(token, token_cache=memory)
    assert caught.value.reason is Reason.TOKEN_NOT_ACTIVE


def test_list_is_not_used_after_its_end_if_keys_were_fetched_for_it(stage: Stage):
    """The list arrives with four seconds left, and two of them pass while its key is fetched."""
    signer = SigningKey.generate("ES256")
    now = stage.clock.wall()
    stage.judge()
    stage.clock.advance(61)

    def reply(url: str) -> Any:
        if url == URI:
            return status_list_answer(stage.authority, key=signer, exp=now + 65, ttl=None)
        stage.clock.advance(2)
        stage.authority.authority.keys.publish(signer.public_jwk())
        return stage.bench._ask(url)

    stage.bench.script._replies = reply
    stage.judge()
    held = stage.status_lists.lookup(URI, stage.clock.monotonic() + 1.9)
    assert held.status_list is not None
    assert stage.status_lists.lookup(URI, stage.clock.monotonic() + 2).status_list is None


def test_token_without_a_status_causes_no_fetch(stage: Stage):
    stage.bench.judge(stage.authority.mint("read"))
    assert not stage.fetched


@pytest.mark.rule("K-20")
def test_status_is_an_ordinary_claim_without_a_policy(authority: FakeAuthority, bench: Any):
    token = authority.mint("read", claims={"status": {"status_list": {"idx": 1, "uri": URI}}})
    assert bench.judge(token).claims["status"]["status_list"]["idx"] == 1
    assert URI not in bench.asked


def test_policy_without_an_origin_for_lists_checks_nothing(stage: Stage):
    stage.bench.record.status_lists = None
    stage.judge(INVALID)
    assert not stage.fetched


@pytest.mark.rule("K-20", "K-02", "K-19")
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"x": {}}, Reason.UNEXPECTED_CLAIM),
        ({"status_list": {"idx": -1, "uri": URI}}, Reason.MALFORMED_CLAIM),
        ({"status_list": {"idx": 1, "uri": "https://169.254.169.254/latest/meta-data"}}, Reason.UNEXPECTED_CLAIM),
    ],
)
def test_malformed_status_refuses_the_token_without_a_fetch(stage: Stage, status: Any, reason: Reason):
    assert stage.refusal(stage.authority.mint("read", claims={"status": status})) is reason
    assert stage.bench.asked == [url for url in stage.bench.asked if url.startswith("https://as.test/")]
    assert not stage.fetched


@pytest.mark.rule("K-01")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"expires_in": -60}, Reason.TOKEN_EXPIRED),
        ({"audience": "https://other.test"}, Reason.WRONG_AUDIENCE),
        ({"key": SigningKey.generate("ES256")}, Reason.UNKNOWN_KEY),
    ],
)
def test_token_that_is_refused_anyway_causes_no_fetch(stage: Stage, options: dict[str, Any], reason: Reason):
    assert stage.refusal(stage.token(**options)) is reason
    assert not stage.fetched


@pytest.mark.rule("K-04", "K-05", "K-06", "K-07", "K-08", "K-09", "K-13", "K-18")
@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"content-type": "application/json"}},
        {"sub": "https://as.test/statuslists/2"},
        {"iat": None},
        {"exp": 1},
        {"ttl": 0},
        {"status_list": None},
        {"status_list": {"bits": 2, "lst": base64url(zlib.compress(bytes(2**20 + 1)))}},
        {"status_list": {"bits": 2, "lst": base64url(b"no zlib")}},
        {"key": SigningKey.generate("ES256")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_malformed_list_is_an_outage(authority: FakeAuthority, new_bench: Any, options: dict[str, Any]):
    stage = Stage(authority, new_bench, max_bytes=2**20)
    stage.answer = status_list_answer(authority, **options)
    error = stage.outage()
    assert error.reason is Reason.AUTHORITY_ANSWER_INVALID
    assert error.detail["url"] == URI
    assert error.detail["problem"].startswith("its status list cannot be used: ")


@pytest.mark.rule("K-06")
def test_list_with_a_forged_signature_under_a_known_key_id_is_an_outage(stage: Stage, authority: FakeAuthority):
    stage.judge()
    stage.clock.advance(3600)
    forged = SigningKey.generate("ES256", kid=authority.key().kid)
    stage.answer = status_list_answer(authority, key=forged)
    assert "bad_signature" in stage.outage().detail["problem"]


@pytest.mark.rule("K-06")
def test_access_token_is_not_accepted_as_a_status_list(stage: Stage, authority: FakeAuthority):
    stage.answer = Answer(200, authority.mint("read", claims={"sub": URI}).encode(), HEADERS)
    assert "typ" in stage.outage().detail["problem"]


@pytest.mark.rule("K-04", "K-16", "K-17")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(302, b"", {"location": URI}), Reason.AUTHORITY_ANSWER_INVALID),
        (Answer(404, b"", {}), Reason.AUTHORITY_ANSWER_INVALID),
        (Answer(503, b"", {"retry-after": "7"}), Reason.AUTHORITY_UNREACHABLE),
        (AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "https://as.test"), Reason.AUTHORITY_TIMED_OUT),
    ],
)
def test_missing_list_or_redirect_is_an_outage(stage: Stage, answer: Any, reason: Reason):
    stage.answer = answer
    assert stage.outage().reason is reason
    assert len(stage.fetched) == 1


def test_failure_is_followed_by_a_pause(stage: Stage):
    stage.answer = Answer(503, b"", {"retry-after": "7"})
    stage.outage()
    error = stage.outage()
    assert (error.reason, error.retry_after) == (Reason.AUTHORITY_BACKING_OFF, 7.0)
    assert len(stage.fetched) == 1
    stage.answer = None
    stage.clock.advance(7)
    stage.judge()


def test_exception_of_a_transport_is_followed_by_a_pause(stage: Stage):
    stage.answer = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        stage.judge()
    assert stage.outage().reason is Reason.AUTHORITY_BACKING_OFF
    assert len(stage.fetched) == 1


@pytest.mark.rule("K-16")
def test_unavailable_status_is_tolerated_if_configured(authority: FakeAuthority, new_bench: Any):
    stage = Stage(authority, new_bench, fail_open_dangerously=True)
    stage.answer = Answer(503, b"", {})
    stage.judge(INVALID)
    stage.judge(INVALID)
    assert len(stage.fetched) == 1
    stage.clock.advance(1)
    stage.answer = None
    assert stage.refusal(stage.token(INVALID)) is Reason.TOKEN_NOT_ACTIVE
    assert stage.refusal(stage.token(-1)) is Reason.MALFORMED_CLAIM


@pytest.mark.rule("K-11", "K-16")
def test_stale_list_is_refreshed_and_used_until_its_expiry_if_that_fails(stage: Stage):
    stage.judge()
    stage.clock.advance(59.9)
    stage.judge()
    assert len(stage.fetched) == 1
    stage.clock.advance(0.1)
    stage.judge()
    assert len(stage.fetched) == 2
    stage.answer = Answer(503, b"", {})
    stage.clock.advance(60)
    stage.judge()
    stage.judge()
    assert len(stage.fetched) == 3  # One attempt, and a pause.
    assert stage.refusal(stage.token(INVALID)) is Reason.TOKEN_NOT_ACTIVE
    stage.clock.advance(3539.9)
    stage.judge()
    stage.clock.advance(0.1)
    stage.outage()


@pytest.mark.rule("K-10")
def test_ttl_of_a_list_precedes_its_max_age(stage: Stage):
    stage.answer = status_list_answer(stage.authority, ttl=600, headers={**HEADERS, "cache-control": "max-age=1"})
    stage.judge()
    stage.clock.advance(599)
    stage.judge()
    assert len(stage.fetched) == 1


@pytest.mark.rule("K-10")
def test_list_without_a_ttl_is_cached_as_http_says(stage: Stage):
    headers = {**HEADERS, "cache-control": "max-age=120"}
    stage.answer = status_list_answer(stage.authority, ttl=None, exp=None, headers=headers)
    stage.judge()
    stage.clock.advance(119.9)
    stage.judge()
    assert len(stage.fetched) == 1
    stage.clock.advance(0.1)
    stage.judge()
    assert len(stage.fetched) == 2


def test_request_that_waited_for_a_fetch_does_not_fetch_again(stage: Stage):
    first, second = (stage.bench.flow(stage.token()) for _ in range(2))
    next(first)
    stage.bench.judge(stage.authority.mint("read"))  # The keys.
    flights = []
    for flow in (first, second):
        effect: Any = next(flow) if flow is second else flow.send(None)
        assert isinstance(effect, SingleFlight)
        assert effect.key == f"status list {URI} of https://as.test"
        assert effect.needed()
        flights.append(effect)
    stage.bench.script.play(flights[0].flow())
    assert not flights[1].needed()
    for flow in (first, second):
        with pytest.raises(StopIteration):
            flow.send(None)
    assert len(stage.fetched) == 1


def test_revoked_token_is_refused_with_any_status(stage: Stage):
    issuers = Issuers((stage.bench.record,), revocations=Revocations())
    now = stage.clock.wall()
    token = stage.token(subject="alice")
    digest = digest_of(Revoked.SUBJECT, "https://as.test", "alice")
    issuers.revocations.add(Revocation(kind=Revoked.SUBJECT, digest=digest, at=now, until=now + 60), now)
    headers = HeaderList([(b"authorization", b"Bearer " + token.encode("ascii"))])
    view = RequestView(method="GET", path="/", headers=headers)
    with pytest.raises(InvalidToken) as caught:
        stage.bench.script.play(authenticate(view, TokenSources(), Context(issuers=issuers, clock=stage.clock)))
    assert caught.value.reason is Reason.TOKEN_REVOKED


def test_two_issuers_share_no_list(authority: FakeAuthority, new_bench: Any):
    other = FakeAuthority("https://other.test")
    policy = StatusListPolicy(allowed_origins="https://as.test")
    issuer = Issuer("https://other.test", audience="https://api.test", experimental_status_list=policy)
    bench = new_bench(other, issuer)
    bench.record.status_lists = StatusLists(max_bytes=1000)
    bench.script._replies = lambda url: status_list_answer(authority) if url == URI else bench._ask(url)
    token = other.mint("read", claims={"status": {"status_list": {"idx": 0, "uri": URI}}})
    with pytest.raises(AuthorityUnavailable) as caught:  # Signed by another issuer.
        bench.judge(token)
    assert "unknown_key" in caught.value.detail["problem"]
