"""The layers a phantom is drawn from: skin, lesion, glare, hair, ruler, ink, bubbles, aperture.

Lengths are in units of the frame's short side, so that a seed gives the same scene at any size.
Pigments absorb light (Beer-Lambert: the skin below shows through), what lies on the skin covers it.
"""

import math

import numpy as np
from scipy import ndimage

from lesion.phantom_canvas import Frame, Layer, log_normal, log_uniform, pick, sigmoid

# Absorbance of red, green and blue per unit of density. The brown is fitted to the ratio of lesion
# to skin in dermoscopic images; the blue grey is melanin seen through the dermis (Tyndall effect).
MELANIN = np.array([0.36, 0.77, 1.00], np.float32)
BLOOD = np.array([0.10, 0.75, 0.60], np.float32)
BLUE_GREY = np.array([1.00, 0.80, 0.55], np.float32)

# Unpigmented skin as cameras show it: ivory, rose, salmon, grey, lilac, tan, olive, brown.
SKIN_TONES = np.array(
    [
        [238, 224, 196],
        [236, 198, 184],
        [238, 160, 142],
        [204, 198, 186],
        [226, 208, 216],
        [214, 164, 122],
        [224, 208, 172],
        [168, 122, 92],
    ],
    np.float32,
)
SKIN_TONE_ODDS = np.array([0.24, 0.23, 0.08, 0.10, 0.07, 0.12, 0.11, 0.05])


def draw_skin(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """Skin without anything on it, float32 [height, width, 3]."""
    first, second = rng.choice(len(SKIN_TONES), 2, p=SKIN_TONE_ODDS)
    share = rng.random() ** 2 * 0.6
    tone = SKIN_TONES[first] * (1 - share) + SKIN_TONES[second] * share
    tone = tone / 255 * rng.uniform(0.9, 1.06)

    flush = rng.uniform(0.03, 0.09) * frame.noise(rng, rng.uniform(0.2, 0.5), 4) + rng.uniform(
        0, 0.1
    )
    flush = flush + rng.uniform(0.02, 0.06) * frame.noise(rng, 0.035, 2)
    flush = np.logaddexp(0, 30 * flush) / 30  # there is no less blood than none
    tan = rng.uniform(0.02, 0.06) * frame.noise(rng, 0.3, 5)
    if rng.random() < 0.35:  # freckles and sun damage
        patches = np.clip(
            frame.noise(rng, rng.uniform(0.04, 0.09), 2) - rng.uniform(0.8, 1.6), 0, 1
        )
        tan = tan + rng.uniform(0.15, 0.35) * patches
    tan = tan + rng.uniform(0.02, 0.06) * _furrows(frame, rng)
    tan = tan + rng.uniform(0.01, 0.03) * frame.noise(rng, 0.006)
    absorbance = flush[..., None] * BLOOD + tan[..., None] * MELANIN
    return tone.astype(np.float32) * np.exp(-absorbance)


def _furrows(frame: Frame, rng: np.random.Generator) -> np.ndarray:
    """The fine criss-cross of skin lines: two bent families of creases, float32 [height, width]."""
    angle = rng.uniform(0, np.pi)
    bend = 0.02 * frame.noise(rng, 0.22, 2)
    creases = np.zeros(frame.shape, np.float32)
    for turn, strength in ((0.0, 1.0), (rng.uniform(0.9, 1.5), rng.uniform(0.2, 0.8))):
        direction = angle + turn
        pitch = rng.uniform(0.025, 0.05)
        across = frame.y * np.float32(np.cos(direction)) + frame.x * np.float32(np.sin(direction))
        wave = np.cos((across + bend) * np.float32(2 * np.pi / pitch))
        creases += np.float32(strength) * np.clip(wave, 0, 1) ** 3
    return creases * np.clip(0.6 + 0.5 * frame.noise(rng, 0.12), 0, 1.5)


def draw_level(frame: Frame, rng: np.random.Generator, visible: np.ndarray) -> np.ndarray:
    """The lesion's outline as a level set, float32 [height, width], in short sides, above 0 inside.

    Near the outline the value is about the distance to it. The inside is one connected region
    without holes among the `visible` pixels.
    """
    area = min(max(log_normal(rng, 0.17, 0.85), 0.025), 0.8)
    radius = math.sqrt(area * frame.extent[0] * frame.extent[1] / math.pi)
    spread = 0.22 if rng.random() < 0.12 else 0.07  # some touch the frame
    room = np.maximum(0.3, 1 - 1.2 * radius)
    centre = np.array(frame.extent) * (0.5 + np.clip(rng.normal(0, spread, 2), -0.42, 0.42) * room)
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.75)

    y = frame.y - np.float32(centre[0]) + 0.16 * radius * frame.noise(rng, 1.1 * radius)
    x = frame.x - np.float32(centre[1]) + 0.16 * radius * frame.noise(rng, 1.1 * radius)
    level = _ellipse(y, x, radius, stretch, angle)
    for _ in range(pick(rng, [0, 1, 2, 3, 4], [0.5, 0.2, 0.15, 0.1, 0.05])):  # lobes
        toward, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.0) * radius
        lobe_y, lobe_x = y - far * math.sin(toward), x - far * math.cos(toward)
        size, turn = rng.uniform(0.3, 0.7) * radius, rng.uniform(0, np.pi)
        lobe = _ellipse(lobe_y, lobe_x, size, rng.uniform(1.0, 1.6), turn)
        level = np.logaddexp(level / (0.1 * radius), lobe / (0.1 * radius)) * (0.1 * radius)
    rough = rng.uniform(0.3, 1.5) * radius
    level = level + rough * 0.06 * frame.noise(rng, 0.45 * radius, 2)
    level = level + rough * 0.025 * frame.noise(rng, 0.11 * radius, 2)

    wanted = max(1, round(area * level.size))
    level = level - np.partition(level, level.size - wanted, axis=None)[level.size - wanted]
    return _single_region(level.astype(np.float32), visible)


