"""Tiles of images in which a stand-in network finds rectangles, each of a colour of its own."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.masks import CompactMasks, extract_bboxes
from mrcnn.tiling import detect_tiles

TILE = 40


class Finder:
    """Finds every rectangle of a view's first channel; scores are its share of the largest."""

    def __init__(self, across_classes=False, mode="square"):
        self.config = SimpleNamespace(
            IMAGE_MAX_DIM=TILE,
            DETECTION_NMS_ACROSS_CLASSES=across_classes,
            IMAGE_RESIZE_MODE=mode,
            BATCH_SIZE=3,
            IMAGE_CHANNEL_COUNT=1,
        )
        self.seen = []

    def detect(self, images, compact):
        assert compact
        assert len(images) <= self.config.BATCH_SIZE
        assert all(image.dtype == np.uint8 for image in images)  # else each has a range of its own
        self.seen += [image.shape[:2] for image in images]
        return [self._found(image) for image in images]

    def _found(self, image):
        names = [name for name in np.unique(image[..., 0]) if name]
        masks = [image[..., 0] == name for name in names]
        boxes = extract_bboxes(np.stack(masks, -1)) if masks else np.zeros((0, 4), np.int32)
        parts = [m[y1:y2, x1:x2] for m, (y1, x1, y2, x2) in zip(masks, boxes, strict=True)]
        return {
            "rois": boxes,
            "class_ids": np.array([1 + name % 2 for name in names], np.int32),
            "scores": np.array([mask.sum() / image.size for mask in masks], np.float32),
            "masks": CompactMasks(parts, boxes, image.shape[:2]),
        }


def picture(height, width, boxes):
    image = np.zeros((height, width, 1), np.uint8)
    for name, (y1, x1, y2, x2) in enumerate(boxes, start=1):
        image[y1:y2, x1:x2] = name
    return image


def assert_found(result, image):
    """Each rectangle once, complete."""
    names = [name for name in np.unique(image) if name]
    expected = {name: image[..., 0] == name for name in names}
    masks = result["masks"].full()
    assert masks.shape == (*image.shape[:2], len(names))
    found = {image[..., 0][mask][0]: i for i, mask in enumerate(np.moveaxis(masks, -1, 0))}
    assert found.keys() == expected.keys()
    for name, i in found.items():
        np.testing.assert_array_equal(masks[..., i], expected[name])
        assert result["class_ids"][i] == 1 + name % 2
    np.testing.assert_array_equal(result["rois"], extract_bboxes(masks))
    assert (np.diff(result["scores"]) <= 0).all()


@settings(max_examples=60)
@given(
    st.integers(20, 130),
    st.integers(20, 130),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 16)), max_size=6),
    st.booleans(),
)
def test_what_is_smaller_than_the_overlap_is_found_once(height, width, places, whole):
    """The overlap is 20 pixels, of which the 2 at either edge may not be touched."""
    boxes = [
        (y := int(row * (height - side)), x := int(column * (width - side)), y + side, x + side)
        for row, column, side in places
    ]
    image = picture(height, width, boxes)
    result = detect_tiles(Finder(), image, overlap=0.5, whole=whole)
    visible = [i for i, box in enumerate(boxes, 1) if (image == i).sum() != 0]
    assert len(result["rois"]) == len(visible)
    assert_found(result, image)


def test_what_is_larger_is_found_in_the_whole_image():
    image = picture(100, 120, [(10, 10, 90, 70), (40, 90, 50, 100)])
    assert_found(detect_tiles(Finder(), image), image)


