"""Adapters accept a token that was verified before on a short path, which must not accept what the full path refuses.

Each door is tested twice with the same authority, with a token cache and without, and has to answer alike.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from doors import DOORS, Door, guard_for
from framework_doors import FRAMEWORK_DOORS
from scenarios import FORM, Answered, Exchange, tokens
from scopeguard import Guard, TokenSources
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority

SHORT = (
    "asgi-asyncio",
    "wsgi",
    "starlette-asyncio",
    "fastapi-asyncio",
    "fastapi-behind-middleware",
    "flask",
    "django-wsgi",
    "django-asgi",
)
BY_NAME = {door.name: door for door in (*DOORS, *FRAMEWORK_DOORS)}


def exchange_with(*values: bytes, target: str = "/both", method: str = "GET", **more: Any) -> Exchange:
    return Exchange(method=method, target=target, headers=tuple((b"authorization", value) for value in values), **more)


KNOWN = exchange_with(b"Bearer {T}")

EXCHANGES = {
    "the token": KNOWN,
    "HEAD": exchange_with(b"Bearer {T}", method="HEAD"),
    "twice": exchange_with(b"Bearer {T}", b"Bearer {T}"),
    "another before it": exchange_with(b"Bearer {READ}", b"Bearer {T}"),
    "another behind it": exchange_with(b"Bearer {T}", b"Bearer {READ}"),
    "Basic behind it": exchange_with(b"Bearer {T}", b"Basic dTpw"),
    "an empty field behind it": exchange_with(b"Bearer {T}", b""),
    "twice, in other case": Exchange(headers=((b"authorization", b"Bearer {T}"), (b"Authorization", b"Bearer {T}"))),
    "in other case, twice": Exchange(headers=((b"AUTHORIZATION", b"Bearer {T}"), (b"authorization", b"Bearer {READ}"))),
    "in other case": Exchange(headers=((b"Authorization", b"Bearer {T}"),)),
    "a name that folds to ours": Exchange(headers=(("authori\u017aation".encode(), b"Bearer {T}"),)),
    "a space behind it": exchange_with(b"Bearer {T} "),
    "a tab behind it": exchange_with(b"Bearer {T}\t"),
    "a space before it": exchange_with(b" Bearer {T}"),
    "two spaces": exchange_with(b"Bearer  {T}"),
    "scheme in lower case": exchange_with(b"bearer {T}"),
    "another scheme": exchange_with(b"BeareR_ {T}"),
    "no scheme": exchange_with(b"{T}"),
    "a comma behind it": exchange_with(b"Bearer {T},"),
    "cut short": exchange_with(b"Bearer {T}"[:-1]),
    "a scope missing": exchange_with(b"Bearer {READ}"),
    "an empty field": exchange_with(b""),
    "in the query": Exchange(target="/both?access_token={T}"),
    "in the query, where it may be": Exchange(target="/query?access_token={T}"),
    "in header and query, where it may be": exchange_with(b"Bearer {T}", target="/query?access_token={T}"),
    "in the header and a stray one": exchange_with(b"Bearer {T}", target="/both?access_token={READ}"),
    "in a form": Exchange(method="POST", target="/form", headers=(FORM,), body=b"access_token={T}"),
    "in header and form": Exchange(
        method="POST", target="/form", headers=(FORM, (b"authorization", b"Bearer {T}")), body=b"access_token={T}"
    ),
    "in the header, where more places count": exchange_with(b"Bearer {T}", target="/both-places"),
    "optional": exchange_with(b"Bearer {T}", target="/optional"),
    "optional, nothing": Exchange(target="/optional"),
    "public": exchange_with(b"Bearer {T}", target="/public"),
    "no route": exchange_with(b"Bearer {T}", target="/nowhere"),
    "no method": exchange_with(b"Bearer {T}", method="DELETE"),
    "another spelling of the path": exchange_with(b"Bearer {T}", target="/bo%74h"),
}


@dataclass
class Pair:
    """One door with a token cache and one without, for one authority, and the decisions of their listeners."""

    door: Door
    authority: FakeAuthority
    settings: dict[str, Any]
    heard: dict[str, list[str]] = field(default_factory=lambda: {"with": [], "without": []})

    def __post_init__(self) -> None:
        self.tokens = tokens(self.authority)
        self.remembering = self._guard("with")
        self.forgetful = self._guard("without", token_cache="off")
        self._ways = {"with": self.door.opened(self.remembering), "without": self.door.opened(self.forgetful)}
        for _ in range(2):
            assert self.send(KNOWN).status == 200
        for token in (b"{READ}", b"{ADMIN}"):
            self.send(exchange_with(b"Bearer " + token, target="/none"))

    def _guard(self, name: str, **more: Any) -> Guard:
        def hear(event: Any) -> None:
            self.heard[name].append(type(event.decision).__name__)

        return guard_for(self.authority, on_decision=hear, **self.settings, **more)

    def send(self, exchange: Exchange) -> Answered:
        """Return the answer, which must be the same for both."""
        for heard in self.heard.values():
            heard.clear()
        exchange = exchange.fill(self.tokens)
        answers = [way(exchange) for way in self._ways.values()]
        assert answers[0] == answers[1]
        assert self.heard["with"] == self.heard["without"]
        return answers[0]


@pytest.fixture(scope="module", params=SHORT)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(BY_NAME[request.param], FakeAuthority(), {})


@pytest.fixture(params=SHORT)
def make_pair(request: pytest.FixtureRequest) -> Callable[..., Pair]:
    return lambda **settings: Pair(BY_NAME[request.param], FakeAuthority(), settings)


@pytest.mark.rule("B-01", "B-12", "B-13", "X-71")
@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=EXCHANGES)
def test_known_token_is_answered_like_a_new_one(pair: Pair, exchange: Exchange):
    for _ in range(2):
        pair.send(exchange)


def test_short_path_is_used(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """Otherwise the tests here would prove nothing."""
    judged = []

    def judge(*args: Any, **kwargs: Any) -> Any:
        judged.append(args)
        raise AssertionError("the long way")

    monkeypatch.setattr(engine_of(pair.remembering), "_authenticate", judge)
    way = pair.door.opened(pair.remembering)
    assert way(KNOWN.fill(pair.tokens)).status == 200
    assert not judged
    with suppress(AssertionError):  # Django answers 500
        way(exchange_with(b"Bearer {T} ").fill(pair.tokens))
    assert judged


def test_listener_gets_each_decision_once(pair: Pair):
    # If middleware decides that the token is valid and the endpoint that it suffices, this is one decision too.
    pair.send(KNOWN)
    assert pair.heard["with"] == ["Granted"]
    pair.send(exchange_with(b"Bearer {READ}"))
    assert pair.heard["with"] == ["Denied"]
    pair.send(exchange_with(b"Bearer {T}", b"Bearer {T}"))
    assert pair.heard["with"] == ["Denied"]


@pytest.mark.rule("G-01")
def test_a_known_token_expires(make_pair: Callable[..., Pair]):
    pair = make_pair()
    pair.authority.clock.advance(3600 * 24)
    assert pair.send(KNOWN).status == 401


def test_clock_set_back_does_not_make_a_token_valid_before_nbf(make_pair: Callable[..., Pair]):
    pair = make_pair()
    pair.authority.clock.set_wall(pair.authority.clock.wall() - 24 * 3600)
    assert pair.send(KNOWN).status == 401


def test_known_token_is_refused_after_its_key_is_withdrawn(make_pair: Callable[..., Pair]):
    pair = make_pair()
    pair.authority.rotate(overlap=False)
    pair.authority.clock.advance(600)  # So that both look for newer keys.
    pair.send(KNOWN)
    pair.authority.clock.advance(1)
    assert pair.send(KNOWN).status == 401


def test_known_token_is_refused_after_its_revocation(make_pair: Callable[..., Pair]):
    pair = make_pair()
    for guard in (pair.remembering, pair.forgetful):
        guard.revoke(token=pair.tokens["T"])
    assert pair.send(KNOWN).status == 401
    assert pair.send(exchange_with(b"Bearer {ADMIN}", target="/any")).status == 200


@pytest.mark.rule("B-56")
def test_known_token_over_cleartext_is_refused_if_https_is_required(make_pair: Callable[..., Pair]):
    pair = make_pair(require_https=True)
    assert pair.send(KNOWN).status == 200
    assert pair.send(exchange_with(b"Bearer {T}", scheme="http")).status == 400
    assert pair.send(KNOWN).status == 200


def test_stray_query_token_beside_a_known_one_is_refused(make_pair: Callable[..., Pair]):
    pair = make_pair(token_sources=TokenSources(stray_query_token="refuse"))
    assert pair.send(exchange_with(b"Bearer {T}", target="/both?access_token=x")).status == 400
    assert pair.send(exchange_with(b"Bearer {T}", target="/both?a=x")).status == 200
