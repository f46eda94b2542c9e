"""The configuration file: TOML in; issuers, and the other arguments of :class:`~scopeguard.guard.Guard`, out.

Nothing is ignored. A key that is unknown, of the wrong kind, in the wrong table or for a later version is a
:class:`ConfigurationError` that names the file, the table and the key (law 5). Secrets and URLs may stand elsewhere:
``env:NAME`` is the environment variable, ``file:PATH`` the content of a file beside the configuration.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from scopeguard.checks import checked_url
from scopeguard.config import ANY_AUDIENCE_DANGEROUSLY, Issuer, KeySetPolicy, ScopeClaim, TokenSources, checked_sources
from scopeguard.errors import ConfigurationError
from scopeguard.rules import OPTIONAL, PUBLIC, Access, Rule, Rules
from scopeguard.scopes import AUTHENTICATED, Requirement, ScopeVocabulary, all_of, any_of
from scopeguard.settings import kinds
from scopeguard.settings.kinds import Key, Place, UnreadableError, WrongKindError, shown, text_of
from scopeguard.spec.challenge import ChallengeStyle
from scopeguard.spec.jwks import configured_key_set


def read_settings(path: str | os.PathLike[str]) -> tuple[tuple[Issuer, ...], dict[str, Any]]:
    """The issuers that the TOML file at *path* describes, and the keyword arguments of ``Guard`` that it gives.

    Paths in the file are relative to it. ``jwks_file`` is not read, it need not exist yet. Raises
    :class:`ConfigurationError`.
    """
    file = os.fspath(path)
    try:
        document = tomllib.loads(text_of(Path(path)))
    except UnreadableError as problem:
        raise ConfigurationError(f"{file}: {problem}") from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigurationError(f"{file}: not TOML: {problem}") from None
    return settings_from(document, Path(path).absolute().parent, file=file)


def settings_from(
    document: Mapping[str, Any],
    base: Path,
    *,
    file: str = "settings",
    environment: Mapping[str, str] | None = None,
) -> tuple[tuple[Issuer, ...], dict[str, Any]]:
    """:func:`read_settings` of a *document* that was parsed already.

    *base*: the folder that paths are relative to. *file*: what messages call the document. *environment*: where
    ``env:NAME`` is looked up, the environment of the process unless given.
    """
    place = Place(file, "top level", base, os.environ if environment is None else environment, _elsewhere)
    values = place.read(document, TOP_LEVEL)
    tables: list[Mapping[str, Any]] = values.pop("issuers", [])
    if not tables:
        raise place.error("issuers", "there is none; add [[issuers]] with the url of your authorization server")
    if "resource" in values:
        place.built("resource", lambda: checked_url(values["resource"], "resource"))
    if "realm" in values:
        place.built("realm", lambda: ChallengeStyle(realm=values["realm"]))
    issuers = tuple(
        _issuer(table, place.inner(f"[[issuers]] {number}"), values.get("resource"))
        for number, table in enumerate(tables, 1)
    )
    _refuse_twins(issuers, place)
    arguments: dict[str, Any] = {
        name: values[name] for name in ("resource", "realm", "token_sources", "require_https") if name in values
    }
    if "implies" in values.get("scopes", {}):
        arguments["implies"] = values["scopes"]["implies"]
    if "rules" in values or "public" in values:
        arguments["rules"] = _rules(values, place)
    return issuers, arguments


# What is not there: the sentence, and what to do instead.

_LATER: Final = "is known and not available in this version"
LATER: Final = {
    "contract": f"{_LATER}; write what the contract says as [[rules]]",
    "introspection": f"{_LATER}; only JWT access tokens can be judged, so let the authorization server issue these",
    "preset": f"{_LATER}; write the provider's settings out: url, audience, algorithms, typ, scope_claims",
    "profile": f'{_LATER}; set the keys one by one, as in typ = "at+jwt" of an issuer',
    "store": f"{_LATER}; every process keeps its own keys, and nothing needs to be shared",
}


def _elsewhere(name: str) -> str | None:
    if name in LATER:
        return LATER[name]
    homes = [home for home, keys in TABLES.items() if name in keys]
    # The usual reason: TOML counts every line below a header to that header's table.
    return f"is a key of {' and '.join(homes)}, and stands here in another table; move it" if homes else None


# Readers of the kinds that only this file has; the others are in kinds.py.


def _strings_by_name(place: Place, key: str, value: Any) -> dict[str, tuple[str, ...]]:
    inside = {name: Key(kinds.one_or_more_strings, '["value"]') for name in kinds.table(place, key, value)}
    return place.inner(f"{place.table}: {key}").read(value, inside)


def _scopes_by_scope(place: Place, key: str, value: Any) -> dict[str, tuple[str, ...]]:
    inside = {name: Key(kinds.strings, '["scope"]') for name in kinds.table(place, key, value)}
    implies = place.inner(f"{place.table}: {key}").read(value, inside)
    place.built(key, lambda: ScopeVocabulary(implies=implies))
    return implies


def _aliases(place: Place, key: str, value: Any) -> dict[str, dict[str, str]]:
    inside = {name: Key(_string_by_name, '{ tid = "value" }') for name in kinds.table(place, key, value)}
    return place.inner(f"{place.table}: {key}").read(value, inside)


def _string_by_name(place: Place, key: str, value: Any) -> dict[str, str]:
    inside = {name: Key(kinds.string, '"value"') for name in kinds.table(place, key, value)}
    return place.inner(f"{place.table}: {key}").read(value, inside)


def _scope_claims(place: Place, key: str, value: Any) -> tuple[ScopeClaim, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str | Mapping) for item in value):
        raise WrongKindError("a list of claims, each a string or a table with claim and form,")
    found: list[dict[str, Any]] = []
    for item in value:
        given = place.inner(f"{place.table}: {key}").read({"claim": item} if isinstance(item, str) else item, _CLAIM)
        if "claim" not in given:
            raise place.error(key, "an item has no claim; write { claim = ..., form = ... }")
        found.append(given)
    return place.built(key, lambda: tuple(ScopeClaim(**given) for given in found))


def _types(place: Place, key: str, value: Any) -> tuple[str | None, ...]:
    """TOML has no word for nothing: an empty string stands for a token without ``typ``."""
    return tuple(typ or None for typ in kinds.one_or_more_strings(place, key, value))


def _token_sources(place: Place, key: str, value: Any) -> TokenSources:
    if isinstance(value, Mapping):
        inner = place.inner("[token_sources]")
        given = inner.read(value, TOKEN_SOURCES)
        return inner.built("", lambda: TokenSources(**given))
    try:
        methods = kinds.strings(place, key, value)
    except WrongKindError:
        raise WrongKindError("a list of strings, or a table,") from None
    return place.built(key, lambda: TokenSources().only(methods))


def _route_sources(place: Place, key: str, value: Any) -> tuple[str, ...]:
    methods = kinds.strings(place, key, value)
    place.built(key, lambda: checked_sources(methods, key))
    return methods


def _key_set(place: Place, key: str, value: Any) -> KeySetPolicy:
    inner = place.inner(f"[issuers.key_set] of {place.table}")
    given = inner.read(kinds.table(place, key, value), KEY_SET)
    return inner.built("", lambda: KeySetPolicy(**given))


def _inline_keys(place: Place, key: str, value: Any) -> Mapping[str, Any]:
    document = kinds.table(place, key, value)
    place.built(key, lambda: configured_key_set(document, setting=key))
    return document


def _scopes_table(place: Place, key: str, value: Any) -> dict[str, Any]:
    return place.inner("[scopes]").read(kinds.table(place, key, value), SCOPES)


# The tables. tests/test_settings.py holds them against the dataclasses, and reads every example.

_CLAIM: Final = {"claim": Key(kinds.string, '"scp"'), "form": Key(kinds.string, '"list"')}
KEY_SET: Final = {
    setting.name: Key(kinds.whole_number if setting.type == "int" else kinds.number, repr(setting.default))
    for setting in fields(KeySetPolicy)
}
TOKEN_SOURCES: Final = {
    "methods": Key(kinds.strings, '["header", "query"]'),
    "stray_query_token": Key(kinds.string, '"refuse"'),
    "max_token_bytes": Key(kinds.whole_number, "16384"),
    "max_form_bytes": Key(kinds.whole_number, "65536"),
    "max_parameters": Key(kinds.whole_number, "1000"),
    "form_timeout": Key(kinds.number, "10.0"),
}
SCOPES: Final = {"implies": Key(_scopes_by_scope, '{ cloud-platform = ["bigquery"] }')}
TOP_LEVEL: Final = {
    "resource": Key(kinds.reference, '"https://api.example.com"'),
    "realm": Key(kinds.reference, '"example"'),
    "token_sources": Key(_token_sources, '["header"]'),
    "public": Key(kinds.strings, '["/healthz"]'),
    "require_https": Key(kinds.boolean, "true"),
    "issuers": Key(kinds.tables, '[{ url = "https://auth.example.com" }]'),
    "rules": Key(kinds.tables, '[{ path = "/tables/{table}", any_of = ["read"] }]'),
    "scopes": Key(_scopes_table, '{ implies = { cloud-platform = ["bigquery"] } }'),
}
ISSUER: Final = {
    "url": Key(kinds.reference, '"https://auth.example.com"'),
    "audience": Key(kinds.references, '["https://api.example.com"]'),
    "any_audience_dangerously": Key(kinds.only_true, "true"),
    "validate": Key(kinds.string, '"jwt"'),
    "jwks_uri": Key(kinds.reference, '"https://auth.example.com/jwks"'),
    "jwks_file": Key(kinds.path, '"jwks.json"'),
    "keys": Key(_inline_keys, '{ keys = [{ kty = "OKP", crv = "Ed25519", x = "' + "A" * 42 + 'E" }] }'),
    "metadata_url": Key(kinds.reference, '"https://auth.example.com/metadata"'),
    "aliases": Key(_aliases, '{ "https://old.example.com" = { tid = "7" } }'),
    "audience_claims": Key(kinds.strings, '["aud"]'),
    "algorithms": Key(kinds.strings, '["RS256"]'),
    "typ": Key(_types, '["at+jwt"]'),
    "required_claims": Key(kinds.strings, '["jti"]'),
    "expected_claims": Key(_strings_by_name, '{ tid = ["7"] }'),
    "expected_headers": Key(_strings_by_name, '{ kid = ["7"] }'),
    "any_claims": Key(kinds.strings, '["scope", "roles"]'),
    "forbidden_claims": Key(kinds.strings, '["nonce"]'),
    "forbidden_headers": Key(kinds.strings, '["x5c"]'),
    "scope_claims": Key(_scope_claims, '["scope", { claim = "scp", form = "list" }]'),
    "merge_scope_claims": Key(kinds.boolean, "true"),
    "role_claims": Key(kinds.strings, '["roles"]'),
    "client_id_claims": Key(kinds.strings, '["client_id"]'),
    "subject_claims": Key(kinds.strings, '["sub"]'),
    "scope_prefix": Key(kinds.string, '"https://www.googleapis.com/auth/"'),
    "implies": Key(_scopes_by_scope, '{ cloud-platform = ["bigquery"] }'),
    "accept_id_tokens_dangerously": Key(kinds.boolean, "false"),
    "leeway": Key(kinds.number, "30"),
    "max_lifetime": Key(kinds.number, "3600"),
    "key_set": Key(_key_set, "{ ttl = 600 }"),
}
RULE: Final = {
    "path": Key(kinds.string, '"/tables/{table}"'),
    "methods": Key(kinds.strings, '["GET"]'),
    "any_of": Key(kinds.strings, '["read"]'),
    "all_of": Key(kinds.strings, '["read", "write"]'),
    "public": Key(kinds.only_true, "true"),
    "optional": Key(kinds.only_true, "true"),
    "authenticated": Key(kinds.only_true, "true"),
    "token_sources": Key(_route_sources, '["header", "query"]'),
}
TABLES: Final[Mapping[str, Mapping[str, Key]]] = {
    "the top level": TOP_LEVEL,
    "[token_sources]": TOKEN_SOURCES,
    "[[issuers]]": ISSUER,
    "[issuers.key_set]": KEY_SET,
    "[[rules]]": RULE,
    "[scopes]": SCOPES,
}


# Tables into objects.


def _issuer(table: Mapping[str, Any], place: Place, resource: str | None) -> Issuer:
    given = place.read(table, ISSUER)
    if "url" not in given:
        raise place.error("url", "is missing; name the authorization server as its tokens do in iss")
    validate = given.pop("validate", "jwt")
    if validate in ("introspection", "auto"):
        raise place.error("validate", f'"{validate}" {_LATER}; use "jwt", which needs no round trip for a request')
    if validate != "jwt":
        raise place.error("validate", f'{shown(validate)!r} is not known; this version has "jwt"')
    any_audience = given.pop("any_audience_dangerously", False)
    if any_audience and "audience" in given:
        raise place.error("audience", "and any_audience_dangerously contradict each other; keep one")
    if any_audience:
        given["audience"] = ANY_AUDIENCE_DANGEROUSLY
    elif "audience" not in given:
        if resource is None:
            raise place.error(
                "audience", "is missing; name what tokens for this API carry in aud, or set resource at the top level"
            )
        given["audience"] = resource
    url = given.pop("url")
    try:
        return Issuer(url, **given)
    except ConfigurationError as error:
        problem = str(error)
        if problem.startswith("issuer:"):  # in the file the identifier of an issuer is called url
            problem = problem.replace("issuer", "url", 1)
        raise ConfigurationError(f"{place.file}: {place.table}: {problem}") from None


def _refuse_twins(issuers: tuple[Issuer, ...], place: Place) -> None:
    seen: dict[str, int] = {}
    for number, issuer in enumerate(issuers, 1):
        for name in (issuer.url, *issuer.aliases):
            if seen.setdefault(name, number) != number:
                raise place.inner(f"[[issuers]] {number}").error(
                    "url", f"{name!r} is the issuer of [[issuers]] {seen[name]} already; one issuer has one policy"
                )


def _rules(values: Mapping[str, Any], place: Place) -> Rules:
    rules = tuple(
        _rule(table, place.inner(f"[[rules]] {number}")) for number, table in enumerate(values.get("rules", ()), 1)
    )
    return place.built("public", lambda: Rules(rules, public=values.get("public", ())))


_ACCESS: Final[Mapping[str, Callable[[Any], Requirement | Access]]] = {
    "any_of": lambda scopes: any_of(*scopes),
    "all_of": lambda scopes: all_of(*scopes),
    "public": lambda _: PUBLIC,
    "optional": lambda _: OPTIONAL,
    "authenticated": lambda _: AUTHENTICATED,
}


def _rule(table: Mapping[str, Any], place: Place) -> Rule:
    given = place.read(table, RULE)
    if "path" not in given:
        raise place.error("path", f"is missing; as in: path = {RULE['path'].example}")
    said = [name for name in _ACCESS if name in given]
    if len(said) != 1:
        one = f"a rule says exactly one of {', '.join(_ACCESS)}"
        raise place.error(" and ".join(said), f"contradict each other; {one}") if said else place.error("path", one)
    (name,) = said
    access = place.built(name, lambda: _ACCESS[name](given[name]))
    place.built("path", lambda: Rule(given["path"], access))
    sources = given.get("token_sources")
    return place.built("methods", lambda: Rule(given["path"], access, given.get("methods"), sources))
