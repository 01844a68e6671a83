"""What matterport's modules imported for themselves, and scripts then took from them.

`from mrcnn.model import *` gave a script `os`, `tf` and `KL`, too. Each is imported when it is
asked for, so that nobody waits for TensorFlow or matplotlib who does not use it.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

# Where a name is found: a module, or a module and what is in it. Other names are modules' own.
_PLACES = {
    "K": "keras.backend",
    "KE": "keras.layers",  # of which a layer of one's own is derived: KE.Layer
    "KL": "keras.layers",
    "KM": "keras.models",
    "Polygon": "matplotlib.patches:Polygon",
    "find_contours": "skimage.measure:find_contours",
    "lines": "matplotlib.lines",
    "np": "numpy",
    "patches": "matplotlib.patches",
    "plt": "matplotlib.pyplot",
    "tf": "tensorflow",
    "utils": "mrcnn.utils",
}
# Modules inside, which scripts use through the outer one.
_INNER = {"urllib": ("urllib.request",), "skimage": ("skimage.color", "skimage.io")}

_STANDARD = "os random"
MODULES = {
    name: tuple(
        each
        for each in (_STANDARD + " " + names).split()
        if each != "tf" or importlib.util.find_spec("tensorflow")  # or `import *` would fail
    )
    for name, names in {
        "model": "math re datetime logging multiprocessing np tf keras K KL KE KM utils",
        "utils": "sys math logging np scipy skimage shutil warnings urllib tf",
        "visualize": "sys itertools colorsys np plt patches lines Polygon find_contours utils",
    }.items()
}
"""Names by the module of `mrcnn` that has them beside its own."""


def finder(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module, which finds its `MODULES`.

    Args:
        module: its `__name__`.
    """
    names = MODULES[module.rpartition(".")[2]]

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        for inner in _INNER.get(name, ()):
            importlib.import_module(inner)
        place, _, attribute = _PLACES.get(name, name).partition(":")
        found = importlib.import_module(place)
        return getattr(found, attribute) if attribute else found

    return find
