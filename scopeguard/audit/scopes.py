"""Which scopes a token can have at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scopeguard.guard import Guard, engine_of


def find_ungrantable(
    alternatives: Sequence[frozenset[str]], guard: Guard, granted: Mapping[str, frozenset[str]]
) -> tuple[str, ...] | None:
    """The scopes for want of which no token satisfies *alternatives*; ``None`` where one may, or nobody knows.

    With a catalog that describes scopes, a scope exists if the catalog has it. Without, *granted* says what each issuer
    grants, implications and prefix included, and one issuer has to grant all of one alternative. Nothing is claimed
    where an issuer is not in *granted*, gives roles for scopes, or is found by a resolver.
    """
    known, engine = guard.catalog, engine_of(guard)
    if known.descriptions:
        missing = [tuple(sorted(scope for scope in scopes if scope not in known)) for scopes in alternatives]
        return None if () in missing else missing[0]
    finds_issuers = engine.issuers.resolved is not None
    if finds_issuers or any(issuer.url not in granted or issuer.roles_as_scopes for issuer in guard.issuers):
        return None
    everywhere: frozenset[str] = frozenset()
    for issuer in guard.issuers:
        effective = engine.configured_issuer(issuer.url).vocabulary.effective(granted[issuer.url])
        if any(scopes <= effective for scopes in alternatives):
            return None
        everywhere |= effective
    # Each of its scopes may be granted by some issuer, and never all by one.
    return tuple(sorted(alternatives[0] - everywhere)) or tuple(sorted(alternatives[0]))
