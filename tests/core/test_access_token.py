"""The public face of an access token: what its text shows, and that it is read-only."""

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

from scopeguard.errors import ConfigurationError
from scopeguard.log_values import fingerprint
from scopeguard.tokens import (
    ANONYMOUS,
    LATE,
    AccessToken,
    Anonymous,
    Unverified,
    access_token,
    access_token_or_none,
    begin_serving,
    build_access_token,
    end_serving,
    freeze_json,
)


@contextmanager
def serve(token: AccessToken | None) -> Iterator[None]:
    """Serve the token as adapters do."""
    before = begin_serving(token)
    try:
        yield
    finally:
        end_serving(before)


def make_token(**changes: Any) -> AccessToken:
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


FIELDS = tuple(field.name for field in dataclasses.fields(AccessToken))


def built_token(claims: dict[str, Any], computed: list[Any] | None = None) -> AccessToken:
    """Return the token of *claims* as a request gets it. *computed* gets the claims whenever fields are computed."""

    def late(members: Any) -> dict[str, Any]:
        if computed is not None:
            computed.append(members)
        return {
            "subject": members.get("sub"), "client_id": "client-1", "issued_at": 7.0, "roles": frozenset(("admin",)),
            "machine": False, "sender_constrained": "cnf" in members,
        }  # fmt: skip

    return build_access_token(
        "https://as.example", ("https://api.example/v1",), frozenset(("read",)), ("read",), 9.0, claims, "abc", late
    )


UNVERIFIED = Unverified(
    header={"kid": "k-secret"}, claims={"sub": "user-1"}, signed=b"signed-part", signature=b"sig", fingerprint="abc"
)

# -- text and logs


@pytest.mark.rule("B-50")
def test_fingerprint_is_the_start_of_a_digest_and_no_part_of_the_token():
    token = "sg-opaque-abcdef0123456789"
    assert fingerprint(token) == hashlib.sha256(token.encode()).hexdigest()[:12]
    assert fingerprint(token) not in token
    assert fingerprint("\ud800") != fingerprint("\ud801")  # No text makes it fail.


@pytest.mark.rule("B-50")
def test_repr_and_str_show_no_claim():
    shown = repr(make_token(claims=freeze_json({"email": "user@example.com", "secret": "x"})))
    assert "user@example.com" not in shown
    assert "secret" not in shown
    assert repr(UNVERIFIED) == "Unverified(fingerprint='abc')"


@pytest.mark.rule("X-78")
def test_a_subject_with_control_characters_is_shown_on_one_line():
    assert "a\\r\\nb\\x1b[31m" in repr(make_token(subject="a\r\nb\x1b[31m"))


# -- fields that are computed when they are first read


def test_late_fields_are_computed_once_and_only_if_one_is_read():
    computed: list[Any] = []
    token = built_token({"sub": "user-1", "roles": ["admin"]}, computed)
    assert (token.issuer, token.granted_scopes, token.expires_at) == ("https://as.example", ("read",), 9.0)
    assert token.claims["roles"] == ("admin",)
    assert not computed
    assert (token.subject, token.client_id, token.issued_at, token.machine) == ("user-1", "client-1", 7.0, False)
    assert token.roles == {"admin"}
    assert token.sender_constrained is False
    assert len(computed) == 1


@pytest.mark.parametrize("first", [*LATE, "claims", "scopes"])
def test_token_with_late_fields_is_a_token_like_any_other(first: str):
    whole = AccessToken(
        issuer="https://as.example", subject="user-1", client_id="client-1", audience=("https://api.example/v1",),
        scopes=frozenset(("read",)), granted_scopes=("read",), expires_at=9.0, issued_at=7.0,
        roles=frozenset(("admin",)), machine=False, claims={"sub": "user-1", "cnf": {}}, fingerprint="abc",
        sender_constrained=True,
    )  # fmt: skip

    def late() -> AccessToken:
        return built_token({"sub": "user-1", "cnf": {}})

    read_first = late()
    getattr(read_first, first)
    for token in (late(), read_first):
        assert type(token) is AccessToken
        assert token == whole
        assert whole == late()
        assert repr(late()) == repr(whole)
        assert token != dataclasses.replace(whole, subject="user-2")
        assert dataclasses.replace(late(), subject="user-2") == dataclasses.replace(whole, subject="user-2")
        assert [getattr(copy.copy(late()), name) for name in FIELDS] == [getattr(whole, name) for name in FIELDS]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(token, first, "user-2")


