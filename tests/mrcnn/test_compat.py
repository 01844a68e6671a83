"""matterport's names at their old places, with the old arguments, give the numbers of the new."""

import inspect
import itertools
import os
import re
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import ops

import mrcnn.config
import mrcnn.model as modellib
import mrcnn.parallel_model
from mrcnn import detection, heads, roi_align, rpn, targets, utils
from mrcnn.boxes import box_refinement, compute_overlaps, norm_boxes
from mrcnn.compat import log
from mrcnn.data import Batches
from mrcnn.generator import build_detection_targets, data_generator, generate_random_rois
from mrcnn.masks import extract_bboxes
from mrcnn.weights import named_weights, save_arrays

# Functions of the two modules and methods of the two classes, as matterport declares them.
SIGNATURES = {
    utils: """
        extract_bboxes(mask)
        compute_iou(box, boxes, box_area, boxes_area)
        compute_overlaps(boxes1, boxes2)
        compute_overlaps_masks(masks1, masks2)
        non_max_suppression(boxes, scores, threshold)
        apply_box_deltas(boxes, deltas)
        box_refinement_graph(box, gt_box)
        box_refinement(box, gt_box)
        resize_image(image, min_dim=None, max_dim=None, min_scale=None, mode="square")
        resize_mask(mask, scale, padding, crop=None)
        minimize_mask(bbox, mask, mini_shape)
        expand_mask(bbox, mini_mask, image_shape)
        mold_mask(mask, config)
        unmold_mask(mask, bbox, image_shape)
        generate_anchors(scales, ratios, shape, feature_stride, anchor_stride)
        generate_pyramid_anchors(scales, ratios, feature_shapes, feature_strides, anchor_stride)
        trim_zeros(x)
        compute_matches(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores,\
            pred_masks, iou_threshold=0.5, score_threshold=0.0)
        compute_ap(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores,\
            pred_masks, iou_threshold=0.5)
        compute_ap_range(gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score,\
            pred_mask, iou_thresholds=None, verbose=1)
        compute_recall(pred_boxes, gt_boxes, iou)
        batch_slice(inputs, graph_fn, batch_size, names=None)
        download_trained_weights(coco_model_path, verbose=1)
        norm_boxes(boxes, shape)
        denorm_boxes(boxes, shape)
        resize(image, output_shape, order=1, mode="constant", cval=0, clip=True,\
            preserve_range=False, anti_aliasing=False, anti_aliasing_sigma=None)
    """,
    utils.Dataset: """
        __init__(self, class_map=None)
        add_class(self, source, class_id, class_name)
        add_image(self, source, image_id, path, **kwargs)
        image_reference(self, image_id)
        prepare(self, class_map=None)
        map_source_class_id(self, source_class_id)
        get_source_class_id(self, class_id, source)
        source_image_link(self, image_id)
        load_image(self, image_id)
        load_mask(self, image_id)
    """,
    modellib: """
        log(text, array=None)
        compute_backbone_shapes(config, image_shape)
        identity_block(input_tensor, kernel_size, filters, stage, block, use_bias=True,\
            train_bn=True)
        conv_block(input_tensor, kernel_size, filters, stage, block, strides=(2, 2),\
            use_bias=True, train_bn=True)
        resnet_graph(input_image, architecture, stage5=False, train_bn=True)
        apply_box_deltas_graph(boxes, deltas)
        clip_boxes_graph(boxes, window)
        ProposalLayer(proposal_count, nms_threshold, config=None, **kwargs)
        PyramidROIAlign(pool_shape, **kwargs)
        overlaps_graph(boxes1, boxes2)
        detection_targets_graph(proposals, gt_class_ids, gt_boxes, gt_masks, config)
        DetectionTargetLayer(config, **kwargs)
        refine_detections_graph(rois, probs, deltas, window, config)
        DetectionLayer(config, **kwargs)
        rpn_graph(feature_map, anchors_per_location, anchor_stride)
        build_rpn_model(anchor_stride, anchors_per_location, depth)
        fpn_classifier_graph(rois, feature_maps, image_meta, pool_size, num_classes,\
            train_bn=True, fc_layers_size=1024)
        build_fpn_mask_graph(rois, feature_maps, image_meta, pool_size, num_classes,\
            train_bn=True)
        smooth_l1_loss(y_true, y_pred)
        rpn_class_loss_graph(rpn_match, rpn_class_logits)
        rpn_bbox_loss_graph(config, target_bbox, rpn_match, rpn_bbox)
        mrcnn_class_loss_graph(target_class_ids, pred_class_logits, active_class_ids)
        mrcnn_bbox_loss_graph(target_bbox, target_class_ids, pred_bbox)
        mrcnn_mask_loss_graph(target_masks, target_class_ids, pred_masks)
        load_image_gt(dataset, config, image_id, augment=False, augmentation=None,\
            use_mini_mask=False)
        build_detection_targets(rpn_rois, gt_class_ids, gt_boxes, gt_masks, config)
        build_rpn_targets(image_shape, anchors, gt_class_ids, gt_boxes, config)
        generate_random_rois(image_shape, count, gt_class_ids, gt_boxes)
        data_generator(dataset, config, shuffle=True, augment=False, augmentation=None,\
            random_rois=0, batch_size=1, detection_targets=False, no_augmentation_sources=None)
        compose_image_meta(image_id, original_image_shape, image_shape, window, scale,\
            active_class_ids)
        parse_image_meta(meta)
        parse_image_meta_graph(meta)
        mold_image(images, config)
        unmold_image(normalized_images, config)
        trim_zeros_graph(boxes, name="trim_zeros")
        batch_pack_graph(x, counts, num_rows)
        norm_boxes_graph(boxes, shape)
        denorm_boxes_graph(boxes, shape)
    """,
    modellib.MaskRCNN: """
        __init__(self, mode, config, model_dir)
        build(self, mode, config)
        find_last(self)
        load_weights(self, filepath, by_name=False, exclude=None)
        get_imagenet_weights(self)
        compile(self, learning_rate, momentum)
        set_trainable(self, layer_regex, keras_model=None, indent=0, verbose=1)
        set_log_dir(self, model_path=None)
        train(self, train_dataset, val_dataset, learning_rate, epochs, layers, augmentation=None,\
            custom_callbacks=None, no_augmentation_sources=None)
        mold_inputs(self, images)
        unmold_detections(self, detections, mrcnn_mask, original_image_shape, image_shape, window)
        detect(self, images, verbose=0)
        detect_molded(self, molded_images, image_metas, verbose=0)
        get_anchors(self, image_shape)
        ancestor(self, tensor, name, checked=None)
        find_trainable_layer(self, layer)
        get_trainable_layers(self)
        run_graph(self, images, outputs, image_metas=None)
    """,
    mrcnn.parallel_model: """
        ParallelModel(keras_model, gpu_count)
    """,
    mrcnn.config.Config: """
        display(self)
    """,
}
DECLARED = [
    pytest.param(place, line, id=f"{place.__name__}.{line.partition('(')[0]}")
    for place, text in SIGNATURES.items()
    for line in map(str.strip, text.strip().splitlines())
]


