"""The audit: every route of an app, what it requires, who said so, and what is wrong with that.

    report = audited(app, guard=Guard.from_file("scopeguard.toml"))
    report.errors, report.warnings, report.entries

``declared`` is what decorators, dependencies and middleware leave to be read; ``walk`` finds the routes of an app, with
one module for each framework that imports it, and nothing else; ``matching`` asks rules about templates; ``judge``
makes the :class:`~scopeguard.audit.report.Report`; ``text`` and ``page`` write it. Nothing here sends a request.
``startup`` is the same check when an app starts.
"""
