"""Verify signatures with the issuer's keys, and fetch keys when they are due.

Longer than 400 lines because a signature that fails may cause a fetch, and the fetch another try.
"""

from __future__ import annotations

from typing import Final

from scopeguard.config.issuer import Issuer
from scopeguard.config.token_sources import LARGEST_TOKEN
from scopeguard.config.validation import Validation
from scopeguard.errors import AuthorityUnavailable, InvalidToken
from scopeguard.flow.answers import describe_unused_keys, json_body
from scopeguard.flow.effects import Clock, Flow, ReadFile, Send, SingleFlight, ask
from scopeguard.flow.issuers import discover, has_keys, longest_search
from scopeguard.flow.waiting_times import QUEUE_TIMEOUT
from scopeguard.reasons import Reason
from scopeguard.spec import credentials, jwt
from scopeguard.spec.answers import lifetime
from scopeguard.spec.jwks import KeySet, MalformedKeySet, VerificationKey, parse_key_set
from scopeguard.spec.signatures import SignatureBackendError
from scopeguard.spec.spiffe import key_use
from scopeguard.state.issuers import IssuerRecord
from scopeguard.state.keys import Absent, Due, Found
from scopeguard.tokens import Unverified

# The greatest number of signature checks that one hostile token can cause.
MOST_VERIFICATIONS: Final = 8


def find_signer(token: Unverified, keys: tuple[VerificationKey, ...], record: IssuerRecord) -> VerificationKey | None:
    """Return the key among *keys* that made the signature, or ``None``."""
    algorithm, signed, signature = token.header["alg"], token.signed, token.signature
    try:
        for key in keys:
            limited = key.issuer is not None and not jwt.may_sign(key.issuer, token, record.issuer)
            if not limited and key.verify(algorithm, signed, signature):
                return key
    except SignatureBackendError as error:  # a failing backend says nothing about the token
        raise AuthorityUnavailable(
            Reason.SIGNATURE_BACKEND_FAILED, record.issuer.url, problem=f"signature_backends: {error}"
        ) from None
    return None


def verify_signature(token: Unverified, record: IssuerRecord, clock: Clock) -> Flow[VerificationKey]:
    """Return the key that made the signature, from any key set of the issuer; see :func:`verify_by_set`."""
    if record.others:
        return (yield from verify_by_any_set(token, record, clock))[1]
    return (yield from verify_by_set(token, record, clock))


def verify_by_any_set(
    token: Unverified, record: IssuerRecord, clock: Clock
) -> Flow[tuple[IssuerRecord, VerificationKey]]:
    """Find the key that made the signature in several key sets. Return the record with its set, and the key.

    Sets that hold the key id come first, so that their tokens cause no fetch. A token is denied only if every set
    rejects it: the key may be in a set that is unavailable.
    """
    kid, algorithm, now = token.header.get("kid"), token.header["alg"], clock.monotonic()
    unavailable: AuthorityUnavailable | None = None
    refusals: list[InvalidToken] = []
    for each in sorted((record, *record.others), key=lambda one: not one.ring.candidates(kid, algorithm, now)):
        try:
            return each, (yield from verify_by_set(token, each, clock))
        except AuthorityUnavailable as error:
            unavailable = unavailable or error
        except InvalidToken as error:
            refusals.append(error)
    raise unavailable or refusals[0]


