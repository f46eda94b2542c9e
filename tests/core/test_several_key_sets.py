"""One issuer whose signing keys are in several key sets, each under a separate URL."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scopeguard import (
    AuthorityUnavailable,
    ConfigurationError,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Issuer,
    Reason,
    RequestView,
    Unavailable,
)
from scopeguard.core.starting import take_over
from scopeguard.flow.effects import Answer, Send
from scopeguard.flow.keys import verify_signature
from scopeguard.guard import engine_of
from scopeguard.spec import jwt
from scopeguard.testing import FakeAuthority, FakeClock

SIGN_UP, RESET = "https://as.test/sign-up/keys", "https://as.test/reset/keys"


class Flows:
    """Two key sets of one issuer. ``down`` lists those that do not answer, ``asked`` the fetched URLs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.authorities = {url: FakeAuthority(clock=self.clock) for url in (SIGN_UP, RESET)}
        self.down: set[str] = set()
        self.asked: list[str] = []
        issuer = self.authorities[SIGN_UP].issuer
        self.issuer = replace(issuer, jwks_uri=[SIGN_UP, RESET])
        self.guard = self.new_guard()

    def new_guard(self) -> Guard:
        return Guard(self.issuer, transport=self, clock=self.clock)

    def send(self, request: Send, /) -> Answer:
        self.asked.append(request.url)
        if request.url in self.down:
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, request.authority)
        keys = self.authorities[request.url].authority.keys.key_set(self.clock.wall())
        return Answer(200, json.dumps(keys).encode(), {"content-type": "application/json"})

    def close(self) -> None:
        pass

    def mint(self, url: str, **options: Any) -> str:
        return self.authorities[url].mint("read", **options)

    def judge(self, token: str, guard: Guard | None = None) -> str:
        """Return ``granted`` or the reason of the refusal."""
        headers = HeaderList([(b"authorization", b"Bearer " + token.encode())])
        match (guard or self.guard).check(RequestView(method="GET", path="/", headers=headers)):
            case Granted(access_token=access):
                assert access.issuer == "https://as.test"
                return "granted"
            case Denied(error=error):
                return error.reason.value
            case Unavailable(error=outage):
                return f"503 {outage.reason.value}"
            case other:
                raise AssertionError(other)


@pytest.fixture
def flows() -> Flows:
    return Flows()


def test_token_is_accepted_with_a_key_of_any_set(flows: Flows):
    for _ in range(3):  # Then it is cached.
        assert flows.judge(flows.mint(SIGN_UP)) == "granted"
    token = flows.mint(RESET)
    assert [flows.judge(token) for _ in range(3)] == ["granted"] * 3
    # The first request asked the first set; the key of the second is looked for in both, once.
    assert flows.asked[0] == SIGN_UP
    assert flows.asked.count(RESET) == 1
    flows.asked.clear()
    assert flows.judge(flows.mint(RESET)) == flows.judge(flows.mint(SIGN_UP)) == "granted"
    assert flows.asked == []


def test_key_in_no_set_is_refused_after_all_sets_were_fetched(flows: Flows):
    stranger = FakeAuthority(clock=flows.clock)
    flows.guard.warm()
    assert sorted(flows.asked) == sorted([SIGN_UP, RESET])
    assert flows.judge(stranger.mint()) in ("unknown_key", "bad_signature")
    assert flows.judge(stranger.mint(headers={"kid": "made-up"})) == "unknown_key"
    flows.asked.clear()
    assert flows.judge(stranger.mint(headers={"kid": "made-up"})) == "unknown_key"
    assert flows.asked == []  # Each set has recorded that the key is absent.


@pytest.mark.parametrize("dead", [SIGN_UP, RESET])
def test_failure_of_one_set_does_not_affect_tokens_of_the_other(flows: Flows, dead: str):
    flows.down = {dead}
    alive = RESET if dead == SIGN_UP else SIGN_UP
    assert flows.judge(flows.mint(alive)) == "granted"
    assert flows.judge(flows.mint(dead)).startswith("503 authority_")
    assert flows.judge(flows.mint(alive, expires_in=-60)) == "token_expired"
    flows.down = set()
    flows.clock.advance(60)
    assert flows.judge(flows.mint(dead)) == "granted"


