"""Refusals as responses. A second parser, written here from the grammar of RFC 9110, reads the challenges back."""

from __future__ import annotations

import json
import math
import re
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.errors import (
    AccessDenied,
    AuthorityUnavailable,
    ConfigurationError,
    Forbidden,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingCredentials,
    RequestTimedOut,
    RequestTooLarge,
)
from scopeguard.reasons import Reason
from scopeguard.scopes import AUTHENTICATED, all_of, any_of
from scopeguard.spec.challenge import ChallengeStyle, Response, quote, write_denial, write_outage
from scopeguard.spec.challenge_parser import parse_challenges
from scopeguard.spec.response_headers import add_proof_headers, private_headers

STYLE = ChallengeStyle(realm="example")
NEEDED = ("read", "write")

# -- a parser of one challenge

TCHAR = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def read_word(text: str, at: int) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] in TCHAR:
        end += 1
    assert end > at, f"a token is expected at {at} of {text!r}"
    return text[at:end], end


def read_quoted(text: str, at: int) -> tuple[str, int]:
    assert text[at] == '"', f"a quoted string is expected at {at} of {text!r}"
    value, at = "", at + 1
    while text[at] != '"':
        if text[at] == "\\":
            at += 1
        assert "\x20" <= text[at] <= "\x7e"
        value += text[at]
        at += 1
    return value, at + 1


def parse_bearer(header: str) -> dict[str, str]:
    """Return the parameters of *header*: one Bearer challenge in which each parameter is a quoted string."""
    scheme, at = read_word(header, 0)
    assert scheme == "Bearer"
    assert header[at] == " "
    found: dict[str, str] = {}
    at += 1
    while True:
        name, at = read_word(header, at)
        assert header[at] == "="
        value, at = read_quoted(header, at + 1)
        assert name.lower() not in found, "a parameter occurs once"
        found[name.lower()] = value
        if at == len(header):
            break
        assert header[at : at + 2] == ", "
        at += 2
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges([header])] == [("bearer", found)]
    return found


def header_values(response: Response, name: str) -> list[str]:
    return [value for given, value in response.headers if given == name]


def challenge_of(denial: AccessDenied, style: ChallengeStyle = STYLE, scopes: tuple[str, ...] = ()) -> dict[str, str]:
    (header,) = header_values(write_denial(denial, style, scopes=scopes), "www-authenticate")
    return parse_bearer(header)


def body_of(response: Response) -> dict[str, Any]:
    found = json.loads(response.body)
    assert isinstance(found, dict)
    return found


DENIALS = {
    "nothing sent": MissingCredentials(Reason.NO_CREDENTIALS),
    "another scheme": MissingCredentials(Reason.UNSUPPORTED_SCHEME),
    "two methods": InvalidRequest(Reason.SEVERAL_METHODS, methods="header query"),
    "too large": RequestTooLarge(Reason.FORM_TOO_LARGE, limit=7),
    "too slow": RequestTimedOut(Reason.FORM_TOO_SLOW, seconds=7),
    "expired": InvalidToken(Reason.TOKEN_EXPIRED, exp=1),
    "unknown key": InvalidToken(Reason.UNKNOWN_KEY, kid='kid "x"\\n\u00e9'),
    "scope missing": InsufficientScope(NEEDED, client_id="c1"),
}
ANY_DENIAL = pytest.mark.parametrize("denial", DENIALS.values(), ids=DENIALS.keys())

# -- the challenge


@pytest.mark.rule("B-33", "B-34", "B-36", "B-43")
@ANY_DENIAL
@pytest.mark.parametrize("scopes", [(), NEEDED], ids=["no scope", "scopes"])
def test_each_denial_has_one_challenge_with_a_quoted_realm(denial, scopes):
    assert challenge_of(denial, scopes=scopes)["realm"] == "example"


@pytest.mark.rule("B-09", "B-11")
@pytest.mark.parametrize("reason", [Reason.NO_CREDENTIALS, Reason.UNSUPPORTED_SCHEME], ids=str)
def test_challenge_to_a_request_without_a_token_has_no_error_code(reason):
    style = ChallengeStyle(realm="r", error_uri="https://api.example/errors")
    assert challenge_of(MissingCredentials(reason), style) == {"realm": "r"}
    assert challenge_of(MissingCredentials(reason), style, NEEDED) == {"realm": "r", "scope": "read write"}


