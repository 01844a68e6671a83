"""What attributes and diagnosis are shown of a small lesion, and where it is put back."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion.analyzer import Analyzer
from lesion.attributes import Attributes
from lesion.calibration import Referral
from lesion.diagnosis import Diagnosis
from lesion.ensemble import DiagnosisEnsemble
from lesion.nearby import MARGIN, SMALL, NearbyAttributes, NearbyDiagnosis, part_to_show, put_back


def lesion(height, width, top, bottom, left, right):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


class TestPart:
    def test_small_lesion_is_in_the_middle_of_its_square(self):
        mask = lesion(200, 300, 80, 120, 100, 150)
        shown = mask[part_to_show(mask)]
        assert shown.shape == (MARGIN * 50, MARGIN * 50)
        assert shown[20:60, 15:65].all() and shown.sum() == mask.sum()

    @pytest.mark.parametrize(("left", "right"), [(50, 120), (100, 171), (50, 250), (0, 300)])
    def test_lesion_that_is_not_small_is_shown_in_its_whole_image(self, left, right):
        mask = lesion(200, 300, 90, 100, left, right)
        assert right - left >= SMALL * 200
        assert mask[part_to_show(mask)].shape == mask.shape

    @pytest.mark.parametrize(
        ("left", "right", "shown"),
        [(0, 70, 0), (49, 120, 0), (150, 251, 100), (30, 230, 30), (230, 300, 100)],
    )
    def test_lesion_that_leaves_the_middle_is_shown_in_a_square_that_holds_it(
        self, left, right, shown
    ):
        part = part_to_show(lesion(200, 300, 90, 100, left, right))
        assert part == (slice(0, 200), slice(shown, shown + 200))
        turned = part_to_show(lesion(200, 300, 90, 100, left, right).T)
        assert turned == part[::-1]

    def test_no_lesion(self):
        mask = np.zeros((40, 60), bool)
        assert mask[part_to_show(mask)].shape == mask.shape

    def test_speck_is_blown_up_to_a_limit(self):
        image = np.arange(200 * 300).reshape(200, 300)
        shown = image[part_to_show(lesion(200, 300, 0, 1, 299, 300))]
        np.testing.assert_array_equal(shown, image[:20, 280:])

    @given(st.integers(20, 60), st.integers(20, 60), st.data())
    def test_whole_lesion_comes_back_to_its_place(self, height, width, data):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        bottom, right = data.draw(st.integers(top, height)), data.draw(st.integers(left, width))
        mask = lesion(height, width, top, bottom, left, right)
        part = part_to_show(mask)
        found = Attributes({"streaks": mask[part]}, {"streaks": 0.5})
        back = put_back(found, part, (height, width, 3))
        np.testing.assert_array_equal(back.masks["streaks"], mask)
        assert (
            back.presence == {"streaks": 0.5} and found.masks["streaks"].shape == mask[part].shape
        )


@pytest.fixture
def images(lesion_image):
    """A large lesion and a small one, and the small one's mask."""
    small, mask = lesion_image(60, 80, (20, 30), 5)
    return [lesion_image(60, 80, (30, 40), 20)[0], small], mask


class Shown:
    """A predictor that remembers what it was shown, and finds an attribute all over it."""

    method = "combined"
    views, crops, referral = 1, False, Referral()

    def __init__(self):
        self.images, self.patients = [], []

    def predict(self, images, patients=None, whole=None):
        self.images += whole if self.crops else images
        if patients is None:
            return [Attributes(self._masks(image), {}) for image in images]
        self.patients += patients
        return list(range(len(images)))

    def answer(self, images, patients=None, whole=None):
        Shown.predict(self, images, patients or [{}], whole)
        return [Diagnosis(np.full(7, 1 / 7), np.full(7, 1 / 7)) for _ in images]

    def predict_by_method(self, images):
        return [{"combined": self._masks(image)} for image in images]

    def describe(self):
        return {"task": "diagnosis", "weights": "shown.h5", "sha256": "c" * 64, "views": 1}

    @staticmethod
    def _masks(image):
        return {"streaks": np.ones(image.shape[:2], bool)}


