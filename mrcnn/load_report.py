"""What became of the tensors of a weights file, and what its user is told of it."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

_OF_THE_MAP = ("mrcnn_semantic", "mrcnn_presence")
_BEYOND_THE_BACKBONE = re.compile("mrcnn_|rpn_|fpn_")
_SHOWN = 6  # layers that a message names


@dataclass
class LoadReport:
    """What became of every tensor; each list holds names "layer/weight".

    Attributes:
        source: the file.
        loaded: taken over.
        missing: in the network and not in the file: left as they were.
        mismatched: of layers that have another shape in the file: left as they were.
        excluded: left as they were on request.
        zeroed: biases set to zero, because the file has the layer's kernel and no bias.
        adapted: kernels for three input channels, made to fit the channels of the image here.
        unused: in the file and not in the network.
    """

    source: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    zeroed: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def missing_layers(self) -> list[str]:
        """Layers that keep at least one tensor they had before, usually a random one."""
        return _layers([*self.missing, *self.mismatched, *self.excluded])

    @property
    def dropped_layers(self) -> list[str]:
        """Layers that the file has and that were not taken over whole."""
        return _layers([*self.mismatched, *self.excluded])

    @property
    def unused_layers(self) -> list[str]:
        """Layers of the file with a kernel that the network has no place for."""
        return _layers(name for name in self.unused if name.endswith("kernel"))

    @property
    def is_of_backbone(self) -> bool:
        """Whether what was taken over is of a backbone alone, as from a file of ImageNet's."""
        return not any(_BEYOND_THE_BACKBONE.match(name) for name in self.loaded)

    def summary(self) -> str:
        """One sentence with the counts, and one that names the layers not loaded."""
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("missing", "mismatched", "excluded", "zeroed", "adapted", "unused"):
            if count := len(getattr(self, name)):
                parts.append(f"{count} {name}")
        text = f"{self.source}: {', '.join(parts)}."
        if self.missing_layers:
            text += f" Layers not loaded: {', '.join(self.missing_layers)}."
        return text


def warn_of_gaps(
    report: LoadReport,
    training: bool,
    exclude: Iterable[str] = (),
    differences: Sequence[str] = (),
) -> None:
    """Tells of what makes a network that has loaded a file another one than the file's.

    In silence go what was left out on request and, in training, what a backbone's file lacks.

    Args:
        report: of the loading.
        training: whether the network is to learn, or to detect.
        exclude: names of layers that were asked to be left out.
        differences: as of `Config.differences`.
    """
    unused = [name for name in report.unused_layers if name not in set(exclude)]
    if unused and not report.is_of_backbone:
        of_the_map = all(name.startswith(_OF_THE_MAP) for name in unused)
        logger.warning(
            "%s has %d layers that this network lacks: %s. It is of another network, for example "
            "of another %s; %s.",
            *(report.source, len(unused), _named(unused)),
            "SEMANTIC_BRANCH" if of_the_map else "BACKBONE",
            "the training begins without them" if training else "detections suffer",
        )
    if not training and report.missing_layers:
        logger.warning(
            "These layers are not in %s and stay random; detections mean nothing: %s.",
            *(report.source, _named(report.missing_layers)),
        )
    missing = _layers(report.missing)
    if training and missing and not report.is_of_backbone:
        logger.warning(
            "%d layers are not in %s and stay as they are, random in a new network: %s.",
            *(len(missing), report.source, _named(missing)),
        )
    if differences:
        logger.warning(
            "%s was trained with %s; %s.",
            *(report.source, ", ".join(differences)),
            "the training goes on with the latter" if training else "detections suffer",
        )


def _layers(names):
    return list(dict.fromkeys(name.rpartition("/")[0] for name in names))


def _named(layers):
    more = len(layers) - _SHOWN
    return ", ".join(layers[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
