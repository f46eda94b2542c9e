"""Roads around the proof of possession: none of them may admit a stolen token, or use a proof twice.

The classes of fault: a quick path, a setting or a layer that does not know that a proof is needed; a target of a
request that is not a path; and a state that is lost or filled up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask

from mcp_calls import Server, call, tool_call
from scopeguard import (
    ConfigurationError,
    Denied,
    DPoP,
    Granted,
    Guard,
    HeaderList,
    Issuer,
    IssuerResolver,
    Reason,
    RequestView,
    Rule,
    Rules,
    Unavailable,
    all_of,
)
from scopeguard.adapter.asgi_types import Receive, Scope, Send
from scopeguard.asgi import GuardMiddleware
from scopeguard.core.starting import take_over
from scopeguard.flask import ScopeGuard
from scopeguard.guard import Decision, engine_of
from scopeguard.mcp import McpMiddleware, Tool
from scopeguard.rules.prefix_removal import MountPoint, Prefixes, RoutedRules
from scopeguard.testing import FakeAuthority
from scopeguard.testing.proofs import ProofKey
from scopeguard.wsgi import GuardMiddleware as WsgiMiddleware

RES = "https://api.test"
URI = "https://api.test/rows"
KEY = ProofKey()
NONCE_KEY = "a secret of the operator, 32 bytes or more"


class Api:
    """A guard, and requests to it."""

    def __init__(self, *, issuer: dict[str, Any] | None = None, dpop: DPoP | None = None, **settings: Any) -> None:
        self.authority = FakeAuthority(audience=RES)
        self.clock = self.authority.clock
        self.settings = {
            "resource": RES, "dpop": dpop, "transport": self.authority.transport, "clock": self.clock, "audit": "off",
            **settings,
        }  # fmt: skip
        issuers = [] if "resolver" in settings else [Issuer(self.authority.url, **(issuer or {}))]
        self.guard = Guard(*issuers, **self.settings)
        self.bound = self.authority.mint("read", bound_to=KEY)
        self.unbound = self.authority.mint("read")

    def dpop(self, token: str, uri: str = URI) -> list[tuple[bytes, bytes]]:
        proof = KEY.proof(token, "GET", uri, at=self.clock.wall())
        return [(b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())]

    def check(self, pairs: Iterable[tuple[bytes, bytes]], path: str = "/rows", raw: bytes | None = None) -> Decision:
        view = RequestView(method="GET", path=path, raw_path=raw, headers=HeaderList(pairs))
        return self.guard.check(view, all_of("read"))


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


async def answer_all(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def status(app: Any, pairs: list[tuple[bytes, bytes]]) -> int:
    return (await call(app, b"", *pairs, method="GET", path="/rows")).status


# -- a mode that is not enforced


@pytest.mark.parametrize("mode", ["allowed", "required"])
def test_a_mode_of_a_resolved_issuer_needs_a_guard_that_checks_proofs(mode: str):
    def resolve(name: str) -> Issuer:
        return Issuer(name, dpop=mode)

    resolver = IssuerResolver(accepts=lambda name: True, resolve=resolve)
    api = Api(resolver=resolver)
    with pytest.raises(ConfigurationError, match="dpop: the guard checks no proofs"):
        api.check(bearer(api.bound))
    checked = Api(resolver=resolver, dpop=DPoP())
    assert isinstance(checked.check(bearer(checked.bound)), Denied)
    assert isinstance(checked.check(checked.dpop(checked.bound)), Granted)


@pytest.mark.parametrize("mode", ["allowed", "required"])
@pytest.mark.parametrize(
    "protect",
    [
        lambda guard, rules: GuardMiddleware(answer_all, guard=guard, rules=rules),
        lambda guard, rules: WsgiMiddleware(Flask("app"), guard=guard, rules=rules),
        lambda guard, rules: ScopeGuard(Flask("app"), guard, rules=rules),
        lambda guard, rules: McpMiddleware(answer_all, guard=guard, rules=[Tool("*", "read")], routes=rules),
    ],
    ids=["asgi", "wsgi", "flask", "mcp"],
)
def test_a_rule_of_an_adapter_needs_a_guard_that_checks_proofs(protect: Callable[[Guard, Any], object], mode: str):
    rules = [Rule("/rows", all_of("read"), dpop=mode)]
    with pytest.raises(ConfigurationError, match="rule '/rows': dpop: the guard checks no proofs"):
        protect(Api().guard, rules)
    protect(Api().guard, [Rule("/rows", all_of("read"), dpop="off")])
    protect(Api(dpop=DPoP()).guard, rules)


@pytest.mark.anyio
async def test_cached_tokens_need_a_proof_if_the_guard_requires_proofs():
    """The token is known to the cache after requests with the other scheme, which are denied."""
    api = Api(dpop=DPoP(mode="required"), issuer={"dpop": "allowed"})
    app = GuardMiddleware(answer_all, guard=api.guard)
    for _ in range(3):
        assert await status(app, api.dpop(api.unbound)) == 401
        assert await status(app, bearer(api.unbound)) == 401


def test_a_token_that_an_outer_layer_has_checked_still_needs_its_proof():
    api = Api(dpop=DPoP())
    app = Flask("app")
    app.add_url_rule("/rows", view_func=lambda: "rows")
    ScopeGuard(app, api.guard, rules=[Rule("/rows", all_of("read"), dpop="required")])
    vars(app)["wsgi_app"] = WsgiMiddleware(app.wsgi_app, guard=api.guard, rules=[Rule("/rows")])
    client = app.test_client()

    def send(pairs: list[tuple[bytes, bytes]]) -> int:
        headers = {name.decode(): value.decode() for name, value in pairs}
        return client.get("/rows", base_url=RES, headers=headers).status_code

    for _ in range(3):
        assert send(bearer(api.unbound)) == 401
    proven = api.dpop(api.bound)
    assert send(proven) == 200  # both layers check the proof, which is not a replay
    assert send(proven) == 401


@pytest.mark.parametrize("path", ["/x/admin", "/admin"])
def test_a_mode_counts_as_a_difference_between_rules(path: str):
    """A router may see /admin, whose rule differs in its mode only from the one for all paths."""
    rules = Rules([Rule("/admin", all_of("read"), dpop="required"), Rule("/{rest:path}", all_of("read"))])
    routed = RoutedRules(rules, Prefixes(unknown=(MountPoint(),)))
    assert routed.is_plain is False
    found = routed.find("GET", path, path.encode())
    assert found is not None
    assert found.mode == "required"


@pytest.mark.parametrize("path", ["/admin/", "/admin"])
def test_a_final_slash_does_not_bypass_a_mode(path: str):
    """Many frameworks serve both spellings, and only one of them has the rule."""
    rules = Rules([Rule("/admin", all_of("read"), dpop="required"), Rule("/{rest:path}", all_of("read"))])
    found = rules.find("GET", path, path.encode())
    assert found is None or found.mode == "required"
    assert rules.closes(rules.find("GET", "/admin/"))
    same = Rules([Rule("/admin", all_of("read"), dpop="off"), Rule("/{rest:path}", all_of("read"), dpop="off")])
    assert not same.closes(same.find("GET", "/admin/"))


@pytest.mark.parametrize("swap", [False, True])
def test_several_readings_do_not_loosen_the_mode_of_the_guard(*, swap: bool):
    modes = ("allowed", None) if swap else (None, "allowed")
    rules = Rules([Rule("/admin", all_of("read"), dpop=modes[0]), Rule("/{rest:path}", all_of("read"), dpop=modes[1])])
    found = RoutedRules(rules, Prefixes(unknown=(MountPoint(),))).find("GET", "/x/admin", b"/x/admin")
    assert found is not None
    assert found.mode is None  # that of the guard, which may be "required"


@pytest.mark.parametrize("mode", ["allowed", "required"])
@pytest.mark.parametrize("dpop", [None, DPoP(mode="off"), DPoP()], ids=["none", "off", "allowed"])
def test_an_issuer_with_a_mode_of_its_own_takes_proofs(dpop: DPoP | None, mode: str):
    """A setting that refused every holder of a key would be removed again."""
    api = Api(issuer={"dpop": mode}, dpop=dpop)
    assert isinstance(api.check(api.dpop(api.bound)), Granted)
    assert isinstance(api.check(bearer(api.bound)), Denied)
    assert isinstance(api.check(bearer(api.unbound)), Granted if mode == "allowed" else Denied)
    assert isinstance(api.check(api.dpop(api.unbound)), Denied)


@pytest.mark.anyio
async def test_a_rule_with_a_mode_of_its_own_takes_proofs():
    api = Api(rules=[Rule("/rows", all_of("read"), dpop="required")])
    app = GuardMiddleware(answer_all, guard=api.guard)
    assert await status(app, api.dpop(api.bound)) == 200
    assert await status(app, bearer(api.bound)) == 401
    assert await status(app, bearer(api.unbound)) == 401


# -- targets of requests


@pytest.mark.parametrize(
    ("raw", "proven", "reason"),
    [
        (b".evil/rows", "https://api.test.evil/rows", Reason.PROOF_MISMATCH),
        (b":8443/rows", "https://api.test:8443/rows", Reason.PROOF_MISMATCH),
        (b"@evil.test/rows", "https://api.test@evil.test/rows", Reason.PROOF_MISMATCH),
        (b"*", URI, Reason.PROOF_MISMATCH),
        (b"http://[/rows", URI, None),
        (b"http://evil.test/rows?x", URI, None),
        (b"http://evil.test", "https://api.test", None),
        (b"HTTP://[::1/other", URI, Reason.PROOF_MISMATCH),
    ],
)
def test_a_target_without_a_path_does_not_change_the_host(raw: bytes, proven: str, reason: Reason | None):
    api = Api(dpop=DPoP())
    decision = api.check(api.dpop(api.bound, proven), raw=raw)
    if reason is None:
        assert isinstance(decision, Granted)
    else:
        assert isinstance(decision, Denied)
        assert decision.error.reason is reason


@pytest.mark.parametrize("path", ["/\udcff", "/\ud800x"])
def test_a_path_that_is_not_text_is_denied(path: str):
    api = Api(dpop=DPoP())
    assert isinstance(api.check(api.dpop(api.bound), path=path), Denied)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("root", "raw", "uri"),
    [
        ("/a", b"/a/rows", "https://api.test/a/rows"),
        ("/a", b"/rows", "https://api.test/a/rows"),
        ("/a", b"/ab", "https://api.test/a/ab"),  # not below the prefix
        ("/a", b"/a", "https://api.test/a"),
    ],
)
async def test_the_prefix_of_a_server_ends_at_a_slash(root: str, raw: bytes, uri: str):
    api = Api(dpop=DPoP())
    app = GuardMiddleware(answer_all, guard=api.guard)

    async def call_mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": root, "path": raw.decode(), "raw_path": raw}, receive, send)

    assert await status(call_mounted, api.dpop(api.bound, uri)) == 200


def test_the_query_of_an_htu_is_not_logged(caplog: pytest.LogCaptureFixture):
    api = Api(dpop=DPoP())
    assert isinstance(api.check(api.dpop(api.bound, f"https://other.test/?access_token={api.unbound}")), Denied)
    assert "https://other.test/" in caplog.text
    assert api.unbound not in caplog.text


# -- MCP


@pytest.mark.anyio
async def test_an_mcp_server_takes_proofs_for_the_whole_url_and_renews_nonces():
    server = Server()
    guard = server.guard(dpop=DPoP(nonce_keys=[NONCE_KEY]))
    app = server.protect([Tool("*", "read")], guard=guard)
    token = server.authority.mint("read", bound_to=KEY)
    clock = server.authority.clock

    async def below_a_mount(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/api", "path": "/api/mcp", "raw_path": b"/api/mcp"}, receive, send)

    async def send(nonce: str | None) -> tuple[int, str | None]:
        claims = {} if nonce is None else {"nonce": nonce}
        proof = KEY.proof(token, "POST", "https://mcp.test/api/mcp", at=clock.wall(), claims=claims)
        pairs = ((b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode()))
        answer = await call(below_a_mount, tool_call("read"), *pairs)
        given = dict(answer.headers).get(b"dpop-nonce")
        return answer.status, None if given is None else given.decode()

    code, nonce = await send(None)
    assert code == 401
    assert nonce is not None
    assert await send(nonce) == (200, None)
    clock.advance(200)
    code, following = await send(nonce)
    assert code == 200
    assert following is not None
    assert (await send(following))[0] == 200


# -- the memory of used proofs


def test_a_proof_stays_used_when_a_guard_replaces_another():
    api = Api(dpop=DPoP())
    successor = Guard(Issuer(api.authority.url), **api.settings)
    late, early = api.dpop(api.bound), api.dpop(api.bound)
    assert isinstance(api.check(early), Granted)
    take_over(engine_of(successor), engine_of(api.guard))
    assert isinstance(api.check(late), Granted)  # a request that the old one still serves
    api.guard = successor
    for pairs in (early, late):
        decision = api.check(pairs)
        assert isinstance(decision, Denied)
        assert decision.error.reason is Reason.PROOF_USED
    assert isinstance(api.check(api.dpop(api.bound)), Granted)


def test_one_client_with_many_keys_does_not_fill_the_memory():
    api = Api(dpop=DPoP(max_proofs=16, max_proofs_per_key=2))
    keys = [ProofKey() for _ in range(10)]

    def send(key: ProofKey, subject: str) -> Decision:
        token = api.authority.mint("read", subject=subject, bound_to=key)
        proof = key.proof(token, "GET", URI, at=api.clock.wall())
        return api.check([(b"authorization", f"DPoP {token}".encode()), (b"dpop", proof.encode())])

    decisions = [send(key, "mallory") for key in keys for _ in range(2)]
    assert sum(isinstance(decision, Granted) for decision in decisions) == 8  # half of the places
    assert isinstance(decisions[-1], Unavailable)
    for subject in ("alice", "bob", "carol", "dave"):
        assert isinstance(send(KEY, subject) if subject == "alice" else send(ProofKey(), subject), Granted)
    api.clock.advance(72)
    assert isinstance(send(keys[0], "mallory"), Granted)
