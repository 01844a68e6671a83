"""Degraded images: what is done to them and their masks, and the benchmark as a whole."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mrcnn.network
from lesion import NOTICE
from lesion.attribute_thresholds import METHODS
from lesion.boundary import BoundaryConfig
from lesion.metrics import boundary_metrics
from lesion.phantom import write_phantoms
from lesion.samples import ATTRIBUTES, DIAGNOSES, Sample
from mrcnn.images import read_image, read_mask, write_image
from mrcnn.model import MaskRCNN
from mrcnn.weights import save_weights

DRAWN = ("hair", "ruler", "vignette")


@pytest.fixture(scope="module")
def robustness():
    """The script, which lies in no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
        yield importlib.import_module("robustness")


@pytest.fixture
def change(robustness):
    """Changes an image and its masks as a name says."""

    def run(name, image, masks, seed=0):
        return robustness.CHANGES[name](image, masks, np.random.default_rng(seed))

    return run


@pytest.fixture
def disc(lesion_image):
    """A pale image with a dark disc, and masks of the disc and of everything."""
    image, mask = lesion_image(144, 192, (60, 80), 32)
    return image, np.stack([mask, np.ones_like(mask)], axis=-1)


class TestChanges:
    def test_masks_stay_with_what_they_mark(self, robustness, change, disc, darkness):
        for name in robustness.CHANGES:
            image, masks = change(name, *disc)
            assert (image.dtype, masks.dtype) == (np.uint8, bool), name
            assert (image.shape[:2], masks.shape[2]) == (masks.shape[:2], 2), name
            if name not in DRAWN:
                (found,) = darkness.predict([image])
                assert boundary_metrics(found.mask, masks[..., 0])["jaccard"] > 0.9, name

    def test_all_but_the_first_change_something(self, robustness, change, disc):
        image, masks = disc
        changed = {name: change(name, image, masks)[0] for name in robustness.CHANGES}
        same = [name for name, other in changed.items() if np.array_equal(other, image)]
        assert same == ["as it is"]

    @pytest.mark.parametrize(
        ("name", "shape", "share"),
        [
            ("turned by 90 degrees", (192, 144), 1.0),
            ("turned by 45 degrees", (144, 192), None),
            ("enlarged 4 x, JPEG 75", (576, 768), 1.0),
            ("enlarged 12 x, JPEG 75", (1728, 2304), 1.0),
            ("the middle 60 % of each side", (86, 116), 1.0),
            ("half as wide again, mirrored", (144, 288), 1.0),
            ("a third of a larger frame", (432, 576), 1 / 9),
            ("a third of the frame", (144, 192), 1 / 9),
        ],
    )
    def test_size_and_what_the_image_takes_of_it(self, change, disc, name, shape, share):
        image, masks = change(name, *disc)
        assert image.shape == (*shape, 3)
        if share:
            assert masks[..., 1].mean() == pytest.approx(share)
        outside = image[~masks[..., 1]].astype(int)
        if name.startswith("a third of a larger"):  # skin, as the border is
            np.testing.assert_array_equal(outside, np.broadcast_to([220, 180, 160], outside.shape))

    @pytest.mark.parametrize("name", ["hair", "ruler"])
    @pytest.mark.parametrize("seed", range(3))
    def test_something_is_drawn_on_a_part(self, change, disc, name, seed):
        image, masks = change(name, *disc, seed)
        differs = (image != disc[0]).any(axis=2)
        assert 0 < differs.mean() < 0.6
        np.testing.assert_array_equal(masks, disc[1])

    def test_mask_ends_at_the_vignette(self, change, disc):
        image, masks = change("vignette", *disc)
        hidden = ~masks[..., 1]
        assert 0 < hidden.mean() < 0.6
        assert image[hidden].mean() < disc[0][hidden].mean()
        np.testing.assert_array_equal(masks[..., 0], disc[1][..., 0] & ~hidden)

    def test_no_mask_at_all(self, robustness, change, disc):
        for name in robustness.CHANGES:
            image, masks = change(name, disc[0], disc[1][..., :0])
            assert masks.shape == (*image.shape[:2], 0)


