"""Warnings about images that the networks were not made for: no dermoscopy, or a bad picture.

All is measured on a copy reduced to `SIDE` pixels, about what the networks see: blur that is gone
at that size does not count, and an image of 12 megapixels takes little more than its reduction.

Of 3,000 images of ISIC 2018 and HAM10000, 1.9 % get a warning, most of them rightly: overexposed
1.1 %, many_colors 0.5 % (vivid lesions, stickers), unlike_skin 0.3 % (blue casts), blurred 0.2 %
(the edge of a round frame), the others none. What is found of 323 of them changed on purpose:

    blurred by a Gaussian of 1 / 1.5 / 2 % of the longer side        61 / 98 / 100 %
    1.3 / 1.6 / 2 times as bright                                    64 / 95 / 100 %
    0.5 / 0.35 / 0.25 times as bright                                 5 / 81 / 100 %
    without colour / red and blue exchanged / negative              100 / 64 /  86 %

Of 19 images of scikit-image and noise, all but a cat, a motorcycle and a stained tissue are found:
brown things seen closely pass, and so does skin that is photographed without a dermatoscope. Both
data sets hold next to no dark skin; the limit for darkness leaves room for it, untested.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.color import rgb2gray, rgb2lab
from skimage.measure import blur_effect

SIDE = 192
MIN_SIDE = 128
MAX_BLUR = 0.65
MAX_CLIPPED = 0.25
MIN_LIGHTNESS = 30.0
MIN_CHROMA = 1.5
MIN_SKIN_COLORS = 0.4
MAX_COLOR_SPREAD = 17.0


@dataclass(frozen=True)
class QualityWarning:
    """What is wrong with an image.

    Attributes:
        code: one of those listed for `assess`.
        message: a sentence for the user.
        value: what was measured.
        threshold: what it should have been at least, or at most.
    """

    code: str
    message: str
    value: float
    threshold: float


def assess(image: np.ndarray) -> list[QualityWarning]:
    """Looks for reasons to distrust what the networks say about an image.

    Codes, what is measured, and when it warns:
        too_small: the shorter side, below `MIN_SIDE` pixels. Nothing else is measured then.
        blurred: `skimage.measure.blur_effect` (Crété et al. 2007: what a further blur takes away),
            0 sharp .. 1 blurred, above `MAX_BLUR`.
        overexposed: share of pixels with a channel at its maximum, above `MAX_CLIPPED`.
        underexposed: CIELAB lightness, 0..100, which 5 % of the pixels exceed, below
            `MIN_LIGHTNESS`.
        no_color: mean CIELAB chroma, below `MIN_CHROMA`.
        unlike_skin: share of pixels of a* > -6 and -15 < b* < 60, below `MIN_SKIN_COLORS`.
        many_colors: mean distance of (a*, b*) from its median, above `MAX_COLOR_SPREAD`.

    Args:
        image: uint8 [height, width, 3], sRGB.

    Returns:
        The warnings, in the order above; empty for an image that looks well.

    Raises:
        ValueError: for another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            "`image` must be uint8 [height, width, 3], "
            f"received {image.dtype} {image.shape}; mrcnn.images.as_rgb8 converts others."
        )
    side = min(image.shape[:2])
    if side < MIN_SIDE:
        message = f"The image is small: its shorter side has {side} pixels, fewer than {MIN_SIDE}."
        return [QualityWarning("too_small", message, float(side), float(MIN_SIDE))]

    reduced = _reduced(image)
    lightness, a, b = np.moveaxis(rgb2lab(reduced), 2, 0)
    blur = blur_effect(rgb2gray(reduced))
    clipped = np.mean(reduced.max(axis=2) >= 254)
    bright = np.percentile(lightness, 95)
    chroma = np.mean(np.hypot(a, b))
    skin = np.mean((a > -6) & (b > -15) & (b < 60))
    spread = np.mean(np.hypot(a - np.median(a), b - np.median(b)))
    lost = f"The image is overexposed: {clipped:.0%} of it has lost its colour."
    dark = "The image is very dark, perhaps underexposed."
    unlike = "The image does not look like dermoscopy"
    strange = f"{unlike}: its colours are hardly those of skin."
    varied = f"{unlike}: its colours differ more than those of skin and lesions."
    return [
        *_above(MAX_BLUR, blur, "blurred", "The image is blurred."),
        *_above(MAX_CLIPPED, clipped, "overexposed", lost),
        *_below(MIN_LIGHTNESS, bright, "underexposed", dark),
        *_below(MIN_CHROMA, chroma, "no_color", f"{unlike}: it has no colours."),
        *_below(MIN_SKIN_COLORS, skin, "unlike_skin", strange),
        *_above(MAX_COLOR_SPREAD, spread, "many_colors", varied),
    ]


def _above(most, value, code, message):
    return [QualityWarning(code, message, float(value), most)] if value > most else []


def _below(least, value, code, message):
    return [QualityWarning(code, message, float(value), least)] if value < least else []


def _reduced(image):
    """The image with a longer side of at most `SIDE` pixels, each the mean of what it covers."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    # Strips keep a width that can be measured.
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
