"""The report of an analysis: HTML that needs nothing besides itself.

Up to `MAX_EMBEDDED` images give one file with all pictures in it, some 25 MB at the most. More of
them give pages of as many cases (`report.html`, `report_2.html`, ...), which show the pictures that
lie beside them: 10,000 images in one file would be a gigabyte, which no browser opens.
"""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from lesion import NOTICE
from lesion.folders import image_stem
from lesion.overlay import PREDICTION_COLOR
from lesion.report_case import (
    DIAGNOSIS_NAMES,
    PICTURE_SIDE,
    attribute_swatch,
    case_html,
    case_name,
    color_swatch,
    data_url,
    title_of,
)
from lesion.report_style import SCRIPT, head
from lesion.results import OVERLAY, is_foreign
from lesion.samples import Problem
from mrcnn.files import atomic_path
from mrcnn.images import read_image

MAX_EMBEDDED = 200
"""Cases on a page, and the most of which pictures are kept in the page itself."""

_TITLE = "Analysis of dermoscopic images"
_THUMBNAIL_SIDE = 120


def write_report(
    path: str | Path, records: Sequence[Mapping], problems: Sequence[Problem], folder: str | Path
) -> list[Path]:
    """Writes the report, one case after the other, so that memory does not grow with them.

    Args:
        path: of the HTML file; further pages are numbered.
        records: as of `lesion.analysis.Analysis.to_dict`, with `outputs`, the names of the
            pictures; each is read several times.
        problems: files that failed.
        folder: where the pictures are. `path` must be in it if there are several pages.

    Returns:
        the pages.
    """
    path, folder = Path(path), Path(folder)
    starts, pages = itertools.count(0, MAX_EMBEDDED), _pages(path, len(records))
    for number, (page, start) in enumerate(zip(pages, starts, strict=False)):
        with (
            atomic_path(page) as temporary,
            # Names of files need not be text: what UTF-8 has no letter for becomes a "?".
            temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file,
        ):
            chosen = range(start, min(start + MAX_EMBEDDED, len(records)))
            file.write(head(_TITLE, linked=len(pages) > 1))
            file.writelines(_body(records, chosen, problems, folder, pages, number))
    for left_over in _former_pages(path, len(pages) + 1):
        left_over.unlink()
    return pages


def page_of_another(path: str | Path, count: int) -> Path | None:
    """A file that is no report, and that the report of `count` cases would replace."""
    return next(filter(is_foreign, _pages(Path(path), count)), None)


