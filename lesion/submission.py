"""Predicted masks in files, named as the ISIC 2018 challenge wants them submitted."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lesion import NOTICE
from lesion.samples import Problem, Sample
from mrcnn.images import write_image


def refuse_masks_in(folder: str | Path | None, samples: Sequence[Sample]) -> None:
    """Raises ValueError if a folder of predictions is one of the data sets' images or masks.

    Args:
        folder: of the predictions; None: there are none.
        samples: of the data sets.
    """
    if folder is None:
        return
    own = (path for s in samples for path in (s.image, s.mask, *s.attributes.values()) if path)
    if Path(folder).resolve() in {path.parent.resolve() for path in own}:
        raise ValueError(
            f"{folder} holds images or masks of a data set, which predictions would replace or "
            "be taken for; give another folder with --predictions."
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
