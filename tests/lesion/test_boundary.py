import numpy as np
import pytest

from lesion.boundary import BoundaryConfig, BoundaryPredictor, load_predictor
from mrcnn.files import sha256_of
from mrcnn.model import MaskRCNN
from mrcnn.weights import WeightsError, load_arrays, read_metadata, save_arrays, save_weights


class Detector:
    """Stands in for `MaskRCNN`: gives the results it was made with."""

    def __init__(self, *results):
        self.results = list(results)
        self.config = BoundaryConfig()

    def detect(self, images, mask_threshold=0.5):
        return [self.results[index] for index in range(len(images))]


def result(masks, scores, rois=None):
    masks = np.asarray(masks)
    count = masks.shape[-1]
    return {
        "masks": masks,
        "scores": np.asarray(scores, np.float32),
        "rois": np.zeros((count, 4), np.int32) if rois is None else np.asarray(rois, np.int32),
        "class_ids": np.ones(count, np.int32),
    }


@pytest.fixture
def predictor(tmp_path):
    weights = tmp_path / "some.weights.h5"
    save_arrays(weights, {"a": np.zeros(3)})
    return lambda *results, **settings: BoundaryPredictor(Detector(*results), weights, **settings)


@pytest.fixture(scope="module")
def weights(small_network, tmp_path_factory):
    """A weights file of an untrained network, as training would write it."""
    config = BoundaryConfig(IMAGE_MAX_DIM=64, IMAGE_MIN_DIM=64, DETECTION_MIN_CONFIDENCE=0.0)
    model = MaskRCNN("training", config, tmp_path_factory.mktemp("logs"))
    path = tmp_path_factory.mktemp("weights") / "boundary.weights.h5"
    model.class_names = ["BG", "lesion"]
    save_weights(model.keras_model, path, {**model.metadata(), "task": "boundary"})
    return path


@pytest.fixture(scope="module")
def loaded(weights):
    return load_predictor(weights, batch=2)


def test_configuration_is_valid():
    BoundaryConfig().validate()


class TestPredict:
    def test_best_detection_is_the_boundary(self, predictor):
        masks = np.zeros((4, 5, 2), bool)
        masks[:2, :2, 0] = masks[2:, 2:, 1] = True
        found = result(masks, [0.3, 0.8], [[0, 0, 2, 2], [2, 2, 4, 5]])
        (boundary,) = predictor(found).predict([np.zeros((4, 5, 3), np.uint8)])
        np.testing.assert_array_equal(boundary.mask, masks[..., 1])
        assert boundary.score == pytest.approx(0.8)
        assert boundary.box == (2, 2, 4, 5)

    def test_holes_are_filled(self, predictor):
        ring = np.ones((5, 5, 1), bool)
        ring[2, 2] = False
        (boundary,) = predictor(result(ring, [0.9])).predict([np.zeros((5, 5, 3), np.uint8)])
        assert boundary.mask.all()

    def test_nothing_found_is_an_empty_mask(self, predictor):
        nothing = result(np.zeros((4, 5, 0), bool), [])
        (boundary,) = predictor(nothing).predict([np.zeros((4, 5, 3), np.uint8)])
        assert (boundary.mask.shape, boundary.mask.dtype) == ((4, 5), bool)
        assert not boundary.mask.any()
        assert (boundary.score, boundary.box) == (0.0, None)

    def test_one_for_each_image(self, predictor):
        found = [result(np.ones((size, 3, 1), bool), [0.5]) for size in (2, 4, 6)]
        boundaries = predictor(*found).predict([np.zeros((s, 3, 3), np.uint8) for s in (2, 4, 6)])
        assert [boundary.mask.shape for boundary in boundaries] == [(2, 3), (4, 3), (6, 3)]


