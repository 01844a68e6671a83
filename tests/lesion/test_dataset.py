import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lesion.checks
import lesion.dataset
from lesion import NOTICE
from lesion.boundary_data import LesionDataset
from lesion.cache import ImageCache
from lesion.checks import check_samples
from lesion.dataset import main
from lesion.grouping import grouped, marks_of
from lesion.layouts import find_collections, find_samples
from lesion.samples import ATTRIBUTES, DatasetError, Problem, said_of
from lesion.splits import Split

REPOSITORY = Path(__file__).parents[2]
TASK1 = "ISIC2018_Task1_Training_GroundTruth"
INPUT = "ISIC2018_Task1-2_Training_Input"
METADATA = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def save_image(path: Path, height=48, width=64, seed=None) -> Path:
    """A JPEG of noise, another for every name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(path.stem.encode()) if seed is None else seed)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path: Path, height=48, width=64, fill=None) -> Path:
    """A PNG with a square lesion, or of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((height, width), np.uint8) if fill is None else np.full((height, width), fill)
    if fill is None:
        mask[10:30, 20:40] = 255
    Image.fromarray(mask.astype(np.uint8)).save(path)
    return path


def make_isic2018(root: Path, ids=("ISIC_0000001", "ISIC_0000002"), part="Training") -> Path:
    for image_id in ids:
        save_image(root / f"ISIC2018_Task1-2_{part}_Input" / f"{image_id}.jpg")
        masks = root / f"ISIC2018_Task1_{part}_GroundTruth"
        save_mask(masks / f"{image_id}_segmentation.png")
    return root


def make_ham(root: Path, rows: list[str], table="HAM10000_metadata.csv", header=METADATA) -> Path:
    root.mkdir(exist_ok=True)
    if table:
        (root / table).write_text("\n".join([header, *rows]) + "\n")
    for number, image_id in enumerate(("ISIC_0024306", "ISIC_0024307"), start=1):
        save_image(root / f"HAM10000_images_part_{number}" / f"{image_id}.jpg")
        masks = root / "HAM10000_segmentations_lesion_tschandl"
        save_mask(masks / f"{image_id}_segmentation.png")
    return root


HAM_ROWS = [
    "HAM_0000001,ISIC_0024306,nv,histo,55.0,male,back",
    "HAM_0000001,ISIC_0024307,nv,histo,,female,",
]


def make_plain(root: Path, mask_name="a.png") -> Path:
    save_image(root / "images" / "a.jpg")
    save_mask(root / "masks" / mask_name)
    return root


def ids(collection) -> list[str]:
    return [sample.image_id for sample in collection.samples]


# === Layouts ===


def test_isic2018_as_distributed(tmp_path):
    root = make_isic2018(tmp_path / "isic2018")
    for folder in (root / INPUT, root / TASK1):
        (folder / "ATTRIBUTION.txt").write_text("by")
        (folder / "LICENSE.txt").write_text("CC0")
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / "._ISIC_0000001.jpg").write_bytes(b"\0")
    found = find_samples(root)
    assert (found.name, found.layout, found.part) == ("isic2018", "isic2018", "training")
    assert ids(found) == ["ISIC_0000001", "ISIC_0000002"]
    assert found.samples[0].image == root / INPUT / "ISIC_0000001.jpg"
    assert found.samples[0].mask == root / TASK1 / "ISIC_0000001_segmentation.png"
    assert found.samples[0].key == "isic2018/ISIC_0000001"
    assert found.problems == []


def test_isic2018_attributes(tmp_path):
    root = make_isic2018(tmp_path)
    folder = root / "ISIC2018_Task2_Training_GroundTruth_v3"
    for attribute in ATTRIBUTES:
        save_mask(folder / f"ISIC_0000001_attribute_{attribute}.png")
    save_mask(folder / "ISIC_0000002_attribute_streaks.png")
    first, second = find_samples(root).samples
    assert set(first.attributes) == set(ATTRIBUTES)
    assert second.attributes == {"streaks": folder / "ISIC_0000002_attribute_streaks.png"}
    (problem,) = find_samples(root).problems
    assert "ISIC_0000002.jpg" in str(problem) and "pigment_network" in problem.reason


def test_newest_release_of_a_folder_is_used(tmp_path):
    root = make_isic2018(tmp_path)
    for release in ("", "_v3"):
        folder = root / f"ISIC2018_Task2_Training_GroundTruth{release}"
        save_mask(folder / "ISIC_0000001_attribute_streaks.png")
    path = find_samples(root).samples[0].attributes["streaks"]
    assert path.parent.name == "ISIC2018_Task2_Training_GroundTruth_v3"


def test_parts_are_found_together_or_alone(tmp_path):
    make_isic2018(tmp_path)
    make_isic2018(tmp_path, ["ISIC_0036000"], "Test")
    both = find_samples(tmp_path)
    assert both.part == "all"
    assert [sample.part for sample in both.samples] == ["training", "training", "test"]
    assert ids(find_samples(tmp_path, part="test")) == ["ISIC_0036000"]
    with pytest.raises(DatasetError, match="no part 'validation'; it has training, test"):
        find_samples(tmp_path, part="validation")
    with pytest.raises(ValueError, match="received 'train'"):
        find_samples(tmp_path, part="train")