@pytest.mark.parametrize(("place", "line"), DECLARED)
def test_declaration(place, line):
    """Old arguments have their names, places and defaults; new ones may be left out."""
    name, _, arguments = line.partition("(")
    old = inspect.signature(eval(f"lambda {arguments.removesuffix(')')}: None")).parameters
    new = inspect.signature(getattr(place, name)).parameters
    for own, given in itertools.zip_longest(new.values(), old.values()):
        if given is None:
            assert own.default is not own.empty or own.kind is own.VAR_KEYWORD, own
        elif given.kind is given.VAR_KEYWORD:
            assert any(parameter.kind is given.kind for parameter in new.values())
            break
        else:
            assert own.name == given.name
            # What had to be given may have a default now.
            assert given.default is given.empty or own.default == given.default


def test_what_is_no_function():
    assert utils.COCO_MODEL_URL.endswith("/v2.0/mask_rcnn_coco.h5")
    assert issubclass(modellib.BatchNorm, keras.layers.BatchNormalization)


@pytest.mark.parametrize("module", [utils, modellib])
def test_all_names_of_a_module_exist(module):
    assert all(hasattr(module, name) for name in module.__all__)


def test_scripts_find_what_matterports_modules_had_imported(tensorflow):
    names = {}
    exec("from mrcnn.model import *", names)
    assert names["tf"] is modellib.tf is utils.tf is tensorflow
    assert (names["KL"], names["KM"]) == (keras.layers, keras.models)
    assert names["utils"] is utils and names["os"] is os
    assert modellib.KE.Layer is keras.layers.Layer
    assert callable(modellib.multiprocessing.cpu_count) and callable(modellib.K.image_data_format)
    assert callable(utils.urllib.request.urlopen) and callable(utils.skimage.io.imread)
    assert "tf" not in vars(utils)  # nobody waits for it who does not ask
    with pytest.raises(AttributeError, match="module 'mrcnn.utils' has no attribute 'KL'"):
        utils.KL  # noqa: B018


def test_parallel_model_says_what_to_write():
    with pytest.raises(RuntimeError, match="Set GPU_COUNT = 2 in your Config"):
        mrcnn.parallel_model.ParallelModel(None, gpu_count=2)


def random_boxes(rng, *shape):
    corner = rng.uniform(0, 0.6, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (*shape, 2))], -1, dtype="f4")


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def proposals(rng):
    """Boxes, class probabilities and deltas of two images."""
    probabilities = rng.dirichlet(np.ones(3), (2, 20)).astype("float32")
    deltas = rng.normal(0, 0.3, (2, 20, 3, 4)).astype("float32")
    return random_boxes(rng, 2, 20), probabilities, deltas


@pytest.fixture
def ground_truth(rng):
    """Class ids, normalised boxes and mini-masks of two images, the second of one instance."""
    ids = np.array([[1, 2, 1], [2, 0, 0]], np.int32)
    boxes = random_boxes(rng, 2, 3) * (ids[..., None] > 0)
    return ids, boxes, rng.random((2, 14, 14, 3)) > 0.5


