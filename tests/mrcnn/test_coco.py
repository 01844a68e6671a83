import json
import logging
import sys

import numpy as np
import pytest

import mrcnn.images
from mrcnn.coco import CocoDataset, read_json
from mrcnn.images import write_image

SIZE = (10, 12)  # height, width
COMPRESSED = "`03700000P2"  # rows 6 to 8 of columns 1 to 4, as COCO's own encoder writes it


def rectangle(x1, y1, x2, y2):
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def run_lengths(mask):
    """COCO's uncompressed RLE: column by column, zeros first."""
    flat = np.asarray(mask, np.uint8).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + counts}


def annotation(number, image_id, category_id, segmentation, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "iscrowd": 0,
        **more,
    }


@pytest.fixture
def crowd():
    mask = np.zeros(SIZE, bool)
    mask[6:9, 1:5] = True
    return mask


@pytest.fixture
def content(crowd):
    """Three images, the last without annotations; category ids with a gap."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 10, "width": 12},
            {"id": 42, "file_name": "b.png", "height": 10, "width": 12},
            {"id": 5, "file_name": "c.png", "height": 10, "width": 12},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
        "annotations": [
            annotation(1, 42, 3, [rectangle(2, 1, 6, 4)], bbox=[2.0, 1.0, 3.9, 2.9], area=11.5),
            annotation(2, 42, 90, run_lengths(crowd), iscrowd=1),
            annotation(
                3, 7, 90, [rectangle(0, 0, 2, 2), rectangle(8, 5, 12, 10)]
            ),  # an object in two parts
        ],
    }


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / name, np.zeros((*SIZE, 3), np.uint8))
    return tmp_path


@pytest.fixture
def load(folder, content):
    """Loads the content, changed or not, from a file."""

    def load(dataset=None, **settings):
        (folder / "instances.json").write_text(json.dumps(content))
        dataset = dataset or CocoDataset()
        dataset.load_annotations(folder / "instances.json", folder, **settings)
        return dataset

    return load


class TestNumbers:
    def test_categories_are_numbered_by_rising_id(self, load):
        dataset = load()
        assert dataset.class_names == ["BG", "car", "toothbrush"]
        assert dataset.map_source_class_id("coco.90") == 2

    def test_images_keep_their_order(self, load):
        dataset = load()
        assert [info["id"] for info in dataset.image_info] == [7, 42, 5]
        np.testing.assert_array_equal(dataset.image_ids, [0, 1, 2])
        assert dataset.image_reference(1).endswith("b.png")

    def test_separators_of_windows(self, folder, load, content):
        (folder / "sub").mkdir()
        (folder / "a.png").rename(folder / "sub" / "a.png")
        content["images"][0]["file_name"] = "sub\\a.png"
        assert load().load_image(0).shape == (*SIZE, 3)

    def test_choice_of_classes(self, load):
        dataset = load(class_ids=[3])
        assert dataset.class_names == ["BG", "car"]
        assert [info["id"] for info in dataset.image_info] == [42]
        assert dataset.load_mask(0)[1].tolist() == [1]

    @pytest.mark.parametrize("kind", [np.array, iter, tuple])
    def test_choice_may_be_an_array_or_an_iterator(self, load, kind):
        dataset = load(class_ids=kind([90, 3]))
        assert dataset.class_names == ["BG", "toothbrush", "car"]
        assert dataset.num_images == load(class_ids=[90, 3]).num_images > 0

    def test_choice_decides_the_order(self, load):
        assert load(class_ids=[90, 3]).class_names == ["BG", "toothbrush", "car"]

    def test_two_files_of_one_source(self, load, content):
        dataset = load()
        for image in content["images"]:
            image["id"] += 100
        content["annotations"] = []
        load(dataset)
        assert (dataset.num_images, dataset.num_classes) == (6, 3)

    def test_two_sources(self, load):
        dataset = load(load(), source="mine")
        assert dataset.class_names == ["BG", "car", "toothbrush", "car", "toothbrush"]
        assert dataset.load_mask(4)[1].tolist() == [3, -4]

    def test_other_names_under_one_source_are_refused(self, load, content):
        dataset = load()
        content["categories"][1]["name"] = "bus"
        with pytest.raises(ValueError, match="category 3 'bus'.*called 'car'"):
            load(dataset)


class TestMasks:
    def test_polygon(self, load):
        masks, class_ids = load().load_mask(1)
        expected = np.zeros(SIZE, bool)
        expected[1:4, 2:6] = True
        assert (masks.dtype, class_ids.dtype) == (bool, np.int32)
        np.testing.assert_array_equal(masks[:, :, 0], expected)

    def test_crowd_has_a_negative_class(self, load, crowd):
        masks, class_ids = load().load_mask(1)
        assert class_ids.tolist() == [1, -2]
        np.testing.assert_array_equal(masks[:, :, 1], crowd)

    def test_parts_of_one_object(self, load):
        masks, class_ids = load().load_mask(0)
        expected = np.zeros(SIZE, bool)
        expected[:2, :2] = True
        expected[5:, 8:] = True
        assert class_ids.tolist() == [2]
        np.testing.assert_array_equal(masks[:, :, 0], expected)

    def test_image_without_annotations(self, load):
        masks, class_ids = load().load_mask(2)
        assert (masks.shape, class_ids.shape) == ((10, 12, 0), (0,))

    def test_compressed_run_lengths(self, load, content, crowd):
        content["annotations"][1]["segmentation"] = {"size": [10, 12], "counts": COMPRESSED}
        np.testing.assert_array_equal(load().load_mask(1)[0][:, :, 1], crowd)

    def test_polygons_are_cocos_pixel_for_pixel(self, load, content):
        oracle = pytest.importorskip("pycocotools.mask")
        rng = np.random.default_rng(0)
        polygons = [
            (rng.uniform(-3, 15, size=2 * rng.integers(3, 9))).round(2).tolist() for _ in range(40)
        ]
        content["annotations"] = [
            annotation(number, 7, 3, [polygon]) for number, polygon in enumerate(polygons, 1)
        ]
        dataset = load()
        for found in dataset.coco_annotations(0):
            expected = oracle.merge(oracle.frPyObjects([polygons[found["id"] - 1]], *SIZE))
            np.testing.assert_array_equal(
                oracle.decode({"size": list(SIZE), "counts": found["segmentation"]["counts"]}),
                oracle.decode(expected),
            )

    def test_what_has_no_area_is_left_out_and_counted(self, load, content, caplog):
        content["annotations"] += [
            annotation(8, 5, 3, [[1, 1, 5, 1, 9, 1]]),
            annotation(9, 5, 3, run_lengths(np.zeros(SIZE))),
        ]
        with caplog.at_level(logging.WARNING, "mrcnn"):
            dataset = load()
        assert dataset.load_mask(2)[0].shape == (10, 12, 0)
        assert "2 annotations have no area and are left out" in caplog.text
        assert "instances.json: annotation 8" in caplog.text

    @pytest.mark.parametrize("segmentation", [[], None])
    def test_boxes_beside_masks_are_left_out_and_counted(self, load, content, caplog, segmentation):
        content["annotations"] += [annotation(n, 5, 3, segmentation) for n in (8, 9)]
        with caplog.at_level(logging.WARNING, "mrcnn"):
            dataset = load()
        assert [len(dataset.load_mask(i)[1]) for i in range(3)] == [1, 2, 0]
        assert "2 annotations have no segmentation and are left out" in caplog.text
        assert "instances.json: annotation 8" in caplog.text

    def test_boxes_alone_are_refused(self, load, content):
        for entry in content["annotations"]:
            entry["segmentation"] = []
        with pytest.raises(ValueError, match="none of the 3 annotations has a segmentation"):
            load()

    @pytest.mark.parametrize("short", [[], [5, 5], [1, 1, 5, 5]])
    def test_polygons_of_fewer_than_three_points_are_left_out(self, load, content, caplog, short):
        content["annotations"][0]["segmentation"].insert(0, short)
        content["annotations"].append(annotation(8, 5, 3, [short]))
        with caplog.at_level(logging.WARNING, "mrcnn"):
            dataset = load()
        masks, class_ids = dataset.load_mask(1)
        assert class_ids.tolist() == [1, -2]
        assert masks[:, :, 0].sum() == 12  # of the good polygon
        assert dataset.load_mask(2)[1].size == 0
        assert "2 polygons have fewer than three points and are left out" in caplog.text
        assert "annotation 1." in caplog.text

    def test_whole_numbers_may_be_written_as_fractions(self, load, content):
        content["images"][1].update(height=10.0, width=12.0)
        content["annotations"][0].update(image_id=42.0, category_id=3.0)
        dataset = load()
        assert dataset.load_mask(1)[0].shape == (10, 12, 2)
        assert type(dataset.image_info[1]["height"]) is int

    def test_so_may_run_lengths_and_sizes(self, load, content, crowd):
        run = content["annotations"][1]["segmentation"]
        run["size"], run["counts"] = ([float(n) for n in run[key]] for key in ("size", "counts"))
        np.testing.assert_array_equal(load().load_mask(1)[0][:, :, 1], crowd)
        run["counts"] = COMPRESSED
        np.testing.assert_array_equal(load().load_mask(1)[0][:, :, 1], crowd)

    @pytest.mark.parametrize(
        "polygon",
        [
            [20, 20, 30, 20, 30, 30],
            [-9, 1, -2, 1, -5, 8],
            [0, 0, 3, 3, 6, 6],
            [2, 2, 2, 2, 2, 2],
        ],
    )
    def test_polygon_that_shows_nothing_is_no_instance(self, load, content, caplog, polygon):
        content["annotations"].append(annotation(8, 5, 3, [polygon]))
        with caplog.at_level(logging.WARNING, "mrcnn"):
            dataset = load()
        assert dataset.load_mask(2)[0].shape == (10, 12, 0)
        assert "1 annotations have no area and are left out" in caplog.text

    def test_polygon_that_crosses_itself_has_an_area(self, load, content):
        content["annotations"].append(annotation(8, 5, 3, [[1, 1, 9, 9, 9, 1, 1, 9]]))
        assert load().load_mask(2)[0].any()


class TestCocoAnnotations:
    def test_box_and_area_are_the_files(self, load):
        first, second = load().coco_annotations(1)
        assert (first["bbox"], first["area"]) == ([2.0, 1.0, 3.9, 2.9], 11.5)
        assert (first["category_id"], first["iscrowd"]) == (1, 0)
        assert (second["category_id"], second["iscrowd"]) == (2, 1)

    def test_or_those_of_the_mask(self, load):
        second = load().coco_annotations(1)[1]
        assert (second["bbox"], second["area"]) == ([1, 6, 4, 3], 12)


class TestUnusableFiles:
    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no annotation file .*none.json"):
            CocoDataset().load_annotations(tmp_path / "none.json", tmp_path)

    def test_cut_short(self, load, folder):
        load()
        path = folder / "instances.json"
        path.write_text(path.read_text()[:-40])
        with pytest.raises(ValueError, match="instances.json is no valid JSON.*cut short"):
            CocoDataset().load_annotations(path, folder)

    def test_no_text(self, folder):
        with pytest.raises(ValueError, match="a.png is no valid JSON"):
            read_json(folder / "a.png")

    def test_numbers_beyond_all_use(self, load, folder, content):
        (folder / "long.json").write_text(f"[{'9' * 5000}]")
        with pytest.raises(ValueError, match="long.json is no valid JSON.*5000 digits"):
            read_json(folder / "long.json")
        content["images"][0]["width"] = 10**9
        with pytest.raises(ValueError, match="image 7 has height 10 and width 1000000000"):
            load()

    def test_the_limit_may_be_raised(self, load, content, monkeypatch):
        monkeypatch.setattr(mrcnn.images, "MAX_PIXELS", 100)
        with pytest.raises(ValueError, match="the 100 pixels allowed; raise mrcnn.images"):
            load()
        monkeypatch.setattr(mrcnn.images, "MAX_PIXELS", 120)
        load()

    def test_name_that_no_file_can_have(self, load, content):
        content["images"][0]["file_name"] = "a" * 1000
        with pytest.raises(FileNotFoundError, match="image 7 is missing"):
            load()

    @pytest.mark.parametrize("key", ["images", "annotations", "categories"])
    def test_list_missing(self, load, content, key):
        del content[key]
        with pytest.raises(ValueError, match=f"no COCO annotation file.* has no '{key}'"):
            load()

    def test_other_json(self, folder):
        (folder / "list.json").write_text("[1, 2]")
        with pytest.raises(ValueError, match="list.json is no COCO annotation file"):
            CocoDataset().load_annotations(folder / "list.json", folder)

    def test_missing_image(self, load, folder):
        (folder / "b.png").unlink()
        with pytest.raises(FileNotFoundError, match=r"instances.json: image 42 .*b.png"):
            load()

    def test_images_of_other_classes_need_not_be_there(self, load, folder):
        (folder / "a.png").unlink()
        assert load(class_ids=[3]).num_images == 1

    def test_unknown_class_asked_for(self, load):
        with pytest.raises(ValueError, match=r"no category 4; .*3 \(car\), 90 \(toothbrush\)"):
            load(class_ids=[3, 4])

    def test_library_missing(self, load, monkeypatch):
        monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
        with pytest.raises(ImportError, match="pip install faster-coco-eval"):
            load()

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"image_id": 8}, "annotation 1 belongs to image 8, which is not listed"),
            ({"image_id": None}, "annotation 1 lacks 'image_id'"),
            ({"category_id": 4}, "annotation 1 is of category 4, which is not listed"),
            ({"category_id": "car"}, "annotation 1 lacks 'category_id'.*'car'"),
            ({"segmentation": [[1, 1, 5, 5, 7, 1, 3]]}, "annotation 1 .*odd number"),
            ({"segmentation": [[1, 1, 5, 5, 7, None]]}, "annotation 1 .*unusable"),
            ({"segmentation": [[1, 1, 5, 5, 7, float("nan")]]}, "annotation 1 .*unusable"),
            ({"segmentation": [[1, 1, 5, 5, 7, 1e9]]}, "annotation 1 .*unusable"),
            ({"segmentation": [[1, 1, 5, 5, 7, "x"]]}, "annotation 1 .*unusable"),
            ({"segmentation": [[1, 1, 5, None]]}, "annotation 1 .*unusable"),
            ({"segmentation": "1 1 5 5"}, "annotation 1 .*neither polygons nor run lengths"),
            ({"segmentation": {"size": [9, 12], "counts": [108]}}, r"\[9, 12\], but its image"),
            ({"segmentation": {"size": [10, 12], "counts": [100]}}, "do not add up to .*120 pix"),
            ({"segmentation": {"size": [10, 12], "counts": [130, -10]}}, "do not add up"),
            ({"segmentation": {"size": [10, 12]}}, "annotation 1 .*without 'counts'"),
            ({"segmentation": {"size": [10, 12], "counts": "zz!!"}}, "annotation 1 .*damaged"),
            ({"bbox": [1, 2, 3]}, r"annotation 1 has an unusable bbox: \[1, 2, 3\]"),
        ],
    )
    def test_annotation(self, load, content, change, message):
        content["annotations"][0].update(change)
        with pytest.raises(ValueError, match=f"instances.json: .*{message}"):
            load()

    def test_annotation_that_is_none(self, load, content):
        content["annotations"][1] = "polygon"
        with pytest.raises(ValueError, match="annotation number 1 lacks 'image_id'"):
            load()

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"height": None}, "image 42 lacks 'height'"),
            ({"height": 10.5}, "image 42 lacks 'height', or it is unusable: 10.5"),
            ({"height": float("inf")}, "image 42 lacks 'height'"),
            ({"width": 0}, "image 42 has height 10 and width 0"),
            ({"file_name": 3}, "image 42 lacks 'file_name'"),
            ({"id": 7}, "image 7 is listed twice"),
        ],
    )
    def test_image(self, load, content, change, message):
        content["images"][1].update(change)
        with pytest.raises(ValueError, match=message):
            load()

    @pytest.mark.parametrize(
        "change, message",
        [({"id": 90}, "category 90 is listed twice"), ({"name": None}, "category 3 lacks 'name'")],
    )
    def test_category(self, load, content, change, message):
        content["categories"][1].update(change)
        with pytest.raises(ValueError, match=message):
            load()

    def test_run_lengths_that_end_early_show_when_decoded(self, load, content):
        cut = {"size": [10, 12], "counts": COMPRESSED[:4]}
        content["annotations"][1]["segmentation"] = cut
        dataset = load()
        with pytest.raises(ValueError, match="b.png: annotation 2 holds a damaged run-length"):
            dataset.load_mask(1)
