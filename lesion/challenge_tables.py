"""Tables in a form of their own: the truth of ISIC 2018 Task 3, its lesions, and PH2's."""

import re
from pathlib import Path

from lesion.metadata import CONFIRMATIONS, image_name, is_number, name_in, read_metadata
from lesion.samples import DIAGNOSES, Collection, DatasetError, Problem
from lesion.tables import read_table, text_of

# The test image of task 3 that the scorer leaves out; the truth lists it like the others.
_UNSCORED = "ISIC_0035068"
# Columns of the challenge's truth besides image and categories; its scorer reads them.
_WEIGHT_COLUMNS = ("score_weight", "validation_weight")
# Common nevus, atypical nevus, melanoma.
_PH2_DIAGNOSES = {"0": "NV", "1": "NV", "2": "MEL"}


def read_truth(path: Path | None, collection: Collection) -> tuple[dict[str, dict], set[str]]:
    """The truth of ISIC 2018 Task 3, if any, as `read_metadata` returns what is known of images.

    In the challenge's form (`read_categories`), or in HAM10000's, as those publish the test images'
    who made both.
    """
    if path is None:
        return {}, set()
    columns = next((list(row) for _, row in read_table(path, ())), [])
    if "dx" not in columns:
        categories = read_categories(path)
        collection.diagnoses_listed += len(categories)
        return {image_id: {"diagnosis": name} for image_id, name in categories.items()}, set()
    rows, contradictory = read_metadata([path], collection, ("image_id", "dx"))
    if rows.pop(_UNSCORED, {}).get("diagnosis"):
        collection.diagnoses_listed -= 1
    return rows, contradictory


def read_ph2(path: Path, collection: Collection) -> dict[str, dict]:
    """What PH2's `PH2_dataset.txt` says of each image, as `read_metadata` returns it.

    Its rows begin `|| IMD003 || histological diagnosis || clinical diagnosis ||`; the last is a
    number (Mendonça et al. 2013).

    Raises:
        DatasetError: if it holds no such row.
    """
    rows: dict[str, dict] = {}
    for number, line in enumerate(text_of(path).splitlines(), 1):
        cells = [cell.strip() for cell in line.split("||")]
        if len(cells) < 4 or not re.fullmatch(r"IMD\d+", cells[1]):
            continue
        diagnosis = _PH2_DIAGNOSES.get(cells[3])
        if diagnosis is None:
            reason = f"line {number}: the clinical diagnosis {cells[3]!r} of {cells[1]} is unknown"
            collection.problems.append(Problem(path, reason))
        confirmed = {"confirmation": "histo"} if cells[2] else {}
        rows[cells[1]] = {"diagnosis": diagnosis, "metadata": confirmed}
    if not rows:
        raise DatasetError(f"The table {path} lists no image of PH2.")
    return rows


def read_categories(path: Path) -> dict[str, str]:
    """The diagnosis of each image id, from a table of the challenge's form.

    Its columns are `image` and one per category (`DIAGNOSES`); each row holds a single 1. A row
    whose `score_weight` is 0 is passed over, as the challenge's scorer does, and so is the image to
    which the scorer itself gives that weight.

    Raises:
        DatasetError: naming the line, for other columns, a second row of an image, a row that does
            not name exactly one category, or a weight other than 0 and 1.
    """
    rows = read_table(path, ("image", *(name.lower() for name in DIAGNOSES)), _WEIGHT_COLUMNS)
    categories: dict[str, str] = {}
    listed = set()
    for number, row in rows:
        image_id = image_name(row["image"])
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
        if image_id in listed:
            raise DatasetError(f"Line {number} of the table {path} lists {image_id} a second time.")
        listed.add(image_id)
        weight = row.get("score_weight") or "1"
        if not (is_number(1, weight) or is_number(0, weight)):
            raise DatasetError(
                f"Line {number} of the table {path} gives {image_id} the score_weight {weight!r}; "
                "only images that count (1) or do not (0) are known here."
            )
        if is_number(0, weight) or image_id == _UNSCORED:
            continue
        categories[image_id] = DIAGNOSES[values.index(1.0)]
    return categories


def read_groupings(path: Path) -> dict[str, dict[str, str]]:
    """`lesion_id` and `confirmation` (as HAM10000 names it) by image id."""
    groupings = {}
    for _, row in read_table(path, ("image", "lesion_id")):
        kind = row.get("diagnosis_confirm_type", "")
        groupings[image_name(row["image"])] = {
            "lesion_id": name_in(row, "lesion_id") or "",
            "confirmation": CONFIRMATIONS.get(kind.lower(), kind),
        }
    return groupings
