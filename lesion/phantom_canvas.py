"""What phantoms are drawn with: a frame that draws noise, strokes and discs, and layers on it.

Lengths are in units of the frame's short side, so that a drawing is the same at any size.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage, sparse


# The scalars below are Python's, as NumPy's would turn float32 arrays into float64.
def pick(rng: np.random.Generator, values: list, odds: list[float]) -> Any:
    return values[int(rng.choice(len(values), p=odds))]


def log_normal(rng: np.random.Generator, median: float, spread: float) -> float:
    return median * math.exp(rng.normal(0, spread))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low * (high / low) ** rng.random()


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * values)


@dataclass(frozen=True)
class Layer:
    """One thing drawn on the frame.

    Attributes:
        coverage: float32 [height, width], 0 to 1, how much of each pixel it takes.
        colour: float32 [3] or [height, width, 3]; 0 to 1, or absorbance where it absorbs.
        absorbs: whether it is a pigment that filters what lies below rather than hiding it.
    """

    coverage: np.ndarray
    colour: np.ndarray
    absorbs: bool = False

    @property
    def mask(self) -> np.ndarray:
        """Bool [height, width], the pixels of which the layer takes more than half."""
        return self.coverage > 0.5

    def over(self, image: np.ndarray) -> np.ndarray:
        """The float32 [height, width, 3] image with this layer on top of it."""
        if not self.coverage.any():
            return image
        (box,) = ndimage.find_objects((self.coverage > 0).astype(np.uint8))
        below, share = image[box], self.coverage[box][..., None]
        colour = self.colour if self.colour.ndim == 1 else self.colour[box]
        image = image.copy()
        image[box] = (
            below * np.exp(-share * colour) if self.absorbs else below + share * (colour - below)
        )
        return image


class Frame:
    """Pixel positions of an image in units of its short side, and the means to draw at any size."""

    def __init__(self, height: int, width: int):
        self.shape = (height, width)
        self.short = min(height, width)
        self.extent = (height / self.short, width / self.short)
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) / self.short)[:, None]
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) / self.short)[None, :]

    def noise(self, rng: np.random.Generator, spacing: float, octaves: int = 1) -> np.ndarray:
        """Smooth noise, float32 [height, width], of mean 0 and standard deviation near 1.

        Normal values on a grid, interpolated by cubic B-splines along one axis and the other.
        Each octave has half the spacing and 0.6 of the amplitude of the one before.
        """
        rng = np.random.default_rng(rng.integers(2**63))  # what is skipped below shifts no others
        total, power = np.zeros(self.shape, np.float32), 0.0
        for octave in range(octaves):
            step, gain = float(spacing) / 2**octave, 0.6**octave
            power += gain * gain
            grain = step * self.short  # pixels
            if grain < 0.4:
                continue
            phase = rng.random(2).tolist()
            knots = [int(extent / step) + 5 for extent in self.extent]
            values = rng.standard_normal(knots, dtype=np.float32)
            rows = _spline_weights(self.y[:, 0] / step + phase[0], knots[0])
            columns = _spline_weights(self.x[0] / step + phase[1], knots[1])
            # A pixel larger than the grain sees its average; 0.479 is the integral of B squared.
            values *= np.float32(gain * min(1.0, grain) / 0.479)
            total += rows @ (columns @ values.T).T
        return total / np.float32(np.sqrt(power))

    def strokes(self, curves: np.ndarray, half_widths: np.ndarray) -> np.ndarray:
        """Antialiased curves, float32 [height, width] coverage.

        Args:
            curves: [strokes, points, 2] as (y, x) in short sides; densely sampled is not needed.
            half_widths: [strokes, points] in short sides.
        """
        coverage = np.zeros(self.shape, np.float32)
        if not len(curves):
            return coverage
        lengths = np.linalg.norm(np.diff(curves, axis=1), axis=-1).sum(axis=1) * self.short
        samples = int(lengths.max()) + 2  # at most a pixel apart
        where = np.linspace(0, curves.shape[1] - 1, samples)
        low = np.minimum(where.astype(int), curves.shape[1] - 2)
        share = (where - low)[:, None]
        points = (curves[:, low] * (1 - share) + curves[:, low + 1] * share) * self.short - 0.5
        widths = half_widths[:, low] * (1 - share[:, 0]) + half_widths[:, low + 1] * share[:, 0]
        widths = widths * self.short
        tangents = np.gradient(points, axis=1)
        tangents /= np.maximum(np.linalg.norm(tangents, axis=-1, keepdims=True), 1e-6)

        reach = int(np.ceil(widths.max() + 0.5))
        near = np.moveaxis(np.mgrid[-reach : reach + 1, -reach : reach + 1], 0, -1).reshape(-1, 2)
        inside = np.all((points > -reach - 1) & (points < np.array(self.shape) + reach), axis=-1)
        points, tangents, widths = points[inside], tangents[inside], widths[inside]
        pixels = np.rint(points).astype(int)[:, None] + near  # [samples, neighbours, 2]
        offset = pixels - points[:, None]
        across = np.abs(
            offset[..., 0] * tangents[:, None, 1] - offset[..., 1] * tangents[:, None, 0]
        )
        along = np.abs((offset * tangents[:, None]).sum(axis=-1))
        edge = np.minimum(widths[:, None] + 0.5 - across, 1.5 - along)
        # A stroke thinner than a pixel darkens it only in part.
        value = np.clip(np.minimum(edge, 2 * widths[:, None]), 0, 1).astype(np.float32)
        keep = (value > 0) & np.all((pixels >= 0) & (pixels < self.shape), axis=-1)
        np.maximum.at(coverage, (pixels[keep][:, 0], pixels[keep][:, 1]), value[keep])
        return coverage

    def disc(self, centre: np.ndarray, radius: float, softness: float = 0.0) -> np.ndarray:
        """Antialiased disc, float32 [height, width]; `softness` widens its rim, in short sides."""
        distance = np.hypot(self.y - np.float32(centre[0]), self.x - np.float32(centre[1]))
        rim = max(1.0 / self.short, softness)
        return np.clip((np.float32(radius) - distance) / rim + 0.5, 0, 1)

    def discs(
        self,
        centres: np.ndarray,
        radii: np.ndarray,
        softness: float,
        stretches: float | np.ndarray = 1.0,
        angles: float | np.ndarray = 0.0,
    ) -> np.ndarray:
        """Many small discs, or ellipses of the same area, float32 [height, width] coverage.

        Args:
            centres: [discs, 2] as (y, x) in short sides.
            radii: [discs] in short sides.
            softness: as in `disc`, in radii.
            stretches: [discs] or one for all, length over width, 1 or more.
            angles: [discs] or one for all, direction of the length in radians.
        """
        coverage = np.zeros(self.shape, np.float32)
        count = len(centres)
        stretches, angles = np.broadcast_to(stretches, count), np.broadcast_to(angles, count)
        for (y, x), radius, stretch, angle in zip(centres, radii, stretches, angles, strict=True):
            reach = radius * (math.sqrt(stretch) + softness) + 2 / self.short
            first, end = ((np.array([y, x]) + side * reach) * self.short for side in (-1, 1))
            first, end = np.maximum(first, 0).astype(int), np.maximum(end + 1, 0).astype(int)
            box = slice(first[0], end[0]), slice(first[1], end[1])
            down, right = self.y[box[0]] - np.float32(y), self.x[:, box[1]] - np.float32(x)
            along = (down * math.sin(angle) + right * math.cos(angle)) / math.sqrt(stretch)
            beside = (down * math.cos(angle) - right * math.sin(angle)) * math.sqrt(stretch)
            rim = max(1.0 / self.short, softness * radius)
            disc = np.clip((radius - np.hypot(along, beside)) / rim + 0.5, 0, 1)
            coverage[box] = np.maximum(coverage[box], disc)
        return coverage


def _spline_weights(positions: np.ndarray, knots: int) -> sparse.csr_array:
    """Cubic B-spline weights, float32 [positions, knots], of positions in knot spacings.

    Sparse, as four knots bear on a position; the product then also stays off the BLAS threads.
    """
    first = positions.astype(int)
    past = positions - first
    before = 1 - past
    four = [
        before**3 / 6,
        2 / 3 - past**2 + past**3 / 2,
        2 / 3 - before**2 + before**3 / 2,
        past**3 / 6,
    ]
    columns = first[:, None] + np.arange(4)
    starts = np.arange(0, columns.size + 1, 4)
    return sparse.csr_array(
        (np.stack(four, axis=1).ravel(), columns.ravel(), starts), shape=(len(positions), knots)
    )
