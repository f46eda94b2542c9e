"""The whole decision, in reading order. The only generators of the project.

A generator here *asks* for I/O by yielding an effect (``yield from ask(Send(...))``), is resumed with the answer, and
has failures thrown in, so that "the refresh failed but I still hold keys" is an ``except`` clause in plain sight. An
edge drives it: ``edge/blocking.py`` in a thread, ``edge/aio.py`` in a task; neither knows what it is performing. Most
requests yield nothing at all. A test is a script: send answers, look at what is asked next.

    flow = authenticate(view, trusts=trusts, sources=sources, clock=clock)
    effect = next(flow)                     # SingleFlight(key="keys of https://auth.example.com", ...)
    ...
    StopIteration.value                     # the AccessToken

Refusals are raised as :class:`AccessDenied`, outages as :class:`AuthorityUnavailable`. The order of checks decides
which refusal wins: shape of the request, presence of a credential, form and claims of the token, its signature; what
the token may do is for the route to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from scopeguard.access_token import AccessToken, Unverified, fingerprint
from scopeguard.config import StrayQueryToken, TokenSource, TokenSources
from scopeguard.effects import Answer, Clock, Flow, ReadFile, ReadForm, Send, SingleFlight, ask
from scopeguard.errors import AuthorityUnavailable, InvalidRequest, InvalidToken, MissingCredentials, Reason
from scopeguard.request import RequestView
from scopeguard.spec import credentials, jwt
from scopeguard.spec.discovery import MalformedMetadata, Metadata, judge_metadata, metadata_urls
from scopeguard.spec.http_caching import is_json, lifetime, retry_after
from scopeguard.spec.jwks import KeySet, MalformedKeySet, VerificationKey, parse_key_set
from scopeguard.state.keyring import Due, Found
from scopeguard.state.trust import Trust

# A hostile token costs at most so many signature checks.
MOST_VERIFICATIONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A token as the request presented it, and where."""

    token: str = field(repr=False)
    source: TokenSource


def authenticate(
    view: RequestView,
    *,
    trusts: Mapping[str, Trust],
    sources: TokenSources,
    clock: Clock,
    exposed: Callable[[], None] | None = None,
) -> Flow[AccessToken]:
    """The access token of *view*, judged by the policy of the issuer it names; whether it suffices is not asked.

    *exposed* is called when a token is there, wherever it was read, and may refuse it: the request was not encrypted.
    """
    credential = yield from find_credential(view, sources)
    if exposed is not None:
        exposed()
    try:
        return (yield from judged(credential, trusts, clock))
    except InvalidToken as error:
        error.detail["token"] = fingerprint(credential.token)
        raise


def judged(credential: Credential, trusts: Mapping[str, Trust], clock: Clock) -> Flow[AccessToken]:
    """The access token that *credential* is."""
    token = jwt.peek(credential.token)
    trust = trusts.get(jwt.named_issuer(token))
    if trust is None:  # before any network access, and with no URL taken from the token (P-18)
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=jwt.named_issuer(token))
    jwt.check(token, trust.issuer, clock.wall())
    yield from verify_signature(token, trust, clock)
    return jwt.accept(token, trust.issuer, trust.vocabulary)


def find_credential(view: RequestView, sources: TokenSources) -> Flow[Credential]:
    """The one token of the request; more than one enabled place in use is refused (RFC 6750 section 2, B-13)."""
    limits = {"max_bytes": sources.max_token_bytes, "max_parameters": sources.max_parameters}
    found: list[Credential] = []
    absent = MissingCredentials(Reason.NO_CREDENTIALS)
    if TokenSource.HEADER in sources.methods:
        try:
            token = credentials.token_from_authorization(view.headers.get_all("authorization"), sources.max_token_bytes)
        except MissingCredentials as error:
            token, absent = None, error
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.HEADER))
    if TokenSource.QUERY in sources.methods:
        token = credentials.token_from_parameters(view.query, **limits, source="query")
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.QUERY))
    elif sources.stray_query_token is StrayQueryToken.REFUSE and credentials.has_access_token(view.query):
        raise InvalidRequest(Reason.QUERY_TOKEN_REFUSED)
    if TokenSource.FORM in sources.methods and credentials.may_carry_form(
        view.method, view.headers.get_all("content-type")
    ):
        body = yield from ask(ReadForm(limit=sources.max_form_bytes))
        token = credentials.token_from_form(body, **limits)
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.FORM))
    if len(found) > 1:
        raise InvalidRequest(Reason.SEVERAL_METHODS, methods=" ".join(credential.source for credential in found))
    if not found:
        raise absent
    return found[0]


def verify_signature(token: Unverified, trust: Trust, clock: Clock) -> Flow[None]:
    """Return if a key of the issuer made the signature, else raise :class:`InvalidToken`.

    A bad signature under a key that is held may mean that its id names a new key now (an authority restarted with
    fresh keys under old ids); that is worth one look at the published set, out of the budget for such fetches.
    """
    kid, algorithm, ring = token.header.get("kid"), token.header["alg"], trust.ring
    begun = ring.begun
    found = yield from signing_keys(kid, algorithm, trust, clock)
    tried = found.keys[:MOST_VERIFICATIONS]
    if _fits(token, algorithm, tried):
        return
    if not ring.is_final(begun) and ring.may_doubt(clock.monotonic()):
        try:
            yield from refreshed(trust, clock, found.generation, provoked=True)
        except AuthorityUnavailable:
            pass  # the token was judged by a key that is held: the verdict stands
        known = {key.thumbprint for key in tried}
        newer = ring.candidates(kid, algorithm, clock.monotonic())
        untried = tuple(key for key in newer if key.thumbprint not in known)
        if _fits(token, algorithm, untried[: MOST_VERIFICATIONS - len(tried)]):
            return
    raise InvalidToken(Reason.BAD_SIGNATURE, kid=kid)


