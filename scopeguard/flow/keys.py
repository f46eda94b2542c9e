"""Whether a key of the issuer made the signature, and fetching keys when they are due."""

from __future__ import annotations

from typing import Final

from scopeguard.access_token import Unverified
from scopeguard.config.introspection import Validation
from scopeguard.config.issuer import Issuer
from scopeguard.errors import AuthorityUnavailable, InvalidToken, Reason
from scopeguard.flow.effects import TURN, Clock, Flow, ReadFile, Send, SingleFlight, ask
from scopeguard.flow.issuers import discover, has_keys, longest_search
from scopeguard.flow.responses import check_status, json_body
from scopeguard.spec import credentials, jwt
from scopeguard.spec.http_caching import lifetime
from scopeguard.spec.jwks import KeySet, MalformedKeySet, VerificationKey, parse_key_set
from scopeguard.spec.key_by_id import key_url, parse_public_key
from scopeguard.spec.signatures import SignatureNotJudgedError
from scopeguard.state.issuers import TrustedIssuer
from scopeguard.state.key_by_id import KeysById
from scopeguard.state.keyring import Absent, Due, Found

# A hostile token costs at most so many signature checks.
MOST_VERIFICATIONS: Final = 8


_MOST_BYTES_OF_A_TOKEN: Final = 16 * 1024


def _signer(token: Unverified, keys: tuple[VerificationKey, ...], trust: TrustedIssuer) -> VerificationKey | None:
    """The one of *keys* that made the signature."""
    algorithm, signed, signature = token.header["alg"], token.signed, token.signature
    try:
        for key in keys:
            if jwt.may_sign(key.issuer, token, trust.issuer) and key.verify(algorithm, signed, signature):
                return key
    except SignatureNotJudgedError as error:  # law 4
        raise AuthorityUnavailable(
            Reason.SIGNATURE_BACKEND_FAILED, trust.issuer.url, problem=f"signature_backends: {error}"
        ) from None
    return None


def verify_signature(token: Unverified, trust: TrustedIssuer, clock: Clock) -> Flow[VerificationKey]:
    """The key of the issuer that made the signature, from any of its key sets; see :func:`verify_by_set`."""
    if trust.others:
        return (yield from verify_by_any_set(token, trust, clock))[1]
    return (yield from verify_by_set(token, trust, clock))


def verify_by_any_set(
    token: Unverified, trust: TrustedIssuer, clock: Clock
) -> Flow[tuple[TrustedIssuer, VerificationKey]]:
    """The key that made the signature, and the trust whose set has it, where an issuer has several key sets.

    Sets that hold the key id come first, so that nothing is fetched for a token of one of them. A token is refused when
    every set refuses it; while one cannot be asked, the key may be there.
    """
    kid, algorithm, now = token.header.get("kid"), token.header["alg"], clock.monotonic()
    unavailable: AuthorityUnavailable | None = None
    refusals: list[InvalidToken] = []
    for each in sorted((trust, *trust.others), key=lambda one: not one.ring.candidates(kid, algorithm, now)):
        try:
            return each, (yield from verify_by_set(token, each, clock))
        except AuthorityUnavailable as error:
            unavailable = unavailable or error
        except InvalidToken as error:
            refusals.append(error)
    raise unavailable or refusals[0]


def verify_by_set(token: Unverified, trust: TrustedIssuer, clock: Clock) -> Flow[VerificationKey]:
    """The key of the issuer that made the signature; :class:`InvalidToken` where none did.

    A bad signature under a key that is held may mean that its id names a new key now (an authority restarted with
    fresh keys under old ids); that is worth one look at the published set, out of the budget for such fetches.
    """
    kid, algorithm, ring = token.header.get("kid"), token.header["alg"], trust.ring
    if trust.by_id is not None:
        key = _signer(token, ((yield from key_by_id(kid, trust, trust.by_id, clock)),), trust)
        if key is None:
            raise InvalidToken(Reason.BAD_SIGNATURE, kid=kid)
        return key
    begun, generation = ring.begun, ring.generation
    tried = ring.fresh(kid, algorithm, clock.monotonic())
    if not tried:
        mark = token.fingerprint if kid is None else ""
        found = yield from signing_keys(kid, algorithm, trust, clock, mark=mark)
        tried, generation = found.keys, found.generation
    tried = tried[:MOST_VERIFICATIONS]
    key = _signer(token, tried, trust)
    if key is not None:
        return key
    if kid is None or any(key.kid is None for key in tried):
        return (yield from unnamed_signer(token, tried, begun, trust, clock))
    if not ring.is_final(begun) and ring.may_doubt(clock.monotonic()):
        try:
            yield from refresh_keys(trust, clock, generation, provoked=True)
        except AuthorityUnavailable:
            pass  # the token was judged by the key that it names: the verdict stands
    # Another request may have refreshed the set meanwhile; try its new keys.
    key = _signer(token, _untried(token, tried, trust, clock), trust)
    if key is not None:
        return key
    raise InvalidToken(Reason.BAD_SIGNATURE, kid=kid)


