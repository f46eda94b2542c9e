"""Where the metadata of an authorization server lies, and which of it may be used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.discovery import MalformedMetadata, Metadata, judge_metadata, metadata_urls

ISS = "https://as.example"
OAUTH, OPENID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"


def metadata(issuer: str = ISS, **members: Any) -> Metadata:
    return judge_metadata(json.dumps({"issuer": issuer, **members}).encode(), issuer)


# -- where it lies


@pytest.mark.rule("A-01", "A-02", "A-03", "A-04")
@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (ISS, [ISS + OAUTH, ISS + OPENID]),
        (ISS + "/", [ISS + OAUTH, ISS + OPENID]),
        (ISS + "/t1", [ISS + OAUTH + "/t1", ISS + OPENID + "/t1", ISS + "/t1" + OPENID]),
        (ISS + "/t1/", [ISS + OAUTH + "/t1", ISS + OPENID + "/t1", ISS + "/t1" + OPENID]),
        (ISS + "/a/b", [ISS + OAUTH + "/a/b", ISS + OPENID + "/a/b", ISS + "/a/b" + OPENID]),
        (ISS + ":8443/t%20x/", [f"{ISS}:8443{OAUTH}/t%20x", f"{ISS}:8443{OPENID}/t%20x", f"{ISS}:8443/t%20x{OPENID}"]),
        ("http://[::1]:9/t", [f"http://[::1]:9{OAUTH}/t", f"http://[::1]:9{OPENID}/t", f"http://[::1]:9/t{OPENID}"]),
    ],
)
def test_the_places_to_look_in_order(issuer, urls):
    assert list(metadata_urls(issuer)) == urls


# -- whose it is


@pytest.mark.rule("A-02", "A-05")
@pytest.mark.parametrize("issuer", [ISS, ISS + "/", ISS + "/t1", ISS + "/t1/", "accounts.example"])
def test_metadata_that_names_the_issuer_as_configured_is_used(issuer):
    assert metadata(issuer, jwks_uri=ISS + "/keys").issuer == issuer


@pytest.mark.rule("A-05", "A-06")
@pytest.mark.parametrize(
    "named",
    [
        ISS + "/", "https://AS.example", "HTTPS://as.example", ISS + ":443", "http://as.example", "https://as.example.",
        "https://as%2eexample", "https://evil.example", ISS + "?", " " + ISS, ISS + "\u0000", "", None, 7, [ISS],
        {"issuer": ISS}, "https://\u0430s.example", "https://as.exampl\u0435",
    ],
    ids=ascii,
)  # fmt: skip
def test_metadata_that_names_another_issuer_is_not_used(named):
    document = json.dumps({"issuer": named, "jwks_uri": ISS + "/keys"}).encode()
    with pytest.raises(
        MalformedMetadata, match=r"configured is 'https://as[.]example'; they must be equal to the letter"
    ):
        judge_metadata(document, ISS)
    with pytest.raises(MalformedMetadata, match="names the issuer NoneType"):
        judge_metadata(b"{}", ISS)


@pytest.mark.rule("A-06")
def test_the_names_of_issuers_are_not_normalised():
    decomposed, composed = "https://as.example/cafe\u0301", "https://as.example/caf\u00e9"
    with pytest.raises(MalformedMetadata):
        judge_metadata(json.dumps({"issuer": decomposed}).encode(), composed)


@pytest.mark.rule("A-08", "X-20", "X-21")
@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b'"x"', b"null", b"<html></html>", b'{"issuer":', b'[{"issuer":"https://as.example"}]',
        b'{"issuer":"https://as.example","issuer":"https://as.example"}',
        b'{"issuer":"https://as.example","a":{"b":1,"b":2}}',
        b'\xef\xbb\xbf{"issuer":"https://as.example"}', '{"issuer":"https://as.example"}'.encode("utf-16"),
        b'{"issuer":"https://as.example","a":NaN}',
    ],
    ids=ascii,
)  # fmt: skip
def test_metadata_is_one_strict_json_object(document):
    with pytest.raises(MalformedMetadata, match="the metadata is "):
        judge_metadata(document, ISS)


# -- what it says


@pytest.mark.rule("A-09", "A-11", "A-21")
def test_what_is_not_used_has_no_effect():
    plain = metadata(jwks_uri=ISS + "/keys")
    more = metadata(
        jwks_uri=ISS + "/keys",
        id_token_signing_alg_values_supported=["HS256", "none"],
        token_endpoint_auth_signing_alg_values_supported=["none"],
        introspection_endpoint_auth_methods_supported=7,
        signed_metadata="not.a.jwt",
        userinfo_endpoint="file:///etc/passwd",
        foo={"bar": []},
    )
    for name in ("issuer", "jwks_uri", "token_endpoint", "introspection_endpoint"):
        assert getattr(more, name) == getattr(plain, name)
    assert more.raw["foo"] == {"bar": []}
    assert repr(more) == repr(plain)


ENDPOINTS = ("jwks_uri", "token_endpoint", "introspection_endpoint")


@pytest.mark.rule("A-10")
@pytest.mark.parametrize("name", ENDPOINTS)
def test_endpoints_are_read(name):
    for url in (ISS + "/x", "https://elsewhere.example/x?tenant=a", "https://8.8.8.8/x", "https://[2606:4700::1111]/x"):
        found = metadata(**{name: url})
        assert {other: getattr(found, other) for other in ENDPOINTS} == dict.fromkeys(ENDPOINTS) | {name: url}
    assert getattr(metadata(ISS, **{name: None}), name) is None
    assert getattr(metadata(), name) is None


@pytest.mark.rule("A-10", "X-55")
@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://as.example/x", "cleartext"),
        ("file:///etc/passwd", "not an https URL"),
        ("gopher://as.example/x", "not an https URL"),
        ("unix:/var/run/docker.sock", "not an https URL"),
        ("ldap://as.example/x", "not an https URL"),
        ("/keys", "not an https URL"),
        ("//as.example/keys", "not an https URL"),
        ("", "not an https URL"),
        ("https://evil.example\\@as.example/x", "credentials"),
        ("https://as.example@evil.example/x", "credentials"),
        ("https://as.example/x#y", "fragment"),
        ("https://as.example/x\n", "not an https URL"),
        (7, "a URL is a string, not int"),
        (0, "a URL is a string, not int"),
        (False, "a URL is a string, not bool"),
        (["https://as.example/x"], "a URL is a string, not list"),
        ({}, "a URL is a string, not dict"),
    ],
    ids=ascii,
)
def test_an_endpoint_that_must_not_be_called_spoils_the_document(name, url, message):
    with pytest.raises(MalformedMetadata, match=f"in the metadata, {name}: .*{message}"):
        metadata(**{name: url})


INTERNAL = [
    "localhost", "LOCALHOST", "localhost.", "x.localhost", "X.localhost.", "127.0.0.1", "127.1.2.3", "127.0.0.1.",
    "[::1]", "10.0.0.5", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
    "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
    "[::ffff:a9fe:a9fe]", "2130706433", "0x7f000001", "0x7F.1", "0177.0.0.1", "127.1", "10.1", "127.0.0.1.1",
    "1.2.3.4.5", "017700000001", "0",
]  # fmt: skip


@pytest.mark.rule("X-55")
@pytest.mark.parametrize("host", INTERNAL)
def test_an_issuer_elsewhere_does_not_lead_to_an_internal_address(host):
    with pytest.raises(MalformedMetadata, match="in the metadata, jwks_uri points to an internal address"):
        metadata(jwks_uri=f"https://{host}/keys")
    with pytest.raises(MalformedMetadata):
        metadata(jwks_uri=f"http://{host}/keys")


@pytest.mark.parametrize(
    ("issuer", "uri"),
    [
        ("http://localhost:8000", "http://localhost:8001/keys"),
        ("http://localhost:8000", "http://127.0.0.1:8000/keys"),
        ("http://127.0.0.1:8000", "http://[::1]:8000/keys"),
        ("https://10.0.0.5", "https://10.0.0.5:8443/keys"),
        ("https://as.internal", "https://as.internal./keys"),
        ("https://as.internal.", "https://as.internal/keys"),
        ("https://[fc00::1]", "https://[fc00::1]/keys"),
    ],
)
def test_an_issuer_that_is_internal_itself_may_name_its_own_host(issuer, uri):
    assert metadata(issuer, jwks_uri=uri).jwks_uri == uri


@pytest.mark.rule("X-55")
@pytest.mark.parametrize(
    ("issuer", "uri"),
    [
        ("http://localhost:8000", "https://10.0.0.5/keys"),
        ("https://10.0.0.5", "https://10.0.0.6/keys"),
        ("https://10.0.0.5", "https://127.0.0.1/keys"),
        ("accounts.example", "https://10.0.0.5/keys"),
        ("https://[::1", "https://127.0.0.1/keys"),  # an issuer need not be a URL where metadata_url is set
    ],
)
def test_an_issuer_that_is_internal_itself_does_not_lead_to_others(issuer, uri):
    with pytest.raises(MalformedMetadata, match="internal address"):
        metadata(issuer, jwks_uri=uri)


@pytest.mark.rule("B-50")
def test_credentials_in_an_endpoint_are_not_repeated():
    with pytest.raises(MalformedMetadata) as caught:
        metadata(jwks_uri="http://api:sg-secret-1@as.example")
    assert "sg-secret" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NEARLY = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "https://", "http://", "https://[", "//"]),
    st.text(max_size=9),
    st.sampled_from(["", "/x", "]", ":9"]),
)


@given(st.binary(max_size=40) | st.dictionaries(st.sampled_from(["issuer", *ENDPOINTS]), JSON | NEARLY).map(json.dumps))
def test_any_document_is_metadata_or_malformed(document):
    encoded = document if isinstance(document, bytes) else document.encode()
    for text in (encoded, encoded.replace(b"{", b'{"issuer":"https://as.example",', 1)):
        try:
            found = judge_metadata(text, ISS)
        except MalformedMetadata:
            continue
        assert found.issuer == ISS
        for name in ENDPOINTS:
            assert (getattr(found, name) or "https://").startswith("https://")
