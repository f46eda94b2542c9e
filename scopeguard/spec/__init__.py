"""Pure functions, one RFC topic per file: bytes and values in, values or exceptions out.

Nothing here does I/O, reads a clock, logs, or keeps state. Time, keys and responses are arguments.

=========================  ===========================================================================
``credentials``            find the token in a request: RFC 6750 section 2, RFC 9110 section 11
``subprotocol``            find the token in the subprotocols of a WebSocket handshake: RFC 6455
``jws``                    compact serialization and header rules: RFC 7515, RFC 8725
``signatures``             verify signatures: RFC 7518, RFC 8037
``jwt``                    check claims and build an ``AccessToken``: RFC 7519, RFC 9068
``token_kind``             tell access tokens from ID tokens and other JWTs: RFC 8725, RFC 9068
``scope_claims``           read the granted scopes from claims
``sender_constraint``      refuse tokens that are bound to a proof: RFC 7800
``strict_json``            parse JSON without duplicate members or NaN, with bounded depth: RFC 8259
``jwks``                   parse key sets and choose keys: RFC 7517, RFC 7518
``key_by_id``              parse keys that are published one by one as PEM: RFC 7468
``discovery``              authorization server metadata: RFC 8414, OpenID Connect Discovery
``introspection``          ask about a token and check the answer: RFC 7662
``tokeninfo``              ask Google's tokeninfo endpoint and check the answer
``client_authentication``  authenticate to the authorization server: RFC 6749, RFC 7523, RFC 8705
``status_list``            read Token Status Lists
``security_event``         check Security Event Tokens: RFC 8417
``challenge``              write the ``WWW-Authenticate`` challenge: RFC 6750 section 3, RFC 9110
``challenge_parser``       read a challenge, for the client
``error_body``             write the body of a refusal: RFC 9457
``token_endpoint``         ask a token endpoint for a token: RFC 6749 sections 4.4 and 5
``http_caching``           read how long a response may be kept: RFC 9111
``special_hosts``          tell loopback and private hosts from public ones
=========================  ===========================================================================
"""
