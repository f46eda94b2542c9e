"""Google's description of BigQuery's API, as the package google-api-python-client has it.

``python discovery.py`` puts it beside this file, where ``scopeguard.toml`` expects it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import googleapiclient.discovery_cache

NAME = "bigquery.v2.json"


def copy_to(folder: Path) -> Path:
    """The document, copied into *folder*; where it is then."""
    documents = Path(googleapiclient.discovery_cache.__file__).parent / "documents"
    return Path(shutil.copyfile(documents / NAME, folder / NAME))


if __name__ == "__main__":
    print(copy_to(Path(__file__).parent).name)
