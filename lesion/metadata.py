"""What tables say of images: HAM10000's, the ISIC archive's, Task 3's truth, or one's own."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lesion.patient import NAMES, UNKNOWN
from lesion.samples import DIAGNOSES, Collection, DatasetError, Problem
from lesion.tables import read_table, text_of
from lesion.vocabulary import category_of

# The test image of task 3 that the scorer leaves out; the truth lists it like the others.
_UNSCORED = "ISIC_0035068"
# Columns of the challenge's truth besides image and categories; its scorer reads them.
_WEIGHT_COLUMNS = ("score_weight", "validation_weight")
_IMAGE_SUFFIX = re.compile(r"\.(bmp|dcm|gif|jfif|jpe?g|png|tiff?|webp)$", re.IGNORECASE)
_IMAGE_COLUMNS = (
    *("image_id", "image", "isic_id", "image name", "image_name", "bcn_filename", "filename"),
    *("file_name", "file", "image_file", "image_path", "img_id", "derm", "id"),
)
_DIAGNOSIS_COLUMNS = ("dx", "diagnosis")
# Looked at where there are none of these, nor of the archive's: words that may mean anything.
_OTHER_DIAGNOSIS_COLUMNS = ("label", "class", "category")
# The categories of ISIC 2019 that are none of the seven.
_OTHER_CATEGORIES = ("scc", "unk")
# Common nevus, atypical nevus, melanoma.
_PH2_DIAGNOSES = {"0": "NV", "1": "NV", "2": "MEL"}
# The archive's since 2023, from the broadest to the narrowest.
_DIAGNOSIS_LEVELS = tuple(f"diagnosis_{level}" for level in range(1, 6))
_CONFIRMATION_COLUMNS = ("dx_type", "diagnosis_confirm_type")
_MANY = 20
"""Images of one lesion: more of them are rather a word for "not known"."""
_MUCH = 0.1
"""Share of the images of one patient, likewise."""
# What the challenge and the archive call the ways in which HAM10000's diagnoses were confirmed.
_CONFIRMATIONS = {
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}


def read_metadata(
    path: Path, collection: Collection, required: tuple[str, ...] = ()
) -> tuple[dict[str, dict], set[str]]:
    """What a table such as HAM10000's says of each image, and the ids of which it says two things.

    Comma, semicolon and tab separate alike. Columns are one of `_IMAGE_COLUMNS`, and of these
    whichever are there: `dx` (or `diagnosis`, or else `label`, `class` or `category`) with a name
    that `lesion.vocabulary.category_of` knows, the archive's `diagnosis_1` to `diagnosis_5`, of
    which the narrowest that is known counts, or one column for each category, of which one holds a
    1; `lesion_id`; `patient_id`; `age`, `sex`, `site` under any of their names, and `dx_type` (or
    `diagnosis_confirm_type`). What is wrong with a row is among the problems of the collection, and
    which columns were read among its notes.

    Args:
        required: columns that must be there.

    Returns:
        By image id `lesion_id`, `patient_id`, `diagnosis` (one of `DIAGNOSES`; None where unknown)
        and `metadata`, as `lesion.samples.Sample` has them.

    Raises:
        DatasetError: if there is no column of images, or none that says anything of them.
    """
    table = read_table(path, required)
    if not table:
        raise DatasetError(f"The table {path} lists no image.")
    columns = list(table[0][1])
    image_column = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    named = [name for name in (*_DIAGNOSIS_COLUMNS, *_DIAGNOSIS_LEVELS) if name in columns]
    named = named or [name for name in _OTHER_DIAGNOSIS_COLUMNS if name in columns][:1]
    categories = {name: found for name in columns if (found := category_of(name))}
    known = {*named, "lesion_id", "patient_id", *categories, *sum(NAMES.values(), ())}
    if image_column is None or not known.intersection(columns):
        raise DatasetError(
            f"The table {path} must have a column of images (such as image_id), and beside it dx "
            f"or one column for each category; its columns are {', '.join(columns)}. Known for "
            f"images are {', '.join(_IMAGE_COLUMNS)}."
        )
    rows: dict[str, dict] = {}
    contradictory: set[str] = set()
    faults, lacking = _Rows(), _Rows()
    for number, row in table:
        image_id, problem = image_name(row[image_column]), None
        found, fault = _facts(row, named, categories)
        if not image_id:
            problem = f"no {image_column}"
        elif image_id in rows and found != rows[image_id]:
            problem = f"{image_id} is listed again and otherwise; the image is left out"
            contradictory.add(image_id)
        elif image_id in rows:
            problem = f"{image_id} is listed again"
        elif fault:
            faults.add(fault, number, image_id)
        else:
            wanted = []
            if found["diagnosis"] is None:
                wanted = [n for n in _DIAGNOSIS_COLUMNS if row.get(n, " ").lower() in UNKNOWN]
            if "lesion_id" in row and found["lesion_id"] is None:
                wanted.insert(0, "lesion_id")
            if wanted:
                lacking.add(" and no ".join(wanted), number, image_id)
        if problem:
            collection.problems.append(Problem(path, f"line {number}: {problem}"))
        if image_id:
            rows.setdefault(image_id, found)
        collection.diagnoses_listed += bool(found["diagnosis"] or fault)
    reasons = faults.said("{what} of {image} is unknown and not used")
    reasons += lacking.said("{image} has no {what}", "{image} have no {what}")
    collection.problems += [Problem(path, reason) for reason in reasons]
    if "lesion_id" not in columns:
        units = "patient" if "patient_id" in columns else "image"
        reason = (
            f"no column lesion_id among {', '.join(columns)}: lesions are unknown, splits are by "
            f"{units}"
        )
        collection.problems.append(Problem(path, reason))
    read = known | {image_column, *_CONFIRMATION_COLUMNS}
    _note_columns(path, collection, columns, read, bool(named or categories))
    images = Counter(row["lesion_id"] for row in rows.values() if row["lesion_id"])
    for lesion_id, count in images.items():
        if count > _MANY:
            reason = f"lesion {lesion_id} has {count} images; leave lesion_id empty if not known"
            collection.notes.append(Problem(path, reason))
    patients = Counter(row["patient_id"] for row in rows.values() if row["patient_id"])
    for patient_id, count in patients.items():
        if count > max(_MANY, _MUCH * len(rows)):
            reason = f"patient {patient_id} has {count} images; leave patient_id empty if not known"
            collection.notes.append(Problem(path, reason))
    diagnoses: dict[str, set[str]] = {}
    for row in rows.values():
        if row["lesion_id"] and row["diagnosis"]:
            diagnoses.setdefault(row["lesion_id"], set()).add(row["diagnosis"])
    for lesion_id, names in diagnoses.items():
        if len(names) > 1:
            reason = f"lesion {lesion_id} has several diagnoses: {', '.join(sorted(names))}"
            collection.problems.append(Problem(path, reason))
    for image_id in contradictory:
        del rows[image_id]
    return rows, contradictory


class _Rows:
    """Rows of which the same is to be said, told of together: a table may have thousands."""

    def __init__(self):
        self._rows: dict[str, list[tuple[int, str]]] = {}

    def add(self, what: str, number: int, image_id: str) -> None:
        self._rows.setdefault(what, []).append((number, image_id))

    def said(self, of_one: str, of_several: str | None = None) -> list[str]:
        """A sentence of each kind of row, the most frequent first; `{what}` and `{image}` in it."""
        found = []
        for what, rows in sorted(self._rows.items(), key=lambda item: -len(item[1])):
            (number, image), count = rows[0], len(rows)
            if count == 1:
                found.append(f"line {number}: {of_one.format(what=what, image=image)}")
            else:
                images = f"{count:,} images, such as {image} in line {number},"
                found.append((of_several or of_one).format(what=what, image=images))
        return found


def _note_columns(path, collection, columns, read, diagnosed):
    """Says which columns of a table mean something here, and that none is of diagnoses."""
    used, others = ([n for n in columns if (n in read) == known] for known in (True, False))
    text = f"read: {', '.join(used)}"
    text += f"; not read: {', '.join(filter(None, others))}" if any(others) else ""
    text += "" if diagnosed else "; no column dx or diagnosis"
    collection.notes.append(Problem(path, text))


def _facts(row, named, categories):
    """A row as `read_metadata` returns it, and a diagnosis that is none of the seven, as text."""
    columns = [column for column in named if column not in _DIAGNOSIS_LEVELS]
    names = [row[column] for column in columns if row[column].lower() not in UNKNOWN]
    levels = [row.get(column, "") for column in reversed(_DIAGNOSIS_LEVELS)]
    levels = [name for name in levels if name.lower() not in UNKNOWN]
    found, fault = [category_of(name) for name in names], None
    if not names and levels:
        found = [next(filter(None, map(category_of, levels)), None)]
        names = levels[:1]
    name, diagnosis = (names[0], found[0]) if names else ("", None)
    if name and diagnosis is None:
        fault = f"the diagnosis ({columns[0] if columns else 'dx'}) {name!r}"
    elif len(set(found)) > 1:
        fault, diagnosis = f"the diagnosis ({' by dx, '.join(names)} by diagnosis)", None
    if not name and categories:
        marked = [column for column in categories if _is_marked(row[column])]
        if len({categories[column] for column in marked}) == 1:
            diagnosis = categories[marked[0]]
        else:
            marked += [n for n in _OTHER_CATEGORIES if not marked and _is_marked(row.get(n, ""))]
            fault = f"the category ({' and '.join(marked) or 'none of these columns is 1'})"
    metadata = patient_in(row)
    if kind := next(filter(None, (row.get(name) for name in _CONFIRMATION_COLUMNS)), None):
        metadata["confirmation"] = _CONFIRMATIONS.get(kind.lower(), kind)
    facts = {
        "lesion_id": _name_in(row, "lesion_id"),
        "patient_id": _name_in(row, "patient_id"),
        "diagnosis": diagnosis,
        "metadata": metadata,
    }
    return facts, fault


def _name_in(row, column):
    """Lesion or patient that a row names; None where it says in some word that it is not known."""
    name = row.get(column) or ""
    return None if name.strip().lower() in UNKNOWN else name


def _is_marked(text):
    return _is(1, text) or text.lower() in ("true", "yes", "x")


def _is(number, text):
    try:
        return float(text.replace(",", ".")) == number
    except ValueError:
        return False


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
    rows, contradictory = read_metadata(path, collection, ("image_id", "dx"))
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
        collection.diagnoses_listed += 1
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
        if not (_is(1, weight) or _is(0, weight)):
            raise DatasetError(
                f"Line {number} of the table {path} gives {image_id} the score_weight {weight!r}; "
                "only images that count (1) or do not (0) are known here."
            )
        if _is(0, weight) or image_id == _UNSCORED:
            continue
        categories[image_id] = DIAGNOSES[values.index(1.0)]
    return categories


def read_groupings(path: Path) -> dict[str, dict[str, str]]:
    """`lesion_id` and `confirmation` (as HAM10000 names it) by image id."""
    groupings = {}
    for _, row in read_table(path, ("image", "lesion_id")):
        kind = row.get("diagnosis_confirm_type", "")
        groupings[image_name(row["image"])] = {
            "lesion_id": _name_in(row, "lesion_id") or "",
            "confirmation": _CONFIRMATIONS.get(kind.lower(), kind),
        }
    return groupings


def image_name(path: str) -> str:
    """The name of an image file, without its folder, and without its suffix if it is an image's.

    Other points are part of the name, as in those of DICOM files. Letters with marks are single
    characters (Unicode's form C), while some systems write them as several.
    """
    name = _IMAGE_SUFFIX.sub("", re.split(r"[/\\]", path)[-1])
    return unicodedata.normalize("NFC", name)


def rows_of(names: Iterable[str], rows: Iterable[str]) -> dict[str, str]:
    """By image id the id of its row: the same, or the only one that differs in case alone."""
    names, rows = set(names), set(rows)
    found = {name: name for name in names & rows}
    loose = [_by_folded(left) for left in (names - rows, rows - names)]
    for folded in loose[0].keys() & loose[1].keys():
        image, row = loose[0][folded], loose[1][folded]
        if len(image) == len(row) == 1:
            found[image[0]] = row[0]
    return found


def _by_folded(names):
    by: dict[str, list[str]] = {}
    for name in names:
        by.setdefault(name.casefold(), []).append(name)
    return by


def patient_in(row: dict[str, str]) -> dict[str, str]:
    """What of `age`, `sex` and `site` a row tells, under whichever names, in its own words.

    Of several columns for one, the first that knows it.
    """
    found = {name: [row[old] for old in names if row.get(old)] for name, names in NAMES.items()}
    return {
        name: next((value for value in values if value.lower() not in UNKNOWN), values[0])
        for name, values in found.items()
        if values
    }


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
        image = next((row[name] for name in _IMAGE_COLUMNS if name in row), None)
        if image is None or not any(old in row for old in sum(NAMES.values(), ())):
            raise DatasetError(
                f"The table {path} must have the column image (or image_id), and at least one of "
                f"age, sex and site; its columns are {', '.join(row)}."
            )
        known = patient_in(row)
        if patients.setdefault(image_name(image), known) != known:
            raise DatasetError(
                f"Line {number} of the table {path} says of {image} what an earlier line does not; "
                "leave one of them."
            )
    if not patients:
        raise DatasetError(f"The table {path} lists no image.")
    return patients
