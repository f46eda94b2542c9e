"""One line for each request, on standard output, when it has ended: who, what, which answer, and who decided so.

Never a token: paths are shown without the query (B-31), and of a token its fingerprint (law 6). Subjects are people,
so they are left out unless asked for. What callers chose, the path above all, is escaped, so that a line stays one
line (X-78). The identifier of a request is ours: one that came with it would let a caller write in somebody's name.
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

from scopeguard.access_token import AccessToken, Anonymous
from scopeguard.asgi import ASGIApp, Message, Receive, Scope, Send
from scopeguard.errors import InsufficientScope, printable
from scopeguard.guard import Decision, Denied, Granted
from scopeguard.wsgi import Environ, StartResponse, WSGIApp

REQUEST_ID: Final = "scopeguard.request_id"
"""Where the app finds the identifier of a request: this key of the ASGI scope, or of the environ."""

_AS_IT_IS: Final = "/:@!$&'()*+,;=~-._"
_PLAIN: Final = re.compile(r"[\w./:@%+,~-]+", re.ASCII)
_log: Final = logging.getLogger("scopeguard.access")


class Format(StrEnum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"
    OFF = "off"


class Entry:
    """What is known of a request so far."""

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
        """*data* is sent."""
        self.bytes = (self.bytes or 0) + len(data)

    def members(self, *, subjects: bool) -> dict[str, Any]:
        """The line, as an object; what does not apply is not there."""
        line: dict[str, Any] = {
            "time": utc(self._began_at),
            "client": None if self.client is None else printable(self.client, 64),
            "method": printable(self.method, 20),
            "path": quote(self.path, safe=_AS_IT_IS, errors="replace"),
            "status": self.status,
            "ms": round((time.monotonic() - self._began) * 1000, 1),
            "bytes": 0 if self.method == "HEAD" else self.bytes,
            **_decided(self.decision, subjects=subjects),
            "request_id": self.request_id,
        }
        return {name: value for name, value in line.items() if value is not None}


def _decided(decision: Decision | None, *, subjects: bool) -> dict[str, str | None]:
    match decision:
        case None:
            return {"decision": "public"}
        case Anonymous():
            return {"decision": "anonymous"}
        case Granted(access_token=token):
            return {"decision": "granted", **_named(token, subjects=subjects)}
        case Denied(error=error):
            # Only here has the token been judged, and may be named; what another one says of itself proves nothing.
            judged = error.detail if isinstance(error, InsufficientScope) else {}
            names = {"client_id": judged.get("client_id"), "token": judged.get("token")}
            return {"decision": "denied", "reason": error.reason.value, **names}
        case refusal:
            error_ = refusal.error
            return {"decision": "unavailable", "reason": error_.reason.value, "issuer": printable(error_.authority)}


def _named(token: AccessToken, *, subjects: bool) -> dict[str, str | None]:
    return {
        "issuer": printable(token.issuer),
        "client_id": None if token.client_id is None else printable(token.client_id),
        "subject": printable(token.subject) if subjects and token.subject is not None else None,
        "token": token.fingerprint or None,
    }


_current: Final[ContextVar[Entry | None]] = ContextVar("scopeguard_access_log", default=None)


def noted(decision: Decision) -> None:
    """For ``Guard(on_decision=...)``: the last word on the request that is being served. A route of the app may still
    refuse what the guard let in."""
    entry = _current.get()
    if entry is not None:
        entry.decision = decision


class DiagnosticFormatter(logging.Formatter):
    """Formats every other line of the log, about the server and not about one request: with its level, its logger and
    the identifier of the request that is being served.

    *format_* is that of the access log. As JSON, a line has the members ``time``, ``level``, ``logger``, ``message``,
    and where they apply ``pid``, ``request_id`` and ``exception``; lines of the access log have no ``level``. *pid*:
    name the process, because there are several.
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
    """Return *moment*, in UTC, as lines of the log have it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AccessLog:
    """Writes the lines."""

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
    """*members* in a line that is read by people: the common part in a fixed order, the rest by name."""
    first = [str(members.pop(name, "-")) for name in ("time", "client", "method", "path", "status")]
    first += [f"{members.pop('ms')}ms", f"{members.pop('bytes', '-')}B", members.pop("decision")]
    rest = [f"{name}={value if _PLAIN.fullmatch(value) else json.dumps(value)}" for name, value in members.items()]
    return " ".join(first + rest)


class ASGIAccessLog:
    """*app*, with a line for each of its requests and websockets. A websocket that was accepted has status 101."""

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

        async def telling(message: Message) -> None:
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
            await self._app(scope, receive, telling)
        except Exception:
            entry.status = entry.status or 500  # what the server sends then
            raise
        finally:
            _current.reset(reset)
            self._log.write(entry)


_HANDSHAKE: Final = {"websocket.accept": 101, "websocket.close": 403}


class WSGIAccessLog:
    """*app*, with a line for each of its requests."""

    def __init__(self, app: WSGIApp, log: AccessLog) -> None:
        self._app = app
        self._log = log

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
        # The mount point was the server's own until the app took its part of the path.
        entry = Entry(environ.get("REMOTE_ADDR"), environ["REQUEST_METHOD"], environ.get("SCRIPT_NAME", "") + path)
        environ[REQUEST_ID] = entry.request_id
        file_wrapper = environ.get("wsgi.file_wrapper")
        length: list[str] = []

        def telling(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], Any]:
            entry.status = int(status[:3])
            length[:] = [value for name, value in headers if name.lower() == "content-length" and value.isdigit()]
            write: Callable[[bytes], Any] = start_response(status, headers, *rest)

            def counting(data: bytes) -> Any:
                entry.count(data)
                return write(data)

            return counting

        reset = _current.set(entry)
        try:
            chunks = self._app(environ, telling)
        except Exception:
            entry.status = entry.status or 500
            self._log.write(entry)
            raise
        finally:
            _current.reset(reset)
        if isinstance(file_wrapper, type) and isinstance(chunks, file_wrapper):
            # The server sends the file by itself, after us, if it may keep it as it is.
            entry.bytes = int(length[0]) if length else None
            self._log.write(entry)
            return chunks
        counted = _SizedChunks if hasattr(chunks, "__len__") else _Chunks
        return counted(chunks, entry, self._log)


class _Chunks:
    """What an app returned, counted; the line is written when the server has done with it."""

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
    """From a list of one, a server computes the content length."""

    def __len__(self) -> int:
        return len(self._chunks)
