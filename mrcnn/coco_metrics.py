"""Average precision of a data set as COCO measures it, and the confusion of its classes.

Of detections one mask at a time is held in full, where a network gives them compact: a hundred of
an image of twelve megapixels would take more than a gigabyte.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mrcnn.coco import CocoDataset, coco_masks
from mrcnn.config import Config
from mrcnn.data import load_sample, problems_of
from mrcnn.dataset import Dataset, every_nth
from mrcnn.evaluate import compute_matches
from mrcnn.masks import one_mask, some_masks
from mrcnn.weights import named_weights

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN

logger = logging.getLogger(__name__)

METRICS = tuple("AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split())
"""COCO's measures (https://cocodataset.org/#detection-eval), in its order: average precision over
IoU 0.50 to 0.95, at 0.50 and at 0.75, of objects below 32^2, up to 96^2 and from 96^2 pixels;
average recall with 1, 10 and 100 detections per image, and by size as before."""


def evaluate_dataset(
    model: MaskRCNN, dataset: Dataset, image_ids: Sequence[int] | np.ndarray | None = None
) -> dict:
    """Measures the detections of a network on a data set as COCO does.

    All detections count that `config.DETECTION_MIN_CONFIDENCE` lets pass: 0 gives the values that
    are published, matterport's default of 0.7 lower ones.

    Args:
        model: a `MaskRCNN`, which may be one in training.
        dataset: a prepared `Dataset`; crowds (negative class ids) count neither way.
        image_ids: of the images to look at; all by default.

    Returns:
        `bbox` and `segm`, each a dictionary of `METRICS`, 0 to 1, and `per_class`, the AP by class
        name. NaN where the images show nothing of the class or size.

    Raises:
        mrcnn.data.SampleError: naming an image that cannot be used.
        ValueError: if the data set is not prepared, holds no image, or has other classes.
        ImportError: if faster-coco-eval is not installed.
    """
    _require_usable(dataset, model.config)
    coco_masks()  # its absence is to show before the images have been looked at
    instances: list[dict[str, Any]] = []
    images, boxes, shapes = [], [], []
    for image_id, (height, width), (masks, class_ids), result in _detected(
        model, dataset, image_ids
    ):
        images.append({"id": image_id, "height": height, "width": width})
        # As the file has them, unless somebody's own load_mask says otherwise.
        own_mask = getattr(dataset.load_mask, "__func__", None) is not CocoDataset.load_mask
        if isinstance(dataset, CocoDataset) and not own_mask:
            annotations = dataset.coco_annotations(image_id)
        else:
            annotations = _annotations(masks, class_ids)
        for annotation in annotations:
            number = len(instances) + 1  # 0 would mean "unmatched"
            instances.append({**annotation, "image_id": image_id, "id": number})
        for entry in coco_results(result, image_id):
            boxes.append(entry)
            # Without its box: with both in one entry, its size would be that of the box.
            shapes.append({key: entry[key] for key in entry if key != "bbox"})
    categories = [{"id": int(i), "name": name} for i, name in _class_names(dataset).items()]
    truth = {"images": images, "annotations": instances, "categories": categories}
    return {"bbox": _measured(truth, boxes, "bbox"), "segm": _measured(truth, shapes, "segm")}


def coco_results(
    result: Mapping[str, Any],
    image_id: int | str,
    category_ids: Sequence[int] | Mapping[int, int] | None = None,
) -> list[dict[str, Any]]:
    """The detections in one image in COCO's results format, ready for JSON.

    With the ids of an annotation file, as a server wants them that scores detections:

        ```python
        categories = [info["id"] for info in dataset.class_info]
        for number, info in enumerate(dataset.image_info):
            (result,) = model.detect([dataset.load_image(number)], compact=True)
            entries += coco_results(result, info["id"], categories)
        ```

    Args:
        result: one of those of `MaskRCNN.detect`; its masks may be compact.
        image_id: the image's.
        category_ids: the categories' by class id; class ids by default.

    Returns:
        For each detection `image_id`, `category_id`, `score`, `bbox` [x, y, width, height] and
        `segmentation`, a compressed run-length code.
    """
    entries = []
    for index, (roi, class_id) in enumerate(zip(result["rois"], result["class_ids"], strict=True)):
        y1, x1, y2, x2 = (float(side) for side in roi)
        code = _encoded(one_mask(result["masks"], index))
        entries.append(
            {
                "image_id": image_id if isinstance(image_id, str) else int(image_id),
                "category_id": int(class_id if category_ids is None else category_ids[class_id]),
                "score": float(result["scores"][index]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": {**code, "counts": code["counts"].decode()},
            }
        )
    return entries


class AveragePrecision(keras.callbacks.Callback):
    """Adds COCO's average precision on a data set to the logs of an epoch.

    Their names are `val_bbox_AP`, `val_segm_AP50` and so on, with AP, AP50, AP75 and AR100 for
    boxes (`bbox`) and masks (`segm`). In `custom_callbacks` it stands before those that read them:

        ```python
        model.train(..., custom_callbacks=[
            AveragePrecision(model, val_dataset),
            keras.callbacks.ModelCheckpoint(
                "best.weights.h5", "val_segm_AP", mode="max",
                save_best_only=True, save_weights_only=True,
            ),
        ])
        ```

    Args:
        model: the `MaskRCNN` in training; its `DETECTION_MIN_CONFIDENCE` decides what counts.
        dataset: a prepared `Dataset`.
        every: number of epochs from one measurement to the next, of which the first and the last
            epoch always have one; in between the values are those of the last measurement.
        limit: largest number of images, every n-th of the data set; None takes all.
        config: of the network that is measured, which gets the weights of the one in training; for
            example with another `IMAGE_RESIZE_MODE` than "crop", whose random parts of images
            cannot be measured. By default the network in training detects by itself.

    Raises:
        ValueError: if `every` or `limit` is below 1, or without `config` for a network that crops.
    """

    def __init__(
        self,
        model: MaskRCNN,
        dataset: Dataset,
        every: int = 1,
        limit: int | None = None,
        config: Config | None = None,
    ):
        super().__init__()
        if config is None and model.config.IMAGE_RESIZE_MODE == "crop":
            raise ValueError(
                "The network in training looks at random parts of images (IMAGE_RESIZE_MODE "
                "'crop'), which cannot be measured. Give the `config` of one that sees all of them."
            )
        if every < 1 or (limit is not None and limit < 1):
            raise ValueError(
                f"every and limit must be at least 1; received every={every}, limit={limit}."
            )
        self.mask_rcnn = model  # `model` is Keras's name for the network
        self.detector = (
            model if config is None else type(model)("inference", config, model.model_dir)
        )
        self.dataset = dataset
        self.every = every
        self.limit = limit
        self.values: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        # What is wrong is to show before an epoch has passed.
        coco_masks()
        _require_usable(self.dataset, self.detector.config)
        self.values = {}
        confidence = self.detector.config.DETECTION_MIN_CONFIDENCE or 0
        if confidence > 0.05:
            logger.warning(
                "Detections of a score below DETECTION_MIN_CONFIDENCE=%s do not count towards the "
                "average precision; set it to 0 in the configuration of the training for COCO's.",
                confidence,
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs  # as of a loop that keeps none
        due = (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]
        if self.values and not due:
            logs.update(self.values)  # without any Keras's ModelCheckpoint takes it for the best
            return
        ids = every_nth(self.dataset.image_ids, self.limit)
        if self.detector is not self.mask_rcnn:
            learned = named_weights(self.mask_rcnn.keras_model)
            for name, weight in named_weights(self.detector.keras_model).items():
                # A copy: JAX would share the array, and lose it with the next prediction.
                weight.variable.assign(learned[name].variable.numpy())
        for kind, metrics in evaluate_dataset(self.detector, self.dataset, ids).items():
            for name in ("AP", "AP50", "AP75", "AR100"):
                self.values[f"val_{kind}_{name}"] = metrics[name]
        logs.update(self.values)


def confusion_matrix(
    model: MaskRCNN,
    dataset: Dataset,
    image_ids: Sequence[int] | np.ndarray | None = None,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> np.ndarray:
    """Counts which class each instance was found as.

    Detections, best first, are matched to the instances whose masks they overlap most, whatever
    their classes. Those that lie in a crowd and match nothing do not count.

    Args:
        model, dataset, image_ids: as `evaluate_dataset`.
        iou_threshold: smallest overlap of the masks of a match.
        score_threshold: smallest score of a detection.

    Returns:
        int64 [classes, classes], rows by the true class and columns by the detected one. Row 0
        holds detections where there is nothing, column 0 instances that were not found.
    """
    _require_usable(dataset, model.config)
    counts = np.zeros((dataset.num_classes, dataset.num_classes), np.int64)
    for _, _, (masks, class_ids), result in _detected(model, dataset, image_ids):
        kept = np.flatnonzero(result["scores"] >= score_threshold)
        found, found_masks = result["class_ids"][kept], some_masks(result["masks"], kept)
        crowd = masks[:, :, class_ids < 0].any(axis=2)
        masks, class_ids = masks[:, :, class_ids > 0], class_ids[class_ids > 0]
        some, other = np.ones((len(class_ids), 4)), np.ones((len(found), 4))  # no padding
        gt_match, pred_match, _ = compute_matches(
            some,
            np.ones_like(class_ids),
            masks,
            other,
            np.ones_like(found),
            result["scores"][kept],
            found_masks,
            iou_threshold,
        )
        np.add.at(counts, (class_ids, np.append(found, 0)[gt_match]), 1)
        for index in np.flatnonzero(pred_match < 0).tolist():
            mask = one_mask(found_masks, index)
            in_crowd = np.count_nonzero(mask[crowd]) / np.maximum(1, np.count_nonzero(mask))
            counts[0, found[index]] += in_crowd < iou_threshold
    return counts


def class_rows(
    counts: np.ndarray, class_names: Sequence[str], per_class: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """What a confusion says of each class but the background, for a table.

        rows = class_rows(counts, dataset.class_names, result["segm"]["per_class"])
        display_table([rows[0], *(row.values() for row in rows)])

    Args:
        counts: int [classes, classes], as `confusion_matrix` gives them.
        class_names: names by class id, the background's first.
        per_class: AP by class name, as `evaluate_dataset` gives them.

    Returns:
        A dictionary for each class: `class`, `instances` and `detections` (their numbers),
        `precision` (the share of detections that are right) and `recall` (the share of instances
        that were found as what they are), NaN where there are none; and `AP` with `per_class`.

    Raises:
        ValueError: if the number of names is another, or `per_class` lacks one.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(class_names), len(class_names)):
        raise ValueError(
            f"counts must be of shape [classes, classes] for {len(class_names)} class_names, which "
            f"begin with the background; received {counts.shape}."
        )
    rows = []
    for class_id, name in list(enumerate(class_names))[1:]:
        right = int(counts[class_id, class_id])
        instances, detections = int(counts[class_id].sum()), int(counts[:, class_id].sum())
        row = {
            "class": name,
            "instances": instances,
            "detections": detections,
            "precision": right / detections if detections else np.nan,
            "recall": right / instances if instances else np.nan,
        }
        if per_class is not None:
            if name not in per_class:
                raise ValueError(
                    f"per_class has no AP of class {name!r}, but of {', '.join(per_class)}; give "
                    "class_names as they are there."
                )
            row["AP"] = per_class[name]
        rows.append(row)
    return rows


