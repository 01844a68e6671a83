import numpy as np
import pytest

from mrcnn.anchor_fit import suggest_anchors
from mrcnn.anchors import anchors_of
from mrcnn.boxes import compute_overlaps
from mrcnn.config import Config
from mrcnn.data import SampleError
from mrcnn.dataset import Dataset


class TestSuggestion:
    @pytest.fixture
    def config(self, tiny_config):
        """Two levels, and images of 64 x 64 as they are unless something else is asked for.

        Their anchors lie close together, so that the sizes alone decide how well they fit.
        """

        def make(**settings):
            return tiny_config(
                **{"RPN_ANCHOR_RATIOS": [1.0], "BACKBONE_STRIDES": [1, 2]} | settings
            )

        return make

    def test_by_hand(self, config, rectangles):
        images = [[(1, (y, y, y + side, y + side))] for side in (8, 32) for y in (0, 10, 20)]
        suggestion = suggest_anchors(rectangles(images, size=(64, 64)), config())
        assert suggestion.settings == {"RPN_ANCHOR_SCALES": (8, 32), "RPN_ANCHOR_RATIOS": [1.0]}
        assert suggestion.boxes == 6

    def test_ratios_of_thin_objects(self, config, rectangles):
        data = rectangles([[(1, (0, 3, 999, 5))]], size=(1000, 1000))
        suggestion = suggest_anchors(
            data, config(IMAGE_MAX_DIM=1024, IMAGE_MIN_DIM=1024, IMAGE_RESIZE_MODE="square")
        )
        assert suggestion.settings["RPN_ANCHOR_RATIOS"] == [pytest.approx(2 / 999, rel=0.01)]

    def test_ratios_are_width_to_height(self, config, rectangles):
        images = [[(1, (0, 0, 10, 40))], [(1, (0, 0, 40, 10))]]
        suggestion = suggest_anchors(
            rectangles(images, size=(64, 64)), config(RPN_ANCHOR_RATIOS=[1, 2])
        )
        assert suggestion.settings["RPN_ANCHOR_RATIOS"] == [0.25, 4.0]
        assert suggestion.settings["RPN_ANCHOR_SCALES"] == (20, 20)

    @pytest.mark.parametrize(
        "settings, side",
        [
            ({}, 16),
            ({"IMAGE_RESIZE_MODE": "none"}, 12),
            ({"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 64}, 24),
            # 64/32 in height times 96/48 in width
            ({"IMAGE_RESIZE_MODE": "stretch", "IMAGE_MAX_DIM": 96}, 24),
            # twice as large, of which the crop to 64 x 64 cannot miss a part
            ({"IMAGE_RESIZE_MODE": "crop"}, 24),
        ],
        ids=["square", "none", "pad64", "stretch", "crop"],
    )
    def test_boxes_are_resized_as_in_training(self, config, rectangles, settings, side):
        dataset = rectangles([[(1, (10, 17, 22, 29))]], size=(32, 48))
        suggestion = suggest_anchors(dataset, config(**settings))
        assert suggestion.settings["RPN_ANCHOR_SCALES"] == (side, side)

    def test_crops_are_the_same_every_time(self, config, rectangles):
        images = [[(1, (y, 4 * y, y + 14, 4 * y + 30))] for y in range(8)]
        dataset = rectangles(images, size=(32, 80))
        first, second = (
            suggest_anchors(dataset, config(IMAGE_RESIZE_MODE="crop")) for _ in range(2)
        )
        assert first == second

    def test_recall_is_that_of_all_anchors(self, config, rectangles):
        rng = np.random.default_rng(0)
        corners = np.sort(rng.integers(64, size=(60, 2, 2)), axis=1)
        boxes = np.concatenate([corners[:, 0], corners[:, 1] + 1], axis=1)
        dataset = rectangles([[(1, tuple(box))] for box in boxes.tolist()], size=(64, 64))
        given = config(RPN_ANCHOR_RATIOS=[0.5, 1, 2])
        suggestion = suggest_anchors(dataset, given)
        for settings, recall in (
            ({}, suggestion.recall_before),
            (suggestion.settings, suggestion.recall_after),
        ):
            anchors = anchors_of(config(**{"RPN_ANCHOR_RATIOS": [0.5, 1, 2]} | settings), (64, 64))
            best = compute_overlaps(anchors, boxes).max(axis=0)
            assert recall == {0.5: (best >= 0.5).mean(), 0.7: (best >= 0.7).mean()}

    def test_it_helps(self, rectangles):
        rng = np.random.default_rng(1)
        images = []
        for _ in range(40):
            y, x = rng.integers(0, 60, size=2).tolist()
            height, width = rng.integers(45, 60).item(), rng.integers(8, 12).item()
            images.append([(1, (y, x, y + height, x + width))])
        config = Config(IMAGE_MIN_DIM=128, IMAGE_MAX_DIM=128)
        suggestion = suggest_anchors(rectangles(images, size=(128, 128)), config)
        assert suggestion.recall_before[0.5] < 0.1
        assert suggestion.recall_after[0.5] > 0.9

    def test_it_never_fits_less_than_what_is_there(self, rectangles):
        """Small anchors at coarse strides, where clusters alone would put some, fit nothing."""
        rng = np.random.default_rng(0)
        images = []
        for _ in range(60):
            (y, x), (height, width) = rng.integers(0, 200, size=2), rng.integers(10, 40, size=2)
            images.append([(1, tuple(map(int, (y, x, y + height, x + width))))])
        config = Config(
            IMAGE_MIN_DIM=256, IMAGE_MAX_DIM=256, RPN_ANCHOR_SCALES=(8, 16, 32, 64, 128)
        )
        suggestion = suggest_anchors(rectangles(images, size=(256, 256)), config)
        assert suggestion.recall_after[0.5] >= suggestion.recall_before[0.5]
        assert suggestion.recall_after[0.7] > suggestion.recall_before[0.7]

    @pytest.mark.parametrize("limit", [0, -1])
    def test_limit_below_one(self, config, rectangles, limit):
        with pytest.raises(ValueError, match=f"`limit` must be at least 1.*received {limit}"):
            suggest_anchors(rectangles(), config(), limit=limit)

    def test_crowds_and_empty_images_do_not_count(self, config, rectangles):
        dataset = rectangles([[(-1, (0, 0, 60, 60)), (1, (0, 0, 16, 16))], []], size=(64, 64))
        suggestion = suggest_anchors(dataset, config())
        assert suggestion.boxes == 1
        assert suggestion.settings["RPN_ANCHOR_SCALES"] == (16, 16)

    def test_limit_takes_every_nth(self, config, rectangles):
        dataset = rectangles([[(1, (0, 0, 9, 9))]] * 7, size=(64, 64))
        asked = []
        load_mask = dataset.load_mask
        dataset.load_mask = lambda image_id: asked.append(image_id) or load_mask(image_id)
        assert suggest_anchors(dataset, config(), limit=3).boxes == 3
        assert asked == [0, 3, 6]

    def test_no_image_is_loaded(self, config, rectangles):
        dataset = rectangles()
        dataset.load_image = None
        suggest_anchors(dataset, config())

    def test_nothing_to_fit(self, config, rectangles):
        with pytest.raises(ValueError, match="2 images looked at show no instance"):
            suggest_anchors(rectangles([[], []]), config())

    def test_classes_that_are_not_those_of_the_masks(self, config, rectangles):
        dataset = rectangles([[(1, (0, 0, 9, 9))]])
        dataset.load_mask = lambda image_id: (np.zeros((8, 8, 0), bool), np.ones(1, np.int32))
        with pytest.raises(SampleError, match=r"Image 0 .*0 masks have 1 class ids"):
            suggest_anchors(dataset, config())

    def test_data_set_that_was_not_prepared(self, config, rectangles):
        dataset = Dataset()
        dataset.add_image("toys", 0, "image0.png")
        with pytest.raises(ValueError, match=r"call prepare\(\)"):
            suggest_anchors(dataset, config())
