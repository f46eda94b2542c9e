"""Read the configuration file, a TOML document, into the arguments of :class:`~scopeguard.guard.Guard`.

Nothing in the file is ignored. A key that is unknown, has a value of the wrong kind, or belongs in another table
raises :class:`ConfigurationError` with the names of the file, the table and the key. Secrets and URLs may
be references: ``env:NAME`` to an environment variable, ``file:PATH`` to a file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scopeguard.config import checks
from scopeguard.config.audit import AuditMode
from scopeguard.config.authzen import AuthZen
from scopeguard.config.checks import check_url, insecure_hosts, member
from scopeguard.config.cors import Preflight
from scopeguard.config.file.access import read_access
from scopeguard.config.file.contracts import catalog_of, contracts_of
from scopeguard.config.file.kinds import Place, UnreadableError, text_of
from scopeguard.config.file.mcp import policy_of
from scopeguard.config.file.presets import preset_issuer, takes
from scopeguard.config.file.tables import INSECURE, ISSUER, RULE, TOP_LEVEL, elsewhere
from scopeguard.config.introspection import Validation
from scopeguard.config.issuer import ANY_AUDIENCE_DANGEROUSLY, Issuer
from scopeguard.contracts import Contract
from scopeguard.errors import ConfigurationError
from scopeguard.rules import Rule, Rules
from scopeguard.scopes import Requirement
from scopeguard.spec.challenge import ChallengeStyle


def read_settings(path: str | os.PathLike[str]) -> tuple[tuple[Issuer, ...], dict[str, Any]]:
    """Return the issuers in the TOML file at *path*, and the keyword arguments for ``Guard``.

    Paths in the file are relative to its directory. ``jwks_file`` is not read and need not exist yet. Raises
    :class:`ConfigurationError` if the file cannot be read, is not TOML or has a wrong setting.
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


