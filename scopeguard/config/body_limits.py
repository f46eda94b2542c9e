"""Limits for the request bodies that scopeguard reads: their size, and the time for their arrival."""

from __future__ import annotations

from typing import Final

# Bytes and seconds for a form that may have a token (RFC 6750 section 2.2): the defaults of TokenSources.
LARGEST_FORM: Final = 64 * 1024
FORM_TIMEOUT: Final = 10.0

# Bytes and seconds for a message to an MCP server: the defaults of McpPolicy.
LARGEST_MCP_MESSAGE: Final = 1024 * 1024
MCP_MESSAGE_TIMEOUT: Final = 10.0
LARGEST_UNAUTHENTICATED_MCP_MESSAGE: Final = 16 * 1024
"""Bytes of a message that are read for the challenge of a request without a valid token."""

LARGEST_SECURITY_EVENT: Final = 64 * 1024
"""Bytes of a security event token that is pushed (RFC 8935)."""