def verify_by_set(token: Unverified, record: IssuerRecord, clock: Clock) -> Flow[VerificationKey]:
    """Return the key that made the signature. Raises :class:`InvalidToken` if no key of the set did.

    A bad signature under a cached key may mean that its id now names a new key (an authorization server restarted with
    new keys under old ids). The published set is then fetched once, within the budget for such fetches.
    """
    kid, algorithm, ring = token.header.get("kid"), token.header["alg"], record.ring
    if record.by_id is not None:
        from scopeguard.flow.key_by_id import key_by_id  # imported already, when the guard was constructed

        key = find_signer(token, ((yield from key_by_id(kid, record, record.by_id, clock)),), record)
        if key is None:
            raise InvalidToken(Reason.BAD_SIGNATURE, kid=kid, alg=algorithm, url=record.issuer.key_url_template)
        return key
    begun, generation = ring.begun, ring.generation
    tried = ring.fresh(kid, algorithm, clock.monotonic())
    if not tried:
        mark = token.fingerprint if kid is None else ""
        found = yield from signing_keys(kid, algorithm, record, clock, mark=mark)
        tried, generation = found.keys, found.generation
    tried = tried[:MOST_VERIFICATIONS]
    key = find_signer(token, tried, record)
    if key is not None:
        return key
    if kid is None or any(key.kid is None for key in tried):
        return (yield from unnamed_signer(token, tried, begun, record, clock))
    if not ring.is_final(begun) and ring.may_doubt(clock.monotonic()):
        try:
            yield from refresh_keys(record, clock, generation, provoked=True)
        except AuthorityUnavailable:
            pass  # the check used the key that the token names, so the denial is final
    # Another request may have refreshed the set meanwhile; try its new keys.
    key = find_signer(token, _untried_keys(token, tried, record, clock), record)
    if key is not None:
        return key
    if ring.is_packed:  # the id may name a newer key, and the published set could not be fetched
        raise unknown_key_error(record, ring.look_beyond(algorithm, token.fingerprint, clock.monotonic()))
    raise InvalidToken(Reason.BAD_SIGNATURE, kid=kid, alg=algorithm, key_set=record.describe_keys)


def unnamed_signer(
    token: Unverified, tried: tuple[VerificationKey, ...], begun: int, record: IssuerRecord, clock: Clock
) -> Flow[VerificationKey]:
    """Return the key that signed *token* if no key id identifies it. The keys in *tried* are skipped.

    The key is searched for like an unknown key id: the signature is bad if a set that was fetched after the arrival of
    this request lacks the key. *begun* is the number of fetches that had begun at the arrival.
    """
    ring, algorithm = record.ring, token.header["alg"]
    while True:
        beyond = ring.look_beyond(algorithm, token.fingerprint, clock.monotonic())
        # Read the keys after the look-up. Then they are at least as new as the set that the look-up describes.
        newer = _untried_keys(token, tried, record, clock)
        key = find_signer(token, newer, record)
        if key is not None:
            return key
        tried += newer
        if beyond.held and beyond.last_success > begun:
            ring.remember_absent(None, algorithm, clock.monotonic(), token.fingerprint)
        elif beyond.may_fetch:
            yield from refresh_keys(record, clock, beyond.generation, provoked=beyond.held)
            continue
        elif beyond.undecided:
            raise unknown_key_error(record, beyond)
        named = {"kid": token.header["kid"]} if "kid" in token.header else {}
        raise InvalidToken(Reason.BAD_SIGNATURE, **named, alg=algorithm, key_set=record.describe_keys)


def _untried_keys(
    token: Unverified, tried: tuple[VerificationKey, ...], record: IssuerRecord, clock: Clock
) -> tuple[VerificationKey, ...]:
    """Return the cached keys that are not among *tried*, as many as may still be tried.

    A key that another set has with another ``issuer`` or ``alg`` may sign other tokens, so it counts as another key.
    """
    known = set(tried)
    held = record.ring.candidates(token.header.get("kid"), token.header["alg"], clock.monotonic())
    return tuple(key for key in held if key not in known)[: MOST_VERIFICATIONS - len(tried)]


def unknown_key_error(record: IssuerRecord, absent: Absent) -> AuthorityUnavailable:
    """Return the error for an unknown key while no key set may be fetched to look for it."""
    return AuthorityUnavailable(
        Reason.AUTHORITY_BACKING_OFF,
        record.issuer.url,
        retry_after=absent.retry_after,
        problem="the key of the token is unknown, and no key set may be fetched yet (key_set.refetch_interval)"
        if absent.held
        else "no key set could be fetched",
    )


