"""Each parser of untrusted bytes does work in proportion to its input; the table lists all of them.

Fault: a search that starts at many places and runs to the end from each of them, as one for the end of
a JSON string did with many quotes. 16 KB then cost as much as a thousand ordinary requests.
"""

from __future__ import annotations

import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from scopeguard import Guard, Issuer, any_of
from scopeguard.config.authzen import AuthZen
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.issuer import ScopeClaim
from scopeguard.config.mutual_tls import CertificateSource
from scopeguard.log_values import printable
from scopeguard.request import HeaderList, RequestView
from scopeguard.rules import PUBLIC, Rule, Rules
from scopeguard.rules.mcp import canonical_uri
from scopeguard.rules.prefix_removal import MountPoint, Prefixes, RoutedRules
from scopeguard.server.access_log import Entry
from scopeguard.server.forwarded_fields import Proxies
from scopeguard.spec import (
    api_key,
    authzen,
    certificate_fields,
    credentials,
    introspection,
    jwt,
    mcp,
    sender_constraint,
    spiffe,
    token_review,
    tokeninfo,
)  # fmt: skip
from scopeguard.spec.answers import is_json, lifetime
from scopeguard.spec.audience import check_audience
from scopeguard.spec.challenge_parser import parse_challenges
from scopeguard.spec.discovery import parse_metadata
from scopeguard.spec.dpop_client import read_nonce
from scopeguard.spec.jwks import parse_key_set
from scopeguard.spec.jws import decode_base64url
from scopeguard.spec.key_by_id import key_url, parse_public_key
from scopeguard.spec.request_uri import normalise_uri
from scopeguard.spec.response_headers import private_headers
from scopeguard.spec.retry_after import read_retry_after
from scopeguard.spec.scope_claims import granted_scopes
from scopeguard.spec.status_list import find_reference
from scopeguard.spec.strict_json import parse_object
from scopeguard.spec.subprotocol import token_from_subprotocols
from scopeguard.spec.token_endpoint import parse_token_response
from scopeguard.wsgi import decoded_path, strip_query_token
from work import Stepper, TooMuchWork, count_work

ISSUER: Final = Issuer("https://as.example", audience="https://api.example")
LISTS: Final = Issuer(
    "https://as.example", audience="https://api.example", scope_claims=(ScopeClaim("scope", "comma"), ScopeClaim("scp"))
)
DECISION_POINT: Final = AuthZen("https://pdp.example")
CANONICAL: Final = Issuer("https://as.example", audience="https://api.example", canonicalize_audience=True)
GUARD: Final = Guard(ISSUER, audit="off")
VOCABULARY: Final = ScopeVocabulary(prefix="https://api.example/", implies={"a": ["b", "c"], "b": ["d"]})
PROXIES: Final = Proxies(["10.0.0.0/8", "::1"])
RULES: Final = Rules(
    [
        Rule("/admin/{x}", any_of("admin")),
        Rule("/{a}.{b}-{c}/{d}", any_of("x")),
        Rule("/f/{a}:get", any_of("x")),
        Rule("/o/{name:segments}:open", any_of("read")),
        Rule("/o/{name:segments}/{x}/a/{more:segments}", any_of("read")),
        Rule("/{db}/{table}", any_of("read")),
        Rule("/{rest:path}", PUBLIC),
    ]
)
ROUTED: Final = RoutedRules(RULES, Prefixes(mounted=((MountPoint(), "/a"),), unknown=(MountPoint(),)))
MOUNTED: Final = RoutedRules(RULES, Prefixes(mounted=tuple((MountPoint(), own) for own in ("/a", "/z", "/z/zq"))))


def encode_segment(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


RS256: Final = encode_segment(b'{"alg":"RS256"}')


def as_text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("latin-1"))


def ask_the_guard(data: bytes, where: str) -> None:
    header = [(b"authorization", b"Bearer " + data)] if where == "header" else [(b"authorization", data)]
    GUARD.check(RequestView(method="GET", path="/x", headers=HeaderList(header)), None)


