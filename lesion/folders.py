"""What lies in a folder: folders, tables and images by their names, whatever their case."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from lesion.samples import PARTS, Problem

# What pictures may be called that are not read everywhere.
_PICTURES = frozenset(
    ".arw|.avif|.cr2|.cr3|.dcm|.dng|.gif|.heic|.heif|.jp2|.jxl|.nef|.psd|.raw".split("|")
)
IMAGE_SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of the images of a data set."""
ANALYSED_SUFFIXES = tuple(sorted((*IMAGE_SUFFIXES, ".dcm", ".gif")))
"""Of those that `lesion analyze` reads."""
_IMAGE_SUFFIX = re.compile(rf"(?<=.)({'|'.join(map(re.escape, ANALYSED_SUFFIXES))})$", re.I)
SUMMARY = "evaluation.json"
"""The file by which a folder is one of an evaluation's results."""
_TABLE_SUFFIXES = {".csv", ".tab", ".tsv"}
_SPREADSHEET_SUFFIXES = {".ods", ".xls", ".xlsx"}


def _any(_: str) -> bool:
    return True


def image_stem(name: str) -> str:
    """The name of a file without its suffix, if it is an image's.

    Other points are part of the name, as in those of DICOM files, which may be a UID alone.
    """
    return _IMAGE_SUFFIX.sub("", name)


def entries(root: Path, accepts: Callable[[str], object] = _any) -> list[Path]:
    """Entries whose lower-case name is accepted, once for names that differ by case only.

    One redistribution of HAM10000 holds each folder twice, `HAM10000_…` and `ham10000_…`.
    """
    accepted: dict[str, Path] = {}
    for entry in sorted(root.iterdir()):
        if accepts(entry.name.lower()):
            accepted.setdefault(entry.name.lower(), entry)
    return list(accepted.values())


def folders(root: Path, accepts: Callable[[str], object] = _any) -> list[Path]:
    """Accepted folders; one that holds only a folder of its own name stands for the inner one."""
    found = []
    for folder in entries(root, accepts):
        if not folder.is_dir():
            continue
        found.append(unwrapped(folder))
    return found


def unwrapped(folder: Path) -> Path:
    """A folder, or the one of its own name in it if it holds no images beside that."""
    inner = folder / folder.name
    return inner if inner.is_dir() and not image_files(folder) else folder


def by_part(found: Iterable[Path], pattern: str) -> Iterator[tuple[str, Path]]:
    """Of what has a lower-case name of a pattern, the pattern's group `part` and the path."""
    for path in found:
        if match := re.fullmatch(pattern, path.name.lower()):
            yield match["part"], path


def inner_folders(folder: Path) -> list[Path]:
    """Folders that lie in one, by name, but hidden ones and those of an evaluation's results."""
    inside = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in inside if path.is_dir() and not (path / SUMMARY).is_file()]


def part_folders(root: Path, pattern: str) -> dict[str, Path]:
    """Folders by the group `part` of a pattern of their names, in the order of `PARTS`."""
    found = dict(by_part(folders(root), pattern))
    return {part: found[part] for part in PARTS if part in found}


def part_tables(root: Path, pattern: str) -> dict[str, Path]:
    """Tables by part, each a file or alone in a folder of its name."""
    return {part: table_in(entry) for part, entry in by_part(entries(root), pattern)}


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


def unread_tables(folder: Path) -> list[Problem]:
    """Spreadsheets that lie in a folder, which nothing here reads."""
    files = sorted(path for path in folder.iterdir() if path.name[0] not in ".~")
    reason = "a spreadsheet, which is not read: save its table as .csv"
    return [Problem(p, reason) for p in files if p.suffix.lower() in _SPREADSHEET_SUFFIXES]


def not_read(files: Iterable[Path], readable: Collection[str] = IMAGE_SUFFIXES) -> str:
    """Which files of pictures are in no format that is read, such as "60 .heic"; "" for none."""
    suffixes = (path.suffix.lower() for path in files if not path.name.startswith("."))
    counts = Counter(each for each in suffixes if each in _PICTURES and each not in readable)
    return ", ".join(f"{count} {each}" for each, count in counts.items())


def passed_over(folder: Path, deeper: bool = True) -> list[Problem]:
    """What of a folder of images is not taken for one, in itself and in folders inside of it."""
    inside = inner_folders(folder) if deeper else []
    below = sum(
        path.suffix.lower() in IMAGE_SUFFIXES for each in inside for path in each.rglob("*")
    )
    files = not_read(path for path in folder.iterdir() if path.is_file())
    parts = [files, f"{below} in folders inside" if below else ""]
    text = ", ".join(part for part in parts if part)
    return [Problem(folder, f"images that are not read: {text}")] if text else []
