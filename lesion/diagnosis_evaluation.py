"""Scores of the diagnosis task: recall, calibration, subgroups, and the files that show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lesion.calibration import MELANOMA, brier_score, expected_calibration_error
from lesion.diagnosis_figures import (
    Explained,
    confusion_figure,
    coverage_figure,
    heat_figure,
    reliability_figure,
    roc_figure,
)
from lesion.diagnosis_metrics import ScoredPredictions, confusion_matrix, subgroups
from lesion.grouping import independent_groups, lesion_groups, unit_of
from lesion.reading import read_ahead, read_or_problem
from lesion.samples import DIAGNOSES, Problem, Sample, distinct_names
from lesion.tables import write_table
from mrcnn.images import read_image

_FACTS = ("age", "sex", "site", "confirmation")  # of a sample's metadata
# Smaller subgroups have no interval worth its time.
_MIN_SUBGROUP = 20


@dataclass
class DiagnosisEvaluation:
    """Predictions of the diagnosis task.

    Attributes:
        samples: the samples that were predicted and have a diagnosis.
        diagnoses: what the predictor made of each (`lesion.diagnosis.Diagnosis`).
        unscored: samples without a diagnosis, each with what was made of it.
        problems: samples that could not be predicted.
    """

    samples: list[Sample] = field(default_factory=list)
    diagnoses: list[Any] = field(default_factory=list)
    unscored: list[tuple[Sample, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def labels(self) -> np.ndarray:
        """int [samples], positions in `DIAGNOSES`."""
        return np.array([DIAGNOSES.index(sample.diagnosis) for sample in self.samples], int)

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [samples, 7], after calibration."""
        return np.array([d.probabilities for d in self.diagnoses]).reshape(-1, len(DIAGNOSES))

    @property
    def uncalibrated(self) -> np.ndarray:
        """float64 [samples, 7]."""
        return np.array([d.uncalibrated for d in self.diagnoses]).reshape(-1, len(DIAGNOSES))

    def scored(self) -> ScoredPredictions:
        """What is scored; where the lesion is unknown, an image stands for itself."""
        groups = independent_groups(self.samples)
        return ScoredPredictions(
            self.labels, self.probabilities, groups, lesion_groups(self.samples)
        )


def evaluate_diagnosis(
    predictor: Any, samples: Sequence[Sample], batch: int = 8, patients: bool = True
) -> DiagnosisEvaluation:
    """Predicts each sample's diagnosis.

    Args:
        predictor: has `predict(images, patients)`, as `lesion.diagnosis.DiagnosisPredictor`.
        samples: to predict.
        batch: images predicted at once.
        patients: whether what is known of the patients may be used.

    Returns:
        The predictions, of samples without a diagnosis apart. Samples whose image cannot be read
        are among its problems.
    """
    evaluation = DiagnosisEvaluation()
    with tqdm(total=len(samples), desc="Evaluating", unit="image", disable=None) as progress:
        for chunk in read_ahead(_read, samples, batch):
            read = [(sample, image) for sample, image in chunk if not isinstance(image, Problem)]
            evaluation.problems += [problem for _, problem in chunk if isinstance(problem, Problem)]
            predicted = predictor.predict(
                [image for _, image in read],
                [sample.metadata for sample, _ in read] if patients else None,
            )
            for (sample, _), diagnosis in zip(read, predicted, strict=True):
                if sample.diagnosis is None:
                    evaluation.unscored.append((sample, diagnosis))
                else:
                    evaluation.samples.append(sample)
                    evaluation.diagnoses.append(diagnosis)
            progress.update(len(chunk))
    return evaluation


def _read(sample):
    return sample, read_or_problem(sample.image)