@pytest.mark.parametrize("large_first", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_an_instance_inside_another_stays(across, large_first):
    """Rectangles of one class, the smaller of which lies within the larger one's mask."""

    class Solid(Finder):
        def _found(self, image):
            result = super()._found(image)
            result["class_ids"][:] = 1
            scores = np.array([mask.size for mask in result["masks"].parts], np.float32)
            result["scores"] = scores if large_first else -scores
            parts = [np.ones(part.shape, bool) for part in result["masks"].parts]
            result["masks"] = CompactMasks(parts, result["masks"].boxes, image.shape[:2])
            return result

    image = picture(60, 100, [(5, 5, 55, 95), (10, 10, 20, 22)])
    result = detect_tiles(Solid(across), image, overlap=0.5)
    sizes = sorted(part.size for part in result["masks"].parts)
    assert sizes == [10 * 12, 50 * 90]


def test_the_sharper_mask_is_taken():
    """Of what a tile and the whole image show it is the tile's, whatever they score."""

    class Coarse(Finder):
        def _found(self, image):
            result = super()._found(image)
            if image.shape[:2] != (TILE, TILE):
                result["scores"] += 1
                result["masks"].parts[0][0] = False
            return result

    image = picture(60, 100, [(12, 12, 20, 22)])
    (mask,) = detect_tiles(Coarse(), image)["masks"].parts
    assert mask.all()


def test_modes_that_reduce_nothing_never_see_the_whole():
    finder = Finder(mode="pad64")
    detect_tiles(finder, picture(60, 100, []))
    assert set(finder.seen) == {(TILE, TILE)}


def test_boxes_need_not_be_placed_to_the_pixel():
    """A part that a tile's edge cuts is known by a box that ends near it."""

    class Imprecise(Finder):
        def _found(self, image):
            result = super()._found(image)
            return {**result, "rois": result["rois"] + [1, 1, -1, -1]}

    image = picture(100, 120, [(10, 10, 90, 70)])
    (mask,) = np.moveaxis(detect_tiles(Imprecise(), image)["masks"].full(), -1, 0)
    np.testing.assert_array_equal(mask, image[..., 0] == 1)


def test_of_parts_the_larger_is_taken():
    """Tiles at 0 and 25 show 18 and 17 of its 20 columns, most of them both."""

    class Smaller(Finder):
        def _found(self, image):
            result = super()._found(image)
            return {**result, "scores": 1 - result["scores"]}

    image = picture(40, 65, [(10, 22, 20, 42)])
    (mask,) = detect_tiles(Smaller(), image, whole=False)["masks"].parts
    assert mask.shape == (10, 18)


def test_without_a_look_at_the_whole_it_comes_in_pieces():
    image = picture(40, 120, [(10, 10, 30, 110), (34, 50, 38, 54)])
    result = detect_tiles(Finder(), image, whole=False)
    masks = result["masks"].full()
    assert masks.shape[2] > 2
    np.testing.assert_array_equal(masks.any(-1), image[..., 0] > 0)
    assert (np.diff(result["scores"]) <= 0).all()


@pytest.mark.parametrize(("across", "count"), [(False, 2), (True, 1)])
def test_one_object_under_two_classes(across, count):
    """In a tile it is of another class than in the whole image."""

    class Moody(Finder):
        def _found(self, image):
            result = super()._found(image)
            result["class_ids"][:] = 1 if image.shape[1] == TILE else 2
            return result

    image = picture(40, 80, [(5, 5, 15, 15)])
    result = detect_tiles(Moody(across), image, overlap=0.0)
    assert len(result["rois"]) == count


def test_instances_of_one_view_are_told_apart_by_the_network():
    image = picture(40, 40, [(5, 5, 35, 35)])

    class Twice(Finder):
        def _found(self, image):
            found = super()._found(image)
            return {
                "rois": np.tile(found["rois"], (2, 1)),
                "class_ids": np.tile(found["class_ids"], 2),
                "scores": np.tile(found["scores"], 2),
                "masks": CompactMasks(
                    2 * found["masks"].parts, np.tile(found["masks"].boxes, (2, 1)), (40, 40)
                ),
            }

    assert len(detect_tiles(Twice(), image)["rois"]) == 2


def test_views():
    finder = Finder()
    detect_tiles(finder, picture(60, 140, []))
    assert finder.seen[-1] == (60, 140)
    assert set(finder.seen[:-1]) == {(TILE, TILE)}
    assert len(finder.seen) == 2 * 5 + 1
    finder.seen.clear()
    detect_tiles(finder, picture(60, 100, []), tile=100)
    assert finder.seen == [(60, 100)]


def test_nothing_found():
    result = detect_tiles(Finder(), np.zeros((60, 100), np.uint8)[..., np.newaxis])
    assert {name: len(result[name]) for name in ("rois", "class_ids", "scores")} == {
        "rois": 0,
        "class_ids": 0,
        "scores": 0,
    }
    assert result["masks"].full().shape == (60, 100, 0)


def test_floats_mean_the_same_in_every_tile():
    """Up to one they would count as a share of 255; the image as a whole says that they do not."""
    image = picture(40, 80, [(12, 12, 20, 22), (12, 60, 20, 70)]).astype(np.float32)
    image[image == 2] = 200.0
    assert_found(detect_tiles(Finder(), image, overlap=0.0), image.astype(np.uint8))


def test_empty_masks_are_left_out():
    class Empty(Finder):
        def _found(self, image):
            result = super()._found(image)
            for part in result["masks"].parts:
                part[:] = False
            return result

    assert not len(detect_tiles(Empty(), picture(60, 100, [(12, 12, 20, 22)]))["rois"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((2, 9, 9, 3))}, r"one image.*\(2, 9, 9, 3\)"),
        ({"tile": 0}, "tile=0"),
        ({"tile": 4.5}, "tile=4.5"),
        ({"overlap": 1}, "overlap=1"),
    ],
)
def test_refused(change, message):
    arguments = {"image": np.zeros((9, 9, 3), np.uint8), **change}
    with pytest.raises(ValueError, match=message):
        detect_tiles(Finder(), **arguments)
