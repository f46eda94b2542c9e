"""The short way to a token that was granted before: whatever it looks at, looked at alone.

Each test begins with a field that is recalled, and changes one thing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lookalikes import refused_fields, rewritten_fields
from scopeguard import Decision, Denied, Granted, Guard, Reason, all_of
from scopeguard.access_token import AccessToken
from scopeguard.config.sources import TokenSources
from scopeguard.guard import engine_of
from scopeguard.request import HeaderList, RequestView
from scopeguard.spec.jwks import parse_key_set
from scopeguard.state.keyring import Held
from scopeguard.state.token_cache import CachedToken
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import FakeAuthority

FAR_AWAY = ("192.0.2.7", 40000)


@dataclass
class Scene:
    """A guard that has granted a token twice."""

    authority: FakeAuthority
    guard: Guard
    token: str

    @property
    def field(self) -> bytes:
        return b"Bearer " + self.token.encode()

    def ask(self, **request: Any) -> Decision:
        given: dict[str, Any] = {
            "method": "GET",
            "path": "/",
            "headers": HeaderList([(b"authorization", self.field)]),
            **request,
        }
        return self.guard.check(RequestView(**given))

    def recall(self, **changes: Any) -> AccessToken | None:
        given = {"authorization": self.field, "requirement": None, "query": b"", "cleartext_peer": None, **changes}
        return engine_of(self.guard).recall(**given)

    @property
    def found(self) -> CachedToken:
        memory = engine_of(self.guard).token_cache
        assert memory is not None
        found = memory.lookup_field(self.field)
        assert found is not None
        return found

    @property
    def held(self) -> Held:
        held = self.found.held
        assert held is not None
        return held

    def replace_keys(self, **changes: Any) -> None:
        """With the same keys, and other times; and somebody has looked into them."""
        self.found.record.ring.current = self.found.held = replace(self.held, **changes)


Made = Callable[..., Scene]


@pytest.fixture
def made() -> Iterator[Made]:
    scenes: list[Scene] = []

    def make(*, granted: bool = True, **settings: Any) -> Scene:
        authority = settings.pop("authority", None) or FakeAuthority()
        given = {"transport": authority.transport, "clock": authority.clock, **settings}
        guard = Guard(given.pop("issuer", authority.issuer), **given)
        scene = Scene(authority, guard, authority.mint("read"))
        scenes.append(scene)
        for _ in range(2 if granted else 0):
            assert isinstance(scene.ask(), Granted)
        return scene

    yield make
    for scene in scenes:
        scene.guard.close()


@pytest.fixture
def scene(made: Made) -> Scene:
    scene = made()
    assert scene.recall() is not None
    return scene


def test_a_token_is_recalled_when_it_was_granted_twice(made: Made):
    scene = made(granted=False)
    assert scene.recall() is None
    first = scene.ask()
    assert isinstance(first, Granted)
    assert scene.recall() is None  # most tokens do not come again
    second = scene.ask()
    assert isinstance(second, Granted)
    assert scene.recall() is second.access_token
    assert second == first


# -- the field


def other_fields(token: str) -> dict[str, bytes]:
    return {
        **refused_fields(token),
        **rewritten_fields(token),
        "a space behind": f"Bearer {token} ".encode(),
        "a space before": f" Bearer {token}".encode(),
    }


@pytest.mark.parametrize("name", other_fields("e30.e30.e30"))
def test_a_field_that_is_not_the_granted_one_byte_for_byte_is_not_recalled(scene: Scene, name: str):
    assert scene.recall(authorization=other_fields(scene.token)[name]) is None


@pytest.mark.parametrize("name", refused_fields("e30.e30.e30"))
def test_nor_is_it_after_it_was_refused(scene: Scene, name: str):
    field = refused_fields(scene.token)[name]
    for _ in range(3):
        assert isinstance(scene.ask(headers=HeaderList([(b"authorization", field)])), Denied)
        assert scene.recall(authorization=field) is None
    assert isinstance(scene.ask(), Granted)  # a bad signature may have brought other keys
    assert scene.recall() is not None


def test_a_field_that_is_written_in_another_way_is_granted_and_never_recalled(scene: Scene):
    for field in rewritten_fields(scene.token).values():
        for _ in range(3):
            assert isinstance(scene.ask(headers=HeaderList([(b"authorization", field)])), Granted)
            assert scene.recall(authorization=field) is None


def test_a_token_that_came_elsewhere_is_not_expected_in_the_header(made: Made):
    scene = made(granted=False)
    request = RequestView(method="GET", path="/", headers=HeaderList([]), query=b"access_token=" + scene.token.encode())
    for _ in range(3):
        assert isinstance(scene.guard.check(request, sources=TokenSources(methods=["query"])), Granted)
    assert scene.recall() is None


def test_a_token_longer_than_this_guard_takes_is_not_recalled_though_another_route_takes_it(made: Made):
    scene = made(granted=False, token_sources=TokenSources(max_token_bytes=100))
    request = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", scene.field)]))
    for _ in range(3):
        assert isinstance(scene.guard.check(request, sources=TokenSources()), Granted)
    refused = scene.ask()
    assert isinstance(refused, Denied)
    assert refused.error.reason is Reason.TOKEN_TOO_LARGE
    assert scene.recall() is None


# -- time


def test_nothing_is_recalled_by_a_clock_that_was_set_back(scene: Scene):
    scene.authority.clock.set_wall(scene.found.since - 0.001)
    assert scene.recall() is None
    scene.authority.clock.set_wall(scene.found.since)
    assert scene.recall() is not None


def test_nothing_is_recalled_that_has_expired(scene: Scene):
    scene.authority.clock.set_wall(scene.found.until - 0.001)
    assert scene.recall() is not None
    scene.authority.clock.set_wall(scene.found.until)
    assert scene.recall() is None


# -- the key


def test_nothing_is_recalled_whose_key_nobody_has_looked_for(scene: Scene):
    scene.found.held = None
    assert scene.recall() is None


def test_nothing_is_recalled_while_nobody_holds_any_keys(scene: Scene):
    """As it would be if a ring could lose them: nothing is held then either."""
    scene.found.held = scene.found.record.ring.current = None
    assert scene.recall() is None


def test_nothing_is_recalled_after_other_keys_have_come_be_they_the_same(scene: Scene):
    scene.found.record.ring.current = replace(scene.held)
    assert scene.recall() is None
    assert isinstance(scene.ask(), Granted)  # who finds the key in them
    assert scene.recall() is not None


def test_nothing_is_recalled_or_granted_when_another_key_has_the_name_of_the_one_that_signed(scene: Scene):
    ring = scene.found.record.ring
    (mine,), (other,) = (
        authority.authority.keys.key_set(0.0)["keys"] for authority in (scene.authority, FakeAuthority())
    )
    number = ring.begin(scene.authority.clock.monotonic(), provoked=False)
    assert number is not None
    replacing = parse_key_set({"keys": [{**other, "kid": mine["kid"]}]})
    ring.absorb(replacing, scene.authority.clock.monotonic(), number=number, lifetime=None)
    assert scene.recall() is None
    with scene.authority.outage():  # the token is doubted, and nobody can say more
        refused = scene.ask()
    assert isinstance(refused, Denied)
    assert refused.error.reason is Reason.BAD_SIGNATURE
    assert scene.recall() is None


def test_nothing_is_recalled_when_it_is_time_to_fetch_the_keys_again(scene: Scene):
    now = scene.authority.clock.monotonic()
    scene.replace_keys(refresh_at=now + 0.001)
    assert scene.recall() is not None
    scene.replace_keys(refresh_at=now)
    assert scene.recall() is None


# -- revocations


def test_nothing_is_recalled_after_a_revocation_of_whatever_it_be(scene: Scene):
    scene.guard.revoke(jti="of another token")
    assert scene.recall() is None
    assert isinstance(scene.ask(), Granted)
    assert scene.recall() is not None


def test_nothing_is_recalled_that_nobody_has_looked_for_among_revocations(scene: Scene):
    scene.found.cleared = -1
    assert scene.recall() is None


def test_what_others_revoke_is_to_be_known_first(made: Made):
    authority = FakeAuthority()
    scene = made(authority=authority, store=MemoryStore(authority.clock))
    lag = engine_of(scene.guard).settings.revocation.max_lag
    assert scene.recall() is not None
    authority.clock.advance(lag / 2 - 0.001)
    assert scene.recall() is not None
    authority.clock.advance(0.001)
    assert scene.recall() is None


# -- who asks, and for what


def test_scopes_are_looked_at_and_whether_there_is_a_requirement_at_all(scene: Scene):
    assert scene.recall(requirement=all_of("read")) is not None
    assert scene.recall(requirement=all_of("read", "write")) is None


def test_a_query_that_is_to_be_looked_into_leads_to_the_long_way(made: Made):
    strict = made(token_sources=TokenSources(stray_query_token="refuse"))
    assert strict.recall() is not None
    assert strict.recall(query="") is not None
    for query in (b"access_token=x", b"a=b", "access_token=x"):
        assert strict.recall(query=query) is None
    assert made().recall(query=b"access_token=x") is not None  # which is ignored (B-14)


@pytest.mark.rule("B-56")
def test_a_token_that_comes_in_the_clear_from_far_away_is_told_of_once(made: Made, caplog: pytest.LogCaptureFixture):
    scene = made()
    near: list[Any] = [None, (), ("127.0.0.1", 1), ("::1", 1), ["127.0.0.1", 1]]
    assert all(scene.recall(cleartext_peer=peer) is not None for peer in near)
    assert scene.recall(cleartext_peer=FAR_AWAY) is None
    assert scene.recall(cleartext_peer=("", 0)) is None
    assert "cleartext" not in caplog.text
    assert isinstance(scene.ask(secure=False, client=FAR_AWAY[0]), Granted)
    assert caplog.text.count("cleartext") == 1
    assert scene.recall(cleartext_peer=FAR_AWAY) is not None


@pytest.mark.rule("B-56")
def test_nothing_that_comes_in_the_clear_is_recalled_where_https_is_required(made: Made):
    scene = made(granted=False, require_https=True)
    for _ in range(2):
        assert isinstance(scene.ask(secure=True, client=FAR_AWAY[0]), Granted)
    for _ in range(2):
        assert scene.recall() is not None
        assert scene.recall(cleartext_peer=("127.0.0.1", 1)) is not None
        assert scene.recall(cleartext_peer=FAR_AWAY) is None
        refused = scene.ask(secure=False, client=FAR_AWAY[0])
        assert isinstance(refused, Denied)
        assert refused.error.reason is Reason.HTTPS_REQUIRED


def test_a_refusal_for_cleartext_announces_nothing(made: Made):
    scene = made(granted=False, require_https=True)
    for _ in range(3):
        assert isinstance(scene.ask(secure=False, client=FAR_AWAY[0]), Denied)
    assert scene.recall() is None


@pytest.mark.parametrize(
    "settings",
    [{"token_cache": "off"}, {"token_sources": ["header", "query"]}, {"token_sources": ["header", "form"]}],
    ids=repr,
)
def test_a_guard_that_remembers_nothing_or_reads_elsewhere_recalls_nothing(made: Made, settings: dict[str, Any]):
    assert made(**settings).recall() is None


def test_a_guard_that_reads_a_field_of_a_proxy_recalls_nothing(made: Made):
    authority = FakeAuthority()
    scene = made(authority=authority, granted=False, issuer=replace(authority.issuer, token_header="X-Assertion"))
    for _ in range(3):
        assert isinstance(scene.ask(headers=HeaderList([(b"x-assertion", scene.token.encode())])), Granted)
    assert scene.recall() is None
    assert scene.recall(authorization=scene.token.encode()) is None


def test_a_guard_that_reads_such_a_field_as_well_recalls_nothing_from_the_usual_one(made: Made):
    """There might be a token in the other one, too, which makes two (B-13)."""
    authority = FakeAuthority()
    proxy = FakeAuthority("https://proxy.test", clock=authority.clock)
    behind = replace(proxy.issuer, token_header="X-Assertion", keys={"keys": [proxy.key().public_jwk()]})
    guard = Guard(authority.issuer, behind, transport=authority.transport, clock=authority.clock)
    scene = Scene(authority, guard, authority.mint("read"))
    for _ in range(3):
        assert isinstance(scene.ask(), Granted)
    assert scene.recall() is None
    refused = scene.ask(
        headers=HeaderList([(b"authorization", scene.field), (b"x-assertion", proxy.mint("read").encode())])
    )
    assert isinstance(refused, Denied)
    assert refused.error.reason is Reason.SEVERAL_METHODS
    guard.close()


def test_whoever_wants_to_know_is_told_what_is_recalled_and_nothing_of_what_is_not(made: Made):
    told: list[Decision] = []
    scene = made(on_decision=told.append)
    told.clear()
    token = scene.recall(requirement=all_of("read"))
    assert token is not None
    assert told == [Granted(token)]
    assert scene.recall(requirement=all_of("write")) is None
    assert scene.recall(authorization=b"Bearer x") is None
    assert len(told) == 1


def test_a_token_whose_key_was_withdrawn_is_refused(made: Made):
    scene = made(authority=FakeAuthority(jwks_max_age=600), granted=False)
    scene.token = scene.authority.mint("read", expires_in=86400)
    assert [type(scene.ask()) for _ in range(2)] == [Granted, Granted]
    scene.authority.rotate(overlap=False)
    scene.authority.clock.advance(601)
    decision = scene.ask()
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.UNKNOWN_KEY
