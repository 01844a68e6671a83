"""Pooling from the pyramid, by matterport's sampling and by the paper's."""

import numpy as np
import pytest
from keras import ops

from mrcnn import roi_align
from mrcnn.boxes import norm_boxes
from mrcnn.roi_align import PyramidROIAlign, crop_and_resize, crop_levels, crop_levels_ops

HEIGHT, WIDTH = 64, 96


def tensors(*arrays):
    return [ops.convert_to_tensor(array) for array in arrays]


def pyramid(seed=0, batch=2, channels=3):
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((batch, HEIGHT // s, WIDTH // s, channels)).astype(np.float32)
        for s in (4, 8, 16, 32)
    ]


def random_boxes(seed, batch=2, count=40, outside=0.0):
    """Normalised boxes of all sizes; `outside` lets them reach beyond the image."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-outside, 1 + outside, (batch, count, 2))
    half = 0.5 * np.exp(rng.uniform(-4, 0, (batch, count, 2)))
    boxes = np.concatenate([centre - half, centre + half], axis=-1)
    return np.clip(boxes, -outside, 1 + outside).astype(np.float32)


def bilinear(features, y, x):
    """One sample as in Detectron: clamped up to one pixel outside, zero beyond."""
    height, width = features.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(features.shape[2])
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = features[top, left] * (1 - fx) + features[top, right] * fx
    lower = features[bottom, left] * (1 - fx) + features[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


def aligned_oracle(features, box, stride, size):
    """ROIAlign of one normalised box: the mean of four samples per bin, by loops."""
    y1, x1 = box[0] * (HEIGHT - 1) / stride, box[1] * (WIDTH - 1) / stride
    y2, x2 = (box[2] * (HEIGHT - 1) + 1) / stride, (box[3] * (WIDTH - 1) + 1) / stride
    result = np.zeros((size, size, features.shape[2]))
    for row in range(size):
        for column in range(size):
            for dy in (0.25, 0.75):
                for dx in (0.25, 0.75):
                    y = y1 + (row + dy) * (y2 - y1) / size - 0.5
                    x = x1 + (column + dx) * (x2 - x1) / size - 0.5
                    result[row, column] += bilinear(features, y, x) / 4
    return result


def test_golden(parity_units):
    maps = [parity_units[f"roi/P{level}"] for level in (2, 3, 4, 5)]
    pooled = PyramidROIAlign((7, 7))(parity_units["roi/boxes"], maps)
    np.testing.assert_allclose(pooled, parity_units["roi/pooled_7x7"], atol=1e-5)


class TestAligned:
    @pytest.mark.parametrize("outside", [0.0, 0.4])
    def test_equals_loops(self, outside):
        maps, boxes = pyramid(), random_boxes(1, outside=outside)
        align = PyramidROIAlign((3, 3), aligned=True, rounding="floor", canonical_size=12)
        pooled = ops.convert_to_numpy(align(boxes, maps))
        levels = ops.convert_to_numpy(align.levels(boxes.reshape(-1, 4), HEIGHT, WIDTH))
        assert set(levels) == {0, 1, 2, 3}
        for image in range(2):
            for row, box in enumerate(boxes[image]):
                level = levels.reshape(2, -1)[image, row]
                expected = aligned_oracle(maps[level][image], box, 4 * 2**level, 3)
                np.testing.assert_allclose(pooled[image, row], expected, atol=1e-4)

    def test_ramp_by_hand(self):
        """The feature at column c is c, and its centre lies at pixel 4 c + 2.

        The box from pixel 8 to 24 has two bins, with middles at the pixels 12 and 20: the ramp
        is (12 - 2) / 4 = 2.5 and (20 - 2) / 4 = 4.5 there.
        """
        ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None], (1, 8, 8, 1))
        maps = [ramp, ramp[:, ::2, ::2], ramp[:, ::4, ::4], ramp[:, ::8, ::8]]
        box = norm_boxes(np.array([[[8, 8, 24, 24]]]), (32, 32))
        pooled = PyramidROIAlign((2, 2), aligned=True)(box, maps)
        np.testing.assert_allclose(pooled[0, 0, :, :, 0], [[2.5, 4.5], [2.5, 4.5]], atol=1e-5)

    def test_ramp_by_hand_as_in_matterport(self):
        """There, corner samples lie at column 7 / 31 * 8 and 7 / 31 * 23."""
        ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None], (1, 8, 8, 1))
        maps = [ramp, ramp[:, ::2, ::2], ramp[:, ::4, ::4], ramp[:, ::8, ::8]]
        box = norm_boxes(np.array([[[8, 8, 24, 24]]]), (32, 32))
        pooled = PyramidROIAlign((2, 2))(box, maps)
        row = [56 / 31, 161 / 31]
        np.testing.assert_allclose(pooled[0, 0, :, :, 0], [row, row], atol=1e-5)

    def test_moves_with_the_image(self):
        """A box of the image mirrored gives the features mirrored, exactly."""
        maps, boxes = pyramid(batch=1), random_boxes(2, batch=1)
        mirrored = boxes[..., [0, 3, 2, 1]] * [1, -1, 1, -1] + [0, 1, 0, 1]
        align = PyramidROIAlign((3, 3), aligned=True)
        pooled = align(boxes, maps)
        flipped = align(mirrored.astype(np.float32), [m[:, :, ::-1].copy() for m in maps])
        np.testing.assert_allclose(flipped, ops.flip(pooled, axis=3), atol=1e-4)


class TestLevels:
    def boxes(self, sides):
        pixels = np.array([[0, 0, side, side] for side in sides], np.float32)
        return pixels / 1024

    def test_rounded(self):
        """Level 4 at side 224, the next one from sqrt(2) times that."""
        levels = PyramidROIAlign((7, 7)).levels(
            self.boxes([50, 150, 165, 224, 310, 320, 900]), 1024, 1024
        )
        np.testing.assert_array_equal(levels, [0, 1, 2, 2, 2, 3, 3])

    def test_floored(self):
        """Equation 1 of the FPN paper: the side that doubles reaches the next level."""
        align = PyramidROIAlign((7, 7), rounding="floor")
        levels = align.levels(self.boxes([50, 111, 113, 223, 224, 447, 449]), 1024, 1024)
        np.testing.assert_array_equal(levels, [0, 0, 1, 1, 2, 2, 3])

    def test_canonical_size_moves_all(self):
        align = PyramidROIAlign((7, 7), rounding="floor", canonical_size=448)
        levels = align.levels(self.boxes([223, 225, 447, 449]), 1024, 1024)
        np.testing.assert_array_equal(levels, [0, 1, 1, 2])

    def test_area_counts_not_the_longer_side(self):
        box = np.array([[0, 0, 112 / 1024, 448 / 1024]], np.float32)
        np.testing.assert_array_equal(PyramidROIAlign((7, 7)).levels(box, 1024, 1024), [2])


@pytest.mark.parametrize("aligned", [False, True])
class TestBothWays:
    def test_padding_is_finite(self, aligned):
        pooled = PyramidROIAlign((3, 3), aligned=aligned)(
            np.zeros((2, 5, 4), np.float32), pyramid()
        )
        assert pooled.shape == (2, 5, 3, 3, 3)
        assert np.isfinite(ops.convert_to_numpy(pooled)).all()

    def test_each_image_has_its_own_features(self, aligned):
        maps, boxes = pyramid(), random_boxes(3)
        align = PyramidROIAlign((3, 3), aligned=aligned)
        alone = align(boxes[1:], [features[1:] for features in maps])
        np.testing.assert_allclose(align(boxes, maps)[1], alone[0], atol=1e-5)

    def test_gradient_flows_to_the_features_alone(self, aligned, value_and_gradients):
        align = PyramidROIAlign((3, 3), aligned=aligned)
        boxes = random_boxes(4)
        _, (of_boxes, *of_maps) = value_and_gradients(
            lambda boxes, *maps: ops.sum(align(boxes, list(maps))), boxes, *pyramid()
        )
        assert not of_boxes.any()
        # Every sample inside the image hands on weights that add up to one.
        samples = boxes.shape[0] * boxes.shape[1] * 3 * 3 * 3
        assert sum(gradient.sum() for gradient in of_maps) == pytest.approx(samples, rel=1e-4)

    def test_survives_its_configuration(self, aligned):
        layer = PyramidROIAlign((3, 4), aligned, "floor", 100, name="align")
        copy = PyramidROIAlign.from_config(layer.get_config())
        assert copy.get_config() == layer.get_config()


class TestCropAndResize:
    def crops(self, function, boxes, size):
        images = pyramid()[0]
        indices = np.arange(len(boxes), dtype=np.int32) % 2
        tensors = map(ops.convert_to_tensor, (images, boxes, indices))
        return ops.convert_to_numpy(function(*tensors, size))

    @staticmethod
    def by_ops(images, boxes, indices, size):
        return crop_levels_ops([images], [boxes], ops.zeros_like(indices), indices, size)

    @pytest.mark.parametrize("size", [(7, 7), (14, 3), (1, 2)])
    def test_both_forms_agree(self, size):
        boxes = random_boxes(5, outside=0.3).reshape(-1, 4)
        np.testing.assert_allclose(
            self.crops(self.by_ops, boxes, size),
            self.crops(crop_and_resize, boxes, size),
            atol=1e-4,
        )

    @pytest.mark.parametrize("count", [4, 7, 14, 28, 56])
    def test_both_forms_agree_on_the_border(self, count):
        boxes = np.array([[0, 0, 1, 1], [0.25, 0, 1, 0.5], [0, 0.3, 0.7, 1]], np.float32)
        np.testing.assert_allclose(
            self.crops(self.by_ops, boxes, (count, count)),
            self.crops(crop_and_resize, boxes, (count, count)),
            atol=1e-4,
        )

    def test_levels_agree(self):
        maps = pyramid()
        boxes = [random_boxes(seed, batch=1)[0] for seed in (6, 7, 8, 9)]
        rng = np.random.default_rng(10)
        level = rng.integers(0, 4, 40).astype(np.int32)
        indices = rng.integers(0, 2, 40).astype(np.int32)
        arguments = tensors(*maps), tensors(*boxes), *tensors(level, indices), (5, 4)
        found, expected = (crop(*arguments) for crop in (crop_levels, crop_levels_ops))
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, expected)), atol=1e-4)

    @pytest.mark.parametrize("size", [(5, 4), (1, 2)])
    def test_gradient_is_the_transpose(self, size, value_and_gradients):
        """Of a linear map: what a change of the pixels does to the crops, seen from the crops."""
        maps, rng = pyramid(), np.random.default_rng(11)
        boxes = [random_boxes(seed, batch=1, outside=0.3)[0] for seed in (6, 7, 8, 9)]
        level, indices = rng.integers(0, 4, 40).astype(np.int32), np.arange(40, dtype=np.int32) % 2
        upstream = rng.standard_normal((40, *size, 3)).astype(np.float32)

        def crop(*maps):
            crops = crop_levels(maps, tensors(*boxes), *tensors(level, indices), size)
            return ops.sum(ops.cast(crops, "float32") * ops.convert_to_tensor(upstream))

        _, gradients = value_and_gradients(crop, *maps)
        for index, gradient in enumerate(gradients):
            change = rng.standard_normal(gradient.shape).astype(np.float32)
            alone = [change if i == index else np.zeros_like(m) for i, m in enumerate(maps)]
            assert np.sum(gradient * change) == pytest.approx(
                float(crop(*tensors(*alone))), abs=2e-3
            )

    @pytest.mark.parametrize(
        ("devices", "safe"), [(["GPU:0"], False), (["CPU:0"], True), (["GPU:0", "CPU:1"], True)]
    )
    def test_gradient_is_that_of_the_devices_in_use(
        self, tensorflow, value_and_gradients, monkeypatch, devices, safe
    ):
        """A graphics card that is there and not used computes nothing."""
        monkeypatch.setattr(roi_align, "_devices", lambda: devices)
        own, called = roi_align._uncrop_levels_tensorflow, []
        monkeypatch.setattr(
            roi_align, "_uncrop_levels_tensorflow", lambda *a: called.append(1) or own(*a)
        )
        boxes = tensors(random_boxes(5, batch=1)[0]) * 4
        level, indices = tensors(*np.zeros((2, 40), np.int32))
        value_and_gradients(
            lambda *maps: ops.sum(crop_levels(maps, boxes, level, indices, (2, 2))), *pyramid()
        )
        assert bool(called) == safe

    def test_devices_in_use(self, tensorflow, monkeypatch):
        @tensorflow.function
        def traced():
            names.extend(roi_align._devices())

        names = []
        traced()
        with tensorflow.device("CPU:0"):
            names += roi_align._devices()
        assert ["device:CPU:0" in name for name in names] == [True, True]
        with tensorflow.distribute.OneDeviceStrategy("/device:GPU:7").scope():
            (name,) = roi_align._devices()
        assert "GPU:7" in name

    def test_gradient_loses_nothing_to_threads(self, value_and_gradients):
        """TensorFlow's own gradient differs between calls on a processor of several cores."""
        maps, boxes = pyramid(channels=256), tensors(random_boxes(5, batch=1, count=200)[0]) * 4
        level, indices = tensors(np.zeros(200, np.int32), np.zeros(200, np.int32))
        expected = None
        for _ in range(20):
            _, gradients = value_and_gradients(
                lambda *maps: ops.sum(crop_levels(maps, boxes, level, indices, (14, 14))), *maps
            )
            expected = gradients if expected is None else expected
            for gradient, first in zip(gradients, expected, strict=True):
                np.testing.assert_allclose(gradient, first, atol=1e-4 * np.abs(first).max())
