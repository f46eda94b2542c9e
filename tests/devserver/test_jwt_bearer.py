"""A service account gets tokens for assertions it signed itself (RFC 7523), Google's own clients included."""

from __future__ import annotations

import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scopeguard import ConfigurationError
from scopeguard.devserver import GOOGLE_TOKEN_AUDIENCE, ServiceAccount, SigningKey
from scopeguard.devserver.keys import base64url, compact

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EMAIL = "robot@project.iam.example"
KEY = SigningKey.generate("RS256", kid="1")
OTHER_KEY = SigningKey.generate("RS256", kid="1")
PEM = KEY.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
NO_KEY: Any = None  # PyJWT's "none" takes no key, although its type demands one


def account(**settings: Any) -> ServiceAccount:
    return ServiceAccount(**{"email": EMAIL, "public_key": PEM, "scopes": ["read", "write"], **settings})


def assertion(bench: Any, key: SigningKey = KEY, /, **claims: Any) -> str:
    content = {
        "iss": EMAIL,
        "aud": "https://as.example/token",
        "iat": bench.now,
        "exp": bench.now + 3600,
        "scope": "read",
        **claims,
    }
    return jwt.encode({name: value for name, value in content.items() if value is not None}, key.private_key, "RS256")


def ask(bench: Any, text: str, **form: str) -> Any:
    return bench.post("/token", None, grant_type=GRANT, assertion=text, **form)


def introspect_answer(bench: Any, answer: Any) -> dict[str, Any]:
    assert answer.status == 200, answer
    token = bench.read(answer)["access_token"]
    found: dict[str, Any] = bench.read(bench.post("/introspect", bench.resource, token=token))
    return found


def test_an_assertion_is_exchanged_for_a_token_of_its_account(bench):
    bench.authority.registry.add_service_account(account())
    claims = introspect_answer(bench, ask(bench, assertion(bench)))
    assert (claims["sub"], claims["client_id"], claims["scope"]) == (EMAIL, EMAIL, "read")
    assert claims["aud"] == bench.api


@pytest.mark.parametrize("audience", ["https://as.example", "https://as.example/token", ["x", "https://as.example"]])
def test_the_assertion_is_for_the_issuer_or_the_token_endpoint(bench, audience):
    bench.authority.registry.add_service_account(account())
    assert ask(bench, assertion(bench, aud=audience)).status == 200


def test_googles_constant_audience_is_accepted_where_it_is_configured(bench):
    bench.authority.registry.add_service_account(account())
    google = assertion(bench, aud=GOOGLE_TOKEN_AUDIENCE)
    assert GOOGLE_TOKEN_AUDIENCE == "https://oauth2.googleapis.com/token"
    assert bench.error(ask(bench, google)) == (400, "invalid_grant")
    del bench.authority.registry.service_accounts[EMAIL]
    bench.authority.registry.add_service_account(account(assertion_audiences=[GOOGLE_TOKEN_AUDIENCE]))
    assert ask(bench, google).status == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://elsewhere.example"},
        {"aud": None},
        {"aud": 7},
        {"aud": [7]},
        {"iss": "stranger@project.iam.example"},
        {"sub": "alice"},
        {"exp": 1_800_000_000 - 30},
        {"exp": None},
        {"exp": True},
        {"iat": None},
        {"iat": 1_800_000_000 + 31, "exp": 1_800_000_000 + 60},
        {"exp": 1_800_000_000 + 3601},
        {"scope": ["read"]},
        {"nbf": 1_800_000_000 + 31},
        {"nbf": "now"},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"jti": 7},
    ],
)
def test_invalid_assertion_is_an_invalid_grant(bench, claims):
    bench.authority.registry.add_service_account(account())
    assert bench.error(ask(bench, assertion(bench, **claims))) == (400, "invalid_grant")


def test_the_signature_is_verified_with_the_registered_key(bench):
    bench.authority.registry.add_service_account(account())
    assert bench.error(ask(bench, assertion(bench, OTHER_KEY))) == (400, "invalid_grant")
    head, body, _ = assertion(bench).split(".")
    assert bench.error(ask(bench, f"{head}.{body}.")) == (400, "invalid_grant")
    unsecured = jwt.encode({"iss": EMAIL}, NO_KEY, "none")
    assert bench.error(ask(bench, unsecured)) == (400, "invalid_grant")
    assert bench.error(ask(bench, "sg-opaque-nonsense")) == (400, "invalid_grant")
    assert bench.error(ask(bench, "")) == (400, "invalid_request")


