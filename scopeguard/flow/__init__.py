"""The whole decision, in reading order. The only generators of the project.

A generator here *asks* for I/O by yielding an effect (``yield from ask(Send(...))``), is resumed with the answer, and
has failures thrown in, so that "the refresh failed but I still hold keys" is an ``except`` clause in plain sight. An
edge drives it: ``edge/sync.py`` in a thread, ``edge/aio.py`` in a task; neither knows what it is performing. Most
requests yield nothing at all. A test is a script: send answers, look at what is asked next.

    flow = authenticate(view, trusts=trusts, sources=sources, clock=clock)
    effect = next(flow)                     # SingleFlight(key="keys of https://auth.example.com", ...)
    ...
    StopIteration.value                     # the AccessToken

Refusals are raised as :class:`AccessDenied`, outages as :class:`AuthorityUnavailable`. The order of checks decides
which refusal wins: shape of the request, presence of a credential, form and claims of the token, its signature; what
the token may do is for the route to decide.

Read ``deciding`` first; the others are what it is made of: ``credential`` (where the token is), ``routing`` (whose
policy judges it), ``keys`` and ``metadata`` (fetching them), ``introspecting``, ``statuses`` and ``revoking``.
"""

from __future__ import annotations

from scopeguard.flow.authenticate import authenticate, judged
from scopeguard.flow.credential import Credential, find_credential
from scopeguard.flow.introspection import answered, introspected
from scopeguard.flow.issuers import resolved, route
from scopeguard.flow.keys import MOST_VERIFICATIONS, signing_keys, warmed
from scopeguard.flow.metadata import discovered, search_metadata
from scopeguard.flow.revocation import synced, unchangeable

__all__ = [
    "MOST_VERIFICATIONS",
    "Credential",
    "answered",
    "authenticate",
    "discovered",
    "find_credential",
    "introspected",
    "judged",
    "resolved",
    "route",
    "search_metadata",
    "signing_keys",
    "synced",
    "unchangeable",
    "warmed",
]
