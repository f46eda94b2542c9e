"""API keys beside tokens, with a whole guard. The kinds of fault: a key counts where a token is needed, or the reverse;
a key reaches a log, an authorization server or another route."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from scopeguard import (
    MACHINE,
    USER,
    ApiKey,
    ApiKeys,
    ApiKeysUnavailable,
    ConfigurationError,
    CredentialKind,
    DecisionEvent,
    Denied,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    Introspection,
    Issuer,
    IssuerResolver,
    Reason,
    RequestView,
    Rule,
    Rules,
    TokenCheck,
    TokenSources,
    Unavailable,
    all_of,
)
from scopeguard.config.token_sources import TokenSource, join_sources
from scopeguard.core.starting import take_over
from scopeguard.explanation import Verdict
from scopeguard.flow.credentials import Credential
from scopeguard.guard import engine_of
from scopeguard.inbound_tokens import InboundToken, hand_over, to_serve
from scopeguard.rules.prefix_removal import MountPoint, Prefixes, RoutedRules
from scopeguard.spec.api_key import make_key
from scopeguard.testing import FakeAuthority, FakeTransport, Network
from serving import wait_until

API = "https://api.test"
ID, KEY, DIGEST = make_key("acme", lambda size: b"x" * size)
OTHER = make_key("acme", lambda size: b"y" * size)[1]
ENTRY = ApiKey(id=ID, sha256=DIGEST, subject="alice", client_id="reports", scopes=["read"], expires_at=None)
FIELD = ("x-api-key", KEY)


def look_up(identifier: str) -> ApiKey | None:
    return ENTRY if identifier == ID else None


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority(audience=API)


EITHER = ("header", "api_key")


def build(authority: FakeAuthority, *, sources: Any = EITHER, keys: Any = None, **settings: Any) -> Any:
    chosen = ApiKeys(prefix="acme", lookup=look_up) if keys is None else keys
    settings = {"resource": API, "transport": authority.transport, "clock": authority.clock, **settings}
    return Guard(settings.pop("issuer", authority.issuer), api_keys=chosen, token_sources=sources, **settings)


def request(*pairs: tuple[str, str], query: str = "", **more: Any) -> RequestView:
    encoded = [(name.encode(), value.encode()) for name, value in pairs]
    return RequestView(method="GET", path="/rows", headers=HeaderList(encoded), query=query.encode(), **more)


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


Check = Callable[..., Any]


@pytest.fixture(params=["thread", "asyncio", "trio"])
def check(request: pytest.FixtureRequest) -> Check:
    def decide(guard: Guard, view: RequestView, *args: Any, **options: Any) -> Any:
        if request.param == "thread":
            return guard.check(view, *args, **options)

        async def run() -> Any:
            return await guard.acheck(view, *args, **options)

        return anyio.run(run, backend=request.param)

    return decide


def reason_of(decision: Any) -> Reason:
    assert isinstance(decision, Denied | Unavailable)
    return decision.error.reason


def challenges(decision: Any) -> list[str]:
    return [value for name, value in decision.response.headers if name == "www-authenticate"]


# -- checksums with a secret


def test_key_without_the_checksum_of_the_api_is_not_looked_up(authority: FakeAuthority):
    asked: list[str] = []

    def find(identifier: str) -> ApiKey | None:
        asked.append(identifier)
        return replace(ENTRY, id=identifier, sha256=digest)

    keys = ApiKeys(prefix="acme", lookup=find, checksum_secret="a secret for checksums")
    identifier, text, digest = make_key("acme", lambda size: b"x" * size, keys.checksum_key)
    guard = build(authority, keys=keys)
    assert reason_of(guard.check(request(FIELD))) is Reason.API_KEY_MALFORMED
    assert asked == []
    engine, found = engine_of(guard), list[Credential]()
    decision: Any = engine.check(request(("x-api-key", text)), on_credential=found.append)
    assert asked == [identifier]

    async def renew(other: str) -> Any:
        return await engine.arenew(other, found[0], decision.access_token, None, request())

    assert isinstance(anyio.run(renew, text), Granted)
    assert reason_of(anyio.run(renew, KEY)) is Reason.API_KEY_MALFORMED


# -- which credential is accepted where


@pytest.mark.parametrize(
    ("sources", "with_key", "with_token"),
    [
        (["header"], Reason.API_KEY_REFUSED, None),
        (["api_key"], None, Reason.NO_CREDENTIALS),
        (["header", "api_key"], None, None),
        (["query", "api_key"], None, Reason.NO_CREDENTIALS),
    ],
)
def test_token_sources_say_which_credential_a_route_accepts(
    check: Check, authority: FakeAuthority, sources: list[str], with_key: Reason | None, with_token: Reason | None
):
    guard = build(authority, sources=sources)
    for view, reason in ((request(FIELD), with_key), (request(bearer(authority.mint("read"))), with_token)):
        decision = check(guard, view, all_of("read"))
        if reason is None:
            assert isinstance(decision, Granted)
        else:
            assert reason_of(decision) is reason
            assert decision.response.status == 401


def test_key_yields_the_same_kind_of_access_token(check: Check, authority: FakeAuthority):
    token = check(build(authority), request(FIELD)).access_token
    assert token.identity == (API, "alice")
    assert (token.client_id, token.audience, token.scopes) == ("reports", (API,), {"read"})
    assert token.claims["jti"] == ID
    named = build(authority, keys=ApiKeys(prefix="acme", lookup=look_up, issuer="keys of the API"))
    assert check(named, request(FIELD)).access_token.issuer == "keys of the API"


@pytest.mark.parametrize("sources", [["header"], ["api_key"], ["header", "api_key"]], ids=",".join)
@pytest.mark.parametrize("token", ["good", "bad", "empty"])
def test_token_and_key_together_are_refused_on_every_route(
    check: Check, authority: FakeAuthority, sources: list[str], token: str
):
    guard = build(authority, sources=sources)
    text = {"good": authority.mint("read"), "bad": "abc", "empty": "x" * 3}[token]
    for field in (FIELD, ("X-API-KEY", OTHER), ("x-api-key", "nonsense"), ("x-api-key", "")):
        decision = check(guard, request(bearer(text), field))
        assert reason_of(decision) is Reason.TOKEN_AND_API_KEY
        assert (decision.response.status, decision.error.error) == (400, "invalid_request")


@pytest.mark.parametrize("sources", [["api_key"], ["header", "api_key"], ["header"]], ids=str)
def test_dpop_token_and_key_together_are_refused(authority: FakeAuthority, sources: list[str]):
    """Fault: a credential in a scheme that the guard does not read, beside one that it accepts."""
    decision = build(authority, sources=sources).check(request(("authorization", "dpop abc"), FIELD))
    assert reason_of(decision) is Reason.TOKEN_AND_API_KEY


def test_other_scheme_beside_a_key_is_ignored(check: Check, authority: FakeAuthority):
    assert isinstance(check(build(authority), request(("authorization", "Basic dTpw"), FIELD)), Granted)


@pytest.mark.parametrize(
    "view",
    [
        request(query=f"x-api-key={KEY}"),
        request(query=f"api_key={KEY}"),
        request(("cookie", f"X-API-Key={KEY}")),
        request(("x_api_key", KEY)),
        request(("authorization", f"ApiKey {KEY}")),
    ],
)
def test_key_elsewhere_is_no_credential(authority: FakeAuthority, view: RequestView):
    assert reason_of(build(authority).check(view)) in (Reason.NO_CREDENTIALS, Reason.UNSUPPORTED_SCHEME)


@pytest.mark.parametrize("where", ["header", "query", "form", "forwarded"])
def test_key_as_a_token_is_refused_before_an_authorization_server_sees_it(authority: FakeAuthority, where: str):
    issuer = Issuer(
        "https://as.test",
        audience=API,
        validate="introspection",
        introspection=Introspection(client_id="a", client_secret="s" * 16, endpoint="https://as.test/introspect"),
    )
    transport = FakeTransport(authority.authority)
    guard = build(
        authority,
        issuer=issuer,
        transport=transport,
        sources=TokenSources(methods=[where, "api_key"], trusted_proxies=["*"]),
    )
    view, form = request(bearer(KEY)), b""
    if where == "query":
        view = request(query=f"access_token={KEY}")
    elif where == "forwarded":
        view = request(("x-forwarded-authorization", f"Bearer {KEY}"))
    elif where == "form":
        form = b"access_token=" + KEY.encode()
        pairs = [(b"content-type", b"application/x-www-form-urlencoded")]
        view = RequestView(method="POST", path="/", headers=HeaderList(pairs))
    decision = guard.check(view, read_form=lambda _: form)
    assert reason_of(decision) is Reason.API_KEY_AS_TOKEN
    assert transport.requests == []


def test_key_whose_prefix_is_longer_is_another_token(authority: FakeAuthority):
    decision = build(authority).check(request(bearer("acmes_" + "x" * 30)))
    assert reason_of(decision) is Reason.MALFORMED_TOKEN


def test_sources_of_the_caller_know_the_keys_of_the_guard(check: Check, authority: FakeAuthority):
    guard = build(authority, sources=["header"])
    assert isinstance(check(guard, request(FIELD), sources=TokenSources(methods=["api_key"])), Granted)
    both = request(bearer("x"), FIELD)
    assert reason_of(check(guard, both, sources=TokenSources())) is Reason.TOKEN_AND_API_KEY


def test_without_keys_their_field_means_nothing(authority: FakeAuthority):
    guard = Guard(authority.issuer, transport=authority.transport, clock=authority.clock)
    assert isinstance(guard.check(request(bearer(authority.mint()), FIELD)), Granted)
    with pytest.raises(ConfigurationError, match='"api_key" needs api_keys'):
        guard.check(request(FIELD), sources=TokenSources(methods=["api_key"]))


def test_optional_route_refuses_a_bad_key_and_one_that_it_does_not_accept(check: Check, authority: FakeAuthority):
    for sources, reason in ((["header", "api_key"], Reason.API_KEY_MALFORMED), (["header"], Reason.API_KEY_REFUSED)):
        decision = check(build(authority, sources=sources), request(("x-api-key", "bad")), optional=True)
        assert reason_of(decision) is reason


def test_route_that_requires_a_proof_refuses_a_key_also_if_it_is_optional(check: Check, authority: FakeAuthority):
    guard = build(authority, dpop=DPoP(mode="required"))
    for optional in (False, True):
        assert reason_of(check(guard, request(FIELD), optional=optional)) is Reason.API_KEY_REFUSED


def test_field_of_the_settings_is_read(authority: FakeAuthority):
    guard = build(authority, keys=ApiKeys(prefix="acme", lookup=look_up, header="Acme-Key"))
    assert isinstance(guard.check(request(("acme-key", KEY))), Granted)
    assert reason_of(guard.check(request(FIELD))) is Reason.NO_CREDENTIALS


# -- challenges


def test_route_for_both_has_the_challenge_of_tokens_without_an_error(authority: FakeAuthority):
    guard = build(authority)
    for view in (request(), request(("x-api-key", OTHER))):
        (challenge,) = challenges(guard.check(view, all_of("read")))
        assert challenge.startswith('Bearer realm="https://api.test", scope="read"')
        assert "error" not in challenge


def test_route_for_keys_alone_has_a_challenge_that_names_their_field(authority: FakeAuthority):
    guard = build(authority, sources=["api_key"])
    for view in (request(), request(bearer("abc")), request(("x-api-key", OTHER))):
        decision = guard.check(view, all_of("read"))
        assert challenges(decision) == ['ApiKey realm="https://api.test", header="X-API-Key"']
        assert b"Bearer" not in decision.response.body
    assert b"Send an API key" in guard.check(request()).response.body


def test_key_without_the_scope_gets_403_without_a_challenge(check: Check, authority: FakeAuthority):
    decision = check(build(authority), request(FIELD), all_of("write"))
    assert (decision.response.status, challenges(decision)) == (403, [])
    assert b"The API key lacks a scope" in decision.response.body
    token = check(build(authority), request(bearer(authority.mint("read"))), all_of("write"))
    assert "insufficient_scope" in challenges(token)[0]


def test_key_is_no_sign_in_of_a_user(authority: FakeAuthority):
    guard = build(authority)
    assert reason_of(guard.check(request(FIELD), all_of(USER))) is Reason.USER_REQUIRED
    assert reason_of(guard.check(request(FIELD), all_of(MACHINE))) is Reason.MACHINE_REQUIRED  # it has a subject
    decision = guard.check(request(FIELD), all_of(acr=["gold"]))
    assert "insufficient_user_authentication" in challenges(decision)[0]


def test_outage_of_the_function_is_503_without_a_challenge(check: Check, authority: FakeAuthority):
    def fail(_: str) -> None:
        raise OSError

    decision = check(build(authority, keys=ApiKeys(prefix="acme", lookup=fail)), request(FIELD))
    assert isinstance(decision, Unavailable)
    assert isinstance(decision.error, ApiKeysUnavailable)
    assert (decision.response.status, challenges(decision)) == (503, [])
    assert "retry-after" in dict(decision.response.headers)


def test_requests_at_once_with_one_key_are_all_accepted_after_a_start(authority: FakeAuthority):
    """There are more than the budget for calls that find nothing."""
    called: list[str] = []
    gate, decisions = threading.Event(), []

    def find(identifier: str) -> ApiKey | None:
        called.append(identifier)
        assert gate.wait(30)
        return look_up(identifier)

    guard = build(authority, keys=ApiKeys(prefix="acme", lookup=find, unknown_burst=2))
    threads = [threading.Thread(target=lambda: decisions.append(guard.check(request(FIELD)))) for _ in range(20)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(30)
    assert [type(decision) for decision in decisions] == [Granted] * 20
    assert called == [ID]


def test_hanging_look_ups_of_made_up_keys_do_not_delay_other_functions(authority: FakeAuthority):
    """Fault: requests that wait for the look-up of another one take the places of the resolver."""
    gate, calling, other = threading.Event(), threading.Semaphore(0), FakeAuthority("https://other.test")

    def hang(identifier: str) -> ApiKey | None:
        calling.release()
        assert gate.wait(30)
        return None

    resolver = IssuerResolver(accepts=lambda name: True, resolve=lambda name: other.issuer)
    guard = build(
        authority, keys=ApiKeys(prefix="acme", lookup=hang), resolver=resolver, transport=Network(authority, other)
    )
    flood = [make_key("acme", os.urandom)[1] for _ in range(20)]
    threads = [threading.Thread(target=guard.check, args=(request(("x-api-key", key)),)) for key in flood * 2]
    for thread in threads[: len(flood)]:
        thread.start()
    for _ in flood:
        assert calling.acquire(timeout=30)
    for thread in threads[len(flood) :]:
        thread.start()
    lanes = engine_of(guard).runtime.lanes
    wait_until(lambda: sum(lane._running for lane in lanes.values()) >= 12, "requests wait for look-ups")
    decision = guard.check(request(bearer(other.mint("read"))))
    gate.set()
    for thread in threads:
        thread.join(30)
    assert isinstance(decision, Granted)


def test_async_function_serves_asyncio_and_trio_alone(authority: FakeAuthority):
    async def find(identifier: str) -> ApiKey | None:
        await anyio.lowlevel.checkpoint()
        return look_up(identifier)

    guard = build(authority, keys=ApiKeys(prefix="acme", lookup=find))
    for backend in ("asyncio", "trio"):

        async def run() -> Any:
            return await guard.acheck(request(FIELD))

        assert isinstance(anyio.run(run, backend=backend), Granted)
    with pytest.raises(ConfigurationError, match="a WSGI app has no event loop"):
        engine_of(guard).check_rules(Rules([]), blocks=True)
    with pytest.raises(ConfigurationError, match="use aexplain"):
        guard.explain(request(FIELD))


# -- the fast path, listeners and logs


def test_tokens_keep_the_fast_path_beside_keys(authority: FakeAuthority):
    engine = engine_of(build(authority))
    text = f"Bearer {authority.mint('read')}".encode()
    for _ in range(2):
        engine.check(request(("authorization", text.decode())))
    assert engine.recall(text, all_of("read"), b"", None) is not None
    assert engine_of(build(authority, sources=["api_key"])).recall(text, None, b"", None) is None


def test_listener_learns_the_kind_of_the_credential(check: Check, authority: FakeAuthority):
    events: list[DecisionEvent] = []
    guard = build(authority, on_decision=events.append)
    for view in (request(FIELD), request(("x-api-key", OTHER)), request(bearer(authority.mint())), request()):
        check(guard, view)
    seen = [(event.credential, event.issuer, event.client_id) for event in events]
    assert seen == [
        (CredentialKind.API_KEY, API, "reports"),
        (CredentialKind.API_KEY, API, None),
        (CredentialKind.TOKEN, "https://as.test", "client"),
        (None, None, None),
    ]
    assert events[0].token_check is TokenCheck.FETCHED


def test_no_key_is_in_a_log_an_error_or_an_event(
    authority: FakeAuthority, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    events: list[DecisionEvent] = []
    guard = build(authority, on_decision=events.append)
    caplog.set_level(logging.DEBUG)
    views = [
        request(FIELD), request(("x-api-key", OTHER)), request(("x-api-key", KEY[:-1] + "0")), request(bearer(KEY)),
        request(FIELD, bearer("abc")), request(FIELD, FIELD), request(("x-api-key", f"{KEY} ")),
    ]  # fmt: skip
    for view in views:
        decision = guard.check(view, all_of("write"))
        explained = guard.explain(view, all_of("write"))
        shown = f"{decision!r} {decision.error} {decision.error.detail} {decision.response} {view!r}"
        shown += f"{explained.as_json()}"
        for secret in (KEY[22:], OTHER[22:]):
            assert secret not in shown
    for secret in (KEY[22:], OTHER[22:], KEY[30:60]):
        assert secret not in caplog.text + repr(events)
    assert f"key_id={OTHER[5:21]}" in caplog.text


def test_cleartext_key_is_refused_as_a_token_is(authority: FakeAuthority):
    guard = build(authority, require_https=True)
    decision = guard.check(request(FIELD, secure=False, client="192.0.2.1"))
    assert reason_of(decision) is Reason.HTTPS_REQUIRED


def test_key_is_not_held_for_the_next_api(authority: FakeAuthority):
    guard = build(authority, keep_token_for_exchange=True)
    hand_over(None)
    access = guard.check(request(FIELD)).access_token
    assert not isinstance(to_serve(access), InboundToken)
    token = guard.check(request(bearer(authority.mint()))).access_token
    assert isinstance(to_serve(token), InboundToken)


# -- revocation, renewal, reload


def test_guard_revokes_keys(authority: FakeAuthority):
    def new_guard() -> Any:
        guard = build(authority)
        assert isinstance(guard.check(request(FIELD)), Granted)
        return guard

    for revoke in (
        lambda guard: guard.revoke(token=KEY),
        lambda guard: guard.revoke(subject="alice", issuer=API),
        lambda guard: guard.revoke(jti=ID, issuer=API),
        lambda guard: guard.revoke(client_id="reports", issuer=API),
    ):
        guard = new_guard()
        revoke(guard)
        assert reason_of(guard.check(request(FIELD))) is Reason.API_KEY_REVOKED
    guard = new_guard()
    guard.revoke(subject="alice", issuer="https://as.test")
    assert isinstance(guard.check(request(FIELD)), Granted)


def test_connection_is_checked_again_and_renewed_by_a_key_of_the_same_holder(authority: FakeAuthority):
    second = make_key("acme", lambda size: b"z" * size)
    known = {
        ID: ENTRY,
        second[0]: ApiKey(
            id=second[0], sha256=second[2], subject="alice", client_id="reports", scopes=["read"], expires_at=None
        ),
    }
    events: list[DecisionEvent] = []
    guard = build(authority, keys=ApiKeys(prefix="acme", lookup=known.get, ttl=0), on_decision=events.append)
    engine, found = engine_of(guard), list[Credential]()
    decision: Any = engine.check(request(FIELD), on_credential=found.append)
    access = decision.access_token

    async def run() -> None:
        assert await engine.arevalidate(found[0]) == access
        for text, wanted in (
            (second[1], None),
            (OTHER, Reason.API_KEY_UNKNOWN),
            ("../" + second[1], Reason.API_KEY_MALFORMED),
            (authority.mint(), Reason.API_KEY_MALFORMED),
        ):
            decision = await engine.arenew(text, found[0], access, None, request())
            if wanted is None:
                assert isinstance(decision, Granted)
            else:
                assert reason_of(decision) is wanted
        assert events[-1].credential is CredentialKind.API_KEY

    anyio.run(run)


def test_warming_and_reloading_read_the_file(authority: FakeAuthority, tmp_path: Path):
    file = tmp_path / "keys.toml"
    guard = build(authority, keys=ApiKeys(prefix="acme", keys_file=str(file)))
    with pytest.raises(ApiKeysUnavailable, match="No such file"):
        guard.warm()
    with pytest.raises(ApiKeysUnavailable):
        anyio.run(guard.awarm)
    other = build(authority, keys=ApiKeys(prefix="acme", keys_file=str(file)))
    with pytest.raises(ApiKeysUnavailable):
        take_over(engine_of(other), engine_of(guard))
    authority.clock.advance(1)  # the pause after a failed read
    file.write_text(f'[[keys]]\nid = "{ID}"\nsha256 = "{DIGEST}"\nsubject = "a"\nexpires_at = "never"\n')
    take_over(engine_of(other), engine_of(guard))
    other.warm()
    anyio.run(other.awarm)
    assert isinstance(other.check(request(FIELD)), Granted)


# -- explanations


@pytest.mark.parametrize(
    ("pairs", "needed", "reason", "decides"),
    [
        ([FIELD], "read", None, None),
        ([FIELD], "write", Reason.INSUFFICIENT_SCOPE, "scopes"),
        ([("x-api-key", OTHER)], "read", Reason.API_KEY_UNKNOWN, "api_key"),
        ([("x-api-key", "acme_bad")], "read", Reason.API_KEY_MALFORMED, "api_key"),
        ([FIELD, bearer("x")], "read", Reason.TOKEN_AND_API_KEY, "credentials"),
        ([bearer(KEY)], "read", Reason.API_KEY_AS_TOKEN, "credentials"),
    ],
)
def test_explanation_of_a_key(
    authority: FakeAuthority, pairs: Any, needed: str, reason: Reason | None, decides: str | None
):
    explained = build(authority).explain(request(*pairs), all_of(needed))
    assert (explained.reason, explained.verdict is Verdict.ACCEPTED) == (reason, reason is None)
    assert [check.name for check in explained.checks if check.decides] == ([] if decides is None else [decides])
    if pairs[0][0] == "x-api-key" and len(pairs) == 1 and pairs[0][1] != "acme_bad":
        assert (explained.kind, explained.issuer) == ("api_key", API)


def test_explanation_during_an_outage_is_undecided(authority: FakeAuthority, tmp_path: Path):
    guard = build(authority, keys=ApiKeys(prefix="acme", keys_file=str(tmp_path / "none.toml")))
    explained = guard.explain(request(FIELD))
    assert (explained.verdict, explained.reason) == (Verdict.UNDECIDED, Reason.API_KEYS_UNAVAILABLE)


def test_async_explanation_of_a_key(authority: FakeAuthority):
    async def find(identifier: str) -> ApiKey | None:
        return look_up(identifier)

    guard = build(authority, keys=ApiKeys(prefix="acme", lookup=find))

    async def run() -> Any:
        return await guard.aexplain(request(FIELD), all_of("read"))

    assert anyio.run(run).verdict is Verdict.ACCEPTED


# -- settings


def test_keys_need_an_issuer_of_their_own(authority: FakeAuthority):
    with pytest.raises(ConfigurationError, match=r"api_keys\.issuer: is missing"):
        build(authority, resource=None)
    assert isinstance(
        build(authority, resource=None, keys=ApiKeys(prefix="acme", lookup=look_up, issuer="mine")).check(
            request(FIELD)
        ),
        Granted,
    )
    for name in ("https://as.test", "https://old.test"):
        issuer = Issuer("https://as.test", audience=API, aliases={"https://old.test": {}})
        with pytest.raises(ConfigurationError, match=r"api_keys\.issuer: .* is a trusted issuer"):
            build(authority, issuer=issuer, keys=ApiKeys(prefix="acme", lookup=look_up, issuer=name))


def test_resolver_cannot_find_the_issuer_of_the_keys(authority: FakeAuthority):
    resolver = IssuerResolver(accepts=lambda _: True, resolve=lambda name: Issuer(name, audience=API))
    guard = build(authority, resolver=resolver)
    token = authority.mint(claims={"iss": API})
    assert not isinstance(guard.check(request(bearer(token))), Granted)


@pytest.mark.parametrize("prefix", ["acme_", "acme_x", "ac", "acme"])
def test_opaque_tokens_must_not_begin_like_keys(authority: FakeAuthority, prefix: str):
    issuer = Issuer(
        "https://as.test",
        audience=API,
        validate="auto",
        opaque_prefixes=[prefix],
        introspection=Introspection(client_id="a", client_secret="s" * 16),
    )
    with pytest.raises(ConfigurationError, match=r"api_keys\.prefix: tokens of issuer"):
        build(authority, issuer=issuer)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"prefix": "Acme"}, "api_keys.prefix: must be at most 20"),
        ({"prefix": "a" * 21}, "api_keys.prefix"),
        ({"prefix": "acme_"}, "api_keys.prefix"),
        ({"prefix": ""}, "api_keys.prefix"),
        ({"keys_file": None}, "set keys_file or lookup, but not both"),
        ({"lookup": look_up}, "set keys_file or lookup, but not both"),
        ({"header": "Authorization"}, "api_keys.header"),
        ({"header": "Cookie"}, "has a meaning already"),
        ({"header": "a b"}, "api_keys.header"),
        ({"ttl": -1}, "api_keys.ttl: must be at least 0"),
        ({"unknown_burst": 0}, "api_keys.unknown_burst"),
        ({"checksum_secret": "sg-secret"}, "api_keys.checksum_secret: must have at least 16 characters"),
        ({"checksum_secret": "sg-secret" * 3}, "api_keys.checksum_secret: has no effect with keys_file"),
    ],
)
def test_wrong_setting_is_refused(settings: Any, problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        ApiKeys(**{"prefix": "acme", "keys_file": "keys.toml", **settings})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"id": "x"}, "id: must be 16"),
        ({"sha256": "0" * 63}, "sha256: must be 64"),
        ({"subject": None}, "subject: is missing"),
        ({"scopes": "read"}, "must be a list"),
        ({"scopes": ["read write"]}, "must be one scope"),
        ({"claims": {"cnf": {}}}, "cnf cannot be set"),
        # Fault: a claim that says what a key cannot show, or that nothing checks.
        ({"claims": {"acr": "gold"}}, "acr cannot be set"),
        ({"claims": {"auth_time": 1}}, "auth_time cannot be set"),
        ({"claims": {"amr": ["mfa"]}}, "amr cannot be set"),
        ({"claims": {"nbf": 1}}, "nbf cannot be set"),
        ({"claims": {"x": float("nan")}}, "JSON"),
    ],
)
def test_wrong_key_is_refused(settings: Any, problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        ApiKey(**{"id": ID, "sha256": DIGEST, "subject": "a", "expires_at": None, **settings})


@pytest.mark.parametrize("profile", ["oauth21", "mcp"])
def test_profiles_accept_no_keys(authority: FakeAuthority, profile: str):
    with pytest.raises(ConfigurationError, match="api_key contradicts profile"):
        build(authority, profile=profile)


def test_rule_for_keys_alone_cannot_require_a_proof(authority: FakeAuthority):
    rule = Rule("/rows", token_sources=["api_key"])
    with pytest.raises(ConfigurationError, match="which no key has"):
        engine_of(build(authority, sources=["header"], dpop=DPoP(mode="required"))).check_rules(Rules([rule]))
    off = Rule("/rows", token_sources=["api_key"], dpop="off")
    engine_of(build(authority, sources=["header"], dpop=DPoP(mode="required"))).check_rules(Rules([off]))


@pytest.mark.parametrize(("mode", "is_granted"), [("required", False), ("allowed", True)])
def test_key_is_no_proof_of_possession(authority: FakeAuthority, mode: str, is_granted: bool):
    decision = build(authority, dpop=DPoP(mode=mode)).check(request(FIELD))
    assert isinstance(decision, Granted) is is_granted


# -- several rules for one request

H, K, Q = TokenSource.HEADER, TokenSource.API_KEY, TokenSource.QUERY


@pytest.mark.parametrize(
    ("first", "other", "left"),
    [
        (None, None, None),
        (None, {H}, {H}),
        (None, {H, K}, None),
        ({H, K}, None, {H}),
        ({K}, None, set()),
        ({K}, {H}, set()),
        ({K}, {H, K}, {K}),
        ({H, K}, {K}, {K}),
        ({H, K}, {H}, {H}),
        ({H}, {Q}, {H}),
        ({H}, None, {H}),
    ],
)
def test_credential_must_be_accepted_by_both_settings(first: Any, other: Any, left: Any):
    def freeze(given: Any) -> Any:
        return None if given is None else frozenset(given)

    assert join_sources(freeze(first), freeze(other)) == freeze(left)


@pytest.mark.parametrize(
    ("of_guard", "of_rule", "plain"),
    [
        (["header"], ["header", "query"], True),  # places of the same token
        (["header"], ["header", "api_key"], False),
        (["header"], ["api_key"], False),
        (["header", "api_key"], ["header"], False),
        (["header", "api_key"], ["query", "api_key"], True),
        (None, ["header"], False),
    ],
    ids=str,
)
def test_paths_have_one_reading_if_all_rules_accept_the_same_kinds_of_credentials(
    of_guard: list[str] | None, of_rule: list[str], *, plain: bool
):
    rules = Rules([Rule("/admin", "read"), Rule("/{rest:path}", "read", token_sources=of_rule)])
    sources = None if of_guard is None else frozenset(map(TokenSource, of_guard))
    assert RoutedRules(rules, Prefixes(unknown=(MountPoint(),)), sources).is_plain is plain


@pytest.mark.parametrize(
    ("sources", "left"), [(["api_key"], None), (["header", "api_key"], {H}), (["header"], {H}), (None, None)]
)
def test_path_with_two_readings_accepts_what_both_rules_accept(sources: Any, left: Any):
    open_rule, strict = Rule("/{rest:path}", "read", token_sources=sources), Rule("/admin", "read")
    routed = RoutedRules(Rules([strict, open_rule]), Prefixes(unknown=(MountPoint(),)))
    assert not routed.is_plain or sources is None
    found = routed.find("GET", "/x/admin")
    if sources == ["api_key"]:
        assert found is None
    else:
        assert found is not None
        assert found.sources == left
