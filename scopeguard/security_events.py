"""An endpoint that receives security events from an authorization server by push delivery (RFC 8935).

When a session ends at the authorization server, its tokens are denied here: the event ``session-revoked`` of CAEP 1.0
has the effect of :meth:`Guard.revoke <scopeguard.Guard.revoke>`.

Not supported: poll delivery (RFC 8936), and creating the stream at the transmitter.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from scopeguard.adapter.asgi_messages import FormBody
from scopeguard.asgi import Receive, Scope, Send, request_view, send_response
from scopeguard.config.body_limits import LARGEST_SECURITY_EVENT
from scopeguard.config.checks import function, instance, mapping, strings
from scopeguard.config.issuer import Issuer
from scopeguard.config.token_sources import TokenSources
from scopeguard.config.validation import Validation
from scopeguard.core.revoking import record_revocation
from scopeguard.edge.aio import run_in_thread
from scopeguard.errors import AccessDenied, AuthorityUnavailable, ConfigurationError, InvalidToken
from scopeguard.flow.effects import CallHook, ask
from scopeguard.flow.keys import verify_signature
from scopeguard.guard import Guard, engine_of
from scopeguard.log_values import printable
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.spec.challenge import Response
from scopeguard.spec.jwt import peek
from scopeguard.spec.retry_after import write_retry_after
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
from scopeguard.state.log_rate_limit import LogRateLimit
from scopeguard.state.revocation import Revoked
from scopeguard.state.security_event import EventState, ProcessedEvents
from scopeguard.tokens import Unverified
from scopeguard.wsgi import Environ, StartResponse, read_form
from scopeguard.wsgi import request_view as wsgi_view

__all__ = ["SecurityEvent", "SecurityEventReceiver"]

log: Final = logging.getLogger("scopeguard")

MAX_REMEMBERED: Final = 100_000  # tokens, to recognise repetitions

# Lines about requests without the credential, which strangers can send: at once, and the seconds until the next one.
_LINES: Final = 10
_LINE_INTERVAL: Final = 10.0
_CREDENTIALS: Final = re.compile(r"[A-Za-z][A-Za-z0-9\-]* [\x21-\x7E]+")


class SecurityEventReceiver:
    """Receives the events of one transmitter about the users of one issuer, and revokes their tokens in *guard*.

    ::

        receiver = SecurityEventReceiver(guard, authorization=f"Bearer {secret}")
        routes = [Route("/events", receiver.asgi)]  # in Starlette; make the path public in a GuardMiddleware

    ``asgi`` and ``wsgi`` are the endpoint as an ASGI and as a WSGI app, for any path.

    * *guard*: the guard of the API.
    * *authorization*: the whole ``Authorization`` header that the transmitter sends (``authorization_header`` in
      SSF 1.0), as in ``"Bearer <secret>"``. Requests without it are rejected before their body is read.
    * *issuer*: the issuer of the users' tokens; required if *guard* trusts several. If a resolver finds it, pass the
      :class:`~scopeguard.Issuer` that the resolver returns. Its tokens stay revoked if the resolver finds it later.
    * *audience*: the ``aud`` of the events; by default, the audience of the issuer's access tokens.
    * *transmitter*: the signer of the events, if it is not that issuer. Its ``audience`` takes the place of *audience*.
    * *hooks*: functions by event type (a URI). Each is called with a :class:`SecurityEvent` after the effects below, in
      a thread; a coroutine function runs in an event loop of its own. If it raises, or if the store fails, the response
      is an error, the transmitter sends the event again, and the hook may be called again.
    * *critical_subject_members*: the setting of this name in the metadata of the transmitter. An event is discarded if
      its complex subject has one of these members, other than ``user``.

    Effects:

    * ``session-revoked`` revokes the tokens that the user got at ``event_timestamp`` or earlier. With *transmitter*,
      the issuer's ``leeway`` is added, because their clocks may differ.
    * ``credential-change``, ``token-claims-change`` and ``assurance-level-change`` revoke no token. Cached
      introspection answers about the user are not used any more. If the subject has an unsupported form, this applies
      to all users of the issuer.
    * Other events, and events about users of other issuers, have no effect.

    With a store, the effects reach all processes within ``RevocationPolicy.max_lag`` seconds; the clocks of the
    processes must agree.

    Checked: the credential, the signature, ``typ``, ``iss``, ``aud``, ``iat`` and ``jti``. A repeated token is
    acknowledged and has no further effect, for ``RevocationPolicy.retention`` seconds. With a store, this is so in all
    processes, unless two get the same token at the same moment.

    Raises :class:`ConfigurationError` for a wrong or contradictory setting.
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
        if not isinstance(authorization, str) or not _CREDENTIALS.fullmatch(authorization):
            raise ConfigurationError(
                'authorization: must be the whole header that the transmitter sends, such as "Bearer " and a secret; '
                "configure the same value when you create the stream at the transmitter"
            )
        if transmitter is not None and audience is not None:
            raise ConfigurationError("audience and transmitter are alternatives: a transmitter has its own audience")
        self._engine = engine = engine_of(guard)
        self._issuer = engine.add_key_source(issuer) if isinstance(issuer, Issuer) else engine.configured_issuer(issuer)
        self._transmitter = self._issuer if transmitter is None else engine.add_key_source(transmitter)
        audiences = (
            self._transmitter.issuer.audiences
            if audience is None
            else frozenset(strings(audience, "audience", empty=False))
        )
        if not audiences:
            raise ConfigurationError("audience: must be set to the aud of the events that the transmitter sends")
        self._audiences = audiences
        self._authorization = authorization.encode("ascii")
        self._hooks = dict(mapping({} if hooks is None else hooks, "hooks"))
        for name, hook in self._hooks.items():
            function(hook, f"hooks[{name!r}]", "a function that takes an event")
        self._types = frozenset((SESSION_REVOKED, *CHANGES, *self._hooks))
        self._critical = strings(critical_subject_members, "critical_subject_members", empty=False)
        self._lines = LogRateLimit(_LINES, _LINE_INTERVAL)
        self._processed = ProcessedEvents(seconds=engine.settings.revocation.retention, max_entries=MAX_REMEMBERED)
        self.asgi: _Endpoint = _Endpoint(self)

    def wsgi(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """The endpoint as a WSGI app."""
        response = self._reject(wsgi_view(environ))
        if response is None:
            try:
                token = self._parse(read_form(environ, LARGEST_SECURITY_EVENT))
                self._engine.perform(verify_signature(token, self._transmitter, self._engine.clock))
                response = self._process(token)
            except (AccessDenied, AuthorityUnavailable) as error:
                response = _write_refusal(error)
        start_response(f"{response.status} {response.reason_phrase}", list(response.headers))
        return [response.body]

    async def _asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"SecurityEventReceiver.asgi serves HTTP only, not {scope['type']}")
        response = self._reject(request_view(scope, scope["method"]))
        if response is None:
            try:
                token = self._parse(await FormBody(scope, receive, TokenSources()).read(LARGEST_SECURITY_EVENT))
                await self._engine.aperform(verify_signature(token, self._transmitter, self._engine.clock))
                response = await run_in_thread(lambda: self._process(token))
            except (AccessDenied, AuthorityUnavailable) as error:
                response = _write_refusal(error)
        headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in response.headers]
        await send_response(response, headers, scope, send)

    def _reject(self, view: RequestView) -> Response | None:
        """Return the response to a request whose body need not be read, or ``None``."""
        if view.method != "POST":
            return _error(405, "invalid_request", ("allow", "POST"))
        given = view.headers.get_all("authorization")
        if len(given) != 1 or not hmac.compare_digest(given[0], self._authorization):
            left_out = self._lines.spend("credential", self._engine.clock.monotonic())
            if left_out is not None:
                more = f" [and {left_out} more such requests since the last such line]" if left_out else ""
                log.warning("security events: the request does not contain the credential of the transmitter%s", more)
            scheme = self._authorization.partition(b" ")[0].decode("ascii")
            return _error(401, "authentication_failed", ("www-authenticate", f'{scheme} realm="security events"'))
        kinds = [kind.partition(b";")[0].strip().lower() for kind in view.headers.get_all("content-type")]
        return None if kinds == [MEDIA_TYPE.encode("ascii")] else _error(400, "invalid_request")

    def _parse(self, body: bytes) -> Unverified:
        """Return the token in *body*, checked except for its signature."""
        token = peek(body.decode("latin-1"))
        check(token, self._transmitter.issuer, self._audiences, self._engine.clock.wall())
        return token

    def _process(self, token: Unverified) -> Response:
        """Apply the events of a verified *token*, unless it is a repetition."""
        engine, name = self._engine, event_id(token)
        events = events_of(token, self._types, engine.clock.wall() + self._transmitter.issuer.leeway)
        match self._processed.begin(name, engine.clock.monotonic()):
            case EventState.DONE:
                return _ACCEPTED
            case EventState.BUSY:  # another thread may still fail, and the transmitter must then send it again
                raise AuthorityUnavailable(Reason.AUTHORITY_BACKING_OFF, self._transmitter.issuer.url, retry_after=1)
        done = False
        try:
            if engine.store is None or engine.store.get(f"event:{name}") is None:
                for event in events:
                    self._apply(event)
                if engine.store is not None:
                    engine.store.put(f"event:{name}", b"1", seconds=engine.settings.revocation.retention)
            done = True
        finally:
            self._processed.end(name, engine.clock.monotonic(), done=done)
        return _ACCEPTED

    def _apply(self, event: SecurityEvent) -> None:
        """Carry out the effects of *event*, then call its hook."""
        record = self._issuer
        if is_discarded(event, record.issuer, self._critical):
            log.warning("security events: an event is discarded because of its subject: %s", printable(event))
            return
        if event.type == SESSION_REVOKED:
            subject = subject_of(event)
            if subject is None:
                log.warning(
                    "security events: nothing is revoked, because the subject is not supported: %s", printable(event)
                )
            else:
                leeway = record.issuer.leeway
                # The clocks of the transmitter and of the issuer may differ, if these are two servers.
                at = event.at if self._transmitter is record else event.at + leeway
                record_revocation(self._engine, Revoked.SUBJECT, record.issuer.url, subject, at, leeway=leeway)
        elif event.type in CHANGES and record.issuer.validate is not Validation.JWT:
            record_revocation(self._engine, Revoked.ANSWERS, record.issuer.url, subject_of(event) or "")
        hook = self._hooks.get(event.type)
        if hook is not None:
            self._engine.perform(ask(CallHook(lambda: hook(event))))


class _Endpoint:
    """The ASGI app of *receiver*. It is an object, because Starlette expects a function to return a response."""

    def __init__(self, receiver: SecurityEventReceiver) -> None:
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._receiver._asgi(scope, receive, send)


# RFC 8935 section 2.2
_ACCEPTED: Final = Response(202, (("content-length", "0"),), b"")


def _error(status: int, code: str, *headers: tuple[str, str]) -> Response:
    """Return an error response (RFC 8935 section 2.3)."""
    body = json.dumps({"err": code, "description": DESCRIPTIONS[code]}).encode("ascii")
    common = (
        ("content-type", "application/json"),
        ("content-language", "en"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    return Response(status, (*headers, *common), body)


def _write_refusal(error: AccessDenied | AuthorityUnavailable) -> Response:
    if isinstance(error, AuthorityUnavailable):
        log.warning("security events: not checked: %s", error)
        return Response(503, (("retry-after", write_retry_after(error)), ("content-length", "0")), b"")
    log.warning("security events: refused: %s", error)
    if isinstance(error, InvalidToken):
        return _error(400, error_code(error.reason))
    return _error(error.status, "invalid_request")
