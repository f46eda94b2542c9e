"""Identities of workloads with a whole guard: JWT-SVIDs of SPIFFE, and service accounts by TokenReview."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scopeguard import (
    ANY_AUDIENCE_DANGEROUSLY,
    ConfigurationError,
    Denied,
    Granted,
    Guard,
    HeaderList,
    Introspection,
    Issuer,
    Reason,
    RequestView,
    Unavailable,
    presets,
)
from scopeguard.devserver.keys import SigningKey, compact
from scopeguard.errors import AuthorityUnavailable
from scopeguard.explanation import Verdict
from scopeguard.flow.effects import Answer, Send
from scopeguard.guard import engine_of
from scopeguard.testing import FakeAuthority, FakeClock

API = "https://api.test"
KEY, OTHER_KEY = SigningKey.generate("ES256", kid="1"), SigningKey.generate("ES256", kid="1")
SUBJECT = "spiffe://prod.test/ns/etl/sa/ingest"


def request(token: str) -> RequestView:
    return RequestView(method="GET", path="/", headers=HeaderList([(b"authorization", f"Bearer {token}".encode())]))


def reason_of(decision: Any) -> Reason:
    assert isinstance(decision, Denied | Unavailable)
    return decision.error.reason


# -- SPIFFE


def bundle(key: SigningKey = KEY, **members: Any) -> bytes:
    keys = [
        {**key.public_jwk(), "use": "jwt-svid"},
        {**OTHER_KEY.public_jwk(), "kid": "x", "use": "x509-svid"},
    ]
    for jwk in keys:
        jwk.pop("alg", None)
    return json.dumps({"keys": keys, **members}).encode()


class Spiffe:
    """A guard with the trust domain prod.test, whose bundle is in a file."""

    def __init__(self, folder: Path, *more: Issuer, **arguments: Any) -> None:
        self.clock = FakeClock()
        self.file = folder / "bundle.json"
        self.file.write_bytes(bundle())
        self.issuer = presets.spiffe("prod.test", API, jwks_file=str(self.file), **arguments)
        self.more = more
        self.guard = self.guard_of(self.issuer, *more)

    def guard_of(self, *issuers: Issuer, **settings: Any) -> Guard:
        return Guard(*issuers, clock=self.clock, **{"resource": API, **settings})

    def svid(self, key: SigningKey = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(self.clock.wall())
        content = {"sub": SUBJECT, "aud": [API], "exp": now + 300, "iat": now, **claims}
        head = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT", **(header or {})}
        return compact(
            {name: value for name, value in head.items() if value is not None},
            {name: value for name, value in content.items() if value is not None},
            key,
        )

    def check(self, token: str | None = None, **claims: Any) -> Any:
        return self.guard.check(request(self.svid(**claims) if token is None else token))


@pytest.fixture
def spiffe(tmp_path: Path) -> Spiffe:
    return Spiffe(tmp_path)


@pytest.mark.rule("SP-02")
@pytest.mark.parametrize("iss", [None, "https://oidc.prod.test", "spiffe://other.test", 7])
def test_svid_is_accepted_whatever_its_issuer_claim(spiffe: Spiffe, iss: Any):
    for _ in range(3):  # the third token is verified without a flow
        token = spiffe.check(iss=iss).access_token
        assert token.identity == ("spiffe://prod.test", SUBJECT)
        assert (token.machine, token.scopes, token.audience) == (True, frozenset(), (API,))


@pytest.mark.rule("SP-01")
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": "spiffe://prod.test"}, Reason.MALFORMED_CLAIM),
        ({"sub": "spiffe://prod.test/a/../b"}, Reason.MALFORMED_CLAIM),
        ({"sub": "spiffe://other.test/a"}, Reason.UNKNOWN_ISSUER),
        ({"sub": "spiffe://PROD.test/a"}, Reason.UNKNOWN_ISSUER),
        ({"sub": "alice", "iss": "spiffe://prod.test"}, Reason.MALFORMED_CLAIM),
        ({"sub": None, "iss": "spiffe://prod.test"}, Reason.MISSING_CLAIM),
        ({"sub": None}, Reason.MISSING_CLAIM),
        ({"aud": None}, Reason.MISSING_CLAIM),
        ({"aud": []}, Reason.MALFORMED_CLAIM),
        ({"aud": "https://other.test"}, Reason.WRONG_AUDIENCE),
        ({"exp": None}, Reason.MISSING_CLAIM),
        ({"exp": 1}, Reason.TOKEN_EXPIRED),
        ({"header": {"typ": "at+jwt"}}, Reason.TYPE_REFUSED),
        ({"header": {"alg": "HS256"}}, Reason.ALGORITHM_REFUSED),
        ({"header": {"alg": "none"}}, Reason.ALGORITHM_REFUSED),
        ({"header": {"kid": "x"}}, Reason.UNKNOWN_KEY),  # a key for certificates
        ({"key": OTHER_KEY}, Reason.BAD_SIGNATURE),
        ({"key": SigningKey.generate("EdDSA", kid="1")}, Reason.ALGORITHM_REFUSED),
    ],
)
def test_other_svid_is_refused(spiffe: Spiffe, claims: dict[str, Any], reason: Reason):
    for _ in range(3):
        spiffe.check()
    assert reason_of(spiffe.check(**claims)) is reason


@pytest.mark.rule("SP-01")
@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"])
def test_algorithms_of_the_standard_are_accepted(tmp_path: Path, algorithm: str):
    key = SigningKey.generate(algorithm, kid="1")
    spiffe = Spiffe(tmp_path)
    spiffe.file.write_bytes(bundle(key))
    assert isinstance(spiffe.check(key=key), Granted)


@pytest.mark.rule("SP-01")
@pytest.mark.parametrize("typ", ["JWT", "JOSE", None])
def test_types_of_the_standard_are_accepted(spiffe: Spiffe, typ: str | None):
    assert isinstance(spiffe.check(header={"typ": typ}), Granted)


@pytest.mark.rule("SP-03")
@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        ({"ids": SUBJECT}, True),
        ({"ids": "spiffe://prod.test/ns/etl/sa/other"}, False),
        ({"ids": f"{SUBJECT}/x"}, False),
        ({"id_prefixes": "spiffe://prod.test/ns/etl"}, True),
        ({"id_prefixes": "spiffe://prod.test/ns/etl/sa"}, True),
        ({"id_prefixes": "spiffe://prod.test/ns/et"}, False),
        ({"id_prefixes": SUBJECT}, False),  # the IDs below it
        ({"id_prefixes": ["spiffe://prod.test/ns/web", "spiffe://prod.test/ns/etl"]}, True),
    ],
)
def test_callers_are_limited_by_ids_and_by_whole_segments(tmp_path: Path, arguments: dict[str, Any], accepted: bool):
    assert isinstance(Spiffe(tmp_path, **arguments).check(), Granted) is accepted


@pytest.mark.rule("SP-02")
def test_federated_trust_domain_has_keys_of_its_own(tmp_path: Path):
    file = tmp_path / "partner.json"
    file.write_bytes(bundle(OTHER_KEY))
    spiffe = Spiffe(tmp_path, presets.spiffe("partner.test", API, jwks_file=str(file)))
    theirs = "spiffe://partner.test/web"
    for _ in range(3):
        assert spiffe.check().access_token.issuer == "spiffe://prod.test"
        assert spiffe.check(key=OTHER_KEY, sub=theirs).access_token.issuer == "spiffe://partner.test"
        # The headers are equal, so that only the subject tells the keys.
        assert reason_of(spiffe.check(sub=theirs)) is Reason.BAD_SIGNATURE
        assert reason_of(spiffe.check(key=OTHER_KEY)) is Reason.BAD_SIGNATURE


@pytest.mark.rule("SP-02")
def test_issuer_claim_never_selects_the_keys_of_a_token_with_a_spiffe_id(tmp_path: Path):
    """Another issuer must not speak for workloads, also if its header is known and its key would verify."""
    authority = FakeAuthority(audience=API)
    spiffe = Spiffe(tmp_path)
    guard = spiffe.guard_of(spiffe.issuer, authority.issuer, transport=authority.transport)

    def check(subject: str) -> Any:
        text = f"Bearer {authority.mint(subject=subject, headers={'typ': 'JWT'})}".encode()
        recalled = engine_of(guard).recall(text, None, b"", None)
        return Granted(recalled) if recalled is not None else guard.check(request(text.decode()[7:]))

    for _ in range(3):
        assert isinstance(check("alice"), Granted)
    assert reason_of(check(SUBJECT)) is Reason.UNKNOWN_KEY
    elsewhere = check("spiffe://elsewhere.test/a")
    assert isinstance(elsewhere, Granted)
    assert elsewhere.access_token.issuer == authority.url


def test_bundle_is_read_again_when_its_hint_says_so(spiffe: Spiffe):
    spiffe.file.write_bytes(bundle(spiffe_refresh_hint=120))
    spiffe.check()
    spiffe.file.write_bytes(bundle(OTHER_KEY, spiffe_refresh_hint=120))
    spiffe.clock.advance(60)
    assert isinstance(spiffe.check(), Granted)
    spiffe.clock.advance(61)
    assert isinstance(spiffe.check(key=OTHER_KEY), Granted)


def test_older_bundle_does_not_replace_a_newer_one(spiffe: Spiffe):
    spiffe.file.write_bytes(bundle(spiffe_sequence=7))
    spiffe.check()
    spiffe.file.write_bytes(bundle(OTHER_KEY, spiffe_sequence=6))
    spiffe.clock.advance(3600)
    assert not isinstance(spiffe.check(key=OTHER_KEY), Granted)
    assert isinstance(spiffe.check(), Granted)
    spiffe.file.write_bytes(bundle(OTHER_KEY, spiffe_sequence=8))
    spiffe.clock.advance(3600)
    assert isinstance(spiffe.check(key=OTHER_KEY), Granted)


def test_bundle_comes_from_an_endpoint(tmp_path: Path):
    spiffe = Spiffe(tmp_path)
    sends: list[Send] = []

    class Endpoint:
        def send(self, send: Send) -> Answer:
            sends.append(send)
            return Answer(200, bundle(spiffe_refresh_hint=60), {"content-type": "application/json"})

        def close(self) -> None: ...

    issuer = presets.spiffe("prod.test", API, jwks_uri="https://spire.test/bundle")
    guard = spiffe.guard_of(issuer, transport=Endpoint())
    assert isinstance(guard.check(request(spiffe.svid())), Granted)
    assert [send.url for send in sends] == ["https://spire.test/bundle"]


def test_bundle_that_cannot_be_read_is_an_outage(spiffe: Spiffe):
    spiffe.file.write_bytes(b'{"keys": []}')
    assert isinstance(spiffe.check(), Unavailable)


def test_keys_may_be_in_the_settings(spiffe: Spiffe):
    issuer = replace(spiffe.issuer, jwks_file=None, keys=json.loads(bundle()))
    assert isinstance(spiffe.guard_of(issuer).check(request(spiffe.svid())), Granted)


def test_explanation_names_the_trust_domain(spiffe: Spiffe):
    explained = spiffe.guard.explain(request(spiffe.svid()))
    assert (explained.verdict, explained.issuer) == (Verdict.ACCEPTED, "spiffe://prod.test")
    (issuer,) = [check for check in explained.checks if check.name == "issuer"]
    assert SUBJECT in issuer.found


def test_metadata_of_the_api_names_no_trust_domain(spiffe: Spiffe):
    metadata = engine_of(spiffe.guard_of(spiffe.issuer, resource=API)).metadata
    assert metadata is not None
    answer = metadata.answer("GET", "/.well-known/oauth-protected-resource")
    assert answer is not None
    assert "authorization_servers" not in json.loads(answer.body)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "jwks_file, jwks_uri: give one"),
        ({"jwks_file": "a", "jwks_uri": "https://a.test"}, "jwks_file, jwks_uri: give one"),
        ({"jwks_file": "a", "ids": SUBJECT, "id_prefixes": SUBJECT}, "ids, id_prefixes: give one"),
        ({"jwks_file": "a", "ids": "spiffe://other.test/a"}, "ids: a SPIFFE ID of prod.test"),
        ({"jwks_file": "a", "id_prefixes": "spiffe://prod.test/"}, "id_prefixes: a SPIFFE ID"),
        ({"jwks_file": "a", "ids": "spiffe://prod.test/a/../b"}, "ids: a SPIFFE ID"),
        ({"jwks_uri": "http://spire.test/bundle"}, "jwks_uri"),
    ],
)
def test_wrong_argument_of_the_preset_is_refused(arguments: dict[str, Any], problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        presets.spiffe("prod.test", API, **arguments)


@pytest.mark.parametrize(
    ("url", "settings", "problem"),
    [
        ("spiffe://prod.test/", {"jwks_file": "a"}, "is not the id of a trust domain"),
        ("spiffe://Prod.test", {"jwks_file": "a"}, "is not the id of a trust domain"),
        ("spiffe://prod.test", {}, "set jwks_uri or jwks_file"),
        ("spiffe://prod.test", {"jwks_file": "a", "aliases": {"x": {}}}, "leave out aliases"),
        ("spiffe://prod.test", {"jwks_file": "a", "issuer_claim_optional_dangerously": True}, "leave out aliases"),
    ],
)
def test_wrong_setting_of_a_trust_domain_is_refused(url: str, settings: dict[str, Any], problem: str):
    with pytest.raises(ConfigurationError, match=problem):
        Issuer(url, audience=API, **settings)


# -- TokenReview

CLUSTER = "https://kubernetes.default.svc.cluster.local"
WEBHOOK_IS_DOWN = 'Post "https://hook.test/": context deadline exceeded'
ACCOUNT = "system:serviceaccount:etl:ingest"


class Cluster:
    """An API server that answers *reply*, and the file with the token of this API's service account."""

    def __init__(self, folder: Path, **arguments: Any) -> None:
        self.clock = FakeClock()
        self.file = folder / "token"
        self.file.write_text("own-1\n")
        self.sends: list[Send] = []
        self.accepts = "own-1"
        self.reply: Callable[[Send], Answer] = lambda send: self.review()
        given = {"bearer_file": str(self.file), "ca_file": "/ca.crt", **arguments}
        self.issuer = presets.kubernetes_token_review(API, **given)
        self.guard = Guard(self.issuer, transport=self, clock=self.clock)

    def send(self, send: Send) -> Answer:
        self.sends.append(send)
        if send.authorization != f"Bearer {self.accepts}":
            return Answer(401, b'{"kind": "Status"}', {"content-type": "application/json"})
        return self.reply(send)

    def close(self) -> None: ...

    def review(self, status: int = 201, **changes: Any) -> Answer:
        members = {
            "authenticated": True,
            "user": {"username": ACCOUNT, "uid": "1", "groups": ["g"]},
            "audiences": [API],
            **changes,
        }
        body = {"kind": "TokenReview", "status": {k: v for k, v in members.items() if v is not None}}
        return Answer(status, json.dumps(body).encode(), {"content-type": "application/json"})

    def token(self, number: int = 0, **claims: Any) -> str:
        content = {"iss": CLUSTER, "sub": ACCOUNT, "n": number, **claims}
        return f"{compact({'alg': 'RS256', 'kid': 'k'}, content, KEY).rpartition('.')[0]}.AAAA"

    def check(self, number: int = 0) -> Any:
        return self.guard.check(request(self.token(number)))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_token_is_reviewed_once_in_a_minute(cluster: Cluster):
    for _ in range(2):
        token = cluster.check().access_token
    assert token.identity == (CLUSTER, ACCOUNT)
    assert (token.machine, token.expires_at, token.audience) == (True, None, (API,))
    (send,) = cluster.sends
    assert send.url == "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/tokenreviews"
    assert (send.authorization, send.ca_file) == ("Bearer own-1", "/ca.crt")
    assert json.loads(send.content or b"")["spec"] == {"token": cluster.token(), "audiences": [API]}
    cluster.clock.advance(60)
    cluster.reply = lambda send: cluster.review(authenticated=False, error="[invalid bearer token, deleted]")
    assert reason_of(cluster.check()) is Reason.TOKEN_NOT_ACTIVE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authenticated": False, "user": None}, Reason.TOKEN_NOT_ACTIVE),
        ({"audiences": None}, Reason.MISSING_CLAIM),  # the API server has checked its own audience
        ({"audiences": []}, Reason.MISSING_CLAIM),
        ({"audiences": ["https://other.test"]}, Reason.WRONG_AUDIENCE),
        ({"user": {"username": "admin", "uid": "1"}}, Reason.UNEXPECTED_CLAIM),
        ({"user": {"username": ACCOUNT}}, Reason.MISSING_CLAIM),
    ],
)
def test_answer_refuses_the_token(cluster: Cluster, changes: dict[str, Any], reason: Reason):
    cluster.reply = lambda send: cluster.review(**changes)
    decision = cluster.check()
    assert (reason_of(decision), decision.response.status) == (reason, 401)