def _ellipse(y, x, radius: float, stretch: float, angle: float) -> np.ndarray:
    """About the distance inside (above 0) or outside an ellipse of the area of `radius`."""
    long, short = radius * math.sqrt(stretch), radius / math.sqrt(stretch)
    along = (y * math.sin(angle) + x * math.cos(angle)) / long
    across = (y * math.cos(angle) - x * math.sin(angle)) / short
    return (1 - np.hypot(along, across)) * short


def _single_region(level: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """`level` mirrored at 0 in islets and holes, so that its visible inside is one solid region."""
    labels, count = ndimage.label((level > 0) & visible)
    if count == 0:
        labels, count = visible.astype(int), 1
    largest = 1 + np.argmax(np.bincount(labels.ravel(), minlength=count + 1)[1:])
    inside = ndimage.binary_fill_holes(labels == largest)
    inside |= (level > 0) & ~visible  # unseen, and better not edged with skin
    # Kept off 0 by more than float32 loses in the coverage, which must stay on its side of 1/2.
    distance = np.maximum(np.abs(level), 1e-4)
    return np.where(inside, distance, -distance)


def draw_lesion(
    frame: Frame, rng: np.random.Generator, level: np.ndarray, structured: bool = True
) -> list[Layer]:
    """A lesion of several colours: first the pigment, whose mask is the lesion's, then the rest.

    Some are textured as networks or clods are, which no mask tells; not where `structured` is
    False.
    """
    size = float(level.max())
    depth = np.clip(level / size, 0, 1)
    width = size * log_uniform(rng, 0.08, 0.6)
    width = min(max(width, 0.008), 0.09) * np.exp(0.4 * frame.noise(rng, 0.3))
    ramp = np.clip(0.5 + level / (2 * width), 0, 1)
    coverage = ramp * ramp * (3 - 2 * ramp)  # 1/2 where the level is 0

    darkness = log_normal(rng, 0.9, 0.4)
    centre = rng.uniform(-0.25, 1.3)
    melanin = 0.75 + centre * depth ** rng.uniform(0.6, 1.6) + 0.2 * frame.noise(rng, 0.5 * size, 4)
    blotches = sigmoid((frame.noise(rng, rng.uniform(0.35, 0.8) * size, 2) - 0.9) * 4)
    melanin = melanin + pick(rng, [0.0, 0.7, 1.8], [0.35, 0.4, 0.25]) * blotches * (depth > 0)
    melanin = melanin * (1 + _texture(frame, rng, depth, structured))
    melanin = darkness * np.clip(melanin, 0.32, None)

    blood = rng.uniform(0.0, 0.2) * np.clip(0.8 + 0.7 * frame.noise(rng, 0.7 * size, 2), 0, None)
    blue = sigmoid((frame.noise(rng, 0.8 * size, 2) - 0.9) * 2.5) * np.clip(3 * depth - 0.2, 0, 1)
    blue = pick(rng, [0.0, 0.3, 0.8], [0.65, 0.2, 0.15]) * blue
    if rng.random() < 0.12:  # a pink lesion of little pigment
        melanin, blood = 0.5 * melanin, 0.12 + 1.2 * blood
    pigment = melanin[..., None] * MELANIN + blood[..., None] * BLOOD + blue[..., None] * BLUE_GREY

    halo = np.exp(np.minimum(level, 0) / (0.25 * size)) * (1 - coverage)
    redness = Layer(halo.astype(np.float32), rng.uniform(0.0, 0.2) * BLOOD, absorbs=True)
    pale = sigmoid((frame.noise(rng, 0.6 * size, 3) - 1.0) * 3) * np.clip(4 * depth, 0, 1)
    pale = pick(rng, [0.0, 0.3, 0.5], [0.6, 0.25, 0.15]) * pale
    scar = Layer(pale.astype(np.float32), np.array([0.86, 0.72, 0.68], np.float32))
    return [
        Layer(coverage.astype(np.float32), pigment.astype(np.float32), absorbs=True),
        redness,
        scar,
    ]


def honeycomb(
    frame: Frame,
    rng: np.random.Generator,
    pitch: float,
    angle: float,
    bend: float,
    stretch: float = 1.0,
) -> np.ndarray:
    """Three waves that cross at 60 degrees, float32 [height, width].

    From 3 in the middle of a cell over -1 in the middle of a cell's side to -1.5 at its corners.

    Args:
        pitch: from cell to cell, in short sides.
        angle: direction, in radians, in which cells are stretched.
        bend: how far, in pitches, noise shifts the cells.
        stretch: a cell's length over its width.
    """
    bend_y, bend_x = (bend * pitch * frame.noise(rng, 1.8 * pitch, 2) for _ in range(2))
    waves = np.zeros(frame.shape, np.float32)
    for turn in (0.0, np.pi / 3, 2 * np.pi / 3):
        along, beside = np.cos(turn) / stretch, np.sin(turn)
        rise = np.sin(angle) * along + np.cos(angle) * beside
        run = np.cos(angle) * along - np.sin(angle) * beside
        across = (frame.y + bend_y) * np.float32(rise) + (frame.x + bend_x) * np.float32(run)
        waves += np.cos(across * np.float32(2 * np.pi / (0.866 * pitch)))
    return waves


def _texture(
    frame: Frame, rng: np.random.Generator, depth: np.ndarray, structured: bool
) -> np.ndarray:
    """Relative change of pigment, a bent honeycomb or grain, float32 [height, width]."""
    pitch, angle = rng.uniform(0.015, 0.03), rng.uniform(0, np.pi)
    waves = honeycomb(frame, rng, pitch, angle, bend=0.35)
    strength = np.clip(0.7 + 0.6 * frame.noise(rng, 0.18), 0, 1.6)
    kind = pick(rng, ["mesh", "clods", "grain"], [0.45, 0.15, 0.4])
    if kind == "grain" or not structured:
        return rng.uniform(0.08, 0.25) * frame.noise(rng, rng.uniform(0.012, 0.04), 3)
    relief = waves / 3 + 0.1 if kind == "clods" else 0.4 - sigmoid(2.5 * (waves - 0.2))
    return rng.uniform(0.25, 0.75) * strength * relief * (1.1 - 0.6 * depth)


def draw_glare(frame: Frame, rng: np.random.Generator) -> Layer:
    """Small white reflections of the lamp, in patches."""
    patch = np.clip(frame.noise(rng, 0.22, 2) - rng.uniform(0.2, 1.4), 0, 1)
    sparks = np.clip(frame.noise(rng, rng.uniform(0.008, 0.016), 2) - 1.3, 0, 1)
    strength = pick(rng, [0.0, 0.5, 1.1], [0.45, 0.35, 0.2])
    return Layer(np.clip(strength * patch * sparks, 0, 0.8), np.ones(3, np.float32))


def draw_bubbles(frame: Frame, rng: np.random.Generator) -> list[Layer]:
    """Bubbles in the immersion gel: a fine dark rim, a bright crescent, a spark."""
    layers = []
    for _ in range(rng.poisson(pick(rng, [0.0, 1.2, 4.0], [0.6, 0.3, 0.1]))):
        centre, radius = rng.random(2) * frame.extent, log_normal(rng, 0.016, 0.5)
        lamp = rng.uniform(0, 2 * np.pi)
        shift = 0.25 * radius * np.array([np.sin(lamp), np.cos(lamp)])
        soft = 0.25 * radius
        disc = frame.disc(centre, radius, soft)
        rim = np.clip(disc - frame.disc(centre - shift * 0.3, 0.82 * radius, soft), 0, 1)
        crescent = np.clip(disc - frame.disc(centre - shift, 0.9 * radius, soft), 0, 1)
        spark = frame.disc(centre + 1.6 * shift, 0.16 * radius, soft)
        layers.append(Layer(0.35 * rim, np.array([0.35, 0.28, 0.25], np.float32)))
        light = np.clip(0.1 * disc + 0.4 * crescent + 0.8 * spark, 0, 0.9)
        layers.append(Layer(light, np.array([1.0, 0.98, 0.95], np.float32)))
    return layers


def draw_hair(frame: Frame, rng: np.random.Generator) -> list[Layer]:
    """Hairs over everything, mostly along one direction: none, a few or many."""
    count = rng.poisson(pick(rng, [0, 4, 14, 40], [0.4, 0.3, 0.22, 0.08]))
    growth, disorder = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 1.2)
    thickness = log_normal(rng, 0.0034, 0.35)
    tone = np.array(
        [[0.13, 0.08, 0.06], [0.30, 0.17, 0.10], [0.50, 0.36, 0.22], [0.62, 0.58, 0.54]]
    )
    colour = tone[rng.choice(4, p=[0.5, 0.3, 0.12, 0.08])] * rng.uniform(0.8, 1.2)

    along = np.linspace(-0.5, 0.5, 24)
    curves, widths = [], []
    for _ in range(count):
        length = rng.uniform(0.25, 1.3)
        heading = growth + disorder * rng.normal() + np.pi * (rng.random() < 0.3)
        turning = rng.normal(0, 0.7) * along + rng.normal(0, 1.5) * along**2
        step = length / len(along)
        path = (
            np.cumsum(np.stack([np.sin(heading + turning), np.cos(heading + turning)], 1), 0) * step
        )
        curves.append(path - path[12] + rng.random(2) * frame.extent)
        taper = np.clip(4 * (0.5 - along), 0.15, 1) ** 0.7
        widths.append(0.5 * thickness * rng.uniform(0.6, 1.4) * taper)
    if not curves:
        return []
    curves, widths = np.array(curves), np.array(widths)
    hair = frame.strokes(curves, widths)
    shadow = ndimage.gaussian_filter(hair, 0.006 * frame.short, truncate=2)
    shade = Layer(np.float32(rng.uniform(0.0, 0.6)) * shadow, 0.5 * MELANIN, absorbs=True)
    return [shade, Layer(rng.uniform(0.65, 0.95) * hair, colour.astype(np.float32))]