def unnamed_signer(
    token: Unverified, tried: tuple[VerificationKey, ...], begun: int, trust: TrustedIssuer, clock: Clock
) -> Flow[VerificationKey]:
    """The key that signed *token*, none of *tried*, where no key id says whether that key is held at all.

    It is looked for as an unknown key id is: the signature is bad when a set lacks the key that was fetched after this
    token came. *begun*: how many fetches had begun then.
    """
    ring, algorithm = trust.ring, token.header["alg"]
    while True:
        beyond = ring.look_beyond(algorithm, token.fingerprint, clock.monotonic())
        # After the look-up, so that what it says of the held set goes for these keys.
        newer = _untried(token, tried, trust, clock)
        key = _signer(token, newer, trust)
        if key is not None:
            return key
        tried += newer
        if beyond.held and beyond.landed > begun:
            ring.remember_absent(None, algorithm, clock.monotonic(), token.fingerprint)
        elif beyond.may_fetch:
            yield from refresh_keys(trust, clock, beyond.generation, provoked=beyond.held)
            continue
        elif beyond.undecided:
            raise key_not_fetched(trust, beyond)
        raise InvalidToken(Reason.BAD_SIGNATURE, kid=token.header.get("kid"))


def _untried(
    token: Unverified, tried: tuple[VerificationKey, ...], trust: TrustedIssuer, clock: Clock
) -> tuple[VerificationKey, ...]:
    """Keys that are held now and not among *tried*, as many as may still be tried."""
    known = {key.thumbprint for key in tried}
    held = trust.ring.candidates(token.header.get("kid"), token.header["alg"], clock.monotonic())
    return tuple(key for key in held if key.thumbprint not in known)[: MOST_VERIFICATIONS - len(tried)]


def key_not_fetched(trust: TrustedIssuer, absent: Absent) -> AuthorityUnavailable:
    """The outage that a key is until a key set was fetched for it."""
    return AuthorityUnavailable(
        Reason.AUTHORITY_BACKING_OFF,
        trust.issuer.url,
        retry_after=absent.retry_after,
        problem="the key of the token is unknown, and no key set may be fetched yet (key_set.refetch_interval)"
        if absent.held
        else "no key set could be fetched",
    )


def signing_keys(kid: str | None, algorithm: str, trust: TrustedIssuer, clock: Clock, *, mark: str = "") -> Flow[Found]:
    """The keys that may have signed; fetches at most what the key ring allows.

    Each round but the last waits for a fetch to end. One that began before this look-up, and brought nothing, says
    nothing about a key published since; one that began later does. *mark* stands for the token where it names no key.

    Raises :class:`InvalidToken` when a set lacks the key that was fetched after the key was first asked for, and
    :class:`AuthorityUnavailable` with the seconds until the next fetch while there was none.
    """
    begun = trust.ring.begun
    while True:
        match trust.ring.lookup(kid, algorithm, clock.monotonic(), mark=mark):
            case Found() as found:
                return found
            case Due(found=found, overdue=False):
                yield from refresh_keys(trust, clock, found.generation, wait=False)
                return found
            case Due(found=found):
                try:
                    yield from refresh_keys(trust, clock, found.generation)
                except AuthorityUnavailable:
                    if trust.ring.is_usable(clock.monotonic()):
                        return found  # late is not wrong, up to the ceiling
            case absent:
                # Of the look-up itself: a set that has landed since then is not the one that was looked into.
                if absent.held and absent.landed > begun:
                    trust.ring.remember_absent(kid, algorithm, clock.monotonic(), mark)
                elif absent.may_fetch:
                    yield from refresh_keys(trust, clock, absent.generation, provoked=absent.held)
                    continue
                elif absent.undecided:
                    raise key_not_fetched(trust, absent)
                raise InvalidToken(Reason.UNKNOWN_KEY, kid=kid, alg=algorithm)