def summarize_diagnosis(evaluation: DiagnosisEvaluation, names: Sequence[str] = ()) -> dict:
    """All figures as plain values for JSON.

    Args:
        evaluation: what `evaluate_diagnosis` gave.
        names: of collections that are to be listed even if none of their samples was predicted.

    Returns:
        What `lesion.diagnosis_metrics.ScoredPredictions.summary` gives for all images;
        `before_calibration`; `referred`, their number, `referred_melanoma`, how many of these show
        melanoma, and the scores of the rest as `answered`, if the predictor refers; `subgroups` and
        `datasets`, each with the same summary; `grouped_by`, in words what intervals go by;
        `unscored`, the number of images predicted without a diagnosis to compare with; `failed` and
        `problems`.
    """
    collections: dict[str, list[int]] = {name: [] for name in names}
    for position, sample in enumerate(evaluation.samples):
        collections.setdefault(sample.collection, []).append(position)
    common = {
        "grouped_by": unit_of(evaluation.samples),
        "unscored": len(evaluation.unscored),
        "failed": len(evaluation.problems),
        "problems": [problem.to_dict() for problem in evaluation.problems],
    }
    if not evaluation.samples:
        main = ("balanced_accuracy", "melanoma_auc", "mean_auc", "ece", "brier")
        empty = {name: dict.fromkeys(DIAGNOSES) for name in ("recall", "auc")}
        confidence = {"confidence": {**dict.fromkeys(main), **empty}}
        return {"images": 0, "lesions": 0, **dict.fromkeys(main), **empty, **confidence, **common}
    scored = evaluation.scored()

    def part(positions):
        if not positions:
            return {"images": 0}
        return scored.select(positions).summary(intervals=len(positions) >= _MIN_SUBGROUP)

    refer = [diagnosis.refer for diagnosis in evaluation.diagnoses]
    referral = {}
    if None not in refer:
        answered = [i for i, referred in enumerate(refer) if not referred]
        melanoma = [refer[i] for i in np.flatnonzero(evaluation.labels == MELANOMA)]
        referral = {
            "referred": sum(refer),
            "referred_melanoma": sum(melanoma),
            "answered": part(answered),
        }
    before = evaluation.uncalibrated, evaluation.labels
    return {
        **scored.summary(),
        "before_calibration": {
            "ece": expected_calibration_error(*before),
            "brier": brier_score(*before),
        },
        **referral,
        "subgroups": {
            name: {value: part(positions) for value, positions in groups.items()}
            for name, groups in subgroups(evaluation.samples).items()
        },
        "datasets": {name: part(positions) for name, positions in collections.items()},
        **common,
    }


def write_diagnosis(evaluation: DiagnosisEvaluation, out: str | Path) -> list[Path]:
    """Writes the challenge's submission, a table of predictions and the figures into a folder.

    Returns:
        The paths written; the submission alone where no sample is scored, and none where none was
        predicted.
    """
    out, labels, probabilities = Path(out), evaluation.labels, evaluation.probabilities
    answers = [*zip(evaluation.samples, evaluation.diagnoses, strict=True), *evaluation.unscored]
    if not answers:
        return []
    tables = [out / "submission.csv", out / "predictions.csv"]
    _write_submission(tables[0], answers)
    if not evaluation.samples:
        return tables[:1]
    _write_predictions(tables[1], evaluation)
    names = ("confusion.png", "roc.png", "reliability.png", "coverage.png")
    confusion, roc, reliability, coverage = figures = [out / name for name in names]
    confusion_figure(confusion_matrix(labels, evaluation.scored().decisions), confusion)
    roc_figure(labels, probabilities, roc)
    temperatures = {"before": evaluation.uncalibrated, "after": probabilities}
    reliability_figure(labels, temperatures, reliability)
    coverage_figure(labels, probabilities, coverage)
    return [*tables, *figures]


def _write_submission(path, answers):
    names = distinct_names([sample for sample, _ in answers])
    rows = (
        # All digits, as rounded values could be equal, and points, as the scorer wants floats.
        [name, *map(repr, diagnosis.probabilities.tolist())]
        for name, (_, diagnosis) in zip(names, answers, strict=True)
    )
    write_table(path, ["image", *DIAGNOSES], rows, notice=False)


def _write_predictions(path, evaluation):
    header = ("dataset", "image_id", "lesion_id", "diagnosis", "predicted", "confidence", "refer")
    rows = (
        [
            *(sample.collection, sample.image_id, sample.lesion_id or "", sample.diagnosis),
            *(d.category, f"{d.probabilities.max():.6f}"),
            "" if d.refer is None else int(d.refer),
            *(f"{value:.6f}" for value in d.probabilities),
            *(sample.metadata.get(name, "") for name in _FACTS),
        ]
        for sample, d in zip(evaluation.samples, evaluation.diagnoses, strict=True)
    )
    write_table(path, [*header, *DIAGNOSES, *_FACTS], rows)


