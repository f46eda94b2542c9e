"""Copies the pages for the site. Links to files outside of docs/ lead to copies of them in the site."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
LINK: Final = re.compile(r"(\]\()([^)\s]+)(\))")
DIAGRAM: Final = re.compile(r"<!-- picture: ([\w-]+): (.+?) -->\n```mermaid\n(.*?)```\n", re.DOTALL)
_LANGUAGES: Final = {
    ".py": "python",
    ".toml": "toml",
    ".yaml": "yaml",
    ".json": "json",
    ".conf": "nginx",
    "Dockerfile": "dockerfile",
}
_MOST_BYTES: Final = 50_000

# Pages outside of docs/, by their place in the site. A folder becomes a page with its README and its files.
OUTSIDE: Final = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    **{
        f"examples/{path.name}": f"examples/{path.name}.md"
        for path in (ROOT / "examples").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    },
}


def stage(target: Path) -> list[str]:
    """Copy every page into the folder *target*, and return their names. Raises :class:`ValueError` for a wrong link."""
    if target.exists():
        shutil.rmtree(target)
    names: list[str] = []
    (target / "assets").mkdir(parents=True)
    for name in ("extra.css", "extra.js"):
        shutil.copyfile(ROOT / "website" / name, target / "assets" / name)
    for source in sorted(DOCS.rglob("*")):
        name = source.relative_to(DOCS).as_posix()
        if source.suffix == ".md":
            text = show_pictures(source.read_text("utf-8"), source)
            _write(target / name, rewrite(text, source, name))
            names.append(name)
        elif source.is_file() and source.suffix != ".json":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)
    for outside, name in OUTSIDE.items():
        path = ROOT / outside
        if path.is_dir():
            _write(target / name, _folder_page(path, name))
        elif path.suffix == ".md":
            _write(target / name, rewrite(path.read_text("utf-8"), path, name))
        else:
            _write(target / name, f"# Licence\n\n{path.read_text('utf-8')}")
        names.append(name)
    return names


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def show_pictures(text: str, source: Path) -> str:
    """Return *text* with the picture of each Mermaid diagram instead of the diagram."""

    def replace(match: re.Match[str]) -> str:
        picture = DOCS / "pictures" / f"{match[1]}.svg"
        if not picture.exists():
            raise ValueError(f"{source.relative_to(ROOT)}: no {picture.relative_to(ROOT)}; run make pictures")
        place = "/".join((*[".."] * len(source.parent.relative_to(DOCS).parts), "pictures", picture.name))
        return f"![{' '.join(match[2].split())}]({place})\n"

    return DIAGRAM.sub(replace, text)


def rewrite(text: str, source: Path, name: str) -> str:
    """Return the *text* of the page *source*, with links that fit its place *name* in the site."""

    def replace(match: re.Match[str]) -> str:
        return match[1] + _rewrite_link(match[2], source, name) + match[3]

    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        # An indented line is a command, except in a list, where it continues an item.
        lines.append(line if fenced or line.startswith("    ") else LINK.sub(replace, line))
    return "\n".join(lines) + "\n"


def _rewrite_link(link: str, source: Path, name: str) -> str:
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return link
    path, mark, anchor = link.partition("#")
    wanted = (source.parent / path).resolve()
    place = _place(wanted)
    if place is None:
        raise ValueError(f"{source.relative_to(ROOT)}: {link} leads to no page of the site")
    return _relative(place, name) + mark + anchor


def _place(path: Path) -> str | None:
    """Return the place in the site of the file or folder *path* of the repository."""
    inside = path.relative_to(ROOT).as_posix()
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    for candidate in (inside, str(Path(inside).parent)):
        if candidate in OUTSIDE:
            return OUTSIDE[candidate]
    return None


def _relative(place: str, name: str) -> str:
    here, there = Path(name).parent.parts, Path(place).parts
    shared = 0
    while shared < min(len(here), len(there) - 1) and here[shared] == there[shared]:
        shared += 1
    return "/".join((*[".."] * (len(here) - shared), *there[shared:]))


def _folder_page(folder: Path, name: str) -> str:
    """Return a page with the README of *folder*, if it has one, and its files."""
    readme = folder / "README.md"
    parts = [f"# examples/{folder.name}\n\nThe files of an example that other pages use.\n", "## The files\n"]
    if readme.exists():
        parts = [rewrite(readme.read_text("utf-8"), readme, name), "## The files\n"]
    for path in _sources(folder):
        language = _LANGUAGES.get(path.suffix) or _LANGUAGES.get(path.name, "text")
        heading = path.relative_to(folder).as_posix()
        parts.append(f"### {heading}\n\n````{language}\n{path.read_text('utf-8')}````\n")
    return "\n".join(parts)


def _sources(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = path.name == "README.md" or path.name.startswith(".") or "__pycache__" in path.parts
        if path.is_file() and not hidden and path.stat().st_size < _MOST_BYTES:
            yield path
