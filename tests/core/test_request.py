"""The request as the core sees it, and which of its faults is reported. These tests send nothing."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any, NoReturn

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.config.issuer import Issuer
from scopeguard.config.token_sources import StrayQueryToken, TokenSources
from scopeguard.guard import Denied, Granted, Guard
from scopeguard.request import HeaderList, RequestView
from scopeguard.scopes import Requirement, all_of


@pytest.mark.rule("H-13")
@pytest.mark.parametrize("name", [b"authorization", b"Authorization", b"AUTHORIZATION", b"aUTHORIZATIOn"])
def test_header_is_found_with_any_case_of_its_name(name):
    assert HeaderList([(b"host", b"x"), (name, b"Bearer x")]).get_all("authorization") == [b"Bearer x"]


@pytest.mark.rule("X-71")
def test_all_lines_of_a_header_are_found_in_order():
    headers = HeaderList([(b"authorization", b""), (b"x", b"y"), (b"Authorization", b"b"), (b"authorization", b"b")])
    assert headers.get_all("authorization") == [b"", b"b", b"b"]
    assert headers.get_all("cookie") == []


@pytest.mark.rule("H-13", "X-23")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("coo\u212aie".encode(), id="kelvin sign"),  # str.lower() turns it into "k".
        pytest.param("coo\uff4bie".encode(), id="fullwidth"),
        pytest.param(b"cookie ", id="space behind"),
        pytest.param(b" cookie", id="space before"),
        pytest.param(b"coo_kie", id="underscore"),
        pytest.param(b"cookie\x00", id="NUL"),
        pytest.param(b"coo\xc5kie", id="obs-text"),
    ],
)
def test_similar_names_do_not_match_a_header(name):
    assert HeaderList([(name, b"x")]).get_all("cookie") == []


def test_headers_can_be_read_repeatedly_from_any_iterable():
    headers = HeaderList(iter([(b"a", b"1"), (b"A", b"2")]))
    assert headers.get_all("a") == headers.get_all("a") == [b"1", b"2"]
    assert HeaderList(((b"a", b"1"),)).get_all("a") == [b"1"]


@pytest.mark.rule("H-13")
@given(st.lists(st.tuples(st.binary(max_size=3) | st.sampled_from([b"ab", b"AB", b"aB"]), st.binary(max_size=3))))
def test_header_names_and_values_may_be_any_bytes(pairs):
    expected = [value for name, value in pairs if name in (b"ab", b"AB", b"aB", b"Ab")]
    assert HeaderList(pairs).get_all("ab") == expected


def test_request_is_read_only():
    view = RequestView(method="GET", path="/", headers=HeaderList([]))
    assert (view.query, view.secure, view.client) == (b"", True, None)
    frozen: Any = view
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.method = "POST"


# -- the single credential of a request, and the precedence of refusals

NOW = 1_800_000_000
RES = "https://api.example/v1"
KEYS = {name: generate_private_key(SECP256R1()) for name in ("https://a.example", "https://b.example")}
A, B = KEYS


class StoppedClock:
    def wall(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class NoNetwork:
    """A transport for decisions that need no outbound request."""

    def send(self, request: object, /) -> NoReturn:
        raise AssertionError("nothing is to be fetched")

    def close(self) -> None:
        pass


def jwk(name: str) -> dict[str, str]:
    numbers = KEYS[name].public_key().public_numbers()

    def encode_segment(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

    return {"kty": "EC", "crv": "P-256", "kid": "k1", "x": encode_segment(numbers.x), "y": encode_segment(numbers.y)}


def guard(**settings: Any) -> Guard:
    issuers = [
        Issuer(name, audience=RES, keys={"keys": [jwk(name)]}, typ="at+jwt", algorithms=("ES256",), leeway=0)
        for name in KEYS
    ]
    return Guard(*issuers, clock=StoppedClock(), transport=NoNetwork(), realm="api", **settings)


def sign(by: str = A, **changes: Any) -> str:
    claims = {
        "iss": A,
        "aud": RES,
        "exp": NOW + 300,
        "iat": NOW,
        "sub": "user-1",
        "client_id": "client-1",
        "jti": "j",
        "scope": "read write",
    }
    return jwt.encode(claims | changes, KEYS[by], algorithm="ES256", headers={"typ": "at+jwt", "kid": "k1"})


T = sign()
EXPIRED = sign(exp=NOW)
POOR = sign(scope="read")
FORM = (b"content-type", b"application/x-www-form-urlencoded")
NEEDED = all_of("read", "write")


def ask(
    guard: Guard,
    *headers: tuple[bytes, bytes] | str,
    method: str = "GET",
    query: str = "",
    body: bytes = b"",
    requirement: Requirement | None = NEEDED,
    sources: TokenSources | None = None,
) -> str:
    """Return ``"PASS"``, or the status and the error code. A string among *headers* is a Bearer token."""
    pairs = [(b"authorization", b"Bearer " + h.encode()) if isinstance(h, str) else h for h in headers]
    view = RequestView(method=method, path="/", headers=HeaderList(pairs), query=query.encode())
    decision = guard.check(view, requirement, sources=sources, read_form=lambda limit: body[: limit + 1])
    match decision:
        case Granted():
            return "PASS"
        case Denied(error=error, response=response):
            return f"{response.status} {error.error}"
        case _:
            return "UNAVAILABLE"


IT, IR, IS, E401 = "401 invalid_token", "400 invalid_request", "403 insufficient_scope", "401 None"
EVERYWHERE = TokenSources().with_methods(["header", "query", "form"])


@pytest.mark.rule("B-01", "B-13", "B-14", "B-15", "B-16", "B-18", "B-19", "B-22", "B-25", "B-29", "B-32", "B-59")
@pytest.mark.parametrize(
    ("sources", "request_", "expected"),
    [
        pytest.param(["header"], {"headers": [T]}, "PASS", id="header"),
        pytest.param(["header"], {}, E401, id="no token"),
        pytest.param(["header"], {"headers": [T], "query": "access_token=zzz"}, "PASS", id="a stray one in the query"),
        pytest.param(["header"], {"query": f"access_token={T}"}, E401, id="only a stray one in the query"),
        pytest.param(["header"], {"headers": [FORM], "method": "POST", "body": T}, E401, id="a form that is off"),
        pytest.param(["header"], {"headers": [(b"cookie", f"access_token={T}")]}, E401, id="cookie"),
        pytest.param(["header"], {"headers": [(b"proxy-authorization", f"Bearer {T}")]}, E401, id="for the proxy"),
        pytest.param(["header"], {"headers": [(b"x-authorization", f"Bearer {T}")]}, E401, id="X-Authorization"),
        pytest.param(["header"], {"headers": [(b"x-forwarded-authorization", f"Bearer {T}")]}, E401, id="forwarded"),
        pytest.param(["query"], {"query": f"a=1&access_token={T}"}, "PASS", id="query"),
        pytest.param(["query"], {"headers": [T]}, E401, id="a header that is off"),
        pytest.param(["query"], {"query": f"Access_Token={T}"}, E401, id="another name"),
        pytest.param(["form"], {"headers": [FORM], "method": "POST", "body": T}, "PASS", id="form"),
        pytest.param(["form"], {"headers": [FORM], "method": "GET", "body": T}, E401, id="form with GET"),
        pytest.param(["form"], {"method": "POST", "body": T}, E401, id="a body that is not a form"),
        pytest.param(["header", "query"], {"headers": [T], "query": f"access_token={T}"}, IR, id="header and query"),
        pytest.param(
            ["header", "query"], {"headers": [T], "query": "access_token="}, IR, id="header and an empty query"
        ),
        pytest.param(["header", "form"], {"headers": [T, FORM], "method": "POST", "body": T}, IR, id="header and form"),
        pytest.param(
            ["header", "form"], {"headers": [T, FORM], "method": "POST", "body": ""}, IR, id="header and an empty form"
        ),
        pytest.param(
            ["query", "form"],
            {"headers": [FORM], "method": "POST", "body": T, "query": f"access_token={T}"},
            IR,
            id="query and form",
        ),
    ],
)
def test_token_must_come_from_exactly_one_enabled_source(sources, request_, expected):
    headers = [
        h if isinstance(h, str) else (h[0], h[1] if isinstance(h[1], bytes) else h[1].encode())
        for h in request_.get("headers", ())
    ]
    body = f"a=1&access_token={request_['body']}".encode() if "body" in request_ else b""
    rest = {name: request_[name] for name in ("method", "query") if name in request_}
    assert ask(guard(), *headers, **rest, body=body, sources=TokenSources().with_methods(sources)) == expected


@pytest.mark.rule("B-15")
def test_stray_query_token_is_refused_if_configured():
    strict = TokenSources(stray_query_token=StrayQueryToken.REFUSE)
    assert ask(guard(), query=f"access_token={T}", sources=strict) == IR
    assert ask(guard(), T, query=f"access_token={T}", sources=strict) == IR
    assert ask(guard(), T, query="a=1", sources=strict) == "PASS"
    assert ask(guard(), query=f"access_token={T}", sources=strict.with_methods(["query"])) == "PASS"


@pytest.mark.rule("B-47", "B-48", "B-49", "G-01", "G-32", "MC-12", "P-10")
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        # 1: shape of the request, 2: credential, 3: token, 4: scopes. Each step precedes the next.
        pytest.param(
            {"headers": [(b"authorization", b"Basic x"), (b"authorization", b"Basic x")]}, IR, id="1 before 2"
        ),
        pytest.param({"headers": [EXPIRED], "query": f"access_token={EXPIRED}"}, IR, id="1 before 3"),
        pytest.param({"headers": [POOR], "query": f"access_token={POOR}"}, IR, id="1 before 4"),
        pytest.param({}, E401, id="2 before 4"),
        pytest.param({"headers": [(b"authorization", b"Basic x")]}, E401, id="2: another scheme, before 4"),
        pytest.param({"headers": [sign(scope="read", exp=NOW)]}, IT, id="3 before 4"),
        pytest.param({"headers": [sign(scope="read", aud="other")]}, IT, id="3: audience, before 4"),
        pytest.param({"headers": [sign(by=B, scope="read")]}, IT, id="3: signature, before 4"),
        pytest.param({"headers": [sign(scope="read", cnf={"jkt": "x"})]}, IT, id="3: bound to a key, before 4"),
        pytest.param({"headers": [POOR]}, IS, id="4"),
        pytest.param({"headers": [T]}, "PASS", id="none of them"),
        pytest.param({"headers": [POOR], "requirement": None}, "PASS", id="no requirement"),
    ],
)
def test_first_fault_of_a_request_is_reported(request_, expected):
    settings = {name: request_[name] for name in ("query", "requirement") if name in request_}
    assert ask(guard(), *request_.get("headers", ()), **settings, sources=EVERYWHERE) == expected


@pytest.mark.rule("P-07", "P-18", "P-19", "X-14")
@pytest.mark.parametrize(
    ("token", "expected"),
    [
        pytest.param(sign(), "PASS", id="of A"),
        pytest.param(sign(by=B, iss=B), "PASS", id="of B"),
        pytest.param(sign(by=B), IT, id="naming A, signed by B under the same key id"),
        pytest.param(sign(by=A, iss=B), IT, id="naming B, signed by A under the same key id"),
        pytest.param(sign(iss="https://evil.example"), IT, id="of an unknown issuer"),
        pytest.param(sign(iss=A + "/"), IT, id="of an issuer similar to A"),
    ],
)
def test_key_ids_are_separate_per_issuer(token, expected):
    assert ask(guard(), token) == expected


@pytest.mark.rule("P-18")
@pytest.mark.parametrize(
    "token",
    [
        pytest.param(sign(iss="https://evil.example"), id="unknown issuer"),
        pytest.param(sign(iss=A, aud="other"), id="wrong audience"),
        pytest.param(sign(exp=NOW), id="expired"),
        pytest.param(sign(cnf={"jkt": "x"}), id="bound to a key"),
        pytest.param(sign(scope=7), id="malformed scope"),
        pytest.param(T.rpartition(".")[0] + ".", id="no signature"),
    ],
)
def test_token_that_can_be_refused_without_keys_causes_no_key_fetch(token):
    issuer = Issuer(A, audience=RES, jwks_uri=A + "/keys", leeway=0)
    waiting = Guard(issuer, clock=StoppedClock(), transport=NoNetwork())
    assert ask(waiting, token) == IT
    with pytest.raises(AssertionError, match="nothing is to be fetched"):
        ask(waiting, T)


@pytest.mark.rule("B-49", "X-81")
def test_bad_signatures_wrong_audiences_and_unknown_issuers_get_the_same_answer():
    answers = set()
    for token in (sign(by=B), sign(aud="other"), sign(iss="https://evil.example"), sign(iss=B), "no.jwt.x"):
        view = RequestView(
            method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode())])
        )
        match guard().check(view, NEEDED):
            case Denied(response=response):
                answers.add(response)
    assert len(answers) == 1
