import threading
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from mrcnn.checks import check_dataset
from mrcnn.data import Batches, FailuresRaised, SampleError, load_image_gt
from mrcnn.dataset import Dataset
from mrcnn.masks import extract_bboxes

# Order and types of the training network's inputs.
PARTS = ("image", "meta", "rpn_match", "rpn_bbox", "class_ids", "boxes", "masks")


def batch(batches, index):
    return dict(zip(PARTS, batches[index][0], strict=True))


def same(first, second):
    return all(np.array_equal(first[part], second[part]) for part in PARTS)


class TestLoadImageGt:
    def test_order_and_types_are_matterports(self, rectangles, tiny_config):
        config = tiny_config()
        image, meta, class_ids, boxes, masks = load_image_gt(rectangles(), config, 1)
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        assert meta.shape == (config.IMAGE_META_SIZE,)
        assert (class_ids.tolist(), class_ids.dtype) == ([2, 1], np.int32)
        assert (boxes.shape, boxes.dtype) == ((2, 4), np.int32)
        assert (masks.shape, masks.dtype) == ((64, 64, 2), bool)

    def test_meta_describes_the_image(self, rectangles, tiny_config):
        _, meta, *_ = load_image_gt(rectangles(), tiny_config(), 1)
        assert meta[:7].tolist() == [1, 48, 60, 3, 64, 64, 3]
        assert meta[7:11].tolist() == [6, 0, 57, 64]
        assert meta[12:].tolist() == [1, 1, 1]

    @pytest.mark.parametrize("mode", ["square", "pad64", "crop", "stretch", "none"])
    def test_masks_lie_on_their_objects(self, rectangles, tiny_config, mode):
        config = tiny_config(IMAGE_RESIZE_MODE=mode)
        dataset = rectangles([[(1, (10, 12, 40, 50))]], size=(64, 60))
        image, _, _, boxes, masks = load_image_gt(dataset, config, 0, rng=np.random.default_rng(0))
        red = image[..., 0].astype(int) - image[..., 1] > 60
        assert masks[..., 0].sum() > 500
        assert (red & masks[..., 0]).sum() / (red | masks[..., 0]).sum() > 0.9
        np.testing.assert_array_equal(boxes, extract_bboxes(masks))

    def test_mini_masks_fill_their_boxes(self, rectangles, tiny_config):
        *_, boxes, masks = load_image_gt(rectangles(), tiny_config(), 1, use_mini_mask=True)
        assert masks.shape == (14, 14, 2)
        assert masks.all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()

    def test_image_without_any_instance(self, rectangles, tiny_config):
        for mini in (False, True):
            image, meta, class_ids, boxes, masks = load_image_gt(
                rectangles(), tiny_config(), 2, use_mini_mask=mini
            )
            assert class_ids.shape == (0,)
            assert boxes.shape == (0, 4)
            assert masks.shape == ((14, 14, 0) if mini else (64, 64, 0))

    def test_instance_that_augmentation_removes_is_dropped(self, rectangles, tiny_config):
        def erase_left(image, masks, rng):
            masks = masks.copy()
            masks[:, :20] = False
            return image, masks

        _, _, class_ids, boxes, masks = load_image_gt(
            rectangles(), tiny_config(), 1, augmentation=erase_left
        )
        assert class_ids.tolist() == [2]
        assert len(boxes) == masks.shape[-1] == 1

    def test_augment_flips_half_of_the_time(self, rectangles, tiny_config):
        dataset, config = rectangles(), tiny_config()
        plain, *_, plain_masks = load_image_gt(dataset, config, 1)
        outcomes = []
        for seed in range(20):
            image, *_, masks = load_image_gt(
                dataset, config, 1, augment=True, rng=np.random.default_rng(seed)
            )
            flipped = np.array_equal(image, plain[:, ::-1])
            assert flipped or np.array_equal(image, plain)
            np.testing.assert_array_equal(masks, plain_masks[:, ::-1] if flipped else plain_masks)
            outcomes.append(flipped)
        assert 3 < sum(outcomes) < 17

    @pytest.mark.parametrize(
        "convert",
        [
            lambda grey: grey,
            lambda grey: grey[..., None],
            lambda grey: np.dstack([grey] * 4),
            lambda grey: grey.astype(np.uint16) * 257,
            lambda grey: grey / 255.0,
        ],
        ids=["grey", "one channel", "rgba", "16 bits", "float"],
    )
    def test_kinds_of_images(self, rectangles, tiny_config, convert):
        grey = np.random.default_rng(0).integers(256, size=(48, 60), dtype=np.uint8)
        dataset = rectangles()
        dataset.load_image = lambda image_id: np.dstack([grey] * 3)
        expected, *_ = load_image_gt(dataset, tiny_config(), 0)
        dataset.load_image = lambda image_id: convert(grey)
        image, *_ = load_image_gt(dataset, tiny_config(), 0)
        np.testing.assert_array_equal(image, expected)


