"""Which images there are, and what their results are named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion.results import find_images, output_stems
from mrcnn.images import write_image


@pytest.fixture
def folder(tmp_path, lesion_image):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "images" / name, lesion_image()[0])
    return tmp_path / "images"


def test_number_does_not_take_another_images_name():
    paths = ["a.jpg", "x/a.jpg", "a_2.jpg", "A.png"]
    assert list(output_stems(paths).values()) == ["a", "a_3", "a_2", "A_4"]


@given(st.lists(st.tuples(st.sampled_from("pq"), st.text("aAb_23", min_size=1, max_size=5))))
def test_no_two_images_share_a_stem(parts):
    paths = {Path(folder, f"{stem}.png") for folder, stem in parts}
    stems = output_stems(sorted(paths))
    assert set(stems) == paths
    assert len({stem.casefold() for stem in stems.values()}) == len(paths)


def test_folders_are_searched_for_images_alone(tmp_path, lesion_image):
    image = lesion_image()[0]
    results = ("b_segmentation.png", "b_attribute_globules.png", "b_attributes.jpg")
    masks_of_ph2 = ("IMD002_lesion.png", "IMD002_R1_Label3.png")
    for name in ("b.png", "sub/A.JPG", *results, *masks_of_ph2):
        write_image(tmp_path / name, image)
    write_image(tmp_path / ".hidden" / "c.png", image)
    write_image(tmp_path / "out" / "d.png", image)
    (tmp_path / "table.csv").write_text("")
    found = find_images([tmp_path], tmp_path / "out")
    assert found == [tmp_path / "b.png", tmp_path / "sub" / "A.JPG"]


def test_masks_beside_images_are_none(tmp_path, lesion_image):
    for name in ("images/a.png", "images/b.jpg", "masks/a.png"):
        write_image(tmp_path / name, lesion_image()[0])
    (tmp_path / "images" / "b.jpg").rename(tmp_path / "images" / "b.jfif")
    found = find_images([tmp_path], tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "images/a.png",
        "images/b.jfif",
    ]


def test_file_given_by_name_is_taken_whatever_its_name(tmp_path):
    path = tmp_path / "a_mask.dat"
    assert find_images([path], tmp_path / "out") == [path]


def test_image_given_twice_is_analysed_once(folder):
    found = find_images([folder / "a.png", folder, folder / "." / "b.png"], folder / "out")
    assert [path.name for path in found] == ["a.png", "b.png", "c.png"]


def test_input_is_never_replaced(folder, lesion_image):
    write_image(folder / "a_overlay.jpg", lesion_image()[0])
    with pytest.raises(ValueError, match="would replace an image"):
        find_images([folder / "a.png", folder / "a_overlay.jpg"], folder)
