"""All records of an analysis as one table."""

import csv
import json
import re
from pathlib import Path

import pytest

from lesion import NOTICE
from lesion.results_table import write_results_table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"


@pytest.fixture
def record():
    """The documented one."""
    return json.loads(re.search(r"```json\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)[1])


def rows(path, *records):
    write_results_table(path / "results.csv", records)
    with open(path / "results.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_tells_what_the_record_does(record, tmp_path):
    (row,) = rows(tmp_path, record)
    expected = {
        **{"image": "images/mole.jpg", "record": "mole.json", "height": "450", "width": "600"},
        **{"category": "NV", "MEL": "0.05", "NV": "0.6", "refer": "1", "found": "1"},
        **{"area_pixels": "70459", "diameter_mm": "7.8", "touches_frame": "1"},
        **{"streaks_presence": "0.02", "globules_area_share": "0.0239"},
        **{"warnings": "touches_frame", "age": "50", "sex": "", "notice": NOTICE},
    }
    assert {name: row[name] for name in expected} == expected


def test_what_was_not_looked_for_is_empty(record, tmp_path):
    """And so are a source that is no file, and a referral that nobody asked for."""
    bare = record | {"boundary": None, "measurements": None, "attributes": None, "source": None}
    bare["settings"] = record["settings"] | {"patient": None}
    bare["diagnosis"] = record["diagnosis"] | {"refer": None}
    _, row = rows(tmp_path, record, bare)
    assert row["category"] == "NV"
    names = ("image", "refer", "found", "score", "area_pixels", "streaks_presence", "age")
    assert [row[name] for name in names] == [""] * len(names)
    (row,) = rows(tmp_path, bare | {"diagnosis": None})
    assert (row["category"], row["MEL"]) == ("", "")
