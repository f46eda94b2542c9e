"""The authorization server of a test. It issues any token, valid or not, and fails on request."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from scopeguard.config.algorithms import DEFAULT_ALGORITHMS
from scopeguard.config.checks import function, items, methods, strings, text, whole
from scopeguard.config.issuer import Issuer
from scopeguard.devserver.authority import Authority
from scopeguard.devserver.faults import Endpoint, Mode, Outage, Switch
from scopeguard.devserver.issued_tokens import OPAQUE_PREFIX
from scopeguard.devserver.keys import KeyRing, SigningKey, compact
from scopeguard.devserver.lifetimes import TOKEN_LIFETIME
from scopeguard.devserver.registry import Client, ServiceAccount, TokenFormat
from scopeguard.flow.effects import Answer
from scopeguard.guard import Guard
from scopeguard.testing.clock import FakeClock
from scopeguard.testing.take_over import take_over
from scopeguard.testing.transport import FakeTransport, Hold

if TYPE_CHECKING:
    import httpx

    from scopeguard.testing.proofs import ProofKey

log: Final = logging.getLogger("scopeguard.testing")
_warned = threading.Event()


def _warn_once() -> None:
    if not _warned.is_set():
        _warned.set()
        log.warning("FOR TESTS ONLY: a FakeAuthority is in use; it can issue any access token")


class FakeAuthority:
    """An :class:`~scopeguard.devserver.authority.Authority` in process, with a clock and a transport for guards.

    * ``url``: the issuer. ``audience``: the API under test, and the ``aud`` of its tokens.
    * ``algorithm``: the algorithm of its signatures, ``"ML-DSA-65"`` among them. ES256 keys are quick to generate.
    * ``scopes``: the scopes that its client ``client`` may get.
    * ``clients``: further clients, besides ``client`` and ``api``. The client ``api`` may introspect tokens for
      *audience*.
    * ``service_accounts``, ``subjects``, ``jwks_max_age``: as in ``Authority``.
    * ``clock``: by default a new one, which stands still until a test moves it.
    * ``sleep``: called with the seconds of :meth:`slow`.

    >>> authority = FakeAuthority(audience="https://api.test")
    >>> token = authority.mint("read write", subject="alice", client_id="app")
    >>> expired = authority.mint("read", expires_in=-60)
    >>> without_jti = authority.mint("read", claims={"jti": None})
    >>> authority.bearer("read").keys()
    dict_keys(['Authorization'])
    >>> from scopeguard.testing import ProofKey
    >>> authority.dpop("read", key=ProofKey(), method="GET", uri="https://api.test/rows").keys()
    dict_keys(['Authorization', 'DPoP'])
    >>> with authority.outage():
    ...     pass    # a guard without keys answers 503 here
    """

    def __init__(
        self,
        url: str = "https://as.test",
        audience: str = "https://api.test",
        *,
        algorithm: str = "ES256",
        scopes: Iterable[str] = (),
        clients: Iterable[Client] = (),
        service_accounts: Iterable[ServiceAccount] = (),
        subjects: Iterable[str] = (),
        clock: FakeClock | None = None,
        sleep: Callable[[float], None] | None = None,
        jwks_max_age: int | None = None,
    ) -> None:
        text(url, "url", empty=False)
        text(audience, "audience", empty=False)
        text(algorithm, "algorithm", empty=False)
        scopes = strings(scopes, "scopes")
        clients = items(clients, "clients", "a list of Client", Client)
        subjects = strings(subjects, "subjects")
        if clock is not None:
            methods(clock, ("wall", "monotonic", "advance"), "clock")
        if sleep is not None:
            function(sleep, "sleep", "a function that takes seconds")
        if jwks_max_age is not None:
            whole(jwks_max_age, "jwks_max_age", least=0)
        _warn_once()
        self.clock: FakeClock = clock or FakeClock()
        self.client: Client = Client(client_id="client", secret="sg-secret-client", scopes=tuple(scopes))
        self.api: Client = Client(client_id="api", secret="sg-secret-api", introspects=(audience,))
        self.authority: Authority = Authority(
            url,
            audience=audience,
            clients=(self.client, self.api, *clients),
            service_accounts=service_accounts,
            subjects=subjects,
            keys=KeyRing(algorithm),
            clock=self.clock,
            jwks_max_age=jwks_max_age,
        )
        self.transport: FakeTransport = FakeTransport(self.authority, sleep=sleep)

    @property
    def url(self) -> str:
        """The issuer identifier."""
        return self.authority.issuer

    @property
    def audience(self) -> str:
        """The audience of its tokens: the API under test."""
        return self.authority.audience

    @property
    def issuer(self) -> Issuer:
        """The settings with which a guard trusts this authority: the default ones, and its algorithm."""
        algorithm = self.authority.keys.algorithm
        more = () if algorithm in DEFAULT_ALGORITHMS else (algorithm,)
        return Issuer(self.url, audience=self.audience, algorithms=(*DEFAULT_ALGORITHMS, *more))

    @property
    def requests(self) -> list[str]:
        """The URLs that guards have requested, in order. ``transport.count("jwks")`` counts those of one endpoint."""
        return self.transport.requests

    def takes_over(self, guard: Guard) -> AbstractContextManager[None]:
        """Connect *guard* to this authority and its clock for the length of a ``with`` block.

        It is for apps that create their guard at module level, and for everything that uses that guard: middleware,
        extensions, decorators and dependencies. Inside the block, the guard uses the keys and the introspection of this
        authority. It has no store, begins with empty caches, and its requests to other URLs fail. After the block it
        has its previous state.

        Blocks of several authorities may be nested. The authorities must share a clock:
        ``FakeAuthority(..., clock=one.clock)``. No request may be in flight when a block begins or ends.

        Raises :class:`ConfigurationError` if *guard* does not trust an issuer with the URL, the audience and the
        algorithm of this authority.
        """
        return take_over(self, guard)

    def httpx_transport(self) -> httpx.MockTransport:
        """Return a transport for ``httpx.Client`` and ``AsyncClient``, for tests of OAuth clients.

        Requests to other hosts fail. Faults apply, except the delay of :meth:`slow`.
        """
        from scopeguard.testing.httpx_transport import mock_transport

        return mock_transport(self.authority)

    # Tokens

    def mint(
        self,
        scope: str | Iterable[str] | None = None,
        *,
        client_id: str = "client",
        subject: str | None = None,
        audience: str | Iterable[str] | None = None,
        expires_in: float = TOKEN_LIFETIME,
        headers: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        algorithm: str | None = None,
        key: SigningKey | None = None,
        token_format: TokenFormat | str = TokenFormat.JWT,
        bound_to: ProofKey | None = None,
    ) -> str:
        """Issue an access token. It is valid unless the arguments make it invalid: none of them is checked.

        * *scope*: one string with spaces, or several strings; ``None`` leaves the claim out.
        * *subject*: by default the client.
        * *audience*: by default that of this authority.
        * *expires_in*: the lifetime in seconds. A negative one gives an expired token.
        * *headers*, *claims*: replace or add members. ``None`` as a value removes a member.
        * *algorithm*: sign with this authority's key for it, which is generated and published on first use.
        * *key*: sign with this key, which is not published.
        * *token_format*: ``"jwt"``, or ``"opaque"`` for a token that guards must introspect.
        * *bound_to*: bind the token to this key of a client (``cnf`` with ``jkt``, RFC 9449 section 6).
        """
        now = int(self.clock.wall())
        all_claims = {
            "iss": self.url,
            "exp": now + expires_in,
            "aud": self.audience if audience is None else _audience_claim(audience),
            "sub": client_id if subject is None else subject,
            "client_id": client_id,
            "iat": now,
            "jti": secrets.token_urlsafe(12),
            "scope": scope if scope is None or isinstance(scope, str) else " ".join(scope),
            **({} if bound_to is None else bound_to.confirmation),
        }
        content = _override(all_claims, claims)
        if TokenFormat(token_format) is TokenFormat.OPAQUE:
            token = OPAQUE_PREFIX + secrets.token_urlsafe(24)
        else:
            signer = key or self.key(algorithm)
            header = {"typ": "at+jwt", "alg": signer.algorithm, "kid": signer.kid}
            token = compact(_override(header, headers), content, signer)
        if key is None:
            self.authority.tokens.add(token, content, now)
        return token

    def bearer(self, scope: str | Iterable[str] | None = None, **overrides: Any) -> dict[str, str]:
        """Return request headers with a token from :meth:`mint`, which takes the same arguments."""
        return {"Authorization": f"Bearer {self.mint(scope, **overrides)}"}

    def dpop(
        self,
        scope: str | Iterable[str] | None = None,
        *,
        key: ProofKey,
        method: str,
        uri: str,
        nonce: str | None = None,
        **overrides: Any,
    ) -> dict[str, str]:
        """Return the headers of one request with a token that is bound to *key*, and a proof of that key (RFC 9449).

        * *method*, *uri*: what the proof covers. Its time is that of the clock.
        * *nonce*: the value of ``DPoP-Nonce`` that the API has sent, if it demands one.

        Everything else goes to :meth:`mint`. For a bad proof, use :meth:`ProofKey.headers
        <scopeguard.testing.ProofKey.headers>`.
        """
        token = self.mint(scope, bound_to=key, **overrides)
        return key.headers(token, method, uri, at=self.clock.wall(), claims={"nonce": nonce})

    def key(self, algorithm: str | None = None) -> SigningKey:
        """Return the signing key, or that for *algorithm*. It is generated and published on first use."""
        return self.authority.keys.signing_key(algorithm)

    # Events and faults

    def rotate(self, *, overlap: bool | float = True) -> None:
        """Sign with a new key. The old one stays published for *overlap* seconds, by default an hour.

        ``overlap=False`` removes it at once.
        """
        seconds = None if overlap is True else float(overlap)
        self.authority.rotate(overlap=seconds)

    def revoke(self, token: str) -> None:
        """Make introspection report *token* as inactive. A guard that verifies JWTs locally still accepts a JWT."""
        self.authority.tokens.revoke(token)

    def outage(self, kind: Outage | str = Outage.UNREACHABLE) -> Switch:
        """Begin an outage: requests fail, or get a 503 with *kind* ``"unavailable"``.

        It ends with the ``with`` block or with ``.off()``.
        """
        return self.authority.faults.outage(kind)

    def slow(self, seconds: float) -> Switch:
        """Delay answers by *seconds*. A delay beyond the guard's timeout fails at once, as a timeout."""
        return self.authority.faults.slow(seconds)

    def mode(self, endpoint: Endpoint | str, mode: Mode | str | Answer) -> Switch:
        """Make *endpoint* answer as a :class:`~scopeguard.devserver.faults.Mode` says, or with a given ``Answer``."""
        return self.authority.faults.mode(endpoint, mode)

    def hold(self) -> Hold:
        """Hold requests back until they are released: see :class:`~scopeguard.testing.transport.Hold`."""
        return self.transport.hold()

    def reset(self) -> None:
        """Switch all faults off, and forget tokens, retired keys and recorded requests."""
        self.authority.reset()
        self.transport.sends.clear()


def _audience_claim(audience: str | Iterable[str]) -> str | list[str]:
    return audience if isinstance(audience, str) else list(audience)


def _override(members: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in {**members, **(overrides or {})}.items() if value is not None}
