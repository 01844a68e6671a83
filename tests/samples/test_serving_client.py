"""What the client of TensorFlow Serving makes of answers; asking takes a server."""

import contextlib

import numpy as np
import pytest

from lesion.samples import ATTRIBUTES, DIAGNOSES
from mrcnn.images import read_mask


@pytest.fixture(scope="module")
def client(load_sample):
    return load_sample("serving_client.py")


def named(names):
    return np.array([[name.encode() for name in names]], object)


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (
            {"class_names": named(DIAGNOSES), "probabilities": np.full((1, 7), 1 / 7)},
            [f"{name} 0.143" for name in DIAGNOSES],
        ),
        (
            {"class_names": named(ATTRIBUTES), "presence": np.full((1, 5), 0.25)},
            [f"{name} present 0.250" for name in ATTRIBUTES],
        ),
        (
            {
                "class_names": named(["lesion", ""]),
                "scores": np.array([[0.9, 0.0]]),
                "boxes": np.array([[[1, 2, 3, 4], [0, 0, 0, 0]]]),
                "num_detections": np.array([1]),
            },
            ["lesion 0.900 box [1, 2, 3, 4]"],
        ),
        (
            {  # of a network with a semantic branch
                "class_names": named(["cell", ""]),
                "scores": np.array([[0.9, 0.0]]),
                "boxes": np.array([[[1, 2, 3, 4], [0, 0, 0, 0]]]),
                "num_detections": np.array([1]),
                "presence": np.full((1, 3), 0.5),
            },
            ["cell 0.900 box [1, 2, 3, 4]"],
        ),
    ],
    ids=["diagnosis", "attributes", "boundary", "semantic"],
)
def test_lines(client, found, lines):
    assert client.describe(found, 0) == lines


@pytest.mark.parametrize(("counts", "files"), [({"num_detections": np.array([1])}, 1), ({}, 2)])
def test_masks_are_cut_to_their_image(client, tmp_path, counts, files):
    masks = np.zeros((1, 2, 6, 8), np.uint8)
    masks[0, 0, 1:3, 2:5] = 1
    client.write_masks(
        {"image_size": np.array([[4, 7]]), "masks": masks, **counts}, 0, tmp_path, "a"
    )
    assert len(list(tmp_path.iterdir())) == files
    np.testing.assert_array_equal(read_mask(tmp_path / "a_0.png"), masks[0, 0, :4, :7] > 0)


class Server:
    """Stands in for gRPC and a server that sees a lesion in every image."""

    RpcError = RuntimeError

    @contextlib.contextmanager
    def insecure_channel(self, server, options):
        self.server = server
        yield self

    def ask(self, channel, request):
        masks = np.ones((1, 1, 4, 6), np.uint8)
        return {
            "class_names": named(["lesion"]),
            "scores": np.array([[0.9]]),
            "boxes": np.array([[[0, 0, 4, 6]]]),
            "num_detections": np.array([1]),
            "masks": masks,
            "image_size": np.array([[4, 6]]),
            "notice": np.array([b"Research use only"], object),
        }


@pytest.fixture
def server(client, monkeypatch):
    stands_in = Server()
    monkeypatch.setattr(client, "missing", None)
    monkeypatch.setattr(client, "grpc", stands_in, raising=False)
    monkeypatch.setattr(client, "build_request", lambda model, contents: contents)
    monkeypatch.setattr(client, "ask", stands_in.ask)
    return stands_in


def test_command(client, server, tmp_path, capsys):
    images = [tmp_path / folder / "a.jpg" for folder in "xy"]
    for path in images:
        path.parent.mkdir()
        path.write_bytes(b"jpeg")
    command = [*map(str, images), str(tmp_path / "gone.jpg"), f"--out={tmp_path / 'out'}"]
    assert client.main([*command, "--server=there:1"]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("lesion 0.900 box [0, 0, 4, 6]\n  Research use only\n") == 2
    assert printed.err == f"{tmp_path / 'gone.jpg'}: No such file or directory\n"
    assert server.server == "there:1"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_0.png", "a_2_0.png"]
    assert client.main(command[:2]) == 0


def test_without_the_extra(client, monkeypatch, capsys):
    monkeypatch.setattr(client, "missing", "No module named 'grpc'")
    assert client.main(["a.jpg"]) == 2
    assert "pip install" in capsys.readouterr().err
