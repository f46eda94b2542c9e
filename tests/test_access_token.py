"""What an access token shows, to whom, and that nobody can write into it."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.access_token import (
    ANONYMOUS,
    AccessToken,
    Anonymous,
    Unverified,
    current_access_token,
    current_access_token_or_none,
    fingerprint,
    frozen_json,
    serving,
)
from scopeguard.errors import ConfigurationError


def access_token(**changes: Any) -> AccessToken:
    values: dict[str, Any] = {
        "issuer": "https://as.example",
        "subject": "user-1",
        "client_id": "client-1",
        "audience": ("https://api.example/v1",),
        "scopes": frozenset(("read",)),
        "granted_scopes": ("read",),
        "expires_at": 1_800_000_300.0,
        "claims": frozen_json({"sub": "user-1", "email": "user@example.com"}),
    }
    return AccessToken(**{**values, **changes})


UNVERIFIED = Unverified(
    header={"kid": "k-secret"}, claims={"sub": "user-1"}, signed=b"signed-part", signature=b"sig", fingerprint="abc"
)

# -- traces


@pytest.mark.rule("B-50")
def test_a_fingerprint_is_the_beginning_of_a_digest_and_no_part_of_the_token():
    token = "sg-opaque-abcdef0123456789"
    assert fingerprint(token) == hashlib.sha256(token.encode()).hexdigest()[:12]
    assert fingerprint(token) not in token
    assert fingerprint("\ud800") != fingerprint("\ud801")  # and no text breaks it


@pytest.mark.rule("B-50")
def test_no_claim_shows_in_how_a_token_presents_itself():
    shown = repr(access_token(claims=frozen_json({"email": "user@example.com", "secret": "x"})))
    assert "user@example.com" not in shown
    assert "secret" not in shown
    assert repr(UNVERIFIED) == "Unverified(fingerprint='abc')"


@pytest.mark.rule("X-78")
def test_a_subject_with_control_characters_is_shown_on_one_line():
    assert "a\\r\\nb\\x1b[31m" in repr(access_token(subject="a\r\nb\x1b[31m"))


# -- two types


def test_nothing_that_decides_can_take_an_unverified_token_for_a_judged_one():
    assert set(AccessToken.__mro__) & set(Unverified.__mro__) == {object}
    judged = {field.name for field in dataclasses.fields(AccessToken)} - {"claims", "fingerprint"}
    assert not [name for name in judged if hasattr(UNVERIFIED, name)]


@pytest.mark.rule("G-31")
def test_who_it_is_takes_the_issuer_and_the_subject():
    here, there = access_token(), access_token(issuer="https://other.example")
    assert here.subject == there.subject
    assert here.identity != there.identity
    assert here.identity == ("https://as.example", "user-1")


def test_the_face_that_starlette_expects_of_a_user():
    assert access_token().is_authenticated
    assert access_token().display_name == "user-1"
    assert access_token(subject=None).display_name == "client-1"
    assert access_token(subject=None, client_id=None).display_name == ""
    assert (ANONYMOUS.is_authenticated, ANONYMOUS.scopes, ANONYMOUS.display_name) == (False, frozenset(), "")
    assert ANONYMOUS.identity is None
    assert AccessToken not in Anonymous.__mro__
    assert Anonymous() == ANONYMOUS


# -- read-only


def writable(value: Any) -> bool:
    if isinstance(value, MappingProxyType):
        return any(map(writable, value.values()))
    if isinstance(value, tuple):
        return any(map(writable, value))
    return isinstance(value, dict | list | set)


def thawed(value: Any) -> Any:
    if isinstance(value, MappingProxyType):
        return {name: thawed(item) for name, item in value.items()}
    return [thawed(item) for item in value] if isinstance(value, tuple) else value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.rule("X-64")
@given(JSON)
def test_frozen_json_says_the_same_and_cannot_be_written_at_any_depth(value):
    frozen = frozen_json(value)
    assert thawed(frozen) == value
    assert not writable(frozen)


@pytest.mark.rule("X-64")
def test_what_was_frozen_does_not_follow_its_source():
    source: dict[str, Any] = {"groups": ["a"], "realm_access": {"roles": ["b"]}}
    frozen = frozen_json(source)
    source["groups"].append("admin")
    source["realm_access"]["roles"].append("admin")
    source["sub"] = "somebody"
    assert thawed(frozen) == {"groups": ["a"], "realm_access": {"roles": ["b"]}}


@pytest.mark.rule("X-64")
def test_an_access_token_cannot_be_changed():
    token = access_token()
    for name in ("scopes", "subject", "claims", "anything"):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
            setattr(token, name, frozenset(("admin",)))
    with pytest.raises(TypeError):
        token.claims["sub"] = "admin"  # type: ignore[index]  # what a careless app would write


# -- the token of the request being served


@pytest.mark.rule("H-14")
def test_the_current_token_is_there_while_its_request_is_served_and_not_after():
    outer, inner = access_token(), access_token(subject="user-2")
    assert current_access_token_or_none() is None
    with serving(outer):
        assert current_access_token() is outer
        with serving(inner):
            assert current_access_token_or_none() is inner
        assert current_access_token() is outer
        with serving(None):
            assert current_access_token_or_none() is None
        assert current_access_token() is outer
    assert current_access_token_or_none() is None


@pytest.mark.rule("H-14")
def test_the_current_token_goes_when_the_app_raises():
    with pytest.raises(ZeroDivisionError), serving(access_token()):
        _ = 1 / 0
    assert current_access_token_or_none() is None


@pytest.mark.rule("H-14")
def test_the_current_token_follows_the_context_into_a_thread_and_nothing_else_does():
    with ThreadPoolExecutor(1) as pool, serving(token := access_token()):
        assert pool.submit(copy_context().run, current_access_token).result() is token
        assert pool.submit(current_access_token_or_none).result() is None


def test_asking_for_a_token_where_none_is_says_what_to_do():
    with pytest.raises(ConfigurationError, match=r"guard the route, or use current_access_token_or_none\(\)"):
        current_access_token()
    with serving(None), pytest.raises(ConfigurationError, match="public"):
        current_access_token()
