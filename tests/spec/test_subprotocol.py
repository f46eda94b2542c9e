"""A token among the subprotocols that a websocket client offers."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.errors import InvalidRequest
from scopeguard.reasons import Reason
from scopeguard.spec.credentials import OPAQUE
from scopeguard.spec.subprotocol import Subprotocols, parse_subprotocols, token_from_subprotocols

PREFIX = "base64url.bearer.authorization.k8s.io."


def kubernetes(token: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(token).decode().rstrip("=")


@pytest.mark.parametrize(
    ("values", "token", "others", "marker"),
    [
        (["bearer, abc.def"], "abc.def", (), "bearer"),
        (["Bearer,abc.def"], "abc.def", (), "Bearer"),
        (["bearer", "abc.def"], "abc.def", (), "bearer"),  # Two fields form one list.
        (["chat, bearer, abc, v2"], "abc", ("chat", "v2"), "bearer"),
        ([" ,bearer ,, abc , "], "abc", (), "bearer"),
        ([kubernetes(b"abc.def")], "abc.def", (), None),
        (["channel.k8s.io, " + kubernetes(b"a/b+c==")], "a/b+c==", ("channel.k8s.io",), None),
        (["chat, v2"], None, ("chat", "v2"), None),
        (["chat, token, abc, authorization"], None, ("chat", "token", "abc", "authorization"), None),
        ([""], None, (), None),
        ([], None, (), None),
    ],
)
def test_token_is_found_and_removed_from_the_offered_subprotocols(
    values: list[str], token: str | None, others: tuple[str, ...], marker: str | None
):
    fields = [value.encode() for value in values]
    assert token_from_subprotocols(fields, 100) == token
    found = parse_subprotocols(fields)
    assert (found.others, found.marker) == (others, marker)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("bearer", Reason.EMPTY_CREDENTIALS),
        ("chat, bearer", Reason.EMPTY_CREDENTIALS),
        (PREFIX, Reason.EMPTY_CREDENTIALS),
        ("bearer, a b", Reason.MALFORMED_CREDENTIALS),
        ("bearer, \u00e9", Reason.MALFORMED_CREDENTIALS),
        (PREFIX + "YWJj=", Reason.MALFORMED_CREDENTIALS),  # Padded.
        (PREFIX + "YWJ", Reason.MALFORMED_CREDENTIALS),  # Unused bits are not zero.
        (PREFIX + "Y", Reason.MALFORMED_CREDENTIALS),
        (PREFIX + "!!!!", Reason.MALFORMED_CREDENTIALS),
        (kubernetes(b"a b"), Reason.MALFORMED_CREDENTIALS),
        (kubernetes(b"a\x00b"), Reason.MALFORMED_CREDENTIALS),
        ("bearer, " + "a" * 101, Reason.TOKEN_TOO_LARGE),
        (kubernetes(b"a" * 101), Reason.TOKEN_TOO_LARGE),
        (kubernetes(b"a" * 1001), Reason.TOKEN_TOO_LARGE),
        ("bearer, a, bearer, a", Reason.SEVERAL_METHODS),
        (f"bearer, a, {kubernetes(b'a')}", Reason.SEVERAL_METHODS),
        (f"{kubernetes(b'a')}, {kubernetes(b'a')}", Reason.SEVERAL_METHODS),
    ],
)
def test_anything_else_is_refused(value: str, reason: Reason):
    with pytest.raises(InvalidRequest) as refused:
        token_from_subprotocols([value.encode("latin-1")], 100)
    assert refused.value.reason is reason


def test_an_opaque_token_may_have_more_characters():
    assert token_from_subprotocols([kubernetes(b"00D!a").encode()], 100, OPAQUE) == "00D!a"
    assert token_from_subprotocols([b"bearer, 00D!a"], 100, OPAQUE) == "00D!a"
    with pytest.raises(InvalidRequest):
        token_from_subprotocols([b"bearer, 00D!a"], 100)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_no_token_is_left_among_the_others(values: list[bytes]):
    found = parse_subprotocols(values)
    assert isinstance(found, Subprotocols)
    again = parse_subprotocols([", ".join(found.others).encode("latin-1")])
    assert (again.encoded, again.plain, again.others) == ((), (), found.others)
    try:
        token_from_subprotocols(values, 100)
    except InvalidRequest:
        pass
