"""The places of the metadata of an authorization server, and the checks of the document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.spec.discovery import MalformedMetadata, Metadata, metadata_urls, parse_metadata

ISS = "https://as.example"
OAUTH, OPENID = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"


def metadata(issuer: str = ISS, **members: Any) -> Metadata:
    return parse_metadata(json.dumps({"issuer": issuer, **members}).encode(), issuer)


# -- the place of the document


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
def test_metadata_urls_are_tried_in_order(issuer, urls):
    assert list(metadata_urls(issuer)) == urls


# -- which issuer the document is about


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
        MalformedMetadata, match=r"but 'https://as[.]example' is configured; they must be exactly equal"
    ):
        parse_metadata(document, ISS)
    with pytest.raises(MalformedMetadata, match="the issuer in the metadata is NoneType"):
        parse_metadata(b"{}", ISS)


@pytest.mark.rule("A-06")
def test_issuer_names_are_compared_without_normalisation():
    decomposed, composed = "https://as.example/cafe\u0301", "https://as.example/caf\u00e9"
    with pytest.raises(MalformedMetadata):
        parse_metadata(json.dumps({"issuer": decomposed}).encode(), composed)


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
        parse_metadata(document, ISS)


# -- the members of the document


@pytest.mark.rule("A-09", "A-11", "A-21")
def test_unused_members_have_no_effect():
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
        (7, "must be a URL, a string, not int"),
        (0, "must be a URL, a string, not int"),
        (False, "must be a URL, a string, not bool"),
        (["https://as.example/x"], "must be a URL, a string, not list"),
        ({}, "must be a URL, a string, not dict"),
    ],
    ids=ascii,
)
def test_document_with_a_forbidden_endpoint_url_is_refused(name, url, message):
    with pytest.raises(MalformedMetadata, match=f"in the metadata, {name}: .*{message}"):
        metadata(**{name: url})


INTERNAL = [
    "localhost", "LOCALHOST", "localhost.", "x.localhost", "X.localhost.", "127.0.0.1", "127.1.2.3", "127.0.0.1.",
    "[::1]", "10.0.0.5", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
    "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]",
    "[::ffff:a9fe:a9fe]", "2130706433", "0x7f000001", "0x7F.1", "0177.0.0.1", "127.1", "10.1", "127.0.0.1.1",
    "1.2.3.4.5", "017700000001", "0",
    # IPv4 special-purpose addresses of the IANA registry, with the first and last address of the important blocks
    "0.1.2.3", "100.127.255.254", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.31.196.1",
    "192.52.193.1", "192.88.99.1", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "254.1.1.1",
    # metadata services of clouds, also those outside the registry
    "168.63.129.16", "100.100.100.200", "192.0.0.192", "[fd00:ec2::254]",
    # IPv6 that embeds IPv4, public ones too: mapped, compatible, SIIT, NAT64, local NAT64, 6to4, Teredo, ISATAP
    "[::ffff:8.8.8.8]", "[::127.0.0.1]", "[::8.8.8.8]", "[::ffff:0:127.0.0.1]", "[::ffff:0:8.8.8.8]",
    "[64:ff9b::a9fe:a9fe]", "[64:ff9b::8.8.8.8]", "[64:ff9b:1::a00:1]", "[2002:a9fe:a9fe::1]", "[2002:808:808::1]",
    "[2001:0:53aa:64c::1]", "[2606:4700::5efe:a00:1]", "[2606:4700::200:5efe:a00:1]",
    # other IPv6 special-purpose addresses
    "[100::1]", "[100:0:0:1::1]", "[2001:1::1]", "[2001:2::1]", "[2001:3::1]", "[2001:4:112::1]", "[2001:10::1]",
    "[2001:20::1]", "[2001:30::1]", "[2001:db8::1]", "[2620:4f:8000::1]", "[3ffe::1]", "[3fff::1]", "[5f00::1]",
    "[fec0::1]", "[feff::1]", "[fdff::1]", "[febf::1]", "[ff02::1]", "[ff0e::1]", "[4000::1]", "[::2]",
    "[2606:4700::1111%25eth0]",
    # special-use names: RFC 6761, 6762, 7686, 8375, 8880, 9476, 9665
    "x.local", "x.LOCAL.", "x.home.arpa", "1.0.0.10.in-addr.arpa", "ipv4only.arpa", "resolver.arpa", "x.service.arpa",
    "x.invalid", "x.onion", "x.alt", "a.b.localhost", "localhost..",
    # names of private networks: ICANN's, and those of operating systems, containers and clusters
    "metadata.google.internal", "host.docker.internal", "instance-data.ec2.internal", "x.corp", "x.home", "x.mail",
    "x.lan", "x.intranet", "x.private", "localhost.localdomain", "localhost6.localdomain6", "kubernetes.default",
    "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "x.svc", "x.pod", "x.consul",
    # a single label is resolved in the local network only
    "ip6-localhost", "ip6-loopback", "broadcasthost", "metadata", "keycloak", "com", "kubernetes",
    # invalid names
    "local%68ost", "127%2e0%2e0%2e1", "a..b.com", "a.0x7f",
]  # fmt: skip


@pytest.mark.rule("X-55")
@pytest.mark.parametrize("host", INTERNAL)
def test_metadata_of_a_public_issuer_must_not_name_internal_hosts(host):
    with pytest.raises(MalformedMetadata, match=r"in the metadata, jwks_uri points to an internal address .*host"):
        metadata(jwks_uri=f"https://{host}/keys")
    with pytest.raises(MalformedMetadata):
        metadata(jwks_uri=f"http://{host}/keys")


@pytest.mark.parametrize(
    "host",
    [
        "as.example", "as.example.com", "keys.example", "as.test", "x.co", "xn--bcher-kva.example", "as.internal.com",
        "local.example", "8.8.8.8.example", "a_b.example", "as.example.", "1.1.1.1", "9.9.9.9", "100.63.255.255",
        "100.128.0.1", "172.15.1.1", "172.32.0.1", "168.63.129.15", "192.0.1.1", "198.17.1.1", "223.1.1.1",
        "[2606:4700::1111]", "[2001:4860:4860::8888]", "[2a00:1450::1]", "[2400:cb00::1]", "[2001:200::1]",
    ],
)  # fmt: skip
def test_public_hosts_are_public(host: str):
    assert metadata(jwks_uri=f"https://{host}/keys").jwks_uri == f"https://{host}/keys"


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        (("keys.corp.internal",), "keys.corp.internal"),
        (("keys.corp.internal",), "KEYS.corp.internal."),
        (("10.0.0.6",), "10.0.0.6:8443"),
        (("fc00::1",), "[fc00:0::1]"),
        (("kubernetes.default.svc",), "kubernetes.default.svc"),
        (("::ffff:10.0.0.1",), "[::ffff:10.0.0.1]"),
    ],
)
def test_internal_hosts_are_accepted_if_configured(allowed: tuple[str, ...], host: str):
    document = json.dumps({"issuer": ISS, "jwks_uri": f"https://{host}/k"}).encode()
    assert parse_metadata(document, ISS, allowed).jwks_uri == f"https://{host}/k"
    for other in ("https://x.keys.corp.internal/k", "https://10.0.0.7/k", "https://internal/k", "https://[fc00::2]/k"):
        with pytest.raises(MalformedMetadata, match="add the host to internal_hosts"):
            parse_metadata(json.dumps({"issuer": ISS, "jwks_uri": other}).encode(), ISS, allowed)
    with pytest.raises(MalformedMetadata, match="cleartext"):  # Only that host is allowed.
        parse_metadata(json.dumps({"issuer": ISS, "jwks_uri": f"http://{host}/k"}).encode(), ISS, allowed)


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
        ("https://[fc00::1]", "https://[FC00:0:0::1]/keys"),
        ("https://keycloak:8443", "https://keycloak:9443/keys"),
    ],
)
def test_internal_issuer_may_name_its_own_host(issuer, uri):
    assert metadata(issuer, jwks_uri=uri).jwks_uri == uri


@pytest.mark.rule("X-55")
@pytest.mark.parametrize(
    ("issuer", "uri"),
    [
        ("http://localhost:8000", "https://10.0.0.5/keys"),
        ("https://10.0.0.5", "https://10.0.0.6/keys"),
        ("https://10.0.0.5", "https://127.0.0.1/keys"),
        ("accounts.example", "https://10.0.0.5/keys"),
        ("https://[::1", "https://127.0.0.1/keys"),  # An issuer need not be a URL if metadata_url is set.
    ],
)
def test_internal_issuer_must_not_name_other_internal_hosts(issuer, uri):
    with pytest.raises(MalformedMetadata, match="internal address"):
        metadata(issuer, jwks_uri=uri)


@pytest.mark.rule("B-50")
def test_error_about_an_endpoint_does_not_repeat_credentials_in_its_url():
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
def test_any_document_is_parsed_or_reported_as_malformed(document):
    encoded = document if isinstance(document, bytes) else document.encode()
    for text in (encoded, encoded.replace(b"{", b'{"issuer":"https://as.example",', 1)):
        try:
            found = parse_metadata(text, ISS)
        except MalformedMetadata:
            continue
        assert found.issuer == ISS
        for name in ENDPOINTS:
            assert (getattr(found, name) or "https://").startswith("https://")