@pytest.mark.parametrize(
    "reply",
    [
        lambda cluster: cluster.review(authenticated=False, error="webhook: timeout"),
        lambda cluster: cluster.review(authenticated=False, error=f"[invalid bearer token, {WEBHOOK_IS_DOWN}]"),
        lambda cluster: cluster.review(status=500),
        lambda cluster: cluster.review(status=403),
        lambda cluster: cluster.review(status=404),
        lambda cluster: Answer(201, b"<html>", {"content-type": "text/html"}),
        lambda cluster: Answer(201, b"{}", {"content-type": "application/json"}),
        lambda cluster: AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, CLUSTER),
    ],
)
def test_outage_is_503(cluster: Cluster, reply: Any):
    def answer(send: Send) -> Answer:
        found = reply(cluster)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Answer)
        return found

    cluster.reply = answer
    decision = cluster.check()
    assert isinstance(decision, Unavailable)
    assert dict(decision.response.headers)["retry-after"]


def test_token_of_the_own_account_is_read_again_after_its_rotation(cluster: Cluster):
    cluster.check()
    cluster.file.write_text("own-2\n")
    cluster.accepts = "own-2"
    assert isinstance(cluster.check(1), Granted)
    assert [send.authorization for send in cluster.sends] == ["Bearer own-1", "Bearer own-1", "Bearer own-2"]


