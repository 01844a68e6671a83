import keras
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from lesion.calibration import Calibration
from lesion.diagnosis import DiagnosisPredictor, load_classifier
from lesion.diagnosis_network import (
    DiagnosisConfig,
    DiagnosisNetwork,
    ShadesOfGray,
    UsualLight,
    describe_network,
    prepare_square,
)
from lesion.patient import SEXES, SITES, VECTOR_SIZE, patient_vector
from lesion.samples import DIAGNOSES
from mrcnn.backbone import load_imagenet
from mrcnn.files import sha256_of
from mrcnn.weights import WeightsError, save_weights

CONFIG = DiagnosisConfig(image_size=32)
CALIBRATION = Calibration(2.0, [0.1 * number for number in range(7)], [0.9, 0.3], [True, False])


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 60), (33, 32), (90, 64))
    ]


@pytest.fixture
def network(small_backbone):
    keras.utils.set_random_seed(0)
    return DiagnosisNetwork(CONFIG)


@pytest.fixture
def saved(network, tmp_path):
    """Writes the network as a checkpoint of the training does."""

    def save(**changes):
        path = tmp_path / "diagnosis_0001.h5"
        metadata = {
            "task": "diagnosis",
            **describe_network(CONFIG),
            "calibration": {"1": vars(CALIBRATION), "8": vars(CALIBRATION)},
            **changes,
        }
        save_weights(network, path, metadata)
        return path

    return save


class TestSquare:
    def test_is_the_middle_of_the_image(self):
        image = np.zeros((40, 60, 3), np.uint8)
        image[:, 10:50] = 200
        np.testing.assert_allclose(prepare_square(image, 20), 200, rtol=1e-5)

    @pytest.mark.parametrize("shape", [(41, 60), (60, 41), (33, 32), (1, 7)])
    def test_is_what_the_model_cuts_by_itself(self, shape):
        image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        layer = keras.layers.Resizing(20, 20, crop_to_aspect_ratio=True, antialias=True)
        own = keras.ops.convert_to_numpy(layer(image[np.newaxis].astype(np.float32)))[0]
        np.testing.assert_array_equal(prepare_square(image, 20), own)

    def test_is_reduced_as_pillow_does(self):
        image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
        expected = Image.fromarray(image).resize((30, 30), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(prepare_square(image, 30), np.asarray(expected), atol=1)

    @pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1), (40, 50, 4)])
    def test_any_channels(self, shape):
        square = prepare_square(np.full(shape, 77, np.uint8), 32)
        assert square.shape == (32, 32, 3)


class TestShadesOfGray:
    def test_grey_stays(self):
        image = np.full((1, 4, 4, 3), 100.0, np.float32)
        np.testing.assert_allclose(ShadesOfGray()(image), image, rtol=1e-5)

    def test_coloured_light_is_taken_out(self):
        image = np.random.default_rng(0).uniform(20, 120, (1, 8, 8, 3)).astype(np.float32)
        plain = np.array(ShadesOfGray()(image))
        lit = np.array(ShadesOfGray()(image * np.array([1.4, 1.0, 0.6], np.float32)))
        ratio = lit / plain
        np.testing.assert_allclose(ratio, np.full_like(ratio, ratio.mean()), rtol=1e-4)

    def test_channels_agree_afterwards(self):
        image = np.random.default_rng(0).uniform(0, 150, (1, 8, 8, 3)).astype(np.float32)
        means = (np.array(ShadesOfGray()(image)) ** 6).mean(axis=(1, 2))
        np.testing.assert_allclose(means, means.mean(axis=1, keepdims=True).repeat(3, 1), rtol=1e-3)

    def test_black_image(self):
        assert np.isfinite(ShadesOfGray()(np.zeros((1, 4, 4, 3), np.float32))).all()


def test_trained_in_bfloat16_answers_in_float32(saved):
    config = describe_network(CONFIG)["config"] | {"precision": "mixed_bfloat16"}
    predictor = load_classifier(saved(config=config))
    assert predictor.config.precision == "float32"
    assert {layer.compute_dtype for layer in predictor.network.layers} == {"float32"}


