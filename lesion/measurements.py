"""Measurements of a lesion from its boundary: shape, size and colours, without any verdict.

What the ABCD rule of dermoscopy (Stolz et al. 1994) looks at, as numbers: asymmetry, border,
colours, and the diameter of the clinical rule. There is no score, no weight and no clinical cut-off
here. The border's numbers are of its outline; how abruptly the pigment ends is not measured. None
has been compared with what dermatologists see.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Real

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist, pdist
from skimage.color import rgb2lab
from skimage.measure import find_contours

from mrcnn.masks import mask_extent

REFERENCE_COLORS = {
    "white": (242, 243, 244),
    "red": (188, 63, 74),
    "light_brown": (166, 123, 91),
    "dark_brown": (66, 37, 24),
    "blue_grey": (83, 104, 120),
    "black": (34, 34, 34),
}
"""The six colours of the ABCD rule, in sRGB: the centroids of "white", "strong red", "light brown",
"dark brown", "grayish blue" and "black" in the ISCC-NBS system of colour names (Kelly and Judd,
"Color: Universal Language and Dictionary of Names", NBS Special Publication 440, 1976)."""

MIN_COLOR_SHARE = 0.05
"""A colour counts as present from this share of the lesion's pixels on."""

# Shapes are measured at one resolution whatever the image's: enlarged or reduced to the area of a
# disc of this radius, and blurred there by one pixel (by one of the image's, where that is more).
_RADIUS = 64
_MAX_EXTENT = 512
_MARGIN = 8
# Enough for the colours of a large lesion.
_MAX_COLOR_PIXELS = 200_000


@dataclass(frozen=True)
class Measurements:
    """What was measured of one lesion; None where there is no lesion, or no scale for millimetres.

    Attributes:
        area_pixels: of the mask.
        area_share: of the image, 0..1.
        area_mm2: in square millimetres.
        diameter_pixels: largest distance of two points of the outline (maximum Feret diameter).
        diameter_mm: the same in millimetres.
        equivalent_diameter_pixels: of the disc of the lesion's area.
        equivalent_diameter_mm: the same in millimetres.
        asymmetry_major_axis: share of the area, 0..1, that falls beside the lesion when it is
            mirrored about its major principal axis: area(L without mirrored L) / area(L), 0 where
            symmetric. Of the shape alone. After Stoecker, Li and Moss, "Automatic detection of
            asymmetry in skin tumors", Computerized Medical Imaging and Graphics 16 (1992).
        asymmetry_minor_axis: the same about the minor principal axis.
        axis_ratio: length of the minor principal axis over the major, 0..1. Near 1 (a round lesion)
            the axes, and so both asymmetries, depend on the last pixel of the outline.
        compactness: perimeter² / (4 pi area), at least 1; 1 is a disc. The irregularity index of
            Golston, Stoecker, Moss and Dhillon, "Automatic detection of irregular borders in
            melanoma and other skin tumors", ibid. None, as the next, where a lesion is so thin
            that it has no such figure.
        radial_deviation: standard deviation over mean of the distance between centroid and outline,
            0 for a disc. The normalised radial length of Kilday, Palmieri and Fox, "Classifying
            mammographic lesions using computerized image analysis", IEEE Transactions on Medical
            Imaging 12 (1993), but over the mean instead of the maximum.
        color_shares: share of the lesion's pixels, 0..1, that is nearest to each of the
            `REFERENCE_COLORS` in CIELAB (D65). What is nearer still to the skin, the median colour
            beside the mask, has none of them: white is paler than the skin. The camera's colours
            are taken as they are.
        colors: those with a share of at least `MIN_COLOR_SHARE`.
        touches_frame: the lesion reaches the edge of the image. It may then extend beyond, and all
            other numbers are of the visible part.
        millimetres_per_pixel: the scale that was given.
    """

    area_pixels: int
    area_share: float
    area_mm2: float | None = None
    diameter_pixels: float | None = None
    diameter_mm: float | None = None
    equivalent_diameter_pixels: float | None = None
    equivalent_diameter_mm: float | None = None
    asymmetry_major_axis: float | None = None
    asymmetry_minor_axis: float | None = None
    axis_ratio: float | None = None
    compactness: float | None = None
    radial_deviation: float | None = None
    color_shares: Mapping[str, float] | None = None
    colors: tuple[str, ...] | None = None
    touches_frame: bool = False
    millimetres_per_pixel: float | None = None

    def to_dict(self) -> dict:
        """The same names with values for JSON."""
        values = asdict(self)
        return {**values, "colors": None if self.colors is None else list(self.colors)}