@pytest.mark.rule("B-41", "B-42", "B-48")
@pytest.mark.parametrize(
    ("denial", "status", "error"),
    [
        (DENIALS["nothing sent"], 401, None),
        (DENIALS["two methods"], 400, "invalid_request"),
        (DENIALS["too large"], 413, "invalid_request"),
        (DENIALS["too slow"], 408, "invalid_request"),
        (DENIALS["expired"], 401, "invalid_token"),
        (DENIALS["scope missing"], 403, "insufficient_scope"),
    ],
    ids=lambda value: value.reason.value if isinstance(value, AccessDenied) else None,
)
def test_the_status_and_the_error_code_of_each_denial(denial, status, error):
    assert write_denial(denial, STYLE).status == status
    assert challenge_of(denial).get("error") == error
    assert challenge_of(denial).get("error_description") == (denial.description if error else None)


@pytest.mark.rule("P-10")
@pytest.mark.parametrize("reason", [Reason.TYPE_REFUSED, Reason.WRONG_AUDIENCE, Reason.MISSING_CLAIM], ids=str)
def test_a_failed_check_of_a_token_is_an_invalid_token(reason):
    response = write_denial(InvalidToken(reason), STYLE)
    assert response.status == 401
    assert challenge_of(InvalidToken(reason))["error"] == "invalid_token"


@pytest.mark.rule("B-44", "G-13")
@pytest.mark.parametrize(
    ("requirement", "scope"),
    [
        (all_of("read", "write"), "read write"),
        (all_of("write", "read"), "write read"),
        (any_of("b", "a"), "b"),
        (all_of("c", any_of("b", "a")), "c b"),
        (any_of(all_of("d", "c"), "a"), "d c"),
    ],
    ids=repr,
)
def test_insufficient_scope_challenge_lists_all_required_scopes_in_order(requirement, scope):
    denial = InsufficientScope(requirement.challenge_scopes, client_id="c1")
    assert challenge_of(denial)["scope"] == scope
    assert challenge_of(denial, scopes=("other",))["scope"] == scope
    assert challenge_of(InvalidToken(Reason.TOKEN_EXPIRED), scopes=requirement.challenge_scopes)["scope"] == scope


def test_challenge_has_no_scope_if_the_operation_requires_none():
    assert "scope" not in challenge_of(InvalidToken(Reason.TOKEN_EXPIRED), scopes=AUTHENTICATED.challenge_scopes)


def test_invalid_request_challenge_has_no_scope():
    assert "scope" not in challenge_of(InvalidRequest(Reason.SEVERAL_METHODS), scopes=NEEDED)


@pytest.mark.rule("B-40")
def test_error_uri_accompanies_each_error_code():
    style = ChallengeStyle(realm="r", error_uri="https://api.example/errors?a=b#c")
    for denial in DENIALS.values():
        assert challenge_of(denial, style).get("error_uri") == (None if denial.error is None else style.error_uri)


@pytest.mark.rule("B-39", "X-75")
@pytest.mark.parametrize("reason", Reason, ids=str)
def test_error_descriptions_use_only_the_characters_of_rfc_6750(reason):
    for kind in (InvalidRequest, InvalidToken):
        found = challenge_of(kind(reason, detail='"\\\r\nSet-Cookie: x\u00e9'))
        assert re.fullmatch(r"[\x20\x21\x23-\x5B\x5D-\x7E]+", found["error"])
        assert re.fullmatch(r"[\x20\x21\x23-\x5B\x5D-\x7E]+", found["error_description"])


@pytest.mark.rule("B-49", "X-81")
def test_a_bad_signature_a_wrong_audience_and_an_unknown_key_look_the_same():
    reasons = (
        Reason.BAD_SIGNATURE,
        Reason.WRONG_AUDIENCE,
        Reason.UNKNOWN_KEY,
        Reason.UNKNOWN_ISSUER,
        Reason.MALFORMED_TOKEN,
        Reason.MISSING_CLAIM,
    )
    responses = {write_denial(InvalidToken(reason, fact=reason), STYLE, scopes=NEEDED) for reason in reasons}
    assert len(responses) == 1
    assert write_denial(InvalidToken(Reason.TOKEN_EXPIRED), STYLE, scopes=NEEDED) not in responses


