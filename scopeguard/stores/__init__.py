"""Shared state for several processes and hosts.

A store holds introspection answers and revocations; whoever can write to it can revoke tokens and, unless values are
signed, vouch for them. It is asked inside flights only, which run in threads of their own, so one blocking client
serves both colours.
"""

from scopeguard.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
