"""Tables of a network's weights and of anything else: HTML in Jupyter, text elsewhere."""

from __future__ import annotations

import html
import itertools
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mrcnn.printing import log
from mrcnn.weights import named_weights

if TYPE_CHECKING:
    from mrcnn.model import MaskRCNN


def display_table(table: Iterable[Iterable[Any]]) -> None:
    """Shows rows of values as a table: in Jupyter as HTML, and printed elsewhere."""
    rows = [[str(value) for value in row] for row in table]
    if _in_jupyter():
        from IPython.display import HTML, display

        lines = ("".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows)
        display(HTML(f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"))
        return
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        log(line.rstrip())


def display_weight_stats(model: MaskRCNN) -> None:
    """Shows shape, extremes and spread of each weight of a `MaskRCNN`.

    Marked are weights that are all the same, but for biases and the statistics of batch
    normalization, which begin so and may stay so ("dead?"), beyond 1,000 ("overflow?"), or not
    finite.
    """
    table = [["WEIGHT NAME", "SHAPE", "MIN", "MAX", "STD"]]
    for name, weight in named_weights(model.keras_model).items():
        values = weight.variable.numpy().astype(np.float64)
        low, high = values.min(), values.max()
        alert = ""
        if not np.isfinite([low, high]).all():
            alert = " *** not finite"
        elif low == high and not name.endswith(("/bias", "/moving_mean", "/moving_variance")):
            alert = " *** dead?"
        elif max(-low, high) > 1000:
            alert = " *** overflow?"
        with np.errstate(invalid="ignore"):
            spread = values.std()
        table.append(
            [name + alert, values.shape, f"{low:+9.4f}", f"{high:+10.4f}", f"{spread:+9.4f}"]
        )
    display_table(table)


def _in_jupyter() -> bool:
    """Whether this runs in a Jupyter kernel, which has imported IPython before."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
