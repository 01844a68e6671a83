"""Random changes a dermoscopic image may undergo without its content becoming another."""

import functools
import io

import numpy as np
from PIL import Image, ImageFilter

from lesion.phantom_canvas import Frame
from lesion.phantom_layers import draw_hair, draw_ruler

FARTHEST = 0.3  # the least magnification of an image shown from afar


class DermoscopyAugmentation:
    """Flips, any rotation, scale, shift, stretch, colour, brightness, blur, noise and compression.

    Dermoscopy has no up and down; cameras differ in magnification, colour cast and focus, and
    photographs are stored as JPEG again and again. The instance is callable as
    `augmentation(image, masks, rng)`, as `mrcnn` expects.

    Args:
        scale: bounds of the magnification.
        shift: largest shift as a fraction of each side.
        stretch: largest change of the aspect ratio.
        colour: largest change of brightness, contrast, saturation and of single channels.
        blur: largest standard deviation of the blur in pixels, for a third of the images.
        compression: share of images stored as JPEG in between, at a quality of 25 to 90.
        far: share of images shown from afar: between `FARTHEST` and the lower bound of `scale`, and
            anywhere in the frame.
        side: of the square that is returned, which at magnification 1 shows the largest square in
            the middle of the image; None returns the size given.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.7, 1.4),
        shift: float = 0.1,
        stretch: float = 0.1,
        colour: float = 0.2,
        blur: float = 1.2,
        compression: float = 0.2,
        far: float = 0.0,
        side: int | None = None,
    ):
        self.scale = scale
        self.shift = shift
        self.stretch = stretch
        self.colour = colour
        self.blur = blur
        self.compression = compression
        self.far = far
        self.side = side

    def __call__(
        self, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Args: uint8 [h, w, 3], bool [h, w, n], a `numpy.random.Generator`. Returns the same."""
        height, width = (self.side, self.side) if self.side else image.shape[:2]
        coefficients = self._inverse_affine(image.shape[:2], (height, width), rng)
        # Outside the image lies the dark surround of a dermoscope, or skin.
        surround = (0, 0, 0) if rng.random() < 0.3 else tuple(int(v) for v in rim_colour(image))
        picture = Image.fromarray(image).transform(
            (width, height),
            Image.Transform.AFFINE,
            coefficients,
            Image.Resampling.BILINEAR,
            fillcolor=surround,
        )
        moved = np.zeros((height, width, masks.shape[2]), bool)
        for index in range(masks.shape[2]):
            mask = Image.fromarray(masks[:, :, index].astype(np.uint8) * 255).transform(
                (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
            )
            moved[:, :, index] = np.asarray(mask) >= 128
        if rng.random() < 1 / 3:
            picture = picture.filter(
                ImageFilter.GaussianBlur(rng.uniform(min(0.2, self.blur), self.blur))
            )
        changed = self._recolour(np.asarray(picture), rng)
        if self.compression and rng.random() < self.compression:
            changed = _compressed(changed, quality=int(rng.integers(25, 91)))
        return changed, moved

    def _inverse_affine(self, old_shape, new_shape, rng):
        """Six coefficients that take pixels of the new image to pixels of the old one."""
        angle = rng.uniform(0, 2 * np.pi)
        if rng.random() < 0.5:  # upright or upside down: nothing of a wide frame is cut off
            angle = np.pi * rng.integers(2) + rng.uniform(-0.25, 0.25)
        from_afar = self.far and rng.random() < self.far
        bounds = (FARTHEST, self.scale[0]) if from_afar else self.scale
        zoom = np.exp(rng.uniform(*np.log(bounds)))
        aspect = np.exp(rng.uniform(-self.stretch, self.stretch) / 2)
        mirror = 1 if rng.random() < 0.5 else -1
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        # Columns of the matrix are x and y, as Pillow orders them.
        matrix = turn @ np.diag([mirror * aspect, 1 / aspect]) / zoom
        matrix *= min(old_shape) / min(new_shape)
        old_size, new_size = np.array(old_shape[::-1]), np.array(new_shape[::-1])
        offset = rng.uniform(-self.shift, self.shift, 2) * old_size
        middle = new_size / 2
        if from_afar:  # it may lie wherever an upright image of the frame's shape would fit
            middle += rng.uniform(-1, 1, 2) * (1 - zoom) / 2 * new_size
        origin = old_size / 2 + offset - matrix @ middle
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


def _compressed(image, quality):
    """The image as it comes back from a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def rim_colour(image: np.ndarray) -> np.ndarray:
    """Median colour [3] of the outermost pixels."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.median(rim, axis=0)


class Obstacles:
    """Hair, rulers and squares that hide a part of an image, as what a diagnosis must not need.

    Hair and rulers are those of the phantoms, drawn once and laid on in eight orientations; squares
    are cutout (DeVries & Taylor 2017). Callable as `obstacles(image, rng)`.

    Args:
        side: of the images, square.
        overlay: share of images with hair or a ruler.
        cutout: share of images with a square of one colour, of a side up to a third of theirs.
        drawings: number of hair and ruler layers to choose from.
    """

    def __init__(self, side: int, overlay: float = 0.2, cutout: float = 0.3, drawings: int = 48):
        self.side = side
        self.overlay = overlay
        self.cutout = cutout
        self.drawings = drawings

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Args: uint8 [side, side, 3], a `numpy.random.Generator`. Returns a new uint8 image."""
        if rng.random() < self.overlay:
            for layer in self._layers[rng.integers(len(self._layers))]:
                image = _laid_on(image, layer, turns=rng.integers(4), mirrored=rng.random() < 0.5)
        if rng.random() < self.cutout:
            image = image.copy()
            extent = int(rng.uniform(0.1, 1 / 3) * self.side)
            top, left = rng.integers(0, self.side - extent + 1, 2)
            image[top : top + extent, left : left + extent] = rng.integers(0, 256, 3)
        return image

    @functools.cached_property
    def _layers(self):
        """Hair and rulers, each a list of layers that are not empty."""
        frame = Frame(self.side, self.side)
        rng = np.random.default_rng(0)
        drawn = []
        while len(drawn) < self.drawings:
            draw = draw_ruler if len(drawn) % 4 == 0 else draw_hair
            if layers := draw(frame, rng):
                drawn.append(layers)
        return drawn


def _laid_on(image, layer, turns, mirrored):
    """The image with a layer of a phantom on it, turned by quarters and mirrored."""
    step = -1 if mirrored else 1
    back = np.rot90(image[:, ::step], turns)
    painted = np.clip(layer.over(back.astype(np.float32) / 255), 0, 1)
    return np.rint(np.rot90(painted, -turns)[:, ::step] * 255).astype(np.uint8)