def test_isic2017_superpixels_are_no_images(tmp_path):
    save_image(tmp_path / "ISIC-2017_Test_v2_Data" / "ISIC_0000001.jpg")
    save_image(tmp_path / "ISIC-2017_Test_v2_Data" / "ISIC_0000001_superpixels.png")
    save_mask(tmp_path / "ISIC-2017_Test_v2_Part1_GroundTruth" / "ISIC_0000001_segmentation.png")
    found = find_samples(tmp_path)
    assert (found.layout, found.part, ids(found)) == ("isic2017", "test", ["ISIC_0000001"])
    assert found.samples[0].mask is not None
    assert found.problems == []


def test_isic2016_writes_segmentation_with_a_capital(tmp_path):
    save_image(tmp_path / "ISBI2016_ISIC_Part1_Training_Data" / "ISIC_0000001.jpg")
    masks = tmp_path / "ISBI2016_ISIC_Part1_Training_GroundTruth"
    mask = save_mask(masks / "ISIC_0000001_Segmentation.png")
    found = find_samples(tmp_path)
    assert (found.layout, found.samples[0].mask) == ("isic2016", mask)


@pytest.mark.parametrize("table", ["HAM10000_metadata.csv", "HAM10000_metadata"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_ham10000_metadata(tmp_path, table, delimiter):
    rows = [row.replace(",", delimiter) for row in HAM_ROWS]
    make_ham(tmp_path / "ham", rows, table, "\ufeff" + METADATA.replace(",", delimiter))
    found = find_samples(tmp_path / "ham")
    assert (found.layout, found.problems) == ("ham10000", [])
    first, second = found.samples
    assert (first.lesion_id, first.diagnosis) == ("HAM_0000001", "NV")
    details = {"age": "55.0", "sex": "male", "site": "back", "confirmation": "histo"}
    assert first.metadata == details
    assert second.metadata == {"sex": "female", "confirmation": "histo"}
    assert second.mask is not None


@pytest.mark.parametrize("images", ["HAM10000_images", "images", "HAM10000", "."])
@pytest.mark.parametrize("masks", ["HAM10000_segmentations", "masks"])
def test_ham10000_other_spellings(tmp_path, images, masks):
    (tmp_path / "HAM10000_metadata.tab").write_text("\n".join([METADATA, HAM_ROWS[0]]))
    save_image(tmp_path / images / "ISIC_0024306.jpg")
    mask = save_mask(tmp_path / masks / "ISIC_0024306_segmentation.png")
    found = find_samples(tmp_path)
    assert (found.layout, ids(found)) == ("ham10000", ["ISIC_0024306"])
    assert found.samples[0].mask == mask
    assert found.problems == []


def test_folder_unpacked_into_its_own_name(tmp_path):
    save_image(tmp_path / "HAM10000_images_part_1/HAM10000_images_part_1/ISIC_0024306.jpg")
    assert ids(find_samples(tmp_path)) == ["ISIC_0024306"]


def test_folders_that_differ_by_case_are_one(tmp_path):
    make_ham(tmp_path, HAM_ROWS)
    copy = tmp_path / "ham10000_images_part_1"
    if copy.exists():
        pytest.skip("the file system does not tell upper from lower case")
    save_image(copy / "ISIC_0024306.jpg")
    found = find_samples(tmp_path)
    assert len(found.samples) == 2
    assert found.problems == []


@pytest.mark.parametrize("mask", ["a.png", "a_mask.png", "a_segmentation.png", "a_Mask.bmp"])
def test_plain_folders(tmp_path, mask):
    found = find_samples(make_plain(tmp_path, mask))
    assert found.layout == "plain"
    assert found.samples[0].mask == tmp_path / "masks" / mask


def test_image_whose_own_name_ends_like_a_mask(tmp_path):
    save_image(tmp_path / "images" / "face_mask.jpg")
    mask = save_mask(tmp_path / "masks" / "face_mask.png")
    assert find_samples(tmp_path).samples[0].mask == mask


def test_unknown_folder_points_to_the_data_set_nearby(tmp_path):
    root = make_isic2018(tmp_path / "isic")
    with pytest.raises(DatasetError, match="Did you mean .*isic"):
        find_samples(tmp_path)
    with pytest.raises(DatasetError, match="Did you mean .*isic"):
        find_samples(root / INPUT)
    with pytest.raises(DatasetError, match="does not exist"):
        find_samples(tmp_path / "nowhere")


def test_two_data_sets_in_one_folder_are_refused(tmp_path):
    make_isic2018(tmp_path)
    make_ham(tmp_path, HAM_ROWS)
    with pytest.raises(DatasetError, match="several data sets .isic2018, ham10000."):
        find_samples(tmp_path)


def test_collections_have_different_names(tmp_path):
    """Alone each would be called otherwise than beside the other, and a split not know it."""
    roots = [make_plain(tmp_path / "one" / "data"), make_plain(tmp_path / "two" / "data")]
    with pytest.raises(DatasetError, match="one/data and .*two/data have one name.*rename"):
        find_collections(roots)
    with pytest.raises(DatasetError, match="given twice"):
        find_collections([roots[0], roots[0] / ".." / "data"])


# === Faults of names and tables ===


@pytest.mark.parametrize("word", ["NA", "unknown", "nan", " ", "N/A"])
def test_words_for_an_unknown_lesion_are_none(tmp_path, word):
    rows = [row.replace("HAM_0000001", word) for row in HAM_ROWS]
    found = find_samples(make_ham(tmp_path / "ham", rows))
    assert [sample.lesion_id for sample in found.samples] == [None, None]
    (said,) = [str(each) for each in found.problems if "lesion_id" in str(each)]
    assert said.endswith("2 images, such as ISIC_0024306 in line 2, have no lesion_id")


class TestCopies:
    def copied(self, root):
        """A plain data set of two images of the same bytes."""
        shutil.copy(make_plain(root) / "images" / "a.jpg", root / "images" / "b.jpg")
        save_mask(root / "masks" / "b.png")
        return root

    def test_one_that_cannot_be_used_leaves_its_place_to_the_other(self, tmp_path):
        root = self.copied(tmp_path / "one")
        assert ids(check_samples(find_samples(root))) == ["a"]
        (root / "masks" / "a.png").unlink()
        assert ids(check_samples(find_samples(root))) == ["b"]

    def test_in_another_data_set(self, tmp_path):
        used = {}
        roots = [self.copied(tmp_path / "one"), make_plain(tmp_path / "two")]
        one, two = (check_samples(each, used=used) for each in find_collections(roots))
        assert (ids(one), ids(two)) == (["a"], [])
        assert f"the same bytes as {roots[0] / 'images' / 'a.jpg'}" in str(two.problems[-1])

    @pytest.mark.parametrize("lesion", ["1", ""])
    def test_what_is_of_a_copys_lesion_or_patient_is_not_divided(self, tmp_path, lesion):
        root = self.copied(tmp_path)
        for name in "cd":
            save_image(root / "images" / f"{name}.jpg")
            save_mask(root / "masks" / f"{name}.png")
        (root / "m.csv").write_text(f"image,lesion_id,patient_id\na,{lesion},\nb,2,7\nc,2,\nd,,7\n")
        checked = check_samples(find_samples(root))
        assert ids(checked) == ["a", "c", "d"]
        assert len(grouped(checked.samples)) == 1
        twice = f"; lesion {root.name}/1 there and {root.name}/2 here are taken for one"
        assert str(checked.problems[-1]).endswith("a.jpg" + (twice if lesion else ""))
        names = [f"{root.name}/2", f"patient {root.name}/7"]
        assert marks_of(checked.samples[0])[-2:] == names
        split = Split({"train": [checked.samples[0].key]}, 0, {"train": 1.0})
        assert split.with_marks(checked.samples).has_learned(checked.samples[1])


def test_mask_without_image(tmp_path):
    mask = save_mask(make_isic2018(tmp_path) / TASK1 / "ISIC_0000009_segmentation.png")
    (problem,) = find_samples(tmp_path).problems
    assert str(problem) == f"{mask}: mask without its image"


def test_two_masks_and_two_images_of_one_id(tmp_path):
    make_plain(tmp_path)
    save_mask(tmp_path / "masks" / "a_mask.png")
    save_image(tmp_path / "images" / "a.png")
    found = find_samples(tmp_path)
    assert [sample.image.name for sample in found.samples] == ["a.jpg"]
    assert found.samples[0].mask.name == "a.png"
    assert {problem.path.name for problem in found.problems} == {"a.png", "a_mask.png"}
    assert found.left_out == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("HAM_0000001,ISIC_0024307,xyz,histo,1,male,back", "line 3: .*'xyz'"),
        (",ISIC_0024307,nv,histo,1,male,back", "ISIC_0024307 has no lesion_id"),
        ("HAM_0000002,ISIC_0024307,,histo,1,male,back", "ISIC_0024307 has no dx"),
        ("HAM_0000001,ISIC_0024307,mel,histo,1,male,back", "several diagnoses: MEL, NV"),
        (HAM_ROWS[1] + "\n" + HAM_ROWS[1], "line 4: ISIC_0024307 is listed again$"),
        (HAM_ROWS[1] + "\nHAM_0000003,ISIC_0099999,nv,histo,1,male,back", "1 images that are not"),
        (HAM_ROWS[1] + "\nHAM_0000003,,nv,histo,1,male,back", "line 4: no image_id"),
    ],
)
def test_faults_in_the_metadata_are_problems(tmp_path, row, reason):
    found = find_samples(make_ham(tmp_path, [HAM_ROWS[0], row]))
    assert len(found.samples) == 2
    (problem,) = found.problems
    assert problem.path.name == "HAM10000_metadata.csv"
    assert re.search(reason, problem.reason)


