"""Cached tokens are checked for changes: each later event about a token takes effect at the next request.

Each case is tried in three ways: the full decision with the cache, the short path of the adapters, and the full
decision without the cache. All three give the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lookalikes import refused_fields
from scopeguard import (
    AccessToken,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Issuer,
    IssuerResolver,
    Reason,
    RequestView,
    Rule,
    Rules,
    TokenCachePolicy,
    Unavailable,
    all_of,
    asgi,
    wsgi,
)
from scopeguard.flow.effects import Answer
from scopeguard.guard import engine_of
from scopeguard.spec.jwks import VerificationKey
from scopeguard.stores.memory import MemoryStore
from scopeguard.testing import FakeAuthority, bad_tokens

KEY_LIFETIME = 600.0
OPEN = Rules([Rule("/")])


def ask(guard: Guard, token: str, field_name: bytes = b"authorization") -> AccessToken | Reason | int:
    """Return the access token, the reason of a refusal, or the status of an outage."""
    value = token.encode() if field_name != b"authorization" else b"Bearer " + token.encode()
    match guard.check(RequestView(method="GET", path="/", headers=HeaderList([(field_name, value)]))):
        case Granted(access_token=found):
            return found
        case Denied(error=error):
            return error.reason
        case Unavailable(response=response):
            return response.status
        case other:
            raise AssertionError(other)


def recall(guard: Guard, token: str) -> AccessToken | None:
    return engine_of(guard).recall(b"Bearer " + token.encode(), None, b"", None)


@dataclass
class Scene:
    """An authority, and two guards: one with a token cache and one without."""

    authority: FakeAuthority = field(default_factory=lambda: FakeAuthority(jwks_max_age=int(KEY_LIFETIME)))
    guards: list[Guard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.authority.clock)
        self.guards = [self.guard(), self.guard(token_cache="off")]

    def guard(self, **settings: Any) -> Guard:
        return Guard(
            self.authority.issuer,
            transport=self.authority.transport,
            clock=self.authority.clock,
            **settings,
        )

    def check_accepted(self, token: str) -> None:
        """Assert that both guards accept *token* and that the one with a cache recalls it."""
        for guard in self.guards:
            assert isinstance(ask(guard, token), AccessToken)
            assert isinstance(ask(guard, token), AccessToken)
        assert recall(self.guards[0], token) == ask(self.guards[1], token)

    def check_refused(self, token: str, reason: Reason | int) -> None:
        assert recall(self.guards[0], token) is None
        assert [ask(guard, token) for guard in self.guards] == [reason, reason]
        assert recall(self.guards[0], token) is None


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    for guard in scene.guards:
        guard.close()


@pytest.mark.rule("J-52")
def test_cached_token_expires_on_time(scene: Scene):
    token = scene.authority.mint("read", expires_in=100)
    scene.check_accepted(token)
    scene.authority.clock.advance(129)  # The leeway.
    scene.check_accepted(token)
    scene.authority.clock.advance(1)
    scene.check_refused(token, Reason.TOKEN_EXPIRED)


@pytest.mark.rule("A-18")
def test_withdrawn_key_ends_its_cached_tokens(scene: Scene):
    token = scene.authority.mint("read", expires_in=86400)
    scene.check_accepted(token)
    scene.authority.rotate(overlap=False)
    scene.check_accepted(token)  # The guard does not know yet.
    scene.authority.clock.advance(KEY_LIFETIME + 1)
    scene.check_refused(token, Reason.UNKNOWN_KEY)
    scene.check_accepted(scene.authority.mint("read"))


@pytest.mark.rule("A-18")
def test_replaced_key_of_the_same_id_ends_its_cached_tokens(scene: Scene):
    token = scene.authority.mint("read", expires_in=86400)
    scene.check_accepted(token)
    (mine,), (other,) = (_keys(authority)["keys"] for authority in (scene.authority, FakeAuthority()))
    body = json.dumps({"keys": [{**other, "kid": mine["kid"]}]}).encode()
    with scene.authority.mode("jwks", Answer(200, body, {"content-type": "application/json"})):
        scene.authority.clock.advance(KEY_LIFETIME + 1)
        scene.check_refused(token, Reason.BAD_SIGNATURE)
    cache = engine_of(scene.guards[0]).context.token_cache
    assert cache is not None
    assert len(cache) == 0
    scene.authority.clock.advance(KEY_LIFETIME + 1)
    scene.check_accepted(token)


def test_keys_are_refreshed_although_each_request_is_recalled(scene: Scene):
    token = scene.authority.mint("read", expires_in=86400)
    scene.check_accepted(token)
    before = scene.authority.transport.count("jwks")
    scene.authority.clock.advance(KEY_LIFETIME * 0.9)
    assert recall(scene.guards[0], token) is None  # So that a request takes the full path.
    for guard in scene.guards:
        assert isinstance(ask(guard, token), AccessToken)
        guard.close()  # Waits for the background fetches.
    scene.check_accepted(token)
    assert scene.authority.transport.count("jwks") > before


def test_outage_beyond_the_maximum_key_age_affects_cached_tokens_too(scene: Scene):
    token = scene.authority.mint("read", expires_in=10 * 86400)
    scene.check_accepted(token)
    with scene.authority.outage():
        scene.authority.clock.advance(KEY_LIFETIME * 2)
        assert all(isinstance(ask(guard, token), AccessToken) for guard in scene.guards)
        scene.authority.clock.advance(86400)
        scene.check_refused(token, 503)


REVOKED: list[tuple[str, Callable[[Guard, str], None]]] = [
    ("token", lambda guard, token: guard.revoke(token=token)),
    ("jti", lambda guard, token: guard.revoke(jti="number-7")),
    ("subject", lambda guard, token: guard.revoke(subject="ann")),
    ("client", lambda guard, token: guard.revoke(client_id="loader")),
]


@pytest.mark.rule("E-10")
@pytest.mark.parametrize("revoke", [entry[1] for entry in REVOKED], ids=[entry[0] for entry in REVOKED])
def test_revocation_ends_only_the_covered_cached_tokens(scene: Scene, revoke: Callable[[Guard, str], None]):
    token = scene.authority.mint("read", subject="ann", client_id="loader", claims={"jti": "number-7"})
    other = scene.authority.mint("read", subject="bob", client_id="other")
    scene.check_accepted(token)
    scene.check_accepted(other)
    for guard in scene.guards:
        revoke(guard, token)
    scene.check_refused(token, Reason.TOKEN_REVOKED)
    assert recall(scene.guards[0], other) is None  # Checked once more,
    scene.check_accepted(other)  # and recalled from then on.....


def test_revocation_in_another_process_ends_cached_tokens(scene: Scene):
    here, elsewhere = (scene.guard(store=scene.store) for _ in range(2))
    token = scene.authority.mint("read")
    assert isinstance(ask(here, token), AccessToken)
    assert isinstance(ask(here, token), AccessToken)
    assert recall(here, token) is not None
    elsewhere.revoke(token=token)
    scene.authority.clock.advance(1)  # max_lag
    assert recall(here, token) is None
    newcomer = scene.guard(store=scene.store)
    for guard in (here, newcomer):
        assert ask(guard, token) is Reason.TOKEN_REVOKED
        assert recall(guard, token) is None
    for guard in (here, elsewhere, newcomer):
        guard.close()


def test_clock_set_back_causes_a_full_check(scene: Scene):
    begins = scene.authority.clock.wall()
    token = scene.authority.mint("read", claims={"nbf": begins})
    scene.check_accepted(token)
    scene.authority.clock.set_wall(begins - 60)
    scene.check_refused(token, Reason.TOKEN_NOT_YET_VALID)


def test_scopes_are_checked_for_each_request(scene: Scene):
    token = scene.authority.mint("read")
    scene.check_accepted(token)
    assert engine_of(scene.guards[0]).recall(b"Bearer " + token.encode(), all_of("read"), b"", None) is not None
    assert engine_of(scene.guards[0]).recall(b"Bearer " + token.encode(), all_of("write"), b"", None) is None


def test_token_cached_from_a_proxy_header_is_not_accepted_in_authorization():
    authority = FakeAuthority()
    plain = FakeAuthority("https://other.test", audience=authority.audience, clock=authority.clock)
    guard = Guard(
        replace(authority.issuer, token_header="X-Assertion", keys=_keys(authority)),
        replace(plain.issuer, keys=_keys(plain)),
        clock=authority.clock,
    )
    token = authority.mint("read")
    for _ in range(2):
        assert isinstance(ask(guard, token, b"x-assertion"), AccessToken)
    assert ask(guard, token) is Reason.UNKNOWN_ISSUER
    assert isinstance(ask(guard, token, b"x-assertion"), AccessToken)


def test_changed_settings_of_a_tenant_apply_to_cached_tokens():
    authority = FakeAuthority()
    audiences = [authority.audience]

    def resolve(name: str) -> Issuer:
        return Issuer(name, audience=audiences[-1], keys=_keys(authority))

    resolver = IssuerResolver(accepts=lambda name: name == authority.url, resolve=resolve, ttl=60)
    guard = Guard(resolver=resolver, clock=authority.clock)
    token = authority.mint("read")
    for _ in range(3):
        assert isinstance(ask(guard, token), AccessToken)
    assert recall(guard, token) is None  # Never without the look-up of its tenant.
    audiences.append("https://other.test")
    authority.clock.advance(61)
    assert ask(guard, token) is Reason.WRONG_AUDIENCE
    guard.close()


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the algorithm of each verified signature."""
    seen: list[str] = []
    verify = VerificationKey.verify

    def count_and_verify(key: VerificationKey, algorithm: str, signed: bytes, signature: bytes) -> bool:
        seen.append(algorithm)
        return verify(key, algorithm, signed, signature)

    monkeypatch.setattr(VerificationKey, "verify", count_and_verify)
    return seen