def test_a_name_that_no_token_has_is_an_attribute_error():
    name = "sub"
    for token in (built_token({}), make_token()):
        assert not hasattr(token, name)
        with pytest.raises(AttributeError, match="'AccessToken' object has no attribute 'sub'"):
            getattr(token, name)
        assert not hasattr(token, "__deepcopy__")
    assert not hasattr(make_token(), "_late")


# -- two types


def test_unverified_token_lacks_what_decisions_read():
    assert set(AccessToken.__mro__) & set(Unverified.__mro__) == {object}
    judged = {field.name for field in dataclasses.fields(AccessToken)} - {"claims", "fingerprint"}
    assert not [name for name in judged if hasattr(UNVERIFIED, name)]


@pytest.mark.rule("G-31")
def test_identity_is_issuer_and_subject():
    here, there = make_token(), make_token(issuer="https://other.example")
    assert here.subject == there.subject
    assert here.identity != there.identity
    assert here.identity == ("https://as.example", "user-1")


def test_access_token_has_the_attributes_of_a_starlette_user():
    assert make_token().is_authenticated
    assert make_token().display_name == "user-1"
    assert make_token(subject=None).display_name == "client-1"
    assert make_token(subject=None, client_id=None).display_name == ""
    assert (ANONYMOUS.is_authenticated, ANONYMOUS.scopes, ANONYMOUS.display_name) == (False, frozenset(), "")
    assert ANONYMOUS.identity is None
    assert AccessToken not in Anonymous.__mro__
    assert Anonymous() == ANONYMOUS


# -- read-only


def find_writable(value: Any) -> bool:
    if isinstance(value, MappingProxyType):
        return any(map(find_writable, value.values()))
    if isinstance(value, tuple):
        return any(map(find_writable, value))
    return isinstance(value, dict | list | set)


