"""What exported models of boundary and attributes answer: their predictors as TensorFlow graphs.

Each class here is an `Answer` of `mrcnn.export`: called with a batch and how to read its elements,
it gives tensors [batch, ...] by name. The tests hold them to the predictors.
"""

from typing import TYPE_CHECKING

import tensorflow as tf

from lesion import NOTICE
from lesion.attributes import AttributesPredictor
from lesion.boundary import BoundaryPredictor
from lesion.boundary_views import MAX_SIDE
from lesion.samples import ATTRIBUTES
from lesion.squares import LONGEST, NEARLY_SQUARE
from mrcnn.export import Detector, Read
from mrcnn.molding_graph import resize_antialias

if TYPE_CHECKING:
    from lesion.diagnosis import DiagnosisPredictor


class BoundaryAnswer:
    """As `BoundaryPredictor.predict` of one view: the outputs of `Detector` for one lesion.

    Its mask is one region without holes. `notice` string [batch] comes with them. Of a network with
    a semantic branch the mask is that of the mean with its map, and the box that of the mask; map
    and presence are not among the outputs.

    Raises:
        ValueError: if the predictor averages several views.
    """

    def __init__(self, predictor: BoundaryPredictor):
        require_one_view(predictor)
        self.semantic = predictor.model.config.SEMANTIC_BRANCH
        threshold = None if self.semantic else 0.5
        self.detect = Detector(predictor.model, limit=1, mask_threshold=threshold)

    def __call__(self, elements: tf.Tensor, read: Read) -> dict[str, tf.Tensor]:
        found = self.detect(elements, read)
        inside = found["masks"][:, 0] > 0
        if self.semantic:
            inside = _agreed(found)
        masks = tf.map_fn(
            lambda mask: tf.cast(fill_holes(largest_region(mask)), tf.uint8),
            inside,
            fn_output_signature=tf.TensorSpec([None, None], tf.uint8),
        )
        return {
            **_outlined(found, masks),
            "masks": masks[:, tf.newaxis],
            "notice": notice_of(elements),
        }


def _agreed(found):
    """bool [batch, H, W]: where mask and semantic map of a lesion are at least 0.5 in the mean."""
    mean = (found["masks"][:, 0] + found["semantic"][..., 0]) / 2
    return (mean >= 0.5) & (found["num_detections"] > 0)[:, tf.newaxis, tf.newaxis]


def _outlined(found, masks):
    """The outputs of `Detector` for masks uint8 [batch, H, W] that were made of its own."""
    there = tf.reduce_any(masks > 0, axis=(1, 2))[:, tf.newaxis]
    boxes = tf.map_fn(_extent, masks, fn_output_signature=tf.TensorSpec([4], tf.int32))
    return {
        "num_detections": tf.cast(there[:, 0], tf.int32),
        "boxes": boxes[:, tf.newaxis],
        "class_ids": tf.where(there, found["class_ids"], 0),
        "class_names": tf.where(there, found["class_names"], ""),
        "scores": tf.where(there, found["scores"], 0.0),
        "image_size": found["image_size"],
    }


def _extent(mask):
    """(y1, x1, y2, x2) of a mask [h, w], as `mrcnn.masks.mask_extent`."""
    ends = []
    for axis in (1, 0):
        inside = tf.cast(tf.where(tf.reduce_any(mask > 0, axis=axis))[:, 0], tf.int32)
        ends.append(
            tf.cond(tf.size(inside) > 0, lambda i=inside: (i[0], i[-1] + 1), lambda: (0, 0))
        )
    (top, bottom), (left, right) = ends
    return tf.stack([top, left, bottom, right])


