"""How long what the development server issues is valid, in seconds."""

from __future__ import annotations

from typing import Final

TOKEN_LIFETIME: Final = 3600
"""Of an access token, unless its client or ``--lifetime`` says otherwise."""
CODE_LIFETIME: Final = 60.0
"""Of an authorization code. RFC 6749 section 4.1.2 recommends ten minutes at most."""
ASSERTION_LIFETIME: Final = 3600.0
"""Of the assertion of a service account, at most: what Google's authorization server allows."""
KEY_OVERLAP: Final = 3600.0
"""For which a retired key stays published, unless ``KeyRing(overlap=...)`` says otherwise."""
