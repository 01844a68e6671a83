"""The report of an analysis: one HTML file that needs nothing besides itself."""

import base64
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from PIL import Image

from lesion import NOTICE
from lesion.overlay import PREDICTION_COLOR
from lesion.samples import Problem
from mrcnn.files import atomic_path
from mrcnn.images import read_image

_THUMBNAIL_SIDE = 560

# The policy makes a browser refuse whatever the file should not need: scripts, fonts, the network.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Lesion boundaries</title>
<style>
:root { color-scheme: light dark; --page: #f5f5f3; --card: #fff; --text: #1c1c1a;
  --quiet: #5c5c57; --rule: #dcdcd6; --alert: #fff3d6; --alert-text: #5c3d00;
  --picture: #e8e8e4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #151515; --card: #212121; --text: #ececea; --quiet: #a9a9a4; --rule: #383836;
    --alert: #3b2f10; --alert-text: #ffdf9c; --picture: #0c0c0c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.notice { margin: 0; padding: .6rem 1rem; background: var(--alert); color: var(--alert-text);
  font-weight: 600; text-align: center; }
main, footer { max-width: 82rem; margin: 0 auto; padding: 1rem; }
h1 { margin: .5rem 0 0; font-size: 1.5rem; line-height: 1.25; }
h2 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.summary { margin: .25rem 0 1.25rem; color: var(--quiet); }
.key { white-space: nowrap; margin-left: .8em; }
.line { display: inline-block; width: 1.6em; height: .3em; margin-right: .4em;
  vertical-align: middle; border: 1px solid #101010; border-radius: 2px; }
.cards { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
article { display: flex; flex-direction: column; overflow: hidden; background: var(--card);
  border: 1px solid var(--rule); border-radius: .5rem; break-inside: avoid; }
article img { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain;
  background: var(--picture); }
article > div { padding: .75rem 1rem 1rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem 1rem; margin: .5rem 0 0; }
dt { color: var(--quiet); }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.warnings, .failed { margin: .75rem 0 0; padding: .5rem .75rem; list-style: none;
  background: var(--alert); color: var(--alert-text); border-radius: .35rem; font-size: .9rem; }
.failed { margin-bottom: 1rem; overflow-wrap: anywhere; }
footer { color: var(--quiet); font-size: .875rem; }
footer dl { justify-content: start; grid-template-columns: auto auto; }
footer dd { text-align: left; }
@media (max-width: 30rem) { main, footer { padding: .75rem; } }
@media print { body { background: #fff; } }
</style>
</head>
"""


def write_report(
    path: str | Path,
    records: Sequence[dict],
    problems: Sequence[Problem],
    folder: str | Path,
    model: dict,
) -> None:
    """Writes the report, one image after the other, so that memory does not grow with them.

    Args:
        path: of the HTML file.
        records: what `lesion.analyze.analyze_images` found, one per image.
        problems: files that failed.
        folder: where the overlays are that the records name.
        model: what the predictor says of itself.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(_HEAD)
        file.writelines(_body(records, problems, Path(folder), model))


def _body(
    records: Sequence[dict], problems: Sequence[Problem], folder: Path, model: dict
) -> Iterable[str]:
    found = sum(record["found"] for record in records)
    failed = f", {_count(len(problems), 'file')} failed" if problems else ""
    color = f"rgb{PREDICTION_COLOR}"
    yield (
        f'<body>\n<p class="notice" role="note">{escape(NOTICE)}</p>\n<main>\n'
        "<h1>Lesion boundaries</h1>\n"
        f'<p class="summary">{_count(len(records), "image")} analysed, '
        f"a lesion found in {found:,}{failed}. "
        f'<span class="key"><span class="line" style="background:{color}"></span>'
        "predicted boundary</span></p>\n"
    )
    if problems:
        yield '<ul class="failed">\n<li><strong>Files that could not be analysed</strong></li>\n'
        yield from (f"<li>{escape(str(problem))}</li>\n" for problem in problems)
        yield "</ul>\n"
    yield '<div class="cards">\n'
    yield from (_card(record, folder) for record in records)
    yield "</div>\n</main>\n<footer>\n<dl>\n"
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    for name, value in {**model, "report made": made}.items():
        yield f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>\n"
    yield f"</dl>\n<p>{escape(NOTICE)}</p>\n</footer>\n</body>\n</html>\n"


def _card(record: dict, folder: Path) -> str:
    name = escape(record["file"])
    size, area = record["size"], record["area"]
    rows = {
        "Score": f"{record['score']:.3f}" if record["found"] else "no lesion found",
        "Area": f"{area['fraction']:.1%} of the image",
        "": f"{area['pixels']:,} pixels",
        "Image": f"{size['width']:,} × {size['height']:,}",
    }
    segmentation = record["outputs"]["segmentation"]
    if not segmentation.startswith(f"{Path(record['file']).stem}_segmentation"):
        # Another image of the same name made the results take a number.
        rows["Mask"] = segmentation
    facts = "".join(f"<dt>{label}</dt><dd>{escape(text)}</dd>" for label, text in rows.items())
    warnings = "".join(f"<li>{escape(warning)}</li>" for warning in record["warnings"])
    listed = f'<ul class="warnings">{warnings}</ul>' if warnings else ""
    shows = "with the predicted boundary" if record["found"] else "without a predicted boundary"
    picture = _thumbnail(folder / record["outputs"]["overlay"])
    return (
        f'<article><img src="{picture}" alt="{name} {shows}">'
        f'<div title="{escape(record["path"])}"><h2>{name}</h2><dl>{facts}</dl>{listed}</div>'
        "</article>\n"
    )


def _thumbnail(path: Path) -> str:
    """The image, reduced, as a `data:` address."""
    content = io.BytesIO()
    image = Image.fromarray(read_image(path, max_side=_THUMBNAIL_SIDE))
    image.save(content, "JPEG", quality=82, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