class AttributesAnswer:
    """As `AttributesPredictor.predict`.

        masks        uint8 [batch, 5, H, W], 1 inside, in the order of `ATTRIBUTES`
        presence     float32 [batch, 5]
        class_names  string [batch, 5], that order
        image_size   int32 [batch, 2], height and width
        notice       string [batch]

    H and W are the largest height and width in the batch: a smaller image lies at the top left.
    """

    def __init__(self, predictor: AttributesPredictor):
        self.detect = Detector(predictor.model)
        chosen = predictor.thresholds[predictor.method]
        self.presence, self.semantic, self.instance = (
            tf.constant([getattr(chosen[name], of) for name in ATTRIBUTES], tf.float32)
            for of in ("presence", "semantic", "instance")
        )

    def __call__(self, elements: tf.Tensor, read: Read) -> dict[str, tf.Tensor]:
        # Files are decoded several times: the largest must be known before masks are put together.
        size = tf.TensorSpec([2], tf.int32)
        sizes = tf.map_fn(lambda e: tf.shape(read(e))[:2], elements, fn_output_signature=size)
        small = tf.map_fn(_reduced_size, sizes)
        owners, parts = squares(small)

        def read_part(place):
            top, left, height, width = tf.unstack(parts[place])
            image = _reduced(read(elements[owners[place]]))
            return image[top : top + height, left : left + width]

        found = self.detect(tf.range(tf.size(owners)), read_part)
        presence = found["presence"][:, : len(ATTRIBUTES)]
        presence = tf.math.unsorted_segment_max(presence, owners, tf.shape(elements)[0])
        canvas = tf.reduce_max(sizes, axis=0)

        def masks_of(element):
            evidence = [
                _joined(small[element], parts, tf.where(owners == element)[:, 0], values)
                for values in (
                    lambda place: found["semantic"][place, :, :, : len(ATTRIBUTES)],
                    lambda place: _best_scores(
                        *(found[key][place] for key in ("masks", "class_ids", "scores"))
                    ),
                )
            ]
            return self._masks(canvas, sizes[element], presence[element], *evidence)

        masks = tf.map_fn(
            masks_of,
            tf.range(tf.shape(elements)[0]),
            fn_output_signature=tf.TensorSpec([len(ATTRIBUTES), None, None], tf.uint8),
        )
        return {
            "masks": masks,
            "presence": presence,
            "class_names": tf.tile(tf.constant([ATTRIBUTES]), [tf.shape(elements)[0], 1]),
            "image_size": sizes,
            "notice": notice_of(elements),
        }

    def _masks(self, canvas, size, presence, semantic, instances):
        """Of one image: bool where the semantic map or an instance says so clearly enough."""
        inside = (semantic >= self.semantic) | (instances >= self.instance)
        inside &= presence >= self.presence
        grey = resize_antialias(tf.cast(inside, tf.uint8) * 255, size)
        enlarged = tf.transpose(tf.cast(grey >= 128, tf.uint8), [2, 0, 1])
        return tf.pad(enlarged, [[0, 0], [0, canvas[0] - size[0]], [0, canvas[1] - size[1]]])


