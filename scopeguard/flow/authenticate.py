"""The decision as a whole: from a request to an access token, or to a denial.

A guard imports the flows for introspection, proofs of possession, API keys and status lists if its settings need them
(:mod:`scopeguard.core.wiring`), so the imports inside functions here load nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from math import inf

from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.issuer import Issuer
from scopeguard.config.token_sources import TokenSource, TokenSources
from scopeguard.config.validation import Validation
from scopeguard.errors import AuthorityUnavailable, InvalidApiKey, InvalidProof, InvalidToken
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential, find_credential
from scopeguard.flow.effects import Flow
from scopeguard.flow.issuers import find_issuer, parse
from scopeguard.flow.keys import signing_keys, verify_by_any_set, verify_by_set
from scopeguard.flow.observation import CredentialKind, Observation, TokenCheck
from scopeguard.flow.revocation import check_not_revoked
from scopeguard.log_values import FINGERPRINT_OCTETS, fingerprint
from scopeguard.request import RequestView
from scopeguard.spec import jwt
from scopeguard.spec.jwks import VerificationKey
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.token_cache import CachedToken, TokenCache
from scopeguard.tokens import AccessToken, Unverified

# A module constant: the look-up of an enumeration's member costs as much as the comparison.
_INTROSPECTION = Validation.INTROSPECTION
_API_KEY = TokenSource.API_KEY


def authenticate(
    request: RequestView,
    sources: TokenSources,
    context: Context,
    *,
    on_credential: Callable[[Credential], None] | None = None,
    on_access: Callable[[AccessToken, str], None] | None = None,
    dpop: DPoPMode | None = None,
    observation: Observation | None = None,
) -> Flow[AccessToken]:
    """Return the access token of *request*, validated by the policy of the issuer that it names, or of its API key.

    Not checked here: whether the token satisfies the requirement of the route.

    *on_credential* is called with the token when it is found in any of the *sources*, before it is validated. It may
    raise a denial because the request was not encrypted. *on_access* is called with the access token and its text when
    it is valid. *dpop*: whether this route needs a proof of possession, instead of the mode of the policy.
    *observation* gets facts about the check for a listener.
    """
    issuers, possession = context.issuers, context.possession
    if possession is None:
        credential = yield from find_credential(request, sources, issuers.headers, opaque=issuers.takes_opaque)
    else:
        mode = possession.mode if dpop is None else dpop
        credential = yield from find_credential(
            request, sources, issuers.headers, opaque=issuers.takes_opaque, dpop=mode
        )
    if on_credential is not None:
        on_credential(credential)
    try:
        if observation is None:
            access = yield from validate(credential, context)
        else:
            is_key = credential.source is _API_KEY
            observation.credential = CredentialKind.API_KEY if is_key else CredentialKind.TOKEN
            access = yield from observation.follow(validate(credential, context, observation))
        if possession is not None:
            from scopeguard.flow.possession import check_possession

            issuer_mode = issuers.dpop_mode(access.issuer, context.clock.monotonic())
            yield from check_possession(access, credential, request, issuer_mode, dpop, possession, context.clock)
    except (InvalidToken, InvalidApiKey, InvalidProof, AuthorityUnavailable) as error:
        error.note(token=fingerprint(credential.token))
        if not isinstance(error, AuthorityUnavailable):
            error.is_dpop = credential.is_dpop
            error.is_api_key = credential.source is _API_KEY
        raise
    if on_access is not None and credential.source is not _API_KEY:
        on_access(access, credential.token)
    return access


def validate(credential: Credential, context: Context, observation: Observation | None = None) -> Flow[AccessToken]:
    """Validate *credential* and return its access token.

    A JWT is verified with the keys of its issuer, unless it is in the token cache. An opaque token is introspected at
    the authorization server. An API key is looked up. Revoked tokens and keys are denied.
    """
    if credential.source is _API_KEY:
        from scopeguard.flow.api_key import validate_key

        return (yield from validate_key(credential, context, observation))
    issuers, clock, token_cache = context.issuers, context.clock, context.token_cache
    trusted: Issuer | None = None  # the issuer that the token names, once it is found
    # find_credential() already rejected everything outside ASCII.
    digest = sha256(credential.token.encode("ascii")).digest()
    try:
        if token_cache is not None:
            cached = token_cache.find(digest, clock.wall())
            if cached is not None:
                trusted = cached.record.issuer
                if observation is not None:
                    observation.note(cached.record.issuer.url, TokenCheck.CACHED)
                if (yield from may_reuse(cached, digest, credential, context, token_cache)):
                    return cached.access
                trusted = None
        record, token = parse(credential, issuers, digest[:FINGERPRINT_OCTETS].hex())
        if record is None:
            record = yield from find_issuer(token, credential, context)
        trusted = record.issuer
        if observation is not None:
            observation.note(record.issuer.url, TokenCheck.VERIFIED)
        if token is None or record.issuer.validate is _INTROSPECTION:
            from scopeguard.flow.introspection import introspect

            if observation is not None:  # without an exchange, the answer was in a cache
                observation.note(record.issuer.url, TokenCheck.CACHED)
            access = yield from introspect(credential, record, context)
        else:
            now = clock.wall()
            known = record.headers.get(token.segment)
            checked = jwt.check(token, record.issuer, now, known=known, scope_texts=record.scope_texts)
            if record.others:
                record, key = yield from verify_by_any_set(token, record, clock)
            else:
                key = yield from verify_by_set(token, record, clock)
            access = accept(token, checked, key, now, digest, credential.header, record, context)
            if record.status_lists is not None:
                from scopeguard.flow.status_list import check_token_status

                yield from check_token_status(access, record, clock)
        if issuers.shared or issuers.revocations.changes:
            yield from check_not_revoked(access, credential, context)
    except InvalidToken as error:
        error.hints = issuers.hints if trusted is None else trusted.hints
        if trusted is not None:
            error.note(issuer=trusted.url)
        raise
    if issuers.resolved is not None:
        issuers.resolved.accept(record)
    return access


def may_reuse(
    cached: CachedToken, digest: bytes, credential: Credential, context: Context, token_cache: TokenCache
) -> Flow[bool]:
    """Return whether *cached* may be used for *credential*; if not, the token has to be verified again.

    Checked: the token came in the same header field, its issuer is still trusted in the same way, the key that signed
    it is still published, its status, and revocations. A key set that is due is fetched, as for any other token.
    """
    issuers, clock, record = context.issuers, context.clock, cached.record
    ring, kid, algorithm = record.ring, cached.header.get("kid"), cached.header["alg"]
    if cached.location != credential.header or not issuers.holds(record, clock.monotonic()):
        token_cache.discard(digest)
        return False
    if not ring.holds(cached.held, clock.monotonic()):
        try:
            yield from signing_keys(kid, algorithm, record, clock)
        except InvalidToken:
            if not record.others:
                raise
            token_cache.discard(digest)  # the key may have moved to another set of the issuer
            return False
        # The current set decides, even if the look-up saw an older one.
        held = ring.current
        if cached.key not in ring.candidates(kid, algorithm, clock.monotonic()):
            token_cache.discard(digest)
            return False
        cached.held = held
    if record.status_lists is not None:
        from scopeguard.flow.status_list import check_token_status

        yield from check_token_status(cached.access, record, clock)
    changes = issuers.revocations.changes
    if issuers.shared or cached.cleared != changes:
        yield from check_not_revoked(cached.access, credential, context)
        cached.cleared = changes
    return True


def accept(
    token: Unverified,
    checked: jwt.CheckResult,
    key: VerificationKey,
    now: float,
    digest: bytes,
    location: str | None,
    record: IssuerRecord,
    context: Context,
) -> AccessToken:
    """Return the access token of *token*, which *key* has verified, and add it to the token cache under *digest*.

    *checked* is the result of the checks of its claims at *now*. *location*: the field that held only the token,
    ``None`` for ``Authorization``.
    """
    issuers, token_cache = context.issuers, context.token_cache
    if token.segment not in record.headers:
        record.remember_header(token, rfc9068=checked[0])
        issuers.remember_header(token, record)
    record.remember_scopes(token.claims, checked[2])
    access = jwt.accept(token, record.issuer, record.vocabulary, checked, record.late_fields)
    if token_cache is not None and record.by_id is None:
        until = inf if access.expires_at is None else access.expires_at + record.issuer.leeway
        token_cache.add(digest, token, record, key, issuers, location=location, since=now, until=until)
    return access
