import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mrcnn.download import DownloadError
from mrcnn.images import write_image

SCRIPT = Path(__file__).resolve().parents[2] / "samples" / "coco" / "coco.py"
SIZE = (64, 96)


@pytest.fixture(scope="module")
def sample(load_sample):
    return load_sample("coco/coco.py")


def write_part(root, name, images, count):
    """Writes images of bright squares and their annotations, as COCO's folders have them."""
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "square"}, {"id": 8, "name": "oblong"}],
    }
    for number in range(1, count + 1):
        x, y = 8 * number, 4 * number
        width = 24 if number % 2 else 40
        picture = np.full((*SIZE, 3), 60, np.uint8)
        picture[y : y + 24, x : x + width] = 200
        write_image(root / images / f"{number:012d}.jpg", picture)
        content["images"].append(
            {"id": number, "file_name": f"{number:012d}.jpg", "height": SIZE[0], "width": SIZE[1]}
        )
        content["annotations"].append(
            {
                "id": number,
                "image_id": number,
                "category_id": 3 if number % 2 else 8,
                "segmentation": [[x, y, x + width, y, x + width, y + 24, x, y + 24]],
                "bbox": [x, y, width, 24],
                "area": width * 24,
                "iscrowd": 0,
            }
        )
    path = root / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A COCO of 2017 with four images to train on and two to evaluate, and parts of 2014."""
    root = tmp_path_factory.mktemp("coco")
    write_part(root, "train2017", "train2017", 4)
    write_part(root, "val2017", "val2017", 2)
    write_part(root, "minival2014", "val2014", 2)
    write_part(root, "valminusminival2014", "val2014", 3)
    write_part(root, "train2014", "train2014", 1)
    return root


def test_scripts_may_ask_for_the_annotations(sample, folder):
    """By the arguments of matterport's sample."""
    dataset = sample.CocoDataset()
    found = dataset.load_coco(folder, "val", "2017", class_map=None, return_coco=True)
    assert sorted(found.getImgIds()) == [1, 2] and dataset.num_images == 2
    assert sample.CocoDataset().load_coco(folder, "val", "2017") is None


@pytest.mark.parametrize("subset, year", [("val", "2017"), ("minival", "2014")])
def test_year_that_a_part_is_of(sample, folder, subset, year):
    dataset = sample.CocoDataset()
    dataset.load_coco(folder, subset)
    assert f"val{year}" in dataset.image_reference(0)


