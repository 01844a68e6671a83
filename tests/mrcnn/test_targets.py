"""Targets of anchors and regions, each against what its definition says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcnn.boxes import apply_box_deltas, compute_overlaps, norm_boxes, scale_boxes
from mrcnn.config import Config
from mrcnn.targets import DetectionTargetLayer, build_rpn_targets

FRAME = (64, 96)


def grid_anchors():
    """1,152 anchors of three sizes on a grid of 4 pixels."""
    y, x, size = np.meshgrid(np.arange(0, 64, 4), np.arange(0, 96, 4), (8, 16, 32), indexing="ij")
    boxes = np.stack([y - size / 2, x - size / 2, y + size / 2, x + size / 2], axis=-1)
    return boxes.reshape(-1, 4).astype(np.float64)


def rpn_targets(class_ids, boxes, limit=256, seed=0):
    config = Config(RPN_TRAIN_ANCHORS_PER_IMAGE=limit)
    boxes = np.array(boxes, np.int32).reshape(-1, 4)
    rng = np.random.default_rng(seed)
    return build_rpn_targets(FRAME, grid_anchors(), np.array(class_ids), boxes, config, rng)


@st.composite
def instances(draw):
    """Up to four boxes of at least 2 pixels, some of them crowds."""
    count = draw(st.integers(0, 4))
    boxes = []
    for _ in range(count):
        y, x = draw(st.integers(0, 50)), draw(st.integers(0, 80))
        boxes.append([y, x, y + draw(st.integers(2, 40)), x + draw(st.integers(2, 40))])
    class_ids = draw(st.lists(st.sampled_from([1, 2, -1]), min_size=count, max_size=count))
    return np.array(class_ids, int), np.array(boxes, int).reshape(-1, 4)


class TestRpnTargets:
    @settings(max_examples=60)
    @given(instances(), st.sampled_from([8, 256]))
    def test_labels_keep_the_rules(self, problem, limit):
        class_ids, boxes = problem
        match, deltas = rpn_targets(class_ids, boxes, limit)
        anchors = grid_anchors()
        crowd, boxes = boxes[class_ids < 0], boxes[class_ids > 0]
        positive, negative = match == 1, match == -1
        assert set(np.unique(match)) <= {-1, 0, 1} and match.dtype == np.int32
        assert positive.sum() <= limit // 2 and (positive | negative).sum() <= limit
        if len(boxes):
            overlaps = compute_overlaps(anchors, boxes)
            assert (overlaps[negative].max(axis=1) < 0.35).all()
            is_best = (overlaps == overlaps.max(axis=0)).any(axis=1)
            assert ((overlaps.max(axis=1) >= 0.7) | is_best)[positive].all()
        else:
            assert not positive.any()
        if len(crowd):
            assert (compute_overlaps(anchors, crowd)[negative] < 0.001).all()
        assert np.isfinite(deltas).all() and deltas.shape == (limit, 4)
        assert not deltas[positive.sum() :].any()

    @settings(max_examples=40)
    @given(instances())
    def test_every_instance_has_its_best_anchor(self, problem):
        class_ids, boxes = problem
        match, _ = rpn_targets(class_ids, boxes, limit=4096)
        for box in boxes[class_ids > 0]:
            overlaps = compute_overlaps(grid_anchors(), box[None])[:, 0]
            assert (match[overlaps == overlaps.max()] == 1).all()

    def test_deltas_lead_to_the_instance_of_largest_overlap(self):
        boxes = np.array([[10, 12, 27, 30], [30, 50, 60, 84]], np.float32)
        match, deltas = rpn_targets([1, 2], boxes)
        anchors = grid_anchors()[match == 1]
        assert len(anchors) >= 2
        own = boxes[compute_overlaps(anchors, boxes).argmax(axis=1)]
        found = apply_box_deltas(anchors, deltas[: len(anchors)] * Config.RPN_BBOX_STD_DEV)
        np.testing.assert_allclose(found, own, atol=1e-3)

    def test_of_boxes_that_overlap_equally_the_first_counts(self):
        anchors = np.array([[0.0, 0, 16, 16]])
        boxes = np.array([[0, 0, 16, 12], [0, 4, 16, 16]])
        _, deltas = build_rpn_targets(FRAME, anchors, [1, 2], boxes, Config())
        found = apply_box_deltas(anchors, deltas[:1] * Config.RPN_BBOX_STD_DEV)
        np.testing.assert_allclose(found, boxes[:1], atol=1e-4)

    def test_image_without_instances_is_all_background(self):
        match, deltas = rpn_targets([], [])
        assert (match == -1).sum() == 256 and not (match == 1).any() and not deltas.any()

    def test_crowd_alone(self):
        match, _ = rpn_targets([-1], [[0, 0, 64, 96]])
        inside = compute_overlaps(grid_anchors(), np.array([[0, 0, 64, 96]]))[:, 0] >= 0.001
        assert not match[inside].any() and not (match == 1).any()

    def test_box_that_no_anchor_touches(self):
        match, _ = rpn_targets([1], [[200, 200, 220, 220]])
        assert not (match == 1).any()

    def test_quotas_are_filled(self):
        boxes = [[y, x, y + 16, x + 16] for y in (8, 28, 46) for x in (8, 28, 48, 68)]
        match, _ = rpn_targets([1] * len(boxes), boxes, limit=8)
        assert (match == 1).sum() == 4 and (match == -1).sum() == 4

    def test_same_seed_same_sample(self):
        first, again, other = (rpn_targets([1], [[8, 8, 40, 40]], 32, seed=s) for s in (1, 1, 2))
        np.testing.assert_array_equal(first[0], again[0])
        assert (first[0] != other[0]).any()


# ---- targets of the regions ----------------------------------------------------------------------


def configuration(**settings):
    return Config(
        NUM_CLASSES=4,
        **{
            "TRAIN_ROIS_PER_IMAGE": 12,
            "ROI_POSITIVE_RATIO": 0.25,
            "MASK_SHAPE": [8, 8],
            "MASK_POOL_SIZE": 4,
            "USE_MINI_MASK": False,
            **settings,
        },
    )


def scene(seed=0, positives=6, negatives=30, padding=4, mini=None):
    """Two images of two discs and one empty place each, with proposals near them and small ones.

    Returns the layer's first four arguments; the masks are those of `mini` size or of the image.
    """
    rng = np.random.default_rng(seed)
    proposals, boxes, masks = [], [], []
    for _ in range(2):
        centre = np.array([rng.integers(16, 46, 2), [rng.integers(16, 46), rng.integers(60, 78)]])
        half = rng.integers(9, 15, (2, 2))
        pixels = np.concatenate([centre - half, centre + half], axis=1)
        y, x = np.mgrid[: FRAME[0], : FRAME[1]] + 0.5
        discs = [
            ((y - c[0]) / h[0]) ** 2 + ((x - c[1]) / h[1]) ** 2 <= 1
            for c, h in zip(centre, half, strict=True)
        ]
        near = pixels[rng.integers(0, 2, positives)] + rng.uniform(-2, 2, (positives, 4))
        corner = rng.uniform(0, 55, (negatives, 2))
        far = np.concatenate([corner, corner + rng.uniform(3, 8, (negatives, 2))], axis=1)
        rows = rng.permutation(np.concatenate([near, far]))
        rows = np.clip(rows, 0, np.tile(FRAME, 2))
        normalised = norm_boxes(rows, FRAME)
        proposals.append(np.pad(normalised, ((0, padding), (0, 0))))
        boxes.append(np.pad(norm_boxes(pixels, FRAME), ((0, 1), (0, 0))))
        if mini:
            discs = [np.hypot(*((np.mgrid[:mini, :mini] + 0.5) / mini * 2 - 1)) <= 1] * 2
        masks.append(np.stack([*discs, np.zeros_like(discs[0])], axis=-1))
    class_ids = np.array([[1, 3, 0], [2, 1, 0]], np.int32)
    return [np.float32(proposals), class_ids, np.float32(boxes), np.array(masks)]


def run(config, inputs, seed=0):
    layer = DetectionTargetLayer(config, seed=seed)
    outputs = [np.asarray(o) for o in layer(*inputs, np.array(FRAME, np.int32))]
    total, limit = config.TRAIN_ROIS_PER_IMAGE, config.TRAIN_MASK_ROIS
    batch = len(inputs[0])
    assert [output.shape for output in outputs] == [
        (batch, total, 4),
        (batch, total),
        (batch, total, 4),
        (batch, limit, *config.MASK_SHAPE),
    ]
    assert all(np.isfinite(output).all() for output in outputs)
    return outputs


def labels(rois, class_ids, boxes):
    """Class and instance of each region, and whether it may be a negative, by definition."""
    instances = np.flatnonzero(class_ids > 0)
    own, assigned = np.zeros(len(rois), int), np.zeros(len(rois), int)
    if instances.size:
        overlaps = compute_overlaps(rois, boxes[instances])
        assigned = instances[overlaps.argmax(axis=1)]
        own = np.where(overlaps.max(axis=1) >= 0.5, class_ids[assigned], 0)
    crowd = boxes[class_ids < 0]
    free = np.ones(len(rois), bool)
    if len(crowd):
        free = compute_overlaps(rois, crowd).max(axis=1) < 0.001
    return own, assigned, (own == 0) & free


def check(config, inputs, outputs):
    """What holds for every sample; returns the numbers of positives and negatives."""
    counts = []
    for image in range(len(inputs[0])):
        proposals, class_ids, boxes, _ = (values[image] for values in inputs)
        rois, ids, deltas, _ = (values[image] for values in outputs)
        there = rois.any(axis=1)
        count = int(there.sum())
        assert there[:count].all()
        candidates = proposals[proposals.any(axis=1)]
        if config.ADD_GT_TO_PROPOSALS:
            candidates = np.concatenate([candidates, boxes[class_ids > 0]])
        rows = [np.flatnonzero((candidates == roi).all(axis=1)) for roi in rois[:count]]
        assert all(len(row) for row in rows)  # every region was proposed
        assert len({int(row[0]) for row in rows}) == count  # and none is taken twice
        own, assigned, negative = labels(rois[:count], class_ids, boxes)
        np.testing.assert_array_equal(ids[:count], own)
        assert (own[: (own > 0).sum()] > 0).all()  # positives come first
        assert negative[own == 0].all()
        assert not ids[count:].any()
        positive = own > 0
        found = apply_box_deltas(rois[:count], deltas[:count] * config.BBOX_STD_DEV)
        np.testing.assert_allclose(found[positive], boxes[assigned[positive]], atol=1e-5)
        assert not deltas[count:].any() and not deltas[:count][~positive].any()

        own, _, negative = labels(candidates, class_ids, boxes)
        wanted = min(int((own > 0).sum()), config.TRAIN_MASK_ROIS)
        assert positive.sum() == wanted
        quota = config.TRAIN_ROIS_PER_IMAGE - wanted
        if not config.SAMPLE_NEGATIVES_ALWAYS and (class_ids > 0).any():
            quota = int(wanted / config.ROI_POSITIVE_RATIO) - wanted
        assert count - wanted == min(int(negative.sum()), quota)
        counts.append((wanted, count - wanted))
    return counts


class TestSampling:
    @pytest.mark.parametrize("seed", range(4))
    def test_by_definition(self, seed):
        config, inputs = configuration(), scene(seed)
        assert check(config, inputs, run(config, inputs, seed)) == [(3, 9), (3, 9)]

    def test_few_positives_bring_few_negatives(self):
        config, inputs = configuration(), scene(positives=2)
        assert check(config, inputs, run(config, inputs)) == [(2, 6), (2, 6)]

    def test_instances_of_the_first_class_are_some(self):
        config, inputs = configuration(), scene(positives=2)
        inputs[1][inputs[1] > 0] = 1
        assert check(config, inputs, run(config, inputs)) == [(2, 6), (2, 6)]

    @pytest.mark.parametrize(("always", "negatives"), [(False, 0), (True, 12)])
    def test_no_positive_at_all(self, always, negatives):
        """By default no negatives either, as in matterport."""
        config = configuration(SAMPLE_NEGATIVES_ALWAYS=always)
        inputs = scene(positives=0)
        outputs = run(config, inputs)
        assert check(config, inputs, outputs) == [(0, negatives)] * 2
        assert not outputs[3].any()

    @pytest.mark.parametrize("always", [False, True])
    def test_image_without_instances_is_background(self, always):
        inputs = scene()
        for values in inputs[1:]:
            values[0] = 0
        config = configuration(SAMPLE_NEGATIVES_ALWAYS=always)
        assert check(config, inputs, run(config, inputs)) == [(0, 12), (3, 9)]

    def test_without_ground_truth_boxes(self):
        inputs = scene()
        inputs[1][:], inputs[2][:], inputs[3][:] = 0, 0, False
        config = configuration(SAMPLE_NEGATIVES_ALWAYS=True, ADD_GT_TO_PROPOSALS=True)
        assert check(config, inputs, run(config, inputs)) == [(0, 12)] * 2

    @pytest.mark.parametrize("always", [False, True])
    def test_fewer_proposals_than_rows(self, always):
        config = configuration(SAMPLE_NEGATIVES_ALWAYS=always)
        inputs = scene(positives=2, negatives=3, padding=0)
        check(config, inputs, run(config, inputs))

    def test_nothing_but_padding(self):
        config = configuration(SAMPLE_NEGATIVES_ALWAYS=True)
        inputs = scene()
        inputs[0][:] = 0
        assert not any(output.any() for output in run(config, inputs))

    def test_ground_truth_joins_the_proposals(self):
        config, inputs = configuration(ADD_GT_TO_PROPOSALS=True), scene(positives=0)
        own, _, _ = labels(inputs[0][0], inputs[1][0], inputs[2][0])
        assert not own.any()
        assert check(config, inputs, run(config, inputs)) == [(2, 6), (2, 6)]

    def test_regions_on_crowds_are_neither(self):
        config, inputs = configuration(SAMPLE_NEGATIVES_ALWAYS=True), scene()
        inputs[1][0, 1] = -3
        check(config, inputs, run(config, inputs))
        inputs[1][:] = 0
        inputs[1][:, 2], inputs[2][:, 2] = -1, [0, 0, 1, 1]  # a crowd all over the image
        assert check(config, inputs, run(config, inputs)) == [(0, 0)] * 2

    def test_seed_decides(self):
        config, inputs = configuration(), scene()
        first, again, other = (run(config, inputs, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first[0], again[0])
        assert (first[0] != other[0]).any()

    def test_every_call_draws_anew(self):
        layer = DetectionTargetLayer(configuration())
        inputs = scene()
        first, second = (np.asarray(layer(*inputs, np.array(FRAME))[0]) for _ in range(2))
        assert (first != second).any()

    def test_all_have_the_same_chance(self):
        """Each of six positives is among three about half the time."""
        layer = DetectionTargetLayer(configuration())
        inputs = [values[:1] for values in scene(3)]
        own, *_ = labels(inputs[0][0], inputs[1][0], inputs[2][0])
        candidates = inputs[0][0][own > 0]
        chosen = np.zeros(len(candidates))
        for _ in range(40):
            rois = np.asarray(layer(*inputs, np.array(FRAME))[0])[0, :3]
            chosen += (rois[:, None] == candidates).all(axis=-1).any(axis=0)
        share = chosen / 40
        assert (abs(share - 3 / len(candidates)) < 0.35).all() and share.min() > 0


def sample(mask, y, x):
    """Bilinear value at pixel indices; beyond the mask everything is zero."""
    top, left = int(np.floor(y)), int(np.floor(x))
    value = 0.0
    for row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, column_weight in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
                value += row_weight * column_weight * mask[row, column]
    return value


def mask_oracle(mask, roi, instance_box, aligned, mini, side):
    """Mask of one region before rounding, cell by cell; nan where matterport's has a cut."""
    size = np.subtract(FRAME, 1)
    result = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            if aligned:
                start, stop = roi[:2] * size, roi[2:] * size + 1
                position = start + (np.array([row, column]) + 0.5) * (stop - start) / side
                if mini:
                    low, high = instance_box[:2] * size, instance_box[2:] * size + 1
                    position = (position - low) / (high - low) * mask.shape
                y, x = position - 0.5
            else:
                position = roi[:2] + np.array([row, column]) / (side - 1) * (roi[2:] - roi[:2])
                if mini:
                    extent = instance_box[2:] - instance_box[:2]
                    position = (position - instance_box[:2]) / extent
                y, x = position * np.subtract(mask.shape, 1)
                if min(y, x) < 0 or y > mask.shape[0] - 1 or x > mask.shape[1] - 1:
                    continue  # no fading there: a sample outside is zero
            result[row, column] = sample(mask, y, x)
    return result


