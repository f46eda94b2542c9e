"""Deny tokens that were revoked in this process or in others that share the store."""

from __future__ import annotations

from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import SHARED_STORE, Flow, Lane, SingleFlight, UseStore, ask
from scopeguard.reasons import Reason
from scopeguard.spec import jwt
from scopeguard.state.revocation import Bearer, Revocation
from scopeguard.tokens import AccessToken


def check_not_revoked(access: AccessToken, credential: Credential, context: Context) -> Flow[None]:
    """Deny *access* if it was revoked. With a shared store, revocations count within ``max_lag`` seconds."""
    revocations = context.issuers.revocations
    yield from sync_if_due(context)
    if len(revocations) and revocations.covers(bearer_of(access, credential)):
        raise InvalidToken(Reason.TOKEN_REVOKED)


def bearer_of(access: AccessToken, credential: Credential) -> Bearer:
    """Return the properties of *access* that a revocation may name; *credential* is its text."""
    jti = access.claims.get("jti")
    return Bearer(
        issuer=access.issuer,
        token=stable_part(credential),
        jti=jti if isinstance(jti, str) else None,
        subject=access.subject,
        client_id=access.client_id,
        issued_at=access.issued_at,
    )


def sync_if_due(context: Context) -> Flow[None]:
    """Read new revocations from the shared store if the last read is ``max_lag`` seconds old.

    A read starts in the background after half of that time. If the store does not answer in time, this is an outage,
    unless the policy says ``fail_open_dangerously``.
    """
    if not context.issuers.shared:
        return
    revocations = context.issuers.revocations
    age = context.clock.monotonic() - revocations.synced_at
    if age >= revocations.max_lag:
        try:
            yield from sync(context)
        except AuthorityUnavailable:
            if not revocations.fail_open_dangerously:
                raise
    elif age >= revocations.max_lag / 2:
        yield from sync(context, wait=False)


def stable_part(credential: Credential) -> str:
    """Return the part of a token that its holder cannot rewrite: of a JWT, everything but the signature.

    Anyone can turn an ECDSA signature (r, s) into (r, n - s), which is valid too. A revocation of the whole text would
    miss that second form.
    """
    for padded in (False, True):
        try:
            jwt.peek(credential.token, padded=padded)
        except InvalidToken:
            continue
        return credential.token.rpartition(".")[0]
    return credential.token


def sync(context: Context, *, wait: bool = True) -> Flow[None]:
    """Read the new entries of the shared log, unless another request is reading them.

    With *wait*, return when the log has been read up to this call, or up to less than ``max_lag`` seconds ago, and
    raise :class:`AuthorityUnavailable` when it cannot be read. If a read takes longer than ``max_lag``, one that began
    before this call may miss a revocation made in between, so it is followed by another read.
    """
    revocations, clock = context.issuers.revocations, context.clock
    called = clock.monotonic()
    while True:
        before = revocations.synced_at
        yield from ask(read_log(context, wait=wait))
        if not wait or revocations.synced_at >= called:
            return
        if clock.monotonic() - revocations.synced_at < revocations.max_lag:
            return
        if revocations.synced_at == before:  # the sync that another request led has failed
            break
    raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, SHARED_STORE, retry_after=1.0)


def read_log(context: Context, *, wait: bool) -> SingleFlight:
    """Return the flight that reads the log from the last position; a long log is read in parts."""
    revocations, clock = context.issuers.revocations, context.clock
    seen = revocations.generation

    def read() -> Flow[tuple[str, ...]]:
        pause = revocations.breaker.pause(clock.monotonic())
        if pause > 0:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, SHARED_STORE, retry_after=pause)
        try:
            while True:
                # The log is complete as of the start of the last read. Later entries are read next time.
                now = clock.monotonic()
                following, entries = yield from ask(UseStore(lambda store: store.read(revocations.position)))
                if following == revocations.position:
                    break
                for entry in map(Revocation.from_bytes, entries):
                    if entry is not None:
                        revocations.add(entry, clock.wall())
                revocations.position = following  # a later failure does not lose the parts that were read
        except AuthorityUnavailable:
            revocations.breaker.fail(clock.monotonic())
            revocations.record_failed_sync()
            raise
        revocations.breaker.succeed()
        revocations.record_sync(now)
        return ()

    return SingleFlight(
        key="revocations",
        authority=SHARED_STORE,
        needed=lambda: revocations.generation == seen,
        flow=read,
        wait=wait,
        lane=Lane.REVOCATIONS,
    )
