"""Read the granted scopes from claims: a space-separated string (RFC 8693 section 4.2), or the variants in use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from scopeguard.config.issuer import Issuer, ScopeClaim, ScopeForm
from scopeguard.errors import InvalidToken
from scopeguard.reasons import Reason
from scopeguard.spec.log_facts import describe

# Module names, because looking up a member of an enum takes as long as all the rest of reading a claim.
_COMMA, _LIST, _SPACE_OR_LIST = ScopeForm.COMMA, ScopeForm.LIST, ScopeForm.SPACE_OR_LIST


_NO_TEXTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


def granted_scopes(
    claims: Mapping[str, Any], issuer: Issuer, texts: Mapping[str, tuple[str, ...]] = _NO_TEXTS
) -> tuple[str, ...] | None:
    """Return the scopes in *claims*, in their order and without duplicates; ``None`` if there is no scope claim.

    ``Issuer.scope_claims`` names the claims and their forms. The first one that is present is read; with
    ``Issuer.merge_scope_claims``, all are. Raises :class:`InvalidToken` for a claim of another type. Not checked:
    whether each value is a scope token. A value that is not cannot satisfy a requirement.

    *texts*: values of ``Issuer.scope_text_claim`` in accepted tokens, each with the scopes in it.
    """
    if issuer.scope_text_claim is not None:
        text = claims.get(issuer.scope_text_claim)
        if type(text) is str and text in texts:
            return texts[text]
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
            # RFC 6749 section 3.3: scope = scope-token *( SP scope-token ). split() without an argument would also
            # split at tabs and U+2003. Empty strings come from repeated spaces.
            scopes = value.split(" ")
            return [scope for scope in scopes if scope] if "" in scopes else scopes
    elif (form is _LIST or form is _SPACE_OR_LIST) and _is_list_of_strings(value):
        return [scope for scope in value if scope]
    raise InvalidToken(Reason.MALFORMED_SCOPE, claim=source.claim, found=describe(value), expected=form.value)


def _is_list_of_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