def test_changed_settings_of_a_tenant_cause_one_more_verification(verifications: list[str]):
    authority = FakeAuthority()
    leeways = [10.0]

    def resolve(name: str) -> Issuer:
        return Issuer(name, audience=authority.audience, keys=_keys(authority), leeway=leeways[-1])

    resolver = IssuerResolver(accepts=lambda name: name == authority.url, resolve=resolve, ttl=60)
    guard = Guard(resolver=resolver, clock=authority.clock)
    token = authority.mint("read")
    for _ in range(5):
        assert isinstance(ask(guard, token), AccessToken)
    assert len(verifications) == 1
    leeways.append(20.0)
    authority.clock.advance(61)
    for _ in range(5):
        assert isinstance(ask(guard, token), AccessToken)
    assert len(verifications) == 2
    guard.close()


def test_guards_share_no_cached_tokens(scene: Scene):
    token = scene.authority.mint("read")
    scene.check_accepted(token)
    strict = Guard(
        replace(scene.authority.issuer, audience="https://third.test"),
        transport=scene.authority.transport,
        clock=scene.authority.clock,
    )
    assert ask(strict, token) is Reason.WRONG_AUDIENCE
    strict.close()


async def _status_of_asgi(guard: Guard, fields: list[bytes]) -> int:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "scheme": "https",
        "headers": [(b"authorization", field) for field in fields],
    }
    await asgi.GuardMiddleware(app, guard=guard, rules=OPEN)(scope, receive, send)
    status: int = sent[0]["status"]
    return status


