"""Dermoscopic image analysis for melanoma detection on top of `mrcnn` (ISIC 2018 tasks)."""

from mrcnn import __version__

NOTICE = "Research use only – not a medical device – not for diagnosis."

__all__ = ["NOTICE", "__version__"]
