"""The fake authority mints the requested tokens, and fails on request."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest

import scopeguard
from environment import ROOT, plain_environment
from scopeguard import DPoP, HeaderList, InsufficientScope, Introspection, NonceRequired, Reason, RequestView, all_of
from scopeguard.devserver import Client, SigningKey
from scopeguard.flow.effects import Answer
from scopeguard.guard import Decision, Denied, Granted, Guard, Unavailable
from scopeguard.testing import FakeAuthority, FakeClock, ProofKey


def request(token: str) -> RequestView:
    return RequestView(
        method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode("ascii"))])
    )


def guard_of(authority: FakeAuthority) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock)


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    return json.loads(header), json.loads(payload)


# -- minting


def test_a_minted_token_lets_a_request_in(authority):
    decision = guard_of(authority).check(request(authority.mint("read write", subject="alice", client_id="app")))
    assert isinstance(decision, Granted)
    token = decision.access_token
    assert (token.subject, token.client_id, token.issuer) == ("alice", "app", authority.url)
    assert token.granted_scopes == ("read", "write")
    assert token.expires_at == authority.clock.wall() + 3600


def test_a_minted_token_is_as_good_as_one_that_was_issued(authority):
    header, claims = parts(authority.mint("read"))
    assert header["typ"] == "at+jwt"
    assert set(claims) == {"iss", "exp", "aud", "sub", "client_id", "iat", "jti", "scope"}
    assert claims["sub"] == claims["client_id"] == "client"


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"])
def test_each_algorithm_can_be_used(authority, algorithm):
    guard = guard_of(authority)
    assert isinstance(guard.check(request(authority.mint(algorithm=algorithm))), Granted)


def test_the_bearer_header_is_ready_to_be_sent(authority):
    ((name, value),) = authority.bearer("read", subject="alice").items()
    assert name == "Authorization"
    decision = guard_of(authority).check(request(value.removeprefix("Bearer ")), all_of("read"))
    assert isinstance(decision, Granted)


@pytest.mark.rule("T-10")
def test_every_header_and_claim_can_be_replaced_or_removed(authority):
    token = authority.mint(
        ["a", "b"],
        audience=["x", "y"],
        expires_in=-5,
        headers={"typ": None, "kid": "other", "crit": ["x"]},
        claims={"jti": None, "sub": 7, "roles": ["admin"]},
    )
    header, claims = parts(token)
    assert header == {"alg": "ES256", "kid": "other", "crit": ["x"]}
    assert "jti" not in claims
    assert (claims["sub"], claims["roles"], claims["aud"], claims["scope"]) == (7, ["admin"], ["x", "y"], "a b")
    assert claims["exp"] == claims["iat"] - 5


@pytest.mark.rule("T-10")
def test_a_token_without_scope_has_no_scope_claim(authority):
    assert "scope" not in parts(authority.mint())[1]
    assert parts(authority.mint(""))[1]["scope"] == ""


@pytest.mark.rule("T-10")
def test_a_foreign_key_signs_and_is_not_published(authority):
    foreign = SigningKey.generate("ES256")
    decision = guard_of(authority).check(request(authority.mint(key=foreign)))
    assert isinstance(decision, Denied)
    assert decision.error.reason is Reason.UNKNOWN_KEY
    assert foreign.kid not in str(authority.authority.keys.key_set(0))


def test_token_with_too_few_scopes_is_403(authority):
    decision = guard_of(authority).check(request(authority.mint("read")), all_of("write"))
    assert isinstance(decision, Denied)
    assert isinstance(decision.error, InsufficientScope)


# -- tokens that are bound to a key


def test_token_can_be_bound_to_a_key(authority):
    key = ProofKey()
    assert parts(authority.mint("read", bound_to=key))[1]["cnf"] == {"jkt": key.thumbprint}
    assert "cnf" not in parts(authority.mint("read", bound_to=key, claims={"cnf": None}))[1]


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_bound_token_with_its_proof_is_admitted_and_a_stolen_one_is_not(authority, token_format):
    introspection = Introspection(client_id=authority.api.client_id, client_secret=authority.api.secret)
    guard = Guard(
        replace(authority.issuer, validate="auto", introspection=introspection),
        dpop=DPoP(base_url="https://api.test", nonce_keys=["a secret of the operator, 32 bytes or more"]),
        transport=authority.transport,
        clock=authority.clock,
        audit="off",
    )
    key = ProofKey()

    def check(headers: dict[str, str]) -> Decision:
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return guard.check(RequestView(method="GET", path="/rows", headers=HeaderList(pairs)), all_of("read"))

    def send(**overrides: Any) -> Decision:
        what = {"token_format": token_format, "method": "GET", "uri": "https://api.test/rows", **overrides}
        return check(authority.dpop("read", key=key, **what))

    first = send()
    assert isinstance(first, Denied)
    assert isinstance(first.error, NonceRequired)
    assert isinstance(send(nonce=first.error.nonce), Granted)
    assert isinstance(send(nonce=first.error.nonce, method="POST"), Denied)
    stolen = check(authority.bearer("read", bound_to=key, token_format=token_format))
    assert isinstance(stolen, Denied)
    assert stolen.error.reason is Reason.SENDER_CONSTRAINT_UNPROVEN


# -- introspection


def introspect(authority: FakeAuthority, token: str) -> dict[str, Any]:
    form = (("token", token), ("client_id", authority.api.client_id), ("client_secret", authority.api.secret))
    found: dict[str, Any] = json.loads(authority.authority.respond("POST", "/introspect", form=form).body)
    return found


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_minted_token_is_active_until_it_is_revoked(authority, token_format):
    token = authority.mint("read", subject="alice", token_format=token_format)
    assert introspect(authority, token)["sub"] == "alice"
    authority.revoke(token)
    assert introspect(authority, token) == {"active": False}


def test_introspection_reports_foreign_tokens_as_inactive(authority):
    assert introspect(authority, authority.mint(key=SigningKey.generate("ES256"))) == {"active": False}


def test_introspection_follows_the_clock(authority):
    token = authority.mint(expires_in=60, claims={"nbf": authority.clock.wall() + 10})
    assert introspect(authority, token) == {"active": False}
    authority.clock.advance(10)
    assert introspect(authority, token)["active"] is True
    authority.clock.advance(50)
    assert introspect(authority, token) == {"active": False}


# -- what happens to it


def test_keys_rotate_with_and_without_overlap(authority):
    guard = guard_of(authority)
    old = authority.mint()
    authority.rotate()
    assert isinstance(guard.check(request(old)), Granted)
    assert isinstance(guard.check(request(authority.mint())), Granted)
    authority.rotate(overlap=False)
    fresh = guard_of(authority)
    assert isinstance(fresh.check(request(old)), Denied)
    assert isinstance(fresh.check(request(authority.mint())), Granted)


def test_an_overlap_can_be_given_in_seconds(authority):
    old = authority.mint(expires_in=1000)
    authority.rotate(overlap=100)
    authority.clock.advance(99)
    assert isinstance(guard_of(authority).check(request(old)), Granted)
    authority.clock.advance(1)
    assert isinstance(guard_of(authority).check(request(old)), Denied)


@pytest.mark.parametrize("kind", ["unreachable", "unavailable"])
def test_an_outage_is_503_and_ends_with_its_block(authority, kind):
    token = authority.mint()
    with authority.outage(kind):
        assert isinstance(guard_of(authority).check(request(token)), Unavailable)
    assert isinstance(guard_of(authority).check(request(token)), Granted)


def test_an_outage_can_be_a_switch(authority):
    switch = authority.outage()
    assert isinstance(guard_of(authority).check(request(authority.mint())), Unavailable)
    switch.off()
    assert isinstance(guard_of(authority).check(request(authority.mint())), Granted)


def test_requests_are_counted_by_endpoint(authority):
    guard = guard_of(authority)
    for _ in range(3):
        guard.check(request(authority.mint()))
    assert authority.requests == [
        "https://as.test/.well-known/oauth-authorization-server",
        "https://as.test/jwks",
    ]
    assert authority.transport.count("jwks") == authority.transport.count("metadata") == 1
    assert authority.transport.count("token") == 0


def test_a_reset_ends_everything(authority):
    authority.outage()
    authority.slow(9)
    authority.mode("jwks", "garbage")
    guard_of(authority).check(request(authority.mint()))
    authority.reset()
    assert authority.requests == []
    assert isinstance(guard_of(authority).check(request(authority.mint())), Granted)


def test_an_answer_can_be_written_word_for_word(authority):
    keys = json.dumps({"keys": [SigningKey.generate("ES256").public_jwk()]}).encode()
    with authority.mode("jwks", Answer(200, keys, {"content-type": "application/json"})):
        assert isinstance(guard_of(authority).check(request(authority.mint())), Denied)


def test_settings_are_those_of_the_authority():
    robot = Client(client_id="robot", secret="sg-secret-robot")
    clock = FakeClock(1_800_000_000)
    authority = FakeAuthority(
        "https://other.test/t1", "urn:api", scopes=["read"], clients=[robot], subjects=["alice"], clock=clock
    )
    assert (authority.url, authority.audience) == ("https://other.test/t1", "urn:api")
    assert authority.issuer.url == "https://other.test/t1"
    assert authority.issuer.audiences == frozenset({"urn:api"})
    assert set(authority.authority.registry.clients) == {"client", "api", "robot"}
    assert parts(authority.mint())[1]["iat"] == 1_800_000_000


# -- clients under test


def test_an_httpx_client_can_fetch_a_token():
    authority = FakeAuthority(scopes=["read"])
    with httpx.Client(transport=authority.httpx_transport()) as client:
        answer = client.post(
            f"{authority.url}/token",
            data={"grant_type": "client_credentials", "scope": "read"},
            auth=("client", authority.client.secret),
        )
        assert answer.json()["scope"] == "read"
        assert client.get(f"{authority.url}/jwks").json()["keys"]
        with authority.outage(), pytest.raises(httpx.ConnectError):
            client.get(f"{authority.url}/jwks")
        with pytest.raises(httpx.ConnectError):
            client.get("https://elsewhere.test/")
    assert isinstance(guard_of(authority).check(request(answer.json()["access_token"])), Granted)


@pytest.mark.anyio
async def test_async_httpx_client_can_fetch_a_token(anyio_backend):
    authority = FakeAuthority()
    async with httpx.AsyncClient(transport=authority.httpx_transport()) as client:
        assert (await client.get(f"{authority.url}/jwks")).status_code == 200


# -- not by accident


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.rule("X-88")
def test_use_of_the_fake_is_logged_once(no_leaks):
    said = run(
        """
        from scopeguard.testing import FakeAuthority
        FakeAuthority()
        FakeAuthority().mint("read")
        """
    )
    assert said.count("FOR TESTS ONLY") == 1
    no_leaks(said)


@pytest.mark.rule("X-88")
def test_use_is_reported_as_a_warning_of_scopeguard_testing(monkeypatch, caplog):
    monkeypatch.setattr("scopeguard.testing.fake._warned", threading.Event())
    FakeAuthority()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("scopeguard.testing", logging.WARNING)


@pytest.mark.rule("X-88")
def test_public_package_does_not_import_scopeguard_testing():
    loaded = run(
        """
        import sys
        import scopeguard, scopeguard.guard, scopeguard.asgi, scopeguard.wsgi
        print(*[name for name in sys.modules if name.startswith(("scopeguard.testing", "scopeguard.devserver"))])
        """
    )
    assert loaded.strip() == ""
    assert not {"FakeAuthority", "Authority", "testing", "devserver"} & set(scopeguard.__all__)
    with pytest.raises(ImportError):
        exec("from scopeguard import FakeAuthority")


def test_the_names_of_the_package_are_all_there():
    from scopeguard import testing

    assert dir(testing) == sorted(testing.__all__)
    assert all(getattr(testing, name) is not None for name in testing.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = testing.nothing