class Bright:
    """Stands in for a `MaskRCNN` that finds what is bright, surer than some corner."""

    config = BoundaryConfig()

    def detect(self, images, mask_threshold):
        assert mask_threshold is None
        found = []
        for image in images:
            masks = np.zeros((*image.shape[:2], 2), np.float32)
            masks[:2, :2, 0] = 1
            masks[..., 1] = image[..., 0] / 255
            empty = not image.any()
            found.append(result(masks[..., :0] if empty else masks, [] if empty else [0.2, 0.6]))
        return found


class TestEightViews:
    @pytest.fixture
    def bright(self, tmp_path):
        save_arrays(tmp_path / "some.weights.h5", {"a": np.zeros(3)})
        return BoundaryPredictor(Bright(), tmp_path / "some.weights.h5", views=8)

    def test_one_region_without_holes_and_its_box(self, bright):
        image = np.zeros((40, 60), np.uint8)
        image[10:30, 20:50] = 200
        image[15:18, 25:28] = 0  # a hole
        image[35:38, 2:5] = 200  # a lesser region
        (boundary,) = bright.predict([image])
        truth = np.zeros((40, 60), bool)
        truth[10:30, 20:50] = True
        np.testing.assert_array_equal(boundary.mask, truth)
        assert boundary.box == (10, 20, 30, 50)
        assert boundary.score == pytest.approx(0.6)

    def test_nothing_found(self, bright):
        (boundary,) = bright.predict([np.zeros((8, 9, 3), np.uint8)])
        assert not boundary.mask.any() and (boundary.score, boundary.box) == (0.0, None)

    def test_other_numbers_are_refused(self, predictor):
        with pytest.raises(ValueError, match=r"`views` must be one of \(1, 8\), received 4"):
            predictor(views=4)


class TestSemanticMap:
    """A network with a semantic branch: the boundary is that of the mean of mask and map."""

    @pytest.fixture
    def image(self):
        image = np.zeros((40, 60, 3), np.uint8)
        image[10:30, 20:50] = 200
        return image

    @pytest.fixture
    def agreeing(self, tmp_path):
        """Makes a predictor whose map is a function of the image."""

        def make(semantic, views):
            class Agreeing(Bright):
                config = BoundaryConfig(SEMANTIC_BRANCH=True)

                def detect(self, images, mask_threshold):
                    found = super().detect(images, mask_threshold)
                    for image, result in zip(images, found, strict=True):
                        result["semantic"] = semantic(image).astype(np.float32)[..., np.newaxis]
                    return found

            save_arrays(tmp_path / "w.h5", {"a": np.zeros(3)})
            return BoundaryPredictor(Agreeing(), tmp_path / "w.h5", views=views)

        return make

    @pytest.mark.parametrize("views", [1, 8])
    def test_nothing_agreed_on_is_nothing_found(self, agreeing, image, views):
        (boundary,) = agreeing(lambda image: np.zeros(image.shape[:2]), views).predict([image])
        assert not boundary.mask.any() and (boundary.score, boundary.box) == (0.0, None)

    @pytest.mark.parametrize("views", [1, 8])
    def test_map_moves_the_boundary(self, agreeing, image, views):
        image[10:30, 20:30, 1] = 255  # of the mask, but not of the map
        image[30:34, 30:50, 1] = 100  # the other way round, where the mask is not sure
        image[30:34, 30:50, 0] = 100

        def semantic(image):
            return np.where(image[..., 1] == 255, 0.0, np.where(image[..., 0] > 0, 0.9, 0.0))

        found = agreeing(semantic, views).predict([image] * 9)  # more than a batch
        truth = np.zeros((40, 60), bool)
        truth[10:34, 30:50] = True
        for boundary in found:
            np.testing.assert_array_equal(boundary.mask, truth)
            assert boundary.box == (10, 30, 34, 50)

    @pytest.mark.parametrize(("largest", "sizes"), [(10_000, [3]), (5_000, [1, 1, 1])])
    def test_large_images_are_looked_at_one_by_one(
        self, agreeing, image, monkeypatch, largest, sizes
    ):
        """Maps of one view are of the image's size; those of several photographs are gigabytes."""
        monkeypatch.setattr("lesion.boundary._LARGE", largest)
        predictor = agreeing(lambda image: image[..., 0] / 255.0, 1)
        seen, look = [], predictor.look
        predictor.look = lambda images: seen.append(len(images)) or look(images)
        assert len(predictor.predict([image] * 3)) == 3
        assert seen == sizes

    def test_learned_with_the_mask(self, small_network, tmp_path):
        config = BoundaryConfig(SEMANTIC_BRANCH=True, IMAGE_MAX_DIM=64, IMAGE_MIN_DIM=64)
        model = MaskRCNN("training", config, tmp_path)
        learned = {tracker.name for tracker in model.keras_model.loss_trackers}
        assert {"mrcnn_mask_loss", "semantic_loss"} <= learned
        assert config.LOSS_WEIGHTS["presence_loss"] == 0


