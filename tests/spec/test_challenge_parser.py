"""The parser of ``WWW-Authenticate``, against the grammar of RFC 9110 section 11.6.1."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.challenge_parser import (
    MAX_CHALLENGES,
    MAX_CHARACTERS,
    MAX_PARAMETERS,
    ParsedChallenge,
    parse_challenges,
)

Plain = tuple[str, str | None, dict[str, str]]


def as_tuples(*values: str) -> list[Plain]:
    return [(c.scheme, c.token68, dict(c.parameters)) for c in parse_challenges(values)]


WELL_FORMED: list[tuple[str, list[Plain]]] = [
    ("", []),
    (" , ,\t,", []),
    ("Bearer", [("bearer", None, {})]),
    ("bEARER realm=x", [("bearer", None, {"realm": "x"})]),
    ('Bearer realm="x"', [("bearer", None, {"realm": "x"})]),
    ('Bearer realm=""', [("bearer", None, {"realm": ""})]),
    ('Bearer   realm="x"', [("bearer", None, {"realm": "x"})]),
    ('Bearer REALM="x", Error = invalid_token', [("bearer", None, {"realm": "x", "error": "invalid_token"})]),
    ("Bearer a \t=\t b", [("bearer", None, {"a": "b"})]),
    ("Bearer , a=b", [("bearer", None, {"a": "b"})]),
    (", ,Bearer a=b,, ,c=d ,", [("bearer", None, {"a": "b", "c": "d"})]),
    # Inside a quoted string, a comma, a scheme and an equals sign are text.
    (
        'Basic realm="x, Bearer", Bearer error=invalid_token',
        [("basic", None, {"realm": "x, Bearer"}), ("bearer", None, {"error": "invalid_token"})],
    ),
    ('Basic realm="a=b, c=\\"d\\", \\\\"', [("basic", None, {"realm": 'a=b, c="d", \\'})]),
    ('Basic realm="\\x\\,"', [("basic", None, {"realm": "x,"})]),
    ('Basic realm="tab\tä\u20ac"', [("basic", None, {"realm": "tab\tä\u20ac"})]),
    # RFC 9110 section 11.6.1, the example with two challenges in a line
    (
        'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
        [
            ("basic", None, {"realm": "simple"}),
            ("newauth", None, {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
        ],
    ),
    # token68
    ("Negotiate YWJj", [("negotiate", "YWJj", {})]),
    ("Negotiate YWJj==", [("negotiate", "YWJj==", {})]),
    ("Negotiate a-._~+/z=, Basic realm=x", [("negotiate", "a-._~+/z=", {}), ("basic", None, {"realm": "x"})]),
    ("Negotiate, NTLM , Bearer", [("negotiate", None, {}), ("ntlm", None, {}), ("bearer", None, {})]),
    # Unknown schemes, with every character that a token may have.
    ("!#$%&'*+-.^_`|~09azAZ x=y", [("!#$%&'*+-.^_`|~09azaz", None, {"x": "y"})]),
]

MALFORMED: list[tuple[str, list[Plain]]] = [
    ("a=b", []),
    ("=", []),
    ('"Bearer"', []),
    ("Bearer\ta=b", []),
    ("Bearer a=b c=d", []),
    ("Bearer a=b Basic realm=x", []),
    ("Bearer a=", [("bearer", "a=", {})]),  # A token68.
    ("Bearer a=, b=c", []),  # A challenge with a token68 has no parameters.
    ("Bearer YWJj, error=invalid_token, Basic realm=x", [("basic", None, {"realm": "x"})]),
    ('Bearer a="b"c, Basic realm=x', [("basic", None, {"realm": "x"})]),
    ('Bearer a=b, c="d\x00e", f=g, Basic realm=x', [("basic", None, {"realm": "x"})]),
    ('Bearer a=b, c="d\\\x7f", Basic realm=x', [("basic", None, {"realm": "x"})]),
    ("Bearer a=b, (), c=d, Basic realm=x", [("basic", None, {"realm": "x"})]),
    ('Basic realm=x, Bearer a="no end, error=invalid_token, Digest x=y', [("basic", None, {"realm": "x"})]),
    ('Basic realm=x, Bearer a="no end\\', [("basic", None, {"realm": "x"})]),
    # A name occurs once in a challenge, compared without case; the next challenge may use it again.
    ("Bearer error=invalid_token, ERROR=insufficient_scope", []),
    ("Bearer a=b, a=c, a=d, Basic a=b", [("basic", None, {"a": "b"})]),
    ("Bearer a=b\r\nX-Injected: 1", []),
    ("Bearer ä=b", []),
    ("B\u212aarer a=b", []),
]


@pytest.mark.rule("C-39")
@pytest.mark.parametrize("value, expected", WELL_FORMED)
def test_challenges_that_the_grammar_allows_are_parsed(value: str, expected: list[Plain]) -> None:
    assert as_tuples(value) == expected


@pytest.mark.rule("C-39")
@pytest.mark.parametrize("value, expected", MALFORMED)
def test_malformed_challenges_are_skipped_and_the_others_kept(value: str, expected: list[Plain]) -> None:
    assert as_tuples(value) == expected


@pytest.mark.rule("C-39")
def test_field_lines_are_parsed_in_order_and_separately() -> None:
    assert as_tuples("Basic realm=x", 'Bearer a="open', "b=c, DPoP algs=ES256") == [
        ("basic", None, {"realm": "x"}),
        ("dpop", None, {"algs": "ES256"}),
    ]


@pytest.mark.rule("C-39")
def test_length_and_numbers_are_bounded() -> None:
    assert as_tuples("Bearer a=" + "b" * (MAX_CHARACTERS - 9)) != []
    assert as_tuples("Bearer a=" + "b" * (MAX_CHARACTERS - 8), "Basic realm=x") == [("basic", None, {"realm": "x"})]
    assert len(as_tuples(*["A, B, C"] * MAX_CHALLENGES)) == MAX_CHALLENGES
    many = ",".join(f"p{number}=v" for number in range(MAX_PARAMETERS))
    assert len(as_tuples(f"Bearer {many}")[0][2]) == MAX_PARAMETERS
    assert as_tuples(f"Bearer {many},one=more") == []


def test_parsed_challenge_is_read_only_and_its_repr_hides_the_values() -> None:
    (challenge,) = parse_challenges(["Bearer error=invalid_token"])
    assert repr(challenge) == "ParsedChallenge(scheme='bearer')"
    with pytest.raises(TypeError):
        cast("dict[str, str]", challenge.parameters)["error"] = "x"
    assert ParsedChallenge("bearer").parameters == {}


@pytest.mark.rule("C-39")
@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from('" ,=\\\tabB'), max_size=60), max_size=4))
def test_any_text_is_parsed_without_an_error_into_valid_challenges(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme
        assert challenge.scheme == challenge.scheme.lower()
        assert not (challenge.token68 is not None and challenge.parameters)


WORDS = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=8)
TEXTS = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="\x7f") | st.just("\t"), max_size=12
)


def write_challenge(scheme: str, parameters: dict[str, str], quote: bool) -> str:
    def write_value(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if quote or not text.isalnum() else text

    return f"{scheme} " + ", ".join(f"{name}={write_value(value)}" for name, value in parameters.items())


@pytest.mark.rule("C-39")
@given(
    st.lists(
        st.tuples(
            WORDS, st.dictionaries(WORDS.map(str.lower), TEXTS.filter(str.isascii) | WORDS, min_size=1, max_size=4)
        ),
        max_size=4,
    ),
    st.booleans(),
    st.booleans(),
)
def test_challenges_written_by_the_grammar_are_parsed_back(
    challenges: list[tuple[str, dict[str, str]]], quote: bool, one_line: bool
) -> None:
    lines = [write_challenge(scheme, parameters, quote) for scheme, parameters in challenges]
    values = [", ".join(lines)] if one_line else lines
    assert as_tuples(*values) == [(scheme.lower(), None, parameters) for scheme, parameters in challenges]


@pytest.mark.rule("C-39")
@given(TEXTS)
def test_any_text_is_the_same_after_quoting_and_parsing(text: str) -> None:
    assert as_tuples(write_challenge("Bearer", {"realm": text}, True) + ", Basic a=b") == [
        ("bearer", None, {"realm": text}),
        ("basic", None, {"a": "b"}),
    ]
