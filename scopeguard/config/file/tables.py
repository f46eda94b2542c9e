"""The tables of the configuration file: their keys, with the function that reads each and an example.

Longer than 400 lines because all tables of the file are here, so that a key is found in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, Literal

from scopeguard.authorization_details import AuthorizationDetail
from scopeguard.config.api_keys import ApiKeys
from scopeguard.config.checks import member
from scopeguard.config.dpop import DPoP
from scopeguard.config.file import value_kinds
from scopeguard.config.file.place import Key, Place, WrongKindError, fix_of
from scopeguard.config.implied_scopes import ScopeVocabulary
from scopeguard.config.introspection import Introspection
from scopeguard.config.issuer import ScopeClaim
from scopeguard.config.keys import KeySetPolicy
from scopeguard.config.machines import MachineSign
from scopeguard.config.mutual_tls import MutualTLS
from scopeguard.config.profiles import Profile
from scopeguard.config.refusal_log import RefusalLog
from scopeguard.config.resource import Resource
from scopeguard.config.revocation import RevocationPolicy
from scopeguard.config.status_list import StatusListPolicy
from scopeguard.config.token_cache import TokenCachePolicy
from scopeguard.config.token_sources import TokenSources, check_sources
from scopeguard.core.signature_backends import load_backends
from scopeguard.edge.http import HttpxTransport
from scopeguard.errors import ConfigurationError
from scopeguard.spec.client_authentication import AssertionKey
from scopeguard.spec.error_body import ErrorBody
from scopeguard.spec.jwks import parse_configured_key_set
from scopeguard.spec.signatures import SignatureBackend
from scopeguard.stores.redis import RedisStore

INSECURE: Final = "insecure_http_dangerously"


def elsewhere(name: str, keys: Mapping[str, Key]) -> str | None:
    """Return the problem with a key that belongs in a table other than the one with *keys*, or ``None``."""
    homes = [home for home, others in TABLES.items() if name in others]
    # A usual reason: in TOML, all lines below a header belong to its table.
    fix = f"move it, or {fix_of(name, keys, similarity=0.8)}"
    return f"belongs in {' or '.join(homes)}, not in this table; {fix}" if homes else None


# These functions read kinds of values that only these tables have. value_kinds.py reads all others.


def _strings_by_name(place: Place, key: str, value: Any) -> dict[str, tuple[str, ...]]:
    inside = {name: Key(value_kinds.one_or_more_strings, '["value"]') for name in value_kinds.table(place, key, value)}
    return place.inner(f"{place.table}: {key}").read(value, inside)


def _scopes_by_scope(place: Place, key: str, value: Any) -> dict[str, tuple[str, ...]]:
    inside = {name: Key(value_kinds.strings, '["scope"]') for name in value_kinds.table(place, key, value)}
    implies = place.inner(f"{place.table}: {key}").read(value, inside)
    place.construct(key, lambda: ScopeVocabulary(implies=implies))
    return implies


def _aliases(place: Place, key: str, value: Any) -> dict[str, dict[str, str]]:
    inside = {name: Key(_string_by_name, '{ tid = "value" }') for name in value_kinds.table(place, key, value)}
    return place.inner(f"{place.table}: {key}").read(value, inside)


def _string_by_name(place: Place, key: str, value: Any) -> dict[str, str]:
    inside = {name: Key(value_kinds.string, '"value"') for name in value_kinds.table(place, key, value)}
    return place.inner(f"{place.table}: {key}").read(value, inside)


def _scope_claims(place: Place, key: str, value: Any) -> tuple[ScopeClaim, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str | Mapping) for item in value):
        raise WrongKindError("a list of claims, each a string or a table with claim and form")
    found: list[dict[str, Any]] = []
    for item in value:
        given = place.inner(f"{place.table}: {key}").read({"claim": item} if isinstance(item, str) else item, _CLAIM)
        if "claim" not in given:
            raise place.error(key, "an item has no claim; write it as { claim = ..., form = ... }")
        found.append(given)
    return place.construct(key, lambda: tuple(ScopeClaim(**given) for given in found))


def _machine_signs(place: Place, key: str, value: Any) -> tuple[MachineSign, ...]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise WrongKindError("a list of tables, each with machine = true or false")
    found = [place.inner(f"{place.table}: {key}").read(item, _MACHINE_SIGN) for item in value]
    if not all("machine" in given for given in found):
        raise place.error(key, "an item has no machine; add machine = true or machine = false")
    return place.construct(key, lambda: tuple(MachineSign(**given) for given in found))


def _authorization_details(place: Place, key: str, value: Any) -> tuple[AuthorizationDetail, ...]:
    found = []
    for table in value_kinds.tables(place, key, value):
        given = place.inner(f"{place.table}: {key}").read(table, _AUTHORIZATION_DETAIL)
        if "type" not in given:
            raise place.error(key, "an item has no type; write { type = ..., actions = [...] }")
        found.append(given)
    return place.construct(key, lambda: tuple(AuthorizationDetail(**given) for given in found))


def _string_or_false(place: Place, key: str, value: Any) -> str | bool:
    if value is False:
        return value
    try:
        return value_kinds.string(place, key, value)
    except WrongKindError:
        raise WrongKindError("a string, or false") from None


def _types(place: Place, key: str, value: Any) -> tuple[str | None, ...]:
    """Read types. TOML has no null, so an empty string stands for a token without ``typ``."""
    return tuple(typ or None for typ in value_kinds.one_or_more_strings(place, key, value))


def _token_sources(place: Place, key: str, value: Any) -> TokenSources:
    if isinstance(value, Mapping):
        inner = place.inner("[token_sources]")
        given = inner.read(value, TOKEN_SOURCES)
        return inner.construct("", lambda: TokenSources(**given))
    try:
        methods = value_kinds.strings(place, key, value)
    except WrongKindError:
        raise WrongKindError("a list of strings, or a table") from None
    return place.construct(key, lambda: TokenSources().with_methods(methods))


def _short_form(read: Callable[[Place, str, Any], str], place: Place, key: str, value: Any) -> str:
    """Return the string that stands for a table with one member."""
    try:
        return read(place, key, value)
    except WrongKindError:
        raise WrongKindError("a string, or a table") from None


def _mutual_tls(place: Place, key: str, value: Any) -> MutualTLS:
    inner = place.inner("[mutual_tls]")
    given = inner.read(value_kinds.table(place, key, value), MUTUAL_TLS)
    return inner.construct("", lambda: MutualTLS(**given))


def _api_keys(place: Place, key: str, value: Any) -> ApiKeys:
    inner = place.inner("[api_keys]")
    given = inner.read(value_kinds.table(place, key, value), API_KEYS)
    for name in ("prefix", "keys_file"):
        if name not in given:
            raise inner.error(name, f"is missing; as in: {name} = {API_KEYS[name].example}")
    return inner.construct("", lambda: ApiKeys(**given))


def _dpop(place: Place, key: str, value: Any) -> DPoP:
    if isinstance(value, Mapping):
        inner = place.inner("[dpop]")
        given = inner.read(value, DPOP)
        return inner.construct("", lambda: DPoP(**given))
    mode = _short_form(value_kinds.string, place, key, value)
    return place.construct(key, lambda: DPoP(mode=mode))


def _resource(place: Place, key: str, value: Any) -> Resource:
    if isinstance(value, Mapping):
        inner = place.inner("[resource]")
        given = inner.read(value, RESOURCE)
        if "url" not in given:
            raise inner.error("url", f"is missing; as in: url = {RESOURCE['url'].example}")
        return inner.construct("", lambda: Resource(**given))
    url = _short_form(value_kinds.reference, place, key, value)
    return place.construct(key, lambda: Resource(url))


def _route_sources(place: Place, key: str, value: Any) -> tuple[str, ...]:
    methods = value_kinds.strings(place, key, value)
    place.construct(key, lambda: check_sources(methods, key))
    return methods


def _key_set(place: Place, key: str, value: Any) -> KeySetPolicy:
    inner = place.inner(f"[issuers.key_set] of {place.table}")
    given = inner.read(value_kinds.table(place, key, value), KEY_SET)
    return inner.construct("", lambda: KeySetPolicy(**given))


def _introspection(place: Place, key: str, value: Any) -> Introspection:
    inner = place.inner(f"[issuers.introspection] of {place.table}")
    given = inner.read(value_kinds.table(place, key, value), INTROSPECTION)
    settings = inner.construct("", lambda: Introspection(**given))
    if settings.private_key is not None:
        material = settings.private_key
        inner.construct(
            "private_key",
            lambda: AssertionKey(material=material, algorithm=settings.key_algorithm, kid=settings.key_id),
        )
    return settings


def _status_list(place: Place, key: str, value: Any) -> StatusListPolicy:
    inner = place.inner(f"[issuers.experimental_status_list] of {place.table}")
    given = inner.read(value_kinds.table(place, key, value), STATUS_LIST)
    return inner.construct("", lambda: StatusListPolicy(**given))


def _authzen_table(place: Place, key: str, value: Any) -> dict[str, Any]:
    inner = place.inner("[authzen]")
    given = inner.read(value_kinds.table(place, key, value), AUTHZEN)
    if "url" not in given:
        raise inner.error("url", f"is missing; as in: url = {AUTHZEN['url'].example}")
    return given


def _private_key(place: Place, key: str, value: Any) -> str | Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    try:
        return value_kinds.reference(place, key, value)
    except WrongKindError:
        raise WrongKindError("a string with PEM text, or a table with a JWK") from None


def _string_or_nothing(place: Place, key: str, value: Any) -> str | None:
    """Read a string. TOML has no null, so an empty string stands for ``None``."""
    return value_kinds.reference(place, key, value) or None


def _store(place: Place, key: str, value: Any) -> RedisStore:
    inner = place.inner("[store]")
    given = inner.read(value_kinds.table(place, key, value), STORE)
    if "redis" not in given:
        raise inner.error("redis", "is missing; set it to a URL, as in: redis = " + STORE["redis"].example)
    return inner.construct("", lambda: _open_store(given.pop("redis"), given))


def _open_store(url: str, settings: Mapping[str, Any]) -> RedisStore:
    """Return the store. Its errors name the key of the file: that of the URL is ``redis``."""
    try:
        return RedisStore(url, **settings)
    except ConfigurationError as error:
        problem = str(error).removeprefix("store: ")
    raise ConfigurationError(problem if problem.startswith((*STORE, "set replicas")) else f"redis: {problem}")


def _transport(place: Place, key: str, value: Any) -> HttpxTransport:
    inner = place.inner("[transport]")
    given = inner.read(value_kinds.table(place, key, value), TRANSPORT)
    ca_file, cert_file = given.get("ca_file"), given.get("cert_file")
    proxy = given.get("proxy")
    transport = inner.construct("proxy", lambda: HttpxTransport(verify=ca_file, cert=cert_file, proxy=proxy))
    # Without this check, an unreadable file would fail the first request.
    inner.construct("", lambda: transport.check("ca_file", "cert_file"))
    return transport


def _token_cache(place: Place, key: str, value: Any) -> TokenCachePolicy | Literal["off"]:
    del key
    if value == "off":
        return "off"
    if not isinstance(value, Mapping):
        raise WrongKindError('"off", or a table')
    inner = place.inner("[token_cache]")
    given = inner.read(value, TOKEN_CACHE)
    return inner.construct("", lambda: TokenCachePolicy(**given))


def _profile(place: Place, key: str, value: Any) -> Profile:
    name = value_kinds.string(place, key, value)
    return place.construct(key, lambda: member(Profile, name, key))


def _refusal_log(place: Place, key: str, value: Any) -> RefusalLog | Literal["off"]:
    del key
    if value == "off":
        return "off"
    if not isinstance(value, Mapping):
        raise WrongKindError('"off", or a table')
    inner = place.inner("[refusal_log]")
    given = inner.read(value, REFUSAL_LOG)
    return inner.construct("", lambda: RefusalLog(**given))


def _signature_backends(place: Place, key: str, value: Any) -> tuple[SignatureBackend, ...]:
    names = value_kinds.strings(place, key, value)
    return place.construct(key, lambda: load_backends(names))


def _revocation(place: Place, key: str, value: Any) -> RevocationPolicy:
    inner = place.inner("[revocation]")
    given = inner.read(value_kinds.table(place, key, value), REVOCATION)
    return inner.construct("", lambda: RevocationPolicy(**given))


def _read_accepted_by_name(place: Place, key: str, value: Any) -> dict[str, tuple[str | bool, ...]]:
    inside = {name: Key(_read_accepted_values, '["value"]') for name in value_kinds.table(place, key, value)}
    return place.inner(f"{place.table}: {key}").read(value, inside)


def _read_accepted_values(place: Place, key: str, value: Any) -> tuple[str | bool, ...]:
    del place, key
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | bool) for item in items):
        raise WrongKindError("a string, true or false, or a list of these")
    return tuple(items)


def _inline_keys(place: Place, key: str, value: Any) -> Mapping[str, Any]:
    document = value_kinds.table(place, key, value)
    place.construct(key, lambda: parse_configured_key_set(document, setting=key))
    return document


def _error_body(place: Place, key: str, value: Any) -> ErrorBody:
    name = value_kinds.string(place, key, value)
    if name not in set(ErrorBody):
        raise place.error(key, f"must be one of {', '.join(map(repr, map(str, ErrorBody)))}, not {name!r}")
    return ErrorBody(name)


def _challenge_table(place: Place, key: str, value: Any) -> dict[str, Any]:
    return place.inner("[challenge]").read(value_kinds.table(place, key, value), CHALLENGE)


def _parameters(place: Place, key: str, value: Any) -> tuple[tuple[str, str], ...]:
    return tuple(_string_by_name(place, key, value).items())


def _scopes_table(place: Place, key: str, value: Any) -> dict[str, Any]:
    return place.inner("[scopes]").read(value_kinds.table(place, key, value), SCOPES)


def _contract_table(place: Place, key: str, value: Any) -> dict[str, Any]:
    return place.inner("[contract]").read(value_kinds.table(place, key, value), CONTRACT)


# The tables. A test compares them with the dataclasses, and reads every example.

_MACHINE_SIGN: Final = {
    "machine": Key(value_kinds.boolean, "true"),
    "present": Key(_string_by_name, '{ gty = "client-credentials" }'),
    "absent": Key(value_kinds.strings, '["sub"]'),
    "equal": Key(value_kinds.strings, '["username", "client_id"]'),
    "subject_is_client": Key(value_kinds.boolean, "true"),
}
_AUTHORIZATION_DETAIL: Final = {
    "type": Key(value_kinds.string, '"payment_initiation"'),
    "actions": Key(value_kinds.strings, '["initiate"]'),
    "locations": Key(value_kinds.strings, '["https://api.example.com"]'),
    "datatypes": Key(value_kinds.strings, '["account"]'),
    "privileges": Key(value_kinds.strings, '["admin"]'),
    "identifier": Key(value_kinds.string, '"account-1"'),
}
_CLAIM: Final = {"claim": Key(value_kinds.string, '"scp"'), "form": Key(value_kinds.string, '"list"')}
KEY_SET: Final = {
    setting.name: Key(value_kinds.whole_number if setting.type == "int" else value_kinds.number, repr(setting.default))
    for setting in fields(KeySetPolicy)
} | {
    "content_types": Key(value_kinds.strings, '["application/octet-stream"]'),
    "padded": Key(value_kinds.boolean, "true"),
}
RESOURCE: Final = {
    "url": Key(value_kinds.reference, '"https://api.example.com"'),
    "name": Key(value_kinds.string, '"Tables"'),
    "names": Key(_string_by_name, '{ it = "Tabelle" }'),
    "documentation": Key(value_kinds.string, '"https://docs.example.com"'),
    "policy_uri": Key(value_kinds.string, '"https://example.com/policy"'),
    "tos_uri": Key(value_kinds.string, '"https://example.com/terms"'),
    "scopes": Key(value_kinds.strings, '["read"]'),
    "hidden_scopes": Key(value_kinds.strings, '["internal"]'),
    "authorization_servers": Key(value_kinds.strings, '["https://auth.example.com"]'),
    "jwks_uri": Key(value_kinds.string, '"https://api.example.com/jwks.json"'),
    "signing_algorithms": Key(value_kinds.strings, '["ES256"]'),
    "signing_key": Key(value_kinds.reference, '"file:resource-key.pem"'),
    "signing_algorithm": Key(value_kinds.string, '"ES256"'),
    "signing_key_id": Key(value_kinds.string, '"resource-1"'),
    "max_age": Key(value_kinds.whole_number, "3600"),
    "serve_metadata": Key(value_kinds.boolean, "true"),
    "audience_differs": Key(value_kinds.boolean, "false"),
}
MUTUAL_TLS: Final = {
    "source": Key(value_kinds.string, '"connection"'),
    "header": Key(value_kinds.string, '"Client-Cert"'),
    "trusted_proxies": Key(value_kinds.strings, '["10.0.0.0/8"]'),
}
API_KEYS: Final = {
    "prefix": Key(value_kinds.string, '"acme"'),
    "keys_file": Key(value_kinds.path, '"keys.toml"'),
    "header": Key(value_kinds.string, '"X-API-Key"'),
    "issuer": Key(value_kinds.reference, '"https://api.example.com/keys"'),
    "ttl": Key(value_kinds.number, "10"),
}
DPOP: Final = {
    "mode": Key(value_kinds.string, '"required"'),
    "base_url": Key(value_kinds.reference, '"https://api.example.com"'),
    "algorithms": Key(value_kinds.strings, '["ES256"]'),
    "max_age": Key(value_kinds.number, "60"),
    "max_skew": Key(value_kinds.number, "10"),
    "max_proof_bytes": Key(value_kinds.whole_number, "8192"),
    "strict_htu": Key(value_kinds.boolean, "false"),
    "nonce_keys": Key(value_kinds.references, '["env:NONCE_KEY"]'),
    "nonce_lifetime": Key(value_kinds.number, "300"),
    "trust_nonce_time": Key(value_kinds.boolean, "false"),
    "max_proofs": Key(value_kinds.whole_number, "100000"),
    "max_proofs_per_key": Key(value_kinds.whole_number, "1000"),
    "replay_fail_open_dangerously": Key(value_kinds.boolean, "false"),
}
TOKEN_SOURCES: Final = {
    "methods": Key(value_kinds.strings, '["header", "query"]'),
    "stray_query_token": Key(value_kinds.string, '"refuse"'),
    "max_token_bytes": Key(value_kinds.whole_number, "16384"),
    "max_form_bytes": Key(value_kinds.whole_number, "65536"),
    "max_parameters": Key(value_kinds.whole_number, "1000"),
    "form_timeout": Key(value_kinds.number, "10.0"),
    "trusted_proxies": Key(value_kinds.strings, '["10.0.0.0/8"]'),
}
INTROSPECTION: Final = {
    "client_id": Key(value_kinds.reference, '"api"'),
    "client_secret": Key(value_kinds.reference, '"env:API_SECRET"'),
    "auth": Key(value_kinds.string, '"client_secret_basic"'),
    "private_key": Key(_private_key, '"file:key.pem"'),
    "key_algorithm": Key(value_kinds.string, '"RS256"'),
    "key_id": Key(value_kinds.reference, '"2026"'),
    "assertion_audience": Key(value_kinds.reference, '"https://auth.example.com/token"'),
    "assertion_typ": Key(_string_or_nothing, '"JWT"'),
    "bearer_token": Key(value_kinds.renewable, '"env:API_TOKEN"'),
    "endpoint": Key(value_kinds.reference, '"https://auth.example.com/introspect"'),
    "token_type_hint": Key(_string_or_nothing, '"access_token"'),
    "ttl": Key(value_kinds.number, "60"),
    "negative_ttl": Key(value_kinds.number, "10"),
    "max_entries": Key(value_kinds.whole_number, "10000"),
    "require_audience": Key(value_kinds.boolean, "true"),
    "signed": Key(value_kinds.boolean, "false"),
    "dialect": Key(value_kinds.string, '"rfc7662"'),
    "ca_file": Key(value_kinds.path, '"ca.pem"'),
    "timeout": Key(value_kinds.number, "5"),
    "retries": Key(value_kinds.whole_number, "1"),
}
STATUS_LIST: Final = {
    "allowed_origins": Key(value_kinds.references, '["https://status.example.com"]'),
    "required": Key(value_kinds.boolean, "true"),
    "fail_open_dangerously": Key(value_kinds.boolean, "false"),
    "max_bytes": Key(value_kinds.whole_number, "16777216"),
    "timeout": Key(value_kinds.number, "5"),
}
STORE: Final = {
    "redis": Key(value_kinds.reference, '"redis://127.0.0.1:6379/0"'),
    "prefix": Key(value_kinds.string, '"scopeguard:"'),
    "secret": Key(value_kinds.reference, '"env:STORE_SECRET"'),
    "timeout": Key(value_kinds.number, "0.5"),
    "replicas": Key(value_kinds.whole_number, "1"),
}
TOKEN_CACHE: Final = {
    "max_bytes": Key(value_kinds.whole_number, "33554432"),
    "max_entries": Key(value_kinds.whole_number, "100000"),
    "ready_entries": Key(value_kinds.whole_number, "2048"),
}
REFUSAL_LOG: Final = {
    "level": Key(value_kinds.string, '"warning"'),
    "burst": Key(value_kinds.whole_number, "10"),
    "interval": Key(value_kinds.number, "10"),
}
REVOCATION: Final = {
    "retention": Key(value_kinds.number, "86400"),
    "max_lag": Key(value_kinds.number, "1"),
    "fail_open_dangerously": Key(value_kinds.boolean, "false"),
}
TRANSPORT: Final = {
    "ca_file": Key(value_kinds.path, '"ca.pem"'),
    "cert_file": Key(value_kinds.path, '"client.pem"'),
    "proxy": Key(value_kinds.reference, '"http://proxy.example.com:3128"'),
}
SCOPES: Final = {
    "implies": Key(_scopes_by_scope, '{ cloud-platform = ["bigquery"] }'),
    "prefix": Key(value_kinds.string, '"https://www.googleapis.com/auth/"'),
    "descriptions": Key(_string_by_name, '{ bigquery = "View and manage tables" }'),
    "catalog": Key(value_kinds.path, '"scopes.toml"'),
}
CHALLENGE: Final = {
    "parameters": Key(_parameters, '{ hint = "https://docs.example.com" }'),
    "error_uri": Key(value_kinds.reference, '"https://docs.example.com/errors"'),
    "hide_forbidden": Key(value_kinds.boolean, "true"),
}
CONTRACT: Final = {
    "openapi": Key(value_kinds.paths, '"openapi.json"'),
    "google_discovery": Key(value_kinds.paths, '["bigquery.v2.json"]'),
    "base_path": Key(value_kinds.string, '"/v1"'),
    "undeclared": Key(value_kinds.string, '"deny"'),
    "ignore_schemes": Key(value_kinds.strings, '["apiKey"]'),
}
TOP_LEVEL: Final = {
    "profile": Key(_profile, '"oauth21"'),
    "dpop": Key(_dpop, '"required"'),
    "api_keys": Key(_api_keys, '{ prefix = "acme", keys_file = "keys.toml" }'),
    "mutual_tls": Key(_mutual_tls, '{ source = "connection" }'),
    "resource": Key(_resource, '"https://api.example.com"'),
    "realm": Key(value_kinds.reference, '"example"'),
    "error_body": Key(_error_body, '"problem"'),
    "challenge": Key(_challenge_table, '{ error_uri = "https://docs.example.com/errors" }'),
    "token_sources": Key(_token_sources, '["header"]'),
    "public": Key(value_kinds.strings, '["/healthz"]'),
    "require_https": Key(value_kinds.boolean, "true"),
    "keep_token_for_exchange": Key(value_kinds.boolean, "true"),
    "forward_token_dangerously": Key(value_kinds.boolean, "true"),
    "issuers": Key(value_kinds.tables, '[{ url = "https://auth.example.com" }]'),
    "rules": Key(value_kinds.tables, '[{ path = "/tables/{table}", any_of = ["read"] }]'),
    "mcp": Key(value_kinds.table, '{ tools = [{ name = "delete_*", all_of = ["files:write"] }] }'),
    "contract": Key(_contract_table, '{ openapi = "openapi.json" }'),
    "scopes": Key(_scopes_table, '{ implies = { cloud-platform = ["bigquery"] } }'),
    "store": Key(_store, '{ redis = "redis://127.0.0.1:6379/0" }'),
    "revocation": Key(_revocation, "{ max_lag = 1 }"),
    "token_cache": Key(_token_cache, '"off"'),
    "refusal_log": Key(_refusal_log, '"off"'),
    "signature_backends": Key(_signature_backends, '["awscrt", "pynacl"]'),
    "fast": Key(value_kinds.boolean, "true"),
    "audit": Key(value_kinds.string, '"error"'),
    "cors_preflight": Key(value_kinds.string, '"pass"'),
    "transport": Key(_transport, '{ ca_file = "ca.pem" }'),
    "authzen": Key(_authzen_table, '{ url = "https://pdp.example.com" }'),
    INSECURE: Key(value_kinds.strings, '["keycloak:8080"]'),
}
ISSUER: Final = {
    "url": Key(value_kinds.reference, '"https://auth.example.com"'),
    "audience": Key(value_kinds.references, '["https://api.example.com"]'),
    "any_audience_dangerously": Key(value_kinds.only_true, "true"),
    "validate": Key(value_kinds.string, '"jwt"'),
    "jwks_uri": Key(value_kinds.references, '"https://auth.example.com/jwks"'),
    "jwks_file": Key(value_kinds.path, '"jwks.json"'),
    "jwks_seed": Key(value_kinds.path, '"keys.json"'),
    "keys": Key(_inline_keys, '{ keys = [{ kty = "OKP", crv = "Ed25519", x = "' + "A" * 42 + 'E" }] }'),
    "metadata_url": Key(value_kinds.reference, '"https://auth.example.com/metadata"'),
    "key_url_template": Key(value_kinds.reference, '"https://keys.example.com/{kid}"'),
    "jwks_ca_file": Key(value_kinds.path, '"ca.crt"'),
    "internal_hosts": Key(value_kinds.strings, '["keys.internal"]'),
    "jwks_bearer_file": Key(value_kinds.path, '"token"'),
    "aliases": Key(_aliases, '{ "https://old.example.com" = { tid = "7" } }'),
    "audience_claims": Key(value_kinds.strings, '["aud"]'),
    "single_audience": Key(value_kinds.boolean, "true"),
    "canonicalize_audience": Key(value_kinds.boolean, "true"),
    "mutual_tls": Key(value_kinds.boolean, "false"),
    "require_sender_constraint": Key(value_kinds.boolean, "false"),
    "algorithms": Key(value_kinds.strings, '["RS256"]'),
    "typ": Key(_types, '["at+jwt"]'),
    "required_claims": Key(value_kinds.strings, '["jti"]'),
    "expected_claims": Key(_read_accepted_by_name, '{ tid = ["7"] }'),
    "expected_headers": Key(_strings_by_name, '{ kid = ["7"] }'),
    "any_claims": Key(value_kinds.strings, '["scope", "roles"]'),
    "forbidden_claims": Key(value_kinds.strings, '["nonce"]'),
    "forbidden_headers": Key(value_kinds.strings, '["x5c"]'),
    "claim_prefixes": Key(_strings_by_name, '{ sub = ["system:serviceaccount:"] }'),
    "past_claims": Key(value_kinds.strings, '["nbf"]'),
    "scope_claims": Key(_scope_claims, '["scope", { claim = "scp", form = "list" }]'),
    "merge_scope_claims": Key(value_kinds.boolean, "true"),
    "role_claims": Key(value_kinds.strings, '["roles"]'),
    "roles_as_scopes": Key(value_kinds.boolean, "true"),
    "client_id_claims": Key(value_kinds.strings, '["client_id"]'),
    "subject_claims": Key(value_kinds.strings, '["sub"]'),
    "machine_signs": Key(_machine_signs, '[{ machine = true, present = { gty = "client-credentials" } }]'),
    "scope_prefix": Key(value_kinds.string, '"https://www.googleapis.com/auth/"'),
    "implies": Key(_scopes_by_scope, '{ cloud-platform = ["bigquery"] }'),
    "accept_id_tokens_dangerously": Key(value_kinds.boolean, "false"),
    "issuer_claim_optional_dangerously": Key(value_kinds.boolean, "false"),
    "dpop": Key(value_kinds.string, '"required"'),
    "leeway": Key(value_kinds.number, "30"),
    "max_lifetime": Key(value_kinds.number, "3600"),
    "key_set": Key(_key_set, "{ ttl = 600 }"),
    "introspection": Key(_introspection, '{ client_id = "api", client_secret = "env:API_SECRET" }'),
    "opaque_prefixes": Key(value_kinds.strings, '["ory_at_"]'),
    "token_header": Key(value_kinds.string, '"Cf-Access-Jwt-Assertion"'),
    "padded_segments": Key(value_kinds.boolean, "false"),
    "header_claims": Key(value_kinds.strings, '["exp"]'),
    "experimental_status_list": Key(_status_list, '{ allowed_origins = ["https://status.example.com"] }'),
    INSECURE: Key(value_kinds.strings, '["keycloak:8080"]'),
    "hints": Key(_string_by_name, '{ wrong_audience = "add the audience mapper" }'),
}
AUTHZEN: Final = {
    "url": Key(value_kinds.reference, '"https://pdp.example.com"'),
    "authentication": Key(value_kinds.renewable, '"env:PDP_TOKEN"'),
    "subject_type": Key(value_kinds.string, '"user"'),
    "resource_type": Key(value_kinds.string, '"route"'),
    "discover": Key(value_kinds.boolean, "false"),
    "step_up": Key(value_kinds.boolean, "true"),
    "strict_context": Key(value_kinds.boolean, "false"),
    "ttl": Key(value_kinds.number, "5.0"),
    "max_entries": Key(value_kinds.whole_number, "10000"),
    "timeout": Key(value_kinds.number, "3.0"),
    "retries": Key(value_kinds.whole_number, "1"),
    INSECURE: Key(value_kinds.strings, '["pdp:8181"]'),
}
RULE: Final = {
    "path": Key(value_kinds.string, '"/tables/{table}"'),
    "methods": Key(value_kinds.strings, '["GET"]'),
    "extension_methods": Key(value_kinds.strings, '["PURGE"]'),
    "any_of": Key(value_kinds.strings, '["read"]'),
    "all_of": Key(value_kinds.strings, '["read", "write"]'),
    "acr": Key(value_kinds.strings, '["urn:example:gold"]'),
    "max_age": Key(value_kinds.whole_number, "300"),
    "authorization_details": Key(_authorization_details, '[{ type = "payment_initiation", actions = ["initiate"] }]'),
    "delegated_to": Key(_string_or_false, '"https://agent.example.com"'),
    "machine": Key(value_kinds.boolean, "false"),
    "decide": Key(value_kinds.only_true, "true"),
    "public": Key(value_kinds.only_true, "true"),
    "optional": Key(value_kinds.only_true, "true"),
    "authenticated": Key(value_kinds.only_true, "true"),
    "denied": Key(value_kinds.only_true, "true"),
    "dpop": Key(value_kinds.string, '"required"'),
    "token_sources": Key(_route_sources, '["header", "query"]'),
}
_REQUIRED: Final = {
    name: RULE[name]
    for name in (
        "any_of", "all_of", "acr", "max_age", "authorization_details", "delegated_to", "machine", "authenticated",
        "denied",
    )
}  # fmt: skip
MCP: Final = {
    "tools": Key(value_kinds.tables, '[{ name = "delete_*", all_of = ["files:write"] }]'),
    "prompts": Key(value_kinds.tables, '[{ name = "review", authenticated = true }]'),
    "resources": Key(value_kinds.tables, '[{ uri = "file:///reports/**", all_of = ["reports:read"] }]'),
    "methods": Key(value_kinds.tables, '[{ name = "tools/list", authenticated = true }]'),
    "allowed_origins": Key(value_kinds.strings, '["https://app.example.com"]'),
    "max_body_bytes": Key(value_kinds.whole_number, "1048576"),
    "body_timeout": Key(value_kinds.number, "10.0"),
}
MCP_RULE: Final = {"name": Key(value_kinds.string, '"delete_*"')} | _REQUIRED
MCP_RESOURCE: Final = {"uri": Key(value_kinds.string, '"file:///reports/**"')} | _REQUIRED
TABLES: Final[Mapping[str, Mapping[str, Key]]] = {
    "the top level": TOP_LEVEL,
    "[resource]": RESOURCE,
    "[api_keys]": API_KEYS,
    "[dpop]": DPOP,
    "[mutual_tls]": MUTUAL_TLS,
    "[token_sources]": TOKEN_SOURCES,
    "[[issuers]]": ISSUER,
    "[issuers.key_set]": KEY_SET,
    "[issuers.introspection]": INTROSPECTION,
    "[issuers.experimental_status_list]": STATUS_LIST,
    "[[rules]]": RULE,
    "[mcp]": MCP,
    "[[mcp.tools]]": MCP_RULE,
    "[[mcp.prompts]]": MCP_RULE,
    "[[mcp.resources]]": MCP_RESOURCE,
    "[[mcp.methods]]": MCP_RULE,
    "[authzen]": AUTHZEN,
    "[contract]": CONTRACT,
    "[scopes]": SCOPES,
    "[store]": STORE,
    "[revocation]": REVOCATION,
    "[token_cache]": TOKEN_CACHE,
    "[refusal_log]": REFUSAL_LOG,
    "[transport]": TRANSPORT,
    "[challenge]": CHALLENGE,
}
