"""``Guard(fast=True)``: the same documents are accepted as by the strict parser, and give the same values."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odd_tokens import ENDS, Comparison, OddTokens
from scopeguard import ConfigurationError, Guard
from scopeguard.config.file import read_settings
from scopeguard.core.fast_base64 import load_segment_decoder
from scopeguard.core.fast_json import build_parser, load_claims_parser
from scopeguard.core.signature_backends import load_backends
from scopeguard.guard import engine_of
from scopeguard.spec.jws import decode_segment
from scopeguard.spec.strict_json import MAX_DEPTH, MalformedJSON, parse_object
from scopeguard.testing import FakeAuthority, bad_tokens

parse_fast = build_parser()
FAST_DECODER = load_segment_decoder(fast=True)
# Each is the text of a number, except for the constants. Some are at the limits of 53, 63 and 64 bits.
NUMBERS = (
    "0", "-0", "-0.0", "0.0", "0e0", "1E2", "1e2", "1e+2", "1.0", "1.50", "1e16", "1e+16", "1e15", "1e21",
    "1e22", "1e23",
    "1e-7", "1e-07", "0.000001", "1e308", "1e309", "1e400", "-1e400", "5e-324", "4e-324", "2.5e-324", "1e-400", "01",
    "+1", ".5", "5.", "1_0", "0x10", "NaN", "Infinity", "-Infinity", "nan", "9007199254740993", "9007199254740993.0",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "-18446744073709551616", "100000000000000000000",
    "100000000000000000000.0", "123456789012345678901234567890", "9" * 400, "0.1",
    "0.1000000000000000055511151231257827", "2.2250738585072011e-308", "1.7976931348623157e308",
    "1.7976931348623159e308",
)  # fmt: skip
STRINGS = (
    r'"\ud800"', r'"\udc00"', r'"\ud83d\ude00"', r'"\u0041"', r'"\/"', '"/"', r'"\u0000"', r'"\u001f"', r'"\u001F"',
    '"\x7f"', '"\u2028"', '"\t"', '"\x00"', r'"\t"', r'"\b\f"', r'"\""', r'"\\"', '"é"', '"😀"', '"\ufeff"',
    r'"\x41"', r'"\u00e9"', '"',
)  # fmt: skip
DOCUMENTS = (
    "", " ", "{", "}", "{}", "[]", "null", "1", '"x"', '{"a":1', '{"a":1}}', '{"a":1} ', ' {"a":1}', '{"a":1}\n',
    '{"a": 1}', '{"a":1,}', '{"a":1,"a":1}', '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', r'{"a":1,"\u0061":1}', "{a:1}",
    "{'a':1}", '{1:"a"}', '{"a":[1,2,]}', '{"":""}', '{"a":1}//', '{"a":1}\0', '\ufeff{"a":1}', "{" * 40,
    '{"d":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", '{"d":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}",
    '{"b":"' + "[" * 40 + '"}', '{"b":"' + "[" * 10 + '"}', '{"l":[' + "{}," * 40 + "{}]}", '{"a":true,"b":null}',
    '{"a":True}', '{"a":nul}', *(f"{{{end}}}" for end in ENDS),
)  # fmt: skip


def outcome(parse: Any, data: bytes) -> str:
    """Return the value that *parse* returns, with all types and the order of members, or the word ``refused``."""
    try:
        return repr(parse(data))
    except MalformedJSON:
        return "refused"


@pytest.mark.rule("J-05", "J-07", "J-08", "J-57", "X-20", "X-21", "X-27")
@pytest.mark.parametrize(
    "text", [*DOCUMENTS, *(f'{{"v":{value}}}' for value in (*NUMBERS, *STRINGS)), *(f"{{{s}:1}}" for s in STRINGS)]
)
def test_odd_document_is_read_alike(text: str):
    data = text.encode("utf-8")
    assert outcome(parse_fast, data) == outcome(parse_object, data)


@pytest.mark.parametrize("data", [b'{"a":"\xff"}', b'{"a":"\xc0\xaf"}', b'{"a":"\xed\xa0\x80"}', b'{"\xe9":1}'])
def test_what_is_not_utf_8_is_refused_alike(data: bytes):
    assert outcome(parse_fast, data) == outcome(parse_object, data) == "refused"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.dictionaries(st.text(), VALUES, max_size=5),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.integers(min_value=0),
    st.binary(max_size=2),
)
@example({"a": 1e16}, False, (",", ":"), 0, b"")
def test_changed_document_is_read_alike(
    value: dict[str, Any], ascii_only: bool, separators: tuple[str, str], place: int, change: bytes
):
    data = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")
    assert outcome(parse_fast, data) == outcome(parse_object, data)
    at = place % (len(data) + 1)
    changed = data[:at] + change + data[at + len(change) :]
    assert outcome(parse_fast, changed) == outcome(parse_object, changed)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**65), 2**65))
def test_number_as_orjson_writes_it_is_read_alike(number: float):
    text = orjson.dumps(number) if -(2**63) <= number < 2**64 else str(number).encode()
    data = b'{"n":' + text + b"}"
    assert outcome(parse_fast, data) == outcome(parse_object, data)


def test_compact_document_does_not_reach_the_strict_parser(monkeypatch: pytest.MonkeyPatch):
    calls: list[bytes] = []

    def parse_strictly(data: bytes) -> dict[str, Any]:
        calls.append(data)
        return {}

    monkeypatch.setitem(build_parser.__globals__, "parse_object", parse_strictly)
    assert parse_fast(b'{"iss":"https://as.test","exp":1700000000,"aud":["a","b"],"n":1.5}')["exp"] == 1700000000
    assert calls == []
    for data in (b'{"a": 1}', b'{"a":1,"a":1}', b'{"a":NaN}', b"[]"):
        parse_fast(data)
    assert len(calls) == 4


# -- the setting


def guard_of(authority: FakeAuthority, **settings: Any) -> Guard:
    return Guard(authority.issuer, transport=authority.transport, clock=authority.clock, **settings)


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_odd_and_hostile_tokens_get_the_same_judgement_with_fast(algorithm: str):
    """The flow parses with the strict parser, so the two ways differ in the parser too."""
    authority = FakeAuthority(algorithm=algorithm)
    comparison = Comparison(guard_of(authority, fast=True), authority.mint("read"))
    for number, token in enumerate(islice(OddTokens(authority, seed=1998), 1000)):
        assert comparison.compare(token) is None, f"token {number}"
    assert comparison.granted > 20
    assert comparison.refused > 50
    assert comparison.left == 0
    for name, bad in bad_tokens(authority).items():
        assert comparison.compare(bad.token) is None, name


def test_new_token_is_parsed_by_orjson_and_verified_by_the_backends_of_fast(monkeypatch: pytest.MonkeyPatch):
    parsed: list[bytes] = []
    loads = orjson.loads

    def watch(data: bytes) -> Any:
        parsed.append(data)
        return loads(data)

    monkeypatch.setattr(orjson, "loads", watch)
    authority = FakeAuthority(algorithm="EdDSA")
    guard = guard_of(authority, fast=True)
    engine = engine_of(guard)
    assert [backend.name for backend in engine.settings.backends] == ["awscrt", "pynacl"]
    comparison = Comparison(guard, authority.mint("read"))
    token = authority.mint("write")
    granted = comparison.judge_at_once(token)
    assert granted is not None
    assert granted.scopes == {"write"}
    assert parsed == [base64.urlsafe_b64decode(token.split(".")[1] + "==")]


def test_without_the_setting_neither_orjson_nor_pybase64_is_used():
    assert load_claims_parser(fast=False) is parse_object
    context = engine_of(guard_of(FakeAuthority())).context
    assert context.parse_claims is parse_object
    assert context.decode_segment is decode_segment


SEGMENTS = st.text("AEQgwBcz019-_+/=. \n!\u00e9", max_size=9).map(lambda text: text.encode())


@given(SEGMENTS | st.binary(max_size=70).map(lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")))
@example(b"QQ")
@example(b"QR")
@example(b"Q-")
@example(b"Q+")
@example(b"QQ==")
def test_segment_is_decoded_alike_with_pybase64(segment: bytes):
    def result(decode: Callable[[bytes], bytes]) -> bytes | None:
        try:
            return decode(segment)
        except ValueError:
            return None

    assert result(FAST_DECODER) == result(decode_segment)


def test_own_backends_come_before_those_of_fast():
    engine = engine_of(guard_of(FakeAuthority(), fast=True, signature_backends=["pynacl"]))
    assert [backend.name for backend in engine.settings.backends] == ["pynacl", "awscrt"]
    assert engine.settings.backends == load_backends(["pynacl", "awscrt"])


@pytest.mark.parametrize(
    "name, module",
    [("awscrt", "awscrt.crypto"), ("pynacl", "nacl.bindings"), ("orjson", "orjson"), ("pybase64", "pybase64")],
)
def test_missing_library_is_an_error_that_names_fast(monkeypatch: pytest.MonkeyPatch, name: str, module: str):
    load_backends.__globals__["_load_backend"].cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"^fast: {name} is not installed; pip install .scopeguard-oauth2\[fast\]"
    with pytest.raises(ConfigurationError, match=message):
        guard_of(FakeAuthority(), fast=True)


def test_fast_in_a_file(tmp_path: Path):
    path = tmp_path / "api.toml"
    path.write_text('fast = true\nissuers = [{ url = "https://as.test", audience = "api" }]\n')
    issuers, arguments = read_settings(str(path))
    assert arguments["fast"] is True
    assert len(engine_of(Guard(*issuers, **arguments)).settings.backends) == 2
    path.write_text('fast = "orjson"\nissuers = [{ url = "https://as.test", audience = "api" }]\n')
    with pytest.raises(ConfigurationError, match="top level: fast: must be true or false, not a string"):
        read_settings(str(path))
