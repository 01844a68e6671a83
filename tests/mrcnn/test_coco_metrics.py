import csv
import json
import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from mrcnn.coco import CocoDataset, coco_masks
from mrcnn.coco_metrics import (
    METRICS,
    AveragePrecision,
    class_rows,
    coco_results,
    confusion_matrix,
    evaluate_dataset,
)
from mrcnn.data import SampleError
from mrcnn.dataset import Dataset
from mrcnn.images import write_image
from mrcnn.masks import CompactMasks, compact_masks
from mrcnn.model import MaskRCNN
from mrcnn.weights import named_weights, read_metadata

SIZE = (200, 200)
SQUARE = (10, 10, 110, 110)
OTHER = (20, 120, 60, 160)


def mask_of(box):
    y1, x1, y2, x2 = box
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


class Detector:
    """Stands for a network that finds what it is told, image by image."""

    def __init__(self, *images, batch=2, classes=3):
        self.images = list(images)
        self.compact = None
        self.config = SimpleNamespace(
            BATCH_SIZE=batch,
            NUM_CLASSES=classes,
            IMAGE_CHANNEL_COUNT=3,
            IMAGE_RESIZE_MODE="square",
            DETECTION_MIN_CONFIDENCE=0.0,
        )

    def detect(self, images, compact=False):
        """Results of the next images; an instance is (class id, box, score[, mask])."""
        self.compact = compact
        found, self.images = self.images[: len(images)], self.images[len(images) :]
        results = [self.result(*instances) for instances in found]
        for result in results if compact else []:
            masks = np.moveaxis(result["masks"], -1, 0)
            result["masks"] = compact_masks(masks, [(0, 0, *SIZE)] * len(masks), SIZE)
        return results

    @staticmethod
    def result(*instances):
        instances = sorted(instances, key=lambda instance: -instance[2])
        masks = [i[3] if len(i) > 3 else mask_of(i[1]) for i in instances]
        return {
            "rois": np.array([i[1] for i in instances], np.int32).reshape(-1, 4),
            "class_ids": np.array([i[0] for i in instances], np.int32),
            "scores": np.array([i[2] for i in instances], np.float32),
            "masks": np.stack(masks, axis=2) if masks else np.zeros((*SIZE, 0), bool),
        }


class OldDetector(Detector):
    """One that knows nothing of compact masks."""

    def detect(self, images):
        return super().detect(images)


@pytest.fixture
def dataset(rectangles):
    return lambda *images: rectangles(list(images), size=SIZE)


def segm(detections, truth):
    return evaluate_dataset(Detector(*detections), truth)["segm"]


