"""The settings: frozen dataclasses that are checked when they are constructed.

A setting that cannot work raises :class:`~scopeguard.errors.ConfigurationError` then, and never fails a request.
``file/`` reads the same settings from TOML.
"""