def signing_keys(kid: str | None, algorithm: str, record: IssuerRecord, clock: Clock, *, mark: str = "") -> Flow[Found]:
    """Return the keys that may have signed, after fetching the key set if the key ring allows it.

    Each round but the last waits for a fetch. A fetch that began before this look-up may miss a key that was published
    since; a fetch that began later does not. *mark* identifies a token that names no key.

    Raises :class:`InvalidToken` if a set that was fetched after the first look-up of the key lacks it, and
    :class:`AuthorityUnavailable` with the seconds until the next fetch while there is no such set.
    """
    begun = record.ring.begun
    while True:
        match record.ring.lookup(kid, algorithm, clock.monotonic(), mark=mark):
            case Found() as found:
                return found
            case Due(found=found, overdue=False):
                yield from refresh_keys(record, clock, found.generation, wait=False)
                return found
            case Due(found=found):
                try:
                    yield from refresh_keys(record, clock, found.generation)
                except AuthorityUnavailable:
                    if record.ring.is_usable(clock.monotonic()):
                        return found  # an overdue set is usable until its maximum age
            case absent:
                # The set that the look-up searched: the ring may have a newer one by now.
                if absent.held and absent.last_success > begun:
                    record.ring.remember_absent(kid, algorithm, clock.monotonic(), mark)
                elif absent.may_fetch:
                    yield from refresh_keys(record, clock, absent.generation, provoked=absent.held)
                    continue
                elif absent.undecided:
                    raise unknown_key_error(record, absent)
                raise InvalidToken(Reason.UNKNOWN_KEY, kid=kid, alg=algorithm, key_set=record.describe_keys)


def warm(record: IssuerRecord, clock: Clock) -> Flow[None]:
    """Fetch the keys of *record* unless usable keys are cached. Raises :class:`AuthorityUnavailable` if there are none.

    An issuer whose tokens are all introspected, with unsigned answers, needs no keys and may have none.
    """
    introspection = record.introspection
    if record.by_id is not None:  # a single key is fetched only when a token names it
        return
    if (
        record.issuer.validate is Validation.INTROSPECTION
        and introspection is not None
        and not introspection.settings.signed
    ):
        return
    for each in (record, *record.others):
        ring = each.ring
        if each.issuer.jwks_seed is not None and ring.may_plant:
            yield from refresh_keys(each, clock, ring.generation)
        if ring.is_packed:
            try:
                yield from refresh_keys(each, clock, ring.generation)
            except AuthorityUnavailable:
                pass  # the packed set is usable
        if not ring.is_usable(clock.monotonic()):
            yield from refresh_keys(each, clock, ring.generation)
            if not ring.is_usable(clock.monotonic()):  # the fetch of another caller failed
                raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, record.issuer.url)


def refresh_keys(
    record: IssuerRecord, clock: Clock, seen: int, *, provoked: bool = False, wait: bool = True
) -> Flow[None]:
    """Fetch the key set again, unless another request has done so since generation *seen*.

    The first time, a packed set is planted instead, if the issuer has one.

    *provoked*: a token with an unknown key is the reason, so that the fetch counts against the budget.
    """

    def refresh() -> Flow[tuple[str, ...]]:
        if record.issuer.jwks_seed is not None and ring.may_plant:
            from scopeguard.flow.packed_keys import plant_packed_keys  # imported already, like key_by_id

            return (yield from plant_packed_keys(record, clock))
        number = ring.begin(clock.monotonic(), provoked=provoked)
        if number is None:
            return ()
        try:
            keys, seconds = yield from fetch_keys(record, clock)
        except Exception as error:  # even a bug in a custom transport, which every request would repeat
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            ring.fail(clock.monotonic(), number=number, retry_after=asked)
            raise
        except BaseException:  # the thread of the flight is being ended
            ring.abandon(number)
            raise
        reported = () if ring.key_set is None else ring.key_set.ignored
        ring.absorb(keys, clock.monotonic(), number=number, lifetime=seconds)
        return describe_unused_keys((key for key in keys.ignored if key not in reported), record.issuer.url)

    ring, which = record.ring, record.jwks_uri if record.others else None
    yield from ask(
        SingleFlight(
            # A proxy and the issuer behind it may share a name but have different keys.
            key=" in ".join(filter(None, (f"keys of {record.issuer.url}", record.issuer.token_header, which))),
            authority=record.issuer.url,
            needed=lambda: ring.generation == seen,
            flow=refresh,
            wait=wait,
            priority=not provoked and not record.newcomer,
            account=record.account,
            deadline=longest_fetch(record.issuer),
        )
    )


