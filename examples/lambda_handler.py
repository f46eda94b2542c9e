"""A function on AWS Lambda behind API Gateway, and an authorizer for other functions.

    pip install .
    python examples/lambda_handler.py

shows answers to a few events. On AWS, ``lambda_handler.handler`` or ``lambda_handler.authorize`` is the handler. The
environment variable ISSUER is the URL of the authorization server. ``scopeguard pack-keys`` writes keys.json when the
function is built, so that the first event does not wait for keys; without the file they are fetched.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from scopeguard import Guard, Issuer, Rule, access_token, all_of
from scopeguard.aws_lambda import authorizer, protect

AUDIENCE = "https://api.example.com"
RULES = [Rule("/tables/{table}", all_of("tables.read"), methods=["GET"])]
KEYS = Path(__file__).with_name("keys.json")

# Outside of the handler, so that it lives as long as the instance, with its keys.
guard = Guard(
    Issuer(
        os.environ.get("ISSUER", "https://auth.example.com"),
        audience=AUDIENCE,
        jwks_seed=str(KEYS) if KEYS.exists() else None,
    ),
    rules=RULES,
)


@protect(guard, public=["/healthz"])
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer an event of API Gateway. The guard has checked its token."""
    if event["rawPath"] == "/healthz":
        return {"statusCode": 200, "body": "ok"}
    return {"statusCode": 200, "body": f"{event['rawPath']} for {access_token().client_id}"}


authorize = authorizer(guard)


def http_event(path: str, token: str | None) -> dict[str, Any]:
    """Return an event as an HTTP API sends it."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {} if token is None else {"authorization": f"Bearer {token}"},
        "requestContext": {"http": {"method": "GET", "path": path, "sourceIp": "192.0.2.1"}, "stage": "$default"},
        "isBase64Encoded": False,
    }


def main() -> None:
    from scopeguard.testing import FakeAuthority

    authority = FakeAuthority(guard.issuers[0].url, audience=AUDIENCE)
    with authority.takes_over(guard):
        for path, token in (
            ("/healthz", None),
            ("/tables/orders", None),
            ("/tables/orders", authority.mint("profile")),
            ("/tables/orders", authority.mint("tables.read")),
        ):
            answer = handler(http_event(path, token), None)
            print(path, answer["statusCode"], answer["body"])
        event = http_event("/tables/orders", authority.mint("tables.read"))
        event |= {"type": "REQUEST", "routeArn": "arn:aws:execute-api:eu-west-1:1:a/$default/GET/tables/orders"}
        print("authorizer", json.dumps(authorize(event, None)))


if __name__ == "__main__":
    main()