def test_diagnosis_is_shown_the_small_lesion_with_its_patient(images, darkness):
    (large, small), mask = images
    shown = Shown()
    nearby = NearbyDiagnosis(shown, darkness)
    assert nearby.predict([large, small], ["her", "him"]) == [0, 1]
    assert shown.patients == ["her", "him"]
    np.testing.assert_array_equal(shown.images[0], large)
    np.testing.assert_array_equal(shown.images[1], small[part_to_show(mask)])
    assert nearby.describe()["weights"] == "shown.h5"
    assert nearby.describe()["boundary"]["weights"] == "darkness.weights.h5"


def test_classifier_that_crops_by_itself_needs_no_other_boundary(darkness):
    crops = Shown()
    crops.crops = True
    with pytest.raises(ValueError, match="crops images to their lesion by itself"):
        NearbyDiagnosis(crops, darkness)


def test_members_that_crop_are_given_all_and_the_others_the_square(images, darkness):
    (_, small), mask = images
    members = [Shown(), Shown()]
    members[0].crops = True
    for member in members:
        member.predict = functools.partial(Shown.answer, member)
    for predict in (
        NearbyDiagnosis(DiagnosisEnsemble(members), darkness).predict,
        lambda images, patients: [
            Analyzer(darkness, "none", DiagnosisEnsemble(members)).analyze(images[0], patients[0])
        ],
    ):
        predict([small], [{}])
        np.testing.assert_array_equal(members[0].images.pop(), small)
        np.testing.assert_array_equal(members[1].images.pop(), small[part_to_show(mask)])


def test_attributes_of_the_small_lesion_are_those_of_its_square(images, darkness):
    (large, small), mask = images
    nearby = NearbyAttributes(Shown(), darkness)
    square = np.zeros((60, 80), bool)
    square[part_to_show(mask)] = True
    by_method = [found["combined"] for found in nearby.predict_by_method([large, small])]
    for masks in ([found.masks for found in nearby.predict([large, small])], by_method):
        assert masks[0]["streaks"].all() and masks[0]["streaks"].shape == (60, 80)
        np.testing.assert_array_equal(masks[1]["streaks"], square)
    assert nearby.method == "combined"


@pytest.mark.parametrize("boundary", [True, False])
@pytest.mark.parametrize("crops", [True, False])
def test_analyzer_does_the_same(images, darkness, boundary, crops):
    (_, small), mask = images
    attributes, diagnosis = Shown(), Shown()
    diagnosis.crops = crops
    analyzer = Analyzer(darkness if boundary else "none", attributes, diagnosis)
    found = analyzer.analyze(small)
    near = small[part_to_show(mask)] if boundary else small
    np.testing.assert_array_equal(attributes.images[0], near)
    np.testing.assert_array_equal(diagnosis.images[0], small if crops else near)
    np.testing.assert_array_equal(found.image, small)
    assert found.attributes.masks["streaks"].shape == (60, 80)
    assert found.attributes.masks["streaks"].all() == (not boundary)
    assert found.settings["small_lesion"] == (SMALL if boundary else None)
    assert ("small_lesion" in [warning.code for warning in found.warnings]) == boundary
    box = found.nearby
    assert (box is not None) == boundary
    if boundary:
        top, left, bottom, right = box
        np.testing.assert_array_equal(small[top:bottom, left:right], near)


def test_lesion_at_the_side_of_a_long_image(lesion_image, darkness):
    image, _ = lesion_image(60, 90, (30, 20), 15)
    diagnosis = Shown()
    found = Analyzer(darkness, "none", diagnosis).analyze(image)
    assert found.nearby == (0, 0, 60, 60)
    np.testing.assert_array_equal(diagnosis.images[0], image[:, :60])
    assert "small_lesion" not in [warning.code for warning in found.warnings]


def test_whole_image_is_no_small_lesion(images, darkness):
    (_, small), _ = images
    diagnosis = Shown()
    diagnosis.crops = True
    for others in (("none", "none"), ("none", diagnosis)):
        found = Analyzer(darkness, *others).analyze(small)
        assert "small_lesion" not in [warning.code for warning in found.warnings]
        assert found.nearby is None
