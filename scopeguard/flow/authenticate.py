"""The decision as a whole: from a request to an access token, or to a denial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256

from scopeguard.access_token import AccessToken, Unverified, fingerprint
from scopeguard.config.introspection import Validation
from scopeguard.config.sources import TokenSource, TokenSources
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.credential import Credential, find_credential
from scopeguard.flow.effects import Clock, Flow
from scopeguard.flow.introspection import introspect
from scopeguard.flow.issuers import find_issuer, parse
from scopeguard.flow.keys import signing_keys, verify_by_any_set, verify_by_set
from scopeguard.flow.revocation import check_not_revoked
from scopeguard.flow.status_list import check_token_status
from scopeguard.request import RequestView
from scopeguard.spec import jwt
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.state.token_cache import CachedToken, TokenCache

# Looking a member up on its enumeration costs as much as the comparison.
_HEADER, _INTROSPECTION = TokenSource.HEADER, Validation.INTROSPECTION


def authenticate(
    view: RequestView,
    *,
    issuers: Issuers,
    sources: TokenSources,
    clock: Clock,
    token_cache: TokenCache | None = None,
    exposed: Callable[[], None] | None = None,
) -> Flow[AccessToken]:
    """Return the access token of *view*, validated by the policy of the issuer that it names.

    Not checked here: whether the token satisfies the requirement of the route.

    *token_cache*: holds the tokens that were verified before. *exposed* is called when a token is found, wherever it
    was read, and may raise a denial because the request was not encrypted.
    """
    credential = yield from find_credential(view, sources, issuers.headers, opaque=issuers.takes_opaque)
    if exposed is not None:
        exposed()
    try:
        return (yield from judge(credential, issuers, clock, token_cache))
    except (InvalidToken, AuthorityUnavailable) as error:
        error.detail["token"] = fingerprint(credential.token)
        raise


def judge(
    credential: Credential, issuers: Issuers, clock: Clock, token_cache: TokenCache | None = None
) -> Flow[AccessToken]:
    """Validate *credential* and return its access token.

    A JWT is verified here, now or earlier; an opaque token is described by its authorization server. Revoked tokens are
    denied.
    """
    # find_credential() already rejected everything outside ASCII.
    digest = sha256(credential.token.encode("ascii")).digest()
    found = None if token_cache is None else token_cache.find(digest, clock.wall())
    if found is not None and token_cache is not None:
        access = yield from check_cached(digest, found, credential, issuers, clock, token_cache)
        if access is not None:
            return access
    hints: Mapping[str, str] = issuers.hints
    try:
        routed, token = parse(credential, issuers, digest[:6].hex())
        record = routed or (yield from find_issuer(token, credential, issuers, clock))
        hints = record.issuer.hints
        if token is None or record.issuer.validate is _INTROSPECTION:
            access = yield from introspect(credential, record, issuers, clock)
        else:
            access = yield from verify(digest, token, credential, record, issuers, clock, token_cache)
            if record.status_lists is not None:
                yield from check_token_status(access, record, clock)
        if issuers.shared or issuers.revocations.changes:
            yield from check_not_revoked(access, credential, issuers, clock)
    except InvalidToken as error:
        jwt.add_hint(error, hints)
        raise
    if issuers.resolved is not None:
        issuers.resolved.accept(record)
    return access


def check_cached(
    digest: bytes,
    found: CachedToken,
    credential: Credential,
    issuers: Issuers,
    clock: Clock,
    token_cache: TokenCache,
) -> Flow[AccessToken | None]:
    """Return the access token of *found*, or ``None`` if the token has to be verified again.

    Checked: the token came in the same header field, its issuer is still trusted in the same way, the key that signed
    it is still published, its status, and revocations. A key set that is due is fetched, as for any other token.
    """
    record, ring, kid, algorithm = found.record, found.record.ring, found.header.get("kid"), found.header["alg"]
    if found.location != credential.header or not issuers.holds(record, clock.monotonic()):
        token_cache.discard(digest)
        return None
    try:
        if not ring.holds(found.held, clock.monotonic()):
            try:
                yield from signing_keys(kid, algorithm, record, clock)
            except InvalidToken:
                if not record.others:
                    raise
                token_cache.discard(digest)  # the key may have moved to another set of the issuer
                return None
            # The current set decides, even if the look-up saw an older one.
            held = ring.current
            if found.key not in ring.candidates(kid, algorithm, clock.monotonic()):
                token_cache.discard(digest)
                return None
            found.held = held
        if record.status_lists is not None:
            yield from check_token_status(found.access, record, clock)
        changes = issuers.revocations.changes
        if issuers.shared or found.cleared != changes:
            yield from check_not_revoked(found.access, credential, issuers, clock)
            found.cleared = changes
    except InvalidToken as error:
        jwt.add_hint(error, record.issuer.hints)
        raise
    if found.instant and credential.source is _HEADER:
        token_cache.expect(digest, found, b"Bearer " + credential.token.encode("ascii"))
    return found.access


def verify(
    digest: bytes,
    token: Unverified,
    credential: Credential,
    record: IssuerRecord,
    issuers: Issuers,
    clock: Clock,
    token_cache: TokenCache | None,
) -> Flow[AccessToken]:
    """Check *token* against its issuer's policy and keys, and add it to the token cache under *digest*."""
    now, issuer = clock.wall(), record.issuer
    checked = jwt.check(token, issuer, now, headers=record.headers)
    if record.others:
        record, key = yield from verify_by_any_set(token, record, clock)
    else:
        key = yield from verify_by_set(token, record, clock)
    if token.segment not in record.headers:
        record.remember_header(token, rfc9068=checked[0])
        issuers.remember_header(token)
    if token_cache is not None and record.by_id is None:
        until = jwt.usable_until(token.claims, issuer)
        token_cache.add(digest, token, record, key, issuers, location=credential.header, since=now, until=until)
    return jwt.accept(token, issuer, record.vocabulary, checked)
