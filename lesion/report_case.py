"""What was found in one image, as HTML: a case of the report, and of a notebook."""

import base64
import io
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lesion import NOTICE
from lesion.attribute_overlay import ATTRIBUTE_COLORS, ATTRIBUTE_LABELS
from lesion.measurements import MIN_COLOR_SHARE, REFERENCE_COLORS
from lesion.patient import takes_patients, unrecognised
from lesion.report_style import CASE_STYLE

if TYPE_CHECKING:
    from lesion.analysis import Analysis

DIAGNOSIS_NAMES = {
    "MEL": "melanoma",
    "NV": "melanocytic nevus",
    "BCC": "basal cell carcinoma",
    "AKIEC": "actinic keratosis, Bowen’s disease",
    "BKL": "benign keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
}
PICTURE_SIDE = 512
_NOTEBOOK_SIDE = 360


def case_html(record: Mapping, pictures: Mapping[str, str]) -> str:
    """The parts of one case, to stand in an element of the class `lesion-case`.

    Args:
        record: as of `lesion.analysis.Analysis.to_dict`.
        pictures: addresses of its pictures: `overlay` and, if there are attributes,
            `attribute_overlay`.
    """
    return f"""<div class="parts">
<div class="pictures">
{"".join(_figures(record, pictures))}</div>
<div class="facts">
{"".join(facts_html(record))}</div>
</div>
"""


def _figures(record: Mapping, pictures: Mapping[str, str]) -> Iterator[str]:
    boundary, name = record["boundary"], escape(case_name(record))
    if boundary is None:
        caption = "The image"
    elif boundary["found"]:
        caption = f"Boundary, score {boundary['score']:.2f}"
    else:
        caption = "No lesion was found"
    yield _figure(pictures["overlay"], f"{name}: {caption}", caption)
    if record["attributes"] is not None:
        caption = "Dermoscopic attributes"
        yield _figure(pictures["attribute_overlay"], f"{name}: {caption}", caption)


def facts_html(record: Mapping) -> Iterator[str]:
    """What a record says in numbers: diagnosis, attributes, measurements, warnings."""
    found = []
    if record["diagnosis"] is not None:
        found.append(_diagnosis(record))
    if record["attributes"] is not None:
        found.append(_attributes(record["attributes"]))
    if found:
        yield f"<div>{''.join(found)}</div>\n"
    measured = record["measurements"]
    yield f"<div>{'' if measured is None else _measurements(measured)}"
    yield f"{_warnings(record['warnings'])}</div>\n"


def case_name(record: Mapping) -> str:
    """The name of the image's file, without folders."""
    source = record["source"]
    return "image" if source is None else source["path"].replace("\\", "/").rpartition("/")[2]


def notebook_html(analysis: "Analysis") -> str:
    """The case with its style and the notice, complete in itself."""
    record = analysis.to_dict()
    drawn = {"overlay": analysis.overlay(), "attribute_overlay": analysis.attribute_overlay()}
    pictures = {
        name: data_url(picture, _NOTEBOOK_SIDE)
        for name, picture in drawn.items()
        if picture is not None
    }
    return (
        f'<style>{CASE_STYLE}</style>\n<div class="lesion-case">\n'
        f"<h2>{escape(case_name(record))}</h2>\n{case_html(record, pictures)}"
        f'<p class="small"><strong>{escape(NOTICE)}</strong></p>\n</div>\n'
    )