class TestChannels:
    @pytest.mark.parametrize("channels", [1, 4, 8])
    def test_batches(self, rectangles, tiny_config, channels):
        config = tiny_config(IMAGE_CHANNEL_COUNT=channels, MEAN_PIXEL=100)
        dataset = rectangles()
        values = np.random.default_rng(0).integers(256, size=(48, 60, channels), dtype=np.uint8)
        dataset.load_image = lambda image_id: values
        image, meta, *_ = load_image_gt(dataset, config, 0)
        assert (image.shape, image.dtype) == ((64, 64, channels), np.uint8)
        assert meta[3] == meta[6] == channels
        arrays = batch(Batches(dataset, config, shuffle=False), 0)
        np.testing.assert_array_equal(arrays["image"][0], image.astype(np.float32) - 100)

    def test_colours_become_grey(self, rectangles, tiny_config):
        config = tiny_config(IMAGE_CHANNEL_COUNT=1, MEAN_PIXEL=100)
        assert load_image_gt(rectangles(), config, 0)[0].shape == (64, 64, 1)

    def test_wrong_number_is_named(self, rectangles, tiny_config):
        config = tiny_config(IMAGE_CHANNEL_COUNT=4, MEAN_PIXEL=100)
        with pytest.raises(SampleError, match="image1.png.*IMAGE_CHANNEL_COUNT is 4"):
            load_image_gt(rectangles(), config, 1)

    def test_augmentation_that_fails_names_the_image(self, rectangles, tiny_config):
        def fail(image, masks, rng):
            raise KeyError("scale")

        with pytest.raises(SampleError, match=r"Image 1 \(image1.png\).* augmented: KeyError: 'sc"):
            load_image_gt(rectangles(), tiny_config(), 1, augmentation=fail)

    def test_only_eight_bits_can_be_augmented(self, rectangles, tiny_config):
        config = tiny_config(IMAGE_CHANNEL_COUNT=4, MEAN_PIXEL=0)
        dataset = rectangles()
        dataset.load_image = lambda image_id: np.ones((48, 60, 4), np.float32) / 3
        image, *_ = load_image_gt(dataset, config, 1)
        assert image.dtype == np.float32
        with pytest.raises(SampleError, match="image1.png.* is float32; only uint8"):
            load_image_gt(dataset, config, 1, augmentation=lambda *arguments: arguments[:2])