def _require_usable(dataset, config):
    if problem := next(problems_of(dataset, config), None):
        raise ValueError(problem)


def _detected(model, dataset, image_ids):
    """Yields image id, (height, width), (masks, class ids) and the result of `detect`."""
    image_ids = dataset.image_ids if image_ids is None else image_ids
    size, options = model.config.BATCH_SIZE, {"compact": True} if _gives_compact(model) else {}
    for start in range(0, len(image_ids), size):
        ids = [int(image_id) for image_id in image_ids[start : start + size]]
        samples = [load_sample(dataset, i, model.config.IMAGE_CHANNEL_COUNT) for i in ids]
        results = model.detect([image for image, _, _ in samples], **options)
        for image_id, (image, *truth), result in zip(ids, samples, results, strict=True):
            yield image_id, image.shape[:2], truth, result


def _gives_compact(model):
    """Whether a model knows of compact masks; one derived from matterport's methods may not."""
    methods = (getattr(model, name, None) for name in ("detect", "unmold_detections"))
    return all("compact" in inspect.signature(method).parameters for method in methods if method)


def _annotations(masks, class_ids):
    """Instances bool [height, width, n] as COCO's annotations."""
    functions, annotations = coco_masks(), []
    for index, class_id in enumerate(class_ids):
        code = _encoded(masks[:, :, index])
        annotations.append(
            {
                "category_id": abs(int(class_id)),
                "iscrowd": int(class_id < 0),
                "segmentation": code,
                "bbox": functions.toBbox(code).tolist(),
                "area": float(functions.area(code)),
            }
        )
    return annotations


