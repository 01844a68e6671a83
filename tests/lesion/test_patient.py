"""What is known of a patient, as numbers and as text."""

import numpy as np
import pytest

from lesion.patient import (
    SEXES,
    VECTOR_SIZE,
    known_of,
    patient_vector,
    read_age,
    told,
    unrecognised,
)

UNKNOWN = {"age": float("nan"), "sex": "unknown", "site": "Unknown"}


@pytest.mark.parametrize(
    "nothing", [{}, {"age": None, "sex": None}, {"age": "", "site": " "}, UNKNOWN]
)
def test_nothing_is_zeros(nothing):
    np.testing.assert_array_equal(patient_vector(nothing), np.zeros(VECTOR_SIZE, np.float32))
    assert told(nothing) == {} and unrecognised(nothing) == []


@pytest.mark.parametrize("age", [0, "0", 0.0])
def test_newborn_has_an_age(age):
    assert read_age({"age": age}) == 0.0
    np.testing.assert_array_equal(patient_vector({"age": age})[:2], [0, 1])
    assert told({"age": age})["age"] == str(age)


def test_numbers_and_case_do_not_matter():
    known = {"age": 50, "sex": "Female ", "site": "BACK"}
    np.testing.assert_array_equal(
        patient_vector(known), patient_vector({"age": "50.0", "sex": "female", "site": "back"})
    )
    assert patient_vector(known)[2 + SEXES.index("female")] == 1
    assert unrecognised(known) == []


def test_no_more_is_told_than_is_asked_for():
    assert told({"name": "Eve", "age": 50, "sex": None}) == {"age": "50"}


def test_what_means_nothing():
    assert unrecognised({"age": "-3", "sex": "x", "site": "head/neck"}) == [
        "age -3",
        "sex x",
        "site head/neck",
    ]
    assert unrecognised({"site": "anterior torso"}) == ["site anterior torso"]


def test_only_what_means_something_counts_as_known():
    patients = [{"age": "50", "sex": "x"}, {"age": "50 years", "site": "back"}]
    first, *others = known_of(patients)
    assert first == "Known of the patients of 2 images: age of 1, sex of 0, site of 1."
    assert others == [
        f"{what} (1 x) is not known, and not used." for what in ("sex x", "age 50 years")
    ]


def test_other_words_for_the_same():
    known = {"age_approx": 50, "sex": "F", "anatom_site_general": "posterior torso"}
    same = {"age": "50", "sex": "female", "site": "back"}
    np.testing.assert_array_equal(patient_vector(known), patient_vector(same))
    assert told(known) == same
    assert told({"age": "", "age_approx": 50}) == {"age": "50"}
    assert unrecognised(known) == []
