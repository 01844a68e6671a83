import keras
import numpy as np
import pytest
import tensorflow as tf

from lesion.diagnosis import Diagnosis, DiagnosisPredictor
from lesion.diagnosis_evaluation import DiagnosisEvaluation, write_heat_maps
from lesion.diagnosis_network import DiagnosisConfig, DiagnosisNetwork, prepare_square
from lesion.ensemble import DiagnosisEnsemble
from lesion.gradcam import heat_map
from lesion.samples import DIAGNOSES, Sample
from mrcnn.images import read_image, write_image

CONFIG = DiagnosisConfig(image_size=64)


@pytest.fixture
def predictor(small_backbone, tmp_path):
    keras.utils.set_random_seed(1)
    return DiagnosisPredictor(DiagnosisNetwork(CONFIG), CONFIG, tmp_path)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)


def by_differentiation(network, image, category):
    """The paper's equations 10 and 19, place by place, with derivatives from TensorFlow."""
    pool = network.get_layer("diagnosis_pool")
    features = keras.Model(network.inputs[0], pool.input)(prepare_square(image, 64)[np.newaxis])
    head = network.get_layer("diagnosis_logits")
    with tf.GradientTape() as tape:
        tape.watch(features)
        logit = head(pool(features))[0, DIAGNOSES.index(category)]
    gradient = tape.gradient(logit, features).numpy()[0]
    features = features.numpy()[0]
    total = features.sum(axis=(0, 1))
    divisor = 2 * gradient**2 + total * gradient**3
    alpha = np.where(divisor != 0, gradient**2 / np.where(divisor != 0, divisor, 1), 0)
    weights = (alpha * np.maximum(gradient, 0)).sum(axis=(0, 1))
    evidence = np.maximum((features * weights).sum(axis=-1), 0)
    return evidence / evidence.max()


@pytest.mark.parametrize("category", ["MEL", "BKL"])
def test_is_that_of_the_paper(predictor, image, category):
    heat = heat_map(predictor, image, category)
    expected = by_differentiation(predictor.network, image, category)
    # Two places a side become 64 pixels: the corners are the places' own values.
    corners = heat[[[0, 0], [-1, -1]], [[0, -1], [0, -1]]]
    np.testing.assert_allclose(corners, expected[:: len(expected) - 1, :: len(expected) - 1], 1e-4)


def test_size_and_range(predictor, image):
    heat = heat_map(predictor, image, "NV")
    assert heat.shape == (64, 64)
    assert 0 <= heat.min() and heat.max() <= 1


def test_members_of_an_ensemble_may_see_squares_of_other_sizes(predictor, image, tmp_path):
    config = DiagnosisConfig(image_size=96)
    other = DiagnosisPredictor(DiagnosisNetwork(config), config, tmp_path)
    maps = [heat_map(member, image, "NV") for member in (predictor, other)]
    joint = heat_map(DiagnosisEnsemble([predictor, other]), image, "NV")
    np.testing.assert_allclose(joint, np.mean(maps, axis=0), atol=1e-6)
    assert np.abs(maps[0] - maps[1]).max() > 0.01


def test_nothing_speaks_for_a_category_without_weights(predictor, image):
    predictor.network.get_layer("diagnosis_logits").kernel.assign(
        -np.ones_like(predictor.network.get_layer("diagnosis_logits").kernel)
    )
    assert not heat_map(predictor, image, "NV").any()


def test_figure_of_the_most_confident_mistakes(eagerly, predictor, image, tmp_path):
    """As `lesion evaluate --heat-maps=2` writes it."""
    samples, diagnoses = [], []
    for number, (name, sure) in enumerate((("MEL", 0.6), ("NV", 0.9), ("BKL", 0.7))):
        write_image(tmp_path / f"i{number}.png", image)
        samples.append(Sample("a", f"i{number}", tmp_path / f"i{number}.png", diagnosis=name))
        probabilities = np.full(7, (1 - sure) / 6)
        probabilities[DIAGNOSES.index("NV")] = sure
        diagnoses.append(Diagnosis(probabilities, probabilities))
    evaluation = DiagnosisEvaluation(samples, diagnoses)
    (path,) = write_heat_maps(evaluation, predictor, 2, tmp_path)
    assert read_image(path).std() > 5
    assert write_heat_maps(evaluation, predictor, 0, tmp_path) == []
