"""matterport's pictures: instances on their image, regions, overlaps, and tables of weights.

What makes a figure also takes `save_to`: the figure is then written to that file, whole or not at
all, and no window opens. Without it the `display_` functions show their figure where matplotlib
has a screen; where it has none, `plt.savefig` writes it as ever.
"""

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize

from mrcnn.config import Config
from mrcnn.data import load_image_gt
from mrcnn.dataset import Dataset
from mrcnn.drawing import (
    Color,
    SaveTo,
    apply_mask,
    as_picture,
    check_at_least,
    check_counts,
    check_masks,
    class_name,
    draw_box,
    draw_boxes,
    draw_caption,
    draw_mask,
    draw_rectangle,
    draw_rois,
    new_axes,
    new_figure,
    random_colors,
    save_or_show,
)
from mrcnn.evaluate import compute_matches, reported_order
from mrcnn.masks import CompactMasks, one_mask
from mrcnn.old_imports import MODULES, finder
from mrcnn.plots import plot_confusion_matrix, plot_overlaps, plot_precision_recall
from mrcnn.tables import display_table, display_weight_stats

__all__ = [
    "apply_mask",
    "display_augmented",
    "display_differences",
    "display_images",
    "display_instances",
    "display_table",
    "display_top_masks",
    "display_weight_stats",
    "draw_box",
    "draw_boxes",
    "draw_rois",
    "plot_confusion_matrix",
    "plot_overlaps",
    "plot_precision_recall",
    "random_colors",
    *MODULES["visualize"],
]
__getattr__ = finder(__name__)

logger = logging.getLogger(__name__)

# A green and a red that the colour-blind can tell apart (Okabe and Ito 2008).
TRUTH_COLOR = (0.0, 0.62, 0.45)
PREDICTION_COLOR = (0.84, 0.37, 0.0)


def display_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: str | Colormap | None = None,
    norm: str | Normalize | None = None,
    interpolation: str | None = None,
    *,
    save_to: SaveTo = None,
) -> list[Axes]:
    """Shows images side by side and returns the axes of each.

    Args:
        images: RGB as `mrcnn.drawing.as_picture` takes them; or [height, width] or
            [height, width, 1] of any values, coloured by `cmap`.
        titles: of the first images, as many as there are; more are passed over.
        cols: images per row.
        cmap, norm, interpolation: as of `matplotlib.axes.Axes.imshow`.
        save_to: file to write instead of opening a window.

    Raises:
        ValueError: if `cols` is below 1.
    """
    if cols < 1:
        raise ValueError(f"`cols` must be at least 1; received {cols!r}.")
    titles = [*(() if titles is None else titles), *[""] * len(images)]
    rows = max(1, math.ceil(len(images) / cols))
    tallest = max((image.shape[0] / image.shape[1] for image in images), default=1)
    height = rows * (0.3 + 14 / cols * min(tallest, 1))  # 0.3 inches for a title
    figure = new_figure((14, height), save_to)
    axes = figure.subplots(rows, cols, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, images, titles, strict=False):
        values = image if image.ndim == 2 or image.shape[2] == 1 else as_picture(image)
        axis.imshow(values, cmap=cmap, norm=norm, interpolation=interpolation)
        axis.set_title(title, fontsize=9, parse_math=False)
    save_or_show(figure, save_to)
    return list(axes[: len(images)])


def display_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | CompactMasks,
    class_ids: Sequence[int] | np.ndarray,
    class_names: Sequence[str] | None,
    scores: Sequence[float] | np.ndarray | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Axes | None = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] | None = None,
    *,
    save_to: SaveTo = None,
) -> Axes:
    """Shows an image with its instances and returns the axes.

    Args:
        image: [height, width] or [height, width, channels], as `mrcnn.drawing.as_picture` takes it;
            it is not changed.
        boxes: [instances, (y1, x1, y2, x2)] in pixels; instances whose box is all zero are left
            out.
        masks: [height, width, instances]; above 0.5 is inside.
        class_ids: int [instances]; a crowd has the negative id of its class.
        class_names: names by class id.
        scores: float [instances], or None.
        title: above the image.
        figsize: (width, height) in inches of the figure made where `ax` is None.
        ax: matplotlib's axes to draw on; no window opens then.
        show_mask: tint the masks; their outlines are drawn in any case.
        show_bbox: draw the boxes.
        colors: one per instance, as matplotlib takes them.
        captions: one per instance, instead of class and score.
        save_to: file to write instead of opening a window.

    Raises:
        ValueError: if lengths or sizes do not fit one another, or a class has no name.
    """
    count = len(boxes)
    picture = as_picture(image)
    # Empty ones count as none, as in matterport's.
    colors = random_colors(count) if colors is None or not len(colors) else colors
    captions = None if captions is None or not len(captions) else captions
    if count and masks is None:
        raise ValueError("masks is None: outlines need them. Use draw_boxes() for boxes alone.")
    if count:
        check_counts("boxes", count, masks=np.shape(masks)[-1], class_ids=len(class_ids))
        check_at_least("boxes", count, scores=scores, colors=colors, captions=captions)
        check_masks(masks, picture)
    else:
        logger.warning("No instances to display: the image is shown alone.")
    axes = new_axes(picture, title, figsize, ax, save_to, margin=0.02)
    for i in range(count):
        if not np.any(boxes[i]):  # lost when the image was cropped
            continue
        if show_bbox:
            draw_rectangle(axes, boxes[i], colors[i], linestyle="dashed", alpha=0.7)
        draw_mask(axes, picture, one_mask(masks, i), colors[i], tinted=show_mask)
        if captions is not None:
            caption = captions[i]
        else:
            caption = class_name(class_names, class_ids[i])
            caption += f" {scores[i]:.3f}" if scores is not None and scores[i] else ""
        draw_caption(axes, picture, boxes[i], caption, colors[i])
    axes.imshow(picture)
    save_or_show(axes.figure, save_to, show=ax is None)
    return axes