class TestEvaluate:
    def test_everything_found(self, dataset):
        truth = dataset([(1, SQUARE)], [(2, OTHER), (1, SQUARE)], [])
        found = [[(1, SQUARE, 0.9)], [(2, OTHER, 0.8), (1, SQUARE, 0.3)], []]
        result = evaluate_dataset(Detector(*found), truth)
        for kind in ("bbox", "segm"):
            metrics = result[kind]
            assert set(metrics) == {*METRICS, "per_class"}
            assert all(metrics[name] == pytest.approx(1) for name in ("AP", "AP50", "AP75"))
            assert metrics["AR100"] == pytest.approx(1)
            assert metrics["per_class"] == pytest.approx({"red": 1, "green": 1})

    def test_nothing_found(self, dataset):
        result = evaluate_dataset(Detector([], []), dataset([(1, SQUARE)], [(2, OTHER)]))
        for metrics in result.values():
            assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == 0
            assert metrics["per_class"] == {"red": 0, "green": 0}

    def test_one_of_two_found(self, dataset):
        # Precision is 1 at the recalls 0, 0.01, ..., 0.5 and 0 at the other fifty.
        metrics = segm([[(1, SQUARE, 0.9)]], dataset([(1, SQUARE), (1, OTHER)]))
        assert metrics["AP"] == pytest.approx(51 / 101)
        assert metrics["AR100"] == pytest.approx(0.5)

    def test_overlap_decides(self, dataset):
        # 82 of 100 columns: enough at the thresholds 0.5, 0.55, ..., 0.8, seven of ten.
        narrower = (10, 10, 110, 92)
        result = evaluate_dataset(Detector([(1, narrower, 0.9)]), dataset([(1, SQUARE)]))
        for metrics in result.values():
            assert metrics["AP"] == pytest.approx(0.7)
            assert (metrics["AP50"], metrics["AP75"]) == pytest.approx((1, 1))

    def test_boxes_and_masks_are_measured_apart(self, dataset):
        wrong = mask_of((10, 10, 40, 110))
        result = evaluate_dataset(Detector([(1, SQUARE, 0.9, wrong)]), dataset([(1, SQUARE)]))
        assert result["bbox"]["AP"] == pytest.approx(1)
        assert result["segm"]["AP"] == 0

    def test_images_without_objects_count(self, dataset):
        # The better score is of a detection where there is nothing: one of two is right.
        found = [[(1, SQUARE, 0.5)], [(1, SQUARE, 0.9)]]
        assert segm(found, dataset([(1, SQUARE)], []))["AP"] == pytest.approx(0.5)

    def test_right_place_and_wrong_class(self, dataset):
        metrics = segm([[(2, SQUARE, 0.9)]], dataset([(1, SQUARE), (2, OTHER)]))
        assert metrics["AP"] == 0

    def test_crowds_count_neither_way(self, dataset):
        crowd = (100, 100, 200, 200)
        found = [(1, OTHER, 0.5)] + [(1, (y, 120, y + 20, 150), 0.9) for y in (100, 130, 160)]
        assert segm([found], dataset([(1, OTHER), (-1, crowd)]))["AP"] == pytest.approx(1)
        # Without it they are wrong: one in four.
        assert segm([found], dataset([(1, OTHER)]))["AP"] == pytest.approx(0.25)

    def test_sizes_of_detections_are_those_of_their_masks(self, dataset):
        small, large_box = (0, 0, 20, 20), (100, 100, 180, 180)
        thin = mask_of((100, 100, 110, 180)) | mask_of((100, 100, 180, 102))
        found = [[(1, small, 0.5), (1, large_box, 0.9, thin)]]
        result = evaluate_dataset(Detector(*found), dataset([(1, small)]))
        # The wrong detection is small by its mask and not by its box.
        assert result["segm"]["APs"] == pytest.approx(0.5)
        assert result["bbox"]["APs"] == pytest.approx(1)

    def test_what_is_not_there_is_not_measured(self, dataset):
        metrics = segm([[(1, SQUARE, 0.9)]], dataset([(1, SQUARE)]))
        assert math.isnan(metrics["APs"])
        assert math.isnan(metrics["per_class"]["green"])
        assert metrics["AP"] == pytest.approx(1)

    def test_choice_of_images(self, dataset):
        truth = dataset([(1, SQUARE)], [(1, OTHER)], [(2, OTHER)])
        detector = Detector([(2, OTHER, 0.9)])
        assert evaluate_dataset(detector, truth, [2])["segm"]["AP"] == pytest.approx(1)

    def test_plain_numbers(self, dataset):
        result = evaluate_dataset(Detector([(1, SQUARE, 0.9)]), dataset([(1, SQUARE)]))
        assert json.loads(json.dumps(result))["segm"]["AP"] == pytest.approx(1)

    def test_equal_names_of_two_sources(self, dataset):
        truth = dataset([(1, SQUARE)])
        truth.add_class("more", 1, "red")
        truth.prepare()
        metrics = evaluate_dataset(Detector([(1, SQUARE, 0.9)], classes=4), truth)["segm"]
        assert set(metrics["per_class"]) == {"toys.red", "green", "more.red"}
        assert metrics["per_class"]["toys.red"] == pytest.approx(1)

    def test_coco_files_are_measured_by_their_own_boxes(self, tmp_path):
        write_image(tmp_path / "a.png", np.zeros((*SIZE, 3), np.uint8))
        annotation = {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "segmentation": [[10, 10, 110, 10, 110, 110, 10, 110]],
            "bbox": [10, 10, 100, 122],  # of which the mask's box is 82 per cent
        }
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
            "categories": [{"id": 1, "name": "square"}],
            "annotations": [annotation],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        truth = CocoDataset()
        truth.load_annotations(tmp_path / "a.json", tmp_path)
        result = evaluate_dataset(Detector([(1, SQUARE, 0.9)], classes=2), truth)
        assert result["segm"]["AP"] == pytest.approx(1)
        assert result["bbox"]["AP"] == pytest.approx(0.7)

        class Shifted(CocoDataset):
            def load_mask(self, image_id):
                masks, class_ids = super().load_mask(image_id)
                return np.roll(masks, 120, axis=1), class_ids

        other = Shifted()
        other.load_annotations(tmp_path / "a.json", tmp_path)
        result = evaluate_dataset(Detector([(1, SQUARE, 0.9)], classes=2), other)
        assert result["segm"]["AP"] == 0

    def test_unusable_image_is_named(self, dataset):
        truth = dataset([(1, SQUARE)])
        truth.load_mask = lambda image_id: (np.ones((5, 5, 1), bool), np.ones(1, np.int32))
        with pytest.raises(SampleError, match="image0.png"):
            evaluate_dataset(Detector([]), truth)

    def test_library_missing(self, dataset, monkeypatch):
        monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
        with pytest.raises(ImportError, match="pip install faster-coco-eval"):
            evaluate_dataset(Detector([]), dataset([]))

    def test_equals_pycocotools(self, dataset):
        pycocotools = pytest.importorskip("pycocotools")
        assert pycocotools
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        rng = np.random.default_rng(0)

        def box():
            y, x, height, width = rng.integers([0, 0, 8, 8], [100, 100, 100, 100]).tolist()
            return y, x, y + height, x + width

        images = [
            [(int(rng.choice([1, 2, -1])), box()) for _ in range(rng.integers(4))]
            for _ in range(20)
        ]
        found = []
        for instances in images:
            near = [
                (abs(c), tuple(np.add(b, rng.integers(-5, 6, 4)).clip(0, 200).tolist()))
                for c, b in instances
            ]
            extra = [(int(rng.choice([1, 2])), box())]
            found.append([(c, b, float(rng.random())) for c, b in near + extra])
        result = evaluate_dataset(Detector(*found), dataset(*images))

        def entry(number, image_id, class_id, box):
            code = mask.encode(np.asfortranarray(mask_of(box), np.uint8))
            y1, x1, y2, x2 = box
            return {
                "id": number,
                "image_id": image_id,
                "category_id": abs(class_id),
                "iscrowd": int(class_id < 0),
                "area": float(mask.area(code)),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": code,
            }

        truth = COCO()
        truth.dataset = {
            "images": [{"id": i, "height": 200, "width": 200} for i in range(20)],
            "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}],
            "annotations": [
                entry(100 * i + n, i, *instance)
                for i, instances in enumerate(images)
                for n, instance in enumerate(instances, 1)
            ],
        }
        truth.createIndex()
        for kind, key in (("bbox", "bbox"), ("segm", "segmentation")):
            detections = [
                {
                    "image_id": i,
                    "category_id": c,
                    "score": float(np.float32(score)),
                    key: entry(1, i, c, b)[key],
                }
                for i, instances in enumerate(found)
                for c, b, score in instances
            ]
            oracle = COCOeval(truth, truth.loadRes(detections), kind)
            oracle.evaluate()
            oracle.accumulate()
            oracle.summarize()
            measured = [result[kind][name] for name in METRICS]
            expected = np.where(oracle.stats < 0, np.nan, oracle.stats)
            np.testing.assert_allclose(measured, expected, atol=1e-12)


