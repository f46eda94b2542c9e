"""Look up the status of a token in the status list that it names."""

from __future__ import annotations

from scopeguard.config.status_list import StatusListPolicy
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.answers import check_status
from scopeguard.flow.effects import Clock, Flow, Lane, Send, SingleFlight, ask
from scopeguard.flow.keys import longest_fetch, verify_signature
from scopeguard.flow.waiting_times import QUEUE_TIMEOUT
from scopeguard.reasons import Reason
from scopeguard.spec import status_list
from scopeguard.spec.answers import lifetime
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.status_list import StatusLists
from scopeguard.tokens import AccessToken


def check_token_status(access: AccessToken, record: IssuerRecord, clock: Clock) -> Flow[None]:
    """Deny *access* if its status list calls it invalid (draft-ietf-oauth-status-list, experimental).

    A token without a reference to a status list passes, unless the policy requires one. Called after all other checks
    of the token. If the list is unavailable, this is an outage, unless the policy says ``fail_open_dangerously``; the
    flight then logs the reason.
    """
    policy, status_lists = record.issuer.experimental_status_list, record.status_lists
    if policy is None or status_lists is None:
        return
    named = status_list.find_reference(
        access.claims, policy.origins(record.issuer.url), record.issuer.insecure_http_dangerously
    )
    if named is None:
        if policy.required:
            raise InvalidToken(Reason.MISSING_CLAIM, claim="status")
        return
    try:
        found = yield from get_status_list(named.uri, record, policy, status_lists, clock)
    except AuthorityUnavailable:
        if not policy.fail_open_dangerously:
            raise
        return
    status_list.check(found, named.index)


def get_status_list(
    uri: str, record: IssuerRecord, policy: StatusListPolicy, status_lists: StatusLists, clock: Clock
) -> Flow[status_list.StatusList]:
    """Return the list at *uri*: the cached one while it is fresh, or, if a refresh fails, until it expires."""
    held = status_lists.lookup(uri, clock.monotonic())

    def fetch() -> Flow[tuple[str, ...]]:
        try:
            found, published, max_age = yield from fetch_status_list(uri, record, policy, clock)
        except Exception as error:  # even a bug, which every request would repeat
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            status_lists.fail(uri, clock.monotonic(), retry_after=asked)
            raise
        # Now, because keys may have been fetched since the list arrived.
        expires_in = None if published.expires_at is None else published.expires_at - clock.wall()
        status_lists.absorb(uri, found, clock.monotonic(), ttl=published.ttl, expires_in=expires_in, max_age=max_age)
        return ()

    if held.due:
        flight = SingleFlight(
            key=f"status list {uri} of {record.issuer.url}",
            authority=record.issuer.url,
            needed=lambda: status_lists.generation(uri) == held.generation,
            flow=fetch,
            lane=Lane.STATUS_LISTS,
            account=record.account,
            deadline=QUEUE_TIMEOUT + policy.timeout + longest_fetch(record.issuer),
        )
        try:
            yield from ask(flight)
        except AuthorityUnavailable:
            if status_lists.lookup(uri, clock.monotonic()).status_list is None:
                raise
        held = status_lists.lookup(uri, clock.monotonic())
    if held.status_list is None:
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, record.issuer.url, retry_after=held.pause)
    return held.status_list


def fetch_status_list(
    uri: str, record: IssuerRecord, policy: StatusListPolicy, clock: Clock
) -> Flow[tuple[status_list.StatusList, status_list.UnverifiedStatusList, float | None]]:
    """Fetch the list at *uri*, check that a key of the issuer signed it, and return it with its token and ``max-age``.

    Any other response raises :class:`AuthorityUnavailable`: it says nothing about a token. Redirects are not followed.
    """
    authority = record.issuer.url
    answer = yield from ask(
        Send(
            url=uri,
            authority=authority,
            accept=status_list.MEDIA_TYPE,
            insecure=record.issuer.insecure_http_dangerously,
            limit=policy.max_bytes,
            timeout=policy.timeout,
        )
    )
    check_status(answer, uri, authority, clock)
    try:
        published = status_list.read(answer.body, answer.headers, uri, record.issuer, clock.wall())
        yield from verify_signature(published.token, record, clock)
        return status_list.decompress(published, policy.max_bytes), published, lifetime(answer.headers)
    except (status_list.MalformedStatusList, InvalidToken) as error:
        problem = f"its status list cannot be used: {error}"
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, authority, url=uri, problem=problem)