def write_heat_maps(
    evaluation: DiagnosisEvaluation, predictor: Any, count: int, out: str | Path
) -> list[Path]:
    """Writes `heat_maps.png`: what the most confident mistakes were made of, then the best answers.

    Args:
        evaluation: what `evaluate_diagnosis` gave.
        predictor: a `DiagnosisPredictor` or a `DiagnosisEnsemble`.
        count: number of images.
        out: the folder.
    """
    from lesion.gradcam import LABEL, heat_map

    right = evaluation.scored().decisions == evaluation.labels
    order = np.lexsort((-evaluation.probabilities.max(axis=1), right))[:count]
    cases = []
    for position in order:
        sample, diagnosis = evaluation.samples[position], evaluation.diagnoses[position]
        (image,) = predictor.members[0].crop([read_image(sample.image)])
        title = (
            f"{sample.image_id}\n{sample.diagnosis}, predicted {diagnosis.category} "
            f"{diagnosis.probabilities.max():.2f}"
        )
        cases.append(Explained(title, image, heat_map(predictor, image, diagnosis.category)))
    if not cases:
        return []
    path = Path(out) / "heat_maps.png"
    heat_figure(cases, LABEL, path)
    return [path]


# === Tables ===


def format_diagnosis(summary: Mapping[str, Any]) -> str:
    """The figures as text."""
    if not summary["images"]:
        unscored = summary["unscored"]
        if not unscored:
            return "No image was predicted."
        return f"{unscored} images were predicted; none has a diagnosis to compare with."
    lines = [*_images_lines(summary), "", *_scores_lines(summary), "", *_category_lines(summary)]
    for title, groups in (*summary["subgroups"].items(), ("data set", summary["datasets"])):
        if len(groups) > 1:
            lines += ["", f"{title:22}images  balanced accuracy         melanoma AUC"]
            lines += [_subgroup_line(name, part) for name, part in groups.items()]
    return "\n".join(lines)


def _images_lines(summary):
    """How many images and lesions were scored, and of which categories."""
    unit = summary["grouped_by"]
    of = f"of {summary['lesions']:,} lesions" if "lesion" in unit else "(lesions unknown)"
    of += ", each image of an unknown one counted as its own" if "where known" in unit else ""
    yield f"{summary['images']:,} images {of}; 95 % intervals by {unit}"
    if (occurring := sum(map(bool, summary["images_of"].values()))) < len(DIAGNOSES):
        means = "occur: balanced accuracy is the mean of their recalls"
        only = "occurs: balanced accuracy is its recall"
        yield f"{occurring} of the {len(DIAGNOSES)} categories {means if occurring > 1 else only}"
    if summary["unscored"]:
        yield f"images predicted without a known diagnosis: {summary['unscored']:,}"


def _scores_lines(summary):
    """Scores of all images together."""
    for name, label in (
        ("balanced_accuracy", "balanced accuracy"),
        ("accuracy", "accuracy"),
        ("melanoma_auc", "melanoma AUC"),
        ("mean_auc", "mean AUC"),
        ("ece", "calibration error"),
        ("brier", "Brier score"),
    ):
        yield f"{label:20}{_number(summary[name])}  {_interval(summary['confidence'][name])}"
    before = summary["before_calibration"]
    yield (
        f"{'before temperature':20}calibration error {before['ece']:.4f}, "
        f"Brier score {before['brier']:.4f}"
    )
    for specificity, value in summary["melanoma_sensitivity"].items():
        yield f"melanoma sensitivity at {specificity} specificity  {_number(value)}"
    if "referred" in summary:
        rest = summary["answered"]
        yield (
            f"{summary['referred']:,} images referred, of melanoma "
            f"{summary['referred_melanoma']:,} of {summary['images_of']['MEL']:,}; "
            f"accuracy of the rest {_number(rest.get('accuracy'))}, "
            f"balanced {_number(rest.get('balanced_accuracy'))}"
        )


def _category_lines(summary):
    """A table of the categories."""
    yield f"{'category':10}images  recall  {'95 % interval':17}precision  AUC     AP"
    for name in DIAGNOSES:
        interval = _interval(summary["confidence"]["recall"][name])
        cells = [_number(summary[key][name]) for key in ("precision", "auc", "average_precision")]
        yield (
            f"{name:10}{summary['images_of'][name]:6,}  {_number(summary['recall'][name])}  "
            f"{interval:17}{cells[0]:11}{cells[1]:8}{cells[2]}"
        )


def _subgroup_line(name, part):
    if not part["images"]:
        return f"{name:22}     0"
    interval = part.get("confidence", {}).get("balanced_accuracy")
    return (
        f"{name:22}{part['images']:6,}  {_number(part['balanced_accuracy'])}  "
        f"{_interval(interval):18}  {_number(part['melanoma_auc'])}"
    )


def _number(value):
    return "–     " if value is None else f"{value:.4f}"


def _interval(interval):
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
