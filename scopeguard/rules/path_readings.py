"""The readings of one path by servers, routers and apps that decode it at different times.

A server decodes the path once, and most routers split the result at slashes. Some apps split the path as it was sent
and decode the parts, some route before they decode it, and some decode it twice. Where the results differ, the path has
several readings, and a rule for one of them may not apply to the others.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

SUSPICIOUS: Final = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff\ufffd]|/(?:/|\.{1,2}(?:/|\Z))|%(?:2[fFeE]|5[cC])")
"""Text that gives a decoded path more than one reading. A path with it matches no rule."""


def is_suspicious(path: str) -> bool:
    """Return whether :data:`SUSPICIOUS` occurs in *path*. Cheaper tests come first, so that most paths are not compared
    with the pattern.
    """
    return (
        "//" in path or "/." in path or "\\" in path or "%" in path or not path.isascii() or not path.isprintable()
    ) and SUSPICIOUS.search(path) is not None


ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")

# Characters that may stand unencoded in a segment (RFC 3986 §3.3), slash, backslash, percent and controls. If one of
# them is encoded, a router that decodes sees a different path from one that does not. All others (space, quotes,
# brackets, characters outside ASCII) are always encoded and mean the same to both.
_NEEDLESS: Final = (
    rb"%(?:[01][0-9A-Fa-f]|2[14-9A-Fa-f]|3[0-9AaBbDd]|4[0-9A-Fa-f]|5[0-9AaCcFf]|6[1-9A-Fa-f]|7[0-9AaEeFf])"
)
_NEEDLESS_ESCAPES: Final = re.compile(rb"(" + _NEEDLESS + rb")")
_CROOKED: Final = re.compile(rb"\\|/(?:/|\.{1,2}(?:/|\Z))")
_OCTET: Final = re.compile(rb"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_ORIGIN: Final = re.compile(rb"\A[A-Za-z][A-Za-z0-9+.-]*://[^/]*")


def other_readings(path: str, raw_path: bytes | None) -> list[list[str]] | None:
    """Return the other readings of *path*, as segments. ``None`` means that they cannot be known.

    * If *path* contains ``%`` and two digits: the path decoded once more.
    * If *raw_path* encodes a slash or a character that needs no encoding: its segments decoded one by one, and
      undecoded.

    *raw_path* may begin with an origin or a mount prefix and end with a query. If it does not end like *path*, a server
    rewrote the path for the app, and *raw_path* is ignored. But if it has dot segments, doubled slashes or needless
    encoding, it could also have been misread, and the result is ``None``.
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
    readings.append([_decode_except_needless(segment) for segment in segments])
    return readings


def _end(raw_path: bytes, path: str) -> bytes | None:
    """Return the end of *raw_path* that decodes to *path*, if there is one and it begins with an unencoded slash."""
    wanted = path.encode("utf-8", "replace")
    end = b"".join(_OCTET.findall(raw_path)[-len(wanted) :])
    return end if end.startswith(b"/") and unquote_to_bytes(end) == wanted else None


def _decode_except_needless(segment: bytes) -> str:
    pieces = _NEEDLESS_ESCAPES.split(segment)
    pieces[::2] = [unquote_to_bytes(piece) for piece in pieces[::2]]
    return _text(b"".join(pieces))


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
