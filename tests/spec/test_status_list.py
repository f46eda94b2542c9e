"""The status of a token in a status list: the vectors of the draft, and malformed statuses and lists."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard import ClientAuthentication, ConfigurationError, Introspection, Issuer, StatusListPolicy
from scopeguard.devserver.keys import SigningKey, base64url, compact
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.jws import decode_base64url
from scopeguard.spec.status_list import (
    MalformedStatusList,
    Reference,
    StatusList,
    UnverifiedStatusList,
    check,
    decompress,
    find_reference,
    read,
)

URI = "https://as.test/statuslists/1"
ORIGINS = frozenset(("https://as.test:443",))
NOW = 1_800_000_000.0
ISSUER = Issuer("https://as.test", audience="https://api.test")
KEY = SigningKey.generate("ES256")
HEADERS = {"content-type": "application/statuslist+jwt"}
LIST = {"bits": 1, "lst": "eNrbuRgAAhcBXQ"}
CLAIMS: dict[str, Any] = {"sub": URI, "iat": NOW - 10, "exp": NOW + 600, "ttl": 60, "status_list": LIST}
# Values that the type checker or JSON would accept as a number.
NO_NUMBERS = [True, False, "60", None, [], {}, 2**60]


def publish(bits: int, text: str) -> UnverifiedStatusList:
    token = read(sign({**CLAIMS, "status_list": {"bits": bits, "lst": text}}), HEADERS, URI, ISSUER, NOW)
    assert (token.ttl, token.expires_at) == (60.0, NOW + 600)
    return token


def sign(claims: dict[str, Any], **header: Any) -> bytes:
    members = {"typ": "statuslist+jwt", "alg": "ES256", "kid": KEY.kid, **header}
    return compact({name: value for name, value in members.items() if value is not None}, claims, KEY).encode()


def refusal(status: Any) -> Reason:
    with pytest.raises(InvalidToken) as caught:
        find_reference({"status": status}, ORIGINS)
    return caught.value.reason


def problem(claims: dict[str, Any], headers: dict[str, str] | None = None, **header: Any) -> str:
    with pytest.raises(MalformedStatusList) as caught:
        read(sign(claims, **header), HEADERS if headers is None else headers, URI, ISSUER, NOW)
    return str(caught.value)


# -- the token


def test_a_token_without_status_has_none():
    assert find_reference({}, ORIGINS) is None


@pytest.mark.parametrize(
    "uri", [URI, "https://as.test", "https://AS.TEST/1", "https://as.test:443/1?list=1", "https://as.test/1/../2"]
)
def test_status_claim_gives_the_list_and_the_index(uri: str):
    claims = {"status": {"status_list": {"idx": 0, "uri": uri}, "another": {}}}
    assert find_reference(claims, ORIGINS) == Reference(uri, 0)


@pytest.mark.rule("K-02")
@pytest.mark.parametrize("status", [None, "valid", 0, True, [], [{"status_list": {"idx": 1, "uri": URI}}]])
def test_status_must_be_an_object(status: Any):
    assert refusal(status) is Reason.MALFORMED_CLAIM


@pytest.mark.rule("K-02")
@pytest.mark.parametrize("idx", [-1, 1.5, 1.0, True, False, "1", None, [], {}])
def test_index_must_be_a_whole_number_from_zero(idx: Any):
    assert refusal({"status_list": {"idx": idx, "uri": URI}}) is Reason.MALFORMED_CLAIM


@pytest.mark.rule("K-02")
@pytest.mark.parametrize(
    "place", [None, "x", [], {}, {"idx": 1}, {"uri": URI}, {"idx": 1, "uri": None}, {"idx": 1, "uri": [URI]}]
)
def test_status_list_must_have_an_index_and_a_uri(place: Any):
    assert refusal({"status_list": place}) is Reason.MALFORMED_CLAIM


@pytest.mark.rule("K-02", "K-19")
@pytest.mark.parametrize(
    "uri",
    [
        "", "as.test/1", "urn:status:1", "http://as.test/1", "file:///etc/passwd", "https://me@as.test/1",
        "https://as.test/1#x", "https://as.test\\@evil.test/1", "https://as.test:x/1", "https://as.test/\n1",
        "https://as.test/" + "1" * 2048,
    ],
)  # fmt: skip
def test_uri_must_be_an_unambiguous_https_url(uri: str):
    assert refusal({"status_list": {"idx": 1, "uri": uri}}) is Reason.MALFORMED_CLAIM


@pytest.mark.rule("K-19")
@pytest.mark.parametrize(
    "uri",
    [
        "https://169.254.169.254/latest", "https://10.0.0.1/1", "https://evil.test/1", "https://as.test.evil.test/1",
        "https://as.test:8443/1", "https://as.test:0/1", "http://127.0.0.1/1", "https://[::1]/1", "https://as.test./1",
    ],
)  # fmt: skip
def test_uri_must_have_an_allowed_origin(uri: str):
    assert refusal({"status_list": {"idx": 1, "uri": uri}}) is Reason.UNEXPECTED_CLAIM


@pytest.mark.rule("K-20", "K-02")
@pytest.mark.parametrize("status", [{}, {"x": {}}, {"status_assertion": {"credential_hash_alg": "sha-256"}}])
def test_token_with_only_another_status_mechanism_is_refused(status: Any):
    assert refusal(status) is Reason.UNEXPECTED_CLAIM


# -- the list token


@pytest.mark.rule("K-04", "K-05")
def test_list_token_is_accepted_with_any_case_of_its_types():
    headers = {"content-type": "Application/StatusList+JWT ; charset=utf-8"}
    found = read(sign(CLAIMS, typ="application/statuslist+jwt"), headers, URI, ISSUER, NOW)
    assert decompress(found, 2) == StatusList(bits=1, data=b"\xb9\xa3")


@pytest.mark.rule("K-04")
@pytest.mark.parametrize(
    "kind", [None, "", "application/json", "application/jwt", "text/html", "application/statuslist+cwt"]
)
def test_response_with_another_content_type_is_refused(kind: str | None):
    assert "content type" in problem(CLAIMS, {} if kind is None else {"content-type": kind})


@pytest.mark.rule("K-05")
@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "statuslist+cwt", "status+list+jwt", 7])
def test_token_with_another_typ_is_refused(typ: Any):
    assert "typ" in problem(CLAIMS, typ=typ)


@pytest.mark.rule("K-06")
@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256"}, {"crit": ["x"]}, {"zip": "DEF"}])
def test_header_that_is_refused_in_access_tokens_is_refused_in_lists(header: dict[str, Any]):
    with pytest.raises(InvalidToken):
        read(sign(CLAIMS, **header), HEADERS, URI, ISSUER, NOW)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"\xff\xfe", b"a.b.c"])
def test_text_that_is_not_a_jwt_is_refused(body: bytes):
    with pytest.raises(InvalidToken):
        read(body, HEADERS, URI, ISSUER, NOW)


@pytest.mark.rule("K-07")
@pytest.mark.parametrize("sub", [None, "", 1, [URI], URI + "/", URI.upper(), "https://as.test/statuslists/2"])
def test_subject_must_equal_the_uri_exactly(sub: Any):
    assert "sub" in problem({**CLAIMS, "sub": sub})


@pytest.mark.rule("K-08")
@pytest.mark.parametrize("iat", [*NO_NUMBERS, NOW + 31])
def test_list_has_its_date_of_issue(iat: Any):
    assert "iat" in problem({**CLAIMS, "iat": iat})


@pytest.mark.rule("K-08")
def test_a_list_without_a_date_of_issue_is_refused():
    assert "iat" in problem({name: value for name, value in CLAIMS.items() if name != "iat"})


@pytest.mark.rule("K-08")
@pytest.mark.parametrize("exp", [*NO_NUMBERS, 0, -1, NOW - 1, NOW])
def test_expired_list_is_refused(exp: Any):
    assert "ex" in problem({**CLAIMS, "exp": exp})


@pytest.mark.rule("K-09")
@pytest.mark.parametrize("ttl", [*NO_NUMBERS, 0, -1, -0.5])
def test_ttl_must_be_a_positive_number(ttl: Any):
    assert "ttl" in problem({**CLAIMS, "ttl": ttl})


def test_exp_and_ttl_are_optional():
    found = read(sign({"sub": URI, "iat": NOW + 30, "status_list": LIST}), HEADERS, URI, ISSUER, NOW)
    assert (found.ttl, found.expires_at) == (None, None)


@pytest.mark.rule("K-13")
@pytest.mark.parametrize(
    "found",
    [
        None, [], "eNrbuRgAAhcBXQ", {}, {"bits": 1}, {"lst": "eNrbuRgAAhcBXQ"}, {"bits": 1, "lst": None},
        *({"bits": bits, "lst": "eNrbuRgAAhcBXQ"} for bits in (0, 3, 16, -1, True, 1.0, "1", None)),
        *({"bits": 1, "lst": text} for text in ("eNrbuRgAAhcBXQ==", "eNrbuRgAAhcBX", "eNrb+RgAAhcBXQ", "é")),
    ],
)  # fmt: skip
def test_malformed_status_list_is_refused(found: Any):
    problem({**CLAIMS, "status_list": found})


# -- the list


@pytest.mark.rule("K-13")
@pytest.mark.parametrize(
    ("bits", "text", "data", "statuses"),
    [
        (1, "eNrbuRgAAhcBXQ", "b9a3", {0: 1, 1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 0, 7: 1, 8: 1, 9: 1, 10: 0, 15: 1}),
        (2, "eNo76fITAAPfAgc", "c944f9", {0: 1, 1: 2, 2: 0, 3: 3, 4: 0, 5: 1, 6: 0, 7: 1, 8: 1, 9: 2, 10: 3, 11: 3}),
    ],
)
def test_examples_of_the_draft_are_decoded(bits: int, text: str, data: str, statuses: dict[int, int]):
    found = decompress(publish(bits, text), 16)
    assert found.data.hex() == data
    assert {index: found.status(index) for index in statuses} == statuses


@pytest.mark.rule("K-13")
@pytest.mark.parametrize("number", range(4))
def test_vectors_of_the_draft_are_decoded(vectors: Path, number: int):
    vector = json.loads((vectors / "status-list" / "examples.json").read_text("utf-8"))["vectors"][number]
    assert vector["bits"] == 2**number
    found = decompress(publish(vector["bits"], vector["lst"]), 16 * 1024 * 1024)
    assert len(found.data) * 8 // vector["bits"] == vector["size"]
    assert [found.status(index) for index, _ in vector["nonzero"]] == [status for _, status in vector["nonzero"]]
    marked = {index for index, status in vector["nonzero"] if status}
    assert not any(found.status(index) for index in range(0, vector["size"], 97) if index not in marked)


@pytest.mark.rule("K-13", "K-14")
@given(bits=st.sampled_from((1, 2, 4, 8)), data=st.data())
def test_each_status_is_read_at_its_index(bits: int, data: st.DataObject):
    count = 8 // bits * data.draw(st.integers(0, 40))
    statuses = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    whole = sum(status << (index * bits) for index, status in enumerate(statuses))
    found = StatusList(bits=bits, data=whole.to_bytes(count * bits // 8, "little"))
    assert [found.status(index) for index in range(count)] == statuses
    for beyond in (count, count + 1, 10**30):
        with pytest.raises(InvalidToken) as caught:
            found.status(beyond)
        assert caught.value.reason is Reason.MALFORMED_CLAIM


@pytest.mark.rule("K-15")
@pytest.mark.parametrize("status", [*range(17), 128, 255])
def test_token_is_valid_only_with_status_zero(status: int):
    found = StatusList(bits=8, data=bytes((7, status)))
    if status == 0:
        check(found, 1)
        return
    with pytest.raises(InvalidToken) as caught:
        check(found, 1)
    assert caught.value.reason is Reason.TOKEN_NOT_ACTIVE
    assert caught.value.detail == {"status": str(status)}


@pytest.mark.rule("K-13")
@pytest.mark.parametrize(
    "packed",
    [
        b"", b"\x00", b"no zlib at all", zlib.compress(b"list")[:-1], zlib.compress(b"list") + b"\x00",
        zlib.compress(b"list")[:-1] + b"\x00", zlib.compress(b"list")[2:-4],
    ],
)  # fmt: skip
def test_list_that_is_not_one_complete_zlib_stream_is_refused(packed: bytes):
    with pytest.raises(MalformedStatusList):
        decompress(publish(1, base64url(packed)), 100)


@pytest.mark.rule("K-18")
@pytest.mark.parametrize("size", [99, 100, 101])
def test_list_has_a_maximum_size_in_bytes(size: int):
    found = publish(1, base64url(zlib.compress(bytes(size))))
    if size <= 100:
        assert len(decompress(found, 100).data) == size
        return
    with pytest.raises(MalformedStatusList, match="larger than 100 bytes"):
        decompress(found, 100)


@pytest.mark.rule("K-18")
def test_decompression_bomb_is_refused_without_decompressing_it():
    bomb = publish(1, base64url(zlib.compress(bytes(64 * 1024 * 1024), 9)))
    tracemalloc.start()
    try:
        with pytest.raises(MalformedStatusList):
            decompress(bomb, 1024 * 1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(packed: bytes):
    text = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    assert decode_base64url(text) == packed
    try:
        decompress(publish(1, text), 1000)
    except MalformedStatusList:
        pass


# -- settings


@pytest.mark.rule("K-19")
def test_the_issuers_own_origin_is_allowed_and_no_other():
    assert StatusListPolicy().origins("https://As.Test/tenant") == ORIGINS
    others = StatusListPolicy(allowed_origins=["https://status.test/", "http://localhost:8000"])
    assert others.origins("https://as.test") == {"https://status.test:443", "http://localhost:8000"}
    assert StatusListPolicy(allowed_origins="https://as.test:443").origins("x") == ORIGINS


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"allowed_origins": ["ftp://as.test"]}, "allowed_origins"),
        ({"allowed_origins": ["https://as.test/lists"]}, "allowed_origins"),
        ({"allowed_origins": ["https://as.test?x"]}, "allowed_origins"),
        ({"allowed_origins": [7]}, "allowed_origins"),
        ({"fail_open_dangerously": "false"}, "fail_open_dangerously"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"max_bytes": 2**40}, "max_bytes"),
        ({"max_bytes": "1"}, "max_bytes"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], name: str):
    with pytest.raises(ConfigurationError, match=rf"^experimental_status_list\.{name}: "):
        StatusListPolicy(**settings)


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("https://as.test", {"experimental_status_list": True}, "a StatusListPolicy, not bool"),
        (
            "https://as.test",
            {"experimental_status_list": StatusListPolicy(allowed_origins=["http://as.test"])},
            "allowed_origins: 'http://as.test:80' is cleartext",
        ),
        ("accounts.test", {"experimental_status_list": StatusListPolicy()}, "allowed_origins: is missing"),
    ],
)
def test_issuer_without_an_origin_for_its_lists_is_refused(url: str, options: dict[str, Any], text: str):
    with pytest.raises(ConfigurationError, match=text):
        Issuer(url, audience="a", keys={"keys": []}, **options)


def test_status_list_policy_with_introspection_is_refused():
    asking: dict[str, Any] = {
        "validate": "introspection",
        "introspection": Introspection(auth=ClientAuthentication.NONE),
    }
    with pytest.raises(ConfigurationError, match="has no effect with validate"):
        Issuer("https://as.test", audience="a", experimental_status_list=StatusListPolicy(), **asking)


def test_issuer_whose_name_is_not_a_url_may_configure_origins():
    policy = StatusListPolicy(allowed_origins="https://status.test")
    issuer = Issuer("accounts.test", audience="a", keys={"keys": []}, experimental_status_list=policy)
    assert policy.origins(issuer.url) == {"https://status.test:443"}