def thaw(value: Any) -> Any:
    if isinstance(value, MappingProxyType):
        return {name: thaw(item) for name, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.rule("X-64")
@given(JSON)
def test_frozen_json_is_equal_and_read_only_at_any_depth(value):
    frozen = freeze_json(value)
    assert thaw(frozen) == value
    assert not find_writable(frozen)


@pytest.mark.rule("X-64")
def test_frozen_json_does_not_follow_its_source():
    source: dict[str, Any] = {"groups": ["a"], "realm_access": {"roles": ["b"]}}
    frozen = freeze_json(source)
    source["groups"].append("admin")
    source["realm_access"]["roles"].append("admin")
    source["sub"] = "somebody"
    assert thaw(frozen) == {"groups": ["a"], "realm_access": {"roles": ["b"]}}


@pytest.mark.rule("X-64")
def test_access_token_is_read_only():
    token = make_token()
    for name in ("scopes", "subject", "claims", "anything"):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
            setattr(token, name, frozenset(("admin",)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        del token.claims
    claims: Any = token.claims
    with pytest.raises(TypeError):
        claims["sub"] = "admin"  # What a careless app would write.


@pytest.mark.rule("X-64")
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_claims_are_read_only_at_any_depth(claims):
    token, looked_at = make_token(claims=claims), make_token(claims=claims)
    assert not find_writable(looked_at.claims)
    assert thaw(looked_at.claims) == claims
    assert looked_at.claims is looked_at.claims
    assert token == looked_at == make_token(claims=freeze_json(claims))
    assert not find_writable(token.claims)


def test_read_only_claims_are_not_copied():
    claims = freeze_json({"sub": "user-1"})
    assert make_token(claims=claims).claims is claims


def test_claims_that_were_read_do_not_follow_their_source():
    source: dict[str, Any] = {"groups": ["a"]}
    token = make_token(claims=source)
    assert token.claims["groups"] == ("a",)
    source["groups"].append("admin")
    source["sub"] = "somebody"
    assert thaw(token.claims) == {"groups": ["a"]}


def test_tokens_with_different_claims_are_not_equal():
    assert make_token(claims={"sub": "a"}) != make_token(claims={"sub": "b"})
    assert make_token(claims={"sub": ["a"]}) == make_token(claims={"sub": ["a"]})


@pytest.mark.parametrize("copied", [copy.copy, dataclasses.replace])
@pytest.mark.parametrize("look", [True, False], ids=["claims read", "claims not read"])
def test_copy_of_a_token_is_equal_and_read_only(copied: Callable[[AccessToken], AccessToken], look: bool):
    token = make_token(claims={"sub": "user-1", "groups": ["a"]})
    if look:
        assert token.claims["sub"] == "user-1"
    again = copied(token)
    assert again == token
    assert type(again) is AccessToken
    assert not find_writable(again.claims)


def test_dataclasses_replace_changes_claims():
    token = make_token()
    other = dataclasses.replace(token, subject="user-2", claims={"sub": "user-2", "groups": ["a"]})
    assert (other.subject, other.claims["groups"]) == ("user-2", ("a",))
    assert token.claims["sub"] == "user-1"


@pytest.mark.parametrize("refused", [hash, pickle.dumps, copy.deepcopy, dataclasses.asdict])
def test_hashing_and_pickling_raise_type_error(refused: Callable[[AccessToken], object]):
    """Claims are views of mappings, which have neither a hash nor a pickle. Python 3.12 names the mapping itself."""
    with pytest.raises(TypeError, match=r"mappingproxy|unhashable type: 'dict'"):
        refused(make_token())


def test_access_token_can_be_subclassed():
    class Mine(AccessToken):
        @property
        def is_admin(self) -> bool:
            return "admin" in self.scopes

    token = Mine(**{field.name: getattr(make_token(), field.name) for field in dataclasses.fields(AccessToken)})
    assert not token.is_admin
    assert token.claims["sub"] == "user-1"
    assert dataclasses.replace(token, scopes=frozenset(("admin",)), claims={"groups": ["a"]}).claims["groups"] == ("a",)
    for name in ("claims", "scopes"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(token, name, frozenset(("admin",)))


@pytest.mark.rule("X-64")
def test_concurrent_threads_read_the_same_claims():
    for _ in range(100):
        token = make_token(claims={"sub": "user-1", "groups": [{"name": str(number)} for number in range(20)]})
        together = threading.Barrier(4)

        def look(token: AccessToken = token, together: threading.Barrier = together) -> Any:
            together.wait()
            return token.claims

        with ThreadPoolExecutor(4) as pool:
            seen = [future.result() for future in [pool.submit(look) for _ in range(4)]]
        assert all(claims == token.claims and not find_writable(claims) for claims in seen)
        assert token.claims is token.claims


# -- the token of the request being served


@pytest.mark.rule("H-14")
def test_current_token_is_set_only_while_its_request_is_served():
    outer, inner = make_token(), make_token(subject="user-2")
    assert access_token_or_none() is None
    with serve(outer):
        assert access_token() is outer
        with serve(inner):
            assert access_token_or_none() is inner
        assert access_token() is outer
        with serve(None):
            assert access_token_or_none() is None
        assert access_token() is outer
    assert access_token_or_none() is None


@pytest.mark.rule("H-14")
def test_current_token_is_reset_if_the_app_raises():
    with pytest.raises(ZeroDivisionError), serve(make_token()):
        _ = 1 / 0
    assert access_token_or_none() is None


@pytest.mark.rule("H-14")
def test_current_token_reaches_a_thread_only_with_its_context():
    with ThreadPoolExecutor(1) as pool, serve(token := make_token()):
        assert pool.submit(copy_context().run, access_token).result() is token
        assert pool.submit(access_token_or_none).result() is None


def test_current_token_without_a_request_raises_an_error_with_advice():
    with pytest.raises(ConfigurationError, match=r"guard the route, or use access_token_or_none\(\)"):
        access_token()
    with serve(None), pytest.raises(ConfigurationError, match="public"):
        access_token()
