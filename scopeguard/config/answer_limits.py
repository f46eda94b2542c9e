"""Limits of size and time for the answers of other servers: authorization servers and policy decision points."""

from __future__ import annotations

from typing import Final

ANSWER_TIMEOUT: Final = 5.0
"""Seconds for one exchange, unless the setting ``timeout`` says otherwise."""
DECISION_TIMEOUT: Final = 3.0
"""Seconds for one exchange with a policy decision point, unless ``AuthZen.timeout`` says otherwise."""

LARGEST_ANSWER: Final = 512 * 1024
"""Bytes of key sets (unless ``KeySetPolicy.max_bytes`` says otherwise), metadata and introspection answers."""
LARGEST_DECISION: Final = 64 * 1024
"""Bytes of an answer of a policy decision point, and of its metadata."""
LARGEST_TOKEN_RESPONSE: Final = 64 * 1024
"""Bytes of an answer of a token endpoint."""
LARGEST_STATUS_LIST: Final = 16 * 1024 * 1024
"""Bytes of a status list, packed or not, unless ``StatusListPolicy.max_bytes`` says otherwise."""
# Enough for 128 million tokens with eight bits each. Four such lists must fit into memory.
LARGEST_ALLOWED_STATUS_LIST: Final = 128 * 1024 * 1024
"""Bytes that ``StatusListPolicy.max_bytes`` may allow at most."""
