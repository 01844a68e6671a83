"""The five dermoscopic attributes on a phantom's lesion, and the region that each of them covers.

The structures are those of the consensus on dermoscopy's terms (Kittler et al. 2016, J Am Acad
Dermatol 74:1093). A mask marks a region, as the annotators of ISIC 2018 Task 2 do, not each line
of it:

- pigment_network, negative_network: the area that the mesh covers, holes included, as far as the
  mesh has half of its contrast; towards the lesion's border and into the plain lesion it fades.
- streaks: the strands, the gaps between neighbouring ones, and a narrow margin.
- milia_like_cyst, globules: the discs, the gaps between neighbouring ones, and a narrow margin.

Lengths are in units of the frame's short side.
"""

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
from scipy import ndimage

from lesion.phantom_canvas import Frame, Layer, log_uniform, pick, sigmoid
from lesion.phantom_layers import BLOOD, MELANIN, honeycomb
from lesion.samples import ATTRIBUTES

# Share of the images in which an attribute is present: that of the challenge's training set, and
# one that leaves enough of the rare ones in a small set.
CHALLENGE_RATES: dict[str, float] = dict(
    zip(ATTRIBUTES, (0.587, 0.073, 0.039, 0.263, 0.232), strict=True)
)
EVEN_RATES: dict[str, float] = dict.fromkeys(ATTRIBUTES, 1 / 3)

_MARGIN = 0.004  # 1.5 pixels of 384


def distribute_attributes(
    lesions: list[int], rates: Mapping[str, float], rng: np.random.Generator
) -> dict[int, list[str]]:
    """Which attributes each of `lesions` shows: every attribute regardless of the others.

    Args:
        rates: share of the lesions, 0 to 1, by attribute; met as nearly as their number allows.
    """
    shown: dict[int, list[str]] = {lesion: [] for lesion in lesions}
    for name in ATTRIBUTES:
        order = rng.permutation(lesions).tolist()
        for lesion in order[: round(len(lesions) * rates.get(name, 0))]:
            shown[lesion].append(name)
    return shown


def draw_attributes(
    frame: Frame,
    stream: Callable[[str], np.random.Generator],
    level: np.ndarray,
    pigment: Layer,
    visible: np.ndarray,
    names: Collection[str],
) -> tuple[list[Layer], list[Layer], dict[str, np.ndarray]]:
    """Draw the attributes `names` on a lesion.

    Args:
        stream: the random numbers of a layer by its name.
        level: of `draw_level`, float32 [height, width].
        pigment: the first layer of `draw_lesion`.
        visible: bool [height, width], where structures may lie.
        names: of `lesion.samples.ATTRIBUTES`.

    Returns:
        layers to lie right over the pigment; layers to lie over the whole lesion; and by name the
        region of each attribute drawn, bool [height, width]. Streaks reach beyond the lesion's
        outline, and all may reach beyond what is visible.
    """
    absorbance = pigment.coverage[..., None] * pigment.colour
    inside = (level > 0) & visible
    network, structures, regions = [], [], {}
    taken = np.zeros(frame.shape, np.float32)
    for name, draw in (
        ("negative_network", _draw_negative_network),
        ("pigment_network", _draw_pigment_network),
    ):
        if name in names:
            layer = draw(frame, stream(name), level, inside, absorbance, taken)
            taken = np.maximum(taken, layer.coverage)
            network.append(layer)
            regions[name] = _without_specks(layer.mask, (0.03 * frame.short) ** 2)
    if "streaks" in names:
        layer, regions["streaks"] = _draw_streaks(frame, stream("streaks"), level, inside, pigment)
        structures.append(layer)
    if "globules" in names:
        layer, regions["globules"] = _draw_globules(
            frame, stream("globules"), level, inside, pigment, taken
        )
        structures.append(layer)
    if "milia_like_cyst" in names:
        layer, regions["milia_like_cyst"] = _draw_cysts(
            frame, stream("milia_like_cyst"), level, inside
        )
        structures.append(layer)
    structures += _draw_lookalikes(frame, stream("lookalikes"), level)
    return network, structures, regions


