"""The contract that a document yields, and helpers that both readers share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from scopeguard.config.api_documents import Document
from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import member
from scopeguard.contracts.operations import Operation
from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, PUBLIC, Access, Rule
from scopeguard.scopes import AUTHENTICATED, Requirement
from scopeguard.spec.error_body import ErrorBody


class Undeclared(StrEnum):
    """Access to operations for which the document declares none."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"
    DENY = "deny"


_MEANING: Final[dict[Undeclared, Requirement | Access]] = {
    Undeclared.PUBLIC: PUBLIC,
    Undeclared.AUTHENTICATED: AUTHENTICATED,
    Undeclared.DENY: DENIED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The rules and the scopes that a document describes.

    * ``name``: the name of the document in messages.
    * ``rules``: the rules, in the order of decision.
    * ``catalog``: the scopes.
    * ``error_body``: the error format of such APIs, or ``None``. A guard with these rules uses it unless it has a
      ``challenge``. If the rules are given to the middleware instead, the guard needs
      ``challenge=ChallengeStyle(realm=..., body=contract.error_body)``.
    """

    name: str
    rules: tuple[Rule, ...] = field(repr=False)
    catalog: ScopeCatalog = field(repr=False)
    error_body: ErrorBody | None = None


def mapping_or_empty(value: object) -> Mapping[str, Any]:
    """Return *value* if it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def undeclared_access(undeclared: Undeclared | str | None) -> Requirement | Access | None:
    """Return the access that *undeclared* stands for, or ``None`` if it is ``None``.

    Raises :class:`ConfigurationError` for an unknown value.
    """
    return None if undeclared is None else _MEANING[member(Undeclared, undeclared, "undeclared")]


def undeclared_error(document: Document, operation: str) -> ConfigurationError:
    """Return the error for an *operation* without declared access."""
    return document.error(
        f"{operation}: the document declares no security for it; declare it there, or set the access of all such "
        'operations with undeclared = "authenticated", "deny" or "public"'
    )


def check_operations(document: Document, operations: list[Operation]) -> list[Operation]:
    """Return *operations*. Raises :class:`ConfigurationError` if there are none.

    A document without operations is the wrong document, or a member of it is misspelled.
    """
    if operations:
        return operations
    raise document.error("describes no operation, so no request could be allowed; is it the right document?")


def check_base_path(base_path: str | None) -> str | None:
    """Return *base_path* without its final slash. Raises :class:`ConfigurationError` unless it is a path."""
    if base_path is None:
        return None
    if (
        not isinstance(base_path, str)
        or (base_path and not base_path.startswith("/"))
        or re.search("[{}?#]", base_path)
    ):
        given = repr(base_path) if isinstance(base_path, str) else type(base_path).__name__
        raise ConfigurationError(
            f'base_path: must be a path that begins with /, as in "/v1", or "" for none, not {given}'
        )
    return base_path.rstrip("/")


def parameter(name: str) -> str:
    """Return *name* as a parameter name that rules accept. The name has no meaning for them."""
    return re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("0123456789") or "value"
