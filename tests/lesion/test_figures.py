"""Figures of an evaluation: what is drawn, for whatever names and sizes."""

import numpy as np
import pytest
from PIL import Image

from lesion.figures import AttributeCase, Case, attribute_sheet, contact_sheet, jaccard_histogram

GREY = np.full((40, 60, 3), 128, np.uint8)


def rectangle(top, left, bottom, right):
    mask = np.zeros(GREY.shape[:2], bool)
    mask[top:bottom, left:right] = True
    return mask


def case(name, jaccard):
    return Case(name, jaccard, GREY, rectangle(5, 5, 20, 20), rectangle(8, 8, 25, 25))


def attribute_case(name, jaccard):
    masks = {"streaks": rectangle(5, 5, 20, 20), "globules": np.zeros(GREY.shape[:2], bool)}
    return AttributeCase(name, jaccard, GREY, {"streaks": rectangle(8, 8, 25, 25)}, masks)


def test_contact_sheet_is_a_png_with_a_row_for_each_group(tmp_path):
    one, three = tmp_path / "one.png", tmp_path / "three.png"
    contact_sheet({"worst": [case("a", 0.2)], "median": [], "best": []}, one)
    contact_sheet(
        {"worst": [case("a", 0.2)], "median": [case("$b_", 0.7)], "best": [case("c", 0.9)]}, three
    )
    with Image.open(one) as small, Image.open(three) as large:
        assert small.format == "PNG"
        assert small.width == large.width
        assert large.height > 2 * small.height


def test_contact_sheet_takes_very_narrow_images(tmp_path):
    image, mask = np.full((2, 900, 3), 99, np.uint8), np.ones((2, 900), bool)
    contact_sheet({"all": [Case("a", 1.0, image, mask, mask)]}, tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


def test_contact_sheet_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        contact_sheet({"worst": []}, tmp_path / "a.png")


def test_histogram_takes_any_name(tmp_path):
    path = tmp_path / "new" / "h.png"
    jaccard_histogram({"_hidden $x$": [0.1, 0.9], "empty": [], "edges": [0.0, 0.65, 1.0]}, path)
    with Image.open(path) as figure:
        assert figure.format == "PNG"


def test_names_need_not_be_unicode(tmp_path):
    jaccard_histogram({"f\udcfc": [0.1, 0.9]}, tmp_path / "h.png")
    contact_sheet({"all": [case("f\udcfc", 0.2)]}, tmp_path / "c.png")
    attribute_sheet([attribute_case("f\udcfc", 0.2)], tmp_path / "a.png")
    assert {path.name for path in tmp_path.iterdir()} == {"h.png", "c.png", "a.png"}


def test_histogram_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one value"):
        jaccard_histogram({"a": []}, tmp_path / "h.png")


def test_a_sheet_has_two_cases_a_row_and_two_pictures_for_each(tmp_path):
    one, more = tmp_path / "one.png", tmp_path / "more.png"
    attribute_sheet([attribute_case("a", 0.2)], one)
    attribute_sheet(
        [attribute_case("$a_", 0.2), attribute_case("b", float("nan")), attribute_case("c", 0.9)],
        more,
    )
    with Image.open(one) as small, Image.open(more) as large:
        assert small.format == "PNG"
        assert large.width > 1.7 * small.width
        assert large.height > 1.5 * small.height


def test_a_sheet_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        attribute_sheet([], tmp_path / "a.png")