@pytest.mark.parametrize("missing", [True, False])
def test_refused_or_missing_own_account_is_an_outage_that_says_why(cluster: Cluster, missing: bool):
    if missing:
        cluster.file.unlink()
    else:
        cluster.accepts = "another"
    decision = cluster.check()
    assert isinstance(decision, Unavailable)
    problem = decision.error.detail["problem"]
    assert ("raised FileNotFoundError" if missing else "system:auth-delegator") in problem


def test_service_accounts_are_limited(tmp_path: Path):
    for arguments, accepted in (
        ({"namespaces": "etl"}, True),
        ({"namespaces": "web"}, False),
        ({"service_accounts": "etl/ingest"}, True),
        ({"service_accounts": "etl/other"}, False),
    ):
        assert isinstance(Cluster(tmp_path, **arguments).check(), Granted) is accepted


def test_tokens_of_others_are_not_shown_to_the_api_server(cluster: Cluster):
    assert reason_of(cluster.guard.check(request(cluster.token(iss="https://other.test")))) is Reason.UNKNOWN_ISSUER

    assert cluster.sends == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"auth": "none", "bearer_token": None}, 'needs endpoint and auth = "bearer"'),
        ({"endpoint": None}, "needs endpoint"),
        ({"require_audience": False}, "require_audience: must be true"),
        ({"dialect": "google_tokeninfo"}, 'auth = "none"'),
    ],
)
def test_wrong_setting_of_the_dialect_is_refused(settings: dict[str, Any], problem: str):
    given = {
        "endpoint": "https://k8s.test/reviews",
        "auth": "bearer",
        "bearer_token": "x",
        "dialect": "kubernetes_token_review",
        **settings,
    }
    with pytest.raises(ConfigurationError, match=problem):
        Introspection(**given)


def test_dialect_needs_an_audience_to_ask_for(cluster: Cluster):
    with pytest.raises(ConfigurationError, match="ANY_AUDIENCE_DANGEROUSLY contradicts"):
        replace(cluster.issuer, audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"sub": ["x"]})
    with pytest.raises(ConfigurationError, match="ca_file: has no effect without endpoint"):
        Introspection(client_id="a", client_secret="s", ca_file="ca.pem")


def test_certificate_authorities_are_those_of_the_settings_for_other_endpoints():
    authority = FakeAuthority()
    sends: list[Send] = []

    class Watched:
        def send(self, send: Send) -> Answer:
            sends.append(send)
            return authority.transport.send(send)

        def close(self) -> None: ...

    asking = Introspection(client_id="a", client_secret="s", endpoint="https://as.test/introspect", ca_file="/ca.pem")
    issuer = Issuer("https://as.test", audience="https://api.test", validate="introspection", introspection=asking)
    Guard(issuer, transport=Watched(), clock=authority.clock).check(request(authority.mint()))
    assert [send.ca_file for send in sends] == ["/ca.pem"]
