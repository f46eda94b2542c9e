"""scopeguard against Django OAuth Toolkit: opaque tokens only, and answers that leave out most of what they may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from peers import Peer, secret_of
from scopeguard import Decision, Denied, Granted, Guard, Issuer, Reason, Unavailable, all_of
from scopeguard.config.introspection import Introspection
from scopeguard.config.validation import Validation

Ask = Callable[..., Decision]

API = "https://api.example/"
READ, WRITE = all_of("read"), all_of("write")
BASIC = {"auth": "client_secret_basic", "client_id": "api:basic", "client_secret": secret_of("api:basic")}
POST = BASIC | {"auth": "client_secret_post"}
WELL_KNOWN = "/.well-known/oauth-authorization-server"


@contextmanager
def introspecting_guard(
    peer: Peer, path: str = "/realm", *, metadata_url: str | None = None, **settings: Any
) -> Iterator[Guard]:
    issuer = Issuer(
        peer.url + path,
        audience=API,
        metadata_url=metadata_url,
        validate=Validation.INTROSPECTION,
        introspection=Introspection(**{**BASIC, **settings}),
    )
    guard = Guard(issuer)
    try:
        yield guard
    finally:
        guard.close()


def expect_refusal(decision: Decision, reason: Reason, status: int = 401) -> None:
    assert isinstance(decision, Denied), decision
    assert (decision.error.reason, decision.response.status) == (reason, status)


def unavailable(decision: Decision, says: str) -> None:
    assert isinstance(decision, Unavailable), decision
    assert decision.response.status == 503
    assert says in str(decision.error)


@pytest.mark.rule("A-01", "I-04", "I-05")
@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post", "bearer"])
@pytest.mark.parametrize("client_auth", ["client_secret_basic", "client_secret_post"])
def test_tokens_are_accepted_by_every_authentication(ask: Ask, oauth_toolkit: Peer, auth: str, client_auth: str):
    """The metadata is where RFC 8414 puts that of an issuer with a path. No ``iss``, ``sub`` or ``token_type``."""
    settings: dict[str, dict[str, Any]] = {
        "client_secret_basic": BASIC,
        "client_secret_post": POST,
        "bearer": {"auth": "bearer", "bearer_token": oauth_toolkit.told["bearer"], "client_id": None,
                   "client_secret": None},
    }  # fmt: skip
    token = oauth_toolkit.token(resource=API, scopes="read write", auth_method=client_auth)
    with introspecting_guard(oauth_toolkit, **settings[auth]) as guard:
        decision = ask(guard, token, READ)
    assert isinstance(decision, Granted), decision
    access = decision.access_token
    assert (access.issuer, access.client_id, access.subject) == (f"{oauth_toolkit.url}/realm", "machine:1", None)
    assert access.scopes == {"read", "write"}
    assert access.audience == (API,)
    assert access.expires_at is not None


@pytest.mark.rule("I-09", "I-22")
def test_unknown_or_revoked_token_is_refused(ask: Ask, oauth_toolkit: Peer):
    token = oauth_toolkit.token(resource=API)
    with introspecting_guard(oauth_toolkit, ttl=0, negative_ttl=0) as guard:
        expect_refusal(ask(guard, "sg-opaque-of-nobody"), Reason.TOKEN_NOT_ACTIVE)
        assert isinstance(ask(guard, token), Granted)
        oauth_toolkit.revoke(token)
        expect_refusal(ask(guard, token), Reason.TOKEN_NOT_ACTIVE)


@pytest.mark.rule("I-11", "I-14")
def test_audience_and_scope_of_a_token_count(ask: Ask, oauth_toolkit: Peer):
    """It names an audience only where the client named a resource."""
    with introspecting_guard(oauth_toolkit) as guard:
        expect_refusal(ask(guard, oauth_toolkit.token(resource=API), WRITE), Reason.INSUFFICIENT_SCOPE, 403)
        expect_refusal(ask(guard, oauth_toolkit.token(resource="https://other.example/")), Reason.WRONG_AUDIENCE)
        expect_refusal(ask(guard, oauth_toolkit.token()), Reason.MISSING_CLAIM)
    with introspecting_guard(oauth_toolkit, require_audience=False) as guard:
        assert isinstance(ask(guard, oauth_toolkit.token(), READ), Granted)
        expect_refusal(ask(guard, oauth_toolkit.token(resource="https://other.example/")), Reason.WRONG_AUDIENCE)


@pytest.mark.rule("I-17")
@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post", "bearer"])
def test_wrong_credentials_of_the_api_are_an_outage_with_the_fix(
    ask: Ask, oauth_toolkit: Peer, caplog: pytest.LogCaptureFixture, auth: str
):
    """It answers 403 with an empty page, not 401."""
    wrong: dict[str, dict[str, Any]] = {
        "client_secret_basic": {"client_secret": "sg-secret-of-somebody-else"},
        "client_secret_post": {"auth": "client_secret_post", "client_secret": "sg-secret-of-somebody-else"},
        "bearer": {"auth": "bearer", "bearer_token": "sg-opaque-of-nobody", "client_id": None, "client_secret": None},
    }
    token = oauth_toolkit.token(resource=API)
    with introspecting_guard(oauth_toolkit, **wrong[auth]) as guard, caplog.at_level(logging.WARNING):
        unavailable(ask(guard, token), "the client of this API is not allowed to introspect")
    assert any("check its rights" in message for message in caplog.messages)


@pytest.mark.rule("I-42")
def test_plain_answer_is_not_taken_for_a_signed_one(ask: Ask, oauth_toolkit: Peer):
    """The server does not support RFC 9701, and always sends JSON."""
    with introspecting_guard(oauth_toolkit, signed=True) as guard:
        unavailable(ask(guard, oauth_toolkit.token(resource=API)), "the answer is not signed")


@pytest.mark.rule("I-37")
def test_error_names_an_authentication_that_the_metadata_do_not_list(ask: Ask, oauth_toolkit: Peer, api_key_pem: str):
    settings: dict[str, Any] = {"auth": "private_key_jwt", "private_key": api_key_pem, "key_algorithm": "ES256"}
    with introspecting_guard(oauth_toolkit, **settings, client_secret=None) as guard:
        says = "lists client_secret_post client_secret_basic but not introspection.auth = 'private_key_jwt'"
        unavailable(ask(guard, oauth_toolkit.token(resource=API)), says)


@pytest.mark.rule("A-04")
def test_metadata_where_no_rfc_looks_for_them_need_a_setting(ask: Ask, oauth_toolkit: Peer):
    """Mounted as its manual shows, it serves them below the mount: neither inserted nor OpenID's."""
    token = oauth_toolkit.token(resource=API)
    with introspecting_guard(oauth_toolkit, "/o") as guard:
        unavailable(ask(guard, token), "set introspection.endpoint or metadata_url")
    with introspecting_guard(oauth_toolkit, "/o", metadata_url=f"{oauth_toolkit.url}/o{WELL_KNOWN}") as guard:
        assert isinstance(ask(guard, token, READ), Granted)
    with introspecting_guard(oauth_toolkit, "/o", endpoint=f"{oauth_toolkit.url}/o/introspect/") as guard:
        assert isinstance(ask(guard, token, READ), Granted)


def test_token_of_many_callers_is_introspected_once(ask: Ask, oauth_toolkit: Peer):
    before = oauth_toolkit.count("/o/introspect/")
    token = oauth_toolkit.token(resource=API)
    with introspecting_guard(oauth_toolkit) as guard:
        for _ in range(5):
            assert isinstance(ask(guard, token, READ), Granted)
    assert oauth_toolkit.count("/o/introspect/") == before + 1
