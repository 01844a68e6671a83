"""Loading and saving a network's weights by the names of layer and weight.

Keras's own by-name loading skips silently whatever does not match. Here every tensor is accounted
for in a report, all is checked before anything changes, and what cannot be right is an error.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from mrcnn.arrays import (
    StoredArray,
    WeightsError,
    load_arrays,
    open_file,
    read_metadata,
    save_arrays,
    stored_arrays,
)
from mrcnn.load_report import LoadReport

__all__ = [
    "CLASS_LAYERS",
    "LoadReport",
    "WeightsError",
    "assign_weights",
    "load_arrays",
    "load_weights",
    "named_weights",
    "read_arrays",
    "read_metadata",
    "save_arrays",
    "save_weights",
]

logger = logging.getLogger(__name__)

# Layers whose shapes depend on the number of classes: what a new task leaves out of a file.
CLASS_LAYERS = (
    "mrcnn_class_logits",
    "mrcnn_bbox_fc",
    "mrcnn_bbox",
    "mrcnn_mask",
    "mrcnn_semantic",
    "mrcnn_presence",
)


@dataclass(frozen=True)
class NamedWeight:
    """A variable of a network with its layer's name and its number within that layer."""

    layer: str
    index: int
    variable: keras.Variable


def named_weights(model: keras.Model) -> dict[str, NamedWeight]:
    """All weights of a network by "layer/weight", however its layers are nested.

    A model inside the model lends no name; a wrapper such as TimeDistributed names what it wraps;
    the layers of any other composite layer are named "outer/inner".

    Raises:
        WeightsError: if two weights share a name, or the network has none.
    """
    result = {}
    seen = set()

    def visit(layer, name, inner_prefix):
        children = list(layer._flatten_layers(include_self=False, recursive=False))
        of_children = {id(weight) for child in children for weight in child.weights}
        own = [weight for weight in layer.weights if id(weight) not in of_children]
        for index, variable in enumerate(own):
            if id(variable) in seen:  # a layer used in two places
                continue
            seen.add(id(variable))
            key = f"{name}/{variable.name}"
            if key in result:
                raise WeightsError(
                    f"Two weights of the network {model.name} are named {key}. Give its layers "
                    "names of their own, so that weights can be told apart."
                )
            result[key] = NamedWeight(name, index, variable)
        for child in children:
            if isinstance(layer, keras.layers.Wrapper) and not isinstance(child, keras.Model):
                visit(child, name, f"{name}/")
            elif isinstance(layer, keras.Model) or isinstance(child, keras.Model):
                visit(child, f"{inner_prefix}{child.name}", inner_prefix)
            else:
                visit(child, f"{name}/{child.name}", f"{name}/")

    visit(model, model.name, "")
    if not result:
        raise WeightsError(f"The network {model.name} has no weights yet: build it first.")
    return result


def load_weights(
    model: keras.Model,
    path: str | os.PathLike,
    exclude: Iterable[str] | str | None = (),
    by_name: bool = True,
    skip_mismatch: bool = False,
) -> LoadReport:
    """Loads a weights file into a built network.

    Read are files of this project, of Keras 2 (matterport's among them; also whole models) and
    the `.weights.h5` of Keras 3. A bias absent beside its kernel counts as zero, as in files from
    networks without biases. Everything is checked first: on an error nothing has changed.

    Args:
        model: with its weights created.
        path: of the file.
        exclude: exact names of layers to leave alone.
        by_name: False demands a value for every tensor that is not excluded.
        skip_mismatch: leave layers alone whose shapes differ, instead of an error.

    Raises:
        WeightsError: if the file is unreadable, has nothing for this network, other shapes or
            values that are not finite.
        FileNotFoundError: if there is no file.
    """
    with open_file(path) as file:
        return assign_weights(
            model, stored_arrays(file), str(path), exclude, by_name, skip_mismatch
        )


