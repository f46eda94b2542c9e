"""Shared state for several processes and hosts.

A store has introspection answers and revocations. Write access to it allows revoking tokens and, unless values are
signed, making tokens valid. Its methods block, and are called in threads, so one store serves sync and async apps.
"""

from scopeguard.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
