"""What reading a document yields, and what the readers of both kinds of documents share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from scopeguard.config.catalog import ScopeCatalog
from scopeguard.config.checks import member
from scopeguard.config.documents import Document
from scopeguard.contracts.operations import Operation
from scopeguard.errors import ConfigurationError
from scopeguard.rules import DENIED, PUBLIC, Access, Rule
from scopeguard.scopes import AUTHENTICATED, Requirement
from scopeguard.spec.error_body import ErrorBody


class Undeclared(StrEnum):
    """What holds for an operation of which its document does not say whether it needs a token."""

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
    """The rules of a document, in the order of decision, and the scopes it describes.

    *name*: what messages call it. *error_body*: how clients of such an API read errors, where it is not the usual way.
    A guard with these rules answers so unless it has a ``challenge``. A guard whose middleware alone has them does not
    know them, and needs ``challenge=ChallengeStyle(realm=..., body=contract.error_body)``.
    """

    name: str
    rules: tuple[Rule, ...] = field(repr=False)
    catalog: ScopeCatalog = field(repr=False)
    error_body: ErrorBody | None = None


def undeclared_access(undeclared: Undeclared | str | None) -> Requirement | Access | None:
    """What *undeclared* stands for; ``None`` where the operator did not say."""
    return None if undeclared is None else _MEANING[member(Undeclared, undeclared, "undeclared")]


def nothing_declared(document: Document, operation: str) -> ConfigurationError:
    """The document says nothing about *operation*, and neither did the operator."""
    return document.error(
        f"{operation}: the document does not say what it needs; declare it there, or say what holds for all such "
        'operations with undeclared = "authenticated", "deny" or "public"'
    )


def checked_operations(document: Document, operations: list[Operation]) -> list[Operation]:
    """*operations*, or :class:`ConfigurationError` if there are none: a document that describes nothing is the wrong
    document, or has a member of the wrong name, and says nothing about any request."""
    if operations:
        return operations
    raise document.error("describes no operation, so no request could be allowed; is it the right document?")


def checked_base_path(base_path: str | None) -> str | None:
    """*base_path* without a slash at its end."""
    if base_path is None:
        return None
    if (
        not isinstance(base_path, str)
        or (base_path and not base_path.startswith("/"))
        or re.search("[{}?#]", base_path)
    ):
        raise ConfigurationError('base_path: the path before those of the document, as in "/v1", or "" for none')
    return base_path.rstrip("/")


def parameter(name: str) -> str:
    """*name* as rules may call a parameter. What it is called has no meaning for them."""
    return re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("0123456789") or "value"
