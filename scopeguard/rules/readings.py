"""The ways in which one path may be read, by servers, routers and apps that decode it at different times.

A server decodes the path once and most routers split what it gives them at the slashes. Some apps split the path as
it was sent and decode the parts, some never decode it before routing, and some decode it twice. Where these differ,
a path has several readings, and a rule that holds for one of them is not known to hold for the others (H-06, X-74).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

SUSPICIOUS: Final = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff\ufffd]|/(?:/|\.{1,2}(?:/|\Z))|%(?:2[fFeE]|5[cC])")
"""What no decoded path holds that has one reading only. Such a path matches no rule."""


def is_suspicious(path: str) -> bool:
    """Whether :data:`SUSPICIOUS` is in *path*. Nearly no path needs the pattern to tell."""
    return (
        "//" in path or "/." in path or "\\" in path or "%" in path or not path.isascii() or not path.isprintable()
    ) and SUSPICIOUS.search(path) is not None


ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")

# The characters that may stand in a segment as they are (RFC 3986 §3.3), slash, backslash, percent and the controls:
# who encodes one of them makes a router that decodes see something else than one that does not. All others (space,
# quotes, brackets, what is not ASCII) are always encoded, and mean the same to both.
_NEEDLESS: Final = (
    rb"%(?:[01][0-9A-Fa-f]|2[14-9A-Fa-f]|3[0-9AaBbDd]|4[0-9A-Fa-f]|5[0-9AaCcFf]|6[1-9A-Fa-f]|7[0-9AaEeFf])"
)
_NEEDLESS_ESCAPES: Final = re.compile(rb"(" + _NEEDLESS + rb")")
_CROOKED: Final = re.compile(rb"\\|/(?:/|\.{1,2}(?:/|\Z))")
_OCTET: Final = re.compile(rb"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_ORIGIN: Final = re.compile(rb"\A[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


def other_readings(path: str, raw_path: bytes | None) -> list[list[str]] | None:
    """What else *path* may be, as segments, given how it was sent; ``None`` where that cannot be told.

    * ``%`` and two digits in *path*: what comes of decoding it again.
    * *raw_path* encodes a slash, or what needed no encoding: its segments decoded one by one, and undecoded.

    *raw_path* may begin with an origin or a mount prefix, and end with a query. One that does not end like *path* was
    rewritten, and then the app was meant to see *path*: it is ignored. Unless it has dot segments, doubled slashes or
    needless encoding itself: then it may as well have been misread, and there is nothing to tell the two apart.
    """
    readings: list[list[str]] = []
    if "%" in path and ESCAPE.search(path):
        again = unquote(path)
        if is_suspicious(again):
            return None
        readings.append(again[1:].split("/"))
    if raw_path is None:
        return readings
    if b"?" in raw_path:
        raw_path = raw_path.partition(b"?")[0]
    if raw_path[:1] != b"/":
        raw_path = _ORIGIN.sub(b"", raw_path)
    if _CROOKED.search(unquote_to_bytes(raw_path)):
        return None
    if not _NEEDLESS_ESCAPES.search(raw_path):
        return readings
    sent = _end(raw_path, path)
    if sent is None:
        return None
    segments = sent[1:].split(b"/")
    readings.append([_text(unquote_to_bytes(segment)) for segment in segments])
    readings.append([_undecoded(segment) for segment in segments])
    return readings


def _end(raw_path: bytes, path: str) -> bytes | None:
    """The end of *raw_path* that decodes to *path*, if there is one and a slash that was sent as such begins it."""
    wanted = path.encode("utf-8", "replace")
    end = b"".join(_OCTET.findall(raw_path)[-len(wanted) :])
    return end if end.startswith(b"/") and unquote_to_bytes(end) == wanted else None


def _undecoded(segment: bytes) -> str:
    pieces = _NEEDLESS_ESCAPES.split(segment)
    pieces[::2] = [unquote_to_bytes(piece) for piece in pieces[::2]]
    return _text(b"".join(pieces))


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
