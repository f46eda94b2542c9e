"""Limits for the files that the configuration names: their size, and the time for reading one."""

from __future__ import annotations

from typing import Final

LARGEST_CONFIGURATION_FILE: Final = 1024 * 1024
"""Bytes of a configuration file, and of a file that ``file:PATH`` names in it."""
LARGEST_API_KEYS_FILE: Final = 16 * 1024 * 1024
"""Bytes of ``ApiKeys.keys_file``."""
LARGEST_FILE: Final = 512 * 1024
"""Bytes of another file that is read at run time, unless a setting says otherwise."""

API_KEYS_FILE_TIMEOUT: Final = 5.0
"""Seconds that a request waits for the file of API keys to be read."""
