"""Read OpenAPI 3.0, 3.1 and 3.2 documents: every operation enforces the ``security`` that it declares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from scopeguard.conditions import MACHINE, USER, Condition
from scopeguard.config.api_documents import Document, DocumentOrPath, read_document
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import flag
from scopeguard.contracts.contract import (
    Contract,
    Undeclared,
    check_base_path,
    check_operations,
    mapping_or_empty,
    parameter,
    undeclared_access,
    undeclared_error,
)
from scopeguard.contracts.operations import Operation, rules_of
from scopeguard.contracts.security_schemes import SecuritySchemes
from scopeguard.errors import ConfigurationError
from scopeguard.log_values import printable
from scopeguard.rules import Access
from scopeguard.scopes import Requirement, all_of

_PARAMETER: Final = re.compile(r"\{([^{}]*)\}")
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_OF_A_PATH: Final = ("$ref", "summary", "description", "servers", "parameters")
EXTENSION: Final = "x-scopeguard"
"""The member of an operation with further requirements besides scopes: ``acr``, ``max_age`` and ``machine``."""
_CONDITIONS: Final = ("acr", "max_age", "machine")
_DECISIVE: Final = ("paths", "security", "servers", "components")  # members of the document that change a decision
_VERSIONS: Final = ("3.0", "3.1", "3.2")
_MOST_REFERENCES: Final = 32  # in a chain


def openapi(
    document: DocumentOrPath,
    *,
    base_path: str | None = None,
    undeclared: Undeclared | str | None = None,
    ignore_schemes: Iterable[str] = (),
) -> Contract:
    """Return the contract of an OpenAPI document.

    * *document*: the parsed document, or the path of a JSON or YAML file.
    * *base_path*: the beginning of all paths. ``None`` uses the path of each server of the document. Variables in it
      have their defaults.
    * *undeclared*: the access to operations for which neither they nor the document declare ``security``: ``"public"``,
      ``"authenticated"`` or ``"deny"``. ``None`` makes such an operation an error.
    * *ignore_schemes*: names of security schemes that cannot be checked here. Alternatives with such a scheme are
      dropped. An operation without any alternative left is denied.

    The rules follow the document:

    * ``security`` is a list of alternatives. A request must satisfy all members of one of them. ``[]`` and a single
      ``{}`` mean public. With ``{}`` among other alternatives a token is optional: its scopes are not checked, and an
      invalid token is refused.
    * ``oauth2``, ``openIdConnect``, ``http`` ``bearer`` and ``access_token`` in the query (RFC 6750 §2.3) require a
      valid token with the listed scopes. The roles that OpenAPI 3.1 allows for ``bearer`` count as scopes. The document
      does not decide where tokens are looked for: that is a setting of the guard.
    * ``apiKey``, ``mutualTLS`` and other ``http`` schemes cannot be checked. An operation that uses one is an error
      unless *ignore_schemes* has its name.
    * An alternative without scopes among alternatives with scopes is an error, because it makes the others
      ineffective. Usually it is for another kind of token, and its scheme belongs in *ignore_schemes*.
    * Concrete paths come before templated ones. If two templates match the same path and neither is more concrete, a
      request must satisfy both. The same holds for operations that differ only after a ``?`` or ``#`` in the path.
    * ``x-scopeguard`` in an operation requires more of the token than scopes:
      ``{"acr": ["urn:example:gold"], "max_age": 300, "machine": false}``, each as in :func:`~scopeguard.all_of`.
    * A ``$ref`` within the document is followed. Any other is an error. Webhooks and callbacks are ignored, because the
      API sends these requests. Parameters, bodies and hosts are not checked.

    Raises :class:`ConfigurationError`, with the document, the operation and the fix. This includes documents without
    operations, unknown members of a path, and misspelled ``security``, ``servers``, ``paths`` and ``components``.
    """
    reader = Reader.of(document, base_path, ignore_schemes)
    default = undeclared_access(undeclared)
    operations = []
    for described in reader.operations():
        access = described.access if described.access is not None else default
        if access is None:
            raise undeclared_error(reader.document, described.name)
        operations += [
            Operation(method=described.method, path=path, access=access, source=described.source)
            for path in described.paths
        ]
    catalog = ScopeCatalog.from_openapi(reader.document.content)
    checked = check_operations(reader.document, operations)
    return Contract(name=reader.document.name, rules=rules_of(checked), catalog=catalog)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An operation of a document. *access* is ``None`` if none is declared.

    *name* and *source* are for messages. *source* includes the name of the document.
    """

    method: str
    paths: tuple[str, ...]
    access: Requirement | Access | None
    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the operations of one document."""

    document: Document
    base_path: str | None
    schemes: SecuritySchemes

    @classmethod
    def of(cls, document: DocumentOrPath, base_path: str | None, ignore_schemes: Iterable[str]) -> Reader:
        found = read_document(document, "OpenAPI document")
        version = found.content.get("openapi")
        if not isinstance(version, str) or not version.startswith(tuple(f"{known}." for known in _VERSIONS)):
            if "swagger" in found.content:
                raise found.error("Swagger 2.0 is not supported; convert the document to OpenAPI 3")
            raise found.error(f"must be OpenAPI 3.0, 3.1 or 3.2, not {printable(version)}")
        title = mapping_or_empty(found.content.get("info")).get("title")
        if found.name == "OpenAPI document" and isinstance(title, str) and title:
            found = Document(printable(title, 80), found.content)
        found.refuse_misspelled(found.content, _DECISIVE, "the document")
        declared = mapping_or_empty(mapping_or_empty(found.content.get("components")).get("securitySchemes"))
        schemes = {str(name): _follow(found, scheme, f"security scheme {name}") for name, scheme in declared.items()}
        return cls(found, check_base_path(base_path), SecuritySchemes.of(found, schemes, ignore_schemes))

    def operations(self) -> list[Described]:
        paths = self.document.content.get("paths", {})
        if not isinstance(paths, Mapping):
            raise self.document.error("paths: must be an object with a path item for each path")
        found: list[Described] = []
        for path, item in paths.items():
            if str(path).startswith("x-"):
                continue
            if not isinstance(path, str) or not path.startswith("/"):
                raise self.document.error(f"paths: {printable(path)}: a path must begin with /")
            followed = _follow(self.document, item, path)
            for method, operation in self._methods(path, followed).items():
                found.append(self._describe(method, path, followed, operation))
        return found

    def _methods(self, path: str, item: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        fixed = (*METHODS, "query") if self.document.content["openapi"].startswith("3.2.") else METHODS
        additional = ("additionalOperations",) if "query" in fixed else ()
        self.document.refuse_unknown(item, (*fixed, *additional, *_OF_A_PATH), path)
        found = {method.upper(): item[method] for method in fixed if method in item}
        if additional:
            others = item.get("additionalOperations", {})
            if not isinstance(others, Mapping):
                raise self.document.error(f"{path}: additionalOperations: must be an object with operations")
            for method, operation in others.items():
                if str(method).lower() in fixed:
                    raise self.document.error(
                        f"{path}: additionalOperations: {printable(method)} has a member of its own; move it there"
                    )
                found[method] = operation
        for method, operation in found.items():
            if not isinstance(operation, Mapping):
                raise self.document.error(f"{method} {path}: must be an object, not {type(operation).__name__}")
            self.document.refuse_misspelled(operation, ("security", "servers"), f"{method} {path}")
        return found

    def _describe(self, method: str, path: str, item: Mapping[str, Any], operation: Mapping[str, Any]) -> Described:
        identifier = operation.get("operationId")
        name = f"{method} {path}" + (f" ({printable(identifier, 80)})" if isinstance(identifier, str) else "")
        security = operation["security"] if "security" in operation else self.document.content.get("security")
        try:
            template = _template(path)
            paths = tuple(dict.fromkeys(base + template for base in self._bases(item, operation)))
            # With null, an operation could mean no security, or that of the document. So it is an error.
            is_null = security is None and "security" in operation and "security" in self.document.content
            access = None if security is None and not is_null else self.schemes.access(security)
            if EXTENSION in operation:
                access = _with_conditions(access, operation[EXTENSION])
        except ConfigurationError as error:
            raise self.document.error(f"{name}: {error}") from None
        return Described(method=method, paths=paths, access=access, name=name, source=f"{self.document.name}: {name}")

    def _bases(self, item: Mapping[str, Any], operation: Mapping[str, Any]) -> list[str]:
        if self.base_path is not None:
            return [self.base_path]
        servers = operation.get("servers") or item.get("servers") or self.document.content.get("servers") or [{}]
        if not isinstance(servers, list):
            raise ConfigurationError(f"servers: must be a list, not {type(servers).__name__}")
        return [_base(mapping_or_empty(server)) for server in servers]


def _with_conditions(access: Requirement | Access | None, members: Any) -> Requirement:
    """Add the requirements in the extension of an operation to its *access*."""
    if not isinstance(access, Requirement):
        raise ConfigurationError(f"{EXTENSION}: the operation needs security that requires a token")
    if not isinstance(members, Mapping) or not members:
        raise ConfigurationError(f'{EXTENSION}: an object is needed, as in {{"acr": ["urn:example:gold"]}}')
    unknown = [printable(name) for name in members if name not in _CONDITIONS]
    if unknown:
        raise ConfigurationError(f"{EXTENSION}: {unknown[0]} is unknown; it may have {', '.join(_CONDITIONS)}")
    items: list[Condition] = []
    if "machine" in members:
        flag(members["machine"], f"{EXTENSION}: machine")
        items.append(MACHINE if members["machine"] else USER)
    return all_of(access, *items, acr=members.get("acr"), max_age=members.get("max_age"))


def security_schemes(document: DocumentOrPath) -> tuple[str, ...]:
    """Return the names of the security schemes that *document* declares."""
    components = mapping_or_empty(read_document(document, "OpenAPI document").content.get("components"))
    return tuple(map(str, mapping_or_empty(components.get("securitySchemes"))))


def _base(server: Mapping[str, Any]) -> str:
    """Return the path of a *server* without its final slash."""
    url = str(server.get("url", "/"))
    for name, variable in mapping_or_empty(server.get("variables")).items():
        url = url.replace(f"{{{name}}}", str(mapping_or_empty(variable).get("default", "")))
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"servers: {printable(url)} is not a URL; set base_path") from None
    path = unquote(parts.path).rstrip("/")
    if "{" in path or (path and not path.startswith("/")):
        # Such a URL is relative to the URL of the document, which a file does not have.
        raise ConfigurationError(f"servers: {printable(url)} does not contain the path of the API; set base_path")
    return path


def _template(path: str) -> str:
    """Return *path* as a rule template: decoded, with plain parameter names, and without query and fragment.

    Rules match paths, so operations that differ only in the query or the fragment become one.
    """
    path = re.split(r"[?#]", path, maxsplit=1)[0]
    pieces = _PARAMETER.split(path)
    names = [f"{{{parameter(name)}}}" for name in _PARAMETER.findall(path)]
    literals = [unquote(piece) for piece in pieces[::2]]
    return "".join(literal + name for literal, name in zip(literals, [*names, ""], strict=True))


def _follow(document: Document, value: Any, name: str) -> Mapping[str, Any]:
    """Return *value*, or the object that it refers to within *document*."""
    for _ in range(_MOST_REFERENCES):
        if not isinstance(value, Mapping):
            raise document.error(f"{name}: must be an object, not {type(value).__name__}")
        reference = value.get("$ref")
        if reference is None:
            return value
        if any(key in value for key in (*METHODS, "query", "additionalOperations", "servers")):
            raise document.error(f"{name}: operations and servers beside a $ref are ambiguous; keep one of them")
        value = _target(document, reference, name)
    raise document.error(f"{name}: its $ref leads to itself, or through more than {_MOST_REFERENCES} references")


def _target(document: Document, reference: Any, name: str) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise document.error(
            f"{name}: $ref {printable(reference)} leads to another document; bundle both into one file"
        )
    value: Any = document.content
    for token in unquote(reference[2:]).split("/"):
        key = token.replace("~1", "/").replace("~0", "~")  # RFC 6901 §4
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            raise document.error(f"{name}: $ref {printable(reference)} does not exist in the document")
    return value