def _warn_of_unknown(names, model):
    """Tells of names to be excluded that no layer has; those of `CLASS_LAYERS` are often given."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    known = {*CLASS_LAYERS, *(each.name for each in layers)}
    known |= {weight.layer for weight in named_weights(model).values()}
    if unknown := sorted(set(names) - known):
        logger.warning(
            "exclude names %s, and no layer of %s is called so.", ", ".join(unknown), model.name
        )


def _inner_layers(names, model):
    """As files name them, the layers of those named that are models, such as `rpn_model`."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    named = [each for each in layers if isinstance(each, keras.Model) and each.name in names]
    return {weight.layer for each in named for weight in named_weights(each).values()}


def assign_weights(
    model: keras.Model,
    arrays: Iterable[StoredArray] | Mapping[str, np.ndarray],
    source: str,
    exclude: Iterable[str] | str | None = (),
    by_name: bool = True,
    skip_mismatch: bool = False,
) -> LoadReport:
    """As `load_weights`, from arrays by name; `source` names them in messages."""
    excluded = {exclude} if isinstance(exclude, str) else set(exclude or ())
    _warn_of_unknown(excluded, model)
    excluded |= _inner_layers(excluded, model)
    entries = _entries(arrays)
    targets = named_weights(model)
    report = LoadReport(source)
    found, shapes = _matched(targets, entries, excluded, model, report)
    if shapes and not skip_mismatch:
        raise WeightsError(_mismatch_message(source, shapes, targets))
    # A layer is loaded whole or not at all.
    left_out = {targets[name].layer for name in shapes}
    report.mismatched = [
        name
        for name in targets
        if name in shapes or (name in found and targets[name].layer in left_out)
    ]
    found = {name: entry for name, entry in found.items() if targets[name].layer not in left_out}
    report.zeroed = [
        name
        for name in report.missing
        if name.endswith("/bias") and name.removesuffix("bias") + "kernel" in found
    ]
    report.missing = [name for name in report.missing if name not in report.zeroed]
    if not found:
        raise WeightsError(_nothing_message(source, entries, targets))
    if report.missing and not by_name:
        raise WeightsError(
            f"{source} has no values for {', '.join(report.missing)}. Load it by name to leave "
            "these as they are."
        )
    values = {name: _finite(entry.read(), name, source) for name, entry in found.items()}
    for name in report.zeroed:
        values[name] = np.zeros(targets[name].variable.shape, np.float32)
    for name, value in values.items():
        variable = targets[name].variable
        if value.shape != tuple(variable.shape):
            report.adapted.append(name)
            value = _for_channels(value, variable.shape[2])
        variable.assign(value)
    report.loaded = [name for name in found if name not in report.adapted]
    return report


def _matched(targets, entries, excluded, model, report):
    """The entries that fit a target, by its name, and of others the shapes: in the file, here.

    What is excluded, missing or unused goes to the report.
    """
    index = _index(entries)
    found, shapes, used = {}, {}, set()
    for name, weight in targets.items():
        position = index.get(name, index.get(f"{weight.layer}/#{weight.index}"))
        if position is not None:
            used.add(position)
        if weight.layer in excluded or weight.layer.split("/")[0] in excluded:
            report.excluded.append(name)
        elif position is None:
            report.missing.append(name)
        elif not _fits(entries[position].shape, tuple(weight.variable.shape), model):
            shapes[name] = (entries[position].shape, tuple(weight.variable.shape))
        else:
            found[name] = entries[position]
    used |= {n for n, e in enumerate(entries) if index.get(e.names[0]) in used}  # listed twice
    report.unused = [e.names[0] for number, e in enumerate(entries) if number not in used]
    return found, shapes


