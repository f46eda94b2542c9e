"""Find required scopes that no issuer can grant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scopeguard.guard import Guard, engine_of


def find_ungrantable(
    alternatives: Sequence[frozenset[str]], guard: Guard, granted: Mapping[str, frozenset[str]]
) -> tuple[str, ...] | None:
    """Return the scopes that no token can have, and without which no token satisfies *alternatives*.

    Returns ``None`` if a token may satisfy them, or if that is unknown. If the catalog of *guard* describes scopes, a
    scope exists if the catalog has it. Otherwise *granted* has the scopes of each issuer, and one issuer must grant all
    scopes of one alternative, after its prefix and implications are applied. The result is unknown if *granted* lacks
    an issuer, if an issuer has roles as scopes, or if a resolver finds issuers.
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
    # If each scope is granted by some issuer, no single issuer grants all of them.
    return tuple(sorted(alternatives[0] - everywhere)) or tuple(sorted(alternatives[0]))
