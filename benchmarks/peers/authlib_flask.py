"""Authlib's ``ResourceProtector`` in Flask, with its RFC 9068 validator and a ``KeySet``, its fastest form of keys."""

from __future__ import annotations

from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "Flask + Authlib"
NEEDS = ("authlib", "joserfc", "flask")
BASE = "Flask"
WSGI = True
ALGORITHMS = ("RS256", "ES256")


def app(material: Material) -> Any:
    from authlib.integrations.flask_oauth2 import ResourceProtector
    from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
    from flask import Flask
    from joserfc.jwk import KeySet

    keys = KeySet.import_key_set(material.jwks)

    class Validator(JWTBearerTokenValidator):
        def get_jwks(self) -> Any:
            return keys

    require_oauth = ResourceProtector()
    require_oauth.register_token_validator(Validator(issuer=material.authority.url, resource_server=AUDIENCE))
    api = Flask("authlib")

    @api.get("/rows")
    @require_oauth(SCOPE)
    def rows() -> dict[str, str]:
        return {}

    return api