def pyramid(rng, side=64, batch=2, depth=4):
    return [
        rng.normal(size=(batch, side // stride, side // stride, depth)).astype("float32")
        for stride in (4, 8, 16, 32)
    ]


def image_meta(side=64, batch=2):
    shape = (side, side, 3)
    window = (4, 0, side - 4, side)
    return np.float32([modellib.compose_image_meta(0, shape, shape, window, 1, [1, 1, 1])] * batch)


class TestLayers:
    """Called with one list of inputs, eagerly and in a functional model."""

    def both(self, layer, inputs):
        symbols = [keras.Input(batch_shape=part.shape, dtype=part.dtype) for part in inputs]
        model = keras.Model(symbols, layer(symbols))
        return keras.tree.flatten(layer(inputs)), keras.tree.flatten(model(inputs))

    def test_proposals(self, rng, tiny_config):
        config = tiny_config(PRE_NMS_LIMIT=30, CLAMP_DELTAS=True)
        scores = rng.dirichlet(np.ones(2), (2, 60)).astype("float32")
        deltas = rng.normal(0, 0.5, (2, 60, 4)).astype("float32")
        anchors = random_boxes(rng, 2, 60)
        layer = modellib.ProposalLayer(
            proposal_count=10, nms_threshold=0.6, name="ROI", config=config
        )
        expected = rpn.ProposalLayer(10, 0.6, 30, config.RPN_BBOX_STD_DEV, True)(
            scores, deltas, anchors
        )
        for found in self.both(layer, [scores, deltas, anchors]):
            same(found, [expected])
        same([layer(scores, deltas, anchors)], [expected])
        again = modellib.ProposalLayer.from_config(layer.get_config())
        same([again([scores, deltas, anchors])], [expected])

    def test_roi_align(self, rng, proposals):
        maps, boxes = pyramid(rng), proposals[0]
        layer = modellib.PyramidROIAlign([7, 7], name="roi_align_classifier")
        expected = roi_align.PyramidROIAlign((7, 7))(boxes, maps)
        for found in self.both(layer, [boxes, image_meta(), *maps]):
            same(found, [expected])
        same([layer(boxes, maps)], [expected])

    def test_detections(self, tiny_config, proposals):
        config = tiny_config()
        layer = modellib.DetectionLayer(config, name="mrcnn_detection")
        windows = image_meta()[:, 7:11]
        expected = detection.DetectionLayer(config)(*proposals, windows, np.array([64, 64]))
        assert np.asarray(expected)[..., 5].any()
        for found in self.both(layer, [*proposals, image_meta()]):
            same(found, [expected])
        same([layer(*proposals, windows, np.array([64, 64]))], [expected])

    def test_targets(self, tiny_config, proposals, ground_truth):
        config = tiny_config(ADD_GT_TO_PROPOSALS=True)
        frame = np.array([64, 64])
        inputs = [proposals[0], *ground_truth]
        layer = modellib.DetectionTargetLayer(config)
        *expected, masks = targets.DetectionTargetLayer(config)(*inputs, frame)
        *found, padded = layer(inputs)
        same(found, expected)
        same([padded[:, : masks.shape[1]]], [masks])
        assert padded.shape == (2, config.TRAIN_ROIS_PER_IMAGE, *config.MASK_SHAPE)
        assert not np.asarray(padded[:, masks.shape[1] :]).any()
        assert [part.shape for part in self.both(layer, inputs)[1]] == [
            part.shape for part in (*found, padded)
        ]
        same(
            modellib.DetectionTargetLayer(config)(*inputs, frame),
            targets.DetectionTargetLayer(config)(*inputs, frame),
        )

    @pytest.mark.parametrize("training", [False, True, None])
    def test_batch_norm_keeps_to_what_it_is_told(self, rng, training):
        layer = modellib.BatchNorm(name="bn")
        image = keras.Input((4, 4, 2))
        model = keras.Model(image, layer(image, training=training))
        values = rng.normal(5, 2, (3, 4, 4, 2)).astype("float32")
        results = [
            ops.convert_to_numpy(model(values, training=mode)).mean() for mode in (False, True)
        ]
        frozen, by_batch = pytest.approx(values.mean(), rel=1e-2), pytest.approx(0, abs=1e-2)
        expected = {False: (frozen, frozen), True: (by_batch, by_batch), None: (frozen, by_batch)}
        assert results[0] == expected[training][0]
        assert results[1] == expected[training][1]


class TestGraphs:
    def test_refine_detections(self, tiny_config, proposals):
        config = tiny_config()
        window = image_meta()[0, 7:11]
        expected = detection.DetectionLayer(config)(
            *(part[:1] for part in proposals), window[None], np.array([64, 64])
        )
        found = modellib.refine_detections_graph(
            *(part[0] for part in proposals), norm_boxes(window, (64, 64)), config
        )
        np.testing.assert_allclose(found, expected[0], atol=1e-6)

    def test_detection_targets(self, tiny_config, proposals, ground_truth):
        config = tiny_config(ADD_GT_TO_PROPOSALS=True)
        found = modellib.detection_targets_graph(
            proposals[0][0], *(part[0] for part in ground_truth), config
        )
        inputs = [proposals[0][:1], *(part[:1] for part in ground_truth)]
        expected = modellib.DetectionTargetLayer(config)(inputs)
        same(found, [part[0] for part in expected])

    def test_rpn(self, rng):
        level = pyramid(rng)[1]
        shapes = [
            tuple(part.shape) for part in modellib.rpn_graph(ops.convert_to_tensor(level), 3, 1)
        ]
        assert shapes == [(2, 192, 2), (2, 192, 2), (2, 192, 4)]

    def test_classifier(self, rng, proposals):
        maps = [ops.convert_to_tensor(level) for level in pyramid(rng)]
        logits, probabilities, deltas = modellib.fpn_classifier_graph(
            proposals[0], maps, image_meta(), 7, 3, train_bn=False, fc_layers_size=16
        )
        assert (logits.shape, deltas.shape) == ((2, 20, 3), (2, 20, 3, 4))
        found, expected = map(ops.convert_to_numpy, (probabilities, ops.softmax(logits)))
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_masks(self, rng, proposals):
        maps = [ops.convert_to_tensor(level) for level in pyramid(rng)]
        masks = modellib.build_fpn_mask_graph(proposals[0], maps, image_meta(), 14, 3, False)
        assert masks.shape == (2, 20, 28, 28, 3)

    def test_both_in_a_functional_model(self, rng, proposals):
        maps = pyramid(rng)
        symbols = [keras.Input(part.shape[1:]) for part in (proposals[0], *maps)]
        rois, *levels = symbols
        _, classes, deltas = modellib.fpn_classifier_graph(rois, levels, None, 7, 3, False, 16)
        masks = modellib.build_fpn_mask_graph(rois, levels, None, 14, 3, train_bn=False)
        model = keras.Model(symbols, [classes, deltas, masks])
        assert {"mrcnn_box_branch", "mrcnn_mask_branch"} <= {la.name for la in model.layers}
        assert isinstance(model.get_layer("mrcnn_box_branch"), heads.BoxBranch)
        assert [part.shape for part in model([proposals[0], *maps])] == [
            *((2, 20, 3), (2, 20, 3, 4), (2, 20, 28, 28, 3))
        ]


class TestTensors:
    def test_numpy_and_tensor_forms_agree(self, rng):
        first, second = random_boxes(rng, 6), random_boxes(rng, 6)
        tensors = ops.convert_to_tensor(first), ops.convert_to_tensor(second)
        for tensor_form, form in (
            (utils.box_refinement_graph, box_refinement),
            (modellib.apply_box_deltas_graph, utils.apply_box_deltas),
            (modellib.overlaps_graph, compute_overlaps),
        ):
            np.testing.assert_allclose(tensor_form(*tensors), form(first, second), rtol=1e-5)

    def test_clipping(self):
        boxes = ops.convert_to_tensor([[-1.0, 0.2, 0.5, 3.0]])
        window = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
        same([modellib.clip_boxes_graph(boxes, window)], [np.float32([[0, 0.2, 0.5, 1]])])

    def test_image_meta(self):
        meta = image_meta()
        parts = modellib.parse_image_meta_graph(ops.convert_to_tensor(meta))
        expected = modellib.parse_image_meta(meta)
        assert parts.keys() == expected.keys()
        same(parts.values(), expected.values())

    def test_padding_is_trimmed(self):
        boxes = np.float32([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0.5], [0, 0, 0, 0]])
        trimmed, there = modellib.trim_zeros_graph(boxes, name="trim_gt")
        same([trimmed, there], [boxes[[0, 2]], [True, False, True, False]])

    def test_rows_are_packed(self):
        x = ops.convert_to_tensor(np.arange(12).reshape(3, 4))
        same([modellib.batch_pack_graph(x, np.array([2, 0, 3]), 3)], [[0, 1, 8, 9, 10]])

    def test_batch_slice(self):
        x, y = np.arange(6.0).reshape(3, 2), np.arange(3.0)
        tensor = utils.batch_slice([x, y], lambda a, b: ops.convert_to_tensor(a) * b, 3)
        same([tensor], [x * y[:, None]])
        both = utils.batch_slice([x, y], lambda a, b: (a + b, a - b), 2, names=["sum", "rest"])
        same(both, [(x + y[:, None])[:2], (x - y[:, None])[:2]])
        same([utils.batch_slice(x, lambda a: a * 2, 3)], [2 * x])
        same([utils.batch_slice(x, lambda a: [a], 3)], [x])


class TestRandomRois:
    def test_lie_in_the_image_and_have_an_area(self, rng):
        boxes = np.array([[0, 0, 8, 6], [20, 30, 48, 64]])
        rois = generate_random_rois((48, 64, 3), 200, np.array([1, 2]), boxes)
        assert (rois.shape, rois.dtype) == ((200, 4), np.int32)
        assert (rois[:, 2:] > rois[:, :2]).all()
        assert (rois[:, :2] >= 0).all() and (rois[:, 2:] <= [48, 64]).all()

    def test_nine_in_ten_are_about_an_instance(self):
        np.random.seed(0)  # one of the whole image's could lie about the instance, too
        rois = generate_random_rois((480, 640, 3), 100, np.array([1]), np.array([[60, 60, 70, 80]]))
        near = (rois >= [50, 40, 50, 40]).all(axis=1) & (rois <= [80, 100, 80, 100]).all(axis=1)
        assert near[:90].all() and not near[90:].all()

    def test_without_an_instance(self):
        assert generate_random_rois((48, 64, 3), 7, np.zeros(0), np.zeros((0, 4))).shape == (7, 4)

    def test_follow_the_global_random_state(self):
        results = []
        for _ in range(2):
            np.random.seed(5)
            results.append(generate_random_rois((48, 64, 3), 9, [1], [[4, 4, 20, 30]]))
        np.testing.assert_array_equal(*results)


class TestDetectionTargets:
    @pytest.fixture
    def case(self, tiny_config):
        config = tiny_config(USE_MINI_MASK=False, TRAIN_ROIS_PER_IMAGE=12)
        mask = np.zeros((64, 64, 2), bool)
        mask[8:28, 8:28, 0] = mask[36:60, 30:58, 1] = True
        rois = np.array([[8, 8, 28, 30], [36, 28, 60, 58], [0, 30, 20, 60], [40, 0, 60, 20]])
        return rois, np.array([2, 1]), extract_bboxes(mask), mask, config

    def test_every_region_has_its_class(self, case):
        rois, class_ids, deltas, masks = build_detection_targets(*case)
        assert len(rois) == len(class_ids) == len(deltas) == len(masks) == 12
        classes = {tuple(roi): int(class_id) for roi, class_id in zip(rois, class_ids, strict=True)}
        assert classes == {
            tuple(roi): label for roi, label in zip(case[0], (2, 1, 0, 0), strict=True)
        }

    def test_deltas_and_masks_lie_at_the_class(self, case):
        rois, class_ids, deltas, masks = build_detection_targets(*case)
        gt_ids, gt_boxes, std = case[1], case[2], case[4].BBOX_STD_DEV
        for roi, label, delta, mask in zip(rois, class_ids, deltas, masks, strict=True):
            others = [other for other in range(3) if other != label or not label]
            assert not delta[others].any() and not mask[..., others].any()
            if label:
                box = gt_boxes[gt_ids == label][0]
                np.testing.assert_allclose(
                    utils.apply_box_deltas(roi[None], delta[None, label] * std)[0], box, atol=1e-4
                )
                assert mask[..., label].mean() > 0.8

    @pytest.mark.parametrize(("roi", "label"), [((10, 10, 16, 16), 1), ((10, 10, 15, 16), 0)])
    def test_small_regions_are_judged_by_their_pixels(self, tiny_config, roi, label):
        """6 and 5 of the instance's 11 rows; normalised, they would be 5 and 4 of 10."""
        mask = np.zeros((64, 64, 1), bool)
        mask[10:21, 10:16] = True
        config = tiny_config(USE_MINI_MASK=False, TRAIN_ROIS_PER_IMAGE=4)
        case = np.array([roi]), np.array([1]), extract_bboxes(mask), mask, config
        found, class_ids, *_ = build_detection_targets(*case)
        assert class_ids[np.argmax(np.all(found == roi, axis=1))] == label

    def test_without_negatives_the_rest_is_zero(self, case):
        rois, *ground_truth = case
        found, class_ids, deltas, masks = build_detection_targets(rois[:2], *ground_truth)
        assert {tuple(roi) for roi in found[:2]} == {tuple(roi) for roi in rois[:2]}
        assert not found[2:].any() and not class_ids[2:].any() and not masks[2:].any()

    def test_image_without_an_instance(self, case):
        rois, *_, config = case
        empty = np.zeros(0, int), np.zeros((0, 4), int), np.zeros((64, 64, 0), bool)
        found, class_ids, deltas, masks = build_detection_targets(rois, *empty, config)
        assert {tuple(roi) for roi in found} == {tuple(roi) for roi in rois}
        assert not class_ids.any() and not deltas.any() and not masks.any()


class TestGenerator:
    def test_is_endless_and_sees_all_images(self, rectangles, tiny_config):
        generator = data_generator(rectangles(), tiny_config(), shuffle=False, batch_size=3)
        ids = [next(generator)[0][1][:, 0].astype(int).tolist() for _ in range(4)]
        assert ids == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]]

    def test_inputs_are_those_of_the_network(self, rectangles, tiny_config):
        inputs, outputs = next(data_generator(rectangles(), tiny_config(), batch_size=1))
        assert outputs == ()
        assert [(part.shape[1:], part.dtype) for part in inputs] == [
            ((64, 64, 3), np.float32),
            ((15,), np.float32),
            ((60, 1), np.int32),
            ((16, 4), np.float32),
            ((3,), np.int32),
            ((3, 4), np.int32),
            ((14, 14, 3), bool),
        ]

    def test_regions_and_their_targets(self, rectangles, tiny_config):
        config = tiny_config()
        generator = data_generator(rectangles(), config, random_rois=30, batch_size=2)
        inputs, outputs = next(generator)
        assert inputs[7].shape == (2, 30, 4) and outputs == ()
        generator = data_generator(
            rectangles(), config, random_rois=30, batch_size=2, detection_targets=True
        )
        inputs, outputs = next(generator)
        assert inputs[8].shape == (2, 8, 4)
        shapes = [part.shape for part in outputs]
        assert shapes == [(2, 8, 1), (2, 8, 3, 4), (2, 8, 28, 28, 3)]

    def test_regions_come_before_semantic_maps(self, rectangles, tiny_config):
        config = tiny_config(SEMANTIC_BRANCH=True)
        inputs, _ = next(data_generator(rectangles(), config, random_rois=30, batch_size=2))
        assert [part.shape for part in inputs[7:]] == [(2, 30, 4), (2, 16, 16, 2)]

    def test_order_follows_the_global_random_state(self, rectangles, tiny_config):
        metas = []
        for _ in range(2):
            np.random.seed(1)
            inputs, _ = next(data_generator(rectangles(), tiny_config(), batch_size=4))
            metas.append(inputs[1])
        np.testing.assert_array_equal(*metas)

    def test_unusable_image_is_named(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: (np.ones((1, 1, 1), bool), np.array([1]))
        with pytest.raises(ValueError, match="image0.png"):
            next(data_generator(dataset, tiny_config(), shuffle=False))

    def test_targets_need_regions(self, rectangles, tiny_config):
        with pytest.raises(ValueError, match="needs random_rois"):
            next(data_generator(rectangles(), tiny_config(), detection_targets=True))


class TestRest:
    @pytest.mark.parametrize("mini", [True, False])
    def test_mold_mask(self, tiny_config, mini):
        mask = np.zeros((40, 50, 1), bool)
        mask[10:30, 5:25] = True
        molded = utils.mold_mask(mask, tiny_config(USE_MINI_MASK=mini))
        assert molded.shape == ((14, 14, 1) if mini else mask.shape)
        assert molded.mean() == (1 if mini else mask.mean())

    def test_log(self, capsys):
        log("image", np.array([[1, 250]], np.uint8))
        log("nothing", np.zeros((0, 4)))
        log("mask", np.array([True]))
        log("Processing 1 images")
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == "image shape: (1, 2) range: 1 to 250 uint8".split()
        assert "shape: (0, 4)" in lines[1] and "empty" in lines[1]
        assert lines[3] == "Processing 1 images"

    def test_released_weights_are_fetched_to_the_path_given(self, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr("mrcnn.compat.download", lambda *request: asked.append(request))
        utils.download_trained_weights(str(tmp_path / "mask_rcnn_coco.h5"))
        (request,) = asked
        assert request[:2] == (utils.COCO_MODEL_URL, str(tmp_path / "mask_rcnn_coco.h5"))
        assert request[2] == 257557808


class TestNetwork:
    """What notebooks ask of `keras_model`."""

    @pytest.fixture(scope="class")
    @staticmethod
    def training(tiny_config, tmp_path_factory):
        keras.utils.set_random_seed(0)
        return modellib.MaskRCNN("training", tiny_config(), tmp_path_factory.mktemp("training"))

    @pytest.fixture(scope="class")
    @staticmethod
    def inference(tiny_config, tmp_path_factory):
        keras.utils.set_random_seed(0)
        return modellib.MaskRCNN("inference", tiny_config(), tmp_path_factory.mktemp("inference"))

    @pytest.fixture
    def image(self, rng):
        return rng.integers(256, size=(48, 60, 3), dtype=np.uint8)

    def test_names_of_inputs_and_outputs(self, training, inference):
        assert training.keras_model.name == inference.keras_model.name == "mask_rcnn"
        assert [tensor.name for tensor in inference.keras_model.inputs] == [
            *("input_image", "input_image_meta", "input_anchors")
        ]
        assert training.keras_model.output_names == [
            *("rpn_class_logits", "rpn_class", "rpn_bbox"),
            *("mrcnn_class_logits", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask"),
            *("ROI", "output_rois"),
            *("rpn_class_loss", "rpn_bbox_loss"),
            *("mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"),
        ]
        assert inference.keras_model.output_names == [
            *("mrcnn_detection", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask"),
            *("ROI", "rpn_class", "rpn_bbox"),
        ]

    @pytest.mark.parametrize(
        "name",
        [
            *("input_image", "fpn_c5p5", "fpn_p4add", "fpn_p2", "rpn_model"),
            *("rpn_class", "rpn_bbox", "ROI", "mrcnn_class_logits"),
            *("mrcnn_class", "mrcnn_bbox", "mrcnn_mask"),
        ],
    )
    def test_layers_of_both_modes_have_outputs(self, training, inference, name):
        for model in (training, inference):
            assert model.keras_model.get_layer(name).output is not None

    @pytest.mark.parametrize(
        "name",
        [
            "rpn_class_logits",
            "proposal_targets",
            "output_rois",
            "rpn_class_loss",
            "mrcnn_mask_loss",
            "input_gt_masks",
        ],
    )
    def test_layers_of_training(self, training, name):
        assert training.keras_model.get_layer(name).output is not None

    @pytest.mark.parametrize(
        "name",
        [
            *("rpn_conv_shared", "rpn_class_raw", "rpn_class_xxx", "rpn_bbox_pred"),
            *("roi_align_classifier", "roi_align_mask", "pool_squeeze"),
            *("mrcnn_class_conv1", "mrcnn_class_bn2", "mrcnn_bbox_fc", "mrcnn_mask_deconv"),
        ],
    )
    def test_layers_inside_others_are_found(self, inference, name):
        assert inference.keras_model.get_layer(name).name == name

    def test_unknown_layer(self, inference):
        with pytest.raises(ValueError, match="No such layer: mrcnn_masks"):
            inference.keras_model.get_layer("mrcnn_masks")

    @pytest.mark.parametrize("name", ["mrcnn_class_logits", "mrcnn_mask"])
    def test_last_layers_show_their_weights(self, inference, name):
        kernel, bias = inference.keras_model.get_layer(name).get_weights()
        assert kernel.shape[-1] == bias.shape[0] == 3

    def test_layers_with_weights(self, inference):
        layers = inference.get_trainable_layers()
        names = [layer.name for layer in layers]
        assert len(names) == len(set(names))
        assert {"res1_conv", "fpn_p2", "rpn_conv_shared", "mrcnn_bbox_fc", "mrcnn_mask"} <= set(
            names
        )
        assert sum(len(layer.get_weights()) for layer in layers) == len(
            inference.keras_model.weights
        )
        wrapper = inference.keras_model.get_layer("mrcnn_mask")
        assert inference.find_trainable_layer(wrapper) in layers
        assert inference.find_trainable_layer(layers[0]) is layers[0]

    def test_ancestor(self, inference):
        network = inference.keras_model
        rois = network.get_layer("ROI").output
        assert inference.ancestor(rois, "rpn_bbox") is network.get_layer("rpn_bbox").output
        assert inference.ancestor(rois, "fpn_p4:0") is network.get_layer("fpn_p4").output
        assert inference.ancestor(rois, r"res1_.*") is network.get_layer("res1_conv").output
        assert inference.ancestor(rois, "mrcnn_mask") is None
        assert inference.ancestor(rois, "FPN_P4") is None
        found = inference.ancestor(rois, re.compile("FPN_P4", re.IGNORECASE))
        assert found is network.get_layer("fpn_p4").output
        with pytest.raises(ValueError, match=r"get_layer\('ROI'\).*docs/migration.md"):
            inference.ancestor(rois, "ROI/refined_anchors:0")

    @pytest.mark.parametrize("mode", ["training", "inference"])
    def test_run_graph(self, request, mode, image, capsys):
        model = request.getfixturevalue(mode)
        wanted = [
            (name, model.keras_model.get_layer(name).output) for name in ("fpn_p3", "rpn_bbox")
        ]
        values = model.run_graph([image], wanted)
        assert {name: value.shape for name, value in values.items()} == {
            **{"fpn_p3": (1, 8, 8, 8), "rpn_bbox": (1, 60, 4)}
        }
        assert "fpn_p3" in capsys.readouterr().out
        molded, metas, _ = model.mold_inputs([image])
        again = model.run_graph(molded, wanted, image_metas=metas)
        np.testing.assert_array_equal(again["fpn_p3"], values["fpn_p3"])

    def test_run_graph_of_training_targets(self, training, image):
        network = training.keras_model
        with pytest.raises(ValueError, match="'targets' cannot be computed from images alone"):
            training.run_graph([image], [("targets", network.get_layer("output_rois").output)])
        of_inference = network.inference.get_layer("mrcnn_class").output
        assert training.run_graph([image], [("c", of_inference)])["c"].shape == (1, 20, 3)

    def test_run_graph_wants_tensors(self, inference, image):
        with pytest.raises(TypeError, match="'nms' must be a tensor of the network.*None"):
            inference.run_graph([image], [("nms", None)])

    def test_detect_says_what_goes_in(self, inference, image, capsys):
        inference.detect([image], verbose=1)
        printed = capsys.readouterr().out
        assert printed.startswith("Processing 1 images\n")
        assert "molded_images" in printed and "image_metas" in printed

    def test_weights_by_the_methods_of_keras(self, training, inference, tmp_path):
        for name in ("mask_rcnn_shapes.h5", "shapes.weights.h5"):
            training.keras_model.save_weights(str(tmp_path / name))
            report = inference.keras_model.load_weights(tmp_path / name)
            assert len(report.loaded) == len(inference.keras_model.weights)
        with pytest.raises(FileExistsError, match="shapes.weights.h5 exists"):
            training.keras_model.save_weights(tmp_path / name, overwrite=False)

    def test_whole_model_in_the_old_format_of_keras(self, inference, tmp_path, caplog):
        """It lists twice what a layer is wrapped in."""
        inference.keras_model.save(tmp_path / "whole.h5")
        report = inference.keras_model.load_weights(tmp_path / "whole.h5")
        assert len(report.loaded) == len(inference.keras_model.weights)
        assert not report.unused and "lacks" not in caplog.text

    @pytest.mark.parametrize("top", ["", "model_weights/"], ids=["weights", "whole model"])
    def test_checkpoint_that_matterport_wrote(self, training, tmp_path, top):
        """It is read by its Keras 2 names, and the run goes on in its folder after its epoch."""
        path = tmp_path / "tiny20171029T2315" / "mask_rcnn_tiny_0012.h5"
        path.parent.mkdir()
        arrays = {
            name: w.variable.numpy() for name, w in named_weights(training.keras_model).items()
        }
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                layer = name.split("/")[0]
                group = "rpn_model" if layer.startswith("rpn_") else layer
                file[f"{top}{group}/{name}:0"] = array + 1
        report = training.load_weights(str(path), by_name=True)
        assert len(report.loaded) == len(arrays)
        kernel = training.keras_model.get_layer("rpn_conv_shared").kernel
        np.testing.assert_array_equal(kernel, arrays["rpn_conv_shared/kernel"] + 1)
        assert (training.epoch, training.log_dir) == (12, str(path.parent))
        assert training.checkpoint_path.format(epoch=13) == str(
            path.with_name("mask_rcnn_tiny_0013.h5")
        )
        training.set_log_dir()
        assert training.epoch == 0

    def test_regions_in_pixels_are_an_eighth_input(self, rectangles, tiny_config, tmp_path):
        config = tiny_config(USE_RPN_ROIS=False, POST_NMS_ROIS_TRAINING=30)
        model = modellib.MaskRCNN("training", config, tmp_path)
        inputs, _ = next(data_generator(rectangles(), config, random_rois=30, batch_size=2))
        outputs = model.keras_model(inputs)
        expected = norm_boxes(inputs[7], (64, 64))
        np.testing.assert_allclose(outputs[7], expected, atol=1e-6)

    def test_keras_learns_from_regions_in_pixels(self, eagerly, rectangles, tiny_config, tmp_path):
        config = tiny_config(USE_RPN_ROIS=False, POST_NMS_ROIS_TRAINING=30)
        model = modellib.MaskRCNN("training", config, tmp_path)
        model.compile(0.01)
        batches = data_generator(rectangles(), config, random_rois=30, batch_size=2)
        history = model.keras_model.fit_generator(
            *(batches, 1),
            verbose=0,
            max_queue_size=100,
            workers=4,
            use_multiprocessing=True,
        )
        assert np.isfinite(history.history["loss"]).all()

    def test_batches_are_others_in_every_epoch(self, eagerly, rectangles, tiny_config, tmp_path):
        config = tiny_config()
        model = modellib.MaskRCNN("training", config, tmp_path)
        model.compile(0.01)
        batches, epochs = Batches(rectangles(), config, steps=1), []
        model.keras_model.fit(
            batches,
            epochs=3,
            verbose=0,
            callbacks=keras.callbacks.LambdaCallback(
                on_train_batch_begin=lambda batch, logs: epochs.append(batches.epoch)
            ),
        )
        assert epochs == [0, 1, 2]

    def test_momentum(self, training):
        training.compile(0.01, 0.5)
        assert training.keras_model.optimizer.momentum == 0.5
        training.compile(0.01)
        assert training.keras_model.optimizer.momentum == 0.9

    def test_examples_of_the_migration_guide(self, inference, image):
        guide = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
        blocks = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL)
        names = {"model": inference, "config": inference.config, "image": image}
        names |= {"np": np, "utils": utils}
        for name in ("rpn_class_raw", "rpn_bbox_pred"):  # no scores that tie at one
            kernel = inference.keras_model.get_layer(name).kernel
            kernel.assign(0.01 * kernel)
        for block in blocks:
            exec(block, names)
        roi = inference.keras_model.get_layer("ROI").output
        rois = inference.run_graph([image], [("ROI", roi)])["ROI"][0]
        np.testing.assert_allclose(names["proposals"], rois[: len(names["proposals"])], atol=1e-6)
        assert not rois[len(names["proposals"]) :].any()
        assert names["features"].shape == (1, 20, 7, 7, 8)


class TestImagenetWeights:
    @pytest.mark.parametrize("word", [None, "imagenet"])
    def test_load_weights_takes_what_get_imagenet_weights_gives(
        self, tiny_config, tmp_path, monkeypatch, word
    ):
        """Keras's names, and its order of colours, become matterport's."""
        path = tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
        kernel = np.random.default_rng(0).normal(size=(7, 7, 3, 64)).astype("float32")
        save_arrays(path, {"conv1_conv/kernel": kernel, "conv1_conv/bias": np.zeros(64, "f4")})
        monkeypatch.setattr("mrcnn.backbone.fetch", lambda name: tmp_path / name)
        config = tiny_config(BACKBONE="resnet50")
        model = modellib.MaskRCNN("training", config, tmp_path)
        report = model.load_weights(word or model.get_imagenet_weights(), by_name=True)
        assert report.loaded == ["conv1/kernel", "conv1/bias"]
        found = model.keras_model.get_layer("conv1").kernel
        np.testing.assert_array_equal(found, kernel[:, :, ::-1])
        assert model.epoch == 0
