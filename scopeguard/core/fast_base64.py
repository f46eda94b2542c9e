"""Decode the segments of tokens with ``pybase64`` (extra ``fast``).

The checks of :func:`~scopeguard.spec.jws.build_decoder` come first, so that the same segments are accepted.
"""

from __future__ import annotations

from collections.abc import Callable

from scopeguard.errors import ConfigurationError
from scopeguard.extras import install_command
from scopeguard.spec.jws import build_decoder, decode_segment


def load_segment_decoder(*, fast: bool) -> Callable[[bytes], bytes]:
    """Return the function that decodes the segments of tokens.

    Raises :class:`ConfigurationError` if *fast* is true and ``pybase64`` is not installed.
    """
    if not fast:
        return decode_segment
    try:
        from pybase64 import b64decode  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(f"fast: pybase64 is not installed; {install_command('fast')}") from None

    def decode(segment: bytes) -> bytes:
        return b64decode(segment, None, True)  # noqa: FBT003 - validate, by position because that is faster

    return build_decoder(decode)
