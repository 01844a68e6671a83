import base64
import io
import json
import logging
import math

import numpy as np
import pytest
from PIL import Image

from mrcnn import mask_folders as mask_folders_module
from mrcnn.images import write_image
from mrcnn.readers import CocoDataset, LabelmeDataset, MaskFolderDataset, ViaDataset

SIZE = (20, 30)  # height, width


def grid():
    """x and y of every pixel of an image."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return x, y


def box(x1, y1, x2, y2):
    """Mask of pixels from (x1, y1) to just before (x2, y2)."""
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, np.zeros((*SIZE, 3), np.uint8))
    return tmp_path


def test_coco_is_found_here_too():
    assert CocoDataset.__module__ == "mrcnn.coco"


POLYGON = {"name": "polygon", "all_points_x": [2, 8, 8, 2], "all_points_y": [3, 3, 6, 6]}
RECT = {"name": "rect", "x": 4, "y": 5, "width": 7, "height": 3}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def via_entry(name, *regions, version=2):
    regions = list(regions)
    if version == 1:
        regions = {str(number): r for number, r in enumerate(regions)}
    return {f"{name}123": {"filename": name, "size": 123, "regions": regions}}


@pytest.fixture
def load_via(folder):
    def load(content, **settings):
        (folder / "via.json").write_text(json.dumps(content))
        dataset = ViaDataset()
        dataset.load_annotations(folder / "via.json", **settings)
        return dataset

    return load


class TestVia:
    @pytest.mark.parametrize("version", [1, 2])
    def test_export(self, load_via, version):
        dataset = load_via(via_entry("a.png", region(POLYGON), region(RECT), version=version))
        masks, class_ids = dataset.load_mask(0)
        assert (masks.dtype, masks.shape) == (bool, (*SIZE, 2))
        assert (class_ids.dtype, class_ids.tolist()) == (np.int32, [1, 1])
        assert dataset.class_names == ["BG", "object"]
        assert dataset.image_reference(0).endswith("a.png")

    def test_nothing_is_drawn(self, load_via):
        entry = via_entry("a.png")
        with pytest.raises(ValueError, match="None of the 1 images of .* has a region"):
            load_via(entry)
        assert load_via(entry, keep_empty=True).num_images == 1

    def test_nothing_that_is_drawn_has_an_area(self, load_via, caplog):
        point = {"name": "point", "cx": 3, "cy": 4}
        entries = via_entry("a.png", region(point)) | via_entry("b.png", region(RECT))
        with caplog.at_level(logging.INFO, "mrcnn"):
            dataset = load_via(entries)
        assert [dataset.image_reference(0)[-5:]] == ["b.png"] and dataset.num_images == 1
        assert "1 images without regions that have an area are left out" in caplog.text
        assert load_via(entries, keep_empty=True).num_images == 2

    def test_project(self, load_via):
        content = {
            "_via_settings": {},
            "_via_img_metadata": via_entry("a.png", region(RECT)),
            "_via_attributes": {"region": {}, "file": {}},
        }
        assert load_via(content).load_mask(0)[1].tolist() == [1]

    def test_corners_of_polygons_are_pixel_centres(self, load_via):
        masks, _ = load_via(via_entry("a.png", region(POLYGON))).load_mask(0)
        np.testing.assert_array_equal(masks[:, :, 0], box(2, 3, 9, 7))

    def test_rectangles_have_their_width_and_height(self, load_via):
        masks, _ = load_via(via_entry("a.png", region(RECT))).load_mask(0)
        np.testing.assert_array_equal(masks[:, :, 0], box(4, 5, 11, 8))

    def test_halves_of_a_rectangles_pixels_keep_its_size(self, load_via):
        for first in (2, 3):
            shape = {"name": "rect", "x": first - 0.5, "y": first - 0.5, "width": 3, "height": 1}
            masks, _ = load_via(via_entry("a.png", region(shape))).load_mask(0)
            np.testing.assert_array_equal(masks[:, :, 0], box(first, first, first + 3, first + 1))

    def test_circle(self, load_via):
        shape = {"name": "circle", "cx": 12, "cy": 9, "r": 5.2}
        masks, _ = load_via(via_entry("a.png", region(shape))).load_mask(0)
        x, y = grid()
        np.testing.assert_array_equal(masks[:, :, 0], np.hypot(x - 12, y - 9) < 5.2)

    @pytest.mark.parametrize("theta", [None, 0.5, -1.2, 2.5])
    def test_ellipse_is_turned_clockwise(self, load_via, theta):
        shape = {"name": "ellipse", "cx": 14, "cy": 10, "rx": 9.3, "ry": 4.1}
        shape |= {} if theta is None else {"theta": theta}
        masks, _ = load_via(via_entry("a.png", region(shape))).load_mask(0)
        x, y = grid()
        angle = theta or 0
        # Along the axes, the first of which points to (cos, sin) with y down.
        along = (x - 14) * math.cos(angle) + (y - 10) * math.sin(angle)
        across = (y - 10) * math.cos(angle) - (x - 14) * math.sin(angle)
        expected = (along / 9.3) ** 2 + (across / 4.1) ** 2 < 1
        np.testing.assert_array_equal(masks[:, :, 0], expected)

    def test_what_reaches_beyond_the_image_is_cut_off(self, load_via):
        beyond = {"name": "rect", "x": 25, "y": -4, "width": 10, "height": 9}
        polygon = {
            "name": "polygon",
            "all_points_x": [-5, 3, 3, -5],
            "all_points_y": [9, 9, 40, 40],
        }
        masks, _ = load_via(via_entry("a.png", region(beyond), region(polygon))).load_mask(0)
        np.testing.assert_array_equal(masks[:, :, 0], box(25, 0, 30, 5))
        np.testing.assert_array_equal(masks[:, :, 1], box(0, 9, 4, 20))

    def test_classes_by_an_attribute(self, load_via):
        content = via_entry("a.png", region(RECT, kind="zebra"), region(RECT, kind=" ant "))
        content |= via_entry("b.png", region(RECT, kind={"bee": True, "ant": False}))
        dataset = load_via(content, class_attribute="kind")
        assert dataset.class_names == ["BG", "ant", "bee", "zebra"]
        assert dataset.load_mask(0)[1].tolist() == [3, 1]
        assert dataset.load_mask(1)[1].tolist() == [2]

    def test_classes_given_keep_their_order(self, load_via):
        content = via_entry("a.png", region(RECT, kind="ant"))
        dataset = load_via(content, class_attribute="kind", classes=["zebra", "ant"])
        assert dataset.class_names == ["BG", "zebra", "ant"]
        assert dataset.load_mask(0)[1].tolist() == [2]

    def test_the_one_class_may_have_a_name(self, load_via):
        dataset = load_via(via_entry("a.png", region(RECT)), classes=["balloon"])
        assert dataset.class_names == ["BG", "balloon"]

    def test_files_one_after_another(self, load_via, folder):
        dataset = load_via(via_entry("a.png", region(RECT, kind="b")), class_attribute="kind")
        (folder / "more.json").write_text(
            json.dumps(via_entry("b.png", region(RECT, kind="a"), region(RECT, kind="b")))
        )
        dataset.load_annotations(folder / "more.json", class_attribute="kind")
        assert dataset.class_names == ["BG", "b", "a"]
        assert dataset.load_mask(1)[1].tolist() == [2, 1]

    def test_images_without_regions_are_taken_for_unfinished(self, load_via):
        content = via_entry("a.png") | via_entry("b.png", region(RECT))
        dataset = load_via(content)
        assert [info["id"] for info in dataset.image_info] == ["b.png"]
        dataset = load_via(content, keep_empty=True)
        assert dataset.num_images == 2
        assert dataset.load_mask(0)[0].shape == (*SIZE, 0)

    def test_regions_without_area_are_counted(self, load_via, caplog):
        flat = {"name": "circle", "cx": 5, "cy": 5, "r": 0}
        line = POLYGON | {"all_points_y": [3, 3, 3, 3]}
        with caplog.at_level(logging.WARNING, "mrcnn"):
            dataset = load_via(via_entry("a.png", region(flat), region(RECT), region(line)))
        assert dataset.load_mask(0)[1].tolist() == [1]
        assert "2 instances have no area and are left out" in caplog.text
        assert "via.json: region 0 of a.png" in caplog.text

    @pytest.mark.parametrize(
        "stray",
        [
            {"name": "point", "cx": 5, "cy": 5},
            {"name": "polyline", "all_points_x": [2, 8, 9], "all_points_y": [3, 4, 9]},
            POLYGON | {"all_points_x": [2, 8], "all_points_y": [3, 5]},
            POLYGON | {"all_points_x": [], "all_points_y": []},
        ],
    )
    def test_strokes_that_are_no_instances_are_left_out(self, load_via, caplog, stray):
        content = via_entry("a.png", region(stray, kind="ant"), region(RECT, kind="ant"))
        with caplog.at_level(logging.WARNING, "mrcnn"):
            dataset = load_via(content, class_attribute="kind")
        assert dataset.load_mask(0)[1].tolist() == [1]
        assert "1 instances have no area and are left out" in caplog.text
        assert "via.json: region 0 of a.png" in caplog.text

    def test_region_outside_the_image_is_warned_of_once(self, load_via, caplog):
        outside = RECT | {"x": 50}
        dataset = load_via(via_entry("a.png", region(outside), region(RECT)))
        with caplog.at_level(logging.WARNING, "mrcnn"):
            for _ in range(2):
                assert dataset.load_mask(0)[0].shape == (*SIZE, 1)
        assert caplog.text.count("1 instances have no pixel and are left out") == 1

    def test_images_elsewhere(self, load_via, folder):
        write_image(folder / "images" / "c.png", np.zeros(SIZE, np.uint8))
        dataset = load_via(via_entry("c.png", region(RECT)), images=folder / "images")
        assert dataset.load_image(0).shape == (*SIZE, 3)

    @pytest.mark.parametrize(
        "shape, message",
        [
            (POLYGON | {"all_points_x": [2, 8, 4]}, "no lists of one length"),
            (POLYGON | {"all_points_x": [2, 8, 4, None]}, "unusable points"),
            ({"name": "rect", "x": 1, "y": 2, "width": 3}, "needs the numbers x, y, width, height"),
            ({"name": "circle", "cx": 1, "cy": 2, "r": float("inf")}, "no places in an image"),
            ({"name": "circle", "cx": 1, "cy": 2**63, "r": 7e4}, "no places in an image"),
            ({"name": "cube"}, "'cube'; an instance must be a polygon, rect"),
            (None, "of shape None"),
        ],
    )
    def test_unusable_region(self, load_via, shape, message):
        content = via_entry("a.png", region(RECT), region(shape))
        with pytest.raises(ValueError, match=f"via.json: region 1 of a.png .*{message}"):
            load_via(content)

    @pytest.mark.parametrize("kind", [None, "", {"a": True, "b": True}, {}])
    def test_region_without_a_single_class(self, load_via, kind):
        with pytest.raises(ValueError, match="region 0 of a.png has no single class .*'kind'"):
            load_via(via_entry("a.png", region(RECT, kind=kind)), class_attribute="kind")

    def test_class_that_was_not_given(self, load_via):
        with pytest.raises(ValueError, match="via.json has an .*'ant', but .* are zebra, bee"):
            load_via(
                via_entry("a.png", region(RECT, kind="ant")),
                class_attribute="kind",
                classes=["zebra", "bee"],
            )

    def test_several_classes_without_an_attribute_that_tells_them(self, load_via):
        with pytest.raises(ValueError, match="region 0 .* ant, bee: give class_attribute.*'kind'"):
            load_via(via_entry("a.png", region(RECT, kind="ant")), classes=["ant", "bee"])
        empty = load_via(via_entry("a.png"), classes=["ant", "bee"], keep_empty=True)
        assert empty.num_images == 1

    def test_classes_given_as_text(self, load_via):
        with pytest.raises(ValueError, match="list of names; received the text 'balloon'"):
            load_via(via_entry("a.png", region(RECT)), classes="balloon")

    def test_regions_that_are_none(self, load_via):
        with pytest.raises(ValueError, match="via.json: the regions of entry 'a' are 3"):
            load_via({"a": {"filename": "a.png", "regions": 3}})

    def test_missing_image(self, load_via):
        with pytest.raises(FileNotFoundError, match="via.json names the image .*gone.png"):
            load_via(via_entry("gone.png", region(RECT)))
        with pytest.raises(FileNotFoundError, match="via.json names the image"):
            load_via(via_entry("a" * 1000, region(RECT)))

    def test_unreadable_image(self, load_via, folder):
        (folder / "a.png").write_bytes(b"")
        with pytest.raises(ValueError, match="a.png"):
            load_via(via_entry("a.png", region(RECT)))

    @pytest.mark.parametrize("content", [[], {"a": {}}, {"project": 3}, "text"])
    def test_other_json(self, load_via, content):
        with pytest.raises(ValueError, match="via.json.*VIA 1.x or 2.x"):
            load_via(content)

    def test_cut_short(self, folder):
        (folder / "via.json").write_text('{"a.png123": {"filename": ')
        with pytest.raises(ValueError, match="via.json is no valid JSON"):
            ViaDataset().load_annotations(folder / "via.json")


def shape(label, kind, *points, group=None):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}


@pytest.fixture
def load_labelme(folder):
    def load(*shapes, **changes):
        settings = changes.pop("settings", {})
        content = {
            "version": "5.4.1",
            "shapes": shapes,
            "imagePath": "a.png",
            "imageData": None,
            "imageHeight": SIZE[0],
            "imageWidth": SIZE[1],
        }
        (folder / "a.json").write_text(json.dumps(content | changes))
        dataset = LabelmeDataset()
        dataset.load_annotations(folder, **settings)
        return dataset

    return load


class TestLabelme:
    def test_shapes_and_classes(self, load_labelme):
        dataset = load_labelme(
            shape("dog", "polygon", [2, 3], [8, 3], [8, 6], [2, 6]),
            shape("cat", "rectangle", [12.4, 9], [4, 5.2]),
            shape("cat", "circle", [15, 10], [18, 14]),
        )
        assert dataset.class_names == ["BG", "cat", "dog"]
        masks, class_ids = dataset.load_mask(0)
        assert (masks.dtype, class_ids.dtype) == (bool, np.int32)
        assert class_ids.tolist() == [2, 1, 1]
        np.testing.assert_array_equal(masks[:, :, 0], box(2, 3, 9, 7))
        np.testing.assert_array_equal(masks[:, :, 1], box(4, 5, 12, 9))
        x, y = grid()
        np.testing.assert_array_equal(masks[:, :, 2], np.hypot(x - 15, y - 10) < 5)

    def test_old_files_know_polygons_alone(self, load_labelme):
        old = shape("dog", "polygon", [2, 3], [8, 3], [8, 6])
        del old["shape_type"], old["group_id"]
        assert load_labelme(old).load_mask(0)[1].tolist() == [1]

    def test_shapes_of_a_group_are_one_instance(self, load_labelme):
        dataset = load_labelme(
            shape("dog", "rectangle", [0, 0], [3, 3], group=1),
            shape("cat", "rectangle", [5, 5], [9, 9], group=1),
            shape("dog", "rectangle", [10, 10], [13, 13], group=1),
            shape("dog", "rectangle", [20, 10], [23, 13]),
        )
        masks, class_ids = dataset.load_mask(0)
        assert class_ids.tolist() == [2, 1, 2]
        np.testing.assert_array_equal(masks[:, :, 0], box(0, 0, 3, 3) | box(10, 10, 13, 13))

    def test_file_without_shapes_is_an_image_that_shows_nothing(self, load_labelme):
        dataset = load_labelme(settings={"classes": ["dog"]})
        assert dataset.class_names == ["BG", "dog"]
        assert dataset.load_mask(0)[0].shape == (*SIZE, 0)

    def test_image_in_another_folder(self, load_labelme, folder):
        write_image(folder.parent / "pictures" / "a.png", np.zeros(SIZE, np.uint8))
        dataset = load_labelme(imagePath="..\\pictures\\a.png")
        assert dataset.load_image(0).shape == (*SIZE, 3)

    def test_shapes_without_area_are_counted(self, load_labelme, caplog):
        with caplog.at_level(logging.WARNING, "mrcnn"):
            dataset = load_labelme(
                shape("dog", "circle", [5, 5], [5, 5]), shape("dog", "polygon", [2, 3], [8, 5])
            )
        assert dataset.load_mask(0)[0].shape == (*SIZE, 0)
        assert "2 instances have no area" in caplog.text
        assert "a.json: shape 0" in caplog.text

    @pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
    def test_what_is_no_instance_is_left_out(self, load_labelme, caplog, kind):
        dataset = load_labelme(
            shape("hair", kind, [2, 3], [8, 3]), shape("dog", "rectangle", [0, 0], [3, 3])
        )
        assert dataset.load_mask(0)[1].tolist() == [1]
        assert "a.json: shape 0" in caplog.text

    @pytest.mark.parametrize("left, top", [(4, 5), (-1, -2), (28, 17)])
    def test_masks(self, load_labelme, left, top):
        """As labelme's tools for masks store them: the pixels of a box as a PNG."""
        pixels = np.eye(3, 4, dtype=bool)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        entry = shape("dog", "mask", [left, top], [left + 3, top + 2])
        entry["mask"] = base64.b64encode(file.getvalue()).decode()
        expected = np.zeros((SIZE[0] + 8, SIZE[1] + 8), bool)
        expected[top + 4 : top + 7, left + 4 : left + 8] = pixels
        masks, class_ids = load_labelme(entry).load_mask(0)
        assert class_ids.tolist() == [1]
        np.testing.assert_array_equal(masks[:, :, 0], expected[4:-4, 4:-4])

    @pytest.mark.parametrize(
        "entry, message",
        [
            (shape("dog", "cube", [2, 3], [8, 3]), r"shape 0 \(dog\) is of shape 'cube'"),
            (shape("dog", "mask", [2, 3], [8, 3]), "mask that is no PNG"),
            ({**shape("dog", "mask", [2, 3], [8, 3]), "mask": "AAAA"}, "mask that is no PNG"),
            (shape("dog", "circle", [2, 3]), "1 points; it needs at least 2"),
            (shape("dog", "polygon", [2, 3], [8], [1, 2]), "unusable points"),
            (shape("", "polygon", [2, 3], [8, 3], [8, 6]), "shape 0 has no label"),
            (None, "shape 0 has no label"),
        ],
    )
    def test_unusable_shape(self, load_labelme, entry, message):
        with pytest.raises(ValueError, match=f"a.json: .*{message}"):
            load_labelme(entry)

    def test_image_of_another_size(self, load_labelme):
        with pytest.raises(ValueError, match="a.json was drawn on .* 40x30, but .*a.png is 20x30"):
            load_labelme(imageHeight=40)

    def test_missing_image(self, load_labelme):
        with pytest.raises(FileNotFoundError, match="a.json names the image .*gone.png"):
            load_labelme(imagePath="gone.png")

    def test_other_json(self, load_labelme):
        with pytest.raises(ValueError, match="a.json is no labelme file"):
            load_labelme(imagePath=None)

    def test_cut_short(self, folder):
        (folder / "a.json").write_text('{"shapes": [')
        with pytest.raises(ValueError, match="a.json is no valid JSON"):
            LabelmeDataset().load_annotations(folder)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no labelme file"):
            LabelmeDataset().load_annotations(tmp_path)


