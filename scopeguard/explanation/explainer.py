"""Explains a request: the engine decides, and each check of the table is performed on its own.

The engine stops at the first fault. The explanation goes on with the same functions as far as possible. Without a
trusted issuer, for example, it fetches no key.

Longer than 400 lines because all checks of a request share what the checks before them have found.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from scopeguard.config.token_sources import TokenSource, TokenSources
from scopeguard.config.validation import Validation
from scopeguard.core.decision import Decision, Denied, Granted, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.edge import aio
from scopeguard.edge.runtime import Runtime
from scopeguard.errors import AuthorityUnavailable, ConfigurationError, InvalidToken
from scopeguard.explanation.collector import Collector, Refusal
from scopeguard.explanation.offline import Offline
from scopeguard.explanation.order_of_checks import BY_NAME, CHECKS, OF_ANSWERS, OF_JWTS, OUTAGES, OWNER
from scopeguard.explanation.probes import PROBES, Content, applies
from scopeguard.explanation.result import Explanation, Outcome, Verdict
from scopeguard.explanation.route import Route
from scopeguard.explanation.shown_values import TEXTS, list_values, show
from scopeguard.flow.credentials import Credential
from scopeguard.flow.introspection_requests import ask_authority
from scopeguard.flow.issuers import find_issuer, has_keys, parse
from scopeguard.flow.keys import verify_signature
from scopeguard.flow.possession import check_possession
from scopeguard.log_values import fingerprint
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.rules import PUBLIC, Rules
from scopeguard.scopes import Requirement
from scopeguard.spec import api_key, introspection, jwt
from scopeguard.spec.sender_constraint import certificate_of, thumbprint_of
from scopeguard.spec.spiffe import trust_domain_of
from scopeguard.state.issuers import IssuerRecord
from scopeguard.tokens import AccessToken, Unverified

_FIRST: Final = ("message", "credentials", "encryption", "api_key", "form", "issuer")
_SIGNATURE: Final = ("keys", "key", "signature")
_LAST: Final = ("revocation", "proof", "replay", "rule", "scopes", "conditions", "policy", "renewal")
_ORDER: Final = {
    "jwt": (*_FIRST, *OF_JWTS, *_SIGNATURE, *_LAST),
    "opaque": (*_FIRST, "introspection", *OF_ANSWERS, *_SIGNATURE, *_LAST),
}


class Explainer:
    """Explains *request*. Its route has *requirement*, or else the rule in *rules* that matches.

    * *sources*: where the request has its token, instead of the places where the route takes tokens.
    * *offline*: fetch nothing, so that the signature is not checked unless the keys are local. Only for an engine that
      serves no requests: it takes each fetch for one that failed, and pauses the next one.
    """

    def __init__(
        self,
        engine: Engine,
        request: RequestView,
        requirement: Requirement | None = None,
        *,
        rules: Rules | None = None,
        sources: TokenSources | None = None,
        offline: bool = False,
    ) -> None:
        self.engine: Engine = engine.without_effects()
        if offline:
            none = Offline()
            self.engine.runtime = Runtime(transport=none, clock=engine.clock, store=none)
        self.request: RequestView = request
        self.offline: bool = offline
        self.now: float = engine.clock.wall()
        self.route: Route = Route.find(rules, requirement, request)
        self.sources: TokenSources = sources or self.route.sources(engine.sources)
        self.error: Refusal | None = None
        self.results: Collector = Collector(offline=offline)
        self.credential: Credential | None = None
        self.token: Unverified | None = None
        self.record: IssuerRecord | None = None
        self.access: AccessToken | None = None
        self.is_trusted: bool = False  # the record is that of the token's issuer, not the nearest one
        self.nearest: str | None = None
        self.is_completed: bool = False  # explain() has named a check for a reason that none found

    def explain(self) -> Explanation:
        """Return the explanation. Raises no error because of the content of the request.

        Raises :class:`ConfigurationError` if an async function decides about the route: use :meth:`aexplain`.
        """
        keys = self.engine.settings.api_keys
        if self.sources.in_api_key and keys is not None and keys.is_async:
            raise ConfigurationError("explain: an async function looks API keys up; use aexplain")
        if any(policy.is_async for policy in self.route.policies):
            raise ConfigurationError("explain: an async function decides about this route; use aexplain")
        return self._explain(self.engine.check(self.request, **self._arguments()))

    async def aexplain(self) -> Explanation:
        """:meth:`explain` for asyncio and trio. The checks are performed in a worker thread."""
        decision = await self.engine.acheck(self.request, **self._arguments())
        return await aio.run_in_thread(partial(self._explain, decision))

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments with which the engine decides."""
        route = self.route
        return {
            "requirement": route.requirement,
            "optional": route.is_optional,
            "closed": route.is_closed,
            "sources": self.sources,
            "on_credential": self._set_credential,
            "policies": route.policies,
            "dpop": route.dpop,
        }

    def _set_credential(self, credential: Credential) -> None:
        self.credential = credential

    def _explain(self, decision: Decision) -> Explanation:
        """Perform the checks. *decision* is that of the engine."""
        self.error = decision.error if isinstance(decision, Denied | Unavailable) else None
        if isinstance(decision, Granted):
            self.access = decision.access_token
        if self._find_credential():
            if self.credential is not None and self.credential.source is TokenSource.API_KEY:
                self._check_api_key(self.credential)
            elif self._parse() and self._find_issuer():
                self._check_content()
        self._check_possession()
        self._check_route()
        self._add_decisive_check()
        return self._result()

    # -- the token

    def _find_credential(self) -> bool:
        credential, error, sources = self.credential, self.error, self.sources
        wanted = f"one {'API key' if sources.only_api_keys else 'token'} in: {list_values(sorted(sources.methods))}"
        if credential is None:
            if error is None:  # an anonymous caller, where one is allowed
                return self.results.skip("credentials", "the route allows requests without a token", wanted=wanted)
            name = OWNER[error.reason]
            name = name if name in ("encryption", "api_key") else "credentials"
            return self.results.add(name, Outcome.FAILED, error, found="no usable token", wanted=wanted)
        scheme = "DPoP" if credential.is_dpop else "Bearer"
        place = f"the field {credential.header}" if credential.header else f"{credential.source.value}, {scheme}"
        self.results.add("credentials", Outcome.PASSED, found=place, wanted=wanted)
        if error is not None and error.reason is Reason.HTTPS_REQUIRED:
            self.results.add("encryption", Outcome.FAILED, error, found="http", wanted="https")
        elif self.engine.settings.require_https:
            self.results.add("encryption", Outcome.PASSED, wanted="https, except from this machine")
        return True

    def _check_api_key(self, credential: Credential) -> None:
        keys = self.engine.settings.api_keys
        found = f"key id {api_key.id_of(credential.token)}"
        wanted = "" if keys is None else f"a key of {keys.title}"
        error = self.error
        if error is None or OWNER[error.reason] != "api_key":
            self.results.add("api_key", Outcome.PASSED, found=found, wanted=wanted)
            state = self.engine.context.api_keys
            key = None if state is None else state.find(api_key.id_of(credential.token), self.engine.clock.monotonic())
            if state is not None and key is not None:
                self.access = state.grantor.grant(key)
        elif isinstance(error, AuthorityUnavailable):
            self.results.add_outage("api_key", error, found=found, wanted=wanted)
        else:
            self.results.add("api_key", Outcome.FAILED, error, found=found, wanted=wanted)

    def _parse(self) -> bool:
        credential, issuers = self.credential, self.engine.issuers
        if credential is None:
            return False
        size, wanted = f"{len(credential.token)} characters", "a JWT: three segments of base64url"
        try:
            self.token = issuers.peek(credential.token, credential.header)
        except InvalidToken:
            # It may be opaque, for an issuer that introspects such tokens.
            return self.results.run(
                "form", lambda: parse(credential, issuers), found=f"not a JWT, {size}",
                wanted=f"{wanted}, or an opaque token" if issuers.takes_opaque else wanted,
            )  # fmt: skip
        return self.results.add("form", Outcome.PASSED, found=f"a JWT, {size}", wanted=wanted)

    def _find_issuer(self) -> bool:
        credential, context, issuers = self.credential, self.engine.context, self.engine.issuers
        if credential is None:
            return False
        claims: Any = {} if self.token is None else self.token.claims
        iss = claims.get("iss")
        found = "an opaque token" if self.token is None else "iss absent" if iss is None else show(iss)
        if issuers.trust_domains and trust_domain_of(claims) is not None:
            found = f"sub {show(claims['sub'])}"
        wanted = (
            list_values((record.issuer.url for record in issuers.all), " or ") or "an issuer that the resolver finds"
        )

        def find() -> None:
            record, token = parse(credential, issuers)
            self.record = record or self.engine.perform(find_issuer(token, credential, context))

        self.is_trusted = self.results.run("issuer", find, found=found, wanted=wanted)
        if self.is_trusted:
            return True
        nearest = issuers.nearest(iss, credential.header) if isinstance(iss, str) else {}
        alike = [record for record in issuers.all if record.issuer.url == nearest.get("configured")]
        if not alike and len(issuers.all) == 1:
            alike = list(issuers.all)
        if not alike or self.token is None:
            return False
        self.record, self.nearest = alike[0], alike[0].issuer.url
        return True

    def _check_content(self) -> None:
        token, record = self.token, self.record
        if record is None or self.credential is None:
            return
        if token is None or record.issuer.validate is Validation.INTROSPECTION:
            self._introspect(self.credential, record)
            return
        content = Content(token=token, issuer=record.issuer, now=self.now)
        self._check_claims(content, OF_JWTS)
        self._check_signature(token, record)
        self._check_revocation((*OF_JWTS, *_SIGNATURE))

    def _check_claims(self, content: Content, names: Iterable[str]) -> None:
        for name in names:
            if name == "issuer_claim" and not self.is_trusted:
                continue  # another check describes this
            probe = PROBES[name]
            found, wanted = (text(content) for text in TEXTS[name])
            self.results.run(name, partial(probe, content), found=found, wanted=wanted)
            if self.results.checks[name].outcome is not Outcome.FAILED and not applies(name, content):
                del self.results.checks[name]
        record = self.record
        if self.access is None and record is not None:
            try:
                self.access = jwt.accept(content.token, content.issuer, record.vocabulary)
            except (InvalidToken, TypeError, ValueError, OverflowError):
                pass  # a claim has the wrong form, as a check above says

    def _check_signature(self, token: Unverified, record: IssuerRecord) -> None:
        if not self.is_trusted or self.results.has_not_passed(("algorithm", "header")):
            why = "the header of the token is refused" if self.is_trusted else "no key may be fetched for this issuer"
            for name in _SIGNATURE[1:]:
                self.results.skip(name, why)
            return
        error = self.error
        # Do not repeat what the engine has done, because a repeated fetch may be refused.
        if error is None or OWNER[error.reason] not in _SIGNATURE or self.results.has_not_passed(OF_JWTS):
            error = self._verify(token, record)
        place, keys = self._key_place(record)
        kid = f"kid={show(token.header['kid'])}" if "kid" in token.header else "no kid"
        texts = {
            "keys": (place, "a JWK Set"),
            "key": (f"{kid}, {show(token.header.get('alg'))}", keys),
            "signature": (f"{len(token.signature)} bytes", "made with the signing key"),
        }
        failing = _SIGNATURE.index(OWNER[error.reason]) if error is not None else len(_SIGNATURE)
        for number, name in enumerate(_SIGNATURE):
            found, wanted = texts[name]
            if number > failing:
                self.results.skip(name, "not checked without the key", found=found, wanted=wanted)
            elif number < failing or error is None:
                self.results.add(name, Outcome.PASSED, found=found, wanted=wanted)
            elif isinstance(error, AuthorityUnavailable):
                self.results.add_outage(name, error, found=found, wanted=wanted)
            else:
                self.results.add(name, Outcome.FAILED, error, found=found, wanted=wanted)

    def _verify(self, token: Unverified, record: IssuerRecord) -> Refusal | None:
        try:
            self.engine.perform(verify_signature(token, record, self.engine.clock))
        except (InvalidToken, AuthorityUnavailable) as error:
            return error
        return None

    def _key_place(self, record: IssuerRecord) -> tuple[str, str]:
        """Return the place that the keys come from, and the keys."""
        issuer, now = record.issuer, self.engine.clock.monotonic()
        metadata = record.cached_metadata(now, has_keys)
        place = issuer.jwks_file or record.jwks_uri or issuer.key_url_template
        if place is None:
            place = "the configuration" if issuer.keys is not None else None if metadata is None else metadata.jwks_uri
        known = [key for each in (record, *record.others) for key in getattr(each.ring.key_set, "keys", ())]
        kids = list_values(f"{key.kid or 'no kid'} ({' '.join(sorted(key.algorithms))})" for key in known)
        return show(place or f"the metadata of {issuer.url}"), f"one of {kids}" if kids else "a key of the issuer"

    def _introspect(self, credential: Credential, record: IssuerRecord) -> None:
        state, clock = record.introspection, self.engine.clock
        if state is None or not self.is_trusted:
            return
        answers: list[Any] = []

        def ask() -> None:
            known = state.cache.lookup(introspection.digest(credential.token, state.context), clock.monotonic())
            error = self.error
            if known is None and error is not None and error.reason in OUTAGES:
                raise error  # the engine got no answer a moment ago
            flow = ask_authority(credential, record, state, clock)
            answers.append(known.members if known is not None else self.engine.perform(flow))
            if answers[0] is None:
                raise InvalidToken(Reason.TOKEN_NOT_ACTIVE)

        place = show(state.settings.endpoint or f"the introspection endpoint of {record.issuer.url}")
        if not self.results.run("introspection", ask, found=place, wanted='"active": true'):
            return
        self.results.add("introspection", Outcome.PASSED, found=f"active, says {place}", wanted='"active": true')
        described = introspection.as_claims(answers[0], fingerprint(credential.token))
        content = Content(
            token=described, issuer=record.issuer, now=self.now, introspected=True,
            audience_required=state.settings.require_audience,
        )  # fmt: skip
        self._check_claims(content, OF_ANSWERS)
        self._check_revocation(OF_ANSWERS)

    def _check_revocation(self, before: Iterable[str]) -> None:
        engine, record, error = self.engine, self.record, self.error
        lists = record is not None and record.status_lists is not None
        if not (engine.settings.revocable or engine.issuers.revocations.changes or lists):
            return
        if self.results.has_not_passed(before):
            self.results.skip("revocation", "checked for tokens that pass the checks above")
        elif error is not None and error.reason in BY_NAME["revocation"].reasons | BY_NAME["revocation"].shared:
            if isinstance(error, AuthorityUnavailable):
                self.results.add_outage("revocation", error)
            else:
                self.results.add("revocation", Outcome.FAILED, error)
        else:
            self.results.add("revocation", Outcome.PASSED)

    def _check_possession(self) -> None:
        access, credential = self.access, self.credential
        # Use an engine whose memory of proofs is empty: the decision has stored this proof in the memory of the first.
        engine = self.engine.without_effects()
        possession = engine.context.possession
        if possession is None or credential is None:
            return
        proofs = len(self.request.headers.get_all("dpop"))
        found = f"{proofs or 'no'} DPoP proof{'s' if proofs > 1 else ''}"
        claims = {} if access is None else access.claims
        wanted = (
            "a DPoP proof by the key of cnf.jkt" if thumbprint_of(claims) is not None
            else "the client certificate of cnf.x5t#S256" if certificate_of(claims) is not None
            else "none, for a token that is bound to no key" if access is not None else ""
        )  # fmt: skip
        if access is None:
            self.results.skip("proof", "checked for tokens that can be read", found=found)
            return
        mode = engine.issuers.dpop_mode(access.issuer, engine.clock.monotonic())
        flow = check_possession(
            access, credential, self.request, mode, self.route.dpop, possession, engine.clock
        )  # fmt: skip
        self.results.run("proof", lambda: engine.perform(flow), found=found, wanted=wanted)
        if proofs:
            self.results.skip("replay", "an explanation does not mark proofs as used, and does not look for used ones")

    def _check_route(self) -> None:
        engine = self.engine
        leeway = 0.0
        if self.access is not None:
            leeway = engine.issuers.leeway(self.access.issuer, engine.clock.monotonic())
        self.route.check(self.results, self.access, self.now, leeway, self.error)

    # -- the result

    def _add_decisive_check(self) -> None:
        """Mark the check for which the engine refuses. Its verdict counts, even if no check found the reason."""
        error = self.error
        if error is None or self.route.access is PUBLIC or (self.offline and isinstance(error, AuthorityUnavailable)):
            return
        checks = self.results.checks
        failing = (Outcome.FAILED, Outcome.UNDECIDED)
        chosen = [
            name
            for name in self._order()
            if name in checks and checks[name].reason is error.reason and checks[name].outcome in failing
        ]
        if not chosen:
            self.is_completed = True
            others = [kind.name for kind in CHECKS if error.reason in kind.shared and kind.name in checks]
            unknown = [name for name in others if checks[name].outcome is Outcome.NOT_CHECKED]
            chosen = unknown or [OWNER[error.reason]]
            before = checks.get(chosen[0])
            self.results.add(
                chosen[0],
                Outcome.UNDECIDED if isinstance(error, AuthorityUnavailable) else Outcome.FAILED,
                error,
                found="" if before is None else before.found,
                wanted="" if before is None else before.wanted,
            )
        self.results.mark(chosen[0])

    def _order(self) -> tuple[str, ...]:
        return _ORDER["opaque" if "introspection" in self.results.checks else "jwt"]

    def _result(self) -> Explanation:
        error, credential, route = self.error, self.credential, self.route
        verdict = Verdict.ACCEPTED
        if isinstance(error, AuthorityUnavailable):
            verdict = Verdict.UNDECIDED
        elif error is not None:
            verdict = Verdict.REFUSED
        if route.access is PUBLIC:  # the adapter does not look for a token
            verdict, error = Verdict.ACCEPTED, None
        if self.offline and isinstance(error, AuthorityUnavailable):
            error = None
        is_read = credential is not None and not self.results.has_not_passed(("form",))
        kind = None if not is_read else "opaque" if self.token is None else "jwt"
        issuer = self.record.issuer.url if self.record is not None and self.is_trusted else None
        if credential is not None and credential.source is TokenSource.API_KEY:
            keys = self.engine.settings.api_keys
            kind, issuer = "api_key", None if keys is None else keys.issuer
        return Explanation(
            verdict=verdict,
            reason=None if error is None else error.reason,
            status=None if error is None else error.status,
            method=show(self.request.method),
            path=show(self.request.path),
            rule=route.title,
            requires=route.requires,
            fingerprint=None if credential is None else fingerprint(credential.token),
            kind=kind,
            issuer=issuer,
            nearest=self.nearest,
            checks=tuple(self.results.checks[name] for name in self._order() if name in self.results.checks),
        )
