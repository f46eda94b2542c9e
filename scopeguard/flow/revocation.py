"""What was revoked before it expired, here or by others who share a store."""

from __future__ import annotations

from scopeguard.access_token import AccessToken
from scopeguard.errors import AuthorityUnavailable, InvalidToken, Reason
from scopeguard.flow.credential import Credential
from scopeguard.flow.effects import Clock, Flow, Lane, SingleFlight, UseStore, ask
from scopeguard.spec import jwt
from scopeguard.state.issuers import TrustedIssuers
from scopeguard.state.revocation import Bearer, Revocation


def check_not_revoked(access: AccessToken, credential: Credential, trusts: TrustedIssuers, clock: Clock) -> Flow[None]:
    """Return if nobody has revoked *access*; with a shared store, as of a second ago at most."""
    revocations = trusts.revocations
    yield from sync_if_due(trusts, clock)
    if not len(revocations):
        return
    jti = access.claims.get("jti")
    bearer = Bearer(
        issuer=access.issuer,
        token=stable_part(credential),
        jti=jti if isinstance(jti, str) else None,
        subject=access.subject,
        client_id=access.client_id,
        issued_at=access.issued_at,
    )
    if revocations.covers(bearer):
        raise InvalidToken(Reason.TOKEN_REVOKED)


def sync_if_due(trusts: TrustedIssuers, clock: Clock) -> Flow[None]:
    """Know what others have revoked, with a shared store, as of a second ago at most.

    When the store does not answer, nobody knows: that is an outage, unless the configuration prefers what was known.
    """
    revocations = trusts.revocations
    if not trusts.shared:
        return
    age = clock.monotonic() - revocations.synced_at
    if age >= revocations.max_lag:
        try:
            yield from sync(trusts, clock)
        except AuthorityUnavailable:
            if not revocations.fail_open_dangerously:
                raise
    elif age >= revocations.max_lag / 2:
        yield from sync(trusts, clock, wait=False)


def stable_part(credential: Credential) -> str:
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


def sync(trusts: TrustedIssuers, clock: Clock, *, wait: bool = True) -> Flow[None]:
    """Read what others have revoked since the last time, unless another request is doing so.

    With *wait*, return when the log is known to its end as of this call, or as of less than ``max_lag`` ago; raise
    :class:`AuthorityUnavailable` when it cannot be read. Where a read takes longer than ``max_lag``, a sync that began
    before this call may miss what was revoked before it, and one more is made.
    """
    revocations, called = trusts.revocations, clock.monotonic()
    while True:
        before = revocations.synced_at
        yield from ask(_sync(trusts, clock, wait=wait))
        if not wait or revocations.synced_at >= called:
            return
        if clock.monotonic() - revocations.synced_at < revocations.max_lag:
            return
        if revocations.synced_at == before:  # the sync that another request led has failed
            break
    raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0)


def _sync(trusts: TrustedIssuers, clock: Clock, *, wait: bool) -> SingleFlight:
    """The flight that reads the log from where it was left; a long one comes in parts."""
    revocations = trusts.revocations
    seen = revocations.generation

    def read() -> Flow[tuple[str, ...]]:
        pause = revocations.breaker.pause(clock.monotonic())
        if pause > 0:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=pause)
        try:
            while True:
                # The end of the log is known as of the last read. What is revoked after this is read next time.
                now = clock.monotonic()
                following, entries = yield from ask(UseStore(lambda store: store.read(revocations.position)))
                if following == revocations.position:
                    break
                for entry in map(Revocation.from_bytes, entries):
                    if entry is not None:
                        revocations.add(entry, clock.wall())
                revocations.position = following  # the parts that came are not read again
        except AuthorityUnavailable:
            revocations.breaker.fail(clock.monotonic())
            revocations.record_failed_sync()
            raise
        revocations.breaker.succeed()
        revocations.record_sync(now)
        return ()

    return SingleFlight(
        key="revocations",
        authority="the shared store",
        needed=lambda: revocations.generation == seen,
        flow=read,
        wait=wait,
        lane=Lane.REVOCATIONS,
    )
