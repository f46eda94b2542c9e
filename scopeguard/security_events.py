"""An endpoint to which an authorization server pushes security events (RFC 8935), so that a session which ended
there ends here: CAEP's ``session-revoked`` becomes :meth:`Guard.revoke <scopeguard.Guard.revoke>`.

Not here: poll delivery (RFC 8936), and setting up the stream with the transmitter.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from scopeguard.access_token import Unverified
from scopeguard.adapter.asgi_messages import FormBody
from scopeguard.asgi import Receive, Scope, Send, request_view, send_response
from scopeguard.config.checks import function, instance, mapping, strings
from scopeguard.config.introspection import Validation
from scopeguard.config.issuer import Issuer
from scopeguard.config.sources import TokenSources
from scopeguard.edge.aio import in_thread
from scopeguard.errors import AccessDenied, AuthorityUnavailable, ConfigurationError, InvalidToken, Reason, printable
from scopeguard.flow.effects import CallHook, ask
from scopeguard.flow.keys import verify_signature
from scopeguard.guard import Guard, engine_of
from scopeguard.request import RequestView
from scopeguard.spec.challenge import Response, retry_after
from scopeguard.spec.jwt import peek
from scopeguard.spec.security_event import (
    CHANGES,
    DESCRIPTIONS,
    MEDIA_TYPE,
    SESSION_REVOKED,
    SecurityEvent,
    check,
    error_code,
    event_id,
    events_of,
    is_discarded,
    subject_of,
)
from scopeguard.state.revocation import Revoked
from scopeguard.state.seen import Before, Seen
from scopeguard.wsgi import Environ, StartResponse, read_form
from scopeguard.wsgi import request_view as wsgi_view

__all__ = ["SecurityEvent", "SecurityEventReceiver"]

log: Final = logging.getLogger("scopeguard")

MAX_BYTES: Final = 64 * 1024
MOST_REMEMBERED: Final = 100_000

_SOME_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9\-]* [\x21-\x7E]+")


class SecurityEventReceiver:
    """Takes the events that one transmitter tells of the users of one issuer, and acts on *guard*.

    * *authorization*: the whole ``Authorization`` header that the transmitter sends (SSF 1.0 calls it
      ``authorization_header``), as in ``"Bearer <secret>"``. Required: whatever lacks it costs no work.
    * *issuer*: whose tokens the events are about; needed where *guard* trusts several. For one that a resolver finds,
      its :class:`~scopeguard.Issuer`, as the resolver returns it: to look it up would take I/O, and it may be
      gone again when an event comes. What is revoked holds when the resolver finds it later as well.
    * *audience*: how the transmitter names this receiver; the audience of the issuer's access tokens by default.
    * *transmitter*: who signs the events, when it is not that issuer: its ``url``, its keys as of any
      :class:`~scopeguard.Issuer`, and its ``audience`` in place of *audience*.
    * *hooks*: functions by event type (a URI), called with a :class:`SecurityEvent` once what is said below is done.
      They run in a thread, async ones in an event loop of their own. One may be called again when it raises, or the
      shared store fails: the answer is then an error, and the transmitter sends the event again.
    * *critical_subject_members*: as in the metadata of the transmitter. Events whose complex subject has one that is
      not ``user`` are discarded.

    ``session-revoked`` revokes what was issued to the user at ``event_timestamp`` or before; where *transmitter* is
    given, whose clock is not the issuer's, the issuer's ``leeway`` is added to that. ``credential-change``,
    ``token-claims-change`` and ``assurance-level-change`` revoke nothing: what introspection said of the user before is
    not used any more, and asked about again; where the event does not say of whom it is in a way known here, that goes
    for all users of the issuer. With a store both hold in all processes within ``RevocationPolicy.max_lag``, whose
    clocks must agree. Other events, and those of users of other issuers, do nothing.

    Checked: credential, signature, ``iss``, ``aud``, ``typ``, ``iat``, ``jti``; a token that comes twice is
    acknowledged and has one effect, for ``RevocationPolicy.retention``. With a store that holds for all processes,
    unless two get the same token in the same moment.

    ``asgi`` and ``wsgi`` are the endpoint, for any path; the path must be public to a ``GuardMiddleware`` in front.
    Raises :class:`ConfigurationError`.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        authorization: str,
        issuer: str | Issuer | None = None,
        audience: str | Iterable[str] | None = None,
        transmitter: Issuer | None = None,
        hooks: Mapping[str, Callable[[SecurityEvent], object]] | None = None,
        critical_subject_members: Iterable[str] = (),
    ) -> None:
        instance(guard, Guard, "guard", "a scopeguard.Guard, as in SecurityEventReceiver(guard, ...)")
        for name, value, kind, wanted in (
            ("issuer", issuer, (str, Issuer), "the URL of an issuer or an Issuer"),
            ("transmitter", transmitter, Issuer, "an Issuer"),
        ):
            if value is not None:
                instance(value, kind, name, wanted)
        if not isinstance(authorization, str) or not _SOME_SCHEME.fullmatch(authorization):
            raise ConfigurationError(
                'authorization: the whole header that the transmitter sends, as in "Bearer " and a secret; the '
                "transmitter is told it when the stream is made"
            )
        if transmitter is not None and audience is not None:
            raise ConfigurationError("audience and transmitter are alternatives: a transmitter has its own audience")
        self._engine = engine = engine_of(guard)
        self._about = engine.add_key_source(issuer) if isinstance(issuer, Issuer) else engine.configured_issuer(issuer)
        self._record = self._about if transmitter is None else engine.add_key_source(transmitter)
        audiences = (
            self._record.issuer.audiences if audience is None else frozenset(strings(audience, "audience", empty=False))
        )
        if not audiences:
            raise ConfigurationError("audience: say how the transmitter names this receiver in the aud of its events")
        self._audiences = audiences
        self._authorization = authorization.encode("ascii")
        self._hooks = dict(mapping({} if hooks is None else hooks, "hooks"))
        for name, hook in self._hooks.items():
            function(hook, f"hooks[{name!r}]", "a function that takes an event")
        self._types = frozenset((SESSION_REVOKED, *CHANGES, *self._hooks))
        self._critical = strings(critical_subject_members, "critical_subject_members", empty=False)
        self._seen = Seen(seconds=engine.settings.revocation.retention, max_entries=MOST_REMEMBERED)
        self.asgi: _Endpoint = _Endpoint(self)

    def wsgi(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """The endpoint as a WSGI app."""
        response = self._turned_away(wsgi_view(environ))
        if response is None:
            try:
                token = self._checked(read_form(environ, MAX_BYTES))
                self._engine.perform(verify_signature(token, self._record, self._engine.clock))
                response = self._taken(token)
            except (AccessDenied, AuthorityUnavailable) as error:
                response = _refused(error)
        start_response(f"{response.status} {response.reason_phrase}", list(response.headers))
        return [response.body]

    async def _asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the receiver of security events speaks HTTP only")
        response = self._turned_away(request_view(scope, scope["method"]))
        if response is None:
            try:
                token = self._checked(await FormBody(scope, receive, TokenSources()).read(MAX_BYTES))
                await self._engine.aperform(verify_signature(token, self._record, self._engine.clock))
                response = await in_thread(lambda: self._taken(token))
            except (AccessDenied, AuthorityUnavailable) as error:
                response = _refused(error)
        headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in response.headers]
        await send_response(response, headers, scope, send)

    def _turned_away(self, view: RequestView) -> Response | None:
        """The answer to a request whose body nobody will read."""
        if view.method != "POST":
            return _error(405, "invalid_request", ("allow", "POST"))
        given = view.headers.get_all("authorization")
        if len(given) != 1 or not hmac.compare_digest(given[0], self._authorization):
            log.warning("security events: a request without the credential of the transmitter")
            scheme = self._authorization.partition(b" ")[0].decode("ascii")
            return _error(401, "authentication_failed", ("www-authenticate", f'{scheme} realm="security events"'))
        kinds = [kind.partition(b";")[0].strip().lower() for kind in view.headers.get_all("content-type")]
        return None if kinds == [MEDIA_TYPE.encode("ascii")] else _error(400, "invalid_request")

    def _checked(self, body: bytes) -> Unverified:
        token = peek(body.decode("latin-1"))
        check(token, self._record.issuer, self._audiences, self._engine.clock.wall())
        return token

    def _taken(self, token: Unverified) -> Response:
        """Act on a verified *token*, once."""
        engine, name = self._engine, event_id(token)
        events = events_of(token, self._types, engine.clock.wall() + self._record.issuer.leeway)
        match self._seen.begin(name, engine.clock.monotonic()):
            case Before.DONE:
                return _ACCEPTED
            case Before.BUSY:  # its effect may yet fail, and then it must come again
                raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, self._record.issuer.url, retry_after=1)
        done = False
        try:
            if engine.store is None or engine.store.get(f"event:{name}") is None:
                for event in events:
                    self._act(event)
                if engine.store is not None:
                    engine.store.put(f"event:{name}", b"1", seconds=engine.settings.revocation.retention)
            done = True
        finally:
            self._seen.end(name, engine.clock.monotonic(), done=done)
        return _ACCEPTED

    def _act(self, event: SecurityEvent) -> None:
        about = self._about
        if is_discarded(event, about.issuer.url, self._critical):
            log.warning("a security event is discarded, because of its subject: %s", printable(event))
            return
        if event.type == SESSION_REVOKED:
            subject = subject_of(event)
            if subject is None:
                log.warning("a security event revokes nothing, its subject is not known here: %s", printable(event))
            else:
                leeway = about.issuer.leeway
                # The transmitter's clock and the issuer's may be apart; an issuer that transmits itself has one.
                at = event.at if self._record is about else event.at + leeway
                self._engine.record_revocation(Revoked.SUBJECT, about.issuer.url, subject, at, leeway=leeway)
        elif event.type in CHANGES and about.issuer.validate is not Validation.JWT:
            self._engine.record_revocation(Revoked.ANSWERS, about.issuer.url, subject_of(event) or "")
        hook = self._hooks.get(event.type)
        if hook is not None:
            self._engine.perform(ask(CallHook(lambda: hook(event))))


class _Endpoint:
    """The ASGI app. An object, because Starlette takes a function for something that returns a response."""

    def __init__(self, receiver: SecurityEventReceiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._receiver._asgi(scope, receive, send)


_ACCEPTED: Final = Response(202, (("content-length", "0"),), b"")


def _error(status: int, code: str, *headers: tuple[str, str]) -> Response:
    """RFC 8935 section 2.3."""
    body = json.dumps({"err": code, "description": DESCRIPTIONS[code]}).encode("ascii")
    common = (
        ("content-type", "application/json"),
        ("content-language", "en"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    return Response(status, (*headers, *common), body)


def _refused(error: AccessDenied | AuthorityUnavailable) -> Response:
    if isinstance(error, AuthorityUnavailable):
        log.warning("security events: not judged: %s", error)
        return Response(503, (("retry-after", retry_after(error)), ("content-length", "0")), b"")
    log.warning("security events: refused: %s", error)
    if isinstance(error, InvalidToken):
        return _error(400, error_code(error.reason))
    return _error(error.status, "invalid_request")