def test_image_that_the_metadata_contradicts_is_left_out(tmp_path):
    again = "HAM_0000007,ISIC_0024306,mel,histo,1,male,back"
    found = find_samples(make_ham(tmp_path, [*HAM_ROWS, again]))
    assert ids(found) == ["ISIC_0024307"]
    assert found.left_out == 1
    assert "listed again and otherwise" in found.problems[0].reason


def test_image_that_the_metadata_does_not_list(tmp_path):
    found = find_samples(make_ham(tmp_path, HAM_ROWS[:1]))
    assert found.problems[0].path.name == "ISIC_0024307.jpg"
    assert found.samples[1].lesion_id is None


def test_ham10000_without_metadata(tmp_path):
    found = find_samples(make_ham(tmp_path, [], table=""))
    assert len(found.samples) == 2
    assert "no HAM10000_metadata" in found.problems[0].reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lesion_id,image_id,dxx\n", "lacks the column dx.*it names lesion_id, image_id, dxx"),
        ("lesion,image_id,dx\n", "lacks the column lesion_id.*it names lesion, image_id, dx"),
        ("", "lacks the column lesion_id, image_id, dx.*names nothing"),
        ("lesion_id,image_id,dx\nHAM_1,ISIC_0024306\n", "Line 2 .* has 2 values"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"lesion_id,image_id,dx\n\x81,", "cannot be read"),
        (f"lesion_id,image_id,dx\n{'a' * 200_000},b,nv\n", "Line 2 .*field larger than"),
    ],
)
def test_unusable_metadata_stops(tmp_path, content, message):
    make_ham(tmp_path, HAM_ROWS)
    table = tmp_path / "HAM10000_metadata.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=message):
        find_samples(tmp_path)


