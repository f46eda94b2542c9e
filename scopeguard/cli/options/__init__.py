"""The options of each command, and its help: one file per command. Options of several commands are in ``shared.py``.

A command imports what it does when it runs, so that help does not wait for servers, frameworks and HTTP clients:
``serve`` and ``authorize`` from :mod:`scopeguard.server`, the others from the file or folder of :mod:`scopeguard.cli`
with the same name.
"""
