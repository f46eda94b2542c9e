"""What an authorization server publishes about itself."""

from __future__ import annotations

from collections.abc import Sequence

from scopeguard.effects import Answer, Clock, Flow, Send, ask
from scopeguard.errors import AuthorityUnavailable, Reason
from scopeguard.flow.answers import json_body
from scopeguard.introspection import Validation
from scopeguard.spec.discovery import MalformedMetadata, Metadata, judge_metadata, metadata_urls
from scopeguard.spec.http_caching import is_json
from scopeguard.state.trust import Trust


def discovered(trust: Trust, clock: Clock) -> Flow[Metadata]:
    """The issuer's metadata: from the configured URL, else from the first well-known place that has a document.

    A place that answers 404 or the like, or with a redirect or something that is not JSON (a web app answers every
    path, or sends everybody to its login), is passed over and not followed; a document that names another issuer is
    an error, and so is an authority that does not answer.
    """
    known = trust.known_metadata(clock.monotonic())
    if known is not None:
        return known
    issuer, policy = trust.issuer, trust.issuer.key_set
    places = (issuer.metadata_url,) if issuer.metadata_url is not None else metadata_urls(issuer.url)
    found = yield from first_document(places, issuer.url, limit=policy.max_bytes, timeout=policy.timeout)
    if found is None:
        setting = "introspection.endpoint" if issuer.validate is Validation.INTROSPECTION else "jwks_uri"
        raise AuthorityUnavailable(
            Reason.AUTHORITY_ANSWERED_NONSENSE,
            issuer.url,
            # The fix comes first: long texts are cut off at their end.
            problem=f"set {setting} or metadata_url; no metadata at " + " nor ".join(places),
        )
    place, answer = found
    document = json_body(answer, place, issuer.url, clock)
    try:
        metadata = judge_metadata(document, issuer.url)
    except MalformedMetadata as error:
        raise AuthorityUnavailable(
            Reason.AUTHORITY_ANSWERED_NONSENSE, issuer.url, url=place, problem=str(error)
        ) from None
    trust.learn(metadata, clock.monotonic())
    return metadata


def first_document(
    places: Sequence[str], authority: str, *, limit: int, timeout: float
) -> Flow[tuple[str, Answer] | None]:
    """The first of *places* that has a document, or does not answer as it should, with its answer (A-04).

    A place that answers 404 or the like, with a redirect (to a login, and followed nowhere), or with something that is
    not JSON (a web app answers every path), is passed over.
    """
    for place in places:
        answer = yield from ask(Send(url=place, authority=authority, limit=limit, timeout=timeout))
        elsewhere = 300 <= answer.status < 500 and answer.status not in (408, 429)
        if not elsewhere and (answer.status != 200 or is_json(answer.headers)):
            return place, answer
    return None
