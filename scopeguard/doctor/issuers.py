"""Checks of an authorization server, by the flows that a guard performs for its requests."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scopeguard.config.hosts import is_loopback
from scopeguard.config.introspection import Dialect
from scopeguard.config.token_sources import TokenSource
from scopeguard.config.validation import Validation
from scopeguard.core.engine import Engine
from scopeguard.doctor.clocks import check_clock, server_offset
from scopeguard.doctor.finding import Finding, error, ok, skipped, warning
from scopeguard.doctor.keys import check_keys
from scopeguard.doctor.outages import advise, describe
from scopeguard.doctor.thresholds import DAYS_LEFT, SLOW_ANSWER
from scopeguard.doctor.tracing_transport import Exchange, TracingTransport
from scopeguard.errors import AuthorityUnavailable, Blame
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import Answer
from scopeguard.flow.introspection_requests import ask_authority
from scopeguard.flow.issuers import discover, has_keys
from scopeguard.flow.key_by_id import fetch_key
from scopeguard.flow.keys import fetch_keys
from scopeguard.spec.discovery import Metadata
from scopeguard.spec.introspection import STATUS_HINTS, has_endpoint
from scopeguard.spec.strict_json import MalformedJSON, parse_object
from scopeguard.state.issuers import IssuerRecord


def check_issuer(record: IssuerRecord, engine: Engine, watch: TracingTransport) -> list[Finding]:
    """Return the findings about the issuer of *record*: connections, metadata, keys, introspection, clock."""
    examination = _Examination(record, engine, watch, len(watch.exchanges))
    found = [*examination.check_metadata(), *examination.check_key_sets(), *examination.check_introspection()]
    connections = check_connections(record.issuer.url, examination.exchanges, engine.clock.wall())
    clock = _check_clock(record, examination.exchanges)
    # Last, because a guard sends no such request. Its failure does not affect the checks of what a guard needs.
    return [*connections, *found, *examination.compare_key_urls(), *clock]


def static_findings(record: IssuerRecord) -> list[Finding]:
    """Return the findings about an issuer that need no network."""
    issuer, findings = record.issuer, [skipped(record.issuer.url, "network", "not checked (--offline)")]
    held = record.ring.current
    if held is not None:
        findings += check_keys(issuer.url, held.keys, issuer.algorithms, "keys")
    return findings


def check_connections(subject: str, exchanges: Sequence[Exchange], now: float) -> list[Finding]:
    """Return a finding for each server that *exchanges* reached. *now* is in seconds since the epoch."""
    findings: list[Finding] = []
    for origin in dict.fromkeys(exchange.origin for exchange in exchanges):
        own = [exchange for exchange in exchanges if exchange.origin == origin]
        if any(exchange.reached for exchange in own):
            findings.append(_check_connection(subject, origin, own, now))
        else:
            failure = next(exchange.failure for exchange in own if exchange.failure is not None)
            text = f"{origin} cannot be reached: {describe(failure)}"
            findings.append(error(subject, "connection", text, fix=advise(failure)))
    return findings


def _check_connection(subject: str, origin: str, exchanges: Sequence[Exchange], now: float) -> Finding:
    opened = next((exchange.connection for exchange in exchanges if exchange.connection is not None), None)
    slowest = max(exchange.seconds for exchange in exchanges)
    facts = [origin]
    if opened is not None:
        facts.append(f"{opened.address} in {_milliseconds(opened.connecting)}")
        if opened.encryption is not None and opened.handshake is not None:
            facts.append(f"{opened.encryption} in {_milliseconds(opened.handshake)}")
        if opened.certificate_ends is not None:
            facts.append(f"certificate until {opened.certificate_ends:%Y-%m-%d}")
    facts.append(f"slowest answer in {_milliseconds(slowest)}")
    text = ", ".join(facts)
    if opened is not None and opened.certificate_ends is not None:
        days = (opened.certificate_ends - datetime.fromtimestamp(now, UTC)).days
        if days < DAYS_LEFT:
            fix = "renew the certificate of the server; after that day every request with a token gets 503"
            return warning(subject, "connection", f"{text} ({days} days)", fix=fix)
    host = origin.partition("://")[2].rpartition(":")[0].strip("[]")
    if origin.startswith("http://") and not is_loopback(host):
        fix = "use https; a machine on the way can replace the keys, and so forge tokens"
        return warning(subject, "connection", f"{text}, in cleartext", fix=fix)
    if slowest > SLOW_ANSWER:
        fix = "requests wait that long when keys are due; look into the network and the authorization server"
        return warning(subject, "connection", text, fix=fix)
    return ok(subject, "connection", text)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _has_document(answer: Answer | None, document: Mapping[str, Any]) -> bool:
    """Return whether the body of *answer* is *document*."""
    try:
        return answer is not None and parse_object(answer.body) == document
    except MalformedJSON:
        return False


def _check_clock(record: IssuerRecord, exchanges: Sequence[Exchange]) -> list[Finding]:
    """Compare the clocks by the quickest answer that has a date: the shorter the exchange, the smaller the error."""
    for exchange in sorted(exchanges, key=lambda each: each.seconds):
        offset = server_offset(exchange)
        if offset is not None:
            return [check_clock(record.issuer.url, offset, record.issuer.leeway)]
    reached = any(exchange.reached for exchange in exchanges)
    return [skipped(record.issuer.url, "clock", "no answer has a Date header")] if reached else []


@dataclass(frozen=True, slots=True)
class _Examination:
    """The checks of one issuer. ``begun`` is the number of exchanges before them."""

    record: IssuerRecord
    engine: Engine
    watch: TracingTransport
    begun: int

    @property
    def exchanges(self) -> Sequence[Exchange]:
        return self.watch.exchanges[self.begun :]

    @property
    def subject(self) -> str:
        return self.record.issuer.url

    def report(self, check: str, outage: AuthorityUnavailable) -> Finding:
        """Return the finding about *outage*. A server that cannot be reached is reported once, with its connections."""
        origins = [exchange.origin for exchange in self.exchanges if exchange.failure is outage]
        reached = {exchange.origin for exchange in self.exchanges if exchange.reached}
        if origins and not reached.intersection(origins):
            return skipped(self.subject, check, f"{origins[0]} cannot be reached")
        return error(self.subject, check, describe(outage), fix=advise(outage))

    @property
    def needs_keys(self) -> bool:
        """Whether tokens, or signed introspection answers, are verified with keys of the issuer."""
        state = self.record.introspection
        signed = state is not None and state.settings.signed
        return signed or self.record.issuer.validate is not Validation.INTROSPECTION

    def check_metadata(self) -> list[Finding]:
        """Find the metadata as the guard does, if it needs metadata."""
        issuer, state = self.record.issuer, self.record.introspection
        located = issuer.keys or issuer.jwks_file or self.record.jwks_uri or issuer.key_url_template
        wanted: Callable[[Metadata], bool]
        if self.needs_keys and located is None:
            wanted = has_keys
        elif state is not None and state.settings.endpoint is None:
            settings = state.settings
            wanted = lambda found: has_endpoint(found, settings)  # noqa: E731 - a function of one expression
        else:
            return [ok(self.subject, "metadata", "not needed: the settings say where everything is")]
        try:
            metadata: Metadata = self.engine.perform(discover(self.record, self.engine.clock, wanted, anew=True))
        except AuthorityUnavailable as outage:
            return [self.report("metadata", outage)]
        # The search goes on after a document that lacks an endpoint, so the last exchange may be another one.
        place = next(exchange.url for exchange in self.exchanges if _has_document(exchange.answer, metadata.raw))
        found = [ok(self.subject, "metadata", f"{place} names exactly this issuer")]
        return [*found, *self.check_listed_resources(metadata)]

    def check_listed_resources(self, metadata: Metadata) -> list[Finding]:
        """Look for the resource of the guard in *metadata*, if it lists resources (RFC 9728 section 4).

        Its absence is not an error: a server may list some of its resources only.
        """
        resource = self.engine.settings.resource
        if resource is None:
            return []
        listed = metadata.raw.get("protected_resources")
        if not isinstance(listed, list) or resource.url in listed:
            return []
        text = f"protected_resources, with {len(listed)} entries, does not list {resource.url}"
        fix = "register the API at the authorization server, or correct resource; clients may refuse to ask for tokens"
        return [warning(self.subject, "metadata", text, fix=fix)]

    def compare_key_urls(self) -> list[Finding]:
        """Compare a configured ``jwks_uri`` with that of the metadata, if there is any."""
        issuer = self.record.issuer
        if not self.needs_keys or not issuer.jwks_uris or issuer.jwks_file or issuer.trust_domain is not None:
            return []
        try:
            metadata = self.engine.perform(discover(self.record, self.engine.clock, has_keys, anew=True))
        except AuthorityUnavailable:  # jwks_uri is also for servers without metadata
            return []
        if metadata.jwks_uri is None:
            return []
        if metadata.jwks_uri in issuer.jwks_uris:
            return [ok(self.subject, "metadata", "jwks_uri is the one that the metadata names")]
        text = f"jwks_uri is {' '.join(issuer.jwks_uris)}, and the metadata names {metadata.jwks_uri}"
        fix = "correct jwks_uri, or leave it out: then the guard follows the metadata when the server moves its keys"
        return [warning(self.subject, "metadata", text, fix=fix)]

    def check_key_sets(self) -> list[Finding]:
        """Fetch the key sets, and compare their keys with the accepted algorithms."""
        issuer, record = self.record.issuer, self.record
        if not self.needs_keys:
            return [ok(self.subject, "keys", "not needed: every token is introspected")]
        if record.by_id is not None:
            return [self.check_key_by_id()]
        held = record.ring.current
        if issuer.keys is not None and held is not None:
            return check_keys(self.subject, held.keys, issuer.algorithms, "the setting keys")
        findings: list[Finding] = []
        for each in (record, *record.others):
            try:
                keys, _ = self.engine.perform(fetch_keys(each, self.engine.clock))
            except AuthorityUnavailable as outage:
                findings.append(self.report("keys", outage))
            else:
                place = issuer.jwks_file or self.exchanges[-1].url
                findings += check_keys(self.subject, keys, issuer.algorithms, place)
        return findings

    def check_key_by_id(self) -> Finding:
        """Fetch a key that does not exist. The server must answer that there is none: tokens may name such a key."""
        name = str(uuid.uuid4())
        template = self.record.issuer.key_url_template or ""
        url = template.removesuffix("{kid}") + name
        try:
            self.engine.perform(fetch_key(name, url, self.record, self.engine.clock))
        except AuthorityUnavailable as outage:
            return self.report("keys", outage)
        return ok(self.subject, "keys", f"fetched one by one from {template}")

    def check_introspection(self) -> list[Finding]:
        """Send an introspection request with a made-up token.

        RFC 7662 section 2.2: "Note that to avoid disclosing too much of the authorization server's state to a third
        party, the authorization server SHOULD NOT include any additional information about an inactive token". So a
        server that accepts the credentials answers that the token is inactive, and nothing else.
        """
        issuer, state = self.record.issuer, self.record.introspection
        if state is None:
            return []
        prefix = issuer.opaque_prefixes[0] if issuer.opaque_prefixes else ""
        made_up = Credential(token=f"{prefix}scopeguard-doctor-{secrets.token_urlsafe(12)}", source=TokenSource.HEADER)
        try:
            members = self.engine.perform(ask_authority(made_up, self.record, state, self.engine.clock))
        except AuthorityUnavailable as outage:
            return [self.report_introspection(outage)]
        if members is not None:
            text = "the endpoint calls a made-up token active: it would accept any token"
            fix = "correct introspection.endpoint"
            return [error(self.subject, "introspection", text, fix=fix)]
        how = state.settings.auth.value if state.settings.dialect is Dialect.RFC7662 else state.settings.dialect.value
        return [ok(self.subject, "introspection", f"the credentials are accepted ({how})")]

    def report_introspection(self, outage: AuthorityUnavailable) -> Finding:
        """Return the finding about a failed introspection request.

        RFC 7662 section 2.3: with wrong credentials of the API, "the authorization server responds with an HTTP 401".
        A 400 without ``invalid_client`` may be about the made-up token.
        """
        status = outage.detail.get("status")
        hint = STATUS_HINTS.get(int(status)) if status is not None and status.isdigit() else None
        if hint is None:
            return self.report("introspection", outage)
        text, _, fix = hint.partition("; ")
        if status == "400" and outage.blame is Blame.TOKEN:
            text = "the server answers a made-up token with 400, so the credentials cannot be tested"
            fix = "try a token of the authorization server: scopeguard explain"
            return warning(self.subject, "introspection", text, fix=fix)
        return error(self.subject, "introspection", f"{text} (status {status})", fix=fix)
