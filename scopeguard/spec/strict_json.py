"""JSON (RFC 8259) as a security protocol needs it.

``json.loads`` guesses UTF-16, keeps the last of two equal members, reads ``NaN`` and turns ``1e400`` into infinity.
Each of these has been a vulnerability somewhere; here each is an error.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

# Real tokens and metadata stay below 8. Whatever walks a parsed value recursively relies on this bound.
MAX_DEPTH: Final = 32
_ALL_BUT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
# A string that does not end takes the rest of the document with it. If it did not match, the search would begin again
# at each quote inside it, and the work would grow with the square of their number.
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)


class MalformedJSON(ValueError):
    """Not one JSON object in UTF-8, or one that two parsers could read differently."""


class AmbiguousObject(dict[str, Any]):
    """An object in which a member occurs twice: two parsers would read it differently, so nobody should use it.

    Only :func:`parse_object` with ``mark_ambiguous`` yields it. It holds the last of the equal members.
    """


def is_ambiguous(value: Any) -> bool:
    """Whether *value*, or anything inside it, is an :class:`AmbiguousObject`."""
    if isinstance(value, dict):
        return isinstance(value, AmbiguousObject) or any(map(is_ambiguous, value.values()))
    return isinstance(value, list) and any(map(is_ambiguous, value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedJSON("a member occurs twice")  # RFC 7519 section 4: reject
    return found


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else AmbiguousObject(found)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise MalformedJSON("a number is too large")
    return value


def _refuse_constant(name: str) -> float:
    raise MalformedJSON(f"{name} is not JSON")


_decoder: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant)
_marking_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_marked, parse_float=_finite, parse_constant=_refuse_constant
)


def _is_too_deep(data: bytes) -> bool:
    depth = 0
    for byte in _STRINGS.sub(b"", data).translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _decoded(text: str) -> Any:
    # Without the search for white space at both ends, which costs a fifth of what the claims of a token do.
    if text.startswith("{"):
        value, end = _decoder.raw_decode(text)
        if end == len(text):
            return value
    return _decoder.decode(text)


def parse_object(data: bytes, *, mark_ambiguous: bool = False) -> dict[str, Any]:
    """*data* as one JSON object.

    Refused with :class:`MalformedJSON`: anything but UTF-8 without a byte order mark, duplicate members at any
    depth, ``NaN``, infinities and numbers that overflow, unpaired surrogates, nesting deeper than 32, and a
    top-level value that is not an object. The work grows with the size of *data*, which the caller bounds, and with
    nothing else.

    With *mark_ambiguous*, duplicate members below the top level do not spoil the whole document: the object that has
    them comes back as an :class:`AmbiguousObject`, for the caller to find with :func:`is_ambiguous` and to drop.
    """
    # No value nests deeper than it has opening brackets: the exact count is needed only for the odd large document.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _is_too_deep(data):
        raise MalformedJSON("nested too deeply")
    try:
        text = data.decode("utf-8")
        value = _marking_decoder.decode(text) if mark_ambiguous else _decoded(text)
        if "\\" in text and "\\u" in text:
            # A lone surrogate parses and then breaks every log line and header it reaches.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except MalformedJSON:
        raise
    except (ValueError, RecursionError):  # from None: the cause would quote the document
        raise MalformedJSON("not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise MalformedJSON("not an object")
    if isinstance(value, AmbiguousObject):
        raise MalformedJSON("a member occurs twice")
    return value
