"""What the operator says: frozen settings, checked when they are constructed.

A setting that cannot work raises :class:`~scopeguard.errors.ConfigurationError` here and never fails a request later.
``file/`` reads the same settings from TOML.
"""
