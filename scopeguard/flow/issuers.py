"""Choose the issuer whose policy applies to a token, and read the metadata of that issuer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from scopeguard.config.issuer import Issuer
from scopeguard.config.validation import Validation
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.answers import check_status
from scopeguard.flow.context import Context
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import (
    Answer,
    CallHook,
    Clock,
    Flow,
    Lane,
    Send,
    SingleFlight,
    ask,
)
from scopeguard.flow.waiting_times import HOOK_TIMEOUT, QUEUE_TIMEOUT
from scopeguard.reasons import Reason
from scopeguard.spec import jwt
from scopeguard.spec.answers import is_json
from scopeguard.spec.discovery import MalformedMetadata, Metadata, NotMetadata, metadata_urls, parse_metadata
from scopeguard.spec.jws import decode_segment
from scopeguard.spec.spiffe import trust_domain_of
from scopeguard.state.issuers import IssuerRecord, Issuers
from scopeguard.tokens import Unverified


def choose_issuer(credential: Credential, context: Context) -> Flow[IssuerRecord]:
    """Return the trusted issuer whose policy applies to *credential*.

    No URL is taken from the token, and configured issuers are found without network access. With a resolver, its
    function is called for a name that it accepts.
    """
    record, token = parse(credential, context.issuers)
    return record or (yield from find_issuer(token, credential, context))


def parse(
    credential: Credential, issuers: Issuers, mark: str | None = None
) -> tuple[IssuerRecord | None, Unverified | None]:
    """Parse *credential*; return the configured issuer it belongs to and the parsed token.

    The token is ``None`` if it is opaque: the issuer then introspects it. The issuer is ``None`` if it is not
    configured; a resolver may know it. A malformed JWT is denied and never introspected. *mark* is the fingerprint of
    the token, if it is already known.
    """
    try:
        token = issuers.peek(credential.token, credential.header, mark)
    except InvalidToken:
        is_malformed = _looks_like_jwt(credential.token) or credential.header is not None
        record = None if is_malformed else issuers.by_opaque_token(credential.token)
        if record is None:
            raise
        return record, None
    if issuers.trust_domains:
        # JWT-SVID section 3: "iss" is not required, and it selects nothing.
        record = issuers.by_trust_domain(token.claims, credential.header)
        domain = trust_domain_of(token.claims)
        if record is not None:
            return record, token
        if domain is not None and "iss" not in token.claims:
            raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=f"spiffe://{domain}")
    if issuers.nameless is not None and "iss" not in token.claims:
        return issuers.nameless, token
    return issuers.by_name(jwt.unverified_issuer(token), credential.header), token


def _looks_like_jwt(token: str) -> bool:
    """Return whether *token* has three segments, and the first begins like a JSON object, or with white space only.

    Only its beginning is decoded, because a stranger chooses its length.
    """
    header, _, rest = token.partition(".")
    if rest.count(".") != 1:
        return False
    try:
        beginning = decode_segment(header[: min(len(header) // 4 * 4, 64)].encode("ascii"))
    except ValueError:
        beginning = b""
    text = beginning.lstrip(b" \t\r\n")
    return header.startswith("eyJ") or text.startswith(b"{") or (beginning != b"" and text == b"")


def find_issuer(token: Unverified | None, credential: Credential, context: Context) -> Flow[IssuerRecord]:
    """Return the issuer of *token*, which is not configured, as the resolver finds it."""
    name = "" if token is None else jwt.unverified_issuer(token)
    record = None if credential.header is not None else (yield from resolve_issuer(name, context))
    if record is None:
        nearest = partial(context.issuers.nearest, name, credential.header)
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=name, nearest=nearest)
    return record


def resolve_issuer(name: str, context: Context) -> Flow[IssuerRecord | None]:
    """Return the issuer *name*, which is not configured, as the resolver finds it or found it recently.

    ``None`` without a resolver, or if the resolver returned ``None``. A failure of the resolver says nothing about the
    token: it is raised, as an outage or as the programming error that it is.
    """
    resolved, clock = context.issuers.resolved, context.clock
    if resolved is None:
        return None
    known = resolved.lookup(name, clock.monotonic())
    if known is None and not resolved.accepts(name):
        return None
    found = [] if known is None else [known]

    def is_needed() -> bool:
        known = resolved.lookup(name, clock.monotonic())
        found.extend([] if known is None else [known])
        return not found

    def look_up() -> Flow[tuple[str, ...]]:
        try:
            issuer = yield from ask(CallHook(lambda: resolved.resolve(name)))
            found.append(resolved.absorb(name, issuer, clock.monotonic()))
        except Exception as error:  # even a bug in the resolver, which every request would repeat
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            resolved.fail(name, clock.monotonic(), retry_after=asked)
            raise
        return ()

    if not found:
        yield from ask(
            SingleFlight(
                key=f"issuer {name!r}",
                authority=name,
                needed=is_needed,
                flow=look_up,
                lane=Lane.HOOKS,
                priority=resolved.has_accepted(name),
                account="resolver",  # strangers choose the names
                deadline=QUEUE_TIMEOUT + HOOK_TIMEOUT,
            )
        )
    outcome = found[0]
    if outcome.failed:
        pause = outcome.until - clock.monotonic()
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, name, retry_after=max(0.0, pause))
    return outcome.record


def has_keys(metadata: Metadata) -> bool:
    """Return whether *metadata* has a ``jwks_uri``: required by OpenID Connect Discovery, optional in RFC 8414."""
    return metadata.jwks_uri is not None


def discover(
    record: IssuerRecord, clock: Clock, wanted: Callable[[Metadata], bool], *, anew: bool = False
) -> Flow[Metadata]:
    """Return the issuer's metadata, from the cache or by :func:`search_metadata`.

    A document for which *wanted* returns true is cached. Another document is returned but not cached. *anew*: search
    even if a document is cached.
    """
    known = record.cached_metadata(clock.monotonic(), wanted)
    if known is not None and not anew:
        return known
    issuer, policy = record.issuer, record.issuer.key_set
    metadata = yield from search_metadata(
        issuer.url,
        metadata_urls(issuer.url) if issuer.metadata_url is None else (issuer.metadata_url,),
        wanted,
        clock,
        limit=policy.max_bytes,
        timeout=policy.timeout,
        internal_hosts=issuer.internal_hosts,
        setting="introspection.endpoint" if issuer.validate is Validation.INTROSPECTION else "jwks_uri",
        insecure=issuer.insecure_http_dangerously,
    )
    if wanted(metadata):
        record.learn(metadata, clock.monotonic(), wanted)
    return metadata


def longest_search(issuer: Issuer) -> float:
    """Return the upper bound in seconds for :func:`discover`: one exchange for each place."""
    places = 1 if issuer.metadata_url is not None else len(metadata_urls(issuer.url))
    return places * issuer.key_set.timeout


def search_metadata(
    issuer: str,
    places: Sequence[str],
    wanted: Callable[[Metadata], bool],
    clock: Clock,
    *,
    limit: int,
    timeout: float,
    setting: str,
    internal_hosts: Collection[str] = (),
    insecure: frozenset[str] = frozenset(),
) -> Flow[Metadata]:
    """Return the first metadata document of *issuer* at *places* that is *wanted*, else the first document found.

    The search continues after an error, a redirect (which is not followed), a response that is not metadata, and a
    document without the needed member: an authorization server may publish an OAuth document (RFC 8414) and an OpenID
    document with different contents. The search ends with an error at a document that names another issuer or a
    forbidden endpoint, because the configuration or the server has to be fixed, and at a server that does not respond,
    because all places are on the same server.

    Raises :class:`AuthorityUnavailable`. *setting* names the setting that makes the search unnecessary. The documents
    may point to *internal_hosts*; hosts in *insecure* (``"name:port"``) may be reached by http. *limit* (bytes) and
    *timeout* (seconds) apply to one exchange.
    """
    incomplete: Metadata | None = None
    busy: AuthorityUnavailable | None = None
    strange: AuthorityUnavailable | None = None
    for place in places:
        try:
            answer = yield from ask(Send(url=place, authority=issuer, limit=limit, timeout=timeout, insecure=insecure))
            metadata = read_metadata(answer, place, issuer, clock, internal_hosts, insecure)
        except NotMetadata as error:
            strange = strange or _invalid_answer(issuer, url=place, problem=str(error))
        except MalformedMetadata as error:
            raise _invalid_answer(issuer, url=place, problem=str(error)) from None
        except AuthorityUnavailable as error:
            if error.reason is Reason.AUTHORITY_ANSWER_INVALID:
                if "problem" in error.detail:  # says more than "404 Not Found" would
                    strange = strange or error
            elif "status" in error.detail:
                busy = busy or error
            else:  # no response
                raise
        else:
            if wanted(metadata):
                return metadata
            incomplete = incomplete or metadata
    if busy is not None:  # this place may have the document that the others lack
        raise busy
    if incomplete is not None:
        return incomplete
    if strange is not None:
        raise strange
    # The fix comes first, because long texts are cut at their end.
    raise _invalid_answer(issuer, problem=f"set {setting} or metadata_url; no metadata at " + " nor ".join(places))


def read_metadata(
    answer: Answer,
    place: str,
    issuer: str,
    clock: Clock,
    internal_hosts: Collection[str],
    insecure: Collection[str],
) -> Metadata:
    """Return the metadata of *issuer* in *answer*.

    Raises :class:`AuthorityUnavailable` if the status is not 200 or the content is not JSON (some web apps answer every
    path), and :class:`MalformedMetadata` for any other document.
    """
    check_status(answer, place, issuer, clock)
    if not is_json(answer.headers):
        raise _invalid_answer(issuer, url=place)
    return parse_metadata(answer.body, issuer, internal_hosts, insecure)


def _invalid_answer(issuer: str, **detail: str) -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, issuer, retry_after=None, **detail)
