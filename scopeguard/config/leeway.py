"""How far the clock of an authorization server may be from that of this API, in seconds: RFC 7519 section 4.1.4."""

from __future__ import annotations

from typing import Final

LEEWAY: Final = 30.0
"""For every date in a token, unless ``Issuer.leeway`` says otherwise."""
MAX_LEEWAY: Final = 300.0
"""The greatest ``Issuer.leeway``: "no more than a few minutes"."""