def _draw_pigment_network(frame, rng, level, inside, absorbance, taken) -> Layer:
    """Brown lines around paler holes, at the rim of the lesion, in its middle, or in a part."""
    outward = pick(rng, [1.0, 0.0, -0.6], [0.5, 0.35, 0.15])
    share = log_uniform(rng, 0.3, 0.9)
    extent = _territory(frame, rng, level, inside, share, outward, taken)
    pitch, angle = log_uniform(rng, 0.025, 0.042), rng.uniform(0, np.pi)
    waves = honeycomb(frame, rng, pitch, angle, bend=0.25)
    thickness = rng.uniform(-0.75, -0.35) + 0.2 * frame.noise(rng, 0.1)
    lines = sigmoid(5 * (thickness - waves))
    holes = 1 - lines
    strength = _strength(frame, rng)
    dark, pale = rng.uniform(0.5, 0.9), rng.uniform(0.3, 0.5)
    change = (strength * (dark * lines - pale * holes))[..., None] * absorbance
    change += (0.35 * strength * lines)[..., None] * MELANIN
    return Layer(extent, change, absorbs=True)


def _draw_negative_network(frame, rng, level, inside, absorbance, taken) -> Layer:
    """Pale serpiginous lines around darker, elongated cells."""
    outward = pick(rng, [0.5, 0.0, -0.8], [0.25, 0.35, 0.4])
    share = log_uniform(rng, 0.25, 0.6)
    extent = _territory(frame, rng, level, inside, share, outward, taken)
    pitch, angle = log_uniform(rng, 0.034, 0.050), rng.uniform(0, np.pi)
    waves = honeycomb(frame, rng, pitch, angle, bend=0.38, stretch=rng.uniform(1.5, 2.1))
    thickness = rng.uniform(-0.75, -0.4) + 0.2 * frame.noise(rng, 0.1)
    lines = sigmoid(5 * (thickness - waves))
    cells = np.clip((waves - thickness) / 2, 0, 1)
    strength = _strength(frame, rng)
    dark, pale = rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.7)
    change = (strength * (dark * cells - pale * lines))[..., None] * absorbance
    change += (0.25 * strength * cells)[..., None] * MELANIN
    return Layer(extent, change, absorbs=True)


def _without_specks(mask: np.ndarray, least: float) -> np.ndarray:
    """The parts of `mask` of at least `least` pixels, or as large as its largest part."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= max(1, min(least, sizes.max())))[labels]


def _strength(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Contrast of a mesh from place to place, float32 [height, width]."""
    uneven = np.clip(1 + 0.3 * frame.noise(rng, 0.12), 0.5, 1.3)
    return rng.uniform(0.75, 1.15) * uneven


def _territory(frame, rng, level, inside, share, outward, taken) -> np.ndarray:
    """A soft part of the lesion, float32 [height, width], 1/2 at its edge.

    Args:
        inside: bool [height, width], the visible lesion.
        share: of `inside` that it covers, about.
        outward: above 0 it keeps to the lesion's rim, below 0 to its middle.
        taken: float [height, width], 0 to 1, what it leaves to others.
    """
    size = float(level.max())
    depth = np.clip(level / size, 0, 1)
    score = _blotches(frame, rng, size) - 3 * outward * depth - 6 * taken
    edge = np.quantile(score[inside], 1 - share) if inside.any() else 0.0
    ramp = np.clip(0.5 + (score - np.float32(edge)) / 0.3, 0, 1)
    fade = np.clip(0.5 + level / (0.3 * size), 0, 1)
    return (np.minimum(ramp, fade) * (1 - np.clip(2 * taken, 0, 1))).astype(np.float32)


def _blotches(frame: Frame, rng: np.random.Generator, size: float) -> np.ndarray:
    """Noise of about the grain of a lesion of `size`, float32 [height, width]."""
    # In steps, as `size` is measured in pixels, and the least change in grain is another noise.
    return frame.noise(rng, 0.8 * 1.25 ** round(math.log(size, 1.25)))


def _draw_streaks(frame, rng, level, inside, pigment) -> tuple[Layer, np.ndarray]:
    """Strands that run out of the lesion's border: tapering streaks, or pseudopods with a knob."""
    size = float(level.max())
    knobbed = rng.random() < 0.4
    spacing, density = rng.uniform(0.016, 0.027), rng.uniform(0.8, 1.25)
    reach = min(max(size * rng.uniform(0.25, 0.5), 0.04), 0.09)
    points, normals = _along_border(frame, rng, level, inside, spacing)
    count, along = len(points), np.linspace(-0.5, 0.6, 12)
    length = reach * rng.uniform(0.6, 1.25, count)[:, None]
    lean = rng.normal(0, 0.15, count)[:, None] + rng.normal(0, 0.35, count)[:, None] * along
    sideways = np.stack([-normals[:, 1], normals[:, 0]], axis=1)
    offset = length * along
    curves = points[:, None] + offset[..., None] * normals[:, None]
    curves += (offset * lean)[..., None] * sideways[:, None]
    taper = 1.2 - 1.6 * np.clip(along, -0.2, 0.5)
    if knobbed:
        taper = np.where(along > 0.45, 1.3, np.maximum(taper, 0.7))
    widths = spacing * rng.uniform(0.18, 0.32, count)[:, None] * taper
    # They dissolve in the lesion's pigment rather than end in it.
    strands = frame.strokes(curves, widths) * np.clip(1.1 - level / (0.4 * reach), 0, 1)
    colour = _darkness(pigment, inside) * density * MELANIN
    # The tips are thinner than a pixel on small frames, and take less than half of it.
    return Layer(strands, colour, absorbs=True), _region(frame, strands > 0.3, 0.85 * spacing)


