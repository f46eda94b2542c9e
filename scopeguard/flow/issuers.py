"""Whose policy judges a token: configured issuers, those who are asked about opaque tokens, and those who are found."""

from __future__ import annotations

from scopeguard.access_token import Unverified
from scopeguard.errors import AuthorityUnavailable, InvalidToken, Reason
from scopeguard.flow.credential import Credential
from scopeguard.flow.effects import HOOK_PATIENCE, TURN, CallHook, Clock, Flow, Lane, SingleFlight, ask
from scopeguard.spec import jwt
from scopeguard.state.issuers import Trust, Trusts


def route(credential: Credential, trusts: Trusts, clock: Clock) -> Flow[Trust]:
    """Whose policy judges *credential*, before any network access, and with no URL taken from the token (P-18).

    Where issuers are looked up by the operator's function, that is called for a name that it may know.
    """
    trust, token = parsed(credential, trusts)
    return trust or (yield from found_by_name(token, credential, trusts, clock))


def parsed(credential: Credential, trusts: Trusts, mark: str | None = None) -> tuple[Trust | None, Unverified | None]:
    """The token and the configured trust that it names. No token: it is opaque, and the trust is whom to ask. No trust:
    it names an issuer that may be found. *mark*: the fingerprint, if it is known.

    A token that has the look of a JWT and is not one is asked about nowhere.
    """
    try:
        token = trusts.peek(credential.token, credential.header, mark)
    except InvalidToken:
        looks_like_jwt = credential.token.startswith("eyJ") and credential.token.count(".") == 2
        asks_nobody = looks_like_jwt or credential.header is not None
        trust = None if asks_nobody else trusts.of_opaque(credential.token)
        if trust is None:
            raise
        return trust, None
    if trusts.nameless is not None and "iss" not in token.claims:
        return trusts.nameless, token
    return trusts.named(jwt.named_issuer(token), credential.header), token


def found_by_name(token: Unverified | None, credential: Credential, trusts: Trusts, clock: Clock) -> Flow[Trust]:
    """The trust in the issuer of *token*, which is not configured."""
    name = "" if token is None else jwt.named_issuer(token)
    trust = None if credential.header is not None else (yield from resolved(name, trusts, clock))
    if trust is None:
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=name, **trusts.nearest(name, credential.header))
    return trust


def resolved(name: str, trusts: Trusts, clock: Clock) -> Flow[Trust | None]:
    """The trust in the issuer *name*, which is not configured, as the resolver finds it or found it lately.

    Whoever fails to find it says nothing about the token: that is an outage (law 4), or a mistake, and let through.
    """
    resolving = trusts.resolving
    if resolving is None:
        return None
    known = resolving.lookup(name, clock.monotonic())
    if known is None and not resolving.accepts(name):
        return None
    found = [] if known is None else [known]

    def needed() -> bool:
        known = resolving.lookup(name, clock.monotonic())
        found.extend([] if known is None else [known])
        return not found

    def look_up() -> Flow[tuple[str, ...]]:
        try:
            issuer = yield from ask(CallHook(lambda: resolving.resolve(name)))
            found.append(resolving.absorb(name, issuer, clock.monotonic()))
        except Exception as error:  # a mistake in it is paced as well: everybody would run into it
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            resolving.fail(name, clock.monotonic(), retry_after=asked)
            raise
        return ()

    if not found:
        yield from ask(
            SingleFlight(
                key=f"issuer {name!r}",
                authority=name,
                needed=needed,
                flow=look_up,
                lane=Lane.HOOKS,
                priority=resolving.has_found(name),
                account="resolver",  # strangers make up the names
                deadline=TURN + HOOK_PATIENCE,
            )
        )
    outcome = found[0]
    if outcome.failed:
        pause = outcome.until - clock.monotonic()
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, name, retry_after=max(0.0, pause))
    return outcome.trust
