"""The sample that people copy for objects of their own, on discs for balloons."""

import functools
import http.server
import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from skimage import draw

from mrcnn.config import Config
from mrcnn.images import read_image, write_image
from mrcnn.masks import CompactMasks
from mrcnn.model import MaskRCNN

SCRIPT = Path(__file__).resolve().parents[2] / "samples" / "balloon" / "balloon.py"
SIZE = (64, 96)
DISCS = [(30, 40, 15), (20, 75, 12)]  # (y, x, radius)


@pytest.fixture(scope="module")
def tiny(load_sample):
    """Settings of a small network, of which something is always found."""
    return load_sample("coco/coco.py").SMALL | {
        "POST_NMS_ROIS_INFERENCE": 20,
        "DETECTION_MAX_INSTANCES": 5,
        # After one step the network is sure of nothing, not even that a region is no background.
        "DETECTION_MIN_CONFIDENCE": 0,
        "DETECTION_ALL_CLASSES": True,
    }


@pytest.fixture(scope="module")
def sample(load_sample):
    return load_sample("balloon/balloon.py")


def disc(y, x, radius):
    mask = np.zeros(SIZE, bool)
    mask[draw.disk((y, x), radius, shape=SIZE)] = True
    return mask


def photograph():
    """Two red discs on blue."""
    image = np.full((*SIZE, 3), (40, 90, 160), np.uint8)
    for place in DISCS:
        image[disc(*place)] = (220, 40, 30)
    return image


def annotated(names, version, **attributes):
    """What VIA writes of photographs: exports of 1.x and 2.x, or a project of 2.x."""
    content = {}
    for name in names:
        regions = [
            {
                "shape_attributes": {"name": "circle", "cx": x, "cy": y, "r": radius},
                "region_attributes": attributes,
            }
            for y, x, radius in DISCS
        ]
        if version == "1":
            regions = {str(number): region for number, region in enumerate(regions)}
        content[f"{name}123"] = {"filename": name, "size": 123, "regions": regions}
    return {"_via_img_metadata": content} if version == "project" else content