class TestUnusableSample:
    def check(self, dataset, tiny_config, message):
        with pytest.raises(SampleError, match=rf"(?s)Image 1 \(image1.png\).*{message}"):
            load_image_gt(dataset, tiny_config(), 1)

    def test_data_set_without_load_mask(self, tiny_config):
        class Misspelt(Dataset):
            def load_masks(self, image_id):
                """Of a name that nobody asks for."""

        dataset = Misspelt()
        dataset.add_class("toys", 1, "red")
        dataset.add_image("toys", 0, "a.png")
        dataset.prepare()
        with pytest.raises(ValueError, match="Misspelt has no load_mask"):
            Batches(dataset, tiny_config(NUM_CLASSES=2))

    @pytest.mark.parametrize("error", [OSError, ValueError])
    @pytest.mark.parametrize("method", ["load_image", "load_mask"])
    def test_that_cannot_be_loaded(self, rectangles, tiny_config, method, error):
        def broken(image_id):
            raise error("block 7 is lost")

        dataset = rectangles()
        setattr(dataset, method, broken)
        self.check(dataset, tiny_config, "cannot be loaded: block 7 is lost")

    def test_masks_of_another_size(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: (np.ones((60, 48, 1), bool), np.array([1]))
        self.check(dataset, tiny_config, r"48x60 .*\(60, 48, 1\)")

    def test_fewer_masks_than_class_ids(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: (np.ones((48, 60, 1), bool), np.array([1, 2]))
        self.check(dataset, tiny_config, "2 class ids")

    def test_unknown_class(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: (np.ones((48, 60, 1), bool), np.array([3]))
        self.check(dataset, tiny_config, r"class ids \[3\]; the data set knows 1..2")

    def test_background_as_an_instance(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: (np.ones((48, 60, 2), bool), np.array([0, 1]))
        self.check(dataset, tiny_config, r"class ids \[0, 1\]; .* 0 is the background")

    def test_blank_mask_of_the_background_is_no_instance(self, rectangles, tiny_config):
        """As many a script says that an image shows nothing."""
        dataset = rectangles()
        blank = np.zeros((48, 60, 1))
        dataset.load_mask = lambda image_id: (blank, np.zeros(1))
        assert load_image_gt(dataset, tiny_config(), 1)[2].shape == (0,)
        both = np.dstack([blank, np.ones((48, 60, 1))])
        dataset.load_mask = lambda image_id: (both, np.array([0, 2]))
        assert load_image_gt(dataset, tiny_config(), 1)[2].tolist() == [2]

    @pytest.mark.parametrize(
        "answer",
        [
            (np.ones((48, 60, 2), bool), np.zeros(0, int)),
            (np.zeros((48, 60, 0), bool), np.array([1])),
        ],
    )
    def test_nothing_on_one_side_alone(self, rectangles, tiny_config, answer):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: answer
        self.check(dataset, tiny_config, "but load_mask returned masks of shape")

    def test_photograph_on_its_side(self, rectangles, tiny_config):
        """What was drawn on it as it is stored does not fit it upright."""
        dataset = rectangles()
        dataset.load_mask = lambda image_id: (np.ones((60, 48, 1), bool), np.array([1]))
        self.check(dataset, tiny_config, "masks of shape .60, 48, 1.; .* lies on its side .EXIF")

    def test_faulty_code_is_named_with_the_image(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: {}["mole"]
        self.check(dataset, tiny_config, "cannot be loaded: KeyError: 'mole'")

    @pytest.mark.parametrize("mode", ["none", "pad64"])
    def test_other_size_than_the_networks(self, rectangles, tiny_config, mode):
        config = tiny_config(IMAGE_RESIZE_MODE=mode, IMAGE_MIN_DIM=128, IMAGE_MAX_DIM=128)
        with pytest.raises(SampleError, match=r"image0.png.*needs all images to be 128x128"):
            Batches(rectangles(size=(64, 100)), config, shuffle=False)[0]

    def test_source_without_a_class(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.image_info[0]["source"] = "photographs"
        with pytest.raises(ValueError, match="source 'photographs', of which it knows no class"):
            Batches(dataset, tiny_config())
        with pytest.raises(SampleError, match="source 'photographs', of which it knows no class"):
            load_image_gt(dataset, tiny_config(), 0)

    def test_reference_of_the_data_set_is_used(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.image_reference = lambda image_id: "patient 12"
        dataset.load_mask = lambda image_id: (np.ones((48, 60, 1), bool), np.array([3]))
        with pytest.raises(SampleError, match="patient 12"):
            load_image_gt(dataset, tiny_config(), 1)

    def test_an_image_without_a_path_has_its_source_and_id(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.image_info[1] |= {"path": None, "source": "toys", "id": "seven"}
        dataset.load_mask = lambda image_id: (np.ones((48, 60, 1), bool), np.array([3]))
        with pytest.raises(SampleError, match=r"Image 1 \(toys.seven\)"):
            load_image_gt(dataset, tiny_config(), 1)

    @pytest.mark.parametrize(
        "faulty",
        [
            lambda self, image_id: self.image_info[image_id]["tumor"],
            lambda self, image_id: super(self.__class__).image_reference(image_id),
            lambda self, image_id: type(self).image_reference(self, image_id),
        ],
        ids=["no such key", "super without an object", "for ever"],
    )
    def test_reference_that_fails_costs_nothing(self, rectangles, tiny_config, monkeypatch, faulty):
        """As those copied from matterport's samples do."""
        dataset = rectangles()
        monkeypatch.setattr(type(dataset), "image_reference", faulty)
        batches = Batches(dataset, tiny_config(), shuffle=False)
        batches[0]
        assert batches.references(0) == ["image0.png", "image1.png"]
        assert check_dataset(dataset).problems == []
        dataset.load_mask = lambda image_id: (np.ones((48, 60, 1), bool), np.array([3]))
        self.check(dataset, tiny_config, "class ids")


class TestBatch:
    def test_shapes_and_types(self, rectangles, tiny_config):
        config = tiny_config()
        batches = Batches(rectangles(), config, shuffle=False)
        arrays = batch(batches, 0)
        anchors = len(batches.anchors)
        assert {part: (array.shape, array.dtype) for part, array in arrays.items()} == {
            "image": ((2, 64, 64, 3), np.float32),
            "meta": ((2, config.IMAGE_META_SIZE), np.float32),
            "rpn_match": ((2, anchors, 1), np.int32),
            "rpn_bbox": ((2, 16, 4), np.float32),
            "class_ids": ((2, 3), np.int32),
            "boxes": ((2, 3, 4), np.float32),
            "masks": ((2, 14, 14, 3), bool),
        }

    def test_instances_come_first_and_zeros_fill_up(self, rectangles, tiny_config):
        arrays = batch(Batches(rectangles(), tiny_config(), shuffle=False), 0)
        assert arrays["class_ids"].tolist() == [[1, 0, 0], [2, 1, 0]]
        assert not arrays["boxes"][0, 1:].any()
        assert arrays["masks"].any(axis=(1, 2)).tolist() == [
            [True, False, False],
            [True, True, False],
        ]

    def test_whole_masks(self, rectangles, tiny_config):
        config = tiny_config(USE_MINI_MASK=False)
        arrays = batch(Batches(rectangles(), config, shuffle=False), 0)
        assert arrays["masks"].shape == (2, 64, 64, 3)
        boxes = extract_bboxes(arrays["masks"][1])
        np.testing.assert_array_equal(boxes, arrays["boxes"][1])

    def test_image_without_any_instance_is_all_background(self, rectangles, tiny_config):
        arrays = batch(Batches(rectangles([[]] * 2), tiny_config(), shuffle=False), 0)
        assert not arrays["class_ids"].any()
        assert not arrays["boxes"].any()
        assert not arrays["rpn_bbox"].any()
        assert set(arrays["rpn_match"].ravel()) == {0, -1}
        assert np.count_nonzero(arrays["rpn_match"][0]) == 16

    def test_too_many_instances_are_sampled(self, rectangles, tiny_config):
        crowded = [[(1 + i % 2, (8 * i, 5 * i, 8 * i + 8, 5 * i + 20)) for i in range(5)]]
        batches = Batches(rectangles(crowded), tiny_config(IMAGES_PER_GPU=1), steps=8)
        seen = {batch(batches, index)["boxes"].tobytes() for index in range(8)}
        assert len(seen) > 1
        assert all(batch(batches, index)["class_ids"].all() for index in range(8))

    def test_crowds_keep_their_negative_class(self, rectangles, tiny_config):
        dataset = rectangles([[(-1, (0, 0, 48, 60)), (2, (10, 10, 30, 30))]])
        arrays = batch(Batches(dataset, tiny_config(IMAGES_PER_GPU=1)), 0)
        assert arrays["class_ids"].tolist() == [[-1, 2, 0]]


class TestOrder:
    def test_same_for_the_same_seed(self, rectangles, tiny_config):
        first, second = (Batches(rectangles(), tiny_config(), seed=3) for _ in range(2))
        assert all(same(batch(first, index), batch(second, index)) for index in (2, 0, 1))

    def test_other_for_another_seed(self, rectangles, tiny_config):
        orders = {
            tuple(
                int(image_id)
                for index in range(5)
                for image_id in Batches(rectangles(), tiny_config(), seed=seed).image_ids(index)
            )
            for seed in range(5)
        }
        assert len(orders) > 3

    def test_does_not_depend_on_the_order_of_access(self, rectangles, tiny_config):
        def shake(image, masks, rng):
            return image + rng.integers(0, 9, image.shape, dtype=np.uint8), masks

        batches = Batches(rectangles(), tiny_config(), steps=6, augmentation=shake)
        alone = [batch(batches, index) for index in range(6)]
        together = {}
        threads = [
            threading.Thread(target=lambda i=i: together.update({i: batch(batches, i)}))
            for i in reversed(range(6))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(same(alone[index], together[index]) for index in range(6))

    def test_all_images_are_seen_equally_often(self, rectangles, tiny_config):
        # Five images in batches of two, three steps per epoch: epochs share permutations.
        batches = Batches(rectangles(), tiny_config(), steps=3)
        seen = Counter()
        for _ in range(5):
            for index in range(3):
                seen.update(int(image_id) for image_id in batches.image_ids(index))
            batches.epoch += 1
        assert seen == dict.fromkeys(range(5), 6)

    def test_begins_at_any_epoch_as_if_never_stopped(self, rectangles, tiny_config):
        whole = Batches(rectangles(), tiny_config(), steps=2)
        whole.epoch = 2
        continued = Batches(rectangles(), tiny_config(), steps=2, epoch=2)
        assert all(same(batch(whole, index), batch(continued, index)) for index in range(2))

    def test_epochs_of_one_image_differ_in_augmentation(self, rectangles, tiny_config):
        def shake(image, masks, rng):
            return image + rng.integers(0, 9, image.shape, dtype=np.uint8), masks

        dataset = rectangles([[(1, (5, 6, 25, 30))]])
        batches = Batches(dataset, tiny_config(IMAGES_PER_GPU=1), augmentation=shake)
        first = batch(batches, 0)
        batches.epoch = 1
        assert not np.array_equal(first["image"], batch(batches, 0)["image"])

    def test_keras_does_not_move_the_epoch(self, rectangles, tiny_config):
        batches = Batches(rectangles(), tiny_config())
        first = batch(batches, 0)
        batches.on_epoch_end()
        assert same(first, batch(batches, 0))

    def test_in_order_where_not_shuffled(self, rectangles, tiny_config):
        batches = Batches(rectangles(), tiny_config(), shuffle=False)
        assert len(batches) == 3
        assert [batches.image_ids(index) for index in range(3)] == [[0, 1], [2, 3], [4, 0]]

    def test_batch_larger_than_the_data_set(self, rectangles, tiny_config):
        batches = Batches(rectangles([[]]), tiny_config(IMAGES_PER_GPU=3))
        assert len(batches) == 1
        assert batches.image_ids(0) == [0, 0, 0]

    def test_references_name_the_images(self, rectangles, tiny_config):
        batches = Batches(rectangles(), tiny_config(), shuffle=False)
        assert batches.references(1) == ["image2.png", "image3.png"]

    @pytest.mark.parametrize(("steps", "whole"), [(5 / 2, 3), (np.ceil(2.5), 3), (4, 4)])
    def test_numbers_of_steps_that_are_quotients(self, rectangles, tiny_config, steps, whole):
        assert len(Batches(rectangles(), tiny_config(), steps=steps)) == whole


class TestAugmentation:
    def test_reaches_image_and_masks(self, rectangles, tiny_config):
        def mirror(image, masks, rng):
            return image[:, ::-1], masks[:, ::-1]

        config = tiny_config(USE_MINI_MASK=False)
        plain = batch(Batches(rectangles(), config, shuffle=False), 0)
        mirrored = batch(Batches(rectangles(), config, shuffle=False, augmentation=mirror), 0)
        np.testing.assert_array_equal(mirrored["image"], plain["image"][:, :, ::-1])
        np.testing.assert_array_equal(mirrored["masks"], plain["masks"][:, :, ::-1])
        np.testing.assert_array_equal(mirrored["boxes"][0, 0, [0, 2]], plain["boxes"][0, 0, [0, 2]])
        np.testing.assert_array_equal(
            mirrored["boxes"][0, 0, [1, 3]], 64 - plain["boxes"][0, 0, [3, 1]]
        )

    def test_images_that_the_data_set_keeps_stay_as_they_are(self, rectangles, tiny_config):
        dataset = rectangles(size=(64, 64))
        kept = dataset.load_image(0)
        before = kept.copy()
        dataset.load_image = lambda image_id: kept

        def darken(image, masks, rng):
            image //= 2
            return image, masks

        config = tiny_config(IMAGE_RESIZE_MODE="none")
        image = load_image_gt(dataset, config, 0, augmentation=darken)[0]
        np.testing.assert_array_equal(image, before // 2)
        np.testing.assert_array_equal(kept, before)

    def test_false_means_none(self, rectangles, tiny_config):
        given = Batches(rectangles(), tiny_config(), augmentation=False)
        plain = Batches(rectangles(), tiny_config())
        for own, expected in zip(given[0][0], plain[0][0], strict=True):
            np.testing.assert_array_equal(own, expected)

    def test_one_source_may_be_a_word(self, rectangles, tiny_config):
        batches = Batches(rectangles(), tiny_config(), no_augmentation_sources="toys")
        assert batches.no_augmentation_sources == ("toys",)

    def test_leaves_out_sources_by_name(self, rectangles, tiny_config):
        def blacken(image, masks, rng):
            return np.zeros_like(image), masks

        dataset = rectangles([[(1, (5, 6, 25, 30))]] * 3, sources=["toys", "synthetic", "phantoms"])
        batches = Batches(
            dataset,
            tiny_config(MEAN_PIXEL=np.zeros(3)),
            shuffle=False,
            augment=True,
            augmentation=blacken,
            no_augmentation_sources=["synthetic", "phantoms"],
        )
        images = [*batch(batches, 0)["image"], batch(batches, 1)["image"][0]]
        assert [bool(image.any()) for image in images] == [False, True, True]


class TestRefused:
    def test_empty_data_set(self, rectangles, tiny_config):
        with pytest.raises(ValueError, match="no image.*prepare"):
            Batches(rectangles([]), tiny_config())

    def test_image_of_a_data_set_that_was_not_prepared(self, tiny_config):
        dataset = Dataset()
        dataset.add_image("toys", 1, "a.png")
        with pytest.raises(SampleError, match=r"Image 0 \(a.png\) .*: call prepare\(\) first"):
            load_image_gt(dataset, tiny_config(), 0)

    def test_data_set_that_was_not_prepared(self, rectangles, tiny_config):
        dataset = type(rectangles()).__base__()
        dataset.add_image("toys", 0, "image0.png")
        with pytest.raises(ValueError, match="prepare"):
            Batches(dataset, tiny_config())

    def test_other_number_of_classes(self, rectangles, tiny_config):
        with pytest.raises(ValueError, match=r"3 classes .*BG, red, green.*NUM_CLASSES is 5"):
            Batches(rectangles(), tiny_config(NUM_CLASSES=5))

    def test_size_that_the_pyramid_cannot_halve(self, rectangles, tiny_config):
        config = tiny_config(IMAGE_RESIZE_MODE="none", IMAGE_MAX_DIM=100)
        with pytest.raises(ValueError, match="100x100 pixels cannot go through the pyramid"):
            Batches(rectangles(size=(100, 100)), config)


class TestFailures:
    def test_cause_is_raised_instead_of_the_backends_account(self, rectangles, tiny_config):
        dataset = rectangles()
        dataset.load_mask = lambda image_id: (np.ones((1, 1, 1), bool), np.array([1]))
        batches = Batches(dataset, tiny_config(), shuffle=False)
        with pytest.raises(SampleError, match="image0.png"), FailuresRaised(batches):
            try:
                batches[0]
            except SampleError as error:
                lines = tf.errors.UnknownError(None, None, "a thousand lines of graph")
                raise lines from error

    def test_what_a_callback_raises_is_not_hidden(self, rectangles, tiny_config):
        batches = Batches(rectangles(), tiny_config())
        batches.failure = SampleError("of a batch prepared ahead")
        with pytest.raises(OSError, match="disk"), FailuresRaised(batches):
            raise OSError("disk full")

    def test_other_errors_pass(self, rectangles, tiny_config):
        batches = Batches(rectangles(), tiny_config())
        with pytest.raises(KeyError), FailuresRaised(batches):
            raise KeyError("weights")
