"""Keys that each have a URL of their own."""

from __future__ import annotations

from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.answers import check_status
from scopeguard.flow.effects import Clock, Flow, Send, SingleFlight, ask
from scopeguard.flow.waiting_times import QUEUE_TIMEOUT
from scopeguard.reasons import Reason
from scopeguard.spec.jwks import MalformedKeySet, VerificationKey
from scopeguard.spec.key_by_id import key_url, parse_public_key
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.key_by_id import KeysById


def key_by_id(kid: object, record: IssuerRecord, keys: KeysById, clock: Clock) -> Flow[VerificationKey]:
    """Return the key *kid* of an issuer that publishes each key under a URL of its own.

    Only a UUID becomes part of a URL. Raises :class:`InvalidToken` if the authorization server has no such key, and
    :class:`AuthorityUnavailable` with the seconds until the next fetch while the key may not be fetched. This request
    may fetch a different key that more requests wait for.
    """
    template = record.issuer.key_url_template or ""
    found = key_url(template, kid)
    if found is None:
        raise InvalidToken(Reason.UNKNOWN_KEY, kid=kid, expected="a UUID", url=template)
    name, _ = found
    sought = keys.ask(name, clock.monotonic())
    wanted = sought.fetch

    def fetch() -> Flow[tuple[str, ...]]:
        if wanted is not None and keys.begin(wanted, clock.monotonic()):
            url = template.removesuffix("{kid}") + wanted
            try:
                keys.absorb(wanted, (yield from fetch_key(wanted, url, record, clock)), clock.monotonic())
            except Exception as error:  # even a bug in a custom transport, which every request would repeat
                asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
                keys.fail(wanted, clock.monotonic(), retry_after=asked)
                raise
        return ()

    if wanted is not None:
        yield from ask(
            SingleFlight(
                key=f"key {wanted} of {record.issuer.url}",
                authority=record.issuer.url,
                needed=lambda: keys.lookup(wanted, clock.monotonic()).fetch is not None,
                flow=fetch,
                wait=wanted == name and sought.key is None,
                priority=sought.key is not None and not record.newcomer,
                account=record.account,
                deadline=QUEUE_TIMEOUT + record.issuer.key_set.timeout,
            )
        )
        sought = keys.lookup(name, clock.monotonic())
    if sought.key is not None:
        return sought.key
    if sought.absent:
        raise InvalidToken(Reason.UNKNOWN_KEY, kid=kid, url=template.removesuffix("{kid}") + name)
    raise AuthorityUnavailable(
        Reason.AUTHORITY_BACKING_OFF,
        record.issuer.url,
        retry_after=sought.pause,
        problem="the key of the token is unknown, and no key may be fetched yet (key_set.refetch_interval)",
    )


def fetch_key(kid: str, url: str, record: IssuerRecord, clock: Clock) -> Flow[VerificationKey | None]:
    """Fetch the key at *url*. Return ``None`` for 404 and 403: an unlisted bucket sends 403 for a missing key."""
    authority, policy = record.issuer.url, record.issuer.key_set
    answer = yield from ask(
        Send(
            url=url,
            authority=authority,
            accept="*/*",
            insecure=record.issuer.insecure_http_dangerously,
            limit=policy.max_bytes,
            timeout=policy.timeout,
        )
    )
    if answer.status in (403, 404):
        return None
    check_status(answer, url, authority, clock)
    try:
        return parse_public_key(answer.body, kid, record.issuer.algorithms, record.backends)
    except MalformedKeySet as error:
        problem = str(error)
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, authority, url=url, problem=problem)
