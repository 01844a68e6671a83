"""Pixels of any number of bits as those of eight, which networks learn from."""

import logging

import numpy as np

logger = logging.getLogger(__name__)

# The largest numbers of 12 bits and of eight.
_TWELVE_BITS = 4095
_EIGHT_BITS = 255
_said_dark = False  # whether this process has warned of 16 bits that hold fewer


class ImageError(ValueError):
    """An image that cannot be read or used; the message names it and says why."""


def require_finite(values: np.ndarray) -> None:
    """Raises `ImageError` where an image holds NaN or infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("the image holds values that are not finite numbers (NaN or infinity).")


def as_uint8(values: np.ndarray, name: str = "An image") -> np.ndarray:
    """Values as uint8, each type by its own range; uint8 comes back as it is.

    Args:
        values: of bool, uint8, uint16 (its 65,535 becomes 255), another integer type with values
            0 to 255, or float, with values 0 to 1 or 0 to 255; not empty.
        name: what a warning calls them. It is given once in a process, of 16 bits of which so few
            are used that the image becomes almost black.

    Raises:
        ImageError: for any other type or range.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        _warn_if_dark(values, name)
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind not in "iuf":
        raise ImageError(f"an image cannot be made of values of type {values.dtype}.")
    require_finite(values)
    low, high = values.min(), values.max()
    # Interpolation leaves floats a hair outside their range.
    slack = 1e-3 if values.dtype.kind == "f" else 0
    scale = 255 if values.dtype.kind == "f" and high <= 1 + slack else 1
    if low < -slack or high * scale > 255 * (1 + slack):
        raise ImageError(
            f"the image holds {values.dtype} values from {low} to {high}; "
            "expected 0 to 255, or 0 to 1 for floats. Give an image as it was before a mean was "
            "subtracted from it or it was normalised."
        )
    return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)


def _warn_if_dark(values, name):
    global _said_dark
    if _said_dark or not 0 < (high := int(values.max())) <= _TWELVE_BITS:
        return
    _said_dark = True
    full = _EIGHT_BITS if high <= _EIGHT_BITS else _TWELVE_BITS
    logger.warning(
        "%s has 16 bits and no value above %d. White is 65535, so that it becomes almost black. If "
        "its white is %d, give it as uint8: (image.astype(int) * 255 // %d).astype(np.uint8). "
        "Others may be alike; this is said once.",
        *(name, high, full, full),
    )


def may_be_labels(values: np.ndarray) -> bool:
    """Whether a mask's values look like numbers of regions: 1, 2 and so on, or flat areas.

    Those of specks that vanish as a mask is reduced, which leaves it empty, do not.
    """
    numbers = np.unique(values[values > 0])
    even = (values[:, 1:] == values[:, :-1])[values[:, 1:] > 0]
    counted = len(numbers) > 1 and numbers[0] == 1 and numbers[-1] == len(numbers)
    return bool(counted or np.count_nonzero(even) > len(even) / 2)
