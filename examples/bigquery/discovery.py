"""Copies Google's discovery document of BigQuery from the package google-api-python-client.

``python discovery.py`` writes it to the folder of this file, where ``scopeguard.toml`` expects it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import googleapiclient.discovery_cache

NAME = "bigquery.v2.json"


def copy_to(folder: Path) -> Path:
    """Copy the document into *folder*, and return its path there."""
    documents = Path(googleapiclient.discovery_cache.__file__).parent / "documents"
    return Path(shutil.copyfile(documents / NAME, folder / NAME))


if __name__ == "__main__":
    print(copy_to(Path(__file__).parent).name)
