"""Which images there are, and what their results are named."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesion import NOTICE
from lesion.analysis import Analysis, Source
from lesion.results import (
    file_of_another,
    find_images,
    output_stems,
    record_of_another,
    write_results,
)
from mrcnn.images import write_image


@pytest.fixture
def folder(tmp_path, lesion_image):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "images" / name, lesion_image()[0])
    return tmp_path / "images"


def test_number_does_not_take_another_images_name():
    paths = ["a.jpg", "x/a.jpg", "a_2.jpg", "A.png"]
    assert list(output_stems(paths).values()) == ["a", "a_3", "a_2", "A_4"]


def test_points_are_part_of_a_name_that_is_a_uid():
    names = ["1.2.840.113619.1", "1.2.840.113619.2", "scan.v2.JPG", ".png"]
    expected = [*names[:2], "scan.v2", ".png"]
    assert list(output_stems(names).values()) == expected


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
    write_image(tmp_path / "out" / "b_segmentation.png", image)
    (tmp_path / "table.csv").write_text("")
    found = find_images([tmp_path], tmp_path / "out")
    assert found == [tmp_path / "b.png", tmp_path / "sub" / "A.JPG"]
    # Results may go into a folder that holds the images' own.
    assert find_images([tmp_path / "out"], tmp_path) == [tmp_path / "out" / "d.png"]


def test_folder_that_cannot_be_listed_is_not_passed_over(tmp_path, lesion_image, monkeypatch):
    for name in ("a/a.png", "b/b.png"):
        write_image(tmp_path / name, lesion_image()[0])
    scandir = os.scandir

    def listed(folder):
        if Path(folder).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", listed)
    with pytest.raises(PermissionError, match="b cannot be listed .Permission denied."):
        find_images([tmp_path], tmp_path / "out")


def test_hidden_folder_that_cannot_be_listed_is_not_entered(tmp_path, lesion_image, monkeypatch):
    for name in ("a/a.png", ".Trashes/b.png"):
        write_image(tmp_path / name, lesion_image()[0])
    scandir = os.scandir

    def listed(folder):
        assert Path(folder).name != ".Trashes"
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", listed)
    assert find_images([tmp_path], tmp_path / "out") == [tmp_path / "a" / "a.png"]


@pytest.mark.parametrize("inside", ["", "nevus/", "p1/left/"])
def test_masks_beside_images_are_none(tmp_path, lesion_image, inside):
    for name in ("images/a.png", "images/b.jpg", f"masks/{inside}a.png"):
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


class TestFilesOfOthers:
    @pytest.fixture
    def results(self, tmp_path, lesion_image):
        """A folder with the results of `mole.png`, and the image."""
        image, mask = lesion_image()
        path = tmp_path / "mole.png"
        write_image(path, image)
        out = tmp_path / "out"
        analysis = Analysis(
            image, SimpleNamespace(mask=mask, score=0.9, box=(1, 2, 3, 4)), source=Source.of(path)
        )
        write_results(analysis, out, "mole")
        return out, path

    def test_pictures_and_masks_say_the_notice(self, results):
        out, _ = results
        with Image.open(out / "mole_segmentation.png") as mask:
            assert mask.info["Description"] == NOTICE
        with Image.open(out / "mole_overlay.jpg") as overlay:
            assert overlay.info["comment"].decode() == NOTICE

    def test_own_results_may_be_replaced(self, results):
        out, path = results
        assert file_of_another(out, "mole") is None
        (out / "mole.json").unlink()  # as after an interruption
        assert file_of_another(out, "mole") is None
        assert record_of_another(path, out, "mole") is None

    @pytest.mark.parametrize("name", ["mole_segmentation.png", "mole_attribute_streaks.png"])
    def test_masks_of_a_data_set_are_no_results(self, tmp_path, name):
        write_image(tmp_path / name, np.ones((8, 8), bool))
        assert file_of_another(tmp_path, "mole") == tmp_path / name

    @pytest.mark.parametrize(
        "content", ['{"shapes": []}', "[]", "3", '{"a": 1}\n{"a": 2}', "\ufeff{}", '{"a": 1,}']
    )
    def test_json_of_another_program(self, tmp_path, content):
        (tmp_path / "mole.json").write_text(content, encoding="utf-8")
        assert file_of_another(tmp_path, "mole") == tmp_path / "mole.json"

    def test_file_that_is_missing_takes_no_results_away(self, results, tmp_path):
        out, path = results
        assert record_of_another(tmp_path / "elsewhere" / "mole.png", out, "mole") == str(path)

    def test_relative_path_is_not_known_by_itself(self, results, tmp_path, monkeypatch):
        """From another folder it means another file."""
        out, path = results
        monkeypatch.chdir(tmp_path)
        record = json.loads((out / "mole.json").read_text())
        record["source"]["path"] = "mole.png"
        (out / "mole.json").write_text(json.dumps(record))
        assert record_of_another(Path("mole.png"), out, "mole") is None
        write_image(path, np.zeros((8, 8, 3), np.uint8))
        assert record_of_another(Path("mole.png"), out, "mole") == "mole.png"


def test_names_that_leave_room_for_no_number_are_cut(tmp_path):
    stems = output_stems([tmp_path / folder / f"{'x' * 224}.png" for folder in "ab"]).values()
    assert len(set(stems)) == 2
    assert max(len(f"{stem}_attribute_negative_network.png") for stem in stems) <= 255


def test_links_that_lead_nowhere_are_named_later(tmp_path):
    for name, target in (("loop", "loop"), ("gone", "elsewhere")):
        (tmp_path / f"{name}.png").symlink_to(tmp_path / f"{target}.png")
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    names = [path.name for path in find_images([tmp_path], tmp_path / "out")]
    assert names == ["a.png", "gone.png", "loop.png"]
    assert find_images([tmp_path / "loop.png"], tmp_path) == [tmp_path / "loop.png"]


def test_links_to_folders_are_followed_once(tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png", np.zeros((8, 8, 3), np.uint8))
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    assert find_images([folder], tmp_path / "out") == [folder / "linked" / "a.png"]


def test_names_that_leave_no_room_are_cut(tmp_path):
    paths = [tmp_path / f"{'ö' * 120}{end}.png" for end in "ab"]
    stems = list(output_stems(paths).values())
    assert len({stem.casefold() for stem in stems}) == 2
    for stem in stems:
        (tmp_path / f"{stem}_attribute_negative_network.png").touch()