def data_url(image: np.ndarray, side: int) -> str:
    """An image, reduced to `side` pixels at most, as a `data:` address."""
    content, picture = io.BytesIO(), Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    # Full resolution of colours, as the lines are thin and coloured.
    picture.save(content, "JPEG", quality=80, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def title_of(name: str) -> str:
    """`pigment_network` as a person would write it."""
    return name.replace("_", " ")


def color_swatch(color: tuple[int, int, int], name: str = "") -> str:
    """A small square of a colour, with a name where none stands beside it."""
    named = f' role="img" aria-label="{name}" title="{name}"' if name else ""
    return f'<span class="swatch" style="background:rgb{tuple(color)}"{named}></span>'


def attribute_swatch(name: str) -> str:
    """A small square of the colour in which pictures show an attribute."""
    return color_swatch(ATTRIBUTE_COLORS[name], ATTRIBUTE_LABELS[name])


def length_text(measurements: Mapping, name: str) -> str:
    """`diameter` or another length in millimetres, if these are known, and pixels."""
    pixels, millimetres = measurements[f"{name}_pixels"], measurements[f"{name}_mm"]
    if pixels is None:
        return "–"
    return _both(f"{pixels:,.0f} px", None if millimetres is None else f"{millimetres:.1f} mm")


def _both(pixels: str, millimetres: str | None) -> str:
    return pixels if millimetres is None else f"{millimetres} ({pixels})"


def _figure(address: str, alternative: str, caption: str) -> str:
    return (
        f'<figure><img src="{address}" alt="{alternative}" loading="lazy">'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _referral(refer: bool, settings: Mapping) -> str:
    """Whether an answer is referred, and what that says and does not say."""
    risk, sensitivity = settings.get("risk"), settings.get("melanoma_sensitivity")
    unsure, suspect = [], []
    if risk is not None or sensitivity is None:
        share = "some" if risk is None else f"{100 * risk:g}%"
        limit = f"below the threshold above which {share} of all answers may be wrong"
        unsure = [limit, f"{limit}, and more of those about melanoma"]
    if sensitivity is not None:
        limit = f"as near to melanoma as {100 * sensitivity:g}% of its images in validation were"
        suspect = [limit, limit]
    reasons = [reason[not refer] for reason in (unsure, suspect) if reason]
    if refer:
        return f"To be referred: {', or '.join(reasons)}."
    return f"Not {', nor '.join(reasons)}. This is no reassurance."


def _bars(rows: Mapping[str, float], swatches: Mapping[str, str] | None = None) -> str:
    """A bar for each value 0..1 by its name, which must be escaped."""
    lines = (
        f"<li><span>{(swatches or {}).get(name, '')}{name}</span>"
        f'<span class="track"><span class="fill" style="width:{value:.1%}"></span></span>'
        f'<span class="value">{value:.3f}</span></li>'
        for name, value in rows.items()
    )
    return f'<ul class="bars">{"".join(lines)}</ul>'


def _crops(model: Mapping) -> bool:
    """Whether all networks of a diagnosis crop images to the lesion by themselves."""
    return all(member.get("crop") == "lesion" for member in model.get("members", [model]))


_OF_SEVEN = (
    "They sum to 1 over these seven whatever the image shows, and are not those of any clinic’s "
    "patients: how frequent each category is taken to be was set in training."
)


def _diagnosis(record: Mapping) -> str:
    """Probabilities, what they are of, and whether they are to be relied on at all."""
    diagnosis = record["diagnosis"]
    rows = {
        f"{DIAGNOSIS_NAMES[name]} ({name})": probability
        for name, probability in diagnosis["probabilities"].items()
    }
    settings, notes = record.get("settings", {}), [_OF_SEVEN]
    if diagnosis["refer"] is not None:
        notes.append(_referral(diagnosis["refer"], settings))
    if record.get("nearby") and not _crops(record.get("models", {}).get("diagnosis", {})):
        notes.append("Of the square around the lesion, not of the whole image.")
    notes += _patient(settings.get("patient") or {}, record.get("models", {}).get("diagnosis", {}))
    small = "".join(f'<p class="small">{note}</p>' for note in notes)
    return f"<section><h3>Probabilities of the seven categories</h3>{_bars(rows)}{small}</section>"


def _patient(patient: Mapping, model: Mapping) -> list[str]:
    """What a diagnosis was told of the patient, apart from what means nothing to it."""
    facts = [f"{name} {value}" for name, value in patient.items()]
    unknown = unrecognised(patient) if takes_patients(model) else facts
    used = [fact for fact in facts if fact not in unknown]
    lines = (("Told of the patient", used), ("Not used of the patient", unknown))
    return [f"{words}: {escape(', '.join(these))}." for words, these in lines if these]


_OF_PRESENCE = "Scores from 0 to 1, not probabilities: they are not calibrated."


def _attributes(attributes: Mapping) -> str:
    rows = {ATTRIBUTE_LABELS[name]: found["presence"] for name, found in attributes.items()}
    swatches = {ATTRIBUTE_LABELS[name]: color_swatch(ATTRIBUTE_COLORS[name]) for name in attributes}
    note = f'<p class="small">{_OF_PRESENCE}</p>'
    return f"<section><h3>Presence of attributes</h3>{_bars(rows, swatches)}{note}</section>"


def _measurements(measured: Mapping) -> str:
    area = _both(
        f"{measured['area_pixels']:,} px",
        None if measured["area_mm2"] is None else f"{measured['area_mm2']:.1f} mm²",
    )
    numbers = {
        "Asymmetry, major axis": "asymmetry_major_axis",
        "Asymmetry, minor axis": "asymmetry_minor_axis",
        "Minor axis / major axis": "axis_ratio",
        "Border, compactness": "compactness",
        "Border, radial deviation": "radial_deviation",
    }
    rows = {
        "Area": area,
        "Share of the image": f"{measured['area_share']:.1%}",
        "Largest diameter": length_text(measured, "diameter"),
        "Diameter of an equal disc": length_text(measured, "equivalent_diameter"),
    }
    for label, name in numbers.items():
        rows[label] = "–" if measured[name] is None else f"{measured[name]:.3f}"
    shares = measured["color_shares"] or {}
    present = [
        f"{color_swatch(REFERENCE_COLORS[name])}{title_of(name)} {share:.0%}"
        for name, share in shares.items()
        if share >= MIN_COLOR_SHARE
    ]
    rows["Colours"] = "<br>".join(present) or "–"
    listed = "".join(
        f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in rows.items()
    )
    return f"<section><h3>Measurements</h3><dl>{listed}</dl></section>"


def _warnings(warnings: list[Mapping]) -> str:
    if not warnings:
        return ""
    listed = "".join(f"<li>{escape(warning['message'])}</li>" for warning in warnings)
    return f'<ul class="warnings" aria-label="Warnings">{listed}</ul>'