def _pages(path, count):
    more = range(2, -(-count // MAX_EMBEDDED) + 1)
    return [path, *(path.with_stem(f"{path.stem}_{number}") for number in more)]


def _former_pages(path, first):
    """The pages of an earlier report from a number on, up to the first that is missing or none."""
    for number in itertools.count(first):
        page = path.with_stem(f"{path.stem}_{number}")
        if not page.is_file() or is_foreign(page):
            return
        yield page


def _body(records, chosen, problems, folder, pages, number) -> Iterator[str]:
    page_of = f", page {number + 1} of {len(pages)}" if len(pages) > 1 else ""
    failed = f", {_count(len(problems), 'file')} failed" if problems else ""
    yield (
        f'<body>\n<p class="notice" role="note">{escape(NOTICE)}</p>\n<main>\n<h1>{_TITLE}</h1>\n'
        f'<p class="summary">{_count(len(records), "image")} analysed{failed}{page_of}</p>\n'
    )
    if problems and number == 0:
        yield '<ul class="failed">\n<li><strong>Files that could not be analysed</strong></li>\n'
        yield from (f"<li>{escape(str(problem))}</li>\n" for problem in problems)
        yield "</ul>\n"
    navigation = _navigation(pages, number)
    yield navigation
    if chosen:
        pictures = _linked if len(pages) > 1 else _embedded
        yield from _table(records, chosen, folder, pictures)
        for index in chosen:
            yield _case(records[index], index, folder, pictures)
    yield f"{navigation}</main>\n<footer>\n"
    models = records[0]["models"] if len(records) else {}
    for task, model in models.items():
        yield f"<h2>{escape(title_of(task)).capitalize()}</h2>\n<dl>\n"
        yield from _described({name: value for name, value in model.items() if name != "task"})
        yield "</dl>\n"
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    version = {"lesion": records[0]["settings"]["version"]} if len(records) else {}
    yield "<h2>Report</h2>\n<dl>\n"
    yield from _described({**version, "made": made})
    yield f"</dl>\n<p>{escape(NOTICE)}</p>\n</footer>\n"
    yield f"<script>{SCRIPT}</script>\n</body>\n</html>\n"


def _described(values: Mapping) -> Iterator[str]:
    for name, value in values.items():
        if value is None or isinstance(value, dict) or name == "members":
            continue  # thresholds and the like are in the records
        if isinstance(value, list):  # [height, width]; pages give the width first
            value = " × ".join(map(str, reversed(value)))
        text = str(value)
        yield f"<dt>{escape(title_of(str(name)))}</dt><dd>{escape(text)}</dd>\n"


def _navigation(pages: Sequence[Path], number: int) -> str:
    if len(pages) == 1:
        return ""
    current = ' aria-current="page"'
    links = "".join(
        f'<li><a href="{quote(page.name)}"{current if index == number else ""}>{index + 1}</a></li>'
        for index, page in enumerate(pages)
    )
    return f'<nav aria-label="Pages"><ul class="pages">{links}</ul></nav>\n'


def _table(records, chosen, folder, pictures) -> Iterator[str]:
    """The table of a page's cases; its columns are those of the tasks that were done."""
    yield (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of all cases">\n'
        '<table class="cases">\n<thead><tr><th scope="col">Picture</th>'
        '<th scope="col" data-sort="text">Image</th>'
    )
    # Lengths in pixels of images of several scales do not compare.
    lengths = [records[i]["measurements"] or {} for i in chosen]
    scaled = [each["diameter_mm"] is not None for each in lengths if each.get("diameter_pixels")]
    scaled = bool(scaled) and all(scaled)
    for cell in _cells(records[chosen[0]], scaled):
        yield f'<th scope="col" data-sort="{cell.kind}" class="{cell.kind}">{cell.heading}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for index in chosen:
        record = records[index]
        name = escape(case_name(record))
        address = pictures(folder / record["outputs"]["overlay"], _THUMBNAIL_SIDE)
        yield (
            f'<tr><td><img src="{address}" alt="" loading="lazy"></td>'
            f'<th scope="row" data-value="{name}"><a href="#case-{index + 1}">{name}</a></th>'
        )
        for cell in _cells(record, scaled):
            yield f'<td class="{cell.kind}" data-value="{cell.value}">{cell.text}</td>'
        yield "</tr>\n"
    yield "</tbody>\n</table>\n</div>\n"


class _Cell(NamedTuple):
    """A cell of the table: HTML, and what its column is sorted by ("" comes last)."""

    heading: str
    text: str
    value: object
    kind: str = "number"


def _cells(record: Mapping, scaled: bool) -> Iterator[_Cell]:
    """A case's cells after its name; all cases of one analysis have the same columns.

    Args:
        record: of the case.
        scaled: whether lengths are known in millimetres, of all cases of the page; else they are in
            pixels.
    """
    boundary, measured, diagnosis, attributes = (
        record[name] for name in ("boundary", "measurements", "diagnosis", "attributes")
    )
    if diagnosis is not None:
        category = diagnosis["category"]
        name = f'<abbr title="{DIAGNOSIS_NAMES[category]}">{category}</abbr>'
        refer = " – refer" if diagnosis["refer"] else ""
        yield _Cell("Most probable", name + refer, category, "text")
        yield _number("Probability", diagnosis["probabilities"][category], ".3f")
        yield _number("Melanoma", diagnosis["probabilities"]["MEL"], ".3f")
    if attributes is not None:
        found = [name for name in attributes if attributes[name]["area_pixels"]]
        yield _Cell("Attributes", "".join(map(attribute_swatch, found)) or "–", len(found))
    if boundary is not None:
        yield _number("Score", boundary["score"], ".2f")
        yield _number("Area", measured["area_share"] or None, ".1%")
        unit, form = ("mm", ",.1f") if scaled else ("pixels", ",.0f")
        yield _number(f"Diameter, {unit}", measured[f"diameter_{unit}"], form)
        yield _number("Asymmetry", measured["asymmetry_major_axis"], ".3f")
        yield _number("Compactness", measured["compactness"], ".2f")
        colors = measured["colors"]
        yield _number("Colours", None if colors is None else len(colors), "d")
    yield _number("Warnings", len(record["warnings"]), "d")


def _number(heading, value, form):
    if value is None:
        return _Cell(heading, "–", "")
    return _Cell(heading, format(value, form), value)


def _case(record: Mapping, index: int, folder: Path, pictures) -> str:
    outputs, size = record["outputs"], record["size"]
    path = record["source"]["path"] if record["source"] else case_name(record)
    about = f"{path}, {size['width']:,} × {size['height']:,} pixels"
    stem = outputs["overlay"].removesuffix(OVERLAY)
    if stem != image_stem(case_name(record)):
        # Another image of the same name made the results take a number.
        about += f", results in {stem}_…"
    addresses = {
        name: pictures(folder / outputs[name], PICTURE_SIDE)
        for name in ("overlay", "attribute_overlay")
        if name in outputs
    }
    key = ""
    if record["boundary"] is not None and record["boundary"]["found"]:
        key = f" {color_swatch(PREDICTION_COLOR)}predicted boundary"
    return (
        f'<article class="lesion-case" id="case-{index + 1}">\n'
        f"<h2>{escape(case_name(record))}</h2>\n"
        f'<p class="about">{escape(about)}.{key}</p>\n{case_html(record, addresses)}</article>\n'
    )


def _embedded(path: Path, side: int) -> str:
    return data_url(read_image(path, max_side=side), side)


def _linked(path: Path, side: int) -> str:
    return quote(os.fsencode(path.name))  # a name need not be text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
