"""What is asked of an introspection endpoint, and what its answer means."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopeguard.access_token import Unverified, frozen_json
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.devserver.keys import SigningKey, base64url, compact
from scopeguard.errors import AuthorityUnavailable, InvalidToken, Reason
from scopeguard.flow.effects import Answer
from scopeguard.scopes import ScopeVocabulary
from scopeguard.spec import introspection, jwt
from scopeguard.spec.client_authentication import AssertionKey, Proof
from scopeguard.spec.discovery import Metadata
from scopeguard.spec.introspection import MalformedAnswer

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


def judged(
    changes: Mapping[str, Any], policy: Issuer | None = None, *, without: str = "", audience_required: bool = True
) -> Any:
    """The access token of an active answer with these changes, or the reason why there is none."""
    members = {name: value for name, value in {**MEMBERS, **changes}.items() if name != without}
    described = introspection.as_claims(members, "0123456789ab")
    policy = policy or issuer()
    try:
        introspection.check_answer(described, policy, NOW, audience_required=audience_required)
    except InvalidToken as refused:
        return refused.reason
    return jwt.accept(described, policy, ScopeVocabulary())


# -- the question


@pytest.mark.rule("I-01", "I-02")
def test_the_question_is_the_token_its_kind_and_who_asks():
    proof = Proof(parameters=(("client_id", "api"),))
    assert introspection.question("a+b=~", proof, "access_token") == (
        ("token", "a+b=~"),
        ("token_type_hint", "access_token"),
        ("client_id", "api"),
    )
    assert introspection.question("t", Proof(), None) == (("token", "t"),)


# -- the key of a cache


@pytest.mark.rule("I-24", "X-61")
def test_parts_that_concatenate_equally_have_different_digests():
    parts = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("abc",), ("", "", "abc")]
    assert len({introspection.digest(*one) for one in parts}) == len(parts)
    assert {len(introspection.digest(*one)) for one in parts} == {32}


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_equal_digests_mean_equal_parts(one: list[str], two: list[str]):
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
def test_only_the_json_value_true_is_active(document: str):
    assert introspection.read_answer(document.encode()) is None


@pytest.mark.rule("I-09")
def test_the_other_members_of_an_inactive_answer_mean_nothing():
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
def test_what_is_not_one_json_object_is_no_answer(body: bytes):
    with pytest.raises(MalformedAnswer) as malformed:
        introspection.read_answer(body)
    assert malformed.value.__cause__ is None


# -- judging an active answer


def test_an_active_answer_is_an_access_token():
    token = judged({})
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
def test_active_is_not_the_end_times_are_checked_here_too(changes: dict[str, Any], reason: Reason):
    assert judged(changes, issuer(leeway=0)) is reason


def test_times_have_the_leeway_of_the_issuer():
    assert judged({"exp": NOW - 29, "nbf": NOW + 30}).subject == "alice"
    assert judged({"exp": NOW - 30}) is Reason.TOKEN_EXPIRED


def test_an_answer_need_not_say_when_the_token_expires():
    assert judged({}, without="exp").expires_at is None
    assert judged({}, issuer(max_lifetime=3600), without="exp") is Reason.MISSING_CLAIM
    assert judged({"exp": NOW + 3601, "iat": NOW}, issuer(max_lifetime=3600)) is Reason.TOKEN_LIFETIME_TOO_LONG


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
def test_an_audience_that_is_there_is_ours(audience: object, reason: Reason, *, audience_required: bool):
    assert judged({"aud": audience}, audience_required=audience_required) is reason


@pytest.mark.rule("I-11")
def test_an_answer_without_an_audience_is_refused_unless_told_otherwise():
    assert judged({}, without="aud") is Reason.MISSING_CLAIM
    assert judged({}, without="aud", audience_required=False).audience == ()
    assert judged({"aud": ["https://other.test", API]}).audience == ("https://other.test", API)
    anybody = issuer(audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"client_id": ["app"]})
    assert judged({}, anybody, without="aud").client_id == "app"


@pytest.mark.rule("I-12")
@pytest.mark.parametrize("named", ["https://other.test", URL + "/", "", 7, [URL]])
def test_an_issuer_that_is_there_is_the_configured_one(named: object):
    assert judged({"iss": named}) is Reason.UNKNOWN_ISSUER
    assert judged({}, without="iss").issuer == URL


@pytest.mark.rule("X-49")
def test_a_type_can_be_required_of_a_server_that_calls_refresh_tokens_active():
    assert judged({}, without="token_type").subject == "alice"
    assert judged({}, issuer(required_claims=("token_type",)), without="token_type") is Reason.MISSING_CLAIM


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
    found = judged({"scope": scope})
    assert (found if isinstance(found, Reason) else found.granted_scopes) == granted


@pytest.mark.rule("I-14")
def test_an_answer_without_scope_grants_none():
    token = judged({}, without="scope")
    assert token.scopes == frozenset()
    assert token.granted_scopes is None


@pytest.mark.rule("I-15")
@pytest.mark.parametrize("token_type", ["DPoP", "dpop", "DPOP"])
def test_a_token_type_that_needs_a_proof_is_refused_for_want_of_it(token_type: str):
    assert judged({"token_type": token_type}) is Reason.SENDER_CONSTRAINT_UNPROVEN


@pytest.mark.rule("I-15")
@pytest.mark.parametrize("cnf", [{"jkt": "x"}, {"x5t#S256": "x"}, {"unknown": 1}, {}])
def test_a_bound_token_is_refused_as_long_as_no_proof_is_checked(cnf: object):
    assert judged({"cnf": cnf}) is Reason.SENDER_CONSTRAINT_UNPROVEN


# What RFC 7662 section 2.2 names, and what other servers add.
OPTIONAL = (
    "scope", "client_id", "username", "token_type", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf", "token_use",
    "typ", "nonce", "events", "act", "azp", "roles", "tenant",
)  # fmt: skip


@pytest.mark.rule("I-09")
@pytest.mark.parametrize("name", OPTIONAL)
def test_a_member_that_is_null_is_absent(name: str):
    policy = issuer(role_claims=("roles",), past_claims=("auth_time",), forbidden_claims=("act",))
    with_null, without = (
        judged(changes, policy, without=gone, audience_required=False)
        for changes, gone in (({name: None}, ""), ({}, name))
    )
    assert with_null == without
    assert name not in with_null.claims
    required = issuer(required_claims=(name,))
    assert judged({name: None}, required, audience_required=False) is Reason.MISSING_CLAIM


@pytest.mark.rule("I-11")
def test_an_answer_of_nulls_alone_has_no_audience():
    nulls = dict.fromkeys(OPTIONAL)
    assert judged(nulls) is Reason.MISSING_CLAIM
    token = judged(nulls, audience_required=False)
    assert (token.subject, token.client_id, token.granted_scopes, token.expires_at) == (None, None, None, None)
    assert introspection.remaining(nulls, NOW) == float("inf")


def test_the_policy_of_the_issuer_holds_for_answers_as_well():
    policy = issuer(expected_claims={"tenant": ["a"]}, forbidden_claims=("act",))
    assert judged({"tenant": "a"}, policy).subject == "alice"
    assert judged({"tenant": "b"}, policy) is Reason.UNEXPECTED_CLAIM
    assert judged({}, policy) is Reason.UNEXPECTED_CLAIM
    assert judged({"tenant": "a", "act": {}}, policy) is Reason.FORBIDDEN_CLAIM


@pytest.mark.rule("I-30", "G-17")
def test_members_nobody_knows_reach_the_app_and_cannot_be_changed_there():
    details = [{"type": "payment", "actions": ["initiate"]}]
    token = judged({"foo": 1, "authorization_details": details, "active": True})
    assert token.claims["foo"] == 1
    assert token.claims["authorization_details"][0]["actions"] == ("initiate",)
    with pytest.raises(TypeError):
        token.claims["authorization_details"][0]["type"] = "other"
    same = frozen_json({"authorization_details": details})
    assert token.claims["authorization_details"] == same["authorization_details"]


@pytest.mark.rule("I-31")
def test_a_username_is_for_display():
    one, two = judged({"username": "bob", "sub": "1"}), judged({"username": "bob", "sub": "2"})
    assert one.identity != two.identity
    assert judged({"username": "bob"}, without="sub").subject is None


# -- who asks

KEY = SigningKey.generate("ES256", kid="k")


def proven(key: AssertionKey | None = None, **settings: Any) -> Proof:
    return introspection.proof(Introspection(**settings), key, URL, now=NOW, identifier="one", bearer="other")


@pytest.mark.rule("I-05")
def test_the_configured_method_proves_who_asks_and_no_other():
    secret: dict[str, Any] = {"client_id": "api", "client_secret": "hush"}
    assert proven(**secret) == Proof(authorization="Basic YXBpOmh1c2g=")
    assert proven(auth="client_secret_post", **secret) == Proof(
        parameters=(("client_id", "api"), ("client_secret", "hush"))
    )
    assert proven(auth="bearer", bearer_token="other") == Proof(authorization="Bearer other")
    assert proven(auth="tls_client_auth", client_id="api") == Proof(parameters=(("client_id", "api"),))
    assert proven(auth="none", client_id="api") == Proof(parameters=(("client_id", "api"),))
    assert proven(auth="none") == Proof()


@pytest.mark.rule("I-32", "I-33", "I-34")
def test_an_assertion_names_the_issuer_unless_told_otherwise():
    key = AssertionKey(material=KEY.private_jwk(), algorithm="ES256")
    settings: dict[str, Any] = {"auth": "private_key_jwt", "client_id": "api", "private_key": KEY.private_jwk()}

    def parts(proof: Proof) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        assert [name for name, _ in proof.parameters] == ["client_assertion_type", "client_assertion"]
        token = jwt.peek(proof.parameters[1][1])
        return token.header, token.claims

    header, claims = parts(proven(key, **settings))
    assert (header["typ"], claims["aud"], claims["jti"]) == ("client-authentication+jwt", URL, "one")
    header, claims = parts(proven(key, **settings, assertion_audience="https://as.test/introspect", assertion_typ=None))
    assert "typ" not in header
    assert claims["aud"] == "https://as.test/introspect"


# -- where to ask


def metadata(**members: Any) -> Metadata:
    endpoint = members.get("introspection_endpoint", f"{URL}/introspect")
    return Metadata(
        issuer=URL, jwks_uri=None, token_endpoint=None, introspection_endpoint=endpoint, raw=members
    )  # fmt: skip


def refused(document: Metadata, settings: Introspection) -> str:
    with pytest.raises(AuthorityUnavailable) as error:
        introspection.endpoint_of(document, settings)
    assert error.value.reason is Reason.AUTHORITY_ANSWER_INVALID
    return str(error.value)


TLS = Introspection(auth=ClientAuthentication.TLS_CLIENT_AUTH, client_id="api")


def test_the_endpoint_is_the_one_of_the_metadata():
    assert introspection.endpoint_of(metadata(), ASKING) == f"{URL}/introspect"
    assert "introspection.endpoint" in refused(metadata(introspection_endpoint=None), ASKING)


@pytest.mark.rule("I-36")
def test_mutual_tls_goes_to_its_alias():
    aliases = {"introspection_endpoint": "https://mtls.as.test/introspect"}
    assert introspection.endpoint_of(metadata(mtls_endpoint_aliases=aliases), TLS) == aliases["introspection_endpoint"]
    assert introspection.endpoint_of(metadata(mtls_endpoint_aliases=aliases), ASKING) == f"{URL}/introspect"
    nothing: object
    for nothing in ({}, None, [], "x", {"token_endpoint": "https://mtls.as.test/token"}):
        assert introspection.endpoint_of(metadata(mtls_endpoint_aliases=nothing), TLS) == f"{URL}/introspect"


def test_a_document_names_an_endpoint_directly_or_by_the_alias_that_is_used():
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
def test_an_alias_that_must_not_be_called_is_nonsense(alias: object):
    refused(metadata(mtls_endpoint_aliases={"introspection_endpoint": alias}), TLS)


@pytest.mark.rule("I-37")
def test_a_method_that_the_server_does_not_list_is_an_outage_that_names_both():
    listed = metadata(introspection_endpoint_auth_methods_supported=["private_key_jwt", 7, "client_secret_post"])
    assert "client_secret_basic" in refused(listed, ASKING)
    assert "private_key_jwt client_secret_post" in refused(listed, ASKING)
    fits = metadata(introspection_endpoint_auth_methods_supported=["client_secret_basic"])
    assert introspection.endpoint_of(fits, ASKING) == f"{URL}/introspect"
    unlisted = Introspection(
        auth=ClientAuthentication.BEARER, bearer_token="b"
    )  # no name stands for these in the registry
    assert introspection.endpoint_of(fits, unlisted) == f"{URL}/introspect"
    assert introspection.endpoint_of(fits, Introspection(auth=ClientAuthentication.NONE)) == f"{URL}/introspect"
    strange = metadata(introspection_endpoint_auth_methods_supported="client_secret_post")
    assert introspection.endpoint_of(strange, ASKING) == f"{URL}/introspect"


# -- signed answers (RFC 9701)

SIGNED = Introspection(client_id="api", client_secret="hush", signed=True)
PAYLOAD: dict[str, Any] = {"iss": URL, "aud": "api", "iat": NOW, "token_introspection": MEMBERS}
HEADER: dict[str, Any] = {"alg": "ES256", "typ": "token-introspection+jwt", "kid": "k"}
KIND = {"content-type": "application/token-introspection+jwt"}


def signed(
    header: Mapping[str, Any] = {}, payload: Mapping[str, Any] = {}, headers: Mapping[str, str] = KIND
) -> Answer:
    """A signed answer with these changes; ``None`` removes a member."""

    def changed(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**members, **changes}.items() if value is not None}

    return Answer(200, compact(changed(HEADER, header), changed(PAYLOAD, payload), KEY).encode(), headers)


def read(answer: Answer, policy: Issuer, settings: Introspection, now: float) -> Unverified:
    return introspection.read_signed(answer.body, answer.headers, policy, settings, now)


def test_a_signed_answer_is_read_and_still_to_be_verified():
    token = read(signed(), issuer(), SIGNED, NOW)
    assert token.claims["token_introspection"] == MEMBERS
    assert token.header["kid"] == "k"


@pytest.mark.parametrize(
    "answer",
    [
        signed(payload={"aud": ["other", "api"]}),
        signed(payload={"iat": NOW - 60}),
        signed(payload={"iat": NOW + 60}),
        signed(header={"typ": "application/Token-Introspection+JWT"}),
        signed(headers={"content-type": "Application/Token-Introspection+JWT; charset=utf-8"}),
    ],
)
def test_a_signed_answer_may_be_spelled_in_more_than_one_way(answer: Answer):
    assert read(answer, issuer(), SIGNED, NOW).claims["iss"] == URL


@pytest.mark.rule("I-39")
@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "", None, 7, ["token-introspection+jwt"]])
def test_a_jwt_of_another_type_is_no_signed_answer(typ: object):
    with pytest.raises(MalformedAnswer):
        read(signed({"typ": typ}), issuer(), SIGNED, NOW)


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
def test_a_signed_answer_is_from_our_issuer_for_us_and_of_now(payload: dict[str, Any]):
    with pytest.raises((MalformedAnswer, InvalidToken)):
        read(signed(payload=payload), issuer(), SIGNED, NOW)


@pytest.mark.rule("I-40")
@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "es256"])
def test_a_signed_answer_uses_an_algorithm_of_the_issuer(algorithm: str):
    with pytest.raises(InvalidToken) as error:
        read(signed({"alg": algorithm}), issuer(), SIGNED, NOW)
    assert error.value.reason is Reason.ALGORITHM_REFUSED


@pytest.mark.rule("I-41")
@pytest.mark.parametrize("inner", [None, "x", [], True])
def test_a_signed_answer_without_the_answer_proper_is_none(inner: object):
    payload = {**MEMBERS, "aud": "api", "iat": NOW, "token_introspection": inner}
    with pytest.raises(MalformedAnswer):
        read(signed(payload=payload), issuer(), SIGNED, NOW)


@pytest.mark.rule("I-42")
@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, json.dumps(MEMBERS).encode(), {"content-type": "application/json"}),
        signed(headers={"content-type": "application/jwt"}),
        signed(headers={"content-type": "application/json"}),
        signed(headers={}),
    ],
)
def test_a_plain_answer_is_refused_where_a_signed_one_was_asked_for(answer: Answer):
    with pytest.raises(MalformedAnswer):
        read(answer, issuer(), SIGNED, NOW)


def test_an_encrypted_answer_is_refused_whatever_is_inside():
    parts = (base64url(part) for part in (b'{"alg":"dir","enc":"A256GCM"}', b"", b"iv", b"text", b"tag"))
    with pytest.raises(InvalidToken) as error:
        read(Answer(200, ".".join(parts).encode(), KIND), issuer(), SIGNED, NOW)
    assert error.value.reason is Reason.ENCRYPTED_TOKEN


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"a.b.c", b'{"active": true}'])
def test_what_is_no_jwt_is_no_signed_answer(body: bytes):
    with pytest.raises(InvalidToken):
        read(Answer(200, body, KIND), issuer(), SIGNED, NOW)


# -- how long an answer lasts, and how it is stored


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
def test_an_answer_lasts_until_the_token_expires(members: dict[str, Any] | None, seconds: float):
    assert introspection.remaining(members, NOW) == seconds


@pytest.mark.parametrize("members", [MEMBERS, None])
def test_an_answer_comes_back_from_a_store_as_it_went_in(members: dict[str, Any] | None):
    data = introspection.write_entry(members, NOW + 7, NOW - 2)
    assert introspection.read_entry(data, NOW) == (members, 7.0, NOW - 2)


@pytest.mark.rule("E-16")
@pytest.mark.parametrize(
    ("asked_at", "read"), [("7", 7.0), (f"{NOW + 9}", NOW), ('"7"', float("-inf")), ("1" + "0" * 400, float("-inf"))]
)
def test_an_answer_of_unknown_age_is_the_oldest_and_none_is_of_tomorrow(asked_at: str, read: float):
    data = f'{{"until": {NOW + 7}, "asked_at": {asked_at}, "members": null}}'.encode()
    assert introspection.read_entry(data, NOW) == (None, 7.0, read)
    data = f'{{"until": {NOW + 7}, "members": null}}'.encode()  # as earlier versions wrote it
    assert introspection.read_entry(data, NOW) == (None, 7.0, float("-inf"))


@pytest.mark.rule("I-21", "X-63")
def test_an_answer_from_a_store_ends_when_it_says():
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
def test_what_is_no_entry_is_no_answer(data: bytes | None):
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
def test_an_error_says_whether_it_is_about_our_credentials(body: bytes, *, ours: bool):
    assert introspection.refuses_client(body) is ours