def _draw_globules(frame, rng, level, inside, pigment, taken) -> tuple[Layer, np.ndarray]:
    """Round to oval, brown to black dots and clods: a cobblestone, clusters, or a rim."""
    size = float(level.max())
    kind = pick(rng, ["cobblestone", "clusters", "rim"], [0.35, 0.4, 0.25])
    pitch, density = log_uniform(rng, 0.027, 0.046), rng.uniform(0.6, 1.1)
    softness = rng.uniform(0.3, 0.7)
    uneven = np.clip(1 + 0.25 * frame.noise(rng, 2 * pitch), 0.5, 1.5)[..., None]
    if kind == "rim":
        extent = (np.abs(level - 1.1 * pitch) < 0.8 * pitch) & (_blotches(frame, rng, size) > -0.8)
    else:
        share = log_uniform(rng, 0.3, 0.6) if kind == "cobblestone" else rng.uniform(0.12, 0.25)
        outward = pick(rng, [0.6, 0.0, -0.6], [0.3, 0.4, 0.3])
        extent = _territory(frame, rng, level, inside, share, outward, 0.7 * taken)
    points = _scattered(frame, rng, pitch)
    points = points[rng.random(len(points)) < 0.88]
    points = points[_at(frame, inside & (level > 0.3 * pitch), points)]
    belonging = _at(frame, extent, points)
    chosen = belonging > 0.5
    most = np.argsort(-1.0 * belonging, kind="stable")
    chosen[most[:6]] = True  # six at least, even where room is scarce
    points = points[chosen]
    count = len(points)
    radii = pitch * rng.uniform(0.26, 0.42, count)
    clods = frame.discs(
        points,
        radii,
        softness,
        stretches=rng.uniform(1, 1.4, count),
        angles=rng.uniform(0, np.pi, count),
    )
    colour = _darkness(pigment, inside) * density * MELANIN
    return Layer(clods, uneven * colour, absorbs=True), _region(frame, clods > 0.5, 0.75 * pitch)


def _draw_cysts(frame, rng, level, inside) -> tuple[Layer, np.ndarray]:
    """A few round bright discs, white to yellow, sharp or cloudy."""
    wanted, size = 3 + rng.poisson(5), log_uniform(rng, 0.011, 0.018)
    softness, opacity = rng.uniform(0.35, 1.0), rng.uniform(0.55, 0.85)
    colour = np.array([1.0, 0.96, 0.86]) - rng.uniform(0, 0.5) * np.array([0.04, 0.12, 0.34])
    points = _scattered(frame, rng, 0.05, jitter=0.45)
    depth = _at(frame, np.where(inside, level, -1), points)
    # Those well inside, or where there are none, the innermost.
    points = points[(depth >= 0.014) | (depth == max(0.0, depth.max()))][:wanted]
    discs = frame.discs(points, size * rng.uniform(0.8, 1.5, len(points)), softness)
    layer = Layer((opacity * discs).astype(np.float32), colour.astype(np.float32))
    return layer, _region(frame, discs > 0.5, 0.012)


def _draw_lookalikes(frame, rng, level) -> list[Layer]:
    """What is none of the five: red dots (vessels) and short, shiny white lines, now and then."""
    layers = []
    if rng.random() < 0.1:
        points = _scattered(frame, rng, 0.03, jitter=0.45)
        patch = frame.noise(rng, 0.15) + np.clip(3 * level / level.max(), -2, 0.5)
        points = points[_at(frame, patch, points) > 0.9]
        dots = frame.discs(points, np.full(len(points), 0.0055), softness=0.6)
        layers.append(Layer(dots, rng.uniform(0.5, 0.9) * BLOOD, absorbs=True))
    if rng.random() < 0.2:
        count, heading = 6 + rng.poisson(8), rng.uniform(0, np.pi)
        middle = np.array(frame.extent) * rng.uniform(0.3, 0.7, 2)
        starts = middle + rng.normal(0, 0.09, (count, 2))
        turns = heading + rng.normal(0, 0.15, count)
        lengths = rng.uniform(0.03, 0.08, count)[:, None]
        ends = starts + lengths * np.stack([np.sin(turns), np.cos(turns)], axis=1)
        lines = frame.strokes(np.stack([starts, ends], axis=1), np.full((count, 2), 0.0035))
        layers.append(Layer(rng.uniform(0.3, 0.55) * lines, np.ones(3, np.float32)))
    return layers


