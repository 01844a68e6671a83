"""Several classifiers as one: the mean of their probabilities."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lesion.calibration import Calibration, Referral
from lesion.diagnosis import Diagnosis, DiagnosisPredictor, calibrations_in, load_classifier
from lesion.weights import (
    ensemble_calibration,
    joint_sha256,
    member_files,
    require_different,
)
from mrcnn.weights import WeightsError


class DiagnosisEnsemble:
    """Averages the calibrated probabilities of its members.

    Args:
        members: its classifiers.
        calibrations: by number of views, of the logarithms of the mean; none leaves the mean as it
            is, as where the members have no images in common that none of them learned from. An
            image is then referred if more than half of the members would refer it for the risk, or
            one of them for its nearness to melanoma.
        risk, melanoma_sensitivity: see `lesion.diagnosis.DiagnosisPredictor`.
    """

    def __init__(
        self,
        members: Sequence[DiagnosisPredictor],
        calibrations: Mapping[int, Calibration] | None = None,
        risk: float | None = None,
        melanoma_sensitivity: float | None = None,
    ):
        self.members = list(members)
        self.views = self.members[0].views
        self.risk, self.melanoma_sensitivity = risk, melanoma_sensitivity
        self.calibrations = dict(calibrations or {})
        self.calibration = self.calibrations.get(self.views)
        self.referral = Referral()
        if self.calibration:
            self.referral = self.calibration.referral(risk, melanoma_sensitivity)

    @property
    def crops(self) -> bool:
        """Whether every member crops images to their lesion first."""
        return all(member.crops for member in self.members)

    def predict(
        self,
        images: Sequence[np.ndarray],
        patients: Sequence[Mapping[str, object]] | None = None,
        whole: Sequence[np.ndarray] | None = None,
    ) -> list[Diagnosis]:
        """See `lesion.diagnosis.DiagnosisPredictor.predict`."""
        more = {} if whole is None else {"whole": whole}
        with _several_networks():
            opinions = [member.predict(images, patients, **more) for member in self.members]
        return [self._joint(votes) for votes in zip(*opinions, strict=True)]

    def _joint(self, votes):
        mean, raw = (
            np.mean([getattr(vote, name) for vote in votes], axis=0)
            for name in ("probabilities", "uncalibrated")
        )
        if self.calibration is None:
            return Diagnosis(mean, raw, self._by_votes(votes))
        mean = self.calibration.probabilities(np.log(mean))
        return Diagnosis(mean, raw, self.referral(mean))

    def _by_votes(self, votes):
        voters = [
            (member.referral, vote.probabilities)
            for member, vote in zip(self.members, votes, strict=True)
        ]
        if Referral() in [referral for referral, _ in voters]:
            return None
        unsure = sum(referral.unsure(answer) for referral, answer in voters)
        return unsure > len(voters) / 2 or any(
            referral.suspects(answer) for referral, answer in voters
        )

    def describe(self) -> dict:
        """As of one classifier, with the members' descriptions."""
        members = [member.describe() for member in self.members]
        joint = {}
        if self.calibration:
            joint = {
                "temperature": self.calibration.temperature,
                "refer_below": self.referral.confidence,
                "refer_melanoma_from": self.referral.melanoma,
            }
        return {
            "task": members[0]["task"],
            "network": "ensemble",
            "weights": ", ".join(member["weights"] for member in members),
            "sha256": joint_sha256(
                [member["sha256"] for member in members], plain(self.calibrations)
            ),
            "views": self.views,
            **joint,
            "members": members,
        }


def load_classifiers(
    weights: Sequence[str | Path],
    views: int = 1,
    risk: float | None = None,
    batch: int = 16,
    melanoma_sensitivity: float | None = None,
) -> DiagnosisPredictor | DiagnosisEnsemble:
    """One classifier, or an ensemble of several.

    Args:
        weights: as for `lesion.weights.member_files`.
        views, risk, batch, melanoma_sensitivity: see `lesion.diagnosis.DiagnosisPredictor`.

    Raises:
        mrcnn.weights.WeightsError: as `lesion.diagnosis.load_classifier`, and if an ensemble's file
            does not name its members, or what calibrates them is damaged or of other views.
        ValueError: as `lesion.diagnosis.DiagnosisPredictor`, and for the same network twice.
    """
    paths, referral = member_files(weights), (risk, melanoma_sensitivity)
    if len(paths) == 1:
        return load_classifier(paths[0], views, risk, batch, melanoma_sensitivity)
    calibrations = _calibrations(weights, ensemble_calibration(weights), views)
    own = (None, None) if calibrations else referral  # who refers together does not alone
    require_different(paths)
    members = [load_classifier(path, views, own[0], batch, own[1]) for path in paths]
    return DiagnosisEnsemble(members, calibrations, *referral)


@contextlib.contextmanager
def _several_networks():
    """TensorFlow takes their first predictions for one function, traced in vain again and again."""
    log = logging.getLogger("tensorflow")
    log.addFilter(_is_not_of_tracing)
    try:
        yield
    finally:
        log.removeFilter(_is_not_of_tracing)


def _is_not_of_tracing(record):
    return "triggered tf.function retracing" not in record.getMessage()


def plain(calibrations: Mapping[int, Calibration]) -> dict[str, dict]:
    """Calibrations by number of views as a file names them."""
    values = {str(views): dataclasses.asdict(fitted) for views, fitted in calibrations.items()}
    for fitted in values.values():
        if not fitted["melanoma"]:  # as in files of before there was any, whose hash it is part of
            del fitted["melanoma"]
    return values


def _calibrations(weights, values, views):
    """`Calibration`s of the plain values in an ensemble's file, if it has any."""
    calibrations = calibrations_in({"calibration": values}, weights[0])
    if calibrations and views not in calibrations:
        raise WeightsError(
            f"{weights[0]} is not calibrated for {views} views, but for "
            f"{', '.join(map(str, calibrations))}. Make it anew with `lesion join`."
        )
    for fitted in calibrations.values():
        temperature = fitted.temperature
        if not (isinstance(temperature, int | float) and 0 < temperature < math.inf):
            raise WeightsError(
                f"{weights[0]} has the temperature {temperature!r}, and it must be a number above "
                "0. Fetch the file again, or make it anew with `lesion join`."
            )
    return calibrations
