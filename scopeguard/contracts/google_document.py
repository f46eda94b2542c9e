"""Read Google discovery documents: any one of the scopes that a method lists allows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from scopeguard.config.api_documents import Document, DocumentOrPath, read_document
from scopeguard.config.catalog import ScopeCatalog
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
from scopeguard.errors import ConfigurationError
from scopeguard.log_values import printable
from scopeguard.rules import DENIED, Access
from scopeguard.rules.rule import METHODS
from scopeguard.scopes import Requirement, any_of
from scopeguard.spec.error_body import ErrorBody

# Members that change a decision.
_OF_A_RESOURCE: Final = ("methods", "resources")
_OF_A_METHOD: Final = ("path", "httpMethod", "scopes", "parameters", "mediaUpload", "useMediaDownloadService")
_TEMPLATE: Final = re.compile(r"\{(\+?)([^{}]*)\}")
_LITERAL: Final = re.compile(r"[\w.$~-]+", re.ASCII)


def google_discovery(
    document: DocumentOrPath,
    *,
    base_path: str | None = None,
    undeclared: Undeclared | str | None = None,
) -> Contract:
    """Return the contract of a Google discovery document (``discovery#restDescription``).

    * *document*: the parsed document, or the path of a file.
    * *base_path*: the beginning of all paths. ``None`` uses the ``servicePath`` of the document.
    * *undeclared*: the access to methods that list no scopes: ``"public"``, ``"authenticated"`` or ``"deny"``. ``None``
      makes such a method an error.

    The rules follow the document:

    * A token needs one of the scopes that a method lists. The scopes are full names
      (``https://www.googleapis.com/auth/bigquery``). The catalog has the prefix, so a guard with the catalog accepts
      ``bigquery`` as well.
    * A ``{+name}`` matches the segments of its ``pattern``. If the pattern cannot be translated, it matches one or more
      segments. The text within a segment is not checked.
    * Upload paths require the scopes of their method. So do ``PUT`` and ``DELETE`` there, which continue and cancel a
      resumable upload, and the ``/download/`` paths of methods that have them.
    * The batch path is denied, because the scopes for the calls in the body of a batch cannot be known. An earlier rule
      of yours may open it if the code behind it checks each call.
    * If templates of two methods match the same path and neither is more concrete, a token needs the scopes of both.

    Raises :class:`ConfigurationError`, with the names of the document and the method, for a document that cannot be
    read or enforced.
    """
    found = read_document(document, "discovery document")
    content = found.content
    if content.get("kind") != "discovery#restDescription":
        raise found.error("must be a discovery document, with the kind 'discovery#restDescription'")
    if found.name == "discovery document" and isinstance(content.get("id"), str):
        found = Document(str(content["id"]), content)
    reader = _Reader(found, check_base_path(base_path), undeclared_access(undeclared))
    operations = check_operations(found, reader.operations())
    return Contract(
        name=found.name,
        rules=rules_of(operations, ErrorBody.GOOGLE),
        catalog=ScopeCatalog.from_google_discovery(content),
        error_body=ErrorBody.GOOGLE,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    document: Document
    base_path: str | None
    undeclared: Requirement | Access | None

    def operations(self) -> list[Operation]:
        content = self.document.content
        found = [operation for method in self._methods(content, "the document") for operation in self._method(method)]
        batch = content.get("batchPath")
        if found and isinstance(batch, str) and batch:
            source = f"{self.document.name}: POST {_with_slash(batch)} (batch)"
            found.append(Operation(method="POST", path=_with_slash(batch), access=DENIED, source=source))
        return found

    def _methods(self, resource: Mapping[str, Any], place: str) -> list[Mapping[str, Any]]:
        """Return the methods of *resource* and of its nested resources."""
        self.document.refuse_misspelled(resource, _OF_A_RESOURCE, place)
        own = list(self._members(resource, "methods", place).values())
        for name, inner in self._members(resource, "resources", place).items():
            own += self._methods(inner, f"resource {printable(name)}")
        return own

    def _members(self, resource: Mapping[str, Any], name: str, place: str) -> Mapping[str, Mapping[str, Any]]:
        members = resource.get(name, {})
        if not isinstance(members, Mapping) or not all(isinstance(member, Mapping) for member in members.values()):
            raise self.document.error(f"{place}: {name}: must be an object of objects")
        return members

    def _method(self, method: Mapping[str, Any]) -> list[Operation]:
        name = str(method.get("id", "a method without id"))
        self.document.refuse_misspelled(method, _OF_A_METHOD, name)
        path, verb = method.get("path"), method.get("httpMethod")
        if not isinstance(path, str) or not isinstance(verb, str):
            raise self.document.error(f"{name}: needs a path and an httpMethod")
        if verb.upper() not in METHODS:
            raise self.document.error(f"{name}: {printable(verb)} is not an HTTP method")
        access = self._access(method, name)
        parameters = {
            **mapping_or_empty(self.document.content.get("parameters")),
            **mapping_or_empty(method.get("parameters")),
        }
        return [
            Operation(
                method=http_method,
                path=_expand(full, parameters),
                access=access,
                source=f"{self.document.name}: {http_method} {full} ({name})",
            )
            for http_method, full in self._places(method, verb.upper(), path)
        ]

    def _access(self, method: Mapping[str, Any], name: str) -> Requirement | Access:
        scopes = method.get("scopes")
        if not scopes:
            if self.undeclared is None:
                raise undeclared_error(self.document, name)
            return self.undeclared
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise self.document.error(f"{name}: scopes: must be a list of strings")
        try:
            return _any_of(tuple(scopes))
        except ConfigurationError as error:
            raise self.document.error(f"{name}: {error}") from None

    def _places(self, method: Mapping[str, Any], verb: str, path: str) -> list[tuple[str, str]]:
        """Return the HTTP methods and full path templates, in the document's own form, that serve *method*."""
        service = str(self.document.content.get("servicePath", "")).strip("/")
        base = (f"/{service}" if service else "") if self.base_path is None else self.base_path
        places = [(verb, base + _with_slash(path))]
        if method.get("useMediaDownloadService") is True:
            places.append((verb, f"/download{base}{_with_slash(path)}"))
        for protocol in mapping_or_empty(mapping_or_empty(method.get("mediaUpload")).get("protocols")).values():
            full = _with_slash(str(mapping_or_empty(protocol).get("path", "")))
            if self.base_path is not None:
                full = full.replace(f"/upload/{service}/".replace("//", "/"), f"/upload{self.base_path}/", 1)
            places += [(each, full) for each in dict.fromkeys((verb, "PUT", "DELETE"))]
        return places


def _with_slash(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


@lru_cache(maxsize=1024)
def _any_of(scopes: tuple[str, ...]) -> Requirement:
    return any_of(*scopes)


def _expand(path: str, parameters: Mapping[str, Any]) -> str:
    """Return *path* as a rule template. Each ``{+name}`` becomes the segments of its pattern."""

    def template(found: re.Match[str]) -> str:
        name = parameter(found[2])
        if not found[1]:
            return f"{{{name}}}"
        pattern = mapping_or_empty(parameters.get(found[2])).get("pattern")
        return _segments(name, pattern) if isinstance(pattern, str) else f"{{{name}:segments}}"

    return _TEMPLATE.sub(template, path)


# The methods of a resource have the same patterns.
@lru_cache(maxsize=1024)
def _segments(name: str, pattern: str) -> str:
    """Return *pattern*, a regular expression, as a template: ``^projects/[^/]+$`` becomes ``projects/{name_1}``."""
    parts: list[str] = []
    for number, part in enumerate(_split(pattern.removeprefix("^").removesuffix("$")), 1):
        if _LITERAL.fullmatch(part):
            parts.append(part)
        elif part == "[^/]+" or not _may_hold_a_slash(part):
            parts.append(f"{{{name}_{number}}}")
        else:
            parts.append(f"{{{name}_{number}:segments}}")
    return "/".join(parts)


def _may_hold_a_slash(part: str) -> bool:
    """Return whether *part* of a regular expression may match a slash; true if in doubt."""
    return re.fullmatch(r"(?:[\w-]|\[[\w.~-]+\]|\\[dw]|\{\d+(?:,\d*)?\}|[+?|()]|\?:)+", part, re.ASCII) is None


def _split(pattern: str) -> list[str]:
    """Split *pattern* at slashes outside groups and character classes."""
    parts, depth, in_class, escaped = [""], 0, False, False
    for character in pattern:
        if character == "/" and not (depth or in_class or escaped):
            parts.append("")
            continue
        parts[-1] += character
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        else:
            depth += (character == "(") - (character == ")")
    return parts
