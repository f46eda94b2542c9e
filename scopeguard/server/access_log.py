"""The access log: one line for each finished request on standard output.

A line has the caller, the request, the response and the decision. It never contains a token: paths have no query, and a
token is represented by its fingerprint. Subjects, which are often people, are left out by default. Text that callers
choose, such as the path, is escaped, so that a request cannot forge a second line. The request identifier is generated
here, because callers could reuse one of theirs.

The access logs of uvicorn and waitress were considered. uvicorn's shows query strings, waitress has none, and neither
can show the decision, the client or the reason.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

from scopeguard.asgi import ASGIApp, Message, Receive, Scope, Send
from scopeguard.errors import InsufficientScope
from scopeguard.guard import Decision, DecisionEvent, Denied, Granted
from scopeguard.log_values import printable
from scopeguard.tokens import AccessToken, Anonymous
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

REQUEST_ID: Final = "scopeguard.request_id"
"""The key of the ASGI scope or the environ under which the app finds the request identifier."""

_AS_IT_IS: Final = "/:@!$&'()*+,;=~-._"
_PLAIN: Final = re.compile(r"[\w./:@%+,~-]+", re.ASCII)
_log: Final = logging.getLogger("scopeguard.access")


class Format(StrEnum):
    """The format of a line."""

    TEXT = "text"
    JSON = "json"
    OFF = "off"


class Entry:
    """The facts about one request, collected while it is served."""

    __slots__ = ("_began", "_began_at", "bytes", "client", "decision", "method", "path", "request_id", "status")

    def __init__(self, client: str | None, method: str, path: str) -> None:
        self.request_id: str = secrets.token_hex(8)
        self.client: str | None = client
        self.method: str = method
        self.path: str = path
        self.status: int | None = None
        self.bytes: int | None = 0
        self.decision: Decision | None = None
        self._began_at = dt.datetime.now(dt.UTC)
        self._began = time.monotonic()

    def count(self, data: bytes) -> None:
        """Add *data*, which is being sent, to the size of the response."""
        self.bytes = (self.bytes or 0) + len(data)

    def members(self, *, subjects: bool) -> dict[str, Any]:
        """Return the line as an object, without members that do not apply."""
        line: dict[str, Any] = {
            "time": utc(self._began_at),
            "client": None if self.client is None else printable(self.client, 64),
            "method": printable(self.method, 20),
            "path": quote(self.path, safe=_AS_IT_IS, errors="replace"),
            "status": self.status,
            "ms": round((time.monotonic() - self._began) * 1000, 1),
            "bytes": 0 if self.method == "HEAD" else self.bytes,
            **_decision_members(self.decision, subjects=subjects),
            "request_id": self.request_id,
        }
        return {name: value for name, value in line.items() if value is not None}


def _decision_members(decision: Decision | None, *, subjects: bool) -> dict[str, str | None]:
    match decision:
        case None:
            return {"decision": "public"}
        case Anonymous():
            return {"decision": "anonymous"}
        case Granted(access_token=token):
            return {"decision": "granted", **_token_members(token, subjects=subjects)}
        case Denied(error=error):
            # A token with insufficient scope was verified. Claims of other refused tokens may be forged.
            verified = error.detail if isinstance(error, InsufficientScope) else {}
            names = {"client_id": verified.get("client_id"), "token": verified.get("token")}
            return {"decision": "denied", "reason": error.reason.value, **names}
        case refusal:
            error_ = refusal.error
            return {"decision": "unavailable", "reason": error_.reason.value, "issuer": printable(error_.authority)}


def _token_members(token: AccessToken, *, subjects: bool) -> dict[str, str | None]:
    return {
        "issuer": printable(token.issuer),
        "client_id": None if token.client_id is None else printable(token.client_id),
        "subject": printable(token.subject) if subjects and token.subject is not None else None,
        "token": token.fingerprint or None,
    }


_current: Final[ContextVar[Entry | None]] = ContextVar("scopeguard_access_log", default=None)


def note(event: DecisionEvent) -> None:
    """Record the decision about the current request. Pass this function as ``Guard(on_decision=...)``.

    A later decision replaces an earlier one: a route may refuse a request that the middleware admitted.
    """
    entry = _current.get()
    if entry is not None:
        entry.decision = event.decision


class DiagnosticFormatter(logging.Formatter):
    """Formats the lines of other loggers, with the identifier of the current request.

    *format_* is that of the access log. A JSON line has ``time``, ``level``, ``logger`` and ``message``, and if they
    apply ``pid``, ``request_id`` and ``exception``. Lines of the access log have no ``level``, which distinguishes
    them. *pid* adds the process identifier, for servers with several workers.
    """

    def __init__(self, format_: Format, *, pid: bool) -> None:
        super().__init__()
        self._is_json = format_ is Format.JSON
        self._pid = pid

    def format(self, record: logging.LogRecord) -> str:
        entry = _current.get()
        members: dict[str, Any] = {
            "time": utc(dt.datetime.fromtimestamp(record.created, dt.UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process if self._pid else None,
            "request_id": None if entry is None else entry.request_id,
            "exception": self.formatException(record.exc_info) if record.exc_info else None,
        }
        if self._is_json:
            return json.dumps({name: value for name, value in members.items() if value is not None})
        process = f" [{members['pid']}]" if self._pid else ""
        request = "" if entry is None else f" request_id={entry.request_id}"
        line = f"{members['time']}{process} {members['level']} {members['message']}{request}"
        return line if members["exception"] is None else f"{line}\n{members['exception']}"


def utc(moment: dt.datetime) -> str:
    """Return *moment*, a time in UTC, in the format of log lines."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AccessLog:
    """Writes entries in one format."""

    def __init__(self, format_: Format, *, subjects: bool = False) -> None:
        self._subjects = subjects
        self._write: Callable[[dict[str, Any]], str] = json.dumps if format_ is Format.JSON else as_text
        handler = logging.StreamHandler(sys.stdout)
        _log.handlers = [handler]
        _log.propagate = False
        _log.setLevel(logging.INFO if format_ is not Format.OFF else logging.CRITICAL)

    def write(self, entry: Entry) -> None:
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", self._write(entry.members(subjects=self._subjects)))


