"""The report: complete in itself, safe with any name, and carrying the notice."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lesion import NOTICE
from lesion.report import write_report
from lesion.samples import Problem
from mrcnn.images import write_image

MODEL = {"model": "darkness", "image_size": 64}
VOID = {"meta", "img"}


def record(name="ISIC_0000001.jpg", found=True, warnings=(), stem=None):
    stem = stem or name.rpartition(".")[0]
    return {
        "file": name,
        "path": f"folder/{name}",
        "size": {"height": 30, "width": 1040},
        "found": found,
        "score": 0.8765 if found else None,
        "area": {"pixels": 3120 if found else 0, "fraction": 0.1 if found else 0.0},
        "warnings": list(warnings),
        "outputs": {"segmentation": f"{stem}_segmentation.png", "overlay": "overlay.jpg"},
    }


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
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def write(tmp_path):
    """Writes a report about one overlay and gives back its source."""
    write_image(tmp_path / "overlay.jpg", np.full((30, 1040, 3), 150, np.uint8))

    def write_it(records, problems=()):
        path = tmp_path / "report.html"
        write_report(path, records, list(problems), tmp_path, MODEL)
        return path.read_text(encoding="utf-8")

    return write_it


def test_notice_comes_first(write):
    page = Page(write([record()]))
    assert page.text.removeprefix("Lesion boundaries ").startswith(NOTICE)


def test_card_shows_name_score_and_area(write):
    text = Page(write([record()])).text
    for expected in ("ISIC_0000001.jpg", "0.876", "10.0% of the image", "3,120 pixels", "1,040"):
        assert expected in text


def test_card_without_a_lesion_says_so(write):
    text = Page(write([record(found=False, warnings=["No lesion was found."])])).text
    assert "a lesion found in 0" in text
    assert "Score no lesion found" in text
    assert "No lesion was found." in text


def test_names_are_escaped(write):
    name = "<script>alert(\"x\")</script> & 'y'.jpg"
    problem = Problem(name.replace(".jpg", ".png"), "<b>broken</b>")
    page = Page(write([record(name)], [problem]))
    assert not {tag for tag, _ in page.elements} & {"script", "b"}
    assert name in page.text
    assert "<b>broken</b>" in page.text


def test_nothing_is_loaded_from_elsewhere(write):
    source = write([record(), record("b.jpg")])
    page = Page(source)
    sources = [
        attributes[name]
        for _, attributes in page.elements
        for name in ("src", "href")
        if name in attributes
    ]
    assert len(sources) == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in sources)
    assert not re.search(r"https?:|@import|url\(", source)


def test_thumbnails_are_reduced_overlays(write):
    image = next(a for tag, a in Page(write([record()])).elements if tag == "img")
    content = base64.b64decode(image["src"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as thumbnail:
        assert thumbnail.size == (560, 16)
    assert "ISIC_0000001.jpg" in image["alt"]


def test_light_and_dark_wide_and_narrow(write):
    source = write([record()])
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport" content="width=device-width' in source


def test_failed_files_are_named(write):
    text = Page(write([], [Problem("folder/b.jpg", "the file is empty.")])).text
    assert "0 images analysed" in text
    assert "1 file failed" in text
    assert "folder/b.jpg: the file is empty." in text


def test_numbered_results_are_named(write):
    assert "a_2_segmentation.png" in Page(write([record("a.jpg", stem="a_2")])).text
    assert "_segmentation.png" not in Page(write([record("a.jpg")])).text


def test_model_is_described(write):
    assert "image size 64" in Page(write([record()])).text
