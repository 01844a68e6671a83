"""All records of an analysis as one table, a row for each image: for a spreadsheet, or for R."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lesion.results import OVERLAY, RECORD, is_foreign
from lesion.samples import ATTRIBUTES, DIAGNOSES
from lesion.tables import write_table

TABLE = "results.csv"
_MEASURED = (
    "area_pixels",
    "area_share",
    "area_mm2",
    "diameter_pixels",
    "diameter_mm",
    "asymmetry_major_axis",
    "asymmetry_minor_axis",
    "axis_ratio",
    "compactness",
    "radial_deviation",
    "touches_frame",
)
_PATIENT = ("age", "sex", "site")
HEADER = (
    *("image", "record", "height", "width", "category", *DIAGNOSES, "refer"),
    *("found", "score", *_MEASURED),
    *(f"{name}_presence" for name in ATTRIBUTES),
    *(f"{name}_area_share" for name in ATTRIBUTES),
    *("warnings", *_PATIENT),
)


def write_results_table(path: Path, records: Iterable[Mapping]) -> None:
    """Writes a CSV file, whole or not at all; what is not known is empty.

    Args:
        records: as `lesion.results.write_results` wrote them, with their `outputs`.
    """
    write_table(path, HEADER, map(_row, records))


def table_of_another(path: Path) -> Path | None:
    """The file where a table is to go, if it is none that `write_results_table` wrote.

    That of no image has its header alone, and so no row with the notice.
    """
    if not is_foreign(path):
        return None
    header = ",".join((*HEADER, "notice")).encode()
    return None if path.read_bytes().strip() == header else path


def _row(record):
    boundary, measured, diagnosis, attributes = (
        record[name] or {} for name in ("boundary", "measurements", "diagnosis", "attributes")
    )
    stem = record["outputs"]["overlay"].removesuffix(OVERLAY)
    probabilities = diagnosis.get("probabilities", {})
    shown = [attributes.get(name, {}) for name in ATTRIBUTES]
    patient = record["settings"].get("patient") or {}
    values = (
        *((record["source"] or {}).get("path"), stem + RECORD),
        *(record["size"]["height"], record["size"]["width"]),
        *(diagnosis.get("category"), *(probabilities.get(name) for name in DIAGNOSES)),
        *(diagnosis.get("refer"), boundary.get("found"), boundary.get("score")),
        *(measured.get(name) for name in _MEASURED),
        *(each.get("presence") for each in shown),
        *(each.get("area_share") for each in shown),
        " ".join(warning["code"] for warning in record["warnings"]),
        *(patient.get(name) for name in _PATIENT),
    )
    return [_plain(value) for value in values]


def _plain(value):
    """Yes and no as 1 and 0, numbers to six digits, nothing as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value