class TestSamples:
    @pytest.fixture
    def sample(self, tmp_path, disc):
        write_image(tmp_path / "i.png", disc[0])
        write_image(tmp_path / "m.png", disc[1][..., 0])
        attributes = {"streaks": tmp_path / "m.png"}
        return Sample("data", "i", tmp_path / "i.png", tmp_path / "m.png", attributes, "L", "NV")

    def test_files_are_those_of_the_task(self, robustness, sample, tmp_path, disc):
        turn = robustness.CHANGES["turned by 90 degrees"]
        for task, masks in (("boundary", 1), ("attributes", 1), ("diagnosis", 0)):
            folder = tmp_path / task
            (changed,) = robustness.changed_samples(task, [sample], turn, folder, 0)
            assert len(list(folder.iterdir())) == 1 + masks
            np.testing.assert_array_equal(read_image(changed.image), np.rot90(disc[0]))
            assert (changed.key, changed.lesion_id, changed.diagnosis) == ("data/i", "L", "NV")
            path = {"boundary": changed.mask, "attributes": changed.attributes.get("streaks")}
            if masks:
                expected = np.rot90(disc[1][..., 0])
                np.testing.assert_array_equal(read_mask(path[task]), expected)

    def test_seed_and_name_decide_what_is_drawn(self, robustness, sample, tmp_path):
        def drawn(folder, seed, image_id="i"):
            named = Sample(**{**vars(sample), "image_id": image_id})
            hair, folder = robustness.CHANGES["hair"], tmp_path / folder
            (changed,) = robustness.changed_samples("diagnosis", [named], hair, folder, seed)
            return changed.image.read_bytes()

        first = drawn("a", 0)
        assert drawn("b", 0) == first
        assert drawn("c", 1) != first
        assert drawn("d", 0, "j") != first

    def test_score_of_each_task(self, robustness, sample, darkness, disc):
        mask = disc[1][..., 0]
        by_method = {by: {name: mask for name in ATTRIBUTES} for by in METHODS}
        attributes = SimpleNamespace(
            method="combined", predict_by_method=lambda images: [by_method] * len(images)
        )
        sure = np.eye(7)[DIAGNOSES.index("NV")]
        diagnosis = SimpleNamespace(
            predict=lambda images, patients: [
                SimpleNamespace(probabilities=sure, uncalibrated=sure, refer=None) for _ in images
            ]
        )
        score = robustness.score
        perfect = {"images": 1, "jaccard": 1.0}
        assert score("boundary", darkness, [sample]) == {**perfect, "threshold_jaccard": 1.0}
        assert score("attributes", attributes, [sample]) == perfect
        assert score("diagnosis", diagnosis, [sample]) == {
            "images": 1,
            "balanced_accuracy": 1.0,
            "melanoma_auc": None,  # no melanoma among them
            "ece": 0.0,
        }


def test_table_names_differences(robustness):
    results = {
        "as it is": {"images": 4, "ece": 0.25, "melanoma_auc": None},
        "hair": {"images": 4, "ece": 0.5, "melanoma_auc": None},
    }
    lines = [line.split() for line in robustness.format_results(results).splitlines()]
    assert lines[0] == ["change", "images", "ece", "difference", "melanoma_auc", "difference"]
    assert lines[2] == ["hair", "4", "0.5000", "+0.2500", "–", "–"]


def test_from_phantoms_to_a_table(robustness, five_convolutions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mrcnn.network, "build_backbone", five_convolutions)
    config = BoundaryConfig(IMAGE_MAX_DIM=64, IMAGE_MIN_DIM=64, DETECTION_MIN_CONFIDENCE=0.0)
    model = MaskRCNN("inference", config, tmp_path)
    weights = tmp_path / "boundary.h5"
    save_weights(model.keras_model, weights, {**model.metadata(), "task": "boundary"})
    write_phantoms(tmp_path / "phantoms", 3, height=48, width=64)
    words = [f"--weights={weights}", f"--dataset={tmp_path / 'phantoms'}", "--limit=2"]
    robustness.main([*words, f"--json={tmp_path / 'out.json'}"])
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result["changes"]) == list(robustness.CHANGES)
    assert {figures["images"] for figures in result["changes"].values()} == {2}
    assert all(0 <= figures["jaccard"] <= 1 for figures in result["changes"].values())
    assert (result["part"], result["collections"]) == ("all", ["phantoms"])
    assert {"cores", "processor", "tensorflow", "keras"} <= set(result["machine"])
    printed = capsys.readouterr().out
    assert "a third of the frame" in printed and NOTICE in printed

    robustness.main([*words, "--change=hair", f"--json={tmp_path / 'out.json'}"])
    again = json.loads((tmp_path / "out.json").read_text())["changes"]
    assert again == {name: result["changes"][name] for name in ("as it is", "hair")}
