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

Longer than 400 lines because it is the one place where the order of things can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from scopeguard.access_token import AccessToken, Unverified, fingerprint
from scopeguard.config import StrayQueryToken, TokenSource, TokenSources
from scopeguard.effects import Answer, CallHook, Clock, Flow, ReadFile, ReadForm, Send, SingleFlight, UseStore, ask
from scopeguard.errors import AuthorityUnavailable, InvalidRequest, InvalidToken, MissingCredentials, Reason
from scopeguard.introspection import Dialect, Validation
from scopeguard.request import RequestView
from scopeguard.spec import credentials, introspection, jwt, status_list, tokeninfo
from scopeguard.spec.discovery import MalformedMetadata, Metadata, judge_metadata, metadata_urls
from scopeguard.spec.http_caching import is_json, lifetime, retry_after
from scopeguard.spec.jwks import KeySet, MalformedKeySet, VerificationKey, parse_key_set
from scopeguard.state.answers import Known
from scopeguard.state.keyring import Due, Found
from scopeguard.state.revocations import Bearer, Revocation
from scopeguard.state.statuses import Statuses
from scopeguard.state.trust import Asking, Trust, Trusts
from scopeguard.status_list import StatusListPolicy

# A hostile token costs at most so many signature checks.
MOST_VERIFICATIONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A token as the request presented it, and where."""

    token: str = field(repr=False)
    source: TokenSource
    header: str | None = None  # the field it is the whole value of; None for Authorization and its scheme


def authenticate(
    view: RequestView,
    *,
    trusts: Trusts,
    sources: TokenSources,
    clock: Clock,
    exposed: Callable[[], None] | None = None,
) -> Flow[AccessToken]:
    """The access token of *view*, judged by the policy of the issuer it names; whether it suffices is not asked.

    *exposed* is called when a token is there, wherever it was read, and may refuse it: the request was not encrypted.
    """
    credential = yield from find_credential(view, sources, trusts.headers)
    if exposed is not None:
        exposed()
    try:
        return (yield from judged(credential, trusts, clock))
    except InvalidToken as error:
        error.detail["token"] = fingerprint(credential.token)
        raise


def judged(credential: Credential, trusts: Trusts, clock: Clock) -> Flow[AccessToken]:
    """The access token that *credential* is: verified here, or described by its authority, and not revoked."""
    hints: Mapping[str, str] = trusts.hints
    try:
        trust, token = yield from route(credential, trusts, clock)
        hints = trust.issuer.hints
        if token is None:
            access = yield from introspected(credential, trust, trusts, clock)
        else:
            jwt.check(token, trust.issuer, clock.wall())
            yield from verify_signature(token, trust, clock)
            access = jwt.accept(token, trust.issuer, trust.vocabulary)
            yield from status_checked(access, trust, clock)
        yield from unrevoked(access, credential, trusts, clock)
    except InvalidToken as error:
        jwt.explain(error, hints)
        raise
    return access


def route(credential: Credential, trusts: Trusts, clock: Clock) -> Flow[tuple[Trust, Unverified | None]]:
    """Whose policy judges *credential*, before any network access, and with no URL taken from the token (P-18).

    Where issuers are looked up by the operator's function, that is called for a name that it may know.

    With the token parsed, if it is to be verified here, and with ``None``, if its authority is to be asked. A token
    that has the look of a JWT and is not one is asked about nowhere.
    """
    try:
        parsed = jwt.peek(credential.token)
    except InvalidToken:
        looks_like_jwt = credential.token.startswith("eyJ") and credential.token.count(".") == 2
        asks_nobody = looks_like_jwt or credential.header is not None
        trust = None if asks_nobody else trusts.of_opaque(credential.token)
        if trust is None:
            raise
        return trust, None
    name = jwt.named_issuer(parsed)
    trust = trusts.named(name, credential.header)
    if trust is None and credential.header is None:
        trust = yield from resolved(name, trusts, clock)
    if trust is None:
        raise InvalidToken(Reason.UNKNOWN_ISSUER, iss=name)
    return trust, None if trust.issuer.validate is Validation.INTROSPECTION else parsed


def resolved(name: str, trusts: Trusts, clock: Clock) -> Flow[Trust | None]:
    """The trust in the issuer *name*, which is not configured, as the resolver finds it or found it lately.

    Whoever fails to find it says nothing about the token: that is an outage (law 4), or a mistake, and let through.
    """
    resolving = trusts.resolving
    if resolving is None:
        return None
    known = resolving.lookup(name, clock.monotonic())
    if known is None and not resolving.accepts(name):
        return None
    found = [] if known is None else [known]

    def needed() -> bool:
        known = resolving.lookup(name, clock.monotonic())
        found.extend([] if known is None else [known])
        return not found

    def look_up() -> Flow[tuple[str, ...]]:
        try:
            issuer = yield from ask(CallHook(lambda: resolving.resolve(name)))
            found.append(resolving.absorb(name, issuer, clock.monotonic()))
        except Exception as error:  # a mistake in it is paced as well: everybody would run into it
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            resolving.fail(name, clock.monotonic(), retry_after=asked)
            raise
        return ()

    if not found:
        yield from ask(SingleFlight(key=f"issuer {name!r}", authority=name, needed=needed, flow=look_up))
    outcome = found[0]
    if outcome.failed:
        pause = outcome.until - clock.monotonic()
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, name, retry_after=max(0.0, pause))
    return outcome.trust


def find_credential(
    view: RequestView, sources: TokenSources, headers: tuple[str | None, ...] = (None,)
) -> Flow[Credential]:
    """The one token of the request; more than one enabled place in use is refused (RFC 6750 section 2, B-13).

    *headers*: the fields that count as the header, ``None`` for ``Authorization``.
    """
    limits = {"max_bytes": sources.max_token_bytes, "max_parameters": sources.max_parameters}
    found: list[Credential] = []
    absent = MissingCredentials(Reason.NO_CREDENTIALS)
    for header in headers if TokenSource.HEADER in sources.methods else ():
        values = view.headers.get_all(header or "authorization")
        try:
            if header is None:
                token = credentials.token_from_authorization(values, sources.max_token_bytes)
            else:
                token = credentials.token_from_field(values, sources.max_token_bytes)
        except MissingCredentials as error:
            token, absent = None, error
        if token is not None:
            found.append(Credential(token=token, source=TokenSource.HEADER, header=header))
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
    if _fits(token, algorithm, tried, trust):
        return
    if not ring.is_final(begun) and ring.may_doubt(clock.monotonic()):
        try:
            yield from refreshed(trust, clock, found.generation, provoked=True)
        except AuthorityUnavailable:
            pass  # the token was judged by a key that is held: the verdict stands
        known = {key.thumbprint for key in tried}
        newer = ring.candidates(kid, algorithm, clock.monotonic())
        untried = tuple(key for key in newer if key.thumbprint not in known)
        if _fits(token, algorithm, untried[: MOST_VERIFICATIONS - len(tried)], trust):
            return
    raise InvalidToken(Reason.BAD_SIGNATURE, kid=kid)


def _fits(token: Unverified, algorithm: str, keys: tuple[VerificationKey, ...], trust: Trust) -> bool:
    return any(
        jwt.may_sign(key.issuer, token, trust.issuer) and key.verify(algorithm, token.signed, token.signature)
        for key in keys
    )


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
    """Fetch the keys of *trust* unless usable ones are held; :class:`AuthorityUnavailable` if there are none then.

    An issuer that is asked about every token, and signs no answers, needs none and may have none.
    """
    ring, asking = trust.ring, trust.asking
    if trust.issuer.validate is Validation.INTROSPECTION and asking is not None and not asking.settings.signed:
        return
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
        setting = "introspection.endpoint" if issuer.validate is Validation.INTROSPECTION else "jwks_uri"
        raise AuthorityUnavailable(
            Reason.AUTHORITY_ANSWERED_NONSENSE,
            issuer.url,
            # The fix comes first: long texts are cut off at their end.
            problem=f"set {setting} or metadata_url; no metadata at " + " nor ".join(places),
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


def introspected(credential: Credential, trust: Trust, trusts: Trusts, clock: Clock) -> Flow[AccessToken]:
    """*credential* as its authority describes it now, or did a moment ago (RFC 7662).

    An answer is shared by everybody who asks about the same token under the same configuration, across processes if
    there is a store; it is judged by each of them (I-10 to I-15). A store that fails is passed over.
    """
    asking = trust.asking
    if asking is None:  # whoever routed here would have asked somebody who is not to be asked
        raise InvalidToken(Reason.UNKNOWN_ISSUER)
    settings = asking.settings
    key = introspection.digest(credential.token, asking.context)
    began = clock.monotonic()
    known = asking.answers.lookup(key, began)
    landed: list[Known] = []

    def fly() -> Flow[tuple[str, ...]]:
        landed.append((yield from asked(credential, key, trust, asking, trusts, clock)))
        return ()

    if known is None:
        shares = settings.ttl > 0
        yield from ask(
            SingleFlight(
                key=f"answer {key.hex()}" if shares else f"answer {asking.new_id()}",
                authority=trust.issuer.url,
                # Without "landed", an answer that is not kept (ttl = 0) would be asked for again and again.
                needed=lambda: (
                    not landed
                    and asking.answers.lookup(key, clock.monotonic()) is None
                    and not (shares and asking.answers.failed_since(key, began))
                ),
                flow=fly,
            )
        )
        known = landed[0] if landed else asking.answers.lookup(key, clock.monotonic())
        if known is None:
            raise AuthorityUnavailable(Reason.AUTHORITY_UNREACHABLE, trust.issuer.url)
    if known.members is None:
        raise InvalidToken(Reason.TOKEN_NOT_ACTIVE)
    described = introspection.as_claims(known.members, fingerprint(credential.token))
    introspection.check_answer(described, trust.issuer, clock.wall(), audience_required=settings.require_audience)
    return jwt.accept(described, trust.issuer, trust.vocabulary)


def asked(
    credential: Credential, key: bytes, trust: Trust, asking: Asking, trusts: Trusts, clock: Clock
) -> Flow[Known]:
    """The answer of the shared store, else of the authority; remembered here and there."""
    settings = asking.settings
    name = f"answer:{key.hex()}"
    if trusts.shared and settings.ttl > 0:
        try:
            entry = yield from ask(UseStore(lambda store: store.get(name)))
            kept, seconds = introspection.read_entry(entry, clock.wall())
            if clock.wall() + seconds - settings.ttl >= asking.dropped_at:  # else it may be older
                asking.answers.absorb(key, kept, clock.monotonic(), lifetime=seconds)
                return Known(kept)
        except (AuthorityUnavailable, introspection.MalformedAnswer):
            pass  # the authority knows
    pause = asking.breaker.pause(clock.monotonic())
    if pause > 0:
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, trust.issuer.url, retry_after=pause)
    try:
        members = yield from answered(credential, trust, asking, clock)
    except AuthorityUnavailable as error:
        if error.detail.get("status") == "400":  # an answer, about this token; and a stranger may choose the token
            asking.breaker.succeeded()
        else:
            asking.breaker.failed(clock.monotonic(), retry_after=error.retry_after)
        asking.answers.fail(key, clock.monotonic())
        raise
    asking.breaker.succeeded()
    lasting, seconds = members, introspection.remaining(members, clock.wall())
    if seconds <= -trust.issuer.leeway:
        lasting, seconds = None, float("inf")  # "active", and by its own date it is not
    asking.answers.absorb(key, lasting, clock.monotonic(), lifetime=seconds)
    keep = min(settings.negative_ttl if lasting is None else settings.ttl, seconds)
    if trusts.shared and keep > 0:
        written = introspection.write_entry(lasting, clock.wall() + keep)
        try:
            yield from ask(UseStore(lambda store: store.put(name, written, seconds=keep)))
        except AuthorityUnavailable:
            pass  # others will ask for themselves
    return Known(members)


def answered(credential: Credential, trust: Trust, asking: Asking, clock: Clock) -> Flow[Mapping[str, Any] | None]:
    """What the authority says of *credential*: the members of its answer, ``None`` for "not active".

    An answer that is none is an outage, not a verdict: its 401 means that our credentials are wrong (I-17 to I-20).
    """
    issuer, settings = trust.issuer, asking.settings
    endpoint = settings.endpoint
    if endpoint is not None and settings.dialect is Dialect.GOOGLE_TOKENINFO:
        return (yield from informed(credential, endpoint, trust, asking, clock))
    if endpoint is None:
        metadata = yield from discovered(trust, clock)
        endpoint = introspection.endpoint_of(metadata, settings)
    proof = introspection.proof(settings, asking.key, issuer.url, now=clock.wall(), identifier=asking.new_id())
    answer = yield from ask(
        Send(
            url=endpoint,
            authority=issuer.url,
            accept=introspection.SIGNED if settings.signed else introspection.JSON,
            form=introspection.question(credential.token, proof, settings.token_type_hint),
            authorization=proof.authorization,
            timeout=settings.timeout,
            retries=settings.retries,
        )
    )
    if answer.status in (400, 401, 403):
        raise AuthorityUnavailable(
            Reason.AUTHORITY_ANSWERED_NONSENSE,
            issuer.url,
            url=endpoint,
            status=answer.status,
            problem=introspection.COMPLAINTS[answer.status],
        )
    try:
        if not settings.signed:
            return introspection.read_answer(_json_body(answer, endpoint, issuer.url, clock))
        _check_status(answer, endpoint, issuer.url, clock)
        signed = introspection.read_signed(answer.body, answer.headers, issuer, settings, clock.wall())
        yield from verify_signature(signed, trust, clock)
        return introspection.active_members(signed.claims["token_introspection"])
    except (introspection.MalformedAnswer, InvalidToken) as error:
        problem = f"its answer cannot be used: {error}"
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, issuer.url, url=endpoint, problem=problem)


def informed(
    credential: Credential, endpoint: str, trust: Trust, asking: Asking, clock: Clock
) -> Flow[Mapping[str, Any] | None]:
    """What Google's tokeninfo says of *credential*, in the words of RFC 7662; ``None`` for "not active", its 400.

    By POST with the token as the bearer, as Google's own client library asks: a token in a URL ends up in logs.
    """
    answer = yield from ask(
        Send(
            url=endpoint,
            authority=trust.issuer.url,
            form=(),
            authorization=f"Bearer {credential.token}",
            timeout=asking.settings.timeout,
            retries=asking.settings.retries,
        )
    )
    if answer.status == 400 and tokeninfo.is_refusal(answer.body):
        return None
    try:
        return tokeninfo.read(_json_body(answer, endpoint, trust.issuer.url, clock), clock.wall())
    except tokeninfo.MalformedInfo as error:
        problem = str(error)
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, trust.issuer.url, url=endpoint, problem=problem)


def status_checked(access: AccessToken, trust: Trust, clock: Clock) -> Flow[None]:
    """Return if *access* names no status list, or one that calls it valid (draft-ietf-oauth-status-list, experimental).

    Only for tokens that were found good in every other way (K-01). A status that cannot be had is an outage, unless
    the configuration prefers to let such tokens in; the flight has then told the operator's log why.
    """
    policy, statuses = trust.issuer.experimental_status_list, trust.statuses
    if policy is None or statuses is None:
        return
    named = status_list.reference(access.claims, policy.origins(trust.issuer.url))
    if named is None:
        return
    try:
        found = yield from status_list_at(named.uri, trust, policy, statuses, clock)
    except AuthorityUnavailable:
        if not policy.fail_open_dangerously:
            raise
        return
    status_list.check(found, named.index)


def status_list_at(
    uri: str, trust: Trust, policy: StatusListPolicy, statuses: Statuses, clock: Clock
) -> Flow[status_list.StatusList]:
    """The list under *uri*: the one that is held, while it is fresh, and until its end while no other can be had."""
    held = statuses.lookup(uri, clock.monotonic())

    def fly() -> Flow[tuple[str, ...]]:
        try:
            found, published, max_age = yield from fetch_status_list(uri, trust, policy, clock)
        except Exception as error:  # a bug in somebody's transport is paced as well: everybody would run into it
            asked = error.retry_after if isinstance(error, AuthorityUnavailable) else None
            statuses.fail(uri, clock.monotonic(), retry_after=asked)
            raise
        statuses.absorb(
            uri, found, clock.monotonic(), ttl=published.ttl, expires_in=published.expires_in, max_age=max_age
        )
        return ()

    if held.due:
        flight = SingleFlight(
            key=f"status list {uri} of {trust.issuer.url}",
            authority=trust.issuer.url,
            needed=lambda: statuses.generation(uri) == held.generation,
            flow=fly,
        )
        try:
            yield from ask(flight)
        except AuthorityUnavailable:
            if statuses.lookup(uri, clock.monotonic()).status_list is None:
                raise
        held = statuses.lookup(uri, clock.monotonic())
    if held.status_list is None:
        raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, trust.issuer.url, retry_after=held.pause)
    return held.status_list


def fetch_status_list(
    uri: str, trust: Trust, policy: StatusListPolicy, clock: Clock
) -> Flow[tuple[status_list.StatusList, status_list.Published, float | None]]:
    """The list that *uri* answers with, signed by a key of the issuer; what it says of itself; its ``max-age``.

    Whatever else comes is an outage (K-04 to K-09): nothing was said about any token. No redirect is followed (K-17).
    """
    authority = trust.issuer.url
    answer = yield from ask(
        Send(
            url=uri,
            authority=authority,
            accept=status_list.MEDIA_TYPE,
            limit=policy.max_bytes,
            timeout=policy.timeout,
        )
    )
    _check_status(answer, uri, authority, clock)
    try:
        published = status_list.read(answer.body, answer.headers, uri, trust.issuer, clock.wall())
        yield from verify_signature(published.token, trust, clock)
        return status_list.unfolded(published, policy.max_bytes), published, lifetime(answer.headers)
    except (status_list.MalformedStatusList, InvalidToken) as error:
        problem = f"its status list cannot be used: {error}"
    raise AuthorityUnavailable(Reason.AUTHORITY_ANSWERED_NONSENSE, authority, url=uri, problem=problem)


def unrevoked(access: AccessToken, credential: Credential, trusts: Trusts, clock: Clock) -> Flow[None]:
    """Return if nobody has revoked *access*; with a shared store, as of a second ago at most.

    When the store does not answer, nobody knows: that is an outage, unless the configuration prefers what was known.
    """
    revocations = trusts.revocations
    if trusts.shared:
        age = clock.monotonic() - revocations.synced_at
        if age >= revocations.max_lag:
            try:
                yield from synced(trusts, clock)
            except AuthorityUnavailable:
                if not revocations.fail_open_dangerously:
                    raise
        elif age >= revocations.max_lag / 2:
            yield from synced(trusts, clock, wait=False)
    if not len(revocations):
        return
    jti = access.claims.get("jti")
    bearer = Bearer(
        issuer=access.issuer,
        token=unchangeable(credential),
        jti=jti if isinstance(jti, str) else None,
        subject=access.subject,
        client_id=access.client_id,
        issued_at=access.issued_at,
    )
    if revocations.covers(bearer):
        raise InvalidToken(Reason.TOKEN_REVOKED)


def unchangeable(credential: Credential) -> str:
    """What of a token is the same however its holder writes it: of a JWT, all but the signature.

    From an ECDSA signature (r, s) anybody makes (r, n - s), which is as good: a revocation of the whole text would
    miss that one.
    """
    try:
        jwt.peek(credential.token)
    except InvalidToken:
        return credential.token
    return credential.token.rpartition(".")[0]


def synced(trusts: Trusts, clock: Clock, *, wait: bool = True) -> Flow[None]:
    """Read what others have revoked since last time, unless somebody has just done so."""
    revocations = trusts.revocations
    seen = revocations.generation

    def read() -> Flow[tuple[str, ...]]:
        pause = revocations.breaker.pause(clock.monotonic())
        if pause > 0:
            raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=pause)
        # Taken before reading: what is revoked meanwhile is read next time.
        now = clock.monotonic()
        try:
            following, entries = yield from ask(UseStore(lambda store: store.read(revocations.position)))
            while following != revocations.position:  # a long log comes in parts; those that came are not read again
                for entry in map(Revocation.from_bytes, entries):
                    if entry is not None:
                        revocations.add(entry, clock.wall())
                revocations.position = following
                following, entries = yield from ask(UseStore(lambda store: store.read(revocations.position)))
        except AuthorityUnavailable:
            revocations.breaker.failed(clock.monotonic())
            revocations.sync_failed()
            raise
        revocations.breaker.succeeded()
        revocations.synced(now)
        return ()

    yield from ask(
        SingleFlight(
            key="revocations",
            authority="the shared store",
            needed=lambda: revocations.generation == seen,
            flow=read,
            wait=wait,
        )
    )
    if wait and clock.monotonic() - revocations.synced_at >= revocations.max_lag:
        raise AuthorityUnavailable(Reason.STORE_UNAVAILABLE, "the shared store", retry_after=1.0)


def _json_body(answer: Answer, url: str, authority: str, clock: Clock) -> bytes:
    """The body of a 200 with a JSON content type; anything else is an outage, never a verdict on a token."""
    _check_status(answer, url, authority, clock)
    if not is_json(answer.headers):
        raise AuthorityUnavailable(
            Reason.AUTHORITY_ANSWERED_NONSENSE,
            authority,
            url=url,
            problem="the answer is not JSON, its content type is " + repr(answer.headers.get("content-type", "")),
        )
    return answer.body


def _check_status(answer: Answer, url: str, authority: str, clock: Clock) -> None:
    if answer.status != 200:
        busy = answer.status in (408, 429) or answer.status >= 500
        raise AuthorityUnavailable(
            Reason.AUTHORITY_UNREACHABLE if busy else Reason.AUTHORITY_ANSWERED_NONSENSE,
            authority,
            retry_after=retry_after(answer.headers, clock.wall()),
            url=url,
            status=answer.status,
        )
