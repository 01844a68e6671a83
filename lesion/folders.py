"""What lies in a folder: folders, tables and images by their names, whatever their case."""

import re
from collections.abc import Callable
from pathlib import Path

from lesion.samples import PARTS

IMAGE_SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of the images of a data set."""
_TABLE_SUFFIXES = {".csv", ".tab", ".tsv"}


def entries(root: Path, accepts: Callable[[str], object]) -> list[Path]:
    """Entries whose lower-case name is accepted, once for names that differ by case only.

    One redistribution of HAM10000 holds each folder twice, `HAM10000_…` and `ham10000_…`.
    """
    accepted: dict[str, Path] = {}
    for entry in sorted(root.iterdir()):
        if accepts(entry.name.lower()):
            accepted.setdefault(entry.name.lower(), entry)
    return list(accepted.values())


def folders(root: Path, accepts: Callable[[str], object]) -> list[Path]:
    """Accepted folders; one that holds only a folder of its own name stands for the inner one."""
    found = []
    for folder in entries(root, accepts):
        if not folder.is_dir():
            continue
        inner = folder / folder.name
        found.append(inner if inner.is_dir() else folder)
    return found


def part_folders(root: Path, pattern: str) -> dict[str, Path]:
    """Folders by the group `part` of a pattern of their names, in the order of `PARTS`."""
    found = {}
    for folder in folders(root, lambda name: re.fullmatch(pattern, name)):
        match = re.fullmatch(pattern, folder.name.lower())
        found[match["part"]] = folder
    return {part: found[part] for part in PARTS if part in found}


def part_tables(root: Path, pattern: str) -> dict[str, Path]:
    """Tables by part, each a file or alone in a folder of its name."""
    found = entries(root, lambda name: re.fullmatch(pattern, name))
    return {re.fullmatch(pattern, e.name.lower())["part"]: table_in(e) for e in found}


def table_in(entry: Path) -> Path:
    """The table that a folder holds; an entry that is a file is the table itself."""
    if not entry.is_dir():
        return entry
    names = (path for path in sorted(entry.iterdir()) if path.is_file() and path.name[0] != ".")
    found = [path for path in names if path.name not in ("ATTRIBUTION.txt", "LICENSE.txt")]
    return found[0] if found else entry


def image_files(folder: Path) -> list[Path]:
    """Image files by name; system files, licences and tables are none."""
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def table_files(folder: Path) -> list[Path]:
    """Tables that lie in a folder, by name."""
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in _TABLE_SUFFIXES)
