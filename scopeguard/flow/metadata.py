"""What an authorization server publishes about itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from scopeguard.config.introspection import Validation
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable, Reason
from scopeguard.flow.effects import Answer, Clock, Flow, Send, ask
from scopeguard.flow.responses import check_status
from scopeguard.spec.discovery import MalformedMetadata, Metadata, NotMetadata, judge_metadata, metadata_urls
from scopeguard.spec.http_caching import is_json
from scopeguard.state.issuers import Trust


def has_keys(metadata: Metadata) -> bool:
    """Whether *metadata* says where the key set is: required by OpenID Connect Discovery, optional in RFC 8414."""
    return metadata.jwks_uri is not None


def discovered(trust: Trust, clock: Clock, wanted: Callable[[Metadata], bool]) -> Flow[Metadata]:
    """The issuer's metadata, kept from an earlier look-up or from :func:`search_metadata`.

    A document that is *wanted* is kept for later requests; one that lacks what is looked for is returned and not kept.
    """
    known = trust.known_metadata(clock.monotonic(), wanted)
    if known is not None:
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
        trust.learn(metadata, clock.monotonic())
    return metadata


def longest_search(issuer: Issuer) -> float:
    """How long :func:`discovered` takes at most, in seconds: every place takes as long as one exchange may."""
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