class TestUsualLight:
    @pytest.fixture
    def image(self):
        return np.random.default_rng(0).uniform(20, 120, (1, 8, 8, 3)).astype(np.float32)

    def test_all_of_the_way_no_light_makes_a_difference(self, image):
        lit = image * np.array([0.7, 0.5, 0.6], np.float32)
        np.testing.assert_allclose(UsualLight(1.0)(lit), UsualLight(1.0)(image), rtol=1e-4)

    def test_all_of_the_way_it_is_the_usual(self, image):
        changed = np.array(UsualLight(1.0)(image)) / 255
        found = (changed.astype(float) ** 6).mean(axis=(0, 1, 2)) ** (1 / 6)
        np.testing.assert_allclose(found, UsualLight.usual, rtol=1e-4)

    def test_half_of_the_way_half_of_the_difference_is_left(self, image):
        gains = np.array([0.81, 0.49, 0.64], np.float32)
        ratio = np.array(UsualLight(0.5)(image * gains)) / np.array(UsualLight(0.5)(image))
        np.testing.assert_allclose(ratio, np.broadcast_to(gains**0.5, ratio.shape), rtol=1e-4)

    def test_nothing_of_the_way(self, image):
        np.testing.assert_allclose(UsualLight(0.0)(image), image, rtol=1e-6)

    def test_black_image(self):
        assert not np.array(UsualLight(1.0)(np.zeros((1, 4, 4, 3), np.float32))).any()

    def test_is_a_part_of_the_network(self, small_backbone):
        network = DiagnosisNetwork(DiagnosisConfig(image_size=32, usual_light=1.0))
        images = np.random.default_rng(0).uniform(20, 100, (1, 32, 32, 3)).astype(np.float32)
        np.testing.assert_allclose(network(0.5 * images), network(images), atol=1e-4)


