"""Analyses dermoscopic images: boundary, attributes, measurements, diagnosis, and a report of all.

    python lesion/analyze.py IMAGE_OR_FOLDER... --weights=PATH --out=DIR
        [--attributes-weights=PATH] [--diagnosis-weights=PATH]...

For each image a JSON record, masks and pictures are written (`lesion.results` says which), for all
together `report.html`; docs/analysis.md describes them. A further run with the same weights leaves
out what is done. A file that cannot be read stops nothing.

Exit codes:

    0    every image has its results
    1    some files could not be read; they are named, the others have theirs
    2    the command or the weights cannot be used; nothing was analysed
    3    the results cannot be written, or one of an earlier run is damaged
    130  stopped by Ctrl-C, SIGTERM or a terminal that is closed

After 3 and 130 the same command goes on from there, without `--overwrite`, which a damaged result
needs.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import os
from collections import Counter, deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from tqdm import tqdm

from lesion import NOTICE
from lesion.analyzer import Analyzer
from lesion.folders import ANALYSED_SUFFIXES, not_read
from lesion.metadata import image_name, read_patients, rows_of
from lesion.options import add_analyzer, analyzer_options, positive, rate
from lesion.patient import known_of
from lesion.printing import CommandParser
from lesion.report import page_of_another, write_report
from lesion.results import (
    Records,
    file_of_another,
    find_images,
    forget,
    is_done,
    output_stems,
    record_of_another,
    write_results,
)
from lesion.results_table import TABLE, table_of_another, write_results_table
from lesion.samples import Problem
from lesion.stopping import stoppable
from lesion.writing import writing_alone
from mrcnn.images import ImageError

REPORT = "report.html"
_WRITERS = 2
_FEW = 2  # images that take less time than compiling the networks does


def analyze_images(
    analyzer: Analyzer,
    stems: Mapping[Path, str],
    out: Path,
    millimetres_per_pixel: float | None = None,
    patients: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Problem]:
    """Analyses images and writes the results of each into a folder, without the report.

    While the networks have one batch, the next is read and the one before is measured and written.

    Args:
        analyzer: with its networks.
        stems: what the results of each image file are named after.
        out: the folder; it is made where it is missing.
        millimetres_per_pixel: the scale of all images, if known.
        patients: what is known of them, by `lesion.metadata.image_name`.

    Returns:
        the files that could not be read, or whose results are none that can be written, such as an
        overlay larger than a JPEG can be.

    Raises:
        OSError: the results cannot be written.
    """
    problems = []
    told = [(patients or {}).get(image_name(path.name)) for path in stems]
    results = zip(stems, analyzer.analyze_many(stems, told, millimetres_per_pixel), strict=True)
    # `disable=None` shows the bar on a terminal only.
    progress = tqdm(total=len(stems), desc="Analysing", unit="image", disable=None)
    with progress, ThreadPoolExecutor(_WRITERS) as pool:
        writing: deque[tuple[Path, Future]] = deque()

        def finish_oldest():
            path, written = writing.popleft()
            try:
                written.result()
            except ImageError as error:
                problems.append(Problem(path, str(error)))
            progress.update()

        for path, result in results:
            if isinstance(result, Problem):
                if os.access(path, os.R_OK):  # else it may be what it was, once it is back
                    forget(out, stems[path])
                problems.append(result)
                progress.update()
                continue
            written = pool.submit(write_results, result, out, stems[path])
            writing.append((path, written))
            # As many wait to be written as go through the networks at once, and no more.
            while len(writing) > analyzer.batch:
                finish_oldest()
        while writing:
            finish_oldest()
    return problems


def _quickest_for(count):
    """How networks run that so many images are left for; without any, no framework is loaded."""
    if not 0 < count <= _FEW:
        return contextlib.nullcontext()
    from mrcnn.tensors import step_by_step

    return step_by_step()


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="lesion analyze",
        description="Finds boundary, attributes and diagnosis in dermoscopic images, measures the "
        "lesions and writes a report.",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="IMAGE_OR_FOLDER", help="images, or folders of images"
    )
    add_analyzer(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the results"
    )
    parser.add_argument(
        "--millimetres-per-pixel",
        type=rate,
        metavar="X",
        help="scale of the images; without it lengths are in pixels alone",
    )
    parser.add_argument(
        "--patients",
        type=Path,
        metavar="CSV",
        help="table of the images' patients: image, age, sex, site (docs/analysis.md); used if the "
        "diagnosis' network has learned from such data, as the project's has",
    )
    parser.add_argument(
        "--batch", type=positive, default=4, metavar="N", help="images predicted at once (4)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="analyse again what has its results already"
    )
    return parser


@stoppable
def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    out = arguments.out
    try:
        if out.exists() and not out.is_dir():
            parser.error(f"--out {out} is a file; give a folder.")
        stems = output_stems(find_images(arguments.inputs, out))
        patients = read_patients(arguments.patients) if arguments.patients else {}
        rows = rows_of((image_name(path.name) for path in stems), patients)
        patients = {name: patients[row] for name, row in rows.items()}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    folders = [path for path in map(Path, arguments.inputs) if path.is_dir()]
    if others := not_read((p for each in folders for p in each.rglob("*.*")), ANALYSED_SUFFIXES):
        print(f"Not read, being no images in a format that can be: {others}.", file=sys.stderr)
    if arguments.patients:
        _check_patients(parser, arguments.patients, patients, stems)
    try:
        with writing_alone(out):
            return _run(arguments, stems, patients)
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The results cannot be written: {error}", file=sys.stderr)
    except ImageError as error:
        print(f"A result of an earlier run is damaged; use --overwrite. {error}", file=sys.stderr)
    except KeyboardInterrupt:
        goes_on = "The same command, without --overwrite," * arguments.overwrite
        print(f"Stopped. {goes_on or 'The same command'} goes on from here.", file=sys.stderr)
        return 130
    return 3


def _check_patients(parser, table, patients, paths):
    """Refuses a table that does not say whose image is meant, and names what means nothing."""
    paths = list(paths)
    times = Counter(name for path in paths if (name := image_name(path.name)) in patients)
    if not times:
        parser.error(f"The table {table} has no row for any of the images.")
    name, count = times.most_common(1)[0]
    if count > 1:
        parser.error(
            f"The table {table} speaks of {name}, and {count} of the images have that name. "
            "Analyse them one folder at a time, each with a table of its own."
        )
    if missing := len(paths) - len(times):
        print(f"Of {missing} of {len(paths)} images {table} says nothing.")
    known, *unknown = known_of([patients[name] for name in times])
    print(f"{table}: {known}")
    for line in unknown:
        print(f"{table}: {line}", file=sys.stderr)


def _run(
    arguments: argparse.Namespace,
    stems: Mapping[Path, str],
    patients: Mapping[str, Mapping[str, str]],
) -> int:
    out, scale = arguments.out, arguments.millimetres_per_pixel
    try:
        analyzer = Analyzer(**analyzer_options(arguments), batch=min(arguments.batch, len(stems)))
        left = {
            path: stem
            for path, stem in stems.items()
            if arguments.overwrite
            or not is_done(
                path, analyzer.settings(scale, patients.get(image_name(path.name))), out, stem
            )
        }
        for path, stem in left.items():
            other = None if arguments.overwrite else record_of_another(path, out, stem)
            if other is not None:
                before = " as it was, or of another image of that name" * (other == str(path))
                raise ValueError(
                    f"{out} holds the results of {other}{before} as {stem!r}, which those of "
                    f"{path} would replace; choose another folder with --out, or replace them by "
                    "--overwrite."
                )
            if foreign := file_of_another(out, stem):
                raise ValueError(
                    f"{foreign} is no result of `lesion analyze`, and one of {path} would replace "
                    "it; choose another folder with --out."
                )
        others = page_of_another(out / REPORT, len(stems)), table_of_another(out / TABLE)
        if foreign := next(filter(None, others), None):
            raise ValueError(
                f"{foreign} is no report of `lesion analyze`, which would replace it; choose "
                "another folder with --out."
            )
        if left:
            analyzer.load()
            if patients and not analyzer.takes_patients:
                print(
                    f"{arguments.patients} is not used: no network of the diagnosis has learned "
                    "from patient data.",
                    file=sys.stderr,
                )
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if len(left) < len(stems):
        print(f"{len(stems) - len(left)} of {len(stems)} images have their results already.")
    with _quickest_for(len(left)):
        problems = analyze_images(analyzer, left, out, scale, patients)
    failed = {problem.path for problem in problems}
    records = Records(out, (stem for path, stem in stems.items() if path not in failed))
    report = write_report(out / REPORT, records, problems, out)[0]
    write_results_table(out / TABLE, records)
    print(f"{len(records)} images analysed: {report}, {out / TABLE}")
    print(NOTICE)
    if problems:
        print(f"{len(problems)} of {len(stems)} files failed:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
