"""The report: complete in itself, safe with any name, and carrying the notice."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion import NOTICE, report
from lesion.report import page_of_another, write_report
from lesion.report_case import data_url
from lesion.samples import Problem
from mrcnn.images import write_image

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"
(EXAMPLE,) = re.findall(r"```json\n(.+?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
VOID = {"meta", "img", "br"}


def record(name="ISIC_0000001.jpg", found=True, tasks=("boundary", "attributes", "diagnosis")):
    """The documented record, of an image of another name."""
    value = json.loads(EXAMPLE)
    value["source"]["path"] = f"folder/{name}"
    value["size"] = {"height": 30, "width": 1040}
    value["outputs"] = {"overlay": "a_overlay.jpg", "attribute_overlay": "a_attributes.jpg"}
    if not found:
        value["boundary"] = {"found": False, "score": None, "box": None}
        value["measurements"] = dict.fromkeys(value["measurements"])
        value["measurements"] |= {"area_pixels": 0, "area_share": 0.0, "touches_frame": False}
        value["warnings"][0]["message"] = "No lesion was found."
    for task in {"boundary", "attributes", "diagnosis"} - set(tasks):
        value[task] = None
        del value["models"][task]
    if "boundary" not in tasks:
        value["measurements"] = None
    return value


class Page(HTMLParser):
    """Text, and elements with their attributes; fails where tags do not match."""

    def __init__(self, source):
        super().__init__()
        self.texts, self.elements, self.open = [], [], []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def write(tmp_path):
    """Writes a report about the pictures of one image and gives back its source."""
    picture = np.full((30, 1040, 3), 150, np.uint8)
    write_image(tmp_path / "a_overlay.jpg", picture)
    write_image(tmp_path / "a_attributes.jpg", picture)

    def write_it(records, problems=()):
        path = tmp_path / "report.html"
        write_report(path, records, list(problems), tmp_path)
        return path.read_text(encoding="utf-8")

    return write_it


def test_notice_comes_first_and_last(write):
    text = Page(write([record()])).text.removeprefix("Analysis of dermoscopic images ")
    assert text.startswith(NOTICE)
    assert text.endswith(NOTICE)


@pytest.mark.parametrize(
    ("refer", "said"), [(True, "To be referred"), (False, "This is no reassurance"), (None, None)]
)
def test_what_a_referral_means(write, refer, said):
    value = record()
    value["diagnosis"]["refer"] = refer
    value["settings"] |= {"risk": 0.1, "patient": {"age": "55", "sex": "<male>"}}
    value["nearby"] = [0, 0, 20, 20]
    text = Page(write([value])).text
    assert ("above which 10% of all answers may be wrong" in text) == (said is not None)
    assert said is None or said in text
    assert "Not used of the patient: age 55, sex <male>." in text
    assert "Of the square around the lesion, not of the whole image." in text


@pytest.mark.parametrize("networks", [[True], [False, True], [False]])
def test_patient_data_that_were_used_are_told_from_others(write, networks):
    value = record()
    value["settings"]["patient"] = {"age": "55", "sex": "male", "site": "head/neck"}
    members = [{"patient_data": takes} for takes in networks]
    value["models"]["diagnosis"] = members[0] if len(members) == 1 else {"members": members}
    text = Page(write([value])).text
    used = any(networks)
    assert ("Told of the patient: age 55, sex male." in text) == used
    assert ("Not used of the patient: site head/neck." in text) == used
    assert ("Not used of the patient: age 55, sex male, site head/neck." in text) != used


def test_case_shows_all_that_was_found(write):
    text = Page(write([record()])).text
    for expected in (
        "ISIC_0000001.jpg",
        "Boundary, score 0.93",
        "1,040 × 30 pixels",
        "melanoma (MEL) 0.050",
        "melanocytic nevus (NV) 0.600",
        "To be referred",
        "pigment network 0.910",
        "28.2 mm² (70,459 px)",
        "26.1%",
        "7.8 mm (390 px)",
        "Asymmetry, major axis 0.070",
        "light brown 84%",
        "The lesion touches the edge",
        "mask_rcnn_boundary_0042.h5",
        "0123456789abcdef0123456789abcdef",
        "224 × 160",
    ):
        assert expected in text


def test_case_without_a_lesion_says_so(write):
    text = Page(write([record(found=False)])).text
    assert "No lesion was found" in text
    assert "Boundary, score" not in text


@pytest.mark.parametrize(
    ("task", "shown", "left_out"),
    [
        ("boundary", ["Area", "Measurements"], ["Most probable", "Presence of"]),
        ("attributes", ["Presence of"], ["Area", "Measurements", "Most probable"]),
        ("diagnosis", ["Most probable"], ["Area", "Measurements", "Presence of"]),
    ],
)
def test_only_what_was_done_is_shown(write, task, shown, left_out):
    text = Page(write([record(tasks=[task])])).text
    assert all(expected in text for expected in shown)
    assert not any(unexpected in text for unexpected in left_out)


def test_names_are_escaped(write):
    name = "<script>alert(\"x\") & 'y'.jpg"
    problem = Problem(name.replace(".jpg", ".png"), "<b>broken</b>")
    hostile = record(name)
    hostile["warnings"][0]["message"] = "<b>bold</b>"
    hostile["models"]["boundary"]["weights"] = "<b>.h5"
    page = Page(write([hostile], [problem]))
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert page.text.count(name) == 3  # in the table, as heading, in the path
    assert "<b>broken</b>" in page.text


def test_nothing_is_loaded_from_elsewhere(write):
    source = write([record(), record("b.jpg")])
    page = Page(source)
    pictures = [image["src"] for image in page.all("img")]
    assert len(pictures) == 2 * 3
    assert all(address.startswith("data:image/jpeg;base64,") for address in pictures)
    assert [link["href"] for link in page.all("a")] == ["#case-1", "#case-2"]
    assert {article["id"] for article in page.all("article")} == {"case-1", "case-2"}
    assert not re.search(r"https?:|@import|url\(", source)


def test_policy_allows_this_script_alone(write):
    source = write([record()])
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in source
    assert "default-src 'none'; img-src data:;" in source


def test_pictures_are_reduced_and_described(write):
    thumbnail, *pictures = Page(write([record()])).all("img")
    sizes = []
    for image in (thumbnail, *pictures):
        content = base64.b64decode(image["src"].partition(",")[2])
        with Image.open(io.BytesIO(content)) as decoded:
            sizes.append(decoded.size)
    assert sizes == [(120, 3), (512, 15), (512, 15)]
    assert thumbnail["alt"] == ""  # its name stands beside it
    assert all("ISIC_0000001.jpg" in picture["alt"] for picture in pictures)


def test_pictures_of_noise():
    """JPEGs of them are larger than their pixels are many."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    content = base64.b64decode(data_url(noise, 512).partition(",")[2])
    with Image.open(io.BytesIO(content)) as decoded:
        assert np.asarray(decoded).shape == noise.shape


