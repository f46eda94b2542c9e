"""The metadata of the API (RFC 9728), as its guard and as clients see it."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlsplit

from scopeguard.core.engine import Engine
from scopeguard.doctor.finding import Finding, ok, skipped, warning
from scopeguard.doctor.outages import describe
from scopeguard.errors import AuthorityUnavailable
from scopeguard.flow.effects import Send, ask
from scopeguard.spec.answers import is_json
from scopeguard.spec.resource_metadata_url import metadata_url
from scopeguard.spec.strict_json import MalformedJSON, parse_object

SUBJECT: Final = "resource"
_CHECK: Final = "metadata"


def check_resource(engine: Engine, *, offline: bool) -> list[Finding]:
    """Compare the metadata that the guard serves with what is published at the URL that challenges name."""
    resource = engine.settings.resource
    if resource is None:
        return [skipped(SUBJECT, _CHECK, "no resource is set, so that clients cannot find the authorization server")]
    if engine.metadata is None:
        return [skipped(SUBJECT, _CHECK, "serve_metadata is off")]
    url = metadata_url(resource.url)
    served = _members(engine, url)
    findings = [ok(SUBJECT, _CHECK, f"{url} names {', '.join(served.get('authorization_servers', []))}")]
    if offline:
        return [*findings, skipped(SUBJECT, "published", "not checked (--offline)")]
    return [*findings, _check_published(engine, url, served)]


def _members(engine: Engine, url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    response = None if engine.metadata is None else engine.metadata.answer("GET", parts.path, parts.query)
    members: dict[str, Any] = {} if response is None else json.loads(response.body)
    return members


def _check_published(engine: Engine, url: str, served: dict[str, Any]) -> Finding:
    """Fetch *url*. A proxy in front of the API often answers paths below /.well-known/ itself."""
    fix = f"start the API, and route {urlsplit(url).path} to it"
    insecure = engine.settings.insecure_hosts
    try:
        answer = engine.perform(ask(Send(url=url, authority=url, insecure=insecure)))
    except AuthorityUnavailable as outage:
        return warning(SUBJECT, "published", f"{url} cannot be fetched: {describe(outage)}", fix=fix)
    if answer.status != 200 or not is_json(answer.headers):
        return warning(SUBJECT, "published", f"{url} answers {answer.status}, without metadata", fix=fix)
    try:
        found = parse_object(answer.body)
    except MalformedJSON:
        found = {}
    name = found.get("resource")
    if name != served.get("resource"):
        # RFC 9728 section 3.3: "The resource value returned MUST be identical to the protected resource's resource
        # identifier value into which the well-known URI path suffix was inserted".
        text = f"{url} names the resource {ascii(name)[:200]}, so that clients refuse it"
        return warning(SUBJECT, "published", text, fix="route it to the API with this configuration")
    if found.get("authorization_servers") != served.get("authorization_servers"):
        text = f"{url} does not name the authorization servers of this configuration"
        return warning(SUBJECT, "published", text, fix="restart the API with this configuration")
    return ok(SUBJECT, "published", f"{url} is what this configuration serves")