@pytest.mark.parametrize("rotated", [SIGN_UP, RESET])
def test_rotation_works_in_each_set(flows: Flows, rotated: str):
    flows.guard.warm()
    flows.authorities[rotated].rotate()
    assert flows.judge(flows.mint(rotated)) == "granted"
    assert flows.judge(flows.mint(RESET)) == flows.judge(flows.mint(SIGN_UP)) == "granted"


def test_key_set_is_kept_while_its_refresh_fails(flows: Flows):
    flows.guard.warm()
    flows.down = {SIGN_UP, RESET}
    flows.clock.advance(3700)
    assert flows.judge(flows.mint(RESET)) == flows.judge(flows.mint(SIGN_UP)) == "granted"


def test_a_key_may_move_to_the_other_set(flows: Flows):
    token = flows.mint(SIGN_UP, expires_in=10_000)
    assert [flows.judge(token) for _ in range(3)] == ["granted"] * 3
    one, two = (flows.authorities[url] for url in (SIGN_UP, RESET))
    one.authority.keys, two.authority.keys = two.authority.keys, one.authority.keys
    flows.clock.advance(700)
    assert flows.judge(token) == "granted"
    flows.guard.close()


def test_keys_with_equal_ids_in_both_sets_are_both_tried(flows: Flows, monkeypatch: pytest.MonkeyPatch):
    one, two = (flows.authorities[url].authority.keys for url in (SIGN_UP, RESET))
    kid = json.loads(flows.send(Send(url=SIGN_UP, authority="-")).body)["keys"][0]["kid"]
    other = json.loads(flows.send(Send(url=RESET, authority="-")).body)["keys"][0]["kid"]
    assert one is not two
    flows.guard.warm()
    if kid != other:  # The second set publishes its key under the id of the first set's key.
        published = flows.send

        def rename_key(request: Send, /) -> Answer:
            answer = published(request)
            return Answer(200, answer.body.replace(other.encode(), kid.encode()), answer.headers)

        monkeypatch.setattr(flows, "send", rename_key)
        flows.guard = flows.new_guard()
        flows.guard.warm()
    assert flows.judge(flows.mint(RESET, headers={"kid": kid})) == "granted"
    assert flows.judge(flows.mint(SIGN_UP)) == "granted"


def test_new_guard_takes_over_all_sets_of_an_issuer(flows: Flows):
    flows.guard.warm()
    flows.asked.clear()
    guard = flows.new_guard()
    take_over(engine_of(guard), engine_of(flows.guard))
    assert flows.judge(flows.mint(RESET), guard) == flows.judge(flows.mint(SIGN_UP), guard) == "granted"
    assert flows.asked == []
    flows.guard.revoke(token=(token := flows.mint(RESET)))
    assert flows.judge(token) == "token_revoked"


def test_other_signed_documents_of_the_issuer_are_verified_with_all_sets(flows: Flows):
    """These are introspection answers, status lists and security events."""
    (record,) = engine_of(flows.guard).issuers.all
    for url in (SIGN_UP, RESET):
        token = jwt.peek(flows.mint(url))
        key = engine_of(flows.guard).perform(verify_signature(token, record, flows.clock))
        assert key.kid == token.header["kid"]


def test_warm_up_fails_if_one_set_cannot_be_fetched(flows: Flows):
    flows.down = {RESET}
    with pytest.raises(AuthorityUnavailable):
        flows.guard.warm()


def test_single_jwks_uri_is_kept_as_a_string():
    def issuer(jwks_uri: Any) -> Issuer:
        return Issuer("https://as.test", audience="a", jwks_uri=jwks_uri)

    assert issuer(SIGN_UP).jwks_uri == issuer([SIGN_UP]).jwks_uri == issuer([SIGN_UP, SIGN_UP]).jwks_uri == SIGN_UP
    assert issuer([SIGN_UP, RESET]).jwks_uri == (SIGN_UP, RESET)
    assert replace(issuer([SIGN_UP, RESET]), leeway=0).jwks_uris == (SIGN_UP, RESET)
    assert issuer(None).jwks_uris == ()
    many = [f"{SIGN_UP}/{number}" for number in range(5)]
    for wrong in ([], 7, [7], ["http://as.test/keys"], [SIGN_UP, "not a url"], many):
        with pytest.raises(ConfigurationError, match="jwks_uri: "):
            issuer(wrong)
