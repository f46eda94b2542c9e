"""Translate the security schemes and ``security`` lists of an OpenAPI document into requirements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scopeguard.config.api_documents import Document
from scopeguard.config.checks import items
from scopeguard.config.suggestions import nearest
from scopeguard.errors import ConfigurationError
from scopeguard.log_values import printable
from scopeguard.rules import DENIED, OPTIONAL, PUBLIC, Access
from scopeguard.scopes import AUTHENTICATED, Requirement, all_of, any_of


@dataclass(frozen=True, slots=True)
class SecuritySchemes:
    """The security schemes of a document.

    *known* has all of them by name. Alternatives with an *ignored* scheme are dropped.
    """

    known: Mapping[str, Mapping[str, Any]]
    ignored: frozenset[str]

    @classmethod
    def of(cls, document: Document, known: Mapping[str, Mapping[str, Any]], ignored: Iterable[str]) -> SecuritySchemes:
        if isinstance(ignored, str):
            raise ConfigurationError('ignore_schemes: must be a list of names, as in ["apiKey"], not a string')
        names = frozenset(items(ignored, "ignore_schemes", 'a list of names, as in ["apiKey"]', str))
        for name in names:
            if name not in known:
                # Without an error, a misspelled name would have no effect.
                near = nearest(str(name), known)
                hint = f"did you mean {near}?" if near else f"it has {', '.join(known) or 'none'}"
                problem = f"ignore_schemes: {printable(name)} is not a security scheme of the document"
                raise document.error(f"{problem}; {hint}")
        return cls(known, names)

    def access(self, security: Any) -> Requirement | Access:
        """Return the access that a ``security`` list declares.

        Raises :class:`ConfigurationError` if it cannot be enforced.
        """
        if not isinstance(security, list) or not all(isinstance(alternative, Mapping) for alternative in security):
            raise ConfigurationError("security: must be a list of objects")
        kept = [alternative for alternative in security if not self.ignored & set(map(self._name, alternative))]
        if not kept:
            return DENIED if security else PUBLIC
        requirements = list(dict.fromkeys(self._requirement(alternative) for alternative in kept if alternative))
        if {} in kept:
            return OPTIONAL if requirements else PUBLIC
        if len(requirements) > 1 and AUTHENTICATED in requirements:
            weak = next(_show(one) for one in kept if self._requirement(one) == AUTHENTICATED)
            raise ConfigurationError(
                f"security: {weak} allows any valid token, so the scopes of the other alternatives have no effect; "
                "if it is for another kind of token, add its scheme to ignore_schemes, otherwise list its scopes"
            )
        return any_of(*requirements)

    def _requirement(self, alternative: Mapping[str, Any]) -> Requirement:
        return all_of(*(self._member(name, scopes) for name, scopes in alternative.items()))

    def _member(self, name: Any, scopes: Any) -> Requirement:
        scheme = self.known.get(self._name(name))
        if scheme is None:
            raise ConfigurationError(f"security: {printable(name)} is not a security scheme of the document")
        if not _takes_access_tokens(scheme):
            raise ConfigurationError(
                f"security: {printable(name)} is {_kind(scheme)}, which scopeguard cannot check; add it to "
                "ignore_schemes to drop the alternatives with it (an operation without any other is denied)"
            )
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise ConfigurationError(f"security: {printable(name)}: must be a list of scopes")
        return all_of(*scopes) if scopes else AUTHENTICATED

    def _name(self, name: Any) -> str:
        """Return the name of a scheme. OpenAPI 3.2 also allows a reference to it."""
        text = str(name)
        return text if text in self.known else text.removeprefix("#/components/securitySchemes/")


def _takes_access_tokens(scheme: Mapping[str, Any]) -> bool:
    match str(scheme.get("type")):
        case "oauth2" | "openIdConnect":
            return True
        case "http":
            return str(scheme.get("scheme")).lower() == "bearer"
        case "apiKey":
            return scheme.get("in") == "query" and scheme.get("name") == "access_token"  # RFC 6750 §2.3
        case _:
            return False


def _kind(scheme: Mapping[str, Any]) -> str:
    kind = str(scheme.get("type"))
    return printable(f"http {scheme.get('scheme')}" if kind == "http" else kind, 40)


def _show(alternative: Mapping[str, Any]) -> str:
    return printable(" with ".join(map(str, alternative)), 80)
