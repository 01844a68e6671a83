"""Predicted masks in files, named as the ISIC 2018 challenge wants them submitted."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lesion import NOTICE
from lesion.samples import Problem, Sample
from mrcnn.images import write_image


def refuse_masks_in(folder: str | Path | None, samples: Sequence[Sample]) -> None:
    """Raises ValueError if predictions in a folder would replace the samples' own masks."""
    if folder is None:
        return
    truths = (path for s in samples for path in (s.mask, *s.attributes.values()) if path)
    if Path(folder).resolve() in {path.parent.resolve() for path in truths}:
        raise ValueError(
            f"{folder} holds the masks of the data set, which predictions have the names of and "
            "would replace; give another folder with --predictions."
        )


def write_masks(folder: str | Path, name: str, masks: Mapping[str, np.ndarray]) -> list[Problem]:
    """Writes one image's masks, bool [height, width] by what they are of, such as "segmentation".

    Args:
        folder: of all files; it is made where it is missing.
        name: of the image (`lesion.samples.distinct_names`).
        masks: that of `segmentation` goes to the file `NAME_segmentation.png`, and so on.

    Returns:
        The files that could not be written, as on a full disk: scores are not lost with them.
    """
    problems = []
    for kind, mask in masks.items():
        file = Path(folder) / f"{name.replace('/', '_')}_{kind}.png"
        try:
            write_image(file, mask, NOTICE)
        except OSError as failure:
            problems.append(Problem(file, str(failure)))
    return problems