def _status_of_wsgi(guard: Guard, field: bytes) -> int:
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    def start_response(status: str, *_: Any) -> Any:
        seen.append(status)

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "wsgi.url_scheme": "https",
        "HTTP_AUTHORIZATION": field.decode("latin-1"),
    }
    list(wsgi.GuardMiddleware(app, guard=guard, rules=OPEN)(environ, start_response))
    return int(seen[0][:3])


@pytest.mark.anyio
@pytest.mark.parametrize("name", refused_fields("e30.e30.e30"))
async def test_header_similar_to_a_granted_one_is_refused_with_and_without_a_cache(scene: Scene, name: str):
    token = scene.authority.mint("read")
    scene.check_accepted(token)
    field, granted = refused_fields(token)[name], b"Bearer " + token.encode()
    for guard in scene.guards:
        for _ in range(3):
            assert await _status_of_asgi(guard, [granted]) == _status_of_wsgi(guard, granted) == 204
            assert engine_of(guard).recall(field, None, b"", None) is None
            assert await _status_of_asgi(guard, [field]) in (400, 401)
            assert _status_of_wsgi(guard, field) in (400, 401)
            for both in ([granted, field], [field, granted], [granted, granted]):
                assert await _status_of_asgi(guard, both) in (400, 401)
    scene.check_accepted(token)


def test_each_of_many_tokens_is_recalled_with_its_own_claims(scene: Scene):
    guard = scene.guards[0]
    tokens = {f"user{number}": scene.authority.mint("read", subject=f"user{number}") for number in range(50)}
    for _ in range(3):
        for name, token in tokens.items():
            found = ask(guard, token)
            assert isinstance(found, AccessToken)
            assert found.subject == name
    for name, token in tokens.items():
        recalled = recall(guard, token)
        assert recalled is not None
        assert recalled.subject == name


@pytest.mark.rule("J-45")
def test_header_with_claims_about_one_caller_does_not_admit_another(scene: Scene):
    """The tokens have identical headers, and one of them was accepted."""
    told = {"sub": "ann"}
    scene.check_accepted(scene.authority.mint("read", subject="ann", headers=told))
    for _ in range(2):
        scene.check_refused(scene.authority.mint("read", subject="bob", headers=told), Reason.REPLICATED_CLAIM)
    scene.check_accepted(scene.authority.mint("read", subject="ann", headers=told))


