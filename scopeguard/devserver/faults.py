"""Faults that can be switched on at the development authorization server.

A fault stays on until its :class:`Switch` or :meth:`Faults.reset` turns it off.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

from scopeguard.errors import ConfigurationError
from scopeguard.flow.effects import Answer

OVERSIZE: Final = 10 * 1024 * 1024


class Endpoint(StrEnum):
    """The endpoints of an authorization server."""

    METADATA = "metadata"
    JWKS = "jwks"
    AUTHORIZATION = "authorization"
    TOKEN = "token"
    INTROSPECTION = "introspection"
    REVOCATION = "revocation"


class Mode(StrEnum):
    """The way in which an endpoint answers."""

    NORMAL = "normal"
    REDIRECT = "redirect"  # 302 to /canary of the same server; a client must not follow it
    OVERSIZE = "oversize"  # 10 MiB of JSON
    GZIP_BOMB = "gzip_bomb"  # 10 MiB of JSON, compressed to 10 KiB
    GARBAGE = "garbage"  # HTML, as from a proxy or a captive portal
    TRUNCATED = "truncated"  # the first half of the correct answer
    WRONG_CONTENT_TYPE = "wrong_content_type"  # the correct answer as text/html
    EMPTY = "empty"  # {}
    SERVER_ERROR = "server_error"  # 500
    WRONG_ISSUER = "wrong_issuer"  # the correct answer, but with another issuer


class Outage(StrEnum):
    """The kinds of outage."""

    UNAVAILABLE = "unavailable"  # every request is answered 503
    UNREACHABLE = "unreachable"  # no request is answered


class Unreachable(Exception):
    """There is no answer during this kind of outage: the connection must fail."""


class Switch:
    """A fault that is switched on. The end of a ``with`` block, or :meth:`off`, restores the previous state."""

    def __init__(self, off: Callable[[], None]) -> None:
        self.off = off

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.off()


class Faults:
    """The faults of one authority. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._modes: dict[Endpoint, Mode | Answer] = {}
        self._outage: Outage | None = None
        self._delay = 0.0

    @property
    def delay(self) -> float:
        """The delay of every answer, in seconds. The transport or the server waits for it."""
        return self._delay

    def outage(self, kind: Outage | str | None = Outage.UNREACHABLE) -> Switch:
        """Make every request fail as *kind* says. ``None`` ends an outage."""
        chosen = None if kind is None else _member(Outage, kind, "outage")
        with self._lock:
            previous, self._outage = self._outage, chosen

        def off() -> None:
            self._outage = previous

        return Switch(off)

    def slow(self, seconds: float) -> Switch:
        """Delay every answer by *seconds*, at most 3600."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 3600:
            raise ConfigurationError("slow: must be a number of seconds between 0 and 3600")
        with self._lock:
            previous, self._delay = self._delay, float(seconds)

        def off() -> None:
            self._delay = previous

        return Switch(off)

    def mode(self, endpoint: Endpoint | str, mode: Mode | str | Answer) -> Switch:
        """Make *endpoint* answer as *mode* says, or with a given :class:`~scopeguard.flow.effects.Answer`."""
        place = _member(Endpoint, endpoint, "endpoint")
        chosen = mode if isinstance(mode, Answer) else _member(Mode, mode, "mode")
        if chosen is Mode.WRONG_ISSUER and place not in (Endpoint.METADATA, Endpoint.INTROSPECTION):
            raise ConfigurationError(
                f"mode: wrong_issuer is for metadata and introspection; answers of {place.value} have no issuer"
            )
        with self._lock:
            previous = self._modes.get(place, Mode.NORMAL)
            self._modes[place] = chosen

        def off() -> None:
            self._modes[place] = previous

        return Switch(off)

    def reset(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self._modes = {}
            self._outage = None
            self._delay = 0.0

    def outage_answer(self) -> Answer | None:
        """Return the answer during an outage, ``None`` without one. Raises :class:`Unreachable`."""
        match self._outage:
            case None:
                return None
            case Outage.UNREACHABLE:
                raise Unreachable
            case Outage.UNAVAILABLE:
                return Answer(503, b"Service Unavailable", {"content-type": "text/plain", "retry-after": "7"})

    def apply(self, endpoint: Endpoint, answer: Answer, issuer: str) -> Answer:
        """Return *answer* of *endpoint*, changed as the mode of the endpoint says."""
        mode = self._modes.get(endpoint, Mode.NORMAL)
        if isinstance(mode, Answer):
            return mode
        return _CHANGES[mode](answer, issuer)


def _member(kind: Any, value: object, setting: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(item.value for item in kind)
        raise ConfigurationError(f"{setting}: {value!r} is not one of {choices}") from None


@cache
def _large() -> bytes:
    return b'{"padding": "' + b"x" * OVERSIZE + b'"}'


@cache
def _large_in_gzip() -> bytes:
    return gzip.compress(_large())


def _with_headers(answer: Answer, **headers: str) -> Mapping[str, str]:
    return {**answer.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}


def _wrong_issuer(answer: Answer, issuer: str) -> Answer:
    document = json.loads(answer.body)
    # The answer about an inactive token has no "iss" and stays as it is: RFC 7662 section 2.2 says "SHOULD NOT include
    # any additional information about an inactive token".
    if "issuer" in document:
        document["issuer"] = issuer + "/"
    if "iss" in document:
        document["iss"] = issuer + "/"
    return Answer(answer.status, json.dumps(document).encode(), answer.headers)


_JSON: Final = {"content-type": "application/json"}
_CHANGES: Final[Mapping[Mode, Callable[[Answer, str], Answer]]] = {
    Mode.NORMAL: lambda answer, issuer: answer,
    Mode.REDIRECT: lambda answer, issuer: Answer(302, b"", {"location": issuer.rstrip("/") + "/canary"}),
    Mode.OVERSIZE: lambda answer, issuer: Answer(200, _large(), _JSON),
    Mode.GZIP_BOMB: lambda answer, issuer: Answer(200, _large_in_gzip(), {**_JSON, "content-encoding": "gzip"}),
    Mode.GARBAGE: lambda answer, issuer: Answer(
        200, b"<!doctype html><title>Sign in to continue</title>", {"content-type": "text/html"}
    ),
    Mode.TRUNCATED: lambda answer, issuer: Answer(answer.status, answer.body[: len(answer.body) // 2], answer.headers),
    Mode.WRONG_CONTENT_TYPE: lambda answer, issuer: Answer(
        answer.status, answer.body, _with_headers(answer, content_type="text/html")
    ),
    Mode.EMPTY: lambda answer, issuer: Answer(200, b"{}", _JSON),
    Mode.SERVER_ERROR: lambda answer, issuer: Answer(500, b"Internal Server Error", {"content-type": "text/plain"}),
    Mode.WRONG_ISSUER: _wrong_issuer,
}