def _encoded(mask):
    """The run-length code of one mask [height, width]."""
    return coco_masks().encode(np.asfortranarray(mask > 0.5, np.uint8))


def _class_names(dataset):
    """Names by class id, without the background; the source tells equal ones apart."""
    names = dataset.class_names
    return {
        i: f"{info['source']}.{names[i]}" if names.count(names[i]) > 1 else names[i]
        for i, info in enumerate(dataset.class_info)
        if i
    }


def _measured(truth, detections, kind):
    """COCO's measures of detections, entries of its results format."""
    from faster_coco_eval import COCO, COCOeval_faster

    # The evaluator writes into what it is given.
    truth = COCO({**truth, "annotations": [dict(entry) for entry in truth["annotations"]]})
    evaluator = COCOeval_faster(truth, truth.loadRes(detections), kind, print_function=logger.debug)
    evaluator.run()
    # [IoU thresholds, recalls, classes, sizes, numbers of detections]; -1 where there is nothing
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    names = {category["id"]: category["name"] for category in truth.dataset["categories"]}
    per_class = {
        names[class_id]: _mean(precision[:, :, place])
        for place, class_id in enumerate(evaluator.params.catIds)
    }
    values = (float(value) if value >= 0 else np.nan for value in evaluator.stats)
    return {**dict(zip(METRICS, values, strict=True)), "per_class": per_class}


def _mean(values):
    values = values[values > -1]
    return float(values.mean()) if values.size else np.nan
