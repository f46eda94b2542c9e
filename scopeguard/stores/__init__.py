"""Shared state for several processes and hosts.

A store holds introspection answers and revocations. Write access to it allows revoking tokens and, unless values are
signed, making tokens valid. It is used inside flights only, which run in threads, so that one blocking client serves
sync and async apps.
"""

from scopeguard.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