def warm(trust: TrustedIssuer, clock: Clock) -> Flow[None]:
    """Fetch the keys of *trust* unless usable ones are held; :class:`AuthorityUnavailable` if there are none then.

    An issuer that is asked about every token, and signs no answers, needs none and may have none.
    """
    introspection = trust.introspection
    if trust.by_id is not None:  # which keys there are, only tokens tell
        return
    if (
        trust.issuer.validate is Validation.INTROSPECTION
        and introspection is not None
        and not introspection.settings.signed
    ):
        return
    for each in (trust, *trust.others):
        ring = each.ring
        if not ring.is_usable(clock.monotonic()):
            yield from refresh_keys(each, clock, ring.generation)
            if not ring.is_usable(clock.monotonic()):  # the fetch of another caller was joined, and failed
                raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, trust.issuer.url)


def refresh_keys(
    trust: TrustedIssuer, clock: Clock, seen: int, *, provoked: bool = False, wait: bool = True
) -> Flow[None]:
    """Have the keys fetched again, unless another request has done so since generation *seen*. *provoked*: on account
    of a token whose key is not held, so that it has to be paid for."""

    def refresh() -> Flow[tuple[str, ...]]:
        number = ring.begin(clock.monotonic(), provoked=provoked)
        if number is None:
            return ()
        try:
            keys, seconds = yield from fetch_keys(trust, clock)
        except Exception as error:  # a bug in somebody's transport is paced as well: everybody would run into it
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            ring.fail(clock.monotonic(), number=number, retry_after=asked)
            raise
        except BaseException:  # the thread that led is being ended
            ring.abandon(number)
            raise
        told = () if ring.key_set is None else ring.key_set.ignored
        ring.absorb(keys, clock.monotonic(), number=number, lifetime=seconds)
        return tuple(
            f"a key of {trust.issuer.url} is not used (kid={ignored.kid!r}): {ignored.why}"
            for ignored in keys.ignored
            if ignored.alarming and ignored not in told
        )

    ring, which = trust.ring, trust.jwks_uri if trust.others else None
    yield from ask(
        SingleFlight(
            # A proxy and the issuer behind it may have one name; each has keys of its own.
            key=" in ".join(filter(None, (f"keys of {trust.issuer.url}", trust.issuer.token_header, which))),
            authority=trust.issuer.url,
            needed=lambda: ring.generation == seen,
            flow=refresh,
            wait=wait,
            priority=not provoked and not trust.newcomer,
            account=trust.account,
            deadline=longest_fetch(trust.issuer),
        )
    )


def key_by_id(kid: object, trust: TrustedIssuer, keys: KeysById, clock: Clock) -> Flow[VerificationKey]:
    """The key *kid* of an issuer that publishes each under a URL of its own.

    Only a UUID becomes part of a URL. Raises :class:`InvalidToken` when the authority was asked and has no such key,
    and :class:`AuthorityUnavailable` with the seconds until the next fetch while it was not asked, be it for want of
    budget. This request may be the one that fetches another key, which more requests wait for.
    """
    template = trust.issuer.key_url_template or ""
    found = key_url(template, kid)
    if found is None:
        raise InvalidToken(Reason.UNKNOWN_KEY, kid=kid)
    name, _ = found
    sought = keys.ask(name, clock.monotonic())
    wanted = sought.fetch

    def fetch() -> Flow[tuple[str, ...]]:
        if wanted is not None and keys.begin(wanted, clock.monotonic()):
            url = template.removesuffix("{kid}") + wanted
            try:
                keys.absorb(wanted, (yield from fetch_key(wanted, url, trust, clock)), clock.monotonic())
            except Exception as error:  # a bug in a transport is paced as well: it would meet every request
                asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
                keys.fail(wanted, clock.monotonic(), retry_after=asked)
                raise
        return ()

    if wanted is not None:
        yield from ask(
            SingleFlight(
                key=f"key {wanted} of {trust.issuer.url}",
                authority=trust.issuer.url,
                needed=lambda: keys.lookup(wanted, clock.monotonic()).fetch is not None,
                flow=fetch,
                wait=wanted == name and sought.key is None,
                priority=sought.key is not None and not trust.newcomer,
                account=trust.account,
                deadline=TURN + trust.issuer.key_set.timeout,
            )
        )
        sought = keys.lookup(name, clock.monotonic())
    if sought.key is not None:
        return sought.key
    if sought.absent:
        raise InvalidToken(Reason.UNKNOWN_KEY, kid=kid)
    raise AuthorityUnavailable(
        Reason.AUTHORITY_BACKING_OFF,
        trust.issuer.url,
        retry_after=sought.pause,
        problem="the key of the token is unknown, and no key may be fetched yet (key_set.refetch_interval)",
    )