class TestResults:
    FOUND = Detector.result((1, SQUARE, 0.75), (2, OTHER, 0.5))

    def test_one_entry_for_each_detection(self):
        (result,) = Detector([(1, SQUARE, 0.75), (2, OTHER, 0.5)]).detect([None], compact=True)
        entries = coco_results(result, np.int64(42), [0, 90, 3])
        assert entries == coco_results(self.FOUND, 42, {1: 90, 2: 3})
        assert json.loads(json.dumps(entries)) == entries
        first, second = entries
        assert (first["image_id"], first["category_id"], first["score"]) == (42, 90, 0.75)
        assert second["category_id"] == 3
        assert second["bbox"] == [120, 20, 40, 40]
        decoded = coco_masks().decode(second["segmentation"])
        np.testing.assert_array_equal(decoded, mask_of(OTHER))

    def test_class_ids_by_default(self):
        assert [entry["category_id"] for entry in coco_results(self.FOUND, 1)] == [1, 2]

    def test_images_may_have_names(self):
        assert {entry["image_id"] for entry in coco_results(self.FOUND, "a.jpg")} == {"a.jpg"}

    def test_nothing_found(self):
        assert coco_results(Detector.result(), 1) == []


class TestMemory:
    @pytest.mark.parametrize("measure", [evaluate_dataset, confusion_matrix])
    def test_masks_are_never_all_in_the_whole_image(self, measure, dataset, monkeypatch):
        monkeypatch.setattr(CompactMasks, "full", None)
        truth = dataset([(1, SQUARE), (-1, SQUARE)], [])
        detector = Detector([(1, SQUARE, 0.9), (2, OTHER, 0.8)], [])
        measure(detector, truth)
        assert detector.compact

    @pytest.mark.parametrize("measure", [evaluate_dataset, confusion_matrix])
    def test_models_that_give_full_masks_alone(self, measure, dataset):
        found = [(1, SQUARE, 0.9), (2, OTHER, 0.8)]
        results = [measure(kind(found), dataset([(1, SQUARE)])) for kind in (Detector, OldDetector)]
        np.testing.assert_equal(*results)


