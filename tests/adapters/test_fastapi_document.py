"""What the OpenAPI document says about flows, proofs of possession and refusals, and what Swagger UI gets."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security
from starlette.testclient import TestClient

from scopeguard import (
    AUTHENTICATED,
    MACHINE,
    NOT_DELEGATED,
    PUBLIC,
    USER,
    AuthorizationDetail,
    ChallengeStyle,
    Condition,
    ConfigurationError,
    DelegatedTo,
    DPoP,
    Guard,
    Issuer,
    MutualTLS,
    Requirement,
    Rule,
    ScopeCatalog,
    UserAuthentication,
    any_of,
)
from scopeguard.fastapi import Protected

TOKEN_URL, AUTHORIZATION_URL = "https://as.test/token", "https://as.test/authorize"


def guard_with(**settings: Any) -> Guard:
    return Guard(Issuer("https://as.test", audience="https://api.test"), **settings)


def document_of(protected: Protected, *scopes: str, **settings: Any) -> dict[str, Any]:
    app = FastAPI(**settings)
    app.add_api_route("/", lambda: 1, dependencies=[Security(protected, scopes=list(scopes))])
    return app.openapi()


def schemes_of(protected: Protected, *scopes: str) -> dict[str, Any]:
    found: dict[str, Any] = document_of(protected, *scopes)["components"]["securitySchemes"]
    return found


def responses_of(protected: Protected, *scopes: str) -> dict[str, Any]:
    found: dict[str, Any] = document_of(protected, *scopes)["paths"]["/"]["get"]["responses"]
    return found


@pytest.mark.rule("O-04")
def test_both_flows_have_the_scopes_of_operations_with_descriptions_of_the_catalog():
    catalog = ScopeCatalog(descriptions={"https://scopes.test/read": "Read rows"}, prefix="https://scopes.test/")
    protected = Protected(guard_with(catalog=catalog), token_url=TOKEN_URL, authorization_url=AUTHORIZATION_URL)
    scopes = {"https://scopes.test/read": "Read rows", "read": "Read rows", "write": ""}
    assert schemes_of(protected, "read", "write")["OAuth2"]["flows"] == {
        "clientCredentials": {"tokenUrl": TOKEN_URL, "scopes": scopes},
        "authorizationCode": {"authorizationUrl": AUTHORIZATION_URL, "tokenUrl": TOKEN_URL, "scopes": scopes},
    }


def test_authorization_url_needs_a_token_url():
    with pytest.raises(ConfigurationError, match="authorization_url needs token_url"):
        Protected(guard_with(), authorization_url=AUTHORIZATION_URL)
    with pytest.raises(ConfigurationError, match="authorization_url"):
        Protected(guard_with(), token_url=TOKEN_URL, authorization_url="ftp://as.test/authorize")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, '"usePkceWithAuthorizationCodeGrant": true'),
        ({"clientId": "swagger"}, '"usePkceWithAuthorizationCodeGrant": true'),
        ({"usePkceWithAuthorizationCodeGrant": False}, '"usePkceWithAuthorizationCodeGrant": false'),
    ],
)
def test_swagger_ui_uses_pkce_unless_the_app_says_otherwise(given: dict[str, Any] | None, expected: str):
    app = FastAPI(swagger_ui_init_oauth=given)
    protected = Protected(guard_with(), token_url=TOKEN_URL, authorization_url=AUTHORIZATION_URL)
    app.add_api_route("/", lambda: 1, dependencies=[Security(protected)])
    page = TestClient(app).get("/docs").text
    assert expected in page
    assert page.count("usePkceWithAuthorizationCodeGrant") == 1
    assert ("swagger" in (given or {}).values()) is ('"clientId": "swagger"' in page)


def test_swagger_ui_is_unchanged_without_an_authorization_url():
    app = FastAPI()
    app.add_api_route("/", lambda: 1, dependencies=[Security(Protected(guard_with(), token_url=TOKEN_URL))])
    assert "usePkce" not in TestClient(app).get("/docs").text


def test_guard_that_requires_dpop_has_no_bearer_scheme():
    policy = DPoP(mode="required", base_url="https://api.test", algorithms=["ES256"])
    schemes = schemes_of(Protected(guard_with(dpop=policy), token_url=TOKEN_URL))
    assert set(schemes) == {"OAuth2", "DPoP"}
    assert (schemes["DPoP"]["type"], schemes["DPoP"]["scheme"]) == ("http", "DPoP")
    for scheme in schemes.values():
        assert "Every access token must be bound to a key" in scheme["description"]
        assert "(ES256; RFC 9449)" in scheme["description"]


def test_guard_that_allows_dpop_has_both_schemes():
    schemes = schemes_of(Protected(guard_with(dpop=DPoP(base_url="https://api.test"))))
    assert set(schemes) == {"Bearer", "DPoP"}
    assert "sent with the scheme DPoP and a proof" in schemes["Bearer"]["description"]


def test_guard_with_certificates_says_so():
    scheme = schemes_of(Protected(guard_with(mutual_tls=MutualTLS())))["Bearer"]
    assert "client certificate" in scheme["description"]
    assert "DPoP" not in scheme["description"]


@pytest.mark.rule("O-10")
def test_refusals_have_their_challenge_and_the_schema_of_a_problem():
    responses = responses_of(Protected(guard_with()), "read")
    assert set(responses) == {"200", "400", "401", "403", "503"}
    for status in ("400", "401", "403"):
        assert "scheme Bearer (RFC 6750 section 3)" in responses[status]["headers"]["WWW-Authenticate"]["description"]
    assert set(responses["503"]["headers"]) == {"Retry-After"}
    for status in ("400", "401", "403", "503"):
        schema = responses[status]["content"]["application/problem+json"]["schema"]
        assert schema["title"] == "Problem"
        assert schema["required"] == ["type", "title", "status", "detail"]


@pytest.mark.rule("O-10")
def test_schema_describes_the_bodies_that_are_sent():
    for body in ("problem", "google"):
        protected = Protected(guard_with(challenge=ChallengeStyle(realm="api", body=body)))
        app = FastAPI()
        app.add_api_route("/", lambda: 1, dependencies=[Security(protected)])
        sent = TestClient(app).get("/", headers={"Authorization": "Bearer a b"})
        described = app.openapi()["paths"]["/"]["get"]["responses"][str(sent.status_code)]["content"]
        [(media_type, content)] = described.items()
        assert sent.headers["content-type"].startswith(media_type)
        assert_matches(sent.json(), content["schema"])


def assert_matches(value: Any, schema: dict[str, Any]) -> None:
    kinds: dict[str, type] = {"object": dict, "array": list, "string": str, "integer": int}
    assert isinstance(value, kinds[schema["type"]])
    if schema["type"] == "object":
        assert isinstance(value, dict)
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
        for name, item in value.items():
            assert_matches(item, schema["properties"][name])


def test_bodies_of_the_app_have_no_schema():
    style = ChallengeStyle(realm="api", body=lambda problem: ("text/plain", problem.title.encode()))
    assert responses_of(Protected(guard_with(challenge=style)))["401"]["content"] == {"text/plain": {"schema": {}}}


def test_hidden_refusals_are_404():
    style = ChallengeStyle(realm="api", hide_forbidden=True)
    responses = responses_of(Protected(guard_with(challenge=style)), "read")
    assert "403" not in responses
    assert "headers" not in responses["404"]


CONDITIONS = {
    "a user": (USER, "403"),
    "a machine": (MACHINE, "403"),
    "no delegation": (NOT_DELEGATED, "403"),
    "an actor": (DelegatedTo("agent"), "403"),
    "a detail": (AuthorizationDetail("payment"), "403"),
    "one of two": (any_of(UserAuthentication(max_age=300), USER), "403"),
    "a sign-in": (UserAuthentication(max_age=300), None),
    "any token": (AUTHENTICATED, None),
}


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize(("requirement", "expected"), CONDITIONS.values(), ids=CONDITIONS)
def test_condition_without_scopes_has_its_refusal(
    requirement: Requirement | Condition, expected: str | None, optional: bool
):
    protected = Protected(guard_with(), optional=optional)

    needed = Depends(protected.requires(requirement))

    def find_user(token: Any = needed) -> Any:
        return token

    router = APIRouter(prefix="/rows")
    router.add_api_route("/{row}", lambda: 1, dependencies=[Depends(find_user)])
    router.add_api_route("/{row}", lambda: 1, methods=["DELETE"], dependencies=[Depends(protected)])
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    operations = app.openapi()["paths"]["/v1/rows/{row}"]
    assert ("403" in operations["get"]["responses"]) is (expected == "403")
    assert "403" not in operations["delete"]["responses"]


def test_guard_with_rules_has_the_refusal_of_the_middleware():
    guard = Guard(Issuer("https://as.test", audience="https://api.test"), rules=[Rule("/", PUBLIC)])
    assert "403" in responses_of(Protected(guard))


def test_hidden_refusal_of_a_condition_is_404():
    style = ChallengeStyle(realm="api", hide_forbidden=True)
    responses = responses_of(Protected(guard_with(challenge=style)).requires(USER))
    assert "404" in responses
    assert "403" not in responses


def test_refusals_of_forms_appear_only_if_forms_may_have_tokens():
    responses = responses_of(Protected(guard_with(), token_sources=["header", "form"]))
    assert {"408", "413"} <= set(responses)


def test_challenge_of_dpop_names_both_schemes_and_the_nonce():
    policy = DPoP(base_url="https://api.test", nonce_keys=["n" * 32])
    headers = responses_of(Protected(guard_with(dpop=policy)))["401"]["headers"]
    assert (
        "scheme Bearer and DPoP (RFC 6750 section 3, RFC 9449 section 7.1)"
        in headers["WWW-Authenticate"]["description"]
    )
    assert "DPoP-Nonce" in headers
