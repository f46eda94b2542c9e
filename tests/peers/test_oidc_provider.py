"""scopeguard against oidc-provider, a certified authorization server: its tokens, its keys, its answers."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from doors import asgi_app
from peers import API_KEY_ID, Peer, secret_of
from scopeguard import (
    Decision,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Issuer,
    Reason,
    RequestView,
    Rule,
    Unavailable,
    all_of,
)
from scopeguard.asgi import GuardMiddleware
from scopeguard.config.introspection import Introspection
from scopeguard.config.validation import Validation
from scopeguard.testing import FakeClock

Ask = Callable[..., Decision]

AUTO, INTROSPECTION = Validation.AUTO, Validation.INTROSPECTION
OPAQUE = "https://api.example/opaque"
READ, WRITE = all_of("read"), all_of("write")


def introspect_by_basic(**more: Any) -> Introspection:
    return Introspection(client_id="api:basic", client_secret=secret_of("api:basic"), **more)


@contextmanager
def open_guard(issuer: Issuer, clock: FakeClock | None = None) -> Iterator[Guard]:
    """A guard with everything real, but the clock where a test brings one."""
    guard = Guard(issuer, clock=clock)
    try:
        yield guard
    finally:
        guard.close()


def introspecting_guard(
    peer: Peer,
    validate: Validation = INTROSPECTION,
    clock: FakeClock | None = None,
    audience: str = OPAQUE,
    path: str = "",
    **more: Any,
) -> Any:
    """A guard that introspects as ``api:basic`` does, or as *more* says."""
    settings = Introspection(**more) if "auth" in more else introspect_by_basic(**more)
    return open_guard(Issuer(peer.url + path, audience=audience, validate=validate, introspection=settings), clock)


def expect_accepted(decision: Decision, peer: Peer, client_id: str = "machine:1", scopes: str = "read") -> None:
    assert isinstance(decision, Granted), decision
    token = decision.access_token
    assert (token.issuer, token.client_id) == (peer.url, client_id)
    assert token.scopes == frozenset(scopes.split())


def expect_refusal(decision: Decision, reason: Reason, status: int = 401) -> None:
    assert isinstance(decision, Denied), decision
    assert (decision.error.reason, decision.response.status) == (reason, status)


def unavailable(decision: Decision, says: str) -> None:
    assert isinstance(decision, Unavailable), decision
    assert decision.response.status == 503
    assert says in str(decision.error)


class TestJWTs:
    @pytest.mark.rule("A-04", "J-37")
    @pytest.mark.parametrize("algorithm", ["rs256", "ps256", "es256", "eddsa", "ed25519"])
    @pytest.mark.parametrize("auth_method", ["client_secret_basic", "client_secret_post"])
    def test_access_tokens_of_every_algorithm_are_accepted(
        self, ask: Ask, oidc_provider: Peer, algorithm: str, auth_method: str
    ):
        """The published keys name no algorithm; "EdDSA" and "Ed25519" are one key under two names."""
        resource = f"https://api.example/{algorithm}"
        token = oidc_provider.token(resource=resource, auth_method=auth_method, scopes="read write")
        assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
        assert jwt.get_unverified_header(token)["alg"].lower() == algorithm
        with open_guard(Issuer(oidc_provider.url, audience=resource, typ="at+jwt")) as guard:
            client = "machine:1" if auth_method == "client_secret_basic" else "machine-2"
            expect_accepted(ask(guard, token, READ), oidc_provider, client, "read write")

    def test_keys_are_found_below_an_issuer_with_a_path(self, ask: Ask, oidc_provider: Peer):
        """Both places of the inserted form answer 404 there; the appended OpenID one has the document."""
        tenant = f"{oidc_provider.url}/tenant"
        resource = "https://api.example/es256"
        answer = httpx.post(
            f"{tenant}/token",
            data={"grant_type": "client_credentials", "scope": "read", "resource": resource,
                  "client_id": "machine-2", "client_secret": secret_of("machine-2")},
            trust_env=False,
        )  # fmt: skip
        with open_guard(Issuer(tenant, audience=resource)) as guard:
            decision = ask(guard, answer.json()["access_token"], READ)
        assert isinstance(decision, Granted)
        assert decision.access_token.issuer == tenant

    def test_a_token_for_another_api_is_refused(self, ask: Ask, oidc_provider: Peer):
        token = oidc_provider.token(resource="https://other.example/rs256")
        with open_guard(Issuer(oidc_provider.url, audience="https://api.example/rs256")) as guard:
            expect_refusal(ask(guard, token), Reason.WRONG_AUDIENCE)

    def test_a_token_without_the_scope_is_refused(self, ask: Ask, oidc_provider: Peer):
        token = oidc_provider.token(resource="https://api.example/rs256", scopes="read")
        with open_guard(Issuer(oidc_provider.url, audience="https://api.example/rs256")) as guard:
            decision = ask(guard, token, WRITE)
            expect_refusal(decision, Reason.INSUFFICIENT_SCOPE, 403)
            assert isinstance(decision, Denied)
            assert 'scope="write"' in dict(decision.response.headers)["www-authenticate"]

    def test_a_changed_token_is_refused(self, ask: Ask, oidc_provider: Peer):
        head, payload, signature = oidc_provider.token(resource="https://api.example/rs256").split(".")
        changed = f"{head}.{payload}.{signature[:-6]}AAAAA{signature[-1]}"
        with open_guard(Issuer(oidc_provider.url, audience="https://api.example/rs256")) as guard:
            expect_refusal(ask(guard, changed), Reason.BAD_SIGNATURE)

    @pytest.mark.rule("I-15")
    @pytest.mark.parametrize("resource", ["https://api.example/es256", OPAQUE])
    def test_token_bound_to_a_key_is_not_a_bearer_token(self, ask: Ask, oidc_provider: Peer, resource: str):
        token = bound_token(oidc_provider, resource)
        with introspecting_guard(oidc_provider, AUTO, audience=resource) as guard:
            decision = ask(guard, token)
            assert isinstance(decision, Denied)
            assert decision.response.status == 401
            assert decision.error.reason is Reason.SENDER_CONSTRAINT_UNPROVEN


def bound_token(peer: Peer, resource: str) -> str:
    """An access token with ``cnf``, by a DPoP proof (RFC 9449 section 5)."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    url = f"{peer.url}/token"
    claims = {"htm": "POST", "htu": url, "jti": str(uuid.uuid4()), "iat": int(FakeClock().wall())}
    proof = jwt.encode(claims, key, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": public})
    answer = httpx.post(
        url,
        headers={"dpop": proof},
        data={"grant_type": "client_credentials", "scope": "read", "resource": resource,
              "client_id": "machine-2", "client_secret": secret_of("machine-2")},
        trust_env=False,
    )  # fmt: skip
    assert answer.json()["token_type"] == "DPoP"
    return str(answer.json()["access_token"])


class TestIntrospection:
    @pytest.mark.rule("I-01", "I-02", "I-04", "I-05", "I-32", "I-33", "I-34", "I-35")
    @pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
    def test_opaque_tokens_are_accepted_by_every_authentication(
        self, ask: Ask, oidc_provider: Peer, api_key_pem: str, auth: str
    ):
        """Twice each, without a cache: an assertion is used once, and the server keeps count of them."""
        client: dict[str, Any] = {
            "client_secret_basic": {"client_id": "api:basic", "client_secret": secret_of("api:basic")},
            "client_secret_post": {"client_id": "api-post", "client_secret": secret_of("api-post")},
            "private_key_jwt": {
                "client_id": "api-key",
                "private_key": api_key_pem,
                "key_algorithm": "ES256",
                "key_id": API_KEY_ID,
            },
        }[auth]
        token = oidc_provider.token(resource=OPAQUE, scopes="read write")
        with introspecting_guard(oidc_provider, AUTO, auth=auth, ttl=0, **client) as guard:
            for _ in range(2):
                decision = ask(guard, token, READ)
                expect_accepted(decision, oidc_provider, scopes="read write")
            assert isinstance(decision, Granted)
            assert decision.access_token.subject is None  # a machine's token has no sub here

    @pytest.mark.rule("I-38", "I-39", "I-40", "I-41")
    def test_signed_answers_are_accepted(self, ask: Ask, oidc_provider: Peer):
        token = oidc_provider.token(resource=OPAQUE)
        client: dict[str, Any] = {"client_id": "api-signed", "client_secret": secret_of("api-signed")}
        with introspecting_guard(oidc_provider, auth="client_secret_basic", signed=True, **client) as guard:
            expect_accepted(ask(guard, token, READ), oidc_provider)
            expect_refusal(ask(guard, "sg-opaque-of-nobody"), Reason.TOKEN_NOT_ACTIVE)

    @pytest.mark.rule("I-25")
    def test_jwts_are_verified_locally_and_other_tokens_are_introspected_once(self, ask: Ask, oidc_provider: Peer):
        peer, path = oidc_provider, "/token/introspection"
        before = peer.count(path)
        issuer = Issuer(
            peer.url, audience=[OPAQUE, "https://api.example/rs256"], validate=AUTO, introspection=introspect_by_basic()
        )
        with open_guard(issuer) as guard:
            expect_accepted(ask(guard, peer.token(resource="https://api.example/rs256")), peer)
            assert peer.count(path) == before
            token = peer.token(resource=OPAQUE)
            for _ in range(3):
                expect_accepted(ask(guard, token), peer)
            assert peer.count(path) == before + 1

    @pytest.mark.rule("I-09")
    def test_token_that_the_server_does_not_know_is_refused(self, ask: Ask, oidc_provider: Peer):
        with introspecting_guard(oidc_provider) as guard:
            expect_refusal(ask(guard, "sg-opaque-of-nobody"), Reason.TOKEN_NOT_ACTIVE)

    @pytest.mark.rule("I-11")
    def test_the_audience_of_its_answer_counts(self, ask: Ask, oidc_provider: Peer):
        with introspecting_guard(oidc_provider) as guard:
            expect_refusal(ask(guard, oidc_provider.token(resource="https://other.example/")), Reason.WRONG_AUDIENCE)
            expect_refusal(ask(guard, oidc_provider.token()), Reason.MISSING_CLAIM)  # the request named no resource
        with introspecting_guard(oidc_provider, require_audience=False) as guard:
            expect_accepted(ask(guard, oidc_provider.token()), oidc_provider)
            expect_refusal(ask(guard, oidc_provider.token(resource="https://other.example/")), Reason.WRONG_AUDIENCE)

    @pytest.mark.rule("I-14")
    def test_the_scope_of_its_answer_counts(self, ask: Ask, oidc_provider: Peer):
        with introspecting_guard(oidc_provider) as guard:
            expect_refusal(ask(guard, oidc_provider.token(resource=OPAQUE), WRITE), Reason.INSUFFICIENT_SCOPE, 403)

    @pytest.mark.rule("I-22")
    def test_a_revoked_token_is_refused_at_once_without_a_cache(self, ask: Ask, oidc_provider: Peer):
        token = oidc_provider.token(resource=OPAQUE)
        with introspecting_guard(oidc_provider, ttl=0, negative_ttl=0) as guard:
            expect_accepted(ask(guard, token), oidc_provider)
            oidc_provider.revoke(token)
            expect_refusal(ask(guard, token), Reason.TOKEN_NOT_ACTIVE)

    @pytest.mark.rule("I-22")
    def test_a_revoked_token_is_refused_when_its_answer_is_old(self, ask: Ask, oidc_provider: Peer):
        clock = FakeClock()
        token = oidc_provider.token(resource=OPAQUE)
        with introspecting_guard(oidc_provider, clock=clock, ttl=20) as guard:
            expect_accepted(ask(guard, token), oidc_provider)
            oidc_provider.revoke(token)
            clock.advance(19)
            expect_accepted(ask(guard, token), oidc_provider)
            clock.advance(2)
            expect_refusal(ask(guard, token), Reason.TOKEN_NOT_ACTIVE)

    def test_jwt_that_the_server_does_not_introspect_is_an_outage_with_the_fix(
        self, ask: Ask, oidc_provider: Peer, caplog: pytest.LogCaptureFixture
    ):
        """It answers 400 ``unsupported_token_type``. The token may be a good one: 401 would be a lie."""
        token = oidc_provider.token(resource="https://api.example/rs256")
        with (
            introspecting_guard(oidc_provider, audience="https://api.example/rs256") as guard,
            caplog.at_level(logging.WARNING),
        ):
            unavailable(ask(guard, token), 'set validate = "auto"')
        assert any('validate = "auto"' in message for message in caplog.messages)

    @pytest.mark.rule("I-18")
    def test_tokens_that_the_server_does_not_introspect_do_not_affect_others(self, ask: Ask, oidc_provider: Peer):
        """A stranger can make up as many as they like: here, encrypted ones, and malformed ones behind a space."""
        clock = FakeClock()
        token = oidc_provider.token(resource=OPAQUE)
        with introspecting_guard(oidc_provider, AUTO, clock=clock) as guard:
            for number in range(5):
                unavailable(
                    ask(guard, f"eyJhbGciOiJkaXIifQ..aaaa.bb{number}b.cccc"), "the server does not answer about such"
                )
                malformed = ask(guard, f"IHsiYWxnIjoibm9uZSJ9.bb{number}b.cccc")
                expect_refusal(malformed, Reason.MALFORMED_TOKEN)  # the server is not asked about it
            expect_accepted(ask(guard, token), oidc_provider)

    @pytest.mark.rule("I-17")
    def test_wrong_secret_of_the_api_is_an_outage_and_not_a_denial(
        self, ask: Ask, oidc_provider: Peer, caplog: pytest.LogCaptureFixture
    ):
        token = oidc_provider.token(resource=OPAQUE)
        wrong: dict[str, Any] = {"client_id": "api:basic", "client_secret": "sg-secret-of-somebody-else"}
        with (
            introspecting_guard(oidc_provider, auth="client_secret_basic", **wrong) as guard,
            caplog.at_level(logging.WARNING),
        ):
            unavailable(ask(guard, token), "the server refuses the credentials of this API")
        assert any("check client_id" in message for message in caplog.messages)

    @pytest.mark.rule("I-37")
    def test_error_names_an_authentication_that_the_metadata_do_not_list(self, ask: Ask, oidc_provider: Peer):
        token = oidc_provider.token(resource=OPAQUE)
        post: dict[str, Any] = {"client_id": "api-post", "client_secret": secret_of("api-post")}
        with introspecting_guard(oidc_provider, path="/tenant", auth="client_secret_post", **post) as guard:
            unavailable(ask(guard, token), "but not introspection.auth = 'client_secret_post'")
        with introspecting_guard(oidc_provider, path="/tenant") as guard:
            expect_refusal(ask(guard, "sg-opaque-of-nobody"), Reason.TOKEN_NOT_ACTIVE)


class TestTheWholeWay:
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    @pytest.mark.anyio
    # The middleware looks for a disconnect while it waits for the authority, and refuses the request with its body
    # unread. httpx feeds the body from a generator, and trio warns of a generator that is left.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_a_client_reaches_an_api_and_gets_a_new_token_when_its_own_is_revoked(self, oidc_provider: Peer):
        issuer = Issuer(
            oidc_provider.url,
            audience=OPAQUE,
            validate=AUTO,
            introspection=introspect_by_basic(ttl=0, negative_ttl=0),
        )
        guard = Guard(issuer)
        app = GuardMiddleware(asgi_app, guard=guard, rules=[Rule("/both", READ)])
        auth = oidc_provider.client(resource=OPAQUE)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(auth=auth, transport=transport, base_url="https://api.example") as client:
            answer = await client.get("/both")
            assert (answer.status_code, answer.json()["client"]) == (200, "machine:1")
            first = (await auth.atoken()).access_token
            await anyio.to_thread.run_sync(oidc_provider.revoke, first)
            assert (await client.get("/both")).status_code == 200
            assert (await auth.atoken()).access_token != first
        await guard.aclose()


def _view(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode())]))


