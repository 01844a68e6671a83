"""What tables say of images and patients: HAM10000's, the ISIC archive's, or one's own."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion.folders import image_stem
from lesion.grouping import look_at_groups
from lesion.patient import NAMES, UNKNOWN
from lesion.samples import Collection, DatasetError, Problem, RowProblems
from lesion.tables import columns_of, read_table
from lesion.vocabulary import category_of

_IMAGE_COLUMNS = (
    *("image_id", "image", "isic_id", "image name", "image_name", "bcn_filename", "filename"),
    *("file_name", "file", "image_file", "image_path", "img_id", "derm", "id"),
)
_DIAGNOSIS_COLUMNS = ("dx", "diagnosis")
# Looked at where there are none of these, nor of the archive's: words that may mean anything.
_OTHER_DIAGNOSIS_COLUMNS = ("label", "class", "category")
# The categories of ISIC 2019 that are none of the seven.
_OTHER_CATEGORIES = ("scc", "unk")
# What `lesion.tables.write_table` adds to tables of results.
_OWN_RESULTS = "notice"
# The archive's since 2023, from the broadest to the narrowest.
_DIAGNOSIS_LEVELS = tuple(f"diagnosis_{level}" for level in range(1, 6))
_CONFIRMATION_COLUMNS = ("dx_type", "diagnosis_confirm_type")
_OTHER = ""
"""Stands for a diagnosis that is none of the seven, until all tables are read."""
# What tables may contradict each other in.
_NAMES = ("lesion_id", "patient_id", "diagnosis")
_NOTHING: dict[str, dict | None] = {**dict.fromkeys(_NAMES), "metadata": {}}
_SHOWN = 40
"""Names of columns in a message."""
# What the challenge and the archive call the ways in which HAM10000's diagnoses were confirmed.
CONFIRMATIONS = {
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}


def read_metadata(
    paths: Sequence[Path],
    collection: Collection,
    required: tuple[str, ...] = (),
    known: Mapping[str, dict] | None = None,
    ids: Mapping[tuple[str, str], str] | None = None,
) -> tuple[dict[str, dict], set[str]]:
    """What tables such as HAM10000's say of each image, and the ids of which they say two things.

    Comma, semicolon and tab separate alike. Columns are one of `_IMAGE_COLUMNS`, and of these
    whichever are there: `dx` (or `diagnosis`, or else `label`, `class` or `category`) with a name
    that `lesion.vocabulary.category_of` knows, the archive's `diagnosis_1` to `diagnosis_5`, of
    which the narrowest that is known counts, or one column for each category, of which one holds a
    1; `lesion_id`; `patient_id`; `age`, `sex`, `site` under any of their names, and `dx_type` (or
    `diagnosis_confirm_type`). Of several tables each adds what it knows. What is wrong with a row
    is among the problems of the collection, and which columns were read among its notes.

    Args:
        required: columns that the first table must have.
        known: what the names of folders say of images, in the form that is returned.
        ids: of images in several folders, by their folder's name in lower case and their own: a
            table may give both.

    Returns:
        By id of the images that are listed `lesion_id`, `patient_id`, `diagnosis` (one of
        `DIAGNOSES`; None where unknown) and `metadata`, as `lesion.samples.Sample` has them; and
        the ids of images of which tables, or a table and `known`, say two things.

    Raises:
        DatasetError: if a table cannot be read, or none has a column of images and another that
            says anything of them.
    """
    tables = _usable(paths, collection, required)
    known, ids = known or {}, ids or {}
    all_listed = {_image_id(r[t.image_column], ids) for t in tables for _, r in t.rows}
    named = {row: {**_NOTHING, **known[name]} for name, row in rows_of(known, all_listed).items()}
    rows: dict[str, dict] = {}
    lacks: dict[str, dict[str, tuple[Path, int]]] = {}  # by image the columns it is blank in
    contradictory: set[str] = set()
    faulty: set[str] = set()
    faults = RowProblems()
    for table in tables:
        listed: dict[str, dict] = {}
        for number, row in table.rows:
            image_id = _image_id(row[table.image_column], ids)
            facts, fault = _facts(row, table.named, table.categories)
            place, problem = (table.path, number), None
            if not image_id:
                problem = f"no {table.image_column}"
            elif image_id in listed and facts == listed[image_id]:
                problem = f"{image_id} is listed again"
            elif image_id in listed or _contradict(rows.get(image_id), facts):
                problem = f"{image_id} is listed again and otherwise; the image is left out"
                contradictory.add(image_id)
            elif _contradict(named.get(image_id), facts):
                problem = f"{image_id} has another diagnosis by its folder; the image is left out"
                contradictory.add(image_id)
            else:
                listed[image_id] = facts
                rows[image_id] = _together(rows.get(image_id, named.get(image_id)), facts)
                blank = lacks.setdefault(image_id, {})
                if "lesion_id" in row or "lesion_id" not in blank:
                    blank["lesion_id"] = place
                for column in _DIAGNOSIS_COLUMNS:
                    if row.get(column, " ").lower() in UNKNOWN:
                        blank.setdefault(column, place)
                if fault:
                    faults.add(fault, image_id, place)
                    faulty.add(image_id)
            if problem:
                collection.problems.append(Problem(table.path, f"line {number}: {problem}"))
    told = faulty | named.keys() | {i for i, row in rows.items() if row["diagnosis"]}
    collection.diagnoses_listed += len(told) + len(known) - len(named)
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))
    for row in rows.values():
        row["diagnosis"] = row["diagnosis"] or None
    lacking = RowProblems()
    for image_id, row in rows.items():
        wanted = {"lesion_id"} if "lesion_id" in columns and row["lesion_id"] is None else set()
        if row["diagnosis"] is None and image_id not in faulty:
            wanted.update(_DIAGNOSIS_COLUMNS)
        by_place: dict[tuple[Path, int], list[str]] = {}
        for column, place in lacks.get(image_id, {}).items():
            if column in wanted:
                by_place.setdefault(place, []).append(column)
        for place, names in by_place.items():
            lacking.add(" and no ".join(names), image_id, place)
    collection.problems += faults.problems("{what} of {image} is unknown and not used")
    collection.problems += lacking.problems("{image} has no {what}", "{image} have no {what}")
    if "lesion_id" not in columns:
        units = "patient" if "patient_id" in columns else "image"
        reason = (
            f"no column lesion_id among {', '.join(columns)}: lesions are unknown, splits are by "
            f"{units}"
        )
        collection.problems.append(Problem(tables[0].path, reason))
    diagnosed = any(table.named or table.categories for table in tables)
    for table in tables:
        _note_columns(table, collection, diagnosed)
    look_at_groups(rows, tables[0].path, collection)
    for image_id in contradictory:
        rows.pop(image_id, None)
    return rows, contradictory


class _MeansNothing(DatasetError):
    """A table that says nothing of images."""


@dataclass
class _Table:
    """A table's rows, and which of its columns mean what."""

    path: Path
    rows: list[tuple[int, dict[str, str]]]
    columns: list[str]
    image_column: str
    named: list[str]  # of diagnoses by name
    categories: dict[str, str]  # by column, where each category has one

    @property
    def known(self) -> set[str]:
        """Names that say something of an image, whether or not they are among the columns."""
        return {
            *("lesion_id", "patient_id", *self.named, *self.categories),
            *sum(NAMES.values(), ()),
        }