# -- quoting


@pytest.mark.rule("B-37")
@pytest.mark.parametrize(
    ("realm", "written"),
    [
        ("api", r'"api"'),
        ("", r'""'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("\\", r'"\\"'),
        ('"', r'"\""'),
        ('", error="x', r'"\", error=\"x"'),
    ],
    ids=ascii,
)
def test_a_realm_is_quoted(realm, written):
    assert quote(realm) == written
    for denial in DENIALS.values():
        assert challenge_of(denial, ChallengeStyle(realm=realm))["realm"] == realm


UNWRITABLE = ["a\r\nSet-Cookie: x", "a\n", "a\rb", "a\x00b", "a\tb", "a\x7fb", "caf\u00e9", "\u202e", "\ud800", "\x85"]


@pytest.mark.rule("B-37", "X-75")
@pytest.mark.parametrize("value", UNWRITABLE, ids=ascii)
def test_setting_that_no_header_can_hold_is_a_configuration_error_naming_it(value):
    with pytest.raises(ConfigurationError, match=r"realm: .* is not allowed in a header: use printable ASCII only"):
        ChallengeStyle(realm=value)
    with pytest.raises(ConfigurationError, match=r"resource_metadata: .* is not allowed in a header"):
        ChallengeStyle(realm="r", parameters=(("resource_metadata", value),))
    with pytest.raises(ConfigurationError, match=r"error_uri: .* is not an absolute URI"):
        ChallengeStyle(realm="r", error_uri="https://api.example/" + value)


@pytest.mark.parametrize("value", [None, 7, b"api"], ids=ascii)
def test_a_realm_is_a_string(value):
    with pytest.raises(ConfigurationError, match=f"realm: must be a string, not {type(value).__name__}"):
        ChallengeStyle(realm=value)


TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from('"\\,= '), max_size=20)
SCOPES = st.lists(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1, max_size=6),
    max_size=4,
).map(tuple)
WORDS = st.text("abXY!#$%&'*+-.^_`|~09", min_size=1, max_size=6)


@pytest.mark.rule("B-35", "B-37", "B-38")
@given(TEXTS, st.dictionaries(WORDS, TEXTS, max_size=3), SCOPES, st.sampled_from(list(DENIALS)))
def test_any_valid_challenge_is_parsed_back_unchanged(realm, parameters, scopes, which):
    if len({name.lower() for name in parameters}) < len(parameters):
        parameters = {}
    denial = InsufficientScope(scopes) if which == "scope missing" else DENIALS[which]
    found = challenge_of(denial, ChallengeStyle(realm=realm, parameters=tuple(parameters.items())), scopes)
    expected = {"realm": realm, **{name.lower(): value for name, value in parameters.items()}}
    if denial.error is not None:
        expected |= {"error": denial.error, "error_description": denial.description}
    if scopes and not isinstance(denial, InvalidRequest):
        expected["scope"] = " ".join(scopes)
    assert found == expected


@pytest.mark.rule("B-37", "X-75")
@given(st.text(st.characters()))
def test_realm_that_no_header_can_hold_is_a_configuration_error(text):
    try:
        written = ChallengeStyle(realm=text).challenges(DENIALS["expired"])[0]
    except ConfigurationError:
        assert not all("\x20" <= character <= "\x7e" for character in text)
    else:
        assert parse_bearer(written)["realm"] == text


@pytest.mark.rule("B-35", "B-36")
@pytest.mark.parametrize(
    "names",
    [
        ("Realm",), ("realm",), ("SCOPE",), ("error",), ("Error_Description",), ("error_uri",), ("a", "A"), ("A", "a"),
        ("a", "b", "a"), ("",), ("a b",), ('a"',), ("a=",), ("a,",), ("caf\u00e9",), ("a\n",), ("a\r\nX",),
    ],
    ids=ascii,
)  # fmt: skip
def test_extra_parameter_must_not_reuse_a_reserved_name(names):
    with pytest.raises(ConfigurationError, match=r"challenge parameter .*: not a token, reserved, or given twice"):
        ChallengeStyle(realm="r", parameters=tuple((name, "x") for name in names))


