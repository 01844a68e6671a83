"""The benchmarks that choose networks and views, with a network that answers at once."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lesion.calibration import Calibration
from lesion.samples import DIAGNOSES
from lesion.splits import Split
from mrcnn.arrays import save_arrays
from mrcnn.images import write_image

IMAGES = 8


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
        names = ("ensemble_choice", "diagnosis_views")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture
def data(tmp_path):
    """A data set whose first half shows melanoma, and two splits of it by even and odd numbers."""
    rng = np.random.default_rng(0)
    rows = ["image,dx"]
    for number in range(IMAGES):
        image = rng.integers(0, 255, (8, 8, 3), np.uint8)
        write_image(tmp_path / "set" / "images" / f"i{number}.png", image)
        rows.append(f"i{number},{'mel' if number < IMAGES // 2 else 'nv'}")
    (tmp_path / "set" / "truth.csv").write_text("\n".join(rows))
    for first in (0, 1):
        keys = [f"set/i{number}" for number in range(first, IMAGES, 2)]
        Split({"train": [], "validation": keys}, 0, {}).save(tmp_path / f"split{first}.json")
    return tmp_path


@pytest.fixture
def asked(scripts, monkeypatch):
    """Has networks answer by their number, and lists how many images each call was asked."""
    counts = []

    def load(weights, views):
        def logits_of_views(images, patients):
            counts.append(len(images))
            rng = np.random.default_rng(len(Path(weights).read_bytes()))
            return rng.normal(size=(len(images), 8, len(DIAGNOSES)))

        return SimpleNamespace(
            logits_of_views=logits_of_views, weights=Path(weights), calibration=Calibration(1.0)
        )

    for script in vars(scripts).values():
        monkeypatch.setattr(script, "load_classifier", load)
    return counts


def network(path, length=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_arrays(path, {"a": np.ones(length, np.float32)}, {"task": "diagnosis"})
    return path


def test_kept_answers_are_of_the_images_asked_for(scripts, data, asked):
    weights = network(data / "w.h5")

    def choose(number):
        command = [f"--weights={weights}", f"--dataset={data / 'set'}", f"--keep={data / 'kept'}"]
        split = f"--split={data / f'split{number}.json'}"
        scripts.ensemble_choice.main([*command, split, f"--json={data / 'out.json'}"])
        return len(asked), json.loads((data / "out.json").read_text())["choices"]

    calls, first = choose(0)
    assert choose(0) == (calls, first)
    assert choose(1)[0] == 2 * calls


def test_networks_of_one_name_are_two(scripts, data, asked, capsys):
    paths = [
        network(data / run / "diagnosis_0010.h5", length) for run, length in (("a", 1), ("b", 99))
    ]
    command = [f"--weights={path}" for path in paths] + [f"--dataset={data / 'set'}"]
    out = data / "out.json"
    scripts.diagnosis_views.main([*command, f"--split={data / 'split0.json'}", f"--json={out}"])
    networks = json.loads(out.read_text())["networks"]
    assert list(networks) == ["1: diagnosis_0010.h5", "2: diagnosis_0010.h5", "all together"]
    assert len({json.dumps(figures) for figures in networks.values()}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights=missing.h5", "--dataset=set"], "missing.h5"),
        (["--weights=w.h5", "--dataset=nowhere"], "nowhere does not exist"),
        (["--weights=w.h5", "--dataset=set"], "no split beside the weights"),
    ],
)
def test_arguments_of_no_use_end_in_a_line(scripts, data, options, message, capsys, monkeypatch):
    monkeypatch.chdir(data)
    network(data / "w.h5")
    for script in vars(scripts).values():
        with pytest.raises(SystemExit, match="2"):
            script.main(options)
        assert message in capsys.readouterr().err