def display_differences(
    image: np.ndarray,
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray | CompactMasks,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray | CompactMasks,
    class_names: Sequence[str] | None,
    title: str = "",
    ax: Axes | None = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
    *,
    save_to: SaveTo = None,
) -> Axes:
    """Shows ground truth and predictions on one image and returns the axes.

    A prediction's caption is its score and its IoU with the instance it matches, or else with the
    one it overlaps most.

    Args:
        As of `compute_matches` and `display_instances`.
    """
    gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask = map(
        np.asarray, (gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask)
    )
    gt_box, pred_box = np.reshape(gt_box, (-1, 4)), np.reshape(pred_box, (-1, 4))
    check_counts("gt_box", len(gt_box), gt_class_id=len(gt_class_id), gt_mask=gt_mask.shape[-1])
    check_counts(
        "pred_box",
        len(pred_box),
        pred_class_id=len(pred_class_id),
        pred_score=len(pred_score),
        pred_mask=pred_mask.shape[-1],
    )
    # The order that compute_matches reports in: no padding, the best score first.
    truths = np.flatnonzero(np.any(gt_box != 0, axis=-1))
    found = reported_order(pred_box, pred_score)
    gt_box, gt_class_id, gt_mask = gt_box[truths], gt_class_id[truths], gt_mask[..., truths]
    pred_box, pred_class_id, pred_score = pred_box[found], pred_class_id[found], pred_score[found]
    pred_mask = pred_mask[..., found]
    _, pred_match, overlaps = compute_matches(
        gt_box,
        gt_class_id,
        gt_mask,
        pred_box,
        pred_class_id,
        pred_score,
        pred_mask,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
    )
    captions = [""] * len(truths)
    for score, match, row in zip(pred_score, pred_match, overlaps, strict=True):
        captions.append(f"{score:.2f} / {row[match] if match > -1 else row.max(initial=0):.2f}")
    return display_instances(
        image,
        np.concatenate([gt_box, pred_box]),
        np.concatenate([gt_mask, pred_mask], axis=-1),
        np.concatenate([gt_class_id, pred_class_id]),
        class_names,
        title=title or "Ground truth green, predictions red; captions: score / IoU",
        ax=ax,
        show_mask=show_mask,
        show_bbox=show_box,
        colors=[TRUTH_COLOR] * len(truths) + [PREDICTION_COLOR] * len(found),
        captions=captions,
        save_to=save_to,
    )


def display_augmented(
    dataset: Dataset,
    config: Config,
    image_id: int,
    augmentation: Callable | None,
    count: int = 4,
    *,
    save_to: SaveTo = None,
) -> list[Axes]:
    """Shows an image as it is and changed at random, with its masks; returns the axes.

    Masks that have not moved with their image are seen at once.

    Args:
        dataset: a prepared `Dataset`.
        config: the network's `Config`, whose size the pictures have.
        image_id: number of the image in the data set.
        augmentation: as `MaskRCNN.train` takes it.
        count: number of changed pictures, of the seeds 0 to `count - 1`.
        save_to: file to write instead of opening a window.

    Raises:
        mrcnn.data.SampleError: if the image, its masks or what becomes of them cannot be used.
    """
    pictures, titles = [], ["as it is", *(f"seed {seed}" for seed in range(count))]
    for seed in range(-1, count):
        image, _, _, boxes, masks = load_image_gt(
            dataset,
            config,
            image_id,
            augmentation=augmentation if seed >= 0 else None,
            rng=np.random.default_rng(max(0, seed)),
        )
        image = as_picture(image)
        for index, color in enumerate(random_colors(len(boxes))):
            apply_mask(image, masks[:, :, index], color)
            draw_box(image, boxes[index], [int(255 * part) for part in color])
        pictures.append(image)
    return display_images(pictures, titles, cols=min(4, len(pictures)), save_to=save_to)


def display_top_masks(
    image: np.ndarray,
    mask: np.ndarray | CompactMasks,
    class_ids: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    limit: int = 4,
    *,
    save_to: SaveTo = None,
) -> list[Axes]:
    """Shows an image and the masks of the classes that cover most of it; returns the axes.

    Args:
        image, class_ids, class_names: as of `display_instances`.
        mask: [height, width, instances].
        limit: largest number of classes.
        save_to: file to write instead of opening a window.

    Raises:
        ValueError: if lengths do not fit one another, or a class has no name.
    """
    mask = np.asarray(mask)
    check_counts("class_ids", len(class_ids), mask=mask.shape[-1])
    areas, panels = {}, {}
    for class_id in np.unique(class_ids):
        inside = mask[:, :, np.asarray(class_ids) == class_id] > 0.5
        areas[class_id] = np.count_nonzero(inside)
        # Each instance has a shade of its own.
        panels[class_id] = (inside * np.arange(1, inside.shape[-1] + 1)).max(axis=-1)
    top = sorted((i for i in areas if areas[i]), key=lambda i: areas[i], reverse=True)[:limit]
    return display_images(
        [image, *(panels[i] for i in top)],
        [f"H x W={image.shape[0]}x{image.shape[1]}", *(class_name(class_names, i) for i in top)],
        cols=limit + 1,
        cmap="Blues_r",
        save_to=save_to,
    )