def _fits(token: Unverified, algorithm: str, keys: tuple[VerificationKey, ...]) -> bool:
    return any(key.verify(algorithm, token.signed, token.signature) for key in keys)


def signing_keys(kid: str | None, algorithm: str, trust: Trust, clock: Clock) -> Flow[Found]:
    """The keys that may have signed; fetches at most what the key ring allows.

    Each round but the last waits for a fetch to end. One that began before this look-up, and brought nothing, says
    nothing about a key published since; one that began later does.
    """
    begun = trust.ring.begun
    while True:
        match trust.ring.lookup(kid, algorithm, clock.monotonic()):
            case Found() as found:
                return found
            case Due(found=found, overdue=False):
                yield from refreshed(trust, clock, found.generation, wait=False)
                return found
            case Due(found=found):
                try:
                    yield from refreshed(trust, clock, found.generation)
                except AuthorityUnavailable:
                    if trust.ring.is_usable(clock.monotonic()):
                        return found  # late is not wrong, up to the ceiling
            case absent:
                if absent.held and trust.ring.is_final(begun):
                    trust.ring.remember_absent(kid, algorithm, clock.monotonic())
                elif absent.may_fetch:
                    yield from refreshed(trust, clock, absent.generation, provoked=absent.held)
                    continue
                elif absent.unreachable:
                    raise AuthorityUnavailable(
                        Reason.AUTHORITY_BACKING_OFF, trust.issuer.url, retry_after=absent.retry_after
                    )
                raise InvalidToken(Reason.UNKNOWN_KEY, kid=kid, alg=algorithm)


def warmed(trust: Trust, clock: Clock) -> Flow[None]:
    """Fetch the keys of *trust* unless usable ones are held; :class:`AuthorityUnavailable` if there are none then."""
    ring = trust.ring
    if not ring.is_usable(clock.monotonic()):
        yield from refreshed(trust, clock, ring.generation)
        if not ring.is_usable(clock.monotonic()):  # somebody else's fetch was joined, and failed
            raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, trust.issuer.url)


def refreshed(trust: Trust, clock: Clock, seen: int, *, provoked: bool = False, wait: bool = True) -> Flow[None]:
    """Have the keys fetched again, unless somebody has done so since generation *seen*."""

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

    ring = trust.ring
    yield from ask(
        SingleFlight(
            key=f"keys of {trust.issuer.url}",
            authority=trust.issuer.url,
            needed=lambda: ring.generation == seen,
            flow=refresh,
            wait=wait,
        )
    )


def fetch_keys(trust: Trust, clock: Clock) -> Flow[tuple[KeySet, float | None]]:
    """The published key set and how long its sender would keep it, from wherever the issuer's policy says."""
    issuer, policy = trust.issuer, trust.issuer.key_set
    if issuer.jwks_file is not None:
        content = yield from ask(ReadFile(path=issuer.jwks_file, authority=issuer.url, limit=policy.max_bytes))
        return _key_set(content, trust), None
    uri = issuer.jwks_uri
    if uri is None:
        metadata = yield from discovered(trust, clock)
        if metadata.jwks_uri is None:
            raise AuthorityUnavailable(
                Reason.AUTHORITY_ANSWERED_NONSENSE, issuer.url, problem="its metadata names no jwks_uri"
            )
        uri = metadata.jwks_uri
    try:
        answer = yield from ask(
            Send(
                url=uri,
                authority=issuer.url,
                accept="application/jwk-set+json, application/json",
                limit=policy.max_bytes,
                timeout=policy.timeout,
            )
        )
        document = _json_body(answer, uri, issuer.url, clock)
        return _key_set(document, trust), lifetime(answer.headers)
    except AuthorityUnavailable:
        trust.forget()
        raise


def _key_set(document: bytes, trust: Trust) -> KeySet:
    try:
        return parse_key_set(document, max_keys=trust.issuer.key_set.max_keys)
    except MalformedKeySet as error:
        raise AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, trust.issuer.url, problem=str(error)) from None


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
        raise AuthorityUnavailable(
            Reason.AUTHORITY_ANSWERED_NONSENSE,
            issuer.url,
            problem="no metadata at " + " nor ".join(places) + "; set jwks_uri or metadata_url",
        )
    place, answer = found
    document = _json_body(answer, place, issuer.url, clock)
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


def _json_body(answer: Answer, url: str, authority: str, clock: Clock) -> bytes:
    """The body of a 200 with a JSON content type; anything else is an outage, never a verdict on a token."""
    if answer.status != 200:
        busy = answer.status in (408, 429) or answer.status >= 500
        raise AuthorityUnavailable(
            Reason.AUTHORITY_UNREACHABLE if busy else Reason.AUTHORITY_ANSWERED_NONSENSE,
            authority,
            retry_after=retry_after(answer.headers, clock.wall()),
            url=url,
            status=answer.status,
        )
    if not is_json(answer.headers):
        raise AuthorityUnavailable(
            Reason.AUTHORITY_ANSWERED_NONSENSE,
            authority,
            url=url,
            problem="the answer is not JSON, its content type is " + repr(answer.headers.get("content-type", "")),
        )
    return answer.body
