"""From an image to boundary, attributes, measurements and diagnosis in one call."""

import functools
import itertools
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lesion import __version__
from lesion.analysis import Analysis, Source, size_and_time
from lesion.dicom import DicomImage, is_dicom, read_dicom
from lesion.measurements import checked_scale
from lesion.nearby import SMALL, WHOLE, box_of, diagnoses_of, part_to_show, put_back, shown
from lesion.patient import checked_patient, takes_patients, told, unrecognised
from lesion.quality import QualityWarning, assess
from lesion.reading import read_ahead
from lesion.samples import TASKS, Problem
from lesion.weights import (
    NONE,
    joint_fingerprint,
    member_files,
    shipped_weights,
    weights_path,
)
from mrcnn.images import ImageError, as_rgb8, read_image
from mrcnn.molding import require_several

logger = logging.getLogger(__name__)

METHOD = 5
"""Raised where the same weights and options come to give other results."""


class Analyzer:
    """Analyses dermoscopic images. The networks are loaded when they are first needed.

    Attributes and diagnosis are found in the whole image, but of a lesion that is small or leaves
    the middle in a square around it, as the boundary network finds it (`lesion.nearby`).

    Several threads may use one: they take turns at the networks, which occupy all cores anyway.

    Args:
        boundary, attributes, diagnosis: for each task a weights file, "last" (the latest training
            in `logs/`), "lesion" (what the project ships), "none" (leave the task out) or a
            predictor that is loaded already. None: what the project ships, or no such task where
            it ships none. For the diagnosis also a list of files, whose probabilities are averaged
            (`lesion.ensemble`).
        views: how many views of an image are averaged for the boundary
            (`lesion.boundary_views`) and the diagnosis (`lesion.diagnosis`): 8, or 1, which is
            several times quicker and a little worse.
        risk: diagnoses are referred that are less sure than those of which, in validation, at most
            this share was wrong; None refers none.
        melanoma_sensitivity: those are referred, too, whose probability of melanoma this share of
            the images of melanoma in validation reached; None refers none for it.
        batch: images per pass through the networks. Fewer take as long as so many.

    Raises:
        FileNotFoundError: there is no such file, or no weights for any task.
        ValueError: `batch` is below 1, or a task has more files than it takes.
    """

    def __init__(
        self,
        boundary: Any = None,
        attributes: Any = None,
        diagnosis: Any = None,
        *,
        views: int = 8,
        risk: float | None = None,
        melanoma_sensitivity: float | None = None,
        batch: int = 1,
    ):
        if batch < 1:
            raise ValueError(f"`batch` must be at least 1, received {batch}.")
        for name, value in (("risk", risk), ("melanoma_sensitivity", melanoma_sensitivity)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"`{name}` is a share, from 0 to 1; received {value}.")
        given = zip(TASKS, (boundary, attributes, diagnosis), strict=True)
        self._found = {task: _find(task, weights) for task, weights in given}
        if all(weights in (NONE, [NONE]) for weights in (boundary, attributes, diagnosis)):
            raise ValueError(f"Every task is left out ({NONE!r}); give weights for one at least.")
        if not any(self._found.values()):
            raise FileNotFoundError(
                "There are weights for no task: none are given, and the project ships none yet. "
                "Make some by `python lesion/train.py --task=boundary --dataset=DIR "
                "--weights=imagenet`, or with --task=attributes or --task=diagnosis, and give "
                "their path."
            )
        self.batch = batch
        self.views = self._views_of_loaded(views)
        self.risk, self.melanoma_sensitivity = self._referral_of_loaded(risk, melanoma_sensitivity)
        self._predictors: dict[str, Any] = {}
        self._turn = threading.RLock()

    def _views_of_loaded(self, views):
        """The views that predictors which are loaded already have; ValueError if they differ."""
        predictors = {task: self._found[task] for task in ("boundary", "diagnosis")}
        loaded = {task: p.views for task, p in predictors.items() if hasattr(p, "views")}
        others = any(isinstance(predictor, tuple) for predictor in predictors.values())
        if len({*loaded.values(), *([views] if others else [])}) < 2:
            return next(iter(loaded.values()), views)
        said = " and ".join(f"the {task}'s predictor has {own}" for task, own in loaded.items())
        asked = f"; `views`, for the other task, is {views}" if others else ""
        raise ValueError(f"Both tasks must have the same views: {said}{asked}.")

    def _referral_of_loaded(self, risk, sensitivity):
        """What a predictor that is loaded already refers by; ValueError if more is asked for."""
        predictor = self._found["diagnosis"]
        risk, sensitivity = (None if n is None else float(n) for n in (risk, sensitivity))
        if predictor is None or isinstance(predictor, tuple):
            return risk, sensitivity
        if risk is not None or sensitivity is not None:
            raise ValueError(
                "The diagnosis' predictor is loaded already, and refers as it was told then: give "
                "`risk` and `melanoma_sensitivity` to `lesion.ensemble.load_classifiers`."
            )
        return getattr(predictor, "risk", None), getattr(predictor, "melanoma_sensitivity", None)

    @property
    def boundary(self) -> Any | None:
        """The boundary's predictor, or None."""
        return self._predictor("boundary", self._load_boundary)

    @property
    def attributes(self) -> Any | None:
        """The attributes' predictor, or None."""
        return self._predictor("attributes", self._load_attributes)

    @property
    def diagnosis(self) -> Any | None:
        """The diagnosis' predictor, or None."""
        return self._predictor("diagnosis", self._load_diagnosis)

    # TensorFlow is loaded here and not above, so that a mistyped command answers at once.

    def _load_boundary(self, weights):
        from lesion.boundary import load_predictor

        return load_predictor(*weights, self.batch if self.views == 1 else 4, self.views)

    def _load_attributes(self, weights):
        from lesion.attributes import load_attributes

        return load_attributes(*weights, self.batch)

    def _load_diagnosis(self, weights):
        from lesion.ensemble import load_classifiers

        settings = (self.views, self.risk, self.batch * self.views, self.melanoma_sensitivity)
        return load_classifiers(weights, *settings)

    def _predictor(self, task, load):
        with self._turn:
            if task not in self._predictors:
                found = self._found[task]
                self._predictors[task] = load(found) if isinstance(found, tuple) else found
            return self._predictors[task]

    def load(self) -> "Analyzer":
        """Loads all networks at once, so that nothing is left to fail or to wait for later.

        Raises:
            mrcnn.weights.WeightsError: a file is damaged or of another task.
        """
        _ = self.models
        return self

    @functools.cached_property
    def models(self) -> dict[str, dict]:
        """What each network says of itself, by task."""
        return {task: getattr(self, task).describe() for task in self.tasks}

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of `TASKS` that there is a network for."""
        return tuple(task for task in TASKS if self._found[task] is not None)

    @property
    def takes_patients(self) -> bool:
        """Whether a network of the diagnosis has learned from patient data."""
        return takes_patients(self.models.get("diagnosis", {}))

    def settings(
        self,
        millimetres_per_pixel: float | None = None,
        patient: Mapping[str, object] | None = None,
    ) -> dict:
        """All that results depend on besides the image; known without loading a network."""
        return {
            "version": __version__,
            "method": METHOD,
            "weights": self._hashes,
            "views": self.views,
            "risk": self.risk,
            "melanoma_sensitivity": self.melanoma_sensitivity,
            "small_lesion": SMALL if self._found["boundary"] is not None else None,
            "millimetres_per_pixel": millimetres_per_pixel,
            "patient": told(patient or {}) or None,
        }

    @functools.cached_property
    def _hashes(self):
        return {task: _fingerprint(self._found[task]) for task in self.tasks}

    def analyze(
        self,
        image: str | os.PathLike | np.ndarray,
        patient: Mapping[str, object] | None = None,
        millimetres_per_pixel: float | None = None,
    ) -> Analysis:
        """Analyses one image.

        Args:
            image: a file (of DICOM, too, with the extra `dicom`), or an array [height,
                width(, channels)] as `mrcnn.images.as_rgb8` takes.
            patient: `age`, `sex` and `site` as `lesion.patient.patient_vector` takes them; used if
                the diagnosis' network was trained with patient data.
            millimetres_per_pixel: the scale; without it that of a DICOM file, and if none is known
                lengths are in pixels alone.

        Raises:
            mrcnn.images.ImageError: the image cannot be read or used.
        """
        (result,) = self.analyze_many([image], [patient], millimetres_per_pixel)
        if isinstance(result, Problem):
            of_file = isinstance(image, (str, os.PathLike))
            raise ImageError(str(result) if of_file else result.reason)
        if self.diagnosis and (unknown := unrecognised(patient or {})):
            logger.warning("Of the patient not known, and not used: %s.", ", ".join(unknown))
        return result

    def analyze_many(
        self,
        images: Iterable[str | os.PathLike | np.ndarray],
        patients: Iterable[Mapping[str, object] | None] | None = None,
        millimetres_per_pixel: float | None = None,
    ) -> Iterator[Analysis | Problem]:
        """Analyses images in batches; the next batch is read while one is in the networks.

        Args:
            images, millimetres_per_pixel: as for `analyze`.
            patients: one for each image; ValueError if they are more or fewer.

        Yields:
            For each image, in order, its `Analysis`, or a `lesion.samples.Problem` that names a
            file that cannot be read, or the number of an array that is no image.

        Raises:
            TypeError: `images` is the path of one, `patients` is one, or one is no mapping.
            ValueError: a patient has a key that is none of `lesion.patient.NAMES`.
        """
        if isinstance(images, (str, os.PathLike)):
            raise TypeError(f"analyze_many takes several images; give [{str(images)!r}].")
        if isinstance(patients, Mapping):
            raise TypeError("analyze_many takes a patient for each image: a list of mappings.")
        millimetres_per_pixel = checked_scale(millimetres_per_pixel)
        require_several(images)
        given = patients is not None
        # The caller may fill the same memory with the next image.
        images = (np.array(i) if isinstance(i, np.ndarray) else i for i in images)
        patients = itertools.repeat(None) if patients is None else map(checked_patient, patients)
        items = zip(itertools.count(1), zip(images, patients, strict=given), strict=False)
        for batch in read_ahead(_load, items, self.batch):
            loaded = [item for item in batch if isinstance(item, _Loaded)]
            found = iter(self._predict(loaded) if loaded else [])
            for item in batch:
                if isinstance(item, Problem):
                    yield item
                    continue
                boundary, attributes, diagnosis, nearby = next(found)
                yield Analysis(
                    item.image,
                    boundary,
                    attributes,
                    diagnosis,
                    item.quality,
                    self.models,
                    self.settings(millimetres_per_pixel, item.patient),
                    item.source,
                    item.dicom,
                    millimetres_per_pixel or (item.dicom and item.dicom.millimetres_per_pixel),
                    nearby,
                )

    def _predict(self, loaded):
        """Of each image boundary, attributes, diagnosis, and the box these two are of."""
        images = [item.image for item in loaded]
        patients = [item.patient or {} for item in loaded]
        absent = [None] * len(images)
        with self._turn:
            lesions = self.boundary.predict(images) if self.boundary else absent
            parts = [part_to_show(found.mask) if found else WHOLE for found in lesions]
            near = shown(images, parts)
            attributes, diagnoses = absent, absent
            crops = getattr(self.diagnosis, "crops", False)  # has learned from crops of its own
            if self.attributes:
                found = zip(self.attributes.predict(near), parts, images, strict=True)
                attributes = [put_back(*each, image.shape) for *each, image in found]
            if self.diagnosis:
                diagnoses = diagnoses_of(self.diagnosis, near, images, patients)
            others = self.attributes or (self.diagnosis and not crops)
            nearby = [box_of(part) if others else None for part in parts]
            return zip(lesions, attributes, diagnoses, nearby, strict=True)


class _Loaded(NamedTuple):
    """An image in memory and what is known of it before any network has seen it."""

    image: np.ndarray
    quality: tuple[QualityWarning, ...]
    patient: Mapping[str, object] | None
    source: Source | None = None
    dicom: DicomImage | None = None


def _state(path):
    """What changes with a file; None where there is none, of which whoever reads it tells."""
    return size_and_time(path) if os.path.exists(path) else None


def _load(item):
    """`_Loaded` of an image and its patient, or the `Problem` of its file or number."""
    number, (image, patient) = item
    if not isinstance(image, (str, os.PathLike)):
        try:
            pixels = as_rgb8(image)
        except ImageError as error:
            return Problem(Path(f"image {number}"), str(error))
        return _Loaded(pixels, tuple(assess(pixels)), patient)
    try:
        before = _state(image)
        dicom = read_dicom(image) if is_dicom(image) else None
        pixels = dicom.pixels if dicom else read_image(image)
        source = Source.of(image)
        if _state(image) != before:
            return Problem(Path(image), "it changed while it was read; analyse it once more")
    except (ImageError, OSError, ImportError) as error:
        # The message begins with the path, which a `Problem` names already.
        return Problem(Path(image), str(error).removeprefix(f"{image}: "))
    return _Loaded(pixels, tuple(assess(pixels)), patient, source, dicom)


def _find(task, weights):
    """Paths of a task's weights, a predictor as it is, or None where the task is left out."""
    if weights is None:
        weights = shipped_weights(task)
        if weights is None:
            logger.warning("No weights of the %s task are installed: it is left out.", task)
            return None
    if isinstance(weights, (str, os.PathLike)):
        weights = [weights]
    if not isinstance(weights, (list, tuple)):
        return weights
    if list(map(str, weights)) == [NONE]:
        return None
    if len(weights) != 1 and (task != "diagnosis" or not weights):
        takes = "one weights file or several" if task == "diagnosis" else "one weights file"
        raise ValueError(f"The {task} task takes {takes}, received {len(weights)}.")
    paths = tuple(weights_path(path, task) for path in weights)
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"There is no weights file {path} for the {task} task.")
    member_files(paths, task)  # all of them are there
    return paths


def _fingerprint(found):
    """SHA-256 of a task's weights; of several files see `lesion.weights.joint_sha256`."""
    if not isinstance(found, tuple):
        return found.describe()["sha256"]
    return joint_fingerprint(found)