def test_train_and_evaluate_as_typed(as_typed, folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MRCNN_SAMPLE_SMALL", "1")
    caplog.set_level("INFO")
    options = ("--dataset", folder, "--year=2017")
    as_typed(SCRIPT, "train", *options, "--model=none")
    (weights,) = (tmp_path / "logs").glob("coco*/mask_rcnn_coco_0001.h5")
    assert "Epochs 1 to 1" in caplog.text

    printed = as_typed(SCRIPT, "evaluate", *options, "--model=last", "--limit=1")
    assert "bbox of 1 images" in printed
    assert "segm of 1 images" in printed
    assert "AP by class: square 0." in printed
    assert "seconds per image" in printed


class Recorder:
    """Stands for `MaskRCNN` and keeps what it is asked."""

    made = None

    def __init__(self, mode, config, model_dir):
        Recorder.made = self
        self.mode, self.config, self.model_dir = mode, config, model_dir
        self.stages, self.epoch = [], 0

    def train(self, training, validation, learning_rate, epochs, layers, augmentation):
        self.stages.append((layers, epochs, learning_rate))
        self.epoch = epochs
        self.training, self.validation = training, validation


class TestSchedule:
    @pytest.fixture
    def trained(self, sample, folder, monkeypatch):
        monkeypatch.delenv("MRCNN_SAMPLE_SMALL", raising=False)
        monkeypatch.setattr("mrcnn.model.MaskRCNN", Recorder)

        def trained(*words):
            assert sample.main(["train", f"--dataset={folder}", "--model=none", *words]) == 0
            return Recorder.made

        return trained

    def test_stages_are_matterports(self, trained):
        model = trained("--year=2017", "--logs=runs")
        rate = model.config.LEARNING_RATE
        assert model.stages == [
            ("heads", 40, rate),
            ("4+", 120, rate),
            ("all", 160, pytest.approx(rate / 10)),
        ]
        assert (model.mode, model.model_dir) == ("training", "runs")
        assert model.config.NUM_CLASSES == 3

    def test_parts_of_2017(self, trained):
        model = trained()
        assert (model.training.num_images, model.validation.num_images) == (4, 2)

    def test_parts_of_2014(self, trained):
        model = trained("--year=2014")
        assert (model.training.num_images, model.validation.num_images) == (1 + 3, 2)
        assert "val2014" in model.training.image_reference(3)


class TestProblems:
    def test_no_data_set(self, sample, tmp_path, capsys):
        assert sample.main(["evaluate", f"--dataset={tmp_path}", "--model=none"]) == 2
        error = capsys.readouterr().err
        assert "instances_val2017.json" in error
        assert "--download=True" in error and "--year" in error

    @pytest.mark.parametrize("words", [["--limit=-1"], ["--download=maybe"], ["--year=2015"]])
    def test_unusable_options(self, sample, words, capsys):
        with pytest.raises(SystemExit):
            sample.main(["evaluate", "--dataset=x", "--model=coco", *words])
        assert words[0].partition("=")[0] in capsys.readouterr().err

    def test_without_internet(self, sample, tmp_path, capsys, monkeypatch):
        def download(url, path):
            raise DownloadError(f"{path.name} could not be fetched from {url}")

        monkeypatch.setattr(sample, "download", download)
        words = [f"--dataset={tmp_path}", "--year=2017", "--model=coco", "--download"]
        assert sample.main(["train", *words]) == 2
        error = capsys.readouterr().err
        assert "annotations_trainval2017.zip could not be fetched from http://images.coco" in error


class TestDownload:
    def test_what_is_missing_is_fetched_and_unpacked(self, sample, folder, tmp_path, monkeypatch):
        fetched = []

        def download(url, path):
            """Packs what COCO's server would send."""
            fetched.append(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            inner = "val2014" if "zips/" in url else "annotations"
            with zipfile.ZipFile(path, "w") as archive:
                for file in (folder / inner).iterdir():
                    # The file of minival lies in its archive alone, without the folder.
                    name = file.name if "minival" in url else f"{inner}/{file.name}"
                    archive.write(file, name)
            return path

        monkeypatch.setattr(sample, "download", download)
        dataset = sample.CocoDataset()
        dataset.load_coco(tmp_path, "minival", "2014", auto_download=True)
        assert dataset.num_images == 2
        assert [url.rpartition("/")[2] for url in fetched] == [
            "instances_minival2014.json.zip?dl=0",
            "val2014.zip",
        ]
        assert not list(tmp_path.rglob("*.zip"))
        sample.CocoDataset().load_coco(tmp_path, "minival", "2014", auto_download=True)
        assert len(fetched) == 2

    def test_what_is_no_archive_is_removed(self, sample, tmp_path, monkeypatch):
        def download(url, path):
            path.write_text("<html>")
            return path

        monkeypatch.setattr(sample, "download", download)
        with pytest.raises(ValueError, match="http://a/b.zip gave is no archive"):
            sample.unpack("http://a/b.zip", tmp_path)
        assert not list(tmp_path.iterdir())

    def test_stopped_unpacking_leaves_nothing_that_looks_whole(self, sample, tmp_path, monkeypatch):
        def download(url, path):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("val2014/a.jpg", b"a")
            return path

        def stopped(archive, folder):
            (Path(folder) / "val2014").mkdir()
            raise KeyboardInterrupt

        monkeypatch.setattr(sample, "download", download)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(zipfile.ZipFile, "extractall", stopped)
            sample.unpack("http://a/b.zip", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]
        sample.unpack("http://a/b.zip", tmp_path)
        assert [path.name for path in tmp_path.rglob("*.jpg")] == ["a.jpg"]
