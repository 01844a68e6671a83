import numpy as np
import pytest

from lesion.reading import predict_images, read_ahead
from lesion.samples import Problem
from mrcnn.images import read_image, write_image


@pytest.fixture
def folder(tmp_path, lesion_image):
    """Three images of different size, the second without a lesion."""
    write_image(tmp_path / "a.png", lesion_image()[0])
    write_image(tmp_path / "b.png", lesion_image(40, 40, radius=0)[0])
    write_image(tmp_path / "c.png", lesion_image(30, 80, (15, 40), 8)[0])
    return tmp_path


def test_reading_ahead_takes_no_more_than_two_batches():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    batches = read_ahead(str, items(), batch=3)
    assert next(batches) == ["0", "1", "2"]
    assert len(taken) == 6
    assert [*batches][-1] == ["99"]


@pytest.mark.parametrize(("batch", "batches"), [(1, [1, 1, 1]), (2, [2, 1]), (8, [3])])
def test_images_are_predicted_in_batches_and_in_order(folder, darkness, batch, batches):
    paths = [folder / "c.png", folder / "a.png", folder / "b.png"]
    predictions = list(predict_images(darkness.predict, paths, batch))
    assert darkness.batches == batches
    for path, prediction in zip(paths, predictions, strict=True):
        np.testing.assert_array_equal(prediction.image, read_image(path))
        assert prediction.found.mask.shape == prediction.image.shape[:2]


def test_bad_file_keeps_its_place(folder, darkness):
    (folder / "b.png").write_bytes(b"")
    predictions = list(predict_images(darkness.predict, sorted(folder.iterdir()), batch=2))
    assert predictions[1] == Problem(folder / "b.png", "the file is empty.")
    assert predictions[2].found.mask.shape == (30, 80)


def test_batch_of_bad_files_alone_is_not_predicted(tmp_path, darkness):
    (problem,) = predict_images(darkness.predict, [tmp_path / "gone.jpg"])
    assert problem.reason == "there is no such file."
    assert darkness.batches == []


def test_few_images_are_held_at_once(monkeypatch, darkness):
    read = []

    def counted(path):
        read.append(path)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr("lesion.reading.read_image", counted)
    predictions = predict_images(
        darkness.predict, [f"{number}.png" for number in range(50)], batch=4
    )
    for _ in range(9):
        next(predictions)
    assert len(read) <= 16


def test_batch_below_one_is_refused(darkness):
    with pytest.raises(ValueError, match="at least 1, received 0"):
        next(predict_images(darkness.predict, ["a.png"], batch=0))