def measure(
    image: np.ndarray, mask: np.ndarray, millimetres_per_pixel: float | None = None
) -> Measurements:
    """Measures the lesion that a mask shows.

    Args:
        image: uint8 [height, width, 3], sRGB.
        mask: bool [height, width]. Several regions are measured as one; nothing but the area, 0,
            is known of an empty one.
        millimetres_per_pixel: length of a pixel's side on the skin, if known.

    Raises:
        ValueError: for another type or shape, or a scale that is no positive number.
    """
    _check(image, mask)
    millimetres_per_pixel = checked_scale(millimetres_per_pixel)
    area = int(np.count_nonzero(mask))
    result = Measurements(area, area / mask.size, millimetres_per_pixel=millimetres_per_pixel)
    if not area:
        return result
    shares = _color_shares(image, mask)
    cropped = _cropped(mask)
    diameter, equivalent = _diameter(cropped), float(np.sqrt(4 * area / np.pi))
    result = replace(
        result,
        diameter_pixels=diameter,
        equivalent_diameter_pixels=equivalent,
        color_shares=shares,
        colors=tuple(name for name, share in shares.items() if share >= MIN_COLOR_SHARE),
        touches_frame=bool(
            mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        ),
        **_shape(cropped),
    )
    if millimetres_per_pixel is None:
        return result
    return replace(
        result,
        area_mm2=area * millimetres_per_pixel**2,
        diameter_mm=diameter * millimetres_per_pixel,
        equivalent_diameter_mm=equivalent * millimetres_per_pixel,
    )


def checked_scale(millimetres_per_pixel: float | None) -> float | None:
    """A scale as a Python number, which JSON takes; ValueError for what is none."""
    if millimetres_per_pixel is None:
        return None
    if not isinstance(millimetres_per_pixel, Real) or not 0 < millimetres_per_pixel < np.inf:
        raise ValueError(
            "`millimetres_per_pixel` must be a number above 0 or None, received "
            f"{millimetres_per_pixel!r}."
        )
    return float(millimetres_per_pixel)


def _check(image, mask):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            "`image` must be uint8 [height, width, 3], "
            f"received {image.dtype} {image.shape}; mrcnn.images.as_rgb8 converts others."
        )
    if mask.dtype != bool or mask.shape != image.shape[:2]:
        raise ValueError(
            "`mask` must be bool and as large as the image, "
            f"received {mask.dtype} {mask.shape} for an image {image.shape}."
        )


def _color_shares(image, mask):
    references = rgb2lab(np.array(list(REFERENCE_COLORS.values())) / 255)
    lesion, pixels = _colors(image, mask)
    beside, pixels_beside = _colors(image, ~mask)
    known = references
    if len(beside):
        skin = np.median(np.repeat(beside, pixels_beside, axis=0), axis=0)
        known = np.vstack([references, skin])
    nearest = cdist(lesion, known, "sqeuclidean").argmin(axis=1)
    counts = np.bincount(nearest, pixels, len(known))[: len(references)]
    return {
        name: float(count / pixels.sum())
        for name, count in zip(REFERENCE_COLORS, counts, strict=True)
    }


