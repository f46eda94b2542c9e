"""The authorization server of a test: mints any token, good or bad, and breaks down on request."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from scopeguard.config.checks import function, items, methods, strings, text, whole
from scopeguard.config.issuer import Issuer
from scopeguard.devserver.authority import OPAQUE_PREFIX, Authority
from scopeguard.devserver.faults import Endpoint, Mode, Outage, Switch
from scopeguard.devserver.keys import KeyRing, SigningKey, compact
from scopeguard.devserver.registry import Client, ServiceAccount, TokenFormat
from scopeguard.flow.effects import Answer
from scopeguard.guard import Guard
from scopeguard.testing.clock import FakeClock
from scopeguard.testing.taking_over import taking_over
from scopeguard.testing.transport import FakeTransport, Hold

if TYPE_CHECKING:
    import httpx

log: Final = logging.getLogger("scopeguard.testing")
_told = threading.Event()


def _tell_once() -> None:
    if not _told.is_set():
        _told.set()
        log.warning("FOR TESTS ONLY: a FakeAuthority is in use; whoever holds it can make any access token")


class FakeAuthority:
    """An :class:`~scopeguard.devserver.authority.Authority` in this process, with what a test wants beside it.

    * ``url``: the issuer; ``audience``: the API under test, and the ``aud`` of what is minted.
    * ``algorithm``: what tokens are signed with. ES256, because its keys are made in no time.
    * ``clients``: beside ``client``, a client-credentials client that may have ``scopes``, and ``api``, which
      introspects for *audience*. ``service_accounts``, ``subjects``: as of the authority.
    * ``clock``: stands still unless a test moves it. ``sleep``: called with the seconds of :meth:`slow` answers.

    >>> authority = FakeAuthority(audience="https://api.test")
    >>> token = authority.mint("read write", subject="alice", client_id="app")
    >>> expired = authority.mint("read", expires_in=-60)
    >>> without_jti = authority.mint("read", claims={"jti": None})
    >>> authority.bearer("read").keys()
    dict_keys(['Authorization'])
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
        _tell_once()
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
        """The settings with which a guard trusts this authority."""
        return Issuer(self.url, audience=self.audience)

    @property
    def requests(self) -> list[str]:
        """The URLs a guard has asked for, in order; ``transport.count("jwks")`` counts those of one endpoint."""
        return self.transport.requests

    def takes_over(self, guard: Guard) -> AbstractContextManager[None]:
        """For the block, *guard* asks this authority instead of the real one, and goes by its clock.

        For apps that make their guard at module level: ``with authority.takes_over(guard):`` around the test, or in a
        fixture. The guard then trusts the keys and the introspection of this authority, has no store, and remembers no
        token, key or answer; afterwards it is as it was. Whatever holds the guard takes part: middleware, extensions,
        decorators and dependencies. Requests for any other URL fail, so that nothing reaches the network.

        Several authorities take over one after the other, and share a clock: ``FakeAuthority(..., clock=one.clock)``.
        Not for requests that are in flight when the block begins or ends.

        Raises :class:`ConfigurationError` where *guard* does not trust an issuer with the URL, the audience or the
        algorithm of this authority.
        """
        return taking_over(self, guard)

    def httpx_transport(self) -> httpx.MockTransport:
        """For ``httpx.Client(transport=...)`` and ``AsyncClient``: a client of OAuth under test fetches its tokens
        here. Faults apply; a delay does not."""
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
        expires_in: float = 3600,
        headers: Mapping[str, Any] | None = None,
        claims: Mapping[str, Any] | None = None,
        algorithm: str | None = None,
        key: SigningKey | None = None,
        token_format: TokenFormat | str = TokenFormat.JWT,
    ) -> str:
        """An access token: good as it is, and as bad as the overrides make it.

        *scope*: separated by spaces, or several; ``None`` for a token without a scope claim. *subject* is the client
        itself unless given. *headers* and *claims* replace what would be there, ``None`` removes it. *algorithm*: sign
        with a key of this authority for it, which is published from then on. *key*: sign with this one, which is not.
        *token_format*: ``"opaque"`` for one that only introspection can explain.
        """
        now = int(self.clock.wall())
        all_claims = {
            "iss": self.url,
            "exp": now + expires_in,
            "aud": self.audience if audience is None else _listed(audience),
            "sub": client_id if subject is None else subject,
            "client_id": client_id,
            "iat": now,
            "jti": secrets.token_urlsafe(12),
            "scope": scope if scope is None or isinstance(scope, str) else " ".join(scope),
        }
        content = _overridden(all_claims, claims)
        if TokenFormat(token_format) is TokenFormat.OPAQUE:
            token = OPAQUE_PREFIX + secrets.token_urlsafe(24)
        else:
            signer = key or self.key(algorithm)
            header = {"typ": "at+jwt", "alg": signer.algorithm, "kid": signer.kid}
            token = compact(_overridden(header, headers), content, signer)
        if key is None:
            self.authority.tokens.add(token, content, now)
        return token

    def bearer(self, scope: str | Iterable[str] | None = None, **overrides: Any) -> dict[str, str]:
        """Request headers with a token as :meth:`mint` makes it."""
        return {"Authorization": f"Bearer {self.mint(scope, **overrides)}"}

    def key(self, algorithm: str | None = None) -> SigningKey:
        """The key it signs with, or the one for *algorithm*: made and published when first asked for."""
        return self.authority.keys.signing(algorithm)

    # What may happen to it

    def rotate(self, *, overlap: bool | float = True) -> None:
        """Sign with a new key. The old one stays published for an hour, so many seconds, or (``False``) not at all."""
        seconds = None if overlap is True else float(overlap)
        self.authority.rotate(overlap=seconds)

    def revoke(self, token: str) -> None:
        """Introspection calls *token* inactive from now on. A JWT still verifies, because it is not introspected."""
        self.authority.tokens.revoke(token)

    def outage(self, kind: Outage | str = Outage.UNREACHABLE) -> Switch:
        """It does not answer, or (``"unavailable"``) answers 503. On at once; ``with`` ends it, so does ``.off()``."""
        return self.authority.faults.outage(kind)

    def slow(self, seconds: float) -> Switch:
        """Answers take *seconds*: one beyond the guard's timeout fails as a timeout at once."""
        return self.authority.faults.slow(seconds)

    def mode(self, endpoint: Endpoint | str, mode: Mode | str | Answer) -> Switch:
        """Make *endpoint* answer by a :class:`~scopeguard.devserver.faults.Mode`, or with a given ``Answer``."""
        return self.authority.faults.mode(endpoint, mode)

    def hold(self) -> Hold:
        """Requests stay unanswered until released: see :class:`~scopeguard.testing.transport.Hold`."""
        return self.transport.hold()

    def reset(self) -> None:
        """No faults, no tokens, no retired keys, no remembered requests."""
        self.authority.reset()
        self.transport.sends.clear()


def _listed(audience: str | Iterable[str]) -> str | list[str]:
    return audience if isinstance(audience, str) else list(audience)


def _overridden(members: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in {**members, **(overrides or {})}.items() if value is not None}
