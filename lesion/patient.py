"""What is known of the patient, as numbers for the classifier; all of it may be missing."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

SEXES = ("female", "male")
# The localisations of HAM10000, in its words.
SITES = (
    "abdomen",
    "acral",
    "back",
    "chest",
    "ear",
    "face",
    "foot",
    "genital",
    "hand",
    "lower extremity",
    "neck",
    "scalp",
    "trunk",
    "upper extremity",
)
# Other words for the same. What may mean several of HAM10000's sites, as most words of the archive
# do (its anterior torso is HAM10000's abdomen or chest), is not among them.
SAME = {
    "sex": {
        **dict.fromkeys(("f", "w", "woman", "weiblich"), "female"),
        **dict.fromkeys(("m", "man", "männlich"), "male"),
    },
    "site": {"posterior torso": "back"},
}
NAMES = {
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "site": (
        *("site", "localization", "anatom_site_general", "anatom_site_general_challenge"),
        *("location", "anatomical_site", "anatomic_site"),
    ),
}
"""Names of what is known of a patient, also HAM10000's and the archive's; the first counts."""
_SHOWN = 3  # words that mean nothing, by name
OLDEST = 120
"""Years; a greater age is taken for a mistake."""
NOTHING_KNOWN = (
    "--patient-data was given, and nothing is known of any image's patient: no table of the data "
    "sets tells age, sex or site. Leave the option out."
)
VECTOR_SIZE = 2 + len(SEXES) + len(SITES)

UNKNOWN = frozenset(
    {"", "-", "--", "–", "—", "?", "na", "nan", "none", "n/a", "n.a.", "null", "k.a.", "unknown"}
    | {"#n/a", "#na", "<na>", "nat", ".", "missing", "not available"}
    | {"not known", "unbekannt", "keine angabe"}
)
"""How tables say that something is not known, in lower case: also in R, pandas and Excel."""


def told(metadata: Mapping[str, object]) -> dict[str, str]:
    """What of `age`, `sex` and `site` is there, as text, and nothing else.

    Age and site also under the names that HAM10000 and the archive have for them.
    """
    return {name: text for name in ("age", "sex", "site") if (text := _text(metadata, name))}


def checked_patient(patient: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """What somebody tells of a patient, as it is.

    Raises:
        TypeError: if it is no mapping.
        ValueError: if a key is none of `NAMES`, so that what it tells would be passed over.
    """
    if patient is not None and not isinstance(patient, Mapping):
        raise TypeError(f"`patient` is a mapping such as {{'age': 50}}; received {patient!r}.")
    known = {*sum(NAMES.values(), ()), "confirmation"}  # which samples of data sets have besides
    if unknown := sorted(map(str, (patient or {}).keys() - known)):
        raise ValueError(
            f"`patient` has the unknown key {', '.join(map(repr, unknown))}; known are 'age', "
            "'sex' and 'site'."
        )
    return patient


def takes_patients(model: Mapping) -> bool:
    """Whether a network of the diagnosis, by its description, has learned from patient data."""
    return any(member.get("patient_data") for member in model.get("members", [model]))


def unrecognised(metadata: Mapping[str, object]) -> list[str]:
    """What of a patient is there and means nothing to `patient_vector`, such as `sex x`."""
    sex, site = (_text(metadata, name) for name in ("sex", "site"))
    age = _text(metadata, "age")
    return [
        *([f"age {age}"] if age and read_age(metadata) is None else []),
        *([f"sex {sex}"] if sex and sex not in SEXES else []),
        *([f"site {site}"] if site and site not in SITES else []),
    ]


def _text(metadata, name):
    for value in (metadata.get(each) for each in NAMES[name]):
        text = "" if value is None else str(value).strip().lower()
        if text not in UNKNOWN:
            return SAME.get(name, {}).get(text, text)
    return ""


def read_age(metadata: Mapping[str, object]) -> float | None:
    """The age in years; None where it is missing, or no number from 0 to `OLDEST`."""
    try:
        age = float(_text(metadata, "age").replace(",", "."))
    except ValueError:
        return None
    return age if math.isfinite(age) and 0 <= age <= OLDEST else None


def known_of(patients: Sequence[Mapping[str, object]]) -> list[str]:
    """Lines of text: how much is known of patients, and what of it means nothing, if anything."""
    counts = Counter(name for patient in map(_meant, patients) for name in patient)
    known = ", ".join(f"{name} of {counts[name]}" for name in ("age", "sex", "site"))
    lines = [f"Known of the patients of {len(patients)} images: {known}."]
    unknown = Counter(value for patient in patients for value in unrecognised(patient))
    for value, count in unknown.most_common(_SHOWN):
        lines.append(f"{value} ({count} x) is not known, and not used.")
    if len(unknown) > _SHOWN:
        lines.append(f"So are {len(unknown) - _SHOWN} other values.")
    return lines


def _meant(metadata):
    """What of a patient means something to `patient_vector`."""
    known = {"age": read_age(metadata) is not None}
    for name, words in (("sex", SEXES), ("site", SITES)):
        known[name] = _text(metadata, name) in words
    return [name for name, means in known.items() if means]


def patient_vector(metadata: Mapping[str, object]) -> np.ndarray:
    """Age, sex and site as float32 [VECTOR_SIZE]; zeros where unknown.

    Args:
        metadata: `age` in years, `sex` (`SEXES`) and `site` (`SITES`), as text; None is unknown, as
            is whatever else is not among these.
    """
    age = read_age(metadata)
    sex, site = (_text(metadata, name) for name in ("sex", "site"))
    return np.array(
        [
            0.0 if age is None else age / 100,
            age is not None,
            *(sex == name for name in SEXES),
            *(site == name for name in SITES),
        ],
        np.float32,
    )
