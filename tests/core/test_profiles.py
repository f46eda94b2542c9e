"""Profiles: what each demands, what it refuses, and that it loosens nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from documentation import PAGES
from doors import asgi_app, call_asgi, call_in_loop, call_wsgi, wsgi_app
from scenarios import Exchange
from scopeguard import (
    ANY_AUDIENCE_DANGEROUSLY,
    ConfigurationError,
    DPoP,
    Guard,
    HttpxTransport,
    Introspection,
    InvalidToken,
    Issuer,
    IssuerResolver,
    Profile,
    Reason,
    RequestView,
    Resource,
    RevocationPolicy,
    Rule,
    StatusListPolicy,
    StrayQueryToken,
    TokenSource,
    TokenSources,
    Validation,
    all_of,
    asgi,
    wsgi,
)
from scopeguard.config.profiles import (
    DEMANDS,
    check_api,
    limit_sources,
    tighten_issuer,
    widen_proof_window,
)
from scopeguard.core.issuer_checks import check_proofs
from scopeguard.devserver.keys import SigningKey, base64url
from scopeguard.guard import Granted, engine_of
from scopeguard.request import HeaderList
from scopeguard.spec import introspection, jwt
from scopeguard.spec.jwks import parse_key_set
from scopeguard.testing import FakeAuthority, ProofKey
from scopeguard.testing.forgeries.token_parts import Forge
from scopeguard.tokens import Unverified

ISS, RES = "https://as.example", "https://api.example/v1"
NOW = 1_800_000_000
ASKING = Introspection(client_id="api", client_secret="s" * 16)
PROFILES = list(Profile)


def guard_of(profile: str, *issuers: Issuer, **settings: Any) -> Guard:
    """A guard that every profile accepts, but for *settings* and, with fapi2, the proofs that it lacks."""
    given = {"resource": RES, "revocation": RevocationPolicy(), **settings}
    return Guard(*(issuers or (Issuer(ISS),)), profile=profile, **given)


def problem(profile: str, *issuers: Issuer, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        guard_of(profile, *issuers, **settings)
    return str(raised.value)


def tighten(profile: Profile = Profile.FAPI2, *, revocable: bool = True, **settings: Any) -> Issuer:
    issuer = Issuer(ISS, **{"audience": RES, **settings})
    return tighten_issuer(profile, issuer, Resource(RES), revocable=revocable)


def refusal(issuer: Issuer, header: Mapping[str, Any] | None = None, **claims: Any) -> Reason | None:
    """Why a JWT is refused that is valid but for *header* and *claims*, apart from the missing proof."""
    good = {
        "iss": ISS, "aud": RES, "exp": NOW + 300, "iat": NOW, "sub": "ann", "client_id": "spa", "jti": "1",
        "scope": "read",
    }  # fmt: skip
    token = Unverified(
        header={"alg": "ES256", "typ": "at+jwt", **(header or {})},
        claims={**good, **claims},
        signed=b"",
        signature=b"",
        fingerprint="0" * 12,
    )
    try:
        jwt.check(token, replace(issuer, require_sender_constraint=False), NOW)
    except InvalidToken as refused:
        return refused.reason
    return None


# -- what every profile refuses


EVERY: list[tuple[str, Issuer, dict[str, Any], str]] = [
    ("query", Issuer(ISS), {"token_sources": ["header", "query"]}, "token_sources: query"),
    ("query of a route", Issuer(ISS), {"rules": [Rule("/x", token_sources=["query"])]}, "token_sources: query"),
    ("cleartext", Issuer(ISS), {"insecure_http_dangerously": ["as:80"]}, "insecure_http_dangerously: ['as:80']"),
    (
        "open replay",
        Issuer(ISS),
        {"dpop": DPoP(replay_fail_open_dangerously=True)},
        "dpop.replay_fail_open_dangerously: True",
    ),
    ("forwarding", Issuer(ISS), {"forward_token_dangerously": True}, "forward_token_dangerously: True"),
    (
        "cleartext of an issuer",
        Issuer("http://as:80", audience=RES, insecure_http_dangerously=["as:80"]),
        {},
        "issuer 'http://as:80': insecure_http_dangerously: ['as:80']",
    ),
    (
        "any audience",
        Issuer(ISS, audience=ANY_AUDIENCE_DANGEROUSLY, expected_claims={"client_id": "spa"}),
        {},
        f"issuer {ISS!r}: audience: ANY_AUDIENCE_DANGEROUSLY",
    ),
    (
        "ID tokens",
        Issuer(ISS, accept_id_tokens_dangerously=True),
        {},
        f"issuer {ISS!r}: accept_id_tokens_dangerously: True",
    ),
    (
        "no issuer claim",
        Issuer(ISS, issuer_claim_optional_dangerously=True),
        {},
        f"issuer {ISS!r}: issuer_claim_optional_dangerously: True",
    ),
    (
        "answers without an audience",
        Issuer(ISS, validate="introspection", introspection=replace(ASKING, require_audience=False)),
        {},
        f"issuer {ISS!r}: introspection.require_audience: False",
    ),
    (
        "open status lists",
        Issuer(ISS, experimental_status_list=StatusListPolicy(fail_open_dangerously=True)),
        {},
        f"issuer {ISS!r}: experimental_status_list.fail_open_dangerously: True",
    ),
    (
        "open revocations",
        Issuer(ISS),
        {"revocation": RevocationPolicy(fail_open_dangerously=True)},
        "revocation.fail_open_dangerously: True",
    ),
    (
        "unverified certificates",
        Issuer(ISS),
        {"transport": HttpxTransport(dangerously_skip_tls_verification=True)},
        "transport: dangerously_skip_tls_verification",
    ),
]


@pytest.mark.rule("F-02", "N-06", "MC-14")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("issuer", "settings", "said"), [case[1:] for case in EVERY], ids=[case[0] for case in EVERY])
def test_contradiction_names_the_setting_the_profile_and_the_fix(
    profile: Profile, issuer: Issuer, settings: dict[str, Any], said: str
):
    Guard(issuer, **{"resource": RES, **settings})  # without a profile it is allowed
    text = problem(profile, issuer, **settings)
    assert text.startswith(said)
    assert f"contradicts profile {profile.value!r} ({DEMANDS[profile].standard})" in text
    assert ";" in text or "which allows" in text


OF_ONE: list[tuple[str, Issuer, dict[str, Any], str]] = [
    ("fapi2", Issuer(ISS), {"token_sources": ["header", "form"]}, "token_sources: form"),
    ("fapi2", Issuer(ISS), {"token_sources": ["subprotocol"]}, "token_sources: subprotocol"),
    ("fapi2", Issuer(ISS, token_header="X-Token"), {}, "token_header: 'x-token'"),
    ("fapi2", Issuer(ISS, algorithms=["RS256", "ES256"]), {}, "algorithms: RS256"),
    ("fapi2", Issuer(ISS, algorithms=["ES384", "PS384"]), {}, "algorithms: ES384 PS384"),
    ("fapi2", Issuer(ISS), {"dpop": DPoP(algorithms=["ES256", "RS256"])}, "dpop.algorithms: RS256"),
    ("fapi2", Issuer(ISS, leeway=5), {}, "leeway: 5"),
    ("fapi2", Issuer(ISS, leeway=60), {}, "leeway: 60"),
    (
        "fapi2",
        Issuer(ISS, validate="introspection", introspection=replace(ASKING, ttl=11)),
        {},
        "introspection.ttl: 11",
    ),
    ("fapi2", Issuer(ISS), {"revocation": None}, "validate: 'jwt' without a way to learn of revocations"),
    (
        "fapi2",
        Issuer(ISS, validate="auto", introspection=ASKING),
        {"revocation": None},
        "validate: 'auto' without a way to learn of revocations",
    ),
    (
        "fapi2",
        Issuer(
            ISS,
            validate="introspection",
            introspection=Introspection(
                client_id="api",
                auth="private_key_jwt",
                private_key=SigningKey.generate("RS256").private_jwk(),
                key_algorithm="RS256",
            ),
        ),
        {},
        "introspection.key_algorithm: RS256",
    ),
    (
        "fapi2",
        Issuer(ISS),
        {"resource": Resource(RES, signing_key=SigningKey.generate("RS256").private_jwk(), signing_algorithm="RS256")},
        "resource: signing_algorithm: RS256",
    ),
    ("mcp", Issuer(ISS), {"token_sources": ["header", "form"]}, "token_sources: form"),
    ("mcp", Issuer(ISS, audience=RES), {"resource": None}, "resource: None"),
    ("mcp", Issuer(ISS), {"resource": Resource(RES, serve_metadata=False)}, "resource: serve_metadata=False"),
    ("mcp", Issuer(ISS), {"resource": Resource(RES, authorization_servers=[])}, "resource: authorization_servers=[]"),
    (
        "mcp",
        Issuer(ISS, audience="api"),
        {"resource": Resource(RES, audience_differs=True)},
        "resource: audience_differs=True",
    ),
    ("mcp", Issuer(ISS, audience=[RES, "api"]), {}, f"audience: api {RES}"),
]


@pytest.mark.rule("F-02", "F-03", "F-06", "N-01", "N-06")
@pytest.mark.parametrize(("profile", "issuer", "settings", "said"), OF_ONE)
def test_contradiction_of_one_profile_is_allowed_by_oauth21(
    profile: str, issuer: Issuer, settings: dict[str, Any], said: str
):
    text = problem(profile, issuer, **settings)
    assert said in text
    assert f"contradicts profile {profile!r}" in text
    assert guard_of("oauth21", issuer, **settings).profile is Profile.OAUTH21


@pytest.mark.rule("N-01")
def test_mcp_needs_an_authorization_server_in_the_metadata():
    resolver = IssuerResolver(accepts=lambda url: False, resolve=lambda url: None)
    with pytest.raises(ConfigurationError, match="authorization_servers"):
        Guard(resolver=resolver, resource=RES, profile="mcp")
    Guard(resolver=resolver, resource=Resource(RES, authorization_servers=[ISS]), profile="mcp")


@pytest.mark.rule("N-14")
@pytest.mark.parametrize("profile", [None, "oauth21", "fapi2"])
def test_only_mcp_canonicalizes_audiences(profile: str | None):
    issuer = Issuer(ISS, canonicalize_audience=True)
    with pytest.raises(ConfigurationError, match="canonicalize_audience: only profile 'mcp' allows it"):
        Guard(issuer, resource=RES, revocation=RevocationPolicy(), profile=profile)
    guard = Guard(issuer, resource=RES, profile="mcp")
    assert refusal(guard.issuers[0], aud=RES.replace("api.example", "API.example")) is None
    assert refusal(Guard(Issuer(ISS), resource=RES, profile="mcp").issuers[0], aud=RES.upper()) is not None


def test_resolved_issuers_meet_the_profile_too():
    authority = FakeAuthority()
    found = replace(authority.issuer, accept_id_tokens_dangerously=True)
    resolver = IssuerResolver(accepts=lambda url: url == authority.url, resolve=lambda url: found)
    settings: dict[str, Any] = {"transport": authority.transport, "clock": authority.clock, "resolver": resolver}
    view = RequestView(
        method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + authority.mint("read").encode())])
    )
    assert isinstance(Guard(**settings).check(view), Granted)
    with pytest.raises(ConfigurationError, match="accept_id_tokens_dangerously: True contradicts profile 'oauth21'"):
        Guard(profile="oauth21", **settings).check(view)


@pytest.mark.parametrize("profile", ["oauth21", "mcp"])
def test_no_caller_widens_the_token_sources_of_a_profile(profile: str):
    guard = guard_of(profile)
    view = RequestView(method="GET", path="/", headers=HeaderList([]))
    for wide in (TokenSources(methods=["query"]), TokenSources(methods=["header", "query"])):
        with pytest.raises(ConfigurationError, match="query contradicts profile"):
            guard.check(view, sources=wide)
    with pytest.raises(ConfigurationError, match="query contradicts profile"):
        guard.sources.with_methods(["query"])
    decision: Any = guard.check(view, sources=TokenSources(methods=["header"]))
    assert decision.error.status == 401
    assert guard.sources.with_methods(["header"]).limit is guard.sources.limit


# -- what each profile sets


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_keeps_stricter_settings(profile: Profile):
    strict: dict[str, Any] = {
        "algorithms": ("ES256",),
        "typ": "at+jwt",
        "leeway": 10,
        "forbidden_headers": ["x5c"],
        "forbidden_claims": ["x"],
        "single_audience": True,
        "validate": "introspection",
        "introspection": replace(ASKING, ttl=3),
    }
    issuer = tighten(profile, **strict)
    assert issuer.algorithms == ("ES256",)
    assert issuer.typ == frozenset({"at+jwt"})
    assert issuer.leeway == 10
    assert "x5c" in issuer.forbidden_headers
    assert issuer.forbidden_claims == ("x",)
    assert issuer.single_audience
    assert issuer.introspection is not None
    assert issuer.introspection.ttl == 3
    refusing = TokenSources(methods=["header"], stray_query_token="refuse", max_token_bytes=100)
    limited = limit_sources(profile, refusing)
    assert limited.stray_query_token is StrayQueryToken.REFUSE
    assert limited.max_token_bytes == 100


def test_profile_changes_nothing_that_it_does_not_name():
    plain = Issuer(ISS, audience=RES)
    assert tighten(Profile.OAUTH21) == plain
    assert tighten(Profile.MCP) == plain
    assert replace(
        tighten(),
        algorithms=plain.algorithms,
        forbidden_headers=(),
        require_sender_constraint=False,
    ) == replace(plain, algorithms=tuple(plain.algorithms))


def test_https_is_required_by_oauth21():
    authority = FakeAuthority()
    settings: dict[str, Any] = {"transport": authority.transport, "clock": authority.clock}
    view = RequestView(
        method="GET",
        path="/",
        headers=HeaderList([(b"authorization", b"Bearer " + authority.mint("read").encode())]),
        secure=False,
        client="192.0.2.1",
    )
    decision: Any = Guard(authority.issuer, profile="oauth21", **settings).check(view)
    assert decision.error.reason is Reason.HTTPS_REQUIRED
    assert isinstance(Guard(authority.issuer, **settings).check(view), Granted)


# -- FAPI 2.0, by the functions of the profile


@pytest.mark.rule("F-05")
@pytest.mark.parametrize(
    ("settings", "cause"),
    [({"profile": "fapi2"}, "profile 'fapi2'"), ({}, "require_sender_constraint")],
)
def test_guard_that_requires_bound_tokens_needs_a_policy_for_proofs(settings: dict[str, Any], cause: str):
    issuer = Issuer(ISS, audience=RES, require_sender_constraint="profile" not in settings)
    with pytest.raises(ConfigurationError, match=rf"{cause} accepts only tokens that are bound to a key.*DPoP"):
        Guard(issuer, revocation=RevocationPolicy(), **settings)
    check_proofs(None, Issuer(ISS, audience=RES), None)
    for off in (DPoP(mode="off"), None):
        with pytest.raises(ConfigurationError, match="no proof of possession is checked"):
            check_proofs(None, issuer if not settings else tighten(), off)
    guard = Guard(issuer, revocation=RevocationPolicy(), resource=Resource(RES), dpop=DPoP(mode="required"), **settings)
    assert guard.issuers[0].require_sender_constraint


@pytest.mark.rule("MC-15")
def test_mcp_widens_the_window_of_proofs_unless_it_is_set():
    for policy, window in ((DPoP(), (300.0, 300.0)), (DPoP(max_age=30), (30, 10.0))):
        found = widen_proof_window(Profile.MCP, policy)
        assert (found.max_age, found.max_skew) == window
    assert widen_proof_window(Profile.OAUTH21, DPoP()) == DPoP()
    guard = Guard(Issuer(ISS), resource=RES, profile="mcp", dpop=DPoP())
    possession = engine_of(guard).context.possession
    assert possession is not None
    assert possession.policy.max_age == 300
    assert possession.memory.limits.per_owner == 8572, "as many requests a second as with the default window"


@pytest.mark.rule("F-05")
def test_unbound_token_is_refused_where_bound_ones_are_required():
    issuer = tighten()
    assert issuer.require_sender_constraint
    members = {"active": True, "aud": RES, "client_id": "spa", "sub": "ann"}
    for claims, reason in [
        ({}, Reason.SENDER_CONSTRAINT_MISSING),
        ({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, Reason.SENDER_CONSTRAINT_UNPROVEN),
    ]:
        answer = introspection.as_claims({**members, **claims}, "0" * 12)
        with pytest.raises(InvalidToken) as refused:
            introspection.check_answer(answer, issuer, NOW, audience_required=True)
        assert refused.value.reason is reason
        good = {"iss": ISS, "aud": RES, "exp": NOW + 9, "iat": NOW, "sub": "a", "client_id": "c", "jti": "1", **claims}
        token = Unverified(
            header={"alg": "ES256", "typ": "at+jwt"}, claims=good, signed=b"", signature=b"", fingerprint="0" * 12
        )
        with pytest.raises(InvalidToken) as refused:
            jwt.check(token, issuer, NOW)
        assert refused.value.reason is reason


@pytest.mark.rule("F-01", "F-04", "F-05", "F-06")
def test_fapi2_admits_the_holder_of_the_key_of_a_bound_token():
    authority = FakeAuthority(audience=RES)
    guard = Guard(
        Issuer(authority.url),
        resource=RES,
        profile="fapi2",
        revocation=RevocationPolicy(),
        dpop=DPoP(mode="required"),
        transport=authority.transport,
        clock=authority.clock,
    )
    key = ProofKey("ES256")

    def judge(token: str, scheme: str = "DPoP") -> Any:
        proof = key.proof(token, "GET", f"{RES}/rows", at=authority.clock.wall())
        pairs = [(b"authorization", f"{scheme} {token}".encode()), (b"dpop", proof.encode())]
        view = RequestView(method="GET", path="/v1/rows", raw_path=b"/v1/rows", headers=HeaderList(pairs))
        return guard.check(view, all_of("read"))

    bound = authority.mint("read", algorithm="ES256", bound_to=key)
    assert isinstance(judge(bound), Granted)
    assert judge(authority.mint("other", algorithm="ES256", bound_to=key)).error.status == 403
    for token, scheme in [
        (authority.mint("read", algorithm="ES256"), "Bearer"),
        (bound, "Bearer"),
        (authority.mint("read", algorithm="RS256", bound_to=key), "DPoP"),
    ]:
        assert judge(token, scheme).error.status == 401


@pytest.mark.rule("F-06")
def test_fapi2_accepts_three_algorithms():
    issuer = tighten()
    assert set(issuer.algorithms) == {"PS256", "ES256", "EdDSA", "Ed25519"}
    for algorithm in ("PS256", "ES256", "EdDSA", "Ed25519"):
        assert refusal(issuer, {"alg": algorithm}) is None
    for algorithm in ("RS256", "ES384", "PS384", "none", "HS256"):
        assert refusal(issuer, {"alg": algorithm}) in (Reason.ALGORITHM_REFUSED, Reason.MALFORMED_TOKEN)
    assert tighten(algorithms=["ES256"]).algorithms == ("ES256",)


@pytest.mark.rule("F-07")
def test_small_keys_are_refused():
    small_rsa = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    small_ec = ec.generate_private_key(ec.SECP192R1()).public_key().public_numbers()

    good = SigningKey.generate("ES256").public_jwk()
    numbers = {name: base64url(value.to_bytes(octets, "big")) for name, value, octets in (
        ("n", small_rsa.n, 128), ("x", small_ec.x, 24), ("y", small_ec.y, 24),
    )}  # fmt: skip
    rsa_key = {"kty": "RSA", "kid": "small", "n": numbers["n"], "e": "AQAB"}
    ec_key = {"kty": "EC", "crv": "P-192", "kid": "p192", "x": numbers["x"], "y": numbers["y"]}
    keys = parse_key_set(json.dumps({"keys": [good, rsa_key, ec_key]}).encode())
    assert [key.kid for key in keys.keys] == [good["kid"]]
    assert {key.kid for key in keys.ignored} == {"small", "p192"}
    with pytest.raises(ConfigurationError, match="RSA key of 1024 bits"):
        Guard(Issuer(ISS, audience=RES, keys={"keys": [good, rsa_key]}))


@pytest.mark.rule("F-08")
@pytest.mark.parametrize("name", ["x5u", "jku"])
def test_fapi2_refuses_tokens_that_name_the_place_of_their_key(name: str):
    assert refusal(tighten(), {name: "https://evil.example/jwks"}) is Reason.HEADER_REFUSED
    assert refusal(tighten(Profile.OAUTH21), {name: "https://evil.example/jwks"}) is None
    with pytest.raises(ConfigurationError, match="jwks_uri"):
        Issuer(ISS, audience=RES, jwks_uri="http://as.example/jwks")


@pytest.mark.rule("F-09")
def test_token_is_verified_with_the_fitting_key_of_two_with_one_id():
    authority = FakeAuthority()
    forge = Forge(authority)
    other = SigningKey.generate("ES256", kid=forge.ec.kid)
    keys = {"keys": [other.public_jwk(), forge.ec.public_jwk()]}
    guard = Guard(Issuer(authority.url, audience=authority.audience, keys=keys), clock=authority.clock)
    for key in (forge.ec, other):
        token = forge.sign(forge.header(key), forge.claims(), key)
        view = RequestView(
            method="GET", path="/", headers=HeaderList([(b"authorization", b"Bearer " + token.encode())])
        )
        assert isinstance(guard.check(view), Granted)


@pytest.mark.rule("F-10")
@pytest.mark.parametrize("leeway", [None, 10, 30, 59])
@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_dates_up_to_ten_seconds_ahead_are_accepted_and_those_of_a_minute_are_not(claim: str, leeway: float | None):
    issuer = tighten() if leeway is None else tighten(leeway=leeway)
    ahead: list[dict[str, Any]] = [{claim: NOW + seconds} for seconds in (10, 60)]
    assert refusal(issuer, **ahead[0]) is None
    assert refusal(issuer, **ahead[1]) in (Reason.TOKEN_ISSUED_IN_FUTURE, Reason.TOKEN_NOT_YET_VALID)


@pytest.mark.rule("F-03")
def test_fapi2_uses_introspection_answers_for_at_most_ten_seconds():
    for given, effective in ((60.0, 0.0), (0.0, 0.0), (10.0, 10.0)):
        issuer = tighten(validate="introspection", introspection=replace(ASKING, ttl=given), revocable=False)
        assert issuer.introspection is not None
        assert issuer.introspection.ttl == effective


@pytest.mark.rule("F-03")
def test_fapi2_requires_a_way_to_learn_of_revocations():
    listed = StatusListPolicy()
    assert tighten(revocable=False, experimental_status_list=listed).experimental_status_list == replace(
        listed, required=True
    )
    assert tighten(revocable=True, experimental_status_list=listed).experimental_status_list == listed
    assert tighten(revocable=True).experimental_status_list is None
    asked = tighten(revocable=False, validate="introspection", introspection=ASKING)
    assert asked.validate is Validation.INTROSPECTION
    with pytest.raises(ConfigurationError, match="SecurityEventReceiver"):
        tighten(revocable=False)


@pytest.mark.rule("F-02")
def test_fapi2_refuses_tokens_in_the_query():
    limited = limit_sources(Profile.FAPI2, TokenSources())
    assert limited.stray_query_token is StrayQueryToken.REFUSE
    assert limited.methods == {TokenSource.HEADER}
    assert limit_sources(Profile.OAUTH21, TokenSources()).stray_query_token is StrayQueryToken.IGNORE


def test_settings_of_the_guard_that_a_profile_accepts():
    for profile in PROFILES:
        check_api(
            profile,
            [Issuer(ISS)],
            resource=Resource(RES),
            revocation=RevocationPolicy(),
            dangers={},
            proof_algorithms=("ES256",),
            skips_tls_verification=False,
        )


# -- an MCP server, by ASGI and WSGI


class Server:
    """An API with the profile mcp."""

    def __init__(self, kind: str) -> None:
        self.authority = FakeAuthority(audience=RES)
        self.forge = Forge(self.authority)
        guard = Guard(
            Issuer(self.authority.url, implies={"files:write": ["read", "write"]}),
            resource=RES,
            profile="mcp",
            rules=[Rule("/both", all_of("read", "write")), Rule("/none")],
            transport=self.authority.transport,
            clock=self.authority.clock,
        )
        self.send: Any
        if kind == "asgi":
            self.send = call_in_loop("asyncio", call_asgi, asgi.GuardMiddleware(asgi_app, guard=guard))
        else:
            self.send = partial(call_wsgi, wsgi.GuardMiddleware(wsgi_app, guard=guard))

    def get(self, *fields: tuple[bytes, bytes], target: str = "/both", **more: Any) -> Any:
        return self.send(Exchange(target=target, headers=fields, **more))

    def present(self, token: str, target: str = "/both") -> Any:
        return self.get((b"authorization", b"Bearer " + token.encode()), target=target)

    def token(self, *without: str, **claims: Any) -> str:
        return self.forge.sign(claims=self.forge.claims(*without, **claims))


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest) -> Server:
    return Server(request.param)


def challenge(answer: Any) -> str:
    (value,) = answer.all("www-authenticate")
    return str(value)


METADATA = 'resource_metadata="https://api.example/.well-known/oauth-protected-resource/v1"'


@pytest.mark.rule("N-03", "N-04", "N-08")
def test_mcp_server_refuses_invalid_tokens_and_those_for_others_with_401(server: Server):
    assert server.present(server.token()).status == 200
    for token in (
        server.token(aud="https://other.example"),
        server.token("aud"),
        server.token(aud=[]),
        server.token(exp=server.forge.now - 3600),
        "garbage",
    ):
        answer = server.present(token)
        assert answer.status == 401
        assert 'error="invalid_token"' in challenge(answer)
        assert METADATA in challenge(answer)


@pytest.mark.rule("N-06", "N-08")
def test_mcp_server_ignores_a_token_in_the_query(server: Server):
    token = server.token()
    assert server.get(target=f"/none?access_token={token}").status == 401
    assert server.present(token, f"/none?access_token={token}").status == 200
    form = (b"content-type", b"application/x-www-form-urlencoded")
    body = b"access_token=" + token.encode()
    assert server.get(form, target="/none", method="POST", body=body).status == 401
    field = (b"authorization", b"Bearer " + token.encode())
    assert server.get(field, field).status == 400


@pytest.mark.rule("N-07", "N-16")
def test_mcp_session_id_is_not_a_credential(server: Server):
    session = (b"mcp-session-id", b"1868a90c-5f21-4d2f-8f0f-1f0a0f6a3c11")
    assert server.get(session, (b"authorization", b"Bearer " + server.token().encode())).status == 200
    answer = server.get(session)
    assert answer.status == 401
    assert "error" not in challenge(answer)


@pytest.mark.rule("N-09")
def test_challenge_without_a_token_names_the_scopes_of_the_operation(server: Server):
    said = challenge(server.get())
    assert 'scope="read write"' in said
    assert "error" not in said
    assert METADATA in said


@pytest.mark.rule("N-08", "N-12")
def test_broader_scope_satisfies_a_narrower_requirement_if_it_is_declared(server: Server):
    assert server.present(server.token(scope="files:write")).status == 200
    answer = server.present(server.token(scope="files"))
    assert answer.status == 403
    assert 'error="insufficient_scope"' in challenge(answer)
    assert 'scope="read write"' in challenge(answer)


@pytest.mark.rule("N-15")
def test_page_says_that_the_profile_is_for_http():
    assert "stdio" in PAGES["docs/profiles.md"]


# -- the page


def write_cell(value: object) -> str:
    """A value of the table on the page."""
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "any"
        case frozenset() | tuple() if not value:
            return "none"
        case frozenset():
            return ", ".join(f"`{item}`" for item in sorted(value))
        case (float(), float()):
            return f"{value[0]:g} to {value[1]:g} s"
        case tuple():
            return ", ".join(f"`{item}`" for item in value)
        case _:
            return f"`{value}`"


def test_page_has_a_row_for_each_demand_with_what_each_profile_says():
    names = [demand.name for demand in fields(next(iter(DEMANDS.values()))) if demand.name != "standard"]
    page = PAGES["docs/profiles.md"]
    for name in names:
        cells = [write_cell(getattr(DEMANDS[profile], name)) for profile in PROFILES]
        rows = [
            line for line in page.splitlines() if line.startswith("|") and line.endswith(f"| {' | '.join(cells)} |")
        ]
        assert any(f"<!-- {name} -->" in row for row in rows), (name, cells)
    assert set(re.findall(r"<!-- (\w+) -->", page)) == set(names)
