"""The page that shows the last decisions of a guard in a browser, for development on one machine.

It is off by default, answers programs on this machine only, and never shows a token. A request from elsewhere, or
through a proxy, is treated as if the page did not exist.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qs

from scopeguard.adapter.debug_page_templates import decisions_page
from scopeguard.adapter.debug_reasons import reasons_page
from scopeguard.config.hosts import is_loopback
from scopeguard.config.trusted_proxies import SIGNS_OF_A_PROXY
from scopeguard.core.causes_and_fixes import entry_of
from scopeguard.core.decision import DecisionEvent, Denied, Granted, Unavailable
from scopeguard.core.engine import Engine
from scopeguard.errors import ConfigurationError
from scopeguard.log_values import printable
from scopeguard.request import Headers
from scopeguard.rules.path_readings import is_suspicious
from scopeguard.spec.challenge import Response
from scopeguard.state.fork import Locked

log: Final = logging.getLogger("scopeguard")

DEFAULT_PATH: Final = "/_scopeguard"
MOST_DECISIONS: Final = 100
_MOST_CHARACTERS: Final = 300
_SAFE: Final = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
)


def check_path(debug: str | Literal[True]) -> str:
    """Return the path of the page for the setting *debug*. Raises :class:`ConfigurationError` for anything else."""
    path: Any = DEFAULT_PATH if debug is True else debug
    is_path = isinstance(path, str) and path.startswith("/") and path.isascii() and not path.endswith("/")
    if not is_path or is_suspicious(path) or set("?#{}%") & set(path):
        raise ConfigurationError(
            f"debug: must be True, False or the path of the page without a final slash, as in {DEFAULT_PATH!r}, "
            f"not {debug!r}"
        )
    checked: str = path
    return checked


def open_debug_page(debug: str | Literal[True], engine: Engine) -> DebugPage:
    """Return the page for the setting *debug*, which is ``True`` or a path.

    Raises :class:`ConfigurationError` for anything else, and for a guard that is not for development.
    """
    path = check_path(debug)
    if engine.settings.require_https:
        raise ConfigurationError(
            "debug: the page is for development on one machine, and require_https is for production; remove one of them"
        )
    return DebugPage(engine, path)


class DebugPage(Locked):
    """The last decisions of the guard with *engine*, and the page at *path* that shows them."""

    def __init__(self, engine: Engine, path: str) -> None:
        super().__init__()
        self.path: str = path
        self._feed, self._reasons = f"{path}/decisions", f"{path}/reasons"
        self._engine = engine
        self._records: deque[dict[str, Any]] = deque(maxlen=MOST_DECISIONS)
        self._number = 0
        # A page that is open while the server restarts begins anew.
        self._run = f"{engine.clock.wall():.6f} {id(self)}"
        self._has_warned = False
        # Relative to the page, so that a prefix that a server or a mount removes does not matter.
        self._page, self._policy = decisions_page(path.rpartition("/")[2], self._issuers())
        engine.add_listener(self.add)
        log.warning("debug: %s shows the last decisions to programs on this machine; for development only", path)

    def _issuers(self) -> str:
        urls = [record.issuer.url for record in self._engine.issuers.all]
        return ", ".join(urls) or "a resolver"

    def add(self, event: DecisionEvent) -> None:
        """Remember *event*. It is called in the thread or the event loop of the request."""
        record = describe(event, self._engine.clock.wall())
        with self._lock:
            self._number += 1
            self._records.append({"number": self._number, **record})

    def answer(
        self, *, method: str, path: str, query: str, headers: Headers, peer: str | None, server: str | None
    ) -> Response | None:
        """Return the response to a request, or ``None`` if it is not for the page, or comes from elsewhere.

        *peer* and *server* are the addresses of both ends of the connection; ``None`` if they are unknown.
        """
        if path not in (self.path, self._feed, self._reasons):
            return None
        problem = find_remote_sign(headers, peer, server)
        if problem is not None:
            self._warn(problem)
            return None
        if method not in ("GET", "HEAD"):
            return _response(405, b"", "text/plain", ("allow", "GET, HEAD"))
        policy, kind = self._policy, "text/html; charset=utf-8"
        if path == self._feed:
            body, kind = self._decisions(query), "application/json"
        elif path == self._reasons:
            body, policy = reasons_page()
        else:
            body = self._page
        return _response(200, b"" if method == "HEAD" else body, kind, ("content-security-policy", policy))

    def _decisions(self, query: str) -> bytes:
        """Return the decisions after the one with the number ``after`` of *query*, as JSON."""
        (after, *_) = parse_qs(query).get("after", ["0"])
        first = int(after) if after.isascii() and after.isdigit() and len(after) < 16 else 0
        with self._lock:
            records = [record for record in self._records if record["number"] > first]
        document = {"run": self._run, "now": self._engine.clock.wall(), "decisions": records}
        return json.dumps(document).encode("ascii")

    def _warn(self, problem: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("debug: %s was not shown: %s. It is for browsers on this machine only", self.path, problem)


def find_remote_sign(headers: Headers, peer: str | None, server: str | None) -> str | None:
    """Return a sign that a request may come from another machine or another site; ``None`` if there is none.

    Checked: the addresses of the peer and of this end of the connection; that ``Host`` names this machine, because
    a name that an attacker controls may point here (DNS rebinding); that no proxy has added a field; and the fields by
    which browsers mark requests of other sites. NOT recognised: a proxy on this machine that adds no field.
    """
    if peer is None or not is_loopback(peer):
        return "the peer is not on this machine"
    if server is not None and not is_loopback(server):
        return "the connection is not to a loopback address"
    hosts = headers.get_all("host")
    if len(hosts) != 1 or not is_loopback(_host_of(hosts[0].decode("latin-1"))):
        return "Host does not name this machine"
    added = next((name for name in SIGNS_OF_A_PROXY if headers.get_all(name)), None)
    if added is not None:
        return f"a proxy has added {added}"
    own = (b"http://" + hosts[0], b"https://" + hosts[0])
    is_own = all(site in (b"same-origin", b"none") for site in headers.get_all("sec-fetch-site"))
    if not is_own or not all(origin in own for origin in headers.get_all("origin")):
        return "another site sent the request"
    return None


def _host_of(authority: str) -> str:
    """Return the host in *authority*, which is ``host``, ``host:port`` or ``[address]:port``; ``""`` if malformed."""
    host, separator, port = authority.lower().rpartition(":")
    if not separator or authority.endswith("]"):
        host, port = authority.lower(), "0"
    if not (port.isascii() and port.isdigit()):
        return ""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def describe(event: DecisionEvent, now: float) -> dict[str, Any]:
    """Return *event* at *now* in JSON types, without a token. Texts that others chose are escaped and cut.

    In ``cause`` and ``fix``, code is between backticks.
    """
    decision = event.decision
    error = decision.error if isinstance(decision, Denied | Unavailable) else None
    facts: Mapping[str, str] = {} if error is None else error.detail
    token = decision.access_token if isinstance(decision, Granted) else None
    entry = None if event.reason is None else entry_of(event.reason)
    return {
        "time": now,
        "decision": type(decision).__name__.lower(),
        "reason": None if event.reason is None else event.reason.value,
        "status": event.status,
        "method": _text(event.method),
        "path": _text(event.path),
        "route": _text(event.route),
        "adapter": event.adapter.value,
        "issuer": _text(event.issuer),
        "client": _text(event.client_id),
        "scopes": None if token is None else _text(" ".join(token.granted_scopes or ())),
        "milliseconds": round(event.duration * 1000, 2),
        "check": None if event.token_check is None else event.token_check.value,
        "fingerprint": facts.get("token") if token is None else token.fingerprint,
        "facts": {name: printable(value, _MOST_CHARACTERS) for name, value in facts.items() if name != "token"},
        "answer": None if error is None else error.description,
        "cause": "" if entry is None else entry.cause,
        "fix": "" if entry is None else entry.fix,
    }


def _text(value: str | None) -> str | None:
    return None if value is None else printable(value, _MOST_CHARACTERS)


def _response(status: int, body: bytes, kind: str, *more: tuple[str, str]) -> Response:
    return Response(status, (("content-type", kind), ("content-length", str(len(body))), *_SAFE, *more), body)
