"""Parse the claims of tokens with ``orjson`` (extra ``fast``), with the results of the strict parser.

``orjson`` alone is too lenient: it keeps the last of duplicate members and reads large integers as floats. So its
result is used only if writing it gives the same bytes again. Then the document is the one way to write this value:
no member occurs twice, no string has an escape that it does not need, and each number is one that both parsers read
alike. Authorization servers that write compact JSON, as most do, send such documents. Any other goes to the strict
parser, which decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scopeguard.errors import ConfigurationError
from scopeguard.extras import install_command
from scopeguard.spec.strict_json import MAX_DEPTH, parse_object


def load_claims_parser(*, fast: bool) -> Callable[[bytes], dict[str, Any]]:
    """Return the function that parses the claims of tokens: with *fast* that of :func:`build_parser`.

    Raises :class:`ConfigurationError` if *fast* is true and ``orjson`` is not installed.
    """
    if not fast:
        return parse_object
    try:
        return build_parser()
    except ImportError:
        raise ConfigurationError(f"fast: orjson is not installed; {install_command('fast')}") from None


def build_parser() -> Callable[[bytes], dict[str, Any]]:
    """Return a function like :func:`~scopeguard.spec.strict_json.parse_object` that tries ``orjson`` first.

    It accepts and refuses the same documents, and returns equal values. Raises :class:`ImportError` without ``orjson``.
    """
    from orjson import dumps, loads  # noqa: PLC0415 - an extra

    def parse(data: bytes) -> dict[str, Any]:
        # The depth is at most the number of opening brackets.
        if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
            try:
                value = loads(data)
            except ValueError:
                return parse_object(data)
            if type(value) is dict and dumps(value) == data:
                return value
        return parse_object(data)

    return parse
