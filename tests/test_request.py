"""The request as the core sees it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.request import HeaderList, RequestView


@pytest.mark.rule("H-13")
@pytest.mark.parametrize("name", [b"authorization", b"Authorization", b"AUTHORIZATION", b"aUTHORIZATIOn"])
def test_a_header_is_found_whatever_the_case_of_its_name(name):
    assert HeaderList([(b"host", b"x"), (name, b"Bearer x")]).get_all("authorization") == [b"Bearer x"]


@pytest.mark.rule("X-71")
def test_every_line_of_a_header_is_found_in_order():
    headers = HeaderList([(b"authorization", b""), (b"x", b"y"), (b"Authorization", b"b"), (b"authorization", b"b")])
    assert headers.get_all("authorization") == [b"", b"b", b"b"]
    assert headers.get_all("cookie") == []


@pytest.mark.rule("H-13", "X-23")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("coo\u212aie".encode(), id="kelvin sign"),  # which str.lower() makes a "k"
        pytest.param("coo\uff4bie".encode(), id="fullwidth"),
        pytest.param(b"cookie ", id="space behind"),
        pytest.param(b" cookie", id="space before"),
        pytest.param(b"coo_kie", id="underscore"),
        pytest.param(b"cookie\x00", id="NUL"),
        pytest.param(b"coo\xc5kie", id="obs-text"),
    ],
)
def test_no_other_name_is_taken_for_a_header(name):
    assert HeaderList([(name, b"x")]).get_all("cookie") == []


def test_headers_may_be_asked_for_more_than_once_whatever_they_came_in():
    headers = HeaderList(iter([(b"a", b"1"), (b"A", b"2")]))
    assert headers.get_all("a") == headers.get_all("a") == [b"1", b"2"]
    assert HeaderList(((b"a", b"1"),)).get_all("a") == [b"1"]


@pytest.mark.rule("H-13")
@given(st.lists(st.tuples(st.binary(max_size=3) | st.sampled_from([b"ab", b"AB", b"aB"]), st.binary(max_size=3))))
def test_any_bytes_may_be_names_and_values(pairs):
    expected = [value for name, value in pairs if name in (b"ab", b"AB", b"aB", b"Ab")]
    assert HeaderList(pairs).get_all("ab") == expected


def test_a_request_cannot_be_changed():
    view = RequestView(method="GET", path="/", headers=HeaderList([]))
    assert (view.query, view.secure, view.client) == (b"", True, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.method = "POST"  # type: ignore[misc]  # this is the test
