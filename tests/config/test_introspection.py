"""Invalid introspection settings are refused at construction, with a message that names the fix."""

from __future__ import annotations

from typing import Any

import pytest

from scopeguard import Guard, Issuer
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.config.introspection import Introspection
from scopeguard.config.validation import Validation
from scopeguard.devserver.keys import SigningKey
from scopeguard.errors import ConfigurationError

SECRET: dict[str, Any] = {"client_id": "api", "client_secret": "sg-secret-x"}
URL = "https://as.test"


def issuer(**options: Any) -> Issuer:
    return Issuer(URL, audience="https://api.test", **options)


def problem(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        Introspection(**settings)
    message = str(error.value)
    assert message.startswith("introspection.")
    assert "sg-secret" not in message
    return message


@pytest.mark.rule("I-03")
@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({}, "client_id"),
        ({"client_id": "api"}, "client_secret"),
        ({"client_id": "", "client_secret": "s"}, "client_id"),
        ({"client_id": "api", "client_secret": ""}, "client_secret"),
        ({"auth": "client_secret_post", "client_id": "api"}, "client_secret"),
        ({"auth": "private_key_jwt", "client_id": "api"}, "private_key"),
        ({"auth": "private_key_jwt", "private_key": {}}, "client_id"),
        ({"auth": "tls_client_auth"}, "client_id"),
        ({"auth": "bearer"}, "bearer_token"),
    ],
)
def test_client_id_is_required(settings: dict[str, Any], missing: str):
    message = problem(**settings)
    assert f"introspection.{missing}: is missing" in message
    assert "auth = " in message


@pytest.mark.rule("I-03")
def test_introspection_without_credentials_must_be_explicit():
    assert Introspection(auth=ClientAuthentication("none")).auth is ClientAuthentication.NONE
    with pytest.raises(ConfigurationError, match=r"introspection: .* needs an Introspection"):
        issuer(validate="introspection")
    with pytest.raises(ConfigurationError, match=r"introspection: .* needs an Introspection"):
        issuer(validate="auto")


@pytest.mark.rule("I-05")
@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({**SECRET, "bearer_token": "b"}, "bearer_token"),
        ({**SECRET, "private_key": {"kty": "EC"}}, "private_key"),
        ({"auth": "none", **SECRET}, "client_secret"),
        ({"auth": "tls_client_auth", **SECRET}, "client_secret"),
        ({"auth": "private_key_jwt", "private_key": "k", **SECRET}, "client_secret"),
        ({"auth": "bearer", "bearer_token": "b", **SECRET}, "client_secret"),
    ],
)
def test_two_authentication_methods_are_refused(settings: dict[str, Any], other: str):
    assert f"introspection.{other}: has no effect with auth" in problem(**settings)


@pytest.mark.parametrize("auth", ["basic", "client_secret_jwt", "", "NONE"])
def test_unknown_method_is_refused_with_a_list_of_the_known_ones(auth: str):
    assert "'client_secret_basic'" in problem(auth=auth, **SECRET)


@pytest.mark.rule("I-07")
@pytest.mark.parametrize(
    "endpoint",
    ["as.test/introspect", "https://u:p@as.test/x", "ftp://as.test", "", 7],
)
def test_invalid_endpoint_url_is_refused(endpoint: Any):
    problem(endpoint=endpoint, **SECRET)


@pytest.mark.rule("I-07")
def test_http_endpoint_is_refused_by_the_issuer_unless_allowed():
    settings = Introspection(endpoint="http://as.example/introspect", **SECRET)
    with pytest.raises(
        ConfigurationError, match=r"introspection\.endpoint: 'http://as\.example/introspect' is cleartext"
    ):
        Issuer("https://as.example", audience="a", validate="introspection", introspection=settings)


