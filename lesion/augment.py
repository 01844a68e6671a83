"""Random changes a dermoscopic image may undergo without its boundary becoming another."""

import numpy as np
from PIL import Image, ImageFilter


class DermoscopyAugmentation:
    """Flips, any rotation, scale, shift, stretch, colour, brightness, blur and noise.

    Dermoscopy has no up and down; cameras differ in magnification, colour cast and focus. The
    instance is callable as `augmentation(image, masks, rng)`, as `mrcnn` expects.

    Args:
        scale: bounds of the magnification.
        shift: largest shift as a fraction of each side.
        stretch: largest change of the aspect ratio.
        colour: largest change of brightness, contrast, saturation and of single channels.
        blur: largest standard deviation of the blur in pixels, for a third of the images.
    """

    def __init__(self, scale=(0.8, 1.3), shift=0.1, stretch=0.1, colour=0.2, blur=1.2):
        self.scale = scale
        self.shift = shift
        self.stretch = stretch
        self.colour = colour
        self.blur = blur

    def __call__(self, image, masks, rng):
        """Args: uint8 [h, w, 3], bool [h, w, n], a `numpy.random.Generator`. Returns the same."""
        height, width = image.shape[:2]
        coefficients = self._inverse_affine(height, width, rng)
        # Outside the image lies the dark surround of a dermoscope, or skin.
        surround = (0, 0, 0) if rng.random() < 0.3 else tuple(int(v) for v in _rim_colour(image))
        picture = Image.fromarray(image).transform(
            (width, height),
            Image.Transform.AFFINE,
            coefficients,
            Image.Resampling.BILINEAR,
            fillcolor=surround,
        )
        moved = np.zeros_like(masks)
        for index in range(masks.shape[2]):
            mask = Image.fromarray(masks[:, :, index].astype(np.uint8) * 255).transform(
                (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
            )
            moved[:, :, index] = np.asarray(mask) >= 128
        if rng.random() < 1 / 3:
            picture = picture.filter(
                ImageFilter.GaussianBlur(rng.uniform(min(0.2, self.blur), self.blur))
            )
        return self._recolour(np.asarray(picture), rng), moved

    def _inverse_affine(self, height, width, rng):
        """Six coefficients that take pixels of the new image to pixels of the old one."""
        angle = rng.uniform(0, 2 * np.pi)
        if rng.random() < 0.5:  # upright or upside down: nothing of a wide frame is cut off
            angle = np.pi * rng.integers(2) + rng.uniform(-0.25, 0.25)
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        aspect = np.exp(rng.uniform(-self.stretch, self.stretch) / 2)
        mirror = 1 if rng.random() < 0.5 else -1
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        # Columns of the matrix are x and y, as Pillow orders them.
        matrix = turn @ np.diag([mirror * aspect, 1 / aspect]) / zoom
        middle = np.array([width, height]) / 2
        offset = rng.uniform(-self.shift, self.shift, 2) * [width, height]
        origin = middle + offset - matrix @ middle
        return (*matrix[0], origin[0], *matrix[1], origin[1])

    def _recolour(self, image, rng):
        change = self.colour
        pixels = image.astype(np.float32)
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * rng.uniform(1 - change, 1 + change)
        mean = pixels.mean()
        pixels = mean + (pixels - mean) * rng.uniform(1 - change, 1 + change)
        pixels *= rng.uniform(1 - change, 1 + change)
        pixels *= rng.uniform(1 - change / 2, 1 + change / 2, 3).astype(np.float32)
        if rng.random() < 0.3:
            pixels += rng.normal(0, rng.uniform(1, 6), pixels.shape).astype(np.float32)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _rim_colour(image):
    """Median colour [3] of the outermost pixels."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.median(rim, axis=0)
