"""What tables say of images and patients: HAM10000's, the ISIC archive's, or one's own."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lesion.folders import image_stem
from lesion.grouping import look_at_groups
from lesion.metadata_tables import (
    CONFIRMATION_COLUMNS,
    DIAGNOSIS_COLUMNS,
    DIAGNOSIS_LEVELS,
    IMAGE_COLUMNS,
    Table,
    note_columns,
    usable_tables,
)
from lesion.patient import NAMES, UNKNOWN
from lesion.samples import Collection, DatasetError, Problem, RowProblems
from lesion.tables import read_table
from lesion.vocabulary import category_of

# The categories of ISIC 2019 that are none of the seven.
_OTHER_CATEGORIES = ("scc", "unk")
_OTHER = ""
"""Stands for a diagnosis that is none of the seven, until all tables are read."""
# What tables may contradict each other in.
_NAMES = ("lesion_id", "patient_id", "diagnosis")
_NOTHING: dict[str, dict | None] = {**dict.fromkeys(_NAMES), "metadata": {}}
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
    images: Iterable[str] = (),
) -> tuple[dict[str, dict], set[str]]:
    """What tables such as HAM10000's say of each image, and the ids of which they say two things.

    Comma, semicolon and tab separate alike. Columns are one of `IMAGE_COLUMNS`, and of these
    whichever are there: `dx` (or `diagnosis`, or else `label`, `class` or `category`) with a name
    that `lesion.vocabulary.category_of` knows, the archive's `diagnosis_1` to `diagnosis_5`, of
    which the narrowest that is known counts, or one column for each category, of which one holds a
    1; `lesion_id`; `patient_id`; `age`, `sex`, `site` under any of their names, and `dx_type` (or
    `diagnosis_confirm_type`). Of several tables each adds what it knows. What is wrong with a row
    is among the problems of the collection, and which columns were read among its notes.

    Args:
        required: columns that the first table must have.
        known: what the names of folders, or PH2's own table, say of images, in the form that is
            returned.
        ids: of images in several folders, by their folder's name in lower case and their own: a
            table may give both.
        images: their ids: a table may write one in other case where no other image is called so.

    Returns:
        By id of the images that are listed `lesion_id`, `patient_id`, `diagnosis` (one of
        `DIAGNOSES`; None where unknown) and `metadata`, as `lesion.samples.Sample` has them; and
        the ids of images of which tables, or a table and `known`, say two things.

    Raises:
        DatasetError: if a table cannot be read, or none has a column of images and another that
            says anything of them.
    """
    tables = usable_tables(paths, collection, required)
    known = known or {}
    images = {*images, *known}
    finders = [_id_finder(table, ids or {}, images) for table in tables]
    by_table = list(zip(tables, finders, strict=True))
    listed = {id_of(row[table.image_column]) for table, id_of in by_table for _, row in table.rows}
    named = {name: {**_NOTHING, **facts} for name, facts in known.items() if name in listed}
    merged = _Merged(named)
    for table, id_of in by_table:
        merged.add(table, id_of)
    collection.diagnoses_listed += merged.diagnoses_listed() + len(known) - len(named)
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))
    collection.problems += merged.problems(columns)
    if "lesion_id" not in columns:
        units = "patient" if "patient_id" in columns else "image"
        reason = (
            f"no column lesion_id among {', '.join(columns)}: lesions are unknown, splits are by "
            f"{units}"
        )
        collection.problems.append(Problem(tables[0].path, reason))
    diagnosed = any(table.named or table.categories for table in tables)
    for table in tables:
        note_columns(table, collection, diagnosed)
    rows = merged.rows()
    look_at_groups(rows, tables[0].path, collection)
    for image_id in merged.contradictory:
        rows.pop(image_id, None)
    return rows, merged.contradictory


class _Merged:
    """What tables say of each image, one table after the other, and what is wrong with their rows.

    Args:
        named: by image what its folder says, in the form of `read_metadata`.
    """

    def __init__(self, named: Mapping[str, dict]):
        self.contradictory: set[str] = set()
        self._named = named
        self._rows: dict[str, dict] = {}
        self._problems: list[Problem] = []
        self._faulty: set[str] = set()
        self._faults = RowProblems()
        self._blank: dict[str, dict[str, tuple[Path, int]]] = {}  # by image and column, where

    def rows(self) -> dict[str, dict]:
        """By image what all tables say of it, in the form of `read_metadata`."""
        rows = self._rows.items()
        return {name: {**row, "diagnosis": row["diagnosis"] or None} for name, row in rows}

    def add(self, table: Table, id_of: Callable[[str], str]) -> None:
        """Adds what a table says; `id_of` gives the id of an image that it names."""
        listed: dict[str, dict] = {}
        for number, row in table.rows:
            image_id = id_of(row[table.image_column])
            facts, fault = _facts(row, table.named, table.categories)
            if problem := self._refuse(image_id, facts, listed, table.image_column):
                self._problems.append(Problem(table.path, f"line {number}: {problem}"))
                continue
            listed[image_id] = facts
            before = self._rows.get(image_id, self._named.get(image_id))
            self._rows[image_id] = _together(before, facts)
            self._note_blanks(image_id, row, (table.path, number))
            if fault:
                self._faults.add(fault, image_id, (table.path, number))
                self._faulty.add(image_id)

    def _refuse(self, image_id, facts, listed, column):
        """Why a row is not taken, or None; remembers images of which two things are said."""
        if not image_id:
            return f"no {column}"
        if facts == listed.get(image_id):
            return f"{image_id} is listed again"
        if image_id in listed or _contradict(self._rows.get(image_id), facts):
            reason = "is listed again and otherwise"
        elif _contradict(self._named.get(image_id), facts):
            reason = "has another diagnosis by its folder"
        else:
            return None
        self.contradictory.add(image_id)
        return f"{image_id} {reason}; the image is left out"

    def _note_blanks(self, image_id, row, place):
        """Where to look for what the image may turn out to lack once all tables are read."""
        blank = self._blank.setdefault(image_id, {})
        if "lesion_id" in row or "lesion_id" not in blank:
            blank["lesion_id"] = place
        for column in DIAGNOSIS_COLUMNS:
            if row.get(column, " ").lower() in UNKNOWN:
                blank.setdefault(column, place)

    def diagnoses_listed(self) -> int:
        """Of how many images a diagnosis is told, be it one that is not known here."""
        told = {image_id for image_id, row in self._rows.items() if row["diagnosis"]}
        return len(told | self._faulty | self._named.keys())

    def problems(self, columns: Sequence[str]) -> list[Problem]:
        """What is wrong with single rows, and which images lack what the `columns` tell of."""
        lacking = RowProblems()
        for image_id, row in self._rows.items():
            wanted = {"lesion_id"} if "lesion_id" in columns and row["lesion_id"] is None else set()
            if not row["diagnosis"] and image_id not in self._faulty:
                wanted.update(DIAGNOSIS_COLUMNS)
            by_place: dict[tuple[Path, int], list[str]] = {}
            for column, place in self._blank[image_id].items():
                if column in wanted:
                    by_place.setdefault(place, []).append(column)
            for place, names in by_place.items():
                lacking.add(" and no ".join(names), image_id, place)
        return [
            *self._problems,
            *self._faults.problems("{what} of {image} is unknown and not used"),
            *lacking.problems("{image} has no {what}", "{image} have no {what}"),
        ]


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


def _facts(row, named, categories):
    """A row as `read_metadata` returns it, and a diagnosis that is none of the seven, as text.

    Such a diagnosis is `_OTHER`; one of the archive's broad words, such as "Benign", is unknown.
    """
    named = [column for column in named if column not in DIAGNOSIS_LEVELS]
    columns = [column for column in named if row[column].lower() not in UNKNOWN]
    names = [row[column] for column in columns]
    levels = [row.get(column, "") for column in reversed(DIAGNOSIS_LEVELS)]
    levels = [name for name in levels if name.lower() not in UNKNOWN]
    found, fault = [category_of(name) for name in names], None
    unknown = _OTHER if names else None
    if not names and levels:
        found = [next(filter(None, map(category_of, levels)), None)]
        names = levels[:1]
        columns = [next(n for n in reversed(DIAGNOSIS_LEVELS) if row.get(n) == levels[0])]
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
    if kind := next(filter(None, (row.get(name) for name in CONFIRMATION_COLUMNS)), None):
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


def _id_finder(table, ids, images):
    """What gives the id of an image that a table names; see `read_metadata` for `ids`, `images`.

    An image that the table names as it is called is not also what it names in other case.
    """
    paths = {row[table.image_column] for _, row in table.rows}
    loose_ids, loose = _loose(ids, _all_folded), _loose(images)
    found = {path: _image_id(path, ids, loose_ids) for path in paths}
    exact = set(found.values()) & images
    for path, name in found.items():
        other = loose.get(name.casefold(), name)
        found[path] = name if other in exact else other
    return found.__getitem__


def _image_id(path, ids, loose_ids):
    """The id of an image by its path; of two that are called alike by the folder, too."""
    folder = re.split(r"[/\\]", path)[-2:-1]
    key = (*map(str.casefold, folder), image_name(path))
    return ids.get(loose_ids.get(_all_folded(key), key), image_name(path))


def rows_of(names: Iterable[str], rows: Iterable[str]) -> dict[str, str]:
    """By image id the id of its row: the same, or the only one that differs in case alone."""
    names, rows = set(names), set(rows)
    images, listed = _loose(names - rows), _loose(rows - names)
    found = {name: name for name in names & rows}
    return found | {images[f]: listed[f] for f in images.keys() & listed.keys()}


def _all_folded(names):
    return tuple(map(str.casefold, names))


def _loose(names, fold=str.casefold):
    """By name in lower case the one that is called so, where no other is."""
    folded = Counter(map(fold, names))
    return {fold(name): name for name in names if folded[fold(name)] == 1}


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
        image = next((row[name] for name in IMAGE_COLUMNS if name in row), None)
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
