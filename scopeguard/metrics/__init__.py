"""Metrics about the decisions of guards and their outbound requests, for Prometheus or OpenTelemetry.

    from scopeguard import metrics

    metrics.prometheus(guard)       # extra "prometheus": in the registry of prometheus-client
    metrics.opentelemetry(guard)    # extra "otel": in the meter provider of the process

``docs/metrics.md`` lists the metrics. No label has a value that a client chooses: not the path, the client or the
subject. An issuer that is not configured is ``other``.
"""

from __future__ import annotations

from scopeguard.metrics.exporters import opentelemetry, prometheus

__all__ = ["opentelemetry", "prometheus"]