@pytest.mark.parametrize("item", ["ab", ("a",), ("a", "b", "c"), ("a", 1), 7])
def test_extra_parameter_must_be_a_name_and_a_value(item):
    with pytest.raises(ConfigurationError, match=f"parameters: must be a list .* one item is a {type(item).__name__}$"):
        ChallengeStyle(realm="r", parameters=(item,))


@pytest.mark.rule("B-35")
def test_extra_parameters_are_in_every_challenge():
    style = ChallengeStyle(realm="r", parameters=(("resource_metadata", "https://api.example/m"), ("X-y", 'a"b')))
    for denial in DENIALS.values():
        found = challenge_of(denial, style)
        assert (found["resource_metadata"], found["x-y"]) == ("https://api.example/m", 'a"b')


@pytest.mark.rule("B-40", "X-75")
@pytest.mark.parametrize(
    "uri",
    ["see docs", "docs", "/docs", "//api.example/docs", "https:", "", ":x", "1https://x", "https://x/a b", 'https://x/"',
     "https://x/\\", "https://x/\x7f", "https://x/\n", "ht tp://x"],
    ids=ascii,
)  # fmt: skip
def test_an_error_uri_is_absolute(uri):
    with pytest.raises(ConfigurationError, match=r"error_uri: .* is not an absolute URI in printable ASCII"):
        ChallengeStyle(realm="r", error_uri=uri)


# -- the response


@pytest.mark.rule("B-51", "B-53")
@ANY_DENIAL
def test_body_repeats_the_error_of_the_challenge(denial):
    response = write_denial(denial, STYLE, scopes=NEEDED)
    body, challenge = body_of(response), challenge_of(denial, scopes=NEEDED)
    assert {name: value for name, value in body.items() if name.startswith("error")} == {
        name: value for name, value in challenge.items() if name.startswith("error")
    }
    assert (body["type"], body["status"]) == ("about:blank", response.status)
    assert body["title"] == response.reason_phrase == HTTPStatus(response.status).phrase
    assert body["detail"] == denial.description
    assert header_values(response, "content-type") == ["application/problem+json"]
    assert header_values(response, "content-length") == [str(len(response.body))]
    assert header_values(response, "cache-control") == ["no-store"]


@pytest.mark.rule("B-52")
@pytest.mark.parametrize("style", [STYLE, ChallengeStyle(realm="r", hide_forbidden=True)], ids=["shown", "hidden"])
@ANY_DENIAL
def test_response_to_head_is_the_same_without_a_body(denial, style):
    get, head = write_denial(denial, style, scopes=NEEDED), write_denial(denial, style, scopes=NEEDED, head=True)
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.rule("B-50", "X-13")
@ANY_DENIAL
def test_response_contains_no_detail_of_the_denial(denial):
    for name, value in denial.detail.items():
        response = write_denial(denial, STYLE)
        sent = " ".join([response.body.decode(), *(v for _, v in response.headers)])
        assert value not in sent or name == "needed" or len(value) < 3


@pytest.mark.rule("H-07")
def test_denial_that_no_scope_would_lift_is_403_without_an_error_code():
    response = write_denial(Forbidden(Reason.NO_RULE), STYLE, scopes=NEEDED)
    assert response.status == 403
    assert header_values(response, "www-authenticate") == []
    assert "error" not in body_of(response)


@pytest.mark.rule("B-62")
def test_with_hidden_403s_every_403_is_the_same():
    style = ChallengeStyle(realm="r", hide_forbidden=True)
    responses = {
        write_denial(denial, style, scopes=NEEDED)
        for denial in (InsufficientScope(NEEDED), InsufficientScope(("admin",)), Forbidden(Reason.NO_RULE))
    }
    (response,) = responses
    assert response.status == 404
    assert header_values(response, "www-authenticate") == []
    assert not re.search("scope|token|forbidden", response.body.decode())
    for name in ("nothing sent", "expired", "two methods"):
        assert write_denial(DENIALS[name], style) == write_denial(DENIALS[name], ChallengeStyle(realm="r"))