def as_text(members: dict[str, Any]) -> str:
    """Return *members* as a line of text: common members in a fixed order, then others as ``name=value``."""
    first = [str(members.pop(name, "-")) for name in ("time", "client", "method", "path", "status")]
    first += [f"{members.pop('ms')}ms", f"{members.pop('bytes', '-')}B", members.pop("decision")]
    rest = [f"{name}={value if _PLAIN.fullmatch(value) else json.dumps(value)}" for name, value in members.items()]
    return " ".join(first + rest)


class ASGIAccessLog:
    """ASGI middleware that logs each request and websocket. An accepted websocket has status 101."""

    def __init__(self, app: ASGIApp, log: AccessLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = scope["client"][0] if scope.get("client") else None
        entry = Entry(client, scope.get("method", "WEBSOCKET"), scope["path"])
        scope[REQUEST_ID] = entry.request_id

        async def observe(message: Message) -> None:
            kind = message["type"]
            if kind.endswith("http.response.start"):
                entry.status = message["status"]
            elif kind.endswith("http.response.body"):
                entry.count(message.get("body", b""))
            elif kind == "websocket.send":
                entry.count(message.get("bytes") or (message.get("text") or "").encode("utf-8", "replace"))
            elif entry.status is None and kind in _HANDSHAKE:
                entry.status = _HANDSHAKE[kind]
            await send(message)

        reset = _current.set(entry)
        try:
            await self._app(scope, receive, observe)
        except Exception:
            entry.status = entry.status or 500  # the server answers 500
            raise
        finally:
            _current.reset(reset)
            self._log.write(entry)


_HANDSHAKE: Final = {"websocket.accept": 101, "websocket.close": 403}


class WSGIAccessLog:
    """WSGI middleware that logs each request."""

    def __init__(self, app: WSGIApp, log: AccessLog) -> None:
        self._app = app
        self._log = log

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
        # The path is read before the app runs, because frameworks move parts of it into SCRIPT_NAME.
        entry = Entry(environ.get("REMOTE_ADDR"), environ["REQUEST_METHOD"], environ.get("SCRIPT_NAME", "") + path)
        environ[REQUEST_ID] = entry.request_id
        file_wrapper = environ.get("wsgi.file_wrapper")
        length: list[str] = []

        def observe(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], Any]:
            entry.status = int(status[:3])
            length[:] = [value for name, value in headers if name.lower() == "content-length" and value.isdigit()]
            write: Callable[[bytes], Any] = start_response(status, headers, *rest)

            def count_and_write(data: bytes) -> Any:
                entry.count(data)
                return write(data)

            return count_and_write

        reset = _current.set(entry)
        try:
            chunks = self._app(environ, observe)
        except Exception:
            entry.status = entry.status or 500
            self._log.write(entry)
            raise
        finally:
            _current.reset(reset)
        if isinstance(file_wrapper, type) and isinstance(chunks, file_wrapper):
            # The server sends the file only if it gets this object, not a wrapper that counts its bytes.
            entry.bytes = int(length[0]) if length else None
            self._log.write(entry)
            return chunks
        wrapper = _SizedChunks if hasattr(chunks, "__len__") else _Chunks
        return wrapper(chunks, entry, self._log)


class _Chunks:
    """Counts the bytes of a response, and writes the line when the server closes the response."""

    def __init__(self, chunks: Any, entry: Entry, log: AccessLog) -> None:
        self._chunks = chunks
        self._entry = entry
        self._log = log

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self._entry.count(chunk)
                yield chunk
        except Exception:
            self._entry.status = self._entry.status or 500
            raise

    def close(self) -> None:
        try:
            if hasattr(self._chunks, "close"):
                self._chunks.close()
        finally:
            self._log.write(self._entry)


class _SizedChunks(_Chunks):
    """Chunks with their number, from which a server computes ``Content-Length`` if there is one chunk."""

    def __len__(self) -> int:
        return len(self._chunks)