def write_data(root, version="1", images=2, **attributes):
    for part in ("train", "val"):
        names = [f"{part}{number}.png" for number in range(images)]
        for name in names:
            write_image(root / part / name, photograph())
        content = annotated(names, version, **attributes)
        (root / part / "via_region_data.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def photo(tmp_path):
    write_image(tmp_path / "photo.png", photograph())
    return tmp_path / "photo.png"


@pytest.fixture
def finds(sample, monkeypatch):
    """Makes the sample's network find masks of its images; None of them to begin with."""
    made = SimpleNamespace(masks=[], images=[])

    class Network:
        def __init__(self, mode, config, model_dir):
            made.mode, made.config, made.logs = mode, config, model_dir

        def load_weights(self, weights, **settings):
            made.weights, made.loading = weights, settings

        def train(self, *data, **settings):
            made.parts, made.training = [part.num_images for part in data], settings

        def find_last(self):
            return "mask_rcnn_balloon_0030.h5"

        def detect(self, images, compact):
            made.images += images
            boxes = np.zeros((len(made.masks), 4), np.int32)
            parts = []
            for number, mask in enumerate(made.masks):
                rows, columns = np.nonzero(mask)
                y1, x1, y2, x2 = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
                boxes[number] = y1, x1, y2, x2
                parts.append(mask[y1:y2, x1:x2])
            found = {
                "rois": boxes,
                "class_ids": np.ones(len(boxes), np.int32),
                "scores": np.full(len(boxes), 0.95, np.float32),
                "masks": CompactMasks(parts, boxes, images[0].shape[:2]),
            }
            return [found]

    monkeypatch.setattr(sample, "MaskRCNN", Network)
    return made


def refused(sample, *words):
    """The sentence in which the sample says why it does not do it."""
    with pytest.raises(SystemExit) as stopped:
        sample.main(list(map(str, words)))
    assert str(stopped.value.code).startswith("balloon.py: ")
    return stopped.value.code


def test_as_typed(as_typed, tiny, tmp_path, monkeypatch):
    """With settings of a small network, and one epoch."""
    make, train = Config.__init__, MaskRCNN.train
    once = {"epochs": 1}
    monkeypatch.setattr(Config, "__init__", lambda self, **words: make(self, **tiny, **words))
    monkeypatch.setattr(MaskRCNN, "train", lambda *data, **words: train(*data, **words | once))
    run = functools.partial(as_typed, SCRIPT)
    write_data(tmp_path / "party")
    printed = run("train", "--dataset=party", "--weights=imagenet")
    assert "train: 2 images, 4 instances" in printed
    (weights,) = tmp_path.glob("logs/balloon*/mask_rcnn_balloon_0001.h5")
    assert str(weights.relative_to(tmp_path)) in printed

    photos = tmp_path / "party" / "val"
    printed = run("detect", "--weights=last", f"--image={photos}")
    assert "val0.png: " in printed and "see results/detect_val1.png" in printed
    content = json.loads((tmp_path / "results" / "detect_val0.json").read_text())
    assert (content["height"], content["width"]) == SIZE
    assert content["instances"][0]["class"] == "balloon"

    words = f"--weights={weights}", "--image", photos / "val0.png", "--out=shown"
    run("splash", *words)
    assert read_image(tmp_path / "shown" / "splash_val0.png").shape == (*SIZE, 3)


class TestData:
    @pytest.mark.parametrize("version", ["1", "2", "project"])
    def test_versions_of_via(self, sample, tmp_path, version):
        dataset = sample.BalloonDataset()
        dataset.load_balloon(write_data(tmp_path, version), "val")
        assert dataset.class_names == ["BG", "balloon"] and dataset.num_images == 2
        masks, class_ids = dataset.load_mask(0)
        np.testing.assert_array_equal(masks[:, :, 0], disc(*DISCS[0]))
        assert class_ids.tolist() == [1, 1]
        assert dataset.image_reference(1) == str(tmp_path / "val" / "val1.png")

    def test_several_classes(self, sample, tmp_path, monkeypatch):
        monkeypatch.setattr(sample, "CLASS_NAMES", ["red", "blue"])
        write_data(tmp_path, "2", colour="blue")
        with pytest.raises(ValueError, match="red, blue: give class_attribute.*'colour'"):
            sample.BalloonDataset().load_balloon(tmp_path, "train")
        monkeypatch.setattr(sample, "CLASS_ATTRIBUTE", "colour")
        dataset = sample.BalloonDataset()
        dataset.load_balloon(tmp_path, "train")
        assert dataset.load_mask(0)[1].tolist() == [2, 2]

    def test_part_that_is_none(self, sample, tmp_path):
        with pytest.raises(ValueError, match="'train' or 'val'; received 'test'"):
            sample.BalloonDataset().load_balloon(tmp_path, "test")

    def test_no_annotations(self, sample, tmp_path):
        said = refused(sample, "train", f"--dataset={tmp_path}", "--weights=coco")
        assert f"There is no {tmp_path / 'train' / 'via_region_data.json'}" in said
        assert not list(tmp_path.iterdir())

    def test_image_that_is_missing(self, sample, tmp_path):
        (write_data(tmp_path) / "train" / "train1.png").unlink()
        said = refused(sample, "train", f"--dataset={tmp_path}", "--weights=coco")
        assert "via_region_data.json names the image" in said and "train1.png" in said

    @pytest.mark.parametrize("part", ["train", "val"])
    def test_nothing_is_drawn(self, sample, tmp_path, capsys, part):
        (write_data(tmp_path) / part / "via_region_data.json").write_text("{}")
        said = refused(sample, "train", f"--dataset={tmp_path}", "--weights=coco")
        assert f"{part} cannot be used" in said and "holds no image" in capsys.readouterr().out


def test_training_is_matterports(sample, finds, tmp_path, capsys):
    write_data(tmp_path, images=3)
    sample.main(["train", f"--dataset={tmp_path}", "--weights=mask_rcnn_coco.h5", "--logs=runs"])
    assert (finds.mode, finds.logs, finds.weights) == ("training", "runs", "mask_rcnn_coco.h5")
    assert finds.loading == {"skip_mismatch": True}  # the file's classes are others
    assert finds.parts == [3, 3]
    del finds.training["augmentation"]
    assert finds.training == {"learning_rate": 0.001, "epochs": 30, "layers": "heads"}
    assert (finds.config.STEPS_PER_EPOCH, finds.config.BATCH_SIZE) == (100, 2)
    assert "The weights are mask_rcnn_balloon_0030.h5" in capsys.readouterr().out


class TestSplash:
    def test_colours_are_left_where_the_masks_are(self, sample):
        image, masks = photograph(), np.stack([disc(*place) for place in DISCS], axis=2)
        shown, inside = sample.color_splash(image, masks), masks.any(axis=2)
        np.testing.assert_array_equal(shown[inside], image[inside])
        # Of (40, 90, 160): 0.2125 * 40 + 0.7154 * 90 + 0.0721 * 160 = 84.4.
        assert np.all(shown[~inside] == 84)

    def test_of_an_image(self, sample, finds, photo, tmp_path, capsys):
        finds.masks = [disc(*place) for place in DISCS]
        words = "--weights=last", f"--image={photo}", f"--out={tmp_path / 'out'}", "--logs=runs"
        sample.main(["splash", *words])
        assert (finds.mode, finds.logs, finds.weights) == ("inference", "runs", "last")
        shown = read_image(tmp_path / "out" / "splash_photo.png")
        assert shown[30, 40].tolist() == [220, 40, 30] and shown[0, 0].tolist() == [84, 84, 84]
        assert f"{photo}: 2 found; see {tmp_path}" in capsys.readouterr().out

    def test_without_a_balloon_all_is_grey(self, sample, finds, photo, tmp_path, capsys):
        sample.main(["splash", "--weights=last", f"--image={photo}", f"--out={tmp_path}"])
        shown = read_image(tmp_path / "splash_photo.png")
        assert np.all(shown == shown[..., :1])
        assert "none found" in capsys.readouterr().out

    def test_images_of_one_name(self, sample, finds, photo, tmp_path):
        write_image(tmp_path / "photo.jpg", photograph())
        write_image(tmp_path / "other.png", photograph())
        out = tmp_path / "out"
        sample.main(["splash", "--weights=last", f"--image={tmp_path}", f"--out={out}"])
        names = {"splash_other.png", "splash_photo.jpg.png", "splash_photo.png.png"}
        assert {path.name for path in out.iterdir()} == names

    def test_address(self, sample, finds, photo, tmp_path):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=tmp_path)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever).start()
        try:
            url, out = f"http://127.0.0.1:{server.server_port}", tmp_path / "out"
            (tmp_path / "page.html").write_text("<html>")
            words = "splash", "--weights=last", f"--out={out}"
            sample.main([*words, f"--image={url}/photo.png?width=96"])
            assert f"from {url}/gone.png: HTTP Error 404" in refused(
                sample, *words, f"--image={url}/gone.png"
            )
            assert f"from {url}/page.html" in refused(sample, *words, f"--image={url}/page.html")
        finally:
            server.shutdown()
            server.server_close()
        np.testing.assert_array_equal(finds.images, [photograph()])
        assert [path.name for path in out.iterdir()] == ["splash_photo.png"]