# Keys of the top level that are arguments of the guard with the same names.
_ARGUMENTS: Final = (
    "profile",
    "resource",
    "realm",
    "token_sources",
    "require_https",
    "keep_token_for_exchange",
    "forward_token_dangerously",
    "dpop",
    "mutual_tls",
    "store",
    "revocation",
    "token_cache",
    "refusal_log",
    "signature_backends",
    "fast",
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
    """Return the settings in *document*, a parsed TOML document, as :func:`read_settings` does.

    * *base*: the directory that paths are relative to.
    * *file*: the name of the document in messages.
    * *environment*: the variables that ``env:NAME`` refers to. ``None`` stands for the environment of the process.
    """
    place = Place(file, "top level", base, os.environ if environment is None else environment, elsewhere)
    values = place.read(document, TOP_LEVEL)
    tables: list[Mapping[str, Any]] = values.pop("issuers", [])
    if not tables:
        raise place.error("issuers", "is missing; add [[issuers]] with the url of your authorization server")
    insecure = place.construct(INSECURE, lambda: insecure_hosts(values.get(INSECURE, ())))
    url: str | None = None
    if "resource" in values:
        url = values["resource"].url
        place.construct("resource", lambda: check_url(url, "resource", insecure=insecure))
    if "realm" in values:
        place.construct("realm", lambda: ChallengeStyle(realm=values["realm"]))
    if "cors_preflight" in values:
        place.construct("cors_preflight", lambda: member(Preflight, values["cors_preflight"], "cors_preflight"))
    if "audit" in values:
        place.construct("audit", lambda: AuditMode.of(values["audit"]))
    issuers = tuple(
        _issuer(with_hosts(table, insecure), place.inner(f"[[issuers]] {number}"), url)
        for number, table in enumerate(tables, 1)
    )
    _refuse_repeated_urls(issuers, place)
    _refuse_shared_prefixes(issuers, place)
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
    point = _decision_point(values, place, insecure)
    if contracts or "rules" in values or "public" in values:
        arguments["rules"] = _rules(values, place, [rule for contract in contracts for rule in contract.rules], point)
    if "mcp" in values:
        arguments["mcp"] = policy_of(values["mcp"], place.inner("[mcp]"))
    return issuers, arguments


def _decision_point(values: Mapping[str, Any], place: Place, insecure: frozenset[str]) -> AuthZen | None:
    """Return the policy decision point of the file. The hosts *insecure* of the top level are added to its own."""
    if "authzen" not in values:
        return None
    if not any("decide" in table for table in values.get("rules", ())):
        raise place.inner("[authzen]").error("url", "decides about no rule; add decide = true to one of [[rules]]")
    given = dict(values["authzen"])
    given[INSECURE] = [*given.get(INSECURE, ()), *sorted(insecure)]
    return place.inner("[authzen]").construct("", lambda: AuthZen(**given))


def _style(values: Mapping[str, Any], contracts: Sequence[Contract], place: Place) -> ChallengeStyle | None:
    """Return the form of refusals, or ``None`` unless the file sets more than the realm.

    Clients of an API with a Google discovery document expect errors in Google's format and fail on others.
    """
    given: dict[str, Any] = dict(values.get("challenge", {}))
    bodies = [contract.error_body for contract in contracts if contract.error_body is not None]
    if "error_body" in values:
        given["body"] = values["error_body"]
    elif bodies:
        given["body"] = bodies[0]
    if not given:
        return None
    realm = values.get("realm", values["resource"].url if "resource" in values else "api")
    return place.inner("[challenge]").construct("", lambda: ChallengeStyle(realm=realm, **given))


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
        raise place.error("url", "is missing; set it to the iss of the authorization server's tokens")
    any_audience = given.pop("any_audience_dangerously", False)
    if any_audience and "audience" in given:
        raise place.error("audience", "contradicts any_audience_dangerously; keep one of them")
    if any_audience:
        given["audience"] = ANY_AUDIENCE_DANGEROUSLY
    elif "audience" not in given:
        if resource is None:
            raise place.error(
                "audience", "is missing; set it to the aud of tokens for this API, or set resource at the top level"
            )
        given["audience"] = resource
    url = given.pop("url")
    try:
        return Issuer(url, **given)
    except ConfigurationError as error:
        problem = str(error)
        if problem.startswith("issuer:"):  # the file calls the identifier of an issuer url
            problem = problem.replace("issuer", "url", 1)
        raise ConfigurationError(f"{place.file}: {place.table}: {problem}") from None


def _refuse_repeated_urls(issuers: tuple[Issuer, ...], place: Place) -> None:
    seen: dict[str, int] = {}
    for number, issuer in enumerate(issuers, 1):
        for name in (issuer.url, *issuer.aliases):
            if seen.setdefault(name, number) != number:
                raise place.inner(f"[[issuers]] {number}").error(
                    "url", f"{name!r} is already the issuer of [[issuers]] {seen[name]}; merge the two tables"
                )


def _refuse_shared_prefixes(issuers: tuple[Issuer, ...], place: Place) -> None:
    """Raise :class:`ConfigurationError` if two issuers introspect the same opaque tokens.

    Otherwise each would see tokens of the other.
    """
    seen: dict[str, int] = {}
    for number, issuer in enumerate(issuers, 1):
        for prefix in (issuer.opaque_prefixes or ("",)) if issuer.validate is not Validation.JWT else ():
            if seen.setdefault(prefix, number) != number:
                what = f"{prefix!r} is already a prefix of" if prefix else "is missing here and in"
                raise place.inner(f"[[issuers]] {number}").error(
                    "opaque_prefixes", f"{what} [[issuers]] {seen[prefix]}; set prefixes that tell their tokens apart"
                )


def _rules(values: Mapping[str, Any], place: Place, of_contracts: Sequence[Rule], point: AuthZen | None) -> Rules:
    rules = tuple(
        _rule(table, place.inner(f"[[rules]] {number}"), point)
        for number, table in enumerate(values.get("rules", ()), 1)
    )
    # "rules = []" denies every route. Without rules and contract, the file may still have public paths.
    given = (*rules, *of_contracts) if "rules" in values or "contract" in values else None
    return place.construct("public", lambda: Rules(given, public=values.get("public", ())))


def _rule(table: Mapping[str, Any], place: Place, point: AuthZen | None) -> Rule:
    given = place.read(table, RULE)
    if "path" not in given:
        raise place.error("path", f"is missing; set it, as in: path = {RULE['path'].example}")
    name, access = read_access(given, place, "path", RULE)
    place.construct("path", lambda: Rule(given["path"], access))
    decide = point if "decide" in given else None
    if "decide" in given and decide is None:
        raise place.error("decide", "needs a policy decision point; add [authzen] with its url")
    if decide is not None and not isinstance(access, Requirement):
        raise place.error("decide", f"needs an access token, and {name} requires none")
    sources = given.get("token_sources")
    source = f"{place.file}: {place.table}"
    extensions = given.get("extension_methods", ())
    if "dpop" in given:
        place.construct("dpop", lambda: Rule(given["path"], access, dpop=given["dpop"]))
    rest: dict[str, Any] = {"decide": decide, "dpop": given.get("dpop")}
    methods = "methods" if "methods" in given else "extension_methods"
    return place.construct(
        methods,
        lambda: Rule(given["path"], access, given.get("methods"), sources, source, extensions, **rest),
    )
