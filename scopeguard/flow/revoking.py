"""What was revoked before it expired, here or by others who share a store."""

from __future__ import annotations

from scopeguard.access_token import AccessToken
from scopeguard.effects import Clock, Flow, SingleFlight, UseStore, ask
from scopeguard.errors import AuthorityUnavailable, InvalidToken, Reason
from scopeguard.flow.credential import Credential
from scopeguard.spec import jwt
from scopeguard.state.revocations import Bearer, Revocation
from scopeguard.state.trust import Trusts


def unrevoked(access: AccessToken, credential: Credential, trusts: Trusts, clock: Clock) -> Flow[None]:
    """Return if nobody has revoked *access*; with a shared store, as of a second ago at most."""
    revocations = trusts.revocations
    yield from caught_up(trusts, clock)
    if not len(revocations):
        return
    jti = access.claims.get("jti")
    bearer = Bearer(
        issuer=access.issuer,
        token=unchangeable(credential),
        jti=jti if isinstance(jti, str) else None,
        subject=access.subject,
        client_id=access.client_id,
        issued_at=access.issued_at,
    )
    if revocations.covers(bearer):
        raise InvalidToken(Reason.TOKEN_REVOKED)


def caught_up(trusts: Trusts, clock: Clock) -> Flow[None]:
    """Know what others have revoked, with a shared store, as of a second ago at most.

    When the store does not answer, nobody knows: that is an outage, unless the configuration prefers what was known.
    """
    revocations = trusts.revocations
    if not trusts.shared:
        return
    age = clock.monotonic() - revocations.synced_at
    if age >= revocations.max_lag:
        try:
            yield from synced(trusts, clock)
        except AuthorityUnavailable:
            if not revocations.fail_open_dangerously:
                raise
    elif age >= revocations.max_lag / 2:
        yield from synced(trusts, clock, wait=False)


def unchangeable(credential: Credential) -> str:
    """What of a token is the same however its holder writes it: of a JWT, all but the signature.

    From an ECDSA signature (r, s) anybody makes (r, n - s), which is as good: a revocation of the whole text would
    miss that one.
    """
    for padded in (False, True):
        try:
            jwt.peek(credential.token, padded=padded)
        except InvalidToken:
            continue
        return credential.token.rpartition(".")[0]
    return credential.token


def synced(trusts: Trusts, clock: Clock, *, wait: bool = True) -> Flow[None]:
    """Read what others have revoked since last time, unless somebody has just done so."""
    revocations = trusts.revocations
    seen = revocations.generation

    def read() -> Flow[tuple[str, ...]]:
        pause = revocations.breaker.pause(clock.monotonic())
        if pause > 0:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=pause)
        # Taken before reading: what is revoked meanwhile is read next time.
        now = clock.monotonic()
        try:
            following, entries = yield from ask(UseStore(lambda store: store.read(revocations.position)))
            while following != revocations.position:  # a long log comes in parts; those that came are not read again
                for entry in map(Revocation.from_bytes, entries):
                    if entry is not None:
                        revocations.add(entry, clock.wall())
                revocations.position = following
                following, entries = yield from ask(UseStore(lambda store: store.read(revocations.position)))
        except AuthorityUnavailable:
            revocations.breaker.failed(clock.monotonic())
            revocations.sync_failed()
            raise
        revocations.breaker.succeeded()
        revocations.synced(now)
        return ()

    yield from ask(
        SingleFlight(
            key="revocations",
            authority="the shared store",
            needed=lambda: revocations.generation == seen,
            flow=read,
            wait=wait,
        )
    )
    if wait and clock.monotonic() - revocations.synced_at >= revocations.max_lag:
        raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0)
