"""JSON that two parsers could read differently is malformed, with ``orjson`` too."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.core.fast_json import build_parser
from scopeguard.spec.strict_json import MAX_DEPTH, AmbiguousObject, MalformedJSON, is_ambiguous, parse_object

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)

Parse = Callable[[bytes], dict[str, Any]]
PARSERS: dict[str, Parse] = {"strict": parse_object, "orjson": build_parser()}


@pytest.fixture(params=PARSERS)
def parse(request: pytest.FixtureRequest) -> Parse:
    return PARSERS[request.param]


def nested_json(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_json_values_are_parsed_unchanged(value, ascii_only, indent):
    document = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    for parse in PARSERS.values():
        assert parse(document) == value
    assert parse_object(document, mark_ambiguous=True) == value


@given(st.binary() | st.text().map(str.encode) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_only_malformed_json_is_raised(data):
    for mark in (False, True):
        with contextlib.suppress(MalformedJSON):
            assert isinstance(parse_object(data, mark_ambiguous=mark), dict)


@pytest.mark.rule("J-05", "X-21")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param('{"alg":"RS256"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"alg":"RS256"}'.encode("utf-16-le"), id="UTF-16-LE"),
        pytest.param('{"alg":"RS256"}'.encode("utf-32"), id="UTF-32"),
        pytest.param('{"alg":"RS256"}'.encode("utf-8-sig"), id="byte order mark"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"a":"\xe9"}', id="Latin-1"),
        pytest.param(b'{"a":"\xc0\xaf"}', id="overlong slash"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="surrogate in UTF-8"),
        pytest.param(rb'{"a":"\ud800"}', id="lone high surrogate"),
        pytest.param(rb'{"a":"\udc00"}', id="lone low surrogate"),
        pytest.param(rb'{"\ud800":1}', id="lone surrogate in a name"),
        pytest.param(rb'{"a":[{"b":"x\udfff"}]}', id="lone surrogate deep inside"),
    ],
)
def test_text_that_is_not_valid_utf_8_is_refused(parse: Parse, data):
    with pytest.raises(MalformedJSON):
        parse(data)


@pytest.mark.rule("X-21")
def test_pair_of_surrogate_escapes_is_one_character(parse: Parse):
    assert parse(rb'{"a":"\ud83d\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.rule("J-06")
@pytest.mark.parametrize("data", [b"[]", b'"x"', b"null", b"7", b"true", b"", b" ", b"{", b"{}{}", b"{} x", b"{'a':1}"])
def test_document_must_be_exactly_one_object(parse: Parse, data):
    with pytest.raises(MalformedJSON):
        parse(data)


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize(
    "data",
    [b'{"a":', b'{"a":}', b'{"a":[', b'{"a":[,]}', b'{"a":[1,]}', b'{"a":{"b":x}}', b'{"a"}', b'{"a":1,}'],
    ids=repr,
)
def test_object_without_a_value_is_refused(data, mark):
    with pytest.raises(MalformedJSON, match="not JSON"):
        parse_object(data, mark_ambiguous=mark)


@pytest.mark.parametrize("space", [" ", "\t", "\r", "\n", " \n "])
def test_white_space_around_the_object_is_accepted(parse: Parse, space):
    assert parse(f'{space}{{"a":1}}{space}'.encode()) == {"a": 1}


@pytest.mark.rule("J-07", "J-08", "X-20")
@pytest.mark.parametrize(
    "data",
    [
        b'{"alg":"RS256","alg":"none"}',
        b'{"alg":"RS256","alg":"RS256"}',
        rb'{"alg":"RS256","\u0061lg":"none"}',
        b'{"cnf":{"jkt":"a","jkt":"b"}}',
        b'{"a":[1,{"b":[{"c":1,"c":2}]}]}',
    ],
)
def test_a_member_that_occurs_twice_is_refused_at_any_depth(parse: Parse, data):
    with pytest.raises(MalformedJSON, match="twice"):
        parse(data)


@pytest.mark.rule("J-09", "X-20")
def test_repeated_member_marks_its_object_if_requested():
    value = parse_object(b'{"keys":[{"n":"a","n":"b"},{"n":"a"},{"x":[{"y":{"z":1,"z":1}}]},7]}', mark_ambiguous=True)
    assert [is_ambiguous(key) for key in value["keys"]] == [True, False, True, False]
    assert isinstance(value["keys"][0], AmbiguousObject)
    assert not isinstance(value["keys"][2], AmbiguousObject)


@pytest.mark.rule("J-09", "X-20")
def test_repeated_member_at_the_top_is_always_refused():
    with pytest.raises(MalformedJSON, match="twice"):
        parse_object(b'{"keys":[],"keys":[]}', mark_ambiguous=True)


@pytest.mark.rule("X-21")
def test_lone_surrogate_in_a_marked_object_is_refused():
    with pytest.raises(MalformedJSON):
        parse_object(rb'{"keys":[{"a":1,"a":"\ud800"}]}', mark_ambiguous=True)


@pytest.mark.rule("J-57", "X-27")
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 100_000, "1" + "0" * 5000])
@pytest.mark.parametrize("mark", [False, True])
def test_malformed_number_is_refused(number, mark):
    with pytest.raises(MalformedJSON):
        parse_object(b'{"exp":[%s]}' % number.encode(), mark_ambiguous=mark)


@pytest.mark.rule("X-27")
@pytest.mark.parametrize(
    ("text", "number"), [("-0", 0), ("1E+2", 100.0), ("1e-400", 0.0), ("12345678901234567890", 12345678901234567890)]
)
def test_unusual_spelling_of_a_number_is_parsed(parse: Parse, text, number):
    assert parse(b'{"exp":%s}' % text.encode()) == {"exp": number}


@pytest.mark.rule("X-26")
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1000, 200_000])
def test_deep_nesting_is_refused(parse: Parse, depth):
    with pytest.raises(MalformedJSON, match="deep"):
        parse(nested_json(depth))
    with pytest.raises(MalformedJSON):
        parse(b'{"a":' + b'{"a":' * depth)


def test_the_deepest_nesting_that_is_accepted(parse: Parse):
    assert parse(nested_json(MAX_DEPTH))


def test_brackets_in_strings_and_siblings_do_not_count_as_depth(parse: Parse):
    assert parse(json.dumps({"a": "[{" * 100, 'b"[': '\\"[' * 50, "c": [[] for _ in range(100)]}).encode())


def test_the_error_does_not_quote_the_document(parse: Parse):
    with pytest.raises(MalformedJSON) as caught:
        parse(b'{"sub":"somebody@example.com" oops}')
    assert "somebody" not in str(caught.value)
    assert caught.value.__suppress_context__, "the error of the parser, whose attributes hold the document, is shown"
