"""What `lesion demo` does with the commands that it runs, without running them."""

from types import SimpleNamespace

import pytest

import lesion
import lesion.demo as demo


@pytest.fixture
def steps(monkeypatch):
    """Stand-ins for the commands, which remember their arguments; `codes` are what they return."""
    done = SimpleNamespace(train=[], evaluate=[], analyze=[], codes={})

    def stand_in(name):
        def main(arguments):
            getattr(done, name).append(arguments)
            return done.codes.get(name, 0)

        return SimpleNamespace(main=main)

    for name in ("train", "evaluate", "analyze"):
        monkeypatch.setattr(lesion, name, stand_in(name), raising=False)
    monkeypatch.setattr("mrcnn.runs.find_last", lambda logs, name: "last.h5")
    return done


@pytest.fixture
def command(tmp_path):
    return lambda *more: demo.main(["--images=2", "--shown=1", f"--out={tmp_path}", *more])


def test_a_second_time(steps, command, tmp_path, capsys):
    assert command() == command() == 0
    assert "--overwrite" in steps.analyze[1]  # of a report whose phantoms may be others
    assert str(tmp_path / "report" / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "evaluate", "analyze"])
def test_a_command_that_fails(steps, command, name):
    steps.codes[name] = 3
    assert command() == 3
    assert bool(steps.analyze) == (name == "analyze")


def test_stopped_training_is_not_to_be_continued(steps, command, capsys):
    steps.codes["train"] = 130
    assert command() == 130
    assert "The demo begins anew" in capsys.readouterr().err


def test_more_phantoms_than_there_are_names(steps, command, capsys):
    assert command("--images=1000001") == 2
    assert capsys.readouterr().err.startswith("lesion demo: ")
    assert not steps.train


def test_somebody_elses_images(steps, command, tmp_path, capsys):
    folder = tmp_path / "phantoms" / "ISIC2018_Task1-2_Training_Input"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"x")
    assert command() == 2
    assert "no phantom" in capsys.readouterr().err
