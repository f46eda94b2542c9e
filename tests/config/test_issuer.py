"""Issuer settings that cannot work or would accept unintended tokens are refused with their name and the fix."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithms import USABLE
from scopeguard import Guard
from scopeguard.config.algorithms import DEFAULT_ALGORITHMS, SUPPORTED_ALGORITHMS
from scopeguard.config.checks import media_type
from scopeguard.config.hosts import is_loopback
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer, ScopeClaim, ScopeForm
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.leeway import MAX_LEEWAY
from scopeguard.config.token_sources import StrayQueryToken, TokenSource, TokenSources, check_sources
from scopeguard.config.urls import check_url
from scopeguard.errors import ConfigurationError

ISS = "https://as.example"
RES = "https://api.example/v1"


def issuer(url: Any = ISS, **settings: Any) -> Issuer:
    return Issuer(url, **{"audience": RES, **settings})


def expect_error(message: str) -> Any:
    return pytest.raises(ConfigurationError, match=message)


# -- URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://as.example",
        "https://as.example/",
        "https://as.example:8443/t1/jwks?tenant=a&b=%20c",
        "https://AS.example",
        "HTTPS://as.example",
        "https://[2001:db8::1]/jwks",
        "https://as.example/@tenant/keys",
        "http://localhost:8000",
        "http://LOCALHOST/keys",
        "http://127.0.0.1/keys",
        "http://127.3.2.1",
        "http://[::1]:9000/keys",
        "http://[::ffff:127.0.0.1]/keys",
    ],
)
def test_https_or_loopback_url_is_accepted_unchanged(url):
    assert check_url(url, "jwks_uri") == url


NO_URLS = [
    ("http://as.example", "cleartext; use https"),
    ("http://localhost.evil.example", "cleartext"),
    ("http://127.0.0.1.evil.example", "cleartext"),
    ("http://127.0.0.evil", "cleartext"),
    ("http://localhost.", "cleartext"),
    ("http://127.1", "cleartext"),
    ("http://2130706433", "cleartext"),
    ("http://0.0.0.0", "cleartext"),
    ("http://10.0.0.1", "cleartext"),
    ("http://128.0.0.1", "cleartext"),
    ("http://[::]", "cleartext"),
    ("http://127.0.0.\u0661", "is not an https URL"),
    ("ftp://as.example", "is not an https URL"),
    ("file:///etc/passwd", "is not an https URL"),
    ("gopher://as.example", "is not an https URL"),
    ("unix:/run/as.sock", "is not an https URL"),
    ("javascript:alert(1)", "is not an https URL"),
    ("as.example", "is not an https URL"),
    ("//as.example", "is not an https URL"),
    ("https:/as.example", "is not an https URL"),
    ("https://", "is not an https URL"),
    ("https:///keys", "is not an https URL"),
    ("https://:443/keys", "is not an https URL"),
    ("", "is not an https URL"),
    (" https://as.example", "is not an https URL"),
    ("https://as.example\n", "is not an https URL"),
    ("https://as.exa\tmple", "is not an https URL"),
    ("https://as.example/\x00", "is not an https URL"),
    ("https://\u00e4s.example", "is not an https URL"),
    ("https://evil.example\\.as.example/", "is not an https URL"),
    ("https://as.example/\\keys", "is not an https URL"),
    ("https://as.example/<keys>", "is not an https URL"),
    ("https://as.example:port", "not a URL"),
    ("https://as.example:99999", "not a URL"),
    ("https://[::1", "not a URL"),
    ("https://user@as.example", "the URL must not contain credentials"),
    ("https://as.example#keys", "must not have a fragment"),
    ("https://as.example#", "must not have a fragment"),
]


@pytest.mark.rule("A-07", "X-87")
@pytest.mark.parametrize(("url", "message"), NO_URLS, ids=[ascii(url) for url, _ in NO_URLS])
def test_any_other_url_is_refused(url, message):
    with expect_error(f"jwks_uri: .*{message}"):
        check_url(url, "jwks_uri")
    with expect_error("jwks_uri: "):
        issuer(jwks_uri=url)
    with expect_error("metadata_url: "):
        issuer(metadata_url=url)
    with expect_error("issuer"):
        issuer(url)


def test_url_without_a_scheme_is_refused_with_the_form_that_is_needed():
    with expect_error("issuer: the value is not an https URL; write it with its scheme, as in https://host/path"):
        issuer("as.example")
    with expect_error("jwks_uri: 'ftp://as.example' is not an https URL; write it as in https://host/path"):
        issuer(jwks_uri="ftp://as.example")


DOCUMENTS = [
    ("https://as.example/.well-known/openid-configuration", ", probably 'https://as.example'."),
    ("https://as.example/t/1/.well-known/openid-configuration", ", probably 'https://as.example/t/1'."),
    ("https://as.example/.well-known/oauth-authorization-server", ", probably 'https://as.example'."),
    ("https://as.example/.well-known/oauth-authorization-server/t/1", ", probably 'https://as.example/t/1'."),
    ("https://as.example/.well-known/jwks.json", "in iss. metadata_url takes"),
]


@pytest.mark.parametrize(("url", "hint"), DOCUMENTS, ids=[url for url, _ in DOCUMENTS])
def test_url_of_a_document_is_not_an_issuer_identifier(url, hint):
    """Fault: the URL of metadata or keys, which people copy from a browser, in place of the identifier."""
    with expect_error(f"issuer: '{re.escape(url)}' is the URL of a document; .*{re.escape(hint)}"):
        issuer(url)


def test_identifier_may_look_like_a_document_if_no_url_is_derived_from_it():
    url = "https://as.example/.well-known/openid-configuration"
    assert issuer(url, jwks_uri="https://as.example/jwks").url == url


@pytest.mark.parametrize("url", [7, None, b"https://as.example", ["https://as.example"], {}, True], ids=ascii)
def test_url_must_be_a_string(url):
    with expect_error(f"jwks_uri: must be a URL, a string, not {type(url).__name__}"):
        check_url(url, "jwks_uri")


@pytest.mark.rule("B-50")
@pytest.mark.parametrize(
    "url",
    [
        "https://api:sg-secret-1@as.example",
        "http://api:sg-secret-1@as.example",
        "ftp://api:sg-secret-1@as.example",
        "https://api:sg-secret-1@",
        "https:/api:sg-secret-1@as.example",
        "api:sg-secret-1@as.example",
        "https://api:sg-secret-1@as.example\n",
    ],
    ids=range(7),
)
def test_an_error_does_not_repeat_the_credentials_in_a_url(url):
    with expect_error("must not contain credentials") as caught:
        check_url(url, "jwks_uri")
    assert "sg-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.rule("A-07")
@pytest.mark.parametrize("url", [ISS + "?x", ISS + "?", ISS + "/?a=b", ISS + "#y", ISS + "/t#"])
def test_issuer_with_discovery_must_have_no_query_and_no_fragment(url):
    with expect_error("issuer: .* must not have a query or fragment"):
        issuer(url)


@pytest.mark.rule("A-07", "X-87")
def test_only_an_issuer_without_discovery_may_have_a_name_that_is_not_a_url():
    with expect_error("cleartext"):
        issuer("http://as.example")
    places: list[dict[str, Any]] = [
        {"jwks_uri": ISS + "/k"},
        {"jwks_file": "k.json"},
        {"keys": {"keys": []}},
        {"metadata_url": ISS},
    ]
    for elsewhere in places:
        for name in ("http://as.example", "accounts.example", "urn:as"):
            assert issuer(name, **elsewhere).url == name


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1"],
)
def test_loopback_names_are_recognised(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "::", "0.0.0.0", "127.0.0", "127.0.0.1.2", "127.0.0.x", "127...", "127.0.0.\u0661", "1.127.0.1", "localhost.x",
     "127.999.999.999", "127.0.0.256", "127.0.0.01", "127.0.0.1:80", "::ffff:10.0.0.1", "::ffff:127.0.0.256",
     "::127.0.0.1", "::1%as.example", "[::1]", "::2", "unix"],
    ids=ascii,
)  # fmt: skip
def test_nothing_else_is_loopback(host):
    assert not is_loopback(host)


# -- the issuer and its keys


@pytest.mark.rule("X-87")
@pytest.mark.parametrize("url", ["", None, 7, b"https://as.example", [ISS]], ids=ascii)
def test_issuer_must_have_a_name(url):
    with expect_error("issuer: must be the URL of the authorization server"):
        issuer(url)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"keys": {"keys": []}, "jwks_uri": ISS}, "keys and jwks_uri exclude each other; keep one", id="two"
        ),
        pytest.param({"jwks_file": "k", "jwks_uri": ISS}, "jwks_file and jwks_uri exclude each other", id="two others"),
        pytest.param(
            {"metadata_url": ISS, "jwks_uri": ISS}, "jwks_uri and metadata_url exclude", id="metadata beside a set"
        ),
        pytest.param({"keys": {"kty": "RSA"}}, "keys: must be a JWK Set, as in", id="one key"),
        pytest.param({"keys": {"keys": {}}}, "keys: must be a JWK Set, as in", id="an object of keys"),
        pytest.param({"keys": [{"kty": "RSA"}]}, "keys: must be a JWK Set, as in", id="a list of keys"),
        pytest.param({"jwks_file": ""}, "jwks_file: must be the path of a file", id="no path"),
        pytest.param({"jwks_file": 7}, "jwks_file: must be the path of a file", id="a number"),
    ],
)
def test_keys_must_come_from_exactly_one_source(settings, message):
    with expect_error(message):
        issuer(**settings)


# -- the audience


@pytest.mark.rule("X-38", "X-87")
@pytest.mark.parametrize(
    ("audience", "message"),
    [
        pytest.param((), "issuer 'https://as.example': audience is missing", id="none"),
        pytest.param([], "audience is missing", id="an empty list"),
        pytest.param("", "audience: '' is not an identifier", id="empty"),
        pytest.param([RES, ""], "audience: '' is not an identifier", id="empty beside one"),
        pytest.param("*", r"audience: '\*' is not an identifier; audiences are compared exactly", id="wildcard"),
        pytest.param("https://api.example/*", "is not an identifier", id="wildcard at the end"),
        pytest.param([RES, "https://*.example"], "is not an identifier", id="wildcard inside"),
        pytest.param(7, "audience: must be a string or a list of strings, not int", id="a number"),
        pytest.param([RES, None], "audience: every item must be a string, not NoneType", id="None beside one"),
        pytest.param(RES.encode(), "audience: must be a string or a list of strings, not bytes", id="bytes"),
    ],
)
def test_audience_must_be_a_non_empty_string(audience, message):
    with expect_error(message):
        issuer(audience=audience)


@pytest.mark.rule("X-87")
def test_audience_is_required_of_the_issuer_or_of_the_guard():
    with pytest.raises(ConfigurationError, match="audience is missing; name what its tokens for this API carry in aud"):
        Guard(Issuer(ISS))
    assert Guard(Issuer(ISS), resource=RES).issuers == (Issuer(ISS, audience=RES),)


def test_audiences_may_be_several():
    assert issuer(audience=RES).audiences == frozenset((RES,))
    for several in ([RES, "api"], (name for name in (RES, "api"))):
        assert issuer(audience=several).audiences == frozenset((RES, "api"))


@pytest.mark.rule("X-87")
def test_any_audience_without_another_binding_is_refused_with_advice():
    with expect_error("ANY_AUDIENCE_DANGEROUSLY needs expected_claims with the claims that bind a token"):
        issuer(audience=ANY_AUDIENCE_DANGEROUSLY)
    bound = issuer(audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"tid": "t1"})
    assert bound.audiences is None


# -- algorithms and types


@pytest.mark.rule("J-39", "P-21", "X-10", "X-11", "X-87")
@pytest.mark.parametrize("algorithms", ["HS256", "HS384", "HS512", ["RS256", "HS256"], ["HS256", "RS256"]], ids=str)
@pytest.mark.parametrize(
    "keys", [{}, {"jwks_uri": ISS + "/k"}, {"keys": {"keys": []}}], ids=["found", "fetched", "given"]
)
def test_symmetric_algorithms_are_refused(algorithms, keys):
    with expect_error("is symmetric, so every verifier could forge tokens; use a public-key algorithm"):
        issuer(algorithms=algorithms, **keys)


@pytest.mark.rule("J-10", "J-11", "X-87")
@pytest.mark.parametrize(
    ("algorithms", "message"),
    [
        pytest.param((), "algorithms: must not be empty", id="none at all"),
        pytest.param("none", "algorithms: 'none' is not supported; use one of ES256, ", id="none"),
        pytest.param(["RS256", "NONE"], "algorithms: 'NONE' is not supported", id="none in capitals"),
        pytest.param("rs256", "algorithms: 'rs256' is not supported", id="another case"),
        pytest.param("RS256 ", "algorithms: 'RS256 ' is not supported", id="a space behind"),
        pytest.param("", "algorithms: '' is not supported", id="empty"),
        pytest.param("RS1", "is not supported", id="unknown"),
        pytest.param("ml-dsa-65", "is not supported", id="ML-DSA in another case"),
        pytest.param("ML-DSA-65-ES256", "is not supported", id="of tomorrow"),
        pytest.param([None], "algorithms: every item must be a string, not NoneType", id="None"),
        pytest.param(7, "algorithms: must be a string or a list of strings, not int", id="a number"),
    ],
)
def test_an_unknown_algorithm_is_refused(algorithms, message):
    with expect_error(message):
        issuer(algorithms=algorithms)


@pytest.mark.rule("J-13", "J-39", "P-21")
def test_the_algorithms_are_public_key_ones_and_rs256_is_among_those_of_the_default():
    assert issuer().algorithms == DEFAULT_ALGORITHMS == ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
    assert not [name for name in SUPPORTED_ALGORITHMS if name.lower() == "none" or name.startswith("HS")]
    for algorithm in USABLE:
        assert issuer(algorithms=algorithm).algorithms == (algorithm,)


@pytest.mark.rule("J-43", "P-02")
@pytest.mark.parametrize(
    ("typ", "kind"),
    [
        ("at+jwt", "at+jwt"),
        ("AT+JWT", "at+jwt"),
        ("application/at+jwt", "at+jwt"),
        ("Application/AT+jwt", "at+jwt"),
        ("text/at+jwt", "text/at+jwt"),
        ("application/x/at+jwt", "application/x/at+jwt"),
        ("application/application/at+jwt", "application/application/at+jwt"),
        ("at+jwt; charset=utf-8", "at+jwt; charset=utf-8"),
        (" at+jwt", " at+jwt"),
        ("", ""),
        ("\u212aid", "\u212aid"),
        ("\u0130d", "\u0130d"),
    ],
    ids=ascii,
)
def test_types_are_compared_as_media_types_in_ascii(typ, kind):
    assert media_type(typ) == kind


@pytest.mark.parametrize(
    ("typ", "types"),
    [
        ("at+jwt", {"at+jwt"}),
        ("Application/AT+JWT", {"at+jwt"}),
        (["at+jwt", None], {"at+jwt", None}),
        ((None,), {None}),
        (iter(["a", None, "b"]), {"a", "b", None}),
    ],
    ids=["one", "as a media type", "or none", "none", "an iterator"],
)
def test_the_accepted_types(typ, types):
    assert issuer(typ=typ).types == types


def test_internal_hosts_are_normalised():
    hosts = ["KEYS.internal.", "10.0.0.6", "[FC00:0::1]", "keycloak", "keys.internal", "::ffff:10.0.0.1"]
    read_back = ("keys.internal", "10.0.0.6", "fc00::1", "keycloak", "::ffff:10.0.0.1")
    assert issuer(internal_hosts=hosts).internal_hosts == read_back
    assert issuer(internal_hosts="keycloak").internal_hosts == ("keycloak",)


@pytest.mark.parametrize(
    "host", ["", ".", "*.internal", "https://as.lan", "as.lan:8443", "as.lan/x", "a b", "b\u00fc.lan", 7]
)
def test_invalid_internal_hosts_are_refused(host):
    with expect_error("internal_hosts: "):
        issuer(internal_hosts=[host])


@pytest.mark.parametrize(
    ("typ", "message"),
    [
        pytest.param((), "typ: must not be empty; name the accepted types", id="none named"),
        pytest.param(None, "typ: must be a type or a list, as in", id="None by itself"),
        pytest.param(7, "typ: must be a type or a list, as in", id="a number"),
        pytest.param([7], "typ: every item must be a string, not int", id="a list of numbers"),
    ],
)
def test_invalid_types_are_refused(typ, message):
    with expect_error(message):
        issuer(typ=typ)


# -- times


@pytest.mark.rule("J-53", "X-87")
@pytest.mark.parametrize("leeway", [300.1, 3600, -1, -0.001], ids=str)
def test_leeway_of_more_than_five_minutes_is_refused(leeway):
    with expect_error(r"leeway: must be from 0 to 300 seconds, not "):
        issuer(leeway=leeway)


@pytest.mark.rule("J-53")
def test_the_leeway_is_30_seconds_unless_set_and_300_at_most():
    assert issuer().leeway == 30
    assert MAX_LEEWAY == 300
    assert [issuer(leeway=leeway).leeway for leeway in (0, 60, 300)] == [0, 60, 300]


NUMBERS = [field.name for field in dataclasses.fields(KeySetPolicy) if field.name not in ("content_types", "padded")]
NO_NUMBERS = ["30", None, True, math.nan, math.inf, -math.inf, [30]]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=ascii)
def test_times_and_sizes_must_be_numbers(value):
    message = ": must be a (finite )?number, not "
    with expect_error("leeway" + message):
        issuer(leeway=value)
    if value is not None:
        with expect_error("max_lifetime" + message):
            issuer(max_lifetime=value)
    for name in NUMBERS:
        with expect_error(f"key_set.{name}{message}"):
            KeySetPolicy(**{name: value})
    for name in ("max_token_bytes", "max_form_bytes", "max_parameters", "form_timeout"):
        with expect_error(name + message):
            TokenSources(**{name: value})


@pytest.mark.parametrize("value", [0, -1, -0.5], ids=str)
def test_times_and_sizes_must_be_positive(value):
    with expect_error("max_lifetime: .*must be greater than 0"):
        issuer(max_lifetime=value)
    for name in NUMBERS:
        with expect_error(f"key_set.{name}: .*must be greater than 0"):
            KeySetPolicy(**{name: value})
    for name in ("max_token_bytes", "max_form_bytes", "max_parameters", "form_timeout"):
        with expect_error(f"{name}: .*must be greater than 0"):
            TokenSources(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"ttl": 30}, "min_ttl <= ttl <= max_ttl <= max_stale", id="ttl below min"),
        pytest.param({"ttl": 7200}, "min_ttl <= ttl <= max_ttl <= max_stale", id="ttl above max"),
        pytest.param({"max_ttl": 100_000}, "min_ttl <= ttl <= max_ttl <= max_stale", id="fresh for longer than stale"),
        pytest.param(
            {"refresh_ahead": 1.1},
            "key_set.refresh_ahead: must be a fraction of the lifetime, at most 1, not 1.1",
            id="ahead",
        ),
    ],
)
def test_contradictory_times_of_a_key_set_are_refused(settings, message):
    with expect_error(message):
        KeySetPolicy(**settings)


@pytest.mark.parametrize("types", ["text", "text/plain; charset=utf-8", "", ["text/plain", "*"], 7, None, [7]], ids=str)
def test_content_types_of_a_key_set_must_be_media_types(types: Any):
    with expect_error("key_set.content_types: "):
        KeySetPolicy(content_types=types)
    policy = KeySetPolicy(content_types=("Application/Octet-Stream", "text/plain"))
    assert policy.content_types == ("application/octet-stream", "text/plain")


@pytest.mark.parametrize("padded", ["true", 1, None])
def test_padded_must_be_a_boolean(padded: Any):
    with expect_error("key_set.padded: must be true or false"):
        KeySetPolicy(padded=padded)


# -- claims


@pytest.mark.parametrize("name", ["expected_claims", "expected_headers"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(["tid"], ": must be a table of names and values, not list", id="a list"),
        pytest.param({"tid": []}, ": every name needs at least one accepted value", id="no value"),
        pytest.param({"tid": 7}, r"\['tid'\]: every item must be a string, not int", id="a number"),
        pytest.param({"tid": [7]}, r"\['tid'\]: every item must be a string, not int", id="a number in a list"),
        pytest.param({"tid": None}, r"\['tid'\]: every item must be a string, not NoneType", id="None"),
    ],
)
def test_expected_members_need_values(name, value, message):
    with expect_error(name + message):
        issuer(**{name: value})


def test_a_claim_may_be_expected_to_be_true_and_a_header_may_not():
    assert issuer(expected_claims={"verified": True}).expected_claims == {"verified": frozenset((True,))}
    with expect_error(r"expected_headers\['verified'\]: every item must be a string, not bool"):
        issuer(expected_headers={"verified": True})


def test_expected_values_may_be_one_or_several():
    policy = issuer(expected_claims={"tid": "t1", "ver": iter(["1", "2"])}, expected_headers={"x": ("y",)})
    assert policy.expected_claims == {"tid": {"t1"}, "ver": {"1", "2"}}
    assert policy.expected_headers == {"x": {"y"}}


NAMES_OF_CLAIMS = (
    "required_claims", "any_claims", "forbidden_claims", "forbidden_headers", "role_claims", "client_id_claims",
    "subject_claims", "audience_claims",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES_OF_CLAIMS)
def test_names_of_claims_must_be_strings(name):
    assert getattr(issuer(**{name: "one"}), name) == ("one",)
    assert getattr(issuer(**{name: iter(["one", "two"])}), name) == ("one", "two")
    with expect_error(f"{name}: every item must be a string, not int"):
        issuer(**{name: ["one", 7]})
    with expect_error(f"{name}: must be a string or a list of strings, not int"):
        issuer(**{name: 7})


def test_audience_claims_must_not_be_empty():
    with expect_error("audience_claims: must not be empty; name the claim with the audience"):
        issuer(audience_claims=())


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        pytest.param(["https://old.example"], "aliases: must be a table", id="a list"),
        pytest.param(
            {"https://old.example": "tid"}, r"aliases\['https://old.example'\]: must be a table", id="a string"
        ),
        pytest.param(
            {"https://old.example": {"tid": None}},
            r"aliases\[.*\]: every item must be a string, not NoneType",
            id="absent is equal",
        ),
        pytest.param(
            {"https://old.example": {"tid": ["t1"]}},
            r"aliases\[.*\]: every item must be a string, not list",
            id="several",
        ),
    ],
)
def test_alias_needs_claims_with_values(aliases, message):
    with expect_error(message):
        issuer(aliases=aliases)


def test_scope_claims_need_a_form():
    with expect_error(r"scope_claims: every item must be a ScopeClaim"):
        issuer(scope_claims=("scope",))
    with expect_error(r"scope_claims\['scp'\]: 'tab' is not one of 'space', 'list', 'space_or_list', 'comma'"):
        ScopeClaim("scp", "tab")
    assert ScopeClaim("scp", "list") == ScopeClaim("scp", ScopeForm.LIST)


@pytest.mark.parametrize("name", ["merge_scope_claims", "accept_id_tokens_dangerously"])
@pytest.mark.parametrize("value", ["false", "true", 1, 0, None], ids=ascii)
def test_switches_must_be_booleans(name, value):
    with expect_error(f"{name}: must be true or false, not {type(value).__name__}"):
        issuer(**{name: value})


@pytest.mark.rule("G-12")
def test_vocabulary_of_an_issuer_does_not_change():
    mine = {"write": ["read"]}
    policy = issuer(scope_prefix="api.", implies=mine)
    mine["write"].append("admin")
    assert policy.vocabulary.effective(["write"]) == {"write", "read", "api.write", "api.read"}
    once = issuer(implies={"write": iter(["read"])})
    assert once.vocabulary.effective(["write"]) == once.vocabulary.effective(["write"]) == {"write", "read"}
    with expect_error("implies"):
        issuer(implies={"write": "read"})
    with expect_error("scope_prefix"):
        issuer(scope_prefix="a b")


def test_dataclasses_replace_changes_one_setting():
    policy = issuer(implies={"a": iter("b")}, typ=iter([None, "at+jwt"]), audience=iter([RES]))
    again = dataclasses.replace(policy, leeway=0.0)
    assert (again.implies, again.types, again.audiences) == (policy.implies, policy.types, policy.audiences)


def test_repr_of_an_issuer_hides_its_keys():
    assert "sg-secret" not in repr(issuer(keys={"keys": [{"kty": "oct", "k": "sg-secret-1"}]}))


# -- token sources


@pytest.mark.rule("B-14", "B-16", "B-32")
def test_default_token_source_is_the_header():
    sources = TokenSources()
    assert sources.methods == {TokenSource.HEADER}
    assert sources.stray_query_token is StrayQueryToken.IGNORE
    assert (sources.max_token_bytes, sources.max_form_bytes, sources.max_parameters) == (16384, 65536, 1000)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        pytest.param((), r"name at least one place where a token may be sent, as in \[\"header\"\]", id="none"),
        pytest.param("header", r"write a list, as in \[\"header\"\], not one string", id="a string"),
        pytest.param(["cookie"], "'cookie' is not one of 'header', 'query', 'form'", id="a cookie"),
        pytest.param(["Header"], "'Header' is not one of", id="another case"),
        pytest.param(["header", None], "NoneType is not one of", id="None"),
    ],
)
@pytest.mark.rule("B-32")
def test_unknown_token_source_is_refused_with_a_list_of_the_known_ones(methods, message):
    with expect_error(re.escape("token_sources: ") + message):
        TokenSources(methods=methods)
    with expect_error(re.escape("token_sources: ") + message):
        TokenSources().with_methods(methods)
    with expect_error(re.escape("rule '/x': ") + message):
        check_sources(methods, "rule '/x'")


@pytest.mark.rule("B-15")
def test_query_source_with_stray_query_refusal_is_refused():
    with expect_error("stray_query_token = 'refuse' contradicts the token source 'query'; remove one"):
        TokenSources(methods=frozenset((TokenSource.QUERY,)), stray_query_token=StrayQueryToken.REFUSE)
    with expect_error("stray_query_token: 'drop' is not one of 'ignore', 'refuse'"):
        TokenSources(stray_query_token="drop")


@pytest.mark.rule("B-14", "B-15")
def test_route_may_have_other_sources_with_the_same_limits():
    strict = TokenSources(stray_query_token=StrayQueryToken.REFUSE, max_token_bytes=100, form_timeout=1.0)
    by_query = strict.with_methods(["query"])
    assert by_query == TokenSources(methods=frozenset((TokenSource.QUERY,)), max_token_bytes=100, form_timeout=1.0)
    assert strict.with_methods(["form"]).stray_query_token is StrayQueryToken.REFUSE


@given(st.text(st.characters()))
def test_any_text_as_a_url_is_accepted_or_a_configuration_error(text):
    for url in (text, "https://" + text, "http://localhost" + text):
        try:
            accepted = check_url(url, "here")
        except ConfigurationError:
            continue
        assert accepted == url
        assert url.isascii()
        assert url.isprintable()
        assert "@" not in url.split("/")[2]
