"""The places in a request that may hold a token, and every malformed variant of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.errors import AccessDenied, InvalidRequest, MissingCredentials
from scopeguard.reasons import Reason
from scopeguard.request import HeaderList
from scopeguard.spec.credentials import (
    OPAQUE,
    check_token,
    declared_length,
    has_access_token,
    is_token,
    may_carry_form,
    token_from_authorization,
    token_from_form,
    token_from_parameters,
    without_access_token,
)

T = "sg-opaque-1._~+/z=="
LIMIT = 100

IR = InvalidRequest
E401 = MissingCredentials


def from_header(*values: bytes, limit: int = LIMIT) -> str | None:
    return token_from_authorization(values, limit)


def from_query(query: bytes, limit: int = LIMIT, parameters: int = 10) -> str | None:
    return token_from_parameters(query, max_bytes=limit, max_parameters=parameters, source="query")


def from_form(body: bytes, limit: int = LIMIT, parameters: int = 10) -> str | None:
    return token_from_form(body, max_bytes=limit, max_parameters=parameters)


def refusal(call: object, kind: type[AccessDenied] = IR) -> Reason:
    assert callable(call)
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "sg-opaque" not in str(caught.value)
    return caught.value.reason


# -- the Authorization field


@pytest.mark.rule("B-01", "B-02", "B-03", "B-06", "B-07")
@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", "abc"),
        (b"bearer abc", "abc"),
        (b"BEARER abc", "abc"),
        (b"bEaReR abc", "abc"),
        (b"Bearer   abc", "abc"),
        (b" Bearer abc ", "abc"),
        (b"\t Bearer abc \t", "abc"),
        (b"Bearer abc==", "abc=="),
        (b"Bearer a=", "a="),
        (b"Bearer -._~+/09azAZ", "-._~+/09azAZ"),
        (b"Bearer Bearer", "Bearer"),
    ],
    ids=ascii,
)
def test_token_after_the_scheme_is_found(value, token):
    assert from_header(value) == token


@pytest.mark.rule("B-11")
def test_request_without_the_field_has_no_token_and_no_error():
    assert from_header() is None


MALFORMED = Reason.MALFORMED_CREDENTIALS
EMPTY = Reason.EMPTY_CREDENTIALS


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(b"Bearer\tabc", MALFORMED, marks=pytest.mark.rule("B-04")),
        pytest.param(b"Bearer \tabc", MALFORMED, marks=pytest.mark.rule("B-04")),
        pytest.param(b"Bearer\xa0abc", MALFORMED, marks=pytest.mark.rule("B-04")),
        pytest.param(b"Bearer\xc2\xa0abc", MALFORMED, marks=pytest.mark.rule("B-04")),
        pytest.param(b"Bearer\x0babc", MALFORMED, marks=pytest.mark.rule("B-04")),
        pytest.param(b"Bearer/abc", MALFORMED, marks=pytest.mark.rule("B-04")),
        pytest.param(b"Bearer a b", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer a,b", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b'Bearer "a"', MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer a:b", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer a b==", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer <a>", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer a\\", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer a=b", MALFORMED, marks=pytest.mark.rule("B-06")),
        pytest.param(b"Bearer =abc", MALFORMED, marks=pytest.mark.rule("B-06")),
        pytest.param(b"Bearer =", MALFORMED, marks=pytest.mark.rule("B-06")),
        pytest.param(b"Bearer a= =", MALFORMED, marks=pytest.mark.rule("B-06")),
        pytest.param(b"Bearer", EMPTY, marks=pytest.mark.rule("B-08")),
        pytest.param(b"Bearer ", EMPTY, marks=pytest.mark.rule("B-08")),
        pytest.param(b"  bearer \t", EMPTY, marks=pytest.mark.rule("B-08")),
        pytest.param(b'Bearer token="abc"', MALFORMED, marks=pytest.mark.rule("B-60")),
        pytest.param(b"Bearer access_token=abc", MALFORMED, marks=pytest.mark.rule("B-60")),
        pytest.param(b"Bearer: abc", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer,abc", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer=abc", MALFORMED, marks=pytest.mark.rule("B-05")),
        pytest.param(b"Bearer abc\x00", MALFORMED, marks=pytest.mark.rule("X-22")),
        pytest.param(b"Bearer\x00abc", MALFORMED, marks=pytest.mark.rule("X-22")),
        pytest.param(b"Bearer abc\r\nX-Injected: 1", MALFORMED, marks=pytest.mark.rule("X-22")),
        pytest.param(b"Bearer abc\n", MALFORMED, marks=pytest.mark.rule("X-22", "X-24")),
        pytest.param(b"Bearer abc\r", MALFORMED, marks=pytest.mark.rule("X-22")),
        pytest.param(b"Bearer\nabc", MALFORMED, marks=pytest.mark.rule("X-22")),
        pytest.param(b"Bearer t\xe9", MALFORMED, marks=pytest.mark.rule("X-23", "H-11")),
        pytest.param("Bearer t\u00e9".encode(), MALFORMED, marks=pytest.mark.rule("X-23")),
        pytest.param("Bearer \u212a".encode(), MALFORMED, marks=pytest.mark.rule("X-23")),
        pytest.param("Bearer \uff41".encode(), MALFORMED, marks=pytest.mark.rule("X-23")),
        pytest.param(b"Bearer a%2Eb", MALFORMED, marks=pytest.mark.rule("X-30")),
    ],
    ids=ascii,
)
def test_a_bearer_field_that_cannot_be_read_is_an_invalid_request(value, reason):
    assert refusal(lambda: from_header(value)) is reason


@pytest.mark.rule("B-09", "B-10", "X-23")
@pytest.mark.parametrize(
    "value",
    [
        b"Basic dTpw", b"Digest username=x", b"DPoP abc", b"GNAP abc", b"Negotiate", b"Bearerabc", b"BearerX abc",
        b"Bear abc", b"Bearer. abc", b"Bearer- abc", b"Bearer+abc", b"XBearer abc", b"abc", b"", b"   ",
        b"Token bearer abc", b"Basic bearer abc", b"B\xe9arer abc", b"\xef\xbb\xbfBearer abc",
        "\uff22earer abc".encode(),
        "Bearer abc".replace("r", "\u0280").encode(), b'"Bearer" abc', b"B earer abc",
    ],
    ids=ascii,
)  # fmt: skip
def test_another_scheme_is_not_a_credential(value):
    assert refusal(lambda: from_header(value), E401) is Reason.UNSUPPORTED_SCHEME


REPEATED = Reason.REPEATED_AUTHORIZATION


@pytest.mark.rule("B-12", "X-71")
@pytest.mark.parametrize(
    "values",
    [
        (b"Bearer abc", b"Bearer abc"),
        (b"Bearer abc", b"Bearer def"),
        (b"", b"Bearer abc"),
        (b"Bearer abc", b""),
        (b"Basic dTpw", b"Bearer abc"),
        (b"Bearer abc", b"Basic dTpw"),
        (b"Basic dTpw", b"Basic dTpw"),
        (b"", b"", b""),
    ],
    ids=ascii,
)
def test_field_sent_twice_is_refused_for_any_values(values):
    assert refusal(lambda: from_header(*values)) is REPEATED
    mixed = list(zip((b"authorization", b"Authorization", b"AUTHORIZATION"), values, strict=False))
    assert refusal(lambda: token_from_authorization(HeaderList(mixed).get_all("authorization"), LIMIT)) is REPEATED


@pytest.mark.rule("B-12", "X-71")
@pytest.mark.parametrize(
    "value",
    [
        b"Bearer abc, Bearer abc", b"Bearer abc,Bearer def", b"Basic dTpw, Bearer abc", b"Basic dTpw,Bearer abc",
        b"Basic dTpw,\t bEARER abc", b", Bearer abc", b",Bearer abc", b"Bearer abc,", b"Bearer abc, Basic dTpw",
        b"Basic dTpw, Bearer", b"Bearer, Bearer abc", b'Digest a="b", Bearer\tabc', b",,bearer abc",
    ],
    ids=ascii,
)  # fmt: skip
def test_fields_merged_by_a_server_are_refused(value):
    assert refusal(lambda: from_header(value)) in (REPEATED, MALFORMED)


@pytest.mark.rule("X-25")
def test_oversized_token_is_refused_without_decoding_it():
    assert from_header(b"Bearer " + b"a" * LIMIT) == "a" * LIMIT
    assert refusal(lambda: from_header(b"Bearer " + b"a" * (LIMIT + 1))) is Reason.TOKEN_TOO_LARGE
    assert refusal(lambda: from_header(b"Bearer " + b"\xff" * (LIMIT + 1))) is Reason.TOKEN_TOO_LARGE
    assert refusal(lambda: from_query(b"access_token=" + b"a" * (LIMIT + 1))) is Reason.TOKEN_TOO_LARGE
    assert from_query(b"access_token=" + b"%61" * LIMIT) == "a" * LIMIT
    assert from_form(b"access_token=" + b"a" * LIMIT) == "a" * LIMIT
    assert refusal(lambda: check_token(b"", LIMIT, "header")) is EMPTY


# RFC 9110 section 11.2 and RFC 6750 section 2.1, written independently of the parser.
CREDENTIALS = re.compile(rb"[ \t]*[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)[ \t]*\Z")
NEARLY = st.lists(
    st.sampled_from(
        [b"Bearer", b"bearer", b"Basic", b" ", b"\t", b",", b"=", b"==", b"abc", b"A.b-c", b'"', b"\n", b"\r", b"\x00",
         b"\xa0", b"\xe9", b"%2E", b"access_token=", "\u212a".encode(), "\uff22".encode()]
    )
    | st.binary(max_size=2),
    max_size=6,
).map(b"".join)  # fmt: skip


@pytest.mark.rule("X-33", "B-05", "B-10")
@given(st.lists(NEARLY | st.binary(max_size=30), max_size=2))
def test_any_field_is_a_token_of_the_grammar_or_is_refused(values):
    expected = CREDENTIALS.match(values[0]) if len(values) == 1 else None
    try:
        token = from_header(*values)
    except (InvalidRequest, MissingCredentials):
        assert values
        assert expected is None
    else:
        assert token == (expected[1].decode() if expected else None)
        assert values == [] or expected


# -- opaque tokens: RFC 6749 appendix A.12, without the characters that are ambiguous in a field

SALESFORCE = "00D000000000001!AQcAQH0dMHZfz972Szmpkb58urFRkgeBGsxL_QJWwYMfAbUeeG7c1E6.LYUfiDUkWe6H34r1AAwOR8B8fLEz6n0"
VISIBLE = [chr(code) for code in range(0x21, 0x7F)]


def opaque_header(value: bytes) -> str | None:
    return token_from_authorization([value], LIMIT, OPAQUE)


@pytest.mark.rule("B-05")
@pytest.mark.parametrize("character", VISIBLE)
def test_opaque_token_has_any_visible_character_without_a_meaning_in_the_field(character: str):
    token, value = f"a{character}b", f"Bearer a{character}b".encode()
    parameter: dict[str, Any] = {"max_bytes": LIMIT, "max_parameters": 10, "form": OPAQUE}
    query = b"access_token=" + quote_from_bytes(token.encode(), safe="").encode()
    if character in ',"=':
        assert refusal(lambda: opaque_header(value)) is MALFORMED
        assert refusal(lambda: token_from_parameters(query, source="query", **parameter)) is MALFORMED
        assert refusal(lambda: token_from_form(query, **parameter)) is MALFORMED
        assert not is_token(token)
    else:
        assert opaque_header(value) == token
        assert token_from_parameters(query, source="query", **parameter) == token
        assert token_from_form(query, **parameter) == token
        assert is_token(token)


def test_salesforce_token_is_accepted_only_where_opaque_tokens_are():
    value = b"Bearer " + SALESFORCE.encode()
    assert token_from_authorization([value], 1000, OPAQUE) == SALESFORCE
    assert refusal(lambda: from_header(value, limit=1000)) is MALFORMED


@pytest.mark.rule("B-04", "B-05", "B-06", "B-12", "B-60", "X-22", "X-23", "X-24")
@pytest.mark.parametrize(
    "value",
    [
        b"Bearer a b", b"Bearer a!,b", b"Bearer a!, Bearer b!", b'Bearer "a!"', b"Bearer a!=b", b"Bearer =a!",
        b'Bearer token="a!"', b"Bearer access_token=a!", b"Bearer a!\n", b"Bearer a!\r\nX: y", b"Bearer a!\x00",
        b"Bearer a!\x7f", b"Bearer a!\xe9", "Bearer a!\u212a".encode(), b"Bearer a!\tb", b"Bearer: a!",
    ],
    ids=ascii,
)  # fmt: skip
def test_opaque_token_that_is_ambiguous_in_a_field_is_refused(value: bytes):
    assert refusal(lambda: opaque_header(value)) in (MALFORMED, REPEATED)
    assert refusal(lambda: token_from_authorization([b"Bearer!a b"], LIMIT, OPAQUE), E401) is Reason.UNSUPPORTED_SCHEME


@given(st.text(st.characters(max_codepoint=0x100), max_size=20))
def test_sendable_token_is_read_back_unchanged(text: str):
    if is_token(text):
        assert opaque_header(b"Bearer " + text.encode("ascii")) == text
    else:
        assert not text or not text.isascii() or set(text) & set(' ,"=\x7f') or min(text) < "!"


@pytest.mark.rule("I-06")
@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Y: z", "a\n", "\u00e9", "a,b", 'a"b', "a=b", None, b"a", 7])
def test_unsendable_text_is_not_a_token(token: object):
    assert not is_token(token)
    assert is_token("a-b._~+/=")
    assert is_token("1|a!b==")


# -- parameters


@pytest.mark.rule("B-23", "B-24", "B-25")
@pytest.mark.parametrize(
    ("query", "token"),
    [
        (b"access_token=abc", "abc"),
        (b"a=1&access_token=abc&b=2", "abc"),
        (b"&&access_token=abc&&", "abc"),
        (b"access_token=abc==", "abc=="),
        (b"access_token=abc%3D%3D", "abc=="),
        (b"access_token=a%2Bb", "a+b"),
        (b"access_token=a%2Eb%7e", "a.b~"),
        (b"%61ccess%5Ftoken=abc", "abc"),
        (b"acces%73_token=abc", "abc"),
        (b"", None),
        (b"a=1&b", None),
        (b"x=1;access_token=abc", None),
        (b"x=1&y=2;access_token=abc", None),
        (b"Access_Token=abc", None),
        (b"ACCESS_TOKEN=abc", None),
        (b"access_token[]=abc", None),
        (b"xaccess_token=abc", None),
        (b"access_tokenx=abc", None),
        (b"access-token=abc", None),
        (b"+access_token=abc", None),
        (b"access_token%00=abc", None),
        (b"access+token=abc", None),
        (b"x=access_token=abc", None),
        (b"x=%26access_token=abc", None),
        (b"%2561ccess_token=abc", None),
        (b"?access_token=abc", None),
        ("access_to\u212aen=abc".encode(), None),
    ],
    ids=ascii,
)
def test_parameter_is_found_by_name_and_decoded_once(query, token):
    assert from_query(query) == token
    assert from_form(query) == token
    assert has_access_token(query) is (token is not None)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        pytest.param(b"access_token=abc&access_token=abc", Reason.REPEATED_PARAMETER, marks=pytest.mark.rule("B-21")),
        pytest.param(b"access_token=abc&access_token=def", Reason.REPEATED_PARAMETER, marks=pytest.mark.rule("B-21")),
        pytest.param(b"access_token=&access_token=def", Reason.REPEATED_PARAMETER, marks=pytest.mark.rule("B-21")),
        pytest.param(b"access_token=a&x&%61ccess_token=b", Reason.REPEATED_PARAMETER, marks=pytest.mark.rule("B-21")),
        pytest.param(b"access_token=", EMPTY, marks=pytest.mark.rule("B-22")),
        pytest.param(b"access_token", EMPTY, marks=pytest.mark.rule("B-22")),
        pytest.param(b"a=1&access_token&b", EMPTY, marks=pytest.mark.rule("B-22")),
        pytest.param(b"access_token=a+b", MALFORMED, marks=pytest.mark.rule("B-23")),
        pytest.param(b"access_token=+abc", MALFORMED, marks=pytest.mark.rule("B-23")),
        pytest.param(b"access_token=a%20b", MALFORMED, marks=pytest.mark.rule("B-23")),
        pytest.param(b"access_token=abc;x=1", MALFORMED, marks=pytest.mark.rule("B-24")),
        pytest.param(b"access_token=a=b", MALFORMED, marks=pytest.mark.rule("B-06")),
        pytest.param(b"access_token=a%zz", MALFORMED, marks=pytest.mark.rule("X-33")),
        pytest.param(b"access_token=a%", MALFORMED, marks=pytest.mark.rule("X-33")),
        pytest.param(b"access_token=a%252E", MALFORMED, marks=pytest.mark.rule("X-33")),
        pytest.param(b"access_token=a%0A", MALFORMED, marks=pytest.mark.rule("X-24")),
        pytest.param(b"access_token=a%0D%0AX:1", MALFORMED, marks=pytest.mark.rule("X-22")),
        pytest.param(b"access_token=a%00", MALFORMED, marks=pytest.mark.rule("X-22")),
        pytest.param(b"access_token=a%C3%A9", MALFORMED, marks=pytest.mark.rule("X-23")),
        pytest.param(b"access_token=a\xe9", MALFORMED, marks=pytest.mark.rule("X-23")),
        pytest.param(b"access_token=Bearer%20abc", MALFORMED, marks=pytest.mark.rule("B-23")),
        pytest.param(b"access_token=%22abc%22", MALFORMED, marks=pytest.mark.rule("B-05")),
    ],
    ids=ascii,
)
def test_a_parameter_that_cannot_be_read_is_an_invalid_request(query, reason):
    assert refusal(lambda: from_query(query)) is reason
    assert refusal(lambda: from_form(query)) is reason
    assert has_access_token(query)


@pytest.mark.rule("X-32")
def test_too_many_parameters_are_refused_before_parsing():
    assert from_query(b"&".join([b"a=1"] * 9 + [b"access_token=abc"])) == "abc"
    assert refusal(lambda: from_query(b"&".join([b"a=1"] * 10 + [b"access_token=abc"]))) is Reason.TOO_MANY_PARAMETERS
    assert refusal(lambda: from_query(b"&" * 10)) is Reason.TOO_MANY_PARAMETERS
    assert from_query(b"&" * 9) is None


class Counted(bytes):
    """Bytes that count the calls of ``split``."""

    splits = 0

    def split(self, *arguments: object, **named: object) -> list[bytes]:
        Counted.splits += 1
        return bytes(self).split(b"&")


@pytest.mark.rule("X-32")
def test_query_with_too_many_parameters_is_not_split():
    flood = Counted(b"&".join(b"%%61=%d" % number for number in range(100_000)))
    assert refusal(lambda: from_query(flood, parameters=1000)) is Reason.TOO_MANY_PARAMETERS
    assert refusal(lambda: from_form(flood, parameters=1000)) is Reason.TOO_MANY_PARAMETERS
    assert Counted.splits == 0
    assert without_access_token(flood + b"&access_token=abc") == flood
    assert has_access_token(flood + b"&access_token=abc")
    assert not has_access_token(flood)


PIECES = st.sampled_from(
    [b"access_token", b"%61ccess_token", b"Access_Token", b"a", b"=", b"&", b";", b"+", b"%", b"%2B", b"%20", b"%26",
     b"%3D", b"abc", b"x.y", b"\xe9", b"\x00", b"\n"]
)  # fmt: skip
QUERIES = st.lists(PIECES, max_size=10).map(b"".join) | st.binary(max_size=30)


@pytest.mark.rule("B-23", "B-24", "B-25", "X-33")
@given(QUERIES)
def test_token_is_found_where_urllib_finds_it(query):
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    named = [value for name, value in pairs if name == "access_token"]
    assert has_access_token(query) is bool(named)
    for read in (from_query, from_form):
        try:
            token = read(query)
        except InvalidRequest:
            assert named
        else:
            assert named == ([] if token is None else [token])


@pytest.mark.rule("B-31")
@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"a=1&access_token=abc&b=2", b"a=1&b=2"),
        (b"access_token=abc", b""),
        (b"access_token=abc&a=1", b"a=1"),
        (b"a=1&access_token=abc", b"a=1"),
        (b"access_token=a&access_token=b&%61ccess_token=c&access_token", b""),
        (b"a=1&&b=%20+;x&access_token=abc&c=", b"a=1&&b=%20+;x&c="),
        (b"Access_Token=abc&x=access_token", b"Access_Token=abc&x=access_token"),
        (b"", b""),
    ],
    ids=ascii,
)
def test_token_is_removed_from_the_query_that_the_app_sees(query, left):
    assert without_access_token(query) == left


@pytest.mark.rule("B-31")
@given(QUERIES)
def test_query_without_the_token_keeps_all_other_bytes(query):
    left = without_access_token(query)
    assert not has_access_token(left)
    others = [part for part in query.split(b"&") if not has_access_token(part)]
    assert left.split(b"&") == (others or [b""])
    if not has_access_token(query):
        assert left == query


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_encoded_token_is_read_back_unchanged(before, token):
    query = b"a=" + quote_from_bytes(before).encode() + b"&access_token=" + quote_from_bytes(token, safe="").encode()
    try:
        read = from_query(query)
    except InvalidRequest:
        assert not re.fullmatch(rb"[A-Za-z0-9\-._~+/]+=*", token)
    else:
        assert read is not None
        assert read.encode() == token


# -- forms


@pytest.mark.rule("B-16", "B-17", "B-18", "B-19")
@pytest.mark.parametrize(
    ("method", "content_types", "may"),
    [
        ("POST", [b"application/x-www-form-urlencoded"], True),
        ("PUT", [b"application/x-www-form-urlencoded"], True),
        ("PATCH", [b"application/x-www-form-urlencoded"], True),
        ("POST", [b"Application/X-WWW-Form-Urlencoded; charset=UTF-8"], True),
        ("POST", [b" application/x-www-form-urlencoded\t;x"], True),
        ("GET", [b"application/x-www-form-urlencoded"], False),
        ("HEAD", [b"application/x-www-form-urlencoded"], False),
        ("DELETE", [b"application/x-www-form-urlencoded"], False),
        ("OPTIONS", [b"application/x-www-form-urlencoded"], False),
        ("TRACE", [b"application/x-www-form-urlencoded"], False),
        ("post", [b"application/x-www-form-urlencoded"], False),
        ("POST", [], False),
        ("POST", [b""], False),
        ("POST", [b"multipart/form-data; boundary=x"], False),
        ("POST", [b"application/json"], False),
        ("POST", [b"text/plain; x=application/x-www-form-urlencoded"], False),
        ("POST", [b"application/x-www-form-urlencoded2"], False),
        ("POST", [b"application/x-www-form-urlencoded, text/plain"], False),
        ("POST", [b"application/x-www-form-urlencoded\x00"], False),
        ("POST", ["application/x-www-form-urlen\u212aoded".encode()], False),
        ("POST", [b"application/x-www-form-urlencoded", b"application/x-www-form-urlencoded"], False),
        ("POST", [b"application/x-www-form-urlencoded", b"application/json"], False),
    ],
    ids=lambda value: value if isinstance(value, str) else ascii(value) if isinstance(value, list) else None,
)
def test_form_may_carry_a_token_only_with_methods_that_have_a_body(
    method: str, content_types: Sequence[bytes], may: bool
):
    assert may_carry_form(method, content_types) is may


@pytest.mark.rule("B-20")
@pytest.mark.parametrize("body", [b"access_token=abc&a=\xe9", b"\xe9=1&access_token=abc", b"access_token=abc&\xff"])
def test_a_form_with_a_token_is_ascii(body):
    assert refusal(lambda: from_form(body)) is Reason.NON_ASCII_FORM
    assert from_query(body) == "abc"


@pytest.mark.rule("B-20")
def test_form_without_a_token_is_accepted_with_any_content():
    assert from_form(b"a=\xe9&b=\xff") is None
    assert from_form(b"access_token=abc&a=%C3%A9") == "abc"


@pytest.mark.parametrize(
    "value, length",
    [
        ("0", 0),
        ("000", 0),
        ("42", 42),
        ("00000000000000000000042", 42),
        ("9" * 18, 10**18 - 1),
        ("1" + "0" * 18, 10**18),
        ("9" * 5000, 10**18),
        ("0" * 5000 + "7", 7),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("1, 1", None),
        (" 1", None),
        ("1_000", None),
        ("\u0661", None),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_content_length_with_any_number_of_digits_is_parsed(value, length):
    assert declared_length(value) == length
