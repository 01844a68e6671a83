"""Functions of TensorFlow as a SavedModel with its description, written whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from mrcnn.files import atomic_path

EXTRA = "assets.extra"
WARMUP = "tf_serving_warmup_requests"
DESCRIPTION = "model.json"
_PARTS = {"saved_model.pb", "fingerprint.pb", "variables", "assets", EXTRA}


class Signature(NamedTuple):
    """A signature: `function` of tensors of `specs`, which gives outputs by name.

    `example` has values of the inputs by name, with which a server warms up.
    """

    function: Callable[..., dict[str, tf.Tensor]]
    specs: Sequence[tf.TensorSpec]
    example: Mapping[str, Any]


def write_signatures(
    path: str | os.PathLike, signatures: Mapping[str, Signature], metadata: Mapping
) -> None:
    """Writes a SavedModel, completely or not at all.

    Beside it, in `assets.extra`, lie its description `model.json` and a request for each signature,
    which TensorFlow Serving runs before it takes others.

    Args:
        path: the folder to write, or a link to it, which stays. A SavedModel that is there by
            itself is replaced.
        signatures: by name.
        metadata: of the model, for `model.json`.

    Raises:
        ValueError: if the backend is not TensorFlow.
        FileExistsError: if there is anything else at `path`.
        OSError: if it cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"A SavedModel is TensorFlow's; the backend is {keras.backend.backend()}. Start again "
            "with KERAS_BACKEND=tensorflow: weights files are the same for all backends."
        )
    require_replaceable(path)
    path = Path(os.path.realpath(path))
    traced = {
        name: tf.function(function, specs, autograph=False).get_concrete_function()
        for name, (function, specs, _) in signatures.items()
    }
    with _aside(path) as former, atomic_path(path) as temporary:
        extra = temporary / EXTRA
        try:
            tf.saved_model.save(tf.Module(), str(temporary), traced)
            extra.mkdir()
            _write_warmup(extra / WARMUP, signatures)
        except tf.errors.OpError as error:  # TensorFlow's, of a full disk for example
            raise OSError(f"{path}: {error.message}") from error
        text = json.dumps(metadata, indent=2, allow_nan=False, ensure_ascii=False)
        (extra / DESCRIPTION).write_text(text, encoding="utf-8")
        if path.exists():  # a folder takes the name of an empty one only
            path.rename(former)


def require_replaceable(path: str | os.PathLike) -> None:
    """FileExistsError if there is anything at `path` but an empty folder or a SavedModel alone."""
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file; give the path of a new folder.")
    there = {entry.name for entry in path.iterdir()}
    if others := sorted(there - (_PARTS if "saved_model.pb" in there else set())):
        raise FileExistsError(
            f"{path} holds something else than a SavedModel and is not replaced: {others[0]}. Give "
            "the path of a new folder."
        )


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Where a former model is moved to make room; it goes back if the block fails, else away."""
    former = path.with_name(f".{uuid.uuid4().hex}.former")
    try:
        yield former
    except BaseException:
        if former.exists() and not path.exists():
            former.rename(path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _write_warmup(path: Path, signatures: Mapping[str, Signature]) -> None:
    """A record of one request for each signature, as TensorFlow Serving looks for it.

    https://www.tensorflow.org/tfx/serving/saved_model_warmup
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, signature in signatures.items():
            writer.write(_prediction_log(name, signature.example))


def _prediction_log(signature: str, inputs: Mapping[str, Any]) -> bytes:
    """A serialised `tensorflow.serving.PredictionLog`, whose classes are in no core package."""
    request = _field(1, _field(3, signature.encode()))  # model_spec
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))  # predict_log, its request


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    rest, last = divmod(value, 128)
    return bytes([last]) if not rest else bytes([last | 128]) + _varint(rest)
