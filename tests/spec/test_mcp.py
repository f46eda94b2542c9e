"""MCP messages: one reading of a body, and header fields that agree with it."""

from __future__ import annotations

import base64
import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.errors import Forbidden, MalformedMessage
from scopeguard.reasons import Reason
from scopeguard.spec.mcp import (
    NAME_MEMBERS,
    Fields,
    Message,
    check_agreement,
    decode_field,
    message_in_fields,
    parse_message,
    read_fields,
    write_json_rpc,
)

TOOL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1}}}'


def fields(*pairs: tuple[str, str], version: str | None = "2026-07-28") -> Fields:
    given = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    return read_fields(given if version is None else [(b"MCP-Protocol-Version", version.encode()), *given])


def test_message_has_its_parts():
    message = parse_message(TOOL)
    assert (message.method, message.name, message.id) == ("tools/call", "a", 1)
    assert (message.arguments, message.is_notification) == ({"x": 1}, False)
    message = parse_message(b' {"method": "notifications/cancelled", "params": {"requestId": 1}}\r\n')
    assert (message.method, message.name, message.id, message.is_notification) == (
        "notifications/cancelled", None, None, True,
    )  # fmt: skip
    assert message.arguments == {"requestId": 1}
    assert parse_message(b'{"method": "ping", "id": "x", "params": null}').arguments == {}
    assert parse_message(b'{"method": "prompts/get", "id": true, "params": {"name": "n"}}').arguments == {}
    for answer in (b'{"id": 3, "result": {}}', b'{"id": 3, "error": {"code": 1}}'):
        assert (parse_message(answer).method, parse_message(answer).id) == (None, 3)


@pytest.mark.rule("MC-10")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" + TOOL + b"]", Reason.INVALID_MESSAGE),
        (b" \r\n\t[]", Reason.INVALID_MESSAGE),
        (b"", Reason.MALFORMED_MESSAGE),
        (b"{", Reason.MALFORMED_MESSAGE),
        (b"null", Reason.MALFORMED_MESSAGE),
        (b'"tools/call"', Reason.MALFORMED_MESSAGE),
        (TOOL + TOOL, Reason.MALFORMED_MESSAGE),
        (TOOL + b"x", Reason.MALFORMED_MESSAGE),
        (b"\xef\xbb\xbf" + TOOL, Reason.MALFORMED_MESSAGE),
        (TOOL.decode().encode("utf-16"), Reason.MALFORMED_MESSAGE),
        (b'{"method":"ping","method":"tools/call","params":{"name":"a"}}', Reason.MALFORMED_MESSAGE),
        (b'{"method":"ping","m\\u0065thod":"tools/call"}', Reason.MALFORMED_MESSAGE),
        (b'{"method":"tools/call","params":{"name":"a","name":"b"}}', Reason.MALFORMED_MESSAGE),
        (b'{"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}', Reason.MALFORMED_MESSAGE),
        (b'{"method":"ping","params":{"x":NaN}}', Reason.MALFORMED_MESSAGE),
        (b'{"method":"tools/call","params":{"name":"\\ud800"}}', Reason.MALFORMED_MESSAGE),
        (b'{"method":"tools/call","params":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}", Reason.MALFORMED_MESSAGE),
        (b'{"method":"ping","Method":"tools/call"}', Reason.INVALID_MESSAGE),
        (b'{"method":"ping","PARAMS":{}}', Reason.INVALID_MESSAGE),
        ('{"method":"ping","param\u017f":{}}'.encode(), Reason.INVALID_MESSAGE),
        (b'{"method":"tools/call","params":{"name":"a","Name":"b"}}', Reason.INVALID_MESSAGE),
        (b'{"method":"resources/read","params":{"uri":"a:b","URI":"c:d"}}', Reason.INVALID_MESSAGE),
        (b'{"method":"tools/call","params":{"name":"a","Arguments":{}}}', Reason.INVALID_MESSAGE),
        (b'{"id":1}', Reason.INVALID_MESSAGE),
        (b'{"id":1,"params":{"method":"ping"}}', Reason.INVALID_MESSAGE),
        (b'{"method":"ping","result":{}}', Reason.INVALID_MESSAGE),
        (b'{"method":"ping","error":{}}', Reason.INVALID_MESSAGE),
        (b'{"method":null,"result":{}}', Reason.INVALID_MESSAGE),
        (b'{"method":"","params":{}}', Reason.INVALID_MESSAGE),
        (b'{"method":["tools/call"]}', Reason.INVALID_MESSAGE),
        (b'{"method":"tools/call"}', Reason.INVALID_MESSAGE),
        (b'{"method":"tools/call","params":["a"]}', Reason.INVALID_MESSAGE),
        (b'{"method":"tools/call","params":{"name":["a"]}}', Reason.INVALID_MESSAGE),
        (b'{"method":"tools/call","params":{"name":"a","arguments":["x"]}}', Reason.INVALID_MESSAGE),
        (b'{"method":"prompts/get","params":{"uri":"a"}}', Reason.INVALID_MESSAGE),
        (b'{"method":"resources/read","params":{"name":"a"}}', Reason.INVALID_MESSAGE),
    ],
)
def test_ambiguous_body_is_refused(body: bytes, reason: Reason):
    with pytest.raises(MalformedMessage) as caught:
        parse_message(body)
    assert (caught.value.reason, caught.value.status, caught.value.error) == (reason, 400, None)