@pytest.mark.parametrize(
    ("policy", "good", "bad", "reason"),
    [
        ({"expected_claims": {"tid": "t1"}}, "t1", "t2", Reason.UNEXPECTED_CLAIM),
        ({"claim_prefixes": {"tid": "t-"}}, "t-1", "x-1", Reason.UNEXPECTED_CLAIM),
        ({"forbidden_claims": ["tid"]}, None, "t1", Reason.FORBIDDEN_CLAIM),
    ],
    ids=["expected", "prefix", "forbidden"],
)
def test_policy_of_claims_is_checked_for_each_token_with_a_cached_header(
    policy: dict[str, Any], good: str | None, bad: str, reason: Reason
):
    authority = FakeAuthority()
    guard = Guard(replace(authority.issuer, **policy), transport=authority.transport, clock=authority.clock)
    for _ in range(3):
        assert isinstance(ask(guard, authority.mint("read", claims={"tid": good})), AccessToken)
        assert ask(guard, authority.mint("read", claims={"tid": bad})) is reason
    guard.close()


@pytest.mark.rule("X-64")
def test_app_cannot_change_the_claims_of_later_requests(scene: Scene):
    token = scene.authority.mint("read", claims={"groups": ["a"], "realm_access": {"roles": ["b"]}})
    scene.check_accepted(token)
    guard = scene.guards[0]
    seen = [ask(guard, token), recall(guard, token), ask(scene.guards[1], token)]
    for found in seen:
        assert isinstance(found, AccessToken)
        for change in (
            lambda claims: claims.update(sub="admin"),
            lambda claims: claims["groups"].append("admin"),
            lambda claims: claims["realm_access"].update(roles=["admin"]),
            lambda claims: claims["realm_access"]["roles"].append("admin"),
        ):
            with pytest.raises(AttributeError):
                change(found.claims)
        assert found.claims["groups"] == ("a",)
        assert found.claims["realm_access"]["roles"] == ("b",)
    assert seen[0] == seen[1] == seen[2]


def test_hints_apply_to_cached_tokens_too():
    authority = FakeAuthority(jwks_max_age=int(KEY_LIFETIME))
    hints = {"token_revoked": "ask the desk", "unknown_key": "a key was withdrawn"}
    guard = Guard(replace(authority.issuer, hints=hints), transport=authority.transport, clock=authority.clock)

    def hint_about(token: str) -> object:
        headers = HeaderList([(b"authorization", b"Bearer " + token.encode())])
        decision = guard.check(RequestView(method="GET", path="/", headers=headers))
        assert isinstance(decision, Denied)
        return decision.error.detail["hint"]

    revoked, other = authority.mint("read"), authority.mint("read", expires_in=86400)
    for token in (revoked, other):
        for _ in range(2):
            assert isinstance(ask(guard, token), AccessToken)
    guard.revoke(token=revoked)
    assert hint_about(revoked) == "ask the desk"
    authority.rotate(overlap=False)
    authority.clock.advance(KEY_LIFETIME + 1)
    assert hint_about(other) == "a key was withdrawn"
    guard.close()


@pytest.mark.rule("X-64")
def test_unauthenticated_requests_add_nothing_to_the_cache():
    authority = FakeAuthority()
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    guard.warm()
    for bad in bad_tokens(authority).values():
        ask(guard, bad.token)
    cache = engine_of(guard).context.token_cache
    assert cache is not None
    assert len(cache) == 0
    issuers = engine_of(guard).issuers
    assert not issuers._headers
    assert all(not record.headers for record in issuers.all)
    guard.close()


def test_flood_of_valid_tokens_evicts_and_never_grows():
    authority = FakeAuthority()
    policy = TokenCachePolicy(max_entries=20, ready_entries=4)
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock, token_cache=policy)
    tokens = [authority.mint("read", subject=str(number)) for number in range(60)]
    for token in tokens:
        assert isinstance(ask(guard, token), AccessToken)
    cache = engine_of(guard).context.token_cache
    assert cache is not None
    assert len(cache) <= 20
    assert not cache._ready.young  # No token was used twice.
    for token in tokens:
        assert isinstance(ask(guard, token), AccessToken)
    guard.close()


def _keys(authority: FakeAuthority) -> dict[str, Any]:
    return authority.authority.keys.key_set(authority.clock.wall())
