"""Time of one image from file to results by stage, and of many with the memory they take.

Timed are the networks that are included, or those given; "none" leaves a task out. With `--random`
the others are networks of the default settings that have learned nothing, which are smaller than
the included ones. Measurements and pictures are made of a phantom's true masks.
`--images N` analyses a folder of N images, links to a few phantoms, as `lesion analyze` does.
Processor time is that of all threads: on a busy machine it says more than the clock.
"""

import functools
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from timing import milliseconds

# isort: split
import argparse

from lesion.analysis import Analysis
from lesion.analyze import analyze_images
from lesion.analyzer import Analyzer
from lesion.attributes import Attributes, AttributesConfig
from lesion.boundary import Boundary, BoundaryConfig
from lesion.diagnosis_network import DiagnosisConfig, DiagnosisNetwork, describe_network
from lesion.measurements import measure
from lesion.options import add_views, positive
from lesion.phantom import Phantom, draw_phantom
from lesion.quality import assess
from lesion.report import write_report
from lesion.results import Records, find_images, is_done, output_stems, write_results
from lesion.samples import ATTRIBUTES, TASKS
from lesion.weights import SHIPPED
from mrcnn.images import read_image, write_image
from mrcnn.model import MaskRCNN
from mrcnn.weights import save_weights

HEIGHT, WIDTH = 768, 1024
PHANTOMS = 20


def random_weights(task: str, folder: Path) -> Path:
    """Path of a weights file of a task, of a network that has learned nothing."""
    if task == "diagnosis":
        config = DiagnosisConfig()
        network, description = DiagnosisNetwork(config), describe_network(config)
    else:
        config = {"boundary": BoundaryConfig, "attributes": AttributesConfig}[task]()
        network = MaskRCNN("inference", config, "logs").keras_model
        description = {"config": config.to_dict()}
    path = folder / f"random_{task}.h5"
    save_weights(network, path, {**description, "task": task})
    return path


class Drawn(Analysis):
    """Keeps its pictures, so that writing alone is left."""

    overlay = functools.cache(Analysis.overlay)
    attribute_overlay = functools.cache(Analysis.attribute_overlay)


def stages(
    analyzer: Analyzer, path: Path, phantom: Phantom, out: Path
) -> dict[str, Callable[[], Any]]:
    """What is done with one image, step by step, by name."""
    analysis = analyzer.analyze(path)
    image = analysis.image
    found = {field.name: getattr(analysis, field.name) for field in fields(analysis)}
    found["boundary"] = Boundary(phantom.mask, 1.0, (0, 0, HEIGHT, WIDTH))
    found["attributes"] = Attributes(phantom.attributes, dict.fromkeys(phantom.attributes, 1.0))
    true, drawn = Analysis(**found), Drawn(**found)
    networks = {
        task: functools.partial(getattr(analyzer, task).predict, [image]) for task in analyzer.tasks
    }
    return {
        "read": lambda: read_image(path),
        "quality": lambda: assess(image),
        **networks,
        "measurements": lambda: measure(image, phantom.mask),
        "overlays": lambda: (true.overlay(), true.attribute_overlay()),
        "write": lambda: write_results(drawn, out, "stage"),
        "all, in one call": lambda: write_results(analyzer.analyze(path), out, "all"),
    }


def processor_milliseconds(function: Callable[[], Any], repeats: int) -> float:
    """Mean processor time of a call, all threads together."""
    start = time.process_time()
    for _ in range(repeats):
        function()
    return 1000 * (time.process_time() - start) / repeats


def peak_memory() -> float:
    """Of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def many(analyzer: Analyzer, paths: Sequence[Path], folder: Path, count: int) -> None:
    """Analyses `count` links to a few images, in quarters; prints time and memory of each."""
    analyzer.load()
    images, out = folder / "many", folder / "results"
    images.mkdir()
    for number in range(count):
        source = paths[number % len(paths)]
        os.link(source, images / f"{number:06d}{source.suffix}")
    stems = output_stems(find_images([images], out))
    items = list(stems.items())
    for quarter in range(4):
        part = dict(items[quarter * count // 4 : (quarter + 1) * count // 4])
        if not part:  # of fewer than four
            continue
        start, processor = time.perf_counter(), time.process_time()
        analyze_images(analyzer, part, out)
        spent, processor = time.perf_counter() - start, time.process_time() - processor
        print(
            f"{len(part)} images: {len(part) / spent:.2f} images/s, "
            f"{1000 * processor / len(part):.0f} ms of processor time each, "
            f"peak memory {peak_memory():,.0f} MiB",
            flush=True,
        )
    start = time.perf_counter()
    pages = write_report(out / "report.html", Records(out, stems.values()), [], out)
    spent = time.perf_counter() - start
    print(f"report of {len(pages)} pages: {spent:.1f} s, peak memory {peak_memory():,.0f} MiB")
    start = time.perf_counter()
    done = sum(is_done(path, analyzer.settings(), out, stem) for path, stem in items)
    print(f"finding {done} of them done in a further run: {time.perf_counter() - start:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="of the boundary task")
    parser.add_argument("--attributes-weights")
    parser.add_argument("--diagnosis-weights")
    parser.add_argument(
        "--random", action="store_true", help="tasks without weights get random ones"
    )
    add_views(parser)
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--images", type=int, default=0, metavar="N", help="also analyse so many")
    parser.add_argument("--batch", type=positive, default=4, help="of these, at once")
    arguments = parser.parse_args()
    given = (arguments.weights, arguments.attributes_weights, arguments.diagnosis_weights)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = [
            path or (random_weights(task, folder) if arguments.random else SHIPPED)
            for task, path in zip(TASKS, given, strict=True)
        ]
        start = time.perf_counter()
        analyzer = Analyzer(*weights, views=arguments.views).load()
        print(f"loading {', '.join(analyzer.tasks)}: {time.perf_counter() - start:.1f} s")
        paths = []
        for seed in range(PHANTOMS if arguments.images else 1):
            phantom = draw_phantom(seed, HEIGHT, WIDTH, attributes=ATTRIBUTES)
            paths.append(folder / f"phantom_{seed}.jpg")
            write_image(paths[-1], phantom.image)
        phantom = draw_phantom(0, HEIGHT, WIDTH, attributes=ATTRIBUTES)
        steps = stages(analyzer, paths[0], phantom, folder / "results")
        times = milliseconds(*steps.values(), repeats=arguments.repeats)
        print(f"one image of {WIDTH} x {HEIGHT} pixels, {os.cpu_count()} cores")
        print("\n| stage | ms | ms of processor time |\n|---|---|---|")
        for (stage, step), spent in zip(steps.items(), times, strict=True):
            processor = processor_milliseconds(step, arguments.repeats)
            print(f"| {stage} | {spent:.0f} | {processor:.0f} |")
        print(f"\nsum of the stages: {sum(times[:-1]):.0f} ms")
        if arguments.images:
            analyzer = Analyzer(*weights, views=arguments.views, batch=arguments.batch)
            many(analyzer, paths, folder, arguments.images)


if __name__ == "__main__":
    main()
