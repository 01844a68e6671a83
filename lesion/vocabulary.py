"""The seven categories under the names that tables of images have for them."""

import re

from lesion.samples import DIAGNOSES

# What each category holds by Tschandl et al. 2018, in the words of HAM10000, the ISIC archive, the
# challenge, PH2, Derm7pt and PAD-UFES, as far as these are of one category. The archive calls some
# AKIEC of HAM10000 "squamous cell carcinoma, NOS", which elsewhere may be any: it is of none.
# Nevi that are not melanocytic (epidermal, sebaceous, flammeus) are of none, either.
_WORDS = {
    "MEL": (
        "melanoma",
        "melanoma nos",
        "melanoma in situ",
        "melanoma invasive",
        "melanoma less than 0 76 mm",
        "melanoma 0 76 to 1 5 mm",
        "melanoma more than 1 5 mm",
        "malignant melanoma",
        "superficial spreading melanoma",
        "nodular melanoma",
        "acral lentiginous melanoma",
        "lentigo maligna",
        "lentigo maligna melanoma",
    ),
    "NV": (
        "nevus",
        "nev",
        *(
            f"{kind} nevus"
            for kind in (
                *("common", "melanocytic", "atypical", "dysplastic", "clark", "clark s", "blue"),
                *("combined", "congenital", "dermal", "intradermal", "junctional", "compound"),
                *("recurrent", "reed", "spitz", "reed or spitz", "spitz reed", "halo", "acral"),
                *("benign", "benign melanocytic", "common melanocytic", "atypical melanocytic"),
            )
        ),
    ),
    "BCC": ("basal cell carcinoma",),
    "AKIEC": (
        "ak",  # in ISIC 2019, without the carcinomas that it lists apart
        "ack",
        "actinic keratosis",
        "solar or actinic keratosis",
        "intraepithelial carcinoma",
        "actinic keratosis intraepithelial carcinoma",
        "actinic keratosis and intraepithelial carcinoma",
        "actinic keratosis and intraepithelial carcinoma bowen s disease",
        "actinic keratosis bowen s disease",
        "actinic keratosis bowen s disease intraepithelial carcinoma",
        "bowen s disease",
        "bowens disease",
        "squamous cell carcinoma in situ",
        "squamous cell carcinoma in situ bowens disease",
    ),
    "BKL": (
        "sk",
        "sek",
        "benign keratosis",
        "benign keratosis like lesion",
        "benign keratosis solar lentigo seborrheic keratosis lichen planus like keratosis",
        "pigmented benign keratosis",
        "seborrheic keratosis",
        "solar lentigo",
        "lichenoid keratosis",
        "lichen planus like keratosis",
    ),
    "DF": ("dermatofibroma",),
    "VASC": (
        "vascular",
        "vascular lesion",
        "angioma",
        "cherry angioma",
        "hemangioma",
        "cherry hemangioma",
        "angiokeratoma",
        "pyogenic granuloma",
        "hemorrhage",
    ),
}
_CATEGORIES = {
    **{name.lower(): name for name in DIAGNOSES},
    **{word: name for name, words in _WORDS.items() for word in words},
}
# British spelling and plurals, within a name.
_SAME = (("naev", "nev"), ("haem", "hem"), ("rrhoe", "rrhe"), ("nevi", "nevus"), ("toses", "tosis"))


def category_of(name: str) -> str | None:
    """The one of `DIAGNOSES` that a diagnosis is of, by its code or name; None if it is of none.

    Case, hyphens, brackets and the like do not matter, nor do British spelling and plurals; a name
    may have its code beside it.
    """
    words = " ".join(re.findall(r"[a-z0-9]+", name.lower()))
    for other, usual in _SAME:
        words = words.replace(other, usual)
    return _known(words) or _with_code(words)


def _known(words):
    return _CATEGORIES.get(words) or _CATEGORIES.get(words.removesuffix("s"))


def _with_code(words):
    """Of a name with the code of its category before or after it, such as "melanoma (MEL)"."""
    (first, _, rest), (start, _, last) = words.partition(" "), words.rpartition(" ")
    for code, name in ((first, rest), (last, start)):
        if code.upper() in DIAGNOSES and _known(name) == code.upper():
            return code.upper()
    return None
