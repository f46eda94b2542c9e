"""The audit: every route of an app, its requirement, the place that declares it, and the findings.

    report = audit_app(app)
    report.errors, report.warnings, report.entries

``walk`` finds the routes of an app, with one module for each framework. ``matching`` compares templates of routes and
rules. ``findings`` makes the :class:`~scopeguard.audit.report.Report`, which ``text`` and ``page`` write. ``startup``
runs the audit when an app starts. ``inspection`` looks into apps that are not frameworks. No module sends a request.
"""
