"""PyJWT in ``before_request``, with the key at hand, as apps without a library do it."""

from __future__ import annotations

from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "Flask + PyJWT by hand"
NEEDS = ("pyjwt", "flask")
BASE = "Flask"
WSGI = True


def app(material: Material) -> Any:
    import jwt
    from flask import Flask, abort, g, request

    key, issuer, algorithms = material.public_key, material.authority.url, [material.algorithm]
    api = Flask("pyjwt")

    @api.before_request
    def authenticate() -> None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":
            abort(401)
        try:
            g.claims = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=AUDIENCE,
                issuer=issuer,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.InvalidTokenError:
            abort(401)
        if SCOPE not in g.claims.get("scope", "").split():
            abort(403)

    @api.get("/rows")
    def rows() -> dict[str, str]:
        return {}

    return api