def hostile_assertions(bench: Any) -> dict[str, str]:
    """Assertions that claim all the right things and prove none of them."""
    claims = jwt.decode(assertion(bench), options={"verify_signature": False})
    private = KEY.private_key
    numbers = KEY.public_jwk()
    embedded = {"jwk": OTHER_KEY.public_jwk()}

    def sign_with_secret(secret: bytes) -> str:
        # By hand: PyJWT refuses to use a public key as a secret, and attackers do not use PyJWT.
        head, body = (base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return f"{head}.{body}.{base64url(hmac.digest(secret, f'{head}.{body}'.encode(), 'sha256'))}"

    return {
        "alg none": jwt.encode(claims, NO_KEY, "none"),
        "alg NONE": compact({"alg": "NONE"}, claims, KEY).rpartition(".")[0] + ".",
        "HS256 with the PEM": sign_with_secret(PEM.encode()),
        "HS256 with the PEM, stripped": sign_with_secret(PEM.strip().encode()),
        "HS256 with the modulus": sign_with_secret(numbers["n"].encode()),
        "HS256 with nothing": sign_with_secret(b""),
        "another account's key": jwt.encode(claims, OTHER_KEY.private_key, "RS256"),
        "a key of its own in the header": jwt.encode(claims, OTHER_KEY.private_key, "RS256", headers=embedded),
        "another algorithm of the same key": jwt.encode(claims, private, "RS512"),
        "PSS with the same key": jwt.encode(claims, private, "PS256"),
        "critical extension": jwt.encode(claims, private, "RS256", headers={"crit": ["exp"], "exp": 1}),
        "signature of another": assertion(bench).rpartition(".")[0] + "." + assertion(bench, jti="2").split(".")[2],
        "four parts": assertion(bench) + ".",
    }


HOSTILE = (
    "alg none", "alg NONE", "HS256 with the PEM", "HS256 with the PEM, stripped", "HS256 with the modulus",
    "HS256 with nothing", "another account's key", "a key of its own in the header",
    "another algorithm of the same key", "PSS with the same key", "critical extension", "signature of another",
    "four parts",
)  # fmt: skip


def test_the_hostile_assertions_are_all_tried(bench):
    assert set(hostile_assertions(bench)) == set(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_assertion_is_an_invalid_grant(bench, name):
    bench.authority.registry.add_service_account(account())
    other = ServiceAccount(email="other@x", public_key=OTHER_KEY.public_jwk(), scopes=["read"])
    bench.authority.registry.add_service_account(other)
    assert ask(bench, assertion(bench)).status == 200
    assert bench.error(ask(bench, hostile_assertions(bench)[name])) == (400, "invalid_grant")


def test_an_assertion_with_an_id_is_used_once(bench):
    bench.authority.registry.add_service_account(account())
    once = assertion(bench, jti="1", exp=bench.now + 60)
    assert ask(bench, once).status == 200
    assert bench.error(ask(bench, once)) == (400, "invalid_grant")
    assert ask(bench, assertion(bench, jti="2")).status == 200
    assert ask(bench, assertion(bench)).status == 200
    assert ask(bench, assertion(bench)).status == 200, "without an id, a repetition is not detected"


def test_the_ids_of_accounts_are_their_own_and_a_reset_forgets_them(bench):
    bench.authority.registry.add_service_account(account())
    other = ServiceAccount(email="other@x", public_key=OTHER_KEY.public_jwk(), scopes=["read"])
    bench.authority.registry.add_service_account(other)
    mine, others = assertion(bench, jti="1"), assertion(bench, OTHER_KEY, iss="other@x", jti="1")
    assert [ask(bench, text).status for text in (mine, others, mine)] == [200, 200, 400]
    bench.authority.reset()
    assert ask(bench, mine).status == 200


def test_an_id_is_kept_as_long_as_the_assertion_could_be_used(bench):
    bench.authority.registry.add_service_account(account())
    once = assertion(bench, jti="1", exp=bench.now + 60)
    assert ask(bench, once).status == 200
    bench.clock.advance(89)
    assert "used before" in bench.read(ask(bench, once))["error_description"]
    bench.clock.advance(1)
    assert "expired" in bench.read(ask(bench, once))["error_description"]


def test_an_assertion_that_is_refused_is_not_used_up(bench):
    bench.authority.registry.add_service_account(account())
    early = assertion(bench, jti="1", nbf=bench.now + 60)
    assert bench.error(ask(bench, early)) == (400, "invalid_grant")
    bench.clock.advance(60)
    assert ask(bench, early).status == 200


def test_the_metadata_show_the_scopes_of_accounts(bench):
    bench.authority.registry.add_service_account(account(scopes=["accounts-only"]))
    assert "accounts-only" in bench.authority.metadata()["scopes_supported"]


def test_scopes_are_limited_to_those_of_the_account(bench):
    bench.authority.registry.add_service_account(account())
    assert bench.error(ask(bench, assertion(bench, scope="admin"))) == (400, "invalid_scope")
    assert bench.read(ask(bench, assertion(bench), scope="write"))["scope"] == "write"
    assert bench.read(ask(bench, assertion(bench, scope=None)))["scope"] == "read write"


def test_client_credentials_beside_an_assertion_must_be_right(bench):
    bench.authority.registry.add_service_account(account())
    right = bench.post("/token", bench.robot, grant_type=GRANT, assertion=assertion(bench))
    assert right.status == 200
    wrong = ask(bench, assertion(bench), client_id="robot", client_secret="sg-secret-wrong")
    assert bench.error(wrong) == (401, "invalid_client")


def test_an_account_may_get_opaque_tokens(bench):
    bench.authority.registry.add_service_account(account(token_format="opaque", public_key=KEY.public_jwk()))
    assert bench.read(ask(bench, assertion(bench)))["access_token"].startswith("sg-opaque-")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"email": ""}, "email"),
        ({"lifetime": -1}, "lifetime"),
        ({"token_format": "x"}, "'x'"),
        ({"public_key": "no key"}, "public_key"),
        ({"public_key": {"kty": "RSA"}}, "public_key"),
        ({"public_key": KEY.private_jwk()}, "private"),
        ({"public_key": {"kty": "oct", "k": "AAAA", "alg": "HS256"}}, "symmetric"),
        ({"assertion_audiences": "https://as.example"}, "list"),
    ],
    ids=range(8),
)
def test_an_account_that_cannot_work_is_refused_at_once(wrong, words):
    with pytest.raises(ConfigurationError, match=words):
        account(**wrong)
