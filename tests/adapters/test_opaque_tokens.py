"""Opaque tokens with characters that no JWT has: through each door, in the header, the query and a form."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from doors import DOORS, Door
from framework_doors import FRAMEWORK_DOORS
from scenarios import Exchange, form, header
from scopeguard import Guard, Introspection, Issuer
from scopeguard.flow.effects import Answer, Send
from scopeguard.testing import FakeClock

EVERY_DOOR = (*DOORS, *FRAMEWORK_DOORS)
API = "https://api.test"
TOKENS = (
    "00D000000000001!AQcAQH0dMHZfz972Szmpkb58urFRkgeBGsxL_QJWwYMfAbUeeG7c1E6.LYUfiDUkWe6H34r1AAwOR8B8fLEz6n0",
    "1|sg-opaque-a",
    "sg-opaque-a:b",
    "sg-opaque-a!b==",
    "sg-opaque-(a)[b]{c}<d>@e;f?g&h#i%j^k`l'm\\n*o$p",
)
AMBIGUOUS = ("sg-opaque-a!,b", 'sg-opaque-a"b"', "sg-opaque-a!=b", "sg-opaque-a! b")


class Authority:
    """A transport that reports every token as active and records the introspected tokens."""

    def __init__(self, now: float) -> None:
        self.asked: list[str] = []
        self._now = int(now)

    def send(self, request: Send, /) -> Answer:
        assert request.form is not None
        self.asked.append(dict(request.form)["token"])
        said = {"active": True, "aud": API, "client_id": "c", "scope": "read write", "exp": self._now + 600}
        return Answer(200, json.dumps(said).encode(), {"content-type": "application/json"})

    async def asend(self, request: Send, /) -> Answer:
        return self.send(request)

    def close(self) -> None:
        pass


def guard_of(*, opaque: bool) -> tuple[Guard, Authority]:
    clock = FakeClock()
    authority = Authority(clock.wall())
    asking = Introspection(client_id="api", client_secret="sg-secret-api", endpoint="https://as.test/introspect")
    if opaque:
        issuer = Issuer("https://as.test", audience=API, validate="auto", introspection=asking)
    else:
        issuer = Issuer("https://as.test", audience=API)
    return Guard(issuer, transport=authority, clock=clock), authority


def exchanges(token: str) -> list[Exchange]:
    """Return a request with *token* in each possible place."""
    encoded = quote(token, safe="")
    return [
        header(f"Bearer {token}".encode()),
        Exchange(target=f"/query?access_token={encoded}"),
        form(f"access_token={encoded}".encode()),
    ]


@pytest.mark.rule("B-05")
@pytest.mark.parametrize("door", EVERY_DOOR, ids=lambda door: door.name)
def test_opaque_token_may_have_any_unambiguous_character(door: Door):
    guard, authority = guard_of(opaque=True)
    send = door.opened(guard)
    for token in TOKENS:
        assert [send(exchange).status for exchange in exchanges(token)] == [200, 200, 200], token
    assert authority.asked == list(TOKENS)  # As it was sent, and once.


@pytest.mark.rule("B-05", "B-06", "B-12", "B-60")
@pytest.mark.parametrize("door", EVERY_DOOR, ids=lambda door: door.name)
def test_ambiguous_token_is_refused_and_not_introspected(door: Door):
    guard, authority = guard_of(opaque=True)
    send = door.opened(guard)
    for token in AMBIGUOUS:
        assert [send(exchange).status for exchange in exchanges(token)] == [400, 400, 400], token
    assert authority.asked == []


@pytest.mark.rule("B-05")
@pytest.mark.parametrize("door", EVERY_DOOR, ids=lambda door: door.name)
def test_jwt_only_guard_accepts_only_characters_of_jwts(door: Door):
    guard, authority = guard_of(opaque=False)
    send = door.opened(guard)
    for token in (*TOKENS, *AMBIGUOUS):
        assert [send(exchange).status for exchange in exchanges(token)] == [400, 400, 400], token
    assert authority.asked == []
