"""Phantoms: the same for a seed, exact in their masks, in the layout of ISIC 2018 Task 1."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lesion import NOTICE
from lesion.phantom import (
    ATTRIBUTION,
    IMAGE_FOLDER,
    MASK_FOLDER,
    draw_phantom,
    main,
    write_phantoms,
)
from lesion.phantom_canvas import Frame, Layer
from lesion.phantom_layers import draw_aperture, draw_lesion, draw_level, draw_skin
from mrcnn.images import read_image, read_mask

SCRIPT = Path(__file__).resolve().parents[2] / "lesion" / "phantom.py"
SEEDS = range(40)


@pytest.fixture(scope="module")
def phantoms():
    return [draw_phantom(seed, 72, 96) for seed in SEEDS]


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- the drawing ---


def test_a_phantom_is_an_image_and_a_mask_of_the_size_asked_for():
    phantom = draw_phantom(3, height=50, width=70)
    assert (phantom.image.shape, phantom.image.dtype) == ((50, 70, 3), np.uint8)
    assert (phantom.mask.shape, phantom.mask.dtype) == ((50, 70), np.bool_)


def test_the_same_seed_draws_the_same_pixels_whatever_the_global_state():
    np.random.seed(1)
    first = draw_phantom(11, 60, 80)
    np.random.seed(2)
    second = draw_phantom(11, 60, 80)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)


def test_drawing_leaves_the_global_random_state_alone():
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    draw_phantom(0, 32, 32)
    assert np.random.random() == expected


def test_seeds_differ():
    assert np.any(draw_phantom(0, 32, 32).image != draw_phantom(1, 32, 32).image)


@pytest.mark.parametrize("seed", [0, 4, 9])
def test_a_seed_is_the_same_scene_at_another_size(seed):
    small, large = draw_phantom(seed, 48, 64), draw_phantom(seed, 96, 128)
    coarse = large.mask.reshape(48, 2, 64, 2).mean(axis=(1, 3)) > 0.5
    assert np.sum(coarse & small.mask) / np.sum(coarse | small.mask) > 0.9


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (33, 47), (97, 31), (16, 160)])
def test_odd_and_tiny_sizes_are_drawn(size):
    phantom = draw_phantom(2, *size)
    assert phantom.image.shape == (*size, 3)
    assert phantom.mask.any()


def test_nearly_all_lesions_cover_2_to_90_percent(phantoms):
    areas = np.array([phantom.mask.mean() for phantom in phantoms])
    assert np.mean((areas >= 0.02) & (areas <= 0.90)) >= 0.95


def test_lesions_are_small_and_large(phantoms):
    areas = np.array([phantom.mask.mean() for phantom in phantoms])
    assert areas.min() < 0.08
    assert areas.max() > 0.4


def test_each_mask_is_one_region_without_holes(phantoms):
    for phantom in phantoms:
        assert ndimage.label(phantom.mask)[1] == 1
        np.testing.assert_array_equal(ndimage.binary_fill_holes(phantom.mask), phantom.mask)


def test_lesions_are_darker_than_the_skin_around_them(phantoms):
    for seed, phantom in zip(SEEDS, phantoms, strict=True):
        grey = phantom.image.mean(axis=2)
        distance = ndimage.distance_transform_edt(~phantom.mask)
        around = (distance > 4) & (distance < 16) & (grey > 40)  # the aperture's surround is black
        if around.sum() > 20:
            assert np.median(grey[phantom.mask]) < np.median(grey[around]) - 5, seed


@pytest.mark.parametrize("seed", range(6))
def test_the_mask_is_where_the_outline_lies(seed):
    """Drawn on even skin with no more than its pigment, the lesion is dark just inside its mask."""
    frame = Frame(96, 128)
    level = draw_level(frame, np.random.default_rng(seed), np.ones(frame.shape, bool))
    pigment = draw_lesion(frame, np.random.default_rng(seed), level)[0]
    np.testing.assert_array_equal(pigment.mask, level > 0)
    skin = np.full((*frame.shape, 3), 0.8, np.float32)
    grey = Layer(pigment.coverage, np.ones(3, np.float32), absorbs=True).over(skin)[..., 0]
    half = 0.8 * np.exp(-0.5)
    np.testing.assert_array_equal(grey < half, level > 0)


def test_an_outline_cut_by_the_aperture_stays_inside_it():
    checked = 0
    for seed in range(60):
        frame = Frame(48, 64)
        aperture = draw_aperture(frame, np.random.default_rng(seed))
        if aperture.mask.any():
            level = draw_level(frame, np.random.default_rng(seed), ~aperture.mask)
            visible = (level > 0) & ~aperture.mask
            assert ndimage.label(visible)[1] == 1
            checked += 1
    assert checked > 5


def test_without_a_lesion_the_mask_is_empty_and_the_rest_as_before():
    with_lesion, without = draw_phantom(6, 60, 80), draw_phantom(6, 60, 80, lesion=False)
    assert not without.mask.any()
    far = ndimage.distance_transform_edt(~with_lesion.mask) > 30
    difference = np.abs(with_lesion.image[far].astype(int) - without.image[far].astype(int))
    assert far.any()
    assert np.median(difference) <= 4


def test_skin_is_brighter_in_red_than_in_blue():
    for seed in range(10):
        skin = draw_skin(Frame(32, 32), np.random.default_rng(seed)).mean(axis=(0, 1))
        assert skin[0] > skin[2]


@pytest.mark.parametrize("arguments", [(-1, 64, 64), (0, 15, 64), (0, 64, 0), (0, 64, 5000)])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="phantom"):
        draw_phantom(*arguments)


@pytest.mark.parametrize(
    ("seed", "area", "mean", "spread"),
    [
        (0, 1803, [185.8, 156.1, 154.6], [21.0, 20.2, 22.0]),
        (2, 1716, [189.7, 138.0, 121.2], [16.5, 16.7, 15.5]),
        (4, 3118, [182.3, 131.2, 108.2], [43.0, 38.1, 31.3]),
        (5, 1249, [180.3, 148.5, 126.7], [17.0, 24.8, 22.3]),
        (10, 901, [231.5, 188.0, 169.3], [20.8, 20.5, 19.4]),
    ],
)
def test_seeds_keep_their_drawing(seed, area, mean, spread):
    """Mean colour of the image and its spread in the lesion, noted before there were attributes."""
    phantom = draw_phantom(seed, 72, 96)
    assert phantom.mask.sum() == pytest.approx(area, abs=2)
    np.testing.assert_allclose(phantom.image.mean(axis=(0, 1)), mean, atol=0.15)
    np.testing.assert_allclose(phantom.image[phantom.mask].std(axis=0), spread, atol=0.15)
    assert phantom.attributes == {}


# --- the canvas ---


def test_an_opaque_layer_replaces_what_it_covers_and_a_pigment_filters_it():
    image = np.full((1, 2, 3), 0.5, np.float32)
    coverage = np.array([[1.0, 0.0]], np.float32)
    colour = np.array([1.0, 0.0, 0.25], np.float32)
    np.testing.assert_allclose(Layer(coverage, colour).over(image)[0], [colour, [0.5] * 3])
    filtered = Layer(coverage, colour, absorbs=True).over(image)[0]
    np.testing.assert_allclose(filtered, [0.5 * np.exp(-colour), [0.5] * 3], rtol=1e-6)
    assert np.all(image == 0.5)


def test_a_disc_has_its_exact_area():
    frame = Frame(100, 150)
    assert frame.disc((0.5, 0.75), 0.3).sum() / 100**2 == pytest.approx(np.pi * 0.3**2, rel=0.01)


@pytest.mark.parametrize("stretch", [1.0, 1.8])
def test_small_discs_have_their_area_wherever_they_lie(stretch):
    frame = Frame(100, 150)
    centres, radii = np.array([[0.2, 0.3], [0.5, 1.0], [1.0, 0.7]]), np.array([0.05, 0.1, 0.08])
    coverage = frame.discs(centres, radii, 0.2, stretch, 0.6)
    areas = np.pi * radii**2 * [1, 1, 0.5]  # the last is halved by the frame
    assert coverage[:80].sum() / 100**2 == pytest.approx(areas[:2].sum(), rel=0.02)
    assert coverage[80:].sum() / 100**2 == pytest.approx(areas[2], rel=0.03)


def test_discs_off_the_frame_draw_nothing():
    centres = np.array([[-1.0, 0.5], [0.5, 9.0], [5.0, -5.0]])
    assert not Frame(20, 30).discs(centres, np.full(3, 0.1), 0.5).any()


def test_a_disc_among_many_is_that_drawn_alone():
    frame = Frame(40, 60)
    alone = frame.disc((0.4, 0.6), 0.2, 0.25 * 0.2)
    np.testing.assert_allclose(
        frame.discs(np.array([[0.4, 0.6]]), np.array([0.2]), 0.25), alone, atol=1e-5
    )


def test_a_stroke_has_its_width_times_its_length():
    frame = Frame(100, 150)
    curve = np.array([[[0.2, 0.2], [0.8, 1.0]]])  # 1.0 long
    coverage = frame.strokes(curve, np.full((1, 2), 0.02))
    assert coverage.sum() / 100**2 == pytest.approx(0.04, rel=0.1)
    assert coverage[50, 60] == 1.0


def test_strokes_off_the_frame_draw_nothing():
    frame = Frame(20, 30)
    assert not frame.strokes(np.array([[[-3.0, -3.0], [-2.0, -2.0]]]), np.full((1, 2), 0.1)).any()


def test_noise_has_mean_0_and_deviation_1():
    values = Frame(400, 400).noise(np.random.default_rng(0), 0.02, 2)
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1.0, abs=0.1)


# --- the files ---


def test_files_have_the_challenge_layout(tmp_path):
    names = write_phantoms(tmp_path / "set", 2, seed=1, height=40, width=56)
    assert names == ["ISIC_9000000", "ISIC_9000001"]
    assert files_below(tmp_path / "set") == {
        ATTRIBUTION,
        *(f"{IMAGE_FOLDER}/{name}.jpg" for name in names),
        *(f"{MASK_FOLDER}/{name}_segmentation.png" for name in names),
    }


def test_files_hold_what_was_drawn(tmp_path):
    (name,) = write_phantoms(tmp_path, 1, height=40, width=56)
    phantom = draw_phantom(0, 40, 56)
    mask = read_mask(tmp_path / MASK_FOLDER / f"{name}_segmentation.png")
    np.testing.assert_array_equal(mask, phantom.mask)
    image = read_image(tmp_path / IMAGE_FOLDER / f"{name}.jpg")
    assert np.mean(np.abs(image.astype(int) - phantom.image.astype(int))) < 12  # JPEG


def test_the_note_says_that_they_are_drawn_and_not_for_diagnosis(tmp_path):
    write_phantoms(tmp_path, 1, height=32, width=32)
    note = (tmp_path / ATTRIBUTION).read_text(encoding="utf-8")
    assert "synthetic" in note
    assert NOTICE in note


def test_the_empty_share_is_exact(tmp_path):
    write_phantoms(tmp_path, 8, height=32, width=32, empty_fraction=0.25)
    masks = [read_mask(path) for path in (tmp_path / MASK_FOLDER).iterdir()]
    assert sum(not mask.any() for mask in masks) == 2


def test_seeds_of_sets_share_no_image(tmp_path):
    write_phantoms(tmp_path / "a", 2, seed=0, height=32, width=32)
    write_phantoms(tmp_path / "b", 2, seed=1, height=32, width=32)
    contents = {path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert len(contents) == 4


def test_the_same_number_is_drawn_again_over_the_old(tmp_path):
    write_phantoms(tmp_path, 2, seed=0, height=32, width=32)
    write_phantoms(tmp_path, 2, seed=1, height=32, width=32)
    mask = read_mask(tmp_path / MASK_FOLDER / "ISIC_9000000_segmentation.png")
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    np.testing.assert_array_equal(mask, draw_phantom(10_000_000, 32, 32).mask)


def test_another_number_is_refused_and_nothing_touched(tmp_path):
    write_phantoms(tmp_path, 2, height=32, width=32)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match="already holds 2 phantoms"):
        write_phantoms(tmp_path, 3, height=32, width=32)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_overwriting_leaves_no_older_phantom(tmp_path):
    write_phantoms(tmp_path, 3, height=32, width=32)
    write_phantoms(tmp_path, 1, height=32, width=32, overwrite=True)
    assert len(files_below(tmp_path)) == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_images_that_are_no_phantoms_are_never_overwritten(tmp_path, overwrite):
    photograph = tmp_path / IMAGE_FOLDER / "ISIC_9000000.jpg"
    photograph.parent.mkdir()
    photograph.write_bytes(b"a photograph")
    with pytest.raises(FileExistsError, match="no phantoms"):
        write_phantoms(tmp_path, 1, height=32, width=32, overwrite=overwrite)
    assert photograph.read_bytes() == b"a photograph"


@pytest.mark.parametrize(
    "arguments",
    [
        {"images": 0},
        {"images": 2, "first_id": 9_999_999},
        {"images": 1, "empty_fraction": 1.5},
        {"images": 1, "seed": -1},
        {"images": 1, "height": 4},
    ],
)
def test_bad_arguments_write_nothing(tmp_path, arguments):
    with pytest.raises(ValueError, match="received"):
        write_phantoms(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


# --- the command line ---


def test_the_script_runs_from_anywhere(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", "drawn", "--images", "2", "--size", "48x32"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # UTF-8 whatever the locale: the notice holds a dash.
    environment["PYTHONIOENCODING"] = "utf-8"
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "2 phantoms" in done.stdout
    assert NOTICE in done.stdout
    image = read_image(tmp_path / "drawn" / IMAGE_FOLDER / "ISIC_9000001.jpg")
    assert image.shape == (32, 48, 3)


def test_the_command_refuses_another_number_with_code_2(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--size", "32x32", "--images"]
    assert main([*arguments, "1"]) == 0
    assert main([*arguments, "2"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "2", "--overwrite"]) == 0


@pytest.mark.parametrize("size", ["256", "0x", "256x-3", "axb"])
def test_the_command_explains_a_size(size, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--out", "unused", "--images", "1", "--size", size])
    assert "WIDTHxHEIGHT" in capsys.readouterr().err