def as_members(data: bytes, *names: str) -> bytes:
    return json.dumps(dict.fromkeys(names, data.decode("latin-1"))).encode()


PARSERS: Final[dict[str, Callable[[bytes], object]]] = {
    # parts of requests
    "the Authorization field": lambda data: credentials.token_from_authorization([data], 1 << 20),
    "the token in the Authorization field": lambda data: credentials.token_from_authorization(
        [b"Bearer " + data], 1 << 20
    ),
    "a field of its own": lambda data: credentials.token_from_field([data], 1 << 20),
    "an API key": lambda data: api_key.key_from_field([data], "acme"),
    "the rest of an API key": lambda data: api_key.key_from_field([b"acme_" + data], "acme"),
    "the query": lambda data: credentials.token_from_parameters(
        data, max_bytes=1 << 20, max_parameters=1 << 20, source="query"
    ),
    "a token in the query": lambda data: credentials.token_from_parameters(
        b"access_token=" + data, max_bytes=1 << 20, max_parameters=1 << 20, source="query"
    ),
    "has_access_token": credentials.has_access_token,
    "without_access_token": credentials.without_access_token,
    "subprotocols": lambda data: token_from_subprotocols([data, data], 1 << 20),
    "a token among the subprotocols": lambda data: token_from_subprotocols([b"bearer, " + data], 1 << 20),
    "a form": lambda data: credentials.token_from_form(data, max_bytes=1 << 20, max_parameters=1 << 20),
    "a content type": lambda data: credentials.may_carry_form("POST", [data]),
    "strip_query_token": as_text(
        lambda text: strip_query_token({"QUERY_STRING": text, "RAW_URI": f"/?{text}", "REQUEST_URI": f"/?{text}"})
    ),
    "many fields": lambda data: HeaderList([(part, part) for part in data.split(b",")]).get_all("a"),
    "the guard, a token": lambda data: ask_the_guard(data, "header"),
    "the guard, a field": lambda data: ask_the_guard(data, "field"),
    # paths
    "a path": as_text(lambda text: RULES.find("GET", "/" + text)),
    "a path as sent": lambda data: RULES.find("GET", decoded_path({"PATH_INFO": "/a/b"}), b"/" + data),
    "a path as sent behind an origin": lambda data: RULES.find("GET", "/a/b", data + b"/a/b"),
    "a path as sent and decoded": as_text(
        lambda text: RULES.find("GET", "/o/" + text, b"/o/" + text.encode("latin-1").replace(b"a", b"%61"))
    ),
    "a path below a prefix": as_text(lambda text: ROUTED.find("GET", "/" + text, None, "/a")),
    "a path to an app that cannot be seen": as_text(lambda text: ROUTED.find("GET", "/a/" + text)),
    "a path to mounted apps": as_text(lambda text: MOUNTED.find("GET", "/z/zq/" + text)),
    "a path in the access log": as_text(lambda text: Entry(None, "GET", text).members(subjects=False)),
    # an MCP server
    "the name of a tool": mcp.decode_field,
    "the encoded name of a tool": lambda data: mcp.decode_field(b"=?base64?" + data + b"?="),
    "the version of the protocol": lambda data: mcp.read_fields([(b"mcp-protocol-version", data)]),
    "the charset of a message": lambda data: mcp.read_fields([(b"content-type", b"application/json; charset=" + data)]),
    "a JSON-RPC message": mcp.parse_message,
    "the URI of a resource": as_text(canonical_uri),
    "the host in the URI of a resource": as_text(lambda text: canonical_uri(f"https://{text}/a")),
    "the step-up of a decision point": as_text(
        lambda text: authzen.denial_of(
            authzen.Outcome(permits=False, context={"acr_values": [text], "max_age": 1}), DECISION_POINT
        )
    ),
    # proofs of possession
    "the URI of a proof": as_text(normalise_uri),
    "the host in the URI of a proof": as_text(lambda text: normalise_uri(f"https://{text}/a")),
    "the path in the URI of a proof": as_text(lambda text: normalise_uri(f"https://a.example/{text}")),
    "the key of a token": as_text(
        lambda text: sender_constraint.thumbprint_of({"cnf": {"jkt": text}}),
    ),
    "DPoP-Nonce": as_text(lambda text: read_nonce([text])),
    "a certificate as PEM": as_text(certificate_fields.from_pem),
    "the body of a certificate as PEM": as_text(
        lambda text: certificate_fields.from_pem(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    ),
    "the start of a certificate as PEM": as_text(
        lambda text: certificate_fields.from_pem(f"-----BEGIN CERTIFICATE-----{text}")
    ),
    "Client-Cert": lambda data: certificate_fields.from_field([b":" + data + b":"], CertificateSource.CLIENT_CERT),
    # Twice, so that quotes are balanced in each size; otherwise the shorter input would be refused early.
    "X-Forwarded-Client-Cert": lambda data: certificate_fields.from_field([data + data], CertificateSource.ENVOY),
    "the digest in X-Forwarded-Client-Cert": lambda data: certificate_fields.from_field(
        [b"Hash=" + data + data], CertificateSource.ENVOY
    ),
    # behind a proxy
    "X-Forwarded-For": as_text(lambda text: PROXIES.client("10.0.0.1", text)),
    # tokens
    "base64url": as_text(decode_base64url),
    "a token": as_text(jwt.peek),
    "a padded token": as_text(lambda text: jwt.peek(text, padded=True)),
    "a JOSE header": lambda data: jwt.peek(f"{encode_segment(data)}.e30.AAAA"),
    "claims": lambda data: jwt.peek(f"e30.{encode_segment(data)}.AAAA"),
    "claims of a token, checked": lambda data: jwt.check(
        jwt.peek(f"{RS256}.{encode_segment(as_members(data, 'iss', 'aud', 'sub', 'scope', 'jti'))}.AAAA"), ISSUER, 0.0
    ),
    "an audience": as_text(lambda text: check_audience(introspection.as_claims({"aud": text}, ""), CANONICAL)),
    "an audience that is a URL": as_text(
        lambda text: check_audience(introspection.as_claims({"aud": f"https://{text}"}, ""), CANONICAL)
    ),
    "scopes": as_text(lambda text: granted_scopes({"scope": text}, ISSUER)),
    "a list of scopes": as_text(lambda text: granted_scopes({"scope": text, "scp": text.split(",")}, LISTS)),
    "effective scopes": as_text(lambda text: VOCABULARY.effective(text.split(" "))),
    "a status reference": as_text(
        lambda text: find_reference(
            {"status": {"status_list": {"idx": 1, "uri": "https://as.example/" + text}}}, ["https://as.example"]
        )
    ),
    "a key id": as_text(lambda text: key_url("https://as.example/{kid}", text)),
    "a SPIFFE ID": as_text(lambda text: spiffe.check_id({"sub": f"spiffe://{text}"}, "a")),
    "the path of a SPIFFE ID": as_text(lambda text: spiffe.check_id({"sub": f"spiffe://a/{text}"}, "a")),
    "the trust domain of claims": as_text(lambda text: spiffe.trust_domain_of({"sub": f"spiffe://{text}"})),
    "printable": as_text(printable),
    # responses of servers
    "JSON": parse_object,
    "JSON with its ambiguous objects": lambda data: parse_object(data, mark_ambiguous=True),
    "JSON in a string": lambda data: parse_object(b'{"a":["' + data + b'"]}'),
    "JSON, deep": lambda data: parse_object(b'{"a":' + b"[" * 33 + data),
    "WWW-Authenticate": as_text(lambda text: parse_challenges([text])),
    "WWW-Authenticate, Bearer": as_text(lambda text: parse_challenges(["Bearer " + text])),
    "WWW-Authenticate, in quotes": as_text(lambda text: parse_challenges(['Bearer a="' + text])),
    "WWW-Authenticate, many lines": as_text(lambda text: parse_challenges(text.split("/"))),
    "Cache-Control": as_text(lambda text: lifetime({"cache-control": text})),
    "Cache-Control, max-age": as_text(lambda text: lifetime({"cache-control": "max-age" + text})),
    "Retry-After": as_text(lambda text: read_retry_after({"retry-after": text}, 0.0)),
    "Content-Type": as_text(lambda text: is_json({"content-type": text})),
    "Cache-Control of the app": as_text(lambda text: private_headers([("cache-control", text)])),
    "a token answer": lambda data: parse_token_response(200, data),
    "a token answer's members": lambda data: parse_token_response(
        200,
        json.dumps(
            {"access_token": "t", "token_type": "Bearer", "scope": data.decode("latin-1"), "expires_in": 60}
        ).encode(),
    ),
    "the lifetime of a token answer": lambda data: parse_token_response(
        200, as_members(data, "expires_in")[:-1] + b',"access_token":"t","token_type":"Bearer"}'
    ),
    "the token of a token answer": lambda data: parse_token_response(
        200, as_members(data, "access_token")[:-1] + b',"token_type":"Bearer"}'
    ),
    "a token error": lambda data: parse_token_response(
        400, as_members(data, "error", "error_description", "error_uri")
    ),
    "an introspection answer": introspection.read_answer,
    "an introspection answer's members": lambda data: introspection.check_answer(
        introspection.as_claims({"active": True, "scope": data.decode("latin-1"), "token_type": "bearer"}, ""),
        ISSUER,
        0.0,
        audience_required=False,
    ),
    "tokeninfo": lambda data: tokeninfo.read(as_members(data, "exp", "expires_in", "aud", "scope"), 0.0),
    "TokenReview": lambda data: token_review.read(
        b'{"kind":"TokenReview","status":{"authenticated":true,"audiences":["a"],"user":'
        + as_members(data, "username", "uid")
        + b"}}"
    ),
    "TokenReview, an error": lambda data: token_review.read(
        b'{"kind":"TokenReview","status":' + as_members(b"invalid bearer token, " + data, "error") + b"}"
    ),
    "metadata": lambda data: parse_metadata(data, "https://as.example"),
    "metadata, an endpoint": lambda data: parse_metadata(
        b'{"issuer":"https://as.example",' + as_members(b"https://as.example/" + data, "jwks_uri")[1:],
        "https://as.example",
    ),
    "metadata, a host": lambda data: parse_metadata(
        b'{"issuer":"https://as.example",' + as_members(b"https://" + data, "jwks_uri")[1:], "https://as.example"
    ),
    "a key set": parse_key_set,
    "a key": lambda data: parse_key_set(
        b'{"keys":[{"kty":"RSA","use":"sig",' + as_members(data, "n", "e", "kid", "alg")[1:] + b"]}"
    ),
    "a key as PEM": lambda data: parse_public_key(data, "1", ["RS256"]),
    "the body of a key as PEM": lambda data: parse_public_key(
        b"-----BEGIN PUBLIC KEY-----\n" + data + b"\n-----END PUBLIC KEY-----\n", "1", ["RS256"]
    ),
}

SEEDS: Final = (
    *(bytes((octet,)) for octet in b"a1 \t\n\\\"',;:=&%/.-_+[]{}<>()@?#!~\x00\x7f\xff"),
    b'\\"', b'"a",', b"\\u0041", b"[]", b"[1,", b'{"a":', b'"a":1,', b"{},", b'{"kty":"RSA"},',
    b"a=b,", b"a=b, ", b'a="', b'a="b",', b'a="\\",', b"Bearer ", b", bearer", b"bearer,a,", b", Bearer a=b", b"a ,",
    b" =", b"a = ", b"&a", b"access_token", b"access_token&", b"access_token=a&", b"%61", b"%25", b"%2", b"%2e",
    b"%2F", b"%ff", b"/a", b"/.", b"//", b"/../", b"/a/", b"a.b-", b":get", b"a:open", b"/a.b", b"://", b"a://",
    b"10.0.0.1,", b"10.0.0.1, ", b"[::1],", b"::", b"1.", b"a.", b"=.", b"A=", b"-----", b"\xc3\xa9", b"max-age=",
    b"max-age ", b"1 Jan ", b"Mon, ", b"12:00:00 ",
)  # fmt: skip

SMALL, LARGE = 256, 2048
# Eight times the input is eight times the work, and half as much again for uneven growth (a path changes its
# algorithm at a certain length). Quadratic growth is 64 times.
GROWTH: Final = 12
# Below this number, several passes over each octet are too few to compare.
LEAST: Final = 4 * SMALL


@pytest.fixture(scope="module")
def units_of() -> Iterator[Callable[..., int]]:
    with count_work() as count:
        yield count


def repeat(seed: bytes, size: int) -> bytes:
    return seed * (size // len(seed))


@pytest.mark.rule("X-26")
@pytest.mark.parametrize("name", PARSERS)
def test_work_grows_at_most_linearly_with_the_input(units_of, name):
    parse = PARSERS[name]
    parse_once(parse)
    for seed in SEEDS:
        small = max(units_of(lambda: parse(repeat(seed, SMALL))), LEAST)  # noqa: B023
        limit = GROWTH * small
        try:
            units_of(lambda: parse(repeat(seed, LARGE)), limit=limit)  # noqa: B023
        except TooMuchWork:
            pytest.fail(f"{name}: {LARGE} octets of {seed!r} are more than {GROWTH} times the work of {SMALL}")


# Patterns that parse text of the operator or of the app.
FOR_TRUSTED_TEXT: Final = frozenset(
    (
        "scopeguard.rules.mcp._ORIGIN",
        "scopeguard.rules.rule._EXTENSION_METHOD",
        "scopeguard.rules.template_syntax._ANY_PARAMETER",
        "scopeguard.rules.template_syntax._PARAMETER",
        "scopeguard.spec.challenge._ABSOLUTE_URI",
        "scopeguard.spec.challenge._TOKEN",
        "scopeguard.spec.error_body._MEDIA_TYPE",
    )
)


def test_each_pattern_for_untrusted_input_is_covered_by_the_table(units_of):
    """The parser of a new pattern has to be added to the table."""
    for parse in PARSERS.values():
        for seed in SEEDS:
            units_of(lambda: parse(repeat(seed, 64)))  # noqa: B023
    unused = {
        f"{module}.{name}"
        for module, found in sys.modules.items()
        if module.startswith(("scopeguard.spec.", "scopeguard.rules"))
        for name, value in vars(found).items()
        if isinstance(value, Stepper) and not value.used
    }
    assert unused <= FOR_TRUSTED_TEXT


def test_mounts_do_not_multiply_the_work_for_a_long_path(units_of):
    many = RoutedRules(RULES, Prefixes(mounted=tuple((MountPoint(), f"/{at}") for at in range(30))))
    one = RoutedRules(RULES, Prefixes(mounted=((MountPoint(), "/0"),)))
    for path in ("/z/zq" * 4000, "/z/admin" * 4000, "".join(f"/{at}/a.b" for at in range(4000))):
        plain = units_of(lambda: one.find("GET", path))  # noqa: B023
        assert units_of(lambda: many.find("GET", path)) < 1.5 * plain  # noqa: B023


def parse_once(parse: Callable[[bytes], Any]) -> None:
    """Do the work of the first call, which is not counted."""
    try:
        parse(b"a")
    except Exception:  # noqa: BLE001 - refused
        return


def test_counter_detects_a_search_that_restarts_at_each_quote(units_of, monkeypatch):
    """This was the fault: strings had to be terminated to be removed from the document."""
    import re

    import work
    from scopeguard.spec import strict_json

    quotes = b"[" * 33 + b'"' + b'\\"' * 2048
    assert units_of(lambda: parse_object(quotes)) < 20 * len(quotes)
    current: object = strict_json._STRINGS
    assert isinstance(current, work.Stepper)
    former = work.Stepper(re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL), current._work)
    monkeypatch.setattr(strict_json, "_STRINGS", former)
    with pytest.raises(TooMuchWork):
        units_of(lambda: parse_object(quotes), limit=20 * len(quotes))
