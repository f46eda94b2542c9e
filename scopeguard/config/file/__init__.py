"""The configuration file: TOML in; issuers, and the other arguments of :class:`~scopeguard.guard.Guard`, out.

Nothing is ignored. A key that is unknown, of the wrong kind, in the wrong table or for a later version is a
:class:`ConfigurationError` that names the file, the table and the key. Secrets and URLs may stand elsewhere:
``env:NAME`` is the environment variable, ``file:PATH`` the content of a file beside the configuration.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scopeguard.conditions import (
    MACHINE,
    NOT_DELEGATED,
    USER,
    Condition,
    DelegatedTo,
    UserAuthentication,
)
from scopeguard.config import checks
from scopeguard.config.audit import AuditMode
from scopeguard.config.checks import checked_url, insecure_hosts, member
from scopeguard.config.cors import Preflight
from scopeguard.config.file.contracts import catalog_of, contracts_of
from scopeguard.config.file.kinds import Place, UnreadableError, text_of
from scopeguard.config.file.presets import preset_issuer, takes
from scopeguard.config.file.tables import INSECURE, ISSUER, RULE, TOP_LEVEL, elsewhere
from scopeguard.config.introspection import Validation
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.contracts import Contract
from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access, Rule, Rules
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, any_of
from scopeguard.spec.challenge import ChallengeStyle


def read_settings(path: str | os.PathLike[str]) -> tuple[tuple[Issuer, ...], dict[str, Any]]:
    """The issuers that the TOML file at *path* describes, and the keyword arguments of ``Guard`` that it gives.

    Paths in the file are relative to it. ``jwks_file`` is not read, it need not exist yet. Raises
    :class:`ConfigurationError`.
    """
    checks.path(path, "path", "the path of a TOML file")
    file = os.fspath(path)
    try:
        document = tomllib.loads(text_of(Path(path)))
    except UnreadableError as problem:
        raise ConfigurationError(f"{file}: {problem}") from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigurationError(f"{file}: not TOML: {problem}") from None
    return settings_from(document, Path(path).absolute().parent, file=file)


# Keys of the top level that are arguments of the guard as they stand.
_ARGUMENTS: Final = (
    "resource",
    "realm",
    "token_sources",
    "require_https",
    "store",
    "revocation",
    "token_cache",
    "refusal_log",
    "signature_backends",
    "audit",
    "cors_preflight",
    "transport",
    INSECURE,
)


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
    place = Place(file, "top level", base, os.environ if environment is None else environment, elsewhere)
    values = place.read(document, TOP_LEVEL)
    tables: list[Mapping[str, Any]] = values.pop("issuers", [])
    if not tables:
        raise place.error("issuers", "there is none; add [[issuers]] with the url of your authorization server")
    insecure = place.built(INSECURE, lambda: insecure_hosts(values.get(INSECURE, ())))
    if "resource" in values:
        place.built("resource", lambda: checked_url(values["resource"], "resource", insecure=insecure))
    if "realm" in values:
        place.built("realm", lambda: ChallengeStyle(realm=values["realm"]))
    if "cors_preflight" in values:
        place.built("cors_preflight", lambda: member(Preflight, values["cors_preflight"], "cors_preflight"))
    if "audit" in values:
        place.built("audit", lambda: AuditMode.of(values["audit"]))
    issuers = tuple(
        _issuer(with_hosts(table, insecure), place.inner(f"[[issuers]] {number}"), values.get("resource"))
        for number, table in enumerate(tables, 1)
    )
    _refuse_twins(issuers, place)
    _refuse_rivals(issuers, place)
    arguments: dict[str, Any] = {name: values[name] for name in _ARGUMENTS if name in values}
    if "implies" in values.get("scopes", {}):
        arguments["implies"] = values["scopes"]["implies"]
    contracts = contracts_of(values["contract"], place.inner("[contract]")) if "contract" in values else ()
    style = _style(values, contracts, place)
    if style is not None:
        arguments.pop("realm", None)
        arguments["challenge"] = style
    scopes = values.get("scopes", {})
    if contracts or scopes.keys() - {"implies"}:
        arguments["catalog"] = catalog_of(scopes, contracts, place.inner("[scopes]"))
    if contracts or "rules" in values or "public" in values:
        arguments["rules"] = _rules(values, place, [rule for contract in contracts for rule in contract.rules])
    return issuers, arguments


def _style(values: Mapping[str, Any], contracts: Sequence[Contract], place: Place) -> ChallengeStyle | None:
    """Return how refusals are written, if the file says more about that than the realm.

    Clients of an API that a Google discovery document describes read errors in Google's shape, and fail on others.
    """
    given: dict[str, Any] = dict(values.get("challenge", {}))
    bodies = [contract.error_body for contract in contracts if contract.error_body is not None]
    if "error_body" in values:
        given["body"] = values["error_body"]
    elif bodies:
        given["body"] = bodies[0]
    if not given:
        return None
    realm = values.get("realm", values.get("resource", "api"))
    return place.inner("[challenge]").built("", lambda: ChallengeStyle(realm=realm, **given))


def with_hosts(table: Mapping[str, Any], insecure: frozenset[str]) -> Mapping[str, Any]:
    """Return the ``[[issuers]]`` *table* with the hosts *insecure* of the top level added to its own.

    A preset without such an argument has fixed https URLs, and its table stays as it is.
    """
    own = table.get(INSECURE, [])
    if not insecure or not isinstance(own, list) or not takes(table, INSECURE):
        return table
    return {**table, INSECURE: [*own, *sorted(insecure)]}


def _issuer(table: Mapping[str, Any], place: Place, resource: str | None) -> Issuer:
    if "preset" in table:
        return preset_issuer(table, place, resource)
    given = place.read(table, ISSUER)
    if "url" not in given:
        raise place.error("url", "is missing; name the authorization server as its tokens do in iss")
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


def _refuse_rivals(issuers: tuple[Issuer, ...], place: Place) -> None:
    """Of two issuers that introspect the same opaque tokens, one would be shown the tokens of the other."""
    seen: dict[str, int] = {}
    for number, issuer in enumerate(issuers, 1):
        for prefix in (issuer.opaque_prefixes or ("",)) if issuer.validate is not Validation.JWT else ():
            if seen.setdefault(prefix, number) != number:
                what = f"{prefix!r} is a prefix" if prefix else "any opaque token may be one"
                raise place.inner(f"[[issuers]] {number}").error(
                    "opaque_prefixes", f"{what} of [[issuers]] {seen[prefix]} already; no token is shown to two"
                )


def _rules(values: Mapping[str, Any], place: Place, of_contracts: Sequence[Rule]) -> Rules:
    rules = tuple(
        _rule(table, place.inner(f"[[rules]] {number}")) for number, table in enumerate(values.get("rules", ()), 1)
    )
    # "rules = []" denies every route. A file with neither rules nor a contract may still name public paths.
    given = (*rules, *of_contracts) if "rules" in values or "contract" in values else None
    return place.built("public", lambda: Rules(given, public=values.get("public", ())))


_ACCESS: Final[Mapping[str, Callable[[Any], Requirement | Access]]] = {
    "any_of": lambda scopes: any_of(*scopes),
    "all_of": lambda scopes: all_of(*scopes),
    "public": lambda _: PUBLIC,
    "optional": lambda _: OPTIONAL,
    "authenticated": lambda _: AUTHENTICATED,
    "denied": lambda _: DENIED,
}


_CONDITIONS: Final = ("acr", "max_age", "authorization_details", "delegated_to", "machine")


def _conditions(given: Mapping[str, Any], place: Place) -> list[Condition]:
    """Return what a rule requires besides scopes."""
    found: list[Condition] = []
    if "acr" in given or "max_age" in given:
        key = "acr" if "acr" in given else "max_age"
        found.append(
            place.built(key, lambda: UserAuthentication(acr=given.get("acr", ()), max_age=given.get("max_age")))
        )
    found += given.get("authorization_details", ())
    actor = given.get("delegated_to")
    if actor is not None:
        found.append(NOT_DELEGATED if actor is False else place.built("delegated_to", lambda: DelegatedTo(actor)))
    if "machine" in given:
        found.append(MACHINE if given["machine"] else USER)
    return found


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
    conditions = _conditions(given, place)
    if conditions:
        if not isinstance(access, Requirement):
            more = ", ".join(key for key in _CONDITIONS if key in given)
            raise place.error(name, f"requires no token, and {more} can only be required of one")
        access = all_of(access, *conditions)
    place.built("path", lambda: Rule(given["path"], access))
    sources = given.get("token_sources")
    source = f"{place.file}: {place.table}"
    extensions = given.get("extension_methods", ())
    methods = "methods" if "methods" in given else "extension_methods"
    return place.built(methods, lambda: Rule(given["path"], access, given.get("methods"), sources, source, extensions))
