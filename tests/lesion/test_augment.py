import numpy as np
import pytest

from lesion.augment import DermoscopyAugmentation, Obstacles

HEIGHT, WIDTH = 90, 120
# Every change of the geometry that does not move the middle is off; turning stays.
ROTATION_ALONE = {
    "scale": (1, 1),
    "shift": 0,
    "stretch": 0,
    "colour": 0,
    "blur": 0,
    "compression": 0,
}


def bright(*centres, radius=12):
    """Bright discs on mid-grey, and their masks."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.stack([(y - cy) ** 2 + (x - cx) ** 2 < radius**2 for cy, cx in centres], axis=-1)
    image = np.where(masks.any(axis=-1)[..., None], 250, 100).astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image, masks


def overlap(first, second):
    return (first & second).sum() / max(1, (first | second).sum())


def centre(mask):
    return np.argwhere(mask).mean(axis=0)


@pytest.fixture
def disc():
    return bright((40, 50))


def test_masks_move_with_the_image(disc):
    for seed in range(20):
        augmentation = DermoscopyAugmentation(colour=0.05)
        image, masks = augmentation(*disc, np.random.default_rng(seed))
        assert overlap(image.mean(axis=2) > 170, masks[..., 0]) > 0.8


def test_all_instances_move_alike():
    image, masks = bright((45, 35), (45, 85))
    for seed in range(8):
        _, moved = DermoscopyAugmentation(**ROTATION_ALONE)(
            image, masks, np.random.default_rng(seed)
        )
        distance = np.linalg.norm(centre(moved[..., 0]) - centre(moved[..., 1]))
        assert distance == pytest.approx(50, abs=1)


def test_shapes_and_types_stay(disc):
    image, masks = DermoscopyAugmentation()(*disc, np.random.default_rng(0))
    assert (image.shape, image.dtype) == (disc[0].shape, np.uint8)
    assert (masks.shape, masks.dtype) == (disc[1].shape, bool)


def test_image_without_a_lesion(disc):
    image, masks = DermoscopyAugmentation()(disc[0], disc[1][..., :0], np.random.default_rng(0))
    assert image.shape == disc[0].shape
    assert masks.shape == (HEIGHT, WIDTH, 0)


def test_compression_changes_pixels_and_leaves_masks():
    rng = np.random.default_rng(3)
    image, masks = rng.integers(0, 256, (64, 64, 3), np.uint8), np.ones((64, 64, 1), bool)
    settings = {**ROTATION_ALONE, "side": 64}
    seen = [
        DermoscopyAugmentation(**{**settings, "compression": compression})(
            image, masks, np.random.default_rng(1)
        )
        for compression in (0, 1)
    ]
    assert seen[1][0].dtype == np.uint8 and seen[1][0].shape == image.shape
    assert not np.array_equal(seen[0][0], seen[1][0])
    assert np.array_equal(seen[0][1], seen[1][1])
    assert np.abs(seen[0][0].astype(int) - seen[1][0]).mean() < 60  # noise is what JPEG keeps worst


def test_the_generator_alone_decides(disc):
    augmentation = DermoscopyAugmentation()
    first, other, second = (augmentation(*disc, np.random.default_rng(seed)) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])


def test_the_originals_are_left_alone(disc):
    image, masks = (array.copy() for array in disc)
    DermoscopyAugmentation()(*disc, np.random.default_rng(0))
    np.testing.assert_array_equal(disc[0], image)
    np.testing.assert_array_equal(disc[1], masks)


def test_turns_about_the_middle_of_the_image():
    image, masks = bright(((HEIGHT - 1) / 2, (WIDTH - 1) / 2), radius=20)
    for seed in range(8):
        _, moved = DermoscopyAugmentation(**ROTATION_ALONE)(
            image, masks, np.random.default_rng(seed)
        )
        assert overlap(moved[..., 0], masks[..., 0]) > 0.97


def test_turns_by_any_angle_and_mirrors():
    image, masks = bright((45, 60), (45, 85))
    angles = []
    for seed in range(60):
        _, moved = DermoscopyAugmentation(**ROTATION_ALONE)(
            image, masks, np.random.default_rng(seed)
        )
        y, x = centre(moved[..., 1]) - centre(moved[..., 0])
        angles.append(np.degrees(np.arctan2(y, x)) % 360)
    assert np.histogram(angles, bins=4, range=(0, 360))[0].min() > 5


@pytest.mark.parametrize(("scale", "factor"), [((0.8, 0.8), 0.64), ((1.3, 1.3), 1.69)])
def test_scale_is_the_magnification(disc, scale, factor):
    augmentation = DermoscopyAugmentation(**{**ROTATION_ALONE, "scale": scale})
    _, moved = augmentation(*disc, np.random.default_rng(0))
    assert moved.sum() == pytest.approx(factor * disc[1].sum(), rel=0.05)


def test_shift_stays_within_its_bound():
    image, masks = bright(((HEIGHT - 1) / 2, (WIDTH - 1) / 2))
    augmentation = DermoscopyAugmentation(**{**ROTATION_ALONE, "shift": 0.1})
    moves = []
    for seed in range(30):
        _, moved = augmentation(image, masks, np.random.default_rng(seed))
        moves.append(np.abs(centre(moved[..., 0]) - centre(masks[..., 0])))
    assert 3 < np.max(moves) < np.hypot(0.1 * HEIGHT, 0.1 * WIDTH) + 1


def test_from_afar_the_lesion_is_small_and_anywhere():
    image, masks = bright(((HEIGHT - 1) / 2, (WIDTH - 1) / 2), radius=30)
    augmentation = DermoscopyAugmentation(**{**ROTATION_ALONE, "scale": (0.7, 1.0)}, far=1.0)
    magnifications, moves = [], []
    for seed in range(60):
        _, moved = augmentation(image, masks, np.random.default_rng(seed))
        magnifications.append(np.sqrt(moved.sum() / masks.sum()))
        moves.append(np.abs(centre(moved[..., 0]) - centre(masks[..., 0])) / (HEIGHT, WIDTH))
    assert 0.29 < min(magnifications) < 0.35
    assert 0.65 < max(magnifications) < 0.71
    assert 0.25 < np.max(moves) <= 0.35  # half of what is free around it at 0.3


def test_surround_is_black_or_of_the_rim(disc):
    augmentation = DermoscopyAugmentation(**{**ROTATION_ALONE, "scale": (0.5, 0.5)})
    corners = set()
    for seed in range(12):
        image, _ = augmentation(*disc, np.random.default_rng(seed))
        corners.add(int(np.round(image[:3, :3].mean() / 50)) * 50)
    assert corners == {0, 100}


def test_colour_changes_no_geometry(disc):
    augmentation = DermoscopyAugmentation(**{**ROTATION_ALONE, "colour": 0.2})
    plain = DermoscopyAugmentation(**ROTATION_ALONE)
    recoloured, masks = augmentation(*disc, np.random.default_rng(3))
    original, same = plain(*disc, np.random.default_rng(3))
    np.testing.assert_array_equal(masks, same)
    assert np.abs(recoloured.astype(int) - original).mean() > 2


def test_a_third_of_the_images_is_blurred(disc):
    sharp, soft = (
        [augmentation(*disc, np.random.default_rng(seed))[0] for seed in range(60)]
        for augmentation in (
            DermoscopyAugmentation(**ROTATION_ALONE | {"blur": blur}) for blur in (0, 4)
        )
    )
    assert 12 < sum((a != b).any() for a, b in zip(sharp, soft, strict=True)) < 28


def test_some_images_are_noisy():
    image, masks = np.full((HEIGHT, WIDTH, 3), 100, np.uint8), np.zeros((HEIGHT, WIDTH, 0), bool)
    augmentation = DermoscopyAugmentation(**ROTATION_ALONE)
    middles = [
        augmentation(image, masks, np.random.default_rng(seed))[0][30:60, 45:75]
        for seed in range(60)
    ]
    assert 10 < sum(middle.std() > 0 for middle in middles) < 26


class TestSquare:
    """A side given: what is returned is a square from the middle."""

    @pytest.mark.parametrize("scale", [0.8, 1.0, 1.2])
    def test_magnification_is_that_of_the_largest_square(self, scale):
        image, masks = bright((45, 60), radius=18)
        augmentation = DermoscopyAugmentation(**ROTATION_ALONE | {"scale": (scale, scale)}, side=60)
        for seed in range(4):
            square, moved = augmentation(image, masks, np.random.default_rng(seed))
            assert square.shape == (60, 60, 3) and moved.shape == (60, 60, 1)
            expected = np.pi * (18 * 60 / HEIGHT * scale) ** 2
            assert moved.sum() == pytest.approx(expected, rel=0.05)
            assert centre(moved[..., 0]) == pytest.approx([29.5, 29.5], abs=0.7)

    def test_what_lies_beside_the_middle_comes_into_view_when_turned(self):
        image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
        image[:, :15] = image[:, -15:] = 250  # outside the middle square of 90
        seen = [
            (
                DermoscopyAugmentation(**ROTATION_ALONE, side=90)(
                    image, np.zeros((HEIGHT, WIDTH, 0), bool), np.random.default_rng(seed)
                )[0]
                > 200
            ).any()
            for seed in range(20)
        ]
        assert any(seen)


class TestObstacles:
    GREY = np.full((64, 64, 3), 130, np.uint8)

    def test_share_of_none_leaves_images_alone(self):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            np.testing.assert_array_equal(Obstacles(64, 0, 0)(self.GREY, rng), self.GREY)

    def test_hair_and_rulers_cover_a_part(self):
        obstacles = Obstacles(64, overlay=1, cutout=0, drawings=8)
        shares = [
            (obstacles(self.GREY, np.random.default_rng(seed)) != self.GREY).any(axis=2).mean()
            for seed in range(12)
        ]
        assert 0 < np.mean(shares) < 0.7
        assert max(shares) > 0

    def test_square_is_of_one_colour_and_at_most_a_third(self):
        obstacles = Obstacles(64, overlay=0, cutout=1)
        for seed in range(12):
            changed = obstacles(self.GREY, np.random.default_rng(seed))
            hidden = (changed != self.GREY).any(axis=2)
            rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
            assert hidden.sum() == len(rows) * len(columns)
            assert 6 <= len(rows) == len(columns) <= 21
            assert len(np.unique(changed[hidden], axis=0)) == 1

    def test_square_may_hide_every_pixel(self):
        rng, grey = np.random.default_rng(0), self.GREY[:8, :8]
        obstacles = Obstacles(8, overlay=0, cutout=1)
        hidden = [(obstacles(grey, rng) != grey).any(axis=2) for _ in range(600)]
        assert np.any(hidden, axis=0).all()

    def test_same_seed_same_image(self):
        one, other = (
            Obstacles(64, drawings=8)(self.GREY, np.random.default_rng(5)) for _ in range(2)
        )
        np.testing.assert_array_equal(one, other)

    def test_image_given_is_not_changed(self):
        image = self.GREY.copy()
        Obstacles(64, 1, 1, drawings=8)(image, np.random.default_rng(1))
        np.testing.assert_array_equal(image, self.GREY)
