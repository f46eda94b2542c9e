"""The token-info answers of Google and GitLab, converted to those of RFC 7662."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.tokeninfo import MalformedInfo, is_refusal, read, read_gitlab

NOW = 1_000.0


def info(**members: Any) -> dict[str, Any]:
    return read(json.dumps(members).encode(), NOW)


def test_current_names_are_read_and_strings_converted():
    assert info(aud="a", azp="b", sub="1", scope="x y", exp="2000", expires_in="3", email_verified="true") == {
        "active": True,
        "aud": "a",
        "azp": "b",
        "sub": "1",
        "scope": "x y",
        "exp": 2000,
        "email_verified": True,
    }


def test_the_older_names_are_read_too():
    told = info(audience="a", issued_to="b", user_id="1", verified_email=False, email="e", expires_in=60)
    assert told == {
        "active": True,
        "aud": "a",
        "azp": "b",
        "sub": "1",
        "email": "e",
        "email_verified": False,
        "exp": 1060,
    }


def test_unknown_members_are_dropped():
    assert "iss" not in info(iss="https://as.example", active=False, exp="2000")


@pytest.mark.parametrize("seconds", [None, "", "x", "1.5", "-1", True, 1.5, [1], "9" * 16, "\u0661"])
def test_answer_without_an_expiry_is_malformed(seconds: Any):
    with pytest.raises(MalformedInfo, match="neither exp nor expires_in"):
        info(aud="a", exp=seconds, expires_in=seconds)


NO_OBJECTS = [b"", b"{", b"[]", b"null", b'{"exp": 1, "exp": 1}', b'"invalid_token"', b"\xff"]


@pytest.mark.parametrize("body", NO_OBJECTS)
def test_body_that_is_not_an_object_is_malformed(body: bytes):
    assert not is_refusal(body)
    for reading in (read, read_gitlab):
        with pytest.raises(MalformedInfo, match="the answer is"):
            reading(body, NOW)


@given(st.binary(max_size=60))
def test_any_other_body_is_malformed(body: bytes):
    assert not is_refusal(body)
    with pytest.raises(MalformedInfo):
        read(body, NOW)


def test_email_verified_may_have_any_value():
    assert info(exp=1, email_verified=["x"])["email_verified"] == ["x"]
    assert info(exp=1, email_verified="false")["email_verified"] is False


@pytest.mark.parametrize(
    ("members", "refused"),
    [
        ({"error": "invalid_token"}, True),
        ({"error_description": "Invalid Value"}, True),
        ({"error": "invalid_request"}, False),
        ({}, False),
    ],
)
def test_only_a_refusal_of_the_token_means_inactive(members: dict[str, str], refused: bool):
    assert is_refusal(json.dumps(members).encode()) is refused


# -- GitLab's


def gitlab(**members: Any) -> dict[str, Any]:
    return read_gitlab(json.dumps(members).encode(), NOW)


def test_gitlab_answer_is_converted():
    told = gitlab(resource_owner_id=1, scope=["api"], expires_in=60, application={"uid": "app"}, created_at=900)
    assert told == {"active": True, "scope": ["api"], "exp": 1060, "client_id": "app", "sub": "1"}


def test_gitlab_answer_may_lack_expiry_owner_and_application():
    nothing = {"active": True, "scope": []}
    assert gitlab(scope=[], expires_in=None, resource_owner_id=None, application=None) == nothing
    assert gitlab(scope=[], resource_owner_id=True, application={"uid": 7}) == nothing
    assert gitlab(scope=[], application={}) == nothing


@pytest.mark.parametrize("seconds", ["", "x", "1.5", -1, True, 1.5, [1]])
def test_gitlab_answer_with_a_malformed_expiry_is_malformed(seconds: Any):
    with pytest.raises(MalformedInfo, match="expires_in"):
        gitlab(scope=[], expires_in=seconds)


@given(st.binary(max_size=60))
def test_gitlab_body_that_is_not_an_object_is_malformed(body: bytes):
    with pytest.raises(MalformedInfo):
        read_gitlab(body, NOW)
