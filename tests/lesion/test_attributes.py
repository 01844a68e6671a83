"""The attributes task from training to scores, as a user types it; and its predictor."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ImageFilter

from lesion import NOTICE, attributes_training, evaluate, train
from lesion.attribute_thresholds import DEFAULTS, METHODS, NEVER, Threshold
from lesion.attributes import AttributesConfig, AttributesPredictor, load_attributes
from lesion.boundary_views import MAX_SIDE
from lesion.samples import ATTRIBUTES
from lesion.splits import Split
from lesion.train_options import parse
from mrcnn.images import write_image
from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError, read_metadata, save_arrays, save_weights

SETTINGS = [
    "--task=attributes",
    "--weights=none",
    "--image-size=64",
    "--epochs=1",
    "--steps=50",
    "--batch=4",
    "--learning-rate=0.01",
]
COLOURS = [(90, 40, 20), (230, 200, 190), (20, 20, 120), (250, 240, 120), (120, 20, 120)]


@pytest.mark.parametrize("side", [128, 384])
def test_training_shows_images_out_of_focus(side, monkeypatch):
    radii = []

    def blurred(radius):
        radii.append(radius)
        return ImageFilter.BoxBlur(0)

    monkeypatch.setattr("lesion.augment.ImageFilter.GaussianBlur", blurred)
    augment = attributes_training.augmentation(SimpleNamespace(image_size=side))
    image, masks = np.zeros((side, side, 3), np.uint8), np.zeros((side, side, 0), bool)
    for seed in range(150):
        augment(image, masks, np.random.default_rng(seed))
    assert 0.9 * 0.008 < max(radii) / side <= 0.008


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of 64 x 64 pixels on which each attribute is a square of its own colour."""
    folder = tmp_path_factory.mktemp("attributes")
    rng = np.random.default_rng(0)
    names = [f"ISIC_{number:07d}" for number in range(24)]
    for number, name in enumerate(names):
        image = rng.normal(180, 6, (64, 64, 3))
        shown = {number % 5, (number // 5) % 5}
        for place, attribute in enumerate(ATTRIBUTES):
            mask = np.zeros((64, 64), bool)
            if place in shown:
                top, left = rng.integers(2, 34, 2)
                mask[top : top + 26, left : left + 26] = True
                image[mask] = COLOURS[place]
            path = folder / "data" / "ISIC2018_Task2_Training_GroundTruth_v3"
            write_image(path / f"{name}_attribute_{attribute}.png", mask)
        path = folder / "data" / "ISIC2018_Task1-2_Training_Input" / f"{name}.png"
        write_image(path, np.clip(image, 0, 255).astype(np.uint8))
        write_image(
            folder / "data" / "ISIC2018_Task1_Training_GroundTruth" / f"{name}_segmentation.png",
            np.pad(np.ones((52, 52), bool), 6),
        )
    keys = [f"data/{name}" for name in names]
    parts = {"train": keys[:14], "validation": keys[14:19], "test": keys[19:]}
    Split(parts, 0, {"train": 0.6, "validation": 0.2, "test": 0.2}).save(folder / "split.json")
    return SimpleNamespace(folder=folder, data=folder / "data", split=folder / "split.json")


@pytest.fixture(scope="module")
def trained(small_network, data):
    """Path of the weights after a training of all layers."""
    logs = data.folder / "logs"
    code = train.main(
        [*SETTINGS, f"--dataset={data.data}", f"--split={data.split}", f"--logs={logs}"]
    )
    assert code == 0
    (weights,) = logs.glob("attributes*/mask_rcnn_attributes_0001.h5")
    return weights


class TestTraining:
    def test_stores_thresholds_with_the_weights(self, trained):
        metadata = read_metadata(trained)
        assert metadata["task"] == "attributes"
        assert metadata["class_names"] == ["BG", *ATTRIBUTES]
        assert set(metadata["thresholds"]) == set(METHODS)
        predictor = load_attributes(trained)
        assert all(predictor.thresholds["semantic"][name].instance == NEVER for name in ATTRIBUTES)

    def test_learns(self, trained, data, tmp_path, capsys):
        code = evaluate.main(
            [
                "--task=attributes",
                f"--dataset={data.data}",
                f"--weights={trained}",
                f"--out={tmp_path}",
                f"--predictions={tmp_path / 'masks'}",
            ]
        )
        printed = capsys.readouterr().out
        assert code == 0
        assert NOTICE in printed
        result = json.loads((tmp_path / "evaluation.json").read_text())
        assert result["images"] == 5  # the split beside the weights
        assert result["jaccard"] > 0.25
        assert len(list((tmp_path / "masks").iterdir())) == 25

    def test_a_run_that_is_finished_changes_nothing(self, small_network, trained, data):
        before = trained.read_bytes()
        code = train.main(
            [
                "--task=attributes",
                "--weights=last",
                f"--dataset={data.data}",
                f"--logs={trained.parents[1]}",
            ]
        )
        assert code == 0
        assert trained.read_bytes() == before

    def test_may_learn_the_boundary_too(self, small_network, tmp_path):
        parsed = parse(["--task=attributes", "--dataset=x", "--image-size=64", "--with-boundary"])
        config = attributes_training.configure(AttributesConfig, parsed, [None] * 7)
        model = MaskRCNN("inference", config, tmp_path)
        model.class_names = ["BG", *ATTRIBUTES, "lesion"]  # as `AttributesDataset` names them
        path = tmp_path / "attributes.h5"
        save_weights(model.keras_model, path, {**model.metadata(), "task": "attributes"})
        (found,) = load_attributes(path).predict([np.zeros((50, 60, 3), np.uint8)])
        assert list(found.masks) == list(ATTRIBUTES)

    def test_options_reach_configuration_and_data(self, monkeypatch):
        parsed = parse(
            ["--task=attributes", "--dataset=x", "--semantic-loss=crossentropy", "--batch=3"]
        )
        config = attributes_training.configure(AttributesConfig, parsed, [None] * 7)
        assert (config.SEMANTIC_LOSS, config.STEPS_PER_EPOCH) == ("crossentropy", 3)
        thresholds = []

        class Noted:
            image_ids = samples = ()
            num_images = 0

            def __init__(self, samples, cache, threshold, with_boundary):
                thresholds.append((threshold, with_boundary))
                self.image_info = []

            def prepare(self):
                pass

        monkeypatch.setattr("lesion.attributes_data.AttributesDataset", Noted)
        more = ["--repeat-threshold=0.4", "--with-boundary"]
        parsed = parse(["--task=attributes", "--dataset=x", *more])
        attributes_training.datasets(parsed, ([], []), None)
        assert thresholds == [(0.4, True), (0.0, True)]

    def test_released_coco_weights_are_refused(self, capsys):
        arguments = train.parse(["--task=attributes", "--dataset=d", "--weights=coco"])
        with pytest.raises(ValueError, match="starts from imagenet"):
            attributes_training.check_arguments(arguments)


class FixedNetwork:
    """Gives the same answer for all images; stands in for a `MaskRCNN`."""

    config = AttributesConfig()

    def detect(self, images):
        self.shapes = [image.shape for image in images]
        return [self.result(image.shape[:2]) for image in images]

    @staticmethod
    def result(shape):
        masks = np.zeros((*shape, 3), bool)
        masks[:, : shape[1] // 2, 0] = True
        masks[: shape[0] // 2, :, 1] = True
        masks[:, :, 2] = True
        semantic = np.zeros((*shape, 6), np.float32)
        semantic[shape[0] // 2 :, :, 0] = 0.6
        return {
            "masks": masks,
            "class_ids": np.array([1, 1, 6]),
            "scores": np.array([0.9, 0.75, 0.99], np.float32),
            "semantic": semantic,
            "presence": np.array([0.8, 0.1, 0.1, 0.1, 0.1, 1.0], np.float32),
        }


@pytest.fixture
def fixed(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"weights")
    return lambda **arguments: AttributesPredictor(FixedNetwork(), path, **arguments)


class TestPredictor:
    def test_a_pixel_has_the_best_score_of_the_instances_over_it(self, fixed):
        (evidence,) = fixed().evidence([np.zeros((40, 40, 3), np.uint8)])
        scores = evidence.instances[:, :, 0]
        assert scores[0, 0] == scores[39, 0] == np.float32(0.9)
        assert scores[0, 39] == np.float32(0.75)
        assert scores[39, 39] == 0
        assert not evidence.instances[:, :, 1:].any()  # the lesion is no attribute
        assert evidence.semantic.shape == (40, 40, 5)

    def test_unites_both_sources(self, fixed):
        thresholds = {**DEFAULTS, "combined": dict.fromkeys(ATTRIBUTES, Threshold(0.5, 0.5, 0.8))}
        (found,) = fixed(thresholds=thresholds).predict([np.zeros((40, 40, 3), np.uint8)])
        mask = found.masks["pigment_network"]
        assert mask[:, :20].all()
        assert mask[20:].all()
        assert not mask[:20, 20:].any()
        assert found.presence["pigment_network"] == pytest.approx(0.8)

    def test_an_attribute_that_is_thought_absent_has_a_blank_mask(self, fixed):
        thresholds = {**DEFAULTS, "combined": dict.fromkeys(ATTRIBUTES, Threshold(0.9, 0.0, 0.0))}
        (found,) = fixed(thresholds=thresholds).predict([np.zeros((40, 60, 3), np.uint8)])
        assert not any(mask.any() for mask in found.masks.values())

    def test_large_images_are_reduced_and_their_masks_are_not(self, fixed):
        predictor = fixed()
        (found,) = predictor.predict([np.zeros((3000, 3000, 3), np.uint8)])
        assert predictor.model.shapes == [(MAX_SIDE, MAX_SIDE, 3)]
        assert found.masks["pigment_network"].shape == (3000, 3000)
        assert found.masks["pigment_network"][:, :1500].all()

    def test_long_images_are_shown_as_squares(self, fixed):
        predictor = fixed()
        images = [np.zeros((40, 60, 3), np.uint8), np.zeros((41, 40), np.uint8)]
        long, short = predictor.evidence(images)
        assert predictor.model.shapes == [(40, 40, 3), (40, 40, 3), (41, 40, 3)]
        assert long.semantic.shape == (40, 60, 5) and short.semantic.shape == (41, 40, 5)
        # Each square's left half has the better instance; the first's end weighs next to nothing.
        np.testing.assert_allclose(
            long.instances[0, [0, 19, 20, 39, 40, 59], 0],
            [0.9, 0.9, (39 * 0.75 + 0.9) / 40, (0.75 + 39 * 0.9) / 40, 0.75, 0.75],
        )

    def test_an_image_shows_what_one_of_its_squares_shows(self, fixed):
        predictor = fixed()
        answers = iter([0.2, 0.7])

        def detect(images):
            results = [FixedNetwork.result(image.shape[:2]) for image in images]
            return [{**r, "presence": np.full(6, next(answers), np.float32)} for r in results]

        predictor.model.detect = detect
        (found,) = predictor.predict([np.zeros((40, 60, 3), np.uint8)])
        assert found.presence["streaks"] == pytest.approx(0.7)

    def test_describes_itself(self, fixed):
        described = fixed(method="semantic").describe()
        assert described["task"] == "attributes"
        assert described["method"] == "semantic"
        json.dumps(described)

    def test_an_unknown_method_is_refused(self, fixed):
        with pytest.raises(ValueError, match="must be one of combined, semantic, instances"):
            fixed(method="both")

    def test_weights_of_another_task_are_refused(self, tmp_path):
        path = tmp_path / "boundary.h5"
        save_arrays(path, {"a/b": np.zeros(1, np.float32)}, {"task": "boundary"})
        with pytest.raises(WeightsError, match="of the attributes task, but of boundary"):
            load_attributes(path)
