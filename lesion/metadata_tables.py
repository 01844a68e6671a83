"""Which tables say anything of images, and which of their columns mean what."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion.patient import NAMES
from lesion.samples import Collection, DatasetError, Problem
from lesion.tables import columns_of, read_table
from lesion.vocabulary import category_of

IMAGE_COLUMNS = (
    *("image_id", "image", "isic_id", "image name", "image_name", "bcn_filename", "filename"),
    *("file_name", "file", "image_file", "image_path", "img_id", "derm", "id"),
)
DIAGNOSIS_COLUMNS = ("dx", "diagnosis")
# Looked at where there are none of these, nor of the archive's: words that may mean anything.
_OTHER_DIAGNOSIS_COLUMNS = ("label", "class", "category")
# What `lesion.tables.write_table` adds to tables of results.
_OWN_RESULTS = "notice"
# The archive's since 2023, from the broadest to the narrowest.
DIAGNOSIS_LEVELS = tuple(f"diagnosis_{level}" for level in range(1, 6))
CONFIRMATION_COLUMNS = ("dx_type", "diagnosis_confirm_type")
_SHOWN = 40
"""Names of columns in a message."""


class _MeansNothing(DatasetError):
    """A table that says nothing of images."""


@dataclass
class Table:
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
    if not required and not set(IMAGE_COLUMNS).intersection(columns):
        _say_nothing_of_images(path, columns)  # such as HAM10000's pixels, which are many
    rows = read_table(path, required)
    if not rows:
        raise _MeansNothing(f"The table {path} lists no image.")
    columns = list(rows[0][1])
    named = [name for name in (*DIAGNOSIS_COLUMNS, *DIAGNOSIS_LEVELS) if name in columns]
    named = named or [name for name in _OTHER_DIAGNOSIS_COLUMNS if name in columns][:1]
    categories = {name: category for name in columns if (category := category_of(name))}
    image_column = next((name for name in IMAGE_COLUMNS if name in columns), "")
    table = Table(path, rows, columns, image_column, named, categories)
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
        f"{', '.join(IMAGE_COLUMNS)}."
    )


def usable_tables(
    paths: Sequence[Path], collection: Collection, required: tuple[str, ...]
) -> list[Table]:
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


def note_columns(table: Table, collection: Collection, diagnosed: bool) -> None:
    """Says which columns of a table mean something here, and that none is of diagnoses."""
    read = table.known | {table.image_column, *CONFIRMATION_COLUMNS}
    used, others = ([n for n in table.columns if (n in read) == known] for known in (True, False))
    text = f"read: {', '.join(used)}"
    text += f"; not read: {', '.join(filter(None, others))}" if any(others) else ""
    text += "" if diagnosed else "; no column dx or diagnosis"
    collection.notes.append(Problem(table.path, text))
