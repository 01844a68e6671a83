"""Where the time of a training step goes: each part of the network, by kinds of operation.

TensorFlow's profiler records every operation. Two run at a time where they do not need each other,
so that the sum may exceed the step.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timing import milliseconds, parser
from train_step import training_step

# isort: split
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

# The first that is found in an operation's name tells its part; gradients bear their layer's name.
PARTS = {
    "optimizer": r"^(sgd|adamw)",
    "backbone": r"/(conv1|bn_conv1|res\d|bn\d|max_pooling|block|stem)",
    "pyramid": r"/fpn_",
    "proposal network": r"rpn_(model|conv|class|bbox)",
    "proposals and targets": r"/(ROI|proposal_targets|positive_rois)",
    "class and box head": r"mrcnn_(box|class|bbox)",
    "mask head": r"mrcnn_mask",
}
KINDS = {
    "weights' gradient": r"BackpropFilter",
    "inputs' gradient": r"BackpropInput",
    "products' gradient": r"gradient.*MatMul",
    "forward": r"Conv2D|MatMul",
    "other": r"",
}


def recorded_operations(step: Callable[[], Any], count: int) -> dict[str, float]:
    """Milliseconds of each operation in a step, by "name:kind"; the mean of `count` steps."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(count):
                step()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    spent: defaultdict[str, float] = defaultdict(float)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if re.fullmatch(r"[\w/.-]+:_?[A-Z]\w*", name):
                    spent[name] += event.duration_ps / 1e9 / count
    return spent


def first_match(patterns: Mapping[str, str], text: str) -> str:
    return next((name for name, pattern in patterns.items() if re.search(pattern, text)), "other")


def main() -> None:
    arguments = parser(__doc__, size=512).parse_args()
    step = training_step(arguments)
    (whole,) = milliseconds(step, repeats=arguments.repeats)
    table: defaultdict[tuple[str, str], float] = defaultdict(float)
    for operation, spent in recorded_operations(step, arguments.repeats).items():
        table[first_match(PARTS, operation), first_match(KINDS, operation)] += spent
    size = arguments.size
    print(
        f"training step, {arguments.backbone}, {size}x{size}, {arguments.precision}: {whole:.0f} ms"
    )
    print(f"{'':22}" + "".join(f"{kind:>19}" for kind in KINDS) + f"{'all':>9}")
    for part in [*PARTS, "other"]:
        row = [table[part, kind] for kind in KINDS]
        print(f"{part:22}" + "".join(f"{spent:19.0f}" for spent in row) + f"{sum(row):9.0f}")
    columns = [sum(table[part, kind] for part in [*PARTS, "other"]) for kind in KINDS]
    print(f"{'all':22}" + "".join(f"{spent:19.0f}" for spent in columns) + f"{sum(columns):9.0f}")


if __name__ == "__main__":
    main()
