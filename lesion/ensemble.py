"""Several classifiers as one: the mean of their probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lesion.diagnosis import Diagnosis, DiagnosisPredictor, load_classifier
from lesion.weights import joint_sha256, member_files


class DiagnosisEnsemble:
    """Averages the calibrated probabilities of its members.

    An image is referred if more than half of the members would refer it.
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
            "sha256": joint_sha256([member["sha256"] for member in members]),
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
        weights: as for `lesion.weights.member_files`.
        views, risk, batch: see `lesion.diagnosis.DiagnosisPredictor`.

    Raises:
        mrcnn.weights.WeightsError: as `lesion.diagnosis.load_classifier`, and if an ensemble's file
            does not name its members.
    """
    members = [load_classifier(path, views, risk, batch) for path in member_files(weights)]
    return members[0] if len(members) == 1 else DiagnosisEnsemble(members)