# === Faults of files ===


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


IMAGE_FAULTS = {
    "empty file": (lambda path: path.write_bytes(b""), "empty"),
    "truncated": (truncate, "cannot be read"),
    "no image": (lambda path: path.write_text("<html>404</html>"), "not an image"),
    "tiny": (lambda path: save_image(path, 20, 30), "too small: 30 x 20"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "dangling link": (lambda path: (path.unlink(), path.symlink_to("gone")), "cannot be read"),
    "no mask": (
        lambda path: (path.parents[1] / TASK1 / f"{path.stem}_segmentation.png").unlink(),
        "image without a mask",
    ),
    "duplicate": (
        lambda path: path.write_bytes(path.with_name("ISIC_0000001.jpg").read_bytes()),
        "same bytes as ISIC_0000001.jpg",
    ),
}
MASK_FAULTS = {
    "empty file": (lambda path: path.write_bytes(b""), "empty"),
    "truncated": (truncate, "cannot be read"),
    "empty mask": (lambda path: save_mask(path, fill=0), "empty mask"),
    "all white": (lambda path: save_mask(path, fill=255), "all-white mask"),
    "other size": (lambda path: save_mask(path, 64, 48), "48 x 64 pixels, its image 64 x 48"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_faulty_image_is_named_and_left_out(tmp_path, fault):
    spoil, reason = IMAGE_FAULTS[fault]
    path = make_isic2018(tmp_path) / INPUT / "ISIC_0000002.jpg"
    spoil(path)
    checked = check_samples(find_samples(tmp_path))
    assert ids(checked) == ["ISIC_0000001"]
    assert checked.left_out == 1
    (problem,) = checked.problems
    assert problem.path == path
    assert reason in problem.reason
    assert not problem.reason.startswith(str(path))


@pytest.mark.parametrize("fault", MASK_FAULTS)
def test_faulty_mask_is_named_and_its_image_left_out(tmp_path, fault):
    spoil, reason = MASK_FAULTS[fault]
    path = make_isic2018(tmp_path) / TASK1 / "ISIC_0000002_segmentation.png"
    spoil(path)
    checked = check_samples(find_samples(tmp_path))
    assert ids(checked) == ["ISIC_0000001"]
    (problem,) = checked.problems
    assert problem.path == path
    assert reason in problem.reason


def test_sound_data_set_is_kept_whole(tmp_path):
    found = find_samples(make_isic2018(tmp_path))
    checked = check_samples(found)
    assert checked.samples == found.samples
    assert (checked.problems, checked.left_out) == ([], 0)
    assert checked.sizes == {(48, 64): 2}


def test_large_truncated_jpeg_is_found(tmp_path):
    # Decoded at an eighth of its size, to its end nevertheless.
    make_plain(tmp_path)
    path = save_image(tmp_path / "images" / "a.jpg", 1600, 2400)
    save_mask(tmp_path / "masks" / "a.png", 1600, 2400)
    assert check_samples(find_samples(tmp_path)).problems == []
    path.write_bytes(path.read_bytes()[:-20_000])
    assert check_samples(find_samples(tmp_path)).samples == []


@pytest.mark.parametrize(
    ("sides", "image", "mask", "warned"),
    [
        ((48, 64), 3, None, True),
        ((48, 64), 4, 1, True),
        ((48, 64), 3, 3, False),  # both are turned
        ((48, 64), 6, 6, False),
        ((48, 64), None, None, False),
        ((64, 64), 6, None, True),
        ((64, 64), None, 6, False),
    ],
)
def test_masks_that_may_be_of_the_image_as_it_is_stored(
    tmp_path, caplog, sides, image, mask, warned
):
    make_plain(tmp_path)
    places = [(tmp_path / "images" / "a.jpg", save_image, image)]
    places += [(tmp_path / "masks" / "a.png", save_mask, mask)]
    for path, save, orientation in places:
        save(path, *sides)
        turn(path, orientation)
    assert ids(check_samples(find_samples(tmp_path))) == ["a"]
    said = f"1 images are turned as their files say (EXIF), such as {places[0][0]}, and their masks"
    assert (said in caplog.text) == bool(caplog.records) == warned


def test_size_says_that_a_mask_is_of_the_upright_image(tmp_path, caplog):
    make_plain(tmp_path)
    turn(save_image(tmp_path / "images" / "a.jpg", 48, 64), 6)
    save_mask(tmp_path / "masks" / "a.png", 64, 48)
    assert ids(check_samples(find_samples(tmp_path))) == ["a"]
    save_mask(tmp_path / "masks" / "a.png", 48, 64)
    assert "another size" in check_samples(find_samples(tmp_path)).problems[0].reason
    assert not caplog.records


def turn(path, orientation):
    """Gives a file an EXIF orientation, which None leaves out."""
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(path) as stored:
            stored.save(path, exif=exif)


def test_empty_mask_in_plain_folders_is_an_image_without_lesion(tmp_path):
    make_plain(tmp_path)
    save_mask(tmp_path / "masks" / "a.png", fill=0)
    checked = check_samples(find_samples(tmp_path))
    assert ids(checked) == ["a"]
    assert checked.problems == []
    assert "1 empty masks" in checked.notes[0].reason


def test_folder_without_any_mask_is_one_problem(tmp_path):
    for number in range(5):
        save_image(tmp_path / "HAM10000_images_part_1" / f"ISIC_002430{number}.jpg")
    (tmp_path / "HAM10000_metadata.csv").write_text(
        "\n".join([METADATA, *(f"HAM_{n},ISIC_002430{n},nv,,,," for n in range(5))])
    )
    checked = check_samples(find_samples(tmp_path))
    assert checked.left_out == 5
    assert [problem.reason for problem in checked.problems] == [
        "5 images and no mask for any of them"
    ]


def test_unknown_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="received 'diagnoses'"):
        check_samples(find_samples(make_plain(tmp_path)), task="diagnoses")


def test_record_spares_the_second_check(tmp_path, monkeypatch):
    root, record = make_isic2018(tmp_path / "isic"), tmp_path / "cache" / "checked.json"
    save_mask(root / TASK1 / "ISIC_0000002_segmentation.png", fill=255)
    first = check_samples(find_samples(root), record=record)

    def refuse(*_, **__):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(lesion.checks, "read_image", refuse)
        patch.setattr(lesion.checks, "read_mask", refuse)
        assert check_samples(find_samples(root), record=record) == first


def test_record_does_not_hide_a_change(tmp_path):
    root, record = make_isic2018(tmp_path / "isic"), tmp_path / "checked.json"
    check_samples(find_samples(root), record=record)
    truncate(root / INPUT / "ISIC_0000001.jpg")
    assert ids(check_samples(find_samples(root), record=record)) == ["ISIC_0000002"]


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 0, "files": {}}'])
def test_damaged_record_is_made_anew(tmp_path, content):
    root, record = make_isic2018(tmp_path / "isic"), tmp_path / "checked.json"
    record.write_text(content)
    assert len(check_samples(find_samples(root), record=record).samples) == 2
    assert len(json.loads(record.read_text())["files"]) == 4


# === LesionDataset ===


@pytest.fixture(params=["cached", "uncached"])
def cache(request, tmp_path):
    return ImageCache(tmp_path / "cache", max_side=64) if request.param == "cached" else None


def test_dataset_gives_one_lesion(tmp_path, cache):
    found = find_samples(make_isic2018(tmp_path / "isic"))
    dataset = LesionDataset(found.samples, cache)
    dataset.prepare()
    assert dataset.class_names == ["BG", "lesion"]
    assert list(dataset.image_ids) == [0, 1]
    image = dataset.load_image(1)
    assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
    mask, class_ids = dataset.load_mask(1)
    assert (mask.shape, mask.dtype, mask.sum()) == ((48, 64, 1), bool, 400)
    assert class_ids.dtype == np.int32 and list(class_ids) == [1]
    assert dataset.image_reference(1) == str(found.samples[1].image)
    assert dataset.image_info[1]["id"] == "isic/ISIC_0000002"


def test_dataset_gives_no_instance_for_an_empty_mask(tmp_path, cache):
    make_plain(tmp_path / "plain")
    save_mask(tmp_path / "plain" / "masks" / "a.png", fill=0)
    dataset = LesionDataset(find_samples(tmp_path / "plain").samples, cache)
    mask, class_ids = dataset.load_mask(0)
    assert (mask.shape, mask.dtype) == ((48, 64, 0), bool)
    assert class_ids.shape == (0,)


def test_cached_dataset_reduces_image_and_mask_alike(tmp_path):
    make_plain(tmp_path / "plain")
    save_image(tmp_path / "plain" / "images" / "a.jpg", 99, 201)
    save_mask(tmp_path / "plain" / "masks" / "a.png", 99, 201)
    samples = find_samples(tmp_path / "plain").samples
    dataset = LesionDataset(samples, ImageCache(tmp_path / "cache", max_side=50))
    assert max(dataset.load_image(0).shape) == 50
    assert dataset.load_mask(0)[0].shape[:2] == dataset.load_image(0).shape[:2]


def test_a_mask_after_its_image_is_given_without_another_look_at_it(tmp_path):
    cache = ImageCache(tmp_path / "cache", max_side=50)
    dataset = LesionDataset(find_samples(make_plain(tmp_path / "plain")).samples, cache)
    dataset.load_image(0)
    cache.image = None
    assert max(dataset.load_mask(0)[0].shape) == 50


def test_dataset_refuses_a_sample_without_mask(tmp_path):
    sample = replace(find_samples(make_plain(tmp_path)).samples[0], mask=None)
    with pytest.raises(DatasetError, match="a.jpg has no mask"):
        LesionDataset([sample])


def test_dataset_names_a_mask_of_another_size(tmp_path):
    make_plain(tmp_path)
    save_mask(tmp_path / "masks" / "a.png", 64, 48)
    dataset = LesionDataset(find_samples(tmp_path).samples)
    with pytest.raises(DatasetError, match="a.png is 48 x 64 pixels, its image .*a.jpg 64 x 48"):
        dataset.load_mask(0)


# === Command line ===


def test_command_prints_what_it_finds(tmp_path, capsys):
    root = make_ham(tmp_path / "ham", HAM_ROWS)
    save_mask(root / "HAM10000_segmentations_lesion_tschandl/ISIC_0024307_segmentation.png", fill=0)
    arguments = ["--dataset", str(root), "--json", str(tmp_path / "out.json")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    fault = "ISIC_0024307_segmentation.png: empty mask"
    for text in ("ham10000", "NV 1", "64 x 48", fault, NOTICE):
        assert text in printed
    report = json.loads((tmp_path / "out.json").read_text())
    (summary,) = report["collections"]
    assert (summary["images"], summary["sound"], summary["left_out"]) == (2, 1, 1)
    assert (summary["diagnoses"], summary["lesions"]) == ({"NV": 1}, 1)
    assert main([*arguments, "--strict"]) == 1


def test_command_says_what_is_known_of_patients(tmp_path, capsys):
    root = make_ham(tmp_path / "ham", HAM_ROWS)
    assert main(["--dataset", str(root), "--task=diagnosis"]) == 0
    assert "Known of the patients of" in capsys.readouterr().out


def test_problems_of_one_table_are_not_all_printed(tmp_path):
    table = [Problem(tmp_path / "a.csv", f"line {number}") for number in range(30)]
    lines = said_of([*table, Problem(tmp_path / "M\udcfcller.jpg", "broken")])
    assert lines[:20] == [str(problem) for problem in table[:20]]
    assert lines[20].endswith("M\\udcfcller.jpg: broken")
    assert lines[21:] == [f"{tmp_path / 'a.csv'}: and 10 more such lines"]


def test_problems_of_many_files_are_one_line(tmp_path):
    many = [Problem(tmp_path / "masks" / f"{n}.png", "mask without its image") for n in range(30)]
    few = [Problem(tmp_path / "other" / f"{n}.png", "mask without its image") for n in range(2)]
    assert said_of([*many[:15], *few, *many[15:]]) == [
        f"{tmp_path / 'masks'}: 30 files, such as 0.png: mask without its image",
        *map(str, few),
    ]


def test_copies_are_found_in_all_data_sets(tmp_path, capsys):
    first, second = (make_plain(tmp_path / name) for name in ("first", "second"))
    arguments = [f"--dataset={first}", f"--dataset={second}", "--strict"]
    assert main(arguments) == 1
    assert "the same bytes as" in capsys.readouterr().out
    assert main(arguments[::2]) == 0


def test_table_whose_name_is_not_unicode(tmp_path, capsys):
    root = make_plain(tmp_path / "plain")
    (root / os.fsdecode(b"t\xfc.csv")).write_text("image,dx\na,nv\n")
    assert main([f"--dataset={root}"]) == 0
    assert "t\\udcfc.csv: read: image, dx" in capsys.readouterr().out


def test_images_that_are_not_read_are_named(tmp_path):
    root = make_plain(tmp_path / "plain")
    for name in ("x.HEIC", "y.heic", "z.dcm", ".hidden.heic", "notes.txt"):
        (root / "images" / name).touch()
    save_image(root / "images" / "2023" / "b.jpg")
    (problem,) = find_samples(root).problems
    assert problem.path == root / "images"
    assert problem.reason == "images that are not read: 2 .heic, 1 .dcm, 1 in folders inside"


def test_command_with_several_sound_data_sets(tmp_path, capsys):
    roots = [make_plain(tmp_path / "one"), make_isic2018(tmp_path / "two")]
    assert main(["--strict", *(a for root in roots for a in ("--dataset", str(root)))]) == 0
    assert "one: plain" in (printed := capsys.readouterr().out) and "two: isic2018" in printed


def test_command_explains_an_unknown_folder(tmp_path, capsys):
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "is no data set that is known here" in capsys.readouterr().err


def test_command_asks_for_a_file_before_it_looks_at_images(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--dataset", str(tmp_path / "none"), "--json", str(tmp_path)])
    assert stopped.value.code == 2
    assert "is a folder; name a file" in capsys.readouterr().err


def test_command_explains_what_it_may_not_read(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "images")

    monkeypatch.setattr(lesion.dataset, "find_collections", refuse)
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "Permission denied: 'images'" in capsys.readouterr().err


def test_folders_beside_that_may_not_be_listed(tmp_path, capsys, monkeypatch):
    (tmp_path / "locked").mkdir()
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "is no data set that is known here" in capsys.readouterr().err


def test_command_runs_as_a_script_without_a_framework(tmp_path):
    """Listing must not pay for the import of Keras."""
    program = (
        "import runpy, sys; sys.argv = [{0!r}, '--help']\n"
        "try: runpy.run_path({0!r}, run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'keras' not in sys.modules and 'tensorflow' not in sys.modules"
    ).format(str(REPOSITORY / "lesion" / "dataset.py"))
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "--dataset" in result.stdout


# === Real data ===


@pytest.fixture
def shared_data(shared):
    data = shared / "data"
    if not (data / "ham10000").is_dir() or not (data / "isic2018").is_dir():
        pytest.skip(f"the data sets are not in {data}")
    return data


def test_real_isic2018(shared_data):
    found = find_samples(shared_data / "isic2018")
    assert (found.layout, found.part, found.problems) == ("isic2018", "training", [])
    assert all(sample.mask and len(sample.attributes) == 5 for sample in found.samples)


def test_real_ham10000_all_white_masks(shared_data):
    found = find_samples(shared_data / "ham10000")
    assert (found.layout, found.problems) == ("ham10000", [])
    assert all(s.mask and s.lesion_id and s.diagnosis for s in found.samples)
    white = {"ISIC_0026042", "ISIC_0029819"}
    found.samples = [s for s in found.samples if s.image_id in white | {"ISIC_0024306"}]
    checked = check_samples(found)
    assert ids(checked) == ["ISIC_0024306"]
    assert {problem.reason for problem in checked.problems} == {"all-white mask"}


# === ISIC 2018 Task 3 ===

CATEGORIES = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
MELANOMA, NEVUS = "1.0,0.0,0.0,0.0,0.0,0.0,0.0", "0.0,1.0,0.0,0.0,0.0,0.0,0.0"


def make_task3(root: Path, rows=None, part="Training", header=CATEGORIES) -> Path:
    ids = {"Training": (24306, 24307), "Validation": (34321, 34322), "Test": (34524, 34525)}[part]
    names = [f"ISIC_{number:07d}" for number in ids]
    for name in names:
        save_image(root / f"ISIC2018_Task3_{part}_Input" / f"{name}.jpg")
    rows = rows or [f"{names[0]},{MELANOMA}", f"{names[1]},{NEVUS}"]
    folder = root / f"ISIC2018_Task3_{part}_GroundTruth"
    folder.mkdir(parents=True)
    (folder / "LICENSE.txt").write_text("CC-BY-NC")
    table = folder / f"ISIC2018_Task3_{part}_GroundTruth.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    if part == "Training":  # published for no other
        (root / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(GROUPINGS)
    return root


GROUPINGS = (
    "image,lesion_id,diagnosis_confirm_type\n"
    "ISIC_0024306,HAM_0000001,histopathology\n"
    "ISIC_0024307,HAM_0000002,serial imaging showing no change\n"
)


def test_task3_as_distributed(tmp_path):
    make_task3(tmp_path)
    found = find_samples(tmp_path)
    assert (found.layout, found.part, found.problems) == ("isic2018-task3", "training", [])
    first, second = found.samples
    assert (first.diagnosis, first.lesion_id, first.part) == ("MEL", "HAM_0000001", "training")
    assert first.metadata == {"confirmation": "histo"}
    assert (second.diagnosis, second.metadata) == ("NV", {"confirmation": "follow_up"})
    assert check_samples(found, "diagnosis").samples == found.samples


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (None, "2 of the images, such as ISIC_0024306"),
        (
            GROUPINGS.rpartition("ISIC")[0],
            "1 of the images, such as ISIC_0024307",
        ),
        (
            GROUPINGS.replace("HAM_0000001", ""),
            "1 of the images, such as ISIC_0024306",
        ),
    ],
)
def test_task3_without_all_groupings(tmp_path, table, reason):
    path = make_task3(tmp_path) / "ISIC2018_Task3_Training_LesionGroupings.csv"
    path.unlink() if table is None else path.write_text(table)
    (problem,) = find_samples(tmp_path).problems
    assert problem.reason.startswith(f"no LesionGroupings of {reason}:")
    assert "splits are by image" in problem.reason


def test_task3_parts(tmp_path):
    for part in ("Training", "Validation", "Test"):
        make_task3(tmp_path, part=part)
    assert [s.part for s in find_samples(tmp_path).samples] == [
        *(["training"] * 2),
        *(["validation"] * 2),
        *(["test"] * 2),
    ]
    assert ids(find_samples(tmp_path, part="test")) == ["ISIC_0034524", "ISIC_0034525"]
    assert find_samples(tmp_path, part="test").samples[0].lesion_id is None


def test_task3_table_beside_the_images(tmp_path):
    folder = make_task3(tmp_path) / "ISIC2018_Task3_Training_GroundTruth"
    (folder / f"{folder.name}.csv").rename(tmp_path / "table.csv")
    shutil.rmtree(folder)
    (tmp_path / "table.csv").rename(tmp_path / f"{folder.name}.csv")
    assert find_samples(tmp_path).samples[0].diagnosis == "MEL"


def test_task3_truth_in_the_form_of_ham10000_at_fault(tmp_path):
    make_task3(tmp_path)
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    path = tmp_path / "ISIC2018_Task3_Training_GroundTruth"
    rows = ["lesion_id,image_id,dx", "HAM_0000001,ISIC_0024306,mel", "HAM_0000001,ISIC_0024306,nv"]
    (path / f"{path.name}.csv").write_text("\n".join([*rows, "HAM_0000002,ISIC_0024307,nv"]) + "\n")
    found = find_samples(tmp_path)
    assert (ids(found), found.left_out) == (["ISIC_0024307"], 1)
    assert found.samples[0].lesion_id == "HAM_0000002"
    (problem,) = found.problems  # the lesions are known without groupings
    assert problem.reason.endswith("the image is left out")


@pytest.mark.parametrize("ending", ["csv", "tab"])
def test_task3_truth_in_the_form_of_ham10000(tmp_path, ending):
    """As Harvard's Dataverse has the test images'; the scorer leaves one of them out."""
    make_task3(tmp_path, part="Test")
    shutil.rmtree(tmp_path / "ISIC2018_Task3_Test_GroundTruth")
    (tmp_path / "ISIC2018_Task3_Test_Input").rename(tmp_path / "ISIC2018_Task3_Test_Images")
    save_image(tmp_path / "ISIC2018_Task3_Test_Images" / "ISIC_0035068.jpg")
    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number, name in enumerate(("0034524", "0034525", "0035068")):
        diagnosis = ("mel", "nv", "nv")[number]
        rows.append(f"HAMTEST_{number:07d},ISIC_{name},{diagnosis},histo,50,male,ear")
    text = "\n".join(rows) + "\n"
    text = text.replace(",", "\t") if ending == "tab" else text
    (tmp_path / f"ISIC2018_Task3_Test_GroundTruth.{ending}").write_text(text)
    found = find_samples(tmp_path)
    assert (found.layout, found.diagnoses_listed, found.problems) == ("isic2018-task3", 2, [])
    assert [sample.diagnosis for sample in found.samples] == ["MEL", "NV", None]
    first = found.samples[0]
    assert (first.lesion_id, first.part) == ("HAMTEST_0000000", "test")
    assert first.metadata == {"confirmation": "histo", "age": "50", "sex": "male", "site": "ear"}


def test_task3_row_without_an_image(tmp_path):
    rows = [f"ISIC_0024306,{MELANOMA}", f"ISIC_0024307,{NEVUS}", f"ISIC_0035069,{NEVUS}"]
    (problem,) = find_samples(make_task3(tmp_path, rows)).problems
    assert "ISIC_0035069" in problem.reason


def test_task3_image_without_a_row(tmp_path):
    found = find_samples(make_task3(tmp_path, [f"ISIC_0024306,{MELANOMA}"]))
    checked = check_samples(found, "diagnosis")
    assert ids(checked) == ["ISIC_0024306"]
    assert [p.reason for p in checked.problems] == ["image without a diagnosis"]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (CATEGORIES.replace("DF", "SCC"), None, "lacks the column df"),
        (f"{CATEGORIES},SCC", [f"ISIC_0024306,{MELANOMA},0.0"], "unknown column scc"),
        (CATEGORIES, [f"ISIC_0024306,{MELANOMA}"] * 2, "Line 3 .* lists ISIC_0024306 a second"),
        (CATEGORIES, ["ISIC_0024306,1,1,0,0,0,0,0"], "Line 2 .* exactly one category"),
        (CATEGORIES, ["ISIC_0024306,0,0,0,0,0,0,0"], "Line 2 .* exactly one category"),
        (CATEGORIES, ["ISIC_0024306,0.5,0.5,0,0,0,0,0"], "Line 2 .* exactly one category"),
        (CATEGORIES, ["ISIC_0024306,yes,0,0,0,0,0,0"], "Line 2 .*yes"),
        (CATEGORIES, ["ISIC_0024306,1.0"], "Line 2 .* has 2 values"),
        (f"{CATEGORIES},score_weight", [f"ISIC_0024306,{MELANOMA},0.5"], "Line 2 .*'0.5'"),
        (f"{CATEGORIES},score_weight", [f"ISIC_0024306,{MELANOMA},x"], "Line 2 .*'x'"),
    ],
)
def test_task3_table_at_fault(tmp_path, header, rows, message):
    make_task3(tmp_path, rows, header=header)
    with pytest.raises(DatasetError, match=message):
        find_samples(tmp_path)