@pytest.mark.rule("I-07")
@pytest.mark.parametrize("endpoint", ["https://as.test/introspect?tenant=1", "http://127.0.0.1:8080/introspect"])
def test_https_or_loopback_endpoint_is_accepted(endpoint: str):
    assert Introspection(endpoint=endpoint, **SECRET).endpoint == endpoint


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"ttl": -1}, "ttl"),
        ({"negative_ttl": -0.1}, "negative_ttl"),
        ({"retries": -1}, "retries"),
        ({"retries": 0.5}, "whole number"),
        ({"ttl": "60"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": float("inf")}, "ttl"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_entries": 1.5}, "whole number"),
        ({"timeout": 0}, "timeout"),
        ({"require_audience": "false"}, "true or false"),
        ({"signed": "false"}, "true or false"),
        ({"signed": 1}, "true or false"),
        ({"client_id": 7}, "a string"),
        ({"client_secret": b"s"}, "a string"),
        ({"token_type_hint": 7}, "a string"),
        ({"assertion_audience": ["x"]}, "a string"),
    ],
)
def test_invalid_value_is_refused(settings: dict[str, Any], word: str):
    assert word in problem(**{**SECRET, **settings})


def test_lifetimes_and_retries_may_be_zero():
    settings = Introspection(**SECRET, ttl=0, negative_ttl=0, retries=0)
    assert (settings.ttl, settings.negative_ttl, settings.retries) == (0, 0, 0)


@pytest.mark.parametrize("name", ["retries", "max_entries"])
def test_counts_must_be_whole_numbers(name: str):
    counts: dict[str, Any] = {name: 2.0}
    with pytest.raises(ConfigurationError, match=f"introspection.{name}: must be a whole number, not float"):
        Introspection(**SECRET, **counts)


@pytest.mark.rule("I-22")
def test_default_ttl_is_a_minute_for_active_and_ten_seconds_for_inactive_answers():
    settings = Introspection(**SECRET)
    assert settings.ttl <= 60
    assert settings.negative_ttl <= 10
    assert settings.require_audience


@pytest.mark.rule("I-40", "I-45")
@pytest.mark.parametrize("settings", [{"auth": "none"}, {"auth": "bearer", "bearer_token": "b"}])
def test_signed_answers_need_an_audience(settings: dict[str, Any]):
    assert "client_id: is missing" in problem(signed=True, **settings)
    assert Introspection(signed=True, client_id="api", **settings).signed


def test_secrets_are_not_shown():
    key = SigningKey.generate("ES256", kid="k").private_jwk()
    shown = [
        Introspection(**SECRET),
        Introspection(auth=ClientAuthentication.BEARER, bearer_token="sg-secret-b"),
        Introspection(auth=ClientAuthentication.PRIVATE_KEY_JWT, client_id="api", private_key=key),
        issuer(validate="auto", introspection=Introspection(**SECRET)),
    ]
    assert "sg-secret" not in repr(shown)
    assert key["d"] not in repr(shown)


# -- together with an issuer


@pytest.mark.parametrize("options", [{"introspection": Introspection(**SECRET)}, {"opaque_prefixes": ("x-",)}])
def test_settings_without_a_use_are_refused(options: dict[str, Any]):
    with pytest.raises(ConfigurationError, match="has no effect"):
        issuer(**options)


@pytest.mark.rule("I-28")
@pytest.mark.parametrize("prefixes", [("",), ("x-", ""), 7, (7,)])
def test_empty_or_impossible_prefix_is_refused(prefixes: Any):
    with pytest.raises(ConfigurationError, match="opaque_prefixes"):
        issuer(validate="auto", introspection=Introspection(**SECRET), opaque_prefixes=prefixes)


def test_validation_may_be_given_by_name():
    assert issuer().validate is Validation.JWT
    assert issuer(validate="auto", introspection=Introspection(**SECRET)).validate is Validation.AUTO
    with pytest.raises(ConfigurationError, match="validate: 'opaque'"):
        issuer(validate="opaque", introspection=Introspection(**SECRET))


def test_single_prefix_may_be_a_string():
    trusted = issuer(validate="introspection", introspection=Introspection(**SECRET), opaque_prefixes="x-")
    assert trusted.opaque_prefixes == ("x-",)


@pytest.mark.parametrize("settings", [{"private_key": "not a key"}, {"private_key": "k", "key_algorithm": "HS256"}])
def test_key_that_cannot_sign_is_refused_at_construction(settings: dict[str, Any]):
    introspection = Introspection(auth="private_key_jwt", client_id="api", **settings)
    with pytest.raises(ConfigurationError, match="private_key_jwt"):
        Guard(issuer(validate="auto", introspection=introspection))