class TestLoad:
    def test_weights_alone_are_enough(self, loaded, weights):
        config = loaded.model.config
        stored = read_metadata(weights)["config"]
        assert {**config.to_dict(), "IMAGES_PER_GPU": 8, "BATCH_SIZE": 8} == stored
        assert config.BATCH_SIZE == 2

    def test_trained_in_bfloat16_answers_in_float32(self, small_network, weights, tmp_path):
        arrays, metadata = load_arrays(weights)
        metadata["config"]["PRECISION"] = "mixed_bfloat16"
        save_arrays(tmp_path / "b.h5", arrays, metadata)
        model = load_predictor(tmp_path / "b.h5", batch=1).model
        assert model.config.PRECISION == "float32"
        assert model.keras_model.get_layer("rpn_model").compute_dtype == "float32"

    def test_any_images(self, eagerly, loaded):
        images = [np.full((50, 70, 3), 90, np.uint8), np.full((31, 40), 9, np.uint8)]
        boundaries = loaded.predict([*images, images[0]])
        assert [boundary.mask.shape for boundary in boundaries] == [(50, 70), (31, 40), (50, 70)]
        assert all(0 <= boundary.score <= 1 for boundary in boundaries)

    def test_eight_views_of_any_images(self, eagerly, weights):
        predictor = load_predictor(weights, batch=4, views=8)
        shapes = [(50, 70, 3), (31, 40), (20, 30, 4)]
        images = [np.random.default_rng(0).integers(0, 256, shape, np.uint8) for shape in shapes]
        boundaries = predictor.predict(images)
        assert [boundary.mask.shape for boundary in boundaries] == [s[:2] for s in shapes]
        assert predictor.describe()["views"] == 8

    def test_describes_itself(self, loaded, weights):
        assert loaded.describe() == {
            "task": "boundary",
            "network": "Mask R-CNN",
            "backbone": "efficientnetlite0",
            "weights": "boundary.weights.h5",
            "sha256": sha256_of(weights),
            "input_size": [64, 64],
            "views": 1,
        }


class TestRefused:
    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="none.h5"):
            load_predictor(tmp_path / "none.h5")

    @pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"\x89HDF\r\n\x1a\n" + b"x" * 9])
    def test_no_weights_file(self, tmp_path, content):
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(WeightsError, match="x.h5"):
            load_predictor(tmp_path / "x.h5")

    @pytest.mark.parametrize("metadata", [{}, {"task": "diagnosis"}])
    def test_weights_of_another_task(self, tmp_path, metadata):
        save_arrays(tmp_path / "x.h5", {"a": np.zeros(3)}, metadata)
        with pytest.raises(WeightsError, match="boundary task, but of (diagnosis|an unknown one)"):
            load_predictor(tmp_path / "x.h5")

    def test_incomplete_file(self, weights, tmp_path):
        arrays, metadata = load_arrays(weights)
        arrays = {name: value for name, value in arrays.items() if "mrcnn_mask/" not in name}
        save_arrays(tmp_path / "x.h5", arrays, metadata)
        with pytest.raises(WeightsError, match="incomplete: mrcnn_mask missing"):
            load_predictor(tmp_path / "x.h5")
