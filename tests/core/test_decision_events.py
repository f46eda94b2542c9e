"""The event that ``on_decision`` gets, for calls of the guard without an adapter."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from scopeguard import (
    Adapter,
    Anonymous,
    ConfigurationError,
    DecisionEvent,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Introspection,
    PolicyDenied,
    Reason,
    RequestView,
    Rule,
    TokenCheck,
    Unavailable,
    all_of,
)
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority


class Scene:
    """A guard with a listener, and the events that it has got."""

    def __init__(self, authority: FakeAuthority | None = None, **settings: Any) -> None:
        self.authority = authority or FakeAuthority()
        self.events: list[DecisionEvent] = []
        self.guard = Guard(
            settings.pop("issuer", self.authority.issuer),
            transport=self.authority.transport,
            clock=self.authority.clock,
            on_decision=self.events.append,
            **settings,
        )

    def event(self, token: str | None = None, *arguments: Any, **options: Any) -> DecisionEvent:
        """Return the only event of a check of a request with *token*."""
        self.events.clear()
        headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        self.guard.check(RequestView(method="PUT", path="/t", headers=HeaderList(headers)), *arguments, **options)
        assert len(self.events) == 1
        return self.events[0]


def test_check_without_an_adapter_reports_an_event_of_the_guard():
    scene = Scene()
    event = scene.event(scene.authority.mint("read", client_id="billing"), all_of("read"))
    assert (event.method, event.path, event.route, event.adapter) == ("PUT", "/t", None, Adapter.GUARD)
    assert (event.issuer, event.client_id) == (scene.authority.url, "billing")
    assert isinstance(event.decision, Granted)


def test_token_check_tells_a_fetch_from_a_signature_and_a_cached_token():
    scene = Scene()
    token = scene.authority.mint()
    assert [scene.event(token).token_check for _ in range(2)] == [TokenCheck.FETCHED, TokenCheck.CACHED]
    assert scene.event(scene.authority.mint()).token_check is TokenCheck.VERIFIED
    assert scene.event(scene.authority.mint(headers={"kid": "new"})).token_check is TokenCheck.FETCHED
    assert scene.event().token_check is None
    assert scene.event("of no form").token_check is None


def test_fetch_in_the_background_is_not_waited_for():
    scene = Scene(FakeAuthority(jwks_max_age=600))
    scene.event(scene.authority.mint())
    token = scene.authority.mint(expires_in=7200)
    scene.authority.clock.advance(590)  # the key set is renewed shortly before it is too old
    before = len(scene.authority.requests)
    assert scene.event(token).token_check is TokenCheck.VERIFIED
    engine_of(scene.guard).runtime.end()
    assert len(scene.authority.requests) > before
    scene.guard.close()


def test_introspection_answer_from_the_cache_counts_as_cached():
    authority = FakeAuthority()
    settings = Introspection(client_id="api", client_secret=authority.api.secret)
    issuer = replace(authority.issuer, validate="introspection", introspection=settings)
    scene = Scene(authority, issuer=issuer)
    token = authority.mint()
    assert [scene.event(token).token_check for _ in range(2)] == [TokenCheck.FETCHED, TokenCheck.CACHED]
    # A guard without a listener takes the same steps.
    silent = Guard(issuer, transport=authority.transport, clock=authority.clock)
    request = RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", f"Bearer {token}".encode())]))
    assert isinstance(silent.check(request), Granted)


def test_refused_token_names_its_issuer_but_no_client():
    scene = Scene()
    expired = scene.event(scene.authority.mint(expires_in=-3600, client_id="billing"))
    assert (expired.reason, expired.status) == (Reason.TOKEN_EXPIRED, 401)
    assert (expired.issuer, expired.client_id) == (scene.authority.url, None)
    stranger = scene.event(FakeAuthority("https://elsewhere.test").mint())
    assert (stranger.reason, stranger.issuer) == (Reason.UNKNOWN_ISSUER, None)


def test_refused_verified_token_names_its_client():
    scene = Scene()
    token = scene.authority.mint("read", client_id="billing")
    for event in (scene.event(token, all_of("write")), scene.event(token, closed=True)):
        assert isinstance(event.decision, Denied)
        assert (event.issuer, event.client_id, event.status) == (scene.authority.url, "billing", 403)


def test_refusal_by_a_policy_names_the_client_and_counts_its_time():
    def decide(token: Any, request: Any) -> bool:
        scene.authority.clock.advance(3)
        raise PolicyDenied

    scene = Scene()
    rule = Rule("/t", decide=decide)
    engine, token = engine_of(scene.guard), scene.authority.mint("read", client_id="billing")
    headers = HeaderList([(b"authorization", f"Bearer {token}".encode())])
    engine.check(RequestView(method="PUT", path="/t", headers=headers), policies=rule.policies)
    (event,) = scene.events
    assert (event.reason, event.client_id, event.duration) == (Reason.POLICY_DENIED, "billing", 3.0)


def test_outage_and_anonymous_caller():
    scene = Scene()
    with scene.authority.outage():
        event = scene.event(scene.authority.mint())
    assert isinstance(event.decision, Unavailable)
    assert (event.status, event.token_check, event.issuer) == (503, TokenCheck.FETCHED, scene.authority.url)
    event = scene.event(optional=True)
    assert event.decision == Anonymous()
    assert (event.reason, event.status, event.issuer, event.client_id, event.token_check) == (None,) * 5


def test_authorize_without_a_request_describes_none():
    scene = Scene()
    scene.guard.authorize(None, all_of("read"))
    (event,) = scene.events
    assert (event.method, event.path, event.duration) == (None, None, 0.0)


def test_event_is_frozen_and_needs_no_dict():
    scene = Scene()
    event = scene.event()
    with pytest.raises(FrozenInstanceError):
        setattr(event, "path", "/other")  # noqa: B010 - to type checkers, it is read-only
    assert not hasattr(event, "__dict__")
    assert replace(event, path="/other") != event


def test_every_listener_gets_each_event_although_one_fails(caplog: pytest.LogCaptureFixture):
    scene, more = Scene(), list[DecisionEvent]()

    def fail(event: DecisionEvent) -> None:
        raise RuntimeError("a bug")

    engine_of(scene.guard).add_listener(fail)
    engine_of(scene.guard).add_listener(more.append)
    assert more == [] == scene.events
    event = scene.event()
    assert more == [event]
    assert caplog.text.count("on_decision failed; the decision stands") == 1


def test_async_listener_is_refused():
    async def tell(event: DecisionEvent) -> None: ...

    class Teller:
        async def __call__(self, event: DecisionEvent) -> None: ...

    for listener in (tell, Teller()):
        wrong: Any = listener
        with pytest.raises(ConfigurationError, match=r"on_decision: .* not async"):
            Guard(FakeAuthority().issuer, on_decision=wrong)
