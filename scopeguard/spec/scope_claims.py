"""Scopes as the claims of real authorization servers spell them (RFC 8693 section 4.2, and lists)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from scopeguard.config.issuer import Issuer, ScopeClaim, ScopeForm
from scopeguard.errors import InvalidToken, Reason

# By name: to look a member up on its class takes as long as all the rest of reading a claim.
_COMMA, _LIST, _SPACE_OR_LIST = ScopeForm.COMMA, ScopeForm.LIST, ScopeForm.SPACE_OR_LIST


def granted_scopes(claims: Mapping[str, Any], issuer: Issuer) -> tuple[str, ...] | None:
    """The scopes exactly as granted, ``None`` where no scope claim is present.

    A wrongly typed claim makes the token invalid. Values outside the scope grammar stay in and match nothing.
    """
    found: list[str] | None = None
    for source in issuer.scope_claims:
        if source.claim not in claims:
            continue
        values = _scope_values(claims[source.claim], source)
        found = values if found is None else [*found, *values]
        if not issuer.merge_scope_claims:
            break
    return None if found is None else tuple(dict.fromkeys(found))


def _scope_values(value: object, source: ScopeClaim) -> list[str]:
    form = source.form
    if isinstance(value, str):
        if form is _COMMA:
            return [scope for scope in (part.strip(" ") for part in value.split(",")) if scope]
        if form is not _LIST:
            # SP only: str.split() would also split at tabs and U+2003. Extra spaces are harmless.
            scopes = value.split(" ")
            return [scope for scope in scopes if scope] if "" in scopes else scopes
    elif (form is _LIST or form is _SPACE_OR_LIST) and _is_list_of_strings(value):
        return [scope for scope in value if scope]
    raise InvalidToken(Reason.MALFORMED_SCOPE, claim=source.claim, form=form.value)


def _is_list_of_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
