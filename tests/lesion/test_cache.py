import ast
import errno
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import lesion.cache
from lesion.cache import ImageCache
from mrcnn.images import ImageError, read_image


@pytest.fixture
def cache(tmp_path):
    return ImageCache(tmp_path / "cache", max_side=32)


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def outline(tmp_path):
    mask = np.zeros((60, 90), np.uint8)
    mask[:, :45] = 255
    Image.fromarray(mask).save(tmp_path / "outline.png")
    return tmp_path / "outline.png"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the originals that were decoded."""
    names = []

    def counted(function):
        def call(path, **options):
            names.append(path.name)
            return function(path, **options)

        return call

    for name in ("read_image", "read_mask"):
        monkeypatch.setattr(lesion.cache, name, counted(getattr(lesion.cache, name)))
    return names


def entries(cache):
    return sorted(path for path in cache.directory.rglob("*") if path.is_file())


def test_image_is_reduced_as_the_reader_reduces_it(cache, photo):
    image = cache.image(photo)
    assert (image.shape, image.dtype) == ((21, 32, 3), np.uint8)
    np.testing.assert_array_equal(image, read_image(photo, max_side=32))


def test_small_image_is_not_enlarged(tmp_path, photo):
    assert ImageCache(tmp_path / "cache", 500).image(photo).shape == (60, 90, 3)


def test_second_reading_decodes_nothing(cache, photo, outline, decoded):
    first = cache.image(photo), cache.mask(outline, (21, 32))
    again = ImageCache(cache.directory, 32)
    np.testing.assert_array_equal(again.image(photo), first[0])
    np.testing.assert_array_equal(again.mask(outline, (21, 32)), first[1])
    assert decoded == ["photo.png", "outline.png"]


def test_entries_are_read_without_parsing_python(cache, photo, outline, decoded, monkeypatch):
    # Before Python 3.11.8 two threads that do so at once can fail, and TensorFlow's tracing is one.
    first = cache.image(photo), cache.mask(outline, (21, 32))

    def parse(*args, **kwargs):
        raise SystemError("AST constructor recursion depth mismatch")

    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", parse)
        again = cache.image(photo), cache.mask(outline, (21, 32))
    np.testing.assert_array_equal(again[0], first[0])
    np.testing.assert_array_equal(again[1], first[1])
    assert decoded == ["photo.png", "outline.png"]


def test_arrays_may_be_changed_without_changing_the_entry(cache, photo):
    expected = cache.image(photo).copy()
    cache.image(photo)[:] = 0
    np.testing.assert_array_equal(cache.image(photo), expected)


def test_other_size_is_another_entry(cache, photo):
    cache.image(photo)
    assert ImageCache(cache.directory, 16).image(photo).shape == (11, 16, 3)
    assert cache.image(photo).shape == (21, 32, 3)


def test_changed_original_is_decoded_anew(cache, photo):
    cache.image(photo)
    before = photo.stat()
    Image.new("RGB", (90, 60), "red").save(photo)
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert (cache.image(photo) == (255, 0, 0)).all()


def test_mask_keeps_pixels_that_are_at_least_half_inside(cache, outline):
    # 45 of 90 columns become 15 of 30: no column is cut.
    mask = cache.mask(outline, (20, 30))
    assert mask.dtype == bool
    expected = np.zeros((20, 30), bool)
    expected[:, :15] = True
    np.testing.assert_array_equal(mask, expected)


def test_mask_of_the_asked_size_is_as_it_is(cache, outline):
    assert cache.mask(outline, (60, 90)).sum() == 60 * 45


def test_mask_of_other_proportions_is_refused(cache, outline):
    with pytest.raises(ImageError, match="outline.png is 90 x 60 pixels.* kept as 20 x 30"):
        cache.mask(outline, (30, 20))


def test_rounded_sides_are_no_other_proportions(tmp_path):
    for height, width in [(767, 1022), (400, 601), (33, 500), (1, 300)]:
        Image.new("L", (width, height), 255).save(tmp_path / "mask.png")
        Image.new("RGB", (width, height)).save(tmp_path / "image.png")
        cache = ImageCache(tmp_path / "cache", 100)
        shape = cache.image(tmp_path / "image.png").shape[:2]
        assert cache.mask(tmp_path / "mask.png", shape).shape == shape


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: b"\0" * len(content),
        lambda content: content[:500] + b"\0" * 100 + content[600:],
        lambda content: content + b"\0",
    ],
    ids=["empty", "cut", "one byte short", "zeros", "zeros inside", "one byte long"],
)
def test_damaged_entry_is_made_anew(cache, photo, damage):
    expected = cache.image(photo)
    (entry,) = entries(cache)
    sound = entry.read_bytes()
    entry.write_bytes(damage(sound))
    np.testing.assert_array_equal(cache.image(photo), expected)
    assert entry.read_bytes() == sound


def test_threads_that_want_one_image_decode_it_once(cache, photo, decoded):
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(cache.image, [photo] * 32))
    assert decoded == ["photo.png"]
    assert all((image == images[0]).all() for image in images)


def test_full_disk_is_warned_of_once(cache, photo, outline, monkeypatch, caplog):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lesion.cache, "atomic_path", full)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert cache.image(photo).shape == (21, 32, 3)
            assert cache.mask(outline, (21, 32)).shape == (21, 32)
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()


def test_folder_that_cannot_be_made_is_no_error(tmp_path, photo, caplog):
    (tmp_path / "file").write_text("")
    cache = ImageCache(tmp_path / "file" / "cache", 32)
    assert cache.image(photo).shape == (21, 32, 3)
    assert len(caplog.records) == 1


def test_unreadable_original_is_named_and_leaves_no_entry(cache, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match="broken.jpg"):
        cache.image(path)
    with pytest.raises(ImageError, match="gone.jpg"):
        cache.image(tmp_path / "gone.jpg")
    assert entries(cache) == []


def test_size_below_one_pixel_is_refused(tmp_path):
    with pytest.raises(ValueError, match="received 0"):
        ImageCache(tmp_path, 0)
