"""Parse JSON (RFC 8259) strictly.

``json.loads`` detects UTF-16, keeps the last of duplicate members, accepts ``NaN`` and turns ``1e400`` into infinity.
Each of these has caused vulnerabilities where two parsers disagreed. Here each is an error.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

# Real tokens and metadata nest less than 8 deep. Code that walks a parsed value recursively relies on this bound.
MAX_DEPTH: Final = 32
_OPEN_ARRAY, _OPEN_OBJECT = b"[{"
_ALL_BUT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
# An unterminated string matches to the end of the document. Otherwise the search would restart at each quote inside it,
# and the work would grow with the square of their number.
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)


class MalformedJSON(ValueError):
    """The data is not one JSON object in UTF-8, or two parsers could read it differently."""


class AmbiguousObject(dict[str, Any]):
    """An object with duplicate members. Two parsers could read it differently, so it must not be used.

    Only :func:`parse_object` with ``mark_ambiguous`` returns it. It has the last of the duplicates.
    """


def is_ambiguous(value: Any) -> bool:
    """Return whether *value*, or anything inside it, is an :class:`AmbiguousObject`."""
    if isinstance(value, dict):
        return isinstance(value, AmbiguousObject) or any(map(is_ambiguous, value.values()))
    return isinstance(value, list) and any(map(is_ambiguous, value))


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    # RFC 7519 section 4: "The Claim Names within a JWT Claims Set MUST be unique; JWT parsers MUST either reject JWTs
    # with duplicate Claim Names or use a JSON parser that returns only the lexically last duplicate member name". RFC
    # 7515 section 4 and RFC 7517 section 4 say the same of header parameters and of members of a JWK.
    if len(members) != len(pairs):
        raise MalformedJSON("a member occurs twice")
    return members


def _mark_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else AmbiguousObject(members)


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise MalformedJSON("a number is too large")
    return value


def _reject_constant(name: str) -> float:
    raise MalformedJSON(f"{name} is not JSON")


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_reject_duplicates, parse_float=_parse_finite, parse_constant=_reject_constant
)
_marking_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_mark_duplicates, parse_float=_parse_finite, parse_constant=_reject_constant
)


def _is_too_deep(data: bytes, most: int) -> bool:
    depth = 0
    for byte in _STRINGS.sub(b"", data).translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > most:
            return True
    return False


def _decode(text: str) -> Any:
    # raw_decode() skips the search for white space at both ends, a fifth of the time that the claims of a token take.
    if text.startswith("{"):
        value, end = _decoder.raw_decode(text)
        if end == len(text):
            return value
    return _decoder.decode(text)


def parse_object(data: bytes, *, mark_ambiguous: bool = False, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Parse *data* as one JSON object.

    Raises :class:`MalformedJSON` for anything but UTF-8 without a byte order mark, duplicate members at any depth,
    ``NaN``, infinities and numbers that overflow, unpaired surrogates, nesting deeper than *max_depth*, and a
    top-level value that is not an object. The work is linear in the size of *data*, which the caller bounds.

    *mark_ambiguous*: duplicate members below the top level are not an error. The object that has them becomes an
    :class:`AmbiguousObject`, which the caller finds with :func:`is_ambiguous` and discards.
    """
    # The depth is at most the number of opening brackets, so few documents need the exact count. A search for a byte
    # takes a tenth of the time of a count, and the claims of many tokens have no array and no second object.
    if (
        (_OPEN_ARRAY in data or data.find(_OPEN_OBJECT, 1) >= 0)
        and data.count(b"[") + data.count(b"{") > max_depth
        and _is_too_deep(data, max_depth)
    ):
        raise MalformedJSON("nested too deeply")
    try:
        text = data.decode("utf-8")
        value = _marking_decoder.decode(text) if mark_ambiguous else _decode(text)
        if "\\" in text and "\\u" in text:
            # The parser accepts a lone surrogate, which later fails when it is encoded for a log or a header.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except MalformedJSON:
        raise
    except (ValueError, RecursionError):  # a chained error would quote the document
        raise MalformedJSON("not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise MalformedJSON("not an object")
    if isinstance(value, AmbiguousObject):
        raise MalformedJSON("a member occurs twice")
    return value
