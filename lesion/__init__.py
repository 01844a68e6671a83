"""Dermoscopic image analysis on top of `mrcnn`: the three tasks of ISIC 2018, for research."""

from mrcnn import __version__

NOTICE = "Research use only – not a medical device – not for diagnosis."

__all__ = ["NOTICE", "Analyzer", "__version__"]


def __getattr__(name: str) -> type:
    # Only who asks for it waits for the libraries behind it.
    if name == "Analyzer":
        from lesion.analyzer import Analyzer

        return Analyzer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