# -- an outage


@pytest.mark.rule("H-19")
def test_outage_is_503_with_retry_after_and_without_a_challenge():
    outage = AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "https://as.internal", url="https://as.internal/k")
    response = write_outage(outage, STYLE)
    assert response.status == 503
    assert header_values(response, "www-authenticate") == []
    assert header_values(response, "retry-after") == ["5"]
    assert header_values(response, "cache-control") == ["no-store"]
    assert "error" not in body_of(response)
    assert "internal" not in response.body.decode()
    head = write_outage(outage, STYLE, head=True)
    assert (head.headers, head.body) == (response.headers, b"")


@pytest.mark.rule("H-19")
@pytest.mark.parametrize(
    ("wait", "sent"),
    [(None, "5"), (0.0, "1"), (-7.0, "1"), (0.2, "1"), (7.1, "8"), (300.0, "300"), (1e9, "300"), (math.inf, "300")],
    ids=str,
)
def test_retry_after_is_a_bounded_number_of_whole_seconds(wait, sent):
    outage = AuthorityUnavailable(Reason.AUTHORITY_TIMED_OUT, "https://as.example", retry_after=wait)
    assert header_values(write_outage(outage, STYLE), "retry-after") == [sent]


# -- responses to a request whose URL carried a token


@pytest.mark.rule("B-28", "B-30")
@pytest.mark.parametrize(
    ("given", "cache_control"),
    [
        pytest.param([], "private", id="no Cache-Control"),
        pytest.param(["public"], "private", id="public"),
        pytest.param(["PUBLIC, max-age=60"], "max-age=60, private", id="public in capitals"),
        pytest.param(["max-age=60"], "max-age=60, private", id="max-age"),
        pytest.param(["s-maxage=60, max-age=1"], "max-age=1, private", id="for shared caches"),
        pytest.param(["S-MaxAge=60"], "private", id="for shared caches, in capitals"),
        pytest.param(["private"], "private", id="private"),
        pytest.param(["Private, public"], "Private", id="private and public"),
        pytest.param(["no-store"], "no-store", id="no-store"),
        pytest.param(["No-Store, public"], "No-Store", id="no-store and public"),
        pytest.param(["no-cache"], "no-cache, private", id="no-cache"),
        pytest.param(['private="x-a, x-b"'], 'private="x-a, x-b", private', id="private for some fields"),
        pytest.param(["public", "max-age=5"], "max-age=5, private", id="two lines"),
        pytest.param([" , public ,,"], "private", id="empty directives"),
    ],
)
def test_response_to_a_url_with_a_token_is_private_and_sends_no_referrer(given, cache_control):
    headers = [("Content-Type", "text/plain"), *(("Cache-Control", value) for value in given), ("x-a", "b")]
    sent = private_headers([*headers, ("Referrer-Policy", "unsafe-url")])
    assert sent == [
        ("Content-Type", "text/plain"),
        ("x-a", "b"),
        ("cache-control", cache_control),
        ("referrer-policy", "no-referrer"),
    ]


DIRECTIVES = st.sampled_from(
    ["public", "Public", "private", "no-store", "no-cache", "max-age=1", "s-maxage=2", "x", ""]
)


@pytest.mark.rule("B-28")
@given(st.lists(st.lists(DIRECTIVES, max_size=4).map(", ".join), max_size=3))
def test_no_combination_of_directives_allows_shared_caching(lines):
    sent = dict(private_headers([("cache-control", line) for line in lines]))
    directives = {directive.strip().lower() for directive in sent["cache-control"].split(",")}
    assert directives & {"private", "no-store"}
    assert not directives & {"public", "s-maxage=2", ""}


def test_the_next_nonce_replaces_that_of_the_app_and_is_not_stored():
    given = [("DPoP-Nonce", "old"), ("Cache-Control", "public, max-age=60"), ("x-app", "1")]
    assert add_proof_headers("new", None, given) == [
        ("x-app", "1"),
        ("dpop-nonce", "new"),
        ("cache-control", "no-store"),
    ]
