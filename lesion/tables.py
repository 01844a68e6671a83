"""Tables: HAM10000's metadata and the truth of ISIC 2018 Task 3 read, scores printed."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from lesion.samples import DIAGNOSES, Collection, DatasetError, Problem

# Columns of the challenge's truth besides image and categories; its scorer reads them.
_WEIGHT_COLUMNS = ("score_weight", "validation_weight")
_IMAGE_SUFFIX = re.compile(r"\.(bmp|dcm|gif|jfif|jpe?g|png|tiff?|webp)$", re.IGNORECASE)
_PATIENT_COLUMNS = {
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "site": ("site", "localization", "anatom_site_general"),
}
# What the challenge calls the ways in which HAM10000's diagnoses were confirmed.
_CONFIRMATIONS = {
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}


def read_ham_metadata(
    path: Path, collection: Collection
) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Rows of HAM10000's metadata by image id, and the ids whose rows contradict each other.

    Diagnoses come back as in `DIAGNOSES`. Comma, semicolon and tab separate alike.
    """
    rows: dict[str, dict[str, str]] = {}
    contradictory: set[str] = set()
    for number, row in read_table(path, ("lesion_id", "image_id", "dx")):
        problem = None
        image_id = row["image_id"].removesuffix(".jpg")
        row["dx"] = row["dx"].upper()
        if row["dx"] and row["dx"] not in DIAGNOSES:
            problem = f"the diagnosis (dx) {row['dx']!r} of {image_id} is unknown and not used"
            row["dx"] = ""
        elif not image_id:
            problem = "no image_id"
        elif image_id in rows and row != rows[image_id]:
            problem = f"{image_id} is listed again and otherwise; the image is left out"
            contradictory.add(image_id)
        elif image_id in rows:
            problem = f"{image_id} is listed again"
        else:
            missing = [column for column in ("lesion_id", "dx") if not row[column]]
            if missing:
                problem = f"{image_id} has no {' and no '.join(missing)}"
        if problem:
            collection.problems.append(Problem(path, f"line {number}: {problem}"))
        if image_id:
            rows.setdefault(image_id, row)
    diagnoses: dict[str, set[str]] = {}
    for row in rows.values():
        if row["lesion_id"] and row["dx"]:
            diagnoses.setdefault(row["lesion_id"], set()).add(row["dx"])
    for lesion_id, names in diagnoses.items():
        if len(names) > 1:
            reason = f"lesion {lesion_id} has several diagnoses: {', '.join(sorted(names))}"
            collection.problems.append(Problem(path, reason))
    for image_id in contradictory:
        del rows[image_id]
    return rows, contradictory


def read_categories(path: Path) -> dict[str, str]:
    """The diagnosis of each image id, from a table of the challenge's form.

    Its columns are `image` and one per category (`DIAGNOSES`); each row holds a single 1.

    Raises:
        DatasetError: naming the line, for other columns, a second row of an image or a row that
            does not name exactly one category.
    """
    rows = read_table(path, ("image", *(name.lower() for name in DIAGNOSES)), _WEIGHT_COLUMNS)
    categories: dict[str, str] = {}
    for number, row in rows:
        image_id = row["image"].removesuffix(".jpg")
        try:
            values = [float(row[name.lower()]) for name in DIAGNOSES]
        except ValueError as error:
            raise DatasetError(f"Line {number} of the table {path}: {error}.") from error
        if sorted(values) != [0.0] * (len(DIAGNOSES) - 1) + [1.0]:
            raise DatasetError(
                f"Line {number} of the table {path} does not give {image_id} exactly one category: "
                f"its values are {', '.join(row[name.lower()] for name in DIAGNOSES)} where one "
                "must be 1 and the others 0."
            )
        if image_id in categories:
            raise DatasetError(f"Line {number} of the table {path} lists {image_id} a second time.")
        categories[image_id] = DIAGNOSES[values.index(1.0)]
    return categories


def read_groupings(path: Path) -> dict[str, dict[str, str]]:
    """`lesion_id` and `confirmation` (as HAM10000 names it) by image id."""
    groupings = {}
    for _, row in read_table(path, ("image", "lesion_id")):
        kind = row.get("diagnosis_confirm_type", "")
        groupings[row["image"].removesuffix(".jpg")] = {
            "lesion_id": row["lesion_id"],
            "confirmation": _CONFIRMATIONS.get(kind, kind),
        }
    return groupings


def image_name(path: str) -> str:
    """The name of an image file, without its folder, and without its suffix if it is an image's.

    Other points are part of the name, as in those of DICOM files.
    """
    return _IMAGE_SUFFIX.sub("", re.split(r"[/\\]", path)[-1])


def read_patients(path: Path) -> dict[str, dict[str, str]]:
    """What is known of each image's patient, by the image's `image_name`.

    Columns are `image` or `image_id`, and any of `age`, `sex` and `site`, also under the names of
    the archive (`isic_id`, `age_approx`, `anatom_site_general`) and of HAM10000 (`localization`).

    Raises:
        DatasetError: for other columns, if no image is listed, or if two rows of an image say
            different things.
    """
    patients: dict[str, dict[str, str]] = {}
    for number, row in read_table(path, ()):
        image = next((row[name] for name in ("image", "image_id", "isic_id") if name in row), None)
        if image is None or not any(old in row for old in sum(_PATIENT_COLUMNS.values(), ())):
            raise DatasetError(
                f"The table {path} must have the column image (or image_id), and at least one of "
                f"age, sex and site; its columns are {', '.join(row)}."
            )
        known = {
            new: row[old]
            for new, names in _PATIENT_COLUMNS.items()
            for old in names
            if row.get(old)
        }
        if patients.setdefault(image_name(image), known) != known:
            raise DatasetError(
                f"Line {number} of the table {path} says of {image} what an earlier line does not."
            )
    if not patients:
        raise DatasetError(f"The table {path} lists no image.")
    return patients


def read_table(
    path: Path, columns: tuple[str, ...], others: tuple[str, ...] | None = None
) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table with a header in any case, all values stripped.

    Args:
        columns: names in lower case that the header must have.
        others: names that it may have besides; None: any.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"The table {path} cannot be read: {error}.") from error
    header = lines[0] if lines else ""
    delimiter = max("\t,;", key=header.count)

    def values_in(number, line):
        try:
            return [value.strip() for value in next(csv.reader([line], delimiter=delimiter), [])]
        except csv.Error as error:
            raise DatasetError(f"Line {number} of the table {path}: {error}.") from error

    names = [name.lower() for name in values_in(1, header)]
    missing = [column for column in columns if column not in names]
    if missing:
        raise DatasetError(
            f"The table {path} lacks the column {', '.join(missing)}. Its first line must name "
            f"{', '.join(columns)}; it names {', '.join(names) or 'nothing'}."
        )
    unknown = [] if others is None else [n for n in names if n not in (*columns, *others)]
    if unknown:
        raise DatasetError(
            f"The table {path} has the unknown column {', '.join(unknown)}; known are "
            f"{', '.join(columns)}."
        )
    table = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        values = values_in(number, line)
        if len(values) != len(names):
            raise DatasetError(
                f"Line {number} of the table {path} has {len(values)} values where its first line "
                f"names {len(names)} columns: {line!r}."
            )
        table.append((number, dict(zip(names, values, strict=True))))
    return table


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text for rows of cells: the first column flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
