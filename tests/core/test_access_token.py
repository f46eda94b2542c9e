"""What an access token shows, to whom, and that nobody can write into it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    begin_serving,
    current_access_token,
    current_access_token_or_none,
    end_serving,
    fingerprint,
    freeze_json,
)
from scopeguard.errors import ConfigurationError


@contextmanager
def serving(token: AccessToken | None) -> Iterator[None]:
    """As adapters do it."""
    before = begin_serving(token)
    try:
        yield
    finally:
        end_serving(before)


def access_token(**changes: Any) -> AccessToken:
    values: dict[str, Any] = {
        "issuer": "https://as.example",
        "subject": "user-1",
        "client_id": "client-1",
        "audience": ("https://api.example/v1",),
        "scopes": frozenset(("read",)),
        "granted_scopes": ("read",),
        "expires_at": 1_800_000_300.0,
        "claims": freeze_json({"sub": "user-1", "email": "user@example.com"}),
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
    shown = repr(access_token(claims=freeze_json({"email": "user@example.com", "secret": "x"})))
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
    frozen = freeze_json(value)
    assert thawed(frozen) == value
    assert not writable(frozen)


@pytest.mark.rule("X-64")
def test_what_was_frozen_does_not_follow_its_source():
    source: dict[str, Any] = {"groups": ["a"], "realm_access": {"roles": ["b"]}}
    frozen = freeze_json(source)
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
    with pytest.raises(dataclasses.FrozenInstanceError):
        del token.claims
    claims: Any = token.claims
    with pytest.raises(TypeError):
        claims["sub"] = "admin"  # what a careless app would write


@pytest.mark.rule("X-64")
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_claims_cannot_be_written_at_any_depth_whenever_they_were_frozen(claims):
    token, looked_at = access_token(claims=claims), access_token(claims=claims)
    assert not writable(looked_at.claims)
    assert thawed(looked_at.claims) == claims
    assert looked_at.claims is looked_at.claims
    assert token == looked_at == access_token(claims=freeze_json(claims))
    assert not writable(token.claims)


def test_claims_that_are_read_only_are_left_as_they_are():
    claims = freeze_json({"sub": "user-1"})
    assert access_token(claims=claims).claims is claims


def test_claims_that_were_looked_at_do_not_follow_their_source():
    source: dict[str, Any] = {"groups": ["a"]}
    token = access_token(claims=source)
    assert token.claims["groups"] == ("a",)
    source["groups"].append("admin")
    source["sub"] = "somebody"
    assert thawed(token.claims) == {"groups": ["a"]}


def test_two_tokens_with_other_claims_are_not_equal():
    assert access_token(claims={"sub": "a"}) != access_token(claims={"sub": "b"})
    assert access_token(claims={"sub": ["a"]}) == access_token(claims={"sub": ["a"]})


@pytest.mark.parametrize("copied", [copy.copy, dataclasses.replace])
@pytest.mark.parametrize("look", [True, False], ids=["looked at", "not looked at"])
def test_a_token_can_be_copied_and_the_copy_is_as_read_only(copied: Callable[[AccessToken], AccessToken], look: bool):
    token = access_token(claims={"sub": "user-1", "groups": ["a"]})
    if look:
        assert token.claims["sub"] == "user-1"
    again = copied(token)
    assert again == token
    assert type(again) is AccessToken
    assert not writable(again.claims)


def test_a_token_can_be_replaced_with_other_claims():
    token = access_token()
    other = dataclasses.replace(token, subject="user-2", claims={"sub": "user-2", "groups": ["a"]})
    assert (other.subject, other.claims["groups"]) == ("user-2", ("a",))
    assert token.claims["sub"] == "user-1"


@pytest.mark.parametrize("refused", [hash, pickle.dumps, copy.deepcopy, dataclasses.asdict])
def test_what_read_only_claims_do_not_take_is_said_and_not_done_by_halves(refused: Callable[[AccessToken], object]):
    """Claims are views of mappings, which have neither a hash nor a pickle. Python 3.12 names the mapping itself."""
    with pytest.raises(TypeError, match=r"mappingproxy|unhashable type: 'dict'"):
        refused(access_token())


def test_a_class_may_inherit_from_it():
    class Mine(AccessToken):
        @property
        def is_admin(self) -> bool:
            return "admin" in self.scopes

    token = Mine(**{field.name: getattr(access_token(), field.name) for field in dataclasses.fields(AccessToken)})
    assert not token.is_admin
    assert token.claims["sub"] == "user-1"
    assert dataclasses.replace(token, scopes=frozenset(("admin",)), claims={"groups": ["a"]}).claims["groups"] == ("a",)
    for name in ("claims", "scopes"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(token, name, frozenset(("admin",)))


@pytest.mark.rule("X-64")
def test_threads_that_look_at_the_claims_at_once_see_the_same():
    for _ in range(100):
        token = access_token(claims={"sub": "user-1", "groups": [{"name": str(number)} for number in range(20)]})
        together = threading.Barrier(4)

        def look(token: AccessToken = token, together: threading.Barrier = together) -> Any:
            together.wait()
            return token.claims

        with ThreadPoolExecutor(4) as pool:
            seen = [future.result() for future in [pool.submit(look) for _ in range(4)]]
        assert all(claims == token.claims and not writable(claims) for claims in seen)
        assert token.claims is token.claims


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
