"""Dermoscopic attributes on phantoms: what is drawn, where their masks lie, and their files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesion import phantom as phantom_module
from lesion.layouts import find_samples
from lesion.phantom import (
    ATTRIBUTE_FOLDER,
    CHALLENGE_RATES,
    EVEN_RATES,
    IMAGE_FOLDER,
    draw_phantom,
    main,
    write_phantoms,
)
from lesion.phantom_attributes import distribute_attributes
from lesion.phantom_canvas import Layer
from lesion.samples import ATTRIBUTES
from mrcnn.images import read_mask

HEIGHT, WIDTH = 144, 192
SEEDS = range(5)


@pytest.fixture(scope="module")
def plain():
    return [draw_phantom(seed, HEIGHT, WIDTH, attributes=()) for seed in SEEDS]


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- the drawing ---


@settings(max_examples=25)
@given(
    st.integers(0, 10**9),
    st.sets(st.sampled_from(ATTRIBUTES)),
    st.integers(16, 96),
    st.integers(16, 96),
)
def test_masks_lie_in_one_lesion_and_are_the_same_again(seed, names, height, width):
    first = draw_phantom(seed, height, width, attributes=names)
    second = draw_phantom(seed, height, width, attributes=sorted(names))
    np.testing.assert_array_equal(first.image, second.image)
    assert tuple(first.attributes) == ATTRIBUTES
    for name, mask in first.attributes.items():
        assert (mask.shape, mask.dtype) == ((height, width), np.bool_)
        assert not np.any(mask & ~first.mask)
        assert name in names or not mask.any()
        np.testing.assert_array_equal(mask, second.attributes[name])
    assert ndimage.label(first.mask)[1] == 1
    np.testing.assert_array_equal(ndimage.binary_fill_holes(first.mask), first.mask)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_changes_the_image_within_its_mask(name, plain):
    for seed, without in zip(SEEDS, plain, strict=True):
        phantom = draw_phantom(seed, HEIGHT, WIDTH, attributes=[name])
        mask = phantom.attributes[name]
        assert mask.sum() > 40, seed
        change = np.abs(phantom.image.astype(float) - without.image).mean(axis=2)
        far = ndimage.distance_transform_edt(~mask) > 12
        assert change[mask].mean() > 5, seed
        assert change[mask].mean() > 6 * change[far].mean(), seed


@pytest.mark.parametrize(
    ("name", "brighter"), [("milia_like_cyst", True), ("globules", False), ("streaks", False)]
)
def test_cysts_are_bright_and_globules_and_streaks_dark(name, brighter, plain):
    for seed, without in zip(SEEDS, plain, strict=True):
        phantom = draw_phantom(seed, HEIGHT, WIDTH, attributes=[name])
        change = phantom.image.astype(float) - without.image
        assert (change[phantom.attributes[name]].mean() > 2) == brighter, seed


def test_cysts_are_nearly_white_and_no_redder_than_yellow():
    phantom = draw_phantom(1, 384, 512, attributes=["milia_like_cyst"])
    labels, count = ndimage.label(phantom.attributes["milia_like_cyst"])
    assert count >= 3
    red, green, blue = (
        ndimage.maximum(phantom.image[..., channel], labels, range(1, count + 1))
        for channel in range(3)
    )
    assert np.all(red > 170)
    assert np.all(green > 0.75 * red)
    assert np.all(blue <= red)


def test_streaks_stick_out_of_the_lesion_and_belong_to_it(plain):
    for seed, without in zip(SEEDS, plain, strict=True):
        phantom = draw_phantom(seed, HEIGHT, WIDTH, attributes=["streaks"])
        outside = phantom.mask & ~without.mask
        assert np.all(phantom.mask[without.mask])
        assert outside.sum() > 0.2 * phantom.attributes["streaks"].sum()
        # What they enclose with the lesion is part of it as well, and little else.
        assert np.sum(outside & phantom.attributes["streaks"]) > 0.6 * outside.sum()


def test_the_two_networks_share_no_pixel():
    for seed in SEEDS:
        masks = draw_phantom(seed, HEIGHT, WIDTH, attributes=ATTRIBUTES).attributes
        assert not np.any(masks["pigment_network"] & masks["negative_network"])
        assert all(mask.any() for mask in masks.values())


def test_small_structures_are_no_smaller_than_3_pixels_in_radius_at_512():
    for seed in range(3):
        masks = draw_phantom(seed, 384, 512, attributes=ATTRIBUTES).attributes
        for name in ("milia_like_cyst", "globules"):
            largest = ndimage.distance_transform_edt(masks[name]).max()
            assert largest > 3
            areas = np.bincount(ndimage.label(masks[name])[0].ravel())[1:]
            assert np.mean(areas >= np.pi * 9) > 0.8  # the border and the aperture cut some


@pytest.mark.parametrize("name", ["pigment_network", "negative_network", "streaks", "globules"])
def test_a_seed_is_the_same_scene_at_another_size(name):
    overlaps = []
    for seed in (1, 4, 9):
        small = draw_phantom(seed, 144, 192, attributes=[name]).attributes[name]
        large = draw_phantom(seed, 288, 384, attributes=[name]).attributes[name]
        coarse = large.reshape(144, 2, 192, 2).mean(axis=(1, 3)) > 0.5
        overlaps.append(np.sum(coarse & small) / np.sum(coarse | small))
    assert np.median(overlaps) > 0.7


def test_masks_end_where_the_aperture_begins(monkeypatch):
    def narrow(frame, rng):
        window = frame.disc((0.5 * frame.extent[0], 0.5 * frame.extent[1]), 0.2)
        return Layer(1 - window, np.zeros(3, np.float32))

    monkeypatch.setattr(phantom_module.layers, "draw_aperture", narrow)
    for seed in SEEDS:
        phantom = draw_phantom(seed, 96, 128, attributes=ATTRIBUTES)
        y, x = np.nonzero(np.any([phantom.mask, *phantom.attributes.values()], axis=0))
        assert len(y)
        assert np.hypot(y + 0.5 - 48, x + 0.5 - 64).max() <= 0.2 * 96 + 0.5


def test_without_a_lesion_there_is_no_attribute():
    phantom = draw_phantom(1, 48, 64, lesion=False, attributes=ATTRIBUTES)
    assert tuple(phantom.attributes) == ATTRIBUTES
    assert not any(mask.any() for mask in phantom.attributes.values())


def test_an_unknown_attribute_is_refused():
    with pytest.raises(ValueError, match="milia_like_cyst, globules; received veil"):
        draw_phantom(0, 32, 32, attributes=["streaks", "veil"])


# --- how often ---


@given(
    st.integers(0, 60),
    st.fixed_dictionaries({}, optional=dict.fromkeys(ATTRIBUTES, st.floats(0, 1))),
    st.integers(0, 99),
)
def test_rates_are_met_as_nearly_as_the_number_allows(count, rates, seed):
    lesions = [3 * number for number in range(count)]
    shown = distribute_attributes(lesions, rates, np.random.default_rng(seed))
    assert list(shown) == lesions
    for name in ATTRIBUTES:
        present = sum(name in names for names in shown.values())
        assert abs(present - count * rates.get(name, 0)) <= 0.5


def test_the_challenges_rates_and_the_even_ones_name_all_attributes():
    assert tuple(CHALLENGE_RATES) == tuple(EVEN_RATES) == ATTRIBUTES
    assert sorted(CHALLENGE_RATES, key=CHALLENGE_RATES.get) == [
        "streaks",
        "negative_network",
        "globules",
        "milia_like_cyst",
        "pigment_network",
    ]


# --- the files ---


def test_files_are_those_of_task_2_blank_masks_included(tmp_path):
    rates = {"streaks": 0.5}
    names = write_phantoms(tmp_path, 2, height=96, width=128, attributes=True, rates=rates)
    masks = {
        f"{ATTRIBUTE_FOLDER}/{name}_attribute_{attribute}.png"
        for name in names
        for attribute in ATTRIBUTES
    }
    assert masks <= files_below(tmp_path)
    assert len(files_below(tmp_path)) == 1 + 2 + 2 + 10
    present = {path for path in masks if read_mask(tmp_path / path).any()}
    assert len(present) == 1
    assert present.pop().endswith("_attribute_streaks.png")


def test_files_hold_what_was_drawn(tmp_path):
    rates = dict.fromkeys(ATTRIBUTES, 1.0)
    (name,) = write_phantoms(tmp_path, 1, height=72, width=96, attributes=True, rates=rates)
    for attribute, mask in draw_phantom(0, 72, 96, attributes=ATTRIBUTES).attributes.items():
        path = tmp_path / ATTRIBUTE_FOLDER / f"{name}_attribute_{attribute}.png"
        np.testing.assert_array_equal(read_mask(path), mask)


def test_the_layout_is_read_without_a_problem(tmp_path):
    write_phantoms(tmp_path, 3, height=32, width=48, empty_fraction=0.34, attributes=True)
    collection = find_samples(tmp_path)
    assert collection.problems == []
    assert [tuple(sorted(sample.attributes)) for sample in collection.samples] == [
        tuple(sorted(ATTRIBUTES))
    ] * 3


def test_skin_without_a_lesion_has_five_blank_masks(tmp_path):
    rates = dict.fromkeys(ATTRIBUTES, 1.0)
    write_phantoms(
        tmp_path, 2, height=48, width=64, empty_fraction=1.0, attributes=True, rates=rates
    )
    masks = [read_mask(path) for path in (tmp_path / ATTRIBUTE_FOLDER).iterdir()]
    assert len(masks) == 10
    assert not any(mask.any() for mask in masks)


def test_drawn_again_without_attributes_no_mask_of_them_stays(tmp_path):
    write_phantoms(tmp_path, 2, height=32, width=32, attributes=True)
    write_phantoms(tmp_path, 2, height=32, width=32)
    assert not (tmp_path / ATTRIBUTE_FOLDER).exists()
    assert len(files_below(tmp_path)) == 5


def test_overwriting_leaves_no_older_mask(tmp_path):
    write_phantoms(tmp_path, 2, height=32, width=32, attributes=True)
    with pytest.raises(FileExistsError, match="already holds 2"):
        write_phantoms(tmp_path, 1, height=32, width=32, attributes=True)
    write_phantoms(tmp_path, 1, height=32, width=32, attributes=True, overwrite=True)
    assert len(files_below(tmp_path)) == 1 + 1 + 1 + 5


def test_a_mask_that_is_no_phantoms_is_never_overwritten(tmp_path):
    write_phantoms(tmp_path, 1, height=32, width=32, attributes=True)
    foreign = tmp_path / ATTRIBUTE_FOLDER / "ISIC_0000001_attribute_streaks.png"
    foreign.write_bytes(b"an annotator's")
    with pytest.raises(FileExistsError, match="no phantoms, such as ISIC_0000001_attribute"):
        write_phantoms(tmp_path, 1, height=32, width=32, attributes=True, overwrite=True)
    assert foreign.read_bytes() == b"an annotator's"


@pytest.mark.parametrize("rates", [{"veil": 0.5}, {"streaks": 1.1}, {"streaks": float("nan")}])
def test_bad_rates_write_nothing(tmp_path, rates):
    with pytest.raises(ValueError, match="rates are shares"):
        write_phantoms(tmp_path / "set", 1, attributes=True, rates=rates)
    assert not (tmp_path / "set").exists()


def test_the_command_draws_attributes(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--size", "48x32", "--images", "3", "--attributes"]
    assert main([*arguments, "--rates", "even"]) == 0
    assert ATTRIBUTE_FOLDER in capsys.readouterr().out
    assert len(list((tmp_path / ATTRIBUTE_FOLDER).iterdir())) == 15
    assert len(list((tmp_path / IMAGE_FOLDER).iterdir())) == 3
