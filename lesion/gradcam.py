"""Where in an image the classifier found a category: a debugging aid, not an explanation.

Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv 1710.11063). A map shows which places moved the
network's answer; it says neither why, nor that they are what a dermatologist would look at.
"""

from typing import Any

import keras
import numpy as np
from PIL import Image

from lesion.diagnosis import DiagnosisPredictor
from lesion.diagnosis_network import prepare_square
from lesion.samples import DIAGNOSES

LABEL = "Grad-CAM++: a debugging aid, not an explanation"


def heat_map(predictor: Any, image: np.ndarray, category: str) -> np.ndarray:
    """How much each place of the network's square speaks for a category.

    Args:
        predictor: a `DiagnosisPredictor`, or a `DiagnosisEnsemble`, whose members' maps are
            averaged.
        image: [height, width(, channels)] of any size; cropped before, where the classifier does.
        category: one of `DIAGNOSES`.

    Returns:
        float32 [side, side] in 0..1, of the largest square in the middle of the image; all zero
        where nothing speaks for the category.
    """
    members = getattr(predictor, "members", [predictor])
    side = min(image.shape[:2])
    # Members may see squares of several sizes.
    maps = (Image.fromarray(_map_of(member, image, category)) for member in members)
    maps = (each.resize((side, side), Image.Resampling.BILINEAR) for each in maps)
    return np.stack([np.asarray(each) for each in maps]).mean(axis=0, dtype=np.float32)


def _map_of(predictor: DiagnosisPredictor, image, category):
    """float32 [rows, columns] of the last feature maps."""
    network = predictor.network
    square = prepare_square(image, predictor.config.image_size)
    pool, head = (network.get_layer(f"diagnosis_{name}") for name in ("pool", "logits"))
    # The patient's data add the same to every place.
    features = keras.Model(network.inputs[0], pool.input)(square[np.newaxis], training=False)[0]
    features = np.asarray(keras.ops.convert_to_numpy(features), np.float32)
    kernel = np.asarray(head.kernel)[: features.shape[-1], DIAGNOSES.index(category)]
    weights = _channel_weights(features, kernel / (features.shape[0] * features.shape[1]))
    evidence = np.maximum(features @ weights, 0)
    return evidence / evidence.max() if evidence.max() > 0 else evidence


def _channel_weights(features: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Equation 19 of the paper for a network that ends in a mean over places and a linear layer.

    The gradient is then the same at every place, and no differentiation is needed.

    Args:
        features: [rows, columns, channels].
        gradient: [channels], of the logit by a feature.
    """
    divisor = 2 + gradient * features.sum(axis=(0, 1))
    alpha = np.divide(1, divisor, out=np.zeros_like(divisor), where=np.abs(divisor) > 1e-6)
    return features.shape[0] * features.shape[1] * alpha * np.maximum(gradient, 0)
