"""Whose policy judges a token: configured issuers, those who are asked about opaque tokens, and those who are found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from scopeguard.access_token import Unverified
from scopeguard.config.introspection import Validation
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable, InvalidToken, Reason
from scopeguard.flow.credential import Credential
from scopeguard.flow.effects import HOOK_PATIENCE, TURN, Answer, CallHook, Clock, Flow, Lane, Send, SingleFlight, ask
from scopeguard.flow.responses import check_status
from scopeguard.spec import jwt
from scopeguard.spec.discovery import MalformedMetadata, Metadata, NotMetadata, judge_metadata, metadata_urls
from scopeguard.spec.http_caching import is_json
from scopeguard.state.issuers import TrustedIssuer, TrustedIssuers


def route(credential: Credential, trusts: TrustedIssuers, clock: Clock) -> Flow[TrustedIssuer]:
    """Whose policy judges *credential*, before any network access, and with no URL taken from the token (P-18).

    Where issuers are looked up by the operator's function, that is called for a name that it may know.
    """
    trust, token = parse(credential, trusts)
    return trust or (yield from find_issuer(token, credential, trusts, clock))


def parse(
    credential: Credential, trusts: TrustedIssuers, mark: str | None = None
) -> tuple[TrustedIssuer | None, Unverified | None]:
    """The token and the configured trust that it names. No token: it is opaque, and the trust is whom to ask. No trust:
    it names an issuer that may be found. *mark*: the fingerprint, if it is known.

    A token that has the look of a JWT and is not one is asked about nowhere.
    """
    try:
        token = trusts.peek(credential.token, credential.header, mark)
    except InvalidToken:
        looks_like_jwt = credential.token.startswith("eyJ") and credential.token.count(".") == 2
        asks_nobody = looks_like_jwt or credential.header is not None
        trust = None if asks_nobody else trusts.by_opaque_token(credential.token)
        if trust is None:
            raise
        return trust, None
    if trusts.nameless is not None and "iss" not in token.claims:
        return trusts.nameless, token
    return trusts.by_name(jwt.named_issuer(token), credential.header), token


def find_issuer(
    token: Unverified | None, credential: Credential, trusts: TrustedIssuers, clock: Clock
) -> Flow[TrustedIssuer]:
    """The trust in the issuer of *token*, which is not configured."""
    name = "" if token is None else jwt.named_issuer(token)
    trust = None if credential.header is not None else (yield from resolve_issuer(name, trusts, clock))
    if trust is None:
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=name, **trusts.nearest(name, credential.header))
    return trust


def resolve_issuer(name: str, trusts: TrustedIssuers, clock: Clock) -> Flow[TrustedIssuer | None]:
    """The trust in the issuer *name*, which is not configured, as the resolver finds it or found it lately.

    Whoever fails to find it says nothing about the token: that is an outage (law 4), or a mistake, and let through.
    """
    resolved = trusts.resolved
    if resolved is None:
        return None
    known = resolved.lookup(name, clock.monotonic())
    if known is None and not resolved.accepts(name):
        return None
    found = [] if known is None else [known]

    def needed() -> bool:
        known = resolved.lookup(name, clock.monotonic())
        found.extend([] if known is None else [known])
        return not found

    def look_up() -> Flow[tuple[str, ...]]:
        try:
            issuer = yield from ask(CallHook(lambda: resolved.resolve(name)))
            found.append(resolved.absorb(name, issuer, clock.monotonic()))
        except Exception as error:  # a mistake in it is paced as well: everybody would run into it
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            resolved.fail(name, clock.monotonic(), retry_after=asked)
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
                priority=resolved.has_accepted(name),
                account="resolver",  # strangers make up the names
                deadline=TURN + HOOK_PATIENCE,
            )
        )
    outcome = found[0]
    if outcome.failed:
        pause = outcome.until - clock.monotonic()
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, name, retry_after=max(0.0, pause))
    return outcome.trust


def has_keys(metadata: Metadata) -> bool:
    """Whether *metadata* says where the key set is: required by OpenID Connect Discovery, optional in RFC 8414."""
    return metadata.jwks_uri is not None


def discover(
    trust: TrustedIssuer, clock: Clock, wanted: Callable[[Metadata], bool], *, anew: bool = False
) -> Flow[Metadata]:
    """The issuer's metadata, kept from an earlier look-up or from :func:`search_metadata`.

    A document that is *wanted* is kept for later requests; one that lacks what is looked for is returned and not kept.
    *anew*: search even if a document is known.
    """
    known = trust.known_metadata(clock.monotonic(), wanted)
    if known is not None and not anew:
        return known
    issuer, policy = trust.issuer, trust.issuer.key_set
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
        trust.learn(metadata, clock.monotonic(), wanted)
    return metadata


def longest_search(issuer: Issuer) -> float:
    """How long :func:`discover` takes at most, in seconds: every place takes as long as one exchange may."""
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
    """The first document of *issuer* at *places* that is *wanted*, else the first one that is its metadata.

    The search goes on when a place answers with an error or a redirect, which is not followed, when its answer is not
    metadata, and when the document lacks what is looked for: an authorization server may publish an OAuth document
    (RFC 8414) beside the OpenID one, and the two need not say the same. It ends with an error at a document that names
    another issuer or an endpoint that must not be called, because the operator has to know, and at an authority that
    does not answer at all, because every place is on the same server.

    Raises :class:`AuthorityUnavailable`. *setting* is the one that makes the search unnecessary; *internal_hosts* are
    those that the documents may point to, *insecure* those (``"name:port"``) that may be reached by http. *limit* is in
    bytes, *timeout* in seconds; both are for one exchange.
    """
    incomplete: Metadata | None = None
    busy: AuthorityUnavailable | None = None
    strange: AuthorityUnavailable | None = None
    for place in places:
        try:
            answer = yield from ask(Send(url=place, authority=issuer, limit=limit, timeout=timeout, insecure=insecure))
            metadata = read_metadata(answer, place, issuer, clock, internal_hosts, insecure)
        except NotMetadata as error:
            strange = strange or _nonsense(issuer, url=place, problem=str(error))
        except MalformedMetadata as error:
            raise _nonsense(issuer, url=place, problem=str(error)) from None
        except AuthorityUnavailable as error:
            if error.reason is Reason.AUTHORITY_ANSWERED_NONSENSE:
                if "problem" in error.detail:  # more than 404 and the like
                    strange = strange or error
            elif "status" in error.detail:
                busy = busy or error
            else:  # no answer
                raise
        else:
            if wanted(metadata):
                return metadata
            incomplete = incomplete or metadata
    if busy is not None:  # it may have had what the others lack
        raise busy
    if incomplete is not None:
        return incomplete
    if strange is not None:
        raise strange
    # The fix comes first: long texts are cut off at their end.
    raise _nonsense(issuer, problem=f"set {setting} or metadata_url; no metadata at " + " nor ".join(places))


def read_metadata(
    answer: Answer,
    place: str,
    issuer: str,
    clock: Clock,
    internal_hosts: Collection[str] = (),
    insecure: Collection[str] = (),
) -> Metadata:
    """The metadata of *issuer* in *answer*. Raises :class:`AuthorityUnavailable` for another status than 200 and for an
    answer that is not JSON (a web app answers every path), :class:`MalformedMetadata` for any other document."""
    check_status(answer, place, issuer, clock)
    if not is_json(answer.headers):
        raise _nonsense(issuer, url=place)
    return judge_metadata(answer.body, issuer, internal_hosts, insecure)


def _nonsense(issuer: str, **detail: str) -> AuthorityUnavailable:
    return AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, issuer, retry_after=None, **detail)