def _colors(image, mask):
    """The colours within a mask, CIELAB float64 [n, 3], and how many pixels have each of them.

    At most `_MAX_COLOR_PIXELS` are looked at, evenly. Few of these differ, and those that do not
    are converted once.
    """
    inside = np.flatnonzero(mask)
    sample = inside[:: max(1, -(-len(inside) // _MAX_COLOR_PIXELS))]
    packed = np.zeros((len(sample), 4), np.uint8)
    packed[:, :3] = image.reshape(-1, 3)[sample]
    codes, counts = np.unique(packed.view(np.uint32), return_counts=True)
    return rgb2lab(codes.view(np.uint8).reshape(-1, 4)[:, :3] / 255), counts


def _cropped(mask):
    """The part of a mask within the bounding box of all that is true."""
    top, left, bottom, right = mask_extent(mask)
    return mask[top:bottom, left:right]


def _diameter(cropped):
    """Largest distance of two points of the outline, which runs between pixels' centres."""
    # The outline's convex hull is that of its ends in each row and in each column.
    rows, columns = _ends(cropped), _ends(cropped.T)[:, ::-1]
    outline = np.concatenate([rows, columns])
    return float(pdist(outline[ConvexHull(outline).vertices]).max())


def _ends(mask):
    """Where rows of a mask begin and end, float64 [2n, (y, x)]; empty ones do not."""
    filled = np.flatnonzero(mask.any(axis=1))
    first = mask[filled].argmax(axis=1) - 0.5
    last = mask.shape[1] - mask[filled, ::-1].argmax(axis=1) - 0.5
    return np.column_stack([np.tile(filled, 2), np.concatenate([first, last])])


def _shape(cropped):
    """Asymmetry, axis ratio and the border's two numbers, as keywords of `Measurements`."""
    cover, axis_ratio = _upright(cropped)
    total = 2 * cover.sum()
    return {
        "asymmetry_major_axis": float(np.abs(cover - cover[::-1]).sum() / total),
        "asymmetry_minor_axis": float(np.abs(cover - cover[:, ::-1]).sum() / total),
        "axis_ratio": axis_ratio,
        **_border(cover),
    }


def _upright(cropped):
    """The lesion turned upright and brought to one size.

    Returns:
        float [side, side], the share of each pixel that the lesion covers: its centroid in the
        middle, its major principal axis horizontal, its area pi `_RADIUS`²; and the length of its
        minor axis over that of the major.
    """
    # Pixels of the mask per pixel of the result. Thin or scattered lesions are measured coarser:
    # the result's size has a bound.
    scale = max(
        np.sqrt(np.count_nonzero(cropped) / np.pi) / _RADIUS,
        np.hypot(*cropped.shape) / _MAX_EXTENT,
    )
    block = max(1, int(scale))
    # Wide enough for the blur, and with whole blocks only.
    padding = [(_MARGIN * block, _MARGIN * block + -side % block) for side in cropped.shape]
    cover = _block_means(np.pad(cropped, padding), block)
    scale /= block

    points, weights = np.argwhere(cover > 0), cover[cover > 0]
    centroid = np.average(points, axis=0, weights=weights)
    # 1/12 is the variance within a pixel. The minor axis comes first: variances ascend.
    variance = np.cov(points.T, aweights=weights, ddof=0) + np.eye(2) / 12
    variances, axes = np.linalg.eigh(variance)

    blurred = ndimage.gaussian_filter(cover, max(scale, 1.0))
    # To the pixels' edges, not their centres.
    extent = (np.linalg.norm(points - centroid, axis=1).max() + 0.5) / scale
    # An even side: the axes run between pixels, and mirroring is reversing.
    side = 2 * int(np.ceil(extent + _MARGIN))
    to_mask = axes * scale
    origin = centroid - to_mask @ np.full(2, (side - 1) / 2)
    upright = ndimage.affine_transform(blurred, to_mask, origin, (side, side), order=1)
    return upright, float(np.sqrt(variances[0] / variances[1]))


def _block_means(mask, side):
    """Shares of the squares of a mask that are true, float64; `side` divides the mask's sides."""
    height, width = mask.shape
    rows = mask.reshape(height // side, side, width).sum(axis=1)
    return rows.reshape(len(rows), width // side, side).sum(axis=2) / side**2


def _border(cover):
    """Compactness and radial deviation of an upright lesion; None where it is too thin for them."""
    middle = (np.array(cover.shape) - 1) / 2
    contours = [contour - middle for contour in find_contours(cover, 0.5)]
    if not contours:
        return {}
    start = np.concatenate([contour[:-1] for contour in contours])
    end = np.concatenate([contour[1:] for contour in contours])
    lengths = np.linalg.norm(end - start, axis=1)
    radii = np.linalg.norm((start + end) / 2, axis=1)
    # Green's theorem; holes are walked the other way round and count negative.
    area = abs(np.sum(start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0])) / 2
    mean = np.average(radii, weights=lengths)
    variance = np.average((radii - mean) ** 2, weights=lengths)
    return {
        "compactness": float(lengths.sum() ** 2 / (4 * np.pi * area)),
        "radial_deviation": float(np.sqrt(variance) / mean),
    }