def _darkness(pigment: Layer, inside: np.ndarray) -> float:
    """Melanin of the lesion on average, at least as much as shows on pale skin."""
    if not inside.any():
        return 0.8
    return max(0.8, float((pigment.colour[inside] / MELANIN).mean()))


def _scattered(frame, rng, pitch: float, jitter: float = 0.22) -> np.ndarray:
    """Points `pitch` apart on a shaken triangular lattice over the frame, [points, 2], shuffled.

    How many there are does not depend on the frame's resolution: any size has the same ones.
    """
    rows = np.arange(-1, frame.extent[0] / (0.866 * pitch) + 1)
    columns = np.arange(-1, frame.extent[1] / pitch + 1)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    points = pitch * np.stack([0.866 * y, x + 0.5 * (y % 2)], axis=-1).reshape(-1, 2)
    return rng.permutation(points + rng.uniform(-jitter, jitter, points.shape) * pitch)


def _at(frame: Frame, values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`values` [height, width] at the pixels of `points` [points, 2], or at the nearest ones."""
    pixels = (points * frame.short).astype(int)
    return values[tuple(np.clip(pixels, 0, np.array(frame.shape) - 1).T)]


def _along_border(frame, rng, level, inside, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points `spacing` apart on the visible outline, and the unit normals outward there.

    They follow all of it, or one to three arcs; both [points, 2] as (y, x).
    """
    arcs = pick(rng, [0, 1, 2, 3], [0.3, 0.25, 0.25, 0.2])
    middles = rng.uniform(0, 2 * np.pi, arcs)
    halves = rng.uniform(0.35, 0.8, arcs)
    steps = 720
    hops = spacing * rng.uniform(0.8, 1.3, steps)

    smooth = ndimage.gaussian_filter(level, 0.012 * frame.short, truncate=2)
    within = smooth > 0
    border = within & ~ndimage.binary_erosion(within, border_value=1) & inside
    if not border.any():
        return np.zeros((0, 2)), np.zeros((0, 2))
    y, x = np.nonzero(border)
    centre = np.array([y.mean(), x.mean()])
    angle = np.arctan2(y - centre[0], x - centre[1]) % (2 * np.pi)
    # Per direction the farthest pixel: a later one takes the place of an earlier.
    outermost = np.full(steps, -1)
    farthest_last = np.argsort(np.hypot(y - centre[0], x - centre[1]), kind="stable")
    bins = np.minimum((angle * steps / (2 * np.pi)).astype(int), steps - 1)
    outermost[bins[farthest_last]] = farthest_last

    chosen, last = [], None
    for step in np.flatnonzero(outermost >= 0):
        direction = 2 * np.pi * step / steps
        away = np.abs((direction - middles + np.pi) % (2 * np.pi) - np.pi)
        if arcs and not np.any(away < halves):
            continue
        pixel = outermost[step]
        point = np.array([y[pixel], x[pixel]])
        if last is None or np.hypot(*(point - last)) >= hops[step] * frame.short:
            chosen.append(pixel)
            last = point
    if not chosen:
        chosen = [int(outermost.max())]
    pixels = np.stack([y[chosen], x[chosen]], axis=1)
    slope = np.stack([np.gradient(smooth, axis=axis)[y[chosen], x[chosen]] for axis in (0, 1)], 1)
    normals = -slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)
    return (pixels + 0.5) / frame.short, normals


def _region(frame: Frame, drawn: np.ndarray, gap: float) -> np.ndarray:
    """`drawn`, bool, with gaps of up to twice `gap` closed and a narrow margin around."""
    reach = gap * frame.short
    padding = math.ceil(reach) + 2
    drawn = np.pad(drawn, padding)
    region = np.zeros_like(drawn)
    for box in ndimage.find_objects(drawn.astype(np.uint8)):
        box = tuple(slice(side.start - padding, side.stop + padding) for side in box)
        grown = ndimage.distance_transform_edt(~drawn[box]) <= reach
        region[box] = ndimage.distance_transform_edt(grown) > reach - _MARGIN * frame.short
    return region[padding:-padding, padding:-padding]