def test_arguments_may_be_deep():
    deep = b'{"a":' * 60 + b"1" + b"}" * 60
    body = b'{"method":"tools/call","params":{"name":"a","arguments":' + deep + b"}}"
    assert parse_message(body).arguments["a"]["a"]


@pytest.mark.rule("MC-10")
def test_member_of_params_is_not_the_method():
    message = parse_message(b'{"method":"ping","params":{"method":"tools/call","name":"delete"}}')
    assert (message.method, message.name) == ("ping", None)


@pytest.mark.rule("MC-09")
@pytest.mark.parametrize("name", ["mcp-name", "Mcp-Method", "MCP-PROTOCOL-VERSION", "content-type", "Content-Encoding"])
def test_field_that_occurs_twice_is_refused(name: str):
    for version in ("2026-07-28", "2025-06-18", None):
        with pytest.raises(MalformedMessage) as caught:
            fields((name, "identity"), (name.swapcase(), "identity"), version=version)
        assert caught.value.reason is Reason.HEADER_MISMATCH or name == "MCP-PROTOCOL-VERSION"


def test_two_origins_are_refused():
    with pytest.raises(Forbidden):
        fields(("origin", "https://a.test"), ("Origin", "https://a.test"))
    assert fields(("host", "a.test"), ("origin", "https://a.test")).origin == b"https://a.test"


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("content-encoding", "identity", True),
        ("content-encoding", " Identity ", True),
        ("content-encoding", "gzip", False),
        ("content-encoding", "", False),
        ("content-encoding", "identity, deflate", False),
        ("content-type", "application/json", True),
        ("content-type", "application/json; charset=utf-8", True),
        ("content-type", 'application/json; CHARSET="UTF-8"; x=y', True),
        ("content-type", "application/json; charset=utf-7", False),
        ("content-type", "application/json; charset=utf-16", False),
        ("content-type", "application/json; charset=utf-8; charset=utf-7", False),
        ("content-type", "application/json; charset = utf-8x", False),
    ],
)
def test_body_that_an_app_would_decode_otherwise_is_refused(name: str, value: str, accepted: bool):
    if accepted:
        fields((name, value))
        return
    with pytest.raises(MalformedMessage):
        fields((name, value))


@pytest.mark.rule("MC-08")
@pytest.mark.parametrize(
    ("version", "required"),
    [
        (None, False),
        ("2024-11-05", False),
        ("2026-07-27", False),
        (" 2025-06-18", False),
        ("2026-07-28", True),
        ("2027-01-01", True),
        ("draft", True),
        ("", True),
        ("2025-06-18, 2026-07-28", True),
        ("2025-6-18", True),
    ],
)
def test_version_says_whether_the_fields_are_used(version: str | None, required: bool):
    found = fields(("mcp-method", "tools/call"), ("mcp-name", "a"), version=version)
    assert found.are_required is required
    assert (message_in_fields(found) is not None) is required


@pytest.mark.rule("MC-06", "MC-07")
@pytest.mark.parametrize(
    ("pairs", "agrees"),
    [
        ([("mcp-method", "tools/call"), ("mcp-name", "a")], True),
        ([("Mcp-Method", "tools/call"), ("MCP-NAME", "\ta ")], True),
        ([("mcp-method", "tools/call"), ("mcp-name", "=?base64?YQ==?=")], True),
        ([("mcp-method", "tools/call")], False),
        ([("mcp-name", "a")], False),
        ([], False),
        ([("mcp-method", "tools/list"), ("mcp-name", "a")], False),
        ([("mcp-method", "Tools/Call"), ("mcp-name", "a")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "A")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "b")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "a, a")], False),
        ([("mcp-method", "tools/call, tools/call"), ("mcp-name", "a")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "%61")], False),
        ([("mcp-method", "tools%2Fcall"), ("mcp-name", "a")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "=?base64?YR==?=")], False),  # trailing bits
        ([("mcp-method", "tools/call"), ("mcp-name", "=?base64?YQ?=")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "=?base64?Y Q==?=")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "=?BASE64?YQ==?=")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "=?base64?/w==?=")], False),  # not UTF-8
        ([("mcp-method", "tools/call"), ("mcp-name", "")], False),
        ([("mcp-method", "tools/call"), ("mcp-name", "\xe9")], False),
    ],
)
def test_fields_must_agree_with_the_body(pairs: list[tuple[str, str]], agrees: bool):
    message = parse_message(TOOL)
    check_agreement(fields(*pairs, version="2025-06-18"), message)
    check_agreement(fields(*pairs, version=None), message)
    if agrees:
        check_agreement(fields(*pairs), message)
        return
    with pytest.raises(MalformedMessage) as caught:
        check_agreement(fields(*pairs), message)
    assert caught.value.reason is Reason.HEADER_MISMATCH
    assert json.loads(write_json_rpc(caught.value).body)["error"]["code"] == -32020