def draw_ruler(frame: Frame, rng: np.random.Generator) -> list[Layer]:
    """Scale of the dermatoscope: a printed bar with its ticks, or marks along the edge, or none."""
    kind = pick(rng, ["none", "bar", "marks"], [0.58, 0.27, 0.15])
    if kind == "none":
        return []
    turn = rng.normal(0, 0.08) if kind == "bar" else rng.normal(np.pi / 2, 0.15)
    forward = np.array([np.sin(turn), np.cos(turn)])
    upward = np.array([-np.cos(turn), np.sin(turn)])
    ticks = np.arange(21 if kind == "bar" else 15)
    pitch = rng.uniform(0.026, 0.034) if kind == "bar" else rng.uniform(0.06, 0.09)
    if kind == "bar":
        start = np.array([rng.uniform(0.86, 0.95), rng.uniform(0.2, 0.5)]) * frame.extent
        bend = np.zeros(len(ticks))
    else:
        start = np.array([-0.05, pick(rng, [0.03, 0.93], [0.5, 0.5])]) * frame.extent
        bend = 0.004 * rng.normal() * (ticks - 7.0) ** 2
    feet = start + ticks[:, None] * pitch * forward + bend[:, None] * upward
    heights = np.where(ticks % 5 == 0, 0.032, 0.018)
    curves = np.stack([feet, feet + heights[:, None] * upward], axis=1)
    half_width = rng.uniform(0.0013, 0.0024)
    marks = frame.strokes(curves, np.full(curves.shape[:2], half_width))
    if kind == "bar":
        marks = np.maximum(marks, frame.strokes(feet[None], np.full((1, len(feet)), half_width)))
        # "mm" as [letter, point, (up, along)]
        letter = np.array([[0, 0], [1, 0], [1, 0.6], [0.2, 0.6], [1, 0.6], [1, 1.2], [0, 1.2]])
        letters = 0.018 * np.stack([letter, letter + np.array([0, 1.9])]) - np.array([0.032, 0])
        letters = feet[0] + letters[..., :1] * upward + letters[..., 1:] * forward
        thin = np.full(letters.shape[:2], 0.6 * half_width)
        marks = np.maximum(marks, frame.strokes(letters, thin))
    colour = np.array([0.22, 0.15, 0.13], np.float32) * rng.uniform(0.4, 1.3)
    return [Layer(rng.uniform(0.6, 0.95) * marks, colour.astype(np.float32))]


