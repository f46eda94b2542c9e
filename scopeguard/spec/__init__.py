"""Pure functions, one RFC topic a file: bytes and values in, values or exceptions out.

The law of this folder: no I/O, no clock, no logging, no generators, no state. Time, keys and answers are arguments.

======================  ==============================================================================
``strict_json``         RFC 8259, read without mercy: no duplicate members, no NaN, bounded depth
``credentials``         where a token may be sent: RFC 6750 section 2, RFC 9110 section 11
``challenge``           how a refusal is written: RFC 6750 section 3, RFC 9110 section 11, RFC 9457
``jws``                 compact serialization, header rules, signatures: RFC 7515, RFC 7518, RFC 8725
``jwks``                keys, and which of them may verify a token: RFC 7517, RFC 7518
``jwt``                 from a token to an ``AccessToken``: RFC 7519, RFC 9068
``discovery``           authorization server metadata: RFC 8414, OpenID Connect Discovery
``token_endpoint``      what a client asks a token endpoint, and what comes back: RFC 6749 section 4.4 and 5
======================  ==============================================================================
"""