class TestClassRows:
    COUNTS = [[0, 1, 0], [1, 6, 1], [0, 0, 0]]

    def test_by_hand(self):
        red, green = class_rows(self.COUNTS, ["BG", "red", "green"], {"red": 0.5, "green": np.nan})
        assert red == {
            "class": "red",
            "instances": 8,
            "detections": 7,
            "precision": 6 / 7,
            "recall": 6 / 8,
            "AP": 0.5,
        }
        assert (green["instances"], green["detections"], green["precision"]) == (0, 1, 0)
        assert math.isnan(green["recall"])

    def test_without_average_precision(self):
        assert "AP" not in class_rows(self.COUNTS, ["BG", "red", "green"])[0]

    def test_names_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"for 2 class_names.*received \(3, 3\)"):
            class_rows(self.COUNTS, ["BG", "red"])
        with pytest.raises(ValueError, match="no AP of class 'green', but of red"):
            class_rows(self.COUNTS, ["BG", "red", "green"], {"red": 0.5})


class TestConfusion:
    def test_by_hand(self, dataset):
        truth = dataset([(1, SQUARE), (2, OTHER)], [(2, SQUARE)], [])
        found = [
            [(1, SQUARE, 0.9), (2, (120, 120, 160, 160), 0.7)],  # right; nothing there
            [(1, SQUARE, 0.8), (2, OTHER, 0.2)],  # another class; too doubtful
            [(1, OTHER, 0.6)],
        ]
        counts = confusion_matrix(Detector(*found), truth)
        np.testing.assert_array_equal(counts, [[0, 1, 1], [0, 1, 0], [1, 1, 0]])

    def test_one_of_two_detections_of_an_instance_is_spurious(self, dataset):
        found = [(2, SQUARE, 0.9), (1, SQUARE, 0.8)]
        counts = confusion_matrix(Detector(found), dataset([(1, SQUARE)]))
        np.testing.assert_array_equal(counts, [[0, 1, 0], [0, 0, 1], [0, 0, 0]])

    def test_detections_in_a_crowd_do_not_count(self, dataset):
        truth = dataset([(-1, SQUARE), (1, OTHER)])
        found = [(1, (20, 20, 60, 60), 0.9), (1, OTHER, 0.8)]
        counts = confusion_matrix(Detector(found), truth)
        np.testing.assert_array_equal(counts, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])

    def test_nothing_there_and_nothing_found(self, dataset):
        assert not confusion_matrix(Detector([]), dataset([])).any()