class TestMasks:
    @pytest.mark.parametrize("aligned", [False, True])
    @pytest.mark.parametrize("mini", [None, 6, 28])
    @pytest.mark.parametrize("box_scale", [1.0, 1.4])
    def test_equal_loops(self, aligned, mini, box_scale):
        config = configuration(
            USE_MINI_MASK=mini is not None,
            MINI_MASK_SHAPE=(mini, mini),
            ROI_ALIGNED=aligned,
            MASK_BOX_SCALE=box_scale,
            ROI_POSITIVE_RATIO=0.5,
        )
        inputs = scene(mini=mini)
        rois, ids, _, masks = run(config, inputs)
        assert (ids[:, :6] > 0).any(axis=1).all()
        for image in range(2):
            _, assigned, _ = labels(rois[image], inputs[1][image], inputs[2][image])
            for row in range(6):
                if not ids[image, row]:
                    assert not masks[image, row].any()
                    continue
                instance = assigned[row]
                expected = mask_oracle(
                    inputs[3][image, :, :, instance],
                    scale_boxes(rois[image, row].astype(float), box_scale),
                    inputs[2][image, instance].astype(float),
                    aligned,
                    mini,
                    8,
                )
                certain = abs(expected - 0.5) > 1e-3
                assert certain.mean() > 0.9
                np.testing.assert_array_equal(masks[image, row][certain], expected[certain] > 0.5)

    @pytest.mark.parametrize("mini", [None, 4])
    def test_full_box_gives_a_full_mask(self, mini):
        """Also where the mask's cells are finer than the mini-mask's, or than the pixels."""
        box = norm_boxes(np.array([[[0, 0, 6, 6]]]), FRAME)
        masks = np.ones((1, mini, mini, 1), bool) if mini else np.zeros((1, *FRAME, 1), bool)
        masks[:, :6, :6] = True
        config = configuration(
            ROI_ALIGNED=True, USE_MINI_MASK=mini is not None, MINI_MASK_SHAPE=(mini, mini)
        )
        inputs = [box, np.array([[1]], np.int32), box, masks]
        assert run(config, inputs)[3][0, 0].all()

    def test_box_scale_shows_what_is_around(self):
        """A solid box in one twice as large fills the middle half."""
        pixels = np.array([[[20, 20, 37, 37]]])  # 17 pixels, of which the corners' centres span 16
        box = norm_boxes(pixels, FRAME)
        masks = np.zeros((1, *FRAME, 1), bool)
        masks[:, 20:37, 20:37] = True
        config = configuration(ROI_ALIGNED=True, MASK_BOX_SCALE=2.0)
        found = run(config, [box, np.array([[1]], np.int32), box, masks])[3][0, 0]
        expected = np.zeros((8, 8))
        expected[2:6, 2:6] = 1
        np.testing.assert_array_equal(found, expected)

    def test_soft_targets_are_shares_of_cells(self):
        """Of eight rows of two pixels each; the mask has three rows of pixels."""
        box = norm_boxes(np.array([[[0, 0, 16, 16]]]), FRAME)
        masks = np.zeros((1, *FRAME, 1), bool)
        masks[:, :3, :16] = True
        config = configuration(ROI_ALIGNED=True, MASK_SOFT_TARGETS=True)
        found = run(config, [box, np.array([[1]], np.int32), box, masks])[3][0, 0]
        expected = np.repeat([[1.0], [0.5], *[[0.0]] * 6], 8, axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
