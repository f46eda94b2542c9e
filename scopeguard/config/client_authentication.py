"""The methods by which a client authenticates to an authorization server."""

from __future__ import annotations

from enum import StrEnum


class ClientAuthentication(StrEnum):
    """A method of client authentication, at the introspection endpoint or at the token endpoint.

    The values are those of the IANA registry "OAuth Token Endpoint Authentication Methods" (RFC 7591 §2, RFC 8705 §2),
    except ``bearer``. :class:`~scopeguard.Introspection` accepts every method. The client
    (:class:`scopeguard.client.ClientCredentials`) accepts the first four.
    """

    CLIENT_SECRET_BASIC = "client_secret_basic"  # the secret is in the Authorization field (RFC 6749 §2.3.1)
    CLIENT_SECRET_POST = "client_secret_post"  # the secret is a form parameter (RFC 6749 §2.3.1)
    PRIVATE_KEY_JWT = "private_key_jwt"  # a signed assertion (RFC 7523 §2.2)
    TLS_CLIENT_AUTH = "tls_client_auth"  # the certificate of the connection (RFC 8705 §2)
    BEARER = "bearer"  # a separate access token authorizes the call (RFC 7662 §2.1)
    NONE = "none"  # no authentication; the client id is sent if there is one
