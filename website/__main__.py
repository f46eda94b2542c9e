"""``python -m website``: build the site into build/website/site. Exit with status 1 if anything is wrong with it."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from website import links, llms, pages, reference, samples

FOLDER: Final = pages.ROOT / "build" / "website"
_INPUTS: Final = (
    "docs",
    "tests/data/providers",
    "examples",
    "scopeguard",
    "website",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "pyproject.toml",
)


def build(folder: Path = FOLDER) -> Path:
    """Build the site below *folder* unless it is up to date, and return its own folder.

    Processes that call this at once build it once. Raises :class:`ValueError` with what is wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp, digest = folder / "built", _digest()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text("ascii") != digest:
            stamp.unlink(missing_ok=True)
            _build(folder)
            stamp.write_text(digest, "ascii")
    return folder / "site"


def _digest() -> str:
    """Return a digest of everything that the site is made of."""
    state = hashlib.sha256()
    for path in _input_files():
        state.update(f"{path.relative_to(pages.ROOT)}\0".encode())
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def _input_files() -> Iterator[Path]:
    for name in _INPUTS:
        path = pages.ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def _build(folder: Path) -> None:
    pages.stage(folder / "docs")
    reference.write(folder / "docs")
    samples.write(folder / "docs")
    settings = (pages.ROOT / "website" / "zensical.toml").read_text("utf-8")
    (folder / "zensical.toml").write_text(settings.replace('paths = ["../.."]', f'paths = ["{pages.ROOT}"]'), "utf-8")
    shutil.rmtree(folder / "site", ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(folder / "zensical.toml")]
    # The extension for docstrings is found in the current directory.
    done = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if done.returncode or "Warning:" in output:
        raise ValueError(output)
    llms.write(folder / "site", folder / "docs")
    problems = links.check(folder / "site")
    if problems:
        raise ValueError("\n".join(problems))


if __name__ == "__main__":
    try:
        print(build())
    except ValueError as problem:
        sys.exit(str(problem))
