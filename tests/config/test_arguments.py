"""Each public constructor refuses arguments of the wrong kind, and its error names the argument.

Fault: a value that Python accepts silently (a string for a bool, an object without the methods of a store)
opens a route or fails with every request later. The table holds every constructor of the public modules. For each
argument it says which odd values are right; all others must be refused at construction.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

import scopeguard
import scopeguard.client
import scopeguard.contracts
import scopeguard.devserver
import scopeguard.fastapi
import scopeguard.flask
import scopeguard.security_events
import scopeguard.starlette
import scopeguard.stores
import scopeguard.stores.redis
import scopeguard.testing
from scopeguard import Guard, Issuer, Rule, Rules, TokenSources, asgi, contracts, devserver, flask, wsgi
from scopeguard.client import ClientCredentials, TokenExchange
from scopeguard.client.settings import ClientSettings, ExchangeSettings
from scopeguard.config.machines import MachineSign
from scopeguard.devserver import Authority, KeyRing, SigningKey
from scopeguard.errors import ConfigurationError
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.scopes import all_of
from scopeguard.security_events import SecurityEventReceiver
from scopeguard.stores import MemoryStore
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import (
    FakeAuthority,
    FakeClock,
    FakeDecisionPoint,
    FakeTransport,
    Network,
    ProofKey,
    as_token,
    bad_keys,
    bad_proofs,
    bad_tokens,
    make_token,
)


def _function(*_: object) -> None: ...


ODD: Final = {
    "empty": "",
    "text": "false",
    "bytes": b"x",
    "zero": 0,
    "negative": -1,
    "true": True,
    "fraction": 1.5,
    "not a number": float("nan"),
    "infinite": float("inf"),
    "list": [],
    "mixed list": ["x", 1],
    "table": {"a": 1},
    "object": object(),
    "tuple": (1,),
    "function": _function,
    "class": int,
    "none": None,
    "list of bytes": [b"x"],
    "list of nothing": [None],
    "bytes in a table": {"a": b"x"},
    "text in a table": {"a": "x"},
    "table in a table": {"a": {"b": 1}},
    "numbers as names": {1: "x"},
    "far too large": 10**400,
    "half a character": "\ud800",
}
ISSUER: Final = Issuer("https://as.test", audience="x")
GUARD: Final = Guard(ISSUER, audit="off")


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    return []


def _with(make: Callable[..., object], *positional: object, **given: Any) -> Callable[..., object]:
    return lambda **changes: make(*positional, **{**given, **changes})


KEY: Final = SigningKey.generate("ES256", kid="x")
PUBLIC: Final = KEY.public_jwk()
AUTHORITY: Final = Authority("https://as.test", audience="x", keys=KeyRing("ES256"))
DOCUMENT: Final = {"openapi": "3.1.0", "paths": {"/x": {"get": {"security": []}}}}
DISCOVERY: Final = {
    "kind": "discovery#restDescription",
    "servicePath": "v1/",
    "methods": {"get": {"path": "x", "httpMethod": "GET", "scopes": ["a"]}},
}
PROTECTED: Final = Protected(GUARD)
RESOLVER: Final = {"accepts": _function, "resolve": _function}
_OF_AN_EXCHANGE: Final = tuple(
    name for name in ExchangeSettings.__annotations__ if name not in ClientSettings.__annotations__
)
# By name: how to construct one, and the signature with the arguments.
CONSTRUCTORS: Final[dict[str, tuple[Callable[..., object], Any]]] = {
    "Guard": (_with(Guard, ISSUER), Guard),
    "Issuer": (_with(Issuer, url="https://as.test", audience="x"), Issuer),
    "TokenSources": (TokenSources, TokenSources),
    "Introspection": (_with(scopeguard.Introspection, client_id="a", client_secret="s" * 16), scopeguard.Introspection),
    "AuthZen": (_with(scopeguard.AuthZen, url="https://pdp.test"), scopeguard.AuthZen),
    "KeySetPolicy": (scopeguard.KeySetPolicy, scopeguard.KeySetPolicy),
    "RevocationPolicy": (scopeguard.RevocationPolicy, scopeguard.RevocationPolicy),
    "StatusListPolicy": (scopeguard.StatusListPolicy, scopeguard.StatusListPolicy),
    "TokenCachePolicy": (scopeguard.TokenCachePolicy, scopeguard.TokenCachePolicy),
    "RefusalLog": (scopeguard.RefusalLog, scopeguard.RefusalLog),
    "Resource": (_with(scopeguard.Resource, url="https://api.test"), scopeguard.Resource),
    "IssuerResolver": (_with(scopeguard.IssuerResolver, **RESOLVER), scopeguard.IssuerResolver),
    "ChallengeStyle": (_with(scopeguard.ChallengeStyle, realm="x"), scopeguard.ChallengeStyle),
    "ScopeCatalog": (scopeguard.ScopeCatalog, scopeguard.ScopeCatalog),
    "ScopeClaim": (_with(scopeguard.ScopeClaim, claim="scp"), scopeguard.ScopeClaim),
    "MachineSign": (_with(MachineSign, machine=True), MachineSign),
    "Rule": (_with(Rule, path="/x"), Rule),
    "Rules": (Rules, Rules),
    "HttpxTransport": (scopeguard.HttpxTransport, scopeguard.HttpxTransport),
    "asgi.GuardMiddleware": (_with(asgi.GuardMiddleware, app=_asgi_app, guard=GUARD), asgi.GuardMiddleware),
    "wsgi.GuardMiddleware": (_with(wsgi.GuardMiddleware, app=_wsgi_app, guard=GUARD), wsgi.GuardMiddleware),
    "ScopeGuard": (_with(ScopeGuard, guard=GUARD), ScopeGuard),
    "Protected": (_with(Protected, guard=GUARD), Protected),
    "ClientCredentials": (
        _with(ClientCredentials, token_url="https://as.test/token", client_id="c", client_secret="s" * 16),
        ["token_url", "client_id", "client_secret", *ClientSettings.__annotations__],
    ),
    "DPoPKey": (scopeguard.client.DPoPKey, scopeguard.client.DPoPKey),
    "TokenExchange": (
        _with(TokenExchange, token_url="https://as.test/token", client_id="c", client_secret="s" * 16),
        ["token_url", "client_id", "client_secret", *_OF_AN_EXCHANGE],
    ),
    "TokenExchange.from_issuer": (
        _with(TokenExchange.from_issuer, issuer="https://as.test", client_id="c", client_secret="s" * 16),
        ["issuer"],
    ),
    "TokenExchange.entra": (
        _with(TokenExchange.entra, tenant="x", client_id="c", client_secret="s" * 16, scopes=["x"]),
        ["tenant", "host", "scopes"],
    ),
    "TokenExchange.auth0": (
        _with(TokenExchange.auth0, domain="as.test", client_id="c", client_secret="s" * 16, audience="x"),
        ["domain", "audience"],
    ),
    "TokenExchange.identity_assertion": (
        _with(
            TokenExchange.identity_assertion,
            token_url="https://as.test/token",
            client_id="c",
            client_secret="s" * 16,
            audience="x",
            redeem_with=ClientCredentials("https://other.test/token", "c", "s" * 16),
        ),
        ["token_url", "audience", "redeem_with"],
    ),
    "SecurityEventReceiver": (
        _with(SecurityEventReceiver, guard=GUARD, authorization="Bearer a-secret-of-the-stream"),
        SecurityEventReceiver,
    ),
    "RedisStore": (_with(RedisStore, url="redis://localhost", secret="s" * 16), RedisStore),
    "FakeAuthority": (FakeAuthority, FakeAuthority),
    "FakeClock": (FakeClock, FakeClock),
    "FakeDecisionPoint": (FakeDecisionPoint, FakeDecisionPoint),
    "FakeTransport": (_with(FakeTransport, authority=AUTHORITY), FakeTransport),
    "bad_tokens": (_with(bad_tokens, authority=FakeAuthority()), bad_tokens),
    "bad_keys": (_with(bad_keys, authority=FakeAuthority()), bad_keys),
    "bad_proofs": (_with(bad_proofs, authority=FakeAuthority()), bad_proofs),
    "ProofKey": (_with(ProofKey), ProofKey),
    "make_token": (make_token, make_token),
    "as_token": (as_token, as_token),
    "MemoryStore": (_with(MemoryStore, clock=FakeClock()), MemoryStore),
    "Authority": (_with(Authority, audience="x", keys=KeyRing("ES256")), Authority),
    "Client": (_with(devserver.Client, client_id="x", secret="s"), devserver.Client),
    "ServiceAccount": (_with(devserver.ServiceAccount, email="a@as.test", public_key=PUBLIC), devserver.ServiceAccount),
    "KeyRing": (_with(KeyRing, algorithm="ES256"), KeyRing),
    "SigningKey": (_with(SigningKey, kid="x", algorithm="ES256", private_key=KEY.private_key), SigningKey),
    "GoogleServiceAccount": (
        _with(
            devserver.GoogleServiceAccount,
            account=devserver.ServiceAccount(email="a@as.test", public_key=PUBLIC),
            key=KEY,
        ),
        devserver.GoogleServiceAccount,
    ),
    "SigningKey.generate": (_with(SigningKey.generate, algorithm="ES256"), SigningKey.generate),
    "DevServer": (_with(devserver.DevServer, authority=AUTHORITY), devserver.DevServer),
    "create_app": (_with(devserver.create_app, authority=AUTHORITY), devserver.create_app),
    "check_address": (
        _with(devserver.check_address, authority=AUTHORITY, host="127.0.0.1", allow_remote=False),
        devserver.check_address,
    ),
    "openapi": (_with(contracts.openapi, document=DOCUMENT), contracts.openapi),
    "google_discovery": (_with(contracts.google_discovery, document=DISCOVERY), contracts.google_discovery),
    "compare": (_with(contracts.compare, first=[], second=[]), contracts.compare),
    "ClientCredentials.from_issuer": (
        _with(ClientCredentials.from_issuer, issuer="https://as.test", client_id="c", client_secret="s" * 16),
        ClientCredentials.from_issuer,
    ),
    "Guard.from_file": (Guard.from_file, Guard.from_file),
    "ScopeCatalog.from_openapi": (scopeguard.ScopeCatalog.from_openapi, scopeguard.ScopeCatalog.from_openapi),
    "ScopeCatalog.from_google_discovery": (
        scopeguard.ScopeCatalog.from_google_discovery,
        scopeguard.ScopeCatalog.from_google_discovery,
    ),
    "ScopeCatalog.from_toml": (scopeguard.ScopeCatalog.from_toml, scopeguard.ScopeCatalog.from_toml),
    "DPoP": (scopeguard.DPoP, scopeguard.DPoP),
    "ApiKey": (_with(scopeguard.ApiKey, id="a" * 16, sha256="0" * 64, subject="x", expires_at=None), scopeguard.ApiKey),
    "ApiKeys": (_with(scopeguard.ApiKeys, prefix="acme", keys_file="keys.toml"), scopeguard.ApiKeys),
    "MutualTLS": (
        _with(scopeguard.MutualTLS, source="nginx", trusted_proxies=["10.0.0.0/8"]),
        scopeguard.MutualTLS,
    ),
    "UserAuthentication": (_with(scopeguard.UserAuthentication, acr="x", max_age=1), scopeguard.UserAuthentication),
    "AuthorizationDetail": (_with(scopeguard.AuthorizationDetail, type="x"), scopeguard.AuthorizationDetail),
    "DelegatedTo": (_with(scopeguard.DelegatedTo, subject="x"), scopeguard.DelegatedTo),
    "all_of": (_with(scopeguard.all_of, "x"), scopeguard.all_of),
    "flask.requires": (_with(flask.requires, "x"), flask.requires),
    "flask.public": (flask.public, flask.public),
    "flask.optional": (flask.optional, flask.optional),
    "fastapi.public": (scopeguard.fastapi.public, scopeguard.fastapi.public),
}
# Values and results that users receive and do not construct, and functions with positional arguments or with checks
# elsewhere.
NOT_CONSTRUCTED: Final = {
    "AccessToken", "InboundToken", "Actor", "Anonymous", "Denied", "Granted", "Unavailable", "HeaderList", "Problem",
    "DecisionEvent", "Readiness", "IssuerReadiness", "RequestView", "PolicyRequest",
    "Requirement", "Response", "Access", "ClientSettings", "SecurityEvent", "TokenResponse", "Contract", "Difference",
    "BadProof", "BadToken", "Hold", "Switch", "Refusal", "Shadowed",
    "all_of", "any_of", "requires", "renew", "Network", "required_scopes", "serve",
    "refuse_inbound_token", "arefuse_inbound_token",
}  # fmt: skip
# The odd values that an argument accepts. All others are of the wrong kind.
ACCEPTED: Final[dict[tuple[str, str], set[str]]] = {
    (constructor, argument): accepted
    for accepted, names in (
        (
            {"text"},
            {
                "TokenExchange": "client_id client_secret",
                "TokenExchange.entra": "tenant host scopes",
                "TokenExchange.auth0": "domain audience",
                "TokenExchange.identity_assertion": "audience",
            },
        ),
        ({"function", "class"}, {"TokenExchange": "actor"}),
        ({"true"}, {"TokenExchange": "issued_token_type_optional"}),
        ({"zero", "fraction"}, {"TokenExchange": "longest_use leeway"}),
        ({"object", "function", "class"}, {"asgi.GuardMiddleware": "app", "wsgi.GuardMiddleware": "app"}),
        ({"true"}, dict.fromkeys(("asgi.GuardMiddleware", "wsgi.GuardMiddleware", "ScopeGuard"), "debug")),
        ({"empty"}, {"asgi.GuardMiddleware": "root_path", "wsgi.GuardMiddleware": "root_path"}),
        (
            {"text", "empty"},
            {
                "Guard": "realm",
                "Issuer": "scope_prefix",
                "Introspection": "key_id assertion_audience assertion_typ token_type_hint",
                "ChallengeStyle": "realm",
                "ScopeCatalog": "prefix",
                "Rule": "source",
                "HttpxTransport": "verify cert",
                "Protected": "scheme_prefix",
                "RedisStore": "prefix",
                "bad_proofs": "scope",
            },
        ),
        ({"text", "list of nothing"}, {"Issuer": "typ"}),
        (
            {"text", "list"},
            {
                "Issuer": "required_claims any_claims forbidden_claims forbidden_headers "
                "past_claims role_claims client_id_claims subject_claims",
                "MachineSign": "absent",
                "ClientCredentials": "audience",
                "SecurityEventReceiver": "critical_subject_members",
                "FakeAuthority": "subjects",
            },
        ),
        (
            {"fraction"},
            {
                "asgi.GuardMiddleware": "recheck_streams",
                "Issuer": "max_lifetime",
                "TokenSources": "form_timeout",
                "Introspection": "timeout",
                "KeySetPolicy": "min_ttl max_seed_age refetch_interval negative_ttl first_backoff max_backoff timeout",
                "RevocationPolicy": "retention max_lag",
                "StatusListPolicy": "timeout",
                "IssuerResolver": "ttl negative_ttl",
                "ClientCredentials": "default_lifetime timeout",
                "RedisStore": "timeout",
            },
        ),
        (
            {"function", "class"},
            {
                "Guard": "on_decision",
                "IssuerResolver": "accepts resolve",
                "FakeAuthority": "sleep",
            },
        ),
        (
            {"list"},
            {
                "Guard": "rules signature_backends insecure_http_dangerously",
                "Issuer": "scope_claims machine_signs opaque_prefixes header_claims insecure_http_dangerously",
                "TokenSources": "trusted_proxies",
                "KeySetPolicy": "content_types",
                "StatusListPolicy": "allowed_origins",
                "ChallengeStyle": "parameters",
                "MachineSign": "equal",
                "Rule": "extension_methods",
                "Rules": "rules public",
                "asgi.GuardMiddleware": "public rules",
                "wsgi.GuardMiddleware": "public rules",
                "ScopeGuard": "public rules",
                "ClientCredentials": "resource insecure_http_dangerously",
                "FakeAuthority": "clients service_accounts",
            },
        ),
        (
            {"text"},
            {
                "Issuer": "audience audience_claims jwks_file jwks_seed token_header",
                "SecurityEventReceiver": "audience",
                "Introspection": "client_id client_secret key_algorithm",
                "ScopeClaim": "claim",
                "Rule": "access",
                "Protected": "token_url",
                "ClientCredentials": "client_id client_secret key_algorithm key_id certificate assertion_audience "
                "assertion_typ",
                "FakeAuthority": "audience",
            },
        ),
        (
            {"text", "list"},
            {"Issuer": "internal_hosts", "ClientCredentials": "scopes token_types", "FakeAuthority": "scopes"},
        ),
        (
            {"true"},
            {
                "Guard": "require_https keep_token_for_exchange forward_token_dangerously fast",
                "Issuer": "single_audience canonicalize_audience require_sender_constraint merge_scope_claims "
                "roles_as_scopes accept_id_tokens_dangerously issuer_claim_optional_dangerously",
                "Introspection": "require_audience signed",
                "KeySetPolicy": "padded",
                "RevocationPolicy": "fail_open_dangerously",
                "StatusListPolicy": "required fail_open_dangerously",
                "ChallengeStyle": "hide_forbidden",
                "MachineSign": "machine subject_is_client",
                "HttpxTransport": "dangerously_skip_tls_verification",
                "Protected": "optional",
                "ClientCredentials": "token_type_optional scope_list",
            },
        ),
        (
            {"zero"},
            {
                "Introspection": "retries",
                "ClientCredentials": "retries",
                "FakeAuthority": "jwks_max_age",
                "Authority": "jwks_max_age",
                "DevServer": "port",
            },
        ),
        (
            {"text in a table"},
            {
                "Issuer": "expected_claims expected_headers claim_prefixes",
                "MachineSign": "present",
                "ScopeCatalog": "descriptions",
                "ClientCredentials": "parameters",
            },
        ),
        (
            {"table", "bytes in a table", "text in a table", "table in a table", "numbers as names"},
            {"ScopeCatalog.from_openapi": "document", "ScopeCatalog.from_google_discovery": "document"},
        ),
        ({"none"}, {"ClientCredentials": "origins transport dpop", "DPoPKey": "pem file"}),
        (
            {"zero", "negative", "fraction"},
            {"FakeClock": "wall monotonic", "bad_tokens": "leeway"},
        ),
        ({"zero", "fraction"}, {"KeyRing": "overlap", "ApiKeys": "ttl negative_ttl"}),
        ({"fraction"}, {"ApiKeys": "unknown_interval"}),
        ({"text"}, {"ApiKey": "subject client_id", "ApiKeys": "prefix keys_file header issuer"}),
        ({"list"}, {"ApiKey": "scopes"}),
        ({"true"}, {"ApiKey": "revoked"}),
        ({"zero", "negative", "fraction"}, {"ApiKey": "expires_at issued_at"}),
        ({"table", "text in a table", "table in a table"}, {"ApiKey": "claims"}),
        ({"function", "class"}, {"FakeTransport": "sleep"}),
        ({"function"}, {"flask.public": "view", "flask.optional": "view", "fastapi.public": "endpoint"}),
        ({"true"}, {"bad_tokens": "strict", "DevServer": "control", "create_app": "control"}),
        ({"true"}, {"check_address": "allow_remote"}),
        ({"empty"}, {"Authority": "issuer", "openapi": "base_path", "google_discovery": "base_path"}),
        (
            {"text"},
            {
                "Authority": "audience",
                "Client": "client_id secret",
                "ServiceAccount": "email",
                "KeyRing": "path",
                "SigningKey": "kid",
                "SigningKey.generate": "kid",
                "ClientCredentials.from_issuer": "client_id client_secret",
            },
        ),
        (
            {"list"},
            {
                "Authority": "clients service_accounts",
                "Client": "scopes audiences introspects exchanges_for redirect_uris",
                "ServiceAccount": "scopes audiences assertion_audiences",
                "openapi": "ignore_schemes",
                "compare": "first second",
            },
        ),
        ({"text", "list"}, {"Authority": "subjects"}),
        ({"zero"}, {"UserAuthentication": "max_age", "all_of": "max_age", "flask.requires": "max_age"}),
        ({"text", "list"}, {"UserAuthentication": "acr", "all_of": "acr", "flask.requires": "acr"}),
        ({"text"}, {"AuthorizationDetail": "type", "DelegatedTo": "subject issuer"}),
        ({"empty", "text", "list"}, {"AuthorizationDetail": "actions locations datatypes privileges"}),
        ({"empty", "text"}, {"AuthorizationDetail": "identifier"}),
        ({"function", "class"}, {"AuthorizationDetail": "where"}),
        (
            {"text"},
            {"Resource": "name documentation policy_uri tos_uri jwks_uri signing_key_id signing_algorithm"},
        ),
        ({"text", "list"}, {"Resource": "scopes hidden_scopes authorization_servers signing_algorithms"}),
        ({"zero"}, {"Resource": "max_age"}),
        ({"text"}, {"MutualTLS": "header"}),
        ({"text", "list"}, {"ChallengeStyle": "dpop_algorithms"}),
        ({"true"}, {"ChallengeStyle": "dpop_only"}),
        ({"fraction"}, {"DPoP": "max_age nonce_lifetime"}),
        ({"zero", "fraction"}, {"DPoP": "max_skew"}),
        ({"true"}, {"DPoP": "strict_htu replay_fail_open_dangerously"}),
        ({"list", "empty"}, {"DPoP": "nonce_keys"}),
        ({"true"}, {"Issuer": "mutual_tls"}),
        ({"true"}, {"Resource": "serve_metadata audience_differs"}),
        (
            {"text", "table", "bytes in a table", "text in a table", "table in a table", "numbers as names"},
            {"Resource": "signing_key"},
        ),
        ({"text"}, {"make_token": "subject client_id issuer", "as_token": "subject client_id issuer"}),
        ({"text", "list"}, {"make_token": "audience", "as_token": "audience"}),
        ({"empty", "text", "list"}, {"make_token": "roles", "as_token": "roles"}),
        ({"true"}, {"make_token": "machine", "as_token": "machine"}),
        ({"zero", "negative", "fraction"}, {"make_token": "expires_in", "as_token": "expires_in"}),
        (
            {"table", "bytes in a table", "text in a table", "table in a table"},
            {"make_token": "claims", "as_token": "claims"},
        ),
        ({"function"}, {"Rule": "decide"}),
        ({"function", "class"}, {"AuthZen": "subject action resource context evaluations"}),
        ({"text"}, {"AuthZen": "subject_type resource_type"}),
        ({"text", "function", "class"}, {"AuthZen": "authentication"}),
        ({"true"}, {"AuthZen": "discover step_up strict_context"}),
        ({"fraction"}, {"AuthZen": "timeout"}),
        ({"zero"}, {"AuthZen": "retries", "RedisStore": "replicas"}),
        ({"list"}, {"AuthZen": "insecure_http_dangerously"}),
        (
            {
                "true",
                "table",
                "bytes in a table",
                "text in a table",
                "table in a table",
                "numbers as names",
                "function",
                "class",
            },
            {"FakeDecisionPoint": "decide"},
        ),
        ({"zero", "fraction"}, {"AuthZen": "ttl"}),
        ({"zero", "fraction"}, {"Issuer": "leeway", "Introspection": "ttl negative_ttl", "RefusalLog": "interval"}),
    )
    for constructor, arguments_ in names.items()
    for argument in arguments_.split()
}


def arguments(signature: Any) -> list[str]:
    if isinstance(signature, list):
        return signature
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(signature).parameters
    return [name for name, parameter in parameters.items() if name != "self" and parameter.kind not in kinds]


def cases() -> Iterator[tuple[str, str]]:
    for constructor, (_, signature) in CONSTRUCTORS.items():
        for argument in arguments(signature):
            yield constructor, argument


# Other names of an argument in errors: that of the file, or of the member of a token.
ALSO_CALLED: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("TokenSources", "methods"): ("token_sources",),
    ("Resource", "url"): ("resource",),
    ("Issuer", "opaque_prefixes"): ("introspection",),
    ("RedisStore", "url"): ("store",),
    ("FakeAuthority", "url"): ("issuer",),
    ("Issuer", "url"): ("issuer",),
    ("ScopeClaim", "form"): ("scope_claims",),
    ("SecurityEventReceiver", "issuer"): ("revoke",),
    # Errors about a file give its name, and errors about a table its expected form.
    ("Guard.from_file", "path"): ("false:",),
    ("ScopeCatalog.from_toml", "path"): ("false:",),
    ("ScopeCatalog.from_openapi", "document"): ("false:", "OpenAPI document"),
    ("ScopeCatalog.from_google_discovery", "document"): ("false:", "discovery document"),
    ("openapi", "document"): ("false:", "OpenAPI document"),
    ("google_discovery", "document"): ("false:", "discovery document"),
    ("compare", "first"): ("OpenAPI document",),
    ("compare", "second"): ("OpenAPI document",),
    ("flask.public", "view"): ("public: must decorate a view",),
    ("flask.optional", "view"): ("optional: must decorate a view",),
    ("fastapi.public", "endpoint"): ("public: must decorate",),
}


@pytest.mark.filterwarnings("ignore:max_age=0")
@pytest.mark.parametrize(("constructor", "argument"), list(cases()))
def test_an_argument_of_the_wrong_kind_is_refused_by_name(constructor: str, argument: str):
    make, _ = CONSTRUCTORS[constructor]
    taken = []
    for kind, value in ODD.items():
        try:
            make(**{argument: value})
        except ConfigurationError as error:
            text = str(error)
            names = (argument, *ALSO_CALLED.get((constructor, argument), ()))
            assert any(name in text for name in names), (kind, text)
        else:
            taken.append(kind)
    optional = {"none"} if may_be_none(constructor, argument) else set()
    accepted = ACCEPTED.get((constructor, argument), set()) | optional
    assert set(taken) <= accepted, taken


def may_be_none(constructor: str, argument: str) -> bool:
    """Return whether the type of *argument* includes ``None``."""
    _, signature = CONSTRUCTORS[constructor]
    if isinstance(signature, list):
        return "None" in str(ExchangeSettings.__annotations__.get(argument))
    return "None" in str(inspect.signature(signature).parameters[argument].annotation)


SECRET: Final = "sg-secret-in-the-wrong-place"


URLS: Final = [
    ("Guard", "resource"),
    ("Issuer", "url"),
    ("Issuer", "jwks_uri"),
    ("Issuer", "metadata_url"),
    ("Issuer", "key_url_template"),
    ("Introspection", "endpoint"),
    ("AuthZen", "url"),
    ("StatusListPolicy", "allowed_origins"),
    ("HttpxTransport", "proxy"),
    ("Protected", "openid_connect_url"),
    ("ClientCredentials", "token_url"),
    ("ClientCredentials", "origins"),
    ("ClientCredentials.from_issuer", "issuer"),
    ("SecurityEventReceiver", "authorization"),
    ("RedisStore", "url"),
    ("Authority", "issuer"),
]


@pytest.mark.parametrize(("constructor", "argument"), URLS)
def test_error_does_not_show_a_secret_given_instead_of_a_url(constructor: str, argument: str):
    make, _ = CONSTRUCTORS[constructor]
    with pytest.raises(ConfigurationError) as refused:
        make(**{argument: SECRET})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("kind", sorted(set(ODD) - {"text"}))
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (scopeguard.all_of, "all_of"),
        (scopeguard.any_of, "any_of"),
        (scopeguard.starlette.requires, "requires"),
        (flask.requires, "requires"),
        (PROTECTED.requires, "requires"),
        (Network, "authorities"),
    ],
)
def test_positional_arguments_are_refused_with_the_name_of_the_function(
    make: Callable[..., object], name: str, kind: str
):
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        make(ODD[kind])


def test_each_public_constructor_is_in_the_table():
    modules = (
        scopeguard, scopeguard.client, scopeguard.contracts, scopeguard.devserver, scopeguard.fastapi, scopeguard.flask,
        scopeguard.security_events, scopeguard.starlette, scopeguard.stores, scopeguard.testing,
    )  # fmt: skip
    public = {
        name
        for module in modules
        for name in module.__all__
        if callable(found := getattr(module, name))
        and not (isinstance(found, type) and issubclass(found, Exception | str))
        and any(parameter.annotation is not inspect.Parameter.empty for parameter in _parameters(found))
    }
    assert public - {name.rpartition(".")[2] for name in CONSTRUCTORS} - NOT_CONSTRUCTED == set()


def test_no_two_public_classes_share_a_name():
    modules = (
        scopeguard, scopeguard.client, scopeguard.contracts, scopeguard.devserver, scopeguard.fastapi, scopeguard.flask,
        scopeguard.security_events, scopeguard.starlette, scopeguard.stores, scopeguard.testing,
    )  # fmt: skip
    public: dict[str, set[type]] = {}
    for module in modules:
        for name in module.__all__:
            if isinstance(found := getattr(module, name), type):
                public.setdefault(name, set()).add(found)
    assert [name for name, classes in public.items() if len(classes) > 1] == []


def _parameters(made: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(made).parameters.values())
    except ValueError:  # A class of the standard library.
        return []


def erase_type(constructor: Any) -> Any:
    return constructor


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: erase_type(Guard)("https://as.test"),
            r"issuers: must be Issuer objects, not a string: write Guard\(Issuer",
        ),
        (
            lambda: erase_type(Guard)([ISSUER]),
            r"issuers: must be Issuer objects, not a list of them: write Guard\(\*issuers\)",
        ),
        (lambda: erase_type(Guard)(ISSUER, store="redis://x"), "store: must be an object with the methods get, put"),
        (lambda: erase_type(Guard)(ISSUER, store=FakeAuthority), "store: .* not the class FakeAuthority"),
        (lambda: erase_type(Protected)(GUARD, optional="false"), "optional: must be true or false, not str"),
        (lambda: ClientCredentials("https://as.test/t", "c", "s", origins=[]), "origins: must not be empty"),
        (lambda: erase_type(ClientCredentials)(None, "c", "s"), "token_url: must be a string, not NoneType"),
    ],
)
def test_error_says_what_to_write(make: Callable[[], object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_unambiguous_values_are_accepted():
    assert Rule("/x", "a.scope").access == all_of("a.scope")
    guard = Guard(Issuer("https://as.test", audience=["x"], algorithms=["RS256"], typ=["at+jwt"]), rules=[Rule("/x")])
    assert isinstance(guard.rules, Rules)


@pytest.mark.parametrize("constructor", ["Guard", "ClientCredentials"])
def test_generators_and_coroutines_are_no_transports(constructor: str):
    """The kind of fault: methods with the same names and another meaning. Those of a generator are send and close."""

    async def coroutine() -> None: ...

    async def generator() -> AsyncIterator[None]:
        yield

    unawaited = coroutine()
    for other in (number for number in [1]), unawaited, generator():
        with pytest.raises(ConfigurationError, match=r"^transport: must be an object with the methods send, close"):
            CONSTRUCTORS[constructor][0](transport=other)
    unawaited.close()