def test_table_has_headers_and_values_to_sort_by(write):
    page = Page(write([record(), record("b.jpg", found=False)]))
    columns = [header for header in page.all("th") if header["scope"] == "col"]
    assert len(columns) == 13
    assert sum("data-sort" in column for column in columns) == 12
    assert len([header for header in page.all("th") if header["scope"] == "row"]) == 2
    numbers = [cell["data-value"] for cell in page.all("td") if cell.get("class") == "number"]
    assert all(value == "" or float(value) >= 0 for value in numbers)


def test_melanoma_has_a_column(write):
    values = {"a.jpg": 0.45, "b.jpg": 0.05}
    records = [record(name) for name in values]
    for each, value in zip(records, values.values(), strict=True):
        each["diagnosis"]["probabilities"]["MEL"] = value
    page = Page(write(records))
    assert "Melanoma" in page.text
    shown = [cell["data-value"] for cell in page.all("td") if "data-value" in cell]
    assert {"0.45", "0.05"} <= set(shown)


def test_what_probabilities_are_of_is_said(write):
    assert "sum to 1 over these seven whatever the image shows" in Page(write([record()])).text


def test_light_and_dark_wide_and_narrow_and_print(write):
    source = write([record()])
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport" content="width=device-width' in source
    assert "@media print" in source


def test_failed_files_are_named(write):
    text = Page(write([], [Problem("folder/b.jpg", "the file is empty.")])).text
    assert "0 images analysed" in text
    assert "1 file failed" in text
    assert "folder/b.jpg: the file is empty." in text


