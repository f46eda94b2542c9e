"""The request to an introspection endpoint, and the meaning of the answer."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.devserver.keys import SigningKey, base64url, compact
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.effects import Answer
from scopeguard.reasons import Reason
from scopeguard.spec import introspection, jwt
from scopeguard.spec.client_authentication import AssertionKey, Proof
from scopeguard.spec.discovery import Metadata
from scopeguard.spec.introspection import MalformedAnswer
from scopeguard.tokens import Unverified, freeze_json

NOW = 1_800_000_000.0
URL = "https://as.test"
API = "https://api.test"
ASKING = Introspection(client_id="api", client_secret="hush")
MEMBERS: dict[str, Any] = {
    "active": True,
    "iss": URL,
    "aud": API,
    "sub": "alice",
    "client_id": "app",
    "scope": "read write",
    "exp": NOW + 600,
    "iat": NOW - 10,
    "token_type": "Bearer",
}


def issuer(**options: Any) -> Issuer:
    return Issuer(URL, **{"audience": API, "validate": "introspection", "introspection": ASKING, **options})


def judge(
    changes: Mapping[str, Any], policy: Issuer | None = None, *, without: str = "", audience_required: bool = True
) -> Any:
    """Return the access token of an active answer with these changes, or the reason for the refusal."""
    members = {name: value for name, value in {**MEMBERS, **changes}.items() if name != without}
    described = introspection.as_claims(members, "0123456789ab")
    policy = policy or issuer()
    try:
        introspection.check_answer(described, policy, NOW, audience_required=audience_required)
    except InvalidToken as refusal_of:
        return refusal_of.reason
    return jwt.accept(described, policy, ScopeVocabulary())


# -- the request


@pytest.mark.rule("I-01", "I-02")
def test_request_carries_the_token_its_type_hint_and_the_credentials():
    proof = Proof(parameters=(("client_id", "api"),))
    assert introspection.request_form("a+b=~", proof, "access_token") == (
        ("token", "a+b=~"),
        ("token_type_hint", "access_token"),
        ("client_id", "api"),
    )
    assert introspection.request_form("t", Proof(), None) == (("token", "t"),)


# -- the cache key


@pytest.mark.rule("I-24", "X-61")
def test_different_parts_with_equal_concatenation_have_different_digests():
    parts = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("abc",), ("", "", "abc")]
    assert len({introspection.digest(*one) for one in parts}) == len(parts)
    assert {len(introspection.digest(*one)) for one in parts} == {32}


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_only_equal_parts_have_equal_digests(one: list[str], two: list[str]):
    assert (introspection.digest(*one) == introspection.digest(*two)) is (one == two)


# -- active


@pytest.mark.rule("I-08")
@pytest.mark.parametrize(
    "document",
    [
        '{"active": "true"}',
        '{"active": "false"}',
        '{"active": 1}',
        '{"active": 0}',
        '{"active": null}',
        '{"active": [true]}',
        '{"Active": true}',
        "{}",
        '{"scope": "read"}',
    ],
)
def test_only_json_true_means_active(document: str):
    assert introspection.read_answer(document.encode()) is None


@pytest.mark.rule("I-09")
def test_other_members_of_an_inactive_answer_are_ignored():
    assert introspection.read_answer(json.dumps({**MEMBERS, "active": False}).encode()) is None


def test_the_members_of_an_active_answer_are_returned():
    assert introspection.read_answer(json.dumps(MEMBERS).encode()) == MEMBERS


@pytest.mark.rule("I-19")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"true",
        b"[]",
        b'[{"active": true}]',
        b'{"active": false, "active": true}',
        b'{"active": true, "aud": "a", "aud": "b"}',
        b'{"active": true',
        b'{"active": true} {}',
        b'{"active": True}',
        b'{"active": true, "exp": NaN}',
        b'{"active": true, "exp": 1e400}',
        '{"active": true}'.encode("utf-16"),
        b'\xef\xbb\xbf{"active": true}',
        b"<!doctype html>",
        b"active=true",
    ],
)
def test_body_that_is_not_one_json_object_is_malformed(body: bytes):
    with pytest.raises(MalformedAnswer) as malformed:
        introspection.read_answer(body)
    assert malformed.value.__cause__ is None


# -- judging an active answer


def test_an_active_answer_is_an_access_token():
    token = judge({})
    assert (token.issuer, token.subject, token.client_id) == (URL, "alice", "app")
    assert token.scopes == {"read", "write"}
    assert token.expires_at == NOW + 600
    assert token.fingerprint == "0123456789ab"


@pytest.mark.rule("I-10")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW - 1}, Reason.TOKEN_EXPIRED),
        ({"exp": NOW}, Reason.TOKEN_EXPIRED),
        ({"exp": 0}, Reason.TOKEN_EXPIRED),
        ({"nbf": NOW + 1}, Reason.TOKEN_NOT_YET_VALID),
        ({"iat": NOW + 1}, Reason.TOKEN_ISSUED_IN_FUTURE),
        ({"exp": str(NOW + 600)}, Reason.MALFORMED_CLAIM),
        ({"exp": True}, Reason.MALFORMED_CLAIM),
        ({"exp": 10**400}, Reason.MALFORMED_CLAIM),
    ],
)
def test_times_of_an_active_answer_are_checked(changes: dict[str, Any], reason: Reason):
    assert judge(changes, issuer(leeway=0)) is reason


def test_times_are_checked_with_the_leeway_of_the_issuer():
    assert judge({"exp": NOW - 29, "nbf": NOW + 30}).subject == "alice"
    assert judge({"exp": NOW - 30}) is Reason.TOKEN_EXPIRED


def test_answer_without_exp_is_accepted():
    assert judge({}, without="exp").expires_at is None
    assert judge({}, issuer(max_lifetime=3600), without="exp") is Reason.MISSING_CLAIM
    assert judge({"exp": NOW + 3601, "iat": NOW}, issuer(max_lifetime=3600)) is Reason.TOKEN_LIFETIME_TOO_LONG


@pytest.mark.rule("I-11")
@pytest.mark.parametrize(
    ("audience", "reason"),
    [
        ("https://other.test", Reason.WRONG_AUDIENCE),
        (["https://other.test", "https://third.test"], Reason.WRONG_AUDIENCE),
        (API + "/", Reason.WRONG_AUDIENCE),
        ([], Reason.MALFORMED_CLAIM),
        ("", Reason.MALFORMED_CLAIM),
        ({"aud": API}, Reason.MALFORMED_CLAIM),
    ],
)
@pytest.mark.parametrize("audience_required", [True, False])
def test_audience_of_an_answer_must_match_if_present(audience: object, reason: Reason, *, audience_required: bool):
    assert judge({"aud": audience}, audience_required=audience_required) is reason


@pytest.mark.rule("I-11")
def test_answer_without_an_audience_is_refused_unless_configured():
    assert judge({}, without="aud") is Reason.MISSING_CLAIM
    assert judge({}, without="aud", audience_required=False).audience == ()
    assert judge({"aud": ["https://other.test", API]}).audience == ("https://other.test", API)
    anybody = issuer(audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"client_id": ["app"]})
    assert judge({}, anybody, without="aud").client_id == "app"


@pytest.mark.rule("I-12")
@pytest.mark.parametrize("named", ["https://other.test", URL + "/", "", 7, [URL]])
def test_issuer_of_an_answer_must_match_if_present(named: object):
    assert judge({"iss": named}) is Reason.UNKNOWN_ISSUER
    assert judge({}, without="iss").issuer == URL


@pytest.mark.rule("X-49")
def test_token_type_can_be_required_of_answers():
    assert judge({}, without="token_type").subject == "alice"
    assert judge({}, issuer(required_claims=("token_type",)), without="token_type") is Reason.MISSING_CLAIM


@pytest.mark.rule("I-14")
@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("read write", ("read", "write")),
        (" read  write ", ("read", "write")),
        ("read\twrite", ("read\twrite",)),
        ("read,write", ("read,write",)),
        ("Read", ("Read",)),
        ("", ()),
        ("read read", ("read",)),
        (["read"], Reason.MALFORMED_SCOPE),
        (7, Reason.MALFORMED_SCOPE),
    ],
    ids=str,
)
def test_scope_is_read_as_in_a_jwt(scope: object, granted: object):
    found = judge({"scope": scope})
    assert (found if isinstance(found, Reason) else found.granted_scopes) == granted


@pytest.mark.rule("I-14")
def test_answer_without_scope_grants_no_scope():
    token = judge({}, without="scope")
    assert token.scopes == frozenset()
    assert token.granted_scopes is None


@pytest.mark.rule("I-15")
@pytest.mark.parametrize("token_type", ["DPoP", "dpop", "DPOP"])
def test_answer_with_a_token_type_that_needs_a_proof_is_refused(token_type: str):
    assert judge({"token_type": token_type}) is Reason.SENDER_CONSTRAINT_UNPROVEN


@pytest.mark.rule("I-15")
@pytest.mark.parametrize("cnf", [{"jkt": "x"}, {"x5t#S256": "x"}, {"unknown": 1}, {}])
def test_answer_with_cnf_is_refused(cnf: object):
    assert judge({"cnf": cnf}) is Reason.SENDER_CONSTRAINT_UNPROVEN


# The members of RFC 7662 section 2.2, and those that servers add.
OPTIONAL = (
    "scope", "client_id", "username", "token_type", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf", "token_use",
    "typ", "nonce", "events", "act", "azp", "roles", "tenant",
)  # fmt: skip


@pytest.mark.rule("I-09")
@pytest.mark.parametrize("name", OPTIONAL)
def test_null_member_counts_as_absent(name: str):
    policy = issuer(role_claims=("roles",), past_claims=("auth_time",), forbidden_claims=("act",))
    with_null, without = (
        judge(changes, policy, without=gone, audience_required=False)
        for changes, gone in (({name: None}, ""), ({}, name))
    )
    assert with_null == without
    assert name not in with_null.claims
    required = issuer(required_claims=(name,))
    assert judge({name: None}, required, audience_required=False) is Reason.MISSING_CLAIM


@pytest.mark.rule("I-11")
def test_answer_of_null_members_has_no_audience():
    nulls = dict.fromkeys(OPTIONAL)
    assert judge(nulls) is Reason.MISSING_CLAIM
    token = judge(nulls, audience_required=False)
    assert (token.subject, token.client_id, token.granted_scopes, token.expires_at) == (None, None, None, None)
    assert introspection.seconds_left(nulls, NOW) == float("inf")


def test_policy_of_the_issuer_applies_to_answers():
    policy = issuer(expected_claims={"tenant": ["a"]}, forbidden_claims=("act",))
    assert judge({"tenant": "a"}, policy).subject == "alice"
    assert judge({"tenant": "b"}, policy) is Reason.UNEXPECTED_CLAIM
    assert judge({}, policy) is Reason.UNEXPECTED_CLAIM
    assert judge({"tenant": "a", "act": {}}, policy) is Reason.FORBIDDEN_CLAIM


@pytest.mark.rule("I-30", "G-17")
def test_unknown_members_reach_the_app_read_only():
    details = [{"type": "payment", "actions": ["initiate"]}]
    token = judge({"foo": 1, "authorization_details": details, "active": True})
    assert token.claims["foo"] == 1
    assert token.claims["authorization_details"][0]["actions"] == ("initiate",)
    with pytest.raises(TypeError):
        token.claims["authorization_details"][0]["type"] = "other"
    same = freeze_json({"authorization_details": details})
    assert token.claims["authorization_details"] == same["authorization_details"]


@pytest.mark.rule("I-31")
def test_username_is_not_used_as_the_subject():
    one, two = judge({"username": "bob", "sub": "1"}), judge({"username": "bob", "sub": "2"})
    assert one.identity != two.identity
    assert judge({"username": "bob"}, without="sub").subject is None


# -- client authentication

KEY = SigningKey.generate("ES256", kid="k")


def client_proof(key: AssertionKey | None = None, **settings: Any) -> Proof:
    return introspection.proof(Introspection(**settings), key, URL, now=NOW, identifier="one", bearer="other")


@pytest.mark.rule("I-05")
def test_only_the_configured_authentication_method_is_used():
    secret: dict[str, Any] = {"client_id": "api", "client_secret": "hush"}
    assert client_proof(**secret) == Proof(authorization="Basic YXBpOmh1c2g=")
    assert client_proof(auth="client_secret_post", **secret) == Proof(
        parameters=(("client_id", "api"), ("client_secret", "hush"))
    )
    assert client_proof(auth="bearer", bearer_token="other") == Proof(authorization="Bearer other")
    assert client_proof(auth="tls_client_auth", client_id="api") == Proof(parameters=(("client_id", "api"),))
    assert client_proof(auth="none", client_id="api") == Proof(parameters=(("client_id", "api"),))
    assert client_proof(auth="none") == Proof()


@pytest.mark.rule("I-32", "I-33", "I-34")
def test_audience_of_an_assertion_is_the_issuer_unless_configured():
    key = AssertionKey(material=KEY.private_jwk(), algorithm="ES256")
    settings: dict[str, Any] = {"auth": "private_key_jwt", "client_id": "api", "private_key": KEY.private_jwk()}

    def parts(proof: Proof) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        assert [name for name, _ in proof.parameters] == ["client_assertion_type", "client_assertion"]
        token = jwt.peek(proof.parameters[1][1])
        return token.header, token.claims

    header, claims = parts(client_proof(key, **settings))
    assert (header["typ"], claims["aud"], claims["jti"]) == ("client-authentication+jwt", URL, "one")
    header, claims = parts(
        client_proof(key, **settings, assertion_audience="https://as.test/introspect", assertion_typ=None)
    )
    assert "typ" not in header
    assert claims["aud"] == "https://as.test/introspect"


# -- the endpoint


def metadata(**members: Any) -> Metadata:
    endpoint = members.get("introspection_endpoint", f"{URL}/introspect")
    return Metadata(
        issuer=URL, jwks_uri=None, token_endpoint=None, introspection_endpoint=endpoint, raw=members
    )  # fmt: skip


def refusal_of(document: Metadata, settings: Introspection) -> str:
    with pytest.raises(AuthorityUnavailable) as error:
        introspection.endpoint_of(document, settings)
    assert error.value.reason is Reason.AUTHORITY_ANSWER_INVALID
    return str(error.value)


TLS = Introspection(auth=ClientAuthentication.TLS_CLIENT_AUTH, client_id="api")


def test_endpoint_is_taken_from_the_metadata():
    assert introspection.endpoint_of(metadata(), ASKING) == f"{URL}/introspect"
    assert "introspection.endpoint" in refusal_of(metadata(introspection_endpoint=None), ASKING)


@pytest.mark.rule("I-36")
def test_mutual_tls_uses_the_endpoint_alias():
    aliases = {"introspection_endpoint": "https://mtls.as.test/introspect"}
    assert introspection.endpoint_of(metadata(mtls_endpoint_aliases=aliases), TLS) == aliases["introspection_endpoint"]
    assert introspection.endpoint_of(metadata(mtls_endpoint_aliases=aliases), ASKING) == f"{URL}/introspect"
    nothing: object
    for nothing in ({}, None, [], "x", {"token_endpoint": "https://mtls.as.test/token"}):
        assert introspection.endpoint_of(metadata(mtls_endpoint_aliases=nothing), TLS) == f"{URL}/introspect"


def test_metadata_needs_the_endpoint_or_the_alias_in_use():
    aliases = {"introspection_endpoint": "https://mtls.as.test/introspect"}
    only = metadata(introspection_endpoint=None, mtls_endpoint_aliases=aliases)
    assert introspection.has_endpoint(metadata(), ASKING)
    assert introspection.has_endpoint(only, TLS)
    assert not introspection.has_endpoint(only, ASKING)
    nothing: object
    for nothing in ({}, None, [], {"introspection_endpoint": None}):
        assert not introspection.has_endpoint(metadata(introspection_endpoint=None, mtls_endpoint_aliases=nothing), TLS)


@pytest.mark.rule("I-36", "I-07")
@pytest.mark.parametrize("alias", ["http://mtls.as.test/x", "https://127.0.0.1/x", 7, "not a url"])
def test_metadata_with_a_forbidden_alias_url_is_malformed(alias: object):
    refusal_of(metadata(mtls_endpoint_aliases={"introspection_endpoint": alias}), TLS)


@pytest.mark.rule("I-37")
def test_unlisted_authentication_method_is_an_outage_that_names_both_sides():
    listed = metadata(introspection_endpoint_auth_methods_supported=["private_key_jwt", 7, "client_secret_post"])
    assert "client_secret_basic" in refusal_of(listed, ASKING)
    assert "private_key_jwt client_secret_post" in refusal_of(listed, ASKING)
    fits = metadata(introspection_endpoint_auth_methods_supported=["client_secret_basic"])
    assert introspection.endpoint_of(fits, ASKING) == f"{URL}/introspect"
    unlisted = Introspection(auth=ClientAuthentication.BEARER, bearer_token="b")  # The registry has no name for these.
    assert introspection.endpoint_of(fits, unlisted) == f"{URL}/introspect"
    assert introspection.endpoint_of(fits, Introspection(auth=ClientAuthentication.NONE)) == f"{URL}/introspect"
    strange = metadata(introspection_endpoint_auth_methods_supported="client_secret_post")
    assert introspection.endpoint_of(strange, ASKING) == f"{URL}/introspect"


# -- signed answers (RFC 9701)

SIGNED = Introspection(client_id="api", client_secret="hush", signed=True)
PAYLOAD: dict[str, Any] = {"iss": URL, "aud": "api", "iat": NOW, "token_introspection": MEMBERS}
HEADER: dict[str, Any] = {"alg": "ES256", "typ": "token-introspection+jwt", "kid": "k"}
KIND = {"content-type": "application/token-introspection+jwt"}


def signed_answer(
    header: Mapping[str, Any] = {}, payload: Mapping[str, Any] = {}, headers: Mapping[str, str] = KIND
) -> Answer:
    """Return a signed answer with these changes; ``None`` removes a member."""

    def apply_changes(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**members, **changes}.items() if value is not None}

    return Answer(200, compact(apply_changes(HEADER, header), apply_changes(PAYLOAD, payload), KEY).encode(), headers)


def read(answer: Answer, policy: Issuer, settings: Introspection, now: float) -> Unverified:
    return introspection.read_signed(answer.body, answer.headers, policy, settings, now)


def test_signed_answer_is_parsed_before_verification():
    token = read(signed_answer(), issuer(), SIGNED, NOW)
    assert token.claims["token_introspection"] == MEMBERS
    assert token.header["kid"] == "k"


@pytest.mark.parametrize(
    "answer",
    [
        signed_answer(payload={"aud": ["other", "api"]}),
        signed_answer(payload={"iat": NOW - 60}),
        signed_answer(payload={"iat": NOW + 60}),
        signed_answer(header={"typ": "application/Token-Introspection+JWT"}),
        signed_answer(headers={"content-type": "Application/Token-Introspection+JWT; charset=utf-8"}),
    ],
)
def test_signed_answer_is_accepted_within_leeway_and_with_any_case_of_its_type(answer: Answer):
    assert read(answer, issuer(), SIGNED, NOW).claims["iss"] == URL


@pytest.mark.rule("I-39")
@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "", None, 7, ["token-introspection+jwt"]])
def test_jwt_of_another_type_is_not_a_signed_answer(typ: object):
    with pytest.raises(MalformedAnswer):
        read(signed_answer({"typ": typ}), issuer(), SIGNED, NOW)


@pytest.mark.rule("I-40")
@pytest.mark.parametrize(
    "payload",
    [
        {"iss": "https://other.test"},
        {"iss": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": ["other"]},
        {"aud": {"api": 1}},
        {"iat": None},
        {"iat": NOW - 61},
        {"iat": NOW + 61},
        {"iat": str(NOW)},
        {"iat": True},
        {"iat": 10**400},
    ],
    ids=str,
)
def test_issuer_audience_and_times_of_a_signed_answer_are_checked(payload: dict[str, Any]):
    with pytest.raises((MalformedAnswer, InvalidToken)):
        read(signed_answer(payload=payload), issuer(), SIGNED, NOW)


@pytest.mark.rule("I-40")
@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "es256"])
def test_signed_answer_must_use_an_algorithm_of_the_issuer(algorithm: str):
    with pytest.raises(InvalidToken) as error:
        read(signed_answer({"alg": algorithm}), issuer(), SIGNED, NOW)
    assert error.value.reason is Reason.ALGORITHM_REFUSED


@pytest.mark.rule("I-41")
@pytest.mark.parametrize("inner", [None, "x", [], True])
def test_signed_answer_without_token_introspection_is_refused(inner: object):
    payload = {**MEMBERS, "aud": "api", "iat": NOW, "token_introspection": inner}
    with pytest.raises(MalformedAnswer):
        read(signed_answer(payload=payload), issuer(), SIGNED, NOW)


@pytest.mark.rule("I-42")
@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, json.dumps(MEMBERS).encode(), {"content-type": "application/json"}),
        signed_answer(headers={"content-type": "application/jwt"}),
        signed_answer(headers={"content-type": "application/json"}),
        signed_answer(headers={}),
    ],
)
def test_plain_answer_is_refused_if_a_signed_one_is_required(answer: Answer):
    with pytest.raises(MalformedAnswer):
        read(answer, issuer(), SIGNED, NOW)


def test_encrypted_answer_is_refused():
    parts = (base64url(part) for part in (b'{"alg":"dir","enc":"A256GCM"}', b"", b"iv", b"text", b"tag"))
    with pytest.raises(InvalidToken) as error:
        read(Answer(200, ".".join(parts).encode(), KIND), issuer(), SIGNED, NOW)
    assert error.value.reason is Reason.ENCRYPTED_TOKEN


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"a.b.c", b'{"active": true}'])
def test_text_that_is_not_a_jwt_is_not_a_signed_answer(body: bytes):
    with pytest.raises(InvalidToken):
        read(Answer(200, body, KIND), issuer(), SIGNED, NOW)


# -- the lifetime of an answer, and its stored form


@pytest.mark.rule("I-21")
@pytest.mark.parametrize(
    ("members", "seconds"),
    [
        ({"exp": NOW + 5}, 5.0),
        ({"exp": NOW - 5}, -5.0),
        ({}, float("inf")),
        (None, float("inf")),
        ({"exp": str(NOW + 5)}, float("-inf")),
        ({"exp": None}, float("inf")),
        ({"exp": True}, float("-inf")),
        ({"exp": 10**400}, float("-inf")),
        ({"exp": [NOW + 5]}, float("-inf")),
    ],
    ids=str,
)
def test_answer_is_usable_until_the_token_expires(members: dict[str, Any] | None, seconds: float):
    assert introspection.seconds_left(members, NOW) == seconds


@pytest.mark.parametrize("members", [MEMBERS, None])
def test_stored_answer_is_loaded_unchanged(members: dict[str, Any] | None):
    data = introspection.write_entry(members, NOW + 7, NOW - 2)
    assert introspection.read_entry(data, NOW) == (members, 7.0, NOW - 2)


@pytest.mark.rule("E-16")
@pytest.mark.parametrize(
    ("asked_at", "read"), [("7", 7.0), (f"{NOW + 9}", NOW), ('"7"', float("-inf")), ("1" + "0" * 400, float("-inf"))]
)
def test_stored_answer_without_a_valid_date_counts_as_oldest(asked_at: str, read: float):
    data = f'{{"until": {NOW + 7}, "asked_at": {asked_at}, "members": null}}'.encode()
    assert introspection.read_entry(data, NOW) == (None, 7.0, read)
    data = f'{{"until": {NOW + 7}, "members": null}}'.encode()  # The format of earlier versions.
    assert introspection.read_entry(data, NOW) == (None, 7.0, float("-inf"))


@pytest.mark.rule("I-21", "X-63")
def test_stored_answer_ends_at_its_stated_time():
    data = introspection.write_entry(MEMBERS, NOW + 7, NOW)
    with pytest.raises(MalformedAnswer):
        introspection.read_entry(data, NOW + 7)


class Bomb:
    went_off: list[int] = []  # noqa: RUF012 - shared on purpose

    def __reduce__(self) -> tuple[Any, ...]:
        return self.went_off.append, (1,)


@pytest.mark.rule("X-68")
@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"[]",
        b"nonsense",
        pickle.dumps(MEMBERS),
        pickle.dumps(Bomb()),
        b'{"until": 2000000000}',
        b'{"members": null}',
        b'{"until": "2000000000", "members": null}',
        b'{"until": true, "members": null}',
        b'{"until": null, "members": null}',
        b'{"until": 1' + b"0" * 400 + b', "members": null}',
        b'{"until": 2000000000, "members": []}',
        b'{"until": 2000000000, "members": "x"}',
        b'{"until": 2000000000, "members": {}}',
        b'{"until": 2000000000, "members": {"active": false}}',
        b'{"until": 2000000000, "members": {"active": "true"}}',
        b'{"until": 2000000000, "members": null, "members": {"active": true}}',
    ],
)  # fmt: skip
def test_malformed_store_entry_is_ignored(data: bytes | None):
    with pytest.raises(MalformedAnswer) as malformed:
        introspection.read_entry(data, NOW)
    assert malformed.value.__cause__ is None
    assert Bomb.went_off == []


@pytest.mark.parametrize(
    ("body", "ours"),
    [
        (b'{"error": "invalid_client"}', True),
        (b'{"error": "invalid_client", "error_description": "?"}', True),
        (b'{"error": "invalid_token"}', False),
        (b'{"error": ["invalid_client"]}', False),
        (b"{}", False),
        (b"", False),
        (b"<html>invalid_client</html>", False),
    ],
)
def test_error_states_whether_the_credentials_of_the_api_were_refused(body: bytes, *, ours: bool):
    assert introspection.refuses_client(body) is ours