class TestCallback:
    @pytest.fixture
    def callback(self, dataset):
        def make(epochs, truth=(), **settings):
            images = truth or [[(1, SQUARE)]]
            detector = Detector(*[[(1, SQUARE, 0.9)]] * 100)
            callback = AveragePrecision(detector, dataset(*images), **settings)
            callback.set_params({"epochs": epochs})
            return callback

        return make

    def test_other_classes_show_before_an_epoch_has_passed(self, dataset):
        detector = Detector([(1, SQUARE, 0.9)], classes=2)
        with pytest.raises(ValueError, match="NUM_CLASSES is 2"):
            AveragePrecision(detector, dataset([(1, SQUARE)])).on_train_begin()

    def test_values_join_the_logs(self, callback):
        logs = {"loss": 1.0}
        callback(3).on_epoch_end(0, logs)
        names = {f"val_{k}_{n}" for k in ("bbox", "segm") for n in ("AP", "AP50", "AP75", "AR100")}
        assert set(logs) == {"loss"} | names
        assert logs["val_segm_AP"] == pytest.approx(1)

    def test_a_loop_may_keep_no_logs(self, callback):
        callback = callback(3, every=2)
        for epoch in range(3):
            callback.on_epoch_end(epoch)
        assert callback.values["val_segm_AP"] == pytest.approx(1)

    def test_every_few_epochs_and_at_the_ends(self, callback, monkeypatch):
        numbers = iter(range(10))

        def measured(*_):
            return dict.fromkeys(("bbox", "segm"), dict.fromkeys(METRICS, next(numbers)))

        monkeypatch.setattr("mrcnn.coco_metrics.evaluate_dataset", measured)
        callback, values = callback(7, every=3), []
        for epoch in range(7):
            logs = {}
            callback.on_epoch_end(epoch, logs)
            values.append(logs["val_segm_AP"])
        assert values == [0, 0, 1, 1, 1, 2, 3]

    def test_limit(self, callback):
        callback = callback(1, truth=[[(1, SQUARE)], [(1, OTHER)], [(1, SQUARE)]], limit=2)
        logs = {}
        callback.on_epoch_end(0, logs)  # looks at the first and the third
        assert logs["val_segm_AP"] == pytest.approx(1)

    @pytest.mark.parametrize("settings", [{"every": 0}, {"limit": 0}])
    def test_numbers_below_one(self, callback, settings):
        with pytest.raises(ValueError, match="at least 1"):
            callback(1, **settings)

    def test_high_confidence_is_warned_of(self, callback, caplog):
        callback = callback(1)
        callback.mask_rcnn.config.DETECTION_MIN_CONFIDENCE = 0.7
        with caplog.at_level(logging.WARNING, "mrcnn"):
            callback.on_train_begin()
        assert "DETECTION_MIN_CONFIDENCE=0.7" in caplog.text

    @pytest.mark.parametrize("confidence", [None, 0.0, 0.05])
    def test_low_confidence_is_not_warned_of(self, callback, caplog, confidence):
        callback = callback(1)
        callback.mask_rcnn.config.DETECTION_MIN_CONFIDENCE = confidence
        callback.on_train_begin()
        assert not caplog.text

    def test_in_a_training(self, eagerly, tiny_config, rectangles, tmp_path, capsys):
        keras.utils.set_random_seed(0)
        truth = rectangles()
        model = MaskRCNN("training", tiny_config(STEPS_PER_EPOCH=1), tmp_path)
        best = tmp_path / "best.weights.h5"
        history = model.train(
            truth,
            None,
            learning_rate=1e-9,  # so that no measurement is better than the first
            epochs=6,
            layers="mrcnn_mask",
            custom_callbacks=[
                AveragePrecision(model, truth, every=2),
                keras.callbacks.EarlyStopping("val_segm_AP", mode="max", patience=3),
                keras.callbacks.ModelCheckpoint(
                    *(best, "val_segm_AP"),
                    **{"mode": "max", "save_weights_only": True, "save_best_only": True},
                    verbose=1,
                ),
            ],
        )
        assert history.epoch == [0, 1, 2, 3]
        assert capsys.readouterr().out.count("finished saving model to") == 1
        recorded = history.history["val_segm_AP"]
        assert recorded == [evaluate_dataset(model, truth)["segm"]["AP"]] * 4
        assert model.load_weights(best).missing == []
        folder = Path(model.find_last()).parent
        with open(folder / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["val_segm_AP"] for row in rows] == [str(recorded[0])] * 4
        assert list(folder.glob("validation/events.out.tfevents.*"))
        assert read_metadata(best)["class_names"] == ["BG", "red", "green"]

    def test_crops_are_measured_by_another_network(
        self, eagerly, tiny_config, rectangles, tmp_path
    ):
        model = MaskRCNN("training", tiny_config(IMAGE_RESIZE_MODE="crop"), tmp_path)
        truth = rectangles()
        with pytest.raises(ValueError, match="random parts of images.*Give the `config`"):
            AveragePrecision(model, truth)
        callback = AveragePrecision(model, truth, config=tiny_config())
        callback.set_params({"epochs": 1})
        for weight in model.keras_model.weights:
            weight.assign(weight + 0.01)
        logs = {}
        callback.on_epoch_end(0, logs)
        assert "val_segm_AP" in logs
        learned = named_weights(model.keras_model)
        for name, weight in named_weights(callback.detector.keras_model).items():
            np.testing.assert_array_equal(weight.variable.numpy(), learned[name].variable.numpy())


@pytest.mark.parametrize("measure", [evaluate_dataset, confusion_matrix])
def test_network_of_other_classes(measure, dataset):
    with pytest.raises(ValueError, match="has 3 classes.*NUM_CLASSES is 81"):
        measure(Detector([(1, SQUARE, 0.9)], classes=81), dataset([(1, SQUARE)]))


@pytest.mark.parametrize("measure", [evaluate_dataset, confusion_matrix])
def test_data_set_that_is_not_prepared(measure, tiny_config):
    dataset = Dataset()
    dataset.add_class("toys", 1, "red")
    dataset.add_image("toys", 1, "a.png")
    with pytest.raises(ValueError, match="call prepare"):
        measure(SimpleNamespace(config=tiny_config()), dataset)
