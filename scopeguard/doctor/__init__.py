"""``scopeguard doctor``: examines a configuration, and everything that a guard with it depends on.

Each check is a function that returns findings (:class:`~scopeguard.doctor.finding.Finding`). Checks that need the
network use the transport, the limits and the parsers of the guard itself, so that they fail where the guard would fail.

* ``finding``: findings, and the diagnosis that they make up. ``report`` writes it as text and as JSON.
* ``tracing_transport``: a transport that traces each exchange.
* ``files``, ``environment``, ``advisories``, ``proxies``: checks without a network.
* ``issuers``, ``keys``, ``clocks``, ``outages``: checks of an authorization server.
* ``api_keys``, ``decision_points``, ``store``, ``resource``, ``rules``: checks of API keys, of policy decision points,
  of Redis, of the metadata of the API, and of an app.
* ``examination``: all checks in their order.
"""
