"""Flask-JWT-Extended with a public key. A decorator of the app checks the scope, as its documentation shows."""

from __future__ import annotations

from functools import wraps
from typing import Any

from benchmarks.material import AUDIENCE, SCOPE, Material

NAME = "Flask + Flask-JWT-Extended"
NEEDS = ("flask-jwt-extended",)
BASE = "Flask"
WSGI = True


def app(material: Material) -> Any:
    from flask import Flask, jsonify
    from flask_jwt_extended import JWTManager, get_jwt, verify_jwt_in_request

    api = Flask("jwt_extended")
    api.config.update(
        JWT_ALGORITHM=material.algorithm,
        JWT_PUBLIC_KEY=material.pem,
        JWT_DECODE_AUDIENCE=AUDIENCE,
        JWT_DECODE_ISSUER=material.authority.url,
    )
    JWTManager(api)

    def require_scope(scope: str) -> Any:
        def wrapper(view: Any) -> Any:
            @wraps(view)
            def check_and_call(*args: Any, **kwargs: Any) -> Any:
                verify_jwt_in_request()
                if scope not in get_jwt().get("scope", "").split():
                    return jsonify(error="insufficient_scope"), 403
                return view(*args, **kwargs)

            return check_and_call

        return wrapper

    @api.get("/rows")
    @require_scope(SCOPE)
    def rows() -> dict[str, str]:
        return {}

    return api
