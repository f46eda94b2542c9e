"""Pure functions for one specification each. They take bytes and values, and return values or raise exceptions.

No function here does I/O, reads a clock, logs or keeps state. Time, keys and responses are arguments.

=========================  ===========================================================================
``credentials``            find the token in a request: RFC 6750 section 2, RFC 9110 section 11
``api_key``                parse and check API keys, and read the file of their digests
``subprotocol``            find the token in the subprotocols of a WebSocket handshake: RFC 6455
``jws``                    parse the compact serialization and check the header: RFC 7515, RFC 8725
``signatures``             verify signatures: RFC 7518, RFC 8037
``ml_dsa``                 sign with ML-DSA keys, for the client and the development server: RFC 9964
``jwt``                    check claims and build an ``AccessToken``: RFC 7519, RFC 9068
``audience``               check the audience: RFC 7519 section 4.1.3, RFC 9068 section 4
``times``                  check the dates: RFC 7519 sections 4.1.4 to 4.1.6
``token_kind``             distinguish access tokens from ID tokens and others: RFC 8725, RFC 9068
``scope_claims``           read the granted scopes from claims
``base64url``              encode base64url: RFC 7515 section 2
``strict_json``            parse JSON without duplicate members or NaN, with bounded depth: RFC 8259
``jwks``                   parse JWK Sets and choose keys: RFC 7517, RFC 7518
``key_by_id``              parse keys that are published one by one as PEM: RFC 7468
``discovery``              locate and check server metadata: RFC 8414, OpenID Connect Discovery
``special_hosts``          recognize hosts outside the public internet: RFC 6890, RFC 6761
``introspection``          write introspection requests and check answers: RFC 7662
``spiffe``                 check SPIFFE IDs in JWT-SVIDs
``token_review``           ask the TokenReview API of Kubernetes about a token
``tokeninfo``              read answers of the tokeninfo endpoints of Google and GitLab
``client_authentication``  authenticate to the authorization server: RFC 6749, RFC 7523, RFC 8705
``log_facts``              describe what was found in a token, for log lines
``answers``                read the header fields of an answer: RFC 9111
``outage_statuses``        the statuses of a server that is down or busy
``retry_after``            read and write ``Retry-After``: RFC 9110 section 10.2.3
``status_list``            parse Token Status Lists
``security_event``         check Security Event Tokens: RFC 8417
``sender_constraint``      check how a token is bound to a key: RFC 7800, RFC 8705, RFC 9449
``dpop``                   check DPoP proofs: RFC 9449 section 4.3
``packed_keys``            write and read key sets that are packed at build time
``request_uri``            compare the URI of a request with that of its proof: RFC 3986
``nonce``                  seal and recognise nonces: RFC 9449 sections 8 and 9
``certificate_fields``     read client certificates from header fields: RFC 8705, RFC 9440
``challenge``              write the ``WWW-Authenticate`` challenge: RFC 6750 section 3, RFC 9110
``websocket_close``        the status code with which a websocket is closed: RFC 6455
``response_headers``       add header fields to the responses of the app
``error_body``             write the body of a refusal: RFC 9457
``resource_metadata``      write the metadata of the API: RFC 9728
``resource_metadata_url``  where that metadata is: RFC 9728 section 3.1
``authzen``                write requests to a policy decision point and read answers: AuthZEN 1.0
``mcp``                    parse messages of MCP clients: JSON-RPC 2.0, MCP 2026-07-28
``challenge_parser``       parse a challenge, for the client
``token_endpoint``         write token requests and parse the responses: RFC 6749 sections 4.4, 5
``token_exchange``         write token exchange requests and check the responses: RFC 8693
``dpop_client``            make DPoP proofs, for the client: RFC 9449 section 4.2
=========================  ===========================================================================
"""
