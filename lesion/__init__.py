"""Dermoscopic image analysis on top of `mrcnn`: the three tasks of ISIC 2018, for research."""

import os
from typing import TYPE_CHECKING

from mrcnn import __version__

# TensorFlow's warnings to those who build graphs would bury what a command says.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

NOTICE = "Research use only – not a medical device – not for diagnosis."

__all__ = ["NOTICE", "Analyzer", "__version__"]

if TYPE_CHECKING:  # only who asks for it waits for the libraries behind it
    from lesion.analyzer import Analyzer


def __getattr__(name: str) -> type:
    if name == "Analyzer":
        from lesion.analyzer import Analyzer

        return Analyzer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