class TestVideo:
    @pytest.fixture
    def video(self, tmp_path):
        cv2 = pytest.importorskip("cv2")
        path = tmp_path / "party.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, SIZE[::-1])
        for _ in range(3):
            writer.write(photograph()[..., ::-1])
        writer.release()
        return path

    def test_every_frame(self, sample, finds, video, tmp_path, capsys):
        import cv2

        finds.masks = [disc(*DISCS[0])]
        out = tmp_path / "out"
        sample.main(["splash", "--weights=last", f"--video={video}", f"--out={out}"])
        assert [path.name for path in out.iterdir()] == ["splash_party.avi"]
        assert f"See {out / 'splash_party.avi'}" in capsys.readouterr().out
        shown = cv2.VideoCapture(str(out / "splash_party.avi"))
        assert shown.get(cv2.CAP_PROP_FPS) == 5 and shown.get(cv2.CAP_PROP_FRAME_COUNT) == 3
        frame = shown.read()[1].astype(int)[..., ::-1]
        # JPEG is not exact.
        assert np.abs(frame[30, 40] - (220, 40, 30)).max() < 12
        assert np.ptp(frame[20, 75]) < 12
        assert np.abs(finds.images[0][30, 40].astype(int) - (220, 40, 30)).max() < 12

    def test_stopped_in_the_middle(self, sample, finds, video, tmp_path, monkeypatch):
        def stopped(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(sample, "color_splash", stopped)
        with pytest.raises(KeyboardInterrupt):
            sample.main(["splash", "--weights=last", f"--video={video}", f"--out={tmp_path}"])
        assert list(tmp_path.iterdir()) == [video]

    def test_what_is_no_video(self, sample, finds, photo):
        photo.write_text("no video")
        assert f"no frame of --video={photo}" in refused(
            sample, "splash", "--weights=last", f"--video={photo}"
        )

    def test_without_opencv(self, sample, finds, monkeypatch):
        monkeypatch.setitem(sys.modules, "cv2", None)
        said = refused(sample, "splash", "--weights=last", "--video=party.mp4")
        assert "--video needs OpenCV" in said and "pip install opencv-python" in said


class TestDetect:
    def test_picture_and_json(self, sample, finds, photo, tmp_path):
        mask = np.zeros(SIZE, bool)
        mask[10:20, 30:50] = True
        finds.masks = [mask]
        sample.main(["detect", "--weights=last", f"--image={photo}", f"--out={tmp_path}"])
        picture = read_image(tmp_path / "detect_photo.png")
        assert picture.shape[1] > picture.shape[0] > SIZE[0]
        content = json.loads((tmp_path / "detect_photo.json").read_text())
        (instance,) = content.pop("instances")
        assert content == {"height": 64, "width": 96}
        (outline,) = instance.pop("outlines")
        assert instance == {
            "class": "balloon",
            "score": 0.95,
            "box": {"y1": 10, "x1": 30, "y2": 20, "x2": 50},
            "area": 200,
        }
        # Between the centres of the outermost pixels and of their neighbours, corners cut off.
        np.testing.assert_allclose(np.min(outline, axis=0), [29.5, 9.5], atol=0.5)
        np.testing.assert_allclose(np.max(outline, axis=0), [49.5, 19.5], atol=0.5)

    def test_nothing_is_found(self, sample, finds, photo, tmp_path):
        sample.main(["detect", "--weights=last", f"--image={photo}", f"--out={tmp_path}"])
        content = json.loads((tmp_path / "detect_photo.json").read_text())
        assert content == {"height": 64, "width": 96, "instances": []}
        assert (tmp_path / "detect_photo.png").exists()


class TestProblems:
    def test_weights_that_know_no_balloons(self, sample, photo):
        said = refused(sample, "splash", "--weights=coco", f"--image={photo}")
        assert "--weights=coco knows nothing of balloon" in said and "--weights=last" in said

    def test_missing_image(self, sample):
        said = refused(sample, "detect", "--weights=last", "--image=gone.png")
        assert said == "balloon.py: There is no file or folder --image=gone.png."

    def test_missing_weights(self, sample, tiny, photo, tmp_path, monkeypatch):
        for name, value in tiny.items():
            monkeypatch.setattr(sample.BalloonConfig, name, value)
        words = "splash", f"--image={photo}", f"--logs={tmp_path / 'logs'}", f"--out={tmp_path}"
        assert "no weights file at gone.h5" in refused(sample, *words, "--weights=gone.h5")
        assert "Train first" in refused(sample, *words, "--weights=last")
        assert list(tmp_path.iterdir()) == [photo]

    @pytest.mark.parametrize(
        "words", [["splash"], ["detect", "--video=a.mp4"], ["splash", "--image=a", "--video=b"]]
    )
    def test_commands_that_are_none(self, sample, words, capsys):
        with pytest.raises(SystemExit):
            sample.main([*words, "--weights=last"])
        assert "--image" in capsys.readouterr().err
