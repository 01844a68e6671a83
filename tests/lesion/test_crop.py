import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion import train
from lesion.boundary import BoundaryConfig
from lesion.cache import ImageCache
from lesion.crop import MARGIN, crop_to_lesion, find_crops, lesion_square
from lesion.diagnosis import load_classifier
from lesion.diagnosis_network import prepare_square
from lesion.train import main
from mrcnn.images import read_image, write_image
from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError, load_arrays, read_metadata, save_arrays, save_weights


def lesion(height, width, top, bottom, left, right):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


class TestSquare:
    def test_is_around_the_lesion(self):
        top, left, side = lesion_square(lesion(200, 300, 80, 120, 100, 180))
        assert side == round(MARGIN * 80)
        assert (top + side / 2, left + side / 2) == (100, 140)

    def test_without_a_lesion_is_the_middle(self):
        assert lesion_square(np.zeros((40, 60), bool)) == (0, 10, 40)
        assert lesion_square(np.zeros((60, 40), bool)) == (10, 0, 40)

    def test_is_cut_out(self):
        mask = lesion(200, 300, 80, 120, 100, 180)
        top, left, side = lesion_square(mask)
        rows, columns = np.mgrid[:200, :300]
        cut = crop_to_lesion(np.stack([rows, columns], axis=2), mask)
        assert cut.shape == (side, side, 2)
        assert cut[0, 0].tolist() == [top, left]

    def test_speck_is_not_blown_up(self):
        assert lesion_square(lesion(200, 300, 100, 101, 150, 151))[2] == 70

    def test_lesion_wider_than_the_image_is_high(self):
        assert lesion_square(lesion(40, 100, 0, 40, 0, 100)) == (0, 30, 40)

    @given(st.integers(5, 60), st.integers(5, 60), st.data())
    def test_is_inside_the_image_and_holds_the_lesion_if_it_can(self, height, width, data):
        top, bottom = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2)))
        left, right = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2)))
        mask = lesion(height, width, top, bottom, left, right)
        y, x, side = lesion_square(mask)
        assert 0 <= y <= y + side <= height and 0 <= x <= x + side <= width
        if mask.any() and max(bottom - top, right - left) <= side:
            assert mask[y : y + side, x : x + side].sum() == mask.sum()


class TestFind:
    @pytest.fixture
    def images(self, tmp_path, lesion_image):
        paths = [tmp_path / f"{number}.png" for number in range(3)]
        for number, path in enumerate(paths):
            write_image(path, lesion_image(centre=(24, 20 + 10 * number))[0])
        return paths

    def test_squares_are_those_of_the_masks(self, images, darkness, tmp_path, lesion_image):
        found = find_crops(darkness, images, ImageCache(tmp_path / "c", 64), tmp_path / "r.json")
        for number, path in enumerate(images):
            mask = lesion_image(centre=(24, 20 + 10 * number))[1]
            assert tuple(found[str(path)]) == lesion_square(mask)

    def test_are_found_once(self, images, darkness, tmp_path):
        cache, record = ImageCache(tmp_path / "c", 64), tmp_path / "r.json"
        first = find_crops(darkness, images[:2], cache, record)
        again = find_crops(darkness, images, cache, record)
        assert darkness.batches == [2, 1]
        assert {path: tuple(again[path]) for path in first} == first

    def test_what_was_found_before_an_interruption_is_kept(
        self, images, darkness, tmp_path, monkeypatch
    ):
        cache, record = ImageCache(tmp_path / "c", 64), tmp_path / "r.json"
        monkeypatch.setattr("lesion.crop._BATCH", 1)
        predict = darkness.predict

        def interrupted(found):
            if len(darkness.batches) == 2:
                raise KeyboardInterrupt
            return predict(found)

        darkness.predict = interrupted
        with pytest.raises(KeyboardInterrupt):
            find_crops(darkness, images, cache, record)
        darkness.predict = predict
        assert len(find_crops(darkness, images, cache, record)) == 3
        assert darkness.batches == [1, 1, 1]

    def test_full_disk_only_costs_time(self, images, darkness, tmp_path, monkeypatch, caplog):
        def full(path, content, indent):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("lesion.records.write_json", full)
        cache = ImageCache(tmp_path / "c", 64)
        assert len(find_crops(darkness, images, cache, tmp_path / "r.json")) == 3
        assert "cannot be written" in caplog.text and not (tmp_path / "r.json").exists()

    def test_changed_image_is_looked_at_again(self, images, darkness, tmp_path, lesion_image):
        cache, record = ImageCache(tmp_path / "c", 64), tmp_path / "r.json"
        find_crops(darkness, images, cache, record)
        image, mask = lesion_image(centre=(24, 44))
        write_image(images[0], image)
        os.utime(images[0], ns=(0, 1))
        found = find_crops(darkness, images, cache, record)
        assert darkness.batches == [3, 1]
        assert found[str(images[0])] == lesion_square(mask)

    @pytest.mark.parametrize("content", ["{", "{}"])
    def test_record_that_is_none_is_made_anew(self, images, darkness, tmp_path, content):
        (tmp_path / "r.json").write_text(content)
        find_crops(darkness, images, ImageCache(tmp_path / "c", 64), tmp_path / "r.json")
        assert len(json.loads((tmp_path / "r.json").read_text())["stamped"]) == 3

    @pytest.mark.parametrize("change", ["other", 65])
    def test_record_of_other_weights_or_sizes_is_made_anew(
        self, images, darkness, tmp_path, change
    ):
        record, cache = tmp_path / "r.json", ImageCache(tmp_path / "c", 64)
        expected = find_crops(darkness, images, cache, record)
        content = json.loads(record.read_text())
        content["source"][change == 65] = change
        content["stamped"] = {
            path: [stamp, [1, 1, 1]] for path, (stamp, _) in content["stamped"].items()
        }
        record.write_text(json.dumps(content))
        assert find_crops(darkness, images, cache, record) == expected
        assert darkness.batches == [3, 3]