@pytest.fixture
def mask_folders(tmp_path):
    """Images a and b with two masks and none."""
    for name in ("a.jpg", "b.png"):
        write_image(tmp_path / "images" / name, np.zeros((*SIZE, 3), np.uint8))
    write_image(tmp_path / "masks" / "a" / "1.png", box(2, 3, 9, 7))
    write_image(tmp_path / "masks" / "a" / "2.png", box(12, 3, 19, 7).astype(np.uint8))
    (tmp_path / "masks" / "b").mkdir()
    return tmp_path


@pytest.fixture
def load_folders(mask_folders):
    def load(**settings):
        dataset = MaskFolderDataset()
        dataset.load_folders(mask_folders / "images", mask_folders / "masks", **settings)
        return dataset

    return load


class TestMaskFolders:
    def test_one_class(self, load_folders):
        dataset = load_folders()
        assert dataset.class_names == ["BG", "object"]
        masks, class_ids = dataset.load_mask(0)
        assert (masks.dtype, class_ids.dtype, class_ids.tolist()) == (bool, np.int32, [1, 1])
        np.testing.assert_array_equal(masks[:, :, 0], box(2, 3, 9, 7))
        np.testing.assert_array_equal(masks[:, :, 1], box(12, 3, 19, 7))

    def test_empty_folder_shows_nothing(self, load_folders):
        assert load_folders(classes=["cell"]).load_mask(1)[0].shape == (*SIZE, 0)

    def test_class_by_folder(self, load_folders, mask_folders):
        for name, mask in (("yeast", box(0, 0, 4, 4)), ("alga", box(5, 5, 9, 9))):
            write_image(mask_folders / "masks" / "b" / name / "1.png", mask)
            (mask_folders / "masks" / "a" / name).mkdir()
        for name in ("1.png", "2.png"):
            (mask_folders / "masks" / "a" / name).rename(
                mask_folders / "masks" / "a" / "yeast" / name
            )
        dataset = load_folders()
        assert dataset.class_names == ["BG", "alga", "yeast"]
        assert dataset.load_mask(0)[1].tolist() == [2, 2]
        masks, class_ids = dataset.load_mask(1)
        assert class_ids.tolist() == [1, 2]
        np.testing.assert_array_equal(masks[:, :, 0], box(5, 5, 9, 9))

    def test_nucleus(self, tmp_path):
        for name in ("00ae", "01b2"):
            write_image(tmp_path / name / "images" / f"{name}.png", np.zeros(SIZE, np.uint8))
            write_image(tmp_path / name / "masks" / "x.png", box(2, 3, 9, 7))
        (tmp_path / "README.txt").touch()
        dataset = MaskFolderDataset()
        dataset.load_nucleus(tmp_path, classes=["nucleus"])
        assert dataset.class_names == ["BG", "nucleus"]
        assert [info["id"] for info in dataset.image_info] == ["00ae.png", "01b2.png"]
        np.testing.assert_array_equal(dataset.load_mask(1)[0][:, :, 0], box(2, 3, 9, 7))

    def test_black_mask_is_warned_of_once(self, load_folders, mask_folders, caplog):
        write_image(mask_folders / "masks" / "a" / "3.png", np.zeros(SIZE, bool))
        dataset = load_folders()
        with caplog.at_level(logging.WARNING, "mrcnn"):
            for _ in range(2):
                assert dataset.load_mask(0)[0].shape == (*SIZE, 2)
        assert caplog.text.count("a.jpg: 1 instances have no pixel") == 1

    def test_black_masks_met_by_two_threads_at_once(self, load_folders, mask_folders, monkeypatch):
        for name in ("0.png", "3.png"):
            write_image(mask_folders / "masks" / "a" / name, np.zeros(SIZE, bool))
        dataset, sound, others = load_folders(), MaskFolderDataset.instance_mask, []

        def instance_mask(self, info, *content):
            if not others:  # the other thread does all of its work before this one goes on
                others.append(None)
                others[0] = self.load_mask(0)
            return sound(self, info, *content)

        monkeypatch.setattr(MaskFolderDataset, "instance_mask", instance_mask)
        for masks, class_ids in (dataset.load_mask(0), *others, dataset.load_mask(0)):
            assert class_ids.tolist() == [1, 1]
            np.testing.assert_array_equal(masks[:, :, 0], box(2, 3, 9, 7))
            np.testing.assert_array_equal(masks[:, :, 1], box(12, 3, 19, 7))

    def test_one_file_for_an_image(self, load_folders, mask_folders):
        (mask_folders / "masks" / "b").rmdir()
        write_image(mask_folders / "masks" / "b.png", box(1, 2, 5, 6))
        masks, class_ids = load_folders(classes=["cell"]).load_mask(1)
        assert class_ids.tolist() == [1]
        np.testing.assert_array_equal(masks[:, :, 0], box(1, 2, 5, 6))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, "palette"])
    def test_label_image(self, load_folders, mask_folders, dtype):
        (mask_folders / "masks" / "b").rmdir()
        high = 9 if dtype in (np.uint8, "palette") else 4000
        labels = 3 * box(1, 2, 5, 6) + high * box(10, 2, 15, 6)
        image = Image.fromarray(labels.astype(np.uint8 if dtype == "palette" else dtype))
        if dtype == "palette":
            image.putpalette(range(256))
        image.save(mask_folders / "masks" / ("b.tif" if dtype is np.int32 else "b.png"))
        masks, class_ids = load_folders(labels=True).load_mask(1)
        assert (masks.dtype, class_ids.tolist()) == (bool, [1, 1])
        np.testing.assert_array_equal(masks[:, :, 0], box(1, 2, 5, 6))
        np.testing.assert_array_equal(masks[:, :, 1], box(10, 2, 15, 6))

    def test_label_image_is_read_once_for_all_its_instances(
        self, load_folders, mask_folders, monkeypatch
    ):
        (mask_folders / "masks" / "b").rmdir()
        labels = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 7
        Image.fromarray(labels.astype(np.uint8)).save(mask_folders / "masks" / "b.png")
        dataset, read = load_folders(labels=True), []
        read_labels = mask_folders_module.read_labels
        monkeypatch.setattr(
            mask_folders_module, "read_labels", lambda file: read.append(file) or read_labels(file)
        )
        assert dataset.load_mask(1)[0].shape == (*SIZE, 6)
        assert len(read) == 1

    @pytest.fixture
    def semantic(self, mask_folders):
        """Writes the label image of b; a shows nothing."""

        def write(labels):
            Image.fromarray(labels.astype(np.uint8)).save(mask_folders / "masks" / "b.png")

        (mask_folders / "masks" / "b").rmdir()
        for name in ("1.png", "2.png"):
            (mask_folders / "masks" / "a" / name).unlink()
        return write

    def test_label_image_of_classes(self, load_folders, semantic):
        ants, bee = box(1, 2, 5, 6) | box(5, 6, 8, 9), box(8, 6, 12, 9)
        labels = 1 * (ants | box(20, 2, 25, 6)) + 2 * bee + 255 * box(12, 6, 14, 9)
        semantic(labels)
        dataset = load_folders(labels="classes", classes=["ant", "bee", "cow"])
        assert dataset.class_names == ["BG", "ant", "bee", "cow"]
        masks, class_ids = dataset.load_mask(1)
        found = {class_id: [] for class_id in class_ids.tolist()}
        for place, class_id in enumerate(class_ids.tolist()):
            found[class_id].append(masks[:, :, place])
        # Two that touch at a corner are one; of another class they are apart.
        np.testing.assert_array_equal(found[1], [ants, box(20, 2, 25, 6)])
        np.testing.assert_array_equal(found[2], [bee])

    def test_label_image_of_a_class_without_a_name(self, load_folders, semantic):
        semantic(3 * box(1, 2, 5, 6))
        with pytest.raises(ValueError, match="b.png holds the number 3, .* 2 classes: ant, bee"):
            load_folders(labels="classes", classes=["ant", "bee"])

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"labels": "classes"}, "the classes that|classes=None"),
            ({"labels": "classes", "classes": ["a"] * 255}, "the 254 or fewer classes"),
            ({"labels": "instances"}, "must be False, True or .*received 'instances'"),
        ],
    )
    def test_labels_asked_for_wrongly(self, load_folders, settings, message):
        with pytest.raises(ValueError, match=message):
            load_folders(**settings)

    def test_an_image_is_not_its_own_mask(self, mask_folders):
        images = mask_folders / "images"
        dataset = MaskFolderDataset()
        with pytest.raises(FileNotFoundError, match="has no folder of masks"):
            dataset.load_folders(images, images)

    def test_colours_are_no_labels(self, load_folders, mask_folders):
        (mask_folders / "masks" / "b").rmdir()
        write_image(mask_folders / "masks" / "b.png", np.zeros((*SIZE, 3), np.uint8))
        with pytest.raises(ValueError, match="b.png: this is no label image.*one whole number"):
            load_folders(labels=True)

    def test_damaged_label_image(self, load_folders, mask_folders):
        (mask_folders / "masks" / "b").rmdir()
        (mask_folders / "masks" / "b.png").write_bytes(b"nothing")
        with pytest.raises(ValueError, match="b.png: this is not an image in a format"):
            load_folders(labels=True)

    def test_label_image_that_would_be_run_as_a_program(self, load_folders, mask_folders):
        (mask_folders / "masks" / "b").rmdir()
        Image.new("L", SIZE[::-1]).save(mask_folders / "masks" / "b.png", format="EPS")
        with pytest.raises(ValueError, match="b.png: this is not an image in a format"):
            load_folders(labels=True)

    def test_label_image_that_lies_on_its_side(self, load_folders, mask_folders):
        """Turned upright, as its image is, by EXIF."""
        (mask_folders / "masks" / "b").rmdir()
        image = Image.fromarray(box(1, 2, 5, 6).astype(np.uint8)).transpose(Image.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn clockwise
        image.save(mask_folders / "masks" / "b.png", exif=exif)
        masks, _ = load_folders(labels=True).load_mask(1)
        np.testing.assert_array_equal(masks[:, :, 0], box(1, 2, 5, 6))

    @pytest.mark.parametrize("names", [[], ["b.png", "b.jpg"]], ids=["none", "two"])
    def test_neither_a_folder_nor_one_file(self, load_folders, mask_folders, names):
        (mask_folders / "masks" / "b").rmdir()
        for name in names:
            write_image(mask_folders / "masks" / name, box(1, 2, 5, 6))
        message = f"b.png has no folder .*, and {'2 files' if names else 'no file'} of that name"
        with pytest.raises(FileNotFoundError, match=message):
            load_folders()

    @pytest.mark.parametrize("name", [".ipynb_checkpoints", ".hidden"])
    def test_hidden_folders_are_no_classes(self, load_folders, mask_folders, name):
        for place in ("a", "b"):
            write_image(mask_folders / "masks" / place / name / "1.png", box(0, 0, 4, 4))
        dataset = load_folders()
        assert dataset.class_names == ["BG", "object"]
        assert [len(dataset.load_mask(image)[1]) for image in (0, 1)] == [2, 0]

    def test_mask_of_another_size(self, load_folders, mask_folders):
        write_image(mask_folders / "masks" / "a" / "1.png", np.ones((20, 29), bool))
        dataset = load_folders()
        with pytest.raises(ValueError, match="1.png is 20x29, but its image .*a.jpg is 20x30"):
            dataset.load_mask(0)

    def test_mask_that_is_no_image(self, load_folders, mask_folders):
        (mask_folders / "masks" / "a" / "1.png").write_bytes(b"nothing")
        with pytest.raises(ValueError, match="1.png"):
            load_folders().load_mask(0)

    def test_no_folder_for_an_image(self, load_folders, mask_folders):
        (mask_folders / "masks" / "b").rmdir()
        with pytest.raises(FileNotFoundError, match="b.png has no folder of masks .*masks/b"):
            load_folders()

    def test_masks_beside_classes(self, load_folders, mask_folders):
        (mask_folders / "masks" / "a" / "cell").mkdir()
        with pytest.raises(ValueError, match=r"masks/a holds masks beside .*\(cell\)"):
            load_folders()

    def test_images_of_one_name(self, load_folders, mask_folders):
        write_image(mask_folders / "images" / "a.png", np.zeros(SIZE, np.uint8))
        with pytest.raises(ValueError, match="several images named a for one"):
            load_folders()

    def test_class_that_was_not_given(self, load_folders):
        with pytest.raises(ValueError, match="a.jpg has an .*'object', but .* are alga, yeast"):
            load_folders(classes=["alga", "yeast"])

    def test_no_images(self, tmp_path):
        dataset = MaskFolderDataset()
        with pytest.raises(FileNotFoundError, match="no folder"):
            dataset.load_folders(tmp_path / "images", tmp_path)
        with pytest.raises(FileNotFoundError, match="no image in"):
            dataset.load_folders(tmp_path, tmp_path)
        with pytest.raises(FileNotFoundError, match="no <id>/images in"):
            dataset.load_nucleus(tmp_path)

    def test_two_images_of_one_id(self, tmp_path):
        for name in ("x.png", "y.png"):
            write_image(tmp_path / "00ae" / "images" / name, np.zeros(SIZE, np.uint8))
        with pytest.raises(ValueError, match="00ae/images holds 2 images; expected one"):
            MaskFolderDataset().load_nucleus(tmp_path)