def _opened(path, required):
    columns = columns_of(path)
    if not required and not set(_IMAGE_COLUMNS).intersection(columns):
        _say_nothing_of_images(path, columns)  # such as HAM10000's pixels, which are many
    rows = read_table(path, required)
    if not rows:
        raise _MeansNothing(f"The table {path} lists no image.")
    columns = list(rows[0][1])
    named = [name for name in (*_DIAGNOSIS_COLUMNS, *_DIAGNOSIS_LEVELS) if name in columns]
    named = named or [name for name in _OTHER_DIAGNOSIS_COLUMNS if name in columns][:1]
    categories = {name: category for name in columns if (category := category_of(name))}
    image_column = next((name for name in _IMAGE_COLUMNS if name in columns), "")
    table = _Table(path, rows, columns, image_column, named, categories)
    if _OWN_RESULTS in columns:
        raise _MeansNothing(
            f"The table {path} holds results of this project (its column {_OWN_RESULTS}), which "
            "are no truth; keep results out of a data set's folder."
        )
    if not image_column or not table.known.intersection(columns):
        _say_nothing_of_images(path, columns)
    return table


def _say_nothing_of_images(path, columns):
    shown = [*columns[:_SHOWN], *(["…"] if len(columns) > _SHOWN else [])]
    raise _MeansNothing(
        f"The table {path} must have a column of images (such as image_id), and beside it dx or "
        f"one column for each category; its columns are {', '.join(shown)}. Known for images are "
        f"{', '.join(_IMAGE_COLUMNS)}."
    )


def _usable(paths, collection, required):
    """The tables that say something of images; of the others a note is left, if there are any."""
    tables, others = [], []
    for place, path in enumerate(paths):
        try:
            tables.append(_opened(path, () if place else required))
        except _MeansNothing as error:
            others.append((path, error))
    if not tables:
        raise others[0][1]
    collection.notes += [Problem(path, f"not used: {error}") for path, error in others]
    return tables