class TestPredictor:
    def test_probabilities_of_images_of_any_size(self, network, images, tmp_path):
        predicted = DiagnosisPredictor(network, CONFIG, tmp_path, batch=2).predict(images)
        assert len(predicted) == 3
        for diagnosis in predicted:
            assert diagnosis.probabilities.sum() == pytest.approx(1)
            assert diagnosis.category == DIAGNOSES[diagnosis.probabilities.argmax()]
            assert diagnosis.refer is None

    def test_batches_do_not_matter(self, network, images, tmp_path):
        one, many = (
            DiagnosisPredictor(network, CONFIG, tmp_path, views=8, batch=batch).predict(images)
            for batch in (1, 16)
        )
        for first, second in zip(one, many, strict=True):
            np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=1e-4)

    def test_turning_the_image_turns_its_views(self, network, images, tmp_path):
        predictor = DiagnosisPredictor(network, CONFIG, tmp_path, views=8)
        square = images[2][13:77]
        of_views = predictor.logits_of_views([square])[0]
        turned = predictor.logits_of_views([np.rot90(square)])[0]
        assert not np.allclose(of_views[0], turned[0], rtol=1e-3)
        for half in (slice(0, 4), slice(4, 8)):
            np.testing.assert_allclose(
                *(np.sort(found[half], axis=0) for found in (of_views, turned)),
                rtol=1e-3,
                atol=1e-4,
            )

    def test_half_of_the_views_are_mirrored_and_from_nearer(self, network, images, tmp_path):
        square = images[2][13:77]
        views = DiagnosisPredictor(network, CONFIG, tmp_path, views=8).logits_of_views([square])[0]
        one = DiagnosisPredictor(network, CONFIG, tmp_path)
        (whole,), (nearer,) = one.logits_of_views([square, square[4:60, 4:60][:, ::-1]])
        np.testing.assert_allclose(views[0], whole, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(views[4], nearer, rtol=1e-3, atol=1e-4)

    def test_no_image(self, network, tmp_path):
        assert DiagnosisPredictor(network, CONFIG, tmp_path).predict([]) == []

    def test_temperature_of_the_views_is_used(self, network, images, tmp_path):
        calibrations = {1: Calibration(1.0), 8: CALIBRATION}
        predictor = DiagnosisPredictor(network, CONFIG, tmp_path, calibrations, views=8)
        logits = predictor.logits_of_views(images).mean(axis=1)
        for values, diagnosis in zip(logits, predictor.predict(images), strict=True):
            shifted = values + np.array(CALIBRATION.offset)
            np.testing.assert_allclose(diagnosis.probabilities, softmax(shifted / 2))
            np.testing.assert_allclose(diagnosis.uncalibrated, softmax(shifted))

    def test_one_model_does_the_same(self, network, images, tmp_path):
        predictor = DiagnosisPredictor(network, CONFIG, tmp_path, {1: CALIBRATION})
        for image, diagnosis in zip(images, predictor.predict(images), strict=True):
            probabilities = predictor.model(image[np.newaxis].astype(np.float32))
            np.testing.assert_allclose(probabilities[0], diagnosis.probabilities, atol=1e-6)

    @pytest.mark.parametrize(("risk", "refer"), [(0.5, False), (0.0, True)])
    def test_refers_what_is_below_the_threshold(self, network, images, tmp_path, risk, refer):
        calibration = Calibration(1.0, [], [0.999, 0.01], [True, False])
        predictor = DiagnosisPredictor(network, CONFIG, tmp_path, {1: calibration}, risk=risk)
        assert [diagnosis.refer for diagnosis in predictor.predict(images)] == [refer] * 3

    def test_other_numbers_of_views_are_refused(self, network, tmp_path):
        with pytest.raises(ValueError, match="views"):
            DiagnosisPredictor(network, CONFIG, tmp_path, views=3)


class TestWeightsFile:
    def test_is_all_that_is_needed(self, saved, network, images):
        loaded = load_classifier(saved(), views=8, risk=0.1)
        expected = DiagnosisPredictor(network, CONFIG, "", {8: CALIBRATION}, views=8, risk=0.1)
        assert loaded.config == CONFIG
        assert loaded.referral.confidence == 0.9
        for one, other in zip(loaded.predict(images), expected.predict(images), strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-5)
        assert loaded.describe()["temperature"] == 2.0

    def test_hash_is_of_what_was_loaded(self, saved):
        path = saved()
        loaded, before = load_classifier(path), sha256_of(path)
        path.write_bytes(b"of the next epoch")
        assert loaded.describe()["sha256"] == before

    def test_of_another_task(self, saved):
        with pytest.raises(WeightsError, match="not hold weights of the diagnosis task.*boundary"):
            load_classifier(saved(task="boundary"))

    def test_with_other_categories(self, saved):
        with pytest.raises(WeightsError, match="categories benign, malignant"):
            load_classifier(saved(class_names=["benign", "malignant"]))

    def test_of_a_newer_version(self, saved):
        with pytest.raises(WeightsError, match="does not know .scale."):
            load_classifier(saved(config={**vars(CONFIG), "scale": 2}))

    def test_of_another_network(self, saved):
        with pytest.raises(WeightsError, match="other shapes|incomplete"):
            load_classifier(saved(config={**vars(CONFIG), "patient_data": True}))

    def test_that_is_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            load_classifier(tmp_path / "none.h5")


class TestPatient:
    def test_vector(self):
        vector = patient_vector({"age": "55.0", "sex": "Male", "site": "back"})
        assert vector[:2].tolist() == pytest.approx([0.55, 1])
        assert vector[2:4].tolist() == [0, 1]
        assert np.flatnonzero(vector[4:]).tolist() == [SITES.index("back")]
        assert (len(vector), len(SEXES)) == (VECTOR_SIZE, 2)

    @pytest.mark.parametrize("age", ["", "unknown", "nan", "-3", "400"])
    def test_what_is_missing_is_zero(self, age):
        assert not patient_vector({"age": age, "sex": "unknown", "site": ""}).any()
        assert not patient_vector({}).any()

    def test_reaches_the_probabilities(self, small_backbone, images, tmp_path):
        keras.utils.set_random_seed(0)
        config = DiagnosisConfig(image_size=32, patient_data=True)
        predictor = DiagnosisPredictor(DiagnosisNetwork(config), config, tmp_path, views=8)
        known = predictor.predict(images[:2], [{"age": "80", "sex": "male"}, {}])
        unknown = predictor.predict(images[:2])
        assert not np.allclose(known[0].probabilities, unknown[0].probabilities)
        np.testing.assert_allclose(known[1].probabilities, unknown[1].probabilities)


class TestBackbones:
    def test_lite0_has_all_of_its_imagenet_weights(self):
        network = DiagnosisNetwork(CONFIG)
        report = load_imagenet(network, CONFIG.to_mrcnn())
        assert report.missing_layers == ["diagnosis_logits"]
        assert {name.partition("/")[0] for name in report.unused} == {"predictions"}
        assert network.get_layer("diagnosis_pool").output.shape == (None, 1280)

    def test_frozen_stages(self):
        network = DiagnosisNetwork(DiagnosisConfig(image_size=32, frozen_stages=2))
        assert {"stem_conv", "block1a_bn", "block2b_project_conv"} <= set(network.frozen_layers)
        assert not any(name.startswith("block3") for name in network.frozen_layers)

    def test_of_keras_applications(self):
        config = DiagnosisConfig(backbone="efficientnetb0", image_size=32)
        assert DiagnosisNetwork(config).output_shape == (None, 7)

    @pytest.mark.filterwarnings("error::UserWarning")
    def test_its_one_input_stands_alone(self):
        network = DiagnosisNetwork(DiagnosisConfig(image_size=32))
        assert network(np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 7)

    def test_bfloat16_ends_in_float32(self):
        network = DiagnosisNetwork(DiagnosisConfig(image_size=32, precision="mixed_bfloat16"))
        assert network.get_layer("block1a_bn").compute_dtype == "bfloat16"
        assert network.output.dtype == "float32"
        assert keras.config.dtype_policy().name == "float32"