def draw_ink(frame: Frame, rng: np.random.Generator) -> list[Layer]:
    """A surgeon's violet pen, rarely: an arc around the middle, broken up by the skin's relief."""
    if rng.random() > 0.08:
        return []
    start, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 4.0)
    angles = start + np.linspace(0, sweep, 40)
    radius = rng.uniform(0.42, 0.52) * (1 + 0.08 * np.sin(3 * angles + start))
    middle = np.array(frame.extent) / 2
    circle = np.stack([radius * np.sin(angles), radius * np.cos(angles) * 1.15], axis=1)
    stroke = frame.strokes((middle + circle)[None], np.full((1, 40), rng.uniform(0.012, 0.03)))
    grain = np.clip(0.5 + 0.6 * frame.noise(rng, 0.012, 2), 0, 1)
    return [
        Layer((stroke * grain).astype(np.float32), np.array([1.1, 1.3, 0.35], np.float32), True)
    ]


def draw_aperture(frame: Frame, rng: np.random.Generator) -> Layer:
    """The dark surround of the dermatoscope's round window, of no coverage where there is none."""
    if rng.random() > 0.27:
        return Layer(np.zeros(frame.shape, np.float32), np.zeros(3, np.float32))
    corner = math.hypot(*frame.extent) / 2
    radius = corner * rng.uniform(0.78, 0.98)
    centre = np.array(frame.extent) * (0.5 + rng.normal(0, 0.02, 2))
    window = frame.disc(centre, radius, log_uniform(rng, 0.008, 0.12))
    return Layer(1 - window, np.array([0.05, 0.04, 0.05], np.float32) * rng.uniform(0.2, 2.0))


def light(frame: Frame, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The image under a lamp brighter in the middle, by an imperfect lens and sensor."""
    middle = np.array(frame.extent) * (0.5 + rng.normal(0, 0.08, 2))
    y, x = frame.y - np.float32(middle[0]), frame.x - np.float32(middle[1])
    fall = (
        rng.uniform(0.0, 0.3) * (y * y + x * x) + rng.normal(0, 0.05) * y + rng.normal(0, 0.05) * x
    )
    gain = rng.uniform(0.97, 1.12) * rng.normal(1, 0.015, 3)
    image = image * (1 - fall)[..., None] * gain.astype(np.float32)
    blur = rng.uniform(0.0, 0.0028) * frame.short
    if blur > 0.25:
        image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=3)
    return image + rng.uniform(0.002, 0.010) * rng.standard_normal(image.shape, dtype=np.float32)