def squares(sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`lesion.squares.squares` of images of `sizes` int32 [batch, 2], one after the other.

    Returns:
        owners: int32 [n], the image that a part is of.
        parts: int32 [n, 4], (top, left, height, width) in it.
    """
    side, longer = tf.reduce_min(sizes, axis=1), tf.reduce_max(sizes, axis=1)
    nearly = tf.cast(longer, tf.float64) <= NEARLY_SQUARE * tf.cast(side, tf.float64)
    whole = nearly | (longer > LONGEST * side)
    counts = tf.where(whole, 1, -(-longer // side))
    owners = tf.repeat(tf.range(tf.size(counts)), counts)
    place = tf.range(tf.size(owners)) - tf.gather(tf.cumsum(counts, exclusive=True), owners)
    starts = tf.where(sizes == side[:, tf.newaxis], 0, sizes - side[:, tf.newaxis])
    starts = tf.gather(starts, owners) * place[:, tf.newaxis]
    starts //= tf.maximum(tf.gather(counts, owners) - 1, 1)[:, tf.newaxis]
    extents = tf.where(whole[:, tf.newaxis], sizes, side[:, tf.newaxis])
    return owners, tf.concat([starts, tf.gather(extents, owners)], axis=1)


def _joined(size, parts, places, values):
    """`lesion.squares.joined` of the `parts` at `places`; `values` gives the map of a place."""

    def put(place):
        top, left, height, width = tf.unstack(parts[place])
        margins = [[top, size[0] - top - height], [left, size[1] - left - width], [0, 0]]
        shown = values(place)[:height, :width]
        rows, columns = tf.ones([height]), tf.ones([width])
        wide = size[1] > size[0]
        rows, columns = tf.where(wide, rows, _ramp(height)), tf.where(wide, _ramp(width), columns)
        weight = tf.ones_like(shown) * (rows[:, tf.newaxis] * columns)[..., tf.newaxis]
        return tf.pad(weight * shown, margins), tf.pad(weight, margins)

    maps = tf.TensorSpec([None, None, len(ATTRIBUTES)])
    total, number = tf.map_fn(put, tf.cast(places, tf.int32), fn_output_signature=(maps, maps))
    return tf.reduce_sum(total, axis=0) / tf.reduce_sum(number, axis=0)


def _ramp(length):
    """As of `lesion.squares`."""
    places = tf.range(tf.cast(length, tf.float32)) + 0.5
    return tf.minimum(places, tf.cast(length, tf.float32) - places)


def _best_scores(masks, class_ids, scores):
    """float32 [h, w, 5]: by attribute the best score of its instances over a pixel."""
    by_attribute = []
    for attribute in range(1, len(ATTRIBUTES) + 1):
        own = tf.where(class_ids == attribute, scores, 0)
        over = tf.cast(masks, tf.float32) * own[:, tf.newaxis, tf.newaxis]
        by_attribute.append(tf.reduce_max(over, axis=0))
    return tf.stack(by_attribute, axis=-1)


def _reduced_size(size):
    """Of an image of `size` int32 [2], what `_reduced` leaves of it."""
    sides = tf.cast(size, tf.float64)
    share = tf.minimum(MAX_SIDE / tf.reduce_max(sides), 1)
    return tf.maximum(tf.cast(tf.round(sides * share), tf.int32), 1)


def _reduced(image):
    """An image uint8 [h, w, 3] of at most `MAX_SIDE`, as `AttributesPredictor` reduces it."""
    return resize_antialias(image, _reduced_size(tf.shape(image)[:2]), box=True)


def require_one_view(predictor: "BoundaryPredictor | DiagnosisPredictor") -> None:
    """Raises ValueError for a predictor that averages several views."""
    if predictor.views != 1:
        raise ValueError(
            f"An exported model looks at one view of an image, not at {predictor.views}; load the "
            "weights with views=1."
        )


def notice_of(elements: tf.Tensor) -> tf.Tensor:
    """string [batch]"""
    return tf.fill(tf.shape(elements)[:1], NOTICE)


def largest_region(mask: tf.Tensor) -> tf.Tensor:
    """The region of most pixels of a mask bool [h, w]; of several the first in reading order."""
    labels = regions(mask)
    pixels = tf.math.unsorted_segment_sum(
        tf.ones_like(labels),
        labels,
        tf.reduce_max(labels) + 2,  # one more than there may be none
    )
    return labels == tf.argmax(pixels, output_type=tf.int32)


def fill_holes(mask: tf.Tensor) -> tf.Tensor:
    """A mask bool [h, w] with all pixels that are cut off from the image's edge by it."""
    outside = regions(tf.pad(~mask, [[1, 1], [1, 1]], constant_values=True))
    return (outside != outside[0, 0])[1:-1, 1:-1]


def regions(mask: tf.Tensor) -> tf.Tensor:
    """Labels int32 [h, w] of the regions of a mask bool [h, w]; -1 outside.

    Pixels touch by their sides. Rows are taken apart into runs of pixels; runs that touch take the
    least of their labels, and the label of that, until all agree: some ten rounds.
    """
    starts = mask & ~tf.pad(mask[:, :-1], [[0, 0], [1, 0]])
    count = tf.reduce_sum(tf.cast(starts, tf.int32))
    runs = tf.cumsum(tf.reshape(tf.cast(starts, tf.int32), [-1])) - 1
    runs = tf.reshape(tf.maximum(runs, 0), tf.shape(mask))
    both = mask[:-1] & mask[1:]
    touching = both & ~tf.pad(both[:, :-1], [[0, 0], [1, 0]])
    upper, lower = tf.boolean_mask(runs[:-1], touching), tf.boolean_mask(runs[1:], touching)
    pairs = tf.concat([upper, lower], 0)

    def spread(labels, _):
        least = tf.minimum(tf.gather(labels, upper), tf.gather(labels, lower))
        least = tf.math.unsorted_segment_min(tf.tile(least, [2]), pairs, tf.size(labels))
        joined = tf.minimum(labels, least)
        joined = tf.gather(joined, joined)
        return joined, tf.reduce_any(joined != labels)

    alone = tf.range(tf.maximum(count, 1))
    labels, _ = tf.while_loop(lambda _, changed: changed, spread, (alone, tf.constant(True)))
    return tf.where(mask, tf.gather(labels, runs), -1)