def test_task3_weights_of_the_scorer_are_no_categories(tmp_path):
    rows = [f"ISIC_0024306,{MELANOMA},1.0", f"ISIC_0024307.jpg,{NEVUS},0.0"]
    found = find_samples(make_task3(tmp_path, rows, header=f"{CATEGORIES},score_weight"))
    assert [s.diagnosis for s in found.samples] == ["MEL", None]  # a weight of 0 is not scored


def test_task3_image_that_the_scorer_leaves_out(tmp_path):
    rows = [f"ISIC_0035068,{MELANOMA}", f"ISIC_0024307,{NEVUS}"]
    root = make_task3(tmp_path, rows)
    save_image(root / "ISIC2018_Task3_Training_Input" / "ISIC_0035068.jpg")
    known = {sample.image_id: sample.diagnosis for sample in find_samples(root).samples}
    assert known == {"ISIC_0024306": None, "ISIC_0024307": "NV", "ISIC_0035068": None}


def test_task_decides_between_the_challenges_tasks(tmp_path):
    make_task3(make_isic2018(tmp_path))
    assert find_samples(tmp_path, task="diagnosis").layout == "isic2018-task3"
    assert find_samples(tmp_path, task="boundary").layout == "isic2018"
    with pytest.raises(DatasetError, match="several data sets"):
        find_samples(tmp_path)


def test_diagnosis_needs_no_mask(tmp_path):
    root = make_ham(tmp_path / "ham", HAM_ROWS)
    shutil.rmtree(root / "HAM10000_segmentations_lesion_tschandl")
    assert len(check_samples(find_samples(root), "diagnosis").samples) == 2
    assert check_samples(find_samples(root), "boundary").samples == []


def test_data_set_without_diagnoses_is_one_problem(tmp_path):
    checked = check_samples(find_samples(make_isic2018(tmp_path)), "diagnosis")
    assert checked.samples == [] and checked.left_out == 2
    assert [p.reason for p in checked.problems] == ["2 images and no diagnosis for any of them"]


def test_command_checks_for_a_task(tmp_path, capsys):
    make_task3(tmp_path)
    assert main([f"--dataset={tmp_path}", "--task=diagnosis", "--strict"]) == 0
    assert "diagnoses   MEL 1, NV 1" in capsys.readouterr().out
    assert main([f"--dataset={tmp_path}", "--task=boundary", "--strict"]) == 1
