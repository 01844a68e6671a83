"""The one place where `mrcnn` prints: what matterport's functions show who calls them.

These are `log`, `Config.display`, `display_table`, `detect(verbose=1)` and `compute_ap_range`; all
else is logged.
"""

import numpy as np
from numpy.typing import ArrayLike


def log(text: str, array: ArrayLike | None = None) -> None:
    """Prints a text and, where an array is given, its shape, range and type."""
    if array is not None:
        array = np.asarray(array)
        span = f"{array.min():.5g} to {array.max():.5g}" if array.size else "empty"
        text = f"{text:25} shape: {array.shape!s:22} range: {span:25} {array.dtype}"
    print(text)  # noqa: T201
