"""Events of AWS Lambda in their documented shapes, and the answers to them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

from scenarios import Answered, Exchange

Event = dict[str, Any]
Pairs = Sequence[tuple[str, str]]

_CHALLENGES = re.compile(r", (?=(?:Bearer|DPoP) )")
ARN = "arn:aws:execute-api:eu-west-1:123456789012:abcdef123/prod"


def _group(pairs: Pairs) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _body(body: bytes) -> Event:
    try:
        return {"body": body.decode("ascii") or None, "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def rest_api(method: str, target: str, headers: Pairs = (), body: bytes = b"", *, stage: str = "prod") -> Event:
    """An event of a REST API (format 1.0): names as sent, the last value in ``headers``, decoded parameters."""
    path, _, query = target.partition("?")
    parameters, fields = _group(parse_qsl(query, keep_blank_values=True)), _group(headers)
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {name: values[-1] for name, values in fields.items()} or None,
        "multiValueHeaders": fields or None,
        "queryStringParameters": {name: values[-1] for name, values in parameters.items()} or None,
        "multiValueQueryStringParameters": parameters or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef123",
            "domainName": "abcdef123.execute-api.eu-west-1.amazonaws.com",
            "httpMethod": method,
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "curl/8.5.0", "accessKey": None, "clientCert": None},
            "path": f"/{stage}{path}",
            "protocol": "HTTP/1.1",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "requestTimeEpoch": 1764000000000,
            "resourcePath": "/{proxy+}",
            "stage": stage,
        },
        **_body(body),
    }


def http_api(method: str, target: str, headers: Pairs = (), body: bytes = b"", *, stage: str = "$default") -> Event:
    """An event of an HTTP API or a function URL (format 2.0): names in lower case, values joined by commas, cookies
    apart, and the stage in the path.
    """
    path, _, query = target.partition("?")
    fields = _group([(name.lower(), value) for name, value in headers])
    cookies = [part.strip() for value in fields.pop("cookie", []) for part in value.split(";")]
    raw = unquote(path) if stage == "$default" else f"/{stage}{unquote(path)}"
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw,
        "rawQueryString": query,
        **({"cookies": cookies} if cookies else {}),
        "headers": {name: ",".join(values) for name, values in fields.items()},
        "queryStringParameters": {
            name: ",".join(values) for name, values in _group(parse_qsl(query, keep_blank_values=True)).items()
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdef123",
            "domainName": "abcdef123.execute-api.eu-west-1.amazonaws.com",
            "http": {
                "method": method,
                "path": raw,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "curl/8.5.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "$default",
            "stage": stage,
            "timeEpoch": 1764000000000,
        },
        **_body(body),
    }


def load_balancer(
    method: str, target: str, headers: Pairs = (), body: bytes = b"", *, multiple: bool = True, scheme: str = "https"
) -> Event:
    """An event of an Application Load Balancer: names in lower case, parameters as sent. Without *multiple*, the last
    of several values counts.
    """
    path, _, query = target.partition("?")
    given = [
        *((name.lower(), value) for name, value in headers),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-proto", scheme),
    ]
    fields = _group(given)
    parameters = _group([(n, v) for n, _, v in (part.partition("=") for part in query.split("&"))] if query else [])
    last = {name: values[-1] for name, values in fields.items()}
    last_parameters = {name: values[-1] for name, values in parameters.items()}
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/api/1"}},
        "httpMethod": method,
        "path": path,
        **({"multiValueHeaders": fields} if multiple else {"headers": last}),
        **({"multiValueQueryStringParameters": parameters} if multiple else {"queryStringParameters": last_parameters}),
        **_body(body),
    }


def rest_authorizer(method: str, target: str, headers: Pairs = ()) -> Event:
    """An event of a REST API for an authorizer of type REQUEST."""
    event = rest_api(method, target, headers)
    for name in ("body", "isBase64Encoded"):
        del event[name]
    path = target.partition("?")[0]
    return {"type": "REQUEST", "methodArn": f"{ARN}/{method}{path}", **event}


def http_authorizer(method: str, target: str, headers: Pairs = ()) -> Event:
    """An event of an HTTP API for an authorizer with format 2.0."""
    event = http_api(method, target, headers)
    for name in ("body", "isBase64Encoded"):
        del event[name]
    path = target.partition("?")[0]
    identity = [value for name, value in headers if name.lower() == "authorization"]
    return {"type": "REQUEST", "routeArn": f"{ARN}/{method}{path}", "identitySource": identity, **event}


def parse_answer(answer: Any) -> Answered:
    """The response that a client gets for *answer*. Challenges in one field are a list (RFC 9110 section 11.6.1)."""
    headers = [
        (name.lower(), one)
        for name, value in (answer.get("headers") or {}).items()
        for one in (_CHALLENGES.split(value) if name.lower() == "www-authenticate" else [value])
    ]
    for name, values in (answer.get("multiValueHeaders") or {}).items():
        headers += [(name.lower(), value) for value in values]
    headers += [("set-cookie", value) for value in answer.get("cookies") or ()]
    body = answer.get("body") or ""
    content = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
    return Answered(status=answer["statusCode"], headers=tuple(headers), body=content)


def send(handler: Callable[[Event, Any], Any], shape: Callable[..., Event], exchange: Exchange) -> Answered:
    """Send *exchange* to *handler* as an event of *shape*."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.headers]
    event = shape(exchange.method, exchange.target, [("Host", "api.test"), *pairs], exchange.body)
    json.dumps(event)  # an event is JSON
    return parse_answer(handler(event, None))