def fetch_key(kid: str, url: str, trust: TrustedIssuer, clock: Clock) -> Flow[VerificationKey | None]:
    """The one key at *url*, ``None`` where there is none: a bucket that may not be listed says 403 to that."""
    authority, policy = trust.issuer.url, trust.issuer.key_set
    answer = yield from ask(
        Send(
            url=url,
            authority=authority,
            accept="*/*",
            insecure=trust.issuer.insecure_http_dangerously,
            limit=policy.max_bytes,
            timeout=policy.timeout,
        )
    )
    if answer.status in (403, 404):
        return None
    check_status(answer, url, authority, clock)
    try:
        return parse_public_key(answer.body, kid, trust.issuer.algorithms, trust.backends)
    except MalformedKeySet as error:
        problem = str(error)
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, authority, url=url, problem=problem)


def longest_fetch(issuer: Issuer) -> float:
    """How long a caller waits for a key set at most, in seconds: for its turn, for the metadata and for the set."""
    located = issuer.jwks_file is not None or issuer.jwks_uri is not None
    return TURN + issuer.key_set.timeout + (0.0 if located else longest_search(issuer))


def fetch_keys(trust: TrustedIssuer, clock: Clock) -> Flow[tuple[KeySet, float | None]]:
    """The published key set and how long its sender would keep it, from wherever the issuer's policy says."""
    issuer, policy = trust.issuer, trust.issuer.key_set
    if issuer.jwks_file is not None:
        content = yield from ask(ReadFile(path=issuer.jwks_file, authority=issuer.url, limit=policy.max_bytes))
        return _key_set(content, trust), None
    uri = trust.jwks_uri
    if uri is None:
        metadata = yield from discover(trust, clock, has_keys, anew=trust.keys_moved)
        if metadata.jwks_uri is None:
            raise AuthorityUnavailable(
                Reason.AUTHORITY_ANSWERED_NONSENSE, issuer.url, problem="its metadata names no jwks_uri; set jwks_uri"
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
        keys = _key_set(document, trust)
    except AuthorityUnavailable:
        # The set may have moved. The metadata still says where tokens are introspected.
        trust.keys_moved = True
        raise
    trust.keys_moved = False
    return keys, lifetime(answer.headers)


def jwks_authorization(issuer: Issuer) -> Flow[str | None]:
    """Who asks for keys, read anew from the file: Kubernetes puts a new token there long before the old one ends."""
    if issuer.jwks_bearer_file is None:
        return None
    content = yield from ask(ReadFile(path=issuer.jwks_bearer_file, authority=issuer.url, limit=_MOST_BYTES_OF_A_TOKEN))
    token = content.decode("ascii", "replace").strip()
    if not credentials.is_token(token):
        problem = "the content of jwks_bearer_file is not a token"
        raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, issuer.url, problem=problem)
    return f"Bearer {token}"


def _key_set(document: bytes, trust: TrustedIssuer) -> KeySet:
    policy = trust.issuer.key_set
    try:
        return parse_key_set(document, max_keys=policy.max_keys, padded=policy.padded, backends=trust.backends)
    except MalformedKeySet as error:
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, trust.issuer.url, problem=str(error)) from None
