"""The decision as a whole: from a request to an access token, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256

from scopeguard.access_token import AccessToken, Unverified, fingerprint
from scopeguard.config import TokenSources
from scopeguard.effects import Clock, Flow
from scopeguard.errors import InvalidToken
from scopeguard.flow.credential import Credential, find_credential
from scopeguard.flow.introspecting import introspected
from scopeguard.flow.keys import signing_keys, verify_signature
from scopeguard.flow.revoking import unrevoked
from scopeguard.flow.routing import found_by_name, parsed
from scopeguard.flow.statuses import status_checked
from scopeguard.introspection import Validation
from scopeguard.request import RequestView
from scopeguard.spec import jwt
from scopeguard.state.trust import Trust, Trusts
from scopeguard.state.verified import Remembered, VerifiedTokens


def authenticate(
    view: RequestView,
    *,
    trusts: Trusts,
    sources: TokenSources,
    clock: Clock,
    memory: VerifiedTokens | None = None,
    exposed: Callable[[], None] | None = None,
) -> Flow[AccessToken]:
    """The access token of *view*, judged by the policy of the issuer it names; whether it suffices is not asked.

    *memory*: where tokens that were verified are remembered. *exposed* is called when a token is there, wherever it was
    read, and may refuse it: the request was not encrypted.
    """
    credential = yield from find_credential(view, sources, trusts.headers)
    if exposed is not None:
        exposed()
    try:
        return (yield from judged(credential, trusts, clock, memory))
    except InvalidToken as error:
        error.detail["token"] = fingerprint(credential.token)
        raise


def judged(
    credential: Credential, trusts: Trusts, clock: Clock, memory: VerifiedTokens | None = None
) -> Flow[AccessToken]:
    """The access token that *credential* is: verified here, now or before, or described by its authority; and not
    revoked."""
    hints: Mapping[str, str] = trusts.hints
    # Of ASCII: whatever is no token68 was refused where it was found.
    digest = sha256(credential.token.encode("ascii")).digest()
    try:
        found = None if memory is None else (yield from remembered(digest, credential, trusts, clock, memory))
        if found is not None:
            trust, access = found.trust, found.access
        else:
            routed, token = parsed(credential, trusts, digest[:6].hex())
            trust = routed or (yield from found_by_name(token, credential, trusts, clock))
            hints = trust.issuer.hints
            if token is None or trust.issuer.validate is Validation.INTROSPECTION:
                access = yield from introspected(credential, trust, trusts, clock)
                yield from unrevoked(access, credential, trusts, clock)
                return access
            found = yield from verified(token, credential, trust, trusts, clock)
            access = found.access
            if memory is not None and trust.by_id is None:
                memory.add(digest, found, header=token.segment, payload=token.payload)
        if trust.statuses is not None:
            hints = trust.issuer.hints
            yield from status_checked(access, trust, clock)
        changes = trusts.revocations.changes
        if trusts.shared or found.cleared != changes:
            hints = trust.issuer.hints
            yield from unrevoked(access, credential, trusts, clock)
            found.cleared = changes
    except InvalidToken as error:
        jwt.explain(error, hints)
        raise
    return access


def remembered(
    digest: bytes, credential: Credential, trusts: Trusts, clock: Clock, memory: VerifiedTokens
) -> Flow[Remembered | None]:
    """What is remembered of *credential*, if it came in the same way, its issuer is trusted as it was, and the key that
    signed it is still published. A key set that is due is fetched, as for any other token."""
    found = memory.find(digest, clock.wall())
    if found is None:
        return None
    trust, ring, kid, algorithm = found.trust, found.trust.ring, found.header.get("kid"), found.header["alg"]
    if found.location != credential.header or not trusts.trusts(trust, clock.monotonic()):
        return None
    if not ring.holds(found.held, clock.monotonic()):
        yield from signing_keys(kid, algorithm, trust, clock)
        # The set that stands now decides, whichever the look-up saw.
        held = ring.current
        if found.key not in ring.candidates(kid, algorithm, clock.monotonic()):
            memory.discard(digest)
            return None
        found.held = held
    return found


def verified(token: Unverified, credential: Credential, trust: Trust, trusts: Trusts, clock: Clock) -> Flow[Remembered]:
    """*token*, when its issuer's policy accepts it and a key of the issuer signed it."""
    now, issuer = clock.wall(), trust.issuer
    # As it was before the key was looked up: if another set has taken its place, the key is sought there next time.
    held = trust.ring.current
    checked = jwt.check(token, issuer, now, headers=trust.headers)
    key = yield from verify_signature(token, trust, clock)
    if token.segment not in trust.headers:
        trust.accepted(token, rfc9068=checked.rfc9068)
        trusts.accepted(token)
    return Remembered(
        access=jwt.accept(token, issuer, trust.vocabulary, checked),
        trust=trust,
        key=key,
        header=token.header,
        location=credential.header,
        since=now,
        until=jwt.usable_until(token.claims, issuer),
        held=held,
        instant=credential.header is None and trust.statuses is None and trusts.configured(trust),
    )
