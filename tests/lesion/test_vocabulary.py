"""Names of diagnoses."""

import pytest

from lesion.samples import DIAGNOSES
from lesion.vocabulary import category_of


@pytest.mark.parametrize("name", DIAGNOSES)
def test_codes(name):
    assert category_of(name) == category_of(name.lower()) == name


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("Melanoma", "MEL"),
        ("melanoma (in situ)", "MEL"),
        ("melanoma (0.76 to 1.5 mm)", "MEL"),
        ("Melanoma, NOS", "MEL"),
        ("clark nevus", "NV"),
        ("reed or spitz nevus", "NV"),
        ("Melanocytic nevi", "NV"),
        ("dysplastic naevus", "NV"),
        ("basal_cell_carcinoma", "BCC"),
        ("Actinic keratoses", "AKIEC"),
        ("Actinic keratosis / Bowen’s disease (intraepithelial carcinoma)", "AKIEC"),
        ("Bowen's disease", "AKIEC"),
        ("Actinic keratoses and intraepithelial carcinoma / Bowen's disease", "AKIEC"),
        ("Melanoma (MEL)", "MEL"),
        ("bcc: basal cell carcinomas", "BCC"),
        ("melanoma (NV)", None),
        ("MEL", "MEL"),
        ("Benign keratosis-like lesions", "BKL"),
        ("seborrhoeic keratosis", "BKL"),
        ("lichen planus-like keratosis", "BKL"),
        ("Dermatofibromas", "DF"),
        ("Vascular lesions", "VASC"),
        ("haemangioma", "VASC"),
    ],
)
def test_words(name, category):
    assert category_of(name) == category


@pytest.mark.parametrize(
    "name",
    [
        "",
        "melanoma metastasis",
        "melanoma vs nevus",
        "no melanoma",
        "epidermal nevus",
        "sebaceous nevus",
        "squamous cell carcinoma",
        "lentigo",
        "0",
    ],
)
def test_what_is_of_none_or_of_several(name):
    assert category_of(name) is None