@pytest.fixture(scope="module")
def boundary_weights(small_network, tmp_path_factory):
    """Weights of an untrained boundary network."""
    keras.utils.set_random_seed(0)
    config = BoundaryConfig(IMAGE_MAX_DIM=64, IMAGE_MIN_DIM=64)
    model = MaskRCNN("inference", config, tmp_path_factory.mktemp("logs"))
    path = tmp_path_factory.mktemp("weights") / "boundary.h5"
    save_weights(model.keras_model, path, {**model.metadata(), "task": "boundary"})
    return path


class TestClassifier:
    def test_file_crops_by_itself(self, eagerly, moles, small_backbone, boundary_weights, tmp_path):
        settings = ["--image-size=32", "--epochs=1", "--steps=2", "--batch=4", "--weights=none"]
        command = [f"--dataset={moles.data}", f"--split={moles.split}", f"--logs={tmp_path}"]
        crop = f"--crop-weights={boundary_weights}"
        assert main(["--task=diagnosis", *command, *settings, crop]) == 0
        (weights,) = tmp_path.glob("diagnosis*/diagnosis_0001.h5")
        assert (tmp_path / "cache" / "lesions.json").exists()
        predictor = load_classifier(weights)
        image = read_image(next(moles.data.glob("*/*.png")))
        (found,) = predictor.boundary.predict([image])
        expected = prepare_square(crop_to_lesion(image, found.mask), 32)
        (logits,) = predictor.logits_of_views([image])[0]
        np.testing.assert_allclose(
            logits,
            predictor.network.predict_on_batch(expected[np.newaxis])[0],
            rtol=1e-4,
            atol=1e-6,
        )

        arrays, metadata = load_arrays(weights)
        for name, value in load_arrays(boundary_weights)[0].items():
            np.testing.assert_array_equal(arrays[f"boundary/{name}"], value)
        del metadata["boundary"]
        save_arrays(tmp_path / "half.h5", arrays, metadata)
        with pytest.raises(WeightsError, match="lacks the boundary network"):
            load_classifier(tmp_path / "half.h5")

    def test_boundary_weights_that_were_replaced_are_refused(
        self, eagerly, moles, small_backbone, boundary_weights, tmp_path, capsys, monkeypatch
    ):
        boundary = Path(shutil.copyfile(boundary_weights, tmp_path / "boundary.h5"))
        settings = ["--image-size=32", "--epochs=1", "--steps=2", "--batch=4"]
        command = ["--task=diagnosis", f"--dataset={moles.data}", f"--split={moles.split}"]
        command += [f"--logs={tmp_path}", *settings, f"--crop-weights={boundary}"]

        def replace():
            arrays, metadata = load_arrays(boundary)
            name = min(arrays)
            save_arrays(boundary, {**arrays, name: arrays[name] + 1}, metadata)

        with monkeypatch.context() as patch:  # while it trains
            fit = train._fit
            patch.setattr(train, "_fit", lambda *each: (fit(*each), replace()))
            assert main([*command, "--weights=none"]) == 2
        assert main([*command, "--weights=last"]) == 2
        said = capsys.readouterr().err
        assert said.count("boundary.h5 is another file than the one by which this run has cro") == 2
        (weights,) = tmp_path.glob("diagnosis*/diagnosis_0001.h5")
        assert "boundary" not in read_metadata(weights)
        shutil.copyfile(boundary_weights, boundary)
        assert main([*command, "--weights=last"]) == 0
        inner = load_arrays(weights)[0]
        for name, value in load_arrays(boundary_weights)[0].items():
            np.testing.assert_array_equal(inner[f"boundary/{name}"], value)

    def test_missing_boundary_weights_are_refused(self, moles, tmp_path, capsys):
        command = [f"--dataset={moles.data}", f"--logs={tmp_path}", "--crop-weights=gone.h5"]
        assert main(["--task=diagnosis", *command]) == 2
        assert "gone.h5" in capsys.readouterr().err
