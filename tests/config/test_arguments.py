"""Every public constructor refuses arguments of the wrong kind, and its error names the argument.

The kind of fault: a value that Python takes silently (a string for a bool, an object without the methods of a store)
opens a route or fails with every request later. The table holds every constructor of the public modules. For each
argument it says which odd values are right; all others must be refused at construction.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

import scopeguard
import scopeguard.client
import scopeguard.fastapi
import scopeguard.flask
import scopeguard.security_events
import scopeguard.stores.redis
import scopeguard.testing
from scopeguard import Guard, Issuer, Rule, Rules, TokenSources, asgi, wsgi
from scopeguard.client import ClientCredentials
from scopeguard.client.settings import ClientSettings
from scopeguard.config.machines import MachineSign
from scopeguard.errors import ConfigurationError
from scopeguard.fastapi import Protected
from scopeguard.flask import ScopeGuard
from scopeguard.scopes import all_of
from scopeguard.security_events import SecurityEventReceiver
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority


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
}
ISSUER: Final = Issuer("https://as.test", audience="x")
GUARD: Final = Guard(ISSUER, audit="off")


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


def _wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    return []


def _with(make: Callable[..., object], *positional: object, **given: Any) -> Callable[..., object]:
    return lambda **changes: make(*positional, **{**given, **changes})


RESOLVER: Final = {"accepts": _function, "resolve": _function}
# By name: how to make one, and whose signature lists the arguments.
CONSTRUCTORS: Final[dict[str, tuple[Callable[..., object], Any]]] = {
    "Guard": (_with(Guard, ISSUER), Guard),
    "Issuer": (_with(Issuer, url="https://as.test", audience="x"), Issuer),
    "TokenSources": (TokenSources, TokenSources),
    "Introspection": (_with(scopeguard.Introspection, client_id="a", client_secret="s" * 16), scopeguard.Introspection),
    "KeySetPolicy": (scopeguard.KeySetPolicy, scopeguard.KeySetPolicy),
    "RevocationPolicy": (scopeguard.RevocationPolicy, scopeguard.RevocationPolicy),
    "StatusListPolicy": (scopeguard.StatusListPolicy, scopeguard.StatusListPolicy),
    "TokenCachePolicy": (scopeguard.TokenCachePolicy, scopeguard.TokenCachePolicy),
    "RefusalLog": (scopeguard.RefusalLog, scopeguard.RefusalLog),
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
    "SecurityEventReceiver": (
        _with(SecurityEventReceiver, guard=GUARD, authorization="Bearer a-secret-of-the-stream"),
        SecurityEventReceiver,
    ),
    "RedisStore": (_with(RedisStore, url="redis://localhost", secret="s" * 16), RedisStore),
    "FakeAuthority": (FakeAuthority, FakeAuthority),
}
# Values and results that users get and do not construct.
NOT_CONSTRUCTED: Final = {
    "AccessToken", "Anonymous", "Denied", "Granted", "Unavailable", "HeaderList", "Problem", "RequestView",
    "Requirement", "Response", "Access", "ClientSettings", "SecurityEvent", "TokenResponse",
}  # fmt: skip
# The odd values that an argument takes. All others are of the wrong kind.
ACCEPTED: Final[dict[tuple[str, str], set[str]]] = {
    (constructor, argument): accepted
    for accepted, names in (
        ({"object", "function", "class"}, {"asgi.GuardMiddleware": "app", "wsgi.GuardMiddleware": "app"}),
        ({"empty"}, {"asgi.GuardMiddleware": "root_path", "wsgi.GuardMiddleware": "root_path"}),
        (
            {"text", "empty"},
            {
                "Guard": "realm",
                "Issuer": "audience_claims typ scope_prefix",
                "Introspection": "key_id assertion_audience assertion_typ token_type_hint",
                "ChallengeStyle": "realm",
                "ScopeCatalog": "prefix",
                "Rule": "source",
                "HttpxTransport": "verify",
                "Protected": "scheme_prefix",
                "SecurityEventReceiver": "audience",
                "RedisStore": "prefix",
            },
        ),
        (
            {"text", "empty", "list"},
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
                "Issuer": "max_lifetime",
                "TokenSources": "form_timeout",
                "Introspection": "timeout",
                "KeySetPolicy": "min_ttl refetch_interval negative_ttl first_backoff max_backoff timeout",
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
                "Issuer": "audience jwks_file token_header",
                "Introspection": "client_id client_secret key_algorithm",
                "ScopeClaim": "claim",
                "Rule": "access",
                "Protected": "token_url",
                "ClientCredentials": "client_id client_secret",
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
                "Guard": "require_https",
                "Issuer": "merge_scope_claims roles_as_scopes "
                "accept_id_tokens_dangerously issuer_claim_optional_dangerously",
                "Introspection": "require_audience signed",
                "KeySetPolicy": "padded",
                "RevocationPolicy": "fail_open_dangerously",
                "StatusListPolicy": "fail_open_dangerously",
                "ChallengeStyle": "hide_forbidden",
                "MachineSign": "machine subject_is_client",
                "HttpxTransport": "dangerously_skip_tls_verification",
                "asgi.GuardMiddleware": "close_on_expiry",
                "Protected": "optional",
                "ClientCredentials": "token_type_optional scope_list",
            },
        ),
        ({"zero"}, {"Introspection": "retries", "ClientCredentials": "retries"}),
        ({"zero", "fraction"}, {"Issuer": "leeway", "Introspection": "ttl negative_ttl", "RefusalLog": "interval"}),
    )
    for constructor, arguments_ in names.items()
    for argument in arguments_.split()
}


def arguments(signature: Any) -> list[str]:
    if isinstance(signature, list):
        return signature
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(signature.__init__).parameters
    return [name for name, parameter in parameters.items() if name != "self" and parameter.kind not in kinds]


def cases() -> Iterator[tuple[str, str]]:
    for constructor, (_, signature) in CONSTRUCTORS.items():
        for argument in arguments(signature):
            yield constructor, argument


# What an error may call an argument that the file, or the field of a token, has by another name.
ALSO_CALLED: Final = {
    ("TokenSources", "methods"): "token_sources",
    ("Issuer", "opaque_prefixes"): "introspection",
    ("RedisStore", "url"): "store",
    ("FakeAuthority", "url"): "issuer",
    ("Issuer", "url"): "issuer",
    ("ScopeClaim", "form"): "scope_claims",
    ("SecurityEventReceiver", "issuer"): "revoke",
}


@pytest.mark.parametrize(("constructor", "argument"), list(cases()))
def test_an_argument_of_the_wrong_kind_is_refused_by_name(constructor: str, argument: str):
    make, _ = CONSTRUCTORS[constructor]
    taken = []
    for kind, value in ODD.items():
        try:
            make(**{argument: value})
        except ConfigurationError as error:
            text = str(error)
            assert argument in text or ALSO_CALLED.get((constructor, argument), argument) in text, (kind, text)
        else:
            taken.append(kind)
    assert set(taken) <= ACCEPTED.get((constructor, argument), set()), taken


def test_every_public_constructor_stands_in_the_table():
    modules = (scopeguard, scopeguard.client, scopeguard.flask, scopeguard.fastapi, scopeguard.security_events)
    classes = {
        name
        for module in modules
        for name in module.__all__
        if inspect.isclass(found := getattr(module, name))
        and not issubclass(found, Exception | str)
        and found.__module__.startswith("scopeguard")
        and "__init__" in {member for kind in found.__mro__[:-1] for member in vars(kind)}
    }
    missing = classes - {name.rpartition(".")[2] for name in CONSTRUCTORS} - NOT_CONSTRUCTED
    assert missing == set()


def untyped(constructor: Any) -> Any:
    return constructor


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: untyped(Guard)("https://as.test"),
            r"issuers: must be Issuer objects, not a string: write Guard\(Issuer",
        ),
        (
            lambda: untyped(Guard)([ISSUER]),
            r"issuers: must be Issuer objects, not a list of them: write Guard\(\*issuers\)",
        ),
        (lambda: untyped(Guard)(ISSUER, store="redis://x"), "store: must be an object with the methods get, put"),
        (lambda: untyped(Guard)(ISSUER, store=FakeAuthority), "store: .* not the class FakeAuthority"),
        (lambda: untyped(Protected)(GUARD, optional="false"), "optional: true or false, not str"),
        (lambda: ClientCredentials("https://as.test/t", "c", "s", origins=[]), "origins: must not be empty"),
        (lambda: untyped(ClientCredentials)(None, "c", "s"), "token_url: must be a string, not NoneType"),
    ],
)
def test_the_error_says_what_to_write(make: Callable[[], object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_what_is_unambiguous_is_taken():
    assert Rule("/x", "a.scope").access == all_of("a.scope")
    guard = Guard(Issuer("https://as.test", audience=["x"], algorithms=["RS256"], typ=["at+jwt"]), rules=[Rule("/x")])
    assert isinstance(guard.rules, Rules)
