"""Translate events of AWS Lambda into WSGI environs, and responses into the answers that their services read.

The services are API Gateway (HTTP APIs and REST APIs), function URLs and load balancers.
"""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, unquote_plus, unquote_to_bytes, urlencode

from scopeguard.spec.credentials import has_access_token
from scopeguard.tokens import AccessToken

Event = dict[str, Any]
Headers = list[tuple[str, str]]
Environ = dict[str, Any]

# The event of a handler lacks them, and the field for API keys, because events are often logged.
_TOKEN_FIELDS: Final = ("authorization", "x-forwarded-authorization")
_PATH_CHARACTERS: Final = "/%!$&'()*+,;=:@~"


def environ_of(event: Event, prefix: str) -> Environ:
    """Return the WSGI environ of the request that *event* describes. Raises :class:`TypeError` for other events."""
    context = event.get("requestContext") or {}
    if "http" in context:  # format 2.0, which function URLs have too
        method, client, path = context["http"]["method"], context["http"].get("sourceIp"), event["rawPath"]
        query, certificate = event.get("rawQueryString") or "", context.get("authentication")
    elif "httpMethod" in event:
        method, path, identity = event["httpMethod"], event["path"], context.get("identity") or {}
        client, certificate = identity.get("sourceIp"), identity
        multiple = event.get("multiValueQueryStringParameters")
        pairs = list((multiple or event.get("queryStringParameters") or {}).items())
        # API Gateway has decoded the parameters, a load balancer has not.
        query = (
            "&".join(f"{name}={value}" for name, values in pairs for value in _list(values))
            if "elb" in context
            else urlencode(pairs, doseq=True)
        )
    else:
        raise TypeError(
            "not an HTTP event of API Gateway, a function URL or a load balancer: it has neither requestContext.http "
            "nor httpMethod; handle other events in a function without the guard"
        )
    body = event.get("body") or ""
    content = b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode()
    if path == prefix or path.startswith(f"{prefix}/"):
        path = path.removeprefix(prefix) or "/"
    environ: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "RAW_URI": quote(path, safe=_PATH_CHARACTERS),
        "QUERY_STRING": _latin(query),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(content),
        **_fields(event),
    }
    if "elb" in context:  # it overwrites X-Forwarded-Proto, and appends the client to X-Forwarded-For
        environ["wsgi.url_scheme"] = environ.get("HTTP_X_FORWARDED_PROTO", "https")
        client = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
    environ["REMOTE_ADDR"] = client or ""
    environ["CONTENT_LENGTH"] = str(len(content)) if content else ""
    pem = ((certificate or {}).get("clientCert") or {}).get("clientCertPem")
    return {**environ, "SSL_CLIENT_CERT": pem} if pem else environ


def _fields(event: Event) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in header_pairs(event):
        if "_" not in name:  # in an environ, it would be the same field as one with a dash
            key = "CONTENT_TYPE" if name.lower() == "content-type" else f"HTTP_{name.upper().replace('-', '_')}"
            # As in all WSGI servers: a field that occurs twice is joined, and two tokens are refused.
            fields[key] = f"{fields[key]},{_latin(value)}" if key in fields else _latin(value)
    if event.get("cookies"):
        fields["HTTP_COOKIE"] = _latin("; ".join(event["cookies"]))
    return fields


def header_pairs(message: Mapping[str, Any]) -> Headers:
    """Return the header fields of an event or an answer. ``headers`` of format 1.0 has only the last of several."""
    multiple, single = message.get("multiValueHeaders") or {}, message.get("headers") or {}
    return [(name, str(value)) for name, values in {**single, **multiple}.items() for value in _list(values)]


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _latin(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def without_credentials(event: Event, query: str, *, has_token: bool, key_field: bytes | None) -> Event:
    """Return a copy of *event* without credentials.

    * *query*: the query string that the guard has left.
    * *has_token*: the guard has accepted a token.
    * *key_field*: the field for API keys, in lower case.
    """
    removed = {*(_TOKEN_FIELDS if has_token else ()), "" if key_field is None else key_field.decode("ascii")}
    copy = {**event}
    for part in ("headers", "multiValueHeaders"):
        if event.get(part):
            left = event[part].items()
            copy[part] = {name: value for name, value in left if name.lower().replace("_", "-") not in removed}
    context = event.get("requestContext") or {}
    if "x-api-key" in removed and context.get("identity"):  # API Gateway copies this field for its usage plans
        identity = {name: value for name, value in context["identity"].items() if name != "apiKey"}
        copy["requestContext"] = {**context, "identity": identity}
    # A parameter that the query still has is not a token source: the middleware removes tokens.
    if not has_token or has_access_token(query.encode("latin-1")):
        return copy
    for part in ("queryStringParameters", "multiValueQueryStringParameters"):
        if event.get(part):
            copy[part] = {name: value for name, value in event[part].items() if unquote_plus(name) != "access_token"}
    return copy | ({"rawQueryString": query} if "rawQueryString" in event else {})


def answer_for(event: Event, status: int, headers: Headers, cookies: Iterable[str] = ()) -> Event:
    """Return status and header fields in the form that the service which sent *event* reads."""
    context = event.get("requestContext") or {}
    cookies = [*cookies, *(value for name, value in headers if name.lower() == "set-cookie")]
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value)
    answer: Event = {"statusCode": status}
    if "elb" in context:
        answer["statusDescription"] = f"{status} {HTTPStatus(status).phrase}"
    if "http" not in context and (event.get("multiValueHeaders") is not None or "elb" not in context):
        return {**answer, "multiValueHeaders": fields}
    if "http" in context and cookies:
        fields.pop("set-cookie", None)
        answer["cookies"] = cookies
    return {**answer, "headers": {name: ", ".join(values) for name, values in fields.items()}}


def policy_for(event: Event, token: AccessToken | None, *, allowed: bool) -> Event:
    """Return the answer of an authorizer to *event*, with claims of *token* for the API."""
    context: dict[str, str] = {}
    if token is not None:
        named = {"issuer": token.issuer, "subject": token.subject, "client_id": token.client_id}
        context = {name: value for name, value in named.items() if value is not None}
        context["scopes"] = " ".join(sorted(token.scopes))
    if "methodArn" not in event:
        return {"isAuthorized": allowed, "context": context}
    # IAM would read these characters of a path as a pattern or a variable, and allow other paths too.
    allowed = allowed and not set(event["methodArn"].split("/", 2)[-1]) & set("*?$")
    effect = {"Action": "execute-api:Invoke", "Effect": "Allow" if allowed else "Deny", "Resource": event["methodArn"]}
    return {
        "principalId": context.get("subject") or context.get("client_id") or "anonymous",
        "policyDocument": {"Version": "2012-10-17", "Statement": [effect]},
        "context": context,
    }