def longest_fetch(issuer: Issuer) -> float:
    """Return the longest time, in seconds, that a caller waits for a key set, including the queue and the metadata."""
    located = issuer.jwks_file is not None or issuer.jwks_uri is not None
    return QUEUE_TIMEOUT + issuer.key_set.timeout + (0.0 if located else longest_search(issuer))


def fetch_keys(record: IssuerRecord, clock: Clock) -> Flow[tuple[KeySet, float | None]]:
    """Fetch the key set from the place that the issuer's policy names. Return it with its HTTP lifetime in seconds."""
    issuer, policy = record.issuer, record.issuer.key_set
    if issuer.jwks_file is not None:
        content = yield from ask(ReadFile(path=issuer.jwks_file, authority=issuer.url, limit=policy.max_bytes))
        keys = _key_set(content, record)
        return keys, keys.refresh_hint
    uri = record.jwks_uri
    if uri is None:
        metadata = yield from discover(record, clock, has_keys, anew=record.keys_moved)
        if metadata.jwks_uri is None:
            raise AuthorityUnavailable(
                Reason.AUTHORITY_ANSWER_INVALID, issuer.url, problem="its metadata names no jwks_uri; set jwks_uri"
            )
        uri = metadata.jwks_uri
    try:
        answer = yield from ask(
            Send(
                url=uri,
                authority=issuer.url,
                accept="application/jwk-set+json, application/json",
                authorization=(yield from jwks_authorization(issuer)),
                ca_file=issuer.jwks_ca_file,
                insecure=issuer.insecure_http_dangerously,
                limit=policy.max_bytes,
                timeout=policy.timeout,
            )
        )
        document = json_body(
            answer, uri, issuer.url, clock, types=policy.content_types, setting="key_set.content_types"
        )
        keys = _key_set(document, record)
    except AuthorityUnavailable:
        # The set may have another URL now. Only the URL is looked up again; the introspection endpoint stays known.
        record.keys_moved = True
        raise
    record.keys_moved = False
    return keys, lifetime(answer.headers) if keys.refresh_hint is None else keys.refresh_hint


def jwks_authorization(issuer: Issuer) -> Flow[str | None]:
    """Return the ``Authorization`` value for key requests.

    The file is read for each fetch: Kubernetes writes a new token into it long before the old one expires.
    """
    if issuer.jwks_bearer_file is None:
        return None
    content = yield from ask(ReadFile(path=issuer.jwks_bearer_file, authority=issuer.url, limit=LARGEST_TOKEN))
    token = content.decode("ascii", "replace").strip()
    if not credentials.is_token(token):
        problem = "the content of jwks_bearer_file is not a token"
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, issuer.url, problem=problem)
    return f"Bearer {token}"


def _key_set(document: bytes, record: IssuerRecord) -> KeySet:
    issuer, policy = record.issuer, record.issuer.key_set
    use = key_use(issuer.trust_domain)
    try:
        keys = parse_key_set(
            document, max_keys=policy.max_keys, padded=policy.padded, backends=record.backends, use=use
        )
    except MalformedKeySet as error:
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, issuer.url, problem=str(error)) from None
    held = record.ring.current
    known = None if held is None else held.keys.sequence
    if known is not None and keys.sequence is not None and keys.sequence < known:
        problem = f"its spiffe_sequence is {keys.sequence}, older than that of the bundle in use, {known}"
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWER_INVALID, issuer.url, problem=problem)
    return keys
