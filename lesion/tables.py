"""CSV tables read and written, and tables of text.

What tables of images say is read by `lesion.metadata`.
"""

import codecs
import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lesion import NOTICE
from lesion.samples import DatasetError
from mrcnn.files import atomic_path

logger = logging.getLogger(__name__)

_BEGINNING = 65536
"""Bytes in which a header ends."""
_SEPARATOR = re.compile(r"sep=(.)")


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence], notice: bool = True
) -> None:
    """Writes a CSV file, whole or not at all.

    Args:
        notice: whether a last column says the notice in every row; not in a form that is
            prescribed.
    """
    last = {"notice": NOTICE} if notice else {}
    with (
        atomic_path(path) as temporary,
        # Names of files need not be Unicode.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*header, *last])
        writer.writerows([*row, *last.values()] for row in rows)


def read_table(
    path: Path, columns: tuple[str, ...], others: tuple[str, ...] | None = None
) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table with a header in any case, all values stripped.

    Args:
        columns: names in lower case that the header must have.
        others: names that it may have besides; None: any.
    """
    rows = _rows(path, text_of(path))
    header: list[str] = next((values for _, values in rows if any(values)), [])
    names = [name.lower() for name in header]
    if twice := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
        raise DatasetError(
            f"The table {path} has several columns {', '.join(twice)}, of which one may say what "
            "another does not; leave one of each."
        )
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
    for number, values in rows:
        if not any(values):  # an empty line, or what Excel makes of one
            continue
        if len(values) != len(names):
            raise DatasetError(
                f"Line {number} of the table {path} has {len(values)} values where its first line "
                f"names {len(names)} columns: {', '.join(values)!r}."
            )
        table.append((number, dict(zip(names, values, strict=True))))
    return table


def columns_of(path: Path) -> list[str]:
    """Names of a table's columns in lower case, from the beginning of the file alone.

    Raises:
        DatasetError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError as error:
        raise DatasetError(f"The table {path} cannot be read: {error}.") from error
    wide = beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = beginning.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    delimiter, said = _delimiter_of(text)
    rows, _ = _parsed(text, delimiter, strict=False)
    header: list[str] = next((values for _, values in rows[said:] if any(values)), [])
    return [name.lower() for name in header]


def text_of(path: Path) -> str:
    """A table's text: UTF-8 or, by its mark, UTF-16; else what Excel calls CSV in the west.

    Raises:
        DatasetError: if the file cannot be read.
    """
    try:
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
            logger.warning("%s is not in UTF-8, and was read as Windows-1252 (cp1252).", path)
            return text
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"The table {path} cannot be read: {error}.") from error


def _rows(path, text):
    """Each row's values, stripped, after the number of its first line: a value may have several.

    A quote that is left open is an error, instead of a value that reaches to the next one. One
    within a value is none, unless that would give a value of several lines.
    """
    delimiter, said = _delimiter_of(text)
    rows, fault = _parsed(text, delimiter, strict=True)
    rows = rows[said:]
    if fault and "expected after" in fault[1]:
        loose, _ = _parsed(text, delimiter, strict=False)
        loose = loose[said:]
        if not any({"\n", "\r"}.intersection(value) for _, values in loose for value in values):
            return iter(loose)
    if fault:
        number, message = fault
        raise DatasetError(f"Line {number} of the table {path}: {message}.")
    return iter(rows)


def _delimiter_of(text):
    """What separates values, and whether a line before the header says so, as Excel asks for it."""
    lines = text.splitlines() or [""]
    if said := _SEPARATOR.fullmatch(lines[0]):
        return said[1], True
    return max("\t,;", key=lines[0].count), False


def _parsed(text, delimiter, strict):
    """The rows up to the first fault, and the number of its line with what it is, or None."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
    number, rows = 1, []
    try:
        for values in reader:
            rows.append((number, [value.strip() for value in values]))
            number = reader.line_num + 1
    except csv.Error as error:
        return rows, (number, str(error))
    return rows, None


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text for rows of cells: the first column flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