def _contradict(first, second):
    """Whether two tables name different lesions, patients or diagnoses of one image."""
    return first is not None and any(
        None not in (first[name], second[name]) and first[name] != second[name] for name in _NAMES
    )


def _together(first, second):
    """What two tables say of one image that do not contradict each other."""
    if first is None:
        return second
    facts = {name: second[name] if first[name] is None else first[name] for name in _NAMES}
    told = {n: v for n, v in first["metadata"].items() if v.lower() not in UNKNOWN}
    return {**facts, "metadata": {**first["metadata"], **second["metadata"], **told}}


def _note_columns(table, collection, diagnosed):
    """Says which columns of a table mean something here, and that none is of diagnoses."""
    read = table.known | {table.image_column, *_CONFIRMATION_COLUMNS}
    used, others = ([n for n in table.columns if (n in read) == known] for known in (True, False))
    text = f"read: {', '.join(used)}"
    text += f"; not read: {', '.join(filter(None, others))}" if any(others) else ""
    text += "" if diagnosed else "; no column dx or diagnosis"
    collection.notes.append(Problem(table.path, text))


def _facts(row, named, categories):
    """A row as `read_metadata` returns it, and a diagnosis that is none of the seven, as text.

    Such a diagnosis is `_OTHER`; one of the archive's broad words, such as "Benign", is unknown.
    """
    named = [column for column in named if column not in _DIAGNOSIS_LEVELS]
    columns = [column for column in named if row[column].lower() not in UNKNOWN]
    names = [row[column] for column in columns]
    levels = [row.get(column, "") for column in reversed(_DIAGNOSIS_LEVELS)]
    levels = [name for name in levels if name.lower() not in UNKNOWN]
    found, fault = [category_of(name) for name in names], None
    unknown = _OTHER if names else None
    if not names and levels:
        found = [next(filter(None, map(category_of, levels)), None)]
        names = levels[:1]
        columns = [next(n for n in reversed(_DIAGNOSIS_LEVELS) if row.get(n) == levels[0])]
    name, diagnosis = (names[0], found[0]) if names else ("", None)
    marked = [column for column in categories if _is_marked(row[column])]
    if name and diagnosis is None:
        fault, diagnosis = f"the diagnosis ({columns[0]}) {name!r}", unknown
    elif len(set(found)) > 1:
        fault, diagnosis = f"the diagnosis ({' by dx, '.join(names)} by diagnosis)", _OTHER
    elif name and {categories[column] for column in marked} - {diagnosis}:
        fault = f"the diagnosis ({name!r} by name, 1 for {' and '.join(marked)})"
        diagnosis = _OTHER
    elif not name and len({categories[column] for column in marked}) == 1:
        diagnosis = categories[marked[0]]
    elif not name and categories:
        marked += [n for n in _OTHER_CATEGORIES if not marked and _is_marked(row.get(n, ""))]
        fault = f"the category ({' and '.join(marked) or 'none of these columns is 1'})"
        diagnosis = _OTHER if marked else None
    metadata = patient_in(row)
    if kind := next(filter(None, (row.get(name) for name in _CONFIRMATION_COLUMNS)), None):
        metadata["confirmation"] = CONFIRMATIONS.get(kind.lower(), kind)
    facts = {
        "lesion_id": name_in(row, "lesion_id"),
        "patient_id": name_in(row, "patient_id"),
        "diagnosis": diagnosis,
        "metadata": metadata,
    }
    return facts, fault


def name_in(row, column):
    """Lesion or patient that a row names; None where it says in some word that it is not known."""
    name = row.get(column) or ""
    return None if name.strip().lower() in UNKNOWN else name


def _is_marked(text):
    return is_number(1, text) or text.lower() in ("true", "yes", "x")


def is_number(number, text):
    try:
        return float(text.replace(",", ".")) == number
    except ValueError:
        return False


def image_name(path: str) -> str:
    """The name of an image file, without its folder, and without its suffix if it is an image's.

    Letters with marks are single characters (Unicode's form C), while some systems write them as
    several.
    """
    return unicodedata.normalize("NFC", image_stem(re.split(r"[/\\]", path)[-1]))


def _image_id(path, ids):
    """The id of an image that a table names; of two that are called alike by the folder, too."""
    folder = re.split(r"[/\\]", path)[-2:-1]
    return ids.get((*map(str.casefold, folder), image_name(path)), image_name(path))


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
        if not image_name(image):
            raise DatasetError(
                f"Line {number} of the table {path} says of which patient, but of no image; name "
                "it, or leave the line out."
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
