"""Read a TOML document into the issuers and the arguments of a guard: the order of its tables, and what they share."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scopeguard.config import checks
from scopeguard.config.audit import AuditMode
from scopeguard.config.authzen import AuthZen
from scopeguard.config.checks import member
from scopeguard.config.cors import Preflight
from scopeguard.config.file.contracts import catalog_of, contracts_of
from scopeguard.config.file.issuers import read_issuer, refuse_repeated_urls, refuse_shared_prefixes, with_hosts
from scopeguard.config.file.mcp import policy_of
from scopeguard.config.file.place import Place
from scopeguard.config.file.references import UnreadableError, text_of
from scopeguard.config.file.rules import read_rules
from scopeguard.config.file.tables import INSECURE, TOP_LEVEL, elsewhere
from scopeguard.config.hosts import insecure_hosts
from scopeguard.config.issuer import Issuer
from scopeguard.config.urls import check_url
from scopeguard.contracts import Contract
from scopeguard.errors import ConfigurationError
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
    "api_keys",
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
        read_issuer(with_hosts(table, insecure), place.inner(f"[[issuers]] {number}"), url)
        for number, table in enumerate(tables, 1)
    )
    refuse_repeated_urls(issuers, place)
    refuse_shared_prefixes(issuers, place)
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
        arguments["rules"] = read_rules(
            values, place, [rule for contract in contracts for rule in contract.rules], point
        )
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
