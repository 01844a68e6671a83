"""What the scoring of boundary and attributes shares: masks predicted, written and compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lesion.grouping import unit_of
from lesion.reading import predict_images
from lesion.samples import TRUTHS, Problem, Sample, distinct_names
from lesion.submission import write_masks
from mrcnn.images import ImageError

Predict = Callable[[list[np.ndarray]], Sequence[Any]]


@dataclass
class MaskEvaluation:
    """Scores of a task that predicts masks.

    Attributes:
        samples: the samples that were scored.
        scores: of each of them, as the task defines it.
        problems: files that could not be scored.
        unscored: samples without a truth, whose predictions are written nevertheless.
        unwritten: masks that could not be written.
    """

    samples: list[Sample] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unscored: list[Sample] = field(default_factory=list)
    unwritten: list[Problem] = field(default_factory=list)

    def remarks(self) -> dict[str, Any]:
        """What a summary says besides scores, as plain values for JSON."""
        return {
            "grouped_by": unit_of(self.samples),
            "unscored": len(self.unscored),
            "failed": len(self.problems),
            "problems": [problem.to_dict() for problem in self.problems],
        }


def predict_samples(
    evaluation: MaskEvaluation,
    task: str,
    predict: Predict,
    samples: Sequence[Sample],
    batch: int,
    predictions: str | Path | None,
    masks_of: Callable[[Any], Mapping[str, np.ndarray]],
) -> Iterator[tuple[Sample, np.ndarray, Any]]:
    """Predicts samples and writes their masks.

    Args:
        evaluation: takes what is not to be scored: `problems`, `unscored` and `unwritten`.
        task: whose truth there is to compare with.
        predict: as for `lesion.reading.predict_images`.
        samples: to predict; without a truth only if predictions are written.
        batch: images predicted at once.
        predictions: folder for the masks (`lesion.submission`); None writes none.
        masks_of: what of a prediction is written, as `lesion.submission.write_masks` takes it.

    Yields:
        Each that there is a truth for, its image, uint8 [height, width, 3], and the prediction.
    """
    wanted = [sample for sample in samples if sample.truth(task) or predictions is not None]
    if predictions is None:
        evaluation.problems += [
            Problem(sample.image, f"image without {TRUTHS[task]}")
            for sample in samples
            if not sample.truth(task)
        ]
    names = distinct_names(wanted)
    results = predict_images(predict, [sample.image for sample in wanted], batch)
    progress = tqdm(results, "Evaluating", len(wanted), unit="image", disable=None)
    for sample, name, predicted in zip(wanted, names, progress, strict=True):
        if isinstance(predicted, Problem):
            evaluation.problems.append(predicted)
            continue
        image, found = predicted
        if predictions is not None:
            evaluation.unwritten += write_masks(predictions, name, masks_of(found))
        if sample.truth(task):
            yield sample, image, found
        else:
            evaluation.unscored.append(sample)


def predict_again(
    predict: Predict, samples: Sequence[Sample], batch: int
) -> Iterator[tuple[Sample, np.ndarray, Any]]:
    """Predicts a few samples once more for a figure, so that no image was kept until then.

    Yields:
        As `predict_samples`.

    Raises:
        ImageError: if the image of one cannot be read any longer.
    """
    results = predict_images(predict, [sample.image for sample in samples], batch)
    for sample, predicted in zip(samples, results, strict=True):
        if isinstance(predicted, Problem):
            raise ImageError(f"{sample.image} has gone meanwhile: {predicted.reason}")
        yield sample, predicted.image, predicted.found
