"""Several classifiers as one: the mean of their probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lesion.calibration import Calibration
from lesion.diagnosis import Diagnosis, DiagnosisPredictor, load_classifier
from lesion.weights import ensemble_calibration, joint_sha256, member_files
from mrcnn.weights import WeightsError


class DiagnosisEnsemble:
    """Averages the calibrated probabilities of its members.

    Args:
        members: its classifiers.
        calibration: of the logarithms of the mean; None leaves it, as where the members have no
            images in common that none of them learned from. An image is then referred if more than
            half of the members would refer it.
        risk: see `lesion.diagnosis.DiagnosisPredictor`.
    """

    def __init__(
        self,
        members: Sequence[DiagnosisPredictor],
        calibration: Calibration | None = None,
        risk: float | None = None,
    ):
        self.members = list(members)
        self.calibration = calibration
        self.threshold = None
        if calibration and risk is not None:
            self.threshold = calibration.threshold(risk)

    def predict(
        self, images: Sequence[np.ndarray], patients: Sequence[Mapping[str, str]] | None = None
    ) -> list[Diagnosis]:
        """See `lesion.diagnosis.DiagnosisPredictor.predict`."""
        opinions = [member.predict(images, patients) for member in self.members]
        return [self._joint(votes) for votes in zip(*opinions, strict=True)]

    def _joint(self, votes):
        mean, raw = (
            np.mean([getattr(vote, name) for vote in votes], axis=0)
            for name in ("probabilities", "uncalibrated")
        )
        if self.calibration is None:
            refer = [vote.refer for vote in votes]
            return Diagnosis(mean, raw, None if None in refer else sum(refer) > len(refer) / 2)
        mean = self.calibration.probabilities(np.log(mean))
        return Diagnosis(
            mean, raw, None if self.threshold is None else bool(mean.max() < self.threshold)
        )

    def describe(self) -> dict:
        """As of one classifier, with the members' descriptions."""
        members = [member.describe() for member in self.members]
        joint = {}
        if self.calibration:
            joint = {"temperature": self.calibration.temperature, "refer_below": self.threshold}
        return {
            "task": members[0]["task"],
            "network": "ensemble",
            "weights": ", ".join(member["weights"] for member in members),
            "sha256": joint_sha256([member["sha256"] for member in members]),
            **joint,
            "members": members,
        }


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
    if len(members) == 1:
        return members[0]
    fitted = ensemble_calibration(weights).get(str(views))
    try:
        calibration = Calibration(**fitted) if fitted else None
    except TypeError as error:
        raise WeightsError(
            f"{weights[0]} has a calibration that this version does not know; install a newer one."
        ) from error
    return DiagnosisEnsemble(members, calibration, risk)