def test_numbered_results_are_named(write, tmp_path):
    write_image(tmp_path / "a_2_overlay.jpg", np.zeros((4, 4, 3), np.uint8))
    second = record("a.jpg")
    second["outputs"]["overlay"] = "a_2_overlay.jpg"
    assert "results in a_2_" in Page(write([second])).text
    assert "results in" not in Page(write([record("a.jpg")])).text


@pytest.mark.parametrize(
    "name, cases", [("report.html", 0), ("report_2.html", 3), ("report_3.html", 5)]
)
def test_page_of_another_is_found(tmp_path, monkeypatch, name, cases):
    monkeypatch.setattr(report, "MAX_EMBEDDED", 2)
    path = tmp_path / "report.html"
    (tmp_path / "report_2.html").write_text(NOTICE)
    assert page_of_another(path, cases) is None
    (tmp_path / name).write_text("of someone else")
    assert page_of_another(path, cases) == tmp_path / name
    if cases:  # fewer have no such page
        assert page_of_another(path, cases - 1) is None


def test_analysis_of_an_array_has_no_path(write):
    of_array = {**record("a.jpg"), "source": None}
    assert "image, 1,040 × 30 pixels" in Page(write([of_array])).text


@pytest.mark.parametrize(
    "refer, risk, sensitivity, text",
    [
        (True, None, 0.9, "To be referred: as near to melanoma as 90% of its images in"),
        (False, None, 0.9, "Not as near to melanoma as 90%"),
        (True, 0.1, 0.9, "may be wrong, or as near to melanoma"),
        (False, 0.1, 0.9, "of those about melanoma, nor as near to melanoma as 90%"),
    ],
)
def test_referral_says_by_what(write, refer, risk, sensitivity, text):
    case = record("a.jpg")
    case["diagnosis"]["refer"] = refer
    case["settings"] |= {"risk": risk, "melanoma_sensitivity": sensitivity}
    page = Page(write([case])).text
    assert text in page
    assert ("This is no reassurance" in page) != refer


@pytest.mark.parametrize("risk, text", [(0.1, "10%"), (0.005, "0.5%"), (0.025, "2.5%")])
def test_risk_is_not_rounded(write, risk, text):
    referred = record("a.jpg")
    referred["diagnosis"]["refer"] = True
    referred["settings"]["risk"] = risk
    assert f"above which {text} of all answers" in Page(write([referred])).text


def test_lengths_are_in_one_unit_by_which_they_are_sorted(write):
    scaled, other = record("a.jpg"), record("b.jpg")
    scaled["measurements"] |= {"diameter_mm": 4.25, "diameter_pixels": 30}
    other["measurements"] |= {"diameter_mm": None, "diameter_pixels": 40}
    for cases, unit, values in (
        ([scaled, record("c.jpg", found=False)], "mm", ["4.25", ""]),
        ([scaled, other], "pixels", ["30", "40"]),
    ):
        page = Page(write(cases))
        assert f"Diameter, {unit}" in page.text
        cells = [cell["data-value"] for cell in page.all("td") if "data-value" in cell]
        count = len(cells) // len(cases)
        found = list(zip(cells[:count], cells[count:], strict=True))
        assert tuple(values) in found


def test_many_cases_become_pages_of_linked_pictures(write, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_EMBEDDED", 2)
    for number in (4, 5):
        (tmp_path / f"report_{number}.html").write_text(f"of an earlier report: {NOTICE}")
    others = [tmp_path / f"report_{name}.html" for name in ("x", "6", "2023")]
    for path in others:
        path.write_text("of someone else")
    records = [record(f"{number}.jpg") for number in range(5)]
    first = Page(write(records, [Problem("bad.jpg", "empty")]))
    assert not (tmp_path / "report_4.html").exists()
    assert not (tmp_path / "report_5.html").exists()
    assert all(path.exists() for path in others)
    last = Page((tmp_path / "report_3.html").read_text(encoding="utf-8"))
    assert "5 images analysed, 1 file failed, page 1 of 3" in first.text
    assert "bad.jpg: empty" in first.text
    assert [article["id"] for article in first.all("article")] == ["case-1", "case-2"]
    assert [article["id"] for article in last.all("article")] == ["case-5"]
    assert {image["src"] for image in last.all("img")} == {"a_overlay.jpg", "a_attributes.jpg"}
    assert all(image["loading"] == "lazy" for image in last.all("img"))
    links = [link["href"] for link in last.all("a") if not link["href"].startswith("#")]
    assert links == ["report.html", "report_2.html", "report_3.html"] * 2
