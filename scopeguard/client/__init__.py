"""Auth classes for ``httpx`` that fetch access tokens and sign requests with them.

    client = httpx.Client(auth=ClientCredentials(token_url, client_id, client_secret, scopes=["bigquery.insertdata"]))

:class:`ClientCredentials` gets tokens for this program itself. :class:`TokenExchange` gets them for the user whose
request the API serves, to call the next API.

One object can serve any number of ``Client`` and ``AsyncClient`` objects, of httpx and httpx2, in any threads and event
loops. It caches tokens, so create it once for the process: a new object for each request would fetch a token for each
request.

httpx lets an auth class send the token request through the same client. These classes do not, for three reasons. Such a
client may follow a redirect of the token endpoint and send the secret to another origin. Its hooks, its cookies and
``response.history`` would contain the secret and the token. And it does not raise transport errors inside the auth
flow, so the fetch could not be retried. The token request uses the transport of the guard instead, which follows no
redirects.

When httpx follows redirects of the API, it does not call the auth class again. It drops ``Authorization`` if the origin
changes, except from http to https on one host; such a request by http was never signed. So no redirect sends the token
to another origin, and a 401 from another origin says nothing about the token. A DPoP proof is in no copy of a request,
so it does not follow a redirect either (:mod:`scopeguard.client.httpx_auth`).
"""

from __future__ import annotations

from scopeguard.client.challenges import required_scopes
from scopeguard.client.client_credentials import ClientCredentials
from scopeguard.client.dpop import DPoPKey
from scopeguard.client.errors import (
    ForwardingRefused,
    OriginNotAllowed,
    ScopeNotGranted,
    TokenEndpointError,
    TokenEndpointUnavailable,
    TokenExchangeRefused,
)
from scopeguard.client.forwarding import arefuse_inbound_token, refuse_inbound_token
from scopeguard.client.settings import ClientSettings, ExchangeSettings, NarrowerScope
from scopeguard.client.token_exchange import TokenExchange
from scopeguard.config.client_authentication import ClientAuthentication
from scopeguard.spec.token_endpoint import TokenResponse

__all__ = [
    "ClientAuthentication",
    "ClientCredentials",
    "ClientSettings",
    "DPoPKey",
    "ExchangeSettings",
    "ForwardingRefused",
    "NarrowerScope",
    "OriginNotAllowed",
    "ScopeNotGranted",
    "TokenEndpointError",
    "TokenEndpointUnavailable",
    "TokenExchange",
    "TokenExchangeRefused",
    "TokenResponse",
    "arefuse_inbound_token",
    "refuse_inbound_token",
    "required_scopes",
]
