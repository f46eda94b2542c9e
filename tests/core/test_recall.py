"""The short path for a token that was granted before; each of its conditions is tested alone.

Each test starts with a header that is recalled, and changes one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import pytest

from lookalikes import refused_fields, rewritten_fields
from scopeguard import Decision, DecisionEvent, Denied, Granted, Guard, Reason, TokenCheck, all_of
from scopeguard.config.token_sources import TokenSources
from scopeguard.guard import engine_of
from scopeguard.request import HeaderList, RequestView
from scopeguard.spec.jwks import parse_key_set
from scopeguard.state.keys import Held
from scopeguard.state.token_cache import CachedToken
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import FakeAuthority
from scopeguard.tokens import AccessToken

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
        memory = engine_of(self.guard).context.token_cache
        assert memory is not None
        found = memory.recall(sha256(self.token.encode()).digest())
        assert found is not None
        return found

    @property
    def held(self) -> Held:
        held = self.found.held
        assert held is not None
        return held

    def replace_keys(self, **changes: Any) -> None:
        """Replace the key set by one with the same keys and other times, in which the key is already found."""
        self.found.record.ring.current = self.found.held = replace(self.held, **changes)


Made = Callable[..., Scene]


@pytest.fixture
def make_scene() -> Iterator[Made]:
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
def scene(make_scene: Made) -> Scene:
    scene = make_scene()
    assert scene.recall() is not None
    return scene


def test_token_is_recalled_after_being_granted_twice(make_scene: Made):
    scene = make_scene(granted=False)
    assert scene.recall() is None
    first = scene.ask()
    assert isinstance(first, Granted)
    assert scene.recall() is None  # Most tokens are used only once.
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
def test_header_that_differs_in_any_byte_is_not_recalled(scene: Scene, name: str):
    assert scene.recall(authorization=other_fields(scene.token)[name]) is None


@pytest.mark.parametrize("name", refused_fields("e30.e30.e30"))
def test_header_that_differs_is_not_recalled_after_its_refusal(scene: Scene, name: str):
    field = refused_fields(scene.token)[name]
    for _ in range(3):
        assert isinstance(scene.ask(headers=HeaderList([(b"authorization", field)])), Denied)
        assert scene.recall(authorization=field) is None
    assert isinstance(scene.ask(), Granted)  # A bad signature may have caused a fetch of other keys.
    assert scene.recall() is not None


def test_header_in_another_spelling_is_granted_but_not_recalled(scene: Scene):
    for field in rewritten_fields(scene.token).values():
        for _ in range(3):
            assert isinstance(scene.ask(headers=HeaderList([(b"authorization", field)])), Granted)
            assert scene.recall(authorization=field) is None


def test_token_that_came_in_a_query_is_recalled_from_the_header_too(make_scene: Made):
    scene = make_scene(granted=False)
    request = RequestView(method="GET", path="/", headers=HeaderList([]), query=b"access_token=" + scene.token.encode())
    for _ in range(3):
        assert isinstance(scene.guard.check(request, sources=TokenSources(methods=["query"])), Granted)
    assert scene.recall() is not None
    assert scene.recall(authorization=request.query) is None


def test_token_too_long_for_the_guard_is_not_recalled_though_a_route_accepts_it(make_scene: Made):
    scene = make_scene(granted=False, token_sources=TokenSources(max_token_bytes=100))
    request = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", scene.field)]))
    for _ in range(3):
        assert isinstance(scene.guard.check(request, sources=TokenSources()), Granted)
    refused = scene.ask()
    assert isinstance(refused, Denied)
    assert refused.error.reason is Reason.TOKEN_TOO_LARGE
    assert scene.recall() is None


# -- time


def test_token_is_not_recalled_if_the_clock_was_set_back(scene: Scene):
    scene.authority.clock.set_wall(scene.found.since - 0.001)
    assert scene.recall() is None
    scene.authority.clock.set_wall(scene.found.since)
    assert scene.recall() is not None


def test_expired_token_is_not_recalled(scene: Scene):
    scene.authority.clock.set_wall(scene.found.until - 0.001)
    assert scene.recall() is not None
    scene.authority.clock.set_wall(scene.found.until)
    assert scene.recall() is None


# -- the key


def test_token_is_not_recalled_before_its_key_was_looked_up(scene: Scene):
    scene.found.held = None
    assert scene.recall() is None


def test_token_that_needs_further_checks_is_not_recalled(scene: Scene):
    scene.found.instant = False
    assert scene.recall() is None


def test_token_is_not_recalled_without_a_key_set(scene: Scene):
    """This would happen if a key ring lost its keys."""
    scene.found.held = scene.found.record.ring.current = None
    assert scene.recall() is None


def test_token_is_not_recalled_after_a_new_key_set_even_if_equal(scene: Scene):
    scene.found.record.ring.current = replace(scene.held)
    assert scene.recall() is None
    assert isinstance(scene.ask(), Granted)  # This request finds the key in the new set.
    assert scene.recall() is not None


def test_token_is_neither_recalled_nor_granted_if_its_key_id_has_another_key(scene: Scene):
    ring = scene.found.record.ring
    (mine,), (other,) = (
        authority.authority.keys.key_set(0.0)["keys"] for authority in (scene.authority, FakeAuthority())
    )
    number = ring.begin(scene.authority.clock.monotonic(), provoked=False)
    assert number is not None
    replacing = parse_key_set({"keys": [{**other, "kid": mine["kid"]}]})
    ring.absorb(replacing, scene.authority.clock.monotonic(), number=number, lifetime=None)
    assert scene.recall() is None
    with scene.authority.outage():  # The signature is bad, and no newer keys can be fetched.
        refused = scene.ask()
    assert isinstance(refused, Denied)
    assert refused.error.reason is Reason.BAD_SIGNATURE
    assert scene.recall() is None


def test_token_is_not_recalled_when_a_key_refresh_is_due(scene: Scene):
    now = scene.authority.clock.monotonic()
    scene.replace_keys(refresh_at=now + 0.001)
    assert scene.recall() is not None
    scene.replace_keys(refresh_at=now)
    assert scene.recall() is None


# -- revocations


def test_token_is_not_recalled_after_any_revocation(scene: Scene):
    scene.guard.revoke(jti="of another token")
    assert scene.recall() is None
    assert isinstance(scene.ask(), Granted)
    assert scene.recall() is not None


def test_token_is_not_recalled_before_a_revocation_check(scene: Scene):
    scene.found.cleared = -1
    assert scene.recall() is None


def test_token_is_not_recalled_when_a_log_sync_is_due(make_scene: Made):
    authority = FakeAuthority()
    scene = make_scene(authority=authority, store=MemoryStore(authority.clock))
    lag = engine_of(scene.guard).settings.revocation.max_lag
    assert scene.recall() is not None
    authority.clock.advance(lag / 2 - 0.001)
    assert scene.recall() is not None
    authority.clock.advance(0.001)
    assert scene.recall() is None


# -- requirement, listeners and settings


def test_token_is_recalled_only_if_its_scopes_satisfy_the_requirement(scene: Scene):
    assert scene.recall(requirement=all_of("read")) is not None
    assert scene.recall(requirement=all_of("read", "write")) is None


def test_token_is_not_recalled_if_a_query_has_to_be_checked(make_scene: Made):
    strict = make_scene(token_sources=TokenSources(stray_query_token="refuse"))
    assert strict.recall() is not None
    assert strict.recall(query="") is not None
    for query in (b"access_token=x", b"a=b", "access_token=x"):
        assert strict.recall(query=query) is None
    assert make_scene().recall(query=b"access_token=x") is not None  # The stray token is ignored (B-14).


@pytest.mark.rule("B-56")
def test_token_over_remote_cleartext_is_logged_once_before_recall(make_scene: Made, caplog: pytest.LogCaptureFixture):
    scene = make_scene()
    near: list[Any] = [None, (), ("127.0.0.1", 1), ("::1", 1), ["127.0.0.1", 1]]
    assert all(scene.recall(cleartext_peer=peer) is not None for peer in near)
    assert scene.recall(cleartext_peer=FAR_AWAY) is None
    assert scene.recall(cleartext_peer=("", 0)) is None
    assert "cleartext" not in caplog.text
    assert isinstance(scene.ask(secure=False, client=FAR_AWAY[0]), Granted)
    assert caplog.text.count("in cleartext http") == 1
    assert scene.recall(cleartext_peer=FAR_AWAY) is not None


@pytest.mark.rule("B-56")
def test_token_over_cleartext_is_not_recalled_if_https_is_required(make_scene: Made):
    scene = make_scene(granted=False, require_https=True)
    for _ in range(2):
        assert isinstance(scene.ask(secure=True, client=FAR_AWAY[0]), Granted)
    for _ in range(2):
        assert scene.recall() is not None
        assert scene.recall(cleartext_peer=("127.0.0.1", 1)) is not None
        assert scene.recall(cleartext_peer=FAR_AWAY) is None
        refused = scene.ask(secure=False, client=FAR_AWAY[0])
        assert isinstance(refused, Denied)
        assert refused.error.reason is Reason.HTTPS_REQUIRED


def test_token_refused_for_cleartext_is_not_recalled(make_scene: Made):
    scene = make_scene(granted=False, require_https=True)
    for _ in range(3):
        assert isinstance(scene.ask(secure=False, client=FAR_AWAY[0]), Denied)
    assert scene.recall() is None


@pytest.mark.parametrize(
    "settings",
    [{"token_cache": "off"}, {"token_sources": ["header", "query"]}, {"token_sources": ["header", "form"]}],
    ids=repr,
)
def test_guard_without_a_cache_or_with_other_sources_recalls_nothing(make_scene: Made, settings: dict[str, Any]):
    assert make_scene(**settings).recall() is None


def test_guard_with_a_proxy_header_recalls_nothing(make_scene: Made):
    authority = FakeAuthority()
    scene = make_scene(authority=authority, granted=False, issuer=replace(authority.issuer, token_header="X-Assertion"))
    for _ in range(3):
        assert isinstance(scene.ask(headers=HeaderList([(b"x-assertion", scene.token.encode())])), Granted)
    assert scene.recall() is None
    assert scene.recall(authorization=scene.token.encode()) is None


def test_guard_with_an_additional_proxy_header_recalls_nothing(make_scene: Made):
    """The other header might hold a second token, which must be refused (B-13)."""
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


def test_listener_gets_recalled_decisions_only(make_scene: Made):
    told: list[DecisionEvent] = []
    scene = make_scene(on_decision=told.append)
    told.clear()
    token = scene.recall(requirement=all_of("read"))
    assert token is not None
    assert [(event.decision, event.token_check) for event in told] == [(Granted(token), TokenCheck.CACHED)]
    assert scene.recall(requirement=all_of("write")) is None
    assert scene.recall(authorization=b"Bearer x") is None
    assert len(told) == 1


def test_a_token_whose_key_was_withdrawn_is_refused(make_scene: Made):
    scene = make_scene(authority=FakeAuthority(jwks_max_age=600), granted=False)
    scene.token = scene.authority.mint("read", expires_in=86400)
    assert [type(scene.ask()) for _ in range(2)] == [Granted, Granted]
    scene.authority.rotate(overlap=False)
    scene.authority.clock.advance(601)
    decision = scene.ask()
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.UNKNOWN_KEY