def test_methods_without_a_name_need_no_name_field():
    check_agreement(fields(("mcp-method", "tools/list")), parse_message(b'{"id":1,"method":"tools/list"}'))
    body = b'{"id":1,"method":"resources/subscribe","params":{"uri":"a:b"}}'
    check_agreement(fields(("mcp-method", "resources/subscribe")), parse_message(body))


@pytest.mark.rule("MC-07")
def test_only_notifications_may_lack_the_method_field():
    check_agreement(fields(), parse_message(b'{"method":"notifications/cancelled"}'))
    for body in (
        b'{"method":"notifications/cancelled","id":1}',
        b'{"method":"tools/call","params":{"name":"a"}}',
        b'{"method":"ping"}',
    ):
        with pytest.raises(MalformedMessage):
            check_agreement(fields(), parse_message(body))
    with pytest.raises(MalformedMessage):
        check_agreement(fields(("mcp-method", "ping")), parse_message(b'{"method":"notifications/cancelled"}'))


def test_response_of_a_client_is_not_part_of_newer_versions():
    answer = parse_message(b'{"id":1,"result":{}}')
    check_agreement(fields(version="2025-06-18"), answer)
    with pytest.raises(MalformedMessage) as caught:
        check_agreement(fields(), answer)
    assert caught.value.reason is Reason.INVALID_MESSAGE


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("mcp-method", "tools/call"), ("mcp-name", "a")], ("tools/call", "a")),
        ([("mcp-method", "tools/list"), ("mcp-name", "a")], ("tools/list", None)),
        ([("mcp-method", "tools/call")], None),
        ([("mcp-name", "a")], None),
        ([("mcp-method", "resources/subscribe"), ("mcp-name", "a")], None),
    ],
)
def test_message_is_read_from_fields_that_suffice(pairs: list[tuple[str, str]], expected: Any):
    found = message_in_fields(fields(*pairs))
    assert (found and (found.method, found.name)) == expected


def test_error_response_repeats_the_id():
    for body, message_id in ((b'{"id":"x","method":7}', "x"), (b'{"id":null,"method":7}', None), (b"[]", None)):
        with pytest.raises(MalformedMessage) as caught:
            parse_message(body)
        response = write_json_rpc(caught.value)
        assert json.loads(response.body)["id"] == message_id
        assert dict(response.headers)["content-type"] == "application/json"
        assert response.status == 400


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(NAMES)
def test_encoded_name_is_read_back(name: str):
    encoded = b"=?base64?" + base64.b64encode(name.encode()) + b"?="
    assert decode_field(encoded) == name


@given(st.binary(max_size=40))
def test_decoded_field_is_text_or_none(value: bytes):
    found = decode_field(value)
    assert found is None or found == value.strip(b" \t").decode("ascii") or value.strip(b" \t").startswith(b"=?base64?")


@given(NAMES, NAMES)
def test_only_one_name_agrees_with_a_field(name: str, other: str):
    field = b"=?base64?" + base64.b64encode(name.encode()) + b"?="
    found = Fields(are_required=True, method=b"tools/call", name=field, origin=None)
    check_agreement(found, Message(method="tools/call", name=name))
    if other != name:
        with pytest.raises(MalformedMessage):
            check_agreement(found, Message(method="tools/call", name=other))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=6), inner),
    max_leaves=8,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_message_or_malformed(body: bytes):
    try:
        message = parse_message(body)
    except MalformedMessage:
        return
    members = json.loads(body)
    assert message.method == members.get("method")
    if message.method is not None and message.method in NAME_MEMBERS:
        assert message.name == members["params"][NAME_MEMBERS[message.method]]


@given(st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params", "result", "x", "Method"]), JSON))
def test_accepted_message_has_the_method_that_a_lenient_parser_sees(members: dict[str, Any]):
    try:
        message = parse_message(json.dumps(members).encode())
    except MalformedMessage:
        return
    folded = {name.casefold(): value for name, value in members.items()}
    assert message.method == folded.get("method")
