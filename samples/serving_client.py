"""Asks TensorFlow Serving about images, by gRPC; the model is one that this project exported.

    pip install "tensorflow-serving-api>=2.20"
    python samples/serving_client.py --model boundary --out masks/ image.jpg ...

See docs/serving.md for the server.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

try:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
except ImportError as error:
    missing = error
else:
    missing = None

MAX_MESSAGE = 256 * 2**20  # a full-size mask takes a byte per pixel


def build_request(
    model: str, contents: Sequence[bytes], outputs: Iterable[str] = ()
) -> "predict_pb2.PredictRequest":
    """A request about encoded images; all outputs unless some are named."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_default"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(contents, dtype=tf.string))
    request.output_filter.extend(outputs)
    return request


def ask(
    channel: "grpc.Channel", request: "predict_pb2.PredictRequest", timeout: float = 60
) -> dict[str, np.ndarray]:
    """The answer as arrays [batch, ...] by name."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(request, timeout)
    return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}


def describe(found: Mapping[str, np.ndarray], row: int) -> list[str]:
    """What was found in one image of a batch, a line for each thing."""
    if "probabilities" in found:
        pairs = zip(found["class_names"][row], found["probabilities"][row], strict=True)
        return [f"{name.decode()} {probability:.3f}" for name, probability in pairs]
    if "num_detections" not in found and "presence" in found:
        pairs = zip(found["class_names"][row], found["presence"][row], strict=True)
        return [f"{name.decode()} present {probability:.3f}" for name, probability in pairs]
    return [
        f"{found['class_names'][row, n].decode()} {found['scores'][row, n]:.3f} "
        f"box {found['boxes'][row, n].tolist()}"
        for n in range(found["num_detections"][row])
    ]


def _count(found, row):
    return found["num_detections"][row] if "num_detections" in found else found["masks"].shape[1]


def write_masks(found: Mapping[str, np.ndarray], row: int, folder: Path, stem: str) -> None:
    """The mask of each detection, or of each attribute, as a PNG of the image's size."""
    height, width = found["image_size"][row]
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(_count(found, row)):
        # Masks are as large as the largest image of the request.
        mask = found["masks"][row, n, :height, :width] * np.uint8(255)
        text = PngInfo()
        if "notice" in found:  # of lesion's models: what may be done with it
            text.add_text("Description", found["notice"][0].decode())
        Image.fromarray(mask).save(folder / f"{stem}_{n}.png", pnginfo=text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Asks TensorFlow Serving about images.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--server", default="localhost:8500", help="host:port of its gRPC")
    parser.add_argument("--model", default="boundary", help="name the server knows it by")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for masks")
    arguments = parser.parse_args(argv)
    if missing:
        print(f'{missing}: pip install "tensorflow-serving-api>=2.20"', file=sys.stderr)
        return 2
    options = [("grpc.max_receive_message_length", MAX_MESSAGE)]
    written, failed = set(), False
    with grpc.insecure_channel(arguments.server, options) as channel:
        for path in arguments.images:
            try:
                found = ask(channel, build_request(arguments.model, [path.read_bytes()]))
            except (OSError, grpc.RpcError) as error:
                said = error.details() if isinstance(error, grpc.RpcError) else error.strerror
                print(f"{path}: {said}", file=sys.stderr)
                failed = True
                continue
            print(path, *describe(found, 0), sep="\n  ")
            if "notice" in found:
                print(f"  {found['notice'][0].decode()}")
            if arguments.out and "masks" in found:
                number, stem = 1, path.stem  # of images of one name, in several folders
                while stem in written:
                    number += 1
                    stem = f"{path.stem}_{number}"
                written.add(stem)
                write_masks(found, 0, arguments.out, stem)
    return int(failed)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # the notice has a dash, which not every terminal has
    sys.exit(main())