class TestWhatHappensToAuthorities:
    @pytest.mark.rule("J-20", "A-16")
    @pytest.mark.parametrize("colour", ["blocking", "asyncio", "trio"])
    def test_keys_are_rotated_under_load_without_one_false_refusal(self, own_oidc_provider: Peer, colour: str):
        """Four callers, each with tokens signed by the key of that moment, while two rotations happen."""
        peer = own_oidc_provider
        resource = "https://api.example/es256"
        decisions: list[Decision] = []
        ready = threading.Barrier(5, timeout=30)

        def tokens(batch: int) -> list[str]:
            return [peer.token(resource=resource) for _ in range(batch)]

        def caller(guard: Guard) -> None:
            held = tokens(1)
            for _ in range(3):
                ready.wait()
                for _ in range(5):
                    held += tokens(1)
                    for token in held:
                        if colour == "blocking":
                            decisions.append(guard.check(_view(token), READ))
                        else:
                            decisions.append(anyio.run(partial(guard.acheck, _view(token), READ), backend=colour))

        with open_guard(Issuer(peer.url, audience=resource)) as guard, ThreadPoolExecutor(4) as callers:
            loads = [callers.submit(caller, guard) for _ in range(4)]
            ready.wait()
            for _ in range(2):
                ready.wait()
                peer.tell("rotate")
            for load in loads:
                load.result()
        tokens_seen = {decision.access_token.claims["jti"] for decision in decisions if isinstance(decision, Granted)}
        assert len(tokens_seen) == 4 * 16
        assert {type(decision) for decision in decisions} == {Granted}

    @pytest.mark.rule("A-18")
    def test_tokens_of_a_withdrawn_key_are_refused_when_the_keys_are_old(self, ask: Ask, own_oidc_provider: Peer):
        peer, clock, resource = own_oidc_provider, FakeClock(), "https://api.example/es256"
        token = peer.token(resource=resource)
        with open_guard(Issuer(peer.url, audience=resource, leeway=300), clock) as guard:
            expect_accepted(ask(guard, token), peer)
            peer.tell("rotate")
            peer.tell("retire")
            expect_accepted(ask(guard, peer.token(resource=resource)), peer)  # an unknown key: the set is read again
            expect_refusal(ask(guard, token), Reason.UNKNOWN_KEY)

    @pytest.mark.rule("A-17", "A-22", "I-18")
    def test_dead_authority_is_an_outage_for_tokens_that_need_introspection(self, ask: Ask, own_oidc_provider: Peer):
        peer, resource = own_oidc_provider, "https://api.example/rs256"
        signed = peer.token(resource=resource)
        opaque = peer.token(resource=OPAQUE)
        issuer = Issuer(peer.url, audience=[resource, OPAQUE], validate=AUTO, introspection=introspect_by_basic(ttl=0))
        with open_guard(issuer) as guard, open_guard(issuer) as cold:
            expect_accepted(ask(guard, signed), peer)
            expect_accepted(ask(guard, opaque), peer)
            peer.kill()
            expect_accepted(ask(guard, signed), peer)
            unavailable(ask(guard, opaque), "authority_unreachable")
            unavailable(ask(cold, signed), "authority_unreachable")
            peer.start()
            expect_accepted(ask(guard, signed), peer)
            expect_accepted(ask(guard, peer.token(resource=OPAQUE)), peer)
            expect_refusal(ask(guard, opaque), Reason.TOKEN_NOT_ACTIVE)  # it forgot what it held in memory

    @pytest.mark.rule("I-18")
    def test_dead_authority_is_paused_and_used_again_when_it_is_back(self, ask: Ask, own_oidc_provider: Peer):
        peer, clock = own_oidc_provider, FakeClock()
        token = peer.token(resource=OPAQUE)
        with introspecting_guard(peer, clock=clock, retries=0, ttl=0) as guard:
            expect_accepted(ask(guard, token), peer)
            peer.kill()
            for _ in range(3):
                unavailable(ask(guard, token), "authority_unreachable")
            decision = ask(guard, token)
            unavailable(decision, "authority_backing_off")
            assert isinstance(decision, Unavailable)
            assert "retry-after" in dict(decision.response.headers)
            peer.start()
            unavailable(ask(guard, token), "authority_backing_off")
            clock.advance(1)
            expect_accepted(ask(guard, peer.token(resource=OPAQUE)), peer)
