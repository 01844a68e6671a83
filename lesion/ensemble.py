"""Several classifiers as one: the mean of their probabilities."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lesion.diagnosis import Diagnosis, DiagnosisPredictor, load_classifier
from mrcnn.weights import WeightsError


class DiagnosisEnsemble:
    """Averages the calibrated probabilities of its members.

    An image is referred if most members that can refer would refer it.
    """

    def __init__(self, members: Sequence[DiagnosisPredictor]):
        self.members = list(members)

    def predict(
        self, images: Sequence[np.ndarray], patients: Sequence[Mapping[str, str]] | None = None
    ) -> list[Diagnosis]:
        """See `lesion.diagnosis.DiagnosisPredictor.predict`."""
        opinions = [member.predict(images, patients) for member in self.members]
        return [_joint(votes) for votes in zip(*opinions, strict=True)]

    def describe(self) -> dict:
        """As of one classifier, with the members' descriptions."""
        members = [member.describe() for member in self.members]
        return {
            "task": members[0]["task"],
            "network": "ensemble",
            "weights": ", ".join(member["weights"] for member in members),
            "sha256": members[0]["sha256"],
            "members": members,
        }


def _joint(votes):
    refer = [vote.refer for vote in votes]
    return Diagnosis(
        np.mean([vote.probabilities for vote in votes], axis=0),
        np.mean([vote.uncalibrated for vote in votes], axis=0),
        None if None in refer else sum(refer) > len(refer) / 2,
    )


def load_classifiers(
    weights: Sequence[str | Path], views: int = 1, risk: float | None = None, batch: int = 16
) -> DiagnosisPredictor | DiagnosisEnsemble:
    """One classifier, or an ensemble of several.

    Args:
        weights: weights files, and files `ensemble.json` of a cross-validation.
        views, risk, batch: see `lesion.diagnosis.DiagnosisPredictor`.

    Raises:
        mrcnn.weights.WeightsError: as `lesion.diagnosis.load_classifier`, and if an ensemble's file
            does not name its members.
    """
    members = [load_classifier(path, views, risk, batch) for path in member_files(weights)]
    return members[0] if len(members) == 1 else DiagnosisEnsemble(members)


def member_files(weights: Sequence[str | Path]) -> list[Path]:
    """The weights files of an ensemble. Arguments and errors are those of `load_classifiers`."""
    return [member for path in weights for member in _members(Path(path))]


def _members(path):
    if path.suffix != ".json":
        return [path]
    try:
        members = json.loads(path.read_text(encoding="utf-8"))["members"]
        return [path.parent / member for member in members]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} does not name the members of an ensemble, as `lesion train --folds` does: "
            f"{error!r}."
        ) from error