def save_weights(
    model: keras.Model,
    path: str | os.PathLike,
    metadata: Mapping | None = None,
    dtype: str = "float32",
) -> None:
    """Writes all weights of a network with a description of it, completely or not at all.

    Args:
        model: with its weights created.
        path: of the file, usually ending in `.h5`.
        metadata: what is needed to use them: config, class names, preprocessing, version.
        dtype: "float32", or "float16" for half the size: kernels are rounded to 11 bits; vectors
            (biases, statistics) and kernels beyond float16's range stay float32.

    Raises:
        WeightsError: for an ambiguous network or metadata that is not JSON.
    """
    if dtype not in ("float32", "float16"):
        raise WeightsError(f'dtype must be "float32" or "float16", not {dtype!r}.')
    arrays = {}
    for name, weight in named_weights(model).items():
        array = weight.variable.numpy()
        if array.dtype.kind not in "iub":
            array = array.astype(np.float32)
            if dtype == "float16" and array.ndim > 1:
                if np.abs(array).max(initial=0) <= np.finfo(np.float16).max:
                    array = array.astype(np.float16)
        arrays[name] = array
    save_arrays(path, arrays, metadata)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All tensors of a weights file by their preferred name, whatever its layout.

    Raises:
        WeightsError: if the file is unreadable.
        FileNotFoundError: if there is none.
    """
    with open_file(path) as file:
        return {stored.names[0]: stored.read() for stored in stored_arrays(file)}


@dataclass(frozen=True)
class _Given:
    """An array in memory, with the manners of a StoredArray."""

    names: tuple[str, ...]
    value: np.ndarray

    @property
    def shape(self):
        return self.value.shape

    def read(self):
        return self.value


def _entries(arrays):
    if isinstance(arrays, Mapping):
        return [_Given((name,), np.asarray(value)) for name, value in arrays.items()]
    return list(arrays)


def _index(entries) -> dict[str, int]:
    """Position of the entry each name means; a name claimed twice means none.

    Unless both are one: whole models of Keras's legacy format list a layer that is used inside two
    others once for each.
    """
    preferred: dict[str, int | None] = {}
    second: dict[str, int | None] = {}
    for position, entry in enumerate(entries):
        for level, name in [(preferred, entry.names[0]), *((second, n) for n in entry.names[1:])]:
            first = level.setdefault(name, position)
            if first is not None and first != position and not _alike(entries[first], entry):
                level[name] = None
    return {name: pos for name, pos in {**second, **preferred}.items() if pos is not None}


def _alike(one, other):
    return one.shape == other.shape and np.array_equal(one.read(), other.read())


def _fits(stored, own, model):
    """Whether shapes agree, or differ in that the kernel reads RGB instead of the image here."""
    if len(stored) == len(own) == 4 and getattr(model, "inputs", None):
        if (stored[2], own[2]) == (3, model.inputs[0].shape[-1]):
            return (*stored[:2], stored[3]) == (*own[:2], own[3])
    return stored == own


def _for_channels(kernel, channels):
    """A kernel [h, w, 3, n] for images of other channels.

    Of one channel: the sum, whose response to grey is that to the same grey in RGB. Of more: the
    three in turn, scaled so that the size of the response stays.
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * (3.0 / channels)


def _finite(value, name, source):
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise WeightsError(
            f"{name} in {source} holds values that are not finite: training had diverged when it "
            "was saved. Use an earlier checkpoint."
        )
    return value


def _mismatch_message(source, shapes, targets):
    lines = [f"{name}: {found} in the file, {own} here" for name, (found, own) in shapes.items()]
    layers = list(dict.fromkeys(targets[name].layer for name in shapes))
    reason = "Its network has another number of classes."
    if not set(layers) <= set(CLASS_LAYERS):
        reason = "Its network was built with other settings, such as a backbone or a width."
    return (
        f"{source} does not fit this network; {len(shapes)} tensors have other shapes: "
        f"{'; '.join(lines)}. {reason} Take the same, or leave these layers out: exclude={layers}."
    )


def _nothing_message(source, entries, targets):
    here = ", ".join(list(targets)[:3])
    there = ", ".join(entry.names[0] for entry in entries[:3]) or "no arrays at all"
    return (
        f"Nothing in {source} can be loaded into this network. The file has {there}, ...; the "
        f"network expects {here}, .... It was saved from another kind of network."
    )
