"""The whole decision, as generators that yield the I/O that they need.

A generator yields an effect (``yield from ask(Send(...))``) and is resumed with the answer. A failure is thrown into
it, so that "the refresh failed but usable keys are held" is a visible ``except`` clause. An edge runs the generator:
``edge/sync.py`` in a thread, ``edge/aio.py`` in a task. Most requests yield no effect. A test sends the answers itself
and checks the next effect::

    flow = authenticate(request, sources, context)
    effect = next(flow)                     # SingleFlight(key="keys of https://auth.example.com", ...)
    ...
    StopIteration.value                     # the AccessToken

Denials are raised as :class:`AccessDenied`, outages as :class:`AuthorityUnavailable`. The order of the checks decides
which denial wins: the shape of the request, the presence of a credential, the form and the claims of the token, and its
signature. The route decides what the token may do.

Start with ``authenticate``. It uses ``credentials`` (find the token in the request), ``issuers`` (choose the issuer and
read its metadata), ``keys`` (fetch keys and verify signatures), ``introspection``, ``status_list``, ``revocation`` and
``possession`` (check proofs). ``policy`` and ``authzen`` decide about requests with a valid token, and ``renewal``
checks a new token for a connection in progress. ``context`` has the objects that all of them share.
"""
